//! How flows end, and what comes after.

use std::{net::Ipv4Addr, time::Duration};

use crate::node::{Client, Echo, Node, exports, free_port, imports, soon, two};

#[tokio::test]
async fn a_silent_flow_is_complete_once_it_was_answered_and_the_next_datagram_begins_another() {
    let echo = Echo::start("").await;
    let two = two("tls", "timeouts: {flowIdle: 1s}\n", &[echo.address]).await;
    let client = Client::of(two.import).await;
    client.ask(b"hello").await;
    let record = two.east.record("flow", "CRN000").await;
    assert_eq!(record["route"], "7.echo.shop.svc.clusterset.local");
    assert_eq!(record["peer"], "west");
    assert_eq!(record["datagrams_received"], 1);
    assert_eq!(record["bytes_received"], 5);
    // Told by the near side: the far one would have waited longer.
    let record = two.west.record("peer_flow", "CRN000").await;
    assert_eq!(record["datagrams_sent"], 1);
    assert_eq!(record["dst"], echo.address.to_string());
    assert_eq!(client.ask(b"again").await, b"again");
}

#[tokio::test]
async fn a_flow_that_nobody_answers_ends_for_idleness() {
    // Somebody who listens and says nothing.
    let mute = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = mute.local_addr().unwrap();
    let two = two("quic", "timeouts: {flowUnanswered: 1s}\n", &[address]).await;
    let client = Client::of(two.import).await;
    let mut room = [0; 64];
    loop {
        client.say(b"hello").await;
        let heard = mute.recv(&mut room);
        if tokio::time::timeout(Duration::from_millis(300), heard)
            .await
            .is_ok()
        {
            break;
        }
    }
    two.east.record("flow", "CRN031").await;
    two.west.record("peer_flow", "CRN031").await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_told_by_its_code_and_tried_again() {
    let echo = Echo::start("back: ").await;
    let address = echo.address;
    echo.stop().await;
    let two = two("tls", "", &[address]).await;
    let client = Client::of(two.import).await;
    let asking = async {
        loop {
            client.say(b"hello").await;
            assert_eq!(client.hear_within(Duration::from_millis(100)).await, None);
        }
    };
    tokio::select! {
        never = asking => match never {},
        record = two.east.record("flow", "CRN020") => assert_eq!(record["peer"], "west"),
    }
    two.west.record("peer_flow", "CRN020").await;
    let _echo = Echo::at(address, "back: ").await;
    assert_eq!(client.ask(b"hello").await, b"back: hello");
}

#[tokio::test]
async fn a_withdrawn_export_ends_its_flows_and_refuses_the_next() {
    let echo = Echo::start("").await;
    let two = two("quic", "", &[echo.address]).await;
    let client = Client::of(two.import).await;
    client.ask(b"hello").await;
    two.west.say("tls", &[], &[&two.east], "");
    two.east.record("flow", "CRN033").await;
    two.west.record("peer_flow", "CRN033").await;
    client.say(b"still there?").await;
    two.east.record("flow", "CRN002").await;
    assert_eq!(client.hear_within(Duration::from_millis(200)).await, None);
}

#[tokio::test]
async fn a_flow_whose_endpoint_has_left_the_export_ends_however_much_its_client_talks() {
    let (first, second) = (Echo::start("first: ").await, Echo::start("second: ").await);
    for transport in ["tls", "quic"] {
        let two = two(transport, "", &[first.address]).await;
        let client = Client::of(two.import).await;
        assert_eq!(client.ask(b"hello").await, b"first: hello");
        let both = exports(&[first.address, second.address]);
        two.west.say("tls", &[], &[&two.east], &both);
        assert_eq!(client.ask(b"hello").await, b"first: hello", "it stays");
        two.west
            .say("tls", &[], &[&two.east], &exports(&[second.address]));
        let moved = async { while client.ask(b"hello").await != b"second: hello" {} };
        soon(moved).await;
        two.east.record("flow", "CRN033").await;
        let record = two.west.record("peer_flow", "CRN033").await;
        assert_eq!(record["dst"], first.address.to_string());
    }
}

#[tokio::test]
async fn a_flow_whose_cluster_has_left_the_route_goes_to_another() {
    let (first, second) = (Echo::start("west: ").await, Echo::start("north: ").await);
    let east = Node::start("east", "");
    let (west, north) = (Node::start("west", ""), Node::start("north", ""));
    west.say("tls", &[], &[&east], &exports(&[first.address]));
    north.say("tls", &[], &[&east], &exports(&[second.address]));
    let port = free_port();
    let both = [&west, &north];
    east.say("tls", &both, &[], &imports(&["west", "north"], port));
    east.linked("west").await;
    east.linked("north").await;
    let client = Client::of((Ipv4Addr::LOCALHOST, port).into()).await;
    assert_eq!(client.ask(b"hello").await, b"west: hello");
    east.say("tls", &both, &[], &imports(&["north"], port));
    let moved = async { while client.ask(b"hello").await != b"north: hello" {} };
    soon(moved).await;
    let record = east.record("flow", "CRN033").await;
    assert_eq!(record["peer"], "west");
    west.record("peer_flow", "CRN033").await;
}

#[tokio::test]
async fn a_flow_whose_endpoint_here_has_left_the_export_goes_to_another() {
    let (first, second) = (Echo::start("first: ").await, Echo::start("second: ").await);
    let east = Node::start("east", "");
    let port = free_port();
    let text = |endpoint: &Echo| {
        let exports = exports(&[endpoint.address]).replace(", to: [east]", "");
        format!("{exports}{}", imports(&[], port).replace(", from: []", ""))
    };
    east.say("tls", &[], &[], &text(&first));
    let client = Client::of((Ipv4Addr::LOCALHOST, port).into()).await;
    assert_eq!(client.ask(b"hello").await, b"first: hello");
    east.say("tls", &[], &[], &text(&second));
    let moved = async { while client.ask(b"hello").await != b"second: hello" {} };
    soon(moved).await;
    east.record("flow", "CRN033").await;
}

#[tokio::test]
async fn one_datagram_is_enough_to_learn_that_nobody_listens() {
    let echo = Echo::start("").await;
    let address = echo.address;
    let two = two("tls", "", &[address]).await;
    // The way is there, so that nothing has to be said twice.
    Client::of(two.import).await.ask(b"hello").await;
    echo.stop().await;
    let client = Client::of(two.import).await;
    client.say(b"only once").await;
    two.east.record("flow", "CRN020").await;
    two.west.record("peer_flow", "CRN020").await;
}

#[tokio::test]
async fn an_import_that_is_removed_and_returns_at_once_is_served() {
    let echo = Echo::start("back: ").await;
    let address = echo.address;
    echo.stop().await;
    let two = two("tls", "", &[address]).await;
    let client = Client::of(two.import).await;
    let asking = async {
        loop {
            client.say(b"hello").await;
            let _ = client.hear_within(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = asking => {}
        _ = two.east.record("flow", "CRN020") => {}
    }
    // Its flow lingers just now, so that its client does not begin another one at once.
    let _echo = Echo::at(address, "back: ").await;
    let import = imports(&["west"], two.import.port());
    for _ in 0..5 {
        two.east.say("tls", &[&two.west], &[], "");
        two.east.say("tls", &[&two.west], &[], &import);
    }
    assert_eq!(client.ask(b"hello").await, b"back: hello");
}

#[tokio::test]
async fn other_addresses_of_import_ports_that_overlap_are_served_at_once() {
    let echo = Echo::start("").await;
    let two = two("tls", "", &[echo.address]).await;
    let client = Client::of(two.import).await;
    client.ask(b"hello").await;
    let import = imports(&["west"], two.import.port());
    for addresses in ["0.0.0.0", "127.0.0.1, 127.0.0.2", "'::'", "127.0.0.1"] {
        let (tls, west) = ("tls", [&two.west]);
        two.east.say_at(addresses, tls, &west, &[], &import);
        let client = Client::of(two.import).await;
        assert_eq!(client.ask(b"hello").await, b"hello", "{addresses}");
    }
}

#[tokio::test]
async fn a_removed_import_ends_its_flows() {
    let echo = Echo::start("").await;
    let two = two("tls", "", &[echo.address]).await;
    let client = Client::of(two.import).await;
    client.ask(b"hello").await;
    two.east.say("tls", &[&two.west], &[], "");
    two.east.record("flow", "CRN033").await;
    two.west.record("peer_flow", "CRN033").await;
}

async fn the_death_of_a_gateway_moves_flows_over(transport: &str) {
    let (first, second) = (Echo::start("west: ").await, Echo::start("north: ").await);
    let east = Node::start("east", "");
    let (west, north) = (Node::start("west", ""), Node::start("north", ""));
    west.say("tls", &[], &[&east], &exports(&[first.address]));
    north.say("tls", &[], &[&east], &exports(&[second.address]));
    let port = free_port();
    let from = imports(&["west", "north"], port);
    east.say(transport, &[&west, &north], &[], &from);
    east.linked("west").await;
    east.linked("north").await;
    let client = Client::of((Ipv4Addr::LOCALHOST, port).into()).await;
    assert_eq!(client.ask(b"hello").await, b"west: hello");
    drop(west);
    let mut answer = client.ask(b"hello").await;
    while answer == b"west: hello" {
        answer = client.ask(b"hello").await;
    }
    assert_eq!(answer, b"north: hello");
}

#[tokio::test]
async fn flows_go_on_elsewhere_when_a_gateway_dies_over_tls() {
    the_death_of_a_gateway_moves_flows_over("tls").await;
}

#[tokio::test]
async fn flows_go_on_elsewhere_when_a_gateway_dies_over_quic() {
    the_death_of_a_gateway_moves_flows_over("quic").await;
}
