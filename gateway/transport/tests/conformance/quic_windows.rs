//! What a QUIC connection holds that nobody reads, and what that does to everything else on it.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use corinth_model::Failure;
use corinth_transport::{
    LinkState, Sent, Transport,
    quic::{FURTHER_CONNECTIONS_MAX, QuicTimeouts, QuicTransport},
};
use futures_util::{FutureExt, future::join_all};
use tokio::time::timeout;

use crate::{
    flow::{count, write_until_stopped},
    pair::{A, B, Between, Carrier, Sink, settled},
    quic::{Dialled, Quic, listen, settings},
    run,
    talk::{Talk, take},
    tls::{Clock, Cluster},
};

/// Their windows are more than a connection is given at first.
const UNREAD: usize = 40;
/// A path on which nothing comes back is dead before this.
const DEAD_AFTER: Duration = Duration::from_secs(1);

#[test]
fn streams_that_nobody_reads_stall_no_other() {
    run::to_its_end(|| async {
        let mut pair = Quic::<false>::pair(Between::Nothing).await;
        let (link, _) = pair.dial().await;
        let mut unread = Vec::new();
        for _ in 0..UNREAD {
            unread.push(pair.stream(&link).await);
        }
        let (mut near, mut far) = pair.stream(&link).await;
        join_all(unread.iter_mut().map(|(near, _)| write_until_stopped(near))).await;
        for _ in 0..100 {
            near.write(&[1; 10_000]).await.unwrap();
            assert_eq!(far.read(10_000).await.unwrap(), [1; 10_000]);
        }
        let (mut near, mut far) = pair.stream(&link).await;
        near.write(b"hello").await.unwrap();
        assert_eq!(far.read(5).await.unwrap(), b"hello");
        assert_eq!(link.stats().dialled, 1);
    });
}

#[test]
fn a_peer_is_alive_although_nobody_reads_its_streams_and_no_window_is_left() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::with(|settings| {
            settings.window_budget_bytes = 1 << 20;
            settings.timeouts.probe_interval = Duration::from_millis(50);
        })
        .await;
        let mut unread = Vec::new();
        for _ in 0..2 * UNREAD {
            unread.push(dialled.stream().await);
        }
        join_all(unread.iter_mut().map(|(near, _)| write_until_stopped(near))).await;
        let dead = settled(&dialled.link, LinkState::Dead);
        assert!(timeout(DEAD_AFTER, dead).await.is_err(), "the path is fine");
        // And when somebody reads, everything goes on.
        drop(unread);
        let (mut near, mut far) = dialled.stream().await;
        near.write(b"hello").await.unwrap();
        assert_eq!(far.read(5).await.unwrap(), b"hello");
        assert_eq!(dialled.link.stats().dialled, 1);
    });
}

/// Packets for each call that sends, of which the library puts ten together at most. A busy machine paces in smaller ones.
const PACKETS_PER_SEND: u64 = 3;

/// The loopback device takes jumbo frames.
const PACKET_MAX_BYTES: usize = 8_972;

#[test]
fn what_moves_much_leaves_in_large_batches() {
    run::to_its_end(|| async {
        const BYTES: usize = 16 << 20;
        let mut pair = Quic::<false>::pair(Between::Nothing).await;
        let (link, _) = pair.dial().await;
        let (mut near, mut far) = pair.stream(&link).await;
        let path = || link.stats().path.unwrap();
        let read = far.with(|stream| Box::pin(count(stream, BYTES)));
        let bytes = vec![1; BYTES];
        let (read, written) = tokio::join!(read, near.write(&bytes));
        written.unwrap();
        assert_eq!(read.unwrap(), BYTES);
        let packets = BYTES / PACKET_MAX_BYTES;
        run::eventually(|| path().sent_packets > packets as u64).await;
        let path = path();
        let udp = path.udp.unwrap();
        assert!(
            path.sent_packets >= PACKETS_PER_SEND * udp.sends,
            "{path:?}"
        );
    });
}

#[test]
fn credit_that_the_path_lost_is_asked_for() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::new().await;
        let (mut near, mut far) = dialled.stream().await;
        let sent = write_until_stopped(&mut near).await;
        dialled.proxy.cut();
        // What is told of it gets lost, and datagrams are not sent again.
        let read = far.read(sent / 4 * 3).await.unwrap().len();
        let waits = timeout(Duration::from_millis(300), near.flush()).await;
        assert!(waits.is_err(), "nothing passes");
        dialled.proxy.heal();
        let rest = far.with(move |stream| Box::pin(count(stream, sent - read)));
        let (rest, flushed) = tokio::join!(rest, near.flush());
        flushed.unwrap();
        assert_eq!(rest.unwrap(), sent - read);
    });
}

