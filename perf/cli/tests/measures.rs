//! `corinth-perf server` and `corinth-perf client` as one runs them: what they print, and with which status they end.

#![allow(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_corinth-perf");

/// A server that ends with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(PROGRAM)
            .args(["server", "-p", "0", "-B", "127.0.0.1"])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        let address: SocketAddr = line
            .trim()
            .strip_prefix("listening on ")
            .unwrap()
            .parse()
            .unwrap();
        // What else it says must not stop it.
        std::thread::spawn(move || for _ in told.lines().map_while(Result::ok) {});
        Self {
            process,
            port: address.port(),
        }
    }

    fn client(&self, arguments: &[&str]) -> Output {
        client(&format!("127.0.0.1:{}", self.port), arguments)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn client(target: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .args(["client", target])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Ended with this status and one line that says why.
fn check_refused(output: &Output, status: i32, says: &str) {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.starts_with("corinth-perf: ") && told.contains(says),
        "{told}"
    );
}

#[test]
fn a_table_reads_as_that_of_iperf3() {
    let server = Server::start(&[]);
    let output = server.client(&["-t", "300ms", "-i", "100ms", "-P", "2"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(table.starts_with("[ ID] Interval "), "{table}");
    assert!(
        table.contains("[SUM] ") && table.contains("bits/sec"),
        "{table}"
    );
    assert!(
        table.contains("received in") && table.contains("CPU s/GB"),
        "{table}"
    );
    assert_eq!(text(&output.stderr), "", "nobody watches");
}

#[test]
fn json_is_the_whole_result() {
    let server = Server::start(&[]);
    let output = server.client(&["-t", "300ms", "-J", "-W", "rr", "--seed", "7"]);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["schema"], "corinth-perf/1");
    assert_eq!(result["partial"], false);
    assert_eq!(result["test"]["workload"], "rr");
    assert_eq!(result["test"]["seed"], 7);
    assert_eq!(result["latency"]["loop"], "closed");
    assert!(result["latency"]["p50_us"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_line_of_jsonl_is_json_and_the_last_is_the_result() {
    let server = Server::start(&[]);
    let output = server.client(&["-t", "300ms", "-i", "100ms", "-o", "jsonl"]);
    let lines: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (last, intervals) = lines.split_last().unwrap();
    assert_eq!(last["result"]["schema"], "corinth-perf/1");
    assert!(!intervals.is_empty() && intervals.iter().all(|line| line["interval"].is_object()));
}

#[test]
fn csv_and_markdown_hold_the_same_figures() {
    let server = Server::start(&[]);
    for (format, figure) in [("csv", ",up,"), ("md", "| up |")] {
        let output = server.client(&["-t", "200ms", "-o", format]);
        assert!(
            text(&output.stdout).contains(figure),
            "{}",
            text(&output.stdout)
        );
    }
}

#[test]
fn a_result_goes_to_a_file() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let output = server.client(&["-t", "200ms", "-J", "--out", path.to_str().unwrap()]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    let result: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(result["partial"], false);
}

#[test]
fn a_full_disk_is_one_line_and_a_status() {
    assert!(Path::new("/dev/full").exists());
    let server = Server::start(&[]);
    for format in ["table", "json", "jsonl", "csv", "md"] {
        let output = server.client(&["-t", "200ms", "-o", format, "--out", "/dev/full"]);
        check_refused(&output, 3, "No space left on device");
        assert!(!output.stdout.is_empty(), "what was measured is not lost");
    }
    let output = server.client(&["-t", "200ms", "-J", "--out", "/dev/full"]);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["partial"], false);
}

#[test]
fn the_result_of_before_stays_where_nothing_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    std::fs::write(&path, "before").unwrap();
    let output = client("127.0.0.1:9", &["-J", "--out", path.to_str().unwrap()]);
    check_refused(&output, 3, "cannot be reached");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_cannot_be_written_is_told_before_anything_is_measured() {
    let output = client("127.0.0.1:9", &["--out", "/no/such/folder/x"]);
    check_refused(&output, 3, "/no/such/folder/x");
}

#[test]
fn nobody_there_is_one_line_and_a_status() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    check_refused(&client(&address.to_string(), &[]), 3, "cannot be reached");
}

#[test]
fn a_test_that_makes_no_sense_is_wrong_usage() {
    check_refused(
        &client("127.0.0.1:9", &["-P", "0"]),
        2,
        "connections must be",
    );
    check_refused(
        &client("https://localhost/", &["-W", "http"]),
        2,
        "only http://",
    );
    check_refused(
        &client("127.0.0.1:9", &["-W", "rr", "-R"]),
        2,
        "a direction is for stream, udp, mix, not for rr",
    );
    let unknown = client("127.0.0.1:9", &["-W", "nonsense"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn a_schedule_that_cannot_be_met_ends_with_a_status_and_keeps_the_result() {
    let server = Server::start(&[]);
    let output = server.client(&[
        "-W",
        "rr",
        "-t",
        "100ms",
        "--rate",
        "10M",
        "--timeout",
        "1s",
        "-J",
    ]);
    check_refused(&output, 3, "of the schedule was met");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["partial"], true);
}

#[test]
fn a_token_is_demanded_and_never_printed() {
    let server = Server::start(&["--token", "secret"]);
    check_refused(&server.client(&["-t", "100ms"]), 3, "token");
    let output = server.client(&["-t", "200ms", "--token", "secret", "-J"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(!text(&output.stdout).contains("secret"));
}

#[test]
fn a_server_for_one_test_ends_after_it() {
    let mut server = Server::start(&["--one-off"]);
    assert_eq!(server.client(&["-t", "200ms"]).status.code(), Some(0));
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
}
