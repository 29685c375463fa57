//! What a campaign found, as it is written down: schema `corinth-campaign/1`. Reports, goals and baselines are made from
//! this alone, so they can be made again without measuring.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    machine::{Fact, OUTSIDE_SHARE_MAX},
    measure::{Figure, Measure, Sample},
    statistics::Summary,
    system::{ConfigFile, SystemKey},
};

/// The version of everything in this file.
pub const SCHEMA: &str = "corinth-campaign/1";

/// One campaign, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// It was interrupted; what is there was measured before.
    pub partial: bool,
    /// The command line.
    pub command: String,
    /// When it started, as RFC 3339.
    pub started: String,
    /// Rounds that count.
    pub rounds: u32,
    /// Length of one load.
    pub seconds: u32,
    /// The machine and the path.
    pub environment: Vec<Fact>,
    /// Everything that was to be compared, what is not installed included.
    pub systems: Vec<SystemRecord>,
    /// By measure and system: a sample for each round, or none where a load gave nothing.
    pub samples: BTreeMap<Measure, BTreeMap<SystemKey, Vec<Option<Sample>>>>,
    /// Why there is no sample where there is none.
    pub problems: Vec<Problem>,
}

/// One of the things compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemRecord {
    /// Which one.
    pub key: SystemKey,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it was not measured, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// How it was configured.
    #[serde(default)]
    pub files: Vec<ConfigFile>,
    /// How it was started.
    #[serde(default)]
    pub commands: Vec<String>,
}

/// A load that gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which load.
    pub measure: Measure,
    /// On what.
    pub system: SystemKey,
    /// In which round; 0 is the warm-up.
    pub round: u32,
    /// Why.
    pub why: String,
}

/// Share of the machine that was not ours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Median of what processes outside of the campaign used.
    pub outside_median: f64,
    /// What they used at most during 19 of 20 loads.
    pub outside_p95: f64,
    /// The most they used during any load.
    pub outside_max: f64,
    /// Median of what the hypervisor took.
    pub stolen_median: f64,
    /// The most it took during any load.
    pub stolen_max: f64,
}

impl Noise {
    /// Whether the absolute figures may be quoted.
    pub fn is_quiet(&self) -> bool {
        self.outside_p95 <= OUTSIDE_SHARE_MAX
    }
}

impl Results {
    /// A figure of a system, round by round.
    pub fn series(&self, measure: Measure, system: SystemKey, figure: Figure) -> Vec<Option<f64>> {
        let samples = self.samples_of(measure, system);
        samples
            .iter()
            .map(|sample| sample.as_ref()?.figure(figure))
            .collect()
    }

    /// The samples of a system, round by round.
    pub fn samples_of(&self, measure: Measure, system: SystemKey) -> &[Option<Sample>] {
        let systems = self.samples.get(&measure);
        let samples = systems.and_then(|systems| systems.get(&system));
        samples.map_or(&[], Vec::as_slice)
    }

    /// Notes a sample, or that there is none.
    pub fn push(&mut self, measure: Measure, system: SystemKey, sample: Option<Sample>) {
        let systems = self.samples.entry(measure).or_default();
        systems.entry(system).or_default().push(sample);
    }

    /// How a system was started.
    pub fn system(&self, key: SystemKey) -> Option<&SystemRecord> {
        self.systems.iter().find(|system| system.key == key)
    }

    /// What was measured of any system.
    pub fn measured(&self) -> impl Iterator<Item = SystemKey> {
        let systems = self.systems.iter();
        systems
            .filter(|system| system.absent.is_none())
            .map(|system| system.key)
    }

    /// What else the machine did; none if nothing was measured.
    pub fn noise(&self) -> Option<Noise> {
        let samples = || {
            let lists = self.samples.values().flat_map(BTreeMap::values);
            lists.flatten().flatten()
        };
        let mut outside: Vec<f64> = samples().map(|sample| sample.outside_share).collect();
        outside.sort_by(f64::total_cmp);
        let stolen: Vec<f64> = samples().map(|sample| sample.stolen_share).collect();
        let max = |shares: &[f64]| shares.iter().copied().fold(0.0, f64::max);
        Some(Noise {
            outside_median: Summary::of(&outside)?.median,
            outside_p95: *outside.get((outside.len() * 19).div_ceil(20).checked_sub(1)?)?,
            outside_max: max(&outside),
            stolen_median: Summary::of(&stolen)?.median,
            stolen_max: max(&stolen),
        })
    }
}
