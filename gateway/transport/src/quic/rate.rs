//! Congestion control by rate: as much is on its way as the path delivers in its shortest round trip, and a fifth more.
//!
//! After draft-ietf-ccwg-bbr, whose delivery rate (§4.1), filters and phases these are. Differences: quinn spreads what we
//! allow over a round trip by itself, so that there is a window and no pacing rate; a path is never taken for shorter than
//! its ends are slow; and losses end the start, but nothing else. On a path that queues, a fifth more than it holds waits and is not lost. Where it is lost all the time, somebody
//! polices the path, and whoever chooses between carriers is to see it.
//!
//! ```text
//!  acknowledged ──> Delivery ──sample──┬──> Bandwidth (most of ten rounds) ──┐
//!                                      └──> Shortest (of ten seconds) ───────┴──> product × gain of the phase + Surplus
//! ```

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

use self::{
    delivery::{Delivery, Sample},
    filters::{Bandwidth, Shortest, Surplus},
};

mod delivery;
mod filters;
#[cfg(test)]
mod tests;

/// The first window, in packets (RFC 9002 §7.2 allows ten; the kernel's BBR and quinn's begin with more).
const FIRST_PACKETS: u64 = 32;
/// The smallest window, in packets: what leaves in one call, once again while that is on its way.
const LEAST_PACKETS: u64 = 16;
/// In the start, at most so many times the product is on its way: what doubles each round has to be twice as much.
const START: f64 = 2.2;
/// In the start, a round must bring a quarter more than the ones before,
const FULL_GROWTH: f64 = 1.25;
/// and after so many that did not, the path is full.
const FULL_ROUNDS: u32 = 3;
/// In the start, a round that loses more of its bytes than this has filled the path.
const FULL_LOSS: f64 = 0.05;
/// Fewer lost packets say nothing.
const FULL_LOST_PACKETS: u64 = 8;
/// What is on its way in the rounds of a cycle, as parts of the product: one looks for more, one empties the queue again.
const CYCLE: [f64; 8] = [1.5, 0.85, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2];
/// How long both ends take for what comes at once. No shortest round trip shows it, and on a path that is shorter they would
/// wait for each other's turn.
const TURN: Duration = Duration::from_millis(1);
/// At most so much more is on its way for that: sockets hold little where the system does not let them have more.
const TURN_MAX_BYTES: f64 = (192 << 10) as f64;
/// While the shortest round trip is looked for, half of the product is on its way.
const DIP: f64 = 0.5;

/// Makes controllers that go by rate.
#[derive(Debug, Default)]
pub(super) struct ByRateConfig;

/// What a path may have on its way, by the rate at which it delivers.
#[derive(Debug, Clone)]
struct ByRate {
    mtu_bytes: u64,
    window_bytes: u64,
    phase: Phase,
    delivery: Delivery,
    bandwidth: Bandwidth,
    shortest: Shortest,
    surplus: Surplus,
    round: Round,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Twice as much each round, until that delivers no more.
    Start { best: f64, rounds: u32 },
    /// What the start has put into the queue leaves it.
    Empty,
    /// Round after round of the cycle.
    Cycle { at: usize },
    /// Less is on its way, so that the shortest round trip can be seen, until then and to the end of a round.
    Dip { until: Instant },
}

/// A round ends when something is acknowledged that was sent after it began.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// Delivered before it began.
    prior_bytes: u64,
    lost_bytes: u64,
}

impl ControllerFactory for ByRateConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(ByRate::new(now, current_mtu))
    }
}

impl ByRate {
    fn new(now: Instant, mtu: u16) -> Self {
        let mtu_bytes = u64::from(mtu);
        Self {
            mtu_bytes,
            window_bytes: FIRST_PACKETS * mtu_bytes,
            phase: Phase::Start {
                best: 0.0,
                rounds: 0,
            },
            delivery: Delivery::new(now),
            bandwidth: Bandwidth::default(),
            shortest: Shortest::default(),
            surplus: Surplus::new(now),
            round: Round::default(),
        }
    }

    /// What the path and its ends hold without a queue. `None` while nothing is known.
    fn product_bytes(&self) -> Option<f64> {
        let rtt = self.shortest.rtt()?;
        let turn = TURN.saturating_sub(rtt);
        let bandwidth = self.bandwidth.bytes_per_second();
        let held = bandwidth * rtt.as_secs_f64();
        (bandwidth > 0.0).then(|| held + (bandwidth * turn.as_secs_f64()).min(TURN_MAX_BYTES))
    }

    fn least_bytes(&self) -> u64 {
        LEAST_PACKETS * self.mtu_bytes
    }

    /// The round that has ended with this, if one has.
    fn ends_round(&mut self, sample: &Sample) -> Option<Round> {
        if sample.prior_bytes < self.round.prior_bytes {
            return None;
        }
        let next = Round {
            prior_bytes: self.delivery.bytes(),
            lost_bytes: 0,
        };
        Some(std::mem::replace(&mut self.round, next))
    }

