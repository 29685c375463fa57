//! How a process is asked to stop: the first SIGTERM or SIGINT drains it, the second ends it at once.

use std::fmt;
use std::io;

use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::drain::Drain;
use crate::ready::Readiness;

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM: from a supervisor.
    Terminate,
    /// SIGINT: from a person at a terminal.
    Interrupt,
}

/// Where stop signals come from: the kernel, or a channel of the caller's.
#[derive(Debug)]
pub struct Signals {
    source: Source,
}

#[derive(Debug)]
enum Source {
    Kernel {
        terminate: unix::Signal,
        interrupt: unix::Signal,
    },
    Channel(mpsc::Receiver<StopSignal>),
}

impl Signals {
    /// Listens for SIGTERM and SIGINT, which from now on no longer end the process by themselves. Needs a tokio
    /// runtime with IO enabled; fails only when the kernel refuses the registration.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            source: Source::Kernel {
                terminate: unix::signal(SignalKind::terminate())?,
                interrupt: unix::signal(SignalKind::interrupt())?,
            },
        })
    }

    /// Signals the caller sends; for processes that hold several gateways, and for tests.
    pub fn from_channel(receiver: mpsc::Receiver<StopSignal>) -> Self {
        Self {
            source: Source::Channel(receiver),
        }
    }

    /// The next signal; `None` when no more can come.
    pub async fn recv(&mut self) -> Option<StopSignal> {
        match &mut self.source {
            Source::Kernel {
                terminate,
                interrupt,
            } => tokio::select! {
                Some(()) = terminate.recv() => Some(StopSignal::Terminate),
                Some(()) = interrupt.recv() => Some(StopSignal::Interrupt),
                else => None,
            },
            Source::Channel(receiver) => receiver.recv().await,
        }
    }

    /// Turns signals into phases: the first makes the process not ready and starts the drain, the second terminates.
    /// Returns after the second, or when no more signals can come.
    pub async fn drive(mut self, readiness: Readiness, drain: Drain) {
        let Some(signal) = self.recv().await else {
            return;
        };
        info!(%signal, open = drain.open(), "draining; a second signal ends at once");
        readiness.drain();
        drain.start();
        let Some(signal) = self.recv().await else {
            return;
        };
        warn!(%signal, open = drain.open(), "terminating at once");
        drain.terminate();
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::drain::Phase;

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_terminates() {
        let (sender, receiver) = mpsc::channel(1);
        let (readiness, drain) = (Readiness::new(), Drain::new());
        let driving =
            tokio::spawn(Signals::from_channel(receiver).drive(readiness.clone(), drain.clone()));
        sender.send(StopSignal::Interrupt).await.unwrap();
        assert_eq!(drain.reached(Phase::Draining).await, Phase::Draining);
        assert!(!readiness.is_ready());
        sender.send(StopSignal::Terminate).await.unwrap();
        assert_eq!(drain.reached(Phase::Terminating).await, Phase::Terminating);
        driving.await.unwrap();
    }

    #[tokio::test]
    async fn a_source_that_ends_changes_nothing() {
        let (sender, receiver) = mpsc::channel(1);
        let (readiness, drain) = (Readiness::new(), Drain::new());
        drop(sender);
        Signals::from_channel(receiver)
            .drive(readiness.clone(), drain.clone())
            .await;
        assert_eq!(drain.phase(), Phase::Running);
        assert!(readiness.is_ready());
    }

    #[test]
    fn real_signals_drain_then_terminate_a_process() {
        for (first, second) in [
            (Signal::TERM, Signal::TERM),
            (Signal::INT, Signal::INT),
            (Signal::INT, Signal::TERM),
        ] {
            let mut child = spawn_child();
            let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
            let mut expect = |wanted: &str| {
                // The test harness prints its own lines around ours, at times on the same line.
                let seen = lines.by_ref().any(|line| line.unwrap().ends_with(wanted));
                assert!(seen, "the child ended before it said {wanted}");
            };
            expect("child: Running");
            let pid = Pid::from_child(&child.0);
            kill_process(pid, first).unwrap();
            expect("child: Draining");
            kill_process(pid, second).unwrap();
            expect("child: Terminating");
            assert!(child.0.wait().unwrap().success());
        }
    }

    /// Not a test: what [`real_signals_drain_then_terminate_a_process`] runs in a process of its own.
    #[test]
    #[ignore = "runs as a child of another test"]
    fn child() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let signals = Signals::listen().unwrap();
            let drain = Drain::new();
            let mut phases = drain.subscribe();
            tokio::spawn(signals.drive(Readiness::new(), drain.clone()));
            loop {
                let phase = *phases.borrow_and_update();
                writeln!(io::stdout(), "child: {phase:?}").unwrap();
                if phase == Phase::Terminating {
                    return;
                }
                phases.changed().await.unwrap();
            }
        });
    }

    /// A process that a failing test does not leave behind.
    struct Spawned(Child);

    impl Drop for Spawned {
        fn drop(&mut self) {
            // Fails when it has ended by itself, as it should have.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn spawn_child() -> Spawned {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "signals::tests::child",
                "--ignored",
                "--nocapture",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Spawned(child)
    }
}
