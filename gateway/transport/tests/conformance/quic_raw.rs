//! Bytes on the wire, against a plain QUIC peer that does what docs/protocol.md says, or does not.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use corinth_api::StreamReply;
use corinth_identity::{Denials, tls::tunnel_client_config};
use corinth_model::Failure;
use corinth_transport::quic::{QuicSettings, QuicTimeouts, QuicTransport};
use quinn::{Connection, Endpoint, RecvStream, SendStream, crypto::rustls::QuicClientConfig};
use rustls::time_provider::TimeProvider;
use tokio::sync::mpsc;

use crate::{
    pair::{A, B, Incoming, Sink, header, trust_domain},
    quic::{listen, settings},
    run,
    talk::Talk,
    tls::{Clock, Cluster, bundles},
};

/// PING: type, flags, length, stream; then the role of a control connection and a nonce.
const PING: [u8; 17] = [6, 0, 0, 9, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7];
/// PONG for it: the nonce, one slot, not draining.
const PONG: [u8; 19] = [7, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0];
/// Skipped by who does not know it.
const MAY_IGNORE: [u8; 10] = [99, 0x80, 0, 2, 0, 0, 0, 0, 1, 2];
/// DATA has no place on a control stream.
const DATA: [u8; 9] = [3, 0, 0, 1, 0, 0, 0, 0, 1];

/// A gateway under test, and a peer that is plain quinn.
pub(crate) struct Raw {
    _gateway: Arc<QuicTransport>,
    pub(crate) incoming: mpsc::UnboundedReceiver<Incoming>,
    pub(crate) peer: Connection,
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    pub(crate) tls: rustls::ClientConfig,
    address: SocketAddr,
}

impl Raw {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl Fn(&mut QuicSettings)) -> Self {
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let (sink, incoming) = Sink::new();
        let mut settings = settings(&b, &[&a], &clock, QuicTimeouts::default());
        change(&mut settings);
        let gateway = Arc::new(QuicTransport::new(settings, sink));
        let address = listen(&gateway, Ipv4Addr::LOCALHOST.into());
        let endpoint = Endpoint::client(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).unwrap();
        let tls = tunnel_client_config(
            Arc::clone(&a.own),
            bundles(&[&b]),
            Denials::default(),
            &trust_domain(B),
            clock as Arc<dyn TimeProvider>,
        );
        let crypto = QuicClientConfig::try_from(Arc::new(tls.clone())).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let peer = endpoint
            .connect_with(config.clone(), address, "127.0.0.1")
            .unwrap()
            .await
            .unwrap();
        Self {
            _gateway: gateway,
            incoming,
            peer,
            endpoint,
            config,
            tls,
            address,
        }
    }

    /// One more connection of the peer.
    pub(crate) async fn again(&self) -> Connection {
        self.by(self.config.clone()).await
    }

    /// One more connection of the peer, made in another way.
    pub(crate) async fn by(&self, config: quinn::ClientConfig) -> Connection {
        let connecting = self
            .endpoint
            .connect_with(config, self.address, "127.0.0.1");
        connecting.unwrap().await.unwrap()
    }

    /// Both control streams, once the first PING was answered.
    pub(crate) async fn controls(&self) -> (SendStream, RecvStream) {
        controls_of(&self.peer).await
    }

    async fn open(&self, message: &[u8]) -> (SendStream, RecvStream) {
        open_on(&self.peer, message).await
    }
}

/// Both control streams of a connection, once the first PING was answered.
pub(crate) async fn controls_of(peer: &Connection) -> (SendStream, RecvStream) {
    let mut send = peer.open_uni().await.unwrap();
    send.write_all(&PING).await.unwrap();
    let mut recv = peer.accept_uni().await.unwrap();
    let mut pong = [0; PONG.len()];
    recv.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, PONG);
    (send, recv)
}

/// A stream that begins with this message.
pub(crate) async fn open_on(peer: &Connection, message: &[u8]) -> (SendStream, RecvStream) {
    let (mut send, recv) = peer.open_bi().await.unwrap();
    send.write_all(&with_length(message)).await.unwrap();
    (send, recv)
}

