//! What a test takes of a machine.
//!
//! The time of the whole machine is counted: on one machine the kernel charges the receiver's TCP work to whoever
//! sends, so the time of a process says little and is given for guidance only.

use std::{fs, time::Instant};

use crate::result::{Cost, Process};

/// One reading of everything.
#[derive(Debug, Clone, PartialEq)]
struct Reading {
    at: Instant,
    machine: Option<Machine>,
    processes: Vec<Process>,
}

/// What all processors together have done since the machine started: `/proc/stat`. The only place that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Machine {
    /// Neither idle nor stolen, see [`ticks_per_second`].
    pub busy_ticks: u64,
    /// Idle, waiting for disks included.
    pub idle_ticks: u64,
    /// Taken by the hypervisor.
    pub steal_ticks: u64,
    /// Of all processes.
    pub context_switches: u64,
}

/// In how many ticks the kernel counts a second.
pub fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// Measures from its start to its end.
#[derive(Debug)]
pub struct Meter {
    start: Reading,
    watched: Vec<u32>,
    syscalls: Result<syscalls::Syscalls, syscalls::Uncounted>,
}

/// What was carried meanwhile, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Bytes of payload.
    pub bytes: Option<u64>,
    /// Requests.
    pub requests: Option<u64>,
}

impl Meter {
    /// Starts, with this process and those of these numbers.
    pub fn start(watched: &[u32], now: Instant) -> Self {
        let mut watched = watched.to_vec();
        watched.insert(0, std::process::id());
        watched.dedup();
        let syscalls = syscalls::Syscalls::start();
        Self {
            start: Reading::take(&watched, now),
            watched,
            syscalls,
        }
    }

    /// What it took until now.
    pub fn finish(&mut self, carried: Carried, now: Instant) -> Option<Cost> {
        let syscalls = self
            .syscalls
            .as_mut()
            .ok()
            .and_then(syscalls::Syscalls::count);
        let end = Reading::take(&self.watched, now);
        let mut cost = self.start.until(&end, syscalls, carried)?;
        cost.syscalls_uncounted = self.syscalls.as_ref().err().map(ToString::to_string);
        Some(cost)
    }
}

impl Reading {
    fn take(watched: &[u32], at: Instant) -> Self {
        Self {
            at,
            machine: Machine::now(),
            processes: watched
                .iter()
                .filter_map(|pid| read_process(*pid))
                .collect(),
        }
    }

    fn until(&self, end: &Self, syscalls: Option<u64>, carried: Carried) -> Option<Cost> {
        let (before, after) = (self.machine?, end.machine?);
        let ticks_per_second = ticks_per_second();
        let busy = after.busy_ticks.saturating_sub(before.busy_ticks) as f64 / ticks_per_second;
        let steal = after.steal_ticks.saturating_sub(before.steal_ticks) as f64;
        let idle = after.idle_ticks.saturating_sub(before.idle_ticks) as f64;
        let all = busy * ticks_per_second + steal + idle;
        let switches = after
            .context_switches
            .saturating_sub(before.context_switches);
        let bytes = carried
            .bytes
            .filter(|bytes| *bytes > 0)
            .map(|bytes| bytes as f64);
        let requests = carried.requests.filter(|requests| *requests > 0);
        Some(Cost {
            seconds: end.at.saturating_duration_since(self.at).as_secs_f64(),
            cpu_seconds: busy,
            cpu_seconds_per_gb: bytes.map(|bytes| busy / (bytes / 1e9)),
            cpu_us_per_request: requests.map(|requests| busy * 1e6 / requests as f64),
            steal_percent: (all > 0.0).then(|| 100.0 * steal / all),
            context_switches_per_mb: bytes.map(|bytes| switches as f64 / (bytes / 1e6)),
            context_switches: Some(switches),
            syscalls_per_mb: syscalls
                .zip(bytes)
                .map(|(calls, bytes)| calls as f64 / (bytes / 1e6)),
            syscalls,
            syscalls_uncounted: None,
            processes: self.processes_until(end),
        })
    }

