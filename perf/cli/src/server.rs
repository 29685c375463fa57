//! `corinth-perf server`: answers clients.

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use corinth_load::{
    server::{Lifetime, Limits, Notice, Server, Settings},
    spec::PORT_DEFAULT,
};
use ipnet::IpNet;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{output, quantity};

/// Arguments of `server`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port for everything, TCP and UDP
    #[arg(short, long, default_value_t = PORT_DEFAULT)]
    port: u16,
    /// Address to listen on
    #[arg(short = 'B', long, default_value = "::", value_name = "ADDRESS")]
    bind: IpAddr,
    /// Stop after one test
    #[arg(short = '1', long)]
    one_off: bool,
    /// What clients must know
    #[arg(long, env = "CORINTH_PERF_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Serve only clients from here; may be repeated
    #[arg(long, value_name = "CIDR")]
    allow: Vec<IpNet>,
    /// Longest test
    #[arg(long, value_parser = quantity::time, default_value = "1h", value_name = "TIME")]
    max_time: Duration,
    /// Most payload of a test
    #[arg(long, value_parser = quantity::bytes, default_value = "100T", value_name = "BYTES")]
    max_bytes: u64,
    /// Most connections of a test
    #[arg(long, default_value_t = Limits::default().connections, value_name = "N")]
    max_connections: u32,
    /// Tests at the same time
    #[arg(long, default_value_t = 1, value_name = "N")]
    max_tests: usize,
    /// Also write down what these processes use
    #[arg(long, value_name = "PID", num_args = 1..)]
    watch: Vec<u32>,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let server = Arc::new(start(&args)?);
    if !args.quiet {
        output::remark(&format!("listening on {}", server.address()));
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let stopping = Arc::clone(&server);
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            stopping.stop();
        }
    });
    server.wait();
    Ok(ExitCode::SUCCESS)
}

fn start(args: &Args) -> anyhow::Result<Server> {
    let quiet = args.quiet;
    let settings = |bind| Settings {
        token: args.token.clone(),
        allow: args.allow.clone(),
        limits: Limits {
            duration: args.max_time,
            bytes: args.max_bytes,
            connections: args.max_connections,
            tests: args.max_tests.max(1),
        },
        lifetime: if args.one_off {
            Lifetime::OneTest
        } else {
            Lifetime::Unlimited
        },
        watch: args.watch.clone(),
        notify: Arc::new(move |notice| {
            if !quiet {
                output::remark(&describe(&notice));
            }
        }),
        ..Settings::new(SocketAddr::new(bind, args.port))
    };
    let started = Server::start(settings(args.bind));
    if started.is_err() && args.bind == IpAddr::from([0_u16; 8]) {
        // A machine without IPv6.
        return Ok(Server::start(settings(IpAddr::from([0; 4])))?);
    }
    Ok(started?)
}

fn describe(notice: &Notice) -> String {
    match notice {
        Notice::Started {
            client,
            workload,
            connections,
        } => format!("{client}: {workload} on {connections} connections"),
        Notice::Ended {
            client,
            fault: None,
        } => format!("{client}: done"),
        Notice::Ended {
            client,
            fault: Some(fault),
        } => format!("{client}: ended early: {fault}"),
        Notice::Refused { client, reason } => format!("{client}: refused: {reason}"),
    }
}
