//! What is said about a network.

use std::io::{self, IsTerminal, Write};

use corinth_wan::{CarriedBy, Counters, Finding, Spec, Wan};
use serde_json::json;

use super::Form;
use crate::output;

const SCHEMA: &str = "corinth-perf-wan/1";

/// Says that the network is there, to whoever watches.
pub(super) fn welcome(wan: &Wan) {
    if !io::stderr().is_terminal() {
        return;
    }
    let [first, second] = wan.sides().each_ref().map(|side| {
        let (name, v4, v6) = (&side.namespace, side.v4.addr(), side.v6.addr());
        format!("{name} ({v4}, {v6})")
    });
    let carrier = carrier(wan.carried_by());
    output::remark(&format!("{first} ── {second}, carried by {carrier}"));
}

fn carrier(carried_by: &CarriedBy) -> String {
    match carried_by {
        CarriedBy::Netem => "netem".to_owned(),
        CarriedBy::Tun => "TUN devices".to_owned(),
        CarriedBy::TunInstead(why) => format!("TUN devices, since netem cannot: {why}"),
    }
}

/// Prints what happened to packets.
pub(super) fn counters(wan: &Wan, spec: &Spec, form: Form) -> io::Result<()> {
    let [forward, back] = wan.counters();
    let text = match form {
        Form::Table => {
            let seconds = wan.age().as_secs_f64();
            let mut text = table(&forward, &back);
            let carrier = carrier(wan.carried_by());
            let seed = spec.seed;
            text.push_str(&format!(
                "{seconds:.1} s, seed {seed}, carried by {carrier}\n"
            ));
            text
        }
        Form::Json => {
            let whole = json!({
                "schema": SCHEMA,
                "seconds": wan.age().as_secs_f64(),
                "seed": spec.seed,
                "carried_by": wan.carried_by(),
                "forward": forward,
                "back": back,
            });
            format!("{whole:#}\n")
        }
    };
    io::stdout().lock().write_all(text.as_bytes())
}

/// Everything that was counted; rows of nothing but zeros only if they are about delivery.
fn table(forward: &Counters, back: &Counters) -> String {
    let rows: [(&str, fn(&Counters) -> u64); 21] = [
        ("packets in", |all| all.arrived_packets),
        ("bytes in", |all| all.arrived_bytes),
        ("packets out", |all| all.delivered_packets),
        ("bytes out", |all| all.delivered_bytes),
        ("lost", |all| all.dropped.lost),
        ("queue full", |all| all.dropped.queue_full),
        ("dropped by CoDel", |all| all.dropped.codel),
        ("UDP policed", |all| all.dropped.udp_policed),
        ("UDP blocked", |all| all.dropped.udp_blocked),
        ("dropped by size", |all| all.dropped.by_size),
        ("larger than MTU", |all| all.dropped.oversize),
        ("told by ICMP", |all| all.too_big_told),
        ("blackout", |all| all.dropped.blackout),
        ("link-local", |all| all.dropped.local),
        ("too much held", |all| all.dropped.overflow),
        ("not taken", |all| all.dropped.refused),
        ("device full", |all| all.device_dropped),
        ("duplicated", |all| all.duplicated),
        ("corrupted", |all| all.corrupted),
        ("reordered", |all| all.reordered),
        ("on their way", |all| all.held_packets),
    ];
    let mut text = format!("{:<18} {:>14} {:>14}\n", "", "forward", "back");
    for (place, (name, of)) in rows.into_iter().enumerate() {
        let (forward, back) = (of(forward), of(back));
        if place < 4 || forward + back > 0 {
            text.push_str(&format!("{name:<18} {forward:>14} {back:>14}\n"));
        }
    }
    for (name, of) in [
        (
            "longest queue (B)",
            (|all| all.queue_max_bytes) as fn(&Counters) -> u64,
        ),
        ("late by > 0.1 ms", |all| all.late_packets),
        ("latest (us)", |all| all.late_max_us),
    ] {
        text.push_str(&format!(
            "{name:<18} {:>14} {:>14}\n",
            of(forward),
            of(back)
        ));
    }
    text
}

/// Prints one finding of the self-test, as soon as it is there.
pub(super) fn finding(finding: &Finding, form: Form) {
    if form == Form::Json {
        return;
    }
    let Finding {
        check,
        expected,
        tolerance,
        measured,
        attempts,
    } = finding;
    let verdict = if finding.agrees() { "ok" } else { "FAILED" };
    let name = check.name();
    let unit = check.unit();
    let line = format!(
        "{name:<18} {measured:>10.1} {unit:<8} expected {expected:>8.1} ± {tolerance:<7.1} attempt {attempts}  {verdict}\n"
    );
    // Nobody may be there to read it; the exit status tells it too.
    let _ = io::stdout().lock().write_all(line.as_bytes());
}

/// Prints all findings, if the form wants them together.
pub(super) fn findings(findings: &[Finding], form: Form) -> io::Result<()> {
    if form != Form::Json {
        return Ok(());
    }
    let whole = json!({ "schema": SCHEMA, "findings": findings });
    writeln!(io::stdout().lock(), "{whole:#}")
}

/// Ends the report of a self-test that found agreement.
pub(super) fn agreement(form: Form) -> io::Result<()> {
    if form != Form::Table {
        return Ok(());
    }
    writeln!(
        io::stdout().lock(),
        "the emulated network is as theory says"
    )
}
