//! The receiving side of a stream: what arrives is lent where quinn put it, and the peer told how far it may go on.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use corinth_api::HEADER_MAX_BYTES;
use corinth_model::Failure;
use quinn::{RecvStream, StreamId};
use tokio::time::Instant;

use super::place::Place;
use crate::{
    StreamError,
    quic::{
        code::{code_of, read_failed},
        credit::{self, Grants},
        window::Returned,
    },
};

/// In front of a header and of a reply: how long it is.
const LENGTH_BYTES: usize = size_of::<u16>();
/// Pieces taken from quinn and lent at once; each is what one packet carried. Whoever writes them to a socket wakes its
/// reader with each call, so there should be few calls; and what is taken counts no more for the window.
pub(super) const PIECES_MAX: usize = 64;

/// The receiving side: what was taken from quinn and not yet lent away.
pub(super) struct Reader {
    recv: RecvStream,
    pieces: VecDeque<Bytes>,
    grants: Grants,
    returned: Returned,
}

impl Reader {
    pub(super) fn of(recv: RecvStream) -> Self {
        Self {
            recv,
            pieces: VecDeque::new(),
            grants: Grants::new(),
            returned: Returned::default(),
        }
    }

    pub(super) fn id(&self) -> StreamId {
        self.recv.id()
    }

    /// Nothing is lent, and something may come.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// What may be lent now, in pieces.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &piece[..])
    }

    /// Takes what has arrived, behind what is there; `false` at the end.
    pub(super) fn poll_more(
        &mut self,
        place: &Place,
        context: &mut Context<'_>,
    ) -> Poll<Result<bool, StreamError>> {
        // Not held while it waits: a stream that waits is to be small.
        let mut room = [const { Bytes::new() }; PIECES_MAX];
        // Once, as a reset is told once.
        let polled = pin!(self.recv.read_chunks(&mut room)).poll(context);
        let taken = ready!(polled).map_err(read_failed)?;
        let before = self.pieces.len();
        self.pieces
            .extend(room.into_iter().take(taken.unwrap_or(0)));
        let bytes: usize = self.pieces.iter().skip(before).map(Bytes::len).sum();
        // QUIC counts what it hands out, whoever takes it from here.
        place
            .tunnel
            .handle_read(self.returned.handle_read(bytes as u64));
        Poll::Ready(Ok(taken.is_some()))
    }

    /// Waits for one message with its length in front. Cancel-safe.
    pub(super) async fn message(&mut self, place: &Place) -> Result<Vec<u8>, StreamError> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(message);
            }
            if !poll_fn(|context| self.poll_more(place, context)).await? {
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
        self.grants.handle_message((LENGTH_BYTES + length) as u64);
        Ok(Some(message))
    }

    /// So many bytes of what was lent were taken.
    pub(super) fn take(&mut self, place: &Place, bytes: usize) {
        self.advance(bytes);
        self.grant(place, bytes);
    }

    /// Forgets what has arrived.
    pub(super) fn release(&mut self) {
        self.pieces = VecDeque::new();
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

    /// Tells the peer, where it is time to, how far it may send now that so many bytes were taken.
    fn grant(&mut self, place: &Place, taken: usize) {
        let most = place.tunnel.stream_max_bytes();
        let granted = self
            .grants
            .handle_read(taken as u64, place.rtt(), most, Instant::now());
        if let Some(granted) = granted {
            let (stream, credit) = place.credit(self.recv.id());
            credit::grant(&place.tunnel.waiting, *stream, credit, granted);
        }
    }

    /// Wants no more of the stream, for this reason.
    pub(super) fn stop(&mut self, place: &Place, failure: Failure) {
        place.tunnel.handle_read(self.discard());
        // What is over already need not be stopped.
        let _ = self.recv.stop(code_of(failure));
    }

    /// Throws away what has arrived, in any order: quinn would do so too, and not say how much it was. Returns for how many
    /// bytes the window is given back when the stream is stopped.
    fn discard(&mut self) -> u64 {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(Some(chunk))) =
            pin!(self.recv.read_chunk(usize::MAX, false)).poll(&mut context)
        {
            self.returned
                .handle_unread(chunk.offset, chunk.bytes.len() as u64);
        }
        self.returned.handle_stop()
    }
}
