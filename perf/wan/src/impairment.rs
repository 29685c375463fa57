//! What a direction does to packets, as values.

use std::{ops::RangeInclusive, time::Duration};

use thiserror::Error;

/// Longest delay, jitter or lateness.
pub const DELAY_MAX: Duration = Duration::from_secs(60);
/// The smallest MTU there can be: every IPv4 host takes 68 bytes.
pub const MTU_MIN_BYTES: u32 = 68;
/// The largest IP packet.
pub const MTU_MAX_BYTES: u32 = 65_535;
/// The smallest queue that was not asked for in bytes: a few packets must always find room.
pub const QUEUE_DEFAULT_MIN_BYTES: u64 = 32_768;

/// What one direction does to packets. The default does nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Impairment {
    /// Whether anything passes at all.
    pub path: Path,
    /// From leaving the queue to arriving.
    pub delay: Duration,
    /// How much the delay varies.
    pub jitter: Jitter,
    /// Which packets are lost.
    pub loss: Loss,
    /// Which packets come late, behind those sent after them.
    pub reordering: Reordering,
    /// Share of the packets that arrive twice, 0 to 1.
    pub duplication: f64,
    /// Share of the packets in which one bit behind the IP header is flipped, 0 to 1.
    pub corruption: f64,
    /// The bottleneck, if there is one.
    pub rate: Option<Rate>,
    /// The largest packet that passes, if that is less than what the device takes.
    pub mtu: Option<Mtu>,
    /// What happens to UDP.
    pub udp: Udp,
    /// Packets of these sizes, in bytes, vanish.
    pub dropped_sizes: Option<RangeInclusive<u32>>,
}

/// Whether anything passes at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Path {
    /// Packets pass.
    #[default]
    Up,
    /// Nothing that is sent now arrives; what is on its way does.
    Blackout,
}

/// How much the delay varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Jitter {
    /// The delay is even between `delay - amount` and `delay + amount`, never below zero.
    pub amount: Duration,
    /// Whether packets may pass each other by it.
    pub order: Order,
}

/// Whether packets may pass each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Nobody passes the one before: who would, arrives with it. At high packet rates this pulls the mean delay towards
    /// the upper end.
    #[default]
    Kept,
    /// Everybody arrives when its own delay is over.
    Free,
}

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Loss {
    /// None.
    #[default]
    Never,
    /// Each with the same probability, 0 to 1.
    Bernoulli(f64),
    /// In bursts.
    GilbertElliott(GilbertElliott),
}

/// Loss by a chain of two states. Each packet may first change the state, and is then lost as the state says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GilbertElliott {
    /// Probability to turn bad, 0 to 1.
    pub to_bad: f64,
    /// Probability to turn good again, 0 to 1: one over the mean length of a bad stretch, in packets.
    pub to_good: f64,
    /// Loss while bad, 0 to 1.
    pub bad_loss: f64,
    /// Loss while good, 0 to 1.
    pub good_loss: f64,
}

impl GilbertElliott {
    /// The share of all packets that is lost in the long run.
    pub fn mean_loss(&self) -> f64 {
        let bad = self.to_bad / (self.to_bad + self.to_good);
        bad * self.bad_loss + (1.0 - bad) * self.good_loss
    }
}

impl Loss {
    /// The share of all packets that is lost in the long run.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Never => 0.0,
            Self::Bernoulli(probability) => *probability,
            Self::GilbertElliott(chain) => chain.mean_loss(),
        }
    }
}

/// Which packets come late.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reordering {
    /// Share of the packets, 0 to 1.
    pub probability: f64,
    /// How much later than otherwise.
    pub late_by: Duration,
}

/// A bottleneck and the queue before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// IP bytes, headers included, times eight.
    pub bits_per_second: u64,
    /// What may wait for it.
    pub limit: QueueLimit,
    /// How the queue is kept short.
    pub discipline: Discipline,
}

impl Rate {
    /// A bottleneck with the default queue.
    pub const fn new(bits_per_second: u64) -> Self {
        Self {
            bits_per_second,
            limit: QueueLimit::Default,
            discipline: Discipline::DropTail,
        }
    }

    /// How long `bytes` keep the line busy.
    pub fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(self.bits_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many bytes may wait on a path with this round trip.
    pub fn queue_limit_bytes(&self, round_trip: Duration) -> u64 {
        let product = self.bits_per_second as f64 / 8.0 * round_trip.as_secs_f64();
        match self.limit {
            QueueLimit::Default => (product as u64).max(QUEUE_DEFAULT_MIN_BYTES),
            QueueLimit::Bytes(bytes) => bytes,
            QueueLimit::Bdp(factor) => (product * factor) as u64,
        }
    }
}

/// How much may wait for the bottleneck. The packet on the line does not count.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum QueueLimit {
    /// Once rate × (delay there + delay back), at least [`QUEUE_DEFAULT_MIN_BYTES`].
    #[default]
    Default,
    /// So many bytes.
    Bytes(u64),
    /// So many times rate × (delay there + delay back).
    Bdp(f64),
}

/// How the queue is kept short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discipline {
    /// What finds no room is dropped.
    #[default]
    DropTail,
    /// That, and RFC 8289.
    CoDel {
        /// The standing delay that is accepted.
        target: Duration,
        /// For how long more is accepted.
        interval: Duration,
    },
}

impl Discipline {
    /// CoDel as RFC 8289 advises for the Internet.
    pub const CODEL: Self = Self::CoDel {
        target: Duration::from_millis(5),
        interval: Duration::from_millis(100),
    };
}

