//! Runs one behaviour on a worker of its own and gives up on it in time.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use tokio::runtime;

/// No behaviour takes longer than this.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs `behaviour` on a current-thread runtime, as a gateway's worker does.
pub(crate) fn to_its_end<F: Future<Output = ()> + 'static>(behaviour: fn() -> F) {
    in_time(move || worker().block_on(behaviour()));
}

/// Runs `test` on a thread of its own, so that one that spins does not keep the test from failing.
pub(crate) fn in_time(test: impl FnOnce() + Send + 'static) {
    let (sender, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        // The receiver waits or has failed.
        let _ = sender.send(());
    });
    match ended.recv_timeout(DEADLINE) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => panic!("not at its end after {DEADLINE:?}"),
        Err(RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// A runtime of one thread.
pub(crate) fn worker() -> runtime::Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Waits for something that no event tells.
pub(crate) async fn eventually(mut is_true: impl FnMut() -> bool) {
    while !is_true() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
