//! Who talks to the tunnel port without being a peer: each is turned away by its deadline, for a reason of its own that
//! is written and counted, and hears nothing but an alert.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use corinth_lab::{
    Ending, Family, Gateway, Hello, Host, Lab, pause_until, random_block, read_to_ending, record,
};

on_both_families![
    strangers_are_turned_away_and_counted,
    a_hello_in_many_pieces_is_taken_until_the_deadline,
    hellos_with_unknown_parts_are_answered,
    what_strangers_held_is_given_back,
];

/// By when everybody is turned away: three seconds for the handshake, and this machine's noise.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Bytes, and what becomes of who says them.
pub(crate) struct Case {
    pub(crate) name: String,
    says: Vec<u8>,
    then: Then,
    code: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Waits.
    Wait,
    /// Ends its direction.
    End,
}

pub(crate) fn case(name: impl Into<String>, says: impl Into<Vec<u8>>, code: &'static str) -> Case {
    let (name, says) = (name.into(), says.into());
    Case {
        name,
        says,
        then: Then::Wait,
        code,
    }
}

/// What came of one case.
struct Outcome {
    source: SocketAddr,
    heard: Vec<u8>,
    ending: Ending,
    took: Duration,
}

/// Tries every case at `door` at the same time. What went another way than the case says is returned, in words.
pub(crate) fn try_all(
    host: &Host,
    from: IpAddr,
    door: SocketAddr,
    gateway: &Gateway,
    intake: &str,
    cases: &[Case],
) -> Vec<String> {
    let count = |code: &str| {
        let labels = [format!("intake=\"{intake}\""), format!("code=\"{code}\"")];
        let labels = labels.each_ref().map(String::as_str);
        gateway.metric("corinth_connections_closed_total", &labels)
    };
    let mark = gateway.record_mark();
    let mut expected: BTreeMap<&str, f64> = BTreeMap::new();
    for case in cases {
        *expected
            .entry(case.code)
            .or_insert_with(|| count(case.code)) += 1.0;
    }
    // All are connected before the first ends: a port that is free again could name two of them.
    let sockets: Vec<_> = cases
        .iter()
        .map(|_| host.connect_from(from, door))
        .collect();
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let tries = cases
            .iter()
            .zip(sockets)
            .map(|(case, socket)| scope.spawn(move || try_one(socket, case)));
        let tries: Vec<_> = tries.collect();
        tries
            .into_iter()
            .map(|one| one.join().expect("no case panics"))
            .collect()
    });
    let mut faults = Vec::new();
    for (case, outcome) in cases.iter().zip(&outcomes) {
        let code = gateway.record_since(mark, outcome.source).code().to_owned();
        if code != case.code {
            faults.push(format!("{}: {code}, not {}", case.name, case.code));
        }
        if outcome.ending == Ending::Open || outcome.took > DEADLINE {
            faults.push(format!(
                "{}: still there after {:?}",
                case.name, outcome.took
            ));
        }
        if !is_alert_or_nothing(&outcome.heard) {
            faults.push(format!("{}: was told {:?}", case.name, outcome.heard));
        }
    }
    if faults.is_empty() {
        let wrong = expected
            .iter()
            .filter(|(code, wanted)| count(code) != **wanted);
        faults.extend(wrong.map(|(code, wanted)| {
            format!("the metric of {code} is {}, not {wanted}", count(code))
        }));
    }
    faults
}

fn try_one(mut socket: TcpStream, case: &Case) -> Outcome {
    let source = socket.local_addr().expect("it is connected");
    let began = Instant::now();
    // Who is turned away early cannot say all of it.
    let _ = socket.write_all(&case.says);
    if case.then == Then::End {
        let _ = socket.shutdown(Shutdown::Write);
    }
    let (heard, ending) = read_to_ending(&mut socket);
    Outcome {
        source,
        heard,
        ending,
        took: began.elapsed(),
    }
}

/// One TLS alert record (RFC 8446 §6), or not a byte.
fn is_alert_or_nothing(heard: &[u8]) -> bool {
    heard.is_empty() || (heard.len() == 7 && heard.starts_with(&[21, 3]) && heard[3..5] == [0, 2])
}

/// A far gateway that waits for a peer which never comes.
pub(crate) fn waiting(lab: &Lab) -> Gateway {
    let endpoint = lab.server_at(0, 7007);
    lab.gateway("west")
        .awaits("east")
        .exports("echo.lab:7", &[endpoint], &["east"])
        .start()
}

