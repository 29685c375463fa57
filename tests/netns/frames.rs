//! A peer that has proven who it is, and then breaks the rules of the tunnel.

use std::time::Duration;

use corinth_api::{StreamKind, StreamOpen, StreamReply};
use corinth_identity::Leaf;
use corinth_lab::{
    Family, Gateway, Lab, Service,
    tunnel::{MAY_IGNORE, Tunnel, certified, encoded, first, frame, kind},
};
use corinth_model::{Protocol, Refusal, RouteName};
use rustls::pki_types::UnixTime;
use serde_json::json;

use crate::fixture::{ECHO, echo_back};

on_both_families![
    a_peer_that_breaks_the_framing_is_closed_and_counted,
    a_peer_that_breaks_the_framing_inside_a_stream_is_closed,
    a_peer_that_says_nothing_first_is_closed,
    frames_that_may_be_ignored_are,
    streams_that_are_not_for_this_peer_are_refused_alike,
];

/// What the echo service is called.
const ECHO_NAME: &str = "7.echo.lab.svc.clusterset.local";

/// West, with two peers; `echo` is for east alone.
struct Far {
    west: Gateway,
    _echo: Service,
}

fn far(lab: &Lab) -> Far {
    let endpoint = lab.server_at(0, 7007);
    let echo = lab.server.serve(endpoint, echo_back);
    let west = lab.gateway("west").awaits("east").awaits("south");
    let west = west.exports(ECHO, &[endpoint], &["east"]);
    let west = west.exports("south.lab:7", &[endpoint], &["south"]);
    let west = west.with("timeouts", json!({ "firstFrame": "1s" })).start();
    Far { west, _echo: echo }
}

fn leaf(lab: &Lab, cluster: &str) -> Leaf {
    let hour = Duration::from_secs(3_600);
    lab.pki
        .leaf(cluster, "corinth/gateway/9", UnixTime::now(), hour)
}

/// A tunnel connection of `cluster` to west, its handshake done.
fn dial(lab: &Lab, far: &Far, cluster: &str) -> Tunnel {
    let socket = lab.east.connect(far.west.tunnel());
    let shown = certified(&leaf(lab, cluster));
    Tunnel::shake_hands(socket, Some(shown), &[b"corinth/1"]).expect("west answers")
}

fn open_to(route: &str) -> StreamOpen {
    StreamOpen::new(StreamKind::Service {
        route: RouteName::parse(route).expect("a route name"),
        protocol: Protocol::Tcp,
    })
}

fn header() -> Vec<u8> {
    encoded(&open_to(ECHO_NAME))
}

