//! The table for reading.

use std::fmt::Write;

use corinth_load::result::{Cost, Interval, Latency, Loop, TestResult, Throughput};

/// The names of the columns that these intervals have.
pub(super) fn head(intervals: &[Interval]) -> String {
    let Some(sum) = intervals.last() else {
        return String::new();
    };
    if sum.completed.is_some() && sum.sent_bytes.is_none() && sum.received_bytes.is_none() {
        return "[ ID] Interval              Answered      Rate            Failed\n".to_owned();
    }
    "[ ID] Interval              Transfer      Bitrate         Retr  Cwnd\n".to_owned()
}

/// One line for each connection, and one for all if there are several.
pub(super) fn intervals(intervals: &[Interval]) -> String {
    let Some((sum, each)) = intervals.split_last() else {
        return String::new();
    };
    let mut text = String::new();
    for interval in each {
        let id = interval
            .connection
            .map_or_else(String::new, |number| format!("{number:3}"));
        text.push_str(&line(&id, interval));
    }
    if each.len() > 1 {
        text.push_str(&line("SUM", sum));
    }
    text
}

/// One interval.
pub(super) fn line(id: &str, interval: &Interval) -> String {
    let seconds = (interval.end_ms - interval.start_ms) / 1e3;
    let span = format!(
        "{:6.2}-{:<6.2} sec",
        interval.start_ms / 1e3,
        interval.end_ms / 1e3
    );
    let omitted = if interval.omitted { "  (omitted)" } else { "" };
    let mut text = String::new();
    for (bytes, arrow) in [(interval.sent_bytes, '→'), (interval.received_bytes, '←')] {
        let Some(bytes) = bytes else { continue };
        let rate = if seconds > 0.0 {
            bytes as f64 * 8.0 / seconds
        } else {
            0.0
        };
        let retransmits = match (arrow, interval.retransmits) {
            ('→', Some(count)) => format!("{count:4}"),
            (_, Some(_) | None) => "    ".to_owned(),
        };
        let window = match (arrow, interval.window_bytes) {
            ('→', Some(window)) => format!("  {}", bytes_text(window)),
            (_, Some(_) | None) => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "[{id:>3}] {span} {arrow} {}  {}  {retransmits}{window}{omitted}",
            bytes_text(bytes),
            bits_text(rate)
        );
    }
    if let Some(completed) = interval.completed {
        let rate = if seconds > 0.0 {
            completed as f64 / seconds
        } else {
            0.0
        };
        let failed = interval.failed.unwrap_or(0);
        let _ = writeln!(
            text,
            "[{id:>3}] {span} ? {completed:>11}  {rate:>11.1} /s  {failed:>6}{omitted}"
        );
    }
    text
}

/// What there is to say at the end.
pub(super) fn summary(result: &TestResult) -> String {
    let mut text = "- - - - - - - - - - - - - - - - - - - - - - - - -\n".to_owned();
    for (name, throughput) in [("up", &result.up), ("down", &result.down)] {
        if let Some(throughput) = throughput {
            text.push_str(&throughput_lines(name, throughput));
        }
    }
    if let (Some(_), Some(_), Some(both)) = (&result.up, &result.down, &result.throughput) {
        text.push_str(&throughput_lines("both", both));
    }
    if let Some(rate) = &result.rate {
        let _ = writeln!(
            text,
            "requests    {:.1} /s, {} answered, {} failed",
            rate.per_second, rate.completed, rate.failed
        );
    }
    if let Some(latency) = &result.latency {
        text.push_str(&latency_lines(latency));
    }
    if let Some(datagrams) = &result.datagrams {
        let _ = writeln!(
            text,
            "datagrams   {} sent, {} received, {} lost ({:.3} %), {} duplicated, {} out of order, jitter {:.1} µs",
            datagrams.sent,
            datagrams.received,
            datagrams.lost,
            datagrams.lost_percent,
            datagrams.duplicated,
            datagrams.reordered,
            datagrams.jitter_us
        );
    }
    if let Some(gap) = &result.gap {
        let duplicated = gap
            .duplicated
            .map_or_else(|| "unknown".to_owned(), |count| count.to_string());
        let _ = writeln!(
            text,
            "gap         longest {:.3} ms; {} of {} answered, {} lost, duplicated {duplicated}, {} reconnects",
            gap.longest_ms, gap.answered, gap.sent, gap.lost, gap.reconnects
        );
    }
    if let Some(held) = &result.held {
        let _ = writeln!(
            text,
            "held        {} of {} opened in {:.2} s, {} stayed",
            held.opened, held.connections, held.opening_seconds, held.stayed
        );
    }
    if let Some(verified) = &result.verified {
        let _ = writeln!(
            text,
            "verified    {} checked, wrong on {} connections",
            bytes_text(verified.bytes).trim_start(),
            verified.corrupt_connections
        );
    }
    if let Some(cost) = &result.cost {
        text.push_str(&cost_lines(cost));
    }
    text.push_str(&environment_line(result));
    if let Some(fault) = &result.fault {
        let _ = writeln!(text, "partial     {fault}");
    }
    text
}

