//! The bottleneck: a queue, and a line that is busy with one packet at a time.

use std::{collections::VecDeque, time::Duration};

use super::{
    Held,
    codel::{Advice, CoDel, Head, Times},
};
use crate::impairment::{Discipline, Impairment};

/// There is no room.
#[derive(Debug)]
pub(super) struct Full;

/// What came out of the queue at one time.
#[derive(Debug)]
pub(super) struct Left {
    /// A packet and when its last bit left; `None` if all were dropped.
    pub(super) packet: Option<(Held, Duration)>,
    /// How many were dropped before it.
    pub(super) dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Link {
    waiting: VecDeque<(Held, Duration)>,
    waiting_bytes: u64,
    waiting_max_bytes: u64,
    packet_max_bytes: u64,
    free_at: Duration,
    codel: CoDel,
}

impl Link {
    /// Lets a packet wait. Everything that leaves by `now` must have been asked for.
    pub(super) fn enqueue(
        &mut self,
        held: Held,
        impairment: &Impairment,
        round_trip: Duration,
        now: Duration,
    ) -> Result<(), Full> {
        let bytes = held.bytes.len() as u64;
        if let Some(rate) = impairment.rate {
            let is_busy = self.free_at > now || !self.waiting.is_empty();
            if is_busy && self.waiting_bytes + bytes > rate.queue_limit_bytes(round_trip) {
                return Err(Full);
            }
        }
        self.packet_max_bytes = self.packet_max_bytes.max(bytes);
        self.waiting_bytes += bytes;
        self.waiting.push_back((held, now));
        if self.free_at > now {
            self.waiting_max_bytes = self.waiting_max_bytes.max(self.waiting_bytes);
        }
        Ok(())
    }

    /// The next packet that leaves the queue by `now`.
    pub(super) fn next(&mut self, impairment: &Impairment, now: Duration) -> Option<Left> {
        let start = self.ready_at().filter(|start| *start <= now)?;
        let mut dropped = 0;
        while let Some((held, since)) = self.pop() {
            let bytes = held.bytes.len() as u64;
            let Some(rate) = impairment.rate else {
                self.free_at = start;
                let packet = Some((held, start));
                return Some(Left { packet, dropped });
            };
            let head = Head {
                sojourn: start.saturating_sub(since),
                backlog_bytes: self.waiting_bytes,
            };
            if self.advise(rate.discipline, head, start) == Advice::Drop {
                dropped += 1;
                continue;
            }
            self.free_at = start + rate.time_for(bytes);
            let packet = Some((held, self.free_at));
            return Some(Left { packet, dropped });
        }
        self.codel.empty();
        Some(Left {
            packet: None,
            dropped,
        })
    }

    /// When the packet at the head leaves the queue: not before the one on the line has left it.
    pub(super) fn ready_at(&self) -> Option<Duration> {
        let (_, since) = self.waiting.front()?;
        Some(self.free_at.max(*since))
    }

    pub(super) const fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    pub(super) const fn waiting_max_bytes(&self) -> u64 {
        self.waiting_max_bytes
    }

    pub(super) fn waiting_packets(&self) -> usize {
        self.waiting.len()
    }

    fn pop(&mut self) -> Option<(Held, Duration)> {
        let first = self.waiting.pop_front()?;
        self.waiting_bytes -= first.0.bytes.len() as u64;
        Some(first)
    }

    fn advise(&mut self, discipline: Discipline, head: Head, now: Duration) -> Advice {
        match discipline {
            Discipline::DropTail => Advice::Send,
            Discipline::CoDel { target, interval } => {
                let times = Times { target, interval };
                self.codel.advise(head, self.packet_max_bytes, times, now)
            }
        }
    }
}
