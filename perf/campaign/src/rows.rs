//! The lines of the tables: which figure of which measure, in which unit, and which way is better.

use crate::{
    measure::{Figure, Measure},
    results::Results,
    statistics::Summary,
    system::SystemKey,
};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is.
    More,
    /// Less is.
    Less,
}

/// How a line is made of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// The figure itself.
    Plain,
    /// What it is above the direct path in the same round.
    AboveDirect,
}

/// One line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// In files: `measure/name`.
    pub id: &'static str,
    /// For people.
    pub title: &'static str,
    /// Of what is shown.
    pub unit: &'static str,
    /// Shown behind the point.
    pub digits: usize,
    /// What is shown is the figure divided by this.
    pub divisor: f64,
    /// Which way is better.
    pub better: Better,
    /// Where it comes from.
    pub measure: Measure,
    /// Which number of its samples.
    pub figure: Figure,
    /// Made how.
    pub value: Value,
    /// Whether a campaign exits with "regression" for it.
    pub guarded: Guarded,
}

/// Whether a line is compared with a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarded {
    /// It is.
    Yes,
    /// It varies too much, or follows from others.
    No,
}

const fn row(
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    digits: usize,
    better: Better,
    measure: Measure,
    figure: Figure,
) -> Row {
    Row {
        id,
        title,
        unit,
        digits,
        divisor: 1.0,
        better,
        measure,
        figure,
        value: Value::Plain,
        guarded: Guarded::Yes,
    }
}

impl Row {
    const fn above_direct(mut self) -> Self {
        self.value = Value::AboveDirect;
        self
    }

    const fn over(mut self, divisor: f64) -> Self {
        self.divisor = divisor;
        self
    }

    const fn unguarded(mut self) -> Self {
        self.guarded = Guarded::No;
        self
    }
}

/// All lines, in the order of the table.
pub const ROWS: &[Row] = &{
    use Better::{Less, More};
    use Figure as F;
    use Measure as M;
    const GBPS: &str = "Gb/s";
    const COST: &str = "CPU-s per GB";
    const MB: f64 = 1e6;
    [
        row(
            "bulk-1-up",
            "bulk, 1 stream, up",
            GBPS,
            2,
            More,
            M::Bulk1Up,
            F::GigabitsPerSecond,
        ),
        row(
            "bulk-1-down",
            "bulk, 1 stream, down",
            GBPS,
            2,
            More,
            M::Bulk1Down,
            F::GigabitsPerSecond,
        ),
        row(
            "bulk-8-up",
            "bulk, 8 streams, up",
            GBPS,
            2,
            More,
            M::Bulk8Up,
            F::GigabitsPerSecond,
        ),
        row(
            "bulk-8-down",
            "bulk, 8 streams, down",
            GBPS,
            2,
            More,
            M::Bulk8Down,
            F::GigabitsPerSecond,
        ),
        row(
            "cpu-1-up",
            "CPU for it, 1 stream, up",
            COST,
            3,
            Less,
            M::Bulk1Up,
            F::CpuSecondsPerGb,
        ),
        row(
            "cpu-1-down",
            "CPU for it, 1 stream, down",
            COST,
            3,
            Less,
            M::Bulk1Down,
            F::CpuSecondsPerGb,
        ),
        row(
            "cpu-8-up",
            "CPU for it, 8 streams, up",
            COST,
            3,
            Less,
            M::Bulk8Up,
            F::CpuSecondsPerGb,
        ),
        row(
            "cpu-8-down",
            "CPU for it, 8 streams, down",
            COST,
            3,
            Less,
            M::Bulk8Down,
            F::CpuSecondsPerGb,
        ),
        row(
            "crr",
            "new connections",
            "per second",
            0,
            More,
            M::Crr,
            F::PerSecond,
        ),
        row(
            "crr-cpu",
            "CPU for them",
            "CPU-s per 1,000",
            3,
            Less,
            M::Crr,
            F::CpuSecondsPerThousand,
        ),
        row(
            "rr-p50",
            "request on a kept connection, p50",
            "µs",
            0,
            Less,
            M::Rr,
            F::P50Us,
        ),
        row(
            "rr-p99",
            "request on a kept connection, p99",
            "µs",
            0,
            Less,
            M::Rr,
            F::P99Us,
        )
        .unguarded(),
        row(
            "added-p50",
            "added by the gateways, p50",
            "µs",
            0,
            Less,
            M::Rr,
            F::P50Us,
        )
        .above_direct()
        .unguarded(),
        row(
            "added-p99",
            "added by the gateways, p99",
            "µs",
            0,
            Less,
            M::Rr,
            F::P99Us,
        )
        .above_direct()
        .unguarded(),
        row(
            "knee",
            "requests, 32 connections (the knee)",
            "per second",
            0,
            More,
            M::Knee,
            F::PerSecond,
        )
        .unguarded(),
        row(
            "open-same-p50",
            "on a schedule, same rate for all, p50",
            "µs",
            0,
            Less,
            M::OpenSame,
            F::P50Us,
        ),
        row(
            "open-same-p99",
            "on a schedule, same rate for all, p99",
            "µs",
            0,
            Less,
            M::OpenSame,
            F::P99Us,
        )
        .unguarded(),
        row(
            "open-own-p50",
            "on a schedule, half of its own knee, p50",
            "µs",
            0,
            Less,
            M::OpenOwn,
            F::P50Us,
        )
        .unguarded(),
        row(
            "open-own-p99",
            "on a schedule, half of its own knee, p99",
            "µs",
            0,
            Less,
            M::OpenOwn,
            F::P99Us,
        )
        .unguarded(),
        row(
            "rss-idle",
            "RSS of an idle gateway",
            "MB",
            1,
            Less,
            M::Memory,
            F::IdleBytes,
        )
        .over(MB),
        row(
            "rss-8000",
            "RSS holding 8,000 connections",
            "MB",
            1,
            Less,
            M::Memory,
            F::HoldingBytes,
        )
        .over(MB),
        row(
            "rss-bulk",
            "RSS under 8 bulk streams",
            "MB",
            1,
            Less,
            M::Memory,
            F::BulkBytes,
        )
        .over(MB),
        row(
            "connection-near",
            "RSS for an idle connection, near gateway",
            "bytes",
            0,
            Less,
            M::Memory,
            F::NearConnectionBytes,
        )
        .unguarded(),
        row(
            "connection-far",
            "RSS for an idle connection, far gateway",
            "bytes",
            0,
            Less,
            M::Memory,
            F::FarConnectionBytes,
        )
        .unguarded(),
        row(
            "wan-first-byte",
            "60 ms: connect, request, first byte, p50",
            "ms",
            1,
            Less,
            M::WanFirstByte,
            F::P50Us,
        )
        .over(1e3)
        .unguarded(),
        row(
            "wan-bulk",
            "100 Mb/s, 100 ms, 0.1 % loss: bulk, 4 streams",
            "Mb/s",
            1,
            More,
            M::WanBulk,
            F::GigabitsPerSecond,
        )
        .over(1e-3)
        .unguarded(),
    ]
};

