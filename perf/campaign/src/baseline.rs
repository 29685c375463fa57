//! Ratios of a campaign that are kept, and whether a later one is worse than its noise explains.
//!
//! Only ratios to other systems on the same machine in the same rounds are kept: absolute figures say more about the
//! machine and the day than about us.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    results::Results,
    rows::{Better, Guarded, ROWS, Row},
    statistics::{CONFIDENCE_FROM, Summary},
    system::SystemKey,
};

/// The version of the file.
pub const SCHEMA: &str = "corinth-baseline/1";
/// A change smaller than this is none, however sure: another layout of a binary makes as much.
pub const CHANGE_MIN: f64 = 0.05;

/// What is committed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// When it was measured, as RFC 3339.
    pub measured: String,
    /// Where: other machines have other ratios.
    pub machine: String,
    /// The revision that was measured.
    pub revision: String,
    /// Rounds that counted.
    pub rounds: u32,
    /// Versions of the references.
    pub versions: BTreeMap<SystemKey, String>,
    /// By row and reference.
    pub ratios: BTreeMap<String, BTreeMap<SystemKey, Ratio>>,
}

/// Ours to theirs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Median over the rounds.
    pub median: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
}

impl From<Summary> for Ratio {
    fn from(summary: Summary) -> Self {
        // What is beyond the fifth digit is noise, and makes the file hard to read.
        let short = |value: f64| (value * 1e5).round() / 1e5;
        Self {
            median: short(summary.median),
            low: short(summary.low),
            high: short(summary.high),
        }
    }
}

/// How a row stands to the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Worse than noise explains, against most references.
    Regressed,
    /// Better than noise explains, against most references.
    Improved,
    /// Neither.
    Same,
    /// There is nothing to compare, or too few rounds.
    Unknown,
}

impl Standing {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regressed => "regressed",
            Self::Improved => "improved",
            Self::Same => "same",
            Self::Unknown => "unknown",
        }
    }
}

/// A row beside the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The row.
    pub row: &'static Row,
    /// What came out.
    pub standing: Standing,
    /// Reference, ratio then, ratio now.
    pub references: Vec<(SystemKey, Ratio, Ratio)>,
}

impl Baseline {
    /// The ratios of a campaign.
    pub fn of(results: &Results) -> Self {
        let fact = |name: &str| {
            let found = results.environment.iter().find(|fact| fact.name == name);
            found.map_or_else(String::new, |fact| fact.value.clone())
        };
        let versions = results.systems.iter().filter_map(|system| {
            let version = system.version.clone().filter(|_| system.absent.is_none())?;
            (system.key != SystemKey::Corinth).then_some((system.key, version))
        });
        let ratios = guarded().map(|row| (row.id.to_owned(), ratios(results, row)));
        Self {
            schema: SCHEMA.to_owned(),
            measured: results.started.clone(),
            machine: format!("{}, kernel {}", fact("cpu"), fact("kernel")),
            revision: fact("git"),
            rounds: results.rounds,
            versions: versions.collect(),
            ratios: ratios.filter(|(_, ratios)| !ratios.is_empty()).collect(),
        }
    }

    /// Every row that both have.
    pub fn compare(&self, results: &Results) -> Vec<Compared> {
        let rows = guarded().filter(|row| results.samples.contains_key(&row.measure));
        rows.filter_map(|row| {
            let then = self.ratios.get(row.id)?;
            Some(self.compare_row(results, row, then))
        })
        .collect()
    }

    fn compare_row(
        &self,
        results: &Results,
        row: &'static Row,
        then: &BTreeMap<SystemKey, Ratio>,
    ) -> Compared {
        let now = ratios(results, row);
        let references: Vec<_> = then
            .iter()
            .filter(|(key, _)| self.is_the_same(results, **key))
            .filter_map(|(key, then)| Some((*key, *then, *now.get(key)?)))
            .collect();
        let has_interval = |key| row.ratios(results, key).len() >= CONFIDENCE_FROM;
        let sure = references
            .iter()
            .filter(|(key, _, _)| has_interval(*key))
            .count();
        let count = |is: fn(Better, &Ratio, &Ratio) -> bool| {
            references
                .iter()
                .filter(|(_, then, now)| is(row.better, then, now))
                .count()
        };
        let most = |found: usize| 2 * found > references.len();
        let standing = if references.is_empty() || sure < references.len() {
            Standing::Unknown
        } else if most(count(is_worse)) {
            Standing::Regressed
        } else if most(count(is_better)) {
            Standing::Improved
        } else {
            Standing::Same
        };
        Compared {
            row,
            standing,
            references,
        }
    }

    /// A reference of another version is another reference.
    fn is_the_same(&self, results: &Results, key: SystemKey) -> bool {
        let now = results
            .system(key)
            .and_then(|system| system.version.as_ref());
        self.versions.get(&key) == now
    }
}

fn guarded() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| row.guarded == Guarded::Yes)
}

fn ratios(results: &Results, row: &Row) -> BTreeMap<SystemKey, Ratio> {
    let others = results.measured().filter(|key| *key != SystemKey::Corinth);
    others
        .filter_map(|key| Some((key, Ratio::from(row.ratio(results, key)?))))
        .collect()
}

/// The intervals do not touch, and the medians differ by more than a trifle.
fn is_worse(better: Better, then: &Ratio, now: &Ratio) -> bool {
    match better {
        Better::More => now.high < then.low && now.median < then.median * (1.0 - CHANGE_MIN),
        Better::Less => now.low > then.high && now.median > then.median * (1.0 + CHANGE_MIN),
    }
}

fn is_better(better: Better, then: &Ratio, now: &Ratio) -> bool {
    let other = match better {
        Better::More => Better::Less,
        Better::Less => Better::More,
    };
    is_worse(other, then, now)
}

#[cfg(test)]
mod tests;
