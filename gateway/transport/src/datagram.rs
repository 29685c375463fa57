//! Datagrams beside a stream: each arrives whole or not at all, in any order, and nobody waits for one.
//!
//! A transport that carries datagrams by itself offers them for each stream that asks. They belong to the stream's
//! connection and go with it. What nobody takes is kept up to [`KEPT_MAX_BYTES`]; then the oldest make room.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{memory::MemoryDatagrams, quic::QuicDatagrams};

/// What of one stream waits to be taken: a tenth of a second at 80 Mbit/s. Older datagrams are better sent again.
pub(crate) const KEPT_MAX_BYTES: usize = 1 << 20;
/// What each datagram counts for beyond its bytes, so that empty ones are bounded too.
const PLACE_BYTES: usize = 64;

/// The datagrams beside one stream.
pub struct Datagrams {
    kind: Kind,
}

enum Kind {
    Memory(MemoryDatagrams),
    Quic(QuicDatagrams),
}

/// What became of a datagram that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is queued. Older ones of the connection may have made room for it.
    Queued {
        /// At least one older datagram was thrown away.
        evicted: bool,
    },
    /// It does not fit into a packet of the path; it may fit later.
    TooLarge,
    /// The connection has ended.
    Ended,
}

impl Datagrams {
    pub(crate) fn memory(datagrams: MemoryDatagrams) -> Self {
        Self {
            kind: Kind::Memory(datagrams),
        }
    }

    pub(crate) fn quic(datagrams: QuicDatagrams) -> Self {
        Self {
            kind: Kind::Quic(datagrams),
        }
    }

    /// The largest that can be sent now, in bytes. It changes with the path.
    pub fn max_bytes(&self) -> usize {
        match &self.kind {
            Kind::Memory(datagrams) => datagrams.max_bytes(),
            Kind::Quic(datagrams) => datagrams.max_bytes(),
        }
    }

    /// Sends one datagram made of these two pieces. Never waits.
    pub fn try_send(&self, head: &[u8], body: &[u8]) -> Sent {
        match &self.kind {
            Kind::Memory(datagrams) => datagrams.try_send(head, body),
            Kind::Quic(datagrams) => datagrams.try_send(head, body),
        }
    }

    /// Takes the next datagram that came; `None` once the connection has ended. One task at a time. Cancel-safe.
    pub async fn take(&self) -> Option<Bytes> {
        let inbox = self.inbox();
        poll_fn(|context| inbox.poll_take(context)).await
    }

    /// How many came and were thrown away because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.inbox().dropped()
    }

    fn inbox(&self) -> &Inbox {
        match &self.kind {
            Kind::Memory(datagrams) => datagrams.inbox(),
            Kind::Quic(datagrams) => datagrams.inbox(),
        }
    }
}

/// What came for one stream and was not taken yet.
#[derive(Default)]
pub(crate) struct Inbox {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
    dropped: u64,
    has_ended: bool,
    taker: Option<Waker>,
}

impl Inbox {
    /// Keeps a datagram, at the cost of the oldest where there is no room.
    pub(crate) fn put(&self, datagram: Bytes) {
        let mut kept = self.kept.lock();
        if kept.has_ended {
            return;
        }
        kept.bytes += datagram.len() + PLACE_BYTES;
        kept.datagrams.push_back(datagram);
        while kept.bytes > KEPT_MAX_BYTES
            && let Some(oldest) = kept.datagrams.pop_front()
        {
            kept.bytes -= oldest.len() + PLACE_BYTES;
            kept.dropped += 1;
        }
        let taker = kept.taker.take();
        drop(kept);
        if let Some(taker) = taker {
            taker.wake();
        }
    }

    /// Nothing comes any more; what is there can still be taken.
    pub(crate) fn end(&self) {
        let mut kept = self.kept.lock();
        kept.has_ended = true;
        let taker = kept.taker.take();
        drop(kept);
        if let Some(taker) = taker {
            taker.wake();
        }
    }

    fn dropped(&self) -> u64 {
        self.kept.lock().dropped
    }

    fn poll_take(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut kept = self.kept.lock();
        if let Some(datagram) = kept.datagrams.pop_front() {
            kept.bytes -= datagram.len() + PLACE_BYTES;
            return Poll::Ready(Some(datagram));
        }
        if kept.has_ended {
            return Poll::Ready(None);
        }
        kept.taker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
