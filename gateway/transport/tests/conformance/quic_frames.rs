//! Frames that have no place where they come: from strangers in their first packet, and from peers.

use std::sync::Arc;

use quinn::{Connection, ConnectionError, VarInt, crypto::rustls::QuicClientConfig};
use tokio::net::UdpSocket;

use crate::{
    quic::Dialled,
    quic_packets::{ID_BYTES, INITIAL_BYTES, Initials, Instead, Tampered, long},
    quic_raw::{Raw, controls_of, open, open_on},
    run,
    talk::Talk,
};

// Error codes (RFC 9000 §20.1).
const INTERNAL_ERROR: u64 = 0x01;
const FLOW_CONTROL_ERROR: u64 = 0x03;
const STREAM_LIMIT_ERROR: u64 = 0x04;
const STREAM_STATE_ERROR: u64 = 0x05;
const FINAL_SIZE_ERROR: u64 = 0x06;
const FRAME_ENCODING_ERROR: u64 = 0x07;
const PROTOCOL_VIOLATION: u64 = 0x0a;
const CRYPTO_BUFFER_EXCEEDED: u64 = 0x0d;
/// Errors of TLS are above this one.
const CRYPTO_ERROR: u64 = 0x100;

/// What a connection may have at first, of what its control stream has taken a little.
const FIRST_CREDIT_BYTES: u64 = 4 << 20;

/// A frame of this type with these numbers in it.
fn frame(kind: u8, numbers: &[u64]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|number| long(*number));
    [kind].into_iter().chain(numbers).collect()
}

/// One byte of a stream; with `fin` its last.
fn byte_of(stream: u64, offset: u64, fin: bool) -> Vec<u8> {
    let kind = 0x0e | u8::from(fin);
    [frame(kind, &[stream, offset, 1]), vec![1]].concat()
}

#[test]
fn a_stranger_whose_first_packet_has_a_frame_that_belongs_elsewhere_is_told_so_once() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::new().await;
        let initials = Initials::new();
        let first: [(&str, Vec<u8>, u64); 12] = [
            (
                "a type that does not exist",
                vec![0x21],
                FRAME_ENCODING_ERROR,
            ),
            ("a stream", byte_of(0, 0, false), PROTOCOL_VIOLATION),
            ("a reset", frame(0x04, &[0, 0, 0]), PROTOCOL_VIOLATION),
            ("credit", frame(0x10, &[1]), PROTOCOL_VIOLATION),
            (
                "a token",
                [frame(0x07, &[1]), vec![1]].concat(),
                PROTOCOL_VIOLATION,
            ),
            ("a new ID", frame(0x18, &[0, 0]), FRAME_ENCODING_ERROR),
            ("a challenge", vec![0x1a; 9], PROTOCOL_VIOLATION),
            ("a datagram", frame(0x31, &[0]), PROTOCOL_VIOLATION),
            ("the end of the handshake", vec![0x1e], PROTOCOL_VIOLATION),
            (
                "an acknowledgement of what nobody sent",
                frame(0x02, &[9, 0, 0, 0]),
                PROTOCOL_VIOLATION,
            ),
            (
                "a message of the handshake far ahead",
                [frame(0x06, &[1 << 20, 1]), vec![1]].concat(),
                CRYPTO_BUFFER_EXCEEDED,
            ),
            (
                "a message of the handshake that is none",
                [frame(0x06, &[0, 4]), vec![0xff, 0, 0, 0]].concat(),
                CRYPTO_ERROR,
            ),
        ];
        for (number, (what, frames, expected)) in first.into_iter().enumerate() {
            let destination = [number as u8; ID_BYTES];
            let packet = initials.make(&destination, [7; ID_BYTES], &[], &frames);
            let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            stranger.connect(dialled.listening).await.unwrap();
            stranger.send(&packet).await.unwrap();
            let mut answer = [0; 2_048];
            let received = stranger.recv(&mut answer).await.unwrap();
            assert!(received <= 3 * INITIAL_BYTES, "{what}");
            let code = initials.closed_with(&destination, &answer[..received]);
            let code = code.unwrap_or_else(|| panic!("{what}: not closed"));
            match expected {
                CRYPTO_ERROR => assert_eq!(code & CRYPTO_ERROR, CRYPTO_ERROR, "{what}: {code:#x}"),
                expected => assert_eq!(code, expected, "{what}: {code:#x}"),
            }
        }
        let (mut near, mut far) = dialled.stream().await;
        near.write(b"there").await.unwrap();
        assert_eq!(far.read(5).await.unwrap(), b"there");
    });
}

