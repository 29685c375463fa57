//! Who may not, is told so in one line; who talks nonsense does no harm.

use std::time::Duration;

use corinth_load::{
    Error,
    client::{self, Setup, Unwatched},
    exchange::Questions,
    spec::{Direction, TestSpec, Workload},
    wire::{Ask, Kind, Preamble, Tell, TestId},
};

use crate::fixture::{Talker, refusal, run, run_whole, server, server_with, short};

fn reason(result: Result<corinth_load::TestResult, Error>) -> String {
    match result {
        Err(Error::Refused { reason, .. }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_client_of_another_version_is_refused_in_one_line_that_names_both() {
    let fixture = server();
    let mut preamble = Preamble::CONTROL.encode();
    preamble[9] = 77;
    let mut talker = Talker::connect(fixture.address(), &preamble);
    let told = refusal(&talker.read_to_end());
    assert!(
        told.contains("version 77") && told.contains("version 1") && !told.contains('\n'),
        "{told}"
    );
    assert_eq!(fixture.wait_for_refusal(), told);
}

#[test]
fn a_token_must_be_the_right_one() {
    let fixture = server_with(|settings| settings.token = Some("secret".to_owned()));
    for (token, expected) in [
        (None, "wants a token"),
        (Some("wrong"), "not the right one"),
    ] {
        let setup = Setup {
            token: token.map(str::to_owned),
            ..Setup::default()
        };
        let refused = reason(client::run(
            &fixture.spec(Workload::Rr),
            &setup,
            &mut Unwatched,
        ));
        assert!(refused.contains(expected), "{refused}");
    }
    let setup = Setup {
        token: Some("secret".to_owned()),
        ..Setup::default()
    };
    for workload in [Workload::Rr, Workload::Http] {
        let result = client::run(&fixture.spec(workload), &setup, &mut Unwatched).unwrap();
        assert!(!result.partial, "{workload}");
    }
    let without = run(&fixture.spec(Workload::Http)).unwrap();
    assert_eq!(without.rate.unwrap().completed, 0);
}

#[test]
fn a_client_from_elsewhere_is_not_served() {
    let fixture = server_with(|settings| settings.allow = vec!["192.0.2.0/24".parse().unwrap()]);
    assert!(matches!(
        run(&fixture.spec(Workload::Rr)),
        Err(Error::NoServer { .. } | Error::Unreachable { .. })
    ));
    assert!(fixture.wait_for_refusal().contains("not allowed"));
}

#[test]
fn a_test_above_the_limits_is_refused() {
    let fixture = server_with(|settings| {
        settings.limits.duration = Duration::from_secs(1);
        settings.limits.connections = 2;
        settings.limits.bytes = 1_000_000;
    });
    let spec = fixture.spec(Workload::Stream);
    let too_long = TestSpec {
        duration_ms: 2_000,
        ..spec.clone()
    };
    let too_many = TestSpec {
        connections: 2,
        direction: Direction::Both,
        ..spec.clone()
    };
    let too_much = TestSpec {
        total_bytes: Some(1_000_001),
        duration_ms: 0,
        ..spec
    };
    for spec in [too_long, too_many, too_much] {
        assert!(reason(run(&spec)).starts_with("a test may"), "{spec:?}");
    }
}

#[test]
fn a_test_that_carries_more_than_it_may_is_ended() {
    let fixture = server_with(|settings| settings.limits.bytes = 1_000_000);
    let result = run(&TestSpec {
        duration_ms: 20_000,
        ..fixture.spec(Workload::Stream)
    })
    .unwrap();
    assert!(result.partial);
    assert!(result.fault.unwrap().contains("more than 1000000 bytes"));
}

#[test]
fn requests_that_carry_more_than_a_test_may_are_ended_too() {
    let fixture = server_with(|settings| settings.limits.bytes = 100_000);
    for workload in [Workload::Crr, Workload::Idle] {
        let spec = TestSpec {
            duration_ms: 20_000,
            connections: 10,
            message_bytes: 10_000,
            response_bytes: 10_000,
            ..fixture.spec(workload)
        };
        let result = run(&spec).unwrap();
        assert!(result.partial, "{workload}");
        let fault = result.fault.unwrap();
        assert!(fault.contains("more than 100000 bytes"), "{fault}");
    }
}

#[test]
fn http_has_the_bounds_of_a_test() {
    let fixture = server_with(|settings| {
        settings.limits.bytes = 1_000_000;
        settings.limits.connections = 1;
    });
    let ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\n\r\n");
        Talker::connect(fixture.address(), request.as_bytes())
    };
    let mut first = ask("/bytes/600000");
    assert!(first.is_answered(600_000));
    let second = ask("/").read_to_end();
    assert!(second.starts_with(b"HTTP/1.1 503 "));
    first.write(b"GET /bytes/600000 HTTP/1.1\r\n\r\n");
    let rest = String::from_utf8(first.read_to_end()).unwrap();
    assert!(rest.contains("HTTP/1.1 429 ") && rest.len() < 1_000);
}

#[test]
fn a_second_test_at_the_same_time_is_refused_and_a_later_one_is_not() {
    let fixture = server();
    let (mut control, _) = Talker::open(fixture.address(), fixture.spec(Workload::Rr));
    assert!(reason(run(&fixture.spec(Workload::Rr))).contains("busy"));
    control.say(&Ask::Start);
    assert_eq!(control.hear(), Tell::Started);
    control.say(&Ask::Stop);
    assert!(matches!(control.hear(), Tell::Report(_)));
    assert!(control.read_to_end().is_empty());
    run_whole(&fixture.spec(Workload::Rr));
}

#[test]
fn nothing_is_left_of_a_client_that_has_vanished() {
    let fixture = server();
    let (mut control, _) = Talker::open(fixture.address(), fixture.spec(Workload::Rr));
    // The test is over for the server, and nothing more is ever heard of the client.
    control.say(&Ask::Stop);
    assert!(fixture.wait_for_end().unwrap().contains("gave up"));
    control.wait_for_reset();
}

#[test]
fn two_tests_run_at_once_where_two_may() {
    let fixture = server_with(|settings| settings.limits.tests = 2);
    let (_control, _) = Talker::open(fixture.address(), fixture.spec(Workload::Rr));
    run_whole(&fixture.spec(Workload::Rr));
}

#[test]
fn nobody_is_there() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for workload in [Workload::Stream, Workload::Http] {
        let error = run(&short(workload, &address.to_string())).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn somebody_else_is_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let error = run(&short(Workload::Stream, &address.to_string())).unwrap_err();
    assert!(
        matches!(error, Error::NoServer { .. } | Error::Unreachable { .. }),
        "{error}"
    );
    stranger.join().unwrap();
}

#[test]
fn a_connection_of_no_test_is_closed() {
    let fixture = server();
    let preamble = Preamble {
        kind: Kind::Data,
        test: TestId([1; 16]),
        connection: 0,
    };
    assert!(
        Talker::connect(fixture.address(), &preamble.encode())
            .read_to_end()
            .is_empty()
    );
}

#[test]
fn a_connection_the_test_does_not_have_is_closed() {
    let fixture = server();
    let (control, test) = Talker::open(fixture.address(), fixture.spec(Workload::Stream));
    let stray = Talker::open_data(&control, test, 7).read_to_end();
    assert!(stray.is_empty());
}

#[test]
fn a_client_holds_no_more_connections_than_it_announced_and_a_few() {
    let fixture = server();
    let spec = fixture.spec(Workload::Idle);
    let (control, test) = Talker::open(fixture.address(), spec.clone());
    let mut questions = Questions::new(&spec);
    let mut request = Vec::new();
    questions.ask(0, &mut request);
    let mut held = Vec::new();
    while held.len() < 200 {
        let mut data = control.open_data(test, 0);
        data.write(&request);
        if !data.is_answered(questions.response_bytes()) {
            break;
        }
        held.push(data);
    }
    assert_eq!(held.len(), 1 + 64);
}

#[test]
fn nonsense_is_refused_and_the_server_goes_on() {
    let fixture = server();
    let control = Preamble::CONTROL.encode();
    let with = |rest: &[u8]| [control.as_slice(), rest].concat();
    let huge = with(&u32::MAX.to_be_bytes());
    let no_json = with(b"\0\0\0\x04{{{{");
    let mut unknown_kind = control;
    unknown_kind[10] = 99;
    let out_of_turn = with(b"\0\0\0\x06\"Stop\"");
    for bytes in [huge, no_json, unknown_kind.to_vec(), out_of_turn] {
        let told = refusal(&Talker::connect(fixture.address(), &bytes).read_to_end());
        assert!(!told.is_empty());
    }
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..50 {
        let length = random.usize(8..200);
        let bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        let mut talker = Talker::connect(fixture.address(), &bytes);
        talker.write(b"\r\n\r\n");
        drop(talker);
    }
    run_whole(&fixture.spec(Workload::Rr));
}

#[test]
fn an_impossible_test_is_not_even_asked_for() {
    let spec = TestSpec {
        connections: 0,
        ..short(Workload::Stream, "127.0.0.1:1")
    };
    assert!(run(&spec).unwrap_err().is_usage());
}
