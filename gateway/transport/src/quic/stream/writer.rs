//! The sending side of a stream: what is filled into a buffer of the worker is copied into quinn, as far as the peer's credit
//! goes.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use quinn::SendStream;

use super::place::Place;
use crate::{
    StreamError,
    buffer::{Buffer, Size, reserve},
    quic::{code::write_failed, credit},
};

/// The sending side: what is queued and not yet quinn's.
pub(super) struct Writer {
    /// Taken when the stream is dropped.
    send: Option<SendStream>,
    /// Held only between the first byte queued and the last byte sent.
    buffer: Option<Buffer>,
    pending: Range<usize>,
    /// The end is queued behind what is pending.
    ends: bool,
    /// Bytes that quinn has taken.
    sent: u64,
    /// Asks for more credit while there is none.
    asking: Option<Pin<Box<dyn Future<Output = StreamError> + Send + Sync>>>,
}

impl Writer {
    pub(super) fn of(send: SendStream) -> Self {
        Self {
            send: Some(send),
            buffer: None,
            pending: 0..0,
            ends: false,
            sent: 0,
            asking: None,
        }
    }

    pub(super) fn send(&mut self) -> &mut SendStream {
        self.send.as_mut().expect("it is taken by drop alone")
    }

    /// What remains when the stream is dropped.
    pub(super) fn take(&mut self) -> Option<SendStream> {
        self.send.take()
    }

    /// Queues the end behind what is pending.
    pub(super) fn put_end(&mut self) {
        self.ends = true;
    }

    pub(super) fn put_message(&mut self, message: &[u8]) {
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

    pub(super) fn lend(
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
    pub(super) fn poll_flush(
        &mut self,
        place: &Place,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        while !self.pending.is_empty() {
            let most = ready!(self.poll_credit(place, context))?;
            let (Some(buffer), Some(send)) = (&self.buffer, &mut self.send) else {
                break;
            };
            let end = self.pending.end.min(self.pending.start + most);
            let bytes = &buffer[self.pending.start..end];
            let written = ready!(Pin::new(send).poll_write(context, bytes));
            let written = written.map_err(write_failed)?;
            self.pending.start += written;
            self.sent += written as u64;
        }
        self.release();
        if std::mem::take(&mut self.ends) {
            self.send().finish().map_err(|_| StreamError::Cut)?;
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes more the peer lets us send, once that is any.
    fn poll_credit(
        &mut self,
        place: &Place,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, StreamError>> {
        let pending = self.pending.len();
        // Who takes no datagrams can tell no credit, and reads as fast as QUIC's own windows say.
        let tells_credit = place.tunnel.quic.max_datagram_size().is_some();
        if !tells_credit || credit::is_unwatched(self.sent + pending as u64) {
            return Poll::Ready(Ok(pending));
        }
        let Some(send) = &self.send else {
            return Poll::Ready(Err(StreamError::Cut));
        };
        let (_, credit) = place.credit(send.id());
        if let Poll::Ready(limit) = credit.poll_limit(self.sent, context) {
            self.asking = None;
            return Poll::Ready(Ok(usize::try_from(limit - self.sent).unwrap_or(pending)));
        }
        let asking = self
            .asking
            .get_or_insert_with(|| Box::pin(credit::ask(&place.tunnel, send, self.sent)));
        let why = ready!(asking.as_mut().poll(context));
        self.asking = None;
        Poll::Ready(Err(why))
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.pending.is_empty() && !self.ends
    }

    pub(super) fn release(&mut self) {
        self.buffer = None;
        self.pending = 0..0;
        self.asking = None;
    }
}
