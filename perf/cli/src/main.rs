//! `corinth-perf`: measures what a gateway costs, and gives it a network to run on.
//!
//! For whoever chooses a gateway, and for whoever changes ours. It never measures anything itself: a subcommand reads
//! its arguments, calls the library that does the work (`corinth-load`, `corinth-wan`, `corinth-campaign`), shows the
//! progress on a terminal, and writes what came of it once, in the form that was asked for.
//!
//! Exit status: 0 measured; 2 wrong usage; 3 it could not be measured, or not to the end; 12 something has become
//! slower. Each fault is one line on standard error.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod beside;
mod client;
mod compare;
mod limits;
mod matrix;
mod output;
mod quantity;
mod repository;
mod server;
mod wan;

/// Something was not given as it must be.
const USAGE: u8 = 2;

/// Nobody could measure, or not to the end.
const UNMEASURED: u8 = 3;

/// Measures what a gateway costs.
#[derive(Parser)]
#[command(name = "corinth-perf", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer clients.
    Server(server::Args),
    /// Run one test against a server.
    Client(Box<client::Args>),
    /// Lay a wide-area network between two network namespaces.
    Wan(wan::Args),
    /// Compare gateways on one path.
    Compare(compare::Args),
    /// Measure our tunnels over networks of many kinds.
    Matrix(matrix::Args),
    /// Measure what requests notice of bulk beside them, and whether datagrams arrive.
    Beside(beside::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Server(args) => server::run(args),
        Command::Client(args) => client::run(*args),
        Command::Wan(args) => wan::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Matrix(args) => matrix::run(args),
        Command::Beside(args) => beside::run(args),
    };
    done.unwrap_or_else(|error| {
        output::complain(&format!("{error:#}"));
        ExitCode::from(status(&error))
    })
}

fn status(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<corinth_load::Error>() {
        Some(error) if error.is_usage() => USAGE,
        Some(_) | None => UNMEASURED,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
