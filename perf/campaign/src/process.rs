//! Processes that run until they are stopped, and commands that run to their end.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Fault, Interrupt};

/// Of each process the last lines are kept, for whoever has to find out what went wrong.
const LINES_MAX: usize = 200;
/// Of these, what a fault shows: as much as a panic says, with its backtrace.
const TAIL_LINES: usize = 80;
/// How often a wait looks around.
const SLICE: Duration = Duration::from_millis(50);
/// Between the end of what a process says and its own end.
const MOMENT: Duration = Duration::from_millis(1);
/// What a process gets to end by itself.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// A long-running process. It is ended when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Lines>,
}

/// What a command that ended said.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

#[derive(Debug, Default)]
struct Lines {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    lines: VecDeque<String>,
    /// Lines ever said.
    count: u64,
    /// Pipes that have not ended.
    open: u8,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command) -> Result<Self, Fault> {
        let mut child = spawn(&mut command)?;
        let lines = Arc::new(Lines::default());
        if let Some(pipe) = child.stdout.take() {
            lines.read(pipe);
        }
        if let Some(pipe) = child.stderr.take() {
            lines.read(pipe);
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
        })
    }

    /// For messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// When it has ended.
    pub fn must_run(&mut self) -> Result<(), Fault> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                self.lines.wait_closed(SLICE);
                Err(self.ended(&status.to_string()))
            }
            Err(error) => Err(self.ended(&error.to_string())),
        }
    }

    fn ended(&self, how: &str) -> Fault {
        Fault::Ended {
            name: self.name.clone(),
            how: how.to_owned(),
            said: self.tail(),
        }
    }

    /// Waits until it says a line with `needle` in it.
    ///
    /// # Errors
    /// When it ends before, or does not say so in time.
    pub fn wait_for_line(
        &mut self,
        needle: &str,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<(), Fault> {
        let mut seen = 0;
        self.wait_until(limit, interrupt, |process| {
            let (found, count) = process.lines.look_for(needle, seen);
            seen = count;
            found
        })
    }

    /// Waits until `is_ready`.
    ///
    /// # Errors
    /// When it ends before, or is not ready in time.
    pub fn wait_until(
        &mut self,
        limit: Duration,
        interrupt: &Interrupt,
        mut is_ready: impl FnMut(&Self) -> bool,
    ) -> Result<(), Fault> {
        let until = Instant::now() + limit;
        loop {
            if is_ready(self) {
                return Ok(());
            }
            self.must_run()?;
            if Instant::now() > until {
                return Err(Fault::NotReady {
                    name: self.name.clone(),
                    seconds: limit.as_secs(),
                    said: self.tail(),
                });
            }
            interrupt.check()?;
            self.lines.wait(SLICE);
        }
    }

    /// Its last lines as one.
    pub fn tail(&self) -> String {
        let said = self.lines.said.lock();
        let skipped = said.lines.len().saturating_sub(TAIL_LINES);
        let last: Vec<&str> = said
            .lines
            .iter()
            .skip(skipped)
            .map(String::as_str)
            .collect();
        last.join(" | ")
    }

    /// Asks it to end, and ends it if it does not.
    pub fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        signal(self.child.id(), Signal::TERM);
        self.lines.wait_closed(STOP_LIMIT);
        if matches!(self.child.try_wait(), Ok(None)) && !self.ends_within(SLICE) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    /// A process may close its pipes a moment before it ends.
    fn ends_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::yield_now();
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Lines {
    fn read(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        let lines = Arc::clone(self);
        lines.said.lock().open += 1;
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!(pipe.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                lines.add(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
            lines.said.lock().open -= 1;
            lines.changed.notify_all();
        });
    }

    fn add(&self, line: String) {
        let mut said = self.said.lock();
        if said.lines.len() == LINES_MAX {
            said.lines.pop_front();
        }
        said.lines.push_back(line);
        said.count += 1;
        self.changed.notify_all();
    }

    /// Whether one of the lines after the first `seen` has `needle`, and how many there were by now.
    fn look_for(&self, needle: &str, seen: u64) -> (bool, u64) {
        let said = self.said.lock();
        let new = usize::try_from(said.count - seen).unwrap_or(usize::MAX);
        let found = said
            .lines
            .iter()
            .rev()
            .take(new)
            .any(|line| line.contains(needle));
        (found, said.count)
    }

    fn wait(&self, limit: Duration) {
        let mut said = self.said.lock();
        let _ = self.changed.wait_for(&mut said, limit);
    }

    fn wait_closed(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut said = self.said.lock();
        while said.open > 0 {
            if self.changed.wait_until(&mut said, until).timed_out() {
                return;
            }
        }
    }
}

/// Runs a command to its end, which it must reach within `limit`; `meanwhile` is called now and then.
///
/// # Errors
/// When it cannot be started, does not end in time, or the end of everything is asked for.
pub fn run(
    mut command: Command,
    limit: Duration,
    interrupt: &Interrupt,
    mut meanwhile: impl FnMut(),
) -> Result<Finished, Fault> {
    let mut child = spawn(&mut command)?;
    // Both pipes are closed by whoever ends, and nobody has to wait for a whole slice.
    let (closed, pipes) = mpsc::channel::<()>();
    let stdout = child
        .stdout
        .take()
        .map(|pipe| read_all(pipe, closed.clone()));
    let stderr = child.stderr.take().map(|pipe| read_all(pipe, closed));
    let until = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Err(failed(&command, error.to_string())),
        }
        if Instant::now() > until || interrupt.check().is_err() {
            end(&mut child);
            interrupt.check()?;
            return Err(failed(
                &command,
                format!("did not end within {} s", limit.as_secs()),
            ));
        }
        if pipes.recv_timeout(SLICE) == Err(RecvTimeoutError::Disconnected) {
            // It is about to end.
            let _ = interrupt.pause(MOMENT);
        } else {
            meanwhile();
        }
    };
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.map_or_else(String::new, |reader| reader.join().unwrap_or_default())
    };
    Ok(Finished {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// Standard output of a short command that must succeed.
///
/// # Errors
/// When it does not.
pub fn output(command: Command, interrupt: &Interrupt) -> Result<String, Fault> {
    let shown = shown(&command);
    let finished = run(command, Duration::from_secs(20), interrupt, || {})?;
    if finished.status.success() {
        return Ok(finished.stdout);
    }
    Err(Fault::Command {
        command: shown,
        said: finished.complaint(),
    })
}

impl Finished {
    /// The last line it said, or how it ended.
    pub fn complaint(&self) -> String {
        let lines = self.stdout.lines().chain(self.stderr.lines());
        let last = lines.rev().find(|line| !line.trim().is_empty());
        last.map_or_else(|| self.status.to_string(), |line| line.trim().to_owned())
    }
}

fn spawn(command: &mut Command) -> Result<Child, Fault> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    child.map_err(|error| failed(command, error.to_string()))
}

fn failed(command: &Command, said: String) -> Fault {
    Fault::Command {
        command: shown(command),
        said,
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Reads to the end, and then drops `closed`.
fn read_all(
    mut pipe: impl Read + Send + 'static,
    closed: mpsc::Sender<()>,
) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        // What came before an error is worth showing too.
        let _ = pipe.read_to_end(&mut text);
        drop(closed);
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends a signal to one process.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // One that has ended takes no signals, and needs none.
    let _ = pid.map(|pid| kill_process(pid, signal));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_a_process_says_is_waited_for() {
        let interrupt = Interrupt::default();
        let mut process = Process::start(
            "talker",
            shell("echo hello; echo READY=1 >&2; exec cat /dev/zero >/dev/null"),
        )
        .expect("sh starts");
        process
            .wait_for_line("READY=1", Duration::from_secs(10), &interrupt)
            .expect("it says so");
        process.stop();
        assert!(process.must_run().is_err());
    }

    #[test]
    fn a_process_that_ends_is_not_waited_for() {
        let mut process = Process::start("quitter", shell("echo no; exit 7")).expect("sh starts");
        let fault = process
            .wait_for_line("READY=1", Duration::from_secs(10), &Interrupt::default())
            .expect_err("it ended");
        assert_eq!(fault.to_string(), "quitter ended (exit status: 7): no");
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let fault = run(
            shell("exec cat /dev/zero >/dev/null"),
            Duration::from_millis(100),
            &Interrupt::default(),
            || {},
        )
        .expect_err("it does not end");
        assert!(fault.to_string().contains("did not end within"), "{fault}");
    }

    #[test]
    fn a_command_that_fails_says_why() {
        let fault =
            output(shell("echo oh no >&2; exit 1"), &Interrupt::default()).expect_err("it failed");
        assert!(fault.to_string().ends_with("oh no"), "{fault}");
    }
}
