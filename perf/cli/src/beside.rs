//! `corinth-perf beside`: what requests notice of bulk on the same tunnel, and whether datagrams arrive.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args as ClapArgs;
use corinth_campaign::{
    Interrupt,
    beside::{self, Settings},
    programs::Programs,
    report::document::{self, Part},
};

use crate::{
    UNMEASURED,
    limits::{ROUND_TRIP_MAX_MS, ROUNDS_MAX, SECONDS_MAX},
    output,
    repository::{self, json, write},
};

/// Where the table of the documentation is, from the top of the repository.
const DOCUMENT: &str = "docs/performance.md";

/// Arguments of `beside`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Round trip of the network, in milliseconds
    #[arg(long, default_value_t = 10, value_name = "MS", value_parser = clap::value_parser!(u32).range(..=ROUND_TRIP_MAX_MS))]
    rtt: u32,
    /// Rate of the network, each way, in Mb/s
    #[arg(long, default_value_t = 500, value_name = "MBPS", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Rounds that count; below 5 there are no intervals of confidence
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=ROUNDS_MAX))]
    rounds: u32,
    /// Length of one load
    #[arg(long, default_value_t = 5, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=SECONDS_MAX))]
    seconds: u32,
    /// Our gateway [default: of target/dist, else of target/release]
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// Also write everything that was measured, as JSON
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Put the table into docs/performance.md of the repository
    #[arg(long)]
    write_docs: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let repository = repository::top();
    let document = args
        .write_docs
        .then(|| {
            let top = repository.as_deref();
            let top = top.context("--write-docs needs the repository")?;
            anyhow::Ok(top.join(DOCUMENT))
        })
        .transpose()?;
    let settings = Settings {
        command: repository::command(),
        round_trip_ms: args.rtt,
        bits_per_second: args.rate * 1_000_000,
        rounds: args.rounds,
        seconds: args.seconds,
        programs: Programs {
            gateway: repository::gateway(args.gateway.as_deref(), repository.as_deref())?,
            envoy: None,
        },
        load: std::env::current_exe().context("this program has no path")?,
    };
    let interrupt = Interrupt::on_signals().context("cannot take signals")?;
    let results = beside::run(&settings, &interrupt, &output::progress())?;
    let table = results.markdown();
    output::print(&table)?;
    if let Some(path) = &args.save {
        write(path, &json(&results)?)?;
    }
    if let Some(path) = document {
        document::write(&path, Part::Beside, &table)?;
    }
    for missed in results.missed() {
        output::complain(&missed);
    }
    Ok(if results.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(UNMEASURED)
    })
}
