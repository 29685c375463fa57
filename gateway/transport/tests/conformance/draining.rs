//! A side that wants to stop loses no stream.

use std::sync::Arc;

use corinth_api::StreamReply;
use corinth_transport::{Link, LinkState, OpenError, StreamError};

use crate::{
    pair::{Between, Carrier, Gateway, header, settled},
    talk::Talk,
};

/// How often streams are opened just as the other side drains.
const RACES: usize = 200;

pub(crate) async fn a_draining_gateway_is_seen_by_its_peers<C: Carrier>() {
    let pair = C::pair(Between::Nothing).await;
    let (near, _far) = pair.dial().await;
    (pair.b.drain)();
    settled(&near, LinkState::Draining).await;

    let pair = C::pair(Between::Nothing).await;
    let (_near, far) = pair.dial().await;
    (pair.a.drain)();
    settled(&far, LinkState::Draining).await;
}

pub(crate) async fn a_drained_link_is_seen_at_its_other_side<C: Carrier>() {
    let pair = C::pair(Between::Nothing).await;
    let (near, far) = pair.dial().await;
    far.drain();
    settled(&near, LinkState::Draining).await;
}

pub(crate) async fn open_streams_outlive_a_drain<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    (pair.b.drain)();
    settled(&link, LinkState::Draining).await;
    near.write(b"still").await.unwrap();
    near.end().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"still");
    far.write(b"here").await.unwrap();
    far.end().await.unwrap();
    assert_eq!(near.read_to_end().await.unwrap(), b"here");
}

pub(crate) async fn no_stream_of_the_dialer_is_lost_in_a_race_with_draining<C: Carrier>() {
    for race in 0..RACES {
        let mut pair = C::pair(Between::Nothing).await;
        let (link, _) = pair.dial().await;
        // Whoever drains still takes what comes, so that none of these may fail.
        converse(&link, &mut pair.b, race).await.unwrap().unwrap();
    }
}

pub(crate) async fn no_stream_of_the_acceptor_is_lost_in_a_race_with_draining<C: Carrier>() {
    for race in 0..RACES {
        let mut pair = C::pair(Between::Nothing).await;
        let (_, link) = pair.dial().await;
        // Once the dialer has stopped, no connection may be left; but a stream that opened is served.
        if let Ok(served) = converse(&link, &mut pair.a, race).await {
            served.unwrap();
        }
    }
}

/// Opens a stream over `link` while its other side drains, and uses it to its end.
async fn converse(
    link: &Arc<dyn Link>,
    server: &mut Gateway,
    race: usize,
) -> Result<Result<(), StreamError>, OpenError> {
    let Gateway {
        drain, incoming, ..
    } = server;
    let served = async {
        let Some(mut far) = incoming.recv().await else {
            return;
        };
        // An error here is one at the opener as well.
        let _ = far.answer(StreamReply::Accepted).await;
        if let Ok(read) = far.read_to_end().await {
            assert_eq!(read, b"ping");
            let _ = far.write(b"pong").await;
            let _ = far.end().await;
        }
    };
    let opened = async {
        later(race % 5).await;
        let mut near = link.open(&header()).await?;
        later(race / 5 % 5).await;
        let talk = async {
            near.write(b"ping").await?;
            near.end().await?;
            assert_eq!(near.reply().await?, StreamReply::Accepted);
            assert_eq!(near.read_to_end().await?, b"pong");
            Ok(())
        };
        Ok(talk.await)
    };
    let drained = async {
        later(race / 25 % 8).await;
        drain();
    };
    let both = async { tokio::join!(opened, drained).0 };
    tokio::pin!(both);
    tokio::select! {
        result = &mut both => result,
        () = served => both.await,
    }
}

/// Lets everything else happen this many times first.
async fn later(turns: usize) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}
