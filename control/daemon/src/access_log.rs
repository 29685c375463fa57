//! Access log lines, written by a thread of their own.
//!
//! A caller appends its line to a bounded buffer and goes on; it never waits for a disk, a pipe or the writer. The
//! writer swaps the full buffer for an empty one and writes it in one piece. A lone line is written at once; under
//! load lines gather for a moment, so that a busy gateway pays a few dozen writes per second and not one per
//! connection. What does not fit, or cannot be written, is dropped and counted.
//!
//! Before each batch the writer looks whether the file still has its name; after a rotation (rename) or a removal it
//! opens the name anew. Rotation by truncation works too, because the file is always appended to.

mod target;
mod writer;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use thiserror::Error;

use crate::metrics::{Metrics, MetricsError};

pub use target::AccessLogTarget;
use writer::Writer;

/// Most bytes of lines that wait for the writer; twice this is the most memory the access log takes.
pub const QUEUE_MAX_BYTES: usize = 1 << 20;

/// How long lines gather after a write before the next one.
const GATHER_TIME: Duration = Duration::from_millis(20);

/// Stack of the writer thread; it only calls write, open and stat.
const STACK_BYTES: usize = 128 << 10;

/// The access log of one process; clones write to the same place. The thread ends when the last clone is gone.
#[derive(Clone)]
pub struct AccessLog {
    /// Nothing when the log is off.
    owner: Option<Arc<Owner>>,
}

/// Why the access log could not be opened.
#[derive(Debug, Error)]
pub enum AccessLogError {
    /// The file could not be opened for appending.
    #[error("access log {path}: {source}; does its folder exist, and may this user write there?")]
    Open {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Stdout or stderr is closed.
    #[error("access log to {target}: {source}")]
    Stream {
        /// Which of the two.
        target: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The writer thread could not be started.
    #[error("starting the access log's thread: {0}")]
    Thread(io::Error),
    /// Its counters could not be registered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// What all clones hold; the writer thread does not, so that it can outlive them by one last write.
struct Owner {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes who waits for the writer.
    written: Condvar,
    counters: Counters,
}

struct Queue {
    /// Whole lines, each with its newline.
    bytes: Vec<u8>,
    lines: u64,
    state: QueueState,
    /// Bytes ever taken in and ever dealt with; equal when nothing is on its way.
    accepted: u64,
    settled: u64,
    /// The writer must not gather up to this many accepted bytes: someone waits for them.
    urgent: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum QueueState {
    Open,
    /// No more lines; the writer writes what is there and ends.
    Closing,
    /// The writer has ended.
    Closed,
}

struct Counters {
    lines: IntCounter,
    full: IntCounter,
    failed: IntCounter,
    closed: IntCounter,
}

impl AccessLog {
    /// A log that takes no lines.
    pub fn off() -> Self {
        Self { owner: None }
    }

    /// Opens `target` and starts the writer thread (none for [`AccessLogTarget::Off`]); counts lines written and
    /// dropped in `metrics`, so one access log per registry.
    pub fn open(target: AccessLogTarget, metrics: &Metrics) -> Result<Self, AccessLogError> {
        let Some(output) = target.open()? else {
            return Ok(Self::off());
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new()),
            work: Condvar::new(),
            written: Condvar::new(),
            counters: Counters::new(metrics)?,
        });
        let writer = Writer::new(output, Arc::clone(&shared));
        thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || writer.run())
            .map_err(AccessLogError::Thread)?;
        let owner = Owner { shared };
        Ok(Self {
            owner: Some(Arc::new(owner)),
        })
    }

    /// Whether lines go anywhere; if not, a caller need not build them.
    pub fn is_on(&self) -> bool {
        self.owner.is_some()
    }

    /// Hands over one line, without its newline and without any inside (a JSON serialiser writes none). Never waits:
    /// a line for which there is no room is dropped and counted.
    pub fn write(&self, line: &str) {
        let Some(owner) = &self.owner else { return };
        let shared = &owner.shared;
        let mut queue = shared.queue.lock();
        let was = queue.bytes.len();
        if queue.state != QueueState::Open {
            shared.counters.closed.inc();
            return;
        }
        let size = line.len() + 1;
        if was + size > QUEUE_MAX_BYTES {
            shared.counters.full.inc();
            return;
        }
        queue.bytes.extend_from_slice(line.as_bytes());
        queue.bytes.push(b'\n');
        queue.lines += 1;
        queue.accepted += size as u64;
        // The writer sleeps on an empty queue, and gathers until half is full; in between it needs no call.
        let half = QUEUE_MAX_BYTES / 2;
        if was == 0 || (was < half && was + size >= half) {
            shared.work.notify_one();
        }
    }

    /// How many lines were dropped so far, for whatever reason.
    pub fn dropped(&self) -> u64 {
        let Some(owner) = &self.owner else { return 0 };
        let counters = &owner.shared.counters;
        counters.full.get() + counters.failed.get() + counters.closed.get()
    }

    /// Waits, blocking this thread for at most `limit`, until every line handed over before has been written or
    /// dropped; `false` if the limit passed first.
    pub fn flush(&self, limit: Duration) -> bool {
        let Some(owner) = &self.owner else {
            return true;
        };
        let mut queue = owner.shared.queue.lock();
        let wanted = queue.accepted;
        queue.urgent = wanted;
        owner.shared.work.notify_one();
        owner
            .shared
            .wait_until(&mut queue, limit, |queue| queue.settled >= wanted)
    }

    /// Takes no more lines and waits, blocking this thread for at most `limit`, until all are written and the writer
    /// has ended; `false` if the limit passed first. For every clone; the end of a process calls it once.
    pub fn close(&self, limit: Duration) -> bool {
        let Some(owner) = &self.owner else {
            return true;
        };
        let mut queue = owner.shared.queue.lock();
        owner.shared.start_closing(&mut queue);
        owner
            .shared
            .wait_until(&mut queue, limit, |queue| queue.state == QueueState::Closed)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.start_closing(&mut self.shared.queue.lock());
    }
}

impl Shared {
    fn start_closing(&self, queue: &mut Queue) {
        if queue.state == QueueState::Open {
            queue.state = QueueState::Closing;
            self.work.notify_one();
        }
    }

    fn wait_until(
        &self,
        queue: &mut parking_lot::MutexGuard<'_, Queue>,
        limit: Duration,
        reached: impl Fn(&Queue) -> bool,
    ) -> bool {
        let deadline = Instant::now() + limit;
        while !reached(queue) {
            if self.written.wait_until(queue, deadline).timed_out() {
                return reached(queue);
            }
        }
        true
    }
}

impl Queue {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            lines: 0,
            state: QueueState::Open,
            accepted: 0,
            settled: 0,
            urgent: 0,
        }
    }

    /// Whether the writer should write now instead of gathering more.
    fn is_pressing(&self) -> bool {
        self.state != QueueState::Open
            || self.urgent > self.settled
            || self.bytes.len() >= QUEUE_MAX_BYTES / 2
    }
}

impl Counters {
    fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        let dropped = metrics.counter_vec(
            "access_log_dropped_total",
            "Access log lines lost: no room to queue, a failed write, or written after closing.",
            &["reason"],
        )?;
        Ok(Self {
            lines: metrics.counter("access_log_lines_total", "Access log lines written.")?,
            full: dropped.with_label_values(&["full"]),
            failed: dropped.with_label_values(&["failed"]),
            closed: dropped.with_label_values(&["closed"]),
        })
    }
}

#[cfg(test)]
mod tests;
