//! What becomes of changes, and of the gateway while the control plane is away.

use std::time::{Duration, Instant};

use corinth_api::{Entry, EntryKey, LinkState, Update};
use corinth_model::{Carriage, PortNumber, Protocol, Target, TransportChoice};

use crate::fixture::*;

fn removed(route: &corinth_model::Route) -> Update {
    Update::Removed(EntryKey::Route(route.name.clone(), Protocol::Tcp))
}

#[tokio::test]
async fn doors_follow_changes_and_a_bad_change_leaves_them_alone() {
    let node = Node::start("east");
    assert!(!node.readiness.is_ready(), "there are no tables yet");
    let mut control = FakeControl::listen(&node.directory);
    let (mut call, held) = control.call().await;
    assert_eq!(held, None);

    let application = Target::Endpoint(echo().await);
    let [first, second] = [free_port(), free_port()];
    let web = route("web", first, application.clone());
    let pay = route("pay", second, application.clone());
    assert_eq!(call.change(1, true, &[put(web.clone())]).await, Ok(1));
    assert!(node.readiness.is_ready());
    connect(first).await;
    assert_eq!(call.change(2, false, &[put(pay.clone())]).await, Ok(2));
    let mut open = connect(second).await;
    connect(first).await;

    let clash = route("clash", second, application);
    let (revision, why) = call
        .change(3, false, &[put(clash.clone())])
        .await
        .unwrap_err();
    assert_eq!(revision, 3);
    assert!(why.contains("import port"), "{why}");
    connect(first).await;
    connect(second).await;
    let row = node.gateway.control().unwrap();
    assert!(row.connected);
    assert_eq!(
        (row.revision, row.refused.map(|no| no.revision)),
        (Some(2), Some(3))
    );

    let mended = [removed(&clash), removed(&web)];
    assert_eq!(call.change(4, false, &mended).await, Ok(4));
    closed(first).await;
    says_back(&mut open, b"still here").await;
    connect(second).await;

    assert_eq!(call.change(5, true, &[put(web)]).await, Ok(5));
    closed(second).await;
    connect(first).await;
    says_back(&mut open, b"and still").await;
}

#[tokio::test]
async fn a_port_of_somebody_else_stays_closed_until_it_is_free_and_all_others_are_served() {
    let node = Node::start("east");
    let mut control = FakeControl::listen(&node.directory);
    let (mut call, _) = control.call().await;
    let application = Target::Endpoint(echo().await);
    let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = somebody.local_addr().unwrap().port();
    let [taken, free] = [PortNumber::new(taken).unwrap(), free_port()];
    let routes = [
        put(route("web", taken, application.clone())),
        put(route("pay", free, application)),
    ];
    assert_eq!(call.change(1, true, &routes).await, Ok(1));
    assert_eq!(call.closed, [taken]);
    let row = node.gateway.control().unwrap();
    assert!(row.closed[0].contains(&taken.to_string()), "{row:?}");
    connect(free).await;

    drop(somebody);
    assert_eq!(call.change(2, false, &[]).await, Ok(2));
    assert_eq!(call.closed, []);
    assert!(node.gateway.control().unwrap().closed.is_empty());
    connect(taken).await;
}

#[tokio::test]
async fn a_small_change_of_another_instance_makes_the_gateway_ask_for_everything() {
    let node = Node::start("east");
    let mut control = FakeControl::listen(&node.directory);
    let (mut call, _) = control.call().await;
    assert_eq!(call.change(1, true, &[]).await, Ok(1));
    call.send(&Update::Begin {
        instance: corinth_model::Instance([2; 16]),
        revision: 2,
        whole: false,
    });
    call.send(&Update::Commit { revision: 2 });
    let (_again, held) = control.call().await;
    assert_eq!(held, None);
}

