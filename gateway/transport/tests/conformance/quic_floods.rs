//! Beginnings of connections that nobody goes on with, and tokens that prove nothing.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use corinth_transport::quic::QuicTransport;
use rustls::time_provider::TimeProvider;
use tokio::net::UdpSocket;

use crate::{
    quic::Dialled,
    quic_packets::{ID_BYTES, Initials},
    run,
    talk::Talk,
    tls::{Clock, NOW},
};

/// Handshakes under way of which more are asked to prove their address.
const UNPROVEN_MAX: u64 = 64;
/// The error code of a token that is no good (RFC 9000 §20.1).
const INVALID_TOKEN: u64 = 0x0b;
/// How long a token may be used.
const TOKEN_SECONDS: u64 = 15;
/// The bits of a long header that say that it is a Retry.
const RETRY: u8 = 0xf0;
const TAG_BYTES: usize = 16;
const SPOOFED: u64 = 20_000;
/// What a flood of them may cost.
const MEMORY_MAX_BYTES: u64 = 16 << 20;
/// What an address that is not proven gets at most, as a multiple of what came from it (RFC 9000 §8.1).
const AMPLIFICATION_MAX: usize = 3;

fn id(number: u64) -> [u8; ID_BYTES] {
    // Not one that a gateway could have issued.
    (number | 0xfe << 56).to_be_bytes()
}

async fn stranger_to(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    socket
}

/// Begins so many connections that addresses have to be proved from now on.
async fn crowd(initials: &Initials, far: &QuicTransport, listening: SocketAddr) {
    let crowd = stranger_to(listening).await;
    let before = far.handshakes().retried;
    let mut number = 0;
    while far.handshakes().retried == before {
        // With nothing in them there is nothing to answer.
        let packet = initials.make(&id(number), [1; ID_BYTES], &[], &[]);
        crowd.send(&packet).await.unwrap();
        tokio::task::yield_now().await;
        number += 1;
    }
    assert!(number > UNPROVEN_MAX);
}

/// A token, and the ID that is to be used with it.
async fn token_for(stranger: &UdpSocket, initials: &Initials) -> (Vec<u8>, Vec<u8>) {
    let packet = initials.make(&id(1 << 20), [2; ID_BYTES], &[], &[]);
    stranger.send(&packet).await.unwrap();
    let mut answer = [0; 2_048];
    let received = stranger.recv(&mut answer).await.unwrap();
    let retry = &answer[..received];
    assert_eq!(retry[0] & RETRY, RETRY);
    let source_at = 6 + ID_BYTES;
    let source_bytes = usize::from(retry[source_at]);
    let source = retry[source_at + 1..][..source_bytes].to_vec();
    let token = &retry[source_at + 1 + source_bytes..received - TAG_BYTES];
    (token.to_vec(), source)
}

/// What becomes of somebody who comes with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    /// Its address counts as proved.
    Proven,
    /// It is asked again.
    Asked,
    /// It is told that the token is no good.
    Refused,
}

#[test]
fn a_token_proves_an_address_only_where_it_was_issued_to_it_by_this_gateway() {
    run::to_its_end(|| async {
        let hasty = |settings: &mut corinth_transport::quic::QuicSettings| {
            settings.timeouts.handshake = Duration::from_secs(20);
        };
        let (dialled, elsewhere) = (Dialled::with(hasty).await, Dialled::with(hasty).await);
        let initials = Initials::new();
        for gateway in [&dialled, &elsewhere] {
            crowd(&initials, &gateway.far, gateway.listening).await;
        }
        let stranger = stranger_to(dialled.listening).await;
        let (token, source) = token_for(&stranger, &initials).await;
        let another = stranger_to(dialled.listening).await;
        let (of_another, source_of_another) = token_for(&another, &initials).await;
        let abroad = stranger_to(elsewhere.listening).await;
        let (of_elsewhere, _) = token_for(&abroad, &initials).await;
        let changed = |at: usize| {
            let mut changed = token.clone();
            changed[at] ^= 1;
            changed
        };
        let tokens = [
            (
                "of another address",
                of_another,
                &source_of_another,
                Becomes::Refused,
            ),
            ("of another gateway", of_elsewhere, &source, Becomes::Asked),
            ("with a bit changed", changed(0), &source, Becomes::Asked),
            (
                "with its end changed",
                changed(token.len() - 1),
                &source,
                Becomes::Asked,
            ),
            (
                "cut short",
                token[..token.len() - 1].to_vec(),
                &source,
                Becomes::Asked,
            ),
            ("of one byte", vec![1], &source, Becomes::Asked),
            ("as long as fits", vec![0xaa; 900], &source, Becomes::Asked),
            ("as it was issued", token.clone(), &source, Becomes::Proven),
        ];
        let mut answer = [0; 2_048];
        for (what, token, source, expected) in tokens {
            let before = dialled.far.handshakes().retried;
            let packet = initials.make(source, [2; ID_BYTES], &token, &[]);
            stranger.send(&packet).await.unwrap();
            if expected == Becomes::Proven {
                // Nothing comes back for it. Who comes after it without a token is asked.
                let packet = initials.make(&id(1 << 21), [2; ID_BYTES], &[], &[]);
                stranger.send(&packet).await.unwrap();
            }
            let received = stranger.recv(&mut answer).await.unwrap();
            if expected == Becomes::Refused {
                let code = initials.closed_with(source, &answer[..received]);
                assert_eq!(code, Some(INVALID_TOKEN), "{what}");
                continue;
            }
            assert_eq!(answer[0] & RETRY, RETRY, "{what}");
            assert_eq!(dialled.far.handshakes().retried, before + 1, "{what}");
        }
    });
}