/// The row of that id.
pub fn by_id(id: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.id == id)
}

impl Row {
    /// A system's values in the shown unit, round by round; none where there was no data.
    pub fn series(&self, results: &Results, system: SystemKey) -> Vec<Option<f64>> {
        let own = results.series(self.measure, system, self.figure);
        let scaled = |value: f64| value / self.divisor;
        match self.value {
            Value::Plain => own.into_iter().map(|value| value.map(scaled)).collect(),
            Value::AboveDirect if system == SystemKey::Direct => Vec::new(),
            Value::AboveDirect => {
                let direct = results.series(self.measure, SystemKey::Direct, self.figure);
                let pairs = own.into_iter().zip(direct);
                pairs
                    .map(|(own, direct)| Some(scaled(own? - direct?)))
                    .collect()
            }
        }
    }

    /// Median, interval and variation of a system; none without data.
    pub fn summary(&self, results: &Results, system: SystemKey) -> Option<Summary> {
        let values: Vec<f64> = self.series(results, system).into_iter().flatten().collect();
        Summary::of(&values)
    }

    /// Ours to theirs in each round where both have data and theirs is above zero: neighbours in time are compared.
    pub fn ratios(&self, results: &Results, reference: SystemKey) -> Vec<f64> {
        let ours = self.series(results, SystemKey::Corinth);
        let theirs = self.series(results, reference);
        let pairs = ours.into_iter().zip(theirs);
        pairs
            .filter_map(|(ours, theirs)| {
                let theirs = theirs.filter(|value| *value > 0.0)?;
                Some(ours? / theirs)
            })
            .collect()
    }

    /// Median and interval of the ratios.
    pub fn ratio(&self, results: &Results, reference: SystemKey) -> Option<Summary> {
        Summary::of(&self.ratios(results, reference))
    }

    /// A value as text, with commas between thousands.
    pub fn text(&self, value: f64) -> String {
        number(value, self.digits)
    }
}

/// `12345.6` as `12,346`.
pub fn number(value: f64, digits: usize) -> String {
    let plain = format!("{:.digits$}", value.abs());
    let (whole, fraction) = plain
        .split_once('.')
        .map_or((plain.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let is_zero = plain.chars().all(|c| matches!(c, '0' | '.'));
    let sign = if value < 0.0 && !is_zero { "−" } else { "" };
    match fraction {
        Some(fraction) => format!("{sign}{grouped}.{fraction}"),
        None => format!("{sign}{grouped}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(1_234_567.0, 0), "1,234,567");
        assert_eq!(number(999.0, 0), "999");
        assert_eq!(number(-1_234.56, 1), "−1,234.6");
        assert_eq!(number(0.779, 2), "0.78");
        assert_eq!(number(-0.001, 1), "0.0");
    }

    #[test]
    fn ids_are_unique() {
        for row in ROWS {
            assert_eq!(by_id(row.id), Some(row));
        }
    }
}
