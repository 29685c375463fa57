//! Figures in rows: for spreadsheets and for documents.

use std::{fmt::Write as _, io};

use corinth_load::result::TestResult;

/// One figure.
struct Row {
    name: &'static str,
    value: String,
    unit: &'static str,
}

/// The figures in comma-separated values, with a head.
pub(super) fn write_csv(to: &mut dyn io::Write, result: &TestResult) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(to);
    writer.write_record(["workload", "target", "started", "figure", "value", "unit"])?;
    for row in rows(result) {
        let workload = result.test.workload.name();
        let fields = [
            workload,
            &result.test.target,
            &result.started,
            row.name,
            &row.value,
            row.unit,
        ];
        writer.write_record(fields)?;
    }
    writer.flush()
}

/// The figures as a table in Markdown.
pub(super) fn markdown(result: &TestResult) -> String {
    let mut text = format!(
        "`{}`, {}\n\n| figure | value | unit |\n|---|---:|---|\n",
        result.command.join(" ").replace('`', "'"),
        result.started
    );
    for row in rows(result) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            row.name,
            row.value.replace('|', "\\|"),
            row.unit
        );
    }
    text
}

/// All figures that were measured.
fn rows(result: &TestResult) -> Vec<Row> {
    let mut rows = Rows(Vec::new());
    let ways = [
        ("up", &result.up),
        ("down", &result.down),
        ("throughput", &result.throughput),
    ];
    for (name, throughput) in ways {
        rows.number(
            name,
            throughput.as_ref().and_then(|way| way.bits_per_second),
            "bit/s",
        );
    }
    let total = result.throughput.as_ref();
    rows.count(
        "received",
        total.and_then(|total| total.received_bytes),
        "bytes",
    );
    rows.count("sent", total.and_then(|total| total.sent_bytes), "bytes");
    rows.count(
        "retransmits",
        total.and_then(|total| total.retransmits),
        "segments",
    );
    if let Some(rate) = &result.rate {
        rows.number("rate", Some(rate.per_second), "1/s");
        rows.count("completed", Some(rate.completed), "requests");
        rows.count("failed", Some(rate.failed), "requests");
    }
    if let Some(latency) = &result.latency {
        for (name, figure) in [
            ("min", latency.min_us),
            ("mean", latency.mean_us),
            ("p50", latency.p50_us),
            ("p90", latency.p90_us),
            ("p99", latency.p99_us),
            ("p99.9", latency.p999_us),
            ("max", latency.max_us),
        ] {
            rows.number(name, Some(figure), "us");
        }
        rows.number("schedule met", latency.achieved_percent, "%");
        rows.number("knee", latency.knee_per_second, "1/s");
        rows.text("valid", latency.valid.to_string());
    }
    if let Some(datagrams) = &result.datagrams {
        rows.number("loss", Some(datagrams.lost_percent), "%");
        rows.count("duplicated", Some(datagrams.duplicated), "datagrams");
        rows.count("reordered", Some(datagrams.reordered), "datagrams");
        rows.number("jitter", Some(datagrams.jitter_us), "us");
    }
    if let Some(gap) = &result.gap {
        rows.number("longest gap", Some(gap.longest_ms), "ms");
        rows.count("lost", Some(gap.lost), "requests");
        rows.count("duplicated", gap.duplicated, "requests");
    }
    if let Some(held) = &result.held {
        rows.count("opened", Some(held.opened.into()), "connections");
        rows.count("stayed", Some(held.stayed.into()), "connections");
    }
    if let Some(cost) = &result.cost {
        rows.number("CPU", Some(cost.cpu_seconds), "s");
        rows.number("CPU per GB", cost.cpu_seconds_per_gb, "s");
        rows.number("CPU per request", cost.cpu_us_per_request, "us");
        rows.number("switches per MB", cost.context_switches_per_mb, "");
        rows.number("system calls per MB", cost.syscalls_per_mb, "");
        rows.number("stolen", cost.steal_percent, "%");
    }
    rows.text("partial", result.partial.to_string());
    if let Some(fault) = &result.fault {
        rows.text("fault", fault.clone());
    }
    rows.0
}

struct Rows(Vec<Row>);

impl Rows {
    fn number(&mut self, name: &'static str, figure: Option<f64>, unit: &'static str) {
        if let Some(figure) = figure {
            self.push(name, format!("{figure:.3}"), unit);
        }
    }

    fn count(&mut self, name: &'static str, figure: Option<u64>, unit: &'static str) {
        if let Some(figure) = figure {
            self.push(name, figure.to_string(), unit);
        }
    }

    fn text(&mut self, name: &'static str, value: String) {
        self.push(name, value, "");
    }

    fn push(&mut self, name: &'static str, value: String, unit: &'static str) {
        self.0.push(Row { name, value, unit });
    }
}
