//! One application connection in a tunnel, as two halves that lend their buffers.

use std::future::{pending, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};

use corinth_api::StreamReply;
use corinth_model::{Failure, GatewayId};
use futures_util::future::Either;

use crate::{
    Datagrams, StreamError, TransportKind, memory::MemoryStream, quic::QuicStream, tls::TlsStream,
};

/// What [`ReadHalf::fill`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Bytes are there to be lent.
    Data,
    /// The peer ended its direction; nothing follows.
    End,
}

/// When the certificates of a connection expire, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// From then on we open nothing more on it: somewhat before the earlier of both leaves expires, as the peer's clock
    /// decides too.
    pub retire_at: u64,
    /// When the earlier of both leaves expires: from then on nothing more that the peer opens is taken.
    pub not_after: u64,
}

impl Expiry {
    /// Of what has no certificates.
    pub const NEVER: Self = Self {
        retire_at: u64::MAX,
        not_after: u64::MAX,
    };
}

/// One application connection in a tunnel. Dropping it before both directions ended resets it.
pub struct Stream {
    kind: Kind,
}

enum Kind {
    Memory(MemoryStream),
    Tls(Box<TlsStream>),
    Quic(Box<QuicStream>),
}

impl Stream {
    pub(crate) fn memory(stream: MemoryStream) -> Self {
        Self {
            kind: Kind::Memory(stream),
        }
    }

    pub(crate) fn tls(stream: Box<TlsStream>) -> Self {
        Self {
            kind: Kind::Tls(stream),
        }
    }

    pub(crate) fn quic(stream: Box<QuicStream>) -> Self {
        Self {
            kind: Kind::Quic(stream),
        }
    }

    pub(crate) fn into_tls(self) -> Option<Box<TlsStream>> {
        match self.kind {
            Kind::Tls(stream) => Some(stream),
            Kind::Memory(_) | Kind::Quic(_) => None,
        }
    }

    /// Who is at the other end, as the handshake proved it.
    pub fn peer(&self) -> &GatewayId {
        match &self.kind {
            Kind::Memory(stream) => stream.peer(),
            Kind::Tls(stream) => stream.peer(),
            Kind::Quic(stream) => stream.peer(),
        }
    }

    /// Which transport carries it.
    pub fn transport(&self) -> TransportKind {
        match &self.kind {
            Kind::Memory(_) => TransportKind::Memory,
            Kind::Tls(_) => TransportKind::Tls,
            Kind::Quic(_) => TransportKind::Quic,
        }
    }

    /// When the certificates of its connection expire. For a stream that has ended, they have.
    pub fn expiry(&self) -> Expiry {
        match &self.kind {
            Kind::Memory(_) => Expiry::NEVER,
            Kind::Tls(stream) => stream.expiry(),
            Kind::Quic(stream) => stream.expiry(),
        }
    }

    /// Resolves when its connection is dead, where other connections of its link may live and each of them is watched.
    pub fn connection_dead(&self) -> impl Future<Output = ()> + Send + 'static {
        match &self.kind {
            Kind::Memory(_) | Kind::Tls(_) => Either::Left(pending()),
            Kind::Quic(stream) => Either::Right(stream.dead()),
        }
    }

    /// The datagrams beside it, where its transport has them; to be asked for once. What the peer sends before is lost.
    pub fn datagrams(&self) -> Option<Datagrams> {
        match &self.kind {
            Kind::Memory(stream) => Some(Datagrams::memory(stream.datagrams())),
            Kind::Tls(_) => None,
            Kind::Quic(stream) => Some(Datagrams::quic(stream.datagrams())),
        }
    }

    /// Both directions, to be driven on one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        match &mut self.kind {
            Kind::Memory(stream) => {
                let (read, write) = stream.split();
                (
                    ReadHalf {
                        kind: ReadKind::Memory(read),
                    },
                    WriteHalf {
                        kind: WriteKind::Memory(write),
                    },
                )
            }
            Kind::Tls(stream) => {
                let (read, write) = stream.split();
                (
                    ReadHalf {
                        kind: ReadKind::Tls(read),
                    },
                    WriteHalf {
                        kind: WriteKind::Tls(write),
                    },
                )
            }
            Kind::Quic(stream) => {
                let (read, write) = stream.split();
                (
                    ReadHalf {
                        kind: ReadKind::Quic(read),
                    },
                    WriteHalf {
                        kind: WriteKind::Quic(write),
                    },
                )
            }
        }
    }

    /// Ends both directions at once and tells the peer why. Nothing can be read or written after it.
    pub fn reset(&mut self, failure: Failure) {
        match &mut self.kind {
            Kind::Memory(stream) => stream.reset(failure),
            Kind::Tls(stream) => stream.reset(failure),
            Kind::Quic(stream) => stream.reset(failure),
        }
    }
}

