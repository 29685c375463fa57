//! One stream on a QUIC connection.
//!
//! What arrives is lent where quinn put it. What is sent is filled into a buffer of the worker and copied into quinn when
//! it is flushed: the buffer goes back at once, however long the peer takes to acknowledge, and the copy is small beside
//! the sealing and sending of packets.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io::{self, IoSlice, IoSliceMut},
    ops::Range,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use corinth_api::{HEADER_MAX_BYTES, HeaderError, StreamOpen, StreamReply};
use corinth_model::{Failure, GatewayId};
use quinn::{RecvStream, SendStream};

use super::{
    code::{code_of, read_failed, write_failed},
    datagram::QuicDatagrams,
    link::QuicLink,
    tunnel::Tunnel,
};
use crate::{
    Expiry, Fill, StreamError,
    buffer::{Buffer, SLICES_MAX, Size, reserve},
    direction::{Received, Sent},
};

/// In front of a header and of a reply: how long it is.
const LENGTH_BYTES: usize = size_of::<u16>();
/// Pieces taken from quinn at once; each is what one packet carried.
const PIECES_MAX: usize = 32;

/// One stream on a QUIC connection.
pub(crate) struct QuicStream {
    reader: Reader,
    writer: Writer,
    received: Received,
    sent: Sent,
    place: Place,
}

/// Counts a stream where it is open, as long as it is.
pub(super) struct Place {
    tunnel: Arc<Tunnel>,
    link: Arc<QuicLink>,
}

impl Place {
    pub(super) fn on(tunnel: &Arc<Tunnel>, link: &Arc<QuicLink>) -> Self {
        tunnel.streams.send_modify(|open| *open += 1);
        link.streams.fetch_add(1, Relaxed);
        Self {
            tunnel: Arc::clone(tunnel),
            link: Arc::clone(link),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.streams.fetch_sub(1, Relaxed);
        self.tunnel.streams.send_modify(|open| *open -= 1);
    }
}

impl QuicStream {
    pub(super) fn new(send: SendStream, recv: RecvStream, place: Place) -> Self {
        Self {
            reader: Reader {
                recv,
                pieces: VecDeque::new(),
            },
            writer: Writer {
                send: Some(send),
                buffer: None,
                pending: 0..0,
                ends: false,
            },
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
        let message = self.reader.message().await?;
        Ok(StreamOpen::decode(&message))
    }

    /// Answers that the stream goes no further, and reads no more of it.
    pub(super) async fn refuse(&mut self, reply: &StreamReply, failure: Failure) {
        let (_, mut write) = self.split();
        if write.put_reply(reply).is_ok()
            && write.put_end().is_ok()
            && poll_fn(|context| write.poll_flush(context)).await.is_ok()
            && self.reader.stop(failure)
        {
            self.received = Received::Ended;
        }
    }

    /// The datagrams beside it.
    pub(crate) fn datagrams(&self) -> QuicDatagrams {
        QuicDatagrams::beside(self.reader.recv.id(), &self.place.tunnel)
    }

    /// When the certificates of its connection expire.
    pub(crate) fn expiry(&self) -> Expiry {
        Expiry {
            retire_at: self.place.tunnel.retire_at,
            not_after: self.place.tunnel.not_after,
        }
    }

    pub(crate) fn split(&mut self) -> (QuicReadHalf<'_>, QuicWriteHalf<'_>) {
        (
            QuicReadHalf {
                reader: &mut self.reader,
                received: &mut self.received,
            },
            QuicWriteHalf {
                writer: &mut self.writer,
                sent: &mut self.sent,
            },
        )
    }

    pub(crate) fn reset(&mut self, failure: Failure) {
        if self.sent != Sent::Broken || self.received != Received::Broken {
            // What has ended already cannot be reset, and need not be.
            let _ = self.writer.send().reset(code_of(failure));
            self.reader.stop(failure);
        }
        self.writer.release();
        self.reader.pieces = VecDeque::new();
        self.sent = Sent::Broken;
        self.received = Received::Broken;
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        let is_sent = self.sent == Sent::Ended && self.writer.is_flushed();
        if !is_sent || self.received != Received::Ended {
            self.reset(Failure::PeerReset);
        } else if self.writer.send().finish().is_ok() {
            // It has ended: only who wants no more of it is told so twice.
            let _ = self.writer.send().reset(code_of(Failure::PeerReset));
        }
        if let Some(send) = self.writer.send.take() {
            self.place.tunnel.farewells.add(send);
        }
    }
}

/// The receiving side: what was taken from quinn and not yet lent away.
struct Reader {
    recv: RecvStream,
    pieces: VecDeque<Bytes>,
}

impl Reader {
    /// Takes what has arrived, behind what is there; `false` at the end.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, StreamError>> {
        // Not held while it waits: a stream that waits is to be small.
        let mut room = [const { Bytes::new() }; PIECES_MAX];
        let polled = pin!(self.recv.read_chunks(&mut room)).poll(context);
        let taken = ready!(polled).map_err(read_failed)?;
        self.pieces
            .extend(room.into_iter().take(taken.unwrap_or(0)));
        Poll::Ready(Ok(taken.is_some()))
    }

