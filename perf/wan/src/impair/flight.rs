//! What is on its way.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{Held, Pace};
use crate::impairment::{Impairment, Order};

#[derive(Debug, Default)]
pub(super) struct Flight {
    packets: BinaryHeap<Reverse<Arrival>>,
    bytes: u64,
    next_serial: u64,
    last_due: Duration,
}

/// Ordered by when it is due, then by when it was sent.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    due: Duration,
    serial: u64,
    bytes: Box<[u8]>,
}

impl Flight {
    /// A packet left the line.
    pub(super) fn add(&mut self, held: Held, impairment: &Impairment, left_at: Duration) {
        let mut due = left_at + varied(impairment, held.fate.jitter);
        if impairment.jitter.order == Order::Kept {
            due = due.max(self.last_due);
            self.last_due = due;
        }
        match held.fate.pace {
            Pace::Usual => {}
            Pace::Late => due += impairment.reordering.late_by,
        }
        self.bytes += held.bytes.len() as u64;
        self.packets.push(Reverse(Arrival {
            due,
            serial: self.next_serial,
            bytes: held.bytes,
        }));
        self.next_serial += 1;
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.packets.peek().map(|Reverse(first)| first.due)
    }

    /// Nothing that keeps its order arrives before this any more.
    pub(super) const fn last_due(&self) -> Duration {
        self.last_due
    }

    pub(super) fn take(&mut self, now: Duration) -> Option<(Box<[u8]>, Duration)> {
        self.due().filter(|due| *due <= now)?;
        let Reverse(first) = self.packets.pop()?;
        self.bytes -= first.bytes.len() as u64;
        Some((first.bytes, first.due))
    }

    pub(super) fn packets(&self) -> usize {
        self.packets.len()
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The delay of one packet.
fn varied(impairment: &Impairment, jitter: f64) -> Duration {
    let amount = impairment.jitter.amount.mul_f64(jitter.abs());
    if jitter < 0.0 {
        impairment.delay.saturating_sub(amount)
    } else {
        impairment.delay + amount
    }
}
