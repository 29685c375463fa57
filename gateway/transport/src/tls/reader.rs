//! Reads frames from a tunnel connection without copying their payload.
//!
//! One buffer holds, from front to back: chunks that are lent out, opened plaintext not yet looked at,
//! sealed records, free room. Records are opened in place; DATA payloads inside them become lent chunks;
//! parsing stops at the first frame that is not DATA until the chunks before it are consumed, so that
//! order is kept. While nothing is buffered the connection holds no buffer at all.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    ops::Range,
};

use tokio::net::TcpStream;

use super::{
    frame::{self, Kind},
    record::{Opened, Opener, RecordError, Schedule},
};
use crate::{
    StreamError,
    buffer::{Buffer, SLICES_MAX, Size},
    ready,
};

/// What comes next on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Payload of this stream can be lent.
    Data { stream: u32 },
    /// A frame of another kind, with its payload.
    Frame {
        kind: Kind,
        stream: u32,
        payload: Vec<u8>,
    },
    /// The peer's TLS ended, or its TCP did.
    Ended,
}

/// The receiving side of one connection.
pub(super) struct Reader {
    opener: Opener,
    buffer: Option<Buffer>,
    /// Size of the next buffer to take: follows what the socket gives.
    size: Size,
    /// Payload chunks lent out, in order, all before `plain.start`.
    chunks: VecDeque<Range<usize>>,
    /// The stream the chunks belong to.
    chunk_stream: u32,
    /// Opened but not yet parsed.
    plain: Range<usize>,
    /// Received but not yet opened: `plain.end` ≤ `sealed.start` in the buffer.
    sealed: Range<usize>,
    partial: Partial,
    /// The frame parsing stopped at, to be told after the chunks before it.
    next: Option<Event>,
    ended: bool,
}

/// A frame that is not there in full.
enum Partial {
    /// This much of its header.
    Header {
        bytes: [u8; frame::HEADER_BYTES],
        have: usize,
    },
    /// DATA with this much payload to come.
    Data { stream: u32, left: usize },
    /// A small frame with this much payload to come.
    Small {
        kind: Kind,
        stream: u32,
        left: usize,
        payload: Vec<u8>,
    },
    /// A frame to skip.
    Skipped { left: usize },
}

impl Partial {
    const NONE: Self = Self::Header {
        bytes: [0; frame::HEADER_BYTES],
        have: 0,
    };
}

impl Reader {
    pub(super) fn new(opener: Opener) -> Self {
        Self {
            opener,
            buffer: None,
            size: Size::Medium,
            chunks: VecDeque::new(),
            chunk_stream: 0,
            plain: 0..0,
            sealed: 0..0,
            partial: Partial::NONE,
            next: None,
            ended: false,
        }
    }

    /// Hands over what the handshake read beyond its own end.
    pub(super) fn preload(&mut self, sealed: &[u8]) {
        if sealed.is_empty() {
            return;
        }
        let mut buffer = Buffer::take(Size::holding(sealed.len().max(Size::Medium.bytes())));
        buffer[..sealed.len()].copy_from_slice(sealed);
        self.sealed = 0..sealed.len();
        self.buffer = Some(buffer);
    }

    /// Hands over application data that was opened during the handshake.
    pub(super) fn preload_plain(&mut self, plain: &[u8]) -> Result<(), StreamError> {
        if plain.is_empty() {
            return Ok(());
        }
        let sealed = self.sealed.len();
        let total = plain.len() + sealed;
        let mut buffer = Buffer::take(Size::holding(total.max(Size::Medium.bytes())));
        if total > buffer.len() {
            return Err(StreamError::Protocol("too much data with the handshake"));
        }
        buffer[..plain.len()].copy_from_slice(plain);
        if let Some(old) = self.buffer.take() {
            buffer[plain.len()..total].copy_from_slice(&old[self.sealed.clone()]);
        }
        self.plain = 0..plain.len();
        self.sealed = plain.len()..total;
        self.buffer = Some(buffer);
        Ok(())
    }

