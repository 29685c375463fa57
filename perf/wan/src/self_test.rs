//! Compares a network made here with theory, on this machine, now.
//!
//! Each check is measured up to three times, each time with another seed, before it counts as failed: a machine that
//! others use has bad moments.

mod bulk;
mod echo;
mod flood;

use std::{io, process, time::Duration};

use serde::Serialize;
use thiserror::Error;

use crate::{
    fault::Fault,
    impairment::{GilbertElliott, Impairment, Loss},
    spec::{Engine, Spec},
    timeline::Direction,
    wan::Wan,
};

/// One way.
const DELAY: Duration = Duration::from_millis(10);
/// How far the median round trip may be from twice the delay.
const ROUND_TRIP_TOLERANCE_US: f64 = 100.0;
const BERNOULLI: f64 = 0.01;
/// Bad for four packets, good for a hundred.
const BURSTS: GilbertElliott = GilbertElliott {
    to_bad: 0.01,
    to_good: 0.25,
    bad_loss: 1.0,
    good_loss: 0.0,
};
/// How many standard deviations a count may be off.
const SIGMAS: f64 = 3.0;
/// Few enough segments in flight that CUBIC grows as Reno does, which is what the formula is about.
const BULK_LOSS: f64 = 0.005;
const BULK_TOLERANCE: f64 = 0.3;
const ATTEMPTS: u32 = 3;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Median ICMP round trip over IPv4, in microseconds, with twice the delay.
    RoundTripV4,
    /// The same over IPv6.
    RoundTripV6,
    /// UDP packets lost independently, with what the probability says.
    IndependentLoss,
    /// UDP packets lost in bursts, with what the chain says.
    BurstLoss,
    /// Mean TCP throughput of a flow with CUBIC, in Mb/s, with the formula of Mathis: 1.22 · MSS / (RTT · √p).
    Bulk,
}

impl Check {
    /// All, in the order of measuring.
    pub const ALL: [Self; 5] = [
        Self::RoundTripV4,
        Self::RoundTripV6,
        Self::IndependentLoss,
        Self::BurstLoss,
        Self::Bulk,
    ];

    /// What it is called in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundTripV4 => "round trip, IPv4",
            Self::RoundTripV6 => "round trip, IPv6",
            Self::IndependentLoss => "independent loss",
            Self::BurstLoss => "loss in bursts",
            Self::Bulk => "bulk, CUBIC",
        }
    }

    /// The unit of its figures.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::RoundTripV4 | Self::RoundTripV6 => "us",
            Self::IndependentLoss | Self::BurstLoss => "packets",
            Self::Bulk => "Mb/s",
        }
    }
}

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Finding {
    /// What was compared.
    pub check: Check,
    /// What theory says.
    pub expected: f64,
    /// By how much it may be off.
    pub tolerance: f64,
    /// What was measured, the last time.
    pub measured: f64,
    /// How often it was measured.
    pub attempts: u32,
}

impl Finding {
    /// Whether theory and measurement agree.
    pub fn agrees(&self) -> bool {
        (self.measured - self.expected).abs() <= self.tolerance
    }
}

/// Theory and measurement do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error(
    "{}: {:.1} {unit} were measured, {:.1} ± {:.1} {unit} expected, {} times",
    finding.check.name(), finding.measured, finding.expected, finding.tolerance, finding.attempts,
    unit = finding.check.unit()
)]
pub struct Failure {
    /// The comparison.
    pub finding: Finding,
}

/// Why a network made here cannot be relied on.
#[derive(Debug, Error)]
pub enum SelfTestFault {
    /// There is no network.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// There is one, and it cannot be measured.
    #[error("measuring {}: {source}", check.name())]
    Unmeasured {
        /// What was to be compared.
        check: Check,
        /// Why it cannot be.
        source: io::Error,
    },
    /// Somebody wanted the end.
    #[error("interrupted")]
    Stopped,
    /// It does not do what it should.
    #[error("the emulated network is not as it should be: {}", joined(.0))]
    Failed(Vec<Failure>),
}

fn joined(failures: &[Failure]) -> String {
    let all: Vec<String> = failures.iter().map(Failure::to_string).collect();
    all.join("; ")
}

/// Whether somebody wants the end; asked many times in a second.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Measures all of [`Check::ALL`] in two namespaces of its own, about 20 seconds if all is well, and tells `progress`
/// each finding.
///
/// # Errors
/// When something does not agree with theory, or cannot be measured, or when `stop` says so.
pub fn self_test(
    mut progress: impl FnMut(&Finding),
    stop: Stop<'_>,
) -> Result<Vec<Finding>, SelfTestFault> {
    let mut findings = Vec::new();
    for check in Check::ALL {
        let finding = measure_patiently(check, stop)?;
        progress(&finding);
        findings.push(finding);
    }
    let failed = findings.iter().filter(|finding| !finding.agrees());
    let failures: Vec<Failure> = failed
        .map(|finding| Failure { finding: *finding })
        .collect();
    if failures.is_empty() {
        Ok(findings)
    } else {
        Err(SelfTestFault::Failed(failures))
    }
}

