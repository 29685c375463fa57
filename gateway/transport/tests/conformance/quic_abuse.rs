//! What strangers and peers send that no honest one does: how little it gets back, and that an established peer goes on.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use corinth_transport::{
    Transport,
    quic::{QuicTimeouts, QuicTransport},
};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    pair::{B, STRANGER, Sink},
    quic::{Dialled, settings},
    quic_raw::{Raw, controls_of, open, open_on},
    run,
    talk::Talk,
    tls::{Clock, Cluster},
};

/// What a datagram that begins a connection has at least (RFC 9000 §14.1).
const INITIAL_BYTES: usize = 1_200;
/// What an address that is not proven gets at most, as a multiple of what came from it (RFC 9000 §8.1).
const AMPLIFICATION_MAX: usize = 3;
/// Bytes of the version, in a long header.
const VERSION: std::ops::Range<usize> = 1..5;
/// A version that nobody speaks, and the source ID of who asks for it, by which its answer is known.
const NO_VERSION: [u8; 4] = [0x5a; 4];
const ASKS: [u8; 8] = *b"anybody?";
/// Beginnings of connections that nobody goes on with.
const SPOOFED: usize = 300;
const STREAMS: usize = 1_000;
/// In so much time twenty of them are looked at.
const WINDOW: Duration = Duration::from_millis(10);
const IN_A_WINDOW: usize = 20;

/// What comes back for one datagram of a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Nothing,
    /// One datagram, smaller than what was sent.
    OneAnswer,
}

/// Makes of what an honest dialler says first something else.
type Spoil = fn(Vec<u8>) -> Vec<u8>;

const SINGLE_DATAGRAMS: &[(&str, Spoil, Expected)] = &[
    ("empty", |_| Vec::new(), Expected::Nothing),
    ("one byte", |first| first[..1].to_vec(), Expected::Nothing),
    (
        "an Initial that is too small",
        |first| first[..INITIAL_BYTES - 1].to_vec(),
        Expected::Nothing,
    ),
    (
        "an Initial of 100 bytes",
        |first| first[..100].to_vec(),
        Expected::Nothing,
    ),
    (
        "an Initial that was changed on the way",
        |first| flip(first, INITIAL_BYTES - 1),
        Expected::Nothing,
    ),
    (
        "an Initial with another ID than its keys are made from",
        |first| flip(first, 7),
        Expected::Nothing,
    ),
    (
        "a version that does not exist",
        |first| with_version(first, 0x1a2a_3a4a),
        Expected::OneAnswer,
    ),
    (
        "a draft",
        |first| with_version(first, 0xff00_001d),
        Expected::OneAnswer,
    ),
    (
        "version 2",
        |first| with_version(first, 0x6b33_43cf),
        Expected::OneAnswer,
    ),
    (
        "a small datagram of another version",
        |first| with_version(first, 0xff00_001d)[..600].to_vec(),
        Expected::Nothing,
    ),
    (
        "a version negotiation, as in an endless exchange of them",
        |first| with_version(first, 0),
        Expected::Nothing,
    ),
    (
        "a short header with an ID of nobody",
        |first| with_first_byte(first, 0x40),
        Expected::Nothing,
    ),
    (
        "a Handshake packet of no connection",
        |first| with_first_byte(first, 0xe0),
        Expected::Nothing,
    ),
    (
        "early data of no connection",
        |first| with_first_byte(first, 0xd0),
        Expected::Nothing,
    ),
    (
        "a Retry",
        |first| with_first_byte(first, 0xf0),
        Expected::Nothing,
    ),
    ("noise", |first| vec![0xaa; first.len()], Expected::Nothing),
];

fn flip(mut datagram: Vec<u8>, at: usize) -> Vec<u8> {
    datagram[at] ^= 1;
    datagram
}

fn with_version(mut datagram: Vec<u8>, version: u32) -> Vec<u8> {
    datagram[VERSION].copy_from_slice(&version.to_be_bytes());
    datagram
}

fn with_first_byte(mut datagram: Vec<u8>, first: u8) -> Vec<u8> {
    datagram[0] = first;
    datagram
}

