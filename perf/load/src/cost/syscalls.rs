//! Counts the system calls of the whole machine, where the kernel lets us.

use perf_event::{Builder, Counter, events::Tracepoint};

/// Every system call of every process passes here. The first place is today's, the second that of older kernels.
const ENTRIES: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];

/// A count that runs, one counter for each processor.
#[derive(Debug)]
pub struct Syscalls {
    counters: Vec<Counter>,
}

impl Syscalls {
    /// Starts to count. `None` where the kernel has no such tracepoint, hides it, or does not permit it.
    pub fn start() -> Option<Self> {
        let id = ENTRIES
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok())?;
        let entry = Tracepoint::with_id(id.trim().parse().ok()?);
        let cpus = std::thread::available_parallelism().ok()?.get();
        let mut counters = Vec::with_capacity(cpus);
        for cpu in 0..cpus {
            let mut counter = Builder::new(entry)
                .any_pid()
                .one_cpu(cpu)
                .include_kernel()
                .build()
                .ok()?;
            counter.enable().ok()?;
            counters.push(counter);
        }
        Some(Self { counters })
    }

    /// How many there were since.
    pub fn count(&mut self) -> Option<u64> {
        self.counters
            .iter_mut()
            .map(|counter| counter.read().ok())
            .sum()
    }
}
