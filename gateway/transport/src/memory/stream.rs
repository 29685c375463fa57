//! One stream in memory, as its two halves see it.

use std::{
    future::poll_fn,
    io::{self, IoSlice, IoSliceMut},
    sync::Arc,
};

use corinth_api::{StreamOpen, StreamReply};
use corinth_model::{Failure, GatewayId};

use super::{
    datagram::MemoryDatagrams,
    link::MemoryLink,
    wire::{BUFFER_BYTES, Broken, Load, Side, Wire},
};
use crate::{
    Fill, Link, StreamError,
    buffer::SLICES_MAX,
    direction::{Received, Sent},
};

/// Bytes are lent in pieces of this size, so that whoever borrows them must cope with several.
const PIECE_BYTES: usize = 16 << 10;

// What one half holds fits into what may be lent in one call.
const _: () = assert!(BUFFER_BYTES.div_ceil(PIECE_BYTES) <= SLICES_MAX);

/// One stream in memory.
pub(crate) struct MemoryStream {
    wire: Arc<Wire>,
    side: Side,
    link: Arc<MemoryLink>,
    received: Received,
    taken: Taken,
    sent: Sent,
    /// Put and not yet flushed.
    queued: Load,
}

/// Bytes taken off the wire, to be lent.
#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    consumed: usize,
}

impl Taken {
    fn left(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }
}

impl MemoryStream {
    /// A stream we opened; its header is queued.
    pub(super) fn opened(wire: Arc<Wire>, link: Arc<MemoryLink>, header: &StreamOpen) -> Self {
        let mut opening = Vec::new();
        header.encode(&mut opening);
        let queued = Load {
            opening: Some(opening),
            ..Load::default()
        };
        Self::new(wire, Side::Opener, link, queued)
    }

    /// A stream the peer opened; its header has arrived.
    pub(super) fn accepted(wire: Arc<Wire>, link: Arc<MemoryLink>) -> Self {
        Self::new(wire, Side::Acceptor, link, Load::default())
    }

    fn new(wire: Arc<Wire>, side: Side, link: Arc<MemoryLink>, queued: Load) -> Self {
        link.stream_began();
        Self {
            wire,
            side,
            link,
            received: Received::Open,
            taken: Taken::default(),
            sent: Sent::Open,
            queued,
        }
    }

    pub(crate) fn peer(&self) -> &GatewayId {
        self.link.peer()
    }

    pub(crate) fn datagrams(&self) -> MemoryDatagrams {
        MemoryDatagrams::beside(&self.wire, self.side)
    }

    pub(crate) fn split(&mut self) -> (MemoryReadHalf<'_>, MemoryWriteHalf<'_>) {
        let Self {
            wire,
            side,
            received,
            taken,
            sent,
            queued,
            ..
        } = self;
        (
            MemoryReadHalf {
                wire,
                side: *side,
                received,
                taken,
            },
            MemoryWriteHalf {
                wire,
                side: *side,
                sent,
                queued,
            },
        )
    }

    pub(crate) fn reset(&mut self, failure: Failure) {
        self.queued = Load::default();
        self.taken = Taken::default();
        self.sent = Sent::Broken;
        self.received = Received::Broken;
        self.wire.break_off(self.side, Broken::Reset(failure));
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        let is_complete =
            self.received == Received::Ended && self.sent == Sent::Ended && self.queued.is_empty();
        if !is_complete {
            self.reset(Failure::PeerReset);
        }
        self.link.stream_ended();
    }
}

/// The direction from the peer.
pub(crate) struct MemoryReadHalf<'a> {
    wire: &'a Wire,
    side: Side,
    received: &'a mut Received,
    taken: &'a mut Taken,
}

impl MemoryReadHalf<'_> {
    pub(crate) async fn reply(&mut self) -> Result<StreamReply, StreamError> {
        let reply = poll_fn(|context| self.wire.poll_reply(self.side, context)).await;
        self.note(reply)
    }

    pub(crate) async fn fill(&mut self) -> Result<Fill, StreamError> {
        match self.received {
            Received::Open => {}
            Received::Ended => return Ok(Fill::End),
            Received::Broken => return Err(StreamError::Cut),
        }
        if !self.taken.left().is_empty() {
            return Ok(Fill::Data);
        }
        self.taken.bytes.clear();
        self.taken.consumed = 0;
        let bytes = &mut self.taken.bytes;
        let fill = poll_fn(|context| self.wire.poll_fill(self.side, bytes, context)).await;
        if matches!(fill, Ok(Fill::End)) {
            *self.received = Received::Ended;
        }
        self.note(fill)
    }

    pub(crate) async fn cut(&mut self) -> StreamError {
        poll_fn(|context| self.wire.poll_cut(self.side, context)).await
    }

    pub(crate) fn lend(
        &mut self,
        take: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let left = self.taken.left();
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(left.chunks(PIECE_BYTES)) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let most = left.len();
        let bytes = take(&slices[..count])?;
        self.taken.consumed += bytes.min(most);
        Ok(bytes)
    }

    fn note<T>(&mut self, result: Result<T, StreamError>) -> Result<T, StreamError> {
        if result.is_err() {
            *self.received = Received::Broken;
        }
        result
    }
}

/// The direction to the peer.
pub(crate) struct MemoryWriteHalf<'a> {
    wire: &'a Arc<Wire>,
    side: Side,
    sent: &'a mut Sent,
    queued: &'a mut Load,
}

impl MemoryWriteHalf<'_> {
    pub(crate) fn put_reply(&mut self, reply: &StreamReply) -> Result<(), StreamError> {
        self.check_open()?;
        self.queued.reply = Some(*reply);
        Ok(())
    }

    pub(crate) fn put_end(&mut self) -> Result<(), StreamError> {
        self.check_open()?;
        self.queued.has_end = true;
        *self.sent = Sent::Ended;
        Ok(())
    }

    fn check_open(&self) -> Result<(), StreamError> {
        match self.sent {
            Sent::Open => Ok(()),
            Sent::Ended | Sent::Broken => Err(StreamError::Cut),
        }
    }

    pub(crate) fn lend(
        &mut self,
        want_bytes: usize,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.check_open()
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        let bytes = &mut self.queued.bytes;
        let used = bytes.len();
        let room = want_bytes.max(1).min(BUFFER_BYTES.saturating_sub(used));
        if room == 0 {
            return Ok(0);
        }
        bytes.resize(used + room, 0);
        let mut slices: [IoSliceMut<'_>; SLICES_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(bytes[used..].chunks_mut(PIECE_BYTES)) {
            *slice = IoSliceMut::new(piece);
            count += 1;
        }
        let filled = fill(&mut slices[..count]);
        bytes.truncate(used + *filled.as_ref().unwrap_or(&0));
        filled
    }

    pub(crate) async fn flush(&mut self) -> Result<(), StreamError> {
        if *self.sent == Sent::Broken {
            return Err(StreamError::Cut);
        }
        let flushed = poll_fn(|context| self.wire.poll_send(self.side, self.queued, context)).await;
        if flushed.is_err() {
            *self.sent = Sent::Broken;
        }
        flushed
    }
}