fn strangers() -> Vec<Case> {
    let hello = Hello::new().bytes();
    let tunnel = Hello::new().alpn(&[b"corinth/1"]);
    let mut cases = vec![
        case("silence", [], "CRN036"),
        Case {
            then: Then::End,
            ..case("an end at once", [], "CRN037")
        },
        case("HTTP", "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "CRN037"),
        case("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "CRN037"),
        case("SSH", "SSH-2.0-OpenSSH_9.6\r\n", "CRN037"),
        case("SMTP", "EHLO there\r\n", "CRN037"),
        case("zeros", [0; 4_096], "CRN037"),
        case("ones", [0xff; 4_096], "CRN037"),
        case(
            "SSLv2",
            [0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10],
            "CRN037",
        ),
        case("an alert", record(21, &[2, 40]), "CRN037"),
        case("application data", record(23, &[0; 64]), "CRN037"),
        case(
            "a ServerHello",
            record(22, &[2, 0, 0, 4, 3, 3, 0, 0]),
            "CRN037",
        ),
        case("an empty handshake record", record(22, &[]), "CRN037"),
        case(
            "a handshake message of nothing",
            record(22, &[1, 0, 0, 0]),
            "CRN037",
        ),
        case(
            "a hello of random bytes",
            record(22, &random_block(1, 512)),
            "CRN037",
        ),
        case("a record of 65,535 bytes", [22, 3, 1, 0xff, 0xff], "CRN037"),
        case("half a hello", &hello[..hello.len() / 2], "CRN036"),
        case("half a record header", &hello[..3], "CRN036"),
        Case {
            then: Then::End,
            ..case("half a hello, then the end", &hello[..40], "CRN037")
        },
        case("a hello without end", endless_hello(), "CRN037"),
        case("no name, no protocol", hello, "CRN038"),
        case(
            "TLS 1.2",
            tunnel.clone().versions(&[3, 3]).bytes(),
            "CRN035",
        ),
        case(
            "TLS 1.1 and older",
            tunnel.clone().versions(&[3, 2, 3, 1]).bytes(),
            "CRN035",
        ),
        case(
            "ALPN corinth/9",
            Hello::new().alpn(&[b"corinth/9"]).bytes(),
            "CRN039",
        ),
        case(
            "ALPN corinth/1 and a bit",
            Hello::new().alpn(&[b"corinth/10"]).bytes(),
            "CRN039",
        ),
        case(
            "ALPN CORINTH/1",
            Hello::new().alpn(&[b"CORINTH/1"]).bytes(),
            "CRN039",
        ),
        case(
            "ALPN h2, http/1.1",
            Hello::new().alpn(&[b"h2", b"http/1.1"]).bytes(),
            "CRN039",
        ),
        case(
            "ALPN corinth-link/1",
            Hello::new().alpn(&[b"corinth-link/1"]).bytes(),
            "CRN039",
        ),
        case(
            "an empty ALPN name",
            Hello::new().alpn(&[b""]).bytes(),
            "CRN037",
        ),
        case("the same extension twice", twice(&tunnel), "CRN037"),
        case("two names", two_names(&tunnel), "CRN037"),
    ];
    for seed in 10..14 {
        let length = usize::try_from(seed * 700).unwrap_or_default();
        cases.push(case(
            format!("random bytes {seed}"),
            random_block(seed, length),
            "CRN037",
        ));
    }
    // Names of things that are not for strangers, and of services that are not opened to them.
    for name in [
        "echo.lab.svc.clusterset.local",
        "7.echo.lab.svc.clusterset.local",
        "kubernetes.default.svc.cluster.local",
        "kubernetes.default.svc",
        "metadata.google.internal",
        "localhost",
        "west.corinth.internal",
        "gateway.west.corinth.internal",
    ] {
        cases.push(case(name, Hello::new().sni(name).bytes(), "CRN039"));
    }
    cases
}

/// A handshake message that says it has 16 MiB, and begins.
fn endless_hello() -> Vec<u8> {
    let mut bytes = record(22, &[1, 0xff, 0xff, 0xff]);
    for _ in 0..4 {
        bytes.extend(record(22, &[0; 8_192]));
    }
    bytes
}

fn twice(hello: &Hello) -> Vec<u8> {
    hello.clone().alpn(&[b"corinth/1"]).bytes()
}

fn two_names(hello: &Hello) -> Vec<u8> {
    hello
        .clone()
        .sni_entries(&[(0, b"a.example"), (0, b"b.example")])
        .bytes()
}

fn strangers_are_turned_away_and_counted(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let west = waiting(&lab);
    let faults = try_all(
        &lab.east,
        lab.stranger(),
        west.tunnel(),
        &west,
        "tunnel",
        &strangers(),
    );
    assert_eq!(faults, [""; 0]);
}

fn a_hello_in_many_pieces_is_taken_until_the_deadline(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let west = waiting(&lab);
    let hello = Hello::new().alpn(&[b"corinth/1"]).bytes();
    let mut quick = lab.east.connect_from(lab.stranger(), west.tunnel());
    spell(&mut quick, &hello, Duration::from_millis(2_400));
    let (heard, _) = read_to_ending(&mut quick);
    assert!(heard.starts_with(&[22, 3, 3]), "a ServerHello: {heard:?}");

    let began = Instant::now();
    let mut slow = lab.east.connect_from(lab.stranger(), west.tunnel());
    spell(&mut slow, &hello, Duration::from_millis(4_000));
    let (heard, _) = read_to_ending(&mut slow);
    assert!(heard.is_empty(), "{heard:?}");
    assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
    assert_eq!(
        west.record_from(slow.local_addr().unwrap()).code(),
        "CRN036"
    );
}

/// Sends a byte per segment, evenly over `over`, as long as anybody takes them.
fn spell(socket: &mut TcpStream, bytes: &[u8], over: Duration) {
    let began = Instant::now();
    for (number, byte) in (0..).zip(bytes) {
        let share = over.mul_f64(f64::from(number) / bytes.len() as f64);
        pause_until(began + share);
        if socket.write_all(&[*byte]).is_err() {
            return;
        }
    }
}

fn hellos_with_unknown_parts_are_answered(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let west = waiting(&lab);
    let tunnel = || Hello::new().alpn(&[b"corinth/1"]);
    let hellos = [
        ("a GREASE extension", tunnel().extension(0x0a0a, &[])),
        ("GREASE that is full", tunnel().extension(0xfafa, &[0; 64])),
        ("a GREASE cipher suite", tunnel().suite(0x1a1a)),
        ("GREASE ECH", tunnel().extension(0xfe0d, &grease_ech())),
        (
            "a GREASE protocol",
            Hello::new().alpn(&[&[0x2a, 0x2a], b"corinth/1"]),
        ),
        ("a GREASE version", tunnel().versions(&[0x3a, 0x3a, 3, 4])),
        (
            "an unknown extension",
            tunnel().extension(0x1234, &[1, 2, 3]),
        ),
    ];
    thread::scope(|scope| {
        for (name, hello) in hellos {
            let (lab, west) = (&lab, &west);
            scope.spawn(move || {
                let mut socket = lab.east.connect_from(lab.stranger(), west.tunnel());
                socket.write_all(&hello.bytes()).unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
                let (heard, _) = read_to_ending(&mut socket);
                assert!(
                    heard.starts_with(&[22, 3, 3]),
                    "{name}: a ServerHello, not {heard:?}"
                );
            });
        }
    });
}

/// encrypted_client_hello as browsers send it to servers that know nothing of it: an outer hello with HKDF-SHA256 and
/// AES-128-GCM, random in the rest.
fn grease_ech() -> Vec<u8> {
    let (key, payload) = (random_block(2, 32), random_block(3, 144));
    [&[0, 0, 1, 0, 1, 42, 0, 32][..], &key, &[0, 144], &payload].concat()
}

fn what_strangers_held_is_given_back(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let west = waiting(&lab);
    let hello = Hello::new().alpn(&[b"corinth/1"]).bytes();
    let round = || {
        let cases: Vec<_> = (0..60)
            .map(|seed| match seed % 3 {
                0 => case("half", &hello[..hello.len() - 1], "CRN036"),
                1 => case("noise", random_block(seed, 8_000), "CRN037"),
                _ => case("big", endless_hello(), "CRN037"),
            })
            .collect();
        let faults = try_all(
            &lab.east,
            lab.stranger(),
            west.tunnel(),
            &west,
            "tunnel",
            &cases,
        );
        assert_eq!(faults, [""; 0]);
    };
    round();
    let before = west.resident_bytes();
    for _ in 0..3 {
        round();
    }
    let grown = west.resident_bytes().saturating_sub(before);
    println!(
        "resident: {} KiB, grown by {} KiB",
        before >> 10,
        grown >> 10
    );
    assert!(grown < 4 << 20, "grown by {grown} bytes");
    assert_eq!(
        west.metric("corinth_connections_active", &["intake=\"tunnel\""]),
        0.0
    );
}
