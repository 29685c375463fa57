//! `corinth-perf wan` as people and scripts run it.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{self, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

fn wan(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corinth-perf"));
    command.arg("wan").args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    wan(args).output().unwrap()
}

/// Whether namespaces can be made; says so if not. In CI that is a failure.
fn is_root(name: &str) -> bool {
    if geteuid().is_root() {
        return true;
    }
    let why = "network namespaces need root";
    assert!(
        env::var_os("CI").is_none_or(|value| value != "true"),
        "{name} cannot run, and CI=true allows no skips: {why}"
    );
    // Straight to standard error: what tests print is shown only when they fail.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
    false
}

/// Names nobody else has.
fn names(test: &str) -> [String; 2] {
    ["a", "b"].map(|side| format!("wancli{}-{test}-{side}", process::id()))
}

fn is_there(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

#[test]
fn wrong_input_is_one_line_and_exit_status_2() {
    let wrong = [
        &["--delay", "30"][..],
        &["--loss", "120%"],
        &["--at", "5s", "balckout"],
        &["--rate", "1mbit", "--queue", "1bdp"],
        &["--timeline", "/nowhere/at-all.yaml"],
        &["--mtu", "9"],
    ];
    for args in wrong {
        let output = run(&[&["--between", "a", "b"], args].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_command_runs_inside_and_its_exit_status_is_ours() {
    if !is_root("the_command_runs_inside_and_its_exit_status_is_ours") {
        return;
    }
    let [first, second] = names("inside");
    let script = "echo $CORINTH_WAN_FIRST_V4; ip -br address show dev wan0; exit 7";
    let output = run(&[
        "--between",
        &first,
        &second,
        "--engine",
        "tun",
        "--inside",
        "second",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(7));
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("198.18.77.1"));
    assert!(lines.next().unwrap().contains("198.18.77.2/30"), "{said}");
    assert!(said.contains("packets in"), "{said}");
    assert!(!is_there(&first) && !is_there(&second));
}

#[test]
fn counters_can_be_read_by_programs() {
    if !is_root("counters_can_be_read_by_programs") {
        return;
    }
    let [first, second] = names("json");
    let output = run(&[
        "--between",
        &first,
        &second,
        "--duration",
        "50ms",
        "-o",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(0));
    let whole: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(whole["schema"], "corinth-perf-wan/1");
    assert_eq!(whole["forward"]["dropped"]["lost"], 0);
    assert!(whole["seconds"].as_f64().unwrap() >= 0.05);
}

#[test]
fn a_signal_ends_the_command_and_leaves_nothing() {
    if !is_root("a_signal_ends_the_command_and_leaves_nothing") {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let [first, second] = names("signal");
        // It says when it runs, and waits for what never comes.
        let script = "echo $$; exec tail -f /dev/null";
        let mut child = wan(&["--between", &first, &second, "--", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut said).unwrap();
        assert!(is_there(&first) && is_there(&second));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        // What a shell says about a command that was ended by SIGTERM.
        assert_eq!(status.code(), Some(128 + 15));
        assert!(!is_there(&first) && !is_there(&second));
        assert!(!Path::new("/run/corinth-wan").join(&first).exists());
        let command = fs::read(format!("/proc/{}/cmdline", said.trim()));
        assert!(command.unwrap_or_default().is_empty());
    }
}
