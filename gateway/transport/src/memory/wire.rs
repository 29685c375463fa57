//! What one stream has on its way between two gateways.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use corinth_api::StreamReply;
use corinth_model::Failure;
use parking_lot::Mutex;

use super::path::{End, Path};
use crate::{Fill, StreamError, datagram::Inbox};

/// Bytes one direction holds between the two halves, on their way and arrived together.
pub(super) const BUFFER_BYTES: usize = 64 << 10;

/// Which side of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Opener,
    Acceptor,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Opener => Self::Acceptor,
            Self::Acceptor => Self::Opener,
        }
    }
}

/// Why a stream ended other than by its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Reset(Failure),
    Cut,
}

impl From<Broken> for StreamError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Reset(failure) => Self::Reset(failure),
            Broken::Cut => Self::Cut,
        }
    }
}

/// Something sent and not yet taken. The fields are in the order in which they are taken.
#[derive(Default)]
pub(super) struct Load {
    /// The header, encoded.
    pub(super) opening: Option<Vec<u8>>,
    pub(super) reply: Option<StreamReply>,
    pub(super) bytes: Vec<u8>,
    pub(super) has_end: bool,
    pub(super) broken: Option<Broken>,
}

impl Load {
    pub(super) fn is_empty(&self) -> bool {
        self.opening.is_none()
            && self.reply.is_none()
            && self.bytes.is_empty()
            && !self.has_end
            && self.broken.is_none()
    }

    /// The front part of it with at most `room` bytes; the end goes only after the last byte.
    fn take_front(&mut self, room: usize) -> Self {
        let bytes = if self.bytes.len() <= room {
            mem::take(&mut self.bytes)
        } else {
            self.bytes.drain(..room).collect()
        };
        let has_end = self.bytes.is_empty() && mem::take(&mut self.has_end);
        let (opening, reply) = (self.opening.take(), self.reply.take());
        Self {
            opening,
            reply,
            bytes,
            has_end,
            broken: None,
        }
    }

    fn append(&mut self, next: Self) {
        let Self {
            opening,
            reply,
            mut bytes,
            has_end,
            broken,
        } = next;
        self.opening = self.opening.take().or(opening);
        self.reply = self.reply.take().or(reply);
        self.bytes.append(&mut bytes);
        self.has_end |= has_end;
        self.broken = self.broken.or(broken);
    }
}

/// One stream between two gateways.
pub(super) struct Wire {
    path: Arc<Path>,
    /// Under which number the path knows it.
    number: u64,
    /// The end of the path whose gateway opened the stream.
    opened_by: End,
    lanes: Mutex<Lanes>,
    for_opener: Inbox,
    for_acceptor: Inbox,
}

/// Both directions, named by who sends.
#[derive(Default)]
struct Lanes {
    from_opener: Lane,
    from_acceptor: Lane,
}

/// One direction.
#[derive(Default)]
struct Lane {
    /// Sent on a black path.
    travelling: Load,
    /// There to be read.
    arrived: Load,
    /// Who waits for something to read.
    reader: Option<Waker>,
    /// Who waits for room.
    writer: Option<Waker>,
    /// Who waits for nothing but its end.
    watcher: Option<Waker>,
}

impl Lanes {
    fn from(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Opener => &mut self.from_opener,
            Side::Acceptor => &mut self.from_acceptor,
        }
    }

    fn toward(&mut self, side: Side) -> &mut Lane {
        self.from(side.other())
    }

    /// Lets what `side` sent arrive. Returns a header that arrived with it.
    fn arrive(&mut self, side: Side) -> Option<Vec<u8>> {
        let lane = self.from(side);
        let load = mem::take(&mut lane.travelling);
        lane.arrived.append(load);
        wake(&mut lane.reader);
        if lane.arrived.broken.is_some() {
            wake(&mut lane.watcher);
            wake(&mut self.toward(side).writer);
        }
        self.from(side).arrived.opening.take()
    }

    /// The connection under the stream is gone, as seen by `side`; what had arrived can still be read.
    fn cut(&mut self, side: Side) {
        let lane = self.toward(side);
        lane.arrived.broken.get_or_insert(Broken::Cut);
        wake(&mut lane.reader);
        wake(&mut lane.watcher);
        wake(&mut self.from(side).writer);
    }
}

impl Wire {
    pub(super) fn new(path: Arc<Path>, number: u64, opened_by: End) -> Self {
        Self {
            path,
            number,
            opened_by,
            lanes: Mutex::default(),
            for_opener: Inbox::default(),
            for_acceptor: Inbox::default(),
        }
    }

    /// The end of the path at which the stream is served.
    pub(super) fn accepted_by(&self) -> End {
        self.opened_by.other()
    }

