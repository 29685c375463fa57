//! Results as text for people: tables for a terminal or a document, and one HTML file with plots.
//!
//! The same [`Grid`]s are drawn in every form. A cell without data says so in words.

use crate::{
    baseline::{Compared, Standing},
    goals::{Judged, judge},
    machine::OUTSIDE_SHARE_MAX,
    results::{Noise, Results},
    rows::{ROWS, Row, Value, number},
    statistics::{CONFIDENCE_FROM, Summary},
    system::SystemKey,
};

pub mod document;
pub mod html;
pub mod plots;
pub mod text;

/// Everything a report is made of.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// What was measured.
    pub results: &'a Results,
    /// The verdicts on the goals.
    pub goals: Vec<Judged>,
    /// Beside the baseline, if there is one.
    pub compared: Vec<Compared>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    /// What it shows.
    pub title: &'static str,
    /// Columns that are words; the others are figures.
    pub words: usize,
    /// Names of the columns.
    pub header: Vec<String>,
    /// Cells, line by line.
    pub lines: Vec<Vec<String>>,
}

/// How much a cell tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The median.
    Medians,
    /// The median and its interval.
    Intervals,
}

/// Where there is nothing to measure.
const NOTHING: &str = "–";

impl<'a> Report<'a> {
    /// Judges results; `compared` is what a baseline says of them.
    pub fn new(results: &'a Results, compared: Vec<Compared>) -> Self {
        Self {
            results,
            goals: judge(results),
            compared,
        }
    }

    /// All tables that have lines.
    pub fn grids(&self, detail: Detail) -> Vec<Grid> {
        let all = [
            self.figures(detail),
            self.ratios(detail),
            self.verdicts(),
            self.standings(),
        ];
        all.into_iter()
            .filter(|grid| !grid.lines.is_empty())
            .collect()
    }

