//! How often streams may begin: who comes back too often waits, and we wait longer each time ourselves.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Most streams a peer may begin within [`WINDOW`].
pub(super) const BEGINS_MAX: usize = 10;
/// What [`BEGINS_MAX`] is counted over.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// How long a peer that begins too often is turned away; as long we wait when we are told so.
pub(super) const TURNED_AWAY: Duration = Duration::from_secs(10);
/// How long we wait after a stream has ended.
pub(super) const DELAY_MIN: Duration = Duration::from_millis(500);
/// The wait doubles up to this.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(15);
/// A stream that lasted this long was a good one: the wait begins at its least again.
pub(super) const GOOD_AFTER: Duration = Duration::from_secs(60);

/// Counts the streams of one peer in both directions.
#[derive(Debug, Clone)]
pub(super) struct Damping {
    /// When its latest streams began, at most [`BEGINS_MAX`].
    begins: VecDeque<Instant>,
    turned_away_until: Option<Instant>,
    /// The wait after the next end.
    delay: Duration,
}

impl Damping {
    pub(super) fn new() -> Self {
        Self {
            begins: VecDeque::new(),
            turned_away_until: None,
            delay: DELAY_MIN,
        }
    }

    /// The peer begins a stream: whether it is let in.
    #[must_use]
    pub(super) fn handle_begun(&mut self, now: Instant) -> bool {
        if self.turned_away_until.is_some_and(|until| now < until) {
            return false;
        }
        self.forget(now);
        if self.begins.len() >= BEGINS_MAX {
            // It starts anew after the wait, so that a peer that has come to rest is let in at once.
            self.begins.clear();
            self.turned_away_until = Some(now + TURNED_AWAY);
            return false;
        }
        self.begins.push_back(now);
        true
    }

    /// A stream ended, or one we wanted did not come about: when we may dial again.
    pub(super) fn handle_ended(&mut self, lasted: Duration, now: Instant) -> Instant {
        if lasted >= GOOD_AFTER {
            self.delay = DELAY_MIN;
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(DELAY_MAX);
        now + delay
    }

    /// Whether the peer is, or was a moment ago, turned away.
    pub(super) fn is_flapping(&self) -> bool {
        self.turned_away_until.is_some()
    }

    /// It has kept quiet for a [`WINDOW`] since it was turned away: whether that was so and is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_over = self.poll_timeout().is_some_and(|at| now >= at);
        if is_over {
            self.turned_away_until = None;
        }
        is_over
    }

    /// When the peer no longer counts as flapping.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.turned_away_until.map(|until| until + WINDOW)
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |begun: &Instant| now.saturating_duration_since(*begun) >= WINDOW;
        while self.begins.front().is_some_and(is_old) {
            self.begins.pop_front();
        }
    }
}
