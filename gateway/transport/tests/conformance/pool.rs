//! Connections are kept, shared and counted.

use std::sync::Arc;

use corinth_api::StreamReply;
use corinth_transport::{Link, Stream};

use crate::{
    pair::{Between, Carrier, Incoming, Pair, header},
    run,
    talk::Talk,
};

pub(crate) async fn a_connection_is_used_for_one_stream_after_the_other<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    end(pair.stream(&link).await).await;
    run::eventually(|| link.stats().streams == 0 && link.stats().idle >= 1).await;
    let stats = link.stats();
    end(pair.stream(&link).await).await;
    // From here on there are enough.
    run::eventually(|| link.stats().streams == 0 && link.stats().idle >= stats.idle).await;
    let dialled = link.stats().dialled;
    for _ in 0..50 {
        end(pair.stream(&link).await).await;
    }
    assert!(
        link.stats().dialled <= dialled + 1,
        "{:?} after {stats:?}",
        link.stats()
    );
    assert_eq!(link.stats().opened, 52);
}

pub(crate) async fn a_spare_is_kept_warm<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, far_link) = pair.dial().await;
    run::eventually(|| link.stats().idle >= 1).await;
    run::eventually(|| far_link.stats().idle >= 1).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(pair.stream(&link).await);
        run::eventually(|| link.stats().idle >= 1).await;
        let mut back = far_link.open(&header()).await.unwrap();
        back.flush().await.unwrap();
        held.push((back, pair.a.next().await));
        run::eventually(|| far_link.stats().idle >= 1).await;
    }
}

pub(crate) async fn the_pool_grows_with_demand_and_is_used_again<C: Carrier>() {
    const STREAMS: usize = 20;
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let first = all_at_once(&mut pair, &link, STREAMS).await;
    assert_eq!(link.stats().streams as usize, STREAMS);
    for stream in first {
        end(stream).await;
    }
    run::eventually(|| link.stats().streams == 0).await;
    let dialled = link.stats().dialled;
    for stream in all_at_once(&mut pair, &link, STREAMS).await {
        end(stream).await;
    }
    // One more may have been under way as a spare.
    assert!(
        link.stats().dialled <= dialled + 1,
        "{:?}, {dialled} before",
        link.stats()
    );
}

pub(crate) async fn a_burst_of_streams_is_served<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, far_link) = pair.dial().await;
    let streams = all_at_once(&mut pair, &link, 150).await;
    assert_eq!(streams.len(), 150);
    drop(streams);
    run::eventually(|| link.stats().streams == 0).await;
    // The side that cannot dial has its bursts too.
    let mut opened = futures_util::future::join_all((0..20).map(|_| open(&far_link))).await;
    for _ in &opened {
        pair.a
            .next()
            .await
            .answer(StreamReply::Accepted)
            .await
            .unwrap();
    }
    assert_eq!(opened.len(), 20);
    opened.clear();
}

pub(crate) async fn streams_are_counted<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, far_link) = pair.dial().await;
    let streams = all_at_once(&mut pair, &link, 3).await;
    let (near, far) = (link.stats(), far_link.stats());
    assert_eq!((near.streams, near.opened, near.accepted), (3, 3, 0));
    assert_eq!((far.streams, far.opened, far.accepted), (3, 0, 3));
    assert!(near.connections >= 1 && far.connections >= 1);
    assert!(near.rtt.is_some());
    run::eventually(|| link.stats().announced_slots == 1).await;
    for stream in streams {
        end(stream).await;
    }
    run::eventually(|| link.stats().streams == 0 && far_link.stats().streams == 0).await;
}

async fn open(link: &Arc<dyn Link>) -> Stream {
    let mut stream = link.open(&header()).await.expect("the link is up");
    stream.flush().await.expect("the path is there");
    stream
}

/// Streams opened together and accepted.
async fn all_at_once<C: Carrier>(
    pair: &mut Pair<C>,
    link: &Arc<dyn Link>,
    count: usize,
) -> Vec<(Stream, Incoming)> {
    let opened = futures_util::future::join_all((0..count).map(|number| async move {
        let mut stream = open(link).await;
        stream.write(&number.to_be_bytes()).await.unwrap();
        stream
    }));
    let mut near: Vec<Option<Stream>> = opened.await.into_iter().map(Some).collect();
    let mut pairs = Vec::new();
    for _ in 0..count {
        let mut far = pair.b.next().await;
        let number = far.read(size_of::<usize>()).await.unwrap();
        let number = usize::from_be_bytes(number.try_into().unwrap());
        far.answer(StreamReply::Accepted).await.unwrap();
        let mut near = near[number].take().expect("each stream arrives once");
        assert_eq!(near.reply().await.unwrap(), StreamReply::Accepted);
        pairs.push((near, far));
    }
    pairs
}

/// Ends a stream well in both directions.
async fn end((mut near, mut far): (Stream, Incoming)) {
    near.end().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"");
    far.end().await.unwrap();
    assert_eq!(near.read_to_end().await.unwrap(), b"");
}