    fn processes_until(&self, end: &Self) -> Vec<Process> {
        let mut taken = Vec::new();
        for after in &end.processes {
            let Some(before) = self.processes.iter().find(|before| before.pid == after.pid) else {
                continue;
            };
            taken.push(Process {
                cpu_seconds: (after.cpu_seconds - before.cpu_seconds).max(0.0),
                context_switches: after
                    .context_switches
                    .zip(before.context_switches)
                    .map(|(after, before)| after.saturating_sub(before)),
                ..after.clone()
            });
        }
        taken
    }
}

impl Machine {
    /// Until now; `None` if the kernel does not tell.
    pub fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut machine = Self::default();
        let line = text.lines().find(|line| line.starts_with("cpu "))?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .map_while(|word| word.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; the guests' time is within user and nice.
        let [user, nice, system, idle, waiting, irq, softirq, rest @ ..] = ticks.as_slice() else {
            return None;
        };
        machine.busy_ticks = user + nice + system + irq + softirq;
        machine.idle_ticks = idle + waiting;
        machine.steal_ticks = rest.first().copied().unwrap_or(0);
        let switches = text.lines().find_map(|line| line.strip_prefix("ctxt "))?;
        machine.context_switches = switches.trim().parse().ok()?;
        Some(machine)
    }
}

fn read_process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut process = parse_process(pid, &stat)?;
    if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
        note_memory(&mut process, &status);
    }
    process.context_switches = read_switches(pid);
    Some(process)
}

fn parse_process(pid: u32, stat: &str) -> Option<Process> {
    // The name is in brackets and may hold anything, brackets too.
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = fields
        .get(11..15)?
        .iter()
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Some(Process {
        pid,
        name: name.to_owned(),
        cpu_seconds: ticks as f64 / ticks_per_second(),
        ..Process::default()
    })
}

fn note_memory(process: &mut Process, status: &str) {
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    };
    process.rss_bytes = kilobytes("VmRSS:").map(|kb| kb * 1024);
    process.rss_peak_bytes = kilobytes("VmHWM:").map(|kb| kb * 1024);
}

/// Of all its threads; the file of the process itself tells those of the first one only.
fn read_switches(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else {
            continue;
        };
        sum += status
            .lines()
            .filter_map(|line| line.split_once("ctxt_switches:"))
            .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
            .sum::<u64>();
    }
    Some(sum)
}

pub mod syscalls;

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\nintr 5\nctxt 1234\n";

    #[test]
    fn the_whole_machine_is_read_from_its_first_line() {
        let expected = Machine {
            busy_ticks: 73,
            idle_ticks: 450,
            steal_ticks: 8,
            context_switches: 1_234,
        };
        assert_eq!(Machine::parse(STAT), Some(expected));
    }

    #[test]
    fn a_machine_that_does_not_tell_has_no_cost() {
        assert_eq!(Machine::parse(""), None);
        assert_eq!(Machine::parse("cpu 1 2\nctxt 1\n"), None);
        let now = Instant::now();
        let blind = Reading {
            at: now,
            machine: None,
            processes: Vec::new(),
        };
        assert_eq!(blind.until(&blind, None, Carried::default()), None);
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 1 1 0 -1 0 0 0 0 0 100 50 25 25 20 0 1 0 0";
        let process = parse_process(7, stat).unwrap();
        assert_eq!(process.name, "a) b (c");
        assert_eq!(process.cpu_seconds, 200.0 / ticks_per_second());
    }

    #[test]
    fn nothing_carried_gives_no_cost_per_byte() {
        let now = Instant::now();
        let reading = Reading {
            at: now,
            machine: Machine::parse(STAT),
            processes: Vec::new(),
        };
        let carried = Carried {
            bytes: Some(0),
            requests: None,
        };
        let cost = reading.until(&reading, Some(3), carried).unwrap();
        assert_eq!(
            (cost.cpu_seconds_per_gb, cost.syscalls_per_mb),
            (None, None)
        );
        assert_eq!(cost.syscalls, Some(3));
    }
}
