//! What is to be reached, and whether it is.

use crate::{
    measure::Measure,
    results::Results,
    rows::{Row, by_id},
    statistics::Summary,
    system::SystemKey,
};

/// A demand on one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// The id of the row.
    pub row: &'static str,
    /// What ours is held against.
    pub against: SystemKey,
    /// How.
    pub demand: Demand,
}

/// What a goal asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Demand {
    /// Ours is at least so many times theirs.
    TimesAtLeast(f64),
    /// Ours is at most so many times theirs.
    TimesAtMost(f64),
    /// Ours is at most so much above theirs, in the unit of the row.
    AboveAtMost(f64),
    /// Ours is at most this, in the unit of the row.
    AtMost(f64),
}

/// Whether a goal is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is, whichever way one looks at the samples.
    Met,
    /// It is not.
    Missed,
    /// Two ways to look at the same samples disagree: more rounds, or a quieter machine.
    Unclear,
    /// Something it needs has no data.
    NoData,
}

impl Verdict {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Unclear => "unclear",
            Self::NoData => "no data",
        }
    }
}

/// A goal with what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Which one.
    pub goal: Goal,
    /// The row it is about.
    pub row: &'static Row,
    /// What was compared with the demand; none without data.
    pub found: Option<Summary>,
    /// What came out.
    pub verdict: Verdict,
}

/// Round trip of the way on which first bytes are measured.
pub const FIRST_BYTE_RTT_MS: f64 = 60.0;

const fn goal(row: &'static str, against: SystemKey, demand: Demand) -> Goal {
    Goal {
        row,
        against,
        demand,
    }
}

/// All goals, in the order of the table.
pub const GOALS: &[Goal] = &{
    use Demand::{AboveAtMost, AtMost, TimesAtLeast, TimesAtMost};
    use SystemKey::{
        Corinth, CorinthQuic, Direct, EnvoyHttp2, EnvoyMtls, Haproxy, HaproxyMtls, NginxMtls,
    };
    [
        goal("bulk-1-up", EnvoyMtls, TimesAtLeast(1.3)),
        goal("bulk-1-down", EnvoyMtls, TimesAtLeast(1.3)),
        goal("bulk-8-up", EnvoyMtls, TimesAtLeast(1.3)),
        goal("bulk-8-down", EnvoyMtls, TimesAtLeast(1.3)),
        // QUIC carries at least half of what TLS does where nothing is lost.
        goal("bulk-1-up", CorinthQuic, TimesAtMost(2.0)),
        goal("bulk-8-up", CorinthQuic, TimesAtMost(2.0)),
        goal("cpu-1-up", EnvoyMtls, TimesAtMost(0.75)),
        goal("cpu-1-down", EnvoyMtls, TimesAtMost(0.75)),
        goal("cpu-8-up", EnvoyMtls, TimesAtMost(0.75)),
        goal("cpu-8-down", EnvoyMtls, TimesAtMost(0.75)),
        goal("crr", EnvoyHttp2, TimesAtLeast(1.6)),
        goal("crr", Haproxy, TimesAtLeast(0.8)),
        goal("crr", HaproxyMtls, TimesAtLeast(2.0)),
        goal("crr", NginxMtls, TimesAtLeast(2.0)),
        goal("added-p50", EnvoyMtls, TimesAtMost(0.8)),
        goal("added-p50", HaproxyMtls, TimesAtMost(1.0)),
        goal("added-p50", NginxMtls, TimesAtMost(1.0)),
        goal("open-same-p99", Direct, AboveAtMost(60.0)),
        goal("open-own-p99", Direct, AboveAtMost(60.0)),
        goal("rss-bulk", EnvoyMtls, TimesAtMost(0.25)),
        goal("rss-idle", Corinth, AtMost(15.0)),
        goal("connection-near", Corinth, AtMost(8_192.0)),
        goal("connection-far", Corinth, AtMost(8_192.0)),
        goal("wan-first-byte", Corinth, AtMost(FIRST_BYTE_RTT_MS + 5.0)),
        goal("wan-bulk", Direct, TimesAtLeast(0.9)),
    ]
};

impl Goal {
    /// As a sentence without a subject.
    pub fn text(&self) -> String {
        let unit = by_id(self.row).map_or("", |row| row.unit);
        let them = self.against.title();
        match self.demand {
            Demand::TimesAtLeast(times) => format!("≥ {times} × {them}"),
            Demand::TimesAtMost(times) => format!("≤ {times} × {them}"),
            Demand::AboveAtMost(most) => format!("≤ {them} + {most} {unit}"),
            Demand::AtMost(most) => format!("≤ {most} {unit}"),
        }
    }

    fn is_met_by(&self, value: f64) -> bool {
        match self.demand {
            Demand::TimesAtLeast(least) => value >= least,
            Demand::TimesAtMost(most) | Demand::AboveAtMost(most) | Demand::AtMost(most) => {
                value <= most
            }
        }
    }
}

/// The goals whose measure was part of the campaign.
pub fn judge(results: &Results) -> Vec<Judged> {
    let is_there = |measure: Measure| results.samples.contains_key(&measure);
    let goals = GOALS
        .iter()
        .filter_map(|goal| Some((goal, by_id(goal.row)?)));
    goals
        .filter(|(_, row)| is_there(row.measure))
        .map(|(goal, row)| judge_one(results, goal, row))
        .collect()
}

fn judge_one(results: &Results, goal: &Goal, row: &'static Row) -> Judged {
    let judged = |found, verdict| Judged {
        goal: *goal,
        row,
        found,
        verdict,
    };
    let Some((found, of_medians)) = compare(results, goal, row) else {
        return judged(None, Verdict::NoData);
    };
    let verdict = match (goal.is_met_by(found.median), goal.is_met_by(of_medians)) {
        (true, true) => Verdict::Met,
        (false, false) => Verdict::Missed,
        (true, false) | (false, true) => Verdict::Unclear,
    };
    judged(Some(found), verdict)
}

/// What the rounds say one by one, and what the medians say.
fn compare(results: &Results, goal: &Goal, row: &Row) -> Option<(Summary, f64)> {
    let ours = row.summary(results, SystemKey::Corinth)?;
    match goal.demand {
        Demand::TimesAtLeast(_) | Demand::TimesAtMost(_) => {
            let theirs = row.summary(results, goal.against)?.median;
            let ratio = row.ratio(results, goal.against)?;
            (theirs > 0.0).then(|| (ratio, ours.median / theirs))
        }
        Demand::AboveAtMost(_) => {
            let theirs = row.series(results, goal.against);
            let pairs = row
                .series(results, SystemKey::Corinth)
                .into_iter()
                .zip(theirs);
            let above: Vec<f64> = pairs
                .filter_map(|(ours, theirs)| Some(ours? - theirs?))
                .collect();
            let theirs = row.summary(results, goal.against)?.median;
            Some((Summary::of(&above)?, ours.median - theirs))
        }
        Demand::AtMost(_) => Some((ours, ours.median)),
    }
}

#[cfg(test)]
mod tests;
