//! What one stream may have on its way: credit that follows its reader.
//!
//! quinn fixes the window of a stream before it is known who is at the other end. What a long fast path needs is far more
//! than a stream may hold whose reader is slow: a few of these would take all that their connection has. So quinn's window
//! is the largest there is, and who sends keeps to a credit of ours. It begins small, and grows while the reader takes what
//! comes faster than a few round trips let it come.
//!
//! What is said about it goes in datagrams, which need no credit themselves. One that tells more stands for all before it;
//! for those that are lost, who waits for credit asks.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use quinn::{SendStream, StoppedError, VarInt, WriteError};
use tokio::time::{Instant, sleep};

use super::{
    code::write_failed,
    datagram::{Waiting, put_varint, take_varint},
    tunnel::Tunnel,
};
use crate::StreamError;

/// What may be sent on a stream before its reader has said anything: enough for most requests and their answers.
pub(super) const FIRST_BYTES: u64 = 512 << 10;
/// The largest window of a stream: almost three times what is on its way at 500 Mb/s and 200 ms, as what follows a lost
/// packet waits for it, and another one may be lost meanwhile.
pub(super) const MAX_BYTES: u64 = 32 << 20;
/// Who has sent less on a stream can be at no limit, and what is not yet said about it need not be known.
const UNWATCHED_BYTES: u64 = FIRST_BYTES / 4;
/// A shorter round trip says less about what is on its way than how workers take turns.
pub(super) const RTT_MIN: Duration = Duration::from_millis(5);
/// A window that lasts this many round trips and a second is more than its reader needs.
const ROUND_TRIPS_MAX: u32 = 32;
const SLOW: Duration = Duration::from_secs(1);
/// Before it is asked for credit: it is most likely on its way.
const ASK_AFTER: Duration = Duration::from_millis(50);
/// The longest gap between two questions: a reader may well stop for minutes.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(4);

/// The first byte of a datagram that says how far a stream may be sent.
pub(super) const CREDIT: u8 = 0x02;
/// The first byte of one that says how far it may be sent as far as its sender knows, and that this is not enough.
pub(super) const WANTED: u8 = 0x03;

/// Decides how far the reader of a stream lets its peer send.
#[derive(Debug)]
pub(super) struct Grants {
    read: u64,
    granted: u64,
    window: u64,
    /// When it was said last, or the first byte was read.
    since: Option<Instant>,
}

impl Grants {
    pub(super) fn new() -> Self {
        Self {
            read: 0,
            granted: FIRST_BYTES,
            window: FIRST_BYTES,
            since: None,
        }
    }

    /// So many bytes of a header were read, which are too few for anything to follow.
    pub(super) fn handle_message(&mut self, bytes: u64) {
        self.read += bytes;
    }

    /// So many bytes were read, and a window of `most` bytes is what the connection can bear. Returns how far the peer may
    /// send now if it should be told.
    pub(super) fn handle_read(
        &mut self,
        bytes: u64,
        rtt: Duration,
        most: u64,
        now: Instant,
    ) -> Option<u64> {
        self.read += bytes;
        let since = *self.since.get_or_insert(now);
        if self.granted.saturating_sub(self.read) > self.window / 2 {
            return None;
        }
        let rtt = rtt.max(RTT_MIN);
        // Half a window was read: in half a round trip where the window is what holds the peer up.
        let took = now.duration_since(since);
        if took < rtt * 3 / 2 {
            self.window = (self.window * 2).min(most.clamp(FIRST_BYTES, MAX_BYTES));
        } else if took > (rtt * ROUND_TRIPS_MAX / 2).max(SLOW) {
            self.window = (self.window / 2).max(FIRST_BYTES);
        }
        self.since = Some(now);
        // What was granted is never taken back.
        self.granted = self.granted.max(self.read + self.window);
        Some(self.granted)
    }
}

/// What both directions of one stream have been told and have told.
#[derive(Debug)]
pub(super) struct Credit {
    /// How far the peer lets us send.
    limit: AtomicU64,
    /// How far we let the peer send.
    granted: AtomicU64,
    waker: AtomicWaker,
}

