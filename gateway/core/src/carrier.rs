//! Which of two ways carries new streams to one gateway of a peer: QUIC, or mutual TLS over TCP.
//!
//! Both are kept linked. QUIC is preferred where the way is long, TLS where it is short and the work of packets is what
//! counts. Whoever turns out to deliver far more is used wherever the way leads ([`trial`]). A carrier on which answers are
//! overdue is left at once, whatever is preferred, if the other one lives. One that was left is used again when it has been
//! well for as long as its probation lasts, which grows each time it fails soon after.
//!
//! ```text
//!              overdue, dead or lossy, the other one lives
//!  preferred ─────────────────────────────────────────────> barred
//!      ^                                                       │
//!      └────────────── well for all of its probation ──────────┘
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use self::trial::Trials;
pub use self::{
    cost::Costs,
    goodput::{Delivered, Direction, Moved},
};

mod cost;
mod goodput;
#[cfg(test)]
mod tests;
mod trial;

/// The first probation. Each further one is twice as long.
const PROBATION_MIN: Duration = Duration::from_secs(5);
/// The longest probation.
const PROBATION_MAX: Duration = Duration::from_secs(300);
/// Whoever served for as long is forgiven all that was before.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// A carrier whose path is dead for as long, while the other one lives, is given up with the streams on it.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(2);
/// Below this round trip TLS is preferred: the kernel carries a byte for less than we do.
const NEAR: Duration = Duration::from_millis(4);
/// Above this one QUIC is. Between the two nothing changes.
const FAR: Duration = Duration::from_millis(6);
/// The way is as long as the shortest round trip of so much time, or of up to twice as much: a busy one only seems
/// longer, and one is busy for minutes.
const SHORTEST_OF: Duration = Duration::from_secs(15 * 60);
/// Fewer packets than this say nothing about losses; looks add up to it.
const SAMPLE_MIN_PACKETS: u64 = 100;
/// More lost packets than this, in hundredths, is no path for QUIC: somebody polices it, or drops what is large.
const LOSS_MAX_PERCENT: u64 = 10;
/// So many looks in a row must say so.
const LOSSY_LOOKS: u32 = 3;
/// Changes not yet polled; the oldest are forgotten.
const CHANGES_MAX: usize = 64;

/// A way to carry streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// Over UDP.
    Quic,
    /// Mutual TLS over TCP.
    Tls,
}

/// How a link is by one carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pulse {
    /// Answers come in time.
    Steady,
    /// Answers are overdue.
    Overdue,
    /// There is none, or nothing comes back.
    Gone,
}

/// Packets of one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Sent since the look before.
    pub sent_packets: u64,
    /// Lost since the look before.
    pub lost_packets: u64,
}

/// Why the carrier changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It was the first that was linked.
    First,
    /// It is linked now, is preferred, and there is nothing against it.
    Arrived,
    /// Answers on the other one are overdue.
    Overdue,
    /// Nothing comes back on the other one.
    Gone,
    /// Too many packets are lost on the other one.
    Lossy,
    /// It has been well for all of its probation.
    Returned,
    /// The way has become longer or shorter than the other one is good for.
    Distance,
    /// The other one is given more than it takes, and nobody knows what this one would deliver: it is tried.
    Trial,
    /// It delivers far more than the other one.
    Faster,
    /// The other one was tried, and does not deliver far more.
    Tried,
    /// That the other one delivers far more was found long ago, or is so no longer.
    Stale,
}

/// The carrier for new streams has changed; or it was tried, and stays because it is [`Cause::Faster`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarrierChange {
    /// To this one.
    pub to: Carrier,
    /// For this reason.
    pub cause: Cause,
}

/// What is known of one carrier.
#[derive(Debug, Clone, Copy)]
struct Known {
    pulse: Pulse,
    /// Since when it is so.
    since: Instant,
    /// How often in a row it was left for its own fault.
    strikes: u32,
    /// It was left: it has to be steady for its probation, counted from `since`.
    is_barred: bool,
}

impl Known {
    /// There is nothing against it.
    fn is_fit(&self) -> bool {
        self.pulse == Pulse::Steady && !self.is_barred
    }
}

/// The shortest round trip of late.
#[derive(Debug, Clone, Copy)]
struct Shortest {
    /// Of the time from `since`.
    rtt: Duration,
    /// Of the time before.
    before: Duration,
    since: Instant,
}

impl Shortest {
    const fn new(rtt: Duration, now: Instant) -> Self {
        Self {
            rtt,
            before: Duration::MAX,
            since: now,
        }
    }

    /// One was measured. The shortest now.
    fn add(&mut self, rtt: Duration, now: Instant) -> Duration {
        if now.saturating_duration_since(self.since) >= SHORTEST_OF {
            *self = Self {
                rtt,
                before: self.rtt,
                since: now,
            };
        }
        self.rtt = self.rtt.min(rtt);
        self.rtt.min(self.before)
    }
}

