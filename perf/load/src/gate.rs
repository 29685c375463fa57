//! Lets many threads begin at one moment, and ends them at one.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Instant,
};

use parking_lot::{Condvar, Mutex};

/// Closed at first; opened once, or never.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    is_over: AtomicBool,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Closed,
    /// Since then.
    Open(Instant),
    /// Nobody may pass any more.
    Shut,
}

impl Gate {
    /// Lets everybody in; time counts from `now`.
    pub fn open(&self, now: Instant) {
        let mut state = self.state.lock();
        if matches!(*state, State::Closed) {
            *state = State::Open(now);
        }
        self.changed.notify_all();
    }

    /// Ends it for those who wait and for those who look at [`Gate::is_over`].
    pub fn shut(&self) {
        self.is_over.store(true, Relaxed);
        *self.state.lock() = State::Shut;
        self.changed.notify_all();
    }

    /// Waits for the start and says when it was; `None` if there will be none.
    pub fn pass(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        loop {
            match *state {
                State::Closed => self.changed.wait(&mut state),
                State::Open(since) => return Some(since),
                State::Shut => return None,
            }
        }
    }

    /// Waits until `due`, or until it is over.
    pub fn wait_until(&self, due: Instant) {
        let mut state = self.state.lock();
        while !matches!(*state, State::Shut)
            && !self.changed.wait_until(&mut state, due).timed_out()
        {}
    }

    /// Whether whoever is inside should leave.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }
}
