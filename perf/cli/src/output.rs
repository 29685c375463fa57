//! Everything that is said: results on standard output or in a file, remarks and faults on standard error.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    path::Path,
};

use anyhow::Context;
use clap::ValueEnum;
use corinth_load::{
    client::Progress,
    result::{Interval, SCHEMA, TestResult},
};

mod place;
mod rows;
mod table;

use place::Place;

/// The form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For reading, as iperf3 prints it
    Table,
    /// The whole result
    Json,
    /// One line for each interval, then the result
    Jsonl,
    /// Figures, one in a line
    Csv,
    /// Figures, as a table in Markdown
    Md,
}

/// Where the result goes, and in which form.
pub(crate) struct Output {
    format: Format,
    to: BufWriter<Box<dyn Write>>,
    place: Place,
    /// The first thing that could not be written; nothing is tried after it.
    failure: Option<io::Error>,
    is_watched: bool,
    is_headed: bool,
}

impl Output {
    pub(crate) fn open(format: Format, path: Option<&Path>) -> io::Result<Self> {
        let (to, place): (Box<dyn Write>, Place) = match path {
            Some(path) => place::open(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?,
            None => (Box::new(io::stdout()), Place::Stdout),
        };
        let is_live = format == Format::Table && path.is_none() && io::stdout().is_terminal();
        Ok(Self {
            format,
            to: BufWriter::new(to),
            place,
            failure: None,
            is_watched: io::stderr().is_terminal() && !is_live,
            is_headed: false,
        })
    }

    /// Writes what was measured. What cannot be written to where it was to go is printed, so that it is not lost.
    pub(crate) fn finish(mut self, result: &TestResult) -> io::Result<()> {
        let written = match self.failure.take() {
            Some(failure) => Err(failure),
            None => {
                write_result(self.format, result, &mut self.to).and_then(|()| self.place.keep())
            }
        };
        if written.is_err() && !matches!(self.place, Place::Stdout) {
            // There is nowhere else to go.
            let _ = write_result(self.format, result, &mut io::stdout().lock());
        }
        written
    }

    fn write(&mut self, text: &str) {
        if self.failure.is_none()
            && let Err(error) = self
                .to
                .write_all(text.as_bytes())
                .and_then(|()| self.to.flush())
        {
            self.failure = Some(error);
        }
    }
}

/// Says on standard error how it goes, where somebody watches.
pub(crate) fn progress() -> impl Fn(&str) {
    let is_watched = io::stderr().is_terminal();
    move |line| {
        if is_watched {
            remark(line);
        }
    }
}

/// A report on standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("cannot write the report")
}

fn write_result(format: Format, result: &TestResult, to: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Table => to.write_all(table::summary(result).as_bytes())?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *to, result)?;
            to.write_all(b"\n")?;
        }
        Format::Jsonl => {
            serde_json::to_writer(
                &mut *to,
                &serde_json::json!({ "schema": SCHEMA, "result": result }),
            )?;
            to.write_all(b"\n")?;
        }
        Format::Csv => rows::write_csv(to, result)?,
        Format::Md => to.write_all(rows::markdown(result).as_bytes())?,
    }
    to.flush()
}

impl Progress for Output {
    fn interval(&mut self, intervals: &[Interval]) {
        match self.format {
            Format::Table => {
                if !self.is_headed {
                    self.is_headed = true;
                    self.write(&table::head(intervals));
                }
                self.write(&table::intervals(intervals));
            }
            Format::Jsonl => {
                for interval in intervals {
                    let line = serde_json::json!({ "schema": SCHEMA, "interval": interval });
                    self.write(&format!("{line}\n"));
                }
            }
            Format::Json | Format::Csv | Format::Md => {}
        }
        if self.is_watched
            && let Some(sum) = intervals.last()
        {
            remark(table::line("SUM", sum).trim_end());
        }
    }

    fn note(&mut self, text: &str) {
        if self.is_watched {
            remark(text);
        }
    }
}

/// One line for whoever watches.
pub(crate) fn remark(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// One line about what is wrong.
pub(crate) fn complain(text: &str) {
    remark(&format!("corinth-perf: {text}"));
}
