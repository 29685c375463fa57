//! Which carrier delivers more, learned from what they carry anyway.
//!
//! Nothing is sent to find out. Where the one in use has been given more than it takes for a while, and it is not known what
//! the other one would deliver, new streams go by the other one for a short time. It stays if it delivers far more; only
//! then, as both share a path while the streams of before go on.
//!
//! ```text
//!                     filled, the other one is not known
//!  nothing is known ─────────────────────────────────────> trial ──── not far more ───> nothing is known
//!      ^    └──────── filled, the other one did far more ───┐ └───── far more ────┐
//!      └──────────────────────── it is long ago ────────── found <────────────────┘
//! ```

use std::time::{Duration, Instant};

use super::{
    Carrier, Cause,
    goodput::{Direction, Goodput, Moved, Rate},
};

/// Whoever has been filled for so long is held against the other one.
const FILLED_FOR: Duration = Duration::from_secs(5);
/// How long a trial is, if it does not end sooner with a finding.
const TRIAL: Duration = Duration::from_secs(5);
/// Far more is so many times as much.
const FAR_MORE: f64 = 1.5;
/// So long what was found, or measured, is believed.
const BELIEVED_FOR: Duration = Duration::from_secs(15 * 60);
/// After a trial in which there was nothing to carry.
const TRIED_IN_VAIN: Duration = Duration::from_secs(60);

/// Holds what two carriers deliver against each other.
#[derive(Debug)]
pub(super) struct Trials {
    quic: Goodputs,
    tls: Goodputs,
    state: State,
    /// No trial before then.
    next_at: Instant,
}

/// How much one carrier delivers in both directions.
#[derive(Debug)]
struct Goodputs {
    sent: Goodput,
    received: Goodput,
}

impl Goodputs {
    const fn new(now: Instant) -> Self {
        Self {
            sent: Goodput::new(now),
            received: Goodput::new(now),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing speaks for one of them.
    Open,
    /// New streams go by this one, to see.
    Trial {
        carrier: Carrier,
        since: Instant,
        /// In which the one before was filled.
        direction: Direction,
        /// What it delivered then.
        bytes_per_second: f64,
    },
    /// This one delivers far more.
    Found { carrier: Carrier, until: Instant },
}

impl Trials {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            quic: Goodputs::new(now),
            tls: Goodputs::new(now),
            state: State::Open,
            next_at: now,
        }
    }

    /// Whom what is known speaks for.
    pub(super) const fn favoured(&self) -> Option<Carrier> {
        match self.state {
            State::Open => None,
            State::Trial { carrier, .. } | State::Found { carrier, .. } => Some(carrier),
        }
    }

    /// The last rate of `carrier` in a direction, in bytes per second, while it is believed.
    pub(super) fn bytes_per_second(
        &self,
        carrier: Carrier,
        direction: Direction,
        now: Instant,
    ) -> Option<f64> {
        let rate = self.goodput(carrier, direction).rate()?;
        (now.saturating_duration_since(rate.at) < BELIEVED_FOR).then_some(rate.bytes_per_second)
    }

    pub(super) fn handle_moved(&mut self, carrier: Carrier, moved: Moved, now: Instant) {
        for direction in Direction::ALL {
            self.goodput_mut(carrier, direction)
                .handle_look(moved.by(direction), now);
        }
    }

    /// When [`Self::advance`] has something to do at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Open => None,
            State::Trial { since, .. } => Some(since + TRIAL),
            State::Found { until, .. } => Some(until),
        }
    }

    /// Goes on from what is known by now, where `used` carries new streams. Returns why [`Self::favoured`] is another, or
    /// for sure.
    pub(super) fn advance(
        &mut self,
        used: Carrier,
        is_fit: impl Fn(Carrier) -> bool,
        now: Instant,
    ) -> Option<Cause> {
        match self.state {
            State::Open => self.begin(used, is_fit, now),
            State::Trial {
                carrier,
                since,
                direction,
                bytes_per_second,
            } => {
                let goodput = self.goodput(carrier, direction);
                let [tried, least] = [goodput.rate(), goodput.least()]
                    .map(|rate| rate.filter(|rate| rate.at > since));
                let is_far_more = |rate: Rate| rate.bytes_per_second >= bytes_per_second * FAR_MORE;
                // Whoever is not filled could even more.
                if least.is_some_and(is_far_more) {
                    self.state = found(carrier, now);
                    return Some(Cause::Faster);
                }
                if is_fit(carrier) && now < since + TRIAL {
                    return None;
                }
                self.state = State::Open;
                self.next_at = now + tried.map_or(TRIED_IN_VAIN, |_| BELIEVED_FOR);
                Some(Cause::Tried)
            }
            State::Found { carrier, until } => {
                if is_fit(carrier) && now < until {
                    return None;
                }
                self.state = State::Open;
                Some(Cause::Stale)
            }
        }
    }

    fn begin(
        &mut self,
        used: Carrier,
        is_fit: impl Fn(Carrier) -> bool,
        now: Instant,
    ) -> Option<Cause> {
        if !is_fit(used.other()) {
            return None;
        }
        let mut directions = Direction::ALL.into_iter();
        directions.find_map(|direction| self.begin_for(used, direction, now))
    }

    /// Holds the one in use against the other one, if it is filled in this direction.
    fn begin_for(&mut self, used: Carrier, direction: Direction, now: Instant) -> Option<Cause> {
        let other = used.other();
        if self.goodput(used, direction).filled_for(now) < FILLED_FOR {
            return None;
        }
        let bytes_per_second = self.bytes_per_second(used, direction, now)?;
        if let Some(others) = self.bytes_per_second(other, direction, now) {
            if others < bytes_per_second * FAR_MORE {
                return None;
            }
            self.state = found(other, now);
            return Some(Cause::Faster);
        }
        if now < self.next_at {
            return None;
        }
        self.goodput_mut(other, direction).begin_anew(now);
        self.state = State::Trial {
            carrier: other,
            since: now,
            direction,
            bytes_per_second,
        };
        Some(Cause::Trial)
    }

    const fn goodput(&self, carrier: Carrier, direction: Direction) -> &Goodput {
        let goodputs = match carrier {
            Carrier::Quic => &self.quic,
            Carrier::Tls => &self.tls,
        };
        match direction {
            Direction::Sent => &goodputs.sent,
            Direction::Received => &goodputs.received,
        }
    }

    const fn goodput_mut(&mut self, carrier: Carrier, direction: Direction) -> &mut Goodput {
        let goodputs = match carrier {
            Carrier::Quic => &mut self.quic,
            Carrier::Tls => &mut self.tls,
        };
        match direction {
            Direction::Sent => &mut goodputs.sent,
            Direction::Received => &mut goodputs.received,
        }
    }
}

fn found(carrier: Carrier, now: Instant) -> State {
    State::Found {
        carrier,
        until: now + BELIEVED_FOR,
    }
}
