//! What clients hear.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::node::{Client, Echo, Node, exports, free_port, imports, soon, two};

async fn every_size_passes_over(transport: &str) {
    let echo = Echo::start("").await;
    let two = two(transport, "", &[echo.address]).await;
    let client = Client::of(two.import).await;
    assert_eq!(client.ask(b"first").await, b"first");
    // What fits into a packet of the tunnel, what does not, and what no tunnel packet could ever hold.
    for size in [0, 1, 30, 1_100, 1_200, 1_300, 1_420, 4_000, 9_000, 65_507] {
        let words: Vec<u8> = (0..size).map(|byte: usize| byte as u8).collect();
        let answer = soon(async {
            loop {
                let answer = client.ask(&words).await;
                // An answer to what was asked before may still come.
                if answer.len() == words.len() {
                    return answer;
                }
            }
        });
        assert_eq!(answer.await, words, "{size} bytes");
    }
}

#[tokio::test]
async fn datagrams_of_every_size_pass_over_tls() {
    every_size_passes_over("tls").await;
}

#[tokio::test]
async fn datagrams_of_every_size_pass_over_quic() {
    every_size_passes_over("quic").await;
}

#[tokio::test]
async fn clients_hear_what_was_said_to_them_and_nothing_else() {
    let echo = Echo::start("").await;
    let two = two("quic", "", &[echo.address]).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(Client::of(two.import).await);
    }
    for (number, client) in clients.iter().enumerate() {
        let words = number.to_string();
        assert_eq!(client.ask(words.as_bytes()).await, words.as_bytes());
    }
}

#[tokio::test]
async fn one_import_port_serves_tcp_and_udp() {
    let echo = Echo::start("by udp: ").await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let by_tcp = listener.local_addr().unwrap();
    let application = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"by tcp").await.unwrap();
    });
    let (east, west) = (Node::start("east", ""), Node::start("west", ""));
    let mut offered = exports(&[echo.address]);
    offered.push_str(&format!(
        "- {{service: echo.shop, port: 7, endpoints: ['{by_tcp}'], to: [east]}}\n"
    ));
    west.say("tls", &[], &[&east], &offered);
    let port = free_port();
    let mut wanted = imports(&["west"], port);
    wanted.push_str(&format!(
        "- {{service: echo.shop, port: 7, importPort: {port}, from: [west]}}\n"
    ));
    east.say("tls", &[&west], &[], &wanted);

    let client = Client::of((Ipv4Addr::LOCALHOST, port).into()).await;
    assert_eq!(client.ask(b"hello").await, b"by udp: hello");
    let mut heard = String::new();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    soon(stream.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "by tcp");
    application.await.unwrap();
}

#[tokio::test]
async fn what_the_first_cluster_refuses_the_next_one_gets() {
    let echo = Echo::start("north: ").await;
    let east = Node::start("east", "");
    let (west, north) = (Node::start("west", ""), Node::start("north", ""));
    // West is linked and exports nothing.
    west.say("tls", &[], &[&east], "");
    north.say("tls", &[], &[&east], &exports(&[echo.address]));
    let port = free_port();
    east.say(
        "tls",
        &[&west, &north],
        &[],
        &imports(&["west", "north"], port),
    );
    east.linked("west").await;
    east.linked("north").await;

    // Each datagram counts: the very first one is answered.
    let client = Client::of((Ipv4Addr::LOCALHOST, port).into()).await;
    client.say(b"only once").await;
    let answer = client.hear_within(Duration::from_secs(10)).await;
    assert_eq!(answer.unwrap(), b"north: only once");
    west.record("peer_flow", "CRN002").await;
}

#[tokio::test]
async fn an_endpoint_beside_the_client_answers_without_a_tunnel() {
    let echo = Echo::start("here: ").await;
    let east = Node::start("east", "");
    let port = free_port();
    let mut text = format!(
        "exports:\n- {{service: echo.shop, port: 7, protocol: udp, endpoints: ['{}']}}\n",
        echo.address
    );
    text.push_str(&format!(
        "imports:\n- {{service: echo.shop, port: 7, protocol: udp, importPort: {port}}}\n"
    ));
    east.say("tls", &[], &[], &text);
    let client = Client::of((Ipv4Addr::LOCALHOST, port).into()).await;
    assert_eq!(client.ask(b"hello").await, b"here: hello");
}
