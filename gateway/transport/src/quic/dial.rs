//! Dials the connections of links: the first one, one for each further worker, and successors of those that are about to
//! expire or do not answer.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use corinth_model::GatewayId;
use tokio::time::timeout;
use tracing::debug;

use super::{
    Shared, Worker, code,
    control::{self, Probes, Side, ping},
    frames::{self, Control, Said},
    handshake::{self, explain},
    link::QuicLink,
    tunnel::Tunnel,
};
use crate::{
    DialError, DialTarget, StreamError,
    tls::frame::{Kind, Pong},
};

/// Before a connection is dialled again in place of one that is about to expire or does not answer.
const RENEWAL_PAUSE: Duration = Duration::from_millis(500);
/// From so many ports at most it is tried to reach another worker of the peer than our other connections.
const SPREADING_TRIES: u32 = 4;

/// Dials a connection. Returns the link to the gateway that answered, alive from now on.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    target: &DialTarget,
) -> Result<Arc<QuicLink>, DialError> {
    let tunnel = handshake::dial(shared, target, shared.worker_here()).await?;
    // The same gateway may answer at another address, or behind the same load balancer again.
    if let Some(link) = needs_no_other(shared, &tunnel) {
        return Ok(link);
    }
    let greeted = greet(shared, target, tunnel).await?;
    Ok(join(shared, target, greeted))
}

/// Dials one more connection to `peer` for the calling worker, if we dial that peer and the worker has none.
pub(super) async fn widen(shared: &Arc<Shared>, peer: &GatewayId) -> Result<(), DialError> {
    let worker = shared.worker_here();
    match shared.links.get(peer) {
        Some(link) if link.lacks_one_for(worker) => spread(shared, &link, worker).await.map(drop),
        Some(_) | None => Ok(()),
    }
}

/// Dials a connection of `link` for one of our workers. Which worker of the peer gets it, the kernel there decides by our
/// port; one that our other workers do not reach is preferred. What was dialled before the right one is ended like any
/// connection that another one has taken the place of. `false` if only other gateways answered.
async fn spread(
    shared: &Arc<Shared>,
    link: &Arc<QuicLink>,
    worker: Worker,
) -> Result<bool, DialError> {
    let mut is_met = false;
    for _ in 0..SPREADING_TRIES {
        let Some(target) = link.target() else {
            break;
        };
        match dial_beside(shared, link, &target, worker).await {
            Ok(Met::Another) => {}
            Ok(Met::Peer(peers)) if link.reaches_for_another(peers, worker) => is_met = true,
            Ok(Met::Peer(_)) => return Ok(true),
            // There is one, if not to the best of its workers.
            Err(_) if is_met => break,
            Err(error) => return Err(error),
        }
    }
    Ok(is_met)
}

/// Who has answered.
enum Met {
    /// The gateway that was wanted, by this worker of it. The connection is part of its link.
    Peer(Worker),
    /// Another one behind the same address.
    Another,
}

/// Dials one more connection of `link`. Behind a load balancer another gateway may answer.
async fn dial_beside(
    shared: &Arc<Shared>,
    link: &Arc<QuicLink>,
    target: &DialTarget,
    worker: Worker,
) -> Result<Met, DialError> {
    let tunnel = handshake::dial(shared, target, worker).await?;
    let is_wanted = *tunnel.peer == *link.peer;
    if !is_wanted && needs_no_other(shared, &tunnel).is_some() {
        return Ok(Met::Another);
    }
    let greeted = greet(shared, target, tunnel).await?;
    let peers = Worker(greeted.pong.worker);
    join(shared, target, greeted);
    Ok(if is_wanted {
        Met::Peer(peers)
    } else {
        Met::Another
    })
}

/// A connection on which the peer has answered.
struct Greeted {
    tunnel: Tunnel,
    control: Control,
    pong: Pong,
}

