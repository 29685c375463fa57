//! The first words on a stream: what the near gateway asks for and what the far gateway answers.

use std::{fmt, net::IpAddr, time::Duration};

use corinth_model::{
    ClusterName, Failure, NameError, Namespace, Protocol, Reason, Refusal, RouteName,
};
use prost::Message;

use crate::wire::tunnel as wire;

/// The most bytes either message may take. A header with every field at its own limit stays well below.
pub const HEADER_MAX_BYTES: usize = 4096;

/// The most time a header may leave to a stream; a longer deadline is cut to this when it is written.
pub const DEADLINE_MAX: Duration = Duration::from_hours(24);

/// The most bytes of the name of a workload, as of any name in Kubernetes.
pub const WORKLOAD_MAX_BYTES: usize = 253;

/// The most bytes of the words beside the code of a refusal.
pub const REFUSAL_MESSAGE_MAX_BYTES: usize = 256;

/// What a near gateway asks for when it opens a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOpen {
    /// What the stream is for.
    pub kind: StreamKind,
    /// Who the near gateway believes is calling. For records; no decision may rest on it.
    pub claim: SourceClaim,
    /// How many attempts for the same client connection came before this one.
    pub attempt: u8,
    /// How many gateways the stream passed before the reader; the gateway that took the client writes 0.
    pub hops: u8,
    /// Time left until the client gives up, in whole milliseconds, at most [`DEADLINE_MAX`].
    pub deadline: Option<Duration>,
    /// Trace the stream belongs to.
    pub traceparent: Option<Traceparent>,
}

/// What a stream is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamKind {
    /// A connection to an exported service.
    Service {
        /// The service port asked for.
        route: RouteName,
        /// What the stream carries.
        protocol: Protocol,
    },
    /// A conversation between the two control planes; it has no route name, so no route can name it.
    Peering,
    /// Frames of flows, see [`FlowFrame`](crate::FlowFrame). It has no route name: each flow on it names its own.
    Flows,
}

/// The caller as the near gateway sees it; `None` where it does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceClaim {
    /// The caller's cluster.
    pub cluster: Option<ClusterName>,
    /// The namespace of the calling pod.
    pub namespace: Option<Namespace>,
    /// The calling workload.
    pub workload: Option<WorkloadName>,
    /// The address the connection came from.
    pub address: Option<IpAddr>,
}

/// Name of a workload: 1 to [`WORKLOAD_MAX_BYTES`] of `a-z`, `0-9`, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadName(Box<str>);

/// W3C trace context, level 1, section 3.2: `<version>-<trace id>-<parent id>-<flags>` in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traceparent(Box<str>);

/// What the far gateway answers to a [`StreamOpen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamReply {
    /// An endpoint's TCP connect succeeded.
    Accepted,
    /// The far gateway will not; nothing was delivered.
    Refused(Refusal),
    /// The far gateway tried and could not; nothing was delivered.
    Failed(Failure),
}

/// Why bytes of a peer are not a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// More bytes than [`HEADER_MAX_BYTES`].
    #[error("the header has {bytes} bytes; at most {HEADER_MAX_BYTES} are allowed")]
    TooLong {
        /// How many came.
        bytes: usize,
    },
    /// Truncated, followed by something else, or not protobuf at all.
    #[error("the header is not a well-formed message")]
    Malformed(#[source] prost::DecodeError),
    /// No kind, or one of a later version.
    #[error("the header asks for a kind of stream that is unknown here (number {0})")]
    UnknownKind(i32),
    /// No protocol, or one of a later version.
    #[error("the header asks for a protocol that is unknown here (number {0})")]
    UnknownProtocol(i32),
    /// The route name breaks a rule of names.
    #[error("the route name in the header is not valid")]
    Route(#[source] NameError),
    /// A stream between control planes that names a route or a protocol.
    #[error("a peering stream must name neither route nor protocol")]
    PeeringWithRoute,
    /// A stream for flows that names a route or a protocol.
    #[error("a stream for flows must name neither route nor protocol")]
    FlowsWithRoute,
    /// A field whose content breaks its rule.
    #[error("the field {field} in the header is not valid")]
    InvalidField {
        /// The field's name in the protocol file.
        field: &'static str,
    },
    /// A number beyond what its field allows.
    #[error("the field {field} in the header is {value}; at most {limit} is allowed")]
    OutOfRange {
        /// The field's name in the protocol file.
        field: &'static str,
        /// What came.
        value: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// An answer that is neither yes nor no.
    #[error("the reply holds no outcome")]
    NoOutcome,
    /// A refusal with a code that this version does not know.
    #[error(
        "the reply refuses with a code that is unknown here; is the peer newer than this gateway?"
    )]
    UnknownCode,
}

