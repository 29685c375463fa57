//! A token bucket, for policing.

use std::time::Duration;

/// Full at first. Tokens are bytes.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// What has been taken and not come back yet.
    missing_bytes: f64,
    at: Duration,
}

impl Bucket {
    /// Whether `bytes` are there; then they are taken.
    pub(super) fn take(
        &mut self,
        bytes: u32,
        bits_per_second: u64,
        burst_bytes: u64,
        now: Duration,
    ) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let back = passed * bits_per_second as f64 / 8.0;
        self.missing_bytes = (self.missing_bytes - back).max(0.0);
        let after = self.missing_bytes + f64::from(bytes);
        let fits = after <= burst_bytes as f64;
        if fits {
            self.missing_bytes = after;
        }
        fits
    }
}