impl Credit {
    /// How far the stream may be sent, once that is further than `sent`.
    pub(super) fn poll_limit(&self, sent: u64, context: &mut Context<'_>) -> Poll<u64> {
        let limit = self.limit.load(Relaxed);
        if limit > sent {
            return Poll::Ready(limit);
        }
        self.waker.register(context.waker());
        // What came meanwhile has woken nobody.
        let limit = self.limit.load(Relaxed);
        if limit > sent {
            return Poll::Ready(limit);
        }
        Poll::Pending
    }
}

/// Whether so little was sent on a stream that its credit cannot be used up.
pub(super) fn is_unwatched(sent: u64) -> bool {
    sent <= UNWATCHED_BYTES
}

/// The streams of one connection whose credit matters, by their number.
#[derive(Debug, Default)]
pub(super) struct Credits {
    by_stream: Mutex<BTreeMap<u64, Weak<Credit>>>,
}

impl Credits {
    /// From now on the credit of this stream is kept.
    pub(super) fn watch(&self, stream: u64) -> Arc<Credit> {
        let credit = Arc::new(Credit {
            limit: AtomicU64::new(FIRST_BYTES),
            granted: AtomicU64::new(FIRST_BYTES),
            waker: AtomicWaker::new(),
        });
        self.by_stream
            .lock()
            .insert(stream, Arc::downgrade(&credit));
        credit
    }

    pub(super) fn forget(&self, stream: u64) {
        self.by_stream.lock().remove(&stream);
    }

    /// Takes a datagram about credit. Returns the answer, if there is one. Whatever is no such thing, or is about a stream
    /// that is over, is left alone.
    pub(super) fn handle(&self, datagram: &[u8]) -> Option<Bytes> {
        let (kind, rest) = datagram.split_first()?;
        let (stream, rest) = take_varint(rest)?;
        let (limit, _) = take_varint(rest)?;
        let credit = self.by_stream.lock().get(&stream)?.upgrade()?;
        match *kind {
            CREDIT => {
                credit.limit.fetch_max(limit, Relaxed);
                credit.waker.wake();
                None
            }
            WANTED => {
                let granted = credit.granted.load(Relaxed);
                (granted > limit).then(|| message(CREDIT, stream, granted))
            }
            _ => None,
        }
    }
}

/// Tells the peer how far it may send on a stream.
pub(super) fn grant(waiting: &Waiting, stream: u64, credit: &Credit, granted: u64) {
    credit.granted.store(granted, Relaxed);
    // Who takes no datagrams cannot be told, and is not held to it.
    let _ = waiting.send_ahead(message(CREDIT, stream, granted));
}

/// Asks for credit for as long as it is polled. Resolves when the peer wants no more of the stream.
pub(super) fn ask(
    tunnel: &Tunnel,
    send: &SendStream,
    sent: u64,
) -> impl Future<Output = StreamError> + Send + Sync + 'static {
    let question = message(WANTED, u64::from(VarInt::from(send.id())), sent);
    let stopped = send.stopped();
    let quic = tunnel.quic.clone();
    let waiting = Arc::clone(&tunnel.waiting);
    async move {
        tokio::pin!(stopped);
        let mut gap = (quic.rtt() * 2).max(ASK_AFTER);
        loop {
            tokio::select! {
                stopped = &mut stopped => return why_stopped(stopped),
                () = sleep(gap) => {}
            }
            let _ = waiting.send_ahead(question.clone());
            gap = (gap * 2).min(ASK_AGAIN_MAX);
        }
    }
}

fn why_stopped(stopped: Result<Option<VarInt>, StoppedError>) -> StreamError {
    match stopped {
        Ok(Some(code)) => write_failed(WriteError::Stopped(code)),
        Err(StoppedError::ConnectionLost(error)) => write_failed(WriteError::ConnectionLost(error)),
        // It has ended already.
        Ok(None) | Err(StoppedError::ZeroRttRejected) => StreamError::Cut,
    }
}

fn message(kind: u8, stream: u64, limit: u64) -> Bytes {
    let mut message = vec![kind];
    put_varint(stream, &mut message);
    put_varint(limit, &mut message);
    message.into()
}

#[cfg(test)]
mod tests;
