//! Copies bytes between an application's socket and a stream of a tunnel.
//!
//! Both directions run on one task. Bytes are read straight into the room the transport lends and written
//! straight from what it opened; how much is asked for follows what comes. An end is passed on as an end,
//! a reset as a reset, and nothing that was cut ever looks like an end.

use std::{
    future::poll_fn,
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use corinth_model::Failure;
use corinth_transport::{Fill, ReadHalf, Stream, StreamError, WriteHalf, ready};
use futures_util::FutureExt;
use socket2::{SockRef, Socket};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::TcpStream,
    task::coop::consume_budget,
};

use crate::said::Rest;

/// What one connection carried, seen from the application's socket.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Read from the socket and sent on.
    sent_bytes: AtomicU64,
    /// Received and written to the socket.
    received_bytes: AtomicU64,
    /// The socket has ended, and the peer was told.
    socket_ended: AtomicBool,
    /// The peer has ended, and the socket was told.
    peer_ended: AtomicBool,
}

impl Carried {
    pub(crate) fn add_sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn add_received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Relaxed)
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }

    fn has_socket_ended(&self) -> bool {
        self.socket_ended.load(Relaxed)
    }

    fn total(&self) -> u64 {
        self.sent_bytes() + self.received_bytes()
    }
}

/// Whose socket it is, for the failures it can cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client that connected to us.
    Client,
    /// The endpoint that we connected to.
    Endpoint,
}

impl Side {
    /// The failure of a socket of this side that was reset.
    pub(crate) fn reset(self) -> Failure {
        match self {
            Self::Client => Failure::ClientReset,
            Self::Endpoint => Failure::EndpointReset,
        }
    }
}

/// Relays until both directions have ended, or one fails. `rest` was read of the socket before; none of it is left.
pub(crate) async fn run(
    socket: &mut TcpStream,
    side: Side,
    rest: &mut Rest,
    stream: &mut Stream,
    idle: Option<Duration>,
    carried: &Carried,
) -> Result<(), Failure> {
    let (mut from_peer, mut to_peer) = stream.split();
    let shared = &*socket;
    let both = async {
        tokio::try_join!(
            send(shared, side, rest, &mut to_peer, carried),
            receive(shared, side, &mut from_peer, carried),
        )
    };
    let ended = tokio::select! {
        ended = both => ended.map(|_| ()),
        failure = socket_error(shared, side) => Err(failure),
        () = idleness(idle, carried) => Err(Failure::IdleTimeout),
    };
    if ended.is_ok() {
        disarm(socket);
    }
    ended
}

/// From the socket to the peer, until the socket's end.
async fn send(
    socket: &TcpStream,
    side: Side,
    rest: &mut Rest,
    to_peer: &mut WriteHalf<'_>,
    carried: &Carried,
) -> Result<(), Failure> {
    let mut appetite = Appetite::default();
    // What the opening queued goes out before anything is added.
    to_peer.flush().await.map_err(failure_of)?;
    let mut sent = 0;
    while sent < rest.bytes.len() {
        let unsent = &rest.bytes[sent..];
        sent += to_peer
            .lend(unsent.len(), |room| copy(unsent, room))
            .map_err(|_| side.reset())?;
        to_peer.flush().await.map_err(failure_of)?;
    }
    rest.bytes = Box::default();
    while !rest.ended {
        let read = to_peer.lend(appetite.bytes(), |room| socket.try_read_vectored(room));
        match read {
            Ok(0) => rest.ended = true,
            Ok(bytes) => {
                carried.add_sent(bytes);
                appetite.got(bytes);
                // An end that has come already leaves with the last bytes.
                rest.ended = has_ended(socket).map_err(|_| side.reset())?;
                if !rest.ended {
                    to_peer.flush().await.map_err(failure_of)?;
                    consume_budget().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready::readable(socket).await.map_err(|_| side.reset())?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(side.reset()),
        }
    }
    if !rest.end_is_queued {
        to_peer.put_end().map_err(failure_of)?;
    }
    to_peer.flush().await.map_err(failure_of)?;
    carried.socket_ended.store(true, Relaxed);
    if carried.peer_ended.load(Relaxed) {
        // The other direction waits for this one, and is on the same task.
        poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Ready(())
        })
        .await;
    }
    Ok(())
}

