//! What strangers can cost.

use corinth_api::link::LINK_MESSAGE_MAX_BYTES;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::super::inviter::{ATTEMPT_MAX, BEGUN_MAX_PER_SECOND, UNDER_WAY_MAX};
use super::between::{handshake, said};
use super::*;

const PIPE_BYTES: usize = 16 * 1024;

#[tokio::test(start_paused = true)]
async fn nobody_is_listened_to_while_no_token_is_open() {
    let east = Side::new("east").await;
    let (mut ours, theirs) = duplex(PIPE_BYTES);
    ours.write_all(b"\x16\x03\x01").await.unwrap();
    let outcome = east.inviter.serve(theirs, "somebody").await;
    assert!(matches!(outcome, Err(InviteError::Closed)), "{outcome:?}");
    assert_eq!(
        ours.read(&mut [0; 1]).await.unwrap(),
        0,
        "closed without a word"
    );
}

#[tokio::test(start_paused = true)]
async fn silent_stranger_is_gone_after_five_seconds() {
    let east = Side::new("east").await;
    let token = east.invite(1);
    // Before TLS, and after it.
    for is_established in [false, true] {
        let (ours, theirs) = duplex(PIPE_BYTES);
        let begun = Instant::now();
        let serving = serve(&east, theirs);
        let stranger = async {
            if is_established {
                return Stranger::Tls(Box::new(handshake(ours, &token).await));
            }
            Stranger::Plain(ours)
        };
        let stranger = stranger.await;
        let outcome = serving.await.expect("no panic");
        assert!(matches!(outcome, Err(InviteError::Slow)), "{outcome:?}");
        assert_eq!(begun.elapsed().as_secs(), ATTEMPT_MAX.as_secs());
        drop(stranger);
    }
}

#[tokio::test(start_paused = true)]
async fn slow_message_does_not_buy_more_time() {
    let east = Side::new("east").await;
    let token = east.invite(1);
    let (ours, theirs) = duplex(PIPE_BYTES);
    let begun = Instant::now();
    let serving = serve(&east, theirs);
    let mut stream = handshake(ours, &token).await;
    let dripping = async {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        stream.write_u16(100).await.unwrap();
        loop {
            every.tick().await;
            // It fails when the other side has gone.
            if stream.write_u8(1).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = dripping => panic!("the inviter ends first"),
        outcome = serving => {
            let outcome = outcome.expect("no panic");
            assert!(matches!(outcome, Err(InviteError::Slow)), "{outcome:?}");
        }
    }
    assert_eq!(begun.elapsed().as_secs(), ATTEMPT_MAX.as_secs());
}

#[tokio::test(start_paused = true)]
async fn ten_are_under_way_at_most() {
    let east = Side::new("east").await;
    let _token = east.invite(1);
    let (silent, serving): (Vec<_>, Vec<_>) = (0..UNDER_WAY_MAX)
        .map(|_| {
            let (ours, theirs) = duplex(PIPE_BYTES);
            (ours, serve(&east, theirs))
        })
        .unzip();
    // Each of them has begun once the runtime has been round.
    tokio::task::yield_now().await;
    let (_ours, theirs) = duplex(PIPE_BYTES);
    let outcome = east.inviter.serve(theirs, "somebody").await;
    assert!(matches!(outcome, Err(InviteError::TooMany)), "{outcome:?}");
    for one in serving {
        let outcome = one.await.expect("no panic");
        assert!(matches!(outcome, Err(InviteError::Slow)), "{outcome:?}");
    }
    drop(silent);
}

#[tokio::test(start_paused = true)]
async fn twenty_are_begun_in_a_second_at_most() {
    let east = Side::new("east").await;
    let _token = east.invite(1);
    let guess = async || {
        let (ours, theirs) = duplex(PIPE_BYTES);
        drop(ours);
        east.inviter.serve(theirs, "somebody").await
    };
    for _ in 0..2 {
        for _ in 0..BEGUN_MAX_PER_SECOND {
            let outcome = guess().await;
            assert!(matches!(outcome, Err(InviteError::Io(_))), "{outcome:?}");
        }
        for _ in 0..1_000 {
            let outcome = guess().await;
            assert!(matches!(outcome, Err(InviteError::TooMany)), "{outcome:?}");
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn oversized_truncated_and_malformed_messages_end_the_attempt() {
    let east = Side::new("east").await;
    let token = east.invite(1);
    let oversized = u16::try_from(LINK_MESSAGE_MAX_BYTES + 1).unwrap();
    let cases: [(&str, Vec<u8>); 4] = [
        ("oversized", oversized.to_be_bytes().to_vec()),
        ("truncated", vec![0, 10, 1, 2, 3]),
        ("nothing", Vec::new()),
        ("malformed", vec![0, 3, 0xff, 0xff, 0xff]),
    ];
    for (name, bytes) in cases {
        let (ours, theirs) = duplex(PIPE_BYTES);
        let serving = serve(&east, theirs);
        let mut stream = handshake(ours, &token).await;
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let outcome = serving.await.expect("no panic");
        let is_expected = match name {
            "malformed" => matches!(outcome, Err(InviteError::Message(_))),
            _ => matches!(outcome, Err(InviteError::Io(_))),
        };
        assert!(is_expected, "{name}: {outcome:?}");
        let mut answer = Vec::new();
        // Nothing is said to it, however the connection ends.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{name}");
    }
    assert_eq!(east.links(), 0);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_not_tls_end_the_attempt() {
    let east = Side::new("east").await;
    let _token = east.invite(1);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], b""] {
        let (mut ours, theirs) = duplex(PIPE_BYTES);
        ours.write_all(bytes).await.unwrap();
        ours.shutdown().await.unwrap();
        let outcome = east.inviter.serve(theirs, "somebody").await;
        assert!(matches!(outcome, Err(InviteError::Io(_))), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn joiner_that_never_closes_does_not_hold_its_place() {
    let (east, west) = (Side::new("east").await, Side::new("west").await);
    let token = east.invite(1);
    let (ours, theirs) = duplex(PIPE_BYTES);
    let begun = Instant::now();
    let serving = serve(&east, theirs);
    let mut stream = handshake(ours, &token).await;
    let join = said(&stream, &token, &west.own.party);
    wire::write(&mut stream, &join.encode()).await.unwrap();
    let outcome = serving.await.expect("no panic");
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(begun.elapsed() < ATTEMPT_MAX);
    assert_eq!(east.links(), 1);
}

/// Somebody who is there and says nothing more.
enum Stranger {
    Plain(#[expect(dead_code, reason = "kept open")] DuplexStream),
    Tls(
        #[expect(dead_code, reason = "kept open")]
        Box<tokio_rustls::client::TlsStream<DuplexStream>>,
    ),
}

fn serve(side: &Side, stream: DuplexStream) -> JoinHandle<Result<Linked, InviteError>> {
    let inviter = Arc::clone(&side.inviter);
    tokio::spawn(async move { inviter.serve(stream, "somebody").await })
}