fn a_peer_that_breaks_the_framing_is_closed_and_counted(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let far = far(&lab);
    let good = first(0);
    let open = |payload: &[u8]| [&good[..], &frame(kind::OPEN, 0, 1, payload)].concat();
    let after_first = |more: Vec<u8>| [good.clone(), more].concat();
    let long = vec![0; 4_097];
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        // The first frame.
        ("OPEN first", frame(kind::OPEN, 0, 1, &header()), "CRN044"),
        ("DATA first", frame(kind::DATA, 0, 1, b"x"), "CRN044"),
        ("PONG first", frame(kind::PONG, 0, 0, &[0; 11]), "CRN044"),
        (
            "a PING of eight bytes",
            frame(kind::PING, 0, 0, &[0; 8]),
            "CRN044",
        ),
        (
            "a PING of ten bytes",
            frame(kind::PING, 0, 0, &[0; 10]),
            "CRN044",
        ),
        (
            "a PING of 65,535 bytes",
            vec![kind::PING, 0, 0xff, 0xff, 0, 0, 0, 0],
            "CRN044",
        ),
        ("a role that does not exist", first(3), "CRN044"),
        (
            "an unknown frame first",
            frame(kind::UNKNOWN, 0, 0, b""),
            "CRN044",
        ),
        (
            "HTTP inside",
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            "CRN044",
        ),
        // Between streams.
        (
            "an unknown frame",
            after_first(frame(kind::UNKNOWN, 0, 0, b"")),
            "CRN044",
        ),
        ("frame type 0", after_first(frame(0, 0, 0, b"")), "CRN044"),
        (
            "DATA without a stream",
            after_first(frame(kind::DATA, 0, 1, b"x")),
            "CRN044",
        ),
        (
            "END without a stream",
            after_first(frame(kind::END, 0, 1, b"")),
            "CRN044",
        ),
        (
            "a REPLY to nothing",
            after_first(frame(kind::REPLY, 0, 1, b"")),
            "CRN044",
        ),
        ("a second role", after_first(first(0)), "CRN044"),
        (
            "a PONG to nothing",
            after_first(frame(kind::PONG, 0, 0, &[0; 11])),
            "CRN044",
        ),
        // The header.
        (
            "stream 0",
            after_first(frame(kind::OPEN, 0, 0, &header())),
            "CRN044",
        ),
        (
            "stream 2 first",
            after_first(frame(kind::OPEN, 0, 2, &header())),
            "CRN044",
        ),
        ("a header of nothing", open(b""), "CRN045"),
        (
            "a header cut short",
            open(&header()[..header().len() - 1]),
            "CRN045",
        ),
        (
            "a header and a bit",
            open(&[header(), vec![0]].concat()),
            "CRN045",
        ),
        ("a header of random bytes", open(&[0xff; 64]), "CRN045"),
        ("a header of 4,097 bytes", open(&long), "CRN044"),
        (
            "a header that says 65,535 bytes",
            after_first(vec![kind::OPEN, 0, 0xff, 0xff, 0, 0, 0, 1]),
            "CRN044",
        ),
    ];
    let mut faults = Vec::new();
    for (name, says, code) in &cases {
        let mut tunnel = dial(&lab, &far, "east");
        let _ = tunnel.say(says);
        while let Some(told) = tunnel.hear() {
            // A header that cannot be read has its answer; nothing else has.
            let is_answer = told.kind == kind::REPLY && *code == "CRN045";
            if told.kind != kind::CLOSE && !is_answer {
                faults.push(format!("{name}: was told {told:?}"));
            }
        }
        let record = far.west.record_from(tunnel.source());
        if (record.text("intake"), record.code()) != ("tunnel", *code) {
            faults.push(format!("{name}: {record:?}, not {code}"));
        }
    }
    assert_eq!(faults, [""; 0]);
    for wanted in ["CRN044", "CRN045"] {
        let label = format!("code=\"{wanted}\"");
        let labels = ["intake=\"tunnel\"", &label];
        let counted = far.west.metric("corinth_connections_closed_total", &labels);
        let expected = cases.iter().filter(|(_, _, code)| *code == wanted).count();
        assert_eq!(counted, expected as f64, "{wanted}");
    }
}

fn a_peer_that_breaks_the_framing_inside_a_stream_is_closed(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let far = far(&lab);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a second OPEN", frame(kind::OPEN, 0, 2, &header())),
        ("the same OPEN again", frame(kind::OPEN, 0, 1, &header())),
        ("DATA of another stream", frame(kind::DATA, 0, 2, b"x")),
        ("empty DATA", frame(kind::DATA, 0, 1, b"")),
        (
            "DATA that says 16,377 bytes",
            vec![kind::DATA, 0, 0x3f, 0xf9, 0, 0, 0, 1],
        ),
        ("END with a payload", frame(kind::END, 0, 1, b"x")),
        (
            "DATA after END",
            [frame(kind::END, 0, 1, b""), frame(kind::DATA, 0, 1, b"x")].concat(),
        ),
        ("a REPLY of ours", frame(kind::REPLY, 0, 1, b"")),
        ("an unknown frame", frame(kind::UNKNOWN, 0, 1, b"")),
    ];
    let mut faults = Vec::new();
    for (name, says) in &cases {
        let before = closed(&far.west, "CRN044");
        let mut tunnel = dial(&lab, &far, "east");
        tunnel.begin().unwrap();
        tunnel.say(&frame(kind::OPEN, 0, 1, &header())).unwrap();
        let reply = tunnel.hear().expect("a reply");
        assert_eq!(
            StreamReply::decode(&reply.payload).unwrap(),
            StreamReply::Accepted,
            "{name}"
        );
        let _ = tunnel.say(says);
        while let Some(told) = tunnel.hear() {
            if told.kind == kind::DATA {
                faults.push(format!("{name}: reached the application: {told:?}"));
            }
        }
        let counted = corinth_lab::until("it is counted", corinth_lab::WAIT, || {
            let now = closed(&far.west, "CRN044");
            (now > before).then_some(now - before)
        });
        if counted != 1.0 {
            faults.push(format!("{name}: counted {counted} times"));
        }
    }
    assert_eq!(faults, [""; 0]);
}

fn closed(gateway: &Gateway, code: &str) -> f64 {
    gateway.metric(
        "corinth_connections_closed_total",
        &[&format!("code=\"{code}\"")],
    )
}

