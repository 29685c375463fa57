//! What breaks, and what the client notices of it.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    time::{Duration, Instant},
};

use corinth_lab::{
    Ending, Family, Gateway, Ground, Lab, Load, Nginx, Service, Tally, Transport, WAIT, ending,
    exchange, read_to_ending, until,
};
use serde_json::json;

use crate::fixture::{ECHO, ECHO_PORT, WEB, WEB_PORT, curl, echo, echo_back};

over_both_transports![
    an_endpoint_gone_between_choice_and_connect_is_not_noticed,
    an_endpoint_silent_between_choice_and_connect_is_not_noticed,
    a_killed_far_gateway_resets_its_streams_and_nothing_arrives_twice,
    a_killed_near_gateway_resets_its_streams_and_nothing_arrives_twice,
    a_killed_gateway_that_is_started_again_is_linked_at_once_and_its_streams_end,
    a_request_on_its_way_to_a_killed_gateway_is_not_sent_again,
    a_request_on_its_way_to_a_killed_gateway_is_sent_again_where_that_is_harmless,
    a_client_that_has_said_nothing_moves_when_its_gateway_is_killed,
    a_second_gateway_serves_at_once_when_the_first_is_killed,
    a_path_that_goes_black_is_left_within_a_second,
    a_cluster_whose_path_goes_black_is_left_for_the_next,
    a_path_that_is_black_towards_the_peer_only_is_left_and_found_again,
    a_path_that_is_black_from_the_peer_only_is_left_and_found_again,
    a_short_silence_of_the_path_breaks_no_stream,
    a_request_on_a_path_that_goes_black_is_cut_soon_and_not_sent_again,
];

/// Traffic has to move within a second. What is measured includes this machine's noise.
const MOVED: Duration = Duration::from_secs(2);
/// Requests may be sent twice.
fn harmless() -> serde_json::Value {
    json!({ "replay": "idempotent" })
}

fn an_endpoint_gone_between_choice_and_connect_is_not_noticed(ground: Ground) {
    one_of_two_endpoints_goes(ground, |lab| {
        lab.server
            .firewall()
            .refuse_connects(lab.server_at(1, 8080));
    });
}

fn an_endpoint_silent_between_choice_and_connect_is_not_noticed(ground: Ground) {
    one_of_two_endpoints_goes(ground, |lab| {
        lab.server
            .firewall()
            .ignore_connects(lab.server_at(1, 8080));
    });
}

/// West goes on choosing among both until it finds out by connecting.
fn one_of_two_endpoints_goes(ground: Ground, goes: impl FnOnce(&Lab)) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let endpoints = [lab.server_at(0, 8080), lab.server_at(1, 8080)];
    let _servers = endpoints.map(|on| lab.server.serve(on, http_ok));
    let _west = lab
        .gateway("west")
        .peer("east")
        .exports(WEB, &endpoints, &["east"])
        .start();
    let east = lab
        .gateway("east")
        .peer("west")
        .imports(WEB, WEB_PORT, &["west"])
        .start();
    east.await_links(1);
    let load = Load::paced(&lab.client, east.at(WEB_PORT), 4, Duration::from_millis(2));
    load.await_answers(100);
    assert!(
        _servers.iter().all(|server| server.tally().accepted() > 0),
        "both are used"
    );
    goes(&lab);
    let gone_at = Instant::now();
    load.await_answers(300);
    let report = load.stop();
    assert_eq!(report.failures(), [""; 0]);
    println!("slowest since: {:?}", report.slowest_since(gone_at));
}

/// A web server that takes its connection at once and answers one request.
fn http_ok(mut stream: TcpStream, _: &Tally) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => request.extend_from_slice(&chunk[..read]),
            Ok(_) | Err(_) => return,
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok\n");
}

/// Takes a request and never answers it. Notes the request, then how the connection ended.
fn swallow(mut stream: TcpStream, tally: &Tally) {
    let mut request = [0; 7];
    if stream.read_exact(&mut request).is_ok() {
        tally.deliver(&request);
    }
    tally.deliver(format!("{:?}", ending(&mut stream)).as_bytes());
}

