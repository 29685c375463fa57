//! `corinth-perf compare` tells by its exit status that a gateway became slower.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use corinth_campaign::{
    machine::Fact,
    measure::{Figure, Measure, Sample},
    results::{Results, SCHEMA, SystemRecord},
    system::SystemKey,
};
use tempfile::TempDir;

const SLOWER: Option<i32> = Some(12);
const FINE: Option<i32> = Some(0);

/// Six rounds of bulk in which the machine's speed wanders, with ours at `gbps` of a quiet machine.
fn recorded(gbps: f64) -> Results {
    let systems = [
        (SystemKey::Direct, 30.0),
        (SystemKey::Corinth, gbps),
        (SystemKey::EnvoyMtls, 6.0),
    ];
    let rounds = [1.0, 0.96, 1.04, 1.01, 0.98, 1.02];
    let sample = |gbps: f64, noise: f64| Sample {
        figures: BTreeMap::from([
            (Figure::GigabitsPerSecond, gbps * noise),
            (Figure::CpuSecondsPerGb, 8.0 / gbps),
        ]),
        curve: Vec::new(),
        outside_share: 0.0,
        stolen_share: 0.0,
    };
    let samples = systems.map(|(key, gbps)| {
        let all = rounds.iter().map(|noise| Some(sample(gbps, *noise)));
        (key, all.collect())
    });
    let record = |key| SystemRecord {
        key,
        version: None,
        absent: None,
        files: Vec::new(),
        commands: Vec::new(),
    };
    Results {
        schema: SCHEMA.to_owned(),
        partial: false,
        command: "corinth-perf compare".to_owned(),
        started: "2026-11-20T12:00:00Z".to_owned(),
        rounds: 6,
        seconds: 3,
        environment: vec![Fact::new("kernel", "6.18")],
        systems: systems.map(|(key, _)| record(key)).to_vec(),
        samples: BTreeMap::from([(Measure::Bulk8Up, BTreeMap::from(samples))]),
        problems: Vec::new(),
    }
}

fn compare(program: &Path, words: &[&str]) -> Output {
    let output = Command::new(program).arg("compare").args(words).output();
    output.expect("it can be started")
}

fn own() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_corinth-perf"))
}

/// A file with results, and its path as text.
fn file(folder: &TempDir, name: &str, results: &Results) -> String {
    let path = folder.path().join(name);
    fs::write(&path, serde_json::to_string(results).expect("it is plain")).expect("there is room");
    path.to_string_lossy().into_owned()
}

