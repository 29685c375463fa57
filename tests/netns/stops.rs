//! How a gateway stops, and that nobody notices where there are two.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use corinth_lab::{
    Balancer, Ending, Gateway, Ground, Lab, Load, Nginx, WAIT, ending, exchange, pause_until, until,
};
use serde_json::json;

use crate::fixture::{ECHO, ECHO_PORT, WEB, WEB_PORT, echo_back};

over_both_transports![
    restarting_the_far_gateways_in_turn_loses_no_new_connection,
    restarting_the_near_gateways_in_turn_loses_no_new_connection,
    a_gateway_told_to_stop_goes_in_order,
    a_second_signal_ends_at_once,
    the_drain_limit_cuts_what_is_left,
];

fn restarting_the_far_gateways_in_turn_loses_no_new_connection(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("west", 2).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 8080);
    let _nginx = Nginx::start(&lab.server, lab.folder(), endpoint, None);
    let start = |slot| {
        lab.slot("west", slot)
            .peer("east")
            .exports(WEB, &[endpoint], &["east"])
            .start()
    };
    let mut west = [start(0), start(1)];
    let east = lab
        .gateway("east")
        .peer("west")
        .imports(WEB, WEB_PORT, &["west"])
        .start();
    east.await_links(2);

    let load = Load::paced(&lab.client, east.at(WEB_PORT), 4, Duration::from_millis(2));
    load.await_answers(50);
    for slot in [0, 1] {
        let gateway = &mut west[usize::from(slot)];
        gateway.terminate();
        assert!(gateway.wait(WAIT).success());
        load.await_answers(50);
        west[usize::from(slot)] = start(slot);
        east.await_links(2);
        load.await_answers(50);
    }
    let report = load.stop();
    println!("{} requests over two restarts", report.requests());
    assert_eq!(report.failures(), [""; 0]);
}

fn restarting_the_near_gateways_in_turn_loses_no_new_connection(ground: Ground) {
    let Some(lab) = Lab::on(ground).slots("east", 2).build() else {
        return;
    };
    let endpoint = lab.server_at(0, 8080);
    let _nginx = Nginx::start(&lab.server, lab.folder(), endpoint, None);
    let _west = lab
        .gateway("west")
        .awaits("east")
        .exports(WEB, &[endpoint], &["east"])
        .start();
    let start = |slot| {
        let gateway = lab
            .slot("east", slot)
            .peer("west")
            .imports(WEB, WEB_PORT, &["west"])
            .start();
        gateway.await_links(1);
        gateway
    };
    let mut east = [start(0), start(1)];
    let service = SocketAddr::new(ground.family.service_address(), 80);
    let balancer = Balancer::start(&lab.east, service, &[&east[0], &east[1]], WEB_PORT);
    balancer.await_targets(2);

    let load = Load::paced(&lab.client, service, 4, Duration::from_millis(2));
    load.await_answers(50);
    for slot in [0, 1] {
        let gateway = &mut east[usize::from(slot)];
        gateway.terminate();
        balancer.await_targets(1);
        assert!(gateway.wait(WAIT).success());
        load.await_answers(50);
        east[usize::from(slot)] = start(slot);
        balancer.await_targets(2);
        load.await_answers(50);
    }
    let report = load.stop();
    println!("{} requests over two restarts", report.requests());
    assert_eq!(report.failures(), [""; 0]);
}

/// A near gateway that stops as `drain` says, with one open stream through it.
fn with_an_open_stream(
    lab: &Lab,
    drain: serde_json::Value,
) -> (Gateway, Gateway, corinth_lab::Service, TcpStream) {
    let endpoint = lab.server_at(0, 7007);
    let service = lab.server.serve(endpoint, echo_back);
    let west = lab
        .gateway("west")
        .peer("east")
        .exports(ECHO, &[endpoint], &["east"])
        .start();
    let east = lab
        .gateway("east")
        .peer("west")
        .imports(ECHO, ECHO_PORT, &["west"]);
    let east = east.with("drain", drain).start();
    east.await_links(1);
    let mut client = lab.client.connect(east.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"open", 4).unwrap(), b"open");
    (west, east, service, client)
}

