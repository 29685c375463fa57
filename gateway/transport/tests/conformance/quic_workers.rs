//! Several connections between two gateways, one for each worker.

use std::{net::Ipv4Addr, sync::Arc, thread, time::Duration};

use corinth_model::{Failure, GatewayId};
use corinth_transport::{
    DialTarget, LinkState, Transport,
    quic::{QuicTimeouts, QuicTransport},
};
use tokio::sync::oneshot;

use crate::{
    pair::{A, header, trust_domain},
    quic::{Dialled, listen},
    run,
    talk::Talk,
};

/// Another worker of a gateway, which has dialled its own connection.
struct Another {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Another {
    /// Returns once it has dialled.
    async fn of(transport: &Arc<QuicTransport>, peer: &GatewayId) -> Self {
        let (transport, peer) = (Arc::clone(transport), peer.clone());
        let (stop, stopped) = oneshot::channel();
        let (dialled, has_dialled) = oneshot::channel();
        let thread = thread::spawn(move || {
            run::worker().block_on(async {
                transport.widen(&peer).await.unwrap();
                // A second time there is nothing left to do.
                transport.widen(&peer).await.unwrap();
                dialled.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        has_dialled.await.unwrap();
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Another {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn each_worker_has_a_connection_of_its_own_and_none_is_taken_for_the_successor_of_another() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::with(|settings| {
            // Four of them are how long a busy machine may keep the first connection from answering.
            settings.timeouts.probe_interval = Duration::from_millis(60);
        })
        .await;
        let link = Arc::clone(&dialled.link);
        // The worker that has dialled already needs no other.
        dialled.near.widen(link.peer()).await.unwrap();
        assert_eq!(link.stats().dialled, 1);
        let _another = Another::of(&dialled.near, link.peer()).await;
        // The peer has one worker, so that it was tried from several ports to reach another.
        assert!(link.stats().dialled > 2);
        run::eventually(|| link.stats().connections == 2).await;
        let far_link = dialled.far.links().remove(0);
        run::eventually(|| far_link.stats().connections == 2).await;
        // Long after a connection that is replaced has gone, both are there.
        let probes = dialled.proxy.carried();
        // The other ports are silent.
        run::eventually(|| {
            let now = dialled.proxy.carried();
            let speak = now
                .iter()
                .filter(|(port, bytes)| *bytes - probes.get(port).unwrap_or(&0) > 2_000);
            speak.count() == 2
        })
        .await;
        assert_eq!(link.stats().connections, 2);
        let (mut near, mut far) = dialled.stream().await;
        near.write(b"hello").await.unwrap();
        assert_eq!(far.read(5).await.unwrap(), b"hello");
    });
}

#[test]
fn a_gateway_that_nobody_here_has_linked_is_not_dialled() {
    run::to_its_end(|| async {
        let dialled = Dialled::new().await;
        let near = dialled.link.peer().clone();
        // The far side was dialled and has dialled nobody.
        let its_link = dialled.far.links().remove(0);
        dialled.far.widen(its_link.peer()).await.unwrap();
        dialled.far.widen(&near).await.unwrap();
        assert_eq!(its_link.stats().dialled, 0);
        assert_eq!(its_link.stats().connections, 1);
    });
}

#[test]
fn a_connection_that_died_is_dialled_again_although_that_of_the_peer_carries_the_link() {
    run::to_its_end(|| async {
        let dialled = Dialled::with(|settings| {
            settings.timeouts.probe_interval = Duration::from_millis(20);
            settings.timeouts.connect = Duration::from_millis(300);
        })
        .await;
        let link = Arc::clone(&dialled.link);
        let target = DialTarget {
            address: listen(&dialled.near, Ipv4Addr::LOCALHOST.into()),
            trust_domain: trust_domain(A),
        };
        let _peers = dialled.far.dial(&target).await.unwrap();
        run::eventually(|| link.stats().connections == 2).await;
        dialled.proxy.cut();
        run::eventually(|| link.stats().connections == 1).await;
        // Nor does anything come of what was dialled in its place before.
        assert!(dialled.near.dial(&dialled.target).await.is_err());
        dialled.proxy.heal();
        assert_eq!(*link.state().borrow(), LinkState::Up);
        let before = link.stats().dialled;
        dialled.near.widen(link.peer()).await.unwrap();
        assert_eq!(link.stats().dialled, before + 1);
        assert_eq!(link.stats().connections, 2);
    });
}

#[test]
fn who_waits_on_a_connection_that_dies_alone_is_told_long_before_it_is_over() {
    run::to_its_end(|| async {
        let dialled = Dialled::with(|settings| {
            settings.timeouts.probe_interval = Duration::from_millis(50);
        })
        .await;
        let first = *dialled.proxy.carried().keys().next().unwrap();
        let _another = Another::of(&dialled.near, dialled.link.peer()).await;
        let mut waits = dialled.link.open(&header()).await.unwrap();
        dialled.proxy.strand_one(first);
        waits.flush().await.unwrap();
        let began = std::time::Instant::now();
        let told = waits.reply().await.unwrap_err();
        assert_eq!(told.failure(), Failure::PathDead);
        assert!(began.elapsed() < QuicTimeouts::default().idle / 2);
        // The link lives on the other one.
        assert_eq!(*dialled.link.state().borrow(), LinkState::Up);
        dialled.link.open(&header()).await.unwrap();
    });
}

#[test]
fn what_is_dialled_in_place_of_another_connection_is_spread_as_that_was() {
    run::to_its_end(|| async {
        let dialled = Dialled::with(|settings| {
            settings.timeouts.probe_interval = Duration::from_millis(50);
        })
        .await;
        let link = Arc::clone(&dialled.link);
        let first = *dialled.proxy.carried().keys().next().unwrap();
        let _another = Another::of(&dialled.near, link.peer()).await;
        let before = link.stats().dialled;
        dialled.proxy.strand_one(first);
        // The peer has one worker, which the other connection reaches: it is tried from several ports to reach another.
        run::eventually(|| link.stats().dialled >= before + 4).await;
        run::eventually(|| link.stats().connections == 2).await;
    });
}

#[test]
fn streams_open_beside_a_connection_on_which_much_moves() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::new().await;
        let (mut bulk, mut sink) = dialled.stream().await;
        let bulks_port = *dialled.proxy.carried().keys().next().unwrap();
        let _another = Another::of(&dialled.near, dialled.link.peer()).await;
        tokio::spawn(async move {
            let chunk = vec![0; 64 << 10];
            while bulk.write(&chunk).await.is_ok() {}
        });
        tokio::spawn(async move {
            while sink.read(1 << 20).await.is_ok_and(|read| !read.is_empty()) {}
        });
        let others = |proxy: &crate::udp::UdpProxy| -> u64 {
            let carried = proxy.carried();
            let others = carried.iter().filter(|(port, _)| **port != bulks_port);
            others.map(|(_, bytes)| bytes).sum()
        };
        const SHORT_BYTES: usize = 20_000;
        loop {
            let before = others(&dialled.proxy);
            let mut short = dialled.link.open(&header()).await.unwrap();
            short.write(&[1; SHORT_BYTES]).await.unwrap();
            let mut far = dialled.incoming.recv().await.unwrap();
            assert_eq!(far.read(SHORT_BYTES).await.unwrap(), [1; SHORT_BYTES]);
            // Both connections have probes.
            if others(&dialled.proxy) - before > SHORT_BYTES as u64 / 2 {
                return;
            }
        }
    });
}