/// The direction from the peer.
pub struct ReadHalf<'a> {
    kind: ReadKind<'a>,
}

enum ReadKind<'a> {
    Memory(crate::memory::MemoryReadHalf<'a>),
    Tls(crate::tls::TlsReadHalf<'a>),
    Quic(crate::quic::QuicReadHalf<'a>),
}

impl ReadHalf<'_> {
    /// Waits for the answer to a stream we opened. To be called once, before [`Self::fill`]. Cancel-safe.
    pub async fn reply(&mut self) -> Result<StreamReply, StreamError> {
        match &mut self.kind {
            ReadKind::Memory(half) => half.reply().await,
            ReadKind::Tls(half) => half.reply().await,
            ReadKind::Quic(half) => half.reply().await,
        }
    }

    /// Waits until bytes can be lent or the peer has ended its direction. Cancel-safe.
    pub async fn fill(&mut self) -> Result<Fill, StreamError> {
        match &mut self.kind {
            ReadKind::Memory(half) => half.fill().await,
            ReadKind::Tls(half) => half.fill().await,
            // Polled, not awaited: a stream that waits is to be small.
            ReadKind::Quic(half) => poll_fn(|context| half.poll_fill(context)).await,
        }
    }

    /// Waits until the connection of the stream has ended, and says why. For who has something else to wait for and neither
    /// reads nor writes meanwhile: nothing can be sent any more, and what has arrived can still be read. Cancel-safe.
    pub async fn cut(&mut self) -> StreamError {
        match &mut self.kind {
            ReadKind::Memory(half) => half.cut().await,
            ReadKind::Tls(half) => half.cut().await,
            ReadKind::Quic(half) => half.cut().await,
        }
    }

    /// Lends what is there, in a few pieces, to `take`, which answers how many bytes it took.
    pub fn lend(
        &mut self,
        take: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match &mut self.kind {
            ReadKind::Memory(half) => half.lend(take),
            ReadKind::Tls(half) => half.lend(take),
            ReadKind::Quic(half) => half.lend(take),
        }
    }
}

/// The direction to the peer.
pub struct WriteHalf<'a> {
    kind: WriteKind<'a>,
}

enum WriteKind<'a> {
    Memory(crate::memory::MemoryWriteHalf<'a>),
    Tls(crate::tls::TlsWriteHalf<'a>),
    Quic(crate::quic::QuicWriteHalf<'a>),
}

impl WriteHalf<'_> {
    /// Queues the answer to a stream the peer opened.
    pub fn put_reply(&mut self, reply: &StreamReply) -> Result<(), StreamError> {
        match &mut self.kind {
            WriteKind::Memory(half) => half.put_reply(reply),
            WriteKind::Tls(half) => half.put_reply(reply),
            WriteKind::Quic(half) => half.put_reply(reply),
        }
    }

    /// Lends room for about `want_bytes` to `fill`, which answers how many bytes it put there; they are
    /// queued for [`Self::flush`]. Yields 0 without calling `fill` while what is queued leaves no room.
    pub fn lend(
        &mut self,
        want_bytes: usize,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match &mut self.kind {
            WriteKind::Memory(half) => half.lend(want_bytes, fill),
            WriteKind::Tls(half) => half.lend(want_bytes, fill),
            WriteKind::Quic(half) => half.lend(want_bytes, fill),
        }
    }

    /// Queues the end of this direction (half-close).
    pub fn put_end(&mut self) -> Result<(), StreamError> {
        match &mut self.kind {
            WriteKind::Memory(half) => half.put_end(),
            WriteKind::Tls(half) => half.put_end(),
            WriteKind::Quic(half) => half.put_end(),
        }
    }

    /// Hands everything queued to the peer's kernel or buffer. Cancel-safe.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        match &mut self.kind {
            WriteKind::Memory(half) => half.flush().await,
            WriteKind::Tls(half) => half.flush().await,
            WriteKind::Quic(half) => poll_fn(|context| half.poll_flush(context)).await,
        }
    }
}