fn a_gateway_told_to_stop_goes_in_order(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let drain = json!({ "delay": "3s", "limit": "20s" });
    let (west, mut east, _service, mut client) = with_an_open_stream(&lab, drain);
    assert!(east.is_ready());
    assert_eq!(west.links("up"), 1);

    let told_at = Instant::now();
    east.terminate();
    // First: not ready, and the peer knows.
    until("east is not ready", WAIT, || {
        (!east.is_ready()).then_some(())
    });
    let (status, page) = east.admin("/readyz?verbose").unwrap();
    assert_eq!((status, page.contains("draining")), (503, true), "{page}");
    until("west knows", WAIT, || {
        (west.links("draining") == 1).then_some(())
    });
    // Second: who comes all the same is served.
    assert!(
        told_at.elapsed() < Duration::from_secs(2),
        "too slow to see anything"
    );
    let mut late = lab.client.connect(east.at(ECHO_PORT));
    assert_eq!(exchange(&mut late, b"late", 4).unwrap(), b"late");
    // Until the delay has passed.
    let to = east.at(ECHO_PORT);
    while told_at.elapsed() < Duration::from_millis(2_500) {
        let mut late = lab.client.connect(to);
        assert_eq!(exchange(&mut late, b"late", 4).unwrap(), b"late");
    }
    pause_until(told_at + Duration::from_secs(3));
    // Third: nobody is taken any more, and what is open goes on.
    // Who comes in the moment in which the port closes may be reset; after that there is no port.
    until("east takes nobody", WAIT, || {
        let refusal = lab.client.try_connect(to).err()?;
        (refusal.kind() == ErrorKind::ConnectionRefused).then_some(())
    });
    assert_eq!(exchange(&mut client, b"still", 5).unwrap(), b"still");
    assert_eq!(exchange(&mut late, b"still", 5).unwrap(), b"still");
    assert!(east.is_running());
    // Fourth: when the last one has ended, so does the gateway.
    drop((client, late));
    assert!(east.wait(WAIT).success());
    assert!(
        told_at.elapsed() < Duration::from_secs(15),
        "the limit was not waited for"
    );
    let failed = east
        .records()
        .into_iter()
        .filter(|record| record.code() != "CRN000");
    assert_eq!(failed.collect::<Vec<_>>(), []);
}

fn a_second_signal_ends_at_once(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let drain = json!({ "delay": "1m", "limit": "1h" });
    let (_west, mut east, _service, mut client) = with_an_open_stream(&lab, drain);
    east.terminate();
    until("east is not ready", WAIT, || {
        (!east.is_ready()).then_some(())
    });
    let told_at = Instant::now();
    east.terminate();
    assert_eq!(ending(&mut client), Ending::Reset);
    assert!(east.wait(WAIT).success());
    assert!(
        told_at.elapsed() < Duration::from_secs(3),
        "{:?}",
        told_at.elapsed()
    );
    assert_eq!(
        east.record_from(client.local_addr().unwrap()).code(),
        "CRN034"
    );
}

fn the_drain_limit_cuts_what_is_left(ground: Ground) {
    let Some(lab) = Lab::on(ground).build() else {
        return;
    };
    let drain = json!({ "delay": "off", "limit": "2s" });
    let (west, mut east, service, mut client) = with_an_open_stream(&lab, drain);
    let told_at = Instant::now();
    east.terminate();
    assert_eq!(ending(&mut client), Ending::Reset);
    let cut_after = told_at.elapsed();
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(5)).contains(&cut_after),
        "{cut_after:?}"
    );
    assert!(east.wait(WAIT).success());
    assert_eq!(
        east.record_from(client.local_addr().unwrap()).code(),
        "CRN032"
    );
    assert_eq!(
        west.await_record(|record| record.text("intake") == "peer")
            .code(),
        "CRN032"
    );
    assert!(service.tally().await_deliveries(1, WAIT));
    assert_eq!(
        service.tally().deliveries(),
        [b"Reset"],
        "the server sees the cut too"
    );
}
