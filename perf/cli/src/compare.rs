//! The subcommand `compare`.

use std::process::ExitCode;

/// Its arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("compare cannot be run yet")
}