    fn next_phase(&mut self, ended: Option<Round>, in_flight: u64, is_limited: bool, now: Instant) {
        let bandwidth = self.bandwidth.bytes_per_second();
        let is_empty = self
            .product_bytes()
            .is_some_and(|product| in_flight <= self.least_bytes().max(product as u64));
        self.phase = match (self.phase, ended) {
            (Phase::Start { best, rounds }, Some(ended)) => {
                if self.is_overflowing(&ended) {
                    Phase::Empty
                } else if is_limited {
                    Phase::Start { best, rounds }
                } else if bandwidth >= best * FULL_GROWTH {
                    Phase::Start {
                        best: bandwidth,
                        rounds: 0,
                    }
                } else if rounds + 1 < FULL_ROUNDS {
                    Phase::Start {
                        best,
                        rounds: rounds + 1,
                    }
                } else {
                    Phase::Empty
                }
            }
            (Phase::Empty, _) if is_empty => Phase::Cycle { at: 2 },
            (Phase::Cycle { at }, Some(_)) => Phase::Cycle {
                at: (at + 1) % CYCLE.len(),
            },
            (Phase::Dip { until }, Some(_)) if now >= until => {
                self.shortest.settle(now);
                Phase::Cycle { at: 0 }
            }
            (phase, _) => phase,
        };
    }

    fn is_overflowing(&self, ended: &Round) -> bool {
        let sent = self.delivery.bytes() - ended.prior_bytes + ended.lost_bytes;
        ended.lost_bytes > FULL_LOST_PACKETS * self.mtu_bytes
            && ended.lost_bytes as f64 > sent as f64 * FULL_LOSS
    }

    /// Looks for the shortest round trip again once it is old, which costs nothing where there is little on its way.
    fn refresh_shortest(&mut self, is_limited: bool, now: Instant) {
        if !self.shortest.is_old(now) {
            return;
        }
        match self.phase {
            Phase::Dip { .. } => {}
            Phase::Cycle { .. } if !is_limited => {
                self.phase = Phase::Dip {
                    until: self.shortest.look_again(now),
                };
            }
            Phase::Start { .. } | Phase::Empty | Phase::Cycle { .. } => {
                self.shortest.look_again(now);
                self.shortest.settle(now);
            }
        }
    }

    fn set_window(&mut self, acked_bytes: u64, is_limited: bool) {
        let least = self.least_bytes();
        let target = |gain: f64| {
            let product = self.product_bytes()?;
            Some((product * gain + self.surplus.bytes(product)) as u64)
        };
        let target = match self.phase {
            Phase::Start { .. } => {
                let most = target(START).unwrap_or(u64::MAX).max(self.initial_window());
                if !is_limited && self.window_bytes < most {
                    self.window_bytes += acked_bytes;
                }
                return;
            }
            Phase::Empty => self.product_bytes().map(|product| product as u64),
            Phase::Cycle { at } => target(CYCLE[at]),
            Phase::Dip { .. } => self.product_bytes().map(|product| (product * DIP) as u64),
        };
        let Some(target) = target.map(|target| target.max(least)) else {
            return;
        };
        self.window_bytes = target.min(self.window_bytes + acked_bytes).max(least);
    }
}

impl Controller for ByRate {
    fn on_sent(&mut self, now: Instant, _bytes: u64, _last_packet_number: u64) {
        self.delivery.sent(now);
    }

    fn on_ack(
        &mut self,
        _now: Instant,
        sent: Instant,
        bytes: u64,
        _app_limited: bool,
        _rtt: &RttEstimator,
    ) {
        self.delivery.acknowledged(sent, bytes);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        _largest_packet_num_acked: Option<u64>,
    ) {
        let acked_bytes = self.delivery.newly_acknowledged();
        if acked_bytes == 0 {
            return;
        }
        // Who does not fill the window did not look whether there is more.
        let is_limited = app_limited || (in_flight + acked_bytes) * 2 < self.window_bytes;
        let bandwidth = self.bandwidth.bytes_per_second();
        self.surplus.add(acked_bytes, bandwidth, now);
        let mut ended = None;
        if let Some(sample) = self.delivery.sample(now) {
            self.shortest.add(sample.rtt, now);
            let is_long_enough = self
                .shortest
                .rtt()
                .is_some_and(|shortest| sample.interval >= shortest);
            if is_long_enough {
                self.bandwidth.add(sample.bytes_per_second(), is_limited);
            }
            ended = self.ends_round(&sample);
            if ended.is_some() {
                self.bandwidth.end_round();
                self.surplus.end_round();
            }
        }
        if in_flight == 0 {
            self.delivery.rest();
        }
        self.next_phase(ended, in_flight, is_limited, now);
        self.refresh_shortest(is_limited, now);
        self.set_window(acked_bytes, is_limited);
    }

    fn on_congestion_event(
        &mut self,
        _now: Instant,
        _sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.round.lost_bytes += lost_bytes;
        if lost_bytes == 0 && matches!(self.phase, Phase::Start { .. }) {
            // A router has marked packets instead of losing them (RFC 3168): the queue is there.
            self.phase = Phase::Empty;
        }
        if is_persistent_congestion {
            // It grows with what is acknowledged from here on.
            self.window_bytes = self.least_bytes();
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu_bytes = u64::from(new_mtu);
        self.window_bytes = self.window_bytes.max(self.least_bytes());
    }

    fn window(&self) -> u64 {
        self.window_bytes
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.window_bytes;
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        FIRST_PACKETS * self.mtu_bytes
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
