//! Which of two transports carries a peer's streams, where that is left to the gateway.

use std::{
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use corinth_lab::{
    Ending, Family, Gateway, Host, Lab, Load, Nginx, Service, Tally, WAIT, ending, exchange, until,
};
use corinth_wan::{Direction, Impairment, Spec, Udp, Wan};
use serde_json::json;

use crate::fixture::{ECHO, ECHO_PORT, WEB, WEB_PORT, echo_back};

on_both_families![
    streams_move_to_tls_within_a_second_when_udp_is_dropped_and_back_when_it_passes_again,
    streams_move_to_tls_when_udp_is_policed,
    streams_move_to_tls_when_it_delivers_far_more,
    streams_move_to_tls_when_far_more_comes_by_it,
    a_peer_that_only_tcp_reaches_is_linked_by_tls,
    a_peer_that_only_udp_reaches_is_linked_by_quic,
];

/// How records call what `ECHO_PORT` leads to.
const ECHO_NAME: &str = "7.echo.lab.svc.clusterset.local";
/// Where west is dialled.
const TUNNEL_PORT: u16 = 15_443;
/// Each way. Far enough for QUIC to be preferred.
const DELAY: Duration = Duration::from_millis(10);
/// Traffic has to move within a second. What is measured includes this machine's noise.
const MOVED: Duration = Duration::from_millis(1_500);

/// What passes of UDP where it is policed: far less than is sent.
const POLICED: Udp = Udp::Policed {
    bits_per_second: 10_000_000,
    burst_bytes: 15_000,
};

/// What UDP gets where somebody lets it through more slowly, and loses little of it.
const SHAPED: &str = "20mbit";
/// About as much, in bytes per second, with what the packets have around it.
const SHAPED_MAX: f64 = 3e6;

/// Traffic has to move within a second as well; losses are looked at four times in it, and this machine's noise is in it.
const POLICED_MOVED: Duration = Duration::from_millis(2_500);

/// A client that sends as much as it can, and reads what comes back, until it is dropped.
struct Bulk {
    client: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl Bulk {
    fn start(lab: &Lab, to: SocketAddr) -> Self {
        let client = lab.client.connect(to);
        let [mut writing, mut reading] = [(); 2].map(|()| client.try_clone().unwrap());
        let writes = thread::spawn(move || while writing.write_all(&[0; 1 << 16]).is_ok() {});
        let reads = thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while matches!(reading.read(&mut buffer), Ok(1..)) {}
        });
        Self {
            client,
            threads: vec![writes, reads],
        }
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.client.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Two gateways with a wide-area network between them, through which `east` may dial `west` in both ways.
struct Far {
    wan: Wan,
    east: Gateway,
    _west: Gateway,
    _nginx: Nginx,
    _service: Service,
}

fn far(lab: &Lab, family: Family) -> Far {
    far_serving(lab, family, echo_back)
}

/// With another service in place of the echo.
fn far_serving(
    lab: &Lab,
    family: Family,
    serve: impl Fn(TcpStream, &Tally) + Send + Sync + 'static,
) -> Far {
    let spec = Spec::between(lab.east.namespace(), lab.west.namespace()).both(path(Udp::Passes));
    let wan = Wan::start(&spec).expect("a network");
    let [v4, v6] = wan.addresses(1);
    let address = match family {
        Family::V4 => v4,
        Family::V6 => v6,
    };
    let tunnel = SocketAddr::new(address, TUNNEL_PORT);
    let (web, echo) = (lab.server_at(0, 8080), lab.server_at(0, 7007));
    let nginx = Nginx::start(&lab.server, lab.folder(), web, None);
    let service = lab.server.serve(echo, serve);
    let west = lab
        .gateway("west")
        .peer_with("east", json!({ "acceptOnly": true, "transport": "auto" }))
        .exports(WEB, &[web], &["east"])
        .exports(ECHO, &[echo], &["east"])
        .with("listen", json!({ "tunnel": tunnel }))
        .start();
    let dialled = json!({ "addresses": [tunnel], "transport": "auto" });
    let harmless = json!({ "replay": "idempotent" });
    let east = lab
        .gateway("east")
        .peer_with("west", dialled)
        .imports_with(WEB, WEB_PORT, &["west"], harmless)
        .imports(ECHO, ECHO_PORT, &["west"])
        .start();
    Far {
        wan,
        east,
        _west: west,
        _nginx: nginx,
        _service: service,
    }
}

fn path(udp: Udp) -> Impairment {
    Impairment {
        delay: DELAY,
        udp,
        ..Impairment::default()
    }
}

impl Far {
    /// From now on UDP passes, or does not.
    fn udp(&self, udp: Udp) {
        for direction in Direction::BOTH {
            self.wan
                .set(direction, &path(udp))
                .expect("it can be changed");
        }
    }
}

/// What carries new streams, and why.
fn used(gateway: &Gateway) -> (String, String) {
    let rows = gateway.link_rows();
    let row = rows.iter().find(|row| row["isUsed"] == true);
    let text = |key: &str| {
        row.and_then(|row| row[key].as_str())
            .unwrap_or_default()
            .to_owned()
    };
    (text("transport"), text("cause"))
}

fn await_used(gateway: &Gateway, transport: &str) {
    until(&format!("{transport} is used"), WAIT, || {
        (used(gateway).0 == transport).then_some(())
    });
}

fn streams_move_to_tls_within_a_second_when_udp_is_dropped_and_back_when_it_passes_again(
    family: Family,
) {
    let Some(lab) = Lab::on(family).alone().build() else {
        return;
    };
    let far = far(&lab, family);
    let to = far.east.at(WEB_PORT);
    far.east.await_links(2);
    await_used(&far.east, "quic");

    let mut client = lab.client.connect(far.east.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"before", 6).unwrap(), b"before");
    let before = Load::paced(&lab.client, to, 4, Duration::from_millis(2));
    before.await_answers(200);
    far.udp(Udp::Blocked);
    // Answers that are on their way now may be lost; who comes after is another matter.
    let blocked_at = Instant::now();
    let after = Load::paced(&lab.client, to, 4, Duration::from_millis(2));
    after.await_answers(400);
    let after = after.stop();
    let slowest = after.slowest_since(blocked_at);
    println!(
        "{} requests since UDP is blocked, the slowest took {slowest:?}",
        after.requests()
    );
    assert_eq!(after.failures(), [""; 0]);
    assert!(slowest < MOVED, "{slowest:?}");
    let (transport, cause) = used(&far.east);
    assert_eq!(transport, "tls");
    assert!(
        ["overdue", "gone", "lossy"].contains(&cause.as_str()),
        "{cause}"
    );
    far.east.await_log("new streams go another way");
    let changes = far
        .east
        .metric("corinth_carrier_changes_total", &["to=\"tls\""]);
    assert!(changes >= 1.0, "{changes}");
    // What was open on the dead path ends, and says why.
    assert_eq!(ending(&mut client), Ending::Reset);
    let record = far.east.record_to(ECHO_NAME, client.local_addr().unwrap());
    assert_eq!(record.code(), "CRN025");

    far.udp(Udp::Passes);
    await_used(&far.east, "quic");
    assert_eq!(used(&far.east), ("quic".to_owned(), "returned".to_owned()));
    before.await_answers(200);
    let report = before.stop();
    assert_eq!(
        // Of an answer that was under way the end alone may have been lost, and it is not asked for twice.
        report.failures_since(blocked_at),
        [""; 0],
        "requests may be sent twice here"
    );
}

fn streams_move_to_tls_when_udp_is_policed(family: Family) {
    let Some(lab) = Lab::on(family).alone().build() else {
        return;
    };
    let far = far(&lab, family);
    far.east.await_links(2);
    await_used(&far.east, "quic");
    let _bulk = Bulk::start(&lab, far.east.at(ECHO_PORT));
    far.udp(POLICED);
    let policed_at = Instant::now();
    await_used(&far.east, "tls");
    let moved = policed_at.elapsed();
    println!("over TLS {moved:?} after UDP is policed");
    assert!(moved < POLICED_MOVED, "{moved:?}");
    assert_eq!(used(&far.east).1, "lossy");
    let web = Load::paced(
        &lab.client,
        far.east.at(WEB_PORT),
        4,
        Duration::from_millis(2),
    );
    web.await_answers(200);
    assert_eq!(web.stop().failures(), [""; 0]);
}

/// UDP leaves `host` for the network between the clusters slowly, everything else as fast as it can. `address` is what the
/// host has there.
fn shape_udp(host: &Host, address: IpAddr) {
    let shown = host.run("ip", ["-j", "addr"]);
    let devices: Vec<serde_json::Value> = serde_json::from_str(&shown.stdout.concat()).unwrap();
    let has = |device: &serde_json::Value| {
        let addresses = device["addr_info"].as_array().unwrap();
        addresses
            .iter()
            .any(|known| known["local"] == address.to_string())
    };
    let device = devices.iter().find(|device| has(device)).unwrap();
    let device = device["ifname"].as_str().unwrap();
    let qdisc = ["root", "handle", "1:", "htb", "default", "1"];
    let filter = |protocol, matched, number| {
        let to = [
            "u32", "match", matched, "protocol", "17", "0xff", "flowid", "1:2",
        ];
        let head = ["parent", "1:", "protocol", protocol, "prio", number];
        head.into_iter().chain(to).collect()
    };
    let class = |id, rate| vec!["parent", "1:", "classid", id, "htb", "rate", rate];
    let steps: [(&str, Vec<&str>); 5] = [
        ("qdisc", qdisc.to_vec()),
        ("class", class("1:1", "10gbit")),
        ("class", class("1:2", SHAPED)),
        ("filter", filter("ip", "ip", "1")),
        ("filter", filter("ipv6", "ip6", "2")),
    ];
    for (kind, words) in steps {
        let words = [kind, "add", "dev", device].into_iter().chain(words);
        let shaped = host.run("tc", words);
        assert!(shaped.status.success(), "{shaped:#?}");
    }
}

fn streams_move_to_tls_when_it_delivers_far_more(family: Family) {
    let Some(lab) = Lab::on(family).alone().build() else {
        return;
    };
    let far = far_serving(&lab, family, |mut client, _| {
        let mut room = vec![0; 1 << 16];
        while matches!(client.read(&mut room), Ok(1..)) {}
    });
    shape_udp(&lab.east, far.wan.addresses(0)[0]);
    far_more_by_tls(&lab, &far, "sent");
}

/// What the peer sends slowly only the peer could tell.
fn streams_move_to_tls_when_far_more_comes_by_it(family: Family) {
    let Some(lab) = Lab::on(family).alone().build() else {
        return;
    };
    let far = far_serving(&lab, family, |mut client, _| {
        while client.write_all(&[7; 1 << 16]).is_ok() {}
    });
    shape_udp(&lab.west, far.wan.addresses(1)[0]);
    far_more_by_tls(&lab, &far, "received");
}

/// Streams go over QUIC until TLS was tried, and turned out to deliver far more of the bytes that `east` has `moved` so.
fn far_more_by_tls(lab: &Lab, far: &Far, moved: &str) {
    far.east.await_links(2);
    await_used(&far.east, "quic");
    let slow = Bulk::start(lab, far.east.at(ECHO_PORT));
    await_used(&far.east, "tls");
    let fast = Bulk::start(lab, far.east.at(ECHO_PORT));
    until("TLS stays", WAIT, || {
        (used(&far.east) == ("tls".to_owned(), "faster".to_owned())).then_some(())
    });
    drop((slow, fast));
    // TLS may have delivered all that there was to carry.
    let direction = format!("direction=\"{moved}\"");
    let of_quic = ["transport=\"quic\"", &direction];
    let quic = far
        .east
        .metric("corinth_link_goodput_bytes_per_second", &of_quic);
    println!("QUIC delivered {quic:.0} bytes per second");
    assert!(quic > 0.0 && quic < SHAPED_MAX, "{quic}");
}

/// What one side drops, the other carrier does not need.
fn one_transport_only(family: Family, protocol: &str, carrier: &str) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    lab.west.firewall().drop_protocol_to(protocol, TUNNEL_PORT);
    let far = far(&lab, family);
    far.east.await_links(1);
    await_used(&far.east, carrier);
    let mut client = lab.client.connect(far.east.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"hello", 5).unwrap(), b"hello");
    assert_eq!(far.east.link_rows().len(), 1);
}

fn a_peer_that_only_tcp_reaches_is_linked_by_tls(family: Family) {
    one_transport_only(family, "udp", "tls");
}

fn a_peer_that_only_udp_reaches_is_linked_by_quic(family: Family) {
    one_transport_only(family, "tcp", "quic");
}