fn a_killed_far_gateway_resets_its_streams_and_nothing_arrives_twice(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let (mut west, east, service) = echo(&lab, swallow);
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    client.write_all(b"request").unwrap();
    assert!(service.tally().await_deliveries(1, WAIT));
    west.kill();
    assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Reset));
    let code = east
        .record_from(client.local_addr().unwrap())
        .code()
        .to_owned();
    match ground.transport {
        Transport::Tls => assert_eq!(code, "CRN026"),
        // The first one where the stream's own answer was lost too.
        Transport::Quic => assert!(["CRN025", "CRN026"].contains(&code.as_str()), "{code}"),
    }
    assert!(service.tally().await_deliveries(2, WAIT));
    assert_eq!(service.tally().deliveries(), [&b"request"[..], b"Reset"]);
    assert_eq!(service.tally().accepted(), 1);
}

fn a_killed_near_gateway_resets_its_streams_and_nothing_arrives_twice(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let (west, mut east, service) = echo(&lab, swallow);
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    client.write_all(b"request").unwrap();
    assert!(service.tally().await_deliveries(1, WAIT));
    east.kill();
    assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Reset));
    assert!(service.tally().await_deliveries(2, WAIT));
    assert_eq!(service.tally().deliveries(), [&b"request"[..], b"Reset"]);
    assert_eq!(
        west.await_record(|record| record.text("intake") == "peer")
            .code(),
        "CRN026"
    );
}

fn a_killed_gateway_that_is_started_again_is_linked_at_once_and_its_streams_end(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 7007);
    let _service = lab.server.serve(endpoint, echo_back);
    let start = || {
        let west = lab.gateway("west").peer("east");
        west.exports(ECHO, &[endpoint], &["east"]).start()
    };
    let mut west = start();
    let east = lab.gateway("east").peer("west");
    let east = east.imports(ECHO, ECHO_PORT, &["west"]).start();
    east.await_links(1);
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"before", 6).unwrap(), b"before");
    west.kill();
    let _west = start();
    let started_at = Instant::now();
    assert_eq!(ending(&mut client), Ending::Reset);
    until("east is linked again", WAIT, || {
        let client = lab.client.try_connect(east.at(ECHO_PORT));
        let mut client = client.ok()?;
        (exchange(&mut client, b"after!", 6).ok()? == b"after!").then_some(())
    });
    // Not as long as silence has to last.
    assert!(
        started_at.elapsed() < Duration::from_secs(4),
        "{:?}",
        started_at.elapsed()
    );
}

/// Two far gateways. The endpoint of the first one never answers its connect, so that it holds the stream unanswered;
/// that of the second one notes what arrives and answers it.
struct Held {
    first: Gateway,
    _second: Gateway,
    east: Gateway,
    service: Service,
}

fn held(lab: &Lab, import: serde_json::Value) -> Held {
    let (silent, answering) = (lab.server_at(0, 7007), lab.server_at(1, 7007));
    lab.server.firewall().ignore_connects(silent);
    let service = lab.server.serve(answering, |mut stream, tally| {
        let mut request = [0; 7];
        if stream.read_exact(&mut request).is_ok() {
            tally.deliver(&request);
            let _ = stream.write_all(b"answer");
        }
    });
    let slot = |slot, endpoint| {
        let patient = json!({ "connect": "30s", "open": "30s" });
        let west = lab
            .slot("west", slot)
            .awaits("east")
            .exports(ECHO, &[endpoint], &["east"]);
        west.with("timeouts", patient).start()
    };
    let (first, second) = (slot(0, silent), slot(1, answering));
    let east = lab
        .gateway("east")
        .peer("west")
        .imports_with(ECHO, ECHO_PORT, &["west"], import);
    let east = east.with("timeouts", json!({ "open": "30s" })).start();
    east.await_links(2);
    Held {
        first,
        _second: second,
        east,
        service,
    }
}

impl Held {
    /// Connects a client that says `words`, and waits until the first gateway holds its stream.
    fn client(&self, lab: &Lab, words: &[u8]) -> TcpStream {
        let mut client = lab.client.connect(self.east.at(ECHO_PORT));
        client.write_all(words).unwrap();
        until("the first gateway holds the stream", WAIT, || {
            let held = self
                .first
                .metric("corinth_connections_active", &["intake=\"peer\""]);
            (held >= 1.0).then_some(())
        });
        client
    }
}

fn a_request_on_its_way_to_a_killed_gateway_is_not_sent_again(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("west", 2).build() else {
        return;
    };
    let mut held = held(&lab, json!({}));
    let mut client = held.client(&lab, b"request");
    held.first.kill();
    assert_eq!(read_to_ending(&mut client), (Vec::new(), Ending::Reset));
    // Over TCP the kernel says that nobody is there any more; by UDP there is nothing but silence.
    let expected = match ground.transport {
        Transport::Tls => "CRN026",
        Transport::Quic => "CRN025",
    };
    assert_eq!(
        held.east.record_from(client.local_addr().unwrap()).code(),
        expected
    );
    assert_eq!(held.service.tally().accepted(), 0);
}

