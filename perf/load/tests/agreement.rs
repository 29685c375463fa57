//! Agrees with iperf3 on bulk streams and with sockperf on response times, on the same path and in turns.
//!
//! Needs both installed, a release build of `corinth-perf`, and a machine that does nothing else:
//! `cargo build --release -p corinth-perf && cargo test -p corinth-load --test agreement -- --ignored --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "prints what it compares; what cannot be set up fails it"
)]

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

const ROUNDS: usize = 9;

const SECONDS: &str = "3";

/// A server that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The release build, which lies beside the directory of this test.
fn corinth_perf() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let target = here.ancestors().nth(3).unwrap();
    let program = target.join("release/corinth-perf");
    assert!(
        program.exists(),
        "build it first: cargo build --release -p corinth-perf"
    );
    program
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Starts a server and waits until it listens.
fn serve(command: &mut Command, port: &str) -> Running {
    let server = Running(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(Instant::now() < until, "{command:?} does not listen");
        std::thread::yield_now();
    }
    server
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&output(command)).unwrap()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Runs both in turns, the first in turn, and prints every pair. The median of the ratios.
fn ratio(unit: &str, mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) -> f64 {
    let mut ratios = Vec::new();
    let mut all = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (our, their) = if round % 2 == 0 {
            let our = ours();
            (our, theirs())
        } else {
            let their = theirs();
            (ours(), their)
        };
        // The first warms up.
        if round > 0 {
            println!(
                "round {round}: ours {our:.2} {unit}, theirs {their:.2} {unit}, ratio {:.3}",
                our / their
            );
            ratios.push(our / their);
            all.0.push(our);
            all.1.push(their);
        }
    }
    let ratio = median(ratios);
    println!(
        "median: ours {:.2} {unit}, theirs {:.2} {unit}, ratio {ratio:.3}",
        median(all.0),
        median(all.1)
    );
    ratio
}

fn bulk(flags: &[&str]) -> f64 {
    let program = corinth_perf();
    let (our_port, their_port) = (free_port(), free_port());
    let _ours = serve(
        Command::new(&program).args(["server", "-p", &our_port]),
        &our_port,
    );
    let _theirs = serve(
        Command::new("iperf3").args(["-s", "-p", &their_port]),
        &their_port,
    );
    let common = ["-t", SECONDS, "-O", "1", "-C", "cubic", "-J"];
    ratio(
        "Gb/s",
        || {
            let mut client = Command::new(&program);
            client
                .args(["client", "127.0.0.1", "-p", &our_port, "-i", "0"])
                .args(common)
                .args(flags);
            json(&mut client)["throughput"]["bits_per_second"]
                .as_f64()
                .unwrap()
                / 1e9
        },
        || {
            let mut client = Command::new("iperf3");
            client
                .args(["-c", "127.0.0.1", "-p", &their_port])
                .args(common)
                .args(flags);
            json(&mut client)["end"]["sum_received"]["bits_per_second"]
                .as_f64()
                .unwrap()
                / 1e9
        },
    )
}

#[test]
#[ignore = "needs a quiet machine"]
fn a_stream_up_is_as_fast_as_with_iperf3() {
    let ratio = bulk(&[]);
    assert!((0.97..=1.03).contains(&ratio), "{ratio}");
}

#[test]
#[ignore = "needs a quiet machine"]
fn a_stream_down_is_as_fast_as_with_iperf3() {
    let ratio = bulk(&["-R"]);
    assert!((0.97..=1.03).contains(&ratio), "{ratio}");
}

#[test]
#[ignore = "needs a quiet machine"]
fn half_of_all_answers_come_as_soon_as_with_sockperf() {
    let program = corinth_perf();
    let (our_port, their_port) = (free_port(), free_port());
    let _ours = serve(
        Command::new(&program).args(["server", "-p", &our_port]),
        &our_port,
    );
    let _theirs = serve(
        Command::new("sockperf").args(["server", "--tcp", "-i", "127.0.0.1", "-p", &their_port]),
        &their_port,
    );
    let ratio = ratio(
        "µs",
        || {
            let mut client = Command::new(&program);
            client.args([
                "client",
                "127.0.0.1",
                "-p",
                &our_port,
                "-W",
                "rr",
                "-l",
                "64",
                "-i",
                "0",
            ]);
            client.args(["-t", SECONDS, "-O", "0.5", "-J"]);
            json(&mut client)["latency"]["p50_us"].as_f64().unwrap()
        },
        || {
            let mut client = Command::new("sockperf");
            client.args(["ping-pong", "--tcp", "-i", "127.0.0.1", "-p", &their_port]);
            client.args(["-m", "64", "-t", SECONDS, "--full-rtt"]);
            let told = output(&mut client);
            let lines = BufReader::new(told.as_slice())
                .lines()
                .map_while(Result::ok);
            let mut halves = lines.filter(|line| line.contains("percentile 50.000"));
            let half = halves.next().expect("sockperf tells the median");
            half.rsplit('=').next().unwrap().trim().parse().unwrap()
        },
    );
    assert!((0.95..=1.05).contains(&ratio), "{ratio}");
}
