//! How much a carrier delivers when it is given more than it takes.
//!
//! What it delivers otherwise says how much there was to carry, and nothing about the carrier.

use std::time::{Duration, Instant};

/// A rate is that of so long a time.
const WINDOW: Duration = Duration::from_secs(1);
/// Less in a look is no load.
const LOOK_MIN_BYTES: u64 = 16 << 10;
/// Looks further apart than this tell nothing of the time between them.
const LOOKS_APART_MAX: Duration = Duration::from_secs(2);

/// What a carrier delivered in one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Bytes that the peer acknowledged.
    pub bytes: u64,
    /// Of these, bytes that were acknowledged while there was more to send than was allowed to be on its way.
    pub filled_bytes: u64,
}

impl Delivered {
    /// The path, and not want of something to send, was what held the sender back.
    fn is_filled(self) -> bool {
        self.bytes >= LOOK_MIN_BYTES
            && self.filled_bytes.saturating_mul(4) >= self.bytes.saturating_mul(3)
    }
}

/// A rate, and when it was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    pub(super) bytes_per_second: f64,
    pub(super) at: Instant,
}

/// How much one carrier delivers when it is given more than it takes.
#[derive(Debug)]
pub(super) struct Goodput {
    looked_at: Instant,
    /// Looks in a row that were filled.
    filled: Option<Filled>,
    rate: Option<Rate>,
}

#[derive(Debug, Clone, Copy)]
struct Filled {
    since: Instant,
    /// The window that is not over.
    window_since: Instant,
    window_bytes: u64,
    is_measured: bool,
}

impl Goodput {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            looked_at: now,
            filled: None,
            rate: None,
        }
    }

    /// A look found this.
    pub(super) fn handle_look(&mut self, delivered: Delivered, now: Instant) {
        let before = std::mem::replace(&mut self.looked_at, now);
        let is_apart = now.saturating_duration_since(before) > LOOKS_APART_MAX;
        if is_apart || !delivered.is_filled() {
            self.filled = None;
            return;
        }
        let filled = self.filled.get_or_insert(Filled {
            since: before,
            window_since: before,
            window_bytes: 0,
            is_measured: false,
        });
        filled.window_bytes += delivered.bytes;
        let elapsed = now.saturating_duration_since(filled.window_since);
        if elapsed < WINDOW {
            return;
        }
        let measured = filled.window_bytes as f64 / elapsed.as_secs_f64();
        let smoothed = match self.rate.filter(|_| filled.is_measured) {
            Some(rate) => f64::midpoint(rate.bytes_per_second, measured),
            None => measured,
        };
        filled.window_since = now;
        filled.window_bytes = 0;
        filled.is_measured = true;
        self.rate = Some(Rate {
            bytes_per_second: smoothed,
            at: now,
        });
    }

    /// What was measured counts no longer as part of what comes.
    pub(super) fn begin_anew(&mut self) {
        self.filled = None;
    }

    /// For how long it has been filled without a pause.
    pub(super) fn filled_for(&self, now: Instant) -> Duration {
        self.filled.map_or(Duration::ZERO, |filled| {
            now.saturating_duration_since(filled.since)
        })
    }

    /// The last rate that was measured.
    pub(super) const fn rate(&self) -> Option<Rate> {
        self.rate
    }
}
