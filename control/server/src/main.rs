//! The control plane as a process.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use corinth_daemon::metrics::Build;

/// Tells this cluster's gateways what linked clusters offer, and linked clusters what this one offers.
#[derive(Parser)]
#[command(name = "corinth-control", version)]
struct Args {
    /// The YAML file that configures this control plane.
    #[arg(long, env = "CORINTH_CONTROL_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "corinth-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    const BUILD: Build = Build {
        binary: "corinth-control",
        version: env!("CARGO_PKG_VERSION"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the process could not start")?;
    let ran = runtime.block_on(corinth_control::run::run(&args.config, BUILD));
    ran.context("the control plane did not run")
}
