//! The tunnel port: who comes from other clusters, told apart by the ClientHello.
//!
//! A server name that an ExportPolicy opened to direct clients goes to its endpoints, ending TLS here or
//! passing it through; else the protocol name decides, and whatever speaks neither is closed.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use corinth_core::DirectClient;
use corinth_daemon::drain::DrainGuard;
use corinth_model::{Direct, Failure, Reason, Refusal, SniName, Tables};
use corinth_transport::tls;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tracing::debug;

use crate::{
    handover,
    inbound::find_endpoint,
    intake::{self, Hello},
    limits::Place,
    record::{Intake, Record},
    relay::{self, Carried},
    said::Said,
    shared::{PermitGuard, Shared},
    splice,
};

/// Serves one connection that arrived at the tunnel port.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    mut socket: TcpStream,
    source: SocketAddr,
    working: DrainGuard,
) {
    let began = Instant::now();
    // It fails only on a socket that is gone, which reading finds out.
    let _ = socket.set_nodelay(true);
    let Some(place) = shared.half_open.enter(source.ip(), began) else {
        let reason = Reason::Failed(Failure::TooManyConnections);
        return intake::turn_away(shared, socket, source, Intake::Tunnel, reason, began);
    };
    // Phases that are brief or rare are on the heap: the task keeps room for its largest one as long as it lives.
    let hello = Box::pin(intake::read_hello(&mut socket));
    let hello = match timeout(shared.times().request, hello).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(refused)) => {
            let _ = socket.write_all(&refused.alert).await;
            let reason = Reason::Failed(refused.failure);
            return intake::turn_away(shared, socket, source, Intake::Tunnel, reason, began);
        }
        Err(_) => {
            let reason = Reason::Failed(Failure::TlsTimeout);
            return intake::turn_away(shared, socket, source, Intake::Tunnel, reason, began);
        }
    };
    if let Some((sni, way)) = direct(shared, &hello) {
        let served = serve_direct(shared, socket, source, hello, &sni, way, place, began);
        Box::pin(served).await;
        return drop(working);
    }
    if hello.alpn.iter().any(|name| name == tls::ALPN) {
        // A tunnel connection lasts; its streams are what a drain waits for.
        drop(working);
        return serve_tunnel(shared, socket, source, hello.bytes, place, began).await;
    }
    if let Some(control) = &shared.control
        && hello.alpn.iter().any(|name| name == handover::LINK_ALPN)
    {
        let joined = handover::join(shared, control, socket, source, hello.bytes, place, began);
        Box::pin(joined).await;
        return drop(working);
    }
    let reason = match hello.sni() {
        Err(Reason::Failed(Failure::NoSni)) if hello.alpn.is_empty() => {
            Reason::Failed(Failure::NoSni)
        }
        _ => Reason::Failed(Failure::AlpnRefused),
    };
    intake::turn_away(shared, socket, source, Intake::Tunnel, reason, began);
}

/// A route opened to direct clients, if the ClientHello names one.
fn direct(shared: &Shared, hello: &Hello) -> Option<(SniName, Direct)> {
    let sni = hello.sni().ok()?;
    let tables = Arc::clone(&shared.tables.borrow());
    let way = tables.exports.direct(&sni)?.direct.clone();
    Some((sni, way))
}

async fn serve_tunnel(
    shared: &Arc<Shared>,
    socket: TcpStream,
    source: SocketAddr,
    received: Vec<u8>,
    place: Place,
    began: Instant,
) {
    let accepted = match Box::pin(shared.transports.tls.accept(socket, received)).await {
        Ok(accepted) => accepted,
        Err(error) => {
            debug!(%source, %error, "tunnel handshake refused");
            let record = Record::open(&shared.telemetry, Intake::Tunnel, source, began);
            record.close(
                &Carried::default(),
                Reason::Failed(error.failure()),
                Instant::now(),
            );
            return;
        }
    };
    drop(place);
    shared.half_open.verified(source.ip(), Instant::now());
    // A task of its own, which lasts: this one has grown with the handshake.
    tokio::spawn(carry(Arc::clone(shared), accepted, source, began));
}

#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice"
)]
fn carry(
    shared: Arc<Shared>,
    accepted: tls::Accepted,
    source: SocketAddr,
    began: Instant,
) -> impl Future<Output = ()> {
    async move {
        let peer = Arc::clone(accepted.peer());
        if let Err(error) = shared.transports.tls.serve(accepted).await {
            debug!(%peer, %error, "tunnel connection ended");
            note_breach(&shared, source, error.failure(), began);
        }
    }
}

/// A path that broke is told by the link and its streams; a peer that broke the rules by nobody else.
fn note_breach(shared: &Shared, source: SocketAddr, failure: Failure, began: Instant) {
    let is_breach = matches!(
        failure,
        Failure::ProtocolViolation | Failure::HeaderInvalid | Failure::FirstFrameTimeout
    );
    if is_breach {
        let reason = Reason::Failed(failure);
        intake::note(shared, source, Intake::Tunnel, reason, began);
    }
}

