//! Datagrams beside a stream: each arrives whole or not at all, in any order, and nobody waits for one.
//!
//! A transport that carries datagrams by itself offers them for each stream that asks. They belong to the stream's
//! connection and go with it. What nobody takes is kept up to [`KEPT_MAX_BYTES`], and up to [`KEPT_TOGETHER_MAX_BYTES`] of
//! all streams of a connection; then the oldest make room.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{memory::MemoryDatagrams, quic::QuicDatagrams};

/// What of one stream waits to be taken: a tenth of a second at 80 Mbit/s. Older datagrams are better sent again.
pub(crate) const KEPT_MAX_BYTES: usize = 1 << 20;
/// What of all streams of one connection waits to be taken: a peer may open many.
pub(crate) const KEPT_TOGETHER_MAX_BYTES: usize = 4 << 20;
/// What each datagram counts for beyond its bytes, so that empty ones are bounded too.
pub(crate) const PLACE_BYTES: usize = 64;

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
        /// So many older datagrams were thrown away for it.
        evicted: u64,
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

    /// How many came and were thrown away because nobody took them, since this was last asked.
    pub fn take_dropped(&self) -> u64 {
        self.inbox().take_dropped()
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
    dropped: AtomicU64,
    /// Bytes that wait for all streams of the connection.
    together: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Kept {
    datagrams: VecDeque<Bytes>,
    bytes: usize,
    has_ended: bool,
    taker: Option<Waker>,
}

impl Inbox {
    /// One of several that keep only so much together.
    pub(crate) fn of_many(together: &Arc<AtomicUsize>) -> Self {
        Self {
            together: Arc::clone(together),
            kept: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Keeps a datagram, at the cost of the oldest where there is no room.
    pub(crate) fn put(&self, datagram: Bytes) {
        let mut kept = self.kept.lock();
        if kept.has_ended {
            return;
        }
        let bytes = datagram.len() + PLACE_BYTES;
        kept.bytes += bytes;
        self.together.fetch_add(bytes, Relaxed);
        kept.datagrams.push_back(datagram);
        while (kept.bytes > KEPT_MAX_BYTES || self.together.load(Relaxed) > KEPT_TOGETHER_MAX_BYTES)
            && self.take_oldest(&mut kept).is_some()
        {
            self.dropped.fetch_add(1, Relaxed);
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

    fn take_oldest(&self, kept: &mut Kept) -> Option<Bytes> {
        let oldest = kept.datagrams.pop_front()?;
        let bytes = oldest.len() + PLACE_BYTES;
        kept.bytes -= bytes;
        self.together.fetch_sub(bytes, Relaxed);
        Some(oldest)
    }

    fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Relaxed)
    }

    fn poll_take(&self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut kept = self.kept.lock();
        if let Some(datagram) = self.take_oldest(&mut kept) {
            return Poll::Ready(Some(datagram));
        }
        if kept.has_ended {
            return Poll::Ready(None);
        }
        kept.taker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let left = self.kept.get_mut().bytes;
        self.together.fetch_sub(left, Relaxed);
    }
}

#[cfg(test)]
mod tests;
