//! Whether this process should be sent new work, and what it still waits for.
//!
//! Each part that must be up registers a named task before the process serves; the process is ready when none is
//! pending. Draining makes it not ready for good. Liveness never depends on any of this.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// Where the process stands towards new work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadyState {
    /// Something is still to be done; the names in the order they were registered.
    Starting {
        /// The tasks that are not done.
        pending: Vec<Arc<str>>,
    },
    /// New work is welcome.
    Ready,
    /// The process is on its way out.
    Draining,
}

/// The readiness of one process; clones share it. Ready until a task is registered.
#[derive(Clone, Debug)]
pub struct Readiness {
    state: Arc<watch::Sender<ReadyState>>,
}

/// A task that keeps the process from being ready; it is done when this is dropped.
#[derive(Debug)]
#[must_use = "the task counts as done as soon as this is dropped"]
pub struct Pending {
    name: Arc<str>,
    state: Arc<watch::Sender<ReadyState>>,
}

impl Readiness {
    /// A process with nothing pending.
    pub fn new() -> Self {
        Self {
            state: Arc::new(watch::Sender::new(ReadyState::Ready)),
        }
    }

    /// Adds a task; the process is not ready until it is done. Two tasks of one name are two tasks.
    pub fn register(&self, name: &str) -> Pending {
        // An allocation of its own is what tells two tasks of one name apart.
        let name: Arc<str> = name.into();
        self.state.send_if_modified(|state| match state {
            ReadyState::Starting { pending } => {
                pending.push(Arc::clone(&name));
                true
            }
            ReadyState::Ready => {
                let pending = vec![Arc::clone(&name)];
                *state = ReadyState::Starting { pending };
                true
            }
            ReadyState::Draining => false,
        });
        Pending {
            name,
            state: Arc::clone(&self.state),
        }
    }

    /// Makes the process not ready, for good.
    pub fn drain(&self) {
        self.state.send_if_modified(|state| {
            let changed = *state != ReadyState::Draining;
            *state = ReadyState::Draining;
            changed
        });
    }

    /// Whether new work is welcome now.
    pub fn is_ready(&self) -> bool {
        *self.state.borrow() == ReadyState::Ready
    }

    /// Where the process stands now.
    pub fn state(&self) -> ReadyState {
        self.state.borrow().clone()
    }

    /// Follows every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<ReadyState> {
        self.state.subscribe()
    }

    /// Waits until nothing is pending; `false` if the process began to drain instead.
    pub async fn reached(&self) -> bool {
        let mut states = self.state.subscribe();
        let settled = states
            .wait_for(|state| !matches!(state, ReadyState::Starting { .. }))
            .await;
        settled.is_ok_and(|state| *state == ReadyState::Ready)
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Pending {
    /// Says that the task is done; the same as dropping it.
    pub fn done(self) {}

    /// The name the task was registered under.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.state.send_if_modified(|state| {
            let ReadyState::Starting { pending } = state else {
                return false;
            };
            // By address, so that of two tasks with one name the right one goes.
            pending.retain(|name| !Arc::ptr_eq(name, &self.name));
            if pending.is_empty() {
                *state = ReadyState::Ready;
            }
            true
        });
    }
}

/// The text of `/readyz?verbose`: the verdict, then one line per reason.
impl fmt::Display for ReadyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Draining => f.write_str("not ready\ndraining"),
            Self::Starting { pending } => {
                f.write_str("not ready")?;
                pending
                    .iter()
                    .try_for_each(|name| write!(f, "\npending: {name}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_task_is_done() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let tables = readiness.register("tables");
        let listeners = readiness.register("listeners");
        assert_eq!(
            readiness.state().to_string(),
            "not ready\npending: tables\npending: listeners"
        );
        tables.done();
        assert_eq!(
            readiness.state().to_string(),
            "not ready\npending: listeners"
        );
        drop(listeners);
        assert_eq!(readiness.state(), ReadyState::Ready);
    }

    #[test]
    fn a_task_registered_later_takes_readiness_back() {
        let readiness = Readiness::new();
        readiness.register("tables").done();
        assert!(readiness.is_ready());
        let renewal = readiness.register("certificate");
        assert_eq!(renewal.name(), "certificate");
        assert!(!readiness.is_ready());
        renewal.done();
        assert!(readiness.is_ready());
    }

    #[test]
    fn two_tasks_of_one_name_are_two_tasks() {
        let readiness = Readiness::new();
        let first = readiness.register("link");
        let second = readiness.register("link");
        first.done();
        assert_eq!(readiness.state().to_string(), "not ready\npending: link");
        second.done();
        assert!(readiness.is_ready());
    }

    #[test]
    fn draining_is_for_good() {
        let readiness = Readiness::new();
        let tables = readiness.register("tables");
        readiness.drain();
        tables.done();
        let later = readiness.register("later");
        assert_eq!(readiness.state().to_string(), "not ready\ndraining");
        later.done();
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn subscribers_see_each_change() {
        let readiness = Readiness::new();
        let mut states = readiness.subscribe();
        let tables = readiness.register("tables");
        states.changed().await.unwrap();
        assert!(matches!(
            *states.borrow_and_update(),
            ReadyState::Starting { .. }
        ));
        tables.done();
        states.changed().await.unwrap();
        assert_eq!(*states.borrow_and_update(), ReadyState::Ready);
        readiness.drain();
        states.changed().await.unwrap();
        assert_eq!(*states.borrow_and_update(), ReadyState::Draining);
        readiness.drain();
        assert!(!states.has_changed().unwrap());
    }

    #[tokio::test]
    async fn reached_waits_for_the_last_task() {
        let readiness = Readiness::new();
        let tables = readiness.register("tables");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.reached().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        tables.done();
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn reached_gives_up_when_draining() {
        let readiness = Readiness::new();
        let _tables = readiness.register("tables");
        readiness.drain();
        assert!(!readiness.reached().await);
    }
}
