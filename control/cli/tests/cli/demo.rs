//! `corinth demo`.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::support::{Folder, Ran, Running, command, corinth};

#[test]
fn the_demo_passes_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let ran = command(&["demo", "--ci", "--clusters", "3"])
        .env("TMPDIR", folder.path())
        .output();
    let Ran {
        code,
        stdout,
        stderr,
    } = Ran::of(ran.unwrap());
    assert_eq!(code, 0, "{stderr}");
    let head =
        "<testsuite name=\"corinth demo\" tests=\"9\" failures=\"0\" errors=\"0\" skipped=\"0\"";
    assert!(stdout.contains(head), "{stdout}");
    assert!(stdout.ends_with("</testsuites>\n"), "{stdout}");
    for shown in [
        "west made a token, east joined with it and is linked with spiffe://west.corinth.internal/",
        "west exports it no longer: refused with CRN001",
        "calls go on: 2",
        "calls go over QUIC, which is for round trips of more than 6 ms",
        "corinth links: west, transport tls, used yes",
        "calls go over QUIC again after",
        "refused with CRN002 forbidden",
        "refused with CRN023 peer_unreachable",
        "refused with CRN001 unknown_route",
        "answered by web-north",
    ] {
        assert!(stderr.contains(shown), "{shown} is not in\n{stderr}");
    }
    assert!(folder.list("").is_empty());
}

#[test]
fn a_demo_that_is_kept_can_be_tried() {
    let folder = Folder::new();
    let mut demo = command(&["demo", "--keep"]);
    demo.env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = demo.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(|line| line.unwrap().trim().to_owned());
    let admin =
        lines.find_map(|line| Some(line.strip_prefix("corinth links --admin ")?.to_owned()));
    let last = lines.find(|line| line.starts_with("The configurations are"));
    let admin = admin.expect("the demo shows what to try");
    let links = corinth(&["links", "--admin", &admin, "--wait", "--timeout", "10s"]).result();
    assert!(links.contains("✓ up"), "{links}");
    let routes = corinth(&["routes", "--admin", &admin]).result();
    assert!(
        routes.contains("80.web.shop.svc.clusterset.local"),
        "{routes}"
    );
    let config = last.unwrap();
    let config = config.trim_start_matches("The configurations are ");
    let [east, west] = ["east", "west"].map(|name| config.replace('*', name));
    let imports = || corinth(&["imports", "--config", &east, "-o", "name"]).result();
    assert_eq!(
        imports(),
        "import/west/payments.shop\nimport/west/web.shop\n"
    );
    let status = corinth(&["status", "--config", &east]).result();
    assert!(status.contains("east - west"), "{status}");
    corinth(&["unexport", "payments.shop", "--config", &west]).result();
    let begun = Instant::now();
    while imports() != "import/west/web.shop\n" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", imports());
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(folder.list("").is_empty());
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let folder = Folder::new();
    let mut demo = command(&["demo", "--ci"]);
    let mut demo = Running::start(demo.env("TMPDIR", folder.path()).stdout(Stdio::null()));
    demo.wait_for("is linked with");
    demo.signal(Signal::INT);
    assert_eq!(demo.end(), 130);
    assert!(folder.list("").is_empty());
}

#[test]
fn a_demo_that_cannot_begin_fails_by_its_steps() {
    let ran = command(&["demo", "--ci"])
        .env("TMPDIR", "/nonexistent")
        .output();
    let ran = Ran::of(ran.unwrap());
    assert_eq!(ran.code, 10);
    assert!(
        ran.stdout
            .contains("failures=\"1\" errors=\"0\" skipped=\"8\""),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr.contains("No such file or directory"),
        "{}",
        ran.stderr
    );
    corinth(&["demo", "--log", "loud"]).trouble(
        2,
        "--log loud cannot be used",
        "\"loud\" is not a log level; write error, warn, info, debug, trace or off, or target=level",
        "write for example --log info",
    );
}
