//! The story of one stream that a peer opened: admit it, find an endpoint that accepts, relay, record.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use corinth_api::{HeaderError, StreamKind, StreamOpen, StreamReply};
use corinth_core::{Admission, Opening, Outcome};
use corinth_model::{
    ClusterName, Failure, GatewayId, Protocol, Reason, Refusal, RouteName, Tables, Target,
};
use corinth_transport::{BoxFuture, Link, Stream, StreamSink};
use parking_lot::Mutex;
use tokio::{net::TcpStream, sync::watch, time::timeout};

use crate::{
    flow, handover,
    opening::accepted_after,
    record::{Intake, Record},
    relay::{self, Carried, Side},
    said::Rest,
    session::{connect, unlinked},
    shared::{PermitGuard, Shared},
};

/// The source of a stream that does not claim one.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How long a refused peer may take to end its stream.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a stream gets no endpoint.
pub(crate) enum No {
    Refused(Refusal),
    Failed(Failure),
}

/// Takes the streams of peers once the gateway stands; it and the transport need each other.
#[derive(Default)]
pub(crate) struct Sink {
    shared: Mutex<Weak<Shared>>,
}

impl Sink {
    /// From now on streams are served.
    pub(crate) fn connect(&self, shared: &Arc<Shared>) {
        *self.shared.lock() = Arc::downgrade(shared);
    }
}

impl StreamSink for Sink {
    fn accept<'a>(
        &'a self,
        link: &'a Arc<dyn Link>,
        header: StreamOpen,
        stream: &'a mut Stream,
    ) -> BoxFuture<'a, ()> {
        // The future keeps for as long as the stream lasts what it is given: not the whole header.
        let StreamOpen {
            kind, hops, claim, ..
        } = header;
        let source = claim.address.unwrap_or(NOWHERE);
        let Some(shared) = self.shared.lock().upgrade() else {
            return Box::pin(std::future::ready(()));
        };
        match kind {
            // Each of its flows is written down by itself.
            StreamKind::Flows => Box::pin(flow::carry(shared, link, stream)),
            StreamKind::Service {
                route,
                protocol: Protocol::Udp,
            } => Box::pin(refuse_datagrams(shared, route, source, stream)),
            StreamKind::Service { .. } | StreamKind::Peering => {
                Box::pin(carry(shared, link, kind, hops, source, stream))
            }
        }
    }

    fn unreadable(&self, link: &Arc<dyn Link>, error: &HeaderError) {
        let Some(shared) = self.shared.lock().upgrade() else {
            return;
        };
        let nowhere = SocketAddr::new(NOWHERE, 0);
        let now = Instant::now();
        let mut record = Record::open(&shared.telemetry, Intake::Peer, nowhere, now);
        let tables = shared.tables.borrow().clone();
        let cluster = tables.cluster_of(&link.peer().trust_domain);
        record.peer = cluster.map(|cluster| cluster.as_str().into());
        record.asked = Some(error.to_string().into());
        record.close(
            &Carried::default(),
            Reason::Failed(Failure::HeaderInvalid),
            now,
        );
    }
}

#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice"
)]
fn carry<'a>(
    shared: Arc<Shared>,
    link: &'a Arc<dyn Link>,
    kind: StreamKind,
    hops: u8,
    source: IpAddr,
    stream: &'a mut Stream,
) -> impl Future<Output = ()> + use<'a> {
    async move {
        let is_peering = kind == StreamKind::Peering && shared.control.is_some();
        // Control planes talk without end: a drain does not wait for them.
        let _working = (!is_peering).then(|| shared.drain.guard());
        let intake = if is_peering {
            Intake::Peering
        } else {
            Intake::Peer
        };
        let source = SocketAddr::new(source, 0);
        let mut record = Record::open(&shared.telemetry, intake, source, Instant::now());
        let carried = Carried::default();
        let reason = serve(&shared, link, &kind, hops, stream, &mut record, &carried).await;
        record.close(&carried, reason, Instant::now());
    }
}

/// Datagrams come as flows: a stream has nothing to deliver them by, whoever may have the service.
async fn refuse_datagrams(
    shared: Arc<Shared>,
    route: RouteName,
    source: IpAddr,
    stream: &mut Stream,
) {
    let source = SocketAddr::new(source, 0);
    let mut record = Record::open(&shared.telemetry, Intake::Peer, source, Instant::now());
    let tables = shared.tables.borrow().clone();
    let cluster = tables.cluster_of(&stream.peer().trust_domain);
    record.peer = cluster.map(|cluster| cluster.as_str().into());
    record.asked = Some(route.to_string().into());
    let reason = turn_away(stream, No::Refused(Refusal::Forbidden)).await;
    record.close(&Carried::default(), reason, Instant::now());
}

