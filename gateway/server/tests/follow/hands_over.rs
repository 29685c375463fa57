//! Streams that are handed to the control plane.

use std::{net::SocketAddr, sync::Arc};

use corinth_api::{HandOver, Report, Update};
use corinth_model::{ClusterName, Failure, GatewayId, Reason, Refusal, Slot};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::fixture::*;

fn gateway_of(node: &Node) -> GatewayId {
    GatewayId {
        trust_domain: node.trust_domain(),
        slot: Slot::parse("0").unwrap(),
    }
}

async fn crosses(from: &mut UnixStream, to: &mut UnixStream, words: &[u8]) {
    from.write_all(words).await.unwrap();
    let mut got = vec![0; words.len()];
    soon(to.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, words);
}

async fn rest(socket: &mut UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    soon(socket.read_to_end(&mut rest)).await.unwrap();
    rest
}

async fn failed(call: &mut Call) -> (u64, Reason) {
    loop {
        if let Report::PeeringFailed { ticket, reason } = call.report().await {
            return (ticket, reason);
        }
    }
}

#[tokio::test]
async fn control_planes_talk_through_their_gateways_whichever_dialled() {
    let pair = Pair::linked().await;
    let east = HandOvers::listen(&pair.east.directory);
    let west = HandOvers::listen(&pair.west.directory);
    let sides = [
        (&pair.east, &pair.east_call, &east, &pair.west, &west),
        (&pair.west, &pair.west_call, &west, &pair.east, &east),
    ];
    for (own, call, at_own, other, at_other) in sides {
        call.send(&Update::OpenPeering {
            cluster: other.cluster(),
            ticket: 42,
        });
        let ((opened, mut here), (peering, mut there)) =
            tokio::join!(at_own.take(), at_other.take());
        let peer = gateway_of(other);
        assert_eq!(opened, HandOver::Opened { ticket: 42, peer });
        let peer = gateway_of(own);
        assert_eq!(peering, HandOver::Peering { peer });

        crosses(&mut here, &mut there, b"are you there?").await;
        crosses(&mut there, &mut here, &vec![7; 300_000]).await;
        here.shutdown().await.unwrap();
        assert_eq!(rest(&mut there).await, b"");
        crosses(&mut there, &mut here, b"one side is still open").await;
        there.shutdown().await.unwrap();
        assert_eq!(rest(&mut here).await, b"");
    }
}

#[tokio::test]
async fn a_stream_that_does_not_come_about_is_told_with_its_reason() {
    let mut pair = Pair::linked().await;
    let west = pair.west.cluster();
    let open = |cluster: &ClusterName, ticket| Update::OpenPeering {
        cluster: cluster.clone(),
        ticket,
    };
    // The peer has no control plane to hand it to.
    pair.east_call.send(&open(&west, 1));
    let no_endpoint = Reason::Refused(Refusal::NoEndpoint);
    assert_eq!(failed(&mut pair.east_call).await, (1, no_endpoint));
    // There is no such peer.
    let nowhere = ClusterName::parse("nowhere").unwrap();
    pair.east_call.send(&open(&nowhere, 2));
    let unreachable = Reason::Failed(Failure::PeerUnreachable);
    assert_eq!(failed(&mut pair.east_call).await, (2, unreachable));
    // Four are open already.
    let east_side = HandOvers::listen(&pair.east.directory);
    let west_side = HandOvers::listen(&pair.west.directory);
    let mut held = Vec::new();
    for ticket in 3..7 {
        pair.east_call.send(&open(&west, ticket));
        held.push(tokio::join!(east_side.take(), west_side.take()));
    }
    pair.east_call.send(&open(&west, 7));
    let over_limit = Reason::Refused(Refusal::OverLimit);
    assert_eq!(failed(&mut pair.east_call).await, (7, over_limit));
}

/// The first bytes of a client that speaks this protocol.
fn client_hello(protocol: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let name = "joining.invalid".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

async fn says_hello(tunnel: SocketAddr) -> (TcpStream, Vec<u8>) {
    let hello = client_hello("corinth-link/1");
    let mut client = TcpStream::connect(tunnel).await.unwrap();
    client.write_all(&hello).await.unwrap();
    (client, hello)
}

#[tokio::test]
async fn who_wants_to_be_linked_reaches_the_control_plane_with_every_byte() {
    let node = Node::start("east");
    let control = HandOvers::listen(&node.directory);
    let (mut client, hello) = says_hello(node.tunnel()).await;
    let (what, mut handed) = control.take().await;
    let source = client.local_addr().unwrap();
    assert_eq!(what, HandOver::Joining { source });
    let mut got = vec![0; hello.len()];
    soon(handed.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, hello);
    client.write_all(b"and more").await.unwrap();
    let mut more = [0; 8];
    soon(handed.read_exact(&mut more)).await.unwrap();
    handed.write_all(b"the answer").await.unwrap();
    drop(handed);
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"the answer");
}

#[tokio::test]
async fn who_wants_to_be_linked_is_closed_when_nobody_takes_them() {
    let node = Node::start("east");
    let closes = async |mut client: TcpStream| {
        // Closed in order or reset, both with nothing said.
        let mut answer = Vec::new();
        let _ = soon(client.read_to_end(&mut answer)).await;
        assert_eq!(answer, b"");
    };
    let (client, _) = says_hello(node.tunnel()).await;
    closes(client).await;
    let control = HandOvers::listen(&node.directory);
    let (client, _) = says_hello(node.tunnel()).await;
    let (_, handed) = control.take().await;
    drop(handed);
    closes(client).await;
    // What takes more than a linking ever needs is cut.
    let (mut client, _) = says_hello(node.tunnel()).await;
    let (_, mut handed) = control.take().await;
    let _ = client.write_all(&[0; 64 << 10]).await;
    let mut got = Vec::new();
    soon(handed.read_to_end(&mut got)).await.unwrap();
    assert!(got.len() <= 16 << 10, "{} bytes", got.len());
    closes(client).await;
    node.gateway.stop().await;
    let log = node.access_log();
    assert_eq!(log.matches("\"CRN039\"").count(), 2, "{log}");
    assert_eq!(log.matches("\"CRN044\"").count(), 1, "{log}");
}