fn with_length(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

pub(crate) fn open() -> Vec<u8> {
    let mut message = Vec::new();
    header().encode(&mut message);
    message
}

fn reply(reply: StreamReply) -> Vec<u8> {
    let mut message = Vec::new();
    reply.encode(&mut message);
    with_length(&message)
}

#[test]
fn a_stream_is_a_header_with_its_length_then_bytes_and_so_is_the_answer() {
    run::to_its_end(|| async {
        let mut raw = Raw::new().await;
        let _controls = raw.controls().await;
        let (mut send, mut recv) = raw.open(&open()).await;
        send.write_all(b"ping").await.unwrap();
        send.finish().unwrap();
        let mut far = raw.incoming.recv().await.unwrap();
        assert_eq!(far.header, header());
        assert_eq!(far.read_to_end().await.unwrap(), b"ping");
        far.answer(StreamReply::Accepted).await.unwrap();
        far.write(b"pong").await.unwrap();
        far.end().await.unwrap();
        let expected = [reply(StreamReply::Accepted), b"pong".to_vec()].concat();
        assert_eq!(recv.read_to_end(4_096).await.unwrap(), expected);
    });
}

#[test]
fn a_reset_is_the_number_of_its_code_in_both_directions() {
    run::to_its_end(|| async {
        let mut raw = Raw::new().await;
        let _controls = raw.controls().await;
        let (send, mut recv) = raw.open(&open()).await;
        let mut far = raw.incoming.recv().await.unwrap();
        far.reset(Failure::PeerReset).await;
        let error = recv.read_to_end(4_096).await.unwrap_err();
        let reset = quinn::ReadToEndError::Read(quinn::ReadError::Reset(27_u32.into()));
        assert_eq!(error, reset);
        assert_eq!(send.stopped().await.unwrap(), Some(27_u32.into()));
    });
}

#[test]
fn a_header_that_breaks_a_rule_ends_its_stream_alone() {
    run::to_its_end(|| async {
        let mut raw = Raw::new().await;
        let _controls = raw.controls().await;
        let _good = raw.open(&open()).await;
        let mut served = raw.incoming.recv().await.unwrap();
        let (_send, mut recv) = raw.open(&[0xff; 10]).await;
        let expected = reply(StreamReply::Failed(Failure::HeaderInvalid));
        assert_eq!(recv.read_to_end(4_096).await.unwrap(), expected);
        // Longer than any header may be: no more of it is waited for.
        let (mut send, mut recv) = raw.peer.open_bi().await.unwrap();
        send.write_all(&[0x10, 0x01]).await.unwrap();
        assert!(recv.read_to_end(4_096).await.is_err());
        served.answer(StreamReply::Accepted).await.unwrap();
        assert!(raw.incoming.try_recv().is_err());
    });
}

#[test]
fn a_frame_that_may_be_ignored_is_and_one_out_of_place_ends_the_connection() {
    run::to_its_end(|| async {
        let raw = Raw::new().await;
        let (mut send, mut recv) = raw.controls().await;
        send.write_all(&MAY_IGNORE).await.unwrap();
        send.write_all(&PING).await.unwrap();
        let mut pong = [0; PONG.len()];
        recv.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, PONG);
        send.write_all(&DATA).await.unwrap();
        raw.peer.closed().await;
    });
}

#[test]
fn a_probe_in_a_datagram_is_answered_in_one_and_other_datagrams_are_skipped() {
    run::to_its_end(|| async {
        let raw = Raw::new().await;
        let _controls = raw.controls().await;
        raw.peer.send_datagram(vec![9; 20].into()).unwrap();
        raw.peer.send_datagram(Vec::new().into()).unwrap();
        let probe = [&[0], &PING[..]].concat();
        raw.peer.send_datagram(probe.into()).unwrap();
        let answer = raw.peer.read_datagram().await.unwrap();
        assert_eq!(answer[..], [&[0], &PONG[..]].concat());
    });
}

#[test]
fn a_datagram_that_says_it_is_a_probe_and_is_none_ends_the_connection() {
    run::to_its_end(|| async {
        let probe = [&[0], &PING[..]].concat();
        for wrong in [
            vec![0],
            probe[..probe.len() - 1].to_vec(),
            [&probe[..], &[0]].concat(),
            [&[0], &DATA[..]].concat(),
            [&[0], &MAY_IGNORE[..]].concat(),
        ] {
            let raw = Raw::new().await;
            let _controls = raw.controls().await;
            raw.peer.send_datagram(wrong.clone().into()).unwrap();
            let ended = raw.peer.closed().await;
            let quinn::ConnectionError::ApplicationClosed(close) = ended else {
                panic!("{wrong:?}: {ended}");
            };
            assert_eq!(close.error_code, 44_u32.into(), "{wrong:?}");
        }
    });
}

#[test]
fn a_connection_that_does_not_begin_with_a_ping_is_closed() {
    run::to_its_end(|| async {
        let mut raw = Raw::new().await;
        let (_send, _recv) = raw.open(&open()).await;
        let mut send = raw.peer.open_uni().await.unwrap();
        send.write_all(&DATA).await.unwrap();
        raw.peer.closed().await;
        assert!(raw.incoming.try_recv().is_err());
    });
}
