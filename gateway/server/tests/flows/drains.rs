//! What becomes of flows while a gateway stops.

use std::time::Duration;

use crate::node::{Client, Echo, soon, two};

#[tokio::test]
async fn flows_of_every_worker_go_on_while_a_gateway_stops() {
    const CLIENTS: usize = 4;
    let echo = Echo::start("").await;
    let beside = "workers: 8\ndrain: {delay: off, limit: 30s}\n";
    let two = two("tls", beside, &[echo.address]).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = Client::of(two.import).await;
        client.ask(b"hello").await;
        clients.push(client);
    }
    let talking = async {
        // Each newcomer that is turned away has found one worker that takes nobody any more.
        let dropped = || {
            let dropped = "corinth_datagrams_dropped_total";
            two.east.metric(dropped, "draining")
        };
        while dropped() < 64.0 {
            let newcomer = Client::of(two.import).await;
            newcomer.say(b"me too").await;
            let _ = newcomer.hear_within(Duration::from_millis(5)).await;
        }
        for round in 0..10 {
            for client in &clients {
                let answer = client.ask_once(b"on").await;
                assert_eq!(answer.as_deref(), Some(&b"on"[..]), "round {round}");
            }
        }
    };
    tokio::select! {
        () = two.east.gateway.stop() => panic!("it stopped although flows were open"),
        () = soon(talking) => {}
    }
}
