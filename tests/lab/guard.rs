//! Whether a laboratory can be made, how many at once, and for how long.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// Laboratories that stand at the same time; one that measures stands alone.
const AT_ONCE: u32 = 2;
/// What the watchdog gives a test to fail by itself, after it ended its programs.
const GRACE: Duration = Duration::from_secs(60);
/// What the names of our namespaces begin with; the process id follows.
pub(crate) const PREFIX: &str = "crn";

/// Where the files of laboratories are.
const FOLDERS: &str = "/tmp";
/// What the names of their folders begin with; the process id follows.
const FOLDER_PREFIX: &str = "corinth-lab-";

/// Programs without which there is no laboratory.
const PROGRAMS: &[&str] = &["ip", "nft", "nginx", "curl", "iperf3", "nc", "openssl"];

/// Is this the long form of the run?
pub fn is_soak() -> bool {
    env::var_os("CORINTH_SOAK").is_some_and(|value| value == "1")
}

/// Why no laboratory can be made here, if so.
pub(crate) fn obstacle() -> Option<&'static str> {
    static OBSTACLE: LazyLock<Option<String>> = LazyLock::new(|| {
        if !geteuid().is_root() {
            return Some("network namespaces need root".to_owned());
        }
        let missing: Vec<_> = PROGRAMS
            .iter()
            .filter(|name| !is_installed(name))
            .copied()
            .collect();
        if !missing.is_empty() {
            return Some(format!("not installed: {}", missing.join(", ")));
        }
        sweep();
        let trial = format!("{PREFIX}{}-trial", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &trial]).output();
        let _ = Command::new("ip").args(["netns", "del", &trial]).output();
        match made {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        }
    });
    OBSTACLE.as_deref()
}

/// Says that a test did not run; in CI that is a failure.
///
/// # Panics
/// In CI.
pub fn skip(name: &str, why: &str) {
    assert!(
        env::var_os("CI").is_none_or(|value| value != "true"),
        "{name} cannot run, and CI=true allows no skips: {why}"
    );
    // Straight to standard error: what tests print is shown only when they fail.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
}

/// The release binary `name`.
///
/// # Panics
/// When it is not there.
pub(crate) fn binary(name: &str) -> PathBuf {
    let folder = env::var_os("CORINTH_BIN_DIR").map_or_else(
        || {
            let own = env::current_exe().expect("a test has a path");
            // target/debug/deps/netns-0123456789abcdef
            let target = own.ancestors().nth(3).expect("cargo put it there");
            target.join("release")
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not there; run `cargo build --release --workspace --bins`, or set CORINTH_BIN_DIR",
        path.display()
    );
    path
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .into_iter()
        .any(|folder: PathBuf| folder.join(program).exists())
}

/// Takes away what a run left behind that was killed: its programs first, then its namespaces and files.
fn sweep() {
    for name in names_in(Path::new("/run/netns")) {
        if is_left_behind(&name, PREFIX) {
            remove(&name);
        }
    }
    for name in names_in(Path::new(FOLDERS)) {
        if is_left_behind(&name, FOLDER_PREFIX) {
            let _ = fs::remove_dir_all(Path::new(FOLDERS).join(name));
        }
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Whether the process whose id follows the prefix has ended. One that nobody waited for has no command line left.
fn is_left_behind(name: &str, prefix: &str) -> bool {
    let owner = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    owner.is_some_and(|id| {
        fs::read(format!("/proc/{id}/cmdline")).map_or(true, |line| line.is_empty())
    })
}

/// Ends every program in a namespace of ours, and the namespace.
pub(crate) fn remove(namespace: &str) {
    end_programs(namespace);
    let _ = Command::new("ip")
        .args(["netns", "del", namespace])
        .output();
}

fn end_programs(namespace: &str) {
    let Ok(output) = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output()
    else {
        return;
    };
    let ids = String::from_utf8_lossy(&output.stdout).into_owned();
    for id in ids
        .lines()
        .filter_map(|id| Pid::from_raw(id.trim().parse().ok()?))
    {
        // A thread of this very test process may be inside.
        if id != rustix::process::getpid() {
            let _ = kill_process(id, Signal::KILL);
        }
    }
}

/// A place among the laboratories that stand at once, given back when dropped. First come, first served, so that one
/// that needs all places gets them.
pub(crate) struct Place {
    places: u32,
}

struct Places {
    free: u32,
    next_ticket: u64,
    called: u64,
}

static PLACES: Mutex<Places> = Mutex::new(Places {
    free: AT_ONCE,
    next_ticket: 0,
    called: 0,
});
static FREED: Condvar = Condvar::new();

impl Place {
    /// Waits for room: for one more, or for nobody else.
    pub(crate) fn take(alone: bool) -> Self {
        let places = if alone { AT_ONCE } else { 1 };
        let mut state = PLACES.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        FREED.wait_while(&mut state, |state| {
            state.called != ticket || state.free < places
        });
        state.free -= places;
        state.called += 1;
        drop(state);
        FREED.notify_all();
        Self { places }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PLACES.lock().free += self.places;
        FREED.notify_all();
    }
}

/// Ends the programs of a laboratory that stands too long, so that its test fails; and the whole run if even that
/// does not help.
pub(crate) struct Watchdog {
    _stop: mpsc::Sender<()>,
}

impl Watchdog {
    pub(crate) fn start(name: &str, namespaces: Vec<String>, deadline: Duration) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let name = name.to_owned();
        thread::spawn(move || {
            let is_late = |within| stopped.recv_timeout(within) == Err(RecvTimeoutError::Timeout);
            if !is_late(deadline) {
                return;
            }
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "{name}: not done within {deadline:?}; its programs are ended"
            );
            namespaces
                .iter()
                .for_each(|namespace| end_programs(namespace));
            if is_late(GRACE) {
                let _ = writeln!(stderr, "{name}: hangs; the run is ended");
                namespaces.iter().for_each(|namespace| remove(namespace));
                std::process::exit(101);
            }
        });
        Self { _stop: stop }
    }
}

/// Where the files of a laboratory are.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(&format!("{FOLDER_PREFIX}{}-", std::process::id()))
        .tempdir_in(FOLDERS)
        .expect("there is room for temporary files")
}
