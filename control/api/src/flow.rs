//! Flows on a stream: UDP of many clients and services, carried between two gateways in small frames.
//!
//! A frame has the header of a tunnel frame, with the number of the flow where that has the stream's:
//!
//! ```text
//! type (u8) │ flags (u8) │ length (u16) │ flow (u32) │ payload
//! ```
//!
//! [`FlowFrames`] takes bytes in any pieces and yields frames. It holds what has come of one frame and what it was fed
//! last, no more. Where a transport has datagrams of its own, a [`FlowNumber`] stands in front of the bytes of each.

use std::fmt;

use corinth_model::{Failure, Reason};

use crate::{HEADER_MAX_BYTES, HeaderError, StreamOpen, StreamReply};

/// The most that a UDP datagram can hold: 65,535 less its own header, over IPv6.
pub const DATAGRAM_MAX_BYTES: usize = 65_527;

/// In front of every payload.
const FRAME_HEADER_BYTES: usize = 8;
/// A receiver that does not know the type skips the frame.
const MAY_IGNORE: u8 = 0x80;
/// Bytes of the code of a reason.
const CODE_BYTES: usize = 6;

/// The number of a flow on its stream, chosen by whoever opened the stream, from 1 upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowNumber(u32);

/// One frame of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowFrame<'a> {
    /// Opens a flow; from the opener of the stream only. A header that breaks a rule concerns this flow alone.
    Open(FlowNumber, Box<Result<StreamOpen, HeaderError>>),
    /// Answers it once.
    Reply(FlowNumber, Result<StreamReply, HeaderError>),
    /// One datagram, which may be empty.
    Data(FlowNumber, &'a [u8]),
    /// The flow is over.
    End(FlowNumber, Reason),
}

/// Why bytes of a peer are not frames of flows. The stream is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// A type that is unknown here and may not be skipped.
    #[error("a frame of a flow has the unknown type {0}")]
    UnknownType(u8),
    /// A payload longer than its type allows.
    #[error("a frame of a flow has a payload of {0} bytes, more than its type allows")]
    TooLong(usize),
    /// The number 0.
    #[error("a frame of a flow has no number")]
    NoNumber,
    /// An END whose payload is neither empty nor a code.
    #[error("the end of a flow names no code")]
    NoCode,
}

/// The type of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open = 1,
    Reply = 2,
    Data = 3,
    End = 4,
}

impl FlowNumber {
    /// The first of a stream.
    pub const FIRST: Self = Self(1);

    /// A number that may stand on the wire; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The number itself.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The one after it; `None` where they are used up.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// Writes it as a QUIC varint (RFC 9000 §16), as it stands in front of a datagram.
    pub fn put(self, out: &mut Vec<u8>) {
        match self.0 {
            number @ 0..0x40 => out.push(number as u8),
            number @ 0x40..0x4000 => out.extend((number as u16 | 0x4000).to_be_bytes()),
            number @ 0x4000..0x4000_0000 => out.extend((number | 0x8000_0000).to_be_bytes()),
            number => out.extend((u64::from(number) | 0xC000_0000_0000_0000).to_be_bytes()),
        }
    }

    /// Reads it off the front of a datagram; what follows is the content. `None` if no number stands there.
    pub fn take(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let first = *datagram.first()?;
        let length = 1_usize << (first >> 6);
        let (number, rest) = datagram.split_at_checked(length)?;
        let number = number
            .iter()
            .skip(1)
            .fold(u64::from(first & 0x3F), |sum, byte| {
                (sum << 8) | u64::from(*byte)
            });
        let number = u32::try_from(number).ok().and_then(Self::new)?;
        Some((number, rest))
    }
}