/// Chooses the carrier to one gateway of a peer.
#[derive(Debug)]
pub struct Carriers {
    quic: Known,
    tls: Known,
    preferred: Carrier,
    trials: Trials,
    carrier: Carrier,
    /// Since when.
    carrier_since: Instant,
    /// Something has been carried, or could have been.
    has_served: bool,
    shortest: Option<Shortest>,
    /// What looks have found that were too few packets, or too early, to say anything.
    sample: Losses,
    sampled_at: Instant,
    lossy_looks: u32,
    changes: VecDeque<CarrierChange>,
}

impl Carrier {
    /// The word in logs, metrics and CLI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
        }
    }

    /// The one that is not this one.
    pub const fn other(self) -> Self {
        match self {
            Self::Quic => Self::Tls,
            Self::Tls => Self::Quic,
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Cause {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::First,
        Self::Arrived,
        Self::Overdue,
        Self::Gone,
        Self::Lossy,
        Self::Returned,
        Self::Distance,
        Self::Trial,
        Self::Faster,
        Self::Tried,
        Self::Stale,
    ];

    /// The word in logs, metrics and CLI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Arrived => "arrived",
            Self::Overdue => "overdue",
            Self::Gone => "gone",
            Self::Lossy => "lossy",
            Self::Returned => "returned",
            Self::Distance => "distance",
            Self::Trial => "trial",
            Self::Faster => "faster",
            Self::Tried => "tried",
            Self::Stale => "stale",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Carriers {
    /// Nothing is linked yet; QUIC is preferred until the way turns out to be short.
    pub fn new(now: Instant) -> Self {
        let unknown = Known {
            pulse: Pulse::Gone,
            since: now,
            strikes: 0,
            is_barred: false,
        };
        Self {
            quic: unknown,
            tls: unknown,
            preferred: Carrier::Quic,
            trials: Trials::new(now),
            carrier: Carrier::Quic,
            carrier_since: now,
            has_served: false,
            shortest: None,
            sample: Losses::default(),
            sampled_at: now,
            lossy_looks: 0,
            changes: VecDeque::new(),
        }
    }

    /// The carrier for new streams. The other one is better than none where this one turns out not to live.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// A link by `carrier` is like this now.
    pub fn handle_pulse(&mut self, carrier: Carrier, pulse: Pulse, now: Instant) {
        let known = self.known_mut(carrier);
        if known.pulse == pulse {
            return;
        }
        known.pulse = pulse;
        known.since = now;
        self.choose(Cause::Arrived, now);
    }

    /// The round trip was measured.
    pub fn handle_round_trip(&mut self, rtt: Duration, now: Instant) {
        let shortest = self.shortest.get_or_insert_with(|| Shortest::new(rtt, now));
        let preferred = match shortest.add(rtt, now) {
            rtt if rtt < NEAR => Carrier::Tls,
            rtt if rtt > FAR => Carrier::Quic,
            _ => self.preferred,
        };
        if preferred != self.preferred {
            self.preferred = preferred;
            self.choose(Cause::Distance, now);
        }
    }

    /// A look at what both have delivered, to be called as often as [`Self::handle_losses`].
    pub fn handle_moved(&mut self, quic: Moved, tls: Moved, now: Instant) {
        self.trials.handle_moved(Carrier::Quic, quic, now);
        self.trials.handle_moved(Carrier::Tls, tls, now);
        self.weigh(now);
    }

    /// What `carrier` delivered of late in one direction when it was given more than it took, in bytes per second.
    pub fn goodput(&self, carrier: Carrier, direction: Direction, now: Instant) -> Option<f64> {
        self.trials.bytes_per_second(carrier, direction, now)
    }

    /// A look at what QUIC lost. To be called four times a second or so: what a start puts into a queue that has no room
    /// for it is over in less than three looks, and a police is not.
    pub fn handle_losses(&mut self, losses: Losses, now: Instant) {
        self.sample.sent_packets += losses.sent_packets;
        self.sample.lost_packets += losses.lost_packets;
        // What a start overruns is lost within a round trip or two.
        let rtt = self
            .shortest
            .map_or(Duration::ZERO, |shortest| shortest.rtt);
        let is_early = now.saturating_duration_since(self.sampled_at) < rtt;
        if self.sample.sent_packets < SAMPLE_MIN_PACKETS || is_early {
            return;
        }
        let losses = std::mem::take(&mut self.sample);
        self.sampled_at = now;
        let is_lossy = losses.lost_packets.saturating_mul(100)
            > losses.sent_packets.saturating_mul(LOSS_MAX_PERCENT);
        self.lossy_looks = if is_lossy { self.lossy_looks + 1 } else { 0 };
        if self.lossy_looks < LOSSY_LOOKS || self.tls.pulse != Pulse::Steady {
            return;
        }
        self.lossy_looks = 0;
        if self.carrier == Carrier::Quic {
            self.bar(Carrier::Quic, now);
            // The probation begins now, however long it has been steady.
            self.quic.since = now;
            self.choose(Cause::Lossy, now);
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.quic, self.tls]
            .iter()
            .filter(|known| known.is_barred && known.pulse == Pulse::Steady)
            .map(|known| known.since + probation(known.strikes))
            .chain(self.trials.poll_timeout())
            .min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for carrier in [Carrier::Quic, Carrier::Tls] {
            let known = self.known_mut(carrier);
            let is_over = now >= known.since + probation(known.strikes);
            if known.is_barred && known.pulse == Pulse::Steady && is_over {
                known.is_barred = false;
                self.choose(Cause::Returned, now);
            }
        }
        self.weigh(now);
    }

    /// When the streams on `carrier` are to be ended, as nothing comes back on it and new ones have the other one.
    pub fn gives_up_at(&self, carrier: Carrier) -> Option<Instant> {
        let (known, other) = (self.known(carrier), self.known(carrier.other()));
        let is_alone = known.pulse == Pulse::Gone && other.pulse == Pulse::Steady;
        is_alone.then(|| known.since.max(other.since) + GIVEN_UP_AFTER)
    }

    /// The next change nobody was told of.
    pub fn poll_change(&mut self) -> Option<CarrierChange> {
        self.changes.pop_front()
    }

    /// Goes by what the carriers deliver.
    fn weigh(&mut self, now: Instant) {
        let (quic, tls) = (self.quic.is_fit(), self.tls.is_fit());
        let is_fit = |carrier| match carrier {
            Carrier::Quic => quic,
            Carrier::Tls => tls,
        };
        let used = self.carrier;
        let Some(cause) = self.trials.advance(used, is_fit, now) else {
            return;
        };
        self.choose(cause, now);
        if cause == Cause::Faster && self.carrier == used {
            // The trial is over, and it stays.
            self.tell(CarrierChange { to: used, cause });
        }
    }

    fn tell(&mut self, change: CarrierChange) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }

    fn known(&self, carrier: Carrier) -> &Known {
        match carrier {
            Carrier::Quic => &self.quic,
            Carrier::Tls => &self.tls,
        }
    }

    fn known_mut(&mut self, carrier: Carrier) -> &mut Known {
        match carrier {
            Carrier::Quic => &mut self.quic,
            Carrier::Tls => &mut self.tls,
        }
    }

    /// Takes the best one. `cause` is the reason where the one before is as well as ever.
    fn choose(&mut self, cause: Cause, now: Instant) {
        let best = self.best();
        if best == self.carrier {
            self.has_served |= self.known(best).pulse == Pulse::Steady;
            return;
        }
        let left = self.carrier;
        let cause = match self.known(left).pulse {
            Pulse::Steady => cause,
            Pulse::Overdue => Cause::Overdue,
            Pulse::Gone if self.has_served => Cause::Gone,
            Pulse::Gone => Cause::First,
        };
        if matches!(cause, Cause::Overdue | Cause::Gone) {
            self.bar(left, now);
        }
        self.carrier = best;
        self.carrier_since = now;
        self.has_served = true;
        self.tell(CarrierChange { to: best, cause });
    }

    fn best(&self) -> Carrier {
        // While there is something against both, none of them is preferred.
        let preferred = if self.quic.is_barred && self.tls.is_barred {
            self.carrier
        } else {
            self.trials.favoured().unwrap_or(self.preferred)
        };
        let rank = |carrier: Carrier| {
            let known = self.known(carrier);
            (known.pulse, known.is_barred, carrier != preferred)
        };
        if (self.quic.pulse, self.tls.pulse) == (Pulse::Gone, Pulse::Gone) {
            // Whichever comes first.
            return self.carrier;
        }
        if rank(Carrier::Quic) < rank(Carrier::Tls) {
            Carrier::Quic
        } else {
            Carrier::Tls
        }
    }

    /// The one in use is left for its own fault.
    fn bar(&mut self, carrier: Carrier, now: Instant) {
        let is_forgiven = now.saturating_duration_since(self.carrier_since) >= FORGIVEN_AFTER;
        let known = self.known_mut(carrier);
        known.strikes = if is_forgiven {
            1
        } else {
            known.strikes.saturating_add(1)
        };
        known.is_barred = true;
    }
}

/// How long one must be well that was left so often.
fn probation(strikes: u32) -> Duration {
    doubled(PROBATION_MIN, strikes.saturating_sub(1), PROBATION_MAX)
}

/// What is twice as long each time, and no longer than `most`.
fn doubled(first: Duration, times: u32, most: Duration) -> Duration {
    (first * 2_u32.pow(times.min(16))).min(most)
}
