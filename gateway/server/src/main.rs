//! The gateway of one cluster.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use corinth_daemon::metrics::Build;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The gateway of one cluster: carries connections between clusters.
#[derive(Parser)]
#[command(name = "corinth-gateway", version)]
struct Args {
    /// The YAML file that configures this gateway.
    #[arg(long, env = "CORINTH_CONFIG")]
    config: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "corinth-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let build = Build {
        binary: "corinth-gateway",
        version: env!("CARGO_PKG_VERSION"),
    };
    runtime.block_on(corinth_gateway::run::run(&args.config, build))?;
    Ok(())
}
