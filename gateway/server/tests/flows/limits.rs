//! How many flows there may be.

use std::time::Duration;

use crate::node::{Client, Echo, ask_all, soon, two};

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
    // Those are counted too of which the log says nothing.
    let refused = two
        .east
        .metric("corinth_connections_closed_total", "CRN012");
    assert_eq!(refused, 8.0);
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
async fn a_peer_that_is_refused_often_does_not_fill_the_log() {
    let echo = Echo::start("").await;
    let two = two("tls", "", &[echo.address]).await;
    two.west.say("tls", &[], &[&two.east], "");
    let client = Client::of(two.import).await;
    let refused = async {
        while two
            .west
            .metric("corinth_connections_closed_total", "CRN002")
            < 1.0
        {
            client.say(b"?").await;
            let _ = client.hear_within(Duration::from_millis(50)).await;
        }
    };
    soon(refused).await;
    ask_all(two.import, 200, Duration::from_millis(100)).await;
    let closed = || {
        let closed = "corinth_connections_closed_total";
        two.west.metric(closed, "CRN002") as usize
    };
    let counted = async {
        while closed() < 200 {
            let _ = client.hear_within(Duration::from_millis(10)).await;
        }
    };
    soon(counted).await;
    let left_out = || {
        let left_out = "corinth_access_log_left_out_total";
        two.west.metric(left_out, "peer_flow") as usize
    };
    assert!(left_out() > 100, "{}", left_out());
    let is_refused = |line: &serde_json::Value| line["code"] == "CRN002";
    let written = async {
        while two.west.records(is_refused).await.len() + left_out() < closed() {
            // The log has a thread of its own, which tells nobody.
            let _ = client.hear_within(Duration::from_millis(10)).await;
        }
    };
    soon(written).await;
}

#[tokio::test]
async fn what_comes_after_the_end_of_a_flow_is_counted() {
    let echo = Echo::start("").await;
    let address = echo.address;
    echo.stop().await;
    let two = two("tls", "", &[address]).await;
    let client = Client::of(two.import).await;
    let counted = async {
        let dropped = "corinth_datagrams_dropped_total";
        while two.east.metric(dropped, "over") < 1.0 {
            client.say(b"hello").await;
            let _ = client.hear_within(Duration::from_millis(20)).await;
        }
    };
    soon(counted).await;
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
