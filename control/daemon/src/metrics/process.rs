//! What the kernel knows about this process, read from `/proc` at each scrape.

use std::fs;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge};
use rustix::process::{Resource, getrlimit};

/// Clock ticks per second in `/proc`; the kernel ABI fixes it at 100 on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// A collector of the process's own memory, descriptors, threads and processor time.
pub(super) struct Process {
    resident: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    threads: IntGauge,
    started: Gauge,
    /// Scrapes may overlap; the lock makes "add what is new" one step.
    cpu: Mutex<Counter>,
}

impl Process {
    pub(super) fn new() -> prometheus::Result<Self> {
        let this = Self {
            resident: IntGauge::new(
                "process_resident_memory_bytes",
                "Memory of this process that is in RAM.",
            )?,
            open_fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            max_fds: IntGauge::new("process_max_fds", "Limit on open file descriptors.")?,
            threads: IntGauge::new("process_threads", "Threads of this process.")?,
            started: Gauge::new(
                "process_start_time_seconds",
                "When this process started, in seconds since the Unix epoch.",
            )?,
            cpu: Mutex::new(Counter::new(
                "process_cpu_seconds_total",
                "Processor time used, user and system together.",
            )?),
        };
        if let Some(started) = start_time() {
            this.started.set(started);
        }
        Ok(this)
    }

    fn refresh(&self) {
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            if let Some(kibibytes) = field(&status, "VmRSS:") {
                self.resident.set(kibibytes.saturating_mul(1024));
            }
            if let Some(threads) = field(&status, "Threads:") {
                self.threads.set(threads);
            }
        }
        if let Some(open) = open_fds() {
            self.open_fds.set(open);
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            self.max_fds.set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
        if let Some(used) = cpu_seconds() {
            let cpu = self.cpu.lock();
            cpu.inc_by((used - cpu.get()).max(0.0));
        }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        // The counter sits behind a lock and cannot lend its description; the registry needs one to know us by.
        [&self.resident, &self.open_fds, &self.max_fds, &self.threads]
            .into_iter()
            .flat_map(Collector::desc)
            .chain(self.started.desc())
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        [&self.resident, &self.open_fds, &self.max_fds, &self.threads]
            .into_iter()
            .flat_map(Collector::collect)
            .chain(self.started.collect())
            .chain(self.cpu.lock().collect())
            .collect()
    }
}

/// The first number after `key` at the start of a line.
fn field(text: &str, key: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// How many descriptors are open; newer kernels answer without listing them.
fn open_fds() -> Option<i64> {
    let listed = fs::metadata("/proc/self/fd").ok()?.len();
    if listed > 0 {
        return i64::try_from(listed).ok();
    }
    // The listing itself holds one descriptor.
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    i64::try_from(entries.saturating_sub(1)).ok()
}

/// Field `number` of `/proc/self/stat`, counted from 1 as in proc(5); only fields after the command name.
fn stat_field(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command name, field 2, may itself hold blanks and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds() -> Option<f64> {
    Some((stat_field(14)? + stat_field(15)?) / TICKS_PER_SECOND)
}

fn start_time() -> Option<f64> {
    let boot = field(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
    Some(boot as f64 + stat_field(22)? / TICKS_PER_SECOND)
}
