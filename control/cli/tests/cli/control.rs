//! The commands that ask a control plane, against one with canned answers.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::plane::{Answers, Plane};
use super::support::{Folder, Ran, command, corinth};

/// `east` in a folder of its own.
fn east(folder: &Folder, answers: Answers) -> Plane {
    Plane::start(folder.file("east.sock"), answers)
}

fn ask(plane: &Plane, arguments: &[&str]) -> Ran {
    let control = ["--control", plane.socket.as_str()];
    corinth(&[arguments, &control].concat())
}

#[test]
fn changes_reach_the_control_plane_and_say_what_holds_now() {
    let folder = Folder::new();
    let plane = east(&folder, Answers::healthy());
    let link = folder.put("west-link.yaml", "cluster: west\n");
    for (arguments, said, asked) in [
        (
            &["link", "add", &link][..],
            "the link with west is declared\n",
            "add cluster: west\n",
        ),
        (
            &["link", "pause", "west"],
            "the link with west is paused\n",
            "CHANGE_PAUSE west",
        ),
        (
            &["link", "resume", "west"],
            "the link with west is in use\n",
            "CHANGE_RESUME west",
        ),
        (
            &["link", "drain", "west"],
            "the link with west takes no new connections where others can; open ones go on\n",
            "CHANGE_DRAIN west",
        ),
        (
            &["link", "transport", "west", "auto"],
            "streams to west are carried by: auto\n",
            "carry west auto",
        ),
        (
            &["link", "transport", "west", "quic", "--congestion", "bbr"],
            "streams to west are carried by: quic, bbr\n",
            "carry west quic bbr",
        ),
        (
            &["link", "confirm", "west"],
            "the link with west holds what the peer offers now, and nothing that it left out\n",
            "CHANGE_CONFIRM west",
        ),
        (
            &[
                "link",
                "delete",
                "west",
                "--accept-risk=drop-live-connections",
            ],
            "the link with west is deleted; the other side may delete it too\n",
            "CHANGE_DELETE west",
        ),
        (
            &["link", "accept", "west", "shop/*", "web.bank"],
            "accepted of west: shop/*, web.bank\n",
            "accept west shop/*,web.bank",
        ),
        (
            &["link", "accept", "west", "--none"],
            "accepted of west: nothing\n",
            "accept west",
        ),
        (
            &["link", "deny", "west.corinth.internal"],
            "west.corinth.internal is no longer believed\n",
            "deny west.corinth.internal false",
        ),
        (
            &["link", "believe", "west.corinth.internal"],
            "west.corinth.internal is believed again\n",
            "deny west.corinth.internal true",
        ),
        (
            &["export", "web.shop", "--to", "west"],
            "web.shop is exported; these clusters may call it now: west\n",
            "export web.shop to west",
        ),
        (
            &[
                "export",
                "web.shop",
                "--port",
                "80",
                "--endpoint",
                "127.0.0.1:8080",
                "127.0.0.1:8081",
                "--tls",
            ],
            "web.shop is exported; these clusters may call it now: west\n",
            "export web.shop to * 80=127.0.0.1:8080,127.0.0.1:8081 tls",
        ),
        (
            &["unexport", "web.shop", "--from", "west"],
            "web.shop is no longer exported to anybody\n",
            "unexport web.shop west",
        ),
    ] {
        assert_eq!(ask(&plane, arguments).result(), said);
        assert_eq!(plane.calls().last().unwrap(), asked);
    }
}

#[test]
fn a_token_is_all_of_the_result_and_can_be_piped() {
    let folder = Folder::new();
    let plane = east(&folder, Answers::healthy());
    let made = ask(
        &plane,
        &["link", "token", "create", "--ttl", "5m", "--uses", "2"],
    );
    assert_eq!(
        (made.code, made.stdout.as_str()),
        (0, "corinth-token-abc\n")
    );
    assert!(
        made.stderr.contains("corinth link join TOKEN"),
        "{}",
        made.stderr
    );
    assert!(
        !made.stderr.contains("corinth-token-abc"),
        "{}",
        made.stderr
    );

    let mut join = command(&[
        "link",
        "join",
        "-",
        "--wait",
        "--one-way",
        "--control",
        &plane.socket,
    ])
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    join.stdin
        .take()
        .unwrap()
        .write_all(b"corinth-token-abc\n")
        .unwrap();
    let joined = Ran::of(join.wait_with_output().unwrap());
    assert_eq!(
        (joined.code, joined.stdout.as_str()),
        (0, "linked with west\n"),
        "{}",
        joined.stderr
    );
    assert_eq!(
        plane.calls(),
        ["token 300 2", "join corinth-token-abc true"]
    );
}