#[test]
fn a_token_proves_nothing_once_it_has_expired() {
    run::to_its_end(|| async {
        let clock = Clock::new();
        let dialled = Dialled::with(|settings| {
            settings.clock = Arc::clone(&clock) as Arc<dyn TimeProvider>;
            settings.timeouts.handshake = Duration::from_secs(20);
        })
        .await;
        let initials = Initials::new();
        crowd(&initials, &dialled.far, dialled.listening).await;
        let mut answer = [0; 2_048];
        for (later, expected) in [
            (TOKEN_SECONDS, Becomes::Proven),
            (TOKEN_SECONDS + 1, Becomes::Refused),
        ] {
            clock.set(NOW);
            let stranger = stranger_to(dialled.listening).await;
            let (token, source) = token_for(&stranger, &initials).await;
            clock.set(NOW + later);
            let packet = initials.make(&source, [2; ID_BYTES], &token, &[]);
            stranger.send(&packet).await.unwrap();
            // Nothing comes back for one that is good; who comes after it without a token is asked.
            let packet = initials.make(&id(1 << 21), [2; ID_BYTES], &[], &[]);
            stranger.send(&packet).await.unwrap();
            let received = stranger.recv(&mut answer).await.unwrap();
            if expected == Becomes::Refused {
                let code = initials.closed_with(&source, &answer[..received]);
                assert_eq!(code, Some(INVALID_TOKEN), "after {later} seconds");
            } else {
                assert_eq!(answer[0] & RETRY, RETRY, "after {later} seconds");
            }
        }
    });
}

#[test]
fn who_fails_at_once_as_often_as_others_wait_is_asked_to_prove_its_address_for_a_while() {
    run::to_its_end(|| async {
        let dialled = Dialled::new().await;
        let initials = Initials::new();
        let stranger = stranger_to(dialled.listening).await;
        let far = &dialled.far;
        let mut number = 0;
        // Without end, if those who failed do not count.
        while far.handshakes().retried == 0 {
            forge(&stranger, &initials, far, number).await;
            number += 1;
        }
        assert!(number > UNPROVEN_MAX);
        let failed = far.handshakes().failed;
        while far.handshakes().failed == failed {
            forge(&stranger, &initials, far, number).await;
            number += 1;
        }
    });
}

/// Begins a connection with a packet that is not sealed as it has to be, and waits for what becomes of it.
async fn forge(stranger: &UdpSocket, initials: &Initials, far: &QuicTransport, number: u64) {
    let over = || {
        let counts = far.handshakes();
        counts.failed + counts.retried
    };
    let before = over();
    let mut packet = initials.make(&id(number), [4; ID_BYTES], &[], &[]);
    if let Some(last) = packet.last_mut() {
        *last ^= 1;
    }
    stranger.send(&packet).await.unwrap();
    run::eventually(|| over() > before).await;
}

/// The most memory that this process has had, in bytes (`proc_pid_status(5)`).
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = peak.unwrap().trim().strip_suffix(" kB").unwrap();
    kibibytes.parse::<u64>().unwrap() << 10
}

#[test]
fn twenty_thousand_who_never_go_on_cost_little_and_a_peer_goes_on_meanwhile() {
    let test =
        "quic_floods::twenty_thousand_who_never_go_on_cost_little_and_a_peer_goes_on_meanwhile";
    run::alone(test, || async {
        let mut dialled = Dialled::new().await;
        let initials = Initials::new();
        let (mut near, mut far) = dialled.stream().await;
        let flood = Arc::new(stranger_to(dialled.listening).await);
        let before = peak_bytes();
        let (mut sent, mut received) = (0, 0);
        let mut answer = [0; 2_048];
        for number in 0..SPOOFED {
            let packet = initials.make(&id(number), [3; ID_BYTES], &[], &[]);
            // What the kernel does not take is one less.
            sent += flood.try_send(&packet).unwrap_or(0);
            while let Ok(bytes) = flood.try_recv(&mut answer) {
                received += bytes;
            }
            if number % 32 == 0 {
                tokio::task::yield_now().await;
            }
            if number % 1_000 == 0 {
                near.write(&[1; 10_000]).await.unwrap();
                assert_eq!(far.read(10_000).await.unwrap(), [1; 10_000]);
            }
        }
        near.write(b"still").await.unwrap();
        assert_eq!(far.read(5).await.unwrap(), b"still");
        assert!(dialled.far.handshakes().retried > 0);
        assert!(
            received <= AMPLIFICATION_MAX * sent,
            "{received} for {sent}"
        );
        let grown = peak_bytes() - before;
        assert!(grown < MEMORY_MAX_BYTES, "{grown} bytes");
        assert_eq!(dialled.link.stats().dialled, 1);
    });
}
