//! How a link is made and a stream begins.

use std::{net::SocketAddr, thread};

use corinth_api::StreamReply;
use corinth_model::{Failure, Refusal};
use corinth_transport::{DialError, DialTarget, LinkState, StreamError};
use futures_util::FutureExt;
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    pair::{A, B, Between, Carrier, STRANGER, gateway, header, settled, trust_domain},
    run,
    talk::Talk,
};

pub(crate) async fn the_dialer_opens_a_stream<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let mut near = link.open(&header()).await.unwrap();
    near.write(b"ping").await.unwrap();
    let mut far = pair.b.next().await;
    assert_eq!(far.read(4).await.unwrap(), b"ping");
    far.answer(StreamReply::Accepted).await.unwrap();
    far.write(b"pong").await.unwrap();
    assert_eq!(near.reply().await.unwrap(), StreamReply::Accepted);
    assert_eq!(near.read(4).await.unwrap(), b"pong");
}

pub(crate) async fn the_acceptor_opens_a_stream_although_it_cannot_dial<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (_, link) = pair.dial().await;
    for _ in 0..5 {
        let mut opener = link.open(&header()).await.unwrap();
        opener.write(b"ping").await.unwrap();
        let mut server = pair.a.next().await;
        assert_eq!(server.read(4).await.unwrap(), b"ping");
        server.answer(StreamReply::Accepted).await.unwrap();
        server.write(b"pong").await.unwrap();
        assert_eq!(opener.reply().await.unwrap(), StreamReply::Accepted);
        assert_eq!(opener.read(4).await.unwrap(), b"pong");
    }
}

pub(crate) async fn the_header_arrives_as_it_was_sent<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (near, far) = pair.dial().await;
    let mut from_dialer = near.open(&header()).await.unwrap();
    from_dialer.flush().await.unwrap();
    assert_eq!(pair.b.next().await.header, header());
    let mut from_acceptor = far.open(&header()).await.unwrap();
    from_acceptor.flush().await.unwrap();
    assert_eq!(pair.a.next().await.header, header());
}

pub(crate) async fn the_peer_is_who_its_handshake_proved<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (near, far) = pair.dial().await;
    assert_eq!((near.peer(), far.peer()), (&gateway(B), &gateway(A)));
    assert_eq!(near.kind(), pair.a.transport.kind());
    let (stream, mut incoming) = pair.stream(&near).await;
    assert_eq!(stream.peer(), &gateway(B));
    assert_eq!(stream.transport(), near.kind());
    assert_eq!(incoming.link.peer(), &gateway(A));
    let seen = incoming
        .with(|stream| Box::pin(async { stream.peer().clone() }))
        .await;
    assert_eq!(seen, gateway(A));
}

pub(crate) async fn dialling_again_gives_the_same_link<C: Carrier>() {
    let pair = C::pair(Between::Nothing).await;
    let (first, _) = pair.dial().await;
    let (again, _) = pair.dial().await;
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    assert_eq!((pair.a.links)().len(), 1);
    assert_eq!((pair.b.links)().len(), 1);
}

pub(crate) async fn nobody_at_an_address_is_an_error<C: Carrier>() {
    let pair = C::pair(Between::Nothing).await;
    let target = DialTarget {
        address: vacant().await,
        trust_domain: trust_domain(B),
    };
    let error = pair
        .a
        .transport
        .dial(&target)
        .await
        .err()
        .expect("nobody is there");
    assert!(matches!(error, DialError::Connect { address, .. } if address == target.address));
    assert_eq!(error.failure(), Failure::PeerUnreachable);
    assert!((pair.a.links)().is_empty());
}

/// A loopback address at which nobody listens any more.
async fn vacant() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

pub(crate) async fn another_trust_domain_at_an_address_is_refused<C: Carrier>() {
    let pair = C::pair(Between::Nothing).await;
    let target = DialTarget {
        trust_domain: trust_domain(STRANGER),
        ..pair.carrier.target()
    };
    let error = pair
        .a
        .transport
        .dial(&target)
        .await
        .err()
        .expect("b is not a stranger");
    let DialError::Handshake { failure, .. } = error else {
        panic!("it is the handshake that fails, not {error}");
    };
    assert_eq!(failure, Failure::WrongPeer);
    assert!((pair.a.links)().is_empty());
    // The right one at the same address is not affected.
    let (link, _) = pair.dial().await;
    assert_eq!(*link.state().borrow(), LinkState::Up);
}

pub(crate) async fn a_stream_is_accepted<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    for _ in 0..3 {
        let (mut near, mut far) = pair.stream(&link).await;
        near.end().await.unwrap();
        far.end().await.unwrap();
        assert_eq!(near.read_to_end().await.unwrap(), b"");
        assert_eq!(far.read_to_end().await.unwrap(), b"");
    }
}

