//! `corinth-perf client`: runs one test and writes down what was measured.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context;
use corinth_load::{
    client::{self, Setup},
    spec::{Copying, Direction, PORT_DEFAULT, Reuse, TestSpec, Verify, Workload},
};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{
    UNMEASURED,
    output::{self, Format, Output},
    quantity::{self, Rate},
};

/// Arguments of `client`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the server is: HOST, HOST:PORT, or an URL for `http`
    host: String,
    /// Port of the server
    #[arg(short, long, default_value_t = PORT_DEFAULT)]
    port: u16,
    /// What to do: stream, rr, crr, udp, idle, http, mix or probe; stream, or with --every a probe, unless given
    #[arg(short = 'W', long)]
    workload: Option<Workload>,
    /// How long to measure
    #[arg(short, long, value_parser = quantity::time, default_value = "10", value_name = "TIME")]
    time: Duration,
    /// Time between interim figures; 0 for none
    #[arg(short, long, value_parser = quantity::time, default_value = "1", value_name = "TIME")]
    interval: Duration,
    /// Do not count this long at the start
    #[arg(short = 'O', long, value_parser = quantity::time, default_value = "0", value_name = "TIME")]
    omit: Duration,
    /// Connections
    #[arg(short = 'P', long, default_value_t = 1, value_name = "N")]
    parallel: u32,
    /// The server sends
    #[arg(short = 'R', long, conflicts_with = "bidir")]
    reverse: bool,
    /// Both send
    #[arg(long)]
    bidir: bool,
    /// Datagrams; the same as --workload udp
    #[arg(short, long)]
    udp: bool,
    /// Limit of each stream, or rate of each flow of datagrams, in bits per second
    #[arg(short, long, value_parser = quantity::bits, value_name = "BITS")]
    bitrate: Option<u64>,
    /// Size of a write, request or datagram
    #[arg(short, long, value_parser = quantity::bytes, value_name = "BYTES")]
    length: Option<u64>,
    /// Size of a response; as long as the request, unless given
    #[arg(long, value_parser = quantity::bytes, value_name = "BYTES")]
    response_length: Option<u64>,
    /// Carry so much instead of measuring for a time
    #[arg(short = 'n', long, value_parser = quantity::bytes, value_name = "BYTES")]
    bytes: Option<u64>,
    /// Send on a schedule, whatever happens: requests per second, or a share of the knee such as 50%
    #[arg(long, value_parser = quantity::rate, value_name = "RATE")]
    rate: Option<Rate>,
    /// The same, as the time between two requests
    #[arg(long, value_parser = quantity::time, value_name = "TIME", conflicts_with = "rate")]
    every: Option<Duration>,
    /// Bulk streams beside the requests of a mix; one, unless given
    #[arg(long, value_name = "N")]
    elephants: Option<u32>,
    /// How long an answer may take
    #[arg(long, value_parser = quantity::time, value_name = "TIME")]
    timeout: Option<Duration>,
    /// Check every byte of the payload
    #[arg(long)]
    verify: bool,
    /// What the payload is made from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Send without copying
    #[arg(short = 'Z', long)]
    zerocopy: bool,
    /// Drop what comes in the kernel
    #[arg(long)]
    skip_rx_copy: bool,
    /// A new connection for each HTTP request
    #[arg(long)]
    no_keep_alive: bool,
    /// Congestion control of both sides
    #[arg(short = 'C', long, value_name = "NAME")]
    congestion: Option<String>,
    /// Size of the socket buffers of both sides
    #[arg(short, long, value_parser = quantity::bytes, value_name = "BYTES")]
    window: Option<u64>,
    /// What the server demands
    #[arg(long, env = "CORINTH_PERF_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How long opening a connection may take
    #[arg(long, value_parser = quantity::time, default_value = "10", value_name = "TIME")]
    connect_timeout: Duration,
    /// Also write down what these processes use
    #[arg(long, value_name = "PID", num_args = 1..)]
    watch: Vec<u32>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// The same as --output json
    #[arg(short = 'J', long, conflicts_with = "output")]
    json: bool,
    /// Write the result here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let spec = specify(&args)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The second one ends it at once.
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&interrupted))?;
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let setup = Setup {
        token: args.token.clone(),
        watch: args.watch.clone(),
        command: without_secrets(std::env::args()),
        connect_timeout: args.connect_timeout,
        interrupted,
    };
    let format = if args.json { Format::Json } else { args.output };
    let mut output =
        Output::open(format, args.out.as_deref()).context("cannot write the result")?;
    let result = client::run(&spec, &setup, &mut output)?;
    output
        .finish(&result)
        .context("the result is not complete: cannot write it")?;
    if let Some(fault) = &result.fault {
        output::complain(&format!("not to the end: {fault}"));
    }
    Ok(if result.partial {
        ExitCode::from(UNMEASURED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The test that these arguments describe.
fn specify(args: &Args) -> Result<TestSpec, corinth_load::Error> {
    let workload = workload(args).map_err(corinth_load::Error::Spec)?;
    let mut spec = TestSpec::new(workload, target(&args.host, args.port));
    spec.duration_ms = if args.bytes.is_some() {
        0
    } else {
        milliseconds(args.time)
    };
    spec.interval_ms = milliseconds(args.interval);
    spec.omit_ms = milliseconds(args.omit);
    spec.connections = args.parallel;
    spec.direction = match (args.reverse, args.bidir) {
        (true, _) => Direction::Down,
        (false, true) => Direction::Both,
        (false, false) => Direction::Up,
    };
    spec.bits_per_second = args
        .bitrate
        .or(spec.bits_per_second)
        .filter(|bits| *bits > 0);
    spec.message_bytes = args.length.unwrap_or(spec.message_bytes);
    spec.response_bytes = args.response_length.unwrap_or(spec.message_bytes);
    spec.total_bytes = args.bytes;
    match (args.rate, args.every) {
        (Some(Rate::PerSecond(rate)), _) => spec.rate_per_second = Some(rate),
        (Some(Rate::PercentOfKnee(percent)), _) => {
            spec.rate_per_second = None;
            spec.knee_percent = Some(percent);
        }
        (None, Some(every)) => spec.rate_per_second = Some(1.0 / every.as_secs_f64()),
        (None, None) => {}
    }
    spec.elephants = args.elephants.unwrap_or(spec.elephants);
    spec.timeout_ms = args.timeout.map_or(spec.timeout_ms, milliseconds);
    spec.verify = if args.verify {
        Verify::EveryByte
    } else {
        Verify::Off
    };
    spec.seed = args.seed;
    spec.copying = match (args.zerocopy, args.skip_rx_copy) {
        (false, false) => Copying::Both,
        (true, false) => Copying::ReceiveOnly,
        (false, true) => Copying::SendOnly,
        (true, true) => Copying::Neither,
    };
    spec.reuse = if args.no_keep_alive {
        Reuse::OncePerRequest
    } else {
        Reuse::Kept
    };
    spec.congestion_control = args.congestion.clone();
    spec.socket_buffer_bytes = args.window;
    match spec.fault() {
        Some(fault) => Err(corinth_load::Error::Spec(fault)),
        None => Ok(spec),
    }
}

/// The workload that these arguments ask for, or imply.
fn workload(args: &Args) -> Result<Workload, String> {
    let workload = match (args.workload, args.udp, args.every) {
        (Some(other), true, _) if other != Workload::Udp => {
            return Err(format!(
                "--udp is the same as --workload udp, which {other} is not"
            ));
        }
        (_, true, _) => Workload::Udp,
        (Some(workload), false, _) => workload,
        (None, false, Some(_)) => Workload::Probe,
        (None, false, None) => Workload::Stream,
    };
    let is_answered = !matches!(workload, Workload::Stream | Workload::Udp);
    let about_answers = [
        ("--response-length", args.response_length.is_some()),
        ("--timeout", args.timeout.is_some()),
    ];
    for (flag, is_given) in about_answers {
        if is_given && !is_answered {
            return Err(format!("{flag} is about answers, and {workload} has none"));
        }
    }
    Ok(workload)
}

/// Host and port in one, unless both or an URL were given.
fn target(host: &str, port: u16) -> String {
    if host.contains("://") || host.parse::<std::net::SocketAddr>().is_ok() {
        return host.to_owned();
    }
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return format!("[{host}]:{port}");
    }
    if host.contains(':') {
        return host.to_owned();
    }
    format!("{host}:{port}")
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The command line for the record.
fn without_secrets(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut is_secret = false;
    for word in words {
        let shown = match word.split_once('=') {
            _ if is_secret => "***".to_owned(),
            Some(("--token", _)) => "--token=***".to_owned(),
            Some(_) | None => word.clone(),
        };
        is_secret = word == "--token";
        kept.push(shown);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_gets_the_port_it_lacks() {
        for (host, expected) in [
            ("host", "host:5301"),
            ("host:1", "host:1"),
            ("::1", "[::1]:5301"),
            ("[::1]:2", "[::1]:2"),
            ("http://host/x", "http://host/x"),
        ] {
            assert_eq!(target(host, 5_301), expected);
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn specified(words: &str) -> Result<TestSpec, String> {
        let words = ["client", "host"].into_iter().chain(words.split(' '));
        let line = <Line as clap::Parser>::try_parse_from(words).unwrap();
        specify(&line.args).map_err(|error| {
            assert!(error.is_usage());
            error.to_string()
        })
    }

    #[test]
    fn a_beat_without_a_workload_is_a_probe() {
        let spec = specified("--every 2ms").unwrap();
        assert_eq!(
            (spec.workload, spec.rate_per_second),
            (Workload::Probe, Some(500.0))
        );
        let spec = specified("-W rr --every 2ms").unwrap();
        assert_eq!(spec.workload, Workload::Rr);
        assert_eq!(specified("-P 2").unwrap().workload, Workload::Stream);
    }

    #[test]
    fn what_does_not_apply_to_the_workload_is_refused_in_one_line() {
        for words in [
            "--rate 100",
            "-u --rate 100",
            "-W idle --every 1ms",
            "-W rr -R",
            "-W http --bidir",
            "-W probe -b 1M",
            "-W crr -Z",
            "-W rr --elephants 2",
            "-W rr --udp",
            "-W stream --timeout 1",
            "--response-length 10",
        ] {
            let told = specified(words).unwrap_err();
            assert!(!told.contains('\n'), "{words}: {told}");
        }
    }

    #[test]
    fn the_record_holds_no_token() {
        for line in ["client --token secret host", "client --token=secret host"] {
            let kept = without_secrets(line.split(' ').map(str::to_owned)).join(" ");
            assert!(!kept.contains("secret"), "{kept}");
            assert!(kept.ends_with("host"), "{kept}");
        }
    }
}
