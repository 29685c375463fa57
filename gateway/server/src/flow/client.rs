//! What passes between one client address and one import port, and where it goes just now.
//!
//! The first datagrams of a flow leave with its OPEN and are kept until the answer, so that a refusal or a failed dial
//! takes the next candidate. From then on datagrams go straight from socket to trunk and back.

use std::sync::Arc;

use corinth_api::{FlowNumber, StreamOpen, StreamReply};
use corinth_core::Outcome;
use corinth_model::{Failure, Reason};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::trace;

use super::{
    account::{PLACE_BYTES, Waiting},
    endpoint::{EndpointSocket, Given},
    near::Port,
    socket::Ends,
    tally::Tally,
    trunk::Trunk,
};
use crate::relay::Side;

/// So many datagrams of a flow are always kept until it is accepted, as long as they hold no more than
/// [`SURE_MAX_BYTES`].
const SURE_MAX: usize = 16;
const SURE_MAX_BYTES: usize = 16 << 10;
/// And so many bytes as long as there is room: a client does not wait for an answer that needs a round trip.
const KEPT_MAX_BYTES: usize = 1 << 20;
/// Room for the first datagrams of all flows together, beyond those that are always kept.
const ROOM_BYTES: usize = 16 << 20;

/// What passes between one client address and one import port.
pub(super) struct Flow {
    pub(super) ends: Ends,
    pub(super) port: Arc<Port>,
    pub(super) tally: Tally,
    /// What the first datagrams of all flows take of their room.
    first: Arc<Waiting>,
    state: Mutex<State>,
    /// There is a verdict.
    decided: Notify,
}

struct State {
    way: Way,
    verdict: Option<Verdict>,
}

/// Where the client's datagrams go.
enum Way {
    /// Nowhere yet.
    Seeking(Kept),
    /// To a peer that has not answered.
    Asked {
        trunk: Arc<Trunk>,
        number: FlowNumber,
        kept: Kept,
    },
    Peer {
        trunk: Arc<Trunk>,
        number: FlowNumber,
    },
    Endpoint(Arc<EndpointSocket>),
    Over,
}

/// The first datagrams.
struct Kept {
    datagrams: Vec<Vec<u8>>,
    bytes: usize,
    /// What the first datagrams of all flows take of the room, and what these do.
    taken: Arc<Waiting>,
    own: usize,
}

/// What was decided elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    Reply(StreamReply),
    /// The attempt is over, and nothing was delivered.
    Unsent(Outcome),
    /// The way is gone.
    Lost(Failure),
    Ended(Reason),
}

impl State {
    /// An end is the last word.
    fn decide(&mut self, verdict: Verdict) {
        if !matches!(self.verdict, Some(Verdict::Ended(_))) {
            self.verdict = Some(verdict);
        }
    }

    /// What was decided of the attempt before is of no interest; an end is.
    fn begin_anew(&mut self) {
        self.verdict
            .take_if(|verdict| !matches!(verdict, Verdict::Ended(_)));
    }
}

impl Kept {
    fn new(taken: &Arc<Waiting>) -> Self {
        Self {
            datagrams: Vec::new(),
            bytes: 0,
            taken: Arc::clone(taken),
            own: 0,
        }
    }

    /// Keeps one more, if there is room. The first may have any size.
    fn keep(&mut self, datagram: &[u8]) -> bool {
        let is_kept = self.is_sure(datagram) || self.takes_room(datagram);
        if is_kept {
            self.bytes += datagram.len();
            self.datagrams.push(datagram.to_vec());
        }
        is_kept
    }

    fn is_sure(&self, datagram: &[u8]) -> bool {
        self.datagrams.is_empty()
            || self.datagrams.len() < SURE_MAX && self.bytes + datagram.len() <= SURE_MAX_BYTES
    }

    fn takes_room(&mut self, datagram: &[u8]) -> bool {
        let needed = datagram.len() + PLACE_BYTES;
        let has_room =
            self.own + needed <= KEPT_MAX_BYTES && self.taken.add_within(needed, ROOM_BYTES);
        if has_room {
            self.own += needed;
        }
        has_room
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.taken.take(self.own);
    }
}

