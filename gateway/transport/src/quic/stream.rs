//! One stream on a QUIC connection.
//!
//! What arrives is lent where quinn put it. What is sent is filled into a buffer of the worker and copied into quinn when
//! it is flushed: the buffer goes back at once, however long the peer takes to acknowledge, and the copy is small beside
//! the sealing and sending of packets.

mod place;
mod reader;
mod writer;

use std::{
    future::poll_fn,
    io::{self, IoSlice, IoSliceMut},
    task::{Context, Poll, ready},
};

use corinth_api::{HeaderError, StreamOpen, StreamReply};
use corinth_model::{Failure, GatewayId};
use quinn::{RecvStream, SendStream};

pub(super) use self::place::Place;
use self::{
    reader::{PIECES_MAX, Reader},
    writer::Writer,
};
use super::{
    code::{code_of, lost},
    datagram::QuicDatagrams,
};
use crate::{
    Expiry, Fill, StreamError,
    direction::{Received, Sent},
};

const NO_WAY_BACK: StreamError = StreamError::Failed(
    Failure::PathDead,
    "nothing comes back on the connection of the stream",
);

/// One stream on a QUIC connection.
pub(crate) struct QuicStream {
    reader: Reader,
    writer: Writer,
    received: Received,
    sent: Sent,
    place: Place,
}

impl QuicStream {
    pub(super) fn new(send: SendStream, recv: RecvStream, place: Place) -> Self {
        Self {
            reader: Reader::of(recv),
            writer: Writer::of(send),
            received: Received::Open,
            sent: Sent::Open,
            place,
        }
    }

    pub(crate) fn peer(&self) -> &GatewayId {
        &self.place.tunnel.peer
    }

    /// Queues the header of a stream we opened.
    pub(super) fn put_open(&mut self, header: &StreamOpen) {
        let mut message = Vec::with_capacity(256);
        header.encode(&mut message);
        self.writer.put_message(&message);
    }

    /// Waits for the header of a stream the peer opened; the outer error says that none came.
    pub(super) async fn header(&mut self) -> Result<Result<StreamOpen, HeaderError>, StreamError> {
        let message = self.reader.message(&self.place).await?;
        Ok(StreamOpen::decode(&message))
    }

    /// Answers that the stream goes no further, and reads no more of it.
    pub(super) async fn refuse(&mut self, reply: &StreamReply, failure: Failure) {
        let (_, mut write) = self.split();
        if write.put_reply(reply).is_ok()
            && write.put_end().is_ok()
            && poll_fn(|context| write.poll_flush(context)).await.is_ok()
        {
            self.reader.stop(&self.place, failure);
            self.received = Received::Ended;
        }
    }

    /// The datagrams beside it.
    pub(crate) fn datagrams(&self) -> QuicDatagrams {
        QuicDatagrams::beside(self.reader.id(), &self.place.tunnel)
    }

    /// Resolves when nothing comes back on its connection any more.
    pub(crate) fn dead(&self) -> impl Future<Output = ()> + Send + 'static {
        self.place.tunnel.dead()
    }

    /// When the certificates of its connection expire.
    pub(crate) fn expiry(&self) -> Expiry {
        Expiry {
            retire_at: self.place.tunnel.term.retire_at,
            not_after: self.place.tunnel.term.not_after,
        }
    }

    pub(crate) fn split(&mut self) -> (QuicReadHalf<'_>, QuicWriteHalf<'_>) {
        (
            QuicReadHalf {
                reader: &mut self.reader,
                received: &mut self.received,
                place: &self.place,
            },
            QuicWriteHalf {
                writer: &mut self.writer,
                sent: &mut self.sent,
                place: &self.place,
            },
        )
    }

    pub(crate) fn reset(&mut self, failure: Failure) {
        if self.sent != Sent::Broken || self.received != Received::Broken {
            // What has ended already cannot be reset, and need not be.
            let _ = self.writer.send().reset(code_of(failure));
            self.reader.stop(&self.place, failure);
        }
        self.writer.release();
        self.reader.release();
        self.sent = Sent::Broken;
        self.received = Received::Broken;
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        let is_sent = self.sent == Sent::Ended && self.writer.is_flushed();
        if is_sent {
            // What was sent to its end stays whole: it may be a refusal.
            if self.received != Received::Ended {
                self.reader.stop(&self.place, Failure::PeerReset);
            }
            // It has ended: only who wants no more of it is told so twice.
            if self.writer.send().finish().is_ok() {
                let _ = self.writer.send().reset(code_of(Failure::PeerReset));
            }
        } else {
            self.reset(Failure::PeerReset);
        }
        if let Some(send) = self.writer.take() {
            self.place.tunnel.farewells.add(send);
        }
    }
}