#[test]
fn waiting_for_a_link_ends_and_says_for_what() {
    let folder = Folder::new();
    let mut answers = Answers::healthy();
    answers.status["links"][0]["tunnel"] = "down".into();
    let plane = east(&folder, answers);
    let ran = ask(
        &plane,
        &["link", "join", "abc", "--wait=linked", "--timeout", "600ms"],
    );
    ran.trouble(
        4,
        "the link with west does not stand after 600ms",
        "the tunnel is down",
        "corinth check says what is in the way; the link is declared, and is dialled on",
    );
}

#[test]
fn one_person_links_both_by_a_plan() {
    let folder = Folder::new();
    let (mut first, mut second) = (Answers::healthy(), Answers::west());
    first.status["links"] = json!([]);
    second.status["links"] = json!([]);
    // The configuration says where the socket is.
    std::fs::create_dir(folder.file("east")).unwrap();
    let config = folder.put("east.yaml", "cluster: east\nstateDir: east\n");
    let first = Plane::start(folder.file("east/control.sock"), first);
    let second = Plane::start(folder.file("west.sock"), second);

    let planned = corinth(&["link", &config, &second.socket, "--dry-run"]).result();
    assert!(
        planned.starts_with("plan\n  1 east: make a token for one use, on "),
        "{planned}"
    );
    assert!(first.calls().is_empty() && second.calls().is_empty());

    let linked = corinth(&["link", &config, &second.socket, "--one-way"]);
    assert_eq!(
        (linked.code, linked.stdout.as_str()),
        (0, "east and west are linked\n")
    );
    assert!(
        linked.stderr.contains("only west dials"),
        "{}",
        linked.stderr
    );
    assert_eq!(first.calls(), ["token 60 1"]);
    assert_eq!(second.calls(), ["join corinth-token-abc true"]);
}

#[test]
fn linking_what_is_linked_changes_nothing() {
    let folder = Folder::new();
    let first = east(&folder, Answers::healthy());
    let second = Plane::start(folder.file("west.sock"), Answers::west());
    let linked = corinth(&["link", &first.socket, &second.socket]).result();
    assert_eq!(linked, "east and west are linked already\n");
    assert!(first.calls().is_empty() && second.calls().is_empty());
}

#[test]
fn a_refusal_shows_its_code_and_what_to_do() {
    let folder = Folder::new();
    let mut answers = Answers::healthy();
    answers.refusal = Some(("CRN080", "the token is unknown, used, expired or damaged"));
    let plane = east(&folder, answers);
    ask(&plane, &["link", "join", "abc"]).trouble(
        1,
        "the clusters are not linked",
        "the token is unknown, used, expired or damaged (CRN080)",
        "ask for a new one: corinth link token create; more with corinth explain CRN080",
    );
}

#[test]
fn a_root_is_changed_step_by_step() {
    let folder = Folder::new();
    let plane = east(&folder, Answers::healthy());
    let told = ask(&plane, &["cert", "rotate-root", "begin"]).result();
    assert_eq!(
        told,
        "the new root is announced, the old one issues (sequence 1)\n\
         not held yet by west\nthen: corinth cert rotate-root switch\n"
    );
    ask(&plane, &["cert", "rotate-root", "switch", "--force"]).result();
    assert_eq!(plane.calls(), ["STEP_BEGIN false", "STEP_SWITCH true"]);
    ask(&plane, &["cert", "rotate-root", "finish", "--force"]).trouble(
        2,
        "nothing was done",
        "only switch can be forced: an old root goes when nothing uses it",
        "leave out --force",
    );
}

#[test]
fn deleting_a_link_names_its_risk() {
    corinth(&["link", "delete", "west", "--control", "/nowhere"]).trouble(
        2,
        "the link with west is not deleted",
        "connections that are open over it would be cut",
        "move them away first with corinth link drain west, \
         then repeat this with --accept-risk=drop-live-connections",
    );
}

