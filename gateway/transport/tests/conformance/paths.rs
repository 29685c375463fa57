//! A path that fails is noticed in time, and left.

use std::time::{Duration, Instant};

use corinth_transport::{LinkState, OpenError};

use crate::{
    pair::{Between, Carrier, header, settled},
    talk::Talk,
};

pub(crate) async fn a_black_path_is_dead_within_a_second<C: Carrier>() {
    let pair = C::pair(Between::Faults).await;
    let (near, far) = pair.dial().await;
    let began = Instant::now();
    pair.carrier.cut();
    settled(&near, LinkState::Dead).await;
    settled(&far, LinkState::Dead).await;
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "after {:?}",
        began.elapsed()
    );
}

pub(crate) async fn opening_on_a_dead_path_fails_at_once<C: Carrier>() {
    let pair = C::pair(Between::Faults).await;
    let (near, far) = pair.dial().await;
    pair.carrier.cut();
    settled(&near, LinkState::Dead).await;
    settled(&far, LinkState::Dead).await;
    let began = Instant::now();
    for link in [&near, &far] {
        for _ in 0..10 {
            assert!(matches!(
                link.open(&header()).await,
                Err(OpenError::PathDead)
            ));
        }
    }
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "after {:?}",
        began.elapsed()
    );
}

pub(crate) async fn who_waits_for_a_stream_is_told_when_the_path_dies<C: Carrier>() {
    let pair = C::pair(Between::Faults).await;
    let (near, far) = pair.dial().await;
    pair.carrier.cut();
    near.suspect();
    let began = Instant::now();
    let mut opened = Vec::new();
    // Warm connections are given away, although nothing passes; after them there is nothing to wait for.
    for link in [&near, &far] {
        loop {
            match link.open(&header()).await {
                Ok(stream) => opened.push(stream),
                Err(error) => {
                    assert_eq!(error, OpenError::PathDead);
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "after {:?}",
        began.elapsed()
    );
}

pub(crate) async fn a_short_blackout_loses_nothing<C: Carrier>() {
    let mut pair = C::pair(Between::Faults).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    pair.carrier.cut();
    near.write(b"there").await.unwrap();
    far.write(b"back").await.unwrap();
    near.end().await.unwrap();
    // Longer than between two probes, shorter than four of them.
    tokio::time::sleep(Duration::from_millis(100)).await;
    pair.carrier.heal();
    assert_eq!(far.read_to_end().await.unwrap(), b"there");
    assert_eq!(near.read(4).await.unwrap(), b"back");
    assert_eq!(*link.state().borrow(), LinkState::Up);
}

pub(crate) async fn a_dead_link_comes_back_by_dialling<C: Carrier>() {
    let mut pair = C::pair(Between::Faults).await;
    let (link, far_link) = pair.dial().await;
    pair.carrier.cut();
    settled(&link, LinkState::Dead).await;
    settled(&far_link, LinkState::Dead).await;
    pair.carrier.heal();
    let (again, _) = pair.dial().await;
    assert!(std::sync::Arc::ptr_eq(&link, &again));
    works_both_ways(&mut pair).await;
}

pub(crate) async fn a_cut_link_comes_back_by_dialling<C: Carrier>() {
    let mut pair = C::pair(Between::Faults).await;
    for _ in 0..3 {
        let (link, far_link) = pair.dial().await;
        works_both_ways(&mut pair).await;
        pair.carrier.sever();
        settled(&link, LinkState::Dead).await;
        settled(&far_link, LinkState::Dead).await;
    }
}

async fn works_both_ways<C: Carrier>(pair: &mut crate::pair::Pair<C>) {
    let (link, far_link) = (pair.a.link().await, pair.b.link().await);
    let (mut near, mut far) = pair.stream(&link).await;
    near.write(b"there").await.unwrap();
    assert_eq!(far.read(5).await.unwrap(), b"there");
    let mut back = far_link.open(&header()).await.unwrap();
    back.write(b"back").await.unwrap();
    assert_eq!(pair.a.next().await.read(4).await.unwrap(), b"back");
}
