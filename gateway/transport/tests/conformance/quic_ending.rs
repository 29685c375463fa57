//! What the end of a QUIC connection leaves of what was sent before it, and says to those whose streams it cuts.

use corinth_model::Failure;
use corinth_transport::LinkState;

use crate::{
    pair::{Between, Carrier, settled},
    quic::{Dialled, Quic},
    run,
    talk::Talk,
};

/// More than a new path takes at once, less than the first credit of a stream.
const BYTES: usize = 400 << 10;
/// Often enough for a race to show.
const ROUNDS: usize = 20;

#[test]
fn what_was_written_before_its_link_closed_arrives() {
    run::to_its_end(|| async {
        for is_dialers in [true, false] {
            let mut pair = Quic::<false>::pair(Between::Nothing).await;
            let (link, far_link) = pair.dial().await;
            let (mut near, mut far) = pair.stream(&link).await;
            let read = if is_dialers {
                far.end().await.unwrap();
                assert_eq!(near.read_to_end().await.unwrap(), b"");
                near.write(&vec![7; BYTES]).await.unwrap();
                near.end().await.unwrap();
                drop(near);
                link.close();
                far.read_to_end().await
            } else {
                near.end().await.unwrap();
                assert_eq!(far.read_to_end().await.unwrap(), b"");
                far.write(&vec![7; BYTES]).await.unwrap();
                far.end().await.unwrap();
                drop(far);
                far_link.close();
                near.read_to_end().await
            };
            assert!(read.unwrap() == vec![7; BYTES]);
        }
    });
}

#[test]
fn a_reset_arrives_before_the_end_of_its_connection() {
    run::to_its_end(|| async {
        for _ in 0..ROUNDS {
            let mut pair = Quic::<false>::pair(Between::Nothing).await;
            let (link, _) = pair.dial().await;
            let (mut near, mut far) = pair.stream(&link).await;
            near.reset(Failure::DrainLimit);
            drop(near);
            link.close();
            let error = far.read_to_end().await.unwrap_err();
            assert_eq!(error.failure(), Failure::DrainLimit);
        }
    });
}

#[test]
fn streams_that_a_closing_gateway_cuts_end_with_its_reason_at_the_peer() {
    run::to_its_end(|| async {
        for is_dialers in [true, false] {
            let mut dialled = Dialled::new().await;
            let (mut near, mut far) = dialled.stream().await;
            // Nobody resets them: what cuts them is the end of the connection.
            let (closing, read) = if is_dialers {
                dialled.near.close_for(Failure::DrainLimit);
                (&dialled.near, far.read_to_end().await)
            } else {
                dialled.far.close_for(Failure::DrainLimit);
                (&dialled.far, near.read_to_end().await)
            };
            assert_eq!(read.unwrap_err().failure(), Failure::DrainLimit);
            closing.ended().await;
        }
    });
}

#[test]
fn who_neither_reads_nor_writes_learns_why_a_closing_gateway_cuts_its_stream() {
    run::to_its_end(|| async {
        let mut dialled = Dialled::new().await;
        let (mut near, mut far) = dialled.stream().await;
        far.write(b"unread").await.unwrap();
        dialled.far.close_for(Failure::DrainLimit);
        let told = near.with(|stream| Box::pin(async { stream.split().0.cut().await }));
        assert_eq!(told.await.failure(), Failure::DrainLimit);
        // What has arrived is there all the same.
        assert_eq!(near.read(6).await.unwrap(), b"unread");
    });
}

#[test]
fn a_connection_that_ends_without_a_reason_cuts_its_streams() {
    run::to_its_end(|| async {
        let mut pair = Quic::<false>::pair(Between::Nothing).await;
        let (link, far_link) = pair.dial().await;
        let (_near, mut far) = pair.stream(&link).await;
        link.close();
        let error = far.read_to_end().await.unwrap_err();
        assert_eq!(error.failure(), Failure::TunnelCut);
        settled(&far_link, LinkState::Dead).await;
    });
}
