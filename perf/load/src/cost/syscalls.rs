//! Counts the system calls of the whole machine, where the kernel lets us.

use perf_event::{Builder, Counter, events::Tracepoint};

/// Every system call of every process passes here. The first place is today's, the second that of older kernels.
const ENTRIES: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];

/// The processors that run, of all that this process might not be allowed to use.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// No machine has more processors.
const CPUS_MAX: usize = 1 << 16;

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
        let cpus = parse_cpus(&std::fs::read_to_string(ONLINE).ok()?)?;
        let mut counters = Vec::with_capacity(cpus.len());
        for cpu in cpus {
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

/// Numbers of processors as the kernel writes them: `0-3,8,10-11`.
fn parse_cpus(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_need_not_be_numbered_without_gaps() {
        for (text, cpus) in [
            ("0\n", Some(vec![0])),
            ("0-2\n", Some(vec![0, 1, 2])),
            ("1,4-5,7\n", Some(vec![1, 4, 5, 7])),
            ("\n", None),
            ("0-99999999999\n", None),
        ] {
            assert_eq!(parse_cpus(text), cpus, "{text}");
        }
    }
}
