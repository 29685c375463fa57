use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::Mode;
use tempfile::TempDir;

use super::*;
use crate::metrics::Build;

/// Far more than any wait here takes.
const PLENTY: Duration = Duration::from_secs(30);

#[test]
fn lines_arrive_whole_and_in_order() {
    let lab = Lab::new();
    let log = lab.open();
    let wanted: Vec<_> = (0..5_000).map(|n| format!("{{\"n\":{n}}}")).collect();
    for line in &wanted {
        log.write(line);
    }
    assert!(log.close(PLENTY));
    assert_eq!(lab.lines(), wanted);
    assert_eq!(log.dropped(), 0);
    assert!(lab.metric("corinth_access_log_lines_total 5000"));
}

#[test]
fn lines_of_many_threads_do_not_mix() {
    let lab = Lab::new();
    let log = lab.open();
    thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let log = log.clone();
            scope.spawn(move || {
                for _ in 0..1_000 {
                    log.write(&name.repeat(100));
                }
            });
        }
    });
    assert!(log.flush(PLENTY));
    let lines = lab.lines();
    assert_eq!(lines.len(), 4_000);
    for name in ["a", "b", "c", "d"] {
        let wanted = name.repeat(100);
        assert_eq!(lines.iter().filter(|line| **line == wanted).count(), 1_000);
    }
}

#[test]
fn a_renamed_file_is_opened_anew() {
    let lab = Lab::new();
    let log = lab.open();
    log.write("before");
    assert!(log.flush(PLENTY));
    let moved = lab.folder.path().join("access.log.1");
    fs::rename(&lab.path, &moved).unwrap();
    log.write("after");
    assert!(log.flush(PLENTY));
    assert_eq!(fs::read_to_string(&moved).unwrap(), "before\n");
    assert_eq!(lab.lines(), ["after"]);
}

#[test]
fn a_file_replaced_by_the_rotation_is_used() {
    let lab = Lab::new();
    let log = lab.open();
    log.write("before");
    assert!(log.flush(PLENTY));
    fs::rename(&lab.path, lab.folder.path().join("access.log.1")).unwrap();
    fs::write(&lab.path, "made by the rotation\n").unwrap();
    log.write("after");
    assert!(log.flush(PLENTY));
    assert_eq!(lab.lines(), ["made by the rotation", "after"]);
}

#[test]
fn a_truncated_file_is_appended_to_from_its_start() {
    let lab = Lab::new();
    let log = lab.open();
    log.write("before");
    assert!(log.flush(PLENTY));
    fs::write(&lab.path, "").unwrap();
    log.write("after");
    assert!(log.flush(PLENTY));
    assert_eq!(fs::read(&lab.path).unwrap(), b"after\n");
}

