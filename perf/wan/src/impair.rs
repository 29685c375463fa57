//! Judges the packets of one direction and says when each arrives. Pure: time and randomness come from outside.
//!
//! A packet goes through, in this order: blackout, MTU, sizes, UDP, loss, duplication, corruption; then the queue of the
//! bottleneck, the line, and the delay with its jitter.
//!
//! Chance is drawn from one generator per question, in the order of arrival. So whether the n-th packet that reaches a
//! question is hit depends on the seed alone: not on time, and not on what else is switched on.
//!
//! The queue is worked off in virtual time: whoever asks late gets the same answer as who asks in time.

mod bucket;
mod chance;
mod codel;
mod flight;
mod link;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use crate::{
    change::Change,
    counters::Counters,
    impairment::{Impairment, Order, Oversize, Path, Udp},
    packet::{self, View},
    timeline::{Direction, Step},
};
use bucket::Bucket;
use chance::Chance;
use flight::Flight;
use link::{Full, Link};

/// The most bytes one direction holds, however long its delay and its queue are.
const HELD_MAX_BYTES: u64 = 256 << 20;

/// A packet that is held, and what was drawn for it when it came.
#[derive(Debug)]
struct Held {
    bytes: Box<[u8]>,
    fate: Fate,
}

/// What chance decided about a packet that was not lost.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fate {
    /// From -1 to 1: where in the range of the jitter.
    jitter: f64,
    /// Whether it comes late, behind others.
    pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Usual,
    Late,
}

/// Why a packet was dropped at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drop {
    Lost,
    UdpPoliced,
    UdpBlocked,
    BySize,
    Oversize,
    Blackout,
    Local,
}

/// What the sender is told at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: it was taken, or has vanished.
    Silent,
    /// By ICMP, that the packet is larger than this MTU.
    TooBig {
        /// The largest that passes.
        mtu_bytes: u32,
    },
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Line {
    direction: Direction,
    own: Impairment,
    opposite: Impairment,
    initial: [Impairment; 2],
    steps: VecDeque<Step>,
    chance: Chance,
    policer: Bucket,
    link: Link,
    flight: Flight,
    counters: Counters,
}

impl Line {
    /// A direction that does what `own` says, beside another that does what `opposite` says, changed by `steps` as time
    /// goes by.
    pub(crate) fn new(
        direction: Direction,
        own: Impairment,
        opposite: Impairment,
        steps: &[Step],
        seed: u64,
    ) -> Self {
        let mut steps = steps.to_vec();
        steps.sort_by_key(|step| step.at);
        Self {
            direction,
            initial: [own.clone(), opposite.clone()],
            own,
            opposite,
            steps: steps.into(),
            chance: Chance::new(seed, direction),
            policer: Bucket::default(),
            link: Link::default(),
            flight: Flight::default(),
            counters: Counters::default(),
        }
    }

    /// Does from now on what `own` says. Packets that are held stay held, by the new rate and delay.
    pub(crate) fn set(&mut self, own: Impairment, now: Duration) {
        self.advance(now);
        self.own = own;
        self.advance(now);
    }

    /// Knows from now on that the other direction does what `opposite` says.
    pub(crate) fn set_opposite(&mut self, opposite: Impairment, now: Duration) {
        self.advance(now);
        self.opposite = opposite;
    }

    /// What it does now, and what the other direction does.
    pub(crate) const fn impairments(&self) -> (&Impairment, &Impairment) {
        (&self.own, &self.opposite)
    }

    pub(crate) fn counters(&self) -> Counters {
        let held = self.link.waiting_packets() + self.flight.packets();
        Counters {
            held_packets: held as u64,
            queue_max_bytes: self.link.waiting_max_bytes(),
            ..self.counters
        }
    }

    /// A packet came.
    pub(crate) fn accept(&mut self, packet: &[u8], now: Duration) -> Verdict {
        self.advance(now);
        self.counters.arrived_packets += 1;
        self.counters.arrived_bytes += packet.len() as u64;

        let view = match self.admit(packet, now) {
            Ok(view) => view,
            Err(drop) => return self.refuse(drop),
        };
        let copies = if self.chance.is_duplicated(&self.own) {
            self.counters.duplicated += 1;
            2
        } else {
            1
        };
        for _ in 0..copies {
            self.hold(packet, view, now);
        }
        self.advance(now);
        Verdict::Silent
    }

    /// When to ask again: not before this does any packet arrive.
    pub(crate) fn due(&self) -> Option<Duration> {
        let work = self.link.ready_at();
        match (self.flight.due(), work) {
            // Nobody in the queue arrives before the first one, so the queue can wait until it has arrived.
            (Some(first), Some(_)) if self.keeps_order_from(first) => Some(first),
            (first, work) => {
                let step = self.steps.front().map(|step| step.at);
                let step = step.filter(|_| work.is_some());
                [first, work, step].into_iter().flatten().min()
            }
        }
    }

    /// The next packet that has arrived by now, and when it should have.
    pub(crate) fn take(&mut self, now: Duration) -> Option<(Box<[u8]>, Duration)> {
        self.advance(now);
        self.flight.take(now)
    }

