//! One authenticated TLS connection of a link, between streams.

use std::{sync::Arc, thread::ThreadId};

use corinth_model::GatewayId;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::{
    frame::Kind,
    handshake::Secured,
    reader::{Event, Reader},
    record::{Opener, Schedule, Sealer},
    writer::Writer,
};
use crate::StreamError;

/// One authenticated TLS connection: socket, both sides of its records, and who is at the other end.
pub(super) struct Connection {
    /// Shared with the link, which shuts it down when it closes.
    pub(super) socket: Arc<TcpStream>,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) schedule: Mutex<Schedule>,
    pub(super) peer: Arc<GatewayId>,
    /// Unix seconds at which the earlier of both leaves expires: no stream opens after it.
    pub(super) not_after: u64,
    /// Unix seconds from which we open no stream on it any more: somewhat earlier, as the peer's clock decides too.
    pub(super) retire_at: u64,
    /// The stream of this connection opened last; they count up from 1.
    pub(super) last_stream: u32,
    /// The peer asked for no more streams on this connection.
    pub(super) draining: bool,
    /// The worker whose reactor the socket is registered with.
    home: ThreadId,
    /// The link knows the socket.
    pub(super) is_known: bool,
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        secured: Secured,
        peer: Arc<GatewayId>,
        not_after: u64,
        now_unix_seconds: u64,
    ) -> Result<Self, StreamError> {
        const NO_CIPHER: StreamError =
            StreamError::Protocol("a cipher suite that is not supported");
        let opener = Opener::new(secured.secrets.rx).ok_or(NO_CIPHER)?;
        let sealer = Sealer::new(secured.secrets.tx).ok_or(NO_CIPHER)?;
        let mut reader = Reader::new(opener);
        reader.preload(&secured.leftover);
        reader.preload_plain(&secured.plain)?;
        Ok(Self {
            socket: Arc::new(socket),
            reader,
            writer: Writer::new(sealer),
            schedule: Mutex::new(secured.schedule),
            peer,
            not_after,
            retire_at: retire_at(not_after, now_unix_seconds),
            last_stream: 0,
            draining: false,
            home: std::thread::current().id(),
            is_known: false,
        })
    }

    /// Waits for what the peer sends next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Event, StreamError> {
        self.reader.next(&self.socket, &self.schedule).await
    }

    /// What the peer has sent and we have not read, if anything.
    pub(super) fn try_next(&mut self) -> Result<Option<Event>, StreamError> {
        self.reader.try_next(&self.socket, &self.schedule)
    }

    /// Queues a frame that belongs to no stream, or opens one.
    pub(super) fn put(
        &mut self,
        kind: Kind,
        stream: u32,
        payload: &[u8],
    ) -> Result<(), StreamError> {
        self.writer.put(&self.schedule, kind, stream, payload)
    }

    /// Sends what is queued. Cancel-safe.
    pub(super) async fn flush(&mut self) -> Result<(), StreamError> {
        self.writer
            .flush(&self.socket)
            .await
            .map_err(StreamError::Io)
    }

    /// Says a last word and ends the connection; whether it arrives changes nothing.
    pub(super) fn close(mut self) {
        if self.put(Kind::Close, 0, &[]).is_ok() {
            self.writer.put_close_notify();
            let _ = self.writer.try_flush(&self.socket);
        }
    }

    pub(super) fn is_home(&self) -> bool {
        self.home == std::thread::current().id()
    }

    /// Moves the socket to the calling worker's reactor.
    pub(super) fn bring_home(self: Box<Self>) -> std::io::Result<Box<Self>> {
        if self.is_home() {
            return Ok(self);
        }
        let mut this = *self;
        let socket = Arc::into_inner(this.socket).ok_or(std::io::ErrorKind::NotConnected)?;
        this.socket = Arc::new(TcpStream::from_std(socket.into_std()?)?);
        this.is_known = false;
        this.home = std::thread::current().id();
        Ok(Box::new(this))
    }
}

/// From when on no stream is opened on a connection that ends at `not_after`: clocks may differ by minutes, short lives
/// allow less.
pub(crate) fn retire_at(not_after: u64, now_unix_seconds: u64) -> u64 {
    const MARGIN_MAX_SECONDS: u64 = 15 * 60;
    let left_seconds = not_after.saturating_sub(now_unix_seconds);
    not_after.saturating_sub((left_seconds / 10).clamp(1, MARGIN_MAX_SECONDS))
}
