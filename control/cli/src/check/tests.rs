use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::observed::{Observed, Probe};
use super::{CATALOGUE, Outcome, State, judge, junit, report};
use crate::control::testing;
use crate::terminal::Style;

/// What is observed of a healthy cluster, as JSON that a test can change.
struct Made {
    status: Value,
    exports: Value,
    imports: Value,
    certificates: Value,
    probe: Probe,
}

impl Made {
    fn healthy() -> Self {
        let address = "203.0.113.10:15443".parse().unwrap();
        Self {
            status: testing::healthy(),
            exports: testing::exports(),
            imports: testing::imports(),
            certificates: testing::certificates(),
            probe: Probe {
                resolved: Ok(vec![address]),
                answered: Ok(Duration::from_millis(31)),
            },
        }
    }

    fn observed(self) -> Observed {
        Observed {
            place: "/run/east/control.sock".to_owned(),
            status: Ok(testing::json(self.status)),
            exports: Ok(testing::json(self.exports)),
            imports: Ok(testing::json(self.imports)),
            certificates: Ok(testing::json(self.certificates)),
            probes: [("203.0.113.10:15443".to_owned(), self.probe)].into(),
            now: 0,
        }
    }

    fn link(&mut self) -> &mut Value {
        &mut self.status["links"][0]
    }

    fn condition(&mut self, code: &str) {
        self.status["conditions"] = json!([{
            "code": code, "name": "made_up", "sinceMs": 1, "summary": "made up", "hint": "nothing",
            "words": "as an example", "peer": "west",
        }]);
    }

    fn condition_of(code: &'static str) -> impl Fn(&mut Self) {
        move |made| made.condition(code)
    }
}

/// The codes with something wrong, each with how bad it is.
fn wrong(outcomes: &[Outcome]) -> Vec<(&'static str, State)> {
    let wrong = outcomes
        .iter()
        .filter(|outcome| matches!(outcome.state, State::Warning | State::Error));
    wrong.map(|outcome| (outcome.code, outcome.state)).collect()
}

fn after(change: impl Fn(&mut Made)) -> Vec<Outcome> {
    let mut made = Made::healthy();
    change(&mut made);
    judge(&made.observed())
}

type Change = Box<dyn Fn(&mut Made)>;

/// For each check something that makes it fail, and nothing else.
fn provocations() -> Vec<(&'static str, State, Change)> {
    use State::{Error, Warning};
    let mut all: Vec<(&'static str, State, Change)> = vec![
        (
            "CRN202",
            Error,
            Box::new(|made| made.status["consumers"] = json!([])),
        ),
        (
            "CRN203",
            Error,
            Box::new(|made| made.status["consumers"][0]["refused"] = json!([7, "too long"])),
        ),
        (
            "CRN204",
            Warning,
            Box::new(|made| made.status["consumers"][0]["applied"] = 5.into()),
        ),
        (
            "CRN112",
            Warning,
            Box::new(|made| made.status["consumers"][0]["version"] = "9.1.0".into()),
        ),
        (
            "CRN303",
            Error,
            Box::new(|made| {
                made.link()["tunnel"] = "down".into();
                made.imports = json!([]);
                made.probe.answered = Err("connection refused".to_owned());
            }),
        ),
        (
            "CRN302",
            Error,
            Box::new(|made| {
                made.link()["tunnel"] = "down".into();
                made.imports = json!([]);
                made.probe.resolved = Err("no such name".to_owned());
            }),
        ),
        (
            "CRN301",
            Warning,
            Box::new(|made| {
                made.link()["addresses"] = json!([]);
                made.link()["tunnel"] = "draining".into();
                made.link()["mode"] = "active".into();
            }),
        ),
        (
            "CRN304",
            Error,
            Box::new(|made| {
                made.link()["tunnel"] = "down".into();
                made.imports = json!([]);
            }),
        ),
        (
            "CRN306",
            Error,
            Box::new(|made| made.link()["peering"] = "silent".into()),
        ),
        (
            "CRN308",
            Warning,
            Box::new(|made| made.link()["mode"] = "draining".into()),
        ),
        (
            "CRN310",
            Warning,
            Box::new(|made| made.link()["rttUs"] = 400_000.into()),
        ),
        (
            "CRN402",
            Error,
            Box::new(|made| made.exports[0]["endpoints"] = 0.into()),
        ),
        (
            "CRN408",
            Warning,
            Box::new(|made| made.exports[0]["openTo"] = json!([])),
        ),
        (
            "CRN403",
            Error,
            Box::new(|made| made.imports[0]["ready"] = 0.into()),
        ),
        (
            "CRN407",
            Warning,
            Box::new(|made| made.imports[0]["stale"] = true.into()),
        ),
        (
            "CRN601",
            Error,
            Box::new(|made| made.certificates[0]["notAfter"] = 0.into()),
        ),
        (
            "CRN601",
            Warning,
            Box::new(|made| made.certificates[1]["renewBy"] = (-1).into()),
        ),
        (
            "CRN602",
            Warning,
            Box::new(|made| made.certificates[2]["notAfter"] = 86_400.into()),
        ),
        (
            "CRN603",
            Error,
            Box::new(|made| made.certificates[3]["peer"] = "north".into()),
        ),
    ];
    for (check, condition, state) in [
        ("CRN205", "CRN096", Error),
        ("CRN206", "CRN097", Warning),
        ("CRN207", "CRN095", Warning),
        ("CRN305", "CRN076", Error),
        ("CRN307", "CRN075", Warning),
        ("CRN309", "CRN078", Error),
        ("CRN311", "CRN077", Warning),
        ("CRN313", "CRN074", Warning),
        ("CRN401", "CRN090", Warning),
        ("CRN404", "CRN092", Error),
        ("CRN405", "CRN070", Warning),
        ("CRN406", "CRN091", Error),
        ("CRN409", "CRN073", Warning),
        ("CRN410", "CRN099", Error),
        ("CRN604", "CRN087", Warning),
    ] {
        all.push((check, state, Box::new(Made::condition_of(condition))));
    }
    all
}