impl Flow {
    /// A flow that has said nothing yet.
    pub(super) fn new(ends: Ends, port: Arc<Port>, first: &Arc<Waiting>) -> Self {
        Self {
            ends,
            tally: Tally::new(Side::Client),
            port,
            first: Arc::clone(first),
            state: Mutex::new(State {
                way: Way::Seeking(Kept::new(first)),
                verdict: None,
            }),
            decided: Notify::new(),
        }
    }

    /// Takes a datagram of the client.
    pub(super) fn take(&self, datagram: &[u8]) {
        let mut state = self.state.lock();
        let dropped = match &mut state.way {
            Way::Seeking(kept) => u64::from(!kept.keep(datagram)),
            Way::Asked {
                trunk,
                number,
                kept,
            } => {
                if kept.keep(datagram) {
                    trunk.send_first(*number, datagram)
                } else {
                    1
                }
            }
            Way::Peer { trunk, number } => trunk.send(*number, datagram),
            Way::Endpoint(socket) => match socket.give(datagram) {
                Given::Sent => 0,
                Given::Dropped => 1,
                Given::Gone(failure) => {
                    state.decide(Verdict::Ended(Reason::Failed(failure)));
                    self.decided.notify_one();
                    1
                }
            },
            Way::Over => 1,
        };
        drop(state);
        self.tally.took(datagram.len());
        self.tally.drop_some(dropped);
    }

    /// Gives a datagram of the endpoint to the client.
    pub(super) fn give(&self, datagram: &[u8]) {
        let Some(socket) = self.port.socket.upgrade() else {
            return self.tally.drop_some(1);
        };
        match socket.send(self.ends, datagram) {
            Ok(()) => self.tally.gave(datagram.len()),
            Err(error) => {
                trace!(client = %self.ends.client, %error, "an answer could not be sent");
                self.tally.drop_some(1);
            }
        }
    }

    /// The peer has answered.
    pub(super) fn answered(&self, reply: StreamReply) {
        let mut state = self.state.lock();
        if matches!(state.way, Way::Peer { .. }) {
            // It has answered before: what it means cannot be known.
            drop(state);
            return self.ended(Reason::Failed(Failure::ProtocolViolation));
        }
        if reply == StreamReply::Accepted {
            state.way = match std::mem::replace(&mut state.way, Way::Over) {
                Way::Asked { trunk, number, .. } => Way::Peer { trunk, number },
                // Given up.
                other @ (Way::Seeking(_) | Way::Peer { .. } | Way::Endpoint(_) | Way::Over) => {
                    state.way = other;
                    return;
                }
            };
        }
        state.decide(Verdict::Reply(reply));
        drop(state);
        self.decided.notify_one();
    }

    /// The attempt is over, and nothing was delivered.
    pub(super) fn unsent(&self, outcome: Outcome) {
        self.decide(Verdict::Unsent(outcome));
    }

    /// The way to the peer is gone.
    pub(super) fn lost(&self, failure: Failure) {
        self.decide(Verdict::Lost(failure));
    }

    /// The flow was ended elsewhere.
    pub(super) fn ended(&self, reason: Reason) {
        self.decide(Verdict::Ended(reason));
    }

    fn decide(&self, verdict: Verdict) {
        self.state.lock().decide(verdict);
        self.decided.notify_one();
    }

    pub(super) async fn verdict(&self) -> Verdict {
        loop {
            if let Some(verdict) = self.state.lock().verdict.take() {
                return verdict;
            }
            self.decided.notified().await;
        }
    }

