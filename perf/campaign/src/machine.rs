//! What the machine is, and where its CPU time goes.
//!
//! The time of the whole machine is counted, not that of single processes: on one machine the kernel charges the
//! receiver's TCP work to whoever sends. What processes outside of a campaign used meanwhile is taken off.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use corinth_load::{
    cost::{Machine, ticks_per_second},
    environment::revision_of,
    result::Environment,
};
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use crate::{Fault, Interrupt, Lab, Side, process};

/// Others may use this share of the machine during a load, and it still counts as quiet.
pub const OUTSIDE_SHARE_MAX: f64 = 0.10;

/// The name of the first fact.
pub(crate) const KERNEL: &str = "kernel";

/// All kernel threads are its children.
const KTHREADD: i32 = 2;

/// CPU time of the machine at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    at: Instant,
    busy_seconds: f64,
    stolen_seconds: f64,
    outside_seconds: f64,
}

/// What went by between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Of all CPUs together, without what processes outside of the campaign used.
    pub cpu_seconds: f64,
    /// Share of the machine that processes outside of the campaign used.
    pub outside_share: f64,
    /// Share of the machine that the hypervisor took.
    pub stolen_share: f64,
}

impl Cpu {
    /// # Errors
    /// When the kernel does not tell.
    pub fn now() -> Result<Self, Fault> {
        let unreadable = || Fault::Machine("the kernel tells no CPU times".to_owned());
        let total = Machine::now().ok_or_else(unreadable)?;
        let ticks = ticks_per_second();
        Ok(Self {
            at: Instant::now(),
            busy_seconds: total.busy_ticks as f64 / ticks,
            stolen_seconds: total.steal_ticks as f64 / ticks,
            outside_seconds: outside_ticks()? as f64 / ticks,
        })
    }

    /// What was spent since `earlier`.
    pub fn since(&self, earlier: &Self) -> Spent {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let wall = (self.at - earlier.at)
            .max(Duration::from_micros(1))
            .as_secs_f64()
            * cpus;
        let outside = (self.outside_seconds - earlier.outside_seconds).max(0.0);
        let busy = self.busy_seconds - earlier.busy_seconds;
        Spent {
            cpu_seconds: (busy - outside).max(0.0),
            outside_share: outside / wall,
            stolen_share: (self.stolen_seconds - earlier.stolen_seconds).max(0.0) / wall,
        }
    }
}

/// Time of all processes that are neither below this one nor the kernel's. The time of children that have ended is
/// counted with their parent, so that a compiler that came and went is in the difference.
fn outside_ticks() -> Result<u64, Fault> {
    let unreadable = |error| Fault::Machine(format!("listing processes: {error}"));
    let all = procfs::process::all_processes().map_err(unreadable)?;
    // One that has just ended has no figures any more.
    let stats = all.filter_map(|process| process.ok()?.stat().ok());
    let mut parents = HashMap::new();
    let mut ticks = Vec::new();
    for stat in stats {
        parents.insert(stat.pid, stat.ppid);
        let children = stat.cutime.max(0).saturating_add(stat.cstime.max(0));
        ticks.push((stat.pid, stat.utime + stat.stime + children.unsigned_abs()));
    }
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let outside = ticks
        .iter()
        .filter(|(pid, _)| is_outside(*pid, own, &parents));
    Ok(outside.map(|(_, ticks)| ticks).sum())
}

fn is_outside(pid: i32, own: i32, parents: &HashMap<i32, i32>) -> bool {
    // Deeper than any real ancestry.
    const DEPTH_MAX: usize = 64;
    let mut pid = pid;
    for _ in 0..DEPTH_MAX {
        if pid == own || pid == KTHREADD {
            return false;
        }
        match parents.get(&pid) {
            Some(&parent) if parent > 0 => pid = parent,
            Some(_) | None => return true,
        }
    }
    true
}

/// Resident memory of a process and its descendants; none if it has ended.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let process = Process::new(i32::try_from(pid).ok()?).ok()?;
    let own = process.status().ok()?.vmrss? * 1024;
    let tasks = process.tasks().ok()?;
    let children = tasks
        .filter_map(|task| task.ok()?.children().ok())
        .flatten();
    let below = children.map(|child| resident_bytes(child).unwrap_or_default());
    Some(own + below.sum::<u64>())
}

/// Something one must know to judge the figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What.
    pub name: String,
    /// What it is here.
    pub value: String,
}

