//! The frames of a tunnel connection (docs/protocol.md, frames): eight bytes of header, then the payload.

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 8;
/// The most payload one frame carries, so that frame and header fill one record.
pub(crate) const PAYLOAD_MAX_BYTES: usize = super::record::PLAINTEXT_MAX_BYTES - HEADER_BYTES;
/// The code of a reason, as RESET and CLOSE carry it.
const CODE_BYTES: usize = 6;
/// A role, flags and nonces.
const PROBE_MAX_BYTES: usize = 11;
/// A receiver that does not know the type skips the frame instead of closing.
const MAY_IGNORE: u8 = 0x80;

/// The flag of PONG and DRAIN senders: open no more streams here.
const DRAINING: u8 = 1;
/// Above this flag of a PONG: the number of a worker.
const WORKER_SHIFT: u32 = 1;
/// Of that only so many bits.
const WORKER_MAX: u8 = 0x3f;
/// The flag of PING and PONG senders: what we send here is more than the path takes.
const FILLED: u8 = 0x80;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Open = 1,
    Reply = 2,
    Data = 3,
    End = 4,
    Reset = 5,
    Ping = 6,
    Pong = 7,
    Drain = 8,
    Close = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Open,
            2 => Self::Reply,
            3 => Self::Data,
            4 => Self::End,
            5 => Self::Reset,
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::Drain,
            9 => Self::Close,
            _ => return None,
        })
    }

    fn payload_max_bytes(self) -> usize {
        match self {
            Self::Open | Self::Reply => corinth_api::HEADER_MAX_BYTES,
            Self::Data => PAYLOAD_MAX_BYTES,
            Self::Reset | Self::Close => CODE_BYTES,
            Self::Ping | Self::Pong => PROBE_MAX_BYTES,
            Self::End | Self::Drain => 0,
        }
    }
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// `None` for a type we do not know and may skip.
    pub(crate) kind: Option<Kind>,
    pub(crate) length: usize,
    pub(crate) stream: u32,
}

/// The header of a frame we send; `length` is at most [`PAYLOAD_MAX_BYTES`].
pub(crate) fn encode(kind: Kind, length: usize, stream: u32) -> [u8; HEADER_BYTES] {
    let length = (length as u16).to_be_bytes();
    let stream = stream.to_be_bytes();
    [
        kind as u8, 0, length[0], length[1], stream[0], stream[1], stream[2], stream[3],
    ]
}

/// Reads a header; the error names the rule that was broken.
pub(crate) fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Header, &'static str> {
    let [kind, flags, high, low, stream @ ..] = bytes;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let stream = u32::from_be_bytes(stream);
    let Some(kind) = Kind::from_byte(kind) else {
        return if flags & MAY_IGNORE != 0 && length <= PAYLOAD_MAX_BYTES {
            Ok(Header {
                kind: None,
                length,
                stream,
            })
        } else {
            Err("a frame of an unknown type that may not be ignored")
        };
    };
    if length > kind.payload_max_bytes() {
        return Err("a frame longer than its type allows");
    }
    Ok(Header {
        kind: Some(kind),
        length,
        stream,
    })
}

/// What a PING says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ping {
    /// Of the connection and, over QUIC, of whoever drives it.
    pub(crate) role: u8,
    /// What its sender sends is more than the path takes. The first one of a connection has no such flag.
    pub(crate) is_filled: bool,
    /// The answer has it too.
    pub(crate) nonce: u64,
}

impl Ping {
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (rest, nonce) = payload.split_last_chunk::<8>()?;
        let (role, rest) = rest.split_first()?;
        Some(Self {
            role: *role,
            is_filled: rest.first().is_some_and(|flags| flags & FILLED != 0),
            nonce: u64::from_be_bytes(*nonce),
        })
    }

    pub(crate) fn write(&self) -> [u8; 10] {
        let mut payload = [0; 10];
        payload[0] = self.role;
        payload[1] = if self.is_filled { FILLED } else { 0 };
        payload[2..].copy_from_slice(&self.nonce.to_be_bytes());
        payload
    }
}

