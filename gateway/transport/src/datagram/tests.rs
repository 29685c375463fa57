use std::{future::poll_fn, sync::Arc};

use super::*;

async fn take(inbox: &Inbox) -> Option<Bytes> {
    poll_fn(|context| inbox.poll_take(context)).await
}

#[tokio::test]
async fn who_does_not_take_loses_the_oldest_and_it_is_counted() {
    let inbox = Inbox::default();
    let room = KEPT_MAX_BYTES / (1_000 + PLACE_BYTES);
    for number in 0..room + 3 {
        let mut datagram = vec![0; 1_000];
        datagram[..8].copy_from_slice(&(number as u64).to_be_bytes());
        inbox.put(datagram.into());
    }
    assert_eq!(inbox.take_dropped(), 3);
    assert_eq!(inbox.take_dropped(), 0, "each is told once");
    let first = take(&inbox).await.unwrap();
    assert_eq!(first[..8], 3_u64.to_be_bytes());
}

#[tokio::test]
async fn many_streams_of_one_connection_keep_only_so_much_together() {
    let together = Arc::<AtomicUsize>::default();
    let inboxes: Vec<_> = (0..8).map(|_| Inbox::of_many(&together)).collect();
    for inbox in &inboxes {
        for _ in 0..700 {
            inbox.put(vec![0; 1_200].into());
        }
    }
    assert!(together.load(Relaxed) <= KEPT_TOGETHER_MAX_BYTES);
    let dropped: u64 = inboxes.iter().map(Inbox::take_dropped).sum();
    let kept: usize = inboxes
        .iter()
        .map(|inbox| inbox.kept.lock().datagrams.len())
        .sum();
    assert_eq!(kept as u64 + dropped, 8 * 700);
    assert!(dropped > 0);
    let first = inboxes.first().unwrap();
    assert!(take(first).await.is_some());
    drop(inboxes);
    assert_eq!(together.load(Relaxed), 0);
}

#[tokio::test]
async fn empty_datagrams_are_bounded_too() {
    let inbox = Inbox::default();
    for _ in 0..2 * KEPT_MAX_BYTES / PLACE_BYTES {
        inbox.put(Bytes::new());
    }
    assert!(inbox.kept.lock().datagrams.len() <= KEPT_MAX_BYTES / PLACE_BYTES);
}

#[tokio::test]
async fn what_came_before_the_end_can_be_taken() {
    let inbox = Inbox::default();
    inbox.put(Bytes::from_static(b"last"));
    inbox.end();
    inbox.put(Bytes::from_static(b"late"));
    assert_eq!(take(&inbox).await, Some(Bytes::from_static(b"last")));
    assert_eq!(take(&inbox).await, None);
}

#[tokio::test]
async fn who_waits_is_woken_by_a_datagram_and_by_the_end() {
    let inbox = Arc::new(Inbox::default());
    let waiting = tokio::spawn({
        let inbox = Arc::clone(&inbox);
        async move { (take(&inbox).await, take(&inbox).await) }
    });
    tokio::task::yield_now().await;
    inbox.put(Bytes::from_static(b"one"));
    tokio::task::yield_now().await;
    inbox.end();
    let taken = waiting.await.unwrap();
    assert_eq!(taken, (Some(Bytes::from_static(b"one")), None));
}