impl Fact {
    /// A fact.
    pub fn new(name: &str, value: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            value: value.into(),
        }
    }
}

/// The machine and the path.
pub fn describe(lab: &Lab) -> Vec<Fact> {
    let sysctl = |name: &str| {
        let value = lab.sysctl(Side::A, name);
        value.unwrap_or_else(|_| "not readable".to_owned())
    };
    let link = lab
        .ip_in(Side::A, "-o link show")
        .unwrap_or_default()
        .lines()
        .find(|line| line.contains(": to-b@"))
        .map(str::to_owned)
        .unwrap_or_default();
    let after = |word: &str| {
        let mut words = link.split_whitespace().skip_while(|found| *found != word);
        words.nth(1).unwrap_or("not readable").to_owned()
    };
    let here = Environment::here();
    let governor = here.governor.as_deref().unwrap_or("none visible");
    let cpu = format!("{} × {}, governor {governor}", here.cpus, here.cpu);
    vec![
        Fact::new(KERNEL, here.kernel),
        Fact::new("cpu", cpu),
        Fact::new(
            "congestion control",
            format!(
                "{} (of the connections of gateway A)",
                lab.congestion_controls(Side::A).join(", ")
            ),
        ),
        Fact::new("MTU", after("mtu")),
        Fact::new("qdisc", after("qdisc")),
        Fact::new("tcp_rmem", sysctl("net/ipv4/tcp_rmem")),
        Fact::new("tcp_wmem", sysctl("net/ipv4/tcp_wmem")),
    ]
}

/// What is measured: the revision of the repository, and the binary as it is now.
pub fn describe_gateway(gateway: Option<&Path>, repository: Option<&Path>) -> Vec<Fact> {
    let revision = repository.and_then(revision);
    let binary = gateway.and_then(|path| binary(path, repository));
    let revision = revision.map(|text| Fact::new("git", text));
    let binary = binary.map(|text| Fact::new("corinth-gateway", text));
    revision.into_iter().chain(binary).collect()
}

/// The revision of a repository, and whether what gateways are made of was changed since.
pub fn revision(repository: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command
            .arg("-c")
            .arg(format!("safe.directory={}", repository.display()))
            .arg("-C")
            .arg(repository)
            .args(arguments);
        process::output(command, &Interrupt::default()).ok()
    };
    let revision = revision_of(repository)?;
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        "gateway",
        "control",
        "Cargo.lock",
    ])?;
    let note = if changed.trim().is_empty() {
        ""
    } else {
        " with uncommitted changes"
    };
    Some(format!("{revision}{note}"))
}

/// What identifies a binary.
fn binary(path: &Path, repository: Option<&Path>) -> Option<String> {
    let digest = digest::digest(&digest::SHA256, &fs::read(path).ok()?);
    let digest: String = digest
        .as_ref()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let built = fs::metadata(path).ok()?.modified().ok()?;
    let built = jiff::Timestamp::try_from(built).ok()?;
    let inside = repository.and_then(|top| path.strip_prefix(top).ok());
    let shown = inside.unwrap_or_else(|| path.file_name().map_or(path, Path::new));
    Some(format!(
        "{}, built {}, sha256 {digest}",
        shown.display(),
        built.strftime("%Y-%m-%d %H:%M UTC")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_and_the_kernel_are_not_outside() {
        let parents = HashMap::from([
            (1, 0),
            (2, 0),
            (10, 1),
            (11, 10),
            (12, 11),
            (30, 2),
            (40, 1),
        ]);
        assert!(!is_outside(10, 10, &parents));
        assert!(!is_outside(12, 10, &parents));
        assert!(!is_outside(30, 10, &parents));
        assert!(is_outside(40, 10, &parents));
        assert!(is_outside(1, 10, &parents));
    }

    #[test]
    fn time_that_passes_is_counted() {
        const ENOUGH_SECONDS: f64 = 0.1;
        const PATIENCE: Duration = Duration::from_secs(20);
        let before = Cpu::now().expect("this is Linux");
        // This very process is busy, and is not outside; on a machine with others it gets its share.
        let counted = std::iter::repeat_with(|| Cpu::now().expect("this is Linux").since(&before))
            .take_while(|_| before.at.elapsed() < PATIENCE)
            .find(|spent| spent.cpu_seconds > ENOUGH_SECONDS);
        assert!(counted.is_some());
    }

    #[test]
    fn memory_of_a_process_is_not_zero() {
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(resident_bytes(u32::MAX >> 1), None);
    }
}
