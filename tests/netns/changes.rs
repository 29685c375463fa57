//! What changes while connections are open.

use std::{
    fs,
    io::{ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant, SystemTime},
};

use corinth_lab::{
    Ending, Family, Gateway, GatewayConfig, Lab, Load, Nginx, Service, WAIT, ending, exchange,
    is_soak, pause_until, until,
};
use rustls::pki_types::UnixTime;
use serde_json::json;

use crate::fixture::{ECHO, ECHO_PORT, WEB, WEB_PORT, curl, echo_back};

on_both_families![
    a_new_configuration_is_used_and_open_streams_go_on,
    a_wrong_configuration_is_refused_and_the_old_one_stays,
    an_export_taken_back_ends_its_streams_within_five_seconds,
    a_peer_taken_out_ends_its_streams_within_five_seconds,
    a_gateway_starts_from_the_last_good_configuration,
    certificates_change_every_five_seconds_and_no_request_fails,
    clocks_five_minutes_apart_do_not_matter,
    clocks_a_day_apart_do_and_the_log_says_so,
    a_stream_outlives_its_certificate_and_a_new_one_needs_a_new_one,
];

/// Echo and web behind west; what east imports is left to the test.
struct Both {
    _nginx: Nginx,
    service: Service,
    west: Gateway,
}

fn west_config(lab: &Lab) -> GatewayConfig<'_> {
    lab.gateway("west")
        .peer("east")
        .exports(ECHO, &[lab.server_at(0, 7007)], &["east"])
}

fn east_config(lab: &Lab) -> GatewayConfig<'_> {
    lab.gateway("east")
        .peer("west")
        .imports(ECHO, ECHO_PORT, &["west"])
}

fn both(lab: &Lab) -> Both {
    let web = lab.server_at(0, 8080);
    let nginx = Nginx::start(&lab.server, lab.folder(), web, None);
    let service = lab.server.serve(lab.server_at(0, 7007), echo_back);
    let west = west_config(lab).exports(WEB, &[web], &["east"]).start();
    Both {
        _nginx: nginx,
        service,
        west,
    }
}

/// A stream to the echo service that has said something already.
fn open_stream(lab: &Lab, east: &Gateway) -> TcpStream {
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"hello", 5).unwrap(), b"hello");
    client
}

fn a_new_configuration_is_used_and_open_streams_go_on(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let _both = both(&lab);
    let east = east_config(&lab).start();
    east.await_links(1);
    let mut client = open_stream(&lab, &east);
    let url = format!("http://{}/", east.at(WEB_PORT));
    assert!(
        lab.client.try_connect(east.at(WEB_PORT)).is_err(),
        "not imported yet"
    );

    east.reconfigure(&east_config(&lab).imports(WEB, WEB_PORT, &["west"]));
    assert_eq!(curl(&lab.client, &[&url]), ["ok"]);
    assert_eq!(exchange(&mut client, b"still", 5).unwrap(), b"still");

    // What is not imported any more is not listened for; its open streams go on where the far side allows them.
    east.reconfigure(
        &lab.gateway("east")
            .peer("west")
            .imports(WEB, WEB_PORT, &["west"]),
    );
    let to = east.at(ECHO_PORT);
    until("the port is closed", WAIT, || {
        lab.client.try_connect(to).err()
    });
    assert_eq!(curl(&lab.client, &[&url]), ["ok"]);
    assert_eq!(exchange(&mut client, b"still", 5).unwrap(), b"still");
}

fn a_wrong_configuration_is_refused_and_the_old_one_stays(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let _both = both(&lab);
    let mut east = east_config(&lab).start();
    east.tolerate("the new configuration is wrong");
    east.await_links(1);
    let mut client = open_stream(&lab, &east);

    let mark = east.log_mark();
    let text = east_config(&lab)
        .with("drain", json!({ "limit": "soon" }))
        .text();
    east.rewrite(&(text + "colour: blue\n"));
    east.await_log_since(mark, "the new configuration is wrong; the old one stays");
    // Every mistake, each with what to do about it.
    east.await_log_since(mark, "colour");
    east.await_log_since(mark, "soon");
    assert_eq!(exchange(&mut client, b"still", 5).unwrap(), b"still");
    drop(open_stream(&lab, &east));
    let (_, page) = east.admin("/config").unwrap();
    assert!(page.contains("\"10s\""), "the old drain limit: {page}");

    east.reconfigure(&east_config(&lab).imports(WEB, WEB_PORT, &["west"]));
    assert_eq!(
        curl(&lab.client, &[&format!("http://{}/", east.at(WEB_PORT))]),
        ["ok"]
    );
}