fn a_peer_that_says_nothing_first_is_closed(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let far = far(&lab);
    let half = &first(0)[..5];
    for says in [&b""[..], half] {
        let mut tunnel = dial(&lab, &far, "east");
        tunnel.say(says).unwrap();
        assert_eq!(tunnel.hear(), None);
        let record = far.west.record_from(tunnel.source());
        assert_eq!((record.text("intake"), record.code()), ("tunnel", "CRN046"));
    }
}

fn frames_that_may_be_ignored_are(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let far = far(&lab);
    let mut tunnel = dial(&lab, &far, "east");
    tunnel.begin().unwrap();
    let ignored = frame(kind::UNKNOWN, MAY_IGNORE, 0, &[7; 5_000]);
    tunnel.say(&ignored).unwrap();
    // Flags that mean nothing, and a field of a later version in the header.
    let later = [header(), vec![0xfa, 0x7f, 1, b'x']].concat();
    let says = [
        frame(kind::OPEN, 0x11, 1, &later),
        ignored,
        frame(kind::DATA, 0, 1, b"hello"),
    ];
    tunnel.say(&says.concat()).unwrap();
    let reply = tunnel.hear().expect("a reply");
    assert_eq!(
        StreamReply::decode(&reply.payload).unwrap(),
        StreamReply::Accepted
    );
    let data = tunnel.hear().expect("the echo");
    assert_eq!(
        (data.kind, data.stream, &data.payload[..]),
        (kind::DATA, 1, &b"hello"[..])
    );
    // New keys do not disturb; frames may be cut anywhere.
    tunnel.update_keys().unwrap();
    for byte in frame(kind::DATA, 0, 1, b"again") {
        tunnel.say(&[byte]).unwrap();
    }
    let mut echoed = Vec::new();
    while echoed.len() < 5 {
        echoed.extend(tunnel.hear().expect("the echo").payload);
    }
    assert_eq!(echoed, b"again");
}

fn streams_that_are_not_for_this_peer_are_refused_alike(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let far = far(&lab);
    let udp = StreamOpen::new(StreamKind::Service {
        route: RouteName::parse(ECHO_NAME).unwrap(),
        protocol: Protocol::Udp,
    });
    let hops = |hops| StreamOpen {
        hops,
        ..open_to(ECHO_NAME)
    };
    let peering = StreamOpen::new(StreamKind::Peering);
    let other_port = open_to("8.echo.lab.svc.clusterset.local");
    let nothing = open_to("7.nothing.lab.svc.clusterset.local");
    let pinned = open_to("7.south.echo.lab.svc.clusterset.local");
    let of_south = open_to("7.south.lab.svc.clusterset.local");
    let cases = [
        (
            "what is exported to another peer",
            "east",
            of_south,
            Refusal::Forbidden,
        ),
        (
            "the other way round",
            "south",
            open_to(ECHO_NAME),
            Refusal::Forbidden,
        ),
        ("what does not exist", "east", nothing, Refusal::Forbidden),
        ("another port", "east", other_port, Refusal::Forbidden),
        ("another protocol", "east", udp, Refusal::Forbidden),
        ("another cluster", "east", pinned, Refusal::Forbidden),
        ("two hops", "east", hops(2), Refusal::TooManyHops),
        ("many hops", "east", hops(255), Refusal::TooManyHops),
        ("peering", "east", peering, Refusal::UnknownRoute),
    ];
    let mut faults = Vec::new();
    for (name, cluster, open, refusal) in cases {
        let mut tunnel = dial(&lab, &far, cluster);
        tunnel.begin().unwrap();
        tunnel
            .say(&frame(kind::OPEN, 0, 1, &encoded(&open)))
            .unwrap();
        let reply = tunnel.hear().expect("a reply");
        let reply = StreamReply::decode(&reply.payload).expect("a reply");
        if reply != StreamReply::Refused(refusal) {
            faults.push(format!("{name}: {reply:?}, not {refusal:?}"));
        }
        // The connection is as good as before.
        let end = tunnel.hear().expect("the end of that stream");
        assert_eq!((end.kind, end.stream), (kind::END, 1), "{name}");
        let again = [
            frame(kind::END, 0, 1, b""),
            frame(kind::OPEN, 0, 2, &encoded(&open)),
        ];
        tunnel.say(&again.concat()).unwrap();
        assert_eq!(tunnel.hear().expect("a reply").kind, kind::REPLY, "{name}");
    }
    assert_eq!(faults, [""; 0]);
    assert_eq!(far._echo.tally().accepted(), 0);
}
