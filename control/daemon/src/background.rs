//! Work that may wait: it gets a thread of its own, before which the machine prefers everybody else.
//!
//! Writing down a hundred thousand routes takes a processor for a tenth of a second. On the threads of a runtime's pool
//! it would be as urgent as the connections it delays.

use std::thread;

use rustix::{
    process::{Pid, setpriority_process},
    thread::gettid,
};
use tokio::sync::oneshot;
use tracing::warn;

/// By how much others are preferred: about ten to one where there are not enough processors (`sched(7)`).
const NICE: i32 = 10;

/// Does `work` on a thread of that name, and returns what came of it; `None` if it panicked, which was logged where it
/// happened, or if there are no threads left.
///
/// It must hold no lock that others wait for: they would wait for as long as the machine is busy.
pub async fn run<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        yield_to_others(gettid());
        // Nobody may wait for it any more.
        let _ = done.send(work());
    });
    if let Err(error) = started {
        warn!(thread = name, %error, "work was left out, as no thread can be started");
        return None;
    }
    result.await.ok()
}

/// On Linux a priority is one of a thread.
fn yield_to_others(thread: Pid) {
    // Whoever may not say so is as urgent as all others.
    let _ = setpriority_process(Some(thread), NICE);
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    fn priority() -> i32 {
        getpriority_process(Some(gettid())).unwrap()
    }

    #[tokio::test]
    async fn others_are_preferred_and_nobody_elses_urgency_changes() {
        let before = priority();
        assert_eq!(run("patient", priority).await, Some(before.max(NICE)));
        assert_eq!(priority(), before);
    }

    #[tokio::test]
    async fn work_that_panics_has_no_result() {
        assert_eq!(run("hasty", || panic!("on purpose")).await, None::<()>);
    }
}
