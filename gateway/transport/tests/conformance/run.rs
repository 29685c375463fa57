//! Runs one behaviour on a worker of its own and gives up on it in time.

use std::{
    env,
    process::Command,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use tokio::runtime;

/// No behaviour takes longer than this.
const DEADLINE: Duration = Duration::from_secs(30);

/// In the environment of a process that runs one behaviour.
const ALONE: &str = "CORINTH_TEST_ALONE";

/// Runs the test of that path once more in a process of its own, where `behaviour` runs as [`to_its_end`] does: what it asks
/// about its process is then of nobody else.
pub(crate) fn alone<F: Future<Output = ()> + 'static>(test: &str, behaviour: fn() -> F) {
    if env::var_os(ALONE).is_some() {
        return to_its_end(behaviour);
    }
    let own = env::current_exe().expect("a test has a path");
    let mut command = Command::new(own);
    command.args(["--exact", test, "--nocapture"]);
    let ran = command.env(ALONE, "1").output().expect("it can be run");
    let said = String::from_utf8_lossy(&ran.stdout);
    let is_right = ran.status.success() && said.contains("1 passed");
    assert!(is_right, "{said}{}", String::from_utf8_lossy(&ran.stderr));
}

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
