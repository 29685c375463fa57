//! Runs the binary and looks at what came out.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// What a run of the binary left.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The binary in a plain environment: no colour unless asked for, UTF-8, no variables that stand for options.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corinth"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env("LC_ALL", "C.UTF-8");
    for variable in [
        "CORINTH_CONFIG",
        "CORINTH_ADMIN",
        "CORINTH_CONTROL",
        "NO_COLOR",
        "CLICOLOR_FORCE",
        "NOTIFY_SOCKET",
    ] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn corinth(arguments: &[&str]) -> Ran {
    Ran::of(command(arguments).output().unwrap())
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().expect("not ended by a signal"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// It went well: the result, and nothing on stderr.
    pub(crate) fn result(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""));
        self.stdout
    }

    /// What stands in the JSON envelope.
    pub(crate) fn envelope(&self, kind: &str) -> Value {
        let envelope: Value = serde_json::from_str(&self.stdout).unwrap();
        assert_eq!(envelope["apiVersion"], "cli.corinth.dev/v1");
        assert_eq!(envelope["kind"], kind);
        assert!(envelope["generatedAt"].is_string());
        envelope
    }

    /// It went wrong with `code`, and said what, why and what to do, without a result.
    pub(crate) fn trouble(self, code: i32, what: &str, why: &str, remedy: &str) {
        let Self {
            code: found,
            stdout,
            stderr,
        } = self;
        assert_eq!((found, stdout.as_str()), (code, ""), "{stderr}");
        let expected = format!("error: {what}\n  why: {why}\n   do: {remedy}\n");
        assert_eq!(stderr, expected);
    }
}

/// A directory with files in it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The path as an argument.
    pub(crate) fn named(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    /// Writes a file and gives its path as an argument.
    pub(crate) fn put(&self, name: &str, text: &str) -> String {
        std::fs::write(self.file(name), text).unwrap();
        self.named(name)
    }

    /// The names of everything in `folder`.
    pub(crate) fn list(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.file(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

/// A process that a failing test does not leave behind.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStderr>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines }
    }

    /// Reads its stderr until a line holds `text`.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let mut seen = String::new();
        loop {
            let from = seen.len();
            let read = self.lines.read_line(&mut seen).unwrap();
            assert!(read > 0, "it ended before it said {text}:\n{seen}");
            if seen[from..].contains(text) {
                return;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; the exit code.
    pub(crate) fn end(mut self) -> i32 {
        // Whoever does not read may make the other side wait.
        std::io::copy(&mut self.lines, &mut std::io::sink()).unwrap();
        self.child
            .wait()
            .unwrap()
            .code()
            .expect("not ended by a signal")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended by itself, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address nobody listens on. Its port is one that neither outgoing connections nor a demo take.
pub(crate) fn free_address() -> SocketAddr {
    loop {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(28_000..32_000)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
