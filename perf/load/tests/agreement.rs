//! Agrees with iperf3 on bulk streams and with sockperf on response times, on the same path and in turns.
//!
//! Streams are compared where the path is the limit: two network namespaces and a link of a fixed rate. Over loopback
//! the limit is the program that measures, and the only thing to show is that ours is not the slower one.
//!
//! Needs both programs, root, a `dist` build of `corinth-perf`, and a machine that does nothing else:
//! `cargo build --profile dist -p corinth-perf && cargo test -p corinth-load --test agreement -- --ignored --nocapture
//! --test-threads 1`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "prints what it compares; what cannot be set up fails it"
)]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// Of bulk streams, each of so many seconds.
const ROUNDS: usize = 11;
const SECONDS: &str = "2";

/// Of response times: which processors the two ends of a run get moves its median by a tenth, so there are many short
/// ones.
const SHORT_ROUNDS: usize = 31;
const SHORT_SECONDS: &str = "1";

/// What the link between the namespaces carries.
const LINK_RATE: &str = "4gbit";

/// A server that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The build that is measured with, which lies beside the directory of this test.
fn corinth_perf() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let target = here.ancestors().nth(3).unwrap();
    let program = target.join("dist/corinth-perf");
    assert!(
        program.exists(),
        "build it first: cargo build --profile dist -p corinth-perf"
    );
    program
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
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
fn ratio(
    rounds: usize,
    unit: &str,
    mut ours: impl FnMut() -> f64,
    mut theirs: impl FnMut() -> f64,
) -> f64 {
    let mut ratios = Vec::new();
    let mut all = (Vec::new(), Vec::new());
    for round in 0..=rounds {
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

/// Two namespaces with a link of a fixed rate between them; gone when dropped.
struct Link;

const CLIENT_SIDE: &str = "corinth-agree-c";
const SERVER_SIDE: &str = "corinth-agree-s";
const SERVER_ADDRESS: &str = "10.83.7.2";

impl Link {
    fn lay() -> Self {
        let link = Self;
        link.remove();
        let lines = [
            format!("netns add {CLIENT_SIDE}"),
            format!("netns add {SERVER_SIDE}"),
            format!(
                "link add veth0 netns {CLIENT_SIDE} type veth peer name veth0 netns {SERVER_SIDE}"
            ),
            format!("-n {CLIENT_SIDE} address add 10.83.7.1/24 dev veth0"),
            format!("-n {SERVER_SIDE} address add {SERVER_ADDRESS}/24 dev veth0"),
        ];
        for line in lines {
            output(Command::new("ip").args(line.split(' ')));
        }
        for side in [CLIENT_SIDE, SERVER_SIDE] {
            output(Command::new("ip").args(["-n", side, "link", "set", "veth0", "up"]));
            output(
                Command::new("tc")
                    .args(["-n", side, "qdisc", "add", "dev", "veth0", "root", "tbf"])
                    .args(["rate", LINK_RATE, "burst", "1mb", "latency", "20ms"]),
            );
        }
        link
    }

    fn remove(&self) {
        for side in [CLIENT_SIDE, SERVER_SIDE] {
            // It need not be there.
            let _ = Command::new("ip")
                .args(["netns", "delete", side])
                .stderr(Stdio::null())
                .status();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Where the ends of a stream run.
#[derive(Clone, Copy)]
enum Path {
    Loopback,
    Link,
}

impl Path {
    fn program(self, side: &str, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Loopback => Command::new(program),
            Self::Link => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", side]).arg(program);
                command
            }
        }
    }

    const fn server(self) -> &'static str {
        match self {
            Self::Loopback => "127.0.0.1",
            Self::Link => SERVER_ADDRESS,
        }
    }

    fn serve(self, command: &mut Command, port: &str) -> Running {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = Running(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(10);
        let wanted = format!(":{port} ");
        loop {
            let listening = output(self.program(SERVER_SIDE, "ss").args(["-Hltn"]));
            if String::from_utf8_lossy(&listening).contains(&wanted) {
                return server;
            }
            assert!(Instant::now() < until, "{command:?} does not listen");
        }
    }
}

/// Runs bulk streams with both; the median of the ratios.
fn bulk(path: Path, flags: &[&str]) -> f64 {
    let program = corinth_perf();
    let (our_port, their_port) = (free_port(), free_port());
    let _ours = path.serve(
        path.program(SERVER_SIDE, &program)
            .args(["server", "-p", &our_port]),
        &our_port,
    );
    let _theirs = path.serve(
        path.program(SERVER_SIDE, "iperf3")
            .args(["-s", "-p", &their_port]),
        &their_port,
    );
    let common = ["-t", SECONDS, "-O", "1", "-C", "cubic", "-J"];
    ratio(
        ROUNDS,
        "Gb/s",
        || {
            let mut client = path.program(CLIENT_SIDE, &program);
            client
                .args(["client", path.server(), "-p", &our_port, "-i", "0"])
                .args(common)
                .args(flags);
            json(&mut client)["throughput"]["bits_per_second"]
                .as_f64()
                .unwrap()
                / 1e9
        },
        || {
            let mut client = path.program(CLIENT_SIDE, "iperf3");
            client
                .args(["-c", path.server(), "-p", &their_port])
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
#[ignore = "runs in the suite bench: it needs a quiet machine"]
fn streams_over_a_link_carry_what_they_carry_with_iperf3() {
    let _link = Link::lay();
    for flags in [&[][..], &["-R"], &["-P", "4"]] {
        println!("over a link of {LINK_RATE}, {flags:?}");
        let ratio = bulk(Path::Link, flags);
        assert!((0.97..=1.03).contains(&ratio), "{flags:?}: {ratio}");
    }
}

#[test]
#[ignore = "runs in the suite bench: it needs a quiet machine"]
fn streams_over_loopback_are_no_slower_than_with_iperf3() {
    for flags in [&[][..], &["-R"]] {
        println!("over loopback, {flags:?}");
        let ratio = bulk(Path::Loopback, flags);
        assert!(ratio >= 0.97, "{flags:?}: {ratio}");
    }
}

#[test]
#[ignore = "runs in the suite bench: it needs a quiet machine"]
fn half_of_all_answers_come_as_soon_as_with_sockperf() {
    let program = corinth_perf();
    let (our_port, their_port) = (free_port(), free_port());
    let path = Path::Loopback;
    let _ours = path.serve(
        Command::new(&program).args(["server", "-p", &our_port]),
        &our_port,
    );
    let _theirs = path.serve(
        Command::new("sockperf").args(["server", "--tcp", "-i", "127.0.0.1", "-p", &their_port]),
        &their_port,
    );
    let ratio = ratio(
        SHORT_ROUNDS,
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
            client.args(["-t", SHORT_SECONDS, "-O", "0.3", "-J"]);
            json(&mut client)["latency"]["p50_us"].as_f64().unwrap()
        },
        || {
            let mut client = Command::new("sockperf");
            client.args(["ping-pong", "--tcp", "-i", "127.0.0.1", "-p", &their_port]);
            client.args(["-m", "64", "-t", SHORT_SECONDS, "--full-rtt"]);
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