/// What diallers say first, for somebody else to send on.
async fn first_datagrams(count: usize) -> Vec<Vec<u8>> {
    let clock = Clock::new();
    let (stranger, b) = (Cluster::new(STRANGER), Cluster::new(B));
    let settings = settings(&stranger, &[&b], &clock, QuicTimeouts::default());
    let dialer = Arc::new(QuicTransport::new(settings, Sink::new().0));
    let nowhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = b.target(nowhere.local_addr().unwrap());
    let (mut datagrams, mut seen) = (Vec::new(), BTreeSet::new());
    let mut datagram = vec![0; 2_048];
    while datagrams.len() < count {
        let dialling = dialer.dial(&target);
        tokio::select! {
            _ = dialling => panic!("nobody answers there"),
            received = nowhere.recv_from(&mut datagram) => {
                let (received, port) = received.unwrap();
                // Not what it says when it gives up.
                if seen.insert(port) {
                    datagrams.push(datagram[..received].to_vec());
                }
            }
        }
    }
    datagrams
}

/// Somebody who sends whatever it likes.
struct Stranger {
    socket: UdpSocket,
}

impl Stranger {
    async fn to(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(address).await.unwrap();
        Self { socket }
    }

    /// What comes back for this datagram: all that was answered before a question that is always answered.
    async fn ask(&self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        let mut answer = vec![0; 2_048];
        // Not so often that it is not looked at; and nothing comes late.
        let late = timeout(WINDOW, self.socket.recv(&mut answer)).await;
        assert!(late.is_err(), "{late:?}");
        self.socket.send(datagram).await.unwrap();
        self.socket.send(&question()).await.unwrap();
        loop {
            let received = self.socket.recv(&mut answer).await.unwrap();
            let answer = &answer[..received];
            if answer.get(6..14) == Some(&ASKS[..]) {
                return answers;
            }
            answers.push(answer.to_vec());
        }
    }
}

/// A datagram of a version that nobody speaks.
fn question() -> Vec<u8> {
    let mut question = vec![0; INITIAL_BYTES];
    question[0] = 0xc0;
    question[VERSION].copy_from_slice(&NO_VERSION);
    question[5] = 8;
    question[14] = 8;
    question[15..23].copy_from_slice(&ASKS);
    question
}

async fn goes_on(dialled: &mut Dialled) {
    let (mut near, mut far) = dialled.stream().await;
    near.write(b"there").await.unwrap();
    assert_eq!(far.read(5).await.unwrap(), b"there");
    far.write(b"back").await.unwrap();
    assert_eq!(near.read(4).await.unwrap(), b"back");
    assert_eq!(dialled.link.stats().dialled, 1);
}

#[test]
fn a_stranger_gets_little_or_nothing_back_for_what_no_dialler_sends() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::new().await;
        let first = first_datagrams(1).await.remove(0);
        assert!(first.len() >= INITIAL_BYTES);
        let stranger = Stranger::to(dialled.listening).await;
        for (what, spoil, expected) in SINGLE_DATAGRAMS {
            let datagram = spoil(first.clone());
            let answers = stranger.ask(&datagram).await;
            let bytes: usize = answers.iter().map(Vec::len).sum();
            assert!(bytes <= datagram.len(), "{what}: {bytes} bytes");
            let count = match expected {
                Expected::Nothing => 0,
                Expected::OneAnswer => 1,
            };
            assert_eq!(answers.len(), count, "{what}: {answers:x?}");
        }
        goes_on(&mut dialled).await;
    });
}

