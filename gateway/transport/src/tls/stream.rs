//! One stream on a TLS connection, which it holds alone until both directions ended.

use std::{
    io::{self, IoSlice, IoSliceMut},
    sync::Arc,
};

use corinth_api::StreamReply;
use corinth_model::{Failure, GatewayId, Reason};
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::{
    connection::Connection,
    frame::Kind,
    link::TlsLink,
    reader::{Event, Reader},
    record::Schedule,
    writer::Writer,
};
use crate::{
    Expiry, Fill, StreamError,
    direction::{Received, Sent},
    ready,
};

/// One stream on a TLS connection.
pub(crate) struct TlsStream {
    /// Taken out only when the stream is over.
    connection: Option<Box<Connection>>,
    id: u32,
    received: Received,
    sent: Sent,
    /// Where the connection goes when the stream is over; `None` for a stream the peer opened.
    home: Option<Arc<TlsLink>>,
    peer: Arc<GatewayId>,
}

impl TlsStream {
    /// A stream we opened; its OPEN is queued.
    pub(super) fn opened(connection: Box<Connection>, home: Arc<TlsLink>) -> Self {
        Self::new(connection, Some(home))
    }

    /// A stream the peer opened; its OPEN was read.
    pub(super) fn accepted(connection: Box<Connection>) -> Self {
        Self::new(connection, None)
    }

    fn new(connection: Box<Connection>, home: Option<Arc<TlsLink>>) -> Self {
        Self {
            id: connection.last_stream,
            peer: Arc::clone(&connection.peer),
            connection: Some(connection),
            received: Received::Open,
            sent: Sent::Open,
            home,
        }
    }

    pub(crate) fn peer(&self) -> &GatewayId {
        &self.peer
    }

    /// When the certificates of its connection expire.
    pub(crate) fn expiry(&self) -> Expiry {
        let connection = self.connection.as_ref();
        Expiry {
            retire_at: connection.map_or(0, |connection| connection.retire_at),
            not_after: connection.map_or(0, |connection| connection.not_after),
        }
    }

    pub(crate) fn split(&mut self) -> (TlsReadHalf<'_>, TlsWriteHalf<'_>) {
        let Connection {
            socket,
            reader,
            writer,
            schedule,
            draining,
            ..
        } = self
            .connection
            .as_deref_mut()
            .expect("the connection is taken out only when the stream is consumed or dropped");
        (
            TlsReadHalf {
                socket,
                reader,
                schedule,
                id: self.id,
                received: &mut self.received,
                draining,
            },
            TlsWriteHalf {
                socket,
                writer,
                schedule,
                id: self.id,
                sent: &mut self.sent,
            },
        )
    }

    pub(crate) fn reset(&mut self, failure: Failure) {
        if let Some(connection) = &mut self.connection
            && self.sent != Sent::Broken
        {
            let code = Reason::Failed(failure).code();
            if connection
                .put(Kind::Reset, self.id, code.as_bytes())
                .is_ok()
            {
                let _ = connection.writer.try_flush(&connection.socket);
            }
        }
        self.sent = Sent::Broken;
        self.received = Received::Broken;
    }

    /// The connection, if the stream left it fit for another one.
    pub(super) fn into_connection(mut self) -> Option<Box<Connection>> {
        self.finish()
    }

    fn finish(&mut self) -> Option<Box<Connection>> {
        // An end that was put and not flushed would reach the peer only with the next stream.
        let is_sent = |connection: &Connection| connection.writer.is_flushed();
        if self.received == Received::Ended
            && self.sent == Sent::Ended
            && self.connection.as_deref().is_some_and(is_sent)
        {
            return self.connection.take();
        }
        self.reset(Failure::PeerReset);
        self.connection = None;
        None
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        let connection = self.finish();
        if let Some(home) = self.home.take() {
            home.take_back(connection);
        }
    }
}

/// The direction from the peer.
pub(crate) struct TlsReadHalf<'a> {
    socket: &'a TcpStream,
    reader: &'a mut Reader,
    schedule: &'a Mutex<Schedule>,
    id: u32,
    received: &'a mut Received,
    draining: &'a mut bool,
}

