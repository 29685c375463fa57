//! `corinth-perf wan`: a wide-area network between two network namespaces.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::ValueEnum;
use corinth_wan::{
    Change, Direction, Engine, Finding, Impairment, NoChange, NoTimeline, Spec, Step, Wan,
    from_yaml, self_test,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{USAGE, output, quantity};

mod report;
mod run;

/// Arguments of `wan`.
///
/// Everything said about packets holds in both directions, unless --forward or --back says otherwise. Shares are
/// written 0.1%, times 30ms, rates 100mbit, sizes 64k.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The namespaces; one that is not there is made, and removed in the end
    #[arg(long, num_args = 2, value_names = ["FIRST", "SECOND"], required_unless_present = "self_test")]
    between: Vec<String>,
    /// Compare a network made here with theory, and do nothing else
    #[arg(long, conflicts_with = "between")]
    self_test: bool,

    #[command(flatten)]
    packets: Box<Packets>,

    /// Otherwise from FIRST to SECOND, in the words of a change: "delay 5ms loss 1%"
    #[arg(long, value_name = "CHANGE")]
    forward: Option<String>,
    /// Otherwise from SECOND to FIRST
    #[arg(long, value_name = "CHANGE")]
    back: Option<String>,
    /// What changes by itself: --at 5s blackout --at 8s clear --at 9s "forward delay 50ms"
    #[arg(long, num_args = 2, value_names = ["TIME", "CHANGE"])]
    at: Vec<String>,
    /// The same from a file in YAML: a list of `at`, `change` and, if you like, `direction`
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,

    #[command(flatten)]
    network: Box<Network>,

    /// Run the command in a namespace of these, instead of where we are
    #[arg(long, value_name = "SIDE", requires = "command")]
    inside: Option<Inside>,
    /// End it, and the command, after so long
    #[arg(long, value_name = "TIME", value_parser = quantity::time)]
    duration: Option<Duration>,
    /// Form of what is counted
    #[arg(short, long, default_value = "table", value_name = "FORM")]
    output: Form,
    /// Runs while the network is there; its exit status is ours. It finds the names and addresses of both sides in its
    /// environment: CORINTH_WAN_FIRST, CORINTH_WAN_FIRST_V4, CORINTH_WAN_FIRST_V6, and the same with SECOND
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What happens to packets. The values are read by the library, in the words of a change.
#[derive(clap::Args)]
struct Packets {
    /// How long each takes
    #[arg(long, value_name = "TIME")]
    delay: Option<String>,
    /// How much that varies, up and down
    #[arg(long, value_name = "TIME")]
    jitter: Option<String>,
    /// Whether packets pass each other by jitter: kept, free
    #[arg(long, value_name = "ORDER")]
    jitter_order: Option<String>,
    /// Lost: SHARE, or in bursts ge:TO_BAD,TO_GOOD[,BAD_LOSS[,GOOD_LOSS]] (Gilbert-Elliott)
    #[arg(long)]
    loss: Option<String>,
    /// Late, behind others: SHARE[,TIME]
    #[arg(long)]
    reorder: Option<String>,
    /// Arriving twice
    #[arg(long, value_name = "SHARE")]
    duplicate: Option<String>,
    /// With one bit flipped
    #[arg(long, value_name = "SHARE")]
    corrupt: Option<String>,
    /// The bottleneck
    #[arg(long)]
    rate: Option<String>,
    /// What may wait for it: bytes, or 1bdp for RATE times both delays
    #[arg(long, value_name = "SIZE", requires = "rate")]
    queue: Option<String>,
    /// How the queue is kept short: drop-tail, codel[,TARGET,INTERVAL]
    #[arg(long, requires = "rate")]
    aqm: Option<String>,
    /// The largest packet that passes between the devices
    #[arg(long, value_name = "BYTES")]
    path_mtu: Option<String>,
    /// What becomes of larger ones: told (by ICMP), vanishes
    #[arg(long, value_name = "WHAT", requires = "path_mtu")]
    oversize: Option<String>,
    /// UDP: pass, blocked, or the rate to which it is policed
    #[arg(long)]
    udp: Option<String>,
    /// IP packets of these sizes vanish: 1201-1500
    #[arg(long, value_name = "SIZES")]
    drop_size: Option<String>,
}

/// How the sides are connected.
#[derive(clap::Args)]
struct Network {
    /// MTU of the devices
    #[arg(long, default_value_t = 1_500, value_name = "BYTES")]
    mtu: u32,
    /// Name of the device on both sides
    #[arg(long, default_value = "wan0", value_name = "NAME")]
    device: String,
    /// IPv4 addresses of both sides [default: 198.18.77.1/30 198.18.77.2/30]
    #[arg(long, num_args = 2, value_names = ["FIRST", "SECOND"])]
    v4: Vec<Ipv4Net>,
    /// IPv6 addresses of both sides [default: 2001:2:0:77::1/64 2001:2:0:77::2/64]
    #[arg(long, num_args = 2, value_names = ["FIRST", "SECOND"])]
    v6: Vec<Ipv6Net>,
    /// What FIRST reaches through the network; may be repeated. A namespace made here reaches everything through it
    #[arg(long, value_name = "CIDR")]
    route_first: Vec<IpNet>,
    /// What SECOND reaches through it
    #[arg(long, value_name = "CIDR")]
    route_second: Vec<IpNet>,
    /// What is left to chance follows from it
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Who carries packets
    #[arg(long, default_value = "auto")]
    engine: EngineName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    /// netem, where the kernel has it and it can do what is asked for; else tun
    Auto,
    /// This process, between two TUN devices
    Tun,
    /// The kernel
    Netem,
}

/// A side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Inside {
    First,
    Second,
}