#[test]
fn who_never_goes_on_gets_no_more_than_three_times_its_bytes_and_is_forgotten() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::with(|settings| {
            settings.timeouts.handshake = Duration::from_millis(500);
        })
        .await;
        let before = dialled.far.handshakes();
        let stranger = Stranger::to(dialled.listening).await;
        let (mut sent, mut received) = (0, 0);
        let mut answer = vec![0; 2_048];
        for firsts in first_datagrams(SPOOFED).await.chunks(IN_A_WINDOW) {
            for first in firsts {
                sent += stranger.socket.send(first).await.unwrap();
            }
            let next = Instant::now() + WINDOW;
            while let Ok(bytes) = timeout_at(next, stranger.socket.recv(&mut answer)).await {
                received += bytes.unwrap();
            }
        }
        // Begun, asked to prove their address, or turned away: all of them are over some time.
        let is_over = || {
            let now = dialled.far.handshakes();
            let over = now.failed + now.retried + now.refused + now.ignored;
            over - before.failed - before.retried - before.refused - before.ignored
                >= SPOOFED as u64
        };
        loop {
            match timeout(Duration::from_millis(50), stranger.socket.recv(&mut answer)).await {
                Ok(bytes) => received += bytes.unwrap(),
                Err(_) if is_over() => break,
                Err(_) => {}
            }
        }
        assert!(dialled.far.handshakes().retried > 0);
        assert!(
            received <= AMPLIFICATION_MAX * sent,
            "{received} for {sent}"
        );
        goes_on(&mut dialled).await;
    });
}

#[test]
fn packets_that_were_changed_on_the_way_change_nothing() {
    run::to_its_end(|| async {
        const BYTES: usize = 500_000;
        const ROUNDS: u8 = 20;
        let mut dialled = Dialled::new().await;
        let (mut near, mut far) = dialled.stream().await;
        let before = dialled.far.handshakes();
        dialled.proxy.make_noise();
        for round in 0..ROUNDS {
            let bytes = vec![round; BYTES];
            near.write(&bytes).await.unwrap();
            assert!(far.read(BYTES).await.unwrap() == bytes);
            far.write(&bytes).await.unwrap();
            assert!(near.read(BYTES).await.unwrap() == bytes);
        }
        near.end().await.unwrap();
        assert_eq!(far.read_to_end().await.unwrap(), b"");
        far.end().await.unwrap();
        assert_eq!(near.read_to_end().await.unwrap(), b"");
        assert!(dialled.proxy.spoiled() > 1_000);
        assert_eq!(dialled.far.handshakes(), before);
        let [here, there] = [&dialled.link, &dialled.far.links()[0]].map(|link| {
            let stats = link.stats();
            (
                stats.dialled,
                stats.connections,
                stats.opened,
                stats.accepted,
            )
        });
        assert_eq!((here, there), ((1, 1, 1, 0), (0, 1, 0, 1)));
        goes_on(&mut dialled).await;
    });
}

#[test]
fn a_peer_that_opens_streams_and_says_nothing_stalls_nobody_else() {
    run::to_its_end(|| async {
        let mut raw = Raw::with(|settings| {
            settings.timeouts.first_frame = Duration::from_millis(500);
        })
        .await;
        let _controls = raw.controls().await;
        let mut silent = Vec::new();
        for _ in 0..STREAMS {
            let (mut send, recv) = raw.peer.open_bi().await.unwrap();
            send.write_all(&[0]).await.unwrap();
            silent.push((send, recv));
        }
        let another = raw.again().await;
        let _controls = controls_of(&another).await;
        let _stream = open_on(&another, &open()).await;
        raw.incoming.recv().await.unwrap();
        // A header that does not come is not waited for.
        for (_, recv) in &mut silent {
            assert!(recv.read_to_end(1).await.is_err());
        }
    });
}

#[test]
fn streams_of_a_peer_that_vanishes_are_freed_in_time() {
    run::to_its_end(|| async {
        const IDLE: Duration = Duration::from_secs(2);
        let mut dialled = Dialled::with(|settings| settings.timeouts.idle = IDLE).await;
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let (near, mut far) = dialled.stream().await;
            // Each is served by somebody who waits for it.
            let served = tokio::spawn(async move { far.read_to_end().await.map(|_| ()) });
            streams.push((near, served));
        }
        let far_link = dialled.far.links().remove(0);
        assert_eq!(far_link.stats().streams, STREAMS as u32);
        dialled.proxy.cut();
        for (_, served) in &mut streams {
            assert!(served.await.unwrap().is_err());
        }
        let freed = run::eventually(|| far_link.stats().streams == 0);
        timeout(IDLE + Duration::from_secs(5), freed).await.unwrap();
    });
}
