//! What can be typed to commands that ask a control plane.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use corinth_model::{ClusterName, PortNumber, Selector, ServiceId, TransportChoice};

use super::duration;
use crate::output::OutputArgs;

/// Which control plane to ask.
#[derive(Args)]
pub(crate) struct ControlArgs {
    /// The socket of the control plane [env: CORINTH_CONTROL].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub(crate) control: Option<PathBuf>,
    /// The YAML file that configures the node or its control plane, which says where the socket is
    /// [env: CORINTH_CONFIG].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How long to wait for an answer; with --wait, for all there is to wait for.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// Which control planes to ask.
#[derive(Args)]
pub(crate) struct ControlsArgs {
    /// The socket of a control plane; can be repeated [env: CORINTH_CONTROL].
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Vec<PathBuf>,
    /// The YAML file that configures a node or its control plane; can be repeated [env: CORINTH_CONFIG].
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,
    /// How long to wait for each answer.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

/// A command that only shows what one control plane says.
#[derive(Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
pub(crate) struct LinkArgs {
    #[command(subcommand)]
    pub(crate) command: Option<LinkCommand>,
    #[command(flatten)]
    pub(crate) both: BothArgs,
}

/// Linking two clusters that one person holds.
#[derive(Args)]
pub(crate) struct BothArgs {
    /// Configurations or sockets of the two nodes to link.
    #[arg(num_args = 2, value_names = ["ONE", "OTHER"], required = true)]
    pub(crate) nodes: Vec<PathBuf>,
    /// Only the second one dials.
    #[arg(long)]
    pub(crate) one_way: bool,
    /// Print the plan and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// How long to wait for an answer; with --wait, for all there is to wait for.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Args)]
pub(crate) struct WaitArgs {
    /// Wait until the tunnel is up and the control planes have told each other their services.
    #[arg(
        long,
        value_enum,
        value_name = "STATE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "linked"
    )]
    pub(crate) wait: Option<Until>,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// The tunnel is up and the peer's control plane has told its services.
    Linked,
}

#[derive(Subcommand)]
pub(crate) enum LinkCommand {
    /// Make the line that lets another cluster link itself.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Link this cluster with the one that made a token.
    Join {
        /// The token, or `-` to read it from standard input, where no list of processes shows it.
        token: String,
        /// Only this cluster dials.
        #[arg(long)]
        one_way: bool,
        #[command(flatten)]
        wait: WaitArgs,
        #[command(flatten)]
        control: ControlArgs,
    },
    /// Print what the other side has to declare to be linked with this cluster.
    Show {
        #[command(flatten)]
        control: ControlArgs,
    },
    /// Declare a link from what `corinth link show` printed on the other side.
    Add {
        /// The file, or `-` for standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        control: ControlArgs,
    },
    /// List the peers.
    List(ShowArgs),
    /// Show how the links stand, and what is wrong with them.
    Status {
        /// Only this peer.
        peer: Option<ClusterName>,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Use a link for nothing until it is resumed.
    Pause(PeerArgs),
    /// Use a link again.
    Resume(PeerArgs),
    /// Move new connections to other clusters; open ones go on.
    Drain(PeerArgs),
    /// Say what carries the streams that are opened to a peer, and how fast is sent.
    Transport {
        /// The peer.
        peer: ClusterName,
        /// `tls`, `quic`, for which UDP has to pass, or `auto`, which links both ways and takes the better one.
        #[arg(required_unless_present = "congestion")]
        transport: Option<TransportChoice>,
        /// `cubic`, `bbr` or `default`: what the system does for TCP, `bbr` for QUIC.
        #[arg(long, value_name = "WORD", value_parser = ["cubic", "bbr", "default"])]
        congestion: Option<String>,
        #[command(flatten)]
        control: ControlArgs,
    },
    /// Remove what the peer's new state left out, at once.
    Confirm(PeerArgs),
    /// End a link.
    Delete {
        #[command(flatten)]
        peer: PeerArgs,
        /// That this may happen.
        #[arg(long, value_enum, value_name = "RISK")]
        accept_risk: Option<Risk>,
    },
    /// Say which services of a peer may be used here, in place of what was accepted.
    Accept {
        /// The peer.
        peer: ClusterName,
        /// `*`, `NAMESPACE/*` or `SERVICE.NAMESPACE`.
        #[arg(required_unless_present = "none", value_name = "SERVICES")]
        services: Vec<Selector>,
        /// None at all.
        #[arg(long, conflicts_with = "services")]
        none: bool,
        #[command(flatten)]
        control: ControlArgs,
    },
    /// Believe somebody no longer, whatever the certificate says.
    Deny(WhoArgs),
    /// Believe somebody again.
    Believe(WhoArgs),
}

/// What may happen, and has to be named before it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Risk {
    /// Open connections are cut.
    DropLiveConnections,
}

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a new token.
    Create {
        /// How long it can be used.
        #[arg(long, default_value = "15m", value_name = "TIME", value_parser = duration)]
        ttl: Duration,
        /// How many clusters can link themselves with it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        uses: u32,
        #[command(flatten)]
        control: ControlArgs,
    },
}

