//! Running a command while the network is there, and ending.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{self, Child, Command, ExitCode, ExitStatus},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use corinth_wan::Wan;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{Args, Inside};

/// How often somebody looks whether the network is still there.
const LOOK: Duration = Duration::from_millis(500);
/// What a command that was asked to end gets.
const GRACE: Duration = Duration::from_secs(3);
/// What a shell says about a program that was ended by a signal: this, and the signal.
const BY_SIGNAL: i32 = 128;

/// Signals, from the moment of watching on.
pub(super) struct Ends {
    signals: Receiver<i32>,
}

/// Why waiting is over.
enum End {
    /// The command ended.
    Command,
    /// Somebody wants the end.
    Asked,
    /// The time is over.
    Time,
}

impl Ends {
    /// Takes the signals that would end us.
    pub(super) fn watch() -> io::Result<Self> {
        let mut signals = Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGTERM])?;
        let (told, heard) = mpsc::channel();
        thread::spawn(move || signals.forever().try_for_each(|signal| told.send(signal)));
        Ok(Self { signals: heard })
    }

    /// Ends the process at the next signal that wants it, without what was made.
    pub(super) fn exit_at_once(self) {
        thread::spawn(move || {
            let wanted = self.signals.iter().find(|signal| *signal != SIGCHLD);
            if let Some(signal) = wanted {
                corinth_wan::clean_up();
                process::exit(BY_SIGNAL + signal);
            }
        });
    }

    /// Waits for one of the ends; `None` if the network broke meanwhile.
    fn wait(
        &self,
        wan: &Wan,
        child: &mut Option<Child>,
        until: Option<Instant>,
    ) -> anyhow::Result<End> {
        loop {
            wan.check()?;
            if let Some(child) = child
                && child.try_wait()?.is_some()
            {
                return Ok(End::Command);
            }
            let left = until.map_or(LOOK, |until| {
                until.saturating_duration_since(Instant::now())
            });
            match self.signals.recv_timeout(left.min(LOOK)) {
                Ok(SIGCHLD) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return Ok(End::Asked),
                Err(RecvTimeoutError::Timeout) => {
                    if until.is_some_and(|until| until <= Instant::now()) {
                        return Ok(End::Time);
                    }
                }
            }
        }
    }
}

/// Runs the command, if there is one, until it ends, the time is over, or somebody wants the end.
pub(super) fn until_the_end(wan: &Wan, args: &Args, ends: &Ends) -> anyhow::Result<ExitCode> {
    let mut child = start(wan, args)?;
    let until = args.duration.map(|duration| Instant::now() + duration);
    let end = ends.wait(wan, &mut child, until);
    let Some(mut child) = child else {
        return end.map(|_| ExitCode::SUCCESS);
    };
    let status = match end {
        Ok(End::Command) => child.wait()?,
        Ok(End::Asked | End::Time) | Err(_) => stop(&mut child, ends)?,
    };
    match end? {
        End::Command | End::Asked => Ok(status_of(status)),
        End::Time => Ok(ExitCode::SUCCESS),
    }
}

fn start(wan: &Wan, args: &Args) -> anyhow::Result<Option<Child>> {
    let Some((program, rest)) = args.command.split_first() else {
        return Ok(None);
    };
    let side = args.inside.map(|inside| match inside {
        Inside::First => &wan.sides()[0],
        Inside::Second => &wan.sides()[1],
    });
    let mut command = match side {
        None => Command::new(program),
        Some(side) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &side.namespace, program]);
            command
        }
    };
    for (side, name) in wan.sides().iter().zip(["FIRST", "SECOND"]) {
        command
            .env(format!("CORINTH_WAN_{name}"), &side.namespace)
            .env(format!("CORINTH_WAN_{name}_V4"), side.v4.addr().to_string())
            .env(format!("CORINTH_WAN_{name}_V6"), side.v6.addr().to_string());
    }
    let child = command.args(rest).spawn();
    child
        .map(Some)
        .with_context(|| format!("starting `{program}`"))
}

/// Asks it to end, and makes it, if it does not.
fn stop(child: &mut Child, ends: &Ends) -> io::Result<ExitStatus> {
    // It may have ended just now.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let until = Instant::now() + GRACE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            child.kill()?;
            return child.wait();
        }
        // Its end is a signal; so is somebody's impatience, which changes nothing.
        let _ = ends.signals.recv_timeout(left);
    }
}

fn status_of(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| Some(BY_SIGNAL + status.signal()?))
        .and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(u8::MAX))
}
