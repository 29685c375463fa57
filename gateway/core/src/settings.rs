//! What an operator may tell the core. Every value is valid by its type: nothing is checked again.

use std::num::NonZeroU32;
use std::time::Duration;

use corinth_model::{ClusterName, Locality};

/// The largest [`AttemptLimit`]; a shortlist of this size is kept on the stack.
pub const ATTEMPTS_MAX: usize = 16;

/// No ejection lasts longer than this, whatever the settings say.
pub const EJECTION_MAX: Duration = Duration::from_secs(60 * 60);

/// How the core decides.
///
/// These are the values for every route; the traffic policy of a route, when it has one, replaces
/// [`Settings::outlier`] in the calls that take an [`Outlier`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How many candidates one plan names.
    pub attempts: AttemptLimit,
    /// How many local endpoints one admission names.
    pub endpoints: AttemptLimit,
    /// How many flows one peer may have open here.
    pub flows_per_peer: u32,
    /// When a candidate leaves service and how it returns.
    pub outlier: Outlier,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            attempts: AttemptLimit(5),
            endpoints: AttemptLimit(8),
            flows_per_peer: 8_192,
            outlier: Outlier::default(),
        }
    }
}

/// When a candidate leaves service and how it returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row that eject.
    pub failures: NonZeroU32,
    /// How long the first ejection lasts; the n-th in a row lasts n times as long.
    pub ejection_base: Duration,
    /// How long any ejection lasts at most.
    pub ejection_max: Duration,
    /// While on probation, at most one plan per gap puts the candidate first.
    pub trial_gap: Duration,
}

impl Outlier {
    /// How long the `strikes`-th ejection in a row lasts.
    pub(crate) fn ejection(&self, strikes: u32) -> Duration {
        let longest = self.ejection_max.min(EJECTION_MAX);
        self.ejection_base.saturating_mul(strikes).min(longest)
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            failures: const { NonZeroU32::new(5).expect("five is not zero") },
            ejection_base: Duration::from_secs(5),
            ejection_max: Duration::from_secs(5 * 60),
            trial_gap: Duration::from_secs(1),
        }
    }
}

/// A number of attempts, 1 to [`ATTEMPTS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptLimit(usize);

impl AttemptLimit {
    /// `None` for zero and for more than [`ATTEMPTS_MAX`].
    pub fn new(limit: usize) -> Option<Self> {
        (1..=ATTEMPTS_MAX).contains(&limit).then_some(Self(limit))
    }

    /// The number.
    pub fn get(self) -> usize {
        self.0
    }
}

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Our cluster.
    pub cluster: ClusterName,
    /// Where this gateway runs; candidates near it are tried first.
    pub locality: Locality,
}