#[derive(Args)]
pub(crate) struct PeerArgs {
    /// The peer.
    pub(crate) peer: ClusterName,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

#[derive(Args)]
pub(crate) struct WhoArgs {
    /// A SPIFFE ID, or a whole trust domain.
    pub(crate) who: String,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The service, `SERVICE.NAMESPACE`.
    pub(crate) service: ServiceId,
    /// To these clusters, or `*` for all that are linked now and later.
    #[arg(long, num_args = 1.., value_delimiter = ',', default_value = "*", value_name = "PEER")]
    pub(crate) to: Vec<String>,
    /// Its port, for a service that is not declared yet.
    #[arg(long, requires = "endpoint")]
    pub(crate) port: Option<PortNumber>,
    /// Where it is delivered, `IP:PORT`.
    #[arg(long, num_args = 1.., value_delimiter = ',', requires = "port", value_name = "ADDRESS")]
    pub(crate) endpoint: Vec<SocketAddr>,
    /// The application speaks TLS on this port.
    #[arg(long, requires = "port")]
    pub(crate) tls: bool,
    /// The port takes datagrams, not connections.
    #[arg(long, requires = "port", conflicts_with = "tls")]
    pub(crate) udp: bool,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

#[derive(Args)]
pub(crate) struct UnexportArgs {
    /// The service, `SERVICE.NAMESPACE`.
    pub(crate) service: ServiceId,
    /// Only from these clusters.
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "PEER")]
    pub(crate) from: Vec<ClusterName>,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// Go on until interrupted: look every second, and print again what has changed.
    #[arg(long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) controls: ControlsArgs,
    /// The admin address of a gateway, which is asked if its control plane does not answer; can be repeated. Without it,
    /// `listen.admin` of --config, or 127.0.0.1:15000.
    #[arg(long, env = "CORINTH_ADMIN", value_name = "ADDRESS")]
    pub(crate) admin: Vec<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Subcommand)]
pub(crate) enum RoutesCommand {
    /// Show a route as the control plane made it.
    Get {
        /// A service, such as payments.shop, or the whole name of a route.
        name: String,
        /// Also what each candidate follows from.
        #[arg(long)]
        why: bool,
        #[command(flatten)]
        show: ShowArgs,
    },
}

#[derive(Args)]
pub(crate) struct PathArgs {
    /// Where the call begins: a cluster, or something in it, such as east/shop/web.
    #[arg(value_name = "FROM")]
    pub(crate) source: String,
    /// What is called: SERVICE.NAMESPACE, with :PORT behind it or not, the name of a route, or an import port.
    #[arg(value_name = "TO")]
    pub(crate) destination: String,
    #[command(flatten)]
    pub(crate) controls: ControlsArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    pub(crate) command: CertCommand,
}

#[derive(Subcommand)]
pub(crate) enum CertCommand {
    /// List the certificates a control plane knows of.
    List(ShowArgs),
    /// Change the root of this cluster, step by step: begin, switch, finish.
    RotateRoot {
        /// Which step.
        #[arg(value_enum)]
        step: RootStep,
        /// With switch: also if peers do not hold the new root; they refuse this cluster until they do.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        control: ControlArgs,
    },
}

/// A step of a change of root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RootStep {
    /// Say how far it has come, and what is waited for.
    Status,
    /// Make a new root and tell it to all peers; the old one goes on issuing.
    Begin,
    /// Let the new root issue; refused while a peer does not hold it.
    Switch,
    /// Remove the old root; refused while anything uses it.
    Finish,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Only these codes.
    #[arg(long, value_delimiter = ',', value_name = "CODE")]
    pub(crate) only: Vec<String>,
    /// All but these codes.
    #[arg(long, value_delimiter = ',', value_name = "CODE")]
    pub(crate) skip: Vec<String>,
    /// What makes the exit code tell of findings.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub(crate) fail_on: FailOn,
    /// How the result is written.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: CheckFormat,
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// What makes the exit code tell of findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    #[default]
    Error,
    Warning,
}

/// How the result of checks is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// For people.
    #[default]
    Table,
    /// One envelope with all checks.
    Json,
    /// One check a line.
    Jsonl,
    /// The envelope of `json`, as YAML.
    Yaml,
    /// JUnit XML, for build servers.
    Junit,
}
