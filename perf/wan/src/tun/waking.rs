//! How long a sleeping thread takes to run again after what it waited for: the time is part of every delay, so it is
//! taken into account.
//!
//! When a packet came is unknown: it is seen when its thread runs. What is known is how late the thread runs after a
//! timer, which is the same way through the scheduler. The running median of that is taken off the first packet after a
//! sleep, and added to the stretch before a packet is due that is spun instead of slept.

use std::time::Duration;

/// The stretch before a packet is due that is spun even if the thread always woke in time.
const SPIN_MIN: Duration = Duration::from_micros(30);
/// A machine that takes longer than this is busy, not slow; guessing would only make it worse.
const TYPICAL_MAX: Duration = Duration::from_micros(250);
/// How far one observation moves the median.
const STEP: Duration = Duration::from_micros(2);

/// What is known about waking up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Waking {
    typical: Duration,
}

impl Waking {
    /// A timer was set for a time, and the thread ran so much later.
    pub(super) fn observe(&mut self, late: Duration) {
        self.typical = if late > self.typical {
            (self.typical + STEP).min(TYPICAL_MAX)
        } else {
            self.typical.saturating_sub(STEP)
        };
    }

    /// How late it usually is.
    pub(super) const fn typical(&self) -> Duration {
        self.typical
    }

    /// The stretch to spin.
    pub(super) fn spin(&self) -> Duration {
        SPIN_MIN + self.typical
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn the_median_is_found_whatever_the_outliers() {
        let mut waking = Waking::default();
        for round in 0..300 {
            waking.observe(match round % 10 {
                0 => us(9_000),
                1..=4 => us(36),
                5..=8 => us(40),
                _ => us(5),
            });
        }
        assert!((us(32)..=us(44)).contains(&waking.typical()), "{waking:?}");
        assert_eq!(waking.spin(), SPIN_MIN + waking.typical());
    }

    #[test]
    fn a_busy_machine_is_not_followed_beyond_the_bound() {
        let mut waking = Waking::default();
        for _ in 0..1_000 {
            waking.observe(us(5_000));
        }
        assert_eq!(waking.typical(), TYPICAL_MAX);
        for _ in 0..1_000 {
            waking.observe(us(0));
        }
        assert_eq!(waking, Waking::default());
    }
}