    /// Asks a peer, and says what the client has said so far. `None` if the trunk is over.
    pub(super) fn ask(
        self: &Arc<Self>,
        trunk: &Arc<Trunk>,
        header: &StreamOpen,
    ) -> Option<FlowNumber> {
        let mut state = self.state.lock();
        state.begin_anew();
        let number = trunk.open(self, header)?;
        let kept = match std::mem::replace(&mut state.way, Way::Over) {
            Way::Seeking(kept) | Way::Asked { kept, .. } => kept,
            Way::Peer { .. } | Way::Endpoint(_) | Way::Over => Kept::new(&self.first),
        };
        let first = kept.datagrams.iter();
        let dropped = first
            .map(|datagram| trunk.send_first(number, datagram))
            .sum();
        state.way = Way::Asked {
            trunk: Arc::clone(trunk),
            number,
            kept,
        };
        drop(state);
        self.tally.drop_some(dropped);
        Some(number)
    }

    /// The attempt is over: what was kept waits for the next one. `true` if something had been said.
    pub(super) fn seek(&self) -> bool {
        let mut state = self.state.lock();
        state.begin_anew();
        let kept = match std::mem::replace(&mut state.way, Way::Over) {
            Way::Seeking(kept) | Way::Asked { kept, .. } => kept,
            Way::Peer { .. } | Way::Endpoint(_) | Way::Over => Kept::new(&self.first),
        };
        let has_spoken = !kept.datagrams.is_empty();
        state.way = Way::Seeking(kept);
        has_spoken
    }

    /// From now on the client speaks to an endpoint here.
    pub(super) fn speak_to(&self, endpoint: &Arc<EndpointSocket>) -> Result<(), Failure> {
        let mut state = self.state.lock();
        let way = Way::Endpoint(Arc::clone(endpoint));
        if let Way::Seeking(kept) = std::mem::replace(&mut state.way, way) {
            for datagram in &kept.datagrams {
                // An endpoint on this machine may refuse at once; others are found out later.
                if let Given::Gone(failure) = endpoint.give(datagram) {
                    state.way = Way::Seeking(kept);
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Takes nothing more; a peer is told.
    pub(super) fn finish(&self, reason: Reason) {
        let way = std::mem::replace(&mut self.state.lock().way, Way::Over);
        match way {
            Way::Asked { trunk, number, .. } | Way::Peer { trunk, number } => {
                trunk.end(number, reason);
            }
            Way::Seeking(_) | Way::Endpoint(_) | Way::Over => {}
        }
    }

    /// Its port knows it no more.
    pub(super) fn leave(&self) {
        self.port.forget(self.ends);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_the_last_word() {
        let mut state = State {
            way: Way::Over,
            verdict: None,
        };
        state.decide(Verdict::Lost(Failure::PathDead));
        state.begin_anew();
        assert!(state.verdict.is_none());
        state.decide(Verdict::Ended(Reason::Failed(Failure::Withdrawn)));
        state.decide(Verdict::Reply(StreamReply::Accepted));
        state.begin_anew();
        assert!(matches!(state.verdict, Some(Verdict::Ended(_))));
    }

    #[test]
    fn first_datagrams_are_kept_while_there_is_room_and_a_few_always() {
        let taken = Arc::<Waiting>::default();
        let mut first = Kept::new(&taken);
        assert!(first.keep(&[0; 65_507]), "the first may have any size");
        let mut many = Kept::new(&taken);
        let kept = (0..).take_while(|_| many.keep(&[0; 1_200])).count();
        assert!((800..900).contains(&kept), "1 MiB of one flow: {kept}");
        let others: Vec<_> = (0..20)
            .map(|_| {
                let mut other = Kept::new(&taken);
                while other.keep(&[0; 1_200]) {}
                other
            })
            .collect();
        assert!(taken.bytes() <= ROOM_BYTES);
        let last = others.last().map(|kept| kept.datagrams.len());
        assert_eq!(last, Some(SURE_MAX_BYTES / 1_200));
        let mut small = Kept::new(&taken);
        let always = (0..).take_while(|_| small.keep(b"")).count();
        assert!(always >= SURE_MAX);
        drop((first, many, others, small));
        assert_eq!(taken.bytes(), 0);
    }
}
