//! What goes over control connections, and the first bytes of every connection.
//!
//! A connection of ours opens with a preamble of 32 bytes: magic (8), version (2), kind (1), zero (1), test (16),
//! connection (4); numbers are big-endian. After the preamble of a control connection both sides send messages: a
//! length (4 bytes) and that much JSON. The way a refusal is sent never changes, so that a server of any version can
//! refuse a client of any other in words.

use std::{
    fmt,
    io::{self, Read, Write},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    result::{Cost, Datagrams, Environment, Interval},
    spec::TestSpec,
};

/// Changes whenever a server of before would misunderstand a client of after.
pub const VERSION: u16 = 1;

/// No text protocol begins like this.
pub const MAGIC: [u8; 8] = *b"\0CRNPERF";

/// Length of a preamble.
pub const PREAMBLE_BYTES: usize = 32;

/// A client has nothing long to say.
pub const ASK_MAX_BYTES: usize = 64 << 10;

/// A report has room for some thousand intervals.
pub const TELL_MAX_BYTES: usize = 4 << 20;

/// Names a running test; whoever knows it may connect to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TestId(pub [u8; 16]);

impl fmt::Debug for TestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestId({:032x})", u128::from_be_bytes(self.0))
    }
}

impl TestId {
    /// As text, for JSON.
    pub fn to_hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// From such text.
    pub fn from_hex(text: &str) -> Option<Self> {
        (text.len() == 32).then_some(())?;
        let number = u128::from_str_radix(text, 16).ok()?;
        Some(Self(number.to_be_bytes()))
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Messages about a new test.
    Control,
    /// Payload of a test.
    Data,
    /// Messages about a test whose control connection broke.
    Resume,
}

/// The first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// What it is for.
    pub kind: Kind,
    /// The test it belongs to; zero for a control connection.
    pub test: TestId,
    /// Its number within the test.
    pub connection: u32,
}

/// Why the first bytes are no preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PreambleFault {
    /// Somebody else's protocol.
    #[error("it does not begin as corinth-perf does")]
    NotOurs,
    /// Ours, of another version.
    #[error("it speaks version {0} of the protocol of corinth-perf, this is version {VERSION}")]
    OtherVersion(u16),
    /// Nothing this version knows.
    #[error("it asks for a kind of connection ({0}) that does not exist")]
    UnknownKind(u8),
}

impl Preamble {
    /// For the first message of a client.
    pub const CONTROL: Self = Self {
        kind: Kind::Control,
        test: TestId([0; 16]),
        connection: 0,
    };

    /// As bytes.
    pub fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_be_bytes());
        bytes[10] = match self.kind {
            Kind::Control => 0,
            Kind::Data => 1,
            Kind::Resume => 2,
        };
        bytes[12..28].copy_from_slice(&self.test.0);
        bytes[28..32].copy_from_slice(&self.connection.to_be_bytes());
        bytes
    }

    /// From bytes.
    pub fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Result<Self, PreambleFault> {
        let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, kind, _, rest @ ..] = *bytes;
        if [m0, m1, m2, m3, m4, m5, m6, m7] != MAGIC {
            return Err(PreambleFault::NotOurs);
        }
        let version = u16::from_be_bytes([v0, v1]);
        if version != VERSION {
            return Err(PreambleFault::OtherVersion(version));
        }
        let kind = match kind {
            0 => Kind::Control,
            1 => Kind::Data,
            2 => Kind::Resume,
            unknown => return Err(PreambleFault::UnknownKind(unknown)),
        };
        let mut test = [0; 16];
        let mut connection = [0; 4];
        test.copy_from_slice(&rest[..16]);
        connection.copy_from_slice(&rest[16..]);
        Ok(Self {
            kind,
            test: TestId(test),
            connection: u32::from_be_bytes(connection),
        })
    }
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// May this be run?
    Open {
        /// This.
        spec: Box<TestSpec>,
        /// What the operator of the server demands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
    },
    /// All data connections are there.
    Start,
    /// The client still lives.
    Ping,
    /// It is over: what did you count?
    Stop,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// No, and why.
    Refused(String),
    /// Yes; data connections name this test.
    Accepted {
        /// Its [`TestId`].
        test: String,
    },
    /// Time runs.
    Started,
    /// The server still lives.
    Pong,
    /// What the server counted.
    Report(Box<Report>),
}

/// The server's part of the result.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// How long it counted, without what was omitted.
    pub seconds: f64,
    /// Of each connection on which the server sends: bytes given to the kernel.
    #[serde(default)]
    pub sent_bytes: Vec<u64>,
    /// Of each connection on which the server receives: bytes that came.
    #[serde(default)]
    pub received_bytes: Vec<u64>,
    /// Segments sent again by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u64>,
    /// Sums over time, of what the server received.
    #[serde(default)]
    pub intervals: Vec<Interval>,
    /// Requests it answered.
    #[serde(default)]
    pub answered: u64,
    /// Requests it got more than once.
    #[serde(default)]
    pub duplicated: u64,
    /// Bytes it compared with the pattern.
    #[serde(default)]
    pub verified_bytes: u64,
    /// Connections on which it found something else.
    #[serde(default)]
    pub corrupt_connections: u32,
    /// Datagrams that came from the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagrams: Option<Datagrams>,
    /// Datagrams it sent while it counted.
    #[serde(default)]
    pub datagrams_sent: u64,
    /// What stopped it before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The server ended the test, not the client.
    #[serde(default)]
    pub is_early: bool,
    /// Its machine.
    #[serde(default)]
    pub environment: Environment,
    /// What it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// Writes one message.
pub fn write_message(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(4 + text.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&text);
    to.write_all(&bytes)
}

/// Reads one message of at most `max_bytes`.
pub fn read_message<T: DeserializeOwned>(from: &mut impl Read, max_bytes: usize) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > max_bytes {
        return Err(invalid(format!(
            "a message of {length} bytes, more than {max_bytes}"
        )));
    }
    // Grows with what really comes, so that a length alone costs nothing.
    let mut text = Vec::new();
    from.take(length as u64).read_to_end(&mut text)?;
    if text.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&text)
        .map_err(|error| invalid(format!("a message that is not understood: {error}")))
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests;
