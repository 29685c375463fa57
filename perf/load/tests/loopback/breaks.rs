//! One side vanishes.

use std::sync::atomic::Ordering::SeqCst;

use corinth_load::{
    client::{self, Progress, Setup},
    result::Interval,
    server::Lifetime,
    spec::{Direction, TestSpec, Workload},
    wire::Ask,
};

use crate::{
    fixture::{Talker, run_whole, server, server_with},
    gateway::Gateway,
};

/// Does something when the first interval has passed.
struct AtFirstInterval<F: FnMut()>(Option<F>);

impl<F: FnMut()> Progress for AtFirstInterval<F> {
    fn interval(&mut self, _: &[Interval]) {
        if let Some(mut act) = self.0.take() {
            act();
        }
    }

    fn note(&mut self, _: &str) {}
}

#[test]
fn a_client_that_vanishes_ends_its_test_and_makes_room_for_the_next() {
    let fixture = server();
    let spec = TestSpec {
        duration_ms: 60_000,
        ..fixture.spec(Workload::Stream)
    };
    let (mut control, test) = Talker::open(fixture.address(), spec);
    let data = control.open_data(test, 0);
    control.say(&Ask::Start);
    control.hear();
    drop(control);
    drop(data);
    assert!(fixture.wait_for_end().is_some());
    // Its place is given back a moment after it is told of.
    let next = (0..100).find_map(|_| crate::fixture::run(&fixture.spec(Workload::Rr)).ok());
    assert!(next.is_some_and(|result| !result.partial));
}

#[test]
fn a_server_that_vanishes_leaves_a_partial_result() {
    for direction in [Direction::Up, Direction::Down] {
        let fixture = server();
        let gateway = Gateway::start(fixture.address());
        let spec = TestSpec {
            target: gateway.target(),
            duration_ms: 60_000,
            direction,
            ..fixture.spec(Workload::Stream)
        };
        let mut progress = AtFirstInterval(Some(|| gateway.fall()));
        let result = client::run(&spec, &Setup::default(), &mut progress).unwrap();
        assert!(result.partial && result.fault.is_some());
        assert!(!result.intervals.is_empty());
        let throughput = result.throughput.unwrap();
        match direction {
            // Nobody told what arrived: that is unknown, not nothing.
            Direction::Up => assert_eq!(
                (throughput.received_bytes, throughput.bits_per_second),
                (None, None)
            ),
            Direction::Down | Direction::Both => assert!(throughput.received_bytes.unwrap() > 0),
        }
    }
}

#[test]
fn a_server_that_is_stopped_says_so() {
    let fixture = server();
    let spec = TestSpec {
        duration_ms: 60_000,
        ..fixture.spec(Workload::Rr)
    };
    let mut progress = AtFirstInterval(Some(|| fixture.server.stop()));
    let result = client::run(&spec, &Setup::default(), &mut progress).unwrap();
    assert!(result.partial);
    assert!(result.latency.unwrap().count > 0);
}

#[test]
fn an_interrupted_test_keeps_what_it_has() {
    let fixture = server();
    let setup = Setup::default();
    let interrupted = setup.interrupted.clone();
    let spec = TestSpec {
        duration_ms: 60_000,
        ..fixture.spec(Workload::Stream)
    };
    let mut progress = AtFirstInterval(Some(|| interrupted.store(true, SeqCst)));
    let result = client::run(&spec, &setup, &mut progress).unwrap();
    assert_eq!(
        (result.partial, result.fault.as_deref()),
        (true, Some("interrupted"))
    );
    assert!(result.up.unwrap().received_bytes.unwrap() > 0);
    assert!(
        fixture.wait_for_end().is_none(),
        "the server was told in time"
    );
}

#[test]
fn a_server_for_one_test_stops_after_it() {
    let fixture = server_with(|settings| settings.lifetime = Lifetime::OneTest);
    run_whole(&fixture.spec(Workload::Rr));
    fixture.server.wait();
    assert!(crate::fixture::run(&fixture.spec(Workload::Rr)).is_err());
}

#[test]
fn requests_fail_when_their_connection_breaks() {
    let fixture = server();
    let gateway = Gateway::start(fixture.address());
    let spec = TestSpec {
        target: gateway.target(),
        duration_ms: 60_000,
        ..fixture.spec(Workload::Rr)
    };
    let mut progress = AtFirstInterval(Some(|| gateway.cut_newest(1)));
    let result = client::run(&spec, &Setup::default(), &mut progress).unwrap();
    assert!(result.partial);
    assert_eq!(result.rate.unwrap().failed, 1);
}

#[test]
fn many_tests_one_after_the_other_find_the_server_ready() {
    let fixture = server();
    for _ in 0..20 {
        // On a busy machine there may not be time for a single answer; being refused is another thing.
        crate::fixture::run(&TestSpec {
            duration_ms: 10,
            ..fixture.spec(Workload::Rr)
        })
        .unwrap();
    }
}