#[test]
fn which_control_plane_is_meant_has_to_be_said_and_to_be_there() {
    corinth(&["status"]).trouble(
        2,
        "it is not said which control plane to ask",
        "there is neither --control nor --config, and neither CORINTH_CONTROL nor CORINTH_CONFIG is set",
        "name the configuration of the node with --config FILE, or its socket with --control PATH",
    );
    for arguments in [&["status"][..], &["link", "list"], &["exports"]] {
        corinth(&[arguments, &["--control", "/nowhere/control.sock"]].concat()).trouble(
            3,
            "no answer from the control plane at /nowhere/control.sock",
            "No such file or directory (os error 2)",
            "does the node run, as a user whose socket you may open? \
             Name another one with --config FILE or --control PATH",
        );
    }
    let folder = Folder::new();
    let plane = east(&folder, Answers::healthy());
    let asked = command(&["link", "list", "-o", "name"])
        .env("CORINTH_CONTROL", &plane.socket)
        .output();
    assert_eq!(Ran::of(asked.unwrap()).result(), "link/west\n");
}

#[test]
fn what_is_asked_for_is_shown_in_tables() {
    let folder = Folder::new();
    let mut answers = Answers::healthy();
    answers.status["consumers"][1]["applied"] = 5.into();
    answers.status["conditions"] = json!([{
        "code": "CRN079", "name": "stale", "sinceMs": 1, "summary": "left out", "hint": "confirm it",
        "words": "payments.shop", "peer": "west",
    }]);
    let plane = east(&folder, answers);
    let shown = |arguments: &[&str]| {
        let ran = ask(&plane, arguments);
        assert_eq!(ran.stderr, "");
        format!(
            "$ corinth {} -> {}\n{}\n",
            arguments.join(" "),
            ran.code,
            ran.stdout
        )
    };
    let screens: String = [
        &["status"][..],
        &["link", "list"],
        &["link", "status", "west"],
        &["link", "show"],
        &["exports"],
        &["imports"],
        &["routes", "get", "payments.shop"],
        &["routes", "get", "payments.shop", "--why"],
        &["diff"],
        &["cert", "list"],
        &["path", "east/shop/web", "payments.shop:80"],
        &["check", "--skip", "CRN601,CRN602,CRN603"],
        &["check", "--only", "CRN204", "--fail-on", "warning"],
    ]
    .into_iter()
    .map(shown)
    .collect();
    let golden = include_str!("golden/control.txt");
    assert!(screens == golden, "{screens}");
}

#[test]
fn programs_get_what_the_control_plane_says() {
    let folder = Folder::new();
    let plane = east(&folder, Answers::healthy());
    for (arguments, kind) in [
        (&["status"][..], "ClusterStatus"),
        (&["link", "list"], "ClusterLinks"),
        (&["link", "status"], "ClusterLinks"),
        (&["exports"], "Exports"),
        (&["imports"], "Imports"),
        (&["routes", "get", "payments.shop"], "ControlRoutes"),
        (&["diff"], "Consumers"),
        (&["cert", "list"], "Certificates"),
        (&["path", "east", "20080"], "PathSteps"),
        (&["check"], "CheckReport"),
    ] {
        let envelope = ask(&plane, &[arguments, &["-o", "json"]].concat()).envelope(kind);
        assert_eq!(envelope["partial"], false, "{arguments:?}");
        assert!(
            !envelope["items"].as_array().unwrap().is_empty(),
            "{arguments:?}"
        );
    }
    let links = ask(&plane, &["link", "list", "-o", "json"]).envelope("ClusterLinks");
    assert_eq!(links["items"][0]["relation"], json!({"held": "1.4"}));
    let junit = ask(&plane, &["check", "-o", "junit"]).result();
    assert!(junit.contains("failures=\"0\""), "{junit}");
}

