//! How a stream ends: well, or never as if well.

use std::sync::Arc;

use corinth_api::StreamReply;
use corinth_model::Failure;
use corinth_transport::{Link, LinkState, OpenError, StreamError};

use crate::{
    pair::{Between, Carrier, Pair, header, settled},
    talk::{self, Talk},
};

pub(crate) async fn the_opener_may_half_close<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    near.write(b"a question").await.unwrap();
    near.end().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"a question");
    // The end is told as often as it is asked for.
    assert_eq!(far.read_to_end().await.unwrap(), b"");
    for _ in 0..3 {
        far.write(b"an answer").await.unwrap();
        assert_eq!(near.read(9).await.unwrap(), b"an answer");
    }
    far.end().await.unwrap();
    assert_eq!(near.read_to_end().await.unwrap(), b"");
}

pub(crate) async fn the_acceptor_may_half_close<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    far.write(b"a greeting").await.unwrap();
    far.end().await.unwrap();
    assert_eq!(near.read_to_end().await.unwrap(), b"a greeting");
    for _ in 0..3 {
        near.write(b"more").await.unwrap();
        assert_eq!(far.read(4).await.unwrap(), b"more");
    }
    near.end().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"");
}

pub(crate) async fn a_stream_may_end_before_any_byte<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let mut near = link.open(&header()).await.unwrap();
    near.end().await.unwrap();
    let mut far = pair.b.next().await;
    assert_eq!(far.read_to_end().await.unwrap(), b"");
    far.answer(StreamReply::Accepted).await.unwrap();
    far.end().await.unwrap();
    assert_eq!(near.reply().await.unwrap(), StreamReply::Accepted);
    assert_eq!(near.read_to_end().await.unwrap(), b"");
}

pub(crate) async fn nothing_can_be_sent_after_the_end<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    near.end().await.unwrap();
    assert!(near.write(b"late").await.is_err());
    assert!(near.end().await.is_err());
    assert_eq!(far.read_to_end().await.unwrap(), b"");
    // The other direction does not suffer from it.
    far.write(b"fine").await.unwrap();
    assert_eq!(near.read(4).await.unwrap(), b"fine");
}

pub(crate) async fn a_reset_carries_its_reason<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    for failure in Failure::ALL.iter().copied() {
        let (mut near, mut far) = pair.stream(&link).await;
        near.reset(failure);
        assert_eq!(reason(far.read(1).await), failure);
        let (mut near, mut far) = pair.stream(&link).await;
        far.reset(failure).await;
        assert_eq!(reason(near.read(1).await), failure);
    }
    // Also in place of the reply.
    let mut near = link.open(&header()).await.unwrap();
    near.flush().await.unwrap();
    pair.b.next().await.reset(Failure::EndpointTimeout).await;
    assert!(matches!(
        near.reply().await,
        Err(StreamError::Reset(Failure::EndpointTimeout))
    ));
}

/// The reason of a stream that was reset; nothing else will do.
fn reason(read: Result<Vec<u8>, StreamError>) -> Failure {
    match read {
        Err(StreamError::Reset(failure)) => failure,
        other => panic!("expected a reset, got {other:?}"),
    }
}

pub(crate) async fn a_reset_after_bytes_is_never_an_end<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    for bytes in [1, 16_376, 16_377, 50_000] {
        let (mut near, mut far) = pair.stream(&link).await;
        near.write(&vec![1; bytes]).await.unwrap();
        near.reset(Failure::ClientReset);
        assert_eq!(reason(far.read_to_end().await), Failure::ClientReset);
        let (mut near, mut far) = pair.stream(&link).await;
        far.write(&vec![1; bytes]).await.unwrap();
        far.reset(Failure::EndpointReset).await;
        assert_eq!(reason(near.read_to_end().await), Failure::EndpointReset);
    }
}

pub(crate) async fn a_reset_after_a_half_close_reaches_the_writer<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    near.end().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"");
    near.reset(Failure::ClientReset);
    drop(near);
    // What was written may be on its way for a while, but not without end.
    while far.write(&[0; 16_384]).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn a_reset_stops_the_one_who_sent_it<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    far.write(b"unread").await.unwrap();
    near.reset(Failure::ClientReset);
    assert!(near.read(1).await.is_err());
    assert!(near.write(b"late").await.is_err());
    assert!(near.end().await.is_err());
    // Twice is not worse than once; the first reason counts.
    near.reset(Failure::IdleTimeout);
    assert_eq!(reason(far.read(1).await), Failure::ClientReset);
}

pub(crate) async fn dropping_a_stream_resets_it<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (near, mut far) = pair.stream(&link).await;
    drop(near);
    assert_eq!(reason(far.read_to_end().await), Failure::PeerReset);
    // One end is not both ends.
    let (mut near, mut far) = pair.stream(&link).await;
    far.end().await.unwrap();
    assert_eq!(near.read_to_end().await.unwrap(), b"");
    near.write(b"half a sen").await.unwrap();
    drop(near);
    assert_eq!(reason(far.read_to_end().await), Failure::PeerReset);
}