fn throughput_lines(name: &str, throughput: &Throughput) -> String {
    let rate = throughput
        .bits_per_second
        .map_or_else(|| "      unknown".to_owned(), bits_text);
    let received = throughput
        .received_bytes
        .map_or_else(|| "unknown".to_owned(), bytes_text);
    let sent = throughput
        .sent_bytes
        .map_or_else(|| "unknown".to_owned(), bytes_text);
    let retransmits = throughput
        .retransmits
        .map_or_else(String::new, |count| format!(", {count} segments again"));
    format!(
        "{name:<11} {} received in {:.2} s ({} sent{retransmits})\n            {}\n",
        received.trim_start(),
        throughput.seconds,
        sent.trim_start(),
        rate.trim_start()
    )
}

fn latency_lines(latency: &Latency) -> String {
    let how = match latency.loop_ {
        Loop::Open => "open loop",
        Loop::Closed => "closed loop",
    };
    let mut text = format!(
        "latency     {how}, {} counted\n            min {:.1}  mean {:.1}  p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1} µs\n",
        latency.count,
        latency.min_us,
        latency.mean_us,
        latency.p50_us,
        latency.p90_us,
        latency.p99_us,
        latency.p999_us,
        latency.max_us
    );
    if let (Some(scheduled), Some(achieved)) =
        (latency.scheduled_per_second, latency.achieved_percent)
    {
        let verdict = if latency.valid {
            ""
        } else {
            ": INVALID, these times mean nothing"
        };
        let _ = writeln!(
            text,
            "            {achieved:.2} % of a schedule of {scheduled:.1} /s met{verdict}"
        );
    }
    if let Some(knee) = latency.knee_per_second {
        let _ = writeln!(text, "            the path holds {knee:.0} /s");
    }
    text
}

fn cost_lines(cost: &Cost) -> String {
    let mut text = format!(
        "cost        {:.2} CPU s of the machine in {:.2} s",
        cost.cpu_seconds, cost.seconds
    );
    let mut more = |figure: Option<f64>, unit: &str| {
        if let Some(figure) = figure {
            let _ = write!(text, ", {figure:.3} {unit}");
        }
    };
    more(cost.cpu_seconds_per_gb, "CPU s/GB");
    more(cost.cpu_us_per_request, "CPU µs/request");
    more(cost.context_switches_per_mb, "switches/MB");
    more(cost.syscalls_per_mb, "system calls/MB");
    more(cost.steal_percent, "% stolen");
    text.push('\n');
    if let Some(why) = &cost.syscalls_uncounted {
        let _ = writeln!(text, "            system calls were not counted: {why}");
    }
    for process in &cost.processes {
        let memory = process
            .rss_bytes
            .map_or_else(|| "gone".to_owned(), bytes_text);
        let _ = writeln!(
            text,
            "            {} ({}): {:.2} CPU s, {} resident",
            process.name,
            process.pid,
            process.cpu_seconds,
            memory.trim_start()
        );
    }
    text
}

fn environment_line(result: &TestResult) -> String {
    let environment = &result.environment;
    let mut parts = vec![
        format!("Linux {}", environment.kernel),
        format!("{} × {}", environment.cpus, environment.cpu),
    ];
    let mut more = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            parts.push(format!("{name} {value}"));
        }
    };
    more("congestion control", environment.congestion_control.clone());
    more("MTU", environment.mtu.map(|bytes| bytes.to_string()));
    more(
        "send buffer",
        environment.send_buffer_bytes.map(|bytes| bytes.to_string()),
    );
    more(
        "receive buffer",
        environment
            .receive_buffer_bytes
            .map(|bytes| bytes.to_string()),
    );
    more("git", environment.git.clone());
    format!("where       {}\n", parts.join(", "))
}

/// As iperf3 writes bytes.
fn bytes_text(bytes: u64) -> String {
    let (number, unit) = in_steps(
        bytes as f64,
        1_024.0,
        &["Bytes", "KBytes", "MBytes", "GBytes", "TBytes"],
    );
    format!("{} {unit}", three_digits(number))
}

/// As iperf3 writes rates.
fn bits_text(bits: f64) -> String {
    let units = [
        "bits/sec",
        "Kbits/sec",
        "Mbits/sec",
        "Gbits/sec",
        "Tbits/sec",
    ];
    let (number, unit) = in_steps(bits, 1_000.0, &units);
    format!("{} {unit}", three_digits(number))
}

fn in_steps<'a>(mut number: f64, step: f64, units: &[&'a str]) -> (f64, &'a str) {
    let mut chosen = 0;
    while number >= step && chosen + 1 < units.len() {
        number /= step;
        chosen += 1;
    }
    (number, units.get(chosen).copied().unwrap_or_default())
}

fn three_digits(number: f64) -> String {
    let decimals = match number {
        number if number < 9.995 => 2,
        number if number < 99.95 => 1,
        _ => 0,
    };
    format!("{number:>5.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_in_iperf3() {
        assert_eq!(bytes_text(1_288_490_188), " 1.20 GBytes");
        assert_eq!(bytes_text(131_072), "  128 KBytes");
        assert_eq!(bits_text(10_310_000_000.0), " 10.3 Gbits/sec");
        assert_eq!(bits_text(0.0), " 0.00 bits/sec");
    }

    #[test]
    fn an_interval_of_one_connection_is_one_line() {
        let interval = |connection| Interval {
            end_ms: 1_000.0,
            connection,
            sent_bytes: Some(1 << 30),
            retransmits: Some(2),
            ..Interval::default()
        };
        let expected = "[  0]   0.00-1.00   sec →  1.00 GBytes   8.59 Gbits/sec     2\n";
        assert_eq!(intervals(&[interval(Some(0)), interval(None)]), expected);
    }
}