#[test]
fn a_rotation_that_leaves_no_folder_keeps_the_old_file() {
    let lab = Lab::new();
    let folder = lab.folder.path().join("deep");
    fs::create_dir(&folder).unwrap();
    let metrics = metrics();
    let target = AccessLogTarget::File(folder.join("access.log"));
    let log = AccessLog::open(target, &metrics).unwrap();
    let moved = lab.folder.path().join("moved");
    fs::rename(&folder, &moved).unwrap();
    log.write("still here");
    assert!(log.flush(PLENTY));
    let text = fs::read_to_string(moved.join("access.log")).unwrap();
    assert_eq!(text, "still here\n");
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_reader_that_stalls_costs_lines_and_never_time() {
    let lab = Lab::new();
    // A FIFO nobody reads from: its 64 KiB fill, then the writer thread hangs in write.
    rustix::fs::mkfifoat(rustix::fs::CWD, &lab.path, Mode::RUSR | Mode::WUSR).unwrap();
    let mut reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&lab.path)
        .unwrap();
    let log = lab.open();
    let line = "x".repeat(1023);
    let started = Instant::now();
    for _ in 0..4_096 {
        log.write(&line);
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    // 64 in the pipe, at most 1,024 with the writer and 1,024 in the queue.
    let dropped = log.dropped();
    assert!((1_984..4_096).contains(&dropped), "{dropped}");
    assert!(!log.flush(Duration::from_millis(10)));
    assert!(!log.close(Duration::from_millis(10)));
    let kept = 4_096 - usize::try_from(dropped).unwrap();
    let mut bytes = vec![0; kept * 1024];
    reader.read_exact(&mut bytes).unwrap();
    assert!(log.close(PLENTY));
    assert!(
        bytes
            .chunks(1024)
            .all(|chunk| chunk[..1023] == *line.as_bytes())
    );
    assert!(lab.metric(&format!(
        "corinth_access_log_dropped_total{{reason=\"full\"}} {dropped}"
    )));
}

#[test]
fn a_full_disk_costs_lines_and_is_counted() {
    let metrics = metrics();
    let log = AccessLog::open(AccessLogTarget::File("/dev/full".into()), &metrics).unwrap();
    log.write("lost");
    log.write("lost too");
    assert!(log.flush(PLENTY));
    assert_eq!(log.dropped(), 2);
    let text = metrics.text().unwrap();
    assert!(text.contains("corinth_access_log_dropped_total{reason=\"failed\"} 2\n"));
    assert!(text.contains("corinth_access_log_lines_total 0\n"));
}

#[test]
fn a_line_larger_than_the_queue_is_dropped() {
    let lab = Lab::new();
    let log = lab.open();
    log.write(&"x".repeat(QUEUE_MAX_BYTES));
    log.write("fits");
    assert!(log.close(PLENTY));
    assert_eq!(lab.lines(), ["fits"]);
    assert_eq!(log.dropped(), 1);
}

#[test]
fn lines_after_closing_are_counted_as_dropped() {
    let lab = Lab::new();
    let log = lab.open();
    assert!(log.close(PLENTY));
    assert!(log.close(PLENTY));
    log.write("late");
    assert_eq!(log.dropped(), 1);
    assert!(lab.metric("corinth_access_log_dropped_total{reason=\"closed\"} 1"));
    assert!(log.flush(PLENTY));
}

#[test]
fn lines_written_before_the_last_clone_goes_are_not_lost() {
    let lab = Lab::new();
    let log = lab.open();
    let shared = Arc::clone(&log.owner.as_ref().unwrap().shared);
    log.write("last words");
    drop(log.clone());
    log.write("and more");
    drop(log);
    let mut queue = shared.queue.lock();
    let ended = |queue: &Queue| queue.state == QueueState::Closed;
    assert!(shared.wait_until(&mut queue, PLENTY, ended));
    assert_eq!(lab.lines(), ["last words", "and more"]);
}

#[test]
fn an_idle_log_keeps_little_memory() {
    let lab = Lab::new();
    let log = lab.open();
    for _ in 0..2_000 {
        log.write(&"x".repeat(400));
    }
    assert!(log.flush(PLENTY));
    for _ in 0..2 {
        log.write("settle");
        assert!(log.flush(PLENTY));
    }
    let shared = &log.owner.as_ref().unwrap().shared;
    assert!(shared.queue.lock().bytes.capacity() <= 64 << 10);
}

#[test]
fn off_takes_lines_and_does_nothing() {
    let metrics = metrics();
    let log = AccessLog::open(AccessLogTarget::Off, &metrics).unwrap();
    assert!(!log.is_on());
    log.write("nowhere");
    assert!(log.flush(Duration::ZERO));
    assert!(log.close(Duration::ZERO));
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_file_that_cannot_be_opened_says_where_and_what_to_do() {
    let lab = Lab::new();
    let path = lab.folder.path().join("missing/access.log");
    let target = AccessLogTarget::File(path.clone());
    let Err(error) = AccessLog::open(target, &metrics()) else {
        panic!("opened a file in a folder that does not exist");
    };
    assert_eq!(
        error.to_string(),
        format!(
            "access log {}: No such file or directory (os error 2); does its folder exist, and may this user write there?",
            path.display()
        )
    );
}

#[test]
fn a_new_file_is_not_readable_by_everyone() {
    use std::os::unix::fs::PermissionsExt;

    let lab = Lab::new();
    let _log = lab.open();
    let mode = fs::metadata(&lab.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn targets_parse_and_print() {
    for text in ["off", "stdout", "stderr", "/var/log/access.log", "./a"] {
        let target: AccessLogTarget = text.parse().unwrap();
        assert_eq!(target.to_string(), text);
    }
    for text in ["", "std out", "access.log", "/var/log/"] {
        assert!(text.parse::<AccessLogTarget>().is_err(), "{text}");
    }
}

#[test]
fn stdout_and_stderr_receive_lines() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "access_log::tests::child", "--ignored"])
        .arg("--nocapture")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stdout.contains("to stdout\n"), "{stdout}");
    assert!(stderr.contains("to stderr\n"), "{stderr}");
}

/// Not a test: what [`stdout_and_stderr_receive_lines`] runs in a process of its own.
#[test]
#[ignore = "runs as a child of another test"]
fn child() {
    for (target, line) in [
        (AccessLogTarget::Stdout, "to stdout"),
        (AccessLogTarget::Stderr, "to stderr"),
    ] {
        let log = AccessLog::open(target, &metrics()).unwrap();
        log.write(line);
        assert!(log.close(PLENTY));
    }
}

struct Lab {
    folder: TempDir,
    path: PathBuf,
    metrics: Metrics,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        Self {
            folder,
            path,
            metrics: metrics(),
        }
    }

    fn open(&self) -> AccessLog {
        AccessLog::open(AccessLogTarget::File(self.path.clone()), &self.metrics).unwrap()
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }

    fn metric(&self, line: &str) -> bool {
        let text = self.metrics.text().unwrap();
        text.lines().any(|seen| seen == line)
    }
}

fn metrics() -> Metrics {
    Metrics::new(Build {
        binary: "corinth-test",
        version: "0.0.0",
    })
    .unwrap()
}
