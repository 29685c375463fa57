//! Which carrier delivers more, learned from what they carry anyway.
//!
//! Nothing is sent to find out. Where the one in use has been given more than it takes for a while, new streams go by the
//! other one for a short time. It stays if it delivers far more; only then, as both share a path while the streams of before
//! go on.
//!
//! ```text
//!                           filled
//!  nothing is known ────────────────────> trial ─────── not far more ─────> nothing is known
//!      ^                                    └── far more ──> found
//!      └── it is long ago, or is filled and does far less ─────┘
//! ```

use std::time::{Duration, Instant};

use super::{
    Carrier, Cause, doubled,
    goodput::{Direction, Goodput, Moved},
};

/// Whoever has been filled for so long is held against the other one.
const FILLED_FOR: Duration = Duration::from_secs(5);
/// How long a trial is, if it does not end sooner with a finding.
const TRIAL: Duration = Duration::from_secs(5);
/// Far more is so many times as much.
const FAR_MORE: f64 = 1.5;
/// So long what was found, or measured, is believed.
const BELIEVED_FOR: Duration = Duration::from_secs(15 * 60);
/// After a trial in which the carrier was not filled; twice as long after each further one.
const TRIED_IN_VAIN: Duration = Duration::from_secs(60);
/// What a carrier delivered so long ago it still does.
const LATELY: Duration = Duration::from_secs(2);

/// Holds what two carriers deliver against each other.
#[derive(Debug)]
pub(super) struct Trials {
    quic: Goodputs,
    tls: Goodputs,
    state: State,
    /// No trial before then.
    next_at: Instant,
    /// Trials in a row in which the carrier was not filled, and did not deliver far more.
    vain: u32,
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
    Trial(Trial),
    /// This one delivers far more.
    Found {
        carrier: Carrier,
        direction: Direction,
        until: Instant,
    },
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    carrier: Carrier,
    since: Instant,
    /// In which the one before was filled.
    direction: Direction,
    /// What that delivered.
    bytes_per_second: f64,
    /// What this one delivered already, of streams that it had before.
    others_bytes_per_second: f64,
}

impl Trials {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            quic: Goodputs::new(now),
            tls: Goodputs::new(now),
            state: State::Open,
            next_at: now,
            vain: 0,
        }
    }

    /// Whom what is known speaks for.
    pub(super) const fn favoured(&self) -> Option<Carrier> {
        match self.state {
            State::Open => None,
            State::Trial(Trial { carrier, .. }) | State::Found { carrier, .. } => Some(carrier),
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
            State::Trial(Trial { since, .. }) => Some(since + TRIAL),
            State::Found { until, .. } => Some(until),
        }
    }

    /// Goes on from what is known by now, where `used` carries new streams. Returns why [`Self::favoured`] is another one now,
    /// or is certain.
    pub(super) fn advance(
        &mut self,
        used: Carrier,
        is_fit: impl Fn(Carrier) -> bool,
        now: Instant,
    ) -> Option<Cause> {
        match self.state {
            State::Open => self.begin(used, is_fit, now),
            State::Trial(trial) => self.judge(trial, is_fit(trial.carrier), now),
            State::Found {
                carrier,
                direction,
                until,
            } => {
                let is_worse = self.is_far_less(carrier, direction, now);
                if is_fit(carrier) && now < until && !is_worse {
                    return None;
                }
                self.state = State::Open;
                if is_worse {
                    self.next_at = now + BELIEVED_FOR;
                }
                Some(Cause::Stale)
            }
        }
    }

    /// Ends a trial once it shows something, or is over.
    fn judge(&mut self, trial: Trial, is_fit: bool, now: Instant) -> Option<Cause> {
        let goodput = self.goodput(trial.carrier, trial.direction);
        let [tried, least] =
            [goodput.rate(), goodput.least()].map(|rate| rate.filter(|rate| rate.at > trial.since));
        // Whoever is not filled could even more. What it carried before says nothing.
        let is_far_more = least.is_some_and(|least| {
            let gained = least.bytes_per_second - trial.others_bytes_per_second;
            gained >= trial.bytes_per_second * FAR_MORE
        });
        if is_fit && is_far_more {
            self.vain = 0;
            self.state = State::Found {
                carrier: trial.carrier,
                direction: trial.direction,
                until: now + BELIEVED_FOR,
            };
            return Some(Cause::Faster);
        }
        if is_fit && now < trial.since + TRIAL {
            return None;
        }
        self.state = State::Open;
        let pause = if tried.is_some() {
            self.vain = 0;
            BELIEVED_FOR
        } else {
            let pause = doubled(TRIED_IN_VAIN, self.vain, BELIEVED_FOR);
            self.vain = self.vain.saturating_add(1);
            pause
        };
        self.next_at = now + pause;
        Some(Cause::Tried)
    }

    /// This one is filled, and delivers far less than the other one did.
    fn is_far_less(&self, carrier: Carrier, direction: Direction, now: Instant) -> bool {
        let own = self.filled_rate(carrier, direction, now);
        let others = self.bytes_per_second(carrier.other(), direction, now);
        own.zip(others)
            .is_some_and(|(own, others)| own * FAR_MORE <= others)
    }

    /// What `carrier` delivers, in bytes per second, if it has been filled for long enough to say.
    fn filled_rate(&self, carrier: Carrier, direction: Direction, now: Instant) -> Option<f64> {
        let is_filled = self.goodput(carrier, direction).filled_for() >= FILLED_FOR;
        let rate = self.bytes_per_second(carrier, direction, now)?;
        is_filled.then_some(rate)
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

    /// Has the other one tried, if the one in use is filled in this direction.
    fn begin_for(&mut self, used: Carrier, direction: Direction, now: Instant) -> Option<Cause> {
        let other = used.other();
        let bytes_per_second = self.filled_rate(used, direction, now)?;
        if now < self.next_at {
            return None;
        }
        let goodput = self.goodput_mut(other, direction);
        let before = goodput.least().filter(|rate| now < rate.at + LATELY);
        goodput.begin_anew(now);
        self.state = State::Trial(Trial {
            carrier: other,
            since: now,
            direction,
            bytes_per_second,
            others_bytes_per_second: before.map_or(0.0, |rate| rate.bytes_per_second),
        });
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