/// A peer that can send other frames than it means to.
async fn tampering(raw: &Raw) -> (Connection, Instead) {
    let instead = Instead::default();
    let crypto = Tampered {
        honest: Arc::new(QuicClientConfig::try_from(Arc::new(raw.tls.clone())).unwrap()),
        instead: instead.clone(),
    };
    let peer = raw.by(quinn::ClientConfig::new(Arc::new(crypto))).await;
    (peer, instead)
}

/// Has the peer send these frames in one packet. There is always something to send in their place.
async fn send(peer: &Connection, instead: &Instead, frames: Vec<u8>) {
    instead.put(frames);
    while !instead.is_sent() && peer.close_reason().is_none() {
        // What belongs to no stream is left alone where it arrives.
        let _ = peer.send_datagram(vec![9; 1_000].into());
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_peer_that_breaks_a_rule_of_quic_loses_its_connection_with_the_right_code_and_no_other() {
    run::to_its_end(|| async {
        let mut raw = Raw::with(|_| {}).await;
        let _controls = raw.controls().await;
        let far_beyond = 1 << 30;
        let packets: [(&str, &[Vec<u8>], u64); 18] = [
            (
                "a type that does not exist",
                &[vec![0x21]],
                FRAME_ENCODING_ERROR,
            ),
            (
                "a type in more bytes than it takes",
                &[vec![0x40, 0x21]],
                FRAME_ENCODING_ERROR,
            ),
            ("what only servers say", &[vec![0x1e]], PROTOCOL_VIOLATION),
            (
                "a token",
                &[[frame(0x07, &[1]), vec![1]].concat()],
                PROTOCOL_VIOLATION,
            ),
            (
                "an acknowledgement of what nobody sent",
                &[frame(0x02, &[1 << 20, 0, 0, 0])],
                PROTOCOL_VIOLATION,
            ),
            (
                "the return of an ID that nobody issued",
                &[frame(0x19, &[1 << 20])],
                PROTOCOL_VIOLATION,
            ),
            (
                "bytes on a stream on which only we send",
                &[byte_of(3, 0, false)],
                STREAM_STATE_ERROR,
            ),
            (
                "a stream of ours that was never opened",
                &[byte_of(1, 0, false)],
                STREAM_STATE_ERROR,
            ),
            (
                "credit for a stream on which only it sends",
                &[frame(0x11, &[2, 1])],
                STREAM_STATE_ERROR,
            ),
            (
                "one stream too many",
                &[byte_of(4 * 16_384, 0, false)],
                STREAM_LIMIT_ERROR,
            ),
            (
                "one control stream too many",
                &[byte_of(2 + 4, 0, false)],
                STREAM_LIMIT_ERROR,
            ),
            (
                "more streams than can be counted",
                &[frame(0x12, &[(1 << 60) + 1])],
                FRAME_ENCODING_ERROR,
            ),
            (
                "bytes beyond all credit",
                &[byte_of(0, far_beyond, false)],
                FLOW_CONTROL_ERROR,
            ),
            (
                "one byte beyond what the connection may have",
                &[byte_of(0, FIRST_CREDIT_BYTES, false)],
                FLOW_CONTROL_ERROR,
            ),
            (
                "a reset beyond all credit",
                &[frame(0x04, &[0, 0, far_beyond])],
                FLOW_CONTROL_ERROR,
            ),
            (
                "bytes after the end",
                &[[byte_of(0, 9, true), byte_of(0, 10, false)].concat()],
                FINAL_SIZE_ERROR,
            ),
            (
                "another end than before",
                &[byte_of(0, 9, true), byte_of(0, 8, true)],
                FINAL_SIZE_ERROR,
            ),
            (
                "a reset before what was sent",
                &[byte_of(0, 9, false), frame(0x04, &[0, 0, 5])],
                FINAL_SIZE_ERROR,
            ),
        ];
        for (what, packets, expected) in packets {
            let (peer, instead) = tampering(&raw).await;
            let _controls = controls_of(&peer).await;
            for frames in packets {
                send(&peer, &instead, frames.clone()).await;
            }
            let ended = peer.closed().await;
            let ConnectionError::ConnectionClosed(close) = &ended else {
                panic!("{what}: {ended}");
            };
            assert_eq!(u64::from(close.error_code), expected, "{what}: {ended}");
        }
        let _stream = open_on(&raw.peer, &open()).await;
        raw.incoming.recv().await.unwrap();
    });
}

#[test]
fn a_stream_with_too_many_gaps_costs_its_connection_and_no_other() {
    run::to_its_end(|| async {
        const GAPS: u64 = 10_000;
        const IN_ONE_PACKET: u64 = 50;
        let mut raw = Raw::with(|_| {}).await;
        let _controls = raw.controls().await;
        let (peer, instead) = tampering(&raw).await;
        let _controls_too = controls_of(&peer).await;
        for packet in 0..GAPS / IN_ONE_PACKET {
            let first = packet * IN_ONE_PACKET;
            let frames = (first..first + IN_ONE_PACKET).flat_map(|at| {
                // Short, so that many fit.
                [
                    0x0e,
                    0,
                    0x80,
                    0,
                    ((2 * at) >> 8) as u8,
                    (2 * at) as u8,
                    1,
                    1,
                ]
            });
            send(&peer, &instead, frames.collect()).await;
        }
        let ended = peer.closed().await;
        let ConnectionError::ConnectionClosed(close) = &ended else {
            panic!("{ended}");
        };
        assert_eq!(u64::from(close.error_code), INTERNAL_ERROR, "{ended}");
        let _stream = open_on(&raw.peer, &open()).await;
        raw.incoming.recv().await.unwrap();
    });
}

#[test]
fn a_peer_that_changes_its_keys_all_the_time_stalls_nobody() {
    run::to_its_end(|| async {
        let mut raw = Raw::with(|_| {}).await;
        let _controls = raw.controls().await;
        let another = raw.again().await;
        let (_send, mut recv) = controls_of(&another).await;
        for _ in 0..1_000 {
            another.force_key_update();
            let _ = another.send_datagram(vec![9; 100].into());
            tokio::task::yield_now().await;
        }
        // It goes on, or is closed; what it may not do is harm the others.
        let _ = tokio::time::timeout(
            std::time::Duration::from_millis(100),
            recv.read_chunk(1, true),
        )
        .await;
        let _stream = open_on(&raw.peer, &open()).await;
        raw.incoming.recv().await.unwrap();
    });
}

#[test]
fn a_peer_that_floods_datagrams_stalls_nobody() {
    run::to_its_end(|| async {
        let mut raw = Raw::with(|_| {}).await;
        let _controls = raw.controls().await;
        let another = raw.again().await;
        let _controls_too = controls_of(&another).await;
        // Probes, which are answered; credit of streams that are not there, and questions about it; what is nothing.
        let probe = [&[0, 6, 0, 0, 9, 0, 0, 0, 0, 2][..], &[0; 8]].concat();
        let kinds = [
            probe,
            vec![1, 0, 1],
            vec![2, 0, 9],
            vec![3, 0, 0],
            vec![4; 1_000],
        ];
        for datagram in kinds.iter().cycle().take(20_000) {
            another.send_datagram(datagram.clone().into()).unwrap();
            if another.datagram_send_buffer_space() < 2_000 {
                tokio::task::yield_now().await;
            }
        }
        let _stream = open_on(&raw.peer, &open()).await;
        raw.incoming.recv().await.unwrap();
        let _stream_too = open_on(&another, &open()).await;
        raw.incoming.recv().await.unwrap();
        another.close(VarInt::from_u32(0), b"");
    });
}
