use std::{cell::Cell, net::SocketAddr};

use corinth_load::result::{Environment, Latency, Loop, Rate, SCHEMA, TestSpec};
use rustix::process::geteuid;

use crate::{
    Interrupt,
    lab::{LinkMtu, Middle},
    load::Pace,
    process::Process,
    programs::Programs,
    system::direct,
    testing::{place, results},
};

use super::*;

#[test]
fn all_keep_half_of_the_lowest_knee_or_half_of_their_own() {
    let schedules = Schedules {
        knees: vec![
            (SystemKey::Direct, 100_000.0),
            (SystemKey::Corinth, 20_000.0),
        ],
    };
    let rate = |measure, key| schedules.per_second(measure, key);
    for key in [SystemKey::Direct, SystemKey::Corinth] {
        assert_eq!(rate(Measure::OpenSame, key), Some(10_000.0));
    }
    assert_eq!(rate(Measure::OpenOwn, SystemKey::Direct), Some(50_000.0));
    // One whose knee was not found has no schedule.
    assert_eq!(rate(Measure::OpenSame, SystemKey::Stunnel), None);
    assert_eq!(rate(Measure::OpenOwn, SystemKey::Stunnel), None);
    assert_eq!(rate(Measure::Crr, SystemKey::Corinth), None);
}

/// Answers every demand but each third, without any network.
#[derive(Default)]
struct Pretended {
    asked: Cell<u32>,
}

impl Load for Pretended {
    fn serve(&self, _: &Lab) -> Result<Process, Fault> {
        Err(Fault::NoFigure("nobody needs it".to_owned()))
    }

    fn run(
        &self,
        _: &Lab,
        target: SocketAddr,
        demand: &Demand,
        _: &mut dyn FnMut(),
    ) -> Result<TestResult, Fault> {
        self.asked.set(self.asked.get() + 1);
        if self.asked.get().is_multiple_of(3) {
            return Err(Fault::NoFigure("the third one fails".to_owned()));
        }
        let rate = match demand.pace {
            Pace::Closed => 1_000.0,
            Pace::PerSecond(rate) => rate,
        };
        Ok(answered(target, rate))
    }
}

fn answered(target: SocketAddr, per_second: f64) -> TestResult {
    TestResult {
        schema: SCHEMA.to_owned(),
        partial: false,
        fault: None,
        command: Vec::new(),
        started: String::new(),
        test: TestSpec::new(Workload::Rr, target.to_string()),
        environment: Environment::default(),
        server: None,
        intervals: Vec::new(),
        throughput: None,
        up: None,
        down: None,
        rate: Some(Rate {
            completed: 1_000,
            failed: 0,
            per_second,
        }),
        latency: Some(Latency {
            loop_: Loop::Closed,
            count: 1_000,
            min_us: 1.0,
            mean_us: 2.0,
            p50_us: 2.0,
            p90_us: 3.0,
            p99_us: 4.0,
            p999_us: 5.0,
            max_us: 6.0,
            curve: vec![(50.0, 2.0)],
            scheduled_per_second: None,
            achieved_percent: None,
            knee_per_second: None,
            valid: true,
        }),
        datagrams: None,
        gap: None,
        held: None,
        verified: None,
        cost: None,
    }
}

fn settings(rounds: u32) -> Settings {
    Settings {
        mtu: LinkMtu::ETHERNET,
        command: "corinth-perf compare".to_owned(),
        systems: vec![SystemKey::Direct],
        groups: vec![Group::Open],
        rounds,
        seconds: 1,
        programs: Programs::default(),
        load: "/nonexistent".into(),
        repository: None,
        keep: None,
    }
}

#[test]
fn a_load_that_fails_leaves_a_gap_and_a_reason() {
    if !geteuid().is_root() {
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED a_load_that_fails_leaves_a_gap_and_a_reason: namespaces need root"
        );
        return;
    }
    let folder = tempfile::tempdir().expect("there is room");
    let lab =
        Lab::lay(Middle::Wire(LinkMtu::ETHERNET), &Interrupt::default()).expect("we are root");
    let recipes = [direct(&place(folder.path()))];
    let mut results = results();
    let mut turns = Turns {
        lab: &lab,
        load: &Pretended::default(),
        settings: &settings(2),
        say: &|_| {},
        results: &mut results,
    };
    // Asked for: whether it works, the knee, then two measures in two rounds; the third and the sixth fail.
    turns.local(&recipes).expect("nobody interrupts");
    let rates = |measure| results.series(measure, SystemKey::Direct, Figure::PerSecond);
    assert_eq!(rates(Measure::Knee), [Some(1_000.0)]);
    assert_eq!(rates(Measure::OpenSame), [None, Some(500.0)]);
    assert_eq!(rates(Measure::OpenOwn), [Some(500.0), None]);
    let problems: Vec<_> = results
        .problems
        .iter()
        .map(|problem| (problem.round, problem.measure, problem.why.as_str()))
        .collect();
    assert_eq!(
        problems,
        [
            (1, Measure::OpenSame, "the third one fails"),
            (2, Measure::OpenOwn, "the third one fails"),
        ]
    );
}

#[test]
fn the_first_load_over_a_wide_area_network_is_not_counted() {
    if !geteuid().is_root() {
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED the_first_load_over_a_wide_area_network_is_not_counted: namespaces need root"
        );
        return;
    }
    let folder = tempfile::tempdir().expect("there is room");
    let lab =
        Lab::lay(Middle::Wire(LinkMtu::ETHERNET), &Interrupt::default()).expect("we are root");
    let recipes = [direct(&place(folder.path()))];
    let mut results = results();
    let load = Pretended::default();
    let mut turns = Turns {
        lab: &lab,
        load: &load,
        settings: &settings(2),
        say: &|_| {},
        results: &mut results,
    };
    // Asked for: whether it works, the warm-up, then two rounds, the first of which fails.
    let done = turns.over_wan(&recipes, Measure::WanFirstByte);
    done.expect("nobody interrupts");
    assert_eq!(load.asked.get(), 4);
    let rates = results.series(Measure::WanFirstByte, SystemKey::Direct, Figure::PerSecond);
    assert_eq!(rates, [None, Some(1_000.0)]);
}
