//! `corinth-perf matrix`: bulk over wide-area networks of many kinds.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args as ClapArgs, ValueEnum};
use corinth_campaign::{
    Interrupt,
    matrix::{self, Cell, Results, Settings, report},
    programs::Programs,
    report::document::{self, Part},
    system::corinth::Congestion,
};

use crate::{
    UNMEASURED,
    limits::{ROUND_TRIP_MAX_MS, ROUNDS_MAX, SECONDS_MAX},
    output,
    repository::{self, json, write},
};

/// Where the table of the documentation is, from the top of the repository.
const DOCUMENT: &str = "docs/performance.md";
/// And its plot.
const PLOT: &str = "docs/matrix.svg";
/// More is no network.
const LOSS_MAX_PERCENT: f64 = 50.0;

/// What decides how fast a tunnel sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Control {
    /// RFC 9438
    Cubic,
    /// Bottleneck bandwidth and round trip
    Bbr,
}

/// Arguments of `matrix`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Round trips, in milliseconds
    #[arg(long, value_delimiter = ',', default_value = "0,10,60,200", value_name = "MS", value_parser = clap::value_parser!(u32).range(..=ROUND_TRIP_MAX_MS))]
    rtt: Vec<u32>,
    /// Shares of packets that are lost each way, in percent
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,0.1,1",
        value_name = "PERCENT"
    )]
    loss: Vec<f64>,
    /// Rate of every network, each way, in Mb/s
    #[arg(long, default_value_t = 500, value_name = "MBPS", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Congestion control of the tunnels [default: what gateways do that were not told]; the direct path is measured
    /// with both
    #[arg(long, value_enum)]
    congestion: Option<Control>,
    /// Rounds that count; below 5 there are no intervals of confidence
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=ROUNDS_MAX))]
    rounds: u32,
    /// Length of one load
    #[arg(long, default_value_t = 5, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=SECONDS_MAX))]
    seconds: u32,
    /// Our gateway [default: of target/dist, else of target/release]
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// Also write everything that was measured, for --from
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Measure nothing; report what --save has written
    #[arg(long, value_name = "FILE", conflicts_with = "save")]
    from: Option<PathBuf>,
    /// Also write the plot, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Put the table into docs/performance.md of the repository, and the plot beside it
    #[arg(long)]
    write_docs: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let repository = repository::top();
    let document = document(&args, repository.as_deref())?;
    let results = match &args.from {
        Some(path) => {
            repository::read(path, "matrix --save", matrix::SCHEMA, |found: &Results| {
                &found.schema
            })?
        }
        None => measure(&args, repository.as_deref())?,
    };
    let table = report::markdown(&results);
    output::print(&table)?;
    if let Some(path) = &args.save {
        write(path, &json(&results)?)?;
    }
    if let Some(path) = &args.plot {
        write(path, &report::plot(&results)?)?;
    }
    if let Some(top) = document {
        if results.partial {
            bail!("{DOCUMENT} is left as it was: that takes a measurement to its end");
        }
        write(&top.join(PLOT), &report::plot(&results)?)?;
        document::write(&top.join(DOCUMENT), Part::Matrix, &table)?;
    }
    for cell in report::missed(&results) {
        output::complain(&format!("auto is behind the better of the two at {cell}"));
    }
    let is_whole = !results.partial && results.problems.is_empty();
    Ok(if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(UNMEASURED)
    })
}

/// The repository whose documents are written, if that is wanted.
fn document<'a>(args: &Args, repository: Option<&'a Path>) -> anyhow::Result<Option<&'a Path>> {
    if !args.write_docs {
        return Ok(None);
    }
    let top = repository.context("--write-docs needs the repository")?;
    Ok(Some(top))
}

/// Measures; what was measured before an interruption is kept.
fn measure(args: &Args, repository: Option<&Path>) -> anyhow::Result<Results> {
    if let Some(loss) = args
        .loss
        .iter()
        .find(|loss| !(0.0..=LOSS_MAX_PERCENT).contains(*loss))
    {
        bail!("--loss {loss}: from 0 to {LOSS_MAX_PERCENT} of 100 packets");
    }
    let settings = Settings {
        command: repository::command(),
        cells: Cell::all(&args.rtt, &args.loss),
        bits_per_second: args.rate * 1_000_000,
        congestion: args.congestion.map(|control| match control {
            Control::Cubic => Congestion::Cubic,
            Control::Bbr => Congestion::Bbr,
        }),
        rounds: args.rounds,
        seconds: args.seconds,
        programs: Programs {
            gateway: repository::gateway(args.gateway.as_deref(), repository)?,
            envoy: None,
        },
        load: std::env::current_exe().context("this program has no path")?,
    };
    let interrupt = Interrupt::on_signals().context("cannot take signals")?;
    Ok(matrix::run(&settings, &interrupt, &output::progress())?)
}
