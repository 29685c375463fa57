//! `corinth check`: looks for whatever could keep services from being reached, and says what to do about it.
//!
//! ```text
//! control plane, names, addresses ── observed ── catalogue ──> findings ── prerequisites ──> outcomes
//! ```
//!
//! Deciding is pure: a check reads what was observed and nothing else. A check whose prerequisite has failed is
//! skipped and says why, so that the first thing that is wrong is the first thing that is read.

mod catalogue;
mod junit;
mod look;
mod observed;

#[cfg(test)]
mod tests;

use std::fmt::Write;

use serde::Serialize;

pub(crate) use self::catalogue::{CATALOGUE, Check};
use self::look::Verdict;
use self::observed::{Observed, observe};
use crate::{
    args::{CheckArgs, CheckFormat, FailOn},
    control::place,
    exit::Exit,
    output::{Cell, Format, Item, Listing, OutputArgs},
    run,
    terminal::{Mark, Style, Terminal, plain},
    trouble::Trouble,
};

/// What came of one check, for one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    code: &'static str,
    name: &'static str,
    category: &'static str,
    /// The peer, service or certificate it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    state: State,
    /// What should hold.
    sentence: &'static str,
    /// What was observed; why, if it was skipped.
    #[serde(skip_serializing_if = "String::is_empty")]
    seen: String,
    /// What to do; empty unless something is wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Error,
    Skipped,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Skipped => "skipped",
        }
    }

    const fn mark(self) -> Mark {
        match self {
            Self::Ok => Mark::Good,
            Self::Warning => Mark::Warning,
            Self::Error => Mark::Bad,
            Self::Skipped => Mark::Skipped,
        }
    }
}

impl Item for Outcome {
    const KIND: &'static str = "CheckReport";
    const HEADERS: &'static [&'static str] = &["CODE", "SUBJECT", "STATE", "SENTENCE", "SEEN"];

    fn rows(&self, style: Style) -> Vec<Vec<Cell>> {
        vec![vec![
            Cell::plain(self.code),
            Cell::optional(self.subject.as_ref()),
            Cell::marked(style, self.state.mark(), self.state.word()),
            Cell::plain(self.sentence),
            Cell::plain(&self.seen),
        ]]
    }

    fn name(&self) -> String {
        self.code.to_owned()
    }
}

pub(crate) fn check(terminal: &Terminal, args: &CheckArgs) -> Result<Exit, Trouble> {
    let only = codes(&args.only)?;
    let skip = codes(&args.skip)?;
    let observed = run::runtime()?.block_on(observe(place(&args.control)?, args.control.timeout));
    let outcomes = judge(&observed);
    let is_wanted = |outcome: &Outcome| {
        (only.is_empty() || only.contains(&outcome.code)) && !skip.contains(&outcome.code)
    };
    let outcomes: Vec<_> = outcomes.into_iter().filter(is_wanted).collect();

    let missing = observed.missing();
    let has = |state| outcomes.iter().any(|outcome| outcome.state == state);
    let exit = if observed.status.is_err() {
        Exit::Unreachable
    } else if has(State::Error) {
        Exit::Found
    } else if has(State::Warning) && args.fail_on == FailOn::Warning {
        Exit::Warned
    } else if !missing.is_empty() {
        Exit::Partial
    } else {
        Exit::Done
    };
    let listed = |output| OutputArgs {
        output,
        no_headers: false,
    };
    let format = match args.output {
        CheckFormat::Table => {
            terminal.print(&report(&outcomes, terminal.stdout))?;
            return Ok(exit);
        }
        CheckFormat::Junit => {
            terminal.print(&junit::junit(&outcomes))?;
            return Ok(exit);
        }
        CheckFormat::Json => Format::Json,
        CheckFormat::Jsonl => Format::Jsonl,
        CheckFormat::Yaml => Format::Yaml,
    };
    let listing = Listing {
        items: outcomes,
        errors: missing,
    };
    listing.print(terminal, listed(format))?;
    Ok(exit)
}

