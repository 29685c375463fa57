//! Response times: collected by each thread on its own, joined at the end, and judged.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::result::{Latency, Loop};

/// Three digits are kept.
const DIGITS: u8 = 3;

/// Longer times are counted as this, in nanoseconds.
const LONGEST_NS: u64 = 600_000_000_000;

/// Points of the curve for each halving of the share that is left.
const CURVE_STEPS: u32 = 5;

/// Less of a schedule than this, and the times mean nothing.
pub const ACHIEVED_MIN_PERCENT: f64 = 99.0;

/// An answer counts as within the test if it is this late, and twice the shortest time.
const GRACE: Duration = Duration::from_millis(50);

/// Response times of one thread or of many.
#[derive(Debug, Clone)]
pub struct Times {
    histogram: Histogram<u64>,
    /// How long after the end of the test answers came that came after it.
    after_end: Vec<Duration>,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            histogram: Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)
                .expect("three digits fit any bounds"),
            after_end: Vec::new(),
        }
    }
}

impl Times {
    /// One response took so long.
    pub fn note(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanoseconds.max(1));
    }

    /// One response took so long, and came so long after the end of the test.
    pub fn note_after_end(&mut self, time: Duration, late: Duration) {
        self.note(time);
        self.after_end.push(late);
    }

    /// Takes over what another thread collected.
    pub fn join(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.histogram.add(&other.histogram);
        self.after_end.extend_from_slice(&other.after_end);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Of requests that waited for each other; `None` if there were none.
    pub fn closed(&self) -> Option<Latency> {
        self.latency(Loop::Closed)
    }

    /// Of requests on a schedule of which `due` were to be sent.
    pub fn open(&self, per_second: f64, due: u64) -> Option<Latency> {
        let mut latency = self.latency(Loop::Open)?;
        let grace = GRACE + 2 * Duration::from_nanos(self.histogram.min());
        let too_late = self.after_end.iter().filter(|late| **late > grace).count() as u64;
        let in_time = self.count().saturating_sub(too_late);
        let achieved = if due == 0 {
            0.0
        } else {
            100.0 * in_time as f64 / due as f64
        };
        latency.scheduled_per_second = Some(per_second);
        latency.achieved_percent = Some(achieved);
        latency.valid = achieved >= ACHIEVED_MIN_PERCENT;
        Some(latency)
    }

    fn latency(&self, loop_: Loop) -> Option<Latency> {
        let histogram = &self.histogram;
        if histogram.is_empty() {
            return None;
        }
        let at = |percentile: f64| microseconds(histogram.value_at_percentile(percentile));
        let curve = histogram
            .iter_quantiles(CURVE_STEPS)
            .map(|step| {
                (
                    step.quantile_iterated_to() * 100.0,
                    microseconds(step.value_iterated_to()),
                )
            })
            .collect();
        Some(Latency {
            loop_,
            count: histogram.len(),
            min_us: microseconds(histogram.min()),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: microseconds(histogram.max()),
            curve,
            scheduled_per_second: None,
            achieved_percent: None,
            knee_per_second: None,
            valid: true,
        })
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: impl IntoIterator<Item = u64>) -> Times {
        let mut times = Times::default();
        for time in milliseconds {
            times.note(Duration::from_millis(time));
        }
        times
    }

    fn is_near(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= expected * 0.002
    }

    #[test]
    fn percentiles_are_what_they_are_by_definition() {
        let latency = times(1..=1_000).closed().unwrap();
        assert_eq!((latency.count, latency.valid), (1_000, true));
        for (found, expected_ms) in [
            (latency.p50_us, 500.0),
            (latency.p90_us, 900.0),
            (latency.p99_us, 990.0),
            (latency.p999_us, 999.0),
            (latency.max_us, 1_000.0),
            (latency.mean_us, 500.5),
        ] {
            assert!(is_near(found, expected_ms * 1e3), "{found} {expected_ms}");
        }
    }

    #[test]
    fn a_schedule_met_by_less_than_99_percent_is_invalid() {
        assert!(times(vec![1; 990]).open(1_000.0, 1_000).unwrap().valid);
        let latency = times(vec![1; 989]).open(1_000.0, 1_000).unwrap();
        assert_eq!(
            (latency.valid, latency.achieved_percent),
            (false, Some(98.9))
        );
    }

    #[test]
    fn answers_long_after_the_end_are_timed_but_do_not_meet_the_schedule() {
        let mut times = times(vec![1; 900]);
        for _ in 0..100 {
            times.note_after_end(Duration::from_secs(2), Duration::from_secs(1));
        }
        let latency = times.open(100.0, 1_000).unwrap();
        assert_eq!(
            (latency.count, latency.achieved_percent, latency.valid),
            (1_000, Some(90.0), false)
        );
        assert!(is_near(latency.max_us, 2e6));
    }

    #[test]
    fn answers_that_were_under_way_at_the_end_meet_the_schedule() {
        let mut times = Times::default();
        for _ in 0..10 {
            times.note_after_end(Duration::from_millis(200), Duration::from_millis(199));
        }
        assert_eq!(times.open(10.0, 10).unwrap().achieved_percent, Some(100.0));
    }

    #[test]
    fn no_answers_are_no_times() {
        assert_eq!(Times::default().closed(), None);
        assert_eq!(Times::default().open(1.0, 5), None);
    }

    #[test]
    fn threads_together_are_one_distribution() {
        let mut all = times(1..=500);
        all.join(&times(501..=1_000));
        assert_eq!(all.closed(), times(1..=1_000).closed());
    }

    #[test]
    fn the_curve_rises_to_the_slowest() {
        let curve = times(1..=1_000).closed().unwrap().curve;
        assert!(
            curve
                .windows(2)
                .all(|pair| pair[0].1 <= pair[1].1 && pair[0].0 <= pair[1].0)
        );
        assert_eq!(curve.last().unwrap().0, 100.0);
    }
}
