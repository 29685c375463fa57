//! The longest time in which no answer came.

use std::time::Duration;

/// Told of each answer, it knows the longest silence. Times count from the start of the test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapMeter {
    counts_from: Duration,
    last: Duration,
    longest: Duration,
    longest_at: Duration,
}

impl GapMeter {
    /// Silence counts from here on.
    pub const fn new(counts_from: Duration) -> Self {
        Self {
            counts_from,
            last: counts_from,
            longest: Duration::ZERO,
            longest_at: counts_from,
        }
    }

    /// An answer came.
    pub fn answered(&mut self, now: Duration) {
        if now <= self.last {
            return;
        }
        let gap = now - self.last;
        if gap > self.longest {
            self.longest = gap;
            self.longest_at = self.last;
        }
        self.last = now;
    }

    /// The test is over; silence until here counts too.
    pub fn finish(mut self, end: Duration) -> Self {
        self.answered(end.max(self.counts_from));
        self
    }

    /// How long it was.
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// When it began.
    pub const fn longest_at(&self) -> Duration {
        self.longest_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn meter(answers: &[u64]) -> GapMeter {
        let mut meter = GapMeter::new(ms(100));
        for answer in answers {
            meter.answered(ms(*answer));
        }
        meter
    }

    #[test]
    fn the_longest_of_several_gaps_wins_and_says_when_it_began() {
        let meter = meter(&[101, 102, 202, 203, 233]).finish(ms(234));
        assert_eq!((meter.longest(), meter.longest_at()), (ms(100), ms(102)));
    }

    #[test]
    fn silence_at_the_start_and_at_the_end_counts() {
        assert_eq!(meter(&[150, 151]).finish(ms(152)).longest(), ms(50));
        assert_eq!(meter(&[101]).finish(ms(300)).longest(), ms(199));
        assert_eq!(meter(&[]).finish(ms(400)).longest(), ms(300));
    }

    #[test]
    fn what_happens_before_counting_begins_does_not_count() {
        assert_eq!(meter(&[10, 90, 101]).finish(ms(102)).longest(), ms(1));
    }

    #[test]
    fn answers_may_be_told_out_of_order() {
        let meter = meter(&[105, 103, 104, 106]).finish(ms(107));
        assert_eq!(meter.longest(), ms(5));
    }
}