pub(crate) async fn a_sink_that_returns_early_resets_the_stream<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, far) = pair.stream(&link).await;
    drop(far);
    assert_eq!(reason(near.read_to_end().await), Failure::PeerReset);
    let mut near = link.open(&header()).await.unwrap();
    near.flush().await.unwrap();
    drop(pair.b.next().await);
    assert!(matches!(
        near.reply().await,
        Err(StreamError::Reset(Failure::PeerReset))
    ));
}

pub(crate) async fn an_end_that_was_not_flushed_never_hangs<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    near.end().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"");
    far.with(|stream| {
        Box::pin(async {
            let mut half = stream.split().1;
            talk::put(&mut half, b"bye").unwrap();
            half.put_end().unwrap();
        })
    })
    .await;
    drop(far);
    // Delivered or reset, but told.
    if let Ok(read) = near.read_to_end().await {
        assert_eq!(read, b"bye");
    }
}

pub(crate) async fn a_cut_connection_is_an_error_on_both_sides<C: Carrier>() {
    let mut pair = C::pair(Between::Faults).await;
    let (link, far_link) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    let (mut waiting, _unanswered) = {
        let mut stream = link.open(&header()).await.unwrap();
        stream.flush().await.unwrap();
        (stream, pair.b.next().await)
    };
    pair.carrier.sever();
    assert_cut(near.read_to_end().await);
    assert_cut(far.read_to_end().await);
    assert!(waiting.reply().await.is_err());
    settled(&link, LinkState::Dead).await;
    settled(&far_link, LinkState::Dead).await;
}

fn assert_cut(read: Result<Vec<u8>, StreamError>) {
    let error = read.expect_err("a stream that was cut never looks like one that ended");
    assert_eq!(error.failure(), Failure::TunnelCut);
}

pub(crate) async fn who_neither_reads_nor_writes_learns_that_its_connection_was_cut<C: Carrier>() {
    let mut pair = C::pair(Between::Faults).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    far.write(b"unread").await.unwrap();
    near.write(b"unread").await.unwrap();
    pair.carrier.sever();
    let here = near.with(|stream| Box::pin(async { stream.split().0.cut().await }));
    assert_eq!(here.await.failure(), Failure::TunnelCut);
    let there = far.with(|stream| Box::pin(async { stream.split().0.cut().await }));
    assert_eq!(there.await.failure(), Failure::TunnelCut);
}

pub(crate) async fn a_cut_connection_after_bytes_is_never_an_end<C: Carrier>() {
    for bytes in [1, 16_376, 40_000] {
        let mut pair = C::pair(Between::Faults).await;
        let (link, _) = pair.dial().await;
        let (mut near, mut far) = pair.stream(&link).await;
        near.write(&vec![1; bytes]).await.unwrap();
        far.write(&vec![2; bytes]).await.unwrap();
        // One of the two had its last word.
        near.end().await.unwrap();
        assert_eq!(far.read_to_end().await.unwrap().len(), bytes);
        pair.carrier.sever();
        assert_cut(near.read_to_end().await);
        while far.write(&[0; 16_384]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) async fn closing_a_link_ends_its_streams_on_both_sides<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, far_link) = pair.dial().await;
    close_ends_streams(&mut pair, [&link, &far_link], &link).await;
    settled(&far_link, LinkState::Dead).await;
}

pub(crate) async fn closing_the_acceptors_link_ends_its_streams_on_both_sides<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, far_link) = pair.dial().await;
    close_ends_streams(&mut pair, [&link, &far_link], &far_link).await;
    settled(&link, LinkState::Dead).await;
}

async fn close_ends_streams<C: Carrier>(
    pair: &mut Pair<C>,
    [link, far_link]: [&Arc<dyn Link>; 2],
    closed: &Arc<dyn Link>,
) {
    let (mut near, mut far) = pair.stream(link).await;
    let mut opened_back = far_link.open(&header()).await.unwrap();
    opened_back.flush().await.unwrap();
    let mut served_back = pair.a.next().await;
    closed.close();
    assert!(near.read_to_end().await.is_err());
    assert!(far.read_to_end().await.is_err());
    assert!(opened_back.reply().await.is_err());
    assert!(served_back.read_to_end().await.is_err());
    settled(closed, LinkState::Closed).await;
    assert!(matches!(
        closed.open(&header()).await,
        Err(OpenError::Closed)
    ));
}

pub(crate) async fn a_closed_link_is_replaced_by_the_next_dial<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (first, far_link) = pair.dial().await;
    first.close();
    settled(&far_link, LinkState::Dead).await;
    let (second, _) = pair.dial().await;
    assert!(!Arc::ptr_eq(&first, &second));
    let (mut near, mut far) = pair.stream(&second).await;
    near.write(b"anew").await.unwrap();
    assert_eq!(far.read(4).await.unwrap(), b"anew");
    assert_eq!(*first.state().borrow(), LinkState::Closed);
    // Closing what is closed touches nobody else.
    first.close();
    let (third, _) = pair.dial().await;
    assert!(Arc::ptr_eq(&second, &third));
}