/// The form of what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For reading
    Table,
    /// All of it
    Json,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.self_test {
        return test(args.output);
    }
    let spec = match spec(&args) {
        Ok(spec) => spec,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            return Ok(ExitCode::from(USAGE));
        }
    };
    // Before there is anything that a signal could leave behind.
    let ends = run::Ends::watch()?;
    let wan = Wan::start(&spec)?;
    report::welcome(&wan);
    let ended = run::until_the_end(&wan, &args, &ends)?;
    report::counters(&wan, &spec, args.output)?;
    Ok(ended)
}

fn test(form: Form) -> anyhow::Result<ExitCode> {
    // Of half a self-test there is nothing to tell: it is left where it is.
    run::Ends::watch()?.exit_at_once();
    let mut findings = Vec::new();
    let note = |finding: &Finding| {
        report::finding(finding, form);
        findings.push(*finding);
    };
    let tested = self_test(note, &|| false);
    report::findings(&findings, form)?;
    tested?;
    report::agreement(form)?;
    Ok(ExitCode::SUCCESS)
}

fn spec(args: &Args) -> anyhow::Result<Spec> {
    let [first, second] = args.between.as_slice() else {
        anyhow::bail!("--between takes two namespaces");
    };
    let mut spec = Spec::between(first, second);
    let both = args.packets.impairment()?;
    for (direction, change) in [
        (Direction::Forward, &args.forward),
        (Direction::Back, &args.back),
    ] {
        let impairment = match change {
            Some(change) => changed(&both, change).context("--forward or --back")?,
            None => both.clone(),
        };
        spec = spec.with(direction, impairment);
    }
    spec.timeline = timeline(args)?;
    args.network.apply(&mut spec);
    spec.check()?;
    Ok(spec)
}

fn changed(from: &Impairment, change: &str) -> Result<Impairment, NoChange> {
    let change: Change = change.parse()?;
    change.tried(from, from)
}

fn timeline(args: &Args) -> anyhow::Result<Vec<Step>> {
    let pairs = args.at.chunks(2).zip(1..);
    let steps = pairs.map(|(pair, number)| match pair {
        [at, change] => Step::parse(at, change, number),
        _ => Step::parse("", "", number),
    });
    let mut steps = steps.collect::<Result<Vec<_>, NoTimeline>>()?;
    if let Some(path) = &args.timeline {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the timeline {}", path.display()))?;
        steps.extend(from_yaml(&text).with_context(|| path.display().to_string())?);
    }
    Ok(steps)
}

impl Packets {
    fn impairment(&self) -> Result<Impairment, NoChange> {
        let words = [
            ("delay", &self.delay),
            ("jitter", &self.jitter),
            ("jitter-order", &self.jitter_order),
            ("loss", &self.loss),
            ("reorder", &self.reorder),
            ("duplicate", &self.duplicate),
            ("corrupt", &self.corrupt),
            ("rate", &self.rate),
            ("queue", &self.queue),
            ("aqm", &self.aqm),
            ("mtu", &self.path_mtu),
            ("oversize", &self.oversize),
            ("udp", &self.udp),
            ("drop-size", &self.drop_size),
        ];
        let said = words
            .iter()
            .filter_map(|(word, value)| Some(format!("{word} {}", value.as_ref()?)));
        let change = said.collect::<Vec<_>>().join(" ");
        if change.is_empty() {
            return Ok(Impairment::default());
        }
        changed(&Impairment::default(), &change)
    }
}

impl Network {
    fn apply(&self, spec: &mut Spec) {
        spec.mtu_bytes = self.mtu;
        spec.seed = self.seed;
        spec.engine = match self.engine {
            EngineName::Auto => Engine::Auto,
            EngineName::Tun => Engine::Tun,
            EngineName::Netem => Engine::Netem,
        };
        for (side, v4) in spec.sides.iter_mut().zip(&self.v4) {
            side.v4 = *v4;
        }
        for (side, v6) in spec.sides.iter_mut().zip(&self.v6) {
            side.v6 = *v6;
        }
        for side in &mut spec.sides {
            side.device.clone_from(&self.device);
        }
        spec.sides[0].routes.clone_from(&self.route_first);
        spec.sides[1].routes.clone_from(&self.route_second);
    }
}

#[cfg(test)]
mod tests;