fn measure_patiently(check: Check, stop: Stop<'_>) -> Result<Finding, SelfTestFault> {
    let mut attempts = 1;
    loop {
        if stop() {
            return Err(SelfTestFault::Stopped);
        }
        let wan = start(check, attempts.into())?;
        let measured = measure(check, &wan, attempts, stop);
        wan.check()?;
        if stop() {
            return Err(SelfTestFault::Stopped);
        }
        let finding = measured.map_err(|source| SelfTestFault::Unmeasured { check, source })?;
        if finding.agrees() || attempts == ATTEMPTS {
            return Ok(finding);
        }
        attempts += 1;
    }
}

/// A network as the check needs it.
fn start(check: Check, seed: u64) -> Result<Wan, Fault> {
    let delay = Impairment {
        delay: DELAY,
        ..Impairment::default()
    };
    let loss = |loss| Impairment {
        loss,
        ..Impairment::default()
    };
    let me = process::id();
    let mut spec = Spec::between(&format!("wan-test-{me}-a"), &format!("wan-test-{me}-b"));
    spec.seed = seed;
    spec.engine = Engine::Tun;
    spec = match check {
        Check::RoundTripV4 | Check::RoundTripV6 => spec.both(delay),
        Check::IndependentLoss => spec.with(Direction::Forward, loss(Loss::Bernoulli(BERNOULLI))),
        Check::BurstLoss => spec.with(Direction::Forward, loss(Loss::GilbertElliott(BURSTS))),
        Check::Bulk => spec.both(delay.clone()).with(
            Direction::Forward,
            Impairment {
                loss: Loss::Bernoulli(BULK_LOSS),
                ..delay
            },
        ),
    };
    Wan::start(&spec)
}

fn measure(check: Check, wan: &Wan, attempts: u32, stop: Stop<'_>) -> io::Result<Finding> {
    let finding = |expected, tolerance, measured| Finding {
        check,
        expected,
        tolerance,
        measured,
        attempts,
    };
    match check {
        Check::RoundTripV4 | Check::RoundTripV6 => {
            let target = wan.addresses(1)[usize::from(check == Check::RoundTripV6)];
            let median =
                echo::median_round_trip(&wan.sides()[0].namespace, target, DELAY * 2, stop)?;
            let measured_us = median.as_secs_f64() * 1e6;
            let expected_us = DELAY.as_secs_f64() * 2e6;
            Ok(finding(expected_us, ROUND_TRIP_TOLERANCE_US, measured_us))
        }
        Check::IndependentLoss => {
            let flood = flood::send(wan)?;
            let mean = flood.sent * BERNOULLI;
            let deviation = (mean * (1.0 - BERNOULLI)).sqrt();
            Ok(finding(mean, SIGMAS * deviation, flood.lost))
        }
        Check::BurstLoss => {
            let flood = flood::send(wan)?;
            let mean = flood.sent * BURSTS.mean_loss();
            let deviation = burst_variance(flood.sent).sqrt();
            Ok(finding(mean, SIGMAS * deviation, flood.lost))
        }
        Check::Bulk => {
            let bulk = bulk::run(wan, stop)?;
            let segment_bits = f64::from(bulk.segment_bytes) * 8.0;
            let round_trip = DELAY.as_secs_f64() * 2.0;
            let expected_mbps = 1.22 * segment_bits / (round_trip * BULK_LOSS.sqrt()) / 1e6;
            let tolerance = expected_mbps * BULK_TOLERANCE;
            Ok(finding(
                expected_mbps,
                tolerance,
                bulk.bits_per_second / 1e6,
            ))
        }
    }
}

/// The variance of the packets lost out of `sent`. A cycle is a good stretch and a bad one, both geometric; what is lost
/// in it varies by the bad one, and how many cycles there are by both (renewal reward).
fn burst_variance(sent: f64) -> f64 {
    let variance = |probability: f64| (1.0 - probability) / (probability * probability);
    let (bad, good) = (1.0 / BURSTS.to_good, 1.0 / BURSTS.to_bad);
    let cycles = sent / (bad + good);
    let share = BURSTS.mean_loss();
    let spread =
        (1.0 - share).powi(2) * variance(BURSTS.to_good) + share.powi(2) * variance(BURSTS.to_bad);
    cycles * spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_for_somebody_who_wants_the_end() {
        let ended = self_test(|_| panic!("nothing was measured"), &|| true);
        assert!(matches!(ended, Err(SelfTestFault::Stopped)));
    }

    #[test]
    fn a_failure_says_what_was_expected() {
        let finding = Finding {
            check: Check::RoundTripV4,
            expected: 20_000.0,
            tolerance: 100.0,
            measured: 20_250.04,
            attempts: 3,
        };
        assert!(!finding.agrees());
        let fault = SelfTestFault::Failed(vec![Failure { finding }]);
        assert_eq!(
            fault.to_string(),
            "the emulated network is not as it should be: round trip, IPv4: 20250.0 us were measured, \
             20000.0 ± 100.0 us expected, 3 times"
        );
    }
}
