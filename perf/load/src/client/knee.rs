//! Finds the highest rate a path holds, by short tests.

use super::{Progress, Setup, Unwatched, run_once};
use crate::{
    error::Error,
    knee::{Outcome, Search},
    result::TestResult,
    spec::TestSpec,
};

/// A test of one rate.
const TRIAL_MS: u64 = 1_000;

/// Its beginning, which does not count.
const TRIAL_OMIT_MS: u64 = 200;

/// Beyond the knee answers take longer than this, and than this many times what they take on an idle path.
const SLOW_US: f64 = 20_000.0;
const SLOWER_THAN_IDLE: f64 = 10.0;

/// The knee, in requests per second.
pub(super) fn find(
    spec: &TestSpec,
    setup: &Setup,
    progress: &mut dyn Progress,
) -> Result<f64, Error> {
    let trial = TestSpec {
        duration_ms: TRIAL_MS,
        omit_ms: TRIAL_OMIT_MS,
        interval_ms: 0,
        rate_per_second: None,
        knee_percent: None,
        ..spec.clone()
    };
    let idle = run_once(&trial, setup, &mut Unwatched)?;
    let (Some(rate), Some(latency)) = (&idle.rate, &idle.latency) else {
        return Err(Error::NoKnee(
            idle.fault
                .unwrap_or_else(|| "nothing was answered".to_owned()),
        ));
    };
    let slow_us = SLOW_US.max(latency.p50_us * SLOWER_THAN_IDLE);
    let mut search = Search::new(rate.per_second.max(1.0));
    while let Some(per_second) = search.next() {
        let trial = TestSpec {
            rate_per_second: Some(per_second),
            ..trial.clone()
        };
        let outcome = judge(&run_once(&trial, setup, &mut Unwatched)?, slow_us);
        progress.note(&format!("{per_second:.0} /s: {}", outcome.word()));
        search.note(outcome);
        if setup.interrupted.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::NoKnee("interrupted".to_owned()));
        }
    }
    search
        .knee()
        .ok_or_else(|| Error::NoKnee("not even the lowest rate that was tried".to_owned()))
}

fn judge(trial: &TestResult, slow_us: f64) -> Outcome {
    let is_held = !trial.partial
        && trial
            .latency
            .as_ref()
            .is_some_and(|latency| latency.valid && latency.p99_us <= slow_us);
    if is_held {
        Outcome::Held
    } else {
        Outcome::NotHeld
    }
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::NotHeld => "not held",
        }
    }
}
