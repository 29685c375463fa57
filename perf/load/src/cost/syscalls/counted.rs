//! The count, by a tracepoint of the kernel.

use std::{fs, path::Path};

use perf_event::{Builder, Counter, events::Tracepoint};

use super::{ENTRY, Uncounted};

/// Where tracefs is mounted: today's place, and that of older kernels.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

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
    /// Starts to count.
    ///
    /// # Errors
    /// Where the kernel has no such tracepoint, hides it, or does not permit it.
    pub fn start() -> Result<Self, Uncounted> {
        let entry = Tracepoint::with_id(find(&TRACEFS.map(Path::new))?);
        let mut counters = Vec::new();
        for cpu in online(Path::new(ONLINE))? {
            let refused = |error: std::io::Error| Uncounted::Refused {
                cpu,
                said: error.to_string(),
            };
            let mut counter = Builder::new(entry)
                .any_pid()
                .one_cpu(cpu)
                .include_kernel()
                .build()
                .map_err(refused)?;
            counter.enable().map_err(refused)?;
            counters.push(counter);
        }
        Ok(Self { counters })
    }

    /// How many there were since.
    pub fn count(&mut self) -> Option<u64> {
        self.counters
            .iter_mut()
            .map(|counter| counter.read().ok())
            .sum()
    }
}

/// The number of the tracepoint, in the first of these places that has it.
fn find(places: &[&Path]) -> Result<u64, Uncounted> {
    let mut paths = places.iter().map(|place| place.join(ENTRY));
    let Some(path) = paths.find(|path| path.is_file()) else {
        let place = places.first().map(|place| place.display().to_string());
        return Err(Uncounted::NoTracepoint {
            place: place.unwrap_or_default(),
        });
    };
    let id = fs::read_to_string(&path).ok();
    id.and_then(|id| id.trim().parse().ok())
        .ok_or(Uncounted::Unreadable(path))
}

fn online(path: &Path) -> Result<Vec<usize>, Uncounted> {
    let text = fs::read_to_string(path).ok();
    text.and_then(|text| parse_cpus(&text))
        .ok_or_else(|| Uncounted::Unreadable(path.to_owned()))
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

    /// What tracefs shows of the tracepoint.
    fn tracefs(id: &str) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let entry = place.path().join(ENTRY);
        fs::create_dir_all(entry.parent().unwrap()).unwrap();
        fs::write(entry, id).unwrap();
        place
    }

    #[test]
    fn the_tracepoint_is_found_in_either_place() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tracefs("347\n"));
        assert_eq!(find(&[empty.path(), full.path()]), Ok(347));
        assert_eq!(find(&[full.path(), empty.path()]), Ok(347));
    }

    #[test]
    fn where_there_is_none_it_is_said_what_to_do() {
        let empty = tempfile::tempdir().unwrap();
        let said = find(&[empty.path()]).unwrap_err().to_string();
        let command = format!("mount -t tracefs nodev {}", empty.path().display());
        assert!(said.contains(&command), "{said}");
        let garbled = tracefs("many\n");
        let said = find(&[garbled.path()]).unwrap_err().to_string();
        assert!(said.ends_with("is not understood"), "{said}");
        assert!(online(&empty.path().join("online")).is_err());
    }

    #[test]
    fn what_is_counted_includes_our_own_or_it_is_said_why_not() {
        match Syscalls::start() {
            Ok(mut syscalls) => {
                let before = syscalls.count().unwrap();
                (0..100).for_each(|_| drop(fs::metadata("/")));
                assert!(syscalls.count().unwrap() >= before + 100);
            }
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    }

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
