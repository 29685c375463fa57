//! What can be typed after `corinth`.

mod control;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use jiff::SignedDuration;

pub(crate) use self::control::{
    BothArgs, CertArgs, CertCommand, CheckArgs, CheckFormat, ControlArgs, ControlsArgs, ExportArgs,
    FailOn, LinkArgs, LinkCommand, PathArgs, PeerArgs, Risk, RootStep, RoutesCommand, ShowArgs,
    StatusArgs, TokenCommand, UnexportArgs, WaitArgs, WhoArgs,
};
use crate::{output::OutputArgs, terminal::Colour};

/// Connects services across clusters, without a shared network.
#[derive(Parser)]
#[command(
    name = "corinth",
    version,
    disable_help_subcommand = true,
    after_help = "corinth help exit-codes    what the exit codes mean\n\
                  corinth explain CODE       what a code such as CRN002 means and what to do"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// When to use colour.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Colour,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show Corinth at work: clusters in this process, linked, with failures.
    Demo(DemoArgs),
    /// Run a gateway outside Kubernetes, as `corinth-gateway` does.
    Run(RunArgs),
    /// Write the state of a stopped or running node to one secret file.
    Backup(BackupArgs),
    /// Bring the state of a node back from a backup.
    Restore(RestoreArgs),
    /// Print the public roots of a node, to hand to the operators of its peers.
    Bundle(NodeArgs),
    /// Link clusters, and look after their links.
    Link(LinkArgs),
    /// Offer a service to other clusters.
    Export(ExportArgs),
    /// Offer a service no longer.
    Unexport(UnexportArgs),
    /// List what this cluster offers, and to whom.
    Exports(ShowArgs),
    /// List services of peers that are usable here.
    Imports(ShowArgs),
    /// Show clusters, their links, and what an operator should know, on one screen.
    Status(StatusArgs),
    /// Look for whatever could keep services from being reached, and say what to do about it.
    Check(CheckArgs),
    /// Walk the way of a call and say where it is blocked, and by what.
    Path(PathArgs),
    /// Show which gateways have not taken the newest tables.
    Diff(ShowArgs),
    /// List certificates and how long they hold.
    Cert(CertArgs),
    /// Check a configuration, or print its schema or an example.
    Config(ConfigArgs),
    /// List the routes of a running gateway and what it thinks of each candidate.
    Routes(RoutesArgs),
    /// List the links of a running gateway.
    Links(LinksArgs),
    /// Measure what the way through the tunnel costs, next to the direct way to the same service.
    Bench(BenchArgs),
    /// Say what a code means and what to do; without a code, list all of them.
    Explain(ExplainArgs),
    /// Print the version.
    Version(VersionArgs),
    /// Print the completion script for a shell.
    Completion(CompletionArgs),
    /// Print help for a command, or on `exit-codes`.
    Help(HelpArgs),
}

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// How many clusters; the third one, north, has `web` as well.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=3))]
    pub(crate) clusters: u8,
    /// Stay up after the tour, until Ctrl-C.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print JUnit XML on stdout and the tour on stderr.
    #[arg(long, conflicts_with = "keep")]
    pub(crate) ci: bool,
    /// Print the gateways' logs to stderr, at a level such as `info` or `info,corinth_transport=debug`.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// The YAML file that configures this gateway.
    #[arg(long, env = "CORINTH_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Args)]
pub(crate) struct NodeArgs {
    /// The YAML file that configures the node, or its control plane where that is a process of its own.
    #[arg(long, env = "CORINTH_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Where to write the backup. It holds the private key of the cluster's authority.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Replace an earlier backup of that name.
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// The backup.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Take the place of the state that is there, which is moved aside.
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Report every mistake in configurations and in the files they name.
    Validate {
        /// The configurations.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the JSON schema of the configuration, for editors.
    Schema,
    /// Print a commented configuration with everything in it.
    Example,
}

/// Which gateway to ask.
#[derive(Args)]
pub(crate) struct AdminArgs {
    /// The admin address of the gateway, on this machine.
    #[arg(
        long,
        env = "CORINTH_ADMIN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:15000"
    )]
    pub(crate) admin: String,
    /// How long to wait for an answer; with --wait, for all there is to wait for.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RoutesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<RoutesCommand>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct LinksArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Wait until every peer is linked, five minutes unless --timeout says otherwise.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// The service through the tunnel: the import port of `corinth-perf server`, or the URL of an HTTP service.
    #[arg(value_name = "ADDRESS")]
    pub(crate) through: String,
    /// The same service without Corinth; leave it out where there is no direct way.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) direct: Option<String>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) rounds: u8,
    /// How long each load takes.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Duration,
    /// What the server demands.
    #[arg(
        long,
        env = "CORINTH_PERF_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// A code such as CRN002, or its name, such as forbidden.
    pub(crate) code: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct CompletionArgs {
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

#[derive(Args)]
pub(crate) struct HelpArgs {
    /// A command and its subcommands, or `exit-codes`.
    pub(crate) topic: Vec<String>,
}

/// All of the above.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// Whether there should be colour, also in the messages about arguments that cannot be read.
pub(crate) fn colour_wanted(arguments: &[OsString]) -> Colour {
    let mut arguments = arguments.iter().filter_map(|argument| argument.to_str());
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--color") {
            Some("") => arguments.next(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        if let Some(value) = value {
            return <Colour as clap::ValueEnum>::from_str(value, false).unwrap_or_default();
        }
    }
    Colour::Auto
}

/// A time with its unit: `250ms`, `5s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let hint = || "write a number and a unit, such as 250ms, 5s or 2m".to_owned();
    let signed: SignedDuration = text.parse().map_err(|_| hint())?;
    Duration::try_from(signed)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_hold_together() {
        command().debug_assert();
    }

    #[test]
    fn times_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "-1s", "0s", "soon", "1e3s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn colour_is_found_before_the_arguments_are_read() {
        let wanted = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            colour_wanted(&arguments)
        };
        assert_eq!(wanted(&["corinth", "--color", "never"]), Colour::Never);
        assert_eq!(wanted(&["corinth", "x", "--color=always"]), Colour::Always);
        assert_eq!(wanted(&["corinth", "--color", "blue"]), Colour::Auto);
        assert_eq!(wanted(&["corinth", "--colorful"]), Colour::Auto);
    }
}