#[test]
fn one_that_does_not_answer_makes_the_answer_partial() {
    let folder = Folder::new();
    let plane = east(&folder, Answers::healthy());
    let nowhere = folder.named("north.sock");
    let ran = ask(&plane, &["status", "--control", &nowhere]);
    assert_eq!(ran.code, 5);
    assert!(
        ran.stdout.contains("✗ no answer") && ran.stdout.contains("✓ answers"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr
            .ends_with("1 of 2 control planes did not answer\n"),
        "{}",
        ran.stderr
    );
    let envelope =
        ask(&plane, &["status", "--control", &nowhere, "-o", "json"]).envelope("ClusterStatus");
    assert_eq!(envelope["partial"], true);
    assert_eq!(envelope["items"][0]["cluster"], "east");
}

#[test]
fn if_nobody_answers_the_first_that_was_asked_is_told_of() {
    let sockets = ["/nowhere/first.sock", "/nowhere/second.sock"];
    let asked = ["status", "--control", sockets[0], "--control", sockets[1]];
    corinth(&asked).trouble(
        3,
        "no answer from the control plane at /nowhere/first.sock",
        "No such file or directory (os error 2)",
        "does the node run, as a user whose socket you may open? \
         Name another one with --config FILE or --control PATH",
    );
}

#[test]
fn a_path_is_walked_on_both_sides_and_says_what_blocks() {
    let folder = Folder::new();
    let near = east(&folder, Answers::healthy());
    let mut closed = Answers::west();
    closed.exports[0]["openTo"] = json!([]);
    closed.exports[0]["to"] = json!(["north"]);
    let far = Plane::start(folder.file("west.sock"), closed);
    let ran = ask(
        &near,
        &["path", "east", "payments.shop:80", "--control", &far.socket],
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (10, ""));
    assert!(
        ran.stdout
            .ends_with("result: blocked at audience: not open to east; declared for: north\n"),
        "{}",
        ran.stdout
    );
    ask(&near, &["path", "north", "payments.shop"]).trouble(
        2,
        "there is no way to walk from north",
        "the control planes that were asked are of: east",
        "name the control plane of north with --config or --control",
    );
}

#[test]
fn what_is_not_there_is_found_missing() {
    let folder = Folder::new();
    let plane = east(&folder, Answers::healthy());
    ask(&plane, &["link", "status", "north"]).trouble(
        10,
        "no link with north can be shown",
        "there is no link with this cluster (CRN095)",
        "corinth link list",
    );
    let missing = ask(&plane, &["routes", "get", "nobody.shop"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (10, ""));
    assert!(missing.stderr.contains("(CRN001)"), "{}", missing.stderr);
    ask(&plane, &["check", "--only", "CRN999"]).trouble(
        2,
        "there is no check CRN999",
        "checks have codes such as CRN201",
        "corinth explain lists all codes",
    );
}

#[test]
fn a_check_that_cannot_look_says_so() {
    let ran = corinth(&["check", "--control", "/nowhere/control.sock"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (3, ""));
    assert!(
        ran.stdout.contains("✗ CRN201 the control plane answers"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_check_to_which_a_part_was_not_told_is_partial() {
    let folder = Folder::new();
    let mut answers = Answers::healthy();
    answers.imports = json!("nothing that is known here");
    let plane = east(&folder, answers);
    let ran = ask(&plane, &["check", "--skip", "CRN303", "-o", "json"]);
    assert_eq!(ran.code, 5, "{}", ran.stdout);
    let envelope = ran.envelope("CheckReport");
    assert_eq!(envelope["partial"], true);
    let error = envelope["errors"][0].as_str().unwrap();
    assert!(error.starts_with("imports: "), "{error}");
}

#[test]
fn a_watched_status_is_printed_again_when_it_has_changed() {
    let folder = Folder::new();
    let mut answers = Answers::healthy();
    let plane = east(&folder, answers.clone());
    let mut watching = command(&["status", "--watch", "--control", &plane.socket])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = |text: &str| {
        let mut lines = lines.by_ref().map(Result::unwrap);
        let found = lines.find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("it ended before it said {text}"))
    };
    assert!(next("east - west").contains("31.0 ms"));

    // A round trip that takes longer is no change, but is told with the next one.
    answers.status["links"][0]["rttUs"] = 32_000.into();
    plane.set_answers(answers.clone());
    answers.status["links"][0]["tunnel"] = "down".into();
    plane.set_answers(answers);
    let link = next("east - west");
    assert!(link.contains("down") && link.contains("32.0 ms"), "{link}");

    // One that goes away is waited for.
    drop(plane);
    next("no answer");
    std::fs::remove_file(folder.file("east.sock")).unwrap();
    let _back = east(&folder, Answers::healthy());
    assert!(next("east - west").contains("31.0 ms"));
    kill_process(Pid::from_child(&watching), Signal::INT).unwrap();
    assert_eq!(watching.wait().unwrap().code(), Some(130));
}
