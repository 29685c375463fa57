//! What goes wrong on the path is seen and told in figures.

use std::thread;

use corinth_load::{
    exchange::Questions,
    result::TestResult,
    spec::{TestSpec, Verify, Workload},
    wire::{Ask, Tell},
};

use crate::{
    fixture::{Fixture, Talker, run, run_whole, server},
    gateway::Gateway,
};

/// Past the preamble, and past the number of a request.
const IN_THE_PAYLOAD: u64 = 32 + 20;

#[test]
fn one_changed_byte_is_found_in_every_workload_that_verifies() {
    let fixture = server();
    for workload in [Workload::Stream, Workload::Rr] {
        let gateway = Gateway::start(fixture.address());
        let spec = TestSpec {
            target: gateway.target(),
            verify: Verify::EveryByte,
            duration_ms: 5_000,
            ..fixture.spec(workload)
        };
        // The control connection comes first and must stay whole.
        let testing = thread::spawn(move || run(&spec));
        gateway.wait_for(1);
        gateway.corrupt_at(IN_THE_PAYLOAD);
        let result = testing.join().unwrap();
        check_corrupt(workload, result);
    }
}

/// The change can come too late for the first connection, in which case nothing is changed at all.
fn check_corrupt(workload: Workload, result: Result<TestResult, corinth_load::Error>) {
    let result = result.unwrap();
    let verified = result.verified.unwrap();
    match workload {
        Workload::Stream => {
            assert!(result.partial);
            assert!(result.fault.unwrap().contains("is not what was sent"));
            assert_eq!(verified.corrupt_connections, 1);
        }
        Workload::Rr
        | Workload::Crr
        | Workload::Udp
        | Workload::Idle
        | Workload::Http
        | Workload::Mix
        | Workload::Probe => assert_eq!(verified.corrupt_connections, 1),
    }
}

#[test]
fn a_gateway_that_falls_and_rises_shows_as_a_gap() {
    let fixture = server();
    let gateway = Gateway::start(fixture.address());
    let spec = TestSpec {
        target: gateway.target(),
        duration_ms: 1_500,
        ..fixture.spec(Workload::Probe)
    };
    let result = thread::scope(|scope| {
        let testing = scope.spawn(|| run(&spec));
        gateway.wait_for(2);
        fixture.wait_for_start();
        wait_ms(300);
        gateway.fall();
        wait_ms(400);
        gateway.rise();
        testing.join().unwrap().unwrap()
    });
    let gap = result.gap.unwrap();
    assert!(gap.longest_ms >= 390.0, "{gap:?}");
    assert!(gap.lost > 0 && gap.reconnects > 0, "{gap:?}");
    assert_eq!(gap.answered + gap.lost, gap.sent, "{gap:?}");
    assert_eq!(
        gap.duplicated,
        Some(0),
        "the server is asked on a new control connection: {:?}",
        result.fault
    );
    assert!(!result.partial, "{:?}", result.fault);
}

/// The length of an outage is a matter of time.
#[expect(
    clippy::disallowed_methods,
    reason = "an outage is a time in which nothing happens"
)]
fn wait_ms(milliseconds: u64) {
    thread::sleep(std::time::Duration::from_millis(milliseconds));
}

#[test]
fn a_quiet_path_has_no_lost_requests() {
    let fixture = server();
    let result = run_whole(&TestSpec {
        rate_per_second: Some(2_000.0),
        ..fixture.spec(Workload::Probe)
    });
    let gap = result.gap.unwrap();
    assert_eq!((gap.lost, gap.duplicated, gap.reconnects), (0, Some(0), 0));
    assert_eq!((gap.sent, gap.answered), (600, 600));
}

#[test]
fn a_request_that_reaches_the_server_twice_is_counted() {
    let fixture = server();
    let spec = fixture.spec(Workload::Probe);
    let (mut control, test) = Talker::open(fixture.address(), spec.clone());
    let mut data = control.open_data(test, 0);
    control.say(&Ask::Start);
    assert_eq!(control.hear(), Tell::Started);
    let mut questions = Questions::new(&spec);
    for number in [0, 1, 1, 2] {
        let mut request = Vec::new();
        questions.ask(number, &mut request);
        data.write(&request);
        data.read_exact(questions.response_bytes());
    }
    control.say(&Ask::Stop);
    let Tell::Report(report) = control.hear() else {
        panic!("no report");
    };
    assert_eq!((report.answered, report.duplicated), (4, 1));
}

#[test]
fn held_connections_that_break_did_not_stay() {
    let fixture = server();
    let gateway = Gateway::start(fixture.address());
    let spec = TestSpec {
        target: gateway.target(),
        connections: 10,
        ..fixture.spec(Workload::Idle)
    };
    let result = thread::scope(|scope| {
        let testing = scope.spawn(|| run_whole(&spec));
        // One of them is the control connection, the first.
        gateway.wait_for(11);
        wait_ms(100);
        gateway.cut_newest(4);
        testing.join().unwrap()
    });
    let held = result.held.unwrap();
    assert_eq!((held.connections, held.opened, held.stayed), (10, 10, 6));
}

#[test]
fn a_schedule_that_cannot_be_met_gives_times_that_are_marked_invalid() {
    let fixture = server();
    let result = run(&TestSpec {
        rate_per_second: Some(10_000_000.0),
        duration_ms: 100,
        timeout_ms: 1_000,
        ..fixture.spec(Workload::Rr)
    })
    .unwrap();
    assert!(result.partial);
    assert!(result.fault.unwrap().contains("of the schedule was met"));
    assert!(result.latency.is_none_or(|latency| !latency.valid));
}

#[test]
fn a_server_that_answers_errors_has_answered_nothing() {
    let fixture = server();
    let result = run(&TestSpec {
        target: format!("http://{}/bytes/x", fixture.address()),
        ..fixture.spec(Workload::Http)
    })
    .unwrap();
    let rate = result.rate.unwrap();
    assert_eq!((rate.completed, result.latency), (0, None));
    assert!(rate.failed > 0 && result.partial);
}

#[test]
fn a_test_of_one_connection_knows_no_more_than_it_measured() {
    let fixture: Fixture = server();
    let result = run_whole(&fixture.spec(Workload::Crr));
    assert_eq!(
        (result.throughput, result.gap, result.held, result.datagrams),
        (None, None, None, None)
    );
    assert_eq!(result.cost.unwrap().cpu_seconds_per_gb, None);
}

/// The server may hear of the end late, as on a busy machine: that must not look like a slower path.
#[test]
fn a_server_that_hears_late_of_the_end_counts_no_less() {
    const BITS_PER_SECOND: u64 = 80_000_000;
    // A second's worth.
    const HELD_BYTES: u64 = BITS_PER_SECOND / 8;
    let fixture = server();
    let gateway = Gateway::start(fixture.address());
    gateway.hold_stop_for(HELD_BYTES);
    let result = run_whole(&TestSpec {
        target: gateway.target(),
        bits_per_second: Some(BITS_PER_SECOND),
        duration_ms: 1_000,
        ..fixture.spec(Workload::Stream)
    });
    let up = result.up.unwrap();
    assert!(up.seconds > 1.5, "the end was not late: {up:?}");
    let share = up.bits_per_second.unwrap() / BITS_PER_SECOND as f64;
    assert!((0.9..1.1).contains(&share), "{up:?}");
}
