//! Who is answered by a stateless reset, and who is not: a reset ends a connection, so nobody may get one made for a
//! connection that lives.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use corinth_transport::{
    LinkState, Transport,
    quic::{QuicKeys, QuicTimeouts, QuicTransport},
};
use tokio::{net::UdpSocket, time::timeout};

use crate::{
    pair::{A, B, Sink, header, settled},
    quic::{listen, settings},
    run,
    talk::Talk,
    tls::{Clock, Cluster},
    udp::{Resets, TOKEN_BYTES, UdpProxy, token},
};

const KEYS: QuicKeys = QuicKeys {
    reset: [7; 32],
    token: [8; 32],
};
/// Who asks gets no more than this back, and less than it has sent.
const ASKED_BYTES: usize = 60;
/// An answer on the loopback interface comes before this.
const SILENCE: Duration = Duration::from_millis(300);

/// A gateway that dialled another one through a proxy, and a further slot of the other one's cluster.
struct Slots {
    near: Arc<QuicTransport>,
    far: Arc<QuicTransport>,
    far_address: SocketAddr,
    _other: Arc<QuicTransport>,
    other_address: SocketAddr,
    proxy: UdpProxy,
    b: Cluster,
}

impl Slots {
    async fn new() -> Self {
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        // Only resets tell in time.
        let patient = QuicTimeouts {
            probe_interval: Duration::from_secs(1),
            ..QuicTimeouts::default()
        };
        let of = |own: &Cluster, peer: &Cluster| {
            let mut settings = settings(own, &[peer], &clock, patient);
            settings.keys = KEYS;
            Arc::new(QuicTransport::new(settings, Sink::new().0))
        };
        let (near, far, other) = (of(&a, &b), of(&b, &a), of(&b, &a));
        let far_address = listen(&far, Ipv4Addr::LOCALHOST.into());
        let other_address = listen(&other, Ipv4Addr::LOCALHOST.into());
        let no_keys = Resets {
            client: [1; 32],
            server: [2; 32],
        };
        let proxy = UdpProxy::to(far_address, None, no_keys).await.unwrap();
        Self {
            near,
            far,
            far_address,
            _other: other,
            other_address,
            proxy,
            b,
        }
    }

    /// The ID of a live connection, and the port it was dialled from.
    async fn dial(&self) -> (Vec<u8>, SocketAddr) {
        let target = self.b.target(self.proxy.address);
        self.near.dial(&target).await.unwrap();
        let mut used = None;
        run::eventually(|| {
            used = self.proxy.last_used();
            used.is_some()
        })
        .await;
        used.unwrap()
    }
}

/// A packet with a short header for the connection of this ID, as nobody can read it.
fn packet(id: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x55; ASKED_BYTES];
    packet[0] = 0x40;
    packet[1..=id.len()].copy_from_slice(id);
    packet
}

/// Sends a packet with each ID, and returns the first answer.
async fn ask(address: SocketAddr, ids: &[&[u8]]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for id in ids {
        socket.send_to(&packet(id), address).await.unwrap();
    }
    let mut answer = vec![0; 2_048];
    let answered = timeout(SILENCE, socket.recv_from(&mut answer)).await;
    let (received, _) = answered.ok()?.unwrap();
    answer.truncate(received);
    Some(answer)
}

#[test]
fn a_packet_for_another_slot_is_answered_by_a_reset_and_one_for_nobody_is_not() {
    run::to_its_end(|| async {
        let slots = Slots::new().await;
        let (id, _) = slots.dial().await;
        let mut nobodys = id.clone();
        nobodys[5] ^= 1;
        // At most one of several packets at once is answered: the first one was not.
        let answer = ask(slots.other_address, &[&nobodys, &id]).await.unwrap();
        assert!(answer.len() < ASKED_BYTES);
        assert_eq!(
            answer[answer.len() - TOKEN_BYTES..],
            token(&KEYS.reset, &id)
        );
    });
}

#[test]
fn a_packet_for_a_connection_that_lives_is_not_answered() {
    run::to_its_end(|| async {
        let slots = Slots::new().await;
        let (id, _) = slots.dial().await;
        assert_eq!(ask(slots.far_address, &[&id]).await, None);
        // Nor at another port of the same gateway.
        let further = listen(&slots.far, Ipv4Addr::LOCALHOST.into());
        assert_eq!(ask(further, &[&id]).await, None);
    });
}

#[test]
fn a_port_that_dials_answers_nobody() {
    run::to_its_end(|| async {
        let slots = Slots::new().await;
        let (id, port) = slots.dial().await;
        assert_eq!(ask(port, &[&id, &[1; 8], &[0; 8]]).await, None);
    });
}

#[test]
fn who_is_led_to_another_slot_dials_anew_at_once() {
    run::to_its_end(|| async {
        let slots = Slots::new().await;
        let target = slots.b.target(slots.proxy.address);
        let link = slots.near.dial(&target).await.unwrap();
        slots.proxy.lead_to(slots.other_address);
        // Probes would tell after four seconds.
        let told = timeout(Duration::from_secs(3), settled(&link, LinkState::Dead));
        told.await.unwrap();
        let again = slots.near.dial(&target).await.unwrap();
        let mut stream = again.open(&header()).await.unwrap();
        stream.flush().await.unwrap();
    });
}
