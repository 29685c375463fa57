//! What is carried is what is counted.

use corinth_load::{
    result::{Loop, SCHEMA, TestResult},
    spec::{Copying, Direction, Reuse, TestSpec, Verify, Workload},
};

use crate::{
    fixture::{run_whole, server},
    gateway::Gateway,
};

#[test]
fn a_stream_up_is_what_the_server_received() {
    let fixture = server();
    let result = run_whole(&fixture.spec(Workload::Stream));
    let up = result.up.unwrap();
    assert!(up.received_bytes.unwrap() > 0);
    assert!(up.bits_per_second.unwrap() > 0.0);
    assert_eq!(result.down, None);
    assert_eq!(
        (result.schema.as_str(), result.rate, result.latency),
        (SCHEMA, None, None)
    );
}

#[test]
fn a_stream_down_is_what_the_client_received() {
    let fixture = server();
    let result = run_whole(&TestSpec {
        direction: Direction::Down,
        connections: 2,
        ..fixture.spec(Workload::Stream)
    });
    assert!(result.down.unwrap().received_bytes.unwrap() > 0);
    assert_eq!(result.up, None);
}

#[test]
fn streams_both_ways_are_counted_apart_and_together() {
    let fixture = server();
    let result = run_whole(&TestSpec {
        direction: Direction::Both,
        ..fixture.spec(Workload::Stream)
    });
    let both =
        result.up.unwrap().received_bytes.unwrap() + result.down.unwrap().received_bytes.unwrap();
    assert_eq!(result.throughput.unwrap().received_bytes, Some(both));
}

#[test]
fn a_number_of_bytes_arrives_to_the_last_byte() {
    const BYTES: u64 = 10_000_001;
    let fixture = server();
    for direction in [Direction::Up, Direction::Down, Direction::Both] {
        let result = run_whole(&TestSpec {
            direction,
            connections: 3,
            total_bytes: Some(BYTES),
            duration_ms: 0,
            verify: Verify::EveryByte,
            ..fixture.spec(Workload::Stream)
        });
        let ways = if direction == Direction::Both { 2 } else { 1 };
        let total = result.throughput.unwrap();
        assert_eq!(total.received_bytes, Some(BYTES * ways), "{direction:?}");
        assert_eq!(total.sent_bytes, Some(BYTES * ways), "{direction:?}");
        assert_eq!(
            result.verified.unwrap().bytes,
            BYTES * ways,
            "{direction:?}"
        );
    }
}

#[test]
fn streams_are_carried_without_copies_too() {
    let fixture = server();
    for copying in [Copying::ReceiveOnly, Copying::SendOnly, Copying::Neither] {
        let result = run_whole(&TestSpec {
            copying,
            total_bytes: Some(5_000_000),
            duration_ms: 0,
            ..fixture.spec(Workload::Stream)
        });
        assert_eq!(
            result.throughput.unwrap().received_bytes,
            Some(5_000_000),
            "{copying:?}"
        );
    }
}

#[test]
fn a_limited_stream_is_no_faster_than_its_limit() {
    let fixture = server();
    let result = run_whole(&TestSpec {
        bits_per_second: Some(8_000_000),
        message_bytes: 1_000,
        ..fixture.spec(Workload::Stream)
    });
    let sent = result.up.unwrap().sent_bytes.unwrap();
    // 1 MB/s for 0.3 s, and the write that goes over it.
    assert!(sent <= 310_000, "{sent}");
}

#[test]
fn intervals_add_up_to_the_whole() {
    let fixture = server();
    let result = run_whole(&fixture.spec(Workload::Rr));
    let sums = result
        .intervals
        .iter()
        .filter(|interval| interval.connection.is_none());
    let completed: u64 = sums.filter_map(|interval| interval.completed).sum();
    let total = result.rate.unwrap().completed;
    assert!(completed <= total && total > 0, "{completed} {total}");
}

#[test]
fn every_workload_passes_a_gateway_that_maps_one_port() {
    let fixture = server();
    let gateway = Gateway::start(fixture.address());
    for workload in [
        Workload::Stream,
        Workload::Rr,
        Workload::Crr,
        Workload::Idle,
        Workload::Http,
        Workload::Mix,
        Workload::Probe,
    ] {
        let result = run_whole(&TestSpec {
            target: gateway.target(),
            duration_ms: 1_000,
            ..fixture.spec(workload)
        });
        assert!(has_figures(&result), "{workload}");
    }
}

fn has_figures(result: &TestResult) -> bool {
    match result.test.workload {
        Workload::Stream | Workload::Udp => result.throughput.is_some(),
        Workload::Rr | Workload::Crr | Workload::Http => result.latency.is_some(),
        Workload::Mix => result.latency.is_some() && result.throughput.is_some(),
        Workload::Idle => result.held.is_some(),
        Workload::Probe => result.gap.is_some(),
    }
}