impl TlsReadHalf<'_> {
    pub(crate) async fn reply(&mut self) -> Result<StreamReply, StreamError> {
        match self.next().await? {
            Event::Frame {
                kind: Kind::Reply,
                payload,
                ..
            } => Ok(StreamReply::decode(&payload)?),
            Event::Frame { .. } | Event::Data { .. } | Event::Ended => {
                Err(self.broken("a stream that does not begin with its reply"))
            }
        }
    }

    pub(crate) async fn fill(&mut self) -> Result<Fill, StreamError> {
        match *self.received {
            Received::Open => {}
            Received::Ended => return Ok(Fill::End),
            Received::Broken => return Err(StreamError::Cut),
        }
        match self.next().await? {
            Event::Data { .. } => Ok(Fill::Data),
            Event::Frame {
                kind: Kind::End, ..
            } => {
                *self.received = Received::Ended;
                Ok(Fill::End)
            }
            Event::Frame { .. } | Event::Ended => {
                Err(self.broken("a frame that has no place in a stream"))
            }
        }
    }

    pub(crate) async fn cut(&mut self) -> StreamError {
        ready::closed(self.socket).await;
        StreamError::Cut
    }

    pub(crate) fn lend(
        &mut self,
        take: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.reader.lend(take)
    }

    /// The next event of this stream, everything that ends it already an error.
    async fn next(&mut self) -> Result<Event, StreamError> {
        loop {
            let event = match self.reader.next(self.socket, self.schedule).await {
                Ok(event) => event,
                Err(error) => {
                    *self.received = Received::Broken;
                    return Err(error);
                }
            };
            match event {
                Event::Frame {
                    kind: Kind::Drain, ..
                } => *self.draining = true,
                Event::Frame {
                    kind: Kind::Reset,
                    stream,
                    payload,
                } if stream == self.id => {
                    *self.received = Received::Broken;
                    return Err(StreamError::Reset(failure_of(&payload)));
                }
                Event::Ended
                | Event::Frame {
                    kind: Kind::Close, ..
                } => {
                    *self.received = Received::Broken;
                    return Err(StreamError::Cut);
                }
                Event::Data { stream } | Event::Frame { stream, .. } if stream != self.id => {
                    return Err(self.broken("a frame of a stream that is not open"));
                }
                Event::Data { .. } | Event::Frame { .. } => return Ok(event),
            }
        }
    }

    fn broken(&mut self, rule: &'static str) -> StreamError {
        *self.received = Received::Broken;
        StreamError::Protocol(rule)
    }
}

/// The failure a RESET names; a code we do not know is still a reset by the peer.
fn failure_of(payload: &[u8]) -> Failure {
    match std::str::from_utf8(payload)
        .ok()
        .and_then(Reason::from_code)
    {
        Some(Reason::Failed(failure)) => failure,
        Some(Reason::Completed | Reason::Refused(_)) | None => Failure::PeerReset,
    }
}

/// The direction to the peer.
pub(crate) struct TlsWriteHalf<'a> {
    socket: &'a TcpStream,
    writer: &'a mut Writer,
    schedule: &'a Mutex<Schedule>,
    id: u32,
    sent: &'a mut Sent,
}

impl TlsWriteHalf<'_> {
    pub(crate) fn put_reply(&mut self, reply: &StreamReply) -> Result<(), StreamError> {
        let mut payload = Vec::new();
        reply.encode(&mut payload);
        self.put(Kind::Reply, &payload)
    }

    pub(crate) fn put_end(&mut self) -> Result<(), StreamError> {
        self.put(Kind::End, &[])?;
        *self.sent = Sent::Ended;
        Ok(())
    }

    fn put(&mut self, kind: Kind, payload: &[u8]) -> Result<(), StreamError> {
        match *self.sent {
            Sent::Open => self.writer.put(self.schedule, kind, self.id, payload),
            Sent::Ended | Sent::Broken => Err(StreamError::Cut),
        }
    }

    pub(crate) fn lend(
        &mut self,
        want_bytes: usize,
        fill: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match *self.sent {
            Sent::Open => self.writer.lend(self.schedule, self.id, want_bytes, fill),
            Sent::Ended | Sent::Broken => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), StreamError> {
        let flushed = self.writer.flush(self.socket).await;
        if flushed.is_err() {
            *self.sent = Sent::Broken;
        }
        Ok(flushed?)
    }
}