    /// Waits for one message with its length in front. Cancel-safe.
    async fn message(&mut self) -> Result<Vec<u8>, StreamError> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(message);
            }
            if !poll_fn(|context| self.poll_more(context)).await? {
                return Err(StreamError::Protocol(
                    "a stream that ends before its first message does",
                ));
            }
        }
    }

    fn take_message(&mut self) -> Result<Option<Vec<u8>>, StreamError> {
        let mut first = self.pieces.iter().flatten().copied();
        let (Some(high), Some(low)) = (first.next(), first.next()) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > HEADER_MAX_BYTES {
            return Err(StreamError::Protocol("a message longer than is allowed"));
        }
        let held: usize = self.pieces.iter().map(Bytes::len).sum();
        if held < LENGTH_BYTES + length {
            return Ok(None);
        }
        let message = self.pieces.iter().flatten().skip(LENGTH_BYTES);
        let message = message.take(length).copied().collect();
        self.advance(LENGTH_BYTES + length);
        Ok(Some(message))
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let taken = bytes.min(piece.len());
            piece.advance(taken);
            bytes -= taken;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.pieces = VecDeque::new();
    }

    /// `true` unless the stream was over already.
    fn stop(&mut self, failure: Failure) -> bool {
        self.recv.stop(code_of(failure)).is_ok()
    }
}

/// The sending side: what is queued and not yet quinn's.
struct Writer {
    /// Taken when the stream is dropped.
    send: Option<SendStream>,
    /// Held only between the first byte queued and the last byte sent.
    buffer: Option<Buffer>,
    pending: Range<usize>,
    /// The end is queued behind what is pending.
    ends: bool,
}

impl Writer {
    fn send(&mut self) -> &mut SendStream {
        self.send.as_mut().expect("it is taken by drop alone")
    }

    fn put_message(&mut self, message: &[u8]) {
        let length = (message.len() as u16).to_be_bytes();
        let bytes = length.len() + message.len();
        let start = reserve(&mut self.buffer, &mut self.pending, bytes);
        if let Some(buffer) = &mut self.buffer {
            let (front, back) = buffer[start..start + bytes].split_at_mut(length.len());
            front.copy_from_slice(&length);
            back.copy_from_slice(message);
            self.pending.end = start + bytes;
        }
    }

    fn lend(
        &mut self,
        want_bytes: usize,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let end = self.pending.end;
        let buffer = self
            .buffer
            .get_or_insert_with(|| Buffer::take(Size::holding(want_bytes)));
        let room = &mut buffer[end..];
        if room.is_empty() {
            return Ok(0);
        }
        let filled = fill(&mut [IoSliceMut::new(room)]);
        if let Ok(filled) = filled {
            self.pending.end += filled;
        }
        if self.pending.is_empty() {
            self.release();
        }
        filled
    }

    /// Hands everything queued to quinn, which takes as much as the peer's window allows.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while !self.pending.is_empty() {
            let (Some(buffer), Some(send)) = (&self.buffer, &mut self.send) else {
                break;
            };
            let bytes = &buffer[self.pending.clone()];
            let written = ready!(Pin::new(send).poll_write(context, bytes));
            self.pending.start += written.map_err(write_failed)?;
        }
        self.release();
        if std::mem::take(&mut self.ends) {
            self.send().finish().map_err(|_| StreamError::Cut)?;
        }
        Poll::Ready(Ok(()))
    }

    fn is_flushed(&self) -> bool {
        self.pending.is_empty() && !self.ends
    }

    fn release(&mut self) {
        self.buffer = None;
        self.pending = 0..0;
    }
}

/// The direction from the peer.
pub(crate) struct QuicReadHalf<'a> {
    reader: &'a mut Reader,
    received: &'a mut Received,
}

impl QuicReadHalf<'_> {
    pub(crate) async fn reply(&mut self) -> Result<StreamReply, StreamError> {
        if *self.received != Received::Open {
            return Err(StreamError::Cut);
        }
        match self.reader.message().await {
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
        if !self.reader.pieces.is_empty() {
            return Poll::Ready(Ok(Fill::Data));
        }
        Poll::Ready(match ready!(self.reader.poll_more(context)) {
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

    pub(crate) fn lend(
        &mut self,
        take: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.reader.pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let taken = take(&slices[..count])?;
        self.reader.advance(taken);
        Ok(taken)
    }
}

/// The direction to the peer.
pub(crate) struct QuicWriteHalf<'a> {
    writer: &'a mut Writer,
    sent: &'a mut Sent,
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
        self.writer.ends = true;
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
        let flushed = ready!(self.writer.poll_flush(context));
        if flushed.is_err() {
            *self.sent = Sent::Broken;
        }
        Poll::Ready(flushed)
    }
}
