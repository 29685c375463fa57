//! Counts the system calls of the whole machine, where the kernel lets us.

use std::path::PathBuf;

use thiserror::Error;

#[cfg(feature = "syscalls")]
pub use self::counted::Syscalls;
#[cfg(not(feature = "syscalls"))]
pub use self::left_out::Syscalls;

#[cfg(feature = "syscalls")]
mod counted;
#[cfg(not(feature = "syscalls"))]
mod left_out;

/// Every system call of every process passes here, under the mount point of tracefs.
const ENTRY: &str = "events/raw_syscalls/sys_enter/id";

/// Why the system calls of this machine cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Uncounted {
    /// This program can do without, and is built sooner.
    #[error("this program was built without counting them; corinth-perf counts them")]
    LeftOut,
    /// There is no such file, or it is hidden from us.
    #[error(
        "no tracepoint {ENTRY} under {place}: is this root, and is tracefs there \
         (mount -t tracefs nodev {place})?"
    )]
    NoTracepoint {
        /// Where it should be.
        place: String,
    },
    /// A file says something else than it should.
    #[error("{} is not understood", .0.display())]
    Unreadable(PathBuf),
    /// The kernel does not let us.
    #[error("the kernel does not count on processor {cpu}: {said}")]
    Refused {
        /// Where.
        cpu: usize,
        /// What it said.
        said: String,
    },
}