pub(crate) async fn a_stream_is_refused_with_its_reason<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let refused = Refusal::ALL.iter().copied().map(StreamReply::Refused);
    let failed = Failure::ALL.iter().copied().map(StreamReply::Failed);
    for reply in refused.chain(failed) {
        let mut near = link.open(&header()).await.unwrap();
        near.write(b"sent on a guess").await.unwrap();
        let mut far = pair.b.next().await;
        far.answer(reply).await.unwrap();
        far.end().await.unwrap();
        assert_eq!(near.reply().await.unwrap(), reply);
        assert_eq!(near.read_to_end().await.unwrap(), b"");
        near.end().await.unwrap();
        assert_eq!(far.read_to_end().await.unwrap(), b"sent on a guess");
    }
}

pub(crate) async fn a_refusal_reaches_who_has_sent_all_it_had<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let reply = StreamReply::Refused(Refusal::OverLimit);
    for sent in [&b""[..], b"a whole question"] {
        let mut near = link.open(&header()).await.unwrap();
        near.write(sent).await.unwrap();
        near.end().await.unwrap();
        // Who refuses need not read what was sent on a guess.
        let mut far = pair.b.next().await;
        let far_link = std::sync::Arc::clone(&far.link);
        far.answer(reply).await.unwrap();
        far.end().await.unwrap();
        drop(far);
        run::eventually(|| far_link.stats().streams == 0).await;
        assert_eq!(near.reply().await.unwrap(), reply);
        assert_eq!(near.read_to_end().await.unwrap(), b"");
    }
}

pub(crate) async fn bytes_go_ahead_of_the_reply<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let early = vec![7; 60_000];
    let mut near = link.open(&header()).await.unwrap();
    near.write(&early).await.unwrap();
    near.end().await.unwrap();
    let mut far = pair.b.next().await;
    assert_eq!(far.read_to_end().await.unwrap(), early);
    far.answer(StreamReply::Accepted).await.unwrap();
    far.write(b"done").await.unwrap();
    far.end().await.unwrap();
    assert_eq!(near.reply().await.unwrap(), StreamReply::Accepted);
    assert_eq!(near.read_to_end().await.unwrap(), b"done");
}

pub(crate) async fn the_far_side_may_speak_first<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let mut near = link.open(&header()).await.unwrap();
    near.flush().await.unwrap();
    let mut far = pair.b.next().await;
    far.with(|stream| {
        Box::pin(async {
            // Reply, bytes and end leave together.
            let mut half = stream.split().1;
            half.put_reply(&StreamReply::Accepted)?;
            assert_eq!(crate::talk::put(&mut half, b"220 ready")?, 9);
            half.put_end()?;
            half.flush().await?;
            Ok::<_, StreamError>(())
        })
    })
    .await
    .unwrap();
    assert_eq!(near.reply().await.unwrap(), StreamReply::Accepted);
    assert_eq!(near.read_to_end().await.unwrap(), b"220 ready");
    near.write(b"quit").await.unwrap();
    near.end().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"quit");
}

pub(crate) async fn nothing_is_sent_before_the_first_flush<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let mut held = link.open(&header()).await.unwrap();
    // A later stream overtakes it.
    let (_near, _far) = pair.stream(&link).await;
    assert!(pair.b.incoming.try_recv().is_err());
    held.write(b"now").await.unwrap();
    assert_eq!(pair.b.next().await.read(3).await.unwrap(), b"now");
}

pub(crate) async fn giving_up_on_an_open_loses_nothing<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, far_link) = pair.dial().await;
    let header = header();
    for _ in 0..100 {
        // Whatever they yield is dropped at once.
        let _ = link.open(&header).now_or_never();
        let _ = far_link.open(&header).now_or_never();
        tokio::task::yield_now().await;
    }
    // Some were opened before they were given up; whoever sees one sees it reset.
    run::eventually(|| {
        let (_, _) = (pair.a.incoming.try_recv(), pair.b.incoming.try_recv());
        link.stats().streams == 0 && far_link.stats().streams == 0
    })
    .await;
    assert_eq!(*link.state().borrow(), LinkState::Up);
    for _ in 0..10 {
        let (mut near, mut far) = pair.stream(&link).await;
        near.write(b"still here").await.unwrap();
        assert_eq!(far.read(10).await.unwrap(), b"still here");
    }
}

pub(crate) async fn streams_open_from_any_worker<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    for round in 0..6 {
        let (sender, done) = oneshot::channel();
        let on_worker = std::sync::Arc::clone(&link);
        let conversation = async move {
            let mut near = on_worker.open(&header()).await.unwrap();
            near.write(b"ping").await.unwrap();
            near.end().await.unwrap();
            assert_eq!(near.reply().await.unwrap(), StreamReply::Accepted);
            assert_eq!(near.read_to_end().await.unwrap(), b"pong");
            drop(near);
            let _ = sender.send(());
        };
        if round % 2 == 0 {
            thread::spawn(move || run::worker().block_on(conversation));
        } else {
            tokio::spawn(conversation);
        }
        let mut far = pair.b.next().await;
        far.answer(StreamReply::Accepted).await.unwrap();
        assert_eq!(far.read_to_end().await.unwrap(), b"ping");
        far.write(b"pong").await.unwrap();
        far.end().await.unwrap();
        done.await.expect("the worker does not panic");
    }
    settled(&link, LinkState::Up).await;
}
