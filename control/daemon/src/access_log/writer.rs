//! The thread that empties the queue into the file.

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::target::Output;
use super::{GATHER_TIME, QueueState, Shared};

/// Capacity a buffer keeps between batches; one busy second does not hold a mebibyte for ever.
const KEPT_BYTES: usize = 64 << 10;

pub(super) struct Writer {
    output: Output,
    shared: Arc<Shared>,
    /// The buffer being written; swapped with the queue's.
    batch: Vec<u8>,
    health: Health,
    /// The last write stopped inside a line, which must be ended before the next one.
    is_torn: bool,
}

/// Whether the last batch could be written; the log tells of changes only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Working,
    Failing,
}

impl Writer {
    pub(super) fn new(output: Output, shared: Arc<Shared>) -> Self {
        Self {
            output,
            shared,
            batch: Vec::new(),
            health: Health::Working,
            is_torn: false,
        }
    }

    /// Writes batches until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut last_write = None;
        while let Some(lines) = self.next_batch(last_write) {
            let result = self.write_batch();
            self.count(lines, &result);
            self.note(result);
            last_write = Some(Instant::now());

            let written = self.batch.len() as u64;
            self.batch.clear();
            self.batch.shrink_to(KEPT_BYTES);
            self.shared.queue.lock().settled += written;
            self.shared.written.notify_all();
        }
        self.shared.queue.lock().state = QueueState::Closed;
        self.shared.written.notify_all();
    }

    /// Waits for lines, lets them gather since `last_write`, and takes them into the batch; returns how many.
    fn next_batch(&mut self, last_write: Option<Instant>) -> Option<u64> {
        let mut queue = self.shared.queue.lock();
        while queue.bytes.is_empty() {
            if queue.state != QueueState::Open {
                return None;
            }
            self.shared.work.wait(&mut queue);
        }
        if let Some(last_write) = last_write {
            let until = last_write + GATHER_TIME;
            while !queue.is_pressing() {
                if self.shared.work.wait_until(&mut queue, until).timed_out() {
                    break;
                }
            }
        }
        mem::swap(&mut queue.bytes, &mut self.batch);
        Some(mem::take(&mut queue.lines))
    }

    /// Writes the whole batch; on failure says how many bytes of it got out.
    fn write_batch(&mut self) -> Result<(), (usize, io::Error)> {
        match self.output.follow() {
            Ok(false) => {}
            Ok(true) => {
                self.is_torn = false;
                info!("access log reopened after its file was moved away");
            }
            Err(error) => warn!(%error, "access log cannot be reopened; writing to the moved file"),
        }
        if self.is_torn {
            self.output
                .file
                .write_all(b"\n")
                .map_err(|error| (0, error))?;
            self.is_torn = false;
        }
        let mut done = 0;
        while done < self.batch.len() {
            match self.output.file.write(&self.batch[done..]) {
                Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((done, error)),
            }
        }
        Ok(())
    }

    fn count(&mut self, lines: u64, result: &Result<(), (usize, io::Error)>) {
        let whole = match result {
            Ok(()) => lines,
            Err((done, _)) => {
                let out = &self.batch[..*done];
                self.is_torn |= out.last().is_some_and(|last| *last != b'\n');
                out.iter().filter(|byte| **byte == b'\n').count() as u64
            }
        };
        self.shared.counters.lines.inc_by(whole);
        self.shared.counters.failed.inc_by(lines - whole);
    }

    fn note(&mut self, result: Result<(), (usize, io::Error)>) {
        match (self.health, result) {
            (Health::Working, Err((_, error))) => {
                warn!(%error, "access log cannot be written; lines are being lost");
                self.health = Health::Failing;
            }
            (Health::Failing, Ok(())) => {
                info!("access log is written again");
                self.health = Health::Working;
            }
            (Health::Working, Ok(())) | (Health::Failing, Err(_)) => {}
        }
    }
}