impl StreamOpen {
    /// A header for the first attempt of a stream about which nothing else is known.
    pub fn new(kind: StreamKind) -> Self {
        Self {
            kind,
            claim: SourceClaim::default(),
            attempt: 0,
            hops: 0,
            deadline: None,
            traceparent: None,
        }
    }

    /// Appends the wire form, at most [`HEADER_MAX_BYTES`] long. A part of a millisecond of the deadline is left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        append(&wire::StreamOpen::from(self), out);
    }

    /// Reads the wire form, which must fill `bytes` exactly. Fields of later versions are skipped.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        read::<wire::StreamOpen>(bytes)?.try_into()
    }
}

impl StreamReply {
    /// Appends the wire form, at most [`HEADER_MAX_BYTES`] long.
    pub fn encode(&self, out: &mut Vec<u8>) {
        append(&wire::StreamReply::from(*self), out);
    }

    /// Reads the wire form, which must fill `bytes` exactly. Fields of later versions are skipped.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        read::<wire::StreamReply>(bytes)?.try_into()
    }
}

impl WorkloadName {
    /// Takes a name that keeps the rule; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        let valid = (1..=WORKLOAD_MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed);
        valid.then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Traceparent {
    /// Takes a well-formed value; `None` for any other text, also for all-zero ids and the reserved version `ff`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let mut field = |digits: usize| {
            let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            fields
                .next()
                .filter(|field| field.len() == digits && field.bytes().all(hex))
        };
        let (version, trace, parent, _flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let zero = |field: &str| field.bytes().all(|byte| byte == b'0');
        let valid = fields.next().is_none() && version != "ff" && !zero(trace) && !zero(parent);
        valid.then(|| Self(text.into()))
    }