fn a_request_on_its_way_to_a_killed_gateway_is_sent_again_where_that_is_harmless(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("west", 2).build() else {
        return;
    };
    let mut held = held(&lab, harmless());
    let mut client = held.client(&lab, b"request");
    held.first.kill();
    assert_eq!(
        read_to_ending(&mut client),
        (b"answer".to_vec(), Ending::End)
    );
    assert_eq!(held.service.tally().deliveries(), [b"request"]);
    assert_eq!(held.service.tally().accepted(), 1);
}

fn a_client_that_has_said_nothing_moves_when_its_gateway_is_killed(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("west", 2).build() else {
        return;
    };
    let mut held = held(&lab, json!({}));
    let mut client = held.client(&lab, b"");
    held.first.kill();
    // What is said before it is noticed is on its way to nobody, and may not be said again.
    until("it has moved to the second gateway", WAIT, || {
        (held.service.tally().accepted() == 1).then_some(())
    });
    client.write_all(b"request").unwrap();
    assert_eq!(
        read_to_ending(&mut client),
        (b"answer".to_vec(), Ending::End)
    );
    assert_eq!(held.service.tally().deliveries(), [b"request"]);
}

/// nginx behind two far gateways, `east` in front.
fn two_ways(lab: &Lab, import: serde_json::Value) -> (Nginx, [Gateway; 2], Gateway) {
    let endpoint = lab.server_at(0, 8080);
    let nginx = Nginx::start(&lab.server, lab.folder(), endpoint, None);
    let west = [0, 1].map(|slot| {
        // They do not dial: both would come from the same address.
        lab.slot("west", slot)
            .awaits("east")
            .exports(WEB, &[endpoint], &["east"])
            .start()
    });
    let east = lab
        .gateway("east")
        .peer("west")
        .imports_with(WEB, WEB_PORT, &["west"], import);
    let east = east.start();
    east.await_links(2);
    (nginx, west, east)
}

fn a_second_gateway_serves_at_once_when_the_first_is_killed(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("west", 2).build() else {
        return;
    };
    let (_nginx, mut west, east) = two_ways(&lab, harmless());
    let load = Load::start(&lab.client, east.at(WEB_PORT), 4);
    load.await_answers(200);
    west[0].kill();
    let killed_at = Instant::now();
    load.await_answers(300);
    let report = load.stop();
    let cut = report.failures().len();
    assert!(
        cut <= 4,
        "only requests in flight are cut: {:#?}",
        report.failures()
    );
    assert_eq!(report.failures_since(killed_at), [""; 0]);
    let silence = report.longest_silence_since(killed_at);
    println!("{cut} requests cut in flight, then {silence:?} without an answer");
    assert!(silence < MOVED, "{silence:?}");
}

fn a_path_that_goes_black_is_left_within_a_second(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("west", 2).alone().build() else {
        return;
    };
    let (_nginx, _west, east) = two_ways(&lab, harmless());
    path_goes_black(&lab, &east, |address| {
        lab.west.firewall().drop_to(address);
        lab.west.firewall().drop_from(address);
    });
}

fn a_path_that_is_black_towards_the_peer_only_is_left_and_found_again(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("west", 2).alone().build() else {
        return;
    };
    let (_nginx, _west, east) = two_ways(&lab, harmless());
    path_goes_black(&lab, &east, |address| lab.west.firewall().drop_to(address));
}

fn a_path_that_is_black_from_the_peer_only_is_left_and_found_again(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("west", 2).alone().build() else {
        return;
    };
    let (_nginx, _west, east) = two_ways(&lab, harmless());
    path_goes_black(&lab, &east, |address| {
        lab.west.firewall().drop_from(address)
    });
}

/// The first far gateway cannot be reached any more, without a word. Who asks from now on is served by the other one
/// soon; when the path returns, so does the link.
fn path_goes_black(lab: &Lab, east: &Gateway, goes: impl FnOnce(IpAddr)) {
    let to = east.at(WEB_PORT);
    let before = Load::start(&lab.client, to, 2);
    before.await_answers(100);
    goes(lab.site("west").tunnel(lab.family, 0).ip());
    // Answers that are on the dead path now may be lost; who comes after is another matter.
    let black_at = Instant::now();
    let after = Load::paced(&lab.client, to, 4, Duration::from_millis(2));
    after.await_answers(200);
    let left_after = black_at.elapsed();
    let after = after.stop();
    lab.west.firewall().heal();
    let healed_at = Instant::now();
    drop(before);
    println!(
        "left after {:?}, all in {left_after:?}",
        after.slowest_since(black_at)
    );
    assert_eq!(after.failures(), [""; 0]);
    assert!(
        after.slowest_since(black_at) < MOVED,
        "{:?}",
        after.slowest_since(black_at)
    );

    east.await_links(2);
    let converged_after = healed_at.elapsed();
    println!("found again after {converged_after:?}");
    assert!(
        converged_after < Duration::from_secs(5),
        "{converged_after:?}"
    );
}