    /// Waits for what comes next. While chunks are left it is always their `Data`. Cancel-safe.
    pub(super) async fn next(
        &mut self,
        socket: &TcpStream,
        schedule: &parking_lot::Mutex<Schedule>,
    ) -> Result<Event, StreamError> {
        loop {
            if let Some(event) = self.poll_buffered(schedule)? {
                return Ok(event);
            }
            match self.receive(socket) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.release_if_empty();
                    ready::readable(socket).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Like [`Self::next`] for a caller that does not wait: `None` when nothing is there now.
    pub(super) fn try_next(
        &mut self,
        socket: &TcpStream,
        schedule: &parking_lot::Mutex<Schedule>,
    ) -> Result<Option<Event>, StreamError> {
        loop {
            if let Some(event) = self.poll_buffered(schedule)? {
                return Ok(Some(event));
            }
            match self.receive(socket) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.release_if_empty();
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lends the chunks that are there; `take` answers how many bytes it took.
    pub(super) fn lend(
        &mut self,
        take: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(buffer) = &self.buffer else {
            return Ok(0);
        };
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(&buffer[chunk.clone()]);
            count += 1;
        }
        let taken = take(&slices[..count])?;
        self.consume(taken);
        Ok(taken)
    }

    fn consume(&mut self, mut bytes: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.len() > bytes {
                chunk.start += bytes;
                return;
            }
            bytes -= chunk.len();
            self.chunks.pop_front();
        }
    }

    /// Opens and parses what the buffer holds until there is something to tell.
    fn poll_buffered(
        &mut self,
        schedule: &parking_lot::Mutex<Schedule>,
    ) -> Result<Option<Event>, StreamError> {
        loop {
            if self.next.is_some() || self.chunks.len() == SLICES_MAX {
                break;
            }
            if !self.plain.is_empty() {
                self.parse()?;
            } else if !self.open_record(schedule)? {
                break;
            }
        }
        if !self.chunks.is_empty() {
            return Ok(Some(Event::Data {
                stream: self.chunk_stream,
            }));
        }
        if self.next.is_some() {
            return Ok(self.next.take());
        }
        if self.ended {
            return Ok(Some(Event::Ended));
        }
        Ok(None)
    }

    /// Opens the next whole record; `false` when there is none.
    fn open_record(
        &mut self,
        schedule: &parking_lot::Mutex<Schedule>,
    ) -> Result<bool, StreamError> {
        let Some(buffer) = &mut self.buffer else {
            return Ok(false);
        };
        let sealed = &mut buffer[self.sealed.clone()];
        let Some(length) = Opener::record_length(sealed).map_err(protocol)? else {
            return Ok(false);
        };
        if length > sealed.len() {
            return Ok(false);
        }
        let opened = self
            .opener
            .open(&mut schedule.lock(), &mut sealed[..length])
            .map_err(protocol)?;
        let start = self.sealed.start + super::record::HEADER_BYTES;
        self.sealed.start += length;
        match opened {
            Opened::Data(bytes) => self.plain = start..start + bytes,
            Opened::Nothing => {}
            Opened::CloseNotify => {
                self.ended = true;
                self.sealed.start = self.sealed.end;
            }
        }
        Ok(true)
    }

    /// Parses the opened plaintext up to its end or to a frame that must wait for the chunks before it.
    fn parse(&mut self) -> Result<(), StreamError> {
        while !self.plain.is_empty() && self.next.is_none() && self.chunks.len() < SLICES_MAX {
            let Some(buffer) = &self.buffer else {
                return Ok(());
            };
            let plain = &buffer[self.plain.clone()];
            let taken = match &mut self.partial {
                Partial::Header { bytes, have } => {
                    let take = plain.len().min(bytes.len() - *have);
                    bytes[*have..*have + take].copy_from_slice(&plain[..take]);
                    *have += take;
                    take
                }
                Partial::Data { stream, left } => {
                    if !self.chunks.is_empty() && self.chunk_stream != *stream {
                        return Err(StreamError::Protocol("two streams on one connection"));
                    }
                    self.chunk_stream = *stream;
                    let take = plain.len().min(*left);
                    self.chunks
                        .push_back(self.plain.start..self.plain.start + take);
                    *left -= take;
                    take
                }
                Partial::Small { left, payload, .. } => {
                    let take = plain.len().min(*left);
                    payload.extend_from_slice(&plain[..take]);
                    *left -= take;
                    take
                }
                Partial::Skipped { left } => {
                    let take = plain.len().min(*left);
                    *left -= take;
                    take
                }
            };
            self.plain.start += taken;
            self.advance()?;
        }
        Ok(())
    }

    /// Goes on to the next part of the frame, or to the next frame, where this one is complete.
    fn advance(&mut self) -> Result<(), StreamError> {
        match &mut self.partial {
            Partial::Header { bytes, have } if *have == bytes.len() => {
                let header = frame::decode(*bytes).map_err(StreamError::Protocol)?;
                self.begin(header)?;
            }
            Partial::Small { left: 0, .. } => self.finish_small(),
            Partial::Data { left: 0, .. } | Partial::Skipped { left: 0 } => {
                self.partial = Partial::NONE;
            }
            Partial::Header { .. }
            | Partial::Small { .. }
            | Partial::Data { .. }
            | Partial::Skipped { .. } => {}
        }
        Ok(())
    }

    fn begin(&mut self, header: frame::Header) -> Result<(), StreamError> {
        let frame::Header {
            kind,
            length,
            stream,
        } = header;
        self.partial = match kind {
            Some(Kind::Data) if length == 0 => {
                return Err(StreamError::Protocol("an empty DATA frame"));
            }
            Some(Kind::Data) => Partial::Data {
                stream,
                left: length,
            },
            Some(kind) => Partial::Small {
                kind,
                stream,
                left: length,
                payload: Vec::with_capacity(length),
            },
            None if length == 0 => Partial::NONE,
            None => Partial::Skipped { left: length },
        };
        if length == 0 {
            self.finish_small();
        }
        Ok(())
    }

    fn finish_small(&mut self) {
        if let Partial::Small {
            kind,
            stream,
            payload,
            ..
        } = std::mem::replace(&mut self.partial, Partial::NONE)
        {
            self.next = Some(Event::Frame {
                kind,
                stream,
                payload,
            });
        }
    }

    /// One read from the socket into the free room.
    fn receive(&mut self, socket: &TcpStream) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        self.make_room();
        let buffer = self.buffer.get_or_insert_with(|| Buffer::take(self.size));
        let room = &mut buffer[self.sealed.end..];
        let room_bytes = room.len();
        let received = ready::try_read(socket, room)?;
        self.sealed.end += received;
        if received == 0 {
            self.ended = true;
        } else if received == room_bytes {
            self.size = self.size.up();
        } else if received < self.size.down().bytes() / 2 && self.size > Size::Medium {
            self.size = self.size.down();
        }
        Ok(())
    }

    /// Everything opened is consumed when this is called: only a part of a record may be left. It moves
    /// to the front, of a larger buffer where this one cannot hold the record or reads come back full.
    fn make_room(&mut self) {
        let Some(buffer) = &mut self.buffer else {
            return;
        };
        let part = self.sealed.clone();
        let fits = buffer.len() >= super::record::RECORD_MAX_BYTES && buffer.size() >= self.size;
        if fits {
            if part.start > 0 {
                buffer.copy_within(part.clone(), 0);
            }
        } else {
            let size = self
                .size
                .max(Size::holding(super::record::RECORD_MAX_BYTES));
            let mut larger = Buffer::take(size);
            larger[..part.len()].copy_from_slice(&buffer[part.clone()]);
            *buffer = larger;
        }
        self.plain = 0..0;
        self.sealed = 0..part.len();
    }

    fn release_if_empty(&mut self) {
        if self.sealed.is_empty() && self.plain.is_empty() && self.chunks.is_empty() {
            self.buffer = None;
            self.sealed = 0..0;
            self.plain = 0..0;
        }
    }
}

fn protocol(error: RecordError) -> StreamError {
    StreamError::Protocol(match error {
        RecordError::Unprotected => "a record that is not protected application data",
        RecordError::TooLong => "a record longer than the limit",
        RecordError::BadMac => "a record that does not authenticate",
        RecordError::NoContentType => "a record without a content type",
        RecordError::UnexpectedHandshake => "a handshake message after the handshake",
        RecordError::Alert => "the peer sent a fatal alert",
        RecordError::KeyUpdateFlood => "too many key updates in a row",
        RecordError::KeysExhausted => "no further keys can be derived",
    })
}

#[cfg(test)]
impl Reader {
    pub(super) fn holds_no_buffer(&self) -> bool {
        self.buffer.is_none()
    }
}
