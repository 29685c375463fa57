//! The verbs of a conversation, the same for the side that opened a stream and the side that serves it.

use std::io::{self, IoSlice, IoSliceMut};

use corinth_api::StreamReply;
use corinth_transport::{BoxFuture, Fill, ReadHalf, Stream, StreamError, WriteHalf};

/// One side of a stream.
pub(crate) trait Talk {
    /// Does something with the stream itself.
    async fn with<T: Send + 'static>(
        &mut self,
        job: impl for<'a> FnOnce(&'a mut Stream) -> BoxFuture<'a, T> + Send + 'static,
    ) -> T;

    /// Flushes what is queued: for an opener, at least its header.
    async fn flush(&mut self) -> Result<(), StreamError> {
        self.with(|stream| Box::pin(async { stream.split().1.flush().await }))
            .await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let bytes = bytes.to_vec();
        self.with(|stream| Box::pin(async move { write(&mut stream.split().1, &bytes).await }))
            .await
    }

    /// Half-closes.
    async fn end(&mut self) -> Result<(), StreamError> {
        self.with(|stream| {
            Box::pin(async {
                let mut half = stream.split().1;
                half.put_end()?;
                half.flush().await
            })
        })
        .await
    }

    async fn answer(&mut self, reply: StreamReply) -> Result<(), StreamError> {
        self.with(move |stream| {
            Box::pin(async move {
                let mut half = stream.split().1;
                half.put_reply(&reply)?;
                half.flush().await
            })
        })
        .await
    }

    async fn reply(&mut self) -> Result<StreamReply, StreamError> {
        self.with(|stream| Box::pin(async { stream.split().0.reply().await }))
            .await
    }

    /// Exactly this many bytes; fewer only if the stream ends before.
    async fn read(&mut self, bytes: usize) -> Result<Vec<u8>, StreamError> {
        self.with(move |stream| Box::pin(async move { read(&mut stream.split().0, bytes).await }))
            .await
    }

    async fn read_to_end(&mut self) -> Result<Vec<u8>, StreamError> {
        self.read(usize::MAX).await
    }
}

impl Talk for Stream {
    async fn with<T: Send + 'static>(
        &mut self,
        job: impl for<'a> FnOnce(&'a mut Self) -> BoxFuture<'a, T> + Send + 'static,
    ) -> T {
        job(self).await
    }
}

pub(crate) async fn write(half: &mut WriteHalf<'_>, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        let put = put(half, bytes)?;
        bytes = &bytes[put..];
        half.flush().await?;
    }
    Ok(())
}

/// Queues as much of `bytes` as there is room for.
pub(crate) fn put(half: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<usize> {
    half.lend(bytes.len(), |room| Ok(copy_into(room, bytes)))
}

fn copy_into(room: &mut [IoSliceMut<'_>], bytes: &[u8]) -> usize {
    let mut left = bytes;
    for piece in room {
        let count = piece.len().min(left.len());
        piece[..count].copy_from_slice(&left[..count]);
        left = &left[count..];
    }
    bytes.len() - left.len()
}

pub(crate) async fn read(half: &mut ReadHalf<'_>, bytes: usize) -> Result<Vec<u8>, StreamError> {
    let mut read = Vec::new();
    while read.len() < bytes {
        match half.fill().await? {
            Fill::Data => take(half, bytes - read.len(), |piece| {
                read.extend_from_slice(piece)
            })?,
            Fill::End => break,
        };
    }
    Ok(read)
}

/// Takes at most `bytes` of what is lent, piece by piece.
pub(crate) fn take(
    half: &mut ReadHalf<'_>,
    bytes: usize,
    mut each: impl FnMut(&[u8]),
) -> io::Result<usize> {
    half.lend(|pieces: &[IoSlice<'_>]| {
        let mut taken = 0;
        for piece in pieces {
            let count = piece.len().min(bytes - taken);
            each(&piece[..count]);
            taken += count;
        }
        Ok(taken)
    })
}
