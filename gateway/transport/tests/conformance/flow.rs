//! Bytes arrive as they were sent, no faster than they are read.

use std::{io, time::Duration};

use corinth_transport::{Fill, Stream, StreamError};
use futures_util::FutureExt;
use tokio::{task::yield_now, time::timeout};

use crate::{
    pair::{Between, Carrier},
    talk::{self, Talk},
};

/// A flush that takes longer than this waits for the reader.
const STOPPED: Duration = Duration::from_millis(300);

pub(crate) async fn a_reader_that_stops_stops_the_writer_and_releases_it<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    let sent = write_until_stopped(&mut near).await;
    assert!(sent <= C::BUFFERED_MAX_BYTES, "{sent} bytes are somewhere");
    let read = far.with(move |stream| Box::pin(count(stream, sent)));
    let (read, flushed) = tokio::join!(read, near.flush());
    flushed.unwrap();
    assert_eq!(read.unwrap(), sent);
    near.end().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"");
}

/// Writes to nobody until it comes to a stop. Returns how many bytes were queued by then.
pub(crate) async fn write_until_stopped(stream: &mut Stream) -> usize {
    let chunk = vec![0; 64 << 10];
    let (_, mut half) = stream.split();
    let mut sent = 0;
    loop {
        sent += talk::put(&mut half, &chunk).unwrap();
        match timeout(STOPPED, half.flush()).await {
            Ok(flushed) => flushed.unwrap(),
            Err(_) => return sent,
        }
        assert!(sent <= 1 << 30, "nothing stops the writer");
    }
}

/// Reads this many bytes without keeping them; fewer only if the stream ends before.
pub(crate) async fn count(stream: &mut Stream, bytes: usize) -> Result<usize, StreamError> {
    let (mut half, _) = stream.split();
    let mut read = 0;
    while read < bytes && half.fill().await? == Fill::Data {
        read += talk::take(&mut half, bytes - read, |_| {})?;
    }
    Ok(read)
}

pub(crate) async fn a_stalled_stream_stalls_no_other<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut stalled, mut unread) = pair.stream(&link).await;
    let (mut near, mut far) = pair.stream(&link).await;
    let sent = write_until_stopped(&mut stalled).await;
    for _ in 0..100 {
        near.write(&[1; 10_000]).await.unwrap();
        assert_eq!(far.read(10_000).await.unwrap(), [1; 10_000]);
        far.write(&[2; 10_000]).await.unwrap();
        assert_eq!(near.read(10_000).await.unwrap(), [2; 10_000]);
    }
    // New ones as well.
    let (mut near, mut far) = pair.stream(&link).await;
    near.write(b"hello").await.unwrap();
    assert_eq!(far.read(5).await.unwrap(), b"hello");
    let read = unread.with(move |stream| Box::pin(count(stream, sent)));
    let (read, flushed) = tokio::join!(read, stalled.flush());
    flushed.unwrap();
    assert_eq!(read.unwrap(), sent);
}

pub(crate) async fn everything_arrives_intact_both_ways<C: Carrier>() {
    let is_in_memory = C::BUFFERED_MAX_BYTES < 1 << 20;
    let bytes: u64 = if cfg!(debug_assertions) || is_in_memory {
        64 << 20
    } else {
        1 << 30
    };
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    let back =
        far.with(move |stream| Box::pin(exchange(stream, Pattern::new(2), Pattern::new(1), bytes)));
    let there = exchange(&mut near, Pattern::new(1), Pattern::new(2), bytes);
    let (there, back) = tokio::join!(there, back);
    there.unwrap();
    back.unwrap();
}

/// Bytes without end that look random and do not repeat in step with any buffer.
struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// A prime.
    const PERIOD: usize = 1_048_573;
    const CHUNK_MAX: usize = 300_000;

    fn new(seed: u64) -> Self {
        let mut bytes = vec![0; Self::PERIOD];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        bytes.extend_from_within(..Self::CHUNK_MAX);
        Self { bytes }
    }

    /// The bytes from `position` on, as many as are at hand and at most `most`.
    fn from(&self, position: u64, most: u64) -> &[u8] {
        let at = (position % Self::PERIOD as u64) as usize;
        &self.bytes[at..][..Self::CHUNK_MAX.min(most as usize)]
    }

    /// The first position from `position` on at which `found` differs.
    fn difference(&self, position: u64, found: &[u8]) -> Option<u64> {
        let mut at = position;
        for piece in found.chunks(Self::CHUNK_MAX) {
            let expected = self.from(at, piece.len() as u64);
            if expected != piece {
                let same = expected
                    .iter()
                    .zip(piece)
                    .take_while(|(left, right)| left == right);
                return Some(at + same.count() as u64);
            }
            at += piece.len() as u64;
        }
        None
    }
}

