//! Many who prove nothing, and the few who have.

use std::{net::TcpStream, time::Instant};

use corinth_lab::{Ending, Family, Lab, Service, WAIT, exchange, read_to_ending, until};
use serde_json::json;

use crate::fixture::{ECHO, ECHO_PORT, echo_back};

on_both_families![
    a_thousand_silent_strangers_do_not_lock_peers_out,
    one_prefix_has_its_share_and_no_more,
    a_flood_of_streams_ends_at_the_limit_of_the_peer,
];

fn echo_service(lab: &Lab) -> Service {
    lab.server.serve(lab.server_at(0, 7007), echo_back)
}

fn a_thousand_silent_strangers_do_not_lock_peers_out(family: Family) {
    let Some(lab) = Lab::on(family).alone().build() else {
        return;
    };
    let _echo = echo_service(&lab);
    let everybody = json!({ "perPrefixConnections": 1_024 });
    let west = lab.gateway("west").awaits("east");
    let west = west.exports(ECHO, &[lab.server_at(0, 7007)], &["east"]);
    let west = west.with("limits", everybody).start();
    let east = || {
        let east = lab
            .gateway("east")
            .peer("west")
            .imports(ECHO, ECHO_PORT, &["west"])
            .start();
        east.await_links(1);
        east
    };
    let mut first = east();
    let mut client = lab.client.connect(first.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"before", 6).unwrap(), b"before");
    let resident = west.resident_bytes();

    let began = Instant::now();
    let silent: Vec<TcpStream> = lab.east.within(|| {
        (0..1_100)
            .map(|_| lab.east.connect_here(lab.stranger(), west.tunnel()))
            .collect()
    });
    let turned_away = || {
        let labels = ["intake=\"tunnel\"", "code=\"CRN047\""];
        west.metric("corinth_connections_closed_total", &labels)
    };
    // A quarter of 1,024 is kept for those from whom a peer has come.
    until("those beyond are turned away", WAIT, || {
        (turned_away() >= 332.0).then_some(())
    });
    let held = west.resident_bytes().saturating_sub(resident);
    println!(
        "768 held with {} KiB more, after {:?}",
        held >> 10,
        began.elapsed()
    );
    assert!(held < 32 << 20, "{held} bytes");

    // Who is linked goes on, and who comes back comes in.
    assert_eq!(exchange(&mut client, b"during", 6).unwrap(), b"during");
    first.kill();
    let second = east();
    let mut client = lab.client.connect(second.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"during", 6).unwrap(), b"during");
    println!("linked anew after {:?}", began.elapsed());

    // At their deadline all are gone.
    for mut socket in silent {
        assert_ne!(read_to_ending(&mut socket).1, Ending::Open);
    }
    println!("all gone after {:?}", began.elapsed());
    until("nobody is held", WAIT, || {
        (west.metric("corinth_connections_active", &["intake=\"tunnel\""]) == 0.0).then_some(())
    });
    assert_eq!(turned_away(), 332.0);
    assert_eq!(exchange(&mut client, b"after!", 6).unwrap(), b"after!");
}

fn one_prefix_has_its_share_and_no_more(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let west = lab.gateway("west").awaits("east").start();
    let silent: Vec<TcpStream> = lab.east.within(|| {
        (0..100)
            .map(|_| lab.east.connect_here(lab.stranger(), west.tunnel()))
            .collect()
    });
    until("those beyond 64 are turned away", WAIT, || {
        let labels = ["intake=\"tunnel\"", "code=\"CRN047\""];
        (west.metric("corinth_connections_closed_total", &labels) == 36.0).then_some(())
    });
    drop(silent);
}

fn a_flood_of_streams_ends_at_the_limit_of_the_peer(family: Family) {
    let Some(lab) = Lab::on(family).build() else {
        return;
    };
    let _echo = echo_service(&lab);
    let west = lab
        .gateway("west")
        .peer_with("east", json!({ "acceptOnly": true, "maxStreams": 20 }));
    let _west = west
        .exports(ECHO, &[lab.server_at(0, 7007)], &["east"])
        .start();
    let east = lab
        .gateway("east")
        .peer("west")
        .imports(ECHO, ECHO_PORT, &["west"])
        .start();
    east.await_links(1);
    let mut streams: Vec<_> = (0..20)
        .map(|_| {
            let mut client = lab.client.connect(east.at(ECHO_PORT));
            assert_eq!(exchange(&mut client, b"hello", 5).unwrap(), b"hello");
            client
        })
        .collect();
    // One that is reset before this machine looks is as good as none.
    let mut beyond = until("a connection is taken", WAIT, || {
        lab.client.try_connect(east.at(ECHO_PORT)).ok()
    });
    assert_eq!(read_to_ending(&mut beyond).1, Ending::Reset);
    assert_eq!(
        east.record_from(beyond.local_addr().unwrap()).code(),
        "CRN004"
    );
    // Room that is given back is room.
    drop(streams.pop());
    until("there is room again", WAIT, || {
        let mut client = lab.client.try_connect(east.at(ECHO_PORT)).ok()?;
        exchange(&mut client, b"again", 5).ok()
    });
    for stream in &mut streams {
        assert_eq!(exchange(stream, b"still", 5).unwrap(), b"still");
    }
}
