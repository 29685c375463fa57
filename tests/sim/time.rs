//! Made-up time.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Time since the world began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Time(Duration);

/// The same for all worlds: only differences count.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Time {
    pub(crate) fn instant(self) -> Instant {
        *BEGIN + self.0
    }

    pub(crate) fn as_millis(self) -> u128 {
        self.0.as_millis()
    }

    pub(crate) fn from_instant(instant: Instant) -> Self {
        Self(instant.saturating_duration_since(*BEGIN))
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}
