//! When each request is due, and waiting for that moment.

use std::time::{Duration, Instant};

use crate::gate::Gate;

/// The last part of a wait is spent looking at the clock: the kernel wakes us later than this only when it is busy.
const SPIN: Duration = Duration::from_micros(50);

/// Sleeping longer would miss the end of a test.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// Equal steps from a start; request `n` is due at `start + n / rate`, whatever happened before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    start: Instant,
    per_second: f64,
}

impl Schedule {
    /// From `start` on, so many per second.
    pub const fn new(start: Instant, per_second: f64) -> Self {
        Self { start, per_second }
    }

    /// When request `number` is to be sent.
    pub fn due(&self, number: u64) -> Instant {
        self.start + self.offset(number)
    }

    fn offset(&self, number: u64) -> Duration {
        let nanoseconds = number as f64 * 1e9 / self.per_second;
        Duration::from_nanos(nanoseconds.round() as u64)
    }

    /// How many are due before `moment`.
    pub fn due_before(&self, moment: Instant) -> u64 {
        let Some(since) = moment.checked_duration_since(self.start) else {
            return 0;
        };
        let mut count = (since.as_secs_f64() * self.per_second) as u64;
        // Rounding may be off by one either way.
        while self.offset(count) < since {
            count += 1;
        }
        while count > 0 && self.offset(count - 1) >= since {
            count -= 1;
        }
        count
    }

    /// How many are due from `from` on and before `to`.
    pub fn due_between(&self, from: Instant, to: Instant) -> u64 {
        self.due_before(to).saturating_sub(self.due_before(from))
    }
}

/// Asks the kernel to wake this thread on time.
pub fn sleep_precisely() {
    // Refused nowhere; without it the last part is spun longer.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// Waits until `due`, first asleep, then looking at the clock; `false` if the gate is shut meanwhile.
#[expect(
    clippy::disallowed_methods,
    reason = "keeping a schedule is waiting for a time and for nothing else"
)]
pub fn wait_until(due: Instant, gate: &Gate) -> bool {
    loop {
        if gate.is_over() {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if left > SPIN {
            std::thread::sleep((left - SPIN).min(SLEEP_MAX));
        } else {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_in_equal_steps_that_do_not_drift() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 3.0);
        assert_eq!(schedule.due(0), start);
        assert_eq!(schedule.due(3), start + Duration::from_secs(1));
        assert_eq!(
            schedule.due(3_000_000),
            start + Duration::from_secs(1_000_000)
        );
    }

    #[test]
    fn what_is_due_before_a_moment_agrees_with_when_it_is_due() {
        let start = Instant::now();
        for per_second in [0.3, 7.0, 999.9, 1_000.0, 333_333.3] {
            let schedule = Schedule::new(start, per_second);
            for number in 0..500 {
                let due = schedule.due(number);
                assert_eq!(schedule.due_before(due), number, "{per_second}");
                assert_eq!(
                    schedule.due_before(due + Duration::from_nanos(1)),
                    number + 1,
                    "{per_second}"
                );
            }
        }
    }

    #[test]
    fn what_is_due_between_two_moments_counts_the_first_and_not_the_last() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1_000.0);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(schedule.due_between(start, at(300)), 300);
        assert_eq!(schedule.due_between(at(100), at(300)), 200);
        assert_eq!(schedule.due_between(at(300), at(100)), 0);
    }

    #[test]
    fn nothing_is_due_before_the_start() {
        let start = Instant::now() + Duration::from_secs(60);
        assert_eq!(
            Schedule::new(start, 1_000.0).due_before(start - Duration::from_secs(1)),
            0
        );
    }

    #[test]
    fn a_wait_ends_not_before_its_time_and_at_once_when_it_is_over() {
        let gate = Gate::default();
        let due = Instant::now() + Duration::from_millis(2);
        assert!(wait_until(due, &gate));
        assert!(Instant::now() >= due);
        gate.shut();
        assert!(!wait_until(
            Instant::now() + Duration::from_secs(3_600),
            &gate
        ));
    }
}