/// Whether nothing is left to read but the end: the runtime has heard of it, and the kernel confirms. A reset that is
/// found must be acted upon: the kernel tells it once, and says afterwards that the socket has ended.
fn has_ended(socket: &TcpStream) -> io::Result<bool> {
    let ready = socket.ready(Interest::READABLE).now_or_never();
    let is_closed = matches!(ready, Some(Ok(ready)) if ready.is_read_closed());
    if !is_closed {
        return Ok(false);
    }
    match SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]) {
        Ok(bytes) => Ok(bytes == 0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies as much of `bytes` as the room takes.
pub(crate) fn copy(bytes: &[u8], room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let mut left = bytes;
    for slice in room {
        let take = slice.len().min(left.len());
        slice[..take].copy_from_slice(&left[..take]);
        left = &left[take..];
    }
    Ok(bytes.len() - left.len())
}

/// From the peer to the socket, until the peer's end and the socket's.
async fn receive(
    socket: &TcpStream,
    side: Side,
    from_peer: &mut ReadHalf<'_>,
    carried: &Carried,
) -> Result<(), Failure> {
    // Of a socket just connected the runtime does not know yet that it takes bytes.
    let mut is_first = true;
    loop {
        match from_peer.fill().await.map_err(failure_of)? {
            Fill::End => {
                // Where the socket has ended before, it is closed next, which says the same.
                if !carried.has_socket_ended() {
                    // An error here is the socket's own end, which the other direction reports.
                    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Write);
                }
                carried.peer_ended.store(true, Relaxed);
                // On the heap, as below: not every stream waits so, and each would have to have room for it.
                return Box::pin(outlast(from_peer, carried)).await;
            }
            Fill::Data => match from_peer.lend(|chunks| {
                if std::mem::take(&mut is_first) {
                    return (&*SockRef::from(socket)).write_vectored(chunks);
                }
                socket.try_write_vectored(chunks)
            }) {
                Ok(bytes) => {
                    carried.add_received(bytes);
                    consume_budget().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Box::pin(room(socket, side, from_peer, carried)).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(side.reset()),
            },
        }
    }
}

/// Waits until the socket has ended as well; who notes that wakes the task.
async fn outlast(from_peer: &mut ReadHalf<'_>, carried: &Carried) -> Result<(), Failure> {
    let socket_ended = poll_fn(|_| match carried.has_socket_ended() {
        true => Poll::Ready(()),
        false => Poll::Pending,
    });
    tokio::select! {
        biased;
        () = socket_ended => Ok(()),
        failure = cut(from_peer, carried) => Err(failure),
    }
}

/// Waits until the socket takes more.
async fn room(
    socket: &TcpStream,
    side: Side,
    from_peer: &mut ReadHalf<'_>,
    carried: &Carried,
) -> Result<(), Failure> {
    tokio::select! {
        biased;
        waited = ready::writable(socket) => waited.map_err(|_| side.reset()),
        failure = cut(from_peer, carried) => Err(failure),
    }
}

/// Resolves when the connection of the stream has ended while something is still to be sent on it. Where both directions
/// wait for the socket, nobody else would notice. What has arrived whole after all was sent is delivered all the same.
async fn cut(from_peer: &mut ReadHalf<'_>, carried: &Carried) -> Failure {
    let error = from_peer.cut().await;
    if carried.has_socket_ended() {
        return std::future::pending().await;
    }
    // The peer may have said more than that its connection has ended.
    let reset = last_word(from_peer).now_or_never().flatten();
    failure_of(reset.unwrap_or(error))
}

/// Reads, and throws away, what is before the error that a stream ends with.
async fn last_word(from_peer: &mut ReadHalf<'_>) -> Option<StreamError> {
    loop {
        match from_peer.fill().await {
            Ok(Fill::Data) => {
                let all = |chunks: &[IoSlice<'_>]| Ok(chunks.iter().map(|chunk| chunk.len()).sum());
                from_peer.lend(all).ok()?;
            }
            Ok(Fill::End) => return None,
            Err(error) => return Some(error),
        }
    }
}

/// Reads to the end of a direction nobody wants any more.
pub(crate) async fn discard(from_peer: &mut ReadHalf<'_>) {
    // However it ends.
    let _ = last_word(from_peer).await;
}

/// Resolves when the socket was reset, also while neither direction reads or writes it.
pub(crate) async fn socket_error(socket: &TcpStream, side: Side) -> Failure {
    loop {
        match socket.ready(Interest::ERROR).await {
            Ok(ready) if !ready.is_error() => consume_budget().await,
            Ok(_) | Err(_) => return side.reset(),
        }
    }
}

/// Resolves when nothing has moved for `idle`, noticed within a quarter of it.
pub(crate) async fn idleness(idle: Option<Duration>, carried: &Carried) {
    const LOOKS: u32 = 4;
    let Some(idle) = idle else {
        return std::future::pending().await;
    };
    let (mut last, mut quiet_looks) = (carried.total(), 0);
    while quiet_looks < LOOKS {
        tokio::time::sleep(idle / LOOKS).await;
        let total = carried.total();
        quiet_looks = if total == last { quiet_looks + 1 } else { 0 };
        last = total;
    }
}

/// The failure a stream ended with.
pub(crate) fn failure_of(error: StreamError) -> Failure {
    error.failure()
}

/// What every socket of an application has from its first byte on: small writes leave at once, and a cut stream does not
/// look ended, see [`arm`]. Connections have it from their listener if that has it.
pub(crate) fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))
}

/// From now on the kernel ends this socket with RST, also when this process is killed: a cut stream must not
/// look ended.
pub(crate) fn arm(socket: &TcpStream) {
    // It fails only on a socket that is gone already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Both directions have ended: closing waits for nothing and loses nothing.
pub(crate) fn disarm(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(None);
}

/// Ends a socket with RST.
pub(crate) fn abort(socket: TcpStream) {
    arm(&socket);
    drop(socket);
}

/// Ends a socket in good order, after its last bytes.
pub(crate) async fn finish(mut socket: TcpStream) {
    disarm(&socket);
    let _ = socket.shutdown().await;
}

/// How much to ask for at once: little while the application talks, much while it streams.
#[derive(Debug, Default)]
struct Appetite {
    large_reads: u8,
}

impl Appetite {
    const SMALL_BYTES: usize = 3 << 10;
    const MEDIUM_BYTES: usize = 16 << 10;
    const LARGE_BYTES: usize = 256 << 10;

    fn bytes(&self) -> usize {
        match self.large_reads {
            0 => Self::SMALL_BYTES,
            1..=3 => Self::MEDIUM_BYTES,
            _ => Self::LARGE_BYTES,
        }
    }

    /// A read that filled what was asked for makes the next one larger; one that left most of it free
    /// makes it smaller.
    fn got(&mut self, bytes: usize) {
        let asked = self.bytes();
        if bytes >= asked {
            self.large_reads = self.large_reads.saturating_add(1).min(8);
        } else if bytes < asked / 4 {
            self.large_reads = self.large_reads.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
