//! How many flows there may be.

use std::time::Duration;

use crate::node::{Client, Echo, ask_all, two};

#[tokio::test]
async fn a_client_at_its_limit_is_refused_and_its_flows_go_on() {
    let echo = Echo::start("").await;
    let two = two("tls", "limits: {flowsPerClient: 3}\n", &[echo.address]).await;
    let first = Client::of(two.import).await;
    first.ask(b"hello").await;
    let heard = ask_all(two.import, 10, Duration::from_secs(2)).await;
    assert_eq!(heard.get(&Some(b"?".to_vec())), Some(&2), "{heard:?}");
    assert_eq!(heard.get(&None), Some(&8), "{heard:?}");
    two.east.record("flow", "CRN012").await;
    let dropped = two
        .east
        .metric("corinth_datagrams_dropped_total", "flow_limit");
    assert_eq!(dropped, 8.0);
    assert_eq!(first.ask(b"still here").await, b"still here");
}

#[tokio::test]
async fn a_peer_at_its_limit_is_refused_with_the_code() {
    let echo = Echo::start("").await;
    let two = two("quic", "limits: {flowsPerPeer: 2}\n", &[echo.address]).await;
    let first = Client::of(two.import).await;
    first.ask(b"hello").await;
    let heard = ask_all(two.import, 5, Duration::from_secs(2)).await;
    assert_eq!(heard.get(&Some(b"?".to_vec())), Some(&1), "{heard:?}");
    two.west.record("peer_flow", "CRN012").await;
    two.east.record("flow", "CRN012").await;
    assert_eq!(first.ask(b"still here").await, b"still here");
}

#[tokio::test]
async fn a_flood_of_flows_leaves_others_their_way() {
    let echo = Echo::start("").await;
    let two = two("quic", "limits: {flows: 60}\n", &[echo.address]).await;
    let first = Client::of(two.import).await;
    first.ask(b"hello").await;
    let heard = ask_all(two.import, 200, Duration::from_secs(2)).await;
    assert!(
        heard.get(&None).is_some_and(|refused| *refused >= 140),
        "{heard:?}"
    );
    for _ in 0..20 {
        assert_eq!(first.ask(b"on").await, b"on");
    }
}