    /// A packet that was taken has been delivered.
    pub(crate) fn delivered(&mut self, bytes: usize, lateness: Duration) {
        self.counters.delivered_packets += 1;
        self.counters.delivered_bytes += bytes as u64;
        let late_us = u64::try_from(lateness.as_micros()).unwrap_or(u64::MAX);
        self.counters.late_packets += u64::from(late_us > 100);
        self.counters.late_max_us = self.counters.late_max_us.max(late_us);
    }

    /// A packet that was taken could not be delivered.
    pub(crate) const fn refused(&mut self) {
        self.counters.dropped.refused += 1;
    }

    /// The sender of a packet that was too large has been told.
    pub(crate) const fn told(&mut self) {
        self.counters.too_big_told += 1;
    }

    /// Whether a packet gets as far as the queue.
    fn admit(&mut self, packet: &[u8], now: Duration) -> Result<View, Drop> {
        let view = packet::view(packet).filter(|view| !view.is_local);
        let view = view.ok_or(Drop::Local)?;
        let bytes = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        if self.own.path == Path::Blackout {
            return Err(Drop::Blackout);
        }
        if self.own.mtu.is_some_and(|mtu| bytes > mtu.bytes) {
            return Err(Drop::Oversize);
        }
        let sizes = self.own.dropped_sizes.as_ref();
        if sizes.is_some_and(|sizes| sizes.contains(&bytes)) {
            return Err(Drop::BySize);
        }
        if view.is_udp {
            self.admit_udp(bytes, now)?;
        }
        if self.chance.is_lost(&self.own.loss) {
            return Err(Drop::Lost);
        }
        Ok(view)
    }

    fn admit_udp(&mut self, bytes: u32, now: Duration) -> Result<(), Drop> {
        match self.own.udp {
            Udp::Passes => Ok(()),
            Udp::Blocked => Err(Drop::UdpBlocked),
            Udp::Policed {
                bits_per_second,
                burst_bytes,
            } => {
                let fits = self.policer.take(bytes, bits_per_second, burst_bytes, now);
                fits.then_some(()).ok_or(Drop::UdpPoliced)
            }
        }
    }

    fn refuse(&mut self, drop: Drop) -> Verdict {
        let dropped = &mut self.counters.dropped;
        let count = match drop {
            Drop::Lost => &mut dropped.lost,
            Drop::UdpPoliced => &mut dropped.udp_policed,
            Drop::UdpBlocked => &mut dropped.udp_blocked,
            Drop::BySize => &mut dropped.by_size,
            Drop::Oversize => &mut dropped.oversize,
            Drop::Blackout => &mut dropped.blackout,
            Drop::Local => &mut dropped.local,
        };
        *count += 1;
        match self.own.mtu {
            Some(mtu) if drop == Drop::Oversize && mtu.oversize == Oversize::Told => {
                Verdict::TooBig {
                    mtu_bytes: mtu.bytes,
                }
            }
            Some(_) | None => Verdict::Silent,
        }
    }

    /// Puts one copy into the queue.
    fn hold(&mut self, packet: &[u8], view: View, now: Duration) {
        let mut bytes: Box<[u8]> = packet.into();
        if self
            .chance
            .corrupt(&self.own, &mut bytes[view.payload_at..])
        {
            self.counters.corrupted += 1;
        }
        let fate = self.chance.fate(&self.own);
        if self.link.waiting_bytes() + self.flight.bytes() + bytes.len() as u64 > HELD_MAX_BYTES {
            self.counters.dropped.overflow += 1;
            return;
        }
        let round_trip = self.own.delay + self.opposite.delay;
        match self
            .link
            .enqueue(Held { bytes, fate }, &self.own, round_trip, now)
        {
            Ok(()) => {}
            Err(Full) => self.counters.dropped.queue_full += 1,
        }
    }

    /// Lets everything happen that happens by `now`.
    fn advance(&mut self, now: Duration) {
        while self.steps.front().is_some_and(|step| step.at <= now)
            && let Some(step) = self.steps.pop_front()
        {
            self.drain_queue(step.at);
            self.apply(&step);
        }
        self.drain_queue(now);
    }

    fn apply(&mut self, step: &Step) {
        if step.direction.is_none_or(|only| only == self.direction) {
            self.change(&step.change);
        }
        if step.direction.is_none_or(|only| only != self.direction) {
            self.opposite = step.change.applied(&self.opposite, &self.initial[1]);
        }
    }

    fn change(&mut self, change: &Change) {
        self.own = change.applied(&self.own, &self.initial[0]);
    }

    fn drain_queue(&mut self, now: Duration) {
        while let Some(left) = self.link.next(&self.own, now) {
            self.counters.dropped.codel += left.dropped;
            let Some((held, at)) = left.packet else { break };
            if held.fate.pace == Pace::Late {
                self.counters.reordered += 1;
            }
            self.flight.add(held, &self.own, at);
        }
    }

    /// Whether nothing that is in the queue now can arrive before `first`.
    fn keeps_order_from(&self, first: Duration) -> bool {
        self.steps.is_empty()
            && self.own.jitter.order == Order::Kept
            && self.flight.last_due() >= first
    }
}
