//! What is made of samples: the most of late, the shortest of late, and how unevenly acknowledgements come.

use std::time::{Duration, Instant};

/// The bandwidth is the most of so many rounds.
const ROUNDS: usize = 10;
/// A shortest round trip is believed for so long.
const SHORTEST_FOR: Duration = Duration::from_secs(10);
/// Round trips that are longer by less than a twentieth are as short: each is a little different.
const AS_SHORT: u32 = 20;
/// So long is looked for a shorter one.
const LOOK: Duration = Duration::from_millis(200);
/// The surplus is at most the product of the path, or this.
const SURPLUS_MIN_BYTES: f64 = (128 << 10) as f64;

/// The most that was delivered in a second, of late.
#[derive(Debug, Clone, Default)]
pub(super) struct Bandwidth {
    rounds: [f64; ROUNDS],
    at: usize,
    has_sample: bool,
}

impl Bandwidth {
    pub(super) fn bytes_per_second(&self) -> f64 {
        self.rounds.iter().copied().fold(0.0, f64::max)
    }

    /// Who had nothing to send shows only that the path carries at least as much.
    pub(super) fn add(&mut self, bytes_per_second: f64, is_limited: bool) {
        if is_limited && bytes_per_second <= self.bytes_per_second() {
            return;
        }
        let most = &mut self.rounds[self.at];
        *most = most.max(bytes_per_second);
        self.has_sample = true;
    }

    /// A round without a sample makes nothing older.
    pub(super) fn end_round(&mut self) {
        if std::mem::take(&mut self.has_sample) {
            self.at = (self.at + 1) % ROUNDS;
            self.rounds[self.at] = 0.0;
        }
    }
}

/// The shortest round trip of late: that of a path without a queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shortest {
    best: Option<(Duration, Instant)>,
    /// The shortest since it is looked for again.
    again: Option<Duration>,
}

impl Shortest {
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.best.map(|(rtt, _)| rtt)
    }

    pub(super) fn add(&mut self, rtt: Duration, now: Instant) {
        if let Some(again) = &mut self.again {
            *again = rtt.min(*again);
        }
        match &mut self.best {
            Some((best, at)) if rtt <= *best + *best / AS_SHORT => {
                *best = rtt.min(*best);
                *at = now;
            }
            Some(_) => {}
            None => self.best = Some((rtt, now)),
        }
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.best
            .is_some_and(|(_, at)| now.saturating_duration_since(at) > SHORTEST_FOR)
    }

    /// From now on the shortest is looked for; until when.
    pub(super) fn look_again(&mut self, now: Instant) -> Instant {
        self.again = Some(Duration::MAX);
        now + LOOK
    }

    /// What was found is the shortest now.
    pub(super) fn settle(&mut self, now: Instant) {
        let found = self.again.take().filter(|found| *found < Duration::MAX);
        if let Some((best, at)) = &mut self.best {
            *best = found.unwrap_or(*best);
            *at = now;
        }
    }
}

/// How much more is acknowledged at times than the bandwidth explains: acknowledgements wait for each other, in the
/// network or for a processor, and so much more has to be on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surplus {
    since: Instant,
    acked_bytes: f64,
    /// The most of the last rounds, and of those before.
    most: [f64; 2],
    rounds: usize,
}

impl Surplus {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            acked_bytes: 0.0,
            most: [0.0; 2],
            rounds: 0,
        }
    }

    /// It is not more than what the path holds.
    pub(super) fn bytes(&self, product: f64) -> f64 {
        let most = self.most[0].max(self.most[1]);
        most.min(product.max(SURPLUS_MIN_BYTES))
    }

    pub(super) fn add(&mut self, bytes: u64, bytes_per_second: f64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since).as_secs_f64();
        let mut expected = bytes_per_second * elapsed;
        if self.acked_bytes <= expected {
            (self.since, self.acked_bytes, expected) = (now, 0.0, 0.0);
        }
        self.acked_bytes += bytes as f64;
        self.most[0] = self.most[0].max(self.acked_bytes - expected);
    }

    pub(super) fn end_round(&mut self) {
        self.rounds += 1;
        if self.rounds == ROUNDS / 2 {
            self.rounds = 0;
            self.most = [0.0, self.most[0]];
        }
    }
}