async fn serve_direct(
    shared: &Arc<Shared>,
    socket: TcpStream,
    source: SocketAddr,
    hello: Hello,
    sni: &SniName,
    way: Direct,
    place: Place,
    began: Instant,
) {
    let mut record = Record::open(&shared.telemetry, Intake::Direct, source, began);
    let carried = Carried::default();
    let reason = match way {
        Direct::Passthrough { .. } => {
            let client = DirectClient::Anonymous(source.ip());
            let said = Said::of(hello.bytes);
            pass_through(
                shared,
                socket,
                sni,
                &client,
                &said,
                place,
                &mut record,
                &carried,
            )
            .await
        }
        Direct::Terminate { .. } => {
            terminate(
                shared,
                socket,
                sni,
                hello.bytes,
                place,
                &mut record,
                &carried,
            )
            .await
        }
    };
    record.close(&carried, reason, Instant::now());
}

async fn pass_through(
    shared: &Arc<Shared>,
    socket: TcpStream,
    sni: &SniName,
    client: &DirectClient,
    said: &Said,
    place: Place,
    record: &mut Record<'_>,
    carried: &Carried,
) -> Reason {
    relay::arm(&socket);
    let (endpoint, _permit) = match reach(shared, sni, client, record).await {
        Ok(reached) => reached,
        Err(reason) => {
            relay::abort(socket);
            return reason;
        }
    };
    // Nobody ever proves who this client is: it keeps its place among those for as long as it stays.
    let _place = place;
    let idle = shared.times().idle;
    let relayed = tokio::select! {
        biased;
        () = withdrawn(shared, sni, client) => Err(Failure::Withdrawn),
        relayed = splice::run_after(said, &socket, &endpoint, idle, carried) => relayed,
        failure = shared.terminated() => Err(failure),
    };
    match relayed {
        Ok(()) => Reason::Completed,
        Err(failure) => {
            relay::abort(socket);
            relay::abort(endpoint);
            Reason::Failed(failure)
        }
    }
}

/// Admits a direct client and connects to an endpoint for it.
async fn reach<'a>(
    shared: &'a Arc<Shared>,
    sni: &SniName,
    client: &DirectClient,
    record: &mut Record<'_>,
) -> Result<(TcpStream, PermitGuard<'a>), Reason> {
    let admitted = shared.core.lock().admit_direct(sni, client, Instant::now());
    let admission = admitted.map_err(Reason::Refused)?;
    let permit = PermitGuard {
        shared,
        permit: admission.permit,
    };
    let route = admission.export.route_name();
    record.route = Some(Box::new(route.clone()));
    let protocol = admission.export.protocol;
    let endpoint = find_endpoint(shared, &route, protocol, &admission, record)
        .await
        .map_err(Reason::Failed)?;
    record.accepted(Instant::now());
    Ok((endpoint, permit))
}

/// Resolves when a direct client may no longer reach what it was admitted to.
async fn withdrawn(shared: &Shared, sni: &SniName, client: &DirectClient) {
    let mut tables = shared.tables.subscribe();
    let is_denied = || match client {
        DirectClient::Identified(caller) => shared.denials.contains(caller),
        DirectClient::Anonymous(_) => false,
    };
    let is_withdrawn =
        |tables: &Arc<Tables>| is_denied() || !corinth_core::allows_direct(tables, sni, client);
    // An error means that the gateway itself is gone, which is the same.
    let _ = tables.wait_for(is_withdrawn).await;
}

async fn terminate(
    shared: &Arc<Shared>,
    socket: TcpStream,
    sni: &SniName,
    received: Vec<u8>,
    place: Place,
    record: &mut Record<'_>,
    carried: &Carried,
) -> Reason {
    let tables = Arc::clone(&shared.tables.borrow());
    let Some(opened) = tables.exports.direct(sni) else {
        return Reason::Refused(Refusal::Forbidden);
    };
    let limit = shared.times().request;
    let handshake = shared.terminators.accept(opened.export, socket, received);
    let (mut client, caller) = match timeout(limit, handshake).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(reason)) => return reason,
        Err(_) => return Reason::Failed(Failure::TlsTimeout),
    };
    drop(place);
    record.asked = Some(caller.to_string().into());
    let caller = DirectClient::Identified(caller);
    let (endpoint, _permit) = match reach(shared, sni, &caller, record).await {
        Ok(reached) => reached,
        Err(reason) => {
            client.abort();
            return reason;
        }
    };
    let idle = shared.times().idle;
    let relayed = tokio::select! {
        biased;
        () = withdrawn(shared, sni, &caller) => Err(Failure::Withdrawn),
        relayed = client.relay(endpoint, idle, carried) => relayed,
        failure = shared.terminated() => Err(failure),
    };
    match relayed {
        Ok(()) => Reason::Completed,
        Err(failure) => {
            client.abort();
            Reason::Failed(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paid by every connection of a tunnel, idle or not. With what the runtime adds it stays below an allocator's
    /// size class of 1,024 bytes.
    const CONNECTION_MAX_BYTES: usize = 880;

    #[test]
    fn a_tunnel_connection_takes_little_memory() {
        fn size_of_result<A, F>(_: impl Fn(A) -> F) -> usize {
            size_of::<F>()
        }
        let connection = |(shared, accepted, source, began)| carry(shared, accepted, source, began);
        let bytes = size_of_result(connection);
        assert!(
            bytes <= CONNECTION_MAX_BYTES,
            "a tunnel connection takes {bytes} bytes"
        );
    }
}