    /// Sends what is queued as far as there is room; ready when nothing is left of it.
    pub(super) fn poll_send(
        self: &Arc<Self>,
        side: Side,
        queued: &mut Load,
        context: &Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let mut lanes = self.lanes.lock();
        if let Some(broken) = lanes.toward(side).arrived.broken {
            return Poll::Ready(Err(broken.into()));
        }
        let lane = lanes.from(side);
        let held = lane.travelling.bytes.len() + lane.arrived.bytes.len();
        lane.travelling
            .append(queued.take_front(BUFFER_BYTES.saturating_sub(held)));
        let done = if queued.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            lane.writer = Some(context.waker().clone());
            Poll::Pending
        };
        let opening = if self.path.is_black() {
            None
        } else {
            lanes.arrive(side)
        };
        drop(lanes);
        self.deliver(opening);
        done
    }

    /// Waits for the answer to the stream.
    pub(super) fn poll_reply(
        &self,
        side: Side,
        context: &Context<'_>,
    ) -> Poll<Result<StreamReply, StreamError>> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.toward(side);
        if let Some(reply) = lane.arrived.reply.take() {
            return Poll::Ready(Ok(reply));
        }
        if !lane.arrived.bytes.is_empty() || lane.arrived.has_end {
            let rule = "a stream that does not begin with its reply";
            return Poll::Ready(Err(StreamError::Protocol(rule)));
        }
        lane.poll_broken(context)
    }

    /// Moves what has arrived into `taken`, which is empty.
    pub(super) fn poll_fill(
        &self,
        side: Side,
        taken: &mut Vec<u8>,
        context: &Context<'_>,
    ) -> Poll<Result<Fill, StreamError>> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.toward(side);
        if lane.arrived.reply.is_some() {
            return Poll::Ready(Err(StreamError::Protocol(
                "a frame that has no place in a stream",
            )));
        }
        if !lane.arrived.bytes.is_empty() {
            mem::swap(taken, &mut lane.arrived.bytes);
            wake(&mut lane.writer);
            return Poll::Ready(Ok(Fill::Data));
        }
        if lane.arrived.has_end {
            return Poll::Ready(Ok(Fill::End));
        }
        lane.poll_broken(context)
    }

    /// Waits until the stream is broken, whatever of it is not yet read.
    pub(super) fn poll_cut(&self, side: Side, context: &Context<'_>) -> Poll<StreamError> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.toward(side);
        if let Some(broken) = lane.arrived.broken {
            return Poll::Ready(broken.into());
        }
        lane.watcher = Some(context.waker().clone());
        Poll::Pending
    }

    /// The datagrams that came for `side`.
    pub(super) fn inbox(&self, side: Side) -> &Inbox {
        match side {
            Side::Opener => &self.for_opener,
            Side::Acceptor => &self.for_acceptor,
        }
    }

    /// A datagram of `side` passes, unless nothing does.
    pub(super) fn pass(&self, datagram: Bytes, side: Side) {
        if !self.path.is_black() {
            self.inbox(side.other()).put(datagram);
        }
    }

    /// No datagram comes any more.
    fn end_datagrams(&self) {
        self.for_opener.end();
        self.for_acceptor.end();
    }

    /// `side` gives the stream up, or loses its connection: it reads and writes no more, and the other
    /// side is told as soon as the path lets it.
    pub(super) fn break_off(&self, side: Side, broken: Broken) {
        let mut lanes = self.lanes.lock();
        lanes.cut(side);
        lanes.from(side).travelling.broken.get_or_insert(broken);
        if !self.path.is_black() {
            // A header that arrives only now belongs to a stream that is over.
            lanes.arrive(side);
        }
        drop(lanes);
        self.end_datagrams();
    }

    /// The connection is gone on both sides at once.
    pub(super) fn sever(&self) {
        let mut lanes = self.lanes.lock();
        for side in [Side::Opener, Side::Acceptor] {
            lanes.from(side).travelling = Load::default();
            lanes.cut(side);
        }
        drop(lanes);
        self.end_datagrams();
    }

    /// The connection is gone for the gateway at `end`.
    pub(super) fn lose(&self, end: End) {
        let side = if end == self.opened_by {
            Side::Opener
        } else {
            Side::Acceptor
        };
        self.break_off(side, Broken::Cut);
    }

    /// The path passes again.
    pub(super) fn arrive_all(self: &Arc<Self>) {
        let mut lanes = self.lanes.lock();
        let opening = lanes.arrive(Side::Opener);
        lanes.arrive(Side::Acceptor);
        let is_broken = lanes.from_opener.arrived.broken.is_some();
        drop(lanes);
        self.deliver(opening.filter(|_| !is_broken));
    }

    fn deliver(self: &Arc<Self>, opening: Option<Vec<u8>>) {
        if let Some(header) = opening {
            self.path.deliver(Arc::clone(self), &header);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.path.forget(self.number);
    }
}

impl Lane {
    fn poll_broken<T>(&mut self, context: &Context<'_>) -> Poll<Result<T, StreamError>> {
        if let Some(broken) = self.arrived.broken {
            return Poll::Ready(Err(broken.into()));
        }
        self.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}
