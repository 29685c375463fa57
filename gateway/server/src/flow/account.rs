//! What all flows with one peer hold together, however many streams they come on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Datagrams that wait for the streams of one peer: as much as sixteen may have for long, or two for a moment.
pub(super) const DATA_MAX_BYTES: usize = 16 << 20;
/// What opens, answers and ends flows, the same way.
pub(super) const WORDS_MAX_BYTES: usize = 16 << 20;
/// What each datagram or frame that waits counts for beyond its bytes.
pub(super) const PLACE_BYTES: usize = 64;
/// Streams of kind FLOWS that one peer may have open here: eight gateways of 32 workers each, while their certificates
/// change. Each holds a task and what it has not received whole.
const STREAMS_MAX: u32 = 512;
/// Between two lines about flows that were refused: who asks for too many is not to fill the log.
const REFUSAL_INTERVAL: Duration = Duration::from_millis(100);

/// What all flows with one peer hold together.
#[derive(Default)]
pub(super) struct Account {
    pub(super) data: Waiting,
    pub(super) words: Waiting,
    streams: AtomicU32,
    pub(super) refusals: Throttle,
}

/// Bytes that wait.
#[derive(Default)]
pub(super) struct Waiting(AtomicUsize);

/// The place of one stream of a peer, given back when dropped.
pub(super) struct StreamPlace(Arc<Account>);

impl Account {
    /// A place for one more stream of kind FLOWS that the peer has opened, if there is one.
    pub(super) fn enter(self: &Arc<Self>) -> Option<StreamPlace> {
        let one_more = |streams| (streams < STREAMS_MAX).then_some(streams + 1);
        let entered = self.streams.fetch_update(Relaxed, Relaxed, one_more);
        entered.ok().map(|_| StreamPlace(Arc::clone(self)))
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

impl Waiting {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Relaxed);
    }

    /// Adds them if there are no more than `max` then.
    pub(super) fn add_within(&self, bytes: usize, max: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= max);
        self.0.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    pub(super) fn take(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Lets something happen only so often.
#[derive(Default)]
pub(super) struct Throttle {
    last: Mutex<Option<Instant>>,
}

impl Throttle {
    /// Whether it may happen now.
    pub(super) fn lets_pass(&self, now: Instant) -> bool {
        let mut last = self.last.lock();
        let is_too_soon = last.is_some_and(|last| now < last + REFUSAL_INTERVAL);
        if !is_too_soon {
            *last = Some(now);
        }
        !is_too_soon
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_so_many_streams_and_gets_their_places_back() {
        let account = Arc::<Account>::default();
        let mut held: Vec<_> = (0..STREAMS_MAX).map(|_| account.enter().unwrap()).collect();
        assert!(account.enter().is_none());
        held.pop();
        assert!(account.enter().is_some());
    }

    #[test]
    fn what_is_throttled_passes_again_after_a_while() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert!(throttle.lets_pass(now));
        assert!(!throttle.lets_pass(now + REFUSAL_INTERVAL / 2));
        assert!(throttle.lets_pass(now + REFUSAL_INTERVAL));
        assert!(!throttle.lets_pass(now + REFUSAL_INTERVAL * 3 / 2));
    }
}