#[test]
fn a_slower_gateway_makes_it_exit_with_12() {
    let folder = tempfile::tempdir().expect("there is room");
    let before = file(&folder, "before.json", &recorded(8.0));
    let slower = file(&folder, "slower.json", &recorded(6.0));
    let baseline = folder.path().join("baseline.json");
    let baseline = baseline.to_str().expect("it is plain");

    let written = compare(
        &own(),
        &[
            "--from",
            &before,
            "--baseline",
            baseline,
            "--write-baseline",
        ],
    );
    assert_eq!(written.status.code(), FINE, "{written:?}");
    let again = compare(&own(), &["--from", &before, "--baseline", baseline]);
    assert_eq!(again.status.code(), FINE, "{again:?}");

    let found = compare(&own(), &["--from", &slower, "--baseline", baseline]);
    assert_eq!(found.status.code(), SLOWER, "{found:?}");
    let said = String::from_utf8_lossy(&found.stderr);
    assert!(
        said.contains("bulk, 8 streams, up is slower than in the baseline"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_read_is_one_line_and_exits_with_3() {
    let missing = compare(&own(), &["--from", "/nonexistent/results.json"]);
    assert_eq!(missing.status.code(), Some(3));
    let said = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("/nonexistent/results.json"), "{said}");
    let wrong = compare(&own(), &["--rounds", "0"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn our_missing_figures_are_no_success() {
    let folder = tempfile::tempdir().expect("there is room");
    let mut results = recorded(8.0);
    let systems = results
        .samples
        .get_mut(&Measure::Bulk8Up)
        .expect("it is there");
    systems.insert(SystemKey::Corinth, vec![None; 6]);
    let path = file(&folder, "lacking.json", &results);
    let found = compare(
        &own(),
        &[
            "--from",
            &path,
            "--baseline",
            "/dev/null",
            "--write-baseline",
        ],
    );
    assert_eq!(found.status.code(), Some(3), "{found:?}");
}

#[test]
fn half_a_measurement_replaces_no_baseline() {
    let folder = tempfile::tempdir().expect("there is room");
    let kept = folder.path().join("baseline.json");
    let mut cut_short = recorded(8.0);
    cut_short.partial = true;
    let mut too_short = recorded(8.0);
    too_short.rounds = 4;
    for (name, results) in [("cut", cut_short), ("short", too_short)] {
        fs::write(&kept, "what was there").expect("there is room");
        let path = file(&folder, name, &results);
        let words = ["--from", &path, "--write-baseline", "--baseline"];
        let words = [&words[..], &[kept.to_str().expect("it is plain")]].concat();
        let found = compare(&own(), &words);
        assert_eq!(found.status.code(), Some(3), "{name}: {found:?}");
        let text = fs::read_to_string(&kept).expect("it is there");
        assert_eq!(text, "what was there", "{name}");
        assert!(!found.stdout.is_empty(), "{name}: the report is lost");
    }
}

#[test]
fn a_place_that_cannot_be_written_costs_nothing_else() {
    let folder = tempfile::tempdir().expect("there is room");
    let path = file(&folder, "results.json", &recorded(8.0));
    let page = folder.path().join("page.html");
    let page = page.to_str().expect("it is plain");
    // A folder cannot be written as a file.
    let taken = folder.path().to_str().expect("it is plain");
    let words = [
        "--from",
        &path,
        "--baseline",
        taken,
        "--write-baseline",
        "--html",
        page,
    ];
    let found = compare(&own(), &words);
    assert_eq!(found.status.code(), Some(3), "{found:?}");
    assert!(!found.stdout.is_empty());
    assert!(fs::metadata(page).is_ok_and(|page| page.len() > 0));
}

#[test]
fn a_place_that_is_nowhere_is_found_before_anything_is_measured() {
    let found = compare(&own(), &["--html", "/nowhere/at/all.html", "--rounds", "1"]);
    assert_ne!(found.status.code(), FINE, "{found:?}");
    assert!(found.stdout.is_empty());
    let said = String::from_utf8_lossy(&found.stderr);
    assert!(said.contains("/nowhere/at/all.html"), "{said}");
}

/// Measures a gateway, and then the same one while it is stopped two thirds of the time. Takes three minutes, and needs
/// root and release builds of both programs.
#[test]
#[ignore = "runs in the suite bench: it takes minutes, on a machine that does little else"]
fn a_throttled_gateway_is_found_by_measuring() {
    let own = own();
    let target = own.ancestors().nth(2).expect("cargo put it there");
    let built = |profiles: &[&str], name: &str| {
        let paths = profiles
            .iter()
            .map(|profile| target.join(profile).join(name));
        let mut there = paths.filter(|path| path.is_file());
        there
            .next()
            .unwrap_or_else(|| panic!("build {name} for release first"))
    };
    let program = built(&["dist", "release"], "corinth-perf");
    let gateway = built(&["dist", "release"], "corinth-gateway");

    let folder = tempfile::tempdir().expect("there is room");
    let throttled = folder.path().join("throttled");
    fs::write(&throttled, throttle(&gateway)).expect("there is room");
    fs::set_permissions(&throttled, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let baseline = folder.path().join("baseline.json");

    let measure = |gateway: &Path, more: &[&str]| {
        let mut words = vec!["--only", "bulk", "--systems", "direct,corinth,haproxy-mtls"];
        words.extend(["--rounds", "5", "--seconds", "1"]);
        words.extend(["--baseline", baseline.to_str().expect("it is plain")]);
        words.extend(["--gateway", gateway.to_str().expect("it is plain")]);
        words.extend(more);
        let found = compare(&program, &words);
        let _ = std::io::stderr().write_all(&found.stdout);
        found
    };
    let first = measure(&gateway, &["--write-baseline"]);
    assert_eq!(first.status.code(), FINE, "{first:?}");
    let slow = measure(&throttled, &[]);
    assert_eq!(slow.status.code(), SLOWER, "{slow:?}");
}

/// A program that runs another one for 10 of every 30 milliseconds.
fn throttle(program: &Path) -> String {
    format!(
        "#!/bin/sh
{} \"$@\" &
child=$!
trap 'kill -TERM $child; kill -CONT $child; wait $child; exit' TERM INT
while kill -STOP $child 2>/dev/null; do
    sleep 0.02
    kill -CONT $child
    sleep 0.01
done
wait $child
",
        program.display()
    )
}