async fn serve(
    shared: &Arc<Shared>,
    link: &Arc<dyn Link>,
    kind: &StreamKind,
    hops: u8,
    stream: &mut Stream,
    record: &mut Record<'_>,
    carried: &Carried,
) -> Reason {
    let mut tables = shared.tables.subscribe();
    let cluster = tables
        .borrow_and_update()
        .cluster_of(&stream.peer().trust_domain)
        .cloned();
    record.peer = cluster.as_ref().map(|cluster| cluster.as_str().into());
    let (route, protocol) = match kind {
        StreamKind::Service { route, protocol } => (route, *protocol),
        // Those were taken elsewhere.
        StreamKind::Flows => return Reason::Failed(Failure::Internal),
        StreamKind::Peering => {
            let Some(control) = &shared.control else {
                return turn_away(stream, No::Refused(Refusal::UnknownRoute)).await;
            };
            let served = handover::serve(
                shared,
                control,
                link,
                cluster.as_ref(),
                hops,
                stream,
                record,
                carried,
            );
            // On the heap: streams of users are not to hold what it needs.
            return Box::pin(served).await;
        }
    };
    let reached = reach(shared, stream.peer(), route, protocol, hops, record);
    let (mut endpoint, _permit) = match Box::pin(reached).await {
        Ok(reached) => reached,
        Err(no) => return turn_away(stream, no).await,
    };
    record.accepted(Instant::now());
    if answer(stream, &StreamReply::Accepted).await.is_err() {
        relay::abort(endpoint);
        return Reason::Failed(Failure::TunnelCut);
    }
    let mut state = link.state();
    let idle = shared.times().idle;
    let mut nothing = Rest::default();
    let relayed = tokio::select! {
        // Whoever withdraws also cuts the tunnel: the reason is told before its consequence.
        biased;
        () = withdrawn(&mut tables, cluster.as_ref(), route, protocol) => Err(Failure::Withdrawn),
        failure = unlinked(shared, &mut state) => Err(failure),
        relayed = relay::run(&mut endpoint, Side::Endpoint, &mut nothing, stream, idle, carried) => relayed,
    };
    match relayed {
        Ok(()) => Reason::Completed,
        Err(failure) => {
            stream.reset(failure);
            relay::abort(endpoint);
            Reason::Failed(failure)
        }
    }
}

/// Admits a stream and connects to an endpoint for it.
async fn reach<'a>(
    shared: &'a Shared,
    peer: &GatewayId,
    route: &RouteName,
    protocol: Protocol,
    hops: u8,
    record: &mut Record<'_>,
) -> Result<(TcpStream, PermitGuard<'a>), No> {
    let opening = Opening {
        route: route.clone(),
        protocol,
        hops,
    };
    let admitted = shared.core.lock().admit(peer, &opening, Instant::now());
    let admission = admitted.map_err(|refusal| {
        record.asked = Some(route.to_string().into());
        No::Refused(refusal)
    })?;
    // Only a name that is ours becomes a label.
    record.route = Some(Box::new(admission.export.route_name()));
    let permit = PermitGuard {
        shared,
        permit: admission.permit,
    };
    let endpoint = find_endpoint(shared, route, protocol, &admission, record)
        .await
        .map_err(No::Failed)?;
    Ok((endpoint, permit))
}

/// Tries endpoints until a connect succeeds. Nothing was written to any before.
pub(crate) async fn find_endpoint(
    shared: &Shared,
    route: &RouteName,
    protocol: Protocol,
    admission: &Admission,
    record: &mut Record<'_>,
) -> Result<TcpStream, Failure> {
    let mut last = Failure::EndpointUnreachable;
    for address in &admission.endpoints {
        record.endpoint = Some(*address);
        record.attempts = record.attempts.saturating_add(1);
        let began = Instant::now();
        let connected = connect(shared, *address).await;
        let outcome = match &connected {
            Ok(_) => accepted_after(began),
            Err(failure) => Outcome::Failed(*failure),
        };
        let target = Target::Endpoint(*address);
        shared.report(route, protocol, &target, outcome);
        match connected {
            Ok(socket) => return Ok(socket),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

/// Answers no and ends our direction; what the peer has sent meanwhile is let run out, so that the
/// connection can carry the next stream.
pub(crate) async fn turn_away(stream: &mut Stream, no: No) -> Reason {
    let (reply, reason) = match no {
        No::Refused(refusal) => (StreamReply::Refused(refusal), Reason::Refused(refusal)),
        No::Failed(failure) => (StreamReply::Failed(failure), Reason::Failed(failure)),
    };
    if answer(stream, &reply).await.is_err() {
        return reason;
    }
    let (mut from_peer, mut to_peer) = stream.split();
    if to_peer.put_end().is_err() || to_peer.flush().await.is_err() {
        return reason;
    }
    // A peer that says no end has had its answer; the stream is reset when it is dropped.
    let _ = timeout(PATIENCE, relay::discard(&mut from_peer)).await;
    reason
}

pub(crate) async fn answer(
    stream: &mut Stream,
    reply: &StreamReply,
) -> Result<(), corinth_transport::StreamError> {
    let (_, mut to_peer) = stream.split();
    to_peer.put_reply(reply)?;
    to_peer.flush().await
}

/// Resolves when the peer may no longer reach what it was admitted to.
async fn withdrawn(
    tables: &mut watch::Receiver<Arc<Tables>>,
    cluster: Option<&ClusterName>,
    route: &RouteName,
    protocol: Protocol,
) {
    let is_open = |tables: &Tables| {
        let view = cluster.and_then(|cluster| tables.exports.view(cluster));
        view.and_then(|view| view.lookup(route, protocol)).is_some()
    };
    while is_open(&tables.borrow_and_update()) {
        // An error means that the gateway itself is gone, which is the same.
        if tables.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paid by every stream of a peer, idle or not: an allocator's size class.
    const STREAM_MAX_BYTES: usize = 2_048;

    #[test]
    fn a_stream_of_a_peer_takes_little_memory() {
        fn size_of_result<A, F>(_: impl Fn(A) -> F) -> usize {
            size_of::<F>()
        }
        let stream = |(shared, link, kind, hops, source, stream): (
            _,
            &'static Arc<dyn Link>,
            _,
            _,
            _,
            &'static mut Stream,
        )| carry(shared, link, kind, hops, source, stream);
        let bytes = size_of_result(stream);
        assert!(bytes <= STREAM_MAX_BYTES, "a stream takes {bytes} bytes");
    }
}