#[test]
fn a_healthy_cluster_passes_every_check() {
    let outcomes = after(|_| {});
    assert!(
        outcomes.iter().all(|outcome| outcome.state == State::Ok),
        "{outcomes:#?}"
    );
    let seen: BTreeSet<_> = outcomes.iter().map(|outcome| outcome.code).collect();
    assert_eq!(seen.len(), CATALOGUE.len());
}

#[test]
fn every_check_can_fail_and_fails_alone() {
    let mut provoked = BTreeSet::from(["CRN201"]);
    for (code, state, change) in provocations() {
        let wrong = wrong(&after(change));
        // No address leaves a tunnel that is not up a warning too.
        let wrong: Vec<_> = wrong
            .into_iter()
            .filter(|found| code != "CRN301" || found.0 == code)
            .collect();
        assert_eq!(wrong, [(code, state)], "{code}");
        provoked.insert(code);
    }
    let all: BTreeSet<_> = CATALOGUE.iter().map(|check| check.code).collect();
    assert_eq!(provoked, all);
}

#[test]
fn without_an_answer_everything_else_is_skipped() {
    let mut observed = Made::healthy().observed();
    observed.status = Err("no such file".to_owned());
    observed.exports = Err("no such file".to_owned());
    let outcomes = judge(&observed);
    assert_eq!(wrong(&outcomes), [("CRN201", State::Error)]);
    let skipped = outcomes
        .iter()
        .find(|outcome| outcome.code == "CRN402")
        .unwrap();
    assert_eq!(
        (skipped.state, skipped.seen.as_str()),
        (State::Skipped, "because of CRN201")
    );
}

#[test]
fn a_failed_stage_skips_those_behind_it_on_the_same_link_only() {
    let outcomes = after(|made| {
        let mut north = made.link().clone();
        north["cluster"] = "north".into();
        north["addresses"] = json!([]);
        made.link()["tunnel"] = "down".into();
        made.probe.answered = Err("nothing came within 3s".to_owned());
        made.status["links"].as_array_mut().unwrap().push(north);
    });
    let state = |code, subject: &str| {
        let mut outcomes = outcomes.iter();
        let is_meant = |one: &&Outcome| one.code == code && one.subject.as_deref() == Some(subject);
        outcomes
            .find(is_meant)
            .map(|one| (one.state, one.seen.clone()))
            .unwrap()
    };
    assert_eq!(state("CRN303", "west").0, State::Error);
    assert_eq!(
        state("CRN304", "west"),
        (State::Skipped, "because of CRN303".to_owned())
    );
    assert_eq!(state("CRN304", "north").0, State::Ok);
}

#[test]
fn what_is_not_reached_from_here_is_no_error_while_the_tunnel_is_up() {
    let outcomes = after(|made| made.probe.answered = Err("nothing came within 3s".to_owned()));
    assert_eq!(wrong(&outcomes), [("CRN303", State::Warning)]);
}

#[test]
fn the_report_says_what_was_seen_and_what_to_do() {
    let outcomes = after(|made| made.link()["peering"] = "silent".into());
    let outcomes: Vec<_> = outcomes
        .into_iter()
        .filter(|outcome| ["CRN201", "CRN306"].contains(&outcome.code))
        .collect();
    let plain = Style {
        is_coloured: false,
        is_utf8: true,
    };
    assert_eq!(
        report(&outcomes, plain),
        "control plane
✓ CRN201 the control plane answers (east, revision 7)

links
✗ CRN306 west: the peer's control plane is heard
    seen  silent
    do    look into the log of the control plane of west; what it told before stays in use
    more  corinth explain CRN306

1 ok, 0 warnings, 1 error, 0 skipped
"
    );
    let xml = junit::junit(&outcomes);
    assert!(xml.contains("tests=\"2\" failures=\"1\""), "{xml}");
    assert!(xml.contains("<failure message=\"silent\">"), "{xml}");
}

#[test]
fn every_check_is_documented() {
    let document = include_str!("../../../../docs/cli.md");
    for check in CATALOGUE {
        let row = format!("| `{}` | {} |", check.code, check.sentence);
        assert!(document.contains(&row), "docs/cli.md lacks: {row}");
    }
}