impl fmt::Display for FlowNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FlowFrame<'_> {
    /// Appends a frame that opens a flow.
    pub fn put_open(flow: FlowNumber, open: &StreamOpen, out: &mut Vec<u8>) {
        put(Kind::Open, flow, out, |out| open.encode(out));
    }

    /// Appends the answer to one.
    pub fn put_reply(flow: FlowNumber, reply: &StreamReply, out: &mut Vec<u8>) {
        put(Kind::Reply, flow, out, |out| reply.encode(out));
    }

    /// Appends a frame with a datagram; `false`, and nothing is appended, if none is that large.
    #[must_use = "what is too large is not carried"]
    pub fn put_data(flow: FlowNumber, datagram: &[u8], out: &mut Vec<u8>) -> bool {
        let fits = datagram.len() <= DATAGRAM_MAX_BYTES;
        if fits {
            put(Kind::Data, flow, out, |out| out.extend_from_slice(datagram));
        }
        fits
    }

    /// Appends the end of a flow.
    pub fn put_end(flow: FlowNumber, reason: Reason, out: &mut Vec<u8>) {
        put(Kind::End, flow, out, |out| {
            if reason != Reason::Completed {
                out.extend_from_slice(reason.code().as_bytes());
            }
        });
    }
}

fn put(kind: Kind, flow: FlowNumber, out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend([kind as u8, 0, 0, 0]);
    out.extend(flow.0.to_be_bytes());
    payload(out);
    let length = out.len() - begin - FRAME_HEADER_BYTES;
    let length = u16::try_from(length).expect("headers, replies and datagrams are shorter");
    out[begin + 2..begin + 4].copy_from_slice(&length.to_be_bytes());
}

/// Makes frames of bytes.
#[derive(Debug, Default)]
pub struct FlowFrames {
    bytes: Vec<u8>,
    /// So many of them were taken.
    taken: usize,
}

/// A header whose payload may not be there yet.
struct Header {
    /// `None` for a frame that is to be skipped.
    kind: Option<Kind>,
    flow: u32,
    length: usize,
}

impl FlowFrames {
    /// Takes the bytes that came next. Frames are to be taken before more is fed.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next whole frame; `None` where more bytes are needed.
    ///
    /// # Errors
    /// What the peer wrote breaks a rule; nothing after it can be read.
    pub fn take(&mut self) -> Result<Option<FlowFrame<'_>>, FlowError> {
        loop {
            let left = &self.bytes[self.taken..];
            let Some((header, rest)) = left.split_first_chunk::<FRAME_HEADER_BYTES>() else {
                return Ok(None);
            };
            let Header { kind, flow, length } = Header::read(header)?;
            if rest.len() < length {
                return Ok(None);
            }
            let begin = self.taken + FRAME_HEADER_BYTES;
            self.taken = begin + length;
            if let Some(kind) = kind {
                let flow = FlowNumber::new(flow).ok_or(FlowError::NoNumber)?;
                let payload = &self.bytes[begin..begin + length];
                return frame(kind, flow, payload).map(Some);
            }
        }
    }
}

impl Header {
    fn read(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FlowError> {
        let [kind, flags, length @ .., a, b, c, d] = *bytes;
        let length = usize::from(u16::from_be_bytes(length));
        let (kind, longest) = match kind {
            1 => (Some(Kind::Open), HEADER_MAX_BYTES),
            2 => (Some(Kind::Reply), HEADER_MAX_BYTES),
            3 => (Some(Kind::Data), DATAGRAM_MAX_BYTES),
            4 => (Some(Kind::End), CODE_BYTES),
            _ if flags & MAY_IGNORE != 0 => (None, usize::from(u16::MAX)),
            unknown => return Err(FlowError::UnknownType(unknown)),
        };
        if length > longest {
            return Err(FlowError::TooLong(length));
        }
        Ok(Self {
            kind,
            flow: u32::from_be_bytes([a, b, c, d]),
            length,
        })
    }
}

fn frame(kind: Kind, flow: FlowNumber, payload: &[u8]) -> Result<FlowFrame<'_>, FlowError> {
    Ok(match kind {
        Kind::Open => FlowFrame::Open(flow, Box::new(StreamOpen::decode(payload))),
        Kind::Reply => FlowFrame::Reply(flow, StreamReply::decode(payload)),
        Kind::Data => FlowFrame::Data(flow, payload),
        Kind::End if payload.is_empty() => FlowFrame::End(flow, Reason::Completed),
        Kind::End if payload.len() == CODE_BYTES => {
            let known = str::from_utf8(payload).ok().and_then(Reason::from_code);
            // A code that is unknown here ends the flow all the same.
            FlowFrame::End(flow, known.unwrap_or(Reason::Failed(Failure::PeerReset)))
        }
        Kind::End => return Err(FlowError::NoCode),
    })
}

#[cfg(test)]
mod tests;