fn an_export_taken_back_ends_its_streams_within_five_seconds(family: Family) {
    withdrawn(family, |lab| {
        lab.gateway("west")
            .peer("east")
            .exports(WEB, &[lab.server_at(0, 8080)], &["east"])
    });
}

fn a_peer_taken_out_ends_its_streams_within_five_seconds(family: Family) {
    withdrawn(family, |lab| lab.gateway("west"));
}

/// Streams of the echo service end when west takes on another configuration.
fn withdrawn(family: Family, other: impl FnOnce(&Lab) -> GatewayConfig<'_>) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let both = both(&lab);
    let east = east_config(&lab).start();
    east.await_links(1);
    let mut streams: Vec<_> = (0..20).map(|_| open_stream(&lab, &east)).collect();
    let withdrawn_at = Instant::now();
    both.west.rewrite(&other(&lab).text());
    for stream in &mut streams {
        assert_eq!(ending(stream), Ending::Reset);
    }
    let took = withdrawn_at.elapsed();
    println!("20 streams ended within {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(both.service.tally().await_deliveries(20, WAIT));
    assert!(
        both.service
            .tally()
            .deliveries()
            .iter()
            .all(|ended| ended == b"Reset")
    );
    until("each stream has its record", WAIT, || {
        let records = both.west.records();
        let withdrawn = records.iter().filter(|record| record.code() == "CRN033");
        (withdrawn.count() == 20).then_some(())
    });
}

fn a_gateway_starts_from_the_last_good_configuration(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let _both = both(&lab);
    let mut first = east_config(&lab).start();
    first.await_links(1);
    first.kill();
    let broken = east_config(&lab).text() + "colour: blue\n";
    let mut east = east_config(&lab).launch_text(&broken);
    east.tolerate("the configuration is wrong; starting from the last good one");
    // Its watch looks at the same file.
    east.tolerate("the new configuration is wrong");
    east.await_ready();
    east.await_log("colour");
    east.await_links(1);
    let _open = open_stream(&lab, &east);
    // It follows the file from there on.
    east.reconfigure(&east_config(&lab).imports(WEB, WEB_PORT, &["west"]));
    assert_eq!(
        curl(&lab.client, &[&format!("http://{}/", east.at(WEB_PORT))]),
        ["ok"]
    );
}

fn certificates_change_every_five_seconds_and_no_request_fails(family: Family) {
    let seconds = if is_soak() { 120 } else { 30 };
    let deadline = Duration::from_secs(seconds + 60);
    let Some(lab) = Lab::on(family).deadline(deadline).build() else {
        return;
    };
    let identity = json!({ "leafLifetime": "10s" });
    let (echo, web) = (lab.server_at(0, 7007), lab.server_at(0, 8080));
    let _nginx = Nginx::start(&lab.server, lab.folder(), web, None);
    let _service = lab.server.serve(echo, echo_back);
    let west = west_config(&lab).exports(WEB, &[web], &["east"]);
    let west = west.with("identity", identity.clone()).start();
    let east = east_config(&lab)
        .imports(WEB, WEB_PORT, &["west"])
        .with("identity", identity)
        .start();
    east.await_links(1);
    let mut stream = open_stream(&lab, &east);

    let began = Instant::now();
    let load = Load::paced(&lab.client, east.at(WEB_PORT), 4, Duration::from_millis(5));
    pause_until(began + Duration::from_secs(seconds));
    let report = load.stop();
    assert_eq!(report.failures(), [""; 0]);
    assert_eq!(exchange(&mut stream, b"still", 5).unwrap(), b"still");
    for gateway in [&east, &west] {
        let log = gateway.log();
        let renewals = log
            .iter()
            .filter(|line| line.contains("certificate renewed"))
            .count();
        assert!(
            renewals as u64 >= seconds / 5 - 2,
            "{renewals} renewals in {seconds} s"
        );
    }
    println!("{} requests in {seconds} s", report.requests());
}

/// An east whose certificate was issued by a clock that is `ahead` or behind, and its west.
fn with_clock_at(lab: &Lab, now: SystemTime, lifetime: Duration) -> (Nginx, Gateway, Gateway) {
    let web = lab.server_at(0, 8080);
    let nginx = Nginx::start(&lab.server, lab.folder(), web, None);
    let west = lab
        .gateway("west")
        .awaits("east")
        .exports(WEB, &[web], &["east"])
        .start();
    let east = issued_elsewhere(lab, now, lifetime)
        .imports(WEB, WEB_PORT, &["west"])
        .start();
    (nginx, west, east)
}

/// East with a leaf that somebody else issues, in files.
fn issued_elsewhere(lab: &Lab, now: SystemTime, lifetime: Duration) -> GatewayConfig<'_> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = UnixTime::since_unix_epoch(now);
    let leaf = lab.pki.leaf("east", "corinth/gateway/0", now, lifetime);
    let (certificate, key) = lab.pki.write_leaf("east-leaf", &leaf);
    let bundle = lab.pki.certificate("east");
    let identity = json!({ "leafCert": certificate, "leafKey": key, "bundle": bundle });
    lab.gateway("east")
        .without("identity")
        .with("identity", identity)
        .peer("west")
}