    /// The value as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&StreamOpen> for wire::StreamOpen {
    fn from(open: &StreamOpen) -> Self {
        let (kind, route, protocol) = match &open.kind {
            StreamKind::Service { route, protocol } => (
                wire::Kind::Service,
                route.to_string(),
                wire::Protocol::from(*protocol),
            ),
            StreamKind::Peering => (
                wire::Kind::Peering,
                String::new(),
                wire::Protocol::Unspecified,
            ),
            StreamKind::Flows => (
                wire::Kind::Flows,
                String::new(),
                wire::Protocol::Unspecified,
            ),
        };
        let claim =
            (open.claim != SourceClaim::default()).then(|| wire::SourceClaim::from(&open.claim));
        Self {
            kind: kind.into(),
            route,
            protocol: protocol.into(),
            claim,
            attempt: open.attempt.into(),
            hops: open.hops.into(),
            deadline_ms: open
                .deadline
                .map(|left| milliseconds(left.min(DEADLINE_MAX))),
            traceparent: open
                .traceparent
                .as_ref()
                .map(Traceparent::to_string)
                .unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::StreamOpen> for StreamOpen {
    type Error = HeaderError;

    fn try_from(open: wire::StreamOpen) -> Result<Self, HeaderError> {
        let kind = match wire::Kind::try_from(open.kind) {
            Ok(wire::Kind::Service) => StreamKind::Service {
                route: RouteName::parse(&open.route).map_err(HeaderError::Route)?,
                protocol: protocol(open.protocol)?,
            },
            Ok(wire::Kind::Peering) if open.route.is_empty() && open.protocol == 0 => {
                StreamKind::Peering
            }
            Ok(wire::Kind::Peering) => return Err(HeaderError::PeeringWithRoute),
            Ok(wire::Kind::Flows) if open.route.is_empty() && open.protocol == 0 => {
                StreamKind::Flows
            }
            Ok(wire::Kind::Flows) => return Err(HeaderError::FlowsWithRoute),
            Ok(wire::Kind::Unspecified) | Err(_) => {
                return Err(HeaderError::UnknownKind(open.kind));
            }
        };
        let deadline = match open.deadline_ms {
            Some(left) => {
                let left = at_most("deadline_ms", left, milliseconds(DEADLINE_MAX))?;
                Some(Duration::from_millis(left))
            }
            None => None,
        };
        Ok(Self {
            kind,
            claim: open.claim.unwrap_or_default().try_into()?,
            attempt: byte("attempt", open.attempt)?,
            hops: byte("hops", open.hops)?,
            deadline,
            traceparent: text("traceparent", &open.traceparent, Traceparent::parse)?,
        })
    }
}

impl From<&SourceClaim> for wire::SourceClaim {
    fn from(claim: &SourceClaim) -> Self {
        Self {
            cluster: claim
                .cluster
                .as_ref()
                .map(ClusterName::to_string)
                .unwrap_or_default(),
            namespace: claim
                .namespace
                .as_ref()
                .map(Namespace::to_string)
                .unwrap_or_default(),
            workload: claim
                .workload
                .as_ref()
                .map(WorkloadName::to_string)
                .unwrap_or_default(),
            address: match claim.address {
                Some(IpAddr::V4(address)) => address.octets().to_vec(),
                Some(IpAddr::V6(address)) => address.octets().to_vec(),
                None => Vec::new(),
            },
        }
    }
}

impl TryFrom<wire::SourceClaim> for SourceClaim {
    type Error = HeaderError;

    fn try_from(claim: wire::SourceClaim) -> Result<Self, HeaderError> {
        let address = match claim.address.len() {
            0 => None,
            4 => <[u8; 4]>::try_from(claim.address).ok().map(IpAddr::from),
            16 => <[u8; 16]>::try_from(claim.address).ok().map(IpAddr::from),
            _ => {
                return Err(HeaderError::InvalidField {
                    field: "claim.address",
                });
            }
        };
        Ok(Self {
            cluster: text("claim.cluster", &claim.cluster, |text| {
                ClusterName::parse(text).ok()
            })?,
            namespace: text("claim.namespace", &claim.namespace, |text| {
                Namespace::parse(text).ok()
            })?,
            workload: text("claim.workload", &claim.workload, WorkloadName::parse)?,
            address,
        })
    }
}

impl From<StreamReply> for wire::StreamReply {
    fn from(reply: StreamReply) -> Self {
        let reason = match reply {
            StreamReply::Accepted => {
                return Self {
                    outcome: Some(wire::stream_reply::Outcome::Accepted(wire::Accepted {})),
                };
            }
            StreamReply::Refused(refusal) => Reason::Refused(refusal),
            StreamReply::Failed(failure) => Reason::Failed(failure),
        };
        let refused = wire::Refused {
            code: reason.code().into(),
            message: reason.summary().into(),
        };
        Self {
            outcome: Some(wire::stream_reply::Outcome::Refused(refused)),
        }
    }
}

impl TryFrom<wire::StreamReply> for StreamReply {
    type Error = HeaderError;

    fn try_from(reply: wire::StreamReply) -> Result<Self, HeaderError> {
        let refused = match reply.outcome {
            Some(wire::stream_reply::Outcome::Accepted(_)) => return Ok(Self::Accepted),
            Some(wire::stream_reply::Outcome::Refused(refused)) => refused,
            None => return Err(HeaderError::NoOutcome),
        };
        // The words are for a reader without our table of codes; we show our own, so only their size matters.
        at_most(
            "message",
            refused.message.len() as u64,
            REFUSAL_MESSAGE_MAX_BYTES as u64,
        )?;
        match Reason::from_code(&refused.code) {
            Some(Reason::Refused(refusal)) => Ok(Self::Refused(refusal)),
            Some(Reason::Failed(failure)) => Ok(Self::Failed(failure)),
            Some(Reason::Completed) | None => Err(HeaderError::UnknownCode),
        }
    }
}

impl From<Protocol> for wire::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

fn protocol(number: i32) -> Result<Protocol, HeaderError> {
    match wire::Protocol::try_from(number) {
        Ok(wire::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(wire::Protocol::Udp) => Ok(Protocol::Udp),
        Ok(wire::Protocol::Unspecified) | Err(_) => Err(HeaderError::UnknownProtocol(number)),
    }
}

fn append(message: &impl Message, out: &mut Vec<u8>) {
    message.encode(out).expect("a Vec makes the room it needs");
}

fn read<M: Message + Default>(bytes: &[u8]) -> Result<M, HeaderError> {
    if bytes.len() > HEADER_MAX_BYTES {
        return Err(HeaderError::TooLong { bytes: bytes.len() });
    }
    M::decode(bytes).map_err(HeaderError::Malformed)
}

/// Parses a text field that is empty where the value is not known.
fn text<T>(
    field: &'static str,
    text: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, HeaderError> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text)
        .map(Some)
        .ok_or(HeaderError::InvalidField { field })
}

fn at_most(field: &'static str, value: u64, limit: u64) -> Result<u64, HeaderError> {
    if value > limit {
        return Err(HeaderError::OutOfRange {
            field,
            value,
            limit,
        });
    }
    Ok(value)
}

fn byte(field: &'static str, value: u32) -> Result<u8, HeaderError> {
    u8::try_from(value).map_err(|_| HeaderError::OutOfRange {
        field,
        value: value.into(),
        limit: u8::MAX.into(),
    })
}

/// Whole milliseconds of a duration that is at most [`DEADLINE_MAX`].
fn milliseconds(duration: Duration) -> u64 {
    duration.as_secs() * 1_000 + u64::from(duration.subsec_millis())
}

#[cfg(test)]
mod tests;
