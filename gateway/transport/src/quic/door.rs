//! Who comes to a listening socket: whether it is answered, and what became of it.

use std::{
    any::Any,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_model::Failure;
use quinn::Incoming;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::{Shared, config, control, handshake};

/// Handshakes under way of which more are begun only by who has shown that its address is its own.
const UNPROVEN_MAX: u32 = 64;
/// One that fails counts as under way for at least as long: what fails at once could else be begun as often as packets
/// come, and a beginning costs more than a Retry.
const UNPROVEN_MIN: Duration = Duration::from_secs(1);
/// Handshakes under way at most; who comes then is not answered, and comes again.
const HANDSHAKES_MAX: u32 = config::INCOMING_MAX as u32;

/// Watches over those who dial and have not proved who they are.
pub trait Doorkeeper: Send + Sync {
    /// A place for somebody who has shown that `source` is its own address, given back when dropped; `None` if there is
    /// none left, and then it is turned away.
    fn enter(&self, source: IpAddr) -> Option<Box<dyn Any + Send>>;

    /// A gateway of a peer has proved itself from there.
    fn verified(&self, source: IpAddr);

    /// Somebody came and did not become a peer, or broke the rules as one.
    fn turned_away(&self, source: SocketAddr, failure: Failure);
}

/// What became of those who dialled, since the transport began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Handshakes {
    /// They proved to be a gateway of a peer.
    pub accepted: u64,
    /// They did not.
    pub failed: u64,
    /// They were asked to show first that their address is their own.
    pub retried: u64,
    /// They got no place, or proved to be a gateway that has too many already.
    pub refused: u64,
    /// Datagrams that were to begin one and were not looked at: too many came.
    pub ignored: u64,
}

/// Counts handshakes, those under way and those that are over.
#[derive(Debug, Default)]
pub(super) struct Counts {
    under_way: AtomicU32,
    accepted: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    pub(super) fn handshakes(&self, ignored: u64) -> Handshakes {
        Handshakes {
            accepted: self.accepted.load(Relaxed),
            failed: self.failed.load(Relaxed),
            retried: self.retried.load(Relaxed),
            refused: self.refused.load(Relaxed),
            ignored,
        }
    }
}

/// Takes somebody who dialled, or has it show first that its address is its own.
pub(super) fn receive(shared: &Arc<Shared>, incoming: Incoming, keeper: &Arc<dyn Doorkeeper>) {
    let source = source_of(&incoming);
    let begun = Begun::new(shared);
    if begun.under_way > HANDSHAKES_MAX {
        shared.counts.refused.fetch_add(1, Relaxed);
        incoming.ignore();
        return;
    }
    let is_validated = incoming.remote_address_validated();
    if begun.under_way > UNPROVEN_MAX && !is_validated {
        shared.counts.retried.fetch_add(1, Relaxed);
        // An address that is not validated may always be asked.
        let _ = incoming.retry();
        return;
    }
    // Who may have made its address up takes no place from its owner; there are few of them.
    let place = is_validated.then(|| keeper.enter(source.ip()));
    if let Some(None) = place {
        shared.counts.refused.fetch_add(1, Relaxed);
        incoming.refuse();
        keeper.turned_away(source, Failure::TooManyConnections);
        return;
    }
    let held = (begun, place);
    tokio::spawn(shake_hands(
        Arc::clone(shared),
        incoming,
        source,
        Arc::clone(keeper),
        held,
    ));
}

/// `held` is what the handshake takes from others while it lasts.
async fn shake_hands(
    shared: Arc<Shared>,
    incoming: Incoming,
    source: SocketAddr,
    keeper: Arc<dyn Doorkeeper>,
    held: impl Send,
) {
    let held_until = (!incoming.remote_address_validated()).then(|| Instant::now() + UNPROVEN_MIN);
    let accepted = handshake::accept(&shared, incoming).await;
    let tunnel = match accepted {
        Ok(tunnel) => tunnel,
        Err(error) => {
            let failure = error.failure();
            debug!(%source, %error, code = failure.code(), "a QUIC handshake failed");
            let counted = if failure == Failure::TooManyConnections {
                &shared.counts.refused
            } else {
                &shared.counts.failed
            };
            counted.fetch_add(1, Relaxed);
            keeper.turned_away(source, failure);
            if let Some(until) = held_until {
                sleep_until(until).await;
            }
            return;
        }
    };
    drop(held);
    shared.counts.accepted.fetch_add(1, Relaxed);
    keeper.verified(source.ip());
    let peer = tunnel.quic.clone();
    let is_there = || peer.remote_address().ip();
    let answered = tokio::select! {
        answered = control::answer(&shared, tunnel) => answered,
        never = shared.post.origins().keep(is_there) => match never {},
    };
    if let Err(error) = answered {
        debug!(%source, %error, "a QUIC connection that did not become one of a link");
        let failure = error.failure();
        // A peer that was not needed any more has broken no rule.
        if matches!(
            failure,
            Failure::ProtocolViolation | Failure::HeaderInvalid | Failure::FirstFrameTimeout
        ) {
            keeper.turned_away(source, failure);
        }
    }
}

/// Who comes to a socket of both families is known by its own.
fn source_of(incoming: &Incoming) -> SocketAddr {
    let address = incoming.remote_address();
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One handshake that is under way.
struct Begun {
    shared: Arc<Shared>,
    /// How many there were with it.
    under_way: u32,
}

impl Begun {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            under_way: shared.counts.under_way.fetch_add(1, Relaxed) + 1,
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.shared.counts.under_way.fetch_sub(1, Relaxed);
    }
}