#[test]
fn requests_and_responses_may_have_any_size() {
    let fixture = server();
    for workload in [Workload::Rr, Workload::Crr] {
        for (message_bytes, response_bytes) in [(8, 100_000), (100_000, 8), (1_000, 1_001)] {
            let result = run_whole(&TestSpec {
                message_bytes,
                response_bytes,
                verify: Verify::EveryByte,
                ..fixture.spec(workload)
            });
            assert!(
                result.rate.unwrap().completed > 0,
                "{workload} {message_bytes} {response_bytes}"
            );
            assert_eq!(result.verified.unwrap().corrupt_connections, 0);
        }
    }
}

#[test]
fn requests_on_a_schedule_are_as_many_as_were_due() {
    let fixture = server();
    let result = run_whole(&TestSpec {
        rate_per_second: Some(100.0),
        connections: 3,
        duration_ms: 500,
        ..fixture.spec(Workload::Rr)
    });
    let latency = result.latency.unwrap();
    assert_eq!(
        (latency.loop_, latency.count, latency.valid),
        (Loop::Open, 50, true)
    );
    assert_eq!(latency.scheduled_per_second, Some(100.0));
}

#[test]
fn http_is_asked_on_kept_and_on_fresh_connections() {
    let fixture = server();
    for reuse in [Reuse::Kept, Reuse::OncePerRequest] {
        for target in [
            fixture.address().to_string(),
            format!("http://{}/bytes/70000", fixture.address()),
        ] {
            let result = run_whole(&TestSpec {
                reuse,
                target,
                ..fixture.spec(Workload::Http)
            });
            let rate = result.rate.unwrap();
            assert!(rate.completed > 0 && rate.failed == 0, "{reuse:?} {rate:?}");
        }
    }
}

#[test]
fn datagrams_arrive_and_are_counted_in_either_direction() {
    let fixture = server();
    for direction in [Direction::Up, Direction::Down, Direction::Both] {
        let result = run_whole(&TestSpec {
            direction,
            connections: 2,
            ..fixture.spec(Workload::Udp)
        });
        let datagrams = result.datagrams.unwrap();
        assert!(datagrams.sent > 0, "{direction:?}");
        assert_eq!(
            datagrams.received + datagrams.lost,
            datagrams.sent,
            "{direction:?}"
        );
        assert_eq!(
            (datagrams.lost, datagrams.duplicated),
            (0, 0),
            "{direction:?}"
        );
    }
}

#[test]
fn a_test_tells_what_it_took_and_where_it_ran() {
    let fixture = server();
    let result = run_whole(&fixture.spec(Workload::Stream));
    let cost = result.cost.unwrap();
    assert!(cost.cpu_seconds_per_gb.unwrap() > 0.0);
    assert_eq!(cost.processes[0].pid, std::process::id());
    assert!(cost.processes[0].rss_bytes.unwrap() > 0);
    let environment = result.environment;
    assert!(!environment.kernel.is_empty() && environment.cpus > 0);
    assert!(environment.send_buffer_bytes.unwrap() > 0);
    assert!(environment.congestion_control.is_some());
    assert_eq!(
        result.server.unwrap().cost,
        None,
        "one machine has one cost"
    );
}

#[test]
fn the_congestion_control_is_the_one_asked_for_on_both_sides() {
    let fixture = server();
    let result = run_whole(&TestSpec {
        congestion_control: Some("reno".to_owned()),
        ..fixture.spec(Workload::Stream)
    });
    let there = result.server.unwrap().environment;
    for environment in [result.environment, there] {
        assert_eq!(environment.congestion_control.as_deref(), Some("reno"));
    }
}

#[test]
fn what_was_granted_is_told_of_every_connection_that_tcp_carries() {
    let fixture = server();
    for workload in [
        Workload::Stream,
        Workload::Rr,
        Workload::Crr,
        Workload::Http,
        Workload::Idle,
        Workload::Mix,
    ] {
        let result = run_whole(&TestSpec {
            congestion_control: Some("reno".to_owned()),
            ..fixture.spec(workload)
        });
        let here = result.environment;
        let control = here.congestion_control.as_deref();
        assert_eq!(control, Some("reno"), "{workload:?}");
        assert_eq!(here.device.as_deref(), Some("lo"), "{workload:?}");
        assert!(here.mtu.is_some_and(|mtu| mtu > 1_000), "{workload:?}");
        assert!(
            here.segment_bytes.is_some_and(|bytes| bytes > 500),
            "{workload:?}"
        );
        assert!(here.send_buffer_bytes.is_some(), "{workload:?}");
    }
}

#[test]
fn a_result_survives_being_written_down() {
    let fixture = server();
    let result = run_whole(&fixture.spec(Workload::Mix));
    let text = serde_json::to_string(&result).unwrap();
    let back: TestResult = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (back.schema, back.test, back.environment),
        (result.schema, result.test, result.environment)
    );
    assert_eq!(back.latency.unwrap().count, result.latency.unwrap().count);
    assert_eq!(
        back.throughput.unwrap().received_bytes,
        result.throughput.unwrap().received_bytes
    );
}