/// What a PONG says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pong {
    /// That of the PING.
    pub(crate) nonce: u64,
    /// How many gateways the cluster of the answering one runs.
    pub(crate) slots: u16,
    pub(crate) draining: bool,
    /// Over QUIC the worker that drives the connection, below 64; else 0.
    pub(crate) worker: u8,
    /// What its sender sends is more than the path takes.
    pub(crate) is_filled: bool,
}

impl Pong {
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (nonce, rest) = payload.split_first_chunk::<8>()?;
        let (slots, rest) = rest.split_first_chunk::<2>()?;
        let flags = rest.first().copied().unwrap_or(0);
        Some(Self {
            nonce: u64::from_be_bytes(*nonce),
            slots: u16::from_be_bytes(*slots),
            draining: flags & DRAINING != 0,
            worker: (flags >> WORKER_SHIFT) & WORKER_MAX,
            is_filled: flags & FILLED != 0,
        })
    }

    pub(crate) fn write(&self) -> [u8; 11] {
        let mut payload = [0; 11];
        payload[..8].copy_from_slice(&self.nonce.to_be_bytes());
        payload[8..10].copy_from_slice(&self.slots.to_be_bytes());
        payload[10] = (self.worker & WORKER_MAX) << WORKER_SHIFT;
        if self.draining {
            payload[10] |= DRAINING;
        }
        if self.is_filled {
            payload[10] |= FILLED;
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        for kind in 1..=9 {
            let kind = Kind::from_byte(kind).unwrap();
            let length = kind.payload_max_bytes();
            let header = decode(encode(kind, length, 0xdead_beef)).unwrap();
            assert_eq!(
                header,
                Header {
                    kind: Some(kind),
                    length,
                    stream: 0xdead_beef
                }
            );
        }
    }

    #[test]
    fn a_pong_survives_the_wire() {
        for (draining, worker) in [(false, 0), (true, 0), (false, WORKER_MAX), (true, 5)] {
            for is_filled in [false, true] {
                let pong = Pong {
                    nonce: 0xdead_beef,
                    slots: 3,
                    draining,
                    worker,
                    is_filled,
                };
                assert_eq!(Pong::read(&pong.write()), Some(pong));
            }
        }
        assert_eq!(Pong::read(&[0; 9]), None);
    }

    #[test]
    fn a_ping_survives_the_wire_and_the_first_one_has_no_flags() {
        for is_filled in [false, true] {
            let ping = Ping {
                role: 0xfe,
                is_filled,
                nonce: 0xdead_beef,
            };
            assert_eq!(Ping::read(&ping.write()), Some(ping));
        }
        let first = Ping {
            role: 2,
            is_filled: false,
            nonce: 1,
        };
        assert_eq!(Ping::read(&[2, 0, 0, 0, 0, 0, 0, 0, 1]), Some(first));
        assert_eq!(Ping::read(&[2; 8]), None);
    }

    #[test]
    fn an_unknown_type_is_skipped_only_where_its_sender_says_so() {
        assert!(decode([77, 0, 0, 4, 0, 0, 0, 1]).is_err());
        assert_eq!(
            decode([77, MAY_IGNORE, 0, 4, 0, 0, 0, 1]).unwrap().kind,
            None
        );
        assert!(decode([0, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_frame_is_refused_exactly_beyond_the_limit_of_its_type() {
        let with_length = |kind: Kind, length: u16| {
            let [high, low] = length.to_be_bytes();
            decode([kind as u8, 0, high, low, 0, 0, 0, 1])
        };
        assert!(with_length(Kind::Data, 16_376).is_ok());
        assert!(with_length(Kind::Data, 16_377).is_err());
        assert!(with_length(Kind::Open, 4_096).is_ok());
        assert!(with_length(Kind::Open, 4_097).is_err());
        assert!(with_length(Kind::Reset, 7).is_err());
        assert!(with_length(Kind::Ping, 12).is_err());
        assert!(with_length(Kind::End, 1).is_err());
    }
}
