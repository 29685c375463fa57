//! What a QUIC connection holds that nobody reads, and what that does to everything else on it.

use std::time::Duration;

use corinth_transport::LinkState;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::{
    flow::write_until_stopped,
    pair::{Between, Carrier, settled},
    quic::{Dialled, Quic},
    run,
    talk::Talk,
};

/// Their windows are more than a connection is given at first.
const UNREAD: usize = 12;
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
