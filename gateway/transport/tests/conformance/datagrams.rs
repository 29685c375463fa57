//! Datagrams beside streams, where a transport has them.

use corinth_transport::{Datagrams, Sent};
use tokio::task::yield_now;

use crate::{
    pair::{Between, Carrier, Pair},
    talk::Talk,
};

/// The datagrams of both sides of one stream, which stays open as long as the rest is held.
async fn beside<C: Carrier>(pair: &mut Pair<C>) -> (Datagrams, Datagrams, impl Sized + use<C>) {
    let links = pair.dial().await;
    let (near, mut far) = pair.stream(&links.0).await;
    let here = near.datagrams().expect("the transport has datagrams");
    let there = far
        .with(|stream| Box::pin(async { stream.datagrams() }))
        .await;
    (
        here,
        there.expect("both sides have them"),
        (near, far, links),
    )
}

/// What one side takes of what the other sends until something comes: datagrams may be lost.
async fn passed(from: &Datagrams, head: &[u8], body: &[u8], to: &Datagrams) -> Vec<u8> {
    loop {
        assert_eq!(from.try_send(head, body), Sent::Queued { evicted: 0 });
        let soon = tokio::time::timeout(std::time::Duration::from_millis(200), to.take());
        if let Ok(taken) = soon.await {
            return taken.expect("the connection is there").to_vec();
        }
    }
}

pub(crate) async fn a_datagram_arrives_whole_in_either_direction<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (here, there, _open) = beside(&mut pair).await;
    assert_eq!(passed(&here, b"he", b"llo", &there).await, b"hello");
    assert_eq!(passed(&there, b"", b"answer", &here).await, b"answer");
    assert_eq!(passed(&there, b"", b"", &here).await, b"");
}

pub(crate) async fn the_largest_datagram_is_carried_and_a_larger_one_said_to_be_too_large<
    C: Carrier,
>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (here, there, _open) = beside(&mut pair).await;
    assert!(here.max_bytes() >= 1_100, "{}", here.max_bytes());
    let largest = vec![7; here.max_bytes()];
    assert_eq!(passed(&here, b"", &largest, &there).await, largest);
    let larger = vec![7; 65_000];
    assert_eq!(here.try_send(b"x", &larger), Sent::TooLarge);
}

pub(crate) async fn datagrams_of_two_streams_are_not_mixed_up<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (here, there, _open) = beside(&mut pair).await;
    let link = pair.b.link().await;
    let mut other_near = link.open(&crate::pair::header()).await.unwrap();
    other_near.flush().await.unwrap();
    let mut other_far = pair.a.next().await;
    let other_here = other_near.datagrams().unwrap();
    let other_there = other_far
        .with(|stream| Box::pin(async { stream.datagrams() }))
        .await
        .unwrap();
    assert_eq!(
        passed(&other_here, b"", b"other", &other_there).await,
        b"other"
    );
    assert_eq!(passed(&here, b"", b"one", &there).await, b"one");
}

pub(crate) async fn what_nobody_asked_for_is_lost_and_harms_nobody<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (near, _) = pair.dial().await;
    let (stream, mut far) = pair.stream(&near).await;
    let here = stream.datagrams().unwrap();
    for _ in 0..100 {
        assert_ne!(here.try_send(b"", b"early"), Sent::Ended);
        yield_now().await;
    }
    far.write(b"still here").await.unwrap();
    let mut stream = stream;
    assert_eq!(stream.read(10).await.unwrap(), b"still here");
}

pub(crate) async fn who_waits_for_a_datagram_is_told_when_the_link_closes<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (here, there, open) = beside(&mut pair).await;
    let link = pair.b.link().await;
    link.close();
    assert_eq!(there.take().await, None);
    assert_eq!(here.take().await, None);
    drop(open);
}

pub(crate) async fn a_stream_over_tls_has_none<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (near, mut far) = pair.stream(&link).await;
    assert!(near.datagrams().is_none());
    let has_some = far.with(|stream| Box::pin(async { stream.datagrams().is_some() }));
    assert!(!has_some.await);
}

/// Without certificates there is nothing to expire; with them both sides know when.
pub(crate) async fn a_stream_knows_when_its_certificates_expire<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (near, mut far) = pair.stream(&link).await;
    let there = far.with(|stream| Box::pin(async { stream.expiry() })).await;
    let here = near.expiry();
    assert!(here.retire_at <= here.not_after);
    assert_eq!(here.not_after, there.not_after);
    assert!(here.not_after > 0);
}