    /// Rows whose measure was part of the campaign.
    fn rows(&self) -> impl Iterator<Item = &'static Row> {
        let measured = |row: &&Row| self.results.samples.contains_key(&row.measure);
        ROWS.iter().filter(measured)
    }

    /// What every system reached.
    pub fn figures(&self, detail: Detail) -> Grid {
        let systems: Vec<_> = self
            .results
            .systems
            .iter()
            .map(|system| system.key)
            .collect();
        let names = systems.iter().map(|key| key.title().to_owned());
        let line = |row: &'static Row| {
            let head = [row.title.to_owned(), row.unit.to_owned()];
            let cells = systems.iter().map(|key| self.cell(row, *key, detail));
            head.into_iter().chain(cells).collect()
        };
        Grid {
            title: "Figures",
            words: 2,
            header: ["measure".to_owned(), "unit".to_owned()]
                .into_iter()
                .chain(names)
                .collect(),
            lines: self.rows().map(line).collect(),
        }
    }

    fn cell(&self, row: &Row, key: SystemKey, detail: Detail) -> String {
        if self
            .results
            .system(key)
            .is_some_and(|system| system.absent.is_some())
        {
            return "not measured".to_owned();
        }
        if self.results.samples_of(row.measure, key).is_empty()
            || row.value == Value::AboveDirect && key == SystemKey::Direct
        {
            return NOTHING.to_owned();
        }
        let Some(summary) = row.summary(self.results, key) else {
            return "no data".to_owned();
        };
        let rounds = row.series(self.results, key).len();
        cell_text(row, &summary, rounds, detail)
    }

    /// Ours to each of the others, neighbours in time compared.
    pub fn ratios(&self, detail: Detail) -> Grid {
        let others: Vec<_> = self
            .results
            .measured()
            .filter(|key| *key != SystemKey::Corinth)
            .collect();
        let names = others.iter().map(|key| key.title().to_owned());
        let line = |row: &'static Row| {
            let ratios: Vec<_> = others
                .iter()
                .map(|key| row.ratio(self.results, *key))
                .collect();
            let any = ratios.iter().any(Option::is_some);
            let cells = ratios.iter().map(|ratio| {
                ratio.map_or_else(|| NOTHING.to_owned(), |ratio| ratio_text(&ratio, detail))
            });
            any.then(|| std::iter::once(row.title.to_owned()).chain(cells).collect())
        };
        Grid {
            title: "Corinth relative to the others",
            words: 1,
            header: std::iter::once("Corinth ÷".to_owned())
                .chain(names)
                .collect(),
            lines: self.rows().filter_map(line).collect(),
        }
    }

    /// The goals.
    pub fn verdicts(&self) -> Grid {
        let line = |judged: &Judged| {
            let is_times = matches!(
                judged.goal.demand,
                crate::goals::Demand::TimesAtLeast(_) | crate::goals::Demand::TimesAtMost(_)
            );
            let found = judged.found.map_or_else(
                || "no data".to_owned(),
                |found| {
                    if is_times {
                        ratio_text(&found, Detail::Intervals)
                    } else {
                        cell_text(judged.row, &found, found.count, Detail::Intervals)
                    }
                },
            );
            vec![
                judged.row.title.to_owned(),
                judged.goal.text(),
                found,
                judged.verdict.name().to_owned(),
            ]
        };
        Grid {
            title: "Goals",
            words: 2,
            header: ["measure", "goal", "found", "verdict"]
                .map(str::to_owned)
                .to_vec(),
            lines: self.goals.iter().map(line).collect(),
        }
    }

    /// Beside the baseline.
    pub fn standings(&self) -> Grid {
        let line = |compared: &Compared| {
            let references = compared.references.iter();
            let references: Vec<_> = references
                .map(|(key, then, now)| {
                    format!("{}: {:.2} → {:.2}", key.title(), then.median, now.median)
                })
                .collect();
            vec![
                compared.row.title.to_owned(),
                references.join("; "),
                compared.standing.name().to_owned(),
            ]
        };
        Grid {
            title: "Beside the baseline",
            words: 2,
            header: ["measure", "Corinth ÷ reference, then → now", "standing"]
                .map(str::to_owned)
                .to_vec(),
            lines: self.compared.iter().map(line).collect(),
        }
    }

    /// Rows that became worse.
    pub fn regressions(&self) -> Vec<&Compared> {
        let found = self.compared.iter();
        found
            .filter(|compared| compared.standing == Standing::Regressed)
            .collect()
    }

    /// Why the campaign is not whole, if so: it was interrupted, or a figure of ours is missing.
    pub fn shortcoming(&self) -> Option<String> {
        if self.results.partial {
            return Some("interrupted; what was measured before is in the report".to_owned());
        }
        let ours = SystemKey::Corinth;
        if let Some(why) = self
            .results
            .system(ours)
            .and_then(|ours| ours.absent.as_ref())
        {
            return Some(format!("{} was not measured: {why}", ours.title()));
        }
        self.results.system(ours)?;
        let mut rows = self.rows().filter(|row| row.value == Value::Plain);
        let lacking = rows.find(|row| row.summary(self.results, ours).is_none())?;
        Some(format!(
            "{} has no data for {}",
            ours.title(),
            lacking.title
        ))
    }

    /// How and when it was measured, and whether the machine was quiet.
    pub fn preface(&self) -> String {
        let results = self.results;
        let spread = if results.rounds as usize >= CONFIDENCE_FROM {
            "95 % interval of the median"
        } else {
            "smallest – largest"
        };
        let partial = if results.partial {
            " **It was interrupted.**"
        } else {
            ""
        };
        let noise = results
            .noise()
            .map_or_else(String::new, |noise| noise_text(&noise));
        format!(
            "Measured {} by `{}`: median of {} interleaved rounds of {} s each [{spread}]; ± is the coefficient of \
             variation where it is above 10 %.{partial} {noise}",
            results.started.replace('T', " ").replace('Z', " UTC"),
            results.command,
            results.rounds,
            results.seconds,
        )
        .trim()
        .to_owned()
    }

    /// Systems that were not measured, and why.
    pub fn absences(&self) -> Vec<String> {
        let systems = self.results.systems.iter();
        systems
            .filter_map(|system| {
                let why = system.absent.as_ref()?;
                Some(format!("{}: not measured: {why}", system.key.title()))
            })
            .collect()
    }

    /// Loads of counted rounds that gave nothing.
    pub fn losses(&self) -> Vec<String> {
        let counted = self
            .results
            .problems
            .iter()
            .filter(|problem| problem.round > 0);
        counted
            .map(|problem| {
                format!(
                    "round {}, {}, {}: {}",
                    problem.round,
                    problem.measure,
                    problem.system.title(),
                    problem.why
                )
            })
            .collect()
    }
}

/// What other processes and the hypervisor did meanwhile.
fn noise_text(noise: &Noise) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let verdict = if noise.is_quiet() {
        ""
    } else {
        " **The machine was not quiet: do not quote these figures.**"
    };
    format!(
        "Other processes used {} of the machine meanwhile (median; at most {} in 19 of 20 loads, above {} it is not quiet; never more than {}), the hypervisor \
         took {} (at most {}).{verdict}",
        percent(noise.outside_median),
        percent(noise.outside_p95),
        percent(OUTSIDE_SHARE_MAX),
        percent(noise.outside_max),
        percent(noise.stolen_median),
        percent(noise.stolen_max),
    )
}

fn cell_text(row: &Row, summary: &Summary, rounds: usize, detail: Detail) -> String {
    let mut text = row.text(summary.median);
    if detail == Detail::Intervals && summary.count > 1 {
        text += &format!(" [{} – {}]", row.text(summary.low), row.text(summary.high));
    }
    text += &variation_text(summary);
    let lost = rounds.saturating_sub(summary.count);
    if lost > 0 {
        text += &format!(" ({lost} lost)");
    }
    text
}

fn ratio_text(ratio: &Summary, detail: Detail) -> String {
    let mut text = number(ratio.median, 2);
    if detail == Detail::Intervals && ratio.count > 1 {
        text += &format!(" [{} – {}]", number(ratio.low, 2), number(ratio.high, 2));
    }
    text
}

fn variation_text(summary: &Summary) -> String {
    let noisy = summary.variation.filter(|_| summary.is_noisy());
    noisy.map_or_else(String::new, |variation| {
        format!(" ±{:.0} %", variation * 100.0)
    })
}

#[cfg(test)]
mod tests;
