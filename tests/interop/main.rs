//! A gateway put to the cases of the QUIC interop runner that can be seen from outside, by a client that shares no code
//! with it: aioquic, with TLS, loss recovery and congestion control of its own.
//!
//! The client does what docs/protocol.md says of a peer's gateway, and prints what it saw (`client.py`, `peer.py`); what is
//! right is said here. Loss, damage and silence are made by the client at its socket, in both directions. Resumption and
//! early data are not among the cases: there are none. `tests/run interop` fetches aioquic.

/// Each test named runs once on IPv4 and once on IPv6.
macro_rules! on_both_families {
    ($($test:ident),* $(,)?) => {
        mod on_ipv4 {
            $(#[test] fn $test() { super::$test(corinth_lab::Family::V4); })*
        }
        mod on_ipv6 {
            $(#[test] fn $test() { super::$test(corinth_lab::Family::V6); })*
        }
    };
}

use std::{
    env,
    fmt::Write as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use corinth_api::{StreamKind, StreamOpen, StreamReply};
use corinth_lab::{Family, Gateway, Lab, Net, Process, Service, echo_back, skip, tunnel::encoded};
use corinth_model::{Protocol, RouteName};
use rustls::pki_types::UnixTime;
use serde_json::{Value, json};

on_both_families![
    another_implementation_shakes_hands_and_its_stream_is_carried,
    every_cipher_suite_is_spoken,
    whoever_begins_with_another_version_is_told_which_one_is_spoken,
    whoever_has_not_shown_its_address_is_sent_little_more_than_three_times_what_it_sent,
    in_a_crowd_whoever_comes_has_to_show_its_address_first,
    two_hundred_streams_are_open_at_once_and_come_back_whole,
    keys_change_while_a_stream_is_open,
    bytes_come_back_whole_over_a_path_that_loses_packets,
    bytes_come_back_whole_over_a_path_that_damages_packets,
    a_path_that_is_silent_for_two_seconds_costs_no_bytes,
    a_client_that_comes_from_another_port_is_challenged_and_goes_on,
    a_client_that_comes_from_another_address_is_challenged_and_goes_on,
    a_client_that_moves_with_another_connection_id_is_challenged_and_goes_on,
];

/// Where `tests/run` says that aioquic is.
const AIOQUIC: &str = "CORINTH_AIOQUIC";
/// What the client calls.
const ECHO: &str = "echo.lab:7";
const ECHO_NAME: &str = "7.echo.lab.svc.clusterset.local";
/// No case takes as long.
const CASE_MAX: Duration = Duration::from_secs(60);
/// Handshakes under way of which a gateway begins more only with those who have shown their address.
const UNPROVEN_MAX: u32 = 64;

/// What a gateway sends in one datagram before it knows the path.
const DATAGRAM_BYTES: u64 = 1_200;

/// West, and everything that a client needs which is east.
struct Far {
    west: Gateway,
    _echo: Service,
    modules: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    lab: Lab,
}

fn far(family: Family) -> Option<Far> {
    let Some(modules) = env::var_os(AIOQUIC).map(PathBuf::from) else {
        let thread = thread::current();
        let name = thread.name().unwrap_or("a test");
        skip(name, "there is no aioquic; `tests/run interop` fetches it");
        return None;
    };
    let lab = Lab::on(family).build()?;
    let endpoint = lab.server_at(0, 7007);
    let echo = lab.server.serve(endpoint, echo_back);
    let west = lab
        .gateway("west")
        .awaits("east")
        .exports(ECHO, &[endpoint], &["east"])
        .start();
    let hour = Duration::from_secs(3_600);
    let leaf = lab
        .pki
        .leaf("east", "corinth/gateway/0", UnixTime::now(), hour);
    let (certificate, key) = lab.pki.write_leaf("east-leaf", &leaf);
    Some(Far {
        west,
        _echo: echo,
        modules,
        certificate,
        key,
        lab,
    })
}

impl Far {
    /// What the client saw in one of its cases.
    fn see(&self, case: &str, more: &[&str]) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/client.py");
        let open = StreamOpen::new(StreamKind::Service {
            route: RouteName::parse(ECHO_NAME).expect("a route name"),
            protocol: Protocol::Tcp,
        });
        let mut reply = Vec::new();
        StreamReply::Accepted.encode(&mut reply);
        let tunnel = self.west.tunnel();
        let mut command = self.lab.east.command("python3");
        command
            .env("PYTHONPATH", &self.modules)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(script)
            .arg(case)
            .args(["--gateway", &tunnel.ip().to_string()])
            .arg(tunnel.port().to_string())
            .arg("--certificate")
            .arg(&self.certificate)
            .arg("--key")
            .arg(&self.key)
            .arg("--root")
            .arg(self.lab.pki.certificate("west"))
            .args(["--open", &hexadecimal(&encoded(&open))])
            .args(["--reply", &hexadecimal(&reply)])
            .args(more);
        let output = Process::start(case, command).wait(CASE_MAX).good();
        let seen = serde_json::from_str(&output.text());
        seen.unwrap_or_else(|error| panic!("{case} printed no JSON: {error}: {output:#?}"))
    }

    /// Handshakes of clients that ended like this.
    fn handshakes(&self, outcome: &str) -> f64 {
        let label = format!("outcome=\"{outcome}\"");
        self.west.metric("corinth_quic_handshakes_total", &[&label])
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn number(seen: &Value, key: &str) -> u64 {
    let number = seen[key].as_u64();
    number.unwrap_or_else(|| panic!("no {key} in {seen}"))
}

fn another_implementation_shakes_hands_and_its_stream_is_carried(family: Family) {
    let Some(far) = far(family) else { return };
    let expected = json!({
        "version": 1,
        "alpn": "corinth/1",
        "identity": ["spiffe://west.corinth.internal/corinth/gateway/0"],
        "isWhole": true,
    });
    assert_eq!(far.see("handshake", &[]), expected);
    assert_eq!(far.handshakes("accepted"), 1.0);
    assert_eq!(far.handshakes("failed"), 0.0);
    let record = far
        .west
        .await_record(|record| record.text("intake") == "peer");
    assert_eq!((record.text("peer"), record.code()), ("east", "CRN000"));
    let carried = ["bytes_sent", "bytes_received"].map(|key| record.number(key));
    assert_eq!(carried, [10_000, 10_000]);
}

fn every_cipher_suite_is_spoken(family: Family) {
    let Some(far) = far(family) else { return };
    let suites = [
        "AES_128_GCM_SHA256",
        "AES_256_GCM_SHA384",
        "CHACHA20_POLY1305_SHA256",
    ];
    assert_eq!(far.see("ciphers", &[]), json!({ "agreed": suites }));
}

fn whoever_begins_with_another_version_is_told_which_one_is_spoken(family: Family) {
    let Some(far) = far(family) else { return };
    let expected = json!({ "isNegotiated": true, "version": 1, "isWhole": true });
    assert_eq!(far.see("version", &[]), expected);
}

fn whoever_has_not_shown_its_address_is_sent_little_more_than_three_times_what_it_sent(
    family: Family,
) {
    let Some(far) = far(family) else { return };
    let seen = far.see("amplification", &["--seconds", "4"]);
    let (sent, received) = (number(&seen, "sent"), number(&seen, "received"));
    // It was answered, and more than once.
    assert!(number(&seen, "datagrams") >= 2, "{seen}");
    // RFC 9000 §8.1 says three times. quinn sends the last datagram whole that begins within that.
    assert!(
        received > sent && received < 3 * sent + DATAGRAM_BYTES,
        "{seen}"
    );
}

fn in_a_crowd_whoever_comes_has_to_show_its_address_first(family: Family) {
    let Some(far) = far(family) else { return };
    let crowd = (UNPROVEN_MAX + 1).to_string();
    let seen = far.see("retry", &["--crowd", &crowd]);
    assert_eq!(seen, json!({ "retries": 1, "isWhole": true }));
    assert!(far.handshakes("retried") >= 1.0);
}

fn two_hundred_streams_are_open_at_once_and_come_back_whole(family: Family) {
    let Some(far) = far(family) else { return };
    let seen = far.see("multiplexing", &["--crowd", "200"]);
    assert_eq!(seen, json!({ "whole": 200 }));
    assert_eq!(far.handshakes("accepted"), 1.0);
}

fn keys_change_while_a_stream_is_open(family: Family) {
    let Some(far) = far(family) else { return };
    let expected = json!({ "asked_for": 3, "isWhole": true });
    assert_eq!(far.see("key_update", &[]), expected);
}

fn bytes_come_back_whole_over_a_path_that_loses_packets(family: Family) {
    let Some(far) = far(family) else { return };
    let seen = far.see("bad_path", &["--loss", "0.05"]);
    assert_eq!(seen["isWhole"], true, "{seen}");
    assert!(number(&seen, "lost_out") >= 5, "{seen}");
    assert!(number(&seen, "lost_in") >= 5, "{seen}");
}

fn bytes_come_back_whole_over_a_path_that_damages_packets(family: Family) {
    let Some(far) = far(family) else { return };
    let seen = far.see("bad_path", &["--corruption", "0.05"]);
    assert_eq!(seen["isWhole"], true, "{seen}");
    assert!(number(&seen, "corrupted_out") >= 5, "{seen}");
    assert!(number(&seen, "corrupted_in") >= 5, "{seen}");
}

fn a_path_that_is_silent_for_two_seconds_costs_no_bytes(family: Family) {
    let Some(far) = far(family) else { return };
    let seen = far.see("blackhole", &["--seconds", "2"]);
    assert_eq!(seen["isWhole"], true, "{seen}");
    assert_eq!(number(&seen, "within"), 0, "{seen}");
    assert!(number(&seen, "swallowed_out") >= 1, "{seen}");
    assert!(number(&seen, "swallowed_in") >= 1, "{seen}");
}

/// The client is somewhere else from now on, as `more` says.
fn rebinding(family: Family, more: &[&str], has_other_id: bool) {
    let Some(far) = far(family) else { return };
    let seen = far.see("rebinding", more);
    assert_eq!(seen["isWhole"], true, "{seen}");
    assert_eq!(seen["hasOtherId"], has_other_id, "{seen}");
    assert!(number(&seen, "challenges") >= 1, "{seen}");
    // The answers came to where it is now.
    assert!(number(&seen, "sinceRebinding") >= 50, "{seen}");
    assert_eq!(far.handshakes("accepted"), 1.0);
}

fn a_client_that_comes_from_another_port_is_challenged_and_goes_on(family: Family) {
    rebinding(family, &[], false);
}

fn a_client_that_comes_from_another_address_is_challenged_and_goes_on(family: Family) {
    let own = family.address(Net::Between, 3).to_string();
    rebinding(family, &["--own", &own], false);
}

fn a_client_that_moves_with_another_connection_id_is_challenged_and_goes_on(family: Family) {
    let own = family.address(Net::Between, 3).to_string();
    rebinding(family, &["--own", &own, "--moves"], true);
}
