//! Programs that run in a namespace.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Lines, WAIT};

/// A running program; it is killed when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

/// What a program that ended said.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, line by line.
    pub stdout: Vec<String>,
    /// Standard error, line by line.
    pub stderr: Vec<String>,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let stdout = child.stdout.take().map(Lines::of).unwrap_or_default();
        let stderr = child.stderr.take().map(Lines::of).unwrap_or_default();
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // One that has ended takes no signals, and needs none.
        let _ = id.map(|id| kill_process(id, signal));
    }

    /// Ends it without a chance to say anything.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self, within: Duration) -> Output {
        let name = &self.name;
        assert!(
            self.stdout.closed(within) && self.stderr.closed(within),
            "{name} has not ended within {within:?}: {:#?}",
            self.stderr.all()
        );
        let status = self.child.wait();
        Output {
            status: status.unwrap_or_else(|error| panic!("waiting for {name}: {error}")),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Output {
    /// Standard output as one text.
    pub fn text(&self) -> String {
        self.stdout.join("\n")
    }

    /// Itself, if the program was content.
    ///
    /// # Panics
    /// When its exit code was not 0.
    #[must_use]
    pub fn good(self) -> Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }
}

/// Runs a program to its end.
pub(crate) fn run(name: &str, command: Command) -> Output {
    Process::start(name, command).wait(WAIT)
}
