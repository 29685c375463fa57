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
    /// What to do: stream, rr, crr, udp, idle, http, mix or probe
    #[arg(short = 'W', long, default_value = "stream")]
    workload: Workload,
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
    /// Bulk streams beside the requests of a mix
    #[arg(long, default_value_t = 1, value_name = "N")]
    elephants: u32,
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
    let workload = if args.udp {
        Workload::Udp
    } else {
        args.workload
    };
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
    if workload == Workload::Mix {
        spec.elephants = args.elephants;
    }
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

    #[test]
    fn the_record_holds_no_token() {
        for line in ["client --token secret host", "client --token=secret host"] {
            let kept = without_secrets(line.split(' ').map(str::to_owned)).join(" ");
            assert!(!kept.contains("secret"), "{kept}");
            assert!(kept.ends_with("host"), "{kept}");
        }
    }
}
