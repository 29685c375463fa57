//! The subcommand `wan`.

use std::process::ExitCode;

/// Its arguments.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("wan cannot be run yet")
}