#[tokio::test]
async fn the_death_of_the_control_plane_changes_nothing() {
    let node = Node::start("east");
    let mut control = FakeControl::listen(&node.directory);
    let (mut call, _) = control.call().await;
    let port = free_port();
    let web = route("web", port, Target::Endpoint(echo().await));
    assert_eq!(call.change(7, true, &[put(web)]).await, Ok(7));
    // A change that is cut does not count.
    call.send(&Update::Begin {
        instance: INSTANCE,
        revision: 8,
        whole: true,
    });
    let mut open = connect(port).await;
    drop((call, control));
    says_back(&mut open, b"still here").await;
    connect(port).await;

    let mut control = FakeControl::listen(&node.directory);
    let (mut call, held) = control.call().await;
    assert_eq!(held, Some((INSTANCE, 7)));
    connect(port).await;
    assert_eq!(call.change(8, false, &[]).await, Ok(8));
    connect(port).await;
}

#[tokio::test]
async fn a_gateway_starts_from_disk_without_its_control_plane() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let application = Target::Endpoint(echo().await);
    let node = Node::start_in("east", directory.path());
    let mut control = FakeControl::listen(directory.path());
    let (mut call, _) = control.call().await;
    let web = route("web", port, application);
    assert_eq!(call.change(1, true, &[put(web)]).await, Ok(1));
    node.gateway.stop().await;
    drop((node, call, control));
    closed(port).await;

    let began = Instant::now();
    let node = Node::start_in("east", directory.path());
    assert!(soon(node.readiness.reached()).await);
    assert!(began.elapsed() < Duration::from_secs(2));
    connect(port).await;
    assert_eq!(node.gateway.control().unwrap().revision, Some(1));
    let mut control = FakeControl::listen(directory.path());
    let (mut call, held) = control.call().await;
    assert_eq!(held, Some((INSTANCE, 1)));
    assert_eq!(call.change(2, false, &[]).await, Ok(2));
    node.gateway.stop().await;
    drop((node, call, control));
    closed(port).await;

    let file = directory.path().join("tables.bin");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let node = Node::start_in("east", directory.path());
    let from_the_one_before = node.gateway.control().unwrap().revision;
    assert_eq!(from_the_one_before, Some(1));
    node.gateway.stop().await;
    drop(node);
    closed(port).await;

    for file in ["tables.bin", "tables.previous.bin"] {
        std::fs::write(directory.path().join(file), "not ours").unwrap();
    }
    let node = Node::start_in("east", directory.path());
    assert!(!node.readiness.is_ready());
    let mut control = FakeControl::listen(directory.path());
    let (mut call, held) = control.call().await;
    assert_eq!(held, None);
    assert_eq!(call.change(2, true, &[]).await, Ok(2));
    assert!(node.readiness.is_ready());
}

#[tokio::test]
async fn streams_to_a_peer_are_carried_by_what_the_control_plane_asks_for() {
    let mut pair = Pair::linked().await;
    let carried_by = |transport: TransportChoice| {
        let Update::Put(Entry::Peer(cluster, mut peer)) = pair.west.as_peer(&[pair.west.tunnel()])
        else {
            panic!("a peer is put");
        };
        peer.carriage = Carriage {
            transport,
            ..Carriage::default()
        };
        Update::Put(Entry::Peer(cluster, peer))
    };
    let [tls, quic] = [TransportChoice::Tls, TransportChoice::Quic].map(carried_by);
    let used = |of: &Node| -> Vec<&'static str> {
        let links = of.gateway.links().links;
        let used = links
            .iter()
            .filter(|link| link.is_used && link.state == "up");
        used.map(|link| link.transport).collect()
    };
    assert_eq!(used(&pair.east), ["tls"]);
    for (revision, change, transport) in [(2, quic, "quic"), (3, tls, "tls")] {
        assert_eq!(
            pair.east_call.change(revision, false, &[change]).await,
            Ok(revision)
        );
        soon(async {
            while used(&pair.east) != [transport] {
                tokio::task::yield_now().await;
            }
        })
        .await;
        pair.east_call.link(LinkState::Up).await;
        connect(pair.port).await;
    }
}
