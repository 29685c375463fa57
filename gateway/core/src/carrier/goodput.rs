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

/// What a carrier delivered in one direction in one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Bytes that arrived.
    pub bytes: u64,
    /// Of these, bytes that arrived while there was more to send than was allowed to be on its way.
    pub filled_bytes: u64,
}

/// What a carrier delivered in one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// To the peer.
    pub sent: Delivered,
    /// From the peer.
    pub received: Delivered,
}

impl Moved {
    /// In one direction.
    pub(super) const fn by(&self, direction: Direction) -> Delivered {
        match direction {
            Direction::Sent => self.sent,
            Direction::Received => self.received,
        }
    }
}

/// Whose bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Ours.
    Sent,
    /// The peer's.
    Received,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sent, Self::Received];
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

/// How much one carrier delivers in one direction when it is given more than it takes.
#[derive(Debug)]
pub(super) struct Goodput {
    looked_at: Instant,
    /// When something was delivered last.
    moved_at: Instant,
    /// Looks in a row that were filled.
    filled: Option<Filled>,
    rate: Option<Rate>,
    /// What it delivered whether it was filled or not: it could at least that.
    window: Window,
    least: Option<Rate>,
}

#[derive(Debug, Clone, Copy)]
struct Filled {
    since: Instant,
    window: Window,
    is_measured: bool,
}

/// What is counted until it is long enough for a rate.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    bytes: u64,
}

impl Window {
    const fn new(since: Instant) -> Self {
        Self { since, bytes: 0 }
    }

    /// The rate, each time a window is over.
    fn add(&mut self, bytes: u64, now: Instant) -> Option<Rate> {
        self.bytes += bytes;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < WINDOW {
            return None;
        }
        let window = std::mem::replace(self, Self::new(now));
        Some(Rate {
            bytes_per_second: window.bytes as f64 / elapsed.as_secs_f64(),
            at: now,
        })
    }
}

impl Goodput {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            looked_at: now,
            moved_at: now,
            filled: None,
            rate: None,
            window: Window::new(now),
            least: None,
        }
    }

    /// A look found this.
    pub(super) fn handle_look(&mut self, delivered: Delivered, now: Instant) {
        if let Some(least) = self.window.add(delivered.bytes, now) {
            self.least = Some(least);
        }
        let before = std::mem::replace(&mut self.looked_at, now);
        let is_apart = now.saturating_duration_since(self.moved_at) > LOOKS_APART_MAX;
        if delivered.bytes == 0 && !is_apart {
            // Whoever counts comes round a little later than we do.
            return;
        }
        self.moved_at = now;
        if is_apart || !delivered.is_filled() {
            self.filled = None;
            return;
        }
        let filled = self.filled.get_or_insert_with(|| Filled {
            since: before,
            window: Window::new(before),
            is_measured: false,
        });
        let Some(measured) = filled.window.add(delivered.bytes, now) else {
            return;
        };
        let was_measured = std::mem::replace(&mut filled.is_measured, true);
        let bytes_per_second = match self.rate.filter(|_| was_measured) {
            Some(rate) => f64::midpoint(rate.bytes_per_second, measured.bytes_per_second),
            None => measured.bytes_per_second,
        };
        self.rate = Some(Rate {
            bytes_per_second,
            at: now,
        });
    }

    /// What was delivered until now is no part of what is measured next.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.filled = None;
        self.window = Window::new(now);
    }

    /// For how long it has been filled without a pause.
    pub(super) fn filled_for(&self) -> Duration {
        self.filled.map_or(Duration::ZERO, |filled| {
            self.moved_at.saturating_duration_since(filled.since)
        })
    }

    /// The last rate while it was filled.
    pub(super) const fn rate(&self) -> Option<Rate> {
        self.rate
    }

    /// The last rate, filled or not.
    pub(super) const fn least(&self) -> Option<Rate> {
        self.least
    }
}