fn a_cluster_whose_path_goes_black_is_left_for_the_next(ground: Ground) {
    let Some(lab) = Lab::on(ground).alone().build() else {
        return;
    };
    let (endpoint, other) = (lab.server_at(0, 8080), lab.server_at(1, 8080));
    let west_nginx = Nginx::start(&lab.server, &lab.folder().join("w"), endpoint, None);
    let south_nginx = Nginx::start(&lab.server, &lab.folder().join("s"), other, None);
    let _west = lab
        .gateway("west")
        .awaits("east")
        .exports(WEB, &[endpoint], &["east"])
        .start();
    let _south = lab
        .gateway("south")
        .awaits("east")
        .exports(WEB, &[other], &["east"])
        .start();
    let east = lab.gateway("east").peer("west").peer("south");
    let east = east
        .imports_with(WEB, WEB_PORT, &["west", "south"], harmless())
        .start();
    east.await_links(2);
    let url = format!("http://{}/", east.at(WEB_PORT));
    assert_eq!(curl(&lab.client, &[&url]), ["ok"]);
    assert!((west_nginx.requests(), south_nginx.requests()).0 >= 1);
    path_goes_black(&lab, &east, |address| {
        lab.west.firewall().drop_to(address);
        lab.west.firewall().drop_from(address);
    });
    assert!(south_nginx.requests() >= 200, "south has served");
    // And home again, once its path has returned.
    let before = west_nginx.requests();
    until("west serves again", WAIT, || {
        curl(&lab.client, &[&url]);
        (west_nginx.requests() > before + 1).then_some(())
    });
}

fn a_request_on_a_path_that_goes_black_is_cut_soon_and_not_sent_again(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("west", 2).alone().build() else {
        return;
    };
    let (_nginx, _west, east) = two_ways(&lab, json!({}));
    let address = lab.site("west").tunnel(lab.family, 0).ip();
    lab.west.firewall().drop_to(address);
    lab.west.firewall().drop_from(address);
    let mut client = lab.client.connect(east.at(WEB_PORT));
    let asked_at = Instant::now();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let (answer, ended) = read_to_ending(&mut client);
    let took = asked_at.elapsed();
    println!("{ended:?} after {took:?}");
    // Whichever of the two gateways it was given to: no answer is cut short, and nobody waits.
    assert!(took < MOVED, "{took:?}");
    if ended == Ending::Reset {
        assert_eq!(answer, b"");
        let record = east.record_from(client.local_addr().unwrap());
        assert_eq!(record.code(), "CRN025");
    } else {
        assert!(answer.ends_with(b"ok\n"), "{answer:?}");
    }
}

fn a_short_silence_of_the_path_breaks_no_stream(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let (_west, east, _service) = echo(&lab, echo_back);
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"before", 6).unwrap(), b"before");
    let address = lab.site("west").tunnel(lab.family, 0).ip();
    lab.west.firewall().drop_to(address);
    lab.west.firewall().drop_from(address);
    until("east has noticed", WAIT, || {
        (east.links("up") == 0).then_some(())
    });
    client.write_all(b"during").unwrap();
    lab.west.firewall().heal();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"during");
    east.await_links(1);
    assert_eq!(exchange(&mut client, b"after!", 6).unwrap(), b"after!");
}

#[test]
fn a_path_that_stays_black_ends_its_streams() {
    let Some(lab) = Lab::on(Family::V4).build() else {
        return;
    };
    let (_west, east, service) = echo(&lab, echo_back);
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"before", 6).unwrap(), b"before");
    let address = lab.site("west").tunnel(Family::V4, 0).ip();
    lab.west.firewall().drop_to(address);
    lab.west.firewall().drop_from(address);
    assert_eq!(ending(&mut client), Ending::Reset);
    assert!(service.tally().await_deliveries(1, WAIT));
    assert_eq!(
        service.tally().deliveries(),
        [b"Reset"],
        "the far side cuts it as well"
    );
}
