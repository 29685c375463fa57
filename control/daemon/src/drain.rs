//! The end of a process, in phases: running, draining, terminating.
//!
//! Work that must be let finish holds a [`DrainGuard`]; whoever stops the process starts the drain, waits until no
//! guard is left or patience ends, then terminates. Phases only move forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time;

/// Where the process is on its way out; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Work is taken and done.
    Running,
    /// Nothing new is asked for; what is open may finish.
    Draining,
    /// What is open is cut.
    Terminating,
}

/// The way out of one process; clones share it.
#[derive(Clone, Debug)]
pub struct Drain {
    shared: Arc<Shared>,
}

/// One piece of work that a drain waits for, such as a connection; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "the work counts as finished as soon as this is dropped"]
pub struct DrainGuard {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    phase: watch::Sender<Phase>,
    open: AtomicUsize,
    idle: Notify,
}

impl Drain {
    /// A process that is running.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                phase: watch::Sender::new(Phase::Running),
                open: AtomicUsize::new(0),
                idle: Notify::new(),
            }),
        }
    }

    /// Running → draining; `false` if that has been left already.
    pub fn start(&self) -> bool {
        self.advance(Phase::Draining)
    }

    /// Any phase → terminating; `false` if it is there already.
    pub fn terminate(&self) -> bool {
        self.advance(Phase::Terminating)
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.shared.phase.borrow()
    }

    /// Follows the phases from now on.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.shared.phase.subscribe()
    }

    /// Waits until the phase is `phase` or a later one; returns the phase then.
    pub async fn reached(&self, phase: Phase) -> Phase {
        let mut phases = self.shared.phase.subscribe();
        let reached = phases.wait_for(|now| *now >= phase).await;
        *reached.expect("the sender lives in self, which is borrowed")
    }

    /// Counts one more piece of open work. Taken in any phase: what is already accepted is finished.
    pub fn guard(&self) -> DrainGuard {
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        DrainGuard {
            shared: Arc::clone(&self.shared),
        }
    }

    /// How many pieces of work are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Waits until no work is open, in whatever phase.
    pub async fn wait_idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.shared.idle.notified());
            // Listen before looking, or the last guard could go unseen in between.
            idle.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Waits until no work is open, `limit` has passed, or the process is terminating; returns what is still open.
    pub async fn wait_idle_for(&self, limit: Duration) -> usize {
        tokio::select! {
            () = self.wait_idle() => {}
            _ = self.reached(Phase::Terminating) => {}
            () = time::sleep(limit) => {}
        }
        self.open()
    }

    fn advance(&self, to: Phase) -> bool {
        self.shared.phase.send_if_modified(|phase| {
            let forward = *phase < to;
            if forward {
                *phase = to;
            }
            forward
        })
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl DrainGuard {
    /// The phase now, for work that checks between two steps.
    pub fn phase(&self) -> Phase {
        *self.shared.phase.borrow()
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Duration = Duration::from_secs(60);

    #[test]
    fn phases_only_move_forward() {
        let drain = Drain::new();
        assert_eq!(drain.phase(), Phase::Running);
        assert!(drain.start());
        assert!(!drain.start());
        assert_eq!(drain.phase(), Phase::Draining);
        assert!(drain.terminate());
        assert!(!drain.terminate());
        assert!(!drain.start());
        assert_eq!(drain.phase(), Phase::Terminating);
    }

    #[test]
    fn terminating_may_skip_draining() {
        let drain = Drain::new();
        assert!(drain.terminate());
        assert_eq!(drain.phase(), Phase::Terminating);
    }

    #[tokio::test]
    async fn reached_answers_for_a_later_phase_too() {
        let drain = Drain::new();
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.reached(Phase::Draining).await }
        });
        tokio::task::yield_now().await;
        drain.terminate();
        assert_eq!(waiting.await.unwrap(), Phase::Terminating);
        assert_eq!(drain.reached(Phase::Running).await, Phase::Terminating);
    }

    #[tokio::test]
    async fn subscribers_see_both_steps() {
        let drain = Drain::new();
        let guard = drain.guard();
        let mut phases = drain.subscribe();
        drain.start();
        phases.changed().await.unwrap();
        assert_eq!(*phases.borrow_and_update(), Phase::Draining);
        assert_eq!(guard.phase(), Phase::Draining);
        drain.terminate();
        phases.changed().await.unwrap();
        assert_eq!(*phases.borrow_and_update(), Phase::Terminating);
    }

    #[tokio::test]
    async fn idle_is_reached_when_the_last_guard_goes() {
        let drain = Drain::new();
        drain.wait_idle().await;
        let (one, two) = (drain.guard(), drain.guard());
        drain.start();
        let late = drain.guard();
        assert_eq!(drain.open(), 3);
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.wait_idle_for(PLENTY).await }
        });
        tokio::task::yield_now().await;
        drop((one, two));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(late);
        assert_eq!(waiting.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_limit_reports_what_is_left() {
        let drain = Drain::new();
        let _stuck = drain.guard();
        drain.start();
        assert_eq!(drain.wait_idle_for(Duration::from_millis(5)).await, 1);
    }

    #[tokio::test]
    async fn terminating_ends_the_wait() {
        let drain = Drain::new();
        let _stuck = drain.guard();
        drain.start();
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.wait_idle_for(PLENTY).await }
        });
        tokio::task::yield_now().await;
        drain.terminate();
        assert_eq!(waiting.await.unwrap(), 1);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn guards_dropped_by_other_threads_are_seen() {
        let drain = Drain::new();
        for _ in 0..200 {
            let guards: Vec<_> = (0..8).map(|_| drain.guard()).collect();
            let dropper = std::thread::spawn(move || drop(guards));
            drain.wait_idle().await;
            assert_eq!(drain.open(), 0);
            dropper.join().unwrap();
        }
    }
}