/// Waits until the peer has answered.
async fn greet(shared: &Shared, target: &DialTarget, tunnel: Tunnel) -> Result<Greeted, DialError> {
    let address = target.address;
    // The answer proves that the peer accepted our certificate too (RFC 8446 §4.4.4: we finish first).
    let answered = timeout(shared.settings.timeouts.first_frame, ask(&tunnel))
        .await
        .map_err(|_| DialError::HandshakeTimeout { address })?;
    let (control, pong) = answered.map_err(|error| match tunnel.quic.close_reason() {
        Some(reason) => {
            let (failure, detail) = explain(&reason);
            DialError::Handshake {
                address,
                failure,
                detail,
            }
        }
        None => DialError::Handshake {
            address,
            failure: error.failure(),
            detail: error.to_string(),
        },
    })?;
    Ok(Greeted {
        tunnel,
        control,
        pong,
    })
}

/// Makes a dialled connection part of its link.
fn join(shared: &Arc<Shared>, target: &DialTarget, greeted: Greeted) -> Arc<QuicLink> {
    let Greeted {
        tunnel,
        control,
        pong,
    } = greeted;
    let link = shared.link_to(&tunnel.peer);
    link.set_target(target);
    link.announced_slots.store(u32::from(pong.slots), Relaxed);
    link.dialled.fetch_add(1, Relaxed);
    let tunnel = Arc::new(tunnel);
    link.alive(&tunnel, true, Worker(pong.worker), pong.draining);
    let side = Side::Dialer(Probes::begun(pong.draining));
    tokio::spawn(control::carry(
        Arc::clone(shared),
        Arc::clone(&link),
        tunnel,
        control,
        side,
    ));
    link
}

/// Opens our control stream with a PING and waits for the answer on the peer's.
async fn ask(tunnel: &Tunnel) -> Result<(Control, Pong), StreamError> {
    let lost = |error| code::lost(&error);
    let mut send = tunnel.quic.open_uni().await.map_err(lost)?;
    let mut first = Vec::new();
    frames::put(&mut first, Kind::Ping, &ping(1, tunnel.worker));
    send.write_all(&first).await.map_err(|_| StreamError::Cut)?;
    let recv = tunnel.quic.accept_uni().await.map_err(lost)?;
    let mut control = Control::new(&tunnel.waiting, send, recv);
    let Said { kind, payload, .. } = control.next().await?;
    match Pong::read(&payload) {
        Some(pong) if kind == Kind::Pong => Ok((control, pong)),
        Some(_) | None => Err(StreamError::Protocol("a first PING that is not answered")),
    }
}

/// Dials a connection beside one that is about to expire, or that answers no more: what stands on the way may send another
/// port where somebody answers.
pub(super) fn replace(shared: &Arc<Shared>, link: &Arc<QuicLink>, tunnel: &Arc<Tunnel>) {
    if !link.is_newest_dialled(tunnel) || !link.begin_renewal() {
        return;
    }
    let (shared, link) = (Arc::clone(shared), Arc::clone(link));
    let worker = tunnel.worker;
    tokio::spawn(async move {
        match spread(&shared, &link, worker).await {
            Ok(true) => {}
            Ok(false) => {
                debug!(peer = %link.peer, "only other gateways answered");
                tokio::time::sleep(RENEWAL_PAUSE).await;
            }
            Err(error) => {
                debug!(peer = %link.peer, %error, "no connection in place of another one");
                tokio::time::sleep(RENEWAL_PAUSE).await;
            }
        }
        link.end_renewal();
    });
}

/// The link to the gateway that answered, if what there is of it is enough.
fn needs_no_other(shared: &Shared, tunnel: &Tunnel) -> Option<Arc<QuicLink>> {
    let link = shared.links.get(&tunnel.peer)?;
    let is_enough = link.dialled_live() > 0 && !link.expires(shared.now_unix_seconds());
    if is_enough {
        // It has heard nothing on this connection and counts on nothing.
        tunnel.close();
    }
    is_enough.then_some(link)
}
