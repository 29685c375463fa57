//! What programs wrote, and waiting for more of it.

use std::{
    io::{BufRead, BufReader, Read},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// How long an event may take that nothing is measured by: far more than it ever takes.
pub const WAIT: Duration = Duration::from_secs(20);

/// How often something is looked at that cannot tell by itself.
const LOOK: Duration = Duration::from_millis(10);

/// The lines one program wrote to one pipe, as they come.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    is_closed: bool,
}

impl Lines {
    /// Reads `pipe` to its end on a thread of its own.
    pub(crate) fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe
                .read_until(b'\n', &mut line)
                .is_ok_and(|bytes| bytes > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                writer.shared.state.lock().lines.push(text);
                writer.shared.changed.notify_all();
                line.clear();
            }
            writer.shared.state.lock().is_closed = true;
            writer.shared.changed.notify_all();
        });
        lines
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<String> {
        self.shared.state.lock().lines.clone()
    }

    /// How many there are so far: a mark to wait from.
    pub fn count(&self) -> usize {
        self.shared.state.lock().lines.len()
    }

    /// The first line at or after `from` that `find` makes something of; `None` if the program ended or the time did.
    pub fn find<T>(
        &self,
        from: usize,
        within: Duration,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut state = self.shared.state.lock();
        let mut next = from;
        loop {
            while let Some(line) = state.lines.get(next) {
                if let Some(found) = find(line) {
                    return Some(found);
                }
                next += 1;
            }
            if state.is_closed
                || self
                    .shared
                    .changed
                    .wait_until(&mut state, deadline)
                    .timed_out()
            {
                return None;
            }
        }
    }

    /// Waits until the program has closed the pipe; `false` if the time ends first.
    pub fn closed(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.shared.state.lock();
        while !state.is_closed {
            if self
                .shared
                .changed
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                return state.is_closed;
            }
        }
        true
    }
}

/// Waits for a point in time. For those who are slow on purpose.
pub fn pause_until(then: Instant) {
    while let Some(left) = then
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}

/// Looks again and again until `look` finds something. For what cannot tell by itself: other processes' state.
///
/// # Panics
/// When the time ends; `what` is in the message.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        thread::park_timeout(LOOK);
    }
}