/// The largest packet that passes, somewhere behind the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mtu {
    /// Largest IP packet.
    pub bytes: u32,
    /// What becomes of a larger one.
    pub oversize: Oversize,
}

/// What becomes of a packet that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oversize {
    /// It is dropped, and the sender is told so by ICMP. (An IPv4 packet that allows fragments is dropped as well: the
    /// emulator does not fragment.)
    #[default]
    Told,
    /// It vanishes.
    Vanishes,
}

/// What happens to UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Udp {
    /// It passes like everything.
    #[default]
    Passes,
    /// It vanishes.
    Blocked,
    /// What exceeds a rate vanishes.
    Policed {
        /// IP bytes, headers included, times eight.
        bits_per_second: u64,
        /// How much may come at once.
        burst_bytes: u64,
    },
}

/// A value that makes no sense.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Nonsense {
    /// A probability outside 0 to 1.
    #[error("{what} is {} %, which is no probability from 0 % to 100 %", value * 100.0)]
    Probability {
        /// Of what.
        what: &'static str,
        /// What was given.
        value: f64,
    },
    /// A time beyond [`DELAY_MAX`].
    #[error("{what} is {value:?}; at most {DELAY_MAX:?} can be emulated")]
    TooLong {
        /// Which time.
        what: &'static str,
        /// What was given.
        value: Duration,
    },
    /// A rate of nothing.
    #[error("{what} is 0 bit/s; say `blackout`, or `udp blocked`, if nothing shall pass")]
    NoRate {
        /// Which rate.
        what: &'static str,
    },
    /// An MTU no IP network has.
    #[error("an MTU of {0} bytes is outside {MTU_MIN_BYTES} to {MTU_MAX_BYTES}")]
    Mtu(u32),
    /// Sizes that no packet has.
    #[error("no packet has a size from {from} to {to} bytes")]
    Sizes {
        /// The smaller one.
        from: u32,
        /// The larger one.
        to: u32,
    },
    /// A chain that never moves.
    #[error("a Gilbert-Elliott chain needs a probability above 0 % to turn good or to turn bad")]
    StillChain,
    /// CoDel without times.
    #[error("CoDel needs a target above 0 and an interval that is longer")]
    CoDel,
    /// A queue in bandwidth-delay products where the path has no delay.
    #[error("a queue in bdp needs a delay: the product of rate and no delay is an empty queue")]
    EmptyQueue,
    /// A factor that is no number above zero.
    #[error("a queue of {0} bdp can hold nothing")]
    QueueFactor(f64),
}

impl Impairment {
    /// Whether every value makes sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), Nonsense> {
        probability("duplication", self.duplication)?;
        probability("corruption", self.corruption)?;
        probability("reordering", self.reordering.probability)?;
        self.check_loss()?;
        for (what, value) in [
            ("the delay", self.delay),
            ("the jitter", self.jitter.amount),
            ("the lateness of reordered packets", self.reordering.late_by),
        ] {
            if value > DELAY_MAX {
                return Err(Nonsense::TooLong { what, value });
            }
        }
        self.check_rates()?;
        if let Some(mtu) = self.mtu
            && !(MTU_MIN_BYTES..=MTU_MAX_BYTES).contains(&mtu.bytes)
        {
            return Err(Nonsense::Mtu(mtu.bytes));
        }
        if let Some(sizes) = &self.dropped_sizes
            && (sizes.is_empty() || *sizes.start() > MTU_MAX_BYTES)
        {
            let (from, to) = (*sizes.start(), *sizes.end());
            return Err(Nonsense::Sizes { from, to });
        }
        Ok(())
    }

    fn check_loss(&self) -> Result<(), Nonsense> {
        match self.loss {
            Loss::Never => Ok(()),
            Loss::Bernoulli(value) => probability("loss", value),
            Loss::GilbertElliott(chain) => {
                probability("the probability to turn bad", chain.to_bad)?;
                probability("the probability to turn good", chain.to_good)?;
                probability("loss while bad", chain.bad_loss)?;
                probability("loss while good", chain.good_loss)?;
                if chain.to_bad + chain.to_good > 0.0 {
                    Ok(())
                } else {
                    Err(Nonsense::StillChain)
                }
            }
        }
    }

    fn check_rates(&self) -> Result<(), Nonsense> {
        if let Udp::Policed {
            bits_per_second: 0, ..
        } = self.udp
        {
            return Err(Nonsense::NoRate {
                what: "the rate of UDP",
            });
        }
        let Some(rate) = self.rate else { return Ok(()) };
        if rate.bits_per_second == 0 {
            return Err(Nonsense::NoRate { what: "the rate" });
        }
        match rate.discipline {
            Discipline::CoDel { target, interval } if target.is_zero() || interval <= target => {
                return Err(Nonsense::CoDel);
            }
            Discipline::CoDel { .. } | Discipline::DropTail => {}
        }
        match rate.limit {
            QueueLimit::Bdp(factor) if !(factor.is_finite() && factor > 0.0) => {
                Err(Nonsense::QueueFactor(factor))
            }
            QueueLimit::Bdp(_) | QueueLimit::Bytes(_) | QueueLimit::Default => Ok(()),
        }
    }

    /// The same, knowing the other direction: together they make the round trip a queue is measured by.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check_with(&self, opposite: &Self) -> Result<(), Nonsense> {
        self.check()?;
        match self.rate.map(|rate| rate.limit) {
            Some(QueueLimit::Bdp(_)) if (self.delay + opposite.delay).is_zero() => {
                Err(Nonsense::EmptyQueue)
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn probability(what: &'static str, value: f64) -> Result<(), Nonsense> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(Nonsense::Probability { what, value })
    }
}