#[test]
fn credit_does_not_wait_behind_the_datagrams_of_users() {
    run::to_its_end(|| async {
        const DATAGRAMS: usize = 2_000;
        let mut dialled = Dialled::new().await;
        let (mut near, mut far) = dialled.stream().await;
        let here = near.datagrams().unwrap();
        let there = far.with(|stream| Box::pin(async { stream.datagrams() }));
        let there = there.await.unwrap();
        let sent = write_until_stopped(&mut near).await;
        dialled.proxy.cut();
        // As many as are kept wait for the path.
        for _ in 0..DATAGRAMS {
            assert_ne!(there.try_send(b"", &[1; 1_000]), Sent::Ended);
        }
        far.read(sent / 4 * 3).await.unwrap();
        dialled.proxy.heal();
        near.flush().await.unwrap();
        let came = std::iter::from_fn(|| here.take().now_or_never().flatten());
        let before = came.count();
        assert!(before < DATAGRAMS / 10, "{before} came before the credit");
        // They come then.
        assert_eq!(here.take().await.unwrap().len(), 1_000);
    });
}

#[test]
fn credit_throws_no_datagram_away_that_nobody_counts() {
    run::to_its_end(|| async {
        const DATAGRAMS: usize = 2_000;
        const READ_BYTES: usize = 255 << 10;
        let mut dialled = Dialled::new().await;
        let (mut near, mut far) = dialled.stream().await;
        let here = near.datagrams().unwrap();
        let there = far.with(|stream| Box::pin(async { stream.datagrams() }));
        let there = there.await.unwrap();
        far.write(&vec![1; READ_BYTES + (4 << 10)]).await.unwrap();
        near.read(READ_BYTES).await.unwrap();
        let mut half = near.split().0;
        half.fill().await.unwrap();
        // Nothing leaves meanwhile: there is one worker.
        for _ in 0..DATAGRAMS {
            assert_eq!(here.try_send(b"", b"d"), Sent::Queued { evicted: 0 });
        }
        // With that half a window is read, and credit is told.
        take(&mut half, usize::MAX, |_| {}).unwrap();
        let all = async {
            for _ in 0..DATAGRAMS {
                there.take().await.unwrap();
            }
        };
        timeout(Duration::from_secs(5), all).await.unwrap();
    });
}

#[test]
fn who_waits_for_credit_learns_of_a_reset() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::new().await;
        let (mut near, mut far) = dialled.stream().await;
        write_until_stopped(&mut near).await;
        far.end().await.unwrap();
        assert_eq!(near.read_to_end().await.unwrap(), b"");
        let (reset, flushed) = tokio::join!(far.reset(Failure::EndpointReset), near.flush());
        let () = reset;
        let error = flushed.unwrap_err();
        assert_eq!(error.failure(), Failure::EndpointReset, "{error}");
    });
}

#[test]
fn who_waits_for_credit_learns_that_the_connection_is_over() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::new().await;
        let (mut near, _far) = dialled.stream().await;
        write_until_stopped(&mut near).await;
        dialled.far.close();
        assert!(near.flush().await.is_err());
    });
}

#[test]
fn a_gateway_with_too_many_connections_is_told_so_and_comes_back_when_there_are_fewer() {
    run::to_its_end(|| async {
        /// The first one and further ones.
        const PLACES: u32 = 1 + FURTHER_CONNECTIONS_MAX;
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let transport = |own: &Cluster, peer: &Cluster| {
            let settings = settings(own, &[peer], &clock, QuicTimeouts::default());
            Arc::new(QuicTransport::new(settings, Sink::new().0))
        };
        let acceptor = transport(&b, &a);
        let target = b.target(listen(&acceptor, Ipv4Addr::LOCALHOST.into()));
        // One gateway that makes ever more connections: no two transports know of each other's.
        let dialers: Vec<_> = (0..PLACES).map(|_| transport(&a, &b)).collect();
        for dialer in &dialers {
            dialer.dial(&target).await.unwrap();
        }
        let late = transport(&a, &b);
        let error = late.dial(&target).await.err().unwrap();
        assert_eq!(error.failure(), Failure::TooManyConnections, "{error}");
        assert_eq!(acceptor.handshakes().refused, 1);
        let connections = || acceptor.links()[0].stats().connections;
        assert_eq!(connections(), PLACES);
        dialers[1].close();
        dialers[1].ended().await;
        run::eventually(|| connections() < PLACES).await;
        while late.dial(&target).await.is_err() {}
        assert_eq!(connections(), PLACES);
    });
}