/// What a leaf lives for.
const DAY: Duration = Duration::from_hours(24);

fn clocks_five_minutes_apart_do_not_matter(family: Family) {
    for is_ahead in [true, false] {
        let Some(lab) = Lab::on(family).build() else {
            return;
        };
        let apart = Duration::from_mins(5);
        let now = SystemTime::now();
        let clock = if is_ahead { now + apart } else { now - apart };
        let (_nginx, _west, east) = with_clock_at(&lab, clock, DAY);
        east.await_links(1);
        assert_eq!(
            curl(&lab.client, &[&format!("http://{}/", east.at(WEB_PORT))]),
            ["ok"]
        );
    }
}

fn clocks_a_day_apart_do_and_the_log_says_so(family: Family) {
    for is_ahead in [true, false] {
        let Some(lab) = Lab::on(family).build() else {
            return;
        };
        let apart = DAY + Duration::from_secs(5);
        let now = SystemTime::now();
        let clock = if is_ahead { now + apart } else { now - apart };
        let (_nginx, west, east) = with_clock_at(&lab, clock, DAY);
        let record = west.await_record(|record| record.text("intake") == "tunnel");
        assert_eq!(record.code(), "CRN041", "ahead: {is_ahead}");
        east.await_log("cannot link");
        assert_eq!(east.links("up"), 0);
        assert!(is_reset(&lab, east.at(WEB_PORT)));
    }
}

fn a_stream_outlives_its_certificate_and_a_new_one_needs_a_new_one(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let life = Duration::from_secs(4);
    let both = both(&lab);
    let issued_at = SystemTime::now();
    let east = issued_elsewhere(&lab, issued_at, life)
        .imports(ECHO, ECHO_PORT, &["west"])
        .start();
    east.await_links(1);
    let mut stream = open_stream(&lab, &east);
    let expired_at = Instant::now() + life + Duration::from_secs(2);
    pause_until(expired_at);
    assert_eq!(exchange(&mut stream, b"still", 5).unwrap(), b"still");
    assert!(is_reset(&lab, east.at(ECHO_PORT)));

    let mark = east.log_mark();
    drop(issued_elsewhere(&lab, SystemTime::now(), DAY));
    east.await_log_since(mark, "configuration applied");
    until("new streams are carried again", WAIT, || {
        let mut client = lab.client.try_connect(east.at(ECHO_PORT)).ok()?;
        exchange(&mut client, b"again", 5).ok()
    });
    assert_eq!(exchange(&mut stream, b"still", 5).unwrap(), b"still");
    assert!(
        both.west
            .records()
            .iter()
            .all(|record| record.code() != "CRN049")
    );
}

/// Whether a client is turned away by RST. The kernel tells it once, at whatever comes first.
fn is_reset(lab: &Lab, to: SocketAddr) -> bool {
    let said = lab
        .client
        .try_connect(to)
        .and_then(|mut client| client.write_all(b"hello").map(|()| client));
    match said {
        Ok(mut client) => ending(&mut client) == Ending::Reset,
        Err(error) => {
            let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            kinds.contains(&error.kind())
        }
    }
}

#[test]
fn what_a_gateway_keeps_is_for_itself_only() {
    let Some(lab) = Lab::on(Family::V4).build() else {
        return;
    };
    let config = lab.gateway("west").without("identity");
    let folder = config.path().parent().unwrap().join("state");
    let _west = config.start();
    let mode = |path: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .map(|file| file.path())
        .collect();
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
