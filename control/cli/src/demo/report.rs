//! What the demo shows, as it happens and at the end.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::load::Call;
use crate::{
    output::{Cell, table},
    terminal::{Mark, Style, Terminal},
};

/// What the demo shows, and how it went.
pub(super) struct Report {
    terminal: Terminal,
    /// The tour goes to stderr because stdout is for a program.
    is_beside: bool,
    began: Instant,
    chapters: Vec<Chapter>,
}

/// A step and how it went.
pub(super) struct Chapter {
    pub(super) title: &'static str,
    pub(super) took: Duration,
    pub(super) lines: Vec<String>,
    pub(super) outcome: Outcome,
}

/// How a step went.
pub(super) enum Outcome {
    Passed(Vec<Measured>),
    /// What was expected and what was seen.
    Failed(String),
    /// An earlier one failed.
    Skipped,
}

/// What was measured over some calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) what: &'static str,
    pub(super) calls: usize,
    pub(super) failures: usize,
    pub(super) median: Duration,
    /// 99 of 100 calls took no longer.
    pub(super) slow: Duration,
    /// From the first call after the event to the first answer by whoever took over; of a cluster that returns, from
    /// its start.
    pub(super) failover: Option<Duration>,
}

/// A step went wrong; what is left is skipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed;

/// A step while it goes on.
pub(super) struct Scene<'a> {
    report: &'a Report,
    lines: Vec<String>,
}

impl Report {
    pub(super) fn new(terminal: Terminal, is_beside: bool) -> Self {
        Self {
            terminal,
            is_beside,
            began: Instant::now(),
            chapters: Vec::new(),
        }
    }

    /// Plays one step; what it says is shown at once.
    pub(super) async fn play<T>(
        &mut self,
        title: &'static str,
        step: impl AsyncFnOnce(&mut Scene<'_>) -> Result<(T, Vec<Measured>), String>,
    ) -> Result<T, Failed> {
        let number = self.chapters.len() + 1;
        self.show(&format!(
            "{}\n",
            self.style().strong(&format!("{number} {title}"))
        ));
        let began = Instant::now();
        let mut scene = Scene {
            report: self,
            lines: Vec::new(),
        };
        let played = step(&mut scene).await;
        if let Err(why) = &played {
            scene.say(Mark::Bad, why);
        }
        let lines = scene.lines;
        let (outcome, result) = match played {
            Ok((result, measured)) => (Outcome::Passed(measured), Ok(result)),
            Err(why) => (Outcome::Failed(why), Err(Failed)),
        };
        self.chapters.push(Chapter {
            title,
            took: began.elapsed(),
            lines,
            outcome,
        });
        result
    }

    /// Says which steps were not played.
    pub(super) fn skip(&mut self, titles: &[&'static str]) {
        for title in titles.iter().skip(self.chapters.len()) {
            let number = self.chapters.len() + 1;
            let mark = self.style().mark(Mark::Skipped);
            self.show(&format!("{number} {title}\n  {mark} skipped\n"));
            self.chapters.push(Chapter {
                title,
                took: Duration::ZERO,
                lines: Vec::new(),
                outcome: Outcome::Skipped,
            });
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        let mut chapters = self.chapters.iter();
        chapters.any(|chapter| !matches!(chapter.outcome, Outcome::Passed(_)))
    }

    pub(super) fn chapters(&self) -> &[Chapter] {
        &self.chapters
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What was measured, as a table.
    pub(super) fn figures(&self) -> String {
        let measured = self
            .chapters
            .iter()
            .flat_map(|chapter| match &chapter.outcome {
                Outcome::Passed(measured) => measured.as_slice(),
                Outcome::Failed(_) | Outcome::Skipped => &[],
            });
        let rows: Vec<_> = measured
            .map(|row| {
                vec![
                    Cell::plain(row.what),
                    Cell::plain(row.calls),
                    Cell::plain(row.failures),
                    Cell::plain(time(row.median)),
                    Cell::plain(time(row.slow)),
                    Cell::optional(row.failover.map(time)),
                ]
            })
            .collect();
        let headers = ["MEASURED", "CALLS", "FAILED", "P50", "P99", "FAILOVER"];
        table(&headers, &rows, self.style())
    }

    /// Writes to wherever the tour goes.
    pub(super) fn show(&self, text: &str) {
        if self.is_beside {
            self.terminal.note(text);
        } else {
            // A tour that cannot be shown goes on all the same: its exit code tells.
            let _ = self.terminal.print(text);
        }
    }

    pub(super) fn style(&self) -> Style {
        if self.is_beside {
            self.terminal.stderr
        } else {
            self.terminal.stdout
        }
    }
}

impl Scene<'_> {
    /// Says what was seen.
    pub(super) fn say(&mut self, mark: Mark, text: &str) {
        let style = self.report.style();
        self.report
            .show(&format!("  {} {text}\n", style.mark(mark)));
        self.lines.push(format!("{} {text}", style.glyph(mark)));
    }

    /// Says what is done next.
    pub(super) fn tell(&mut self, text: &str) {
        self.report.show(&format!("    {text}\n"));
        self.lines.push(text.to_owned());
    }
}

impl Measured {
    pub(super) fn of(what: &'static str, calls: &[Call], failover: Option<Duration>) -> Self {
        let mut times: Vec<_> = calls
            .iter()
            .filter(|call| call.result.is_ok())
            .map(Call::took)
            .collect();
        times.sort_unstable();
        Self {
            what,
            calls: calls.len(),
            failures: calls.len() - times.len(),
            median: percentile(&times, 50),
            slow: percentile(&times, 99),
            failover,
        }
    }
}

/// The smallest of the sorted `times` that `percent` of a hundred do not exceed (nearest rank).
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let rank = (times.len() * percent).div_ceil(100);
    times
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// A time as people read it: `0.61 ms`, `83.2 ms`, `5.03 s`.
pub(super) fn time(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    match milliseconds {
        ..10.0 => format!("{milliseconds:.2} ms"),
        ..1000.0 => format!("{milliseconds:.1} ms"),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

/// The report as JUnit XML.
pub(super) fn junit(chapters: &[Chapter], took: Duration) -> String {
    let count = |is: fn(&Outcome) -> bool| {
        chapters
            .iter()
            .filter(|chapter| is(&chapter.outcome))
            .count()
    };
    let failures = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped));
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites>\n  <testsuite name=\"corinth demo\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" \
         skipped=\"{skipped}\" time=\"{:.3}\">\n",
        chapters.len(),
        took.as_secs_f64()
    );
    for chapter in chapters {
        let _ = writeln!(
            xml,
            "    <testcase classname=\"corinth.demo\" name=\"{}\" time=\"{:.3}\">",
            escaped(chapter.title),
            chapter.took.as_secs_f64()
        );
        match &chapter.outcome {
            Outcome::Passed(_) => {}
            Outcome::Failed(why) => {
                let _ = writeln!(xml, "      <failure message=\"{}\"/>", escaped(why));
            }
            Outcome::Skipped => {
                xml.push_str("      <skipped message=\"an earlier step failed\"/>\n");
            }
        }
        if !chapter.lines.is_empty() {
            let lines = escaped(&chapter.lines.join("\n"));
            let _ = writeln!(xml, "      <system-out>{lines}</system-out>");
        }
        xml.push_str("    </testcase>\n");
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// Text as XML holds it, also in attributes; control characters that it cannot hold are replaced.
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\n' | '\t' => xml.push(letter),
            letter if letter.is_control() => xml.push('\u{fffd}'),
            letter => xml.push(letter),
        }
    }
    xml
}

#[cfg(test)]
mod tests;