/// The codes as the catalogue writes them.
fn codes(asked: &[String]) -> Result<Vec<&'static str>, Trouble> {
    let find = |code: &String| {
        let mut known = CATALOGUE.iter().map(|check| check.code);
        known
            .find(|known| known.eq_ignore_ascii_case(code))
            .ok_or_else(|| {
                Trouble::new(
                    Exit::Usage,
                    format!("there is no check {}", code.escape_debug()),
                    format!("checks have codes such as {}", CATALOGUE[0].code),
                    "corinth explain lists all codes",
                )
            })
    };
    asked.iter().map(find).collect()
}

/// Every check, in the order of the catalogue.
fn judge(observed: &Observed) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for check in CATALOGUE {
        for finding in (check.look)(observed) {
            let failed = check.needs.iter().find(|needed| {
                outcomes.iter().any(|outcome| {
                    let is_same = outcome.subject.is_none() || outcome.subject == finding.subject;
                    outcome.code == **needed && is_same && is_failed(outcome)
                })
            });
            let (state, seen) = match (failed, finding.verdict) {
                (Some(needed), _) => (State::Skipped, format!("because of {needed}")),
                (None, Verdict::Good) => (State::Ok, finding.seen),
                (None, Verdict::Warning) => (State::Warning, finding.seen),
                (None, Verdict::Bad) => (State::Error, finding.seen),
                (None, Verdict::Unseen) => (State::Skipped, finding.seen),
            };
            let remedy = match state {
                State::Ok | State::Skipped => String::new(),
                State::Warning | State::Error => match &finding.subject {
                    Some(subject) => check.remedy.replace("PEER", subject),
                    None => check.remedy.to_owned(),
                },
            };
            outcomes.push(Outcome {
                code: check.code,
                name: check.name,
                category: check.category,
                subject: finding.subject,
                state,
                sentence: check.sentence,
                seen,
                remedy,
            });
        }
    }
    outcomes
}

/// What rests on it says nothing.
fn is_failed(outcome: &Outcome) -> bool {
    matches!(outcome.state, State::Error | State::Skipped)
}

/// The whole, as a person reads it.
fn report(outcomes: &[Outcome], style: Style) -> String {
    let mut report = String::new();
    let mut category = "";
    for outcome in outcomes {
        if category != outcome.category {
            if !category.is_empty() {
                report.push('\n');
            }
            category = outcome.category;
            let _ = writeln!(report, "{}", style.strong(category));
        }
        line(&mut report, outcome, style);
    }
    let count = |state| {
        outcomes
            .iter()
            .filter(|outcome| outcome.state == state)
            .count()
    };
    let counted = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        count => format!("{count} {word}s"),
    };
    let _ = writeln!(
        report,
        "\n{} ok, {}, {}, {} skipped",
        count(State::Ok),
        counted(count(State::Warning), "warning"),
        counted(count(State::Error), "error"),
        count(State::Skipped)
    );
    report
}

fn line(report: &mut String, outcome: &Outcome, style: Style) {
    let subject = outcome.subject.as_deref();
    let subject = subject.map_or_else(String::new, |subject| format!(" {}:", plain(subject)));
    let seen = plain(&outcome.seen);
    let _ = write!(
        report,
        "{} {}{subject} {}",
        style.mark(outcome.state.mark()),
        outcome.code,
        outcome.sentence
    );
    match outcome.state {
        State::Ok if seen.is_empty() => report.push('\n'),
        State::Ok => {
            let _ = writeln!(report, " ({seen})");
        }
        State::Skipped => {
            let _ = writeln!(report, " (skipped: {seen})");
        }
        State::Warning | State::Error => {
            let _ = writeln!(
                report,
                "\n    seen  {seen}\n    do    {}\n    more  corinth explain {}",
                plain(&outcome.remedy),
                outcome.code
            );
        }
    }
}