/// The direction from the peer.
pub(crate) struct QuicReadHalf<'a> {
    reader: &'a mut Reader,
    received: &'a mut Received,
    place: &'a Place,
}

impl QuicReadHalf<'_> {
    pub(crate) async fn reply(&mut self) -> Result<StreamReply, StreamError> {
        if *self.received != Received::Open {
            return Err(StreamError::Cut);
        }
        // Who waits for an answer tries elsewhere, and does not sit a dead path out as open streams do.
        let message = tokio::select! {
            biased;
            message = self.reader.message(self.place) => message,
            () = self.place.tunnel.dead() => Err(NO_WAY_BACK),
        };
        match message {
            Ok(message) => Ok(StreamReply::decode(&message)?),
            Err(error) => {
                *self.received = Received::Broken;
                Err(error)
            }
        }
    }

    pub(crate) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Fill, StreamError>> {
        match *self.received {
            Received::Open => {}
            Received::Ended => return Poll::Ready(Ok(Fill::End)),
            Received::Broken => return Poll::Ready(Err(StreamError::Cut)),
        }
        if !self.reader.is_empty() {
            return Poll::Ready(Ok(Fill::Data));
        }
        Poll::Ready(match ready!(self.reader.poll_more(self.place, context)) {
            Ok(true) => Ok(Fill::Data),
            Ok(false) => {
                *self.received = Received::Ended;
                Ok(Fill::End)
            }
            Err(error) => {
                *self.received = Received::Broken;
                Err(error)
            }
        })
    }

    pub(crate) async fn cut(&mut self) -> StreamError {
        lost(&self.place.tunnel.quic.closed().await)
    }

    pub(crate) fn lend(
        &mut self,
        take: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(self.reader.pieces()) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let taken = take(&slices[..count])?;
        self.reader.take(self.place, taken);
        Ok(taken)
    }
}

/// The direction to the peer.
pub(crate) struct QuicWriteHalf<'a> {
    writer: &'a mut Writer,
    sent: &'a mut Sent,
    place: &'a Place,
}

impl QuicWriteHalf<'_> {
    pub(crate) fn put_reply(&mut self, reply: &StreamReply) -> Result<(), StreamError> {
        if *self.sent != Sent::Open {
            return Err(StreamError::Cut);
        }
        let mut message = Vec::new();
        reply.encode(&mut message);
        self.writer.put_message(&message);
        Ok(())
    }

    pub(crate) fn put_end(&mut self) -> Result<(), StreamError> {
        if *self.sent != Sent::Open {
            return Err(StreamError::Cut);
        }
        self.writer.put_end();
        *self.sent = Sent::Ended;
        Ok(())
    }

    pub(crate) fn lend(
        &mut self,
        want_bytes: usize,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match *self.sent {
            Sent::Open => self.writer.lend(want_bytes, fill),
            Sent::Ended | Sent::Broken => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(crate) fn poll_flush(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let flushed = ready!(self.writer.poll_flush(self.place, context));
        if flushed.is_err() {
            *self.sent = Sent::Broken;
        }
        Poll::Ready(flushed)
    }
}
