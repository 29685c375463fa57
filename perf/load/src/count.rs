//! Counts while it runs, and cuts what was counted into intervals.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{result::Interval, socket::TcpFacts};

/// What one connection has done; one thread writes, others look. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counter {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
}

impl Counter {
    /// Bytes given to the kernel.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes got from the kernel.
    pub fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// One request was answered.
    pub fn completed(&self) {
        self.completed.fetch_add(1, Relaxed);
    }

    /// Requests that were not.
    pub fn failed(&self, requests: u64) {
        self.failed.fetch_add(requests, Relaxed);
    }

    /// Everything until now.
    pub fn look(&self) -> Count {
        Count {
            sent_bytes: self.sent_bytes.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            completed: self.completed.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

/// A counter at one moment, or the difference of two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Bytes given to the kernel.
    pub sent_bytes: u64,
    /// Bytes got from the kernel.
    pub received_bytes: u64,
    /// Requests that were answered.
    pub completed: u64,
    /// Requests that were not.
    pub failed: u64,
}

impl Count {
    /// What was added since.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
            completed: self.completed.saturating_sub(earlier.completed),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }

    /// Both together.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes.saturating_add(other.sent_bytes),
            received_bytes: self.received_bytes.saturating_add(other.received_bytes),
            completed: self.completed.saturating_add(other.completed),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// Which figures of a connection mean something on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It sends payload.
    Sends,
    /// It receives payload.
    Receives,
    /// It asks.
    Asks,
}

/// One connection at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Its number.
    pub connection: u32,
    /// What it does here.
    pub part: Part,
    /// Its counter.
    pub count: Count,
    /// What the kernel says about it.
    pub tcp: Option<TcpFacts>,
}

/// Cuts the time into intervals.
#[derive(Debug, Default)]
pub struct Timeline {
    last: Vec<Sample>,
    last_ms: f64,
}

impl Timeline {
    /// The interval from the last call (or the start) until now: of each connection, then of all.
    pub fn cut(&mut self, now_ms: f64, samples: &[Sample], omit_ms: f64) -> Vec<Interval> {
        let start_ms = self.last_ms;
        let mut intervals = Vec::with_capacity(samples.len() + 1);
        for sample in samples {
            let before = self
                .last
                .iter()
                .find(|last| last.connection == sample.connection);
            let mut interval = sample.since(before);
            interval.start_ms = start_ms;
            interval.end_ms = now_ms;
            interval.omitted = now_ms <= omit_ms + 1.0;
            intervals.push(interval);
        }
        let mut sum = Interval {
            start_ms,
            end_ms: now_ms,
            omitted: now_ms <= omit_ms + 1.0,
            ..Interval::default()
        };
        for interval in &intervals {
            add(&mut sum.sent_bytes, interval.sent_bytes);
            add(&mut sum.received_bytes, interval.received_bytes);
            add(&mut sum.retransmits, interval.retransmits);
            add(&mut sum.completed, interval.completed);
            add(&mut sum.failed, interval.failed);
        }
        intervals.push(sum);
        self.last = samples.to_vec();
        self.last_ms = now_ms;
        intervals
    }
}

impl Sample {
    fn since(&self, before: Option<&Self>) -> Interval {
        let count = self
            .count
            .since(before.map(|before| before.count).unwrap_or_default());
        let mut interval = Interval {
            connection: Some(self.connection),
            ..Interval::default()
        };
        match self.part {
            Part::Sends => {
                interval.sent_bytes = Some(count.sent_bytes);
                interval.retransmits = self.tcp.map(|tcp| {
                    let earlier = before.and_then(|before| before.tcp);
                    tcp.retransmits
                        .saturating_sub(earlier.map_or(0, |earlier| earlier.retransmits))
                });
                interval.window_bytes = self.tcp.map(|tcp| tcp.window_bytes);
            }
            Part::Receives => interval.received_bytes = Some(count.received_bytes),
            Part::Asks => {
                interval.completed = Some(count.completed);
                interval.failed = Some(count.failed);
            }
        }
        interval
    }
}

fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0).saturating_add(more));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(connection: u32, part: Part, bytes: u64) -> Sample {
        Sample {
            connection,
            part,
            count: Count {
                sent_bytes: bytes,
                received_bytes: bytes,
                ..Count::default()
            },
            tcp: None,
        }
    }

    #[test]
    fn intervals_add_up_to_what_was_counted() {
        let mut timeline = Timeline::default();
        let mut total = 0;
        for (now_ms, bytes) in [(1_000.0, 10), (2_000.0, 25), (3_000.0, 25), (4_000.0, 100)] {
            let cut = timeline.cut(now_ms, &[sample(0, Part::Sends, bytes)], 0.0);
            total += cut[1].sent_bytes.unwrap();
        }
        assert_eq!(total, 100);
    }

    #[test]
    fn the_sum_holds_each_direction_and_nothing_that_was_not_measured() {
        let mut timeline = Timeline::default();
        let samples = [sample(0, Part::Sends, 5), sample(1, Part::Receives, 7)];
        let cut = timeline.cut(1_000.0, &samples, 0.0);
        let sum = &cut[2];
        assert_eq!(sum.connection, None);
        assert_eq!((sum.sent_bytes, sum.received_bytes), (Some(5), Some(7)));
        assert_eq!((sum.retransmits, sum.completed), (None, None));
    }

    #[test]
    fn what_lies_before_the_start_of_counting_is_marked() {
        let mut timeline = Timeline::default();
        let omitted = timeline.cut(1_000.0, &[sample(0, Part::Asks, 0)], 1_000.0);
        let counted = timeline.cut(2_000.0, &[sample(0, Part::Asks, 0)], 1_000.0);
        assert!(omitted.iter().all(|interval| interval.omitted));
        assert!(counted.iter().all(|interval| !interval.omitted));
    }
}