/// Sends and receives this many bytes at the same time, and an end.
async fn exchange(
    stream: &mut Stream,
    sends: Pattern,
    expects: Pattern,
    bytes: u64,
) -> Result<(), StreamError> {
    let (mut read, mut write) = stream.split();
    let sent = async {
        let mut at = 0;
        while at < bytes {
            at += talk::put(&mut write, sends.from(at, bytes - at))? as u64;
            write.flush().await?;
        }
        write.put_end()?;
        write.flush().await
    };
    let received = async {
        let mut at = 0;
        while read.fill().await? == Fill::Data {
            talk::take(&mut read, usize::MAX, |piece| {
                assert_eq!(
                    expects.difference(at, piece),
                    None,
                    "the first byte that is wrong"
                );
                at += piece.len() as u64;
            })?;
        }
        assert_eq!(at, bytes);
        Ok(())
    };
    tokio::try_join!(sent, received).map(|_| ())
}

pub(crate) async fn every_size_of_write_arrives<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    let around = |edge: usize| edge - 2..edge + 3;
    let edges = [4_096, 16_344, 16_376, 16_384, 20_480, 32_752, 65_536]
        .into_iter()
        .flat_map(around);
    for size in (1..40).chain(edges).chain([200_000, 300_000]) {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
        let (wrote, read) = tokio::join!(near.write(&bytes), far.read(size));
        wrote.unwrap();
        assert!(read.unwrap() == bytes, "{size} bytes to the acceptor");
        let (wrote, read) = tokio::join!(far.write(&bytes), near.read(size));
        wrote.unwrap();
        assert!(read.unwrap() == bytes, "{size} bytes to the opener");
    }
}

pub(crate) async fn giving_up_on_fill_and_flush_loses_nothing<C: Carrier>() {
    const BYTES: u64 = 8 << 20;
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    let received = far.with(|stream| {
        Box::pin(async move {
            let (mut half, _) = stream.split();
            let (expects, mut at) = (Pattern::new(3), 0);
            loop {
                let fill = half.fill().now_or_never();
                match fill {
                    None => yield_now().await,
                    Some(Ok(Fill::End)) => return at,
                    Some(fill) => {
                        fill.unwrap();
                        talk::take(&mut half, 5_000, |piece| {
                            assert_eq!(expects.difference(at, piece), None);
                            at += piece.len() as u64;
                        })
                        .unwrap();
                    }
                }
            }
        })
    });
    let sent = async {
        let (_, mut half) = near.split();
        let (sends, mut at) = (Pattern::new(3), 0);
        while at < BYTES {
            at += talk::put(&mut half, sends.from(at, BYTES - at)).unwrap() as u64;
            match half.flush().now_or_never() {
                None => yield_now().await,
                Some(flushed) => flushed.unwrap(),
            }
        }
        half.put_end().unwrap();
        while half.flush().now_or_never().is_none() {
            yield_now().await;
        }
    };
    let (received, ()) = tokio::join!(received, sent);
    assert_eq!(received, BYTES);
}

pub(crate) async fn what_is_lent_may_be_taken_in_part<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 241) as u8).collect();
    let sent = bytes.clone();
    let writing = async {
        near.write(&sent).await.unwrap();
        near.end().await.unwrap();
    };
    let reading = far.with(|stream| {
        Box::pin(async {
            let (mut half, _) = stream.split();
            let mut read = Vec::new();
            let mut most = 0;
            while half.fill().await.unwrap() == Fill::Data {
                // Also nothing at all, now and then.
                talk::take(&mut half, most, |piece| read.extend_from_slice(piece)).unwrap();
                most = (most + 977) % 20_000;
            }
            read
        })
    });
    let ((), read) = tokio::join!(writing, reading);
    assert!(read == bytes);
}

pub(crate) async fn a_failed_loan_leaves_everything_as_it_was<C: Carrier>() {
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    {
        let (_, mut half) = near.split();
        talk::put(&mut half, b"one, ").unwrap();
        let failed = half.lend(100, |room| {
            room[0][..4].copy_from_slice(b"junk");
            Err(io::ErrorKind::WouldBlock.into())
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(half.lend(100, |_| Ok(0)).unwrap(), 0);
        talk::put(&mut half, b"two").unwrap();
        half.flush().await.unwrap();
    }
    far.with(|stream| {
        Box::pin(async {
            let (mut half, _) = stream.split();
            assert_eq!(half.fill().await.unwrap(), Fill::Data);
            let failed = half.lend(|_| Err(io::ErrorKind::WouldBlock.into()));
            assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        })
    })
    .await;
    assert_eq!(far.read(8).await.unwrap(), b"one, two");
}

pub(crate) async fn a_stream_can_be_echoed_through_its_own_halves<C: Carrier>() {
    const BYTES: u64 = 2 << 20;
    let mut pair = C::pair(Between::Nothing).await;
    let (link, _) = pair.dial().await;
    let (mut near, mut far) = pair.stream(&link).await;
    let echo = far.with(|stream| {
        Box::pin(async {
            let (mut read, mut write) = stream.split();
            while read.fill().await? == Fill::Data {
                // Room is borrowed while bytes are: neither may lock the other out.
                read.lend(|pieces| {
                    pieces
                        .first()
                        .map_or(Ok(0), |piece| talk::put(&mut write, piece))
                })?;
                write.flush().await?;
            }
            write.put_end()?;
            write.flush().await
        })
    });
    let same = exchange(&mut near, Pattern::new(5), Pattern::new(5), BYTES);
    let (echo, same) = tokio::join!(echo, same);
    echo.unwrap();
    same.unwrap();
}
