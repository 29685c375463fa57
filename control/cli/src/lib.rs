//! The `corinth` command: what a person or a script asks of Corinth.
//!
//! ```text
//! arguments ── args ──> command ──> listing or text ── output ──> stdout
//!                          └── trouble: what failed, why, what to do ──> stderr, exit code
//! ```
//!
//! Each command is a module that composes the other crates: `run` is the gateway itself, `demo` several of
//! them in this process, `routes` and `links` ask a running one over its admin pages; `link`, `export`,
//! `status`, `check`, `path` and the like ask a control plane over its socket; the others read files or what is
//! built in. Results go to stdout, progress and hints to stderr, and the exit code tells "I found
//! something wrong" from "I could not look".
//!
//! What this crate never does: decide anything about connections, ask a question interactively, overwrite a
//! file without being told, or panic because its reader went away.

mod admin;
mod args;
mod bench;
mod cert;
mod check;
mod completion;
mod config;
mod control;
mod declared;
mod demo;
mod diff;
mod exit;
mod explain;
mod export;
mod help;
mod link;
mod links;
mod node;
mod output;
mod path;
mod routes;
mod run;
mod state;
mod status;
mod terminal;
mod trouble;
mod version;

use std::{ffi::OsString, process::ExitCode};

use clap::FromArgMatches;

use crate::{
    args::{Cli, Command},
    exit::Exit,
    terminal::Terminal,
    trouble::Trouble,
};

/// Runs the command that `arguments` (the program's name first) ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let colour = args::colour_wanted(&arguments);
    let command = args::command().color(colour.for_clap());
    let cli = command
        .try_get_matches_from(&arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match cli {
        Ok(cli) => cli,
        Err(error) => return usage(&error).into(),
    };
    let terminal = Terminal::detect(cli.color);
    let exit = run_command(&terminal, cli.command).unwrap_or_else(|trouble| {
        terminal.complain(&trouble);
        trouble.exit
    });
    exit.into()
}

fn run_command(terminal: &Terminal, command: Command) -> Result<Exit, Trouble> {
    match command {
        Command::Demo(args) => demo::demo(terminal, &args),
        Command::Run(args) => run::run(&args),
        Command::Backup(args) => state::backup(terminal, &args),
        Command::Restore(args) => state::restore(terminal, &args),
        Command::Bundle(args) => state::bundle(terminal, &args),
        Command::Link(args) => link::link(terminal, args),
        Command::Export(args) => export::export(terminal, &args),
        Command::Unexport(args) => export::unexport(terminal, &args),
        Command::Exports(args) => export::exports(terminal, &args),
        Command::Imports(args) => export::imports(terminal, &args),
        Command::Status(args) => status::status(terminal, &args),
        Command::Check(args) => check::check(terminal, &args),
        Command::Path(args) => path::path(terminal, &args),
        Command::Diff(args) => diff::diff(terminal, &args),
        Command::Cert(args) => cert::cert(terminal, &args),
        Command::Config(args) => config::config(terminal, &args),
        Command::Routes(args) => routes::routes(terminal, &args),
        Command::Links(args) => links::links(terminal, &args),
        Command::Bench(args) => bench::bench(terminal, &args),
        Command::Explain(args) => explain::explain(terminal, &args),
        Command::Version(args) => version::version(terminal, &args),
        Command::Completion(args) => completion::completion(terminal, &args),
        Command::Help(args) => help::help(terminal, &args),
    }
}

/// Help and version that were asked for are results; anything else is wrong usage.
fn usage(error: &clap::Error) -> Exit {
    // A reader that went away, or nobody to complain to.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    }
}
