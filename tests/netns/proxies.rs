//! What the proxies on loopback are asked that they should not do, and what a configuration should not say.

use std::{
    io::Write,
    net::{Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use corinth_lab::{Ending, Family, Gateway, Lab, WAIT, read_to_ending};
use serde_json::json;

use crate::fixture::{WEB, WEB_PORT};

on_both_families![
    socks_requests_that_break_a_rule_are_refused_in_socks,
    connect_requests_that_break_a_rule_are_refused_in_http,
    endpoints_that_nobody_should_reach_are_refused,
];

/// What one client says, what it is told, and what is written about it.
struct Case {
    name: &'static str,
    says: Vec<u8>,
    /// The first bytes of the answer.
    told: &'static [u8],
    code: &'static str,
}

fn case(
    name: &'static str,
    says: impl AsRef<[u8]>,
    told: &'static [u8],
    code: &'static str,
) -> Case {
    let says = says.as_ref().to_vec();
    Case {
        name,
        says,
        told,
        code,
    }
}

fn doors(family: Family) -> (SocketAddr, SocketAddr) {
    let loopback = match family {
        Family::V4 => std::net::Ipv4Addr::LOCALHOST.into(),
        Family::V6 => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    (
        SocketAddr::new(loopback, 1080),
        SocketAddr::new(loopback, 8118),
    )
}

fn east(lab: &Lab) -> Gateway {
    let (socks, connect) = doors(lab.family);
    let east = lab
        .gateway("east")
        .awaits("west")
        .imports(WEB, WEB_PORT, &["west"]);
    east.with("listen", json!({ "socks": socks, "connect": connect }))
        .start()
}

/// Tries all of them at once; each ends by its deadline.
fn try_all(lab: &Lab, east: &Gateway, door: SocketAddr, cases: &[Case]) {
    let faults: Vec<String> = thread::scope(|scope| {
        let tries: Vec<_> = cases
            .iter()
            .map(|case| {
                scope.spawn(move || {
                    let mut client = lab.east.connect(door);
                    let source = client.local_addr().unwrap();
                    let began = Instant::now();
                    // Who is refused early cannot say all of it.
                    let _ = client.write_all(&case.says);
                    let _ = client.shutdown(Shutdown::Write);
                    let (told, ended) = read_to_ending(&mut client);
                    let took = began.elapsed();
                    let code = east.record_from(source).code().to_owned();
                    let is_good = told.starts_with(case.told)
                        && (!told.is_empty() || case.told.is_empty())
                        && ended != Ending::Open
                        && took < Duration::from_secs(5)
                        && code == case.code;
                    let told = String::from_utf8_lossy(&told).into_owned();
                    (!is_good).then(|| format!("{}: {code} {ended:?} {took:?} {told:?}", case.name))
                })
            })
            .collect();
        tries
            .into_iter()
            .filter_map(|one| one.join().unwrap())
            .collect()
    });
    assert_eq!(faults, [""; 0]);
}

/// A SOCKS5 greeting without authentication, and a request (RFC 1928 §4).
fn socks(command: u8, kind: u8, address: &[u8], port: u16) -> Vec<u8> {
    let request = [
        &[5, 1, 0, 5, command, 0, kind][..],
        address,
        &port.to_be_bytes(),
    ];
    request.concat()
}

fn by_name(name: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    socks(1, 3, &[&[length], name.as_bytes()].concat(), port)
}

fn socks_requests_that_break_a_rule_are_refused_in_socks(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let east = east(&lab);
    /// No authentication; then: host unreachable.
    const UNREACHABLE: &[u8] = &[5, 0, 5, 4];
    let web = "web.shop.svc.clusterset.local";
    let cases = [
        case("SOCKS4", [4, 1, 0, 80, 127, 0, 0, 1, 0], b"", "CRN048"),
        case("HTTP", "GET / HTTP/1.1\r\n\r\n", b"", "CRN048"),
        case("nothing", "", b"", "CRN048"),
        case("half a greeting", [5, 3, 0], b"", "CRN048"),
        case("only with a password", [5, 1, 2], &[5, 0xff], "CRN048"),
        case("half a request", &by_name(web, 80)[..8], &[5, 0], "CRN048"),
        case("BIND", socks(2, 1, &[0; 4], 80), &[5, 0], "CRN048"),
        case(
            "an address",
            socks(1, 1, &[10, 3, 0, 100], 8080),
            UNREACHABLE,
            "CRN008",
        ),
        case(
            "an IPv6 address",
            socks(1, 4, &[0xfd; 16], 8080),
            UNREACHABLE,
            "CRN008",
        ),
        case("port 0", by_name(web, 0), UNREACHABLE, "CRN008"),
        case("another port", by_name(web, 81), UNREACHABLE, "CRN001"),
        case(
            "two dots at the end",
            by_name("web.shop.svc.clusterset.local..", 80),
            UNREACHABLE,
            "CRN008",
        ),
        case(
            "a zero byte",
            by_name("web.shop\0.svc.clusterset.local", 80),
            UNREACHABLE,
            "CRN008",
        ),
        case(
            "an unknown name",
            by_name("example.com", 443),
            UNREACHABLE,
            "CRN001",
        ),
        case(
            "the metadata service",
            by_name("169.254.169.254", 80),
            UNREACHABLE,
            "CRN008",
        ),
    ];
    try_all(&lab, &east, doors(family).0, &cases);
}

fn connect_requests_that_break_a_rule_are_refused_in_http(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let east = east(&lab);
    const BAD: &[u8] = b"HTTP/1.1 400 ";
    let to = |target: &str| format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    let web = "web.shop.svc.clusterset.local";
    let many = format!(
        "CONNECT {web}:80 HTTP/1.1\r\n{}\r\n",
        "a: b\r\n".repeat(100)
    );
    let long = format!("CONNECT {web}:80 HTTP/1.1\r\na: {}", "b".repeat(20_000));
    let cases = [
        case(
            "GET",
            format!("GET http://{web}/ HTTP/1.1\r\n\r\n"),
            BAD,
            "CRN048",
        ),
        case("nothing", "", b"", "CRN048"),
        case("half a request", "CONNECT web", BAD, "CRN048"),
        case("TLS", [22, 3, 1, 0, 5, 1, 0, 0, 1, 3], BAD, "CRN048"),
        case("too many headers", many, BAD, "CRN048"),
        case("a head without end", long, BAD, "CRN048"),
        case("no port", to(web), BAD, "CRN048"),
        case(
            "a port with a sign",
            to(&format!("{web}:-80")),
            BAD,
            "CRN048",
        ),
        case("port 0", to(&format!("{web}:0")), BAD, "CRN008"),
        case("port 65536", to(&format!("{web}:65536")), BAD, "CRN048"),
        case(
            "a word for a port",
            to(&format!("{web}:http")),
            BAD,
            "CRN048",
        ),
        case(
            "user information",
            to(&format!("user@{web}:80")),
            BAD,
            "CRN008",
        ),
        case("an address", to("10.3.0.100:8080"), BAD, "CRN008"),
        case("an IPv6 address", to("[fd00:3::64]:8080"), BAD, "CRN008"),
        case(
            "two dots at the end",
            to(&format!("{web}..:80")),
            BAD,
            "CRN008",
        ),
        case(
            "another port",
            to(&format!("{web}:81")),
            b"HTTP/1.1 404 ",
            "CRN001",
        ),
        case(
            "an unknown name",
            to("example.com:443"),
            b"HTTP/1.1 404 ",
            "CRN001",
        ),
    ];
    try_all(&lab, &east, doors(family).1, &cases);
}

fn endpoints_that_nobody_should_reach_are_refused(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let own = lab.site("west").tunnel(family, 0).to_string();
    let refused = match family {
        Family::V4 => vec![
            ("0.0.0.0:80", "CRN927"),
            ("169.254.169.254:80", "CRN927"),
            ("255.255.255.255:80", "CRN927"),
            ("224.0.0.1:80", "CRN927"),
            ("10.3.0.100:0", "CRN927"),
            (&own, "CRN928"),
        ],
        Family::V6 => vec![
            ("[::]:80", "CRN927"),
            ("[fe80::1]:80", "CRN927"),
            ("[ff02::1]:80", "CRN927"),
            ("[::ffff:169.254.169.254]:80", "CRN927"),
            ("[fd00:3::64]:0", "CRN927"),
            (&own, "CRN928"),
        ],
    };
    for (endpoint, code) in refused {
        let west = lab.gateway("west").awaits("east");
        let export =
            json!([{ "service": "web.shop", "port": 80, "endpoints": [endpoint], "to": ["east"] }]);
        let mut west = west.with("exports", export).launch();
        assert_eq!(west.wait(WAIT).code(), Some(1), "{endpoint}");
        let said = west.log().join("\n");
        assert!(said.contains(code), "{endpoint}: {said}");
    }
}
