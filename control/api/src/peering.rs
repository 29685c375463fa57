//! What two control planes tell each other: every message of `corinth.peering.v1`, checked.
//!
//! A conversation and an entry break in different ways. A message that makes the conversation meaningless, such as one
//! without its version, is a [`PeeringError`] and ends the stream. An entry that breaks a rule is
//! [`Message::NotTaken`]: it says which service is meant, as far as that can be read, and the rest goes on.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use corinth_model::{
    ClusterName, Condition, DnsName, Instance, Label, NameError, Namespace, Offer, PortNumber,
    ServiceId, ServiceName, Version,
};

use crate::wire::peering as wire;
use wire::message::Kind;

mod entry;

#[cfg(test)]
mod tests;

pub use entry::{Digest, Digester, EntryError, decode_offer, encode_offer};

/// Longest message in bytes.
pub const MESSAGE_MAX_BYTES: usize = 1024 * 1024;
/// The version of the protocol that is spoken here.
pub const PROTOCOL: u32 = 1;
/// Most roots in one [`Message::Trust`].
pub const TRUST_ROOTS_MAX: usize = 32;
/// Longest root in bytes, as DER.
pub const TRUST_ROOT_MAX_BYTES: usize = 16 * 1024;
/// Most addresses in one [`Message::Gateways`].
pub const GATEWAY_ADDRESSES_MAX: usize = 32;
/// Most gateway slots a peer can have.
pub const GATEWAY_SLOTS_MAX: u32 = u16::MAX as u32;

/// One message between two control planes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Begins each direction.
    Hello(Hello),
    /// Everything follows.
    SnapshotBegin {
        /// The state that is told.
        state: State,
        /// How many entries are about to follow.
        services: u32,
    },
    /// A service is offered this way from now on.
    Upsert {
        /// After which this holds.
        version: Version,
        /// Of the entry as it was written.
        digest: Digest,
        /// The service.
        offer: Arc<Offer>,
    },
    /// An entry that breaks a rule; it is passed over, and answered if it can be.
    NotTaken {
        /// After which it would hold.
        version: Version,
        /// Of the entry as it was written; `None` if it was a tombstone.
        digest: Option<Digest>,
        /// The service, if its name can be read.
        service: Option<ServiceId>,
        /// What to answer: [`Condition::EntryInvalid`] or [`Condition::OverQuota`].
        condition: Condition,
    },
    /// A service is no longer offered.
    Tombstone {
        /// After which this holds.
        version: Version,
        /// The service.
        service: ServiceId,
    },
    /// Everything has been told.
    SnapshotEnd {
        /// As at the begin.
        version: Version,
        /// Over the entries in between.
        digest: Digest,
    },
    /// Everything up to here was taken.
    Ack(Version),
    /// Everything up to this version was told.
    Digest {
        /// Up to which.
        version: Version,
        /// Over all entries.
        digest: Digest,
    },
    /// Tell everything again.
    Resync,
    /// An entry was not taken.
    Rejected {
        /// Which.
        service: ServiceId,
        /// Why; `None` for a code that is unknown here.
        condition: Option<Condition>,
    },
    /// The writer's roots.
    Trust {
        /// Grows with every change.
        sequence: u64,
        /// DER certificates.
        roots: Arc<[Vec<u8>]>,
        /// The sequence of the reader's roots that the writer holds; `None` if it was told none that it holds.
        held: Option<u64>,
    },
    /// Where the writer's gateways are reached.
    Gateways {
        /// `host:port`, each checked for form.
        addresses: Arc<[String]>,
        /// How many gateways there are.
        slots: u32,
    },
    /// The writer ends the conversation.
    Goodbye(Farewell),
}

/// The first message of each direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Who writes.
    pub cluster: ClusterName,
    /// Lowest version of the protocol it speaks.
    pub protocol_min: u32,
    /// Highest version of the protocol it speaks.
    pub protocol_max: u32,
    /// The state it has to tell.
    pub own: State,
    /// What it holds of the reader's state.
    pub held: Option<State>,
}

impl Hello {
    /// Whether a version of the protocol is spoken on both sides.
    #[must_use]
    pub fn is_compatible(&self) -> bool {
        (self.protocol_min..=self.protocol_max).contains(&PROTOCOL)
    }
}

/// Which state, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Its life.
    pub instance: Instance,
    /// How far it has come.
    pub version: Version,
}

/// Why a conversation is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Farewell {
    /// The link was deleted.
    Unlinked,
    /// The link is paused.
    Paused,
    /// There is no common version of the protocol.
    Incompatible,
    /// Another stream between the two stays instead.
    Duplicate,
    /// The writer stops, and comes back.
    Stopping,
    /// The Hello is not of whom the handshake proved.
    WrongCluster,
    /// The reader comes back too often.
    Flapping,
    /// A reason of a later version.
    Unknown,
}

impl fmt::Display for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlinked => "the link was deleted",
            Self::Paused => "the link is paused",
            Self::Incompatible => "no common version of the protocol",
            Self::Duplicate => "another stream stays instead",
            Self::Stopping => "the control plane stops",
            Self::WrongCluster => "the stream is not of whom it says it is",
            Self::Flapping => "the stream began too often",
            Self::Unknown => "a reason that is unknown here",
        })
    }
}

/// Why a message ends the conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeeringError {
    /// No kind, or one of a later version.
    #[error("the message is of a kind that is unknown here")]
    UnknownKind,
    /// A field without which the message means nothing.
    #[error("the message lacks its {field}")]
    Missing {
        /// The field's name in the protocol file.
        field: &'static str,
    },
    /// A field whose content breaks its rule.
    #[error("the field {field} of the message is not valid")]
    InvalidField {
        /// The field's name in the protocol file.
        field: &'static str,
    },
    /// A name that breaks a rule of names.
    #[error("the field {field} of the message is no name")]
    Name {
        /// The field's name in the protocol file.
        field: &'static str,
        /// The rule.
        #[source]
        error: NameError,
    },
    /// More than is taken.
    #[error("the message has {count} {what}; at most {limit} are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many came.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
}

impl Message {
    /// Says that a service is offered this way.
    #[must_use]
    pub fn upsert(version: Version, offer: Arc<Offer>) -> Self {
        let digest = Digest::of(&offer);
        Self::Upsert {
            version,
            digest,
            offer,
        }
    }

    /// Checks a message of a peer. Fields of later versions are skipped.
    ///
    /// # Errors
    /// Why the conversation cannot go on.
    pub fn decode(message: wire::Message) -> Result<Self, PeeringError> {
        Ok(match message.kind.ok_or(PeeringError::UnknownKind)? {
            Kind::Hello(hello) => Self::Hello(Hello::decode(&hello)?),
            Kind::SnapshotBegin(begin) => Self::SnapshotBegin {
                state: state(begin.state.as_ref())?,
                services: begin.services,
            },
            Kind::Upsert(upsert) => decode_upsert(version(upsert.version)?, &upsert.service),
            Kind::Tombstone(gone) => {
                let version = version(gone.version)?;
                match service(&gone.namespace, &gone.name) {
                    Ok(service) => Self::Tombstone { version, service },
                    Err(_) => Self::NotTaken {
                        version,
                        digest: None,
                        service: None,
                        condition: Condition::EntryInvalid,
                    },
                }
            }
            Kind::SnapshotEnd(end) => Self::SnapshotEnd {
                version: version(end.version)?,
                digest: digest(end.digest)?,
            },
            Kind::Ack(ack) => Self::Ack(version(ack.version)?),
            Kind::Digest(told) => Self::Digest {
                version: version(told.version)?,
                digest: digest(told.digest)?,
            },
            Kind::Resync(wire::Resync {}) => Self::Resync,
            Kind::Rejected(rejected) => Self::Rejected {
                service: service(&rejected.namespace, &rejected.name).map_err(|error| {
                    PeeringError::Name {
                        field: "name",
                        error,
                    }
                })?,
                condition: Condition::from_code(&rejected.code),
            },
            Kind::Trust(trust) => decode_trust(trust)?,
            Kind::Gateways(gateways) => decode_gateways(gateways)?,
            Kind::Goodbye(goodbye) => Self::Goodbye(goodbye.reason.into()),
        })
    }
}

impl Hello {
    fn decode(hello: &wire::Hello) -> Result<Self, PeeringError> {
        if hello.protocol_min > hello.protocol_max {
            return Err(PeeringError::InvalidField {
                field: "protocol_min",
            });
        }
        let cluster = ClusterName::parse(&hello.cluster).map_err(|error| PeeringError::Name {
            field: "cluster",
            error,
        })?;
        let held = hello.held.as_ref();
        Ok(Self {
            cluster,
            protocol_min: hello.protocol_min,
            protocol_max: hello.protocol_max,
            own: state(hello.own.as_ref())?,
            held: held.map(|held| state(Some(held))).transpose()?,
        })
    }
}

fn decode_upsert(version: Version, bytes: &[u8]) -> Message {
    let digest = Digest::of_bytes(bytes);
    match decode_offer(bytes) {
        Ok(offer) => Message::Upsert {
            version,
            digest,
            offer: Arc::new(offer),
        },
        Err(EntryError {
            service, condition, ..
        }) => Message::NotTaken {
            version,
            digest: Some(digest),
            service,
            condition,
        },
    }
}

fn decode_trust(trust: wire::Trust) -> Result<Message, PeeringError> {
    at_most("roots", trust.roots.len(), TRUST_ROOTS_MAX)?;
    let fits = |root: &Vec<u8>| (1..=TRUST_ROOT_MAX_BYTES).contains(&root.len());
    if !trust.roots.iter().all(fits) {
        return Err(PeeringError::InvalidField { field: "roots" });
    }
    Ok(Message::Trust {
        sequence: trust.sequence,
        roots: trust.roots.into(),
        held: trust.held_sequence,
    })
}

fn decode_gateways(gateways: wire::Gateways) -> Result<Message, PeeringError> {
    at_most("addresses", gateways.addresses.len(), GATEWAY_ADDRESSES_MAX)?;
    if !gateways.addresses.iter().all(|text| is_address(text)) {
        return Err(PeeringError::InvalidField { field: "addresses" });
    }
    if gateways.slots > GATEWAY_SLOTS_MAX {
        return Err(PeeringError::InvalidField { field: "slots" });
    }
    Ok(Message::Gateways {
        addresses: gateways.addresses.into(),
        slots: gateways.slots,
    })
}

/// Whether the text is `host:port`, with an IPv6 address in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let is_host = match bracketed {
        Some(inside) => inside.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
        None => {
            host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4())
                || DnsName::parse(host).is_ok()
                || Label::parse(host).is_ok()
        }
    };
    is_host && PortNumber::parse(port).is_ok()
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), PeeringError> {
    if count > limit {
        return Err(PeeringError::TooMany { what, count, limit });
    }
    Ok(())
}

fn state(state: Option<&wire::State>) -> Result<State, PeeringError> {
    let state = state.ok_or(PeeringError::Missing { field: "state" })?;
    let instance = <[u8; 16]>::try_from(state.instance.as_slice())
        .map_err(|_| PeeringError::InvalidField { field: "instance" })?;
    Ok(State {
        instance: Instance(instance),
        version: version(state.version)?,
    })
}

fn version(version: Option<wire::Version>) -> Result<Version, PeeringError> {
    let version = version.ok_or(PeeringError::Missing { field: "version" })?;
    Ok(Version {
        epoch: version.epoch,
        revision: version.revision,
    })
}

fn digest(bytes: Vec<u8>) -> Result<Digest, PeeringError> {
    let bytes = bytes.try_into();
    bytes
        .map(Digest)
        .map_err(|_| PeeringError::InvalidField { field: "digest" })
}

fn service(namespace: &str, name: &str) -> Result<ServiceId, NameError> {
    Ok(ServiceId {
        service: ServiceName::parse(name)?,
        namespace: Namespace::parse(namespace)?,
    })
}

impl From<&Message> for wire::Message {
    fn from(message: &Message) -> Self {
        Self {
            kind: Some(kind(message)),
        }
    }
}

fn kind(message: &Message) -> Kind {
    match message {
        Message::Hello(hello) => Kind::Hello(hello.into()),
        Message::SnapshotBegin { state, services } => Kind::SnapshotBegin(wire::SnapshotBegin {
            state: Some(state.into()),
            services: *services,
        }),
        Message::Upsert { version, offer, .. } => Kind::Upsert(wire::Upsert {
            version: Some((*version).into()),
            service: encode_offer(offer),
        }),
        // What is left of an entry that was not taken is its name.
        Message::NotTaken {
            version, service, ..
        } => Kind::Upsert(wire::Upsert {
            version: Some((*version).into()),
            service: entry::encode_name(service.as_ref()),
        }),
        Message::Tombstone { version, service } => Kind::Tombstone(wire::Tombstone {
            version: Some((*version).into()),
            namespace: service.namespace.to_string(),
            name: service.service.to_string(),
        }),
        Message::SnapshotEnd { version, digest } => Kind::SnapshotEnd(wire::SnapshotEnd {
            version: Some((*version).into()),
            digest: digest.0.into(),
        }),
        Message::Ack(version) => Kind::Ack(wire::Ack {
            version: Some((*version).into()),
        }),
        Message::Digest { version, digest } => Kind::Digest(wire::Digest {
            version: Some((*version).into()),
            digest: digest.0.into(),
        }),
        Message::Resync => Kind::Resync(wire::Resync {}),
        Message::Rejected { service, condition } => Kind::Rejected(wire::Rejected {
            namespace: service.namespace.to_string(),
            name: service.service.to_string(),
            code: condition.map(Condition::code).unwrap_or_default().into(),
        }),
        Message::Trust {
            sequence,
            roots,
            held,
        } => Kind::Trust(wire::Trust {
            held_sequence: *held,
            sequence: *sequence,
            roots: roots.to_vec(),
        }),
        Message::Gateways { addresses, slots } => Kind::Gateways(wire::Gateways {
            addresses: addresses.to_vec(),
            slots: *slots,
        }),
        Message::Goodbye(farewell) => Kind::Goodbye(wire::Goodbye {
            reason: wire::goodbye::Reason::from(*farewell).into(),
        }),
    }
}

impl From<&Hello> for wire::Hello {
    fn from(hello: &Hello) -> Self {
        Self {
            cluster: hello.cluster.to_string(),
            protocol_min: hello.protocol_min,
            protocol_max: hello.protocol_max,
            own: Some((&hello.own).into()),
            held: hello.held.as_ref().map(wire::State::from),
        }
    }
}

impl From<&State> for wire::State {
    fn from(state: &State) -> Self {
        Self {
            instance: state.instance.0.into(),
            version: Some(state.version.into()),
        }
    }
}

impl From<Version> for wire::Version {
    fn from(version: Version) -> Self {
        Self {
            epoch: version.epoch,
            revision: version.revision,
        }
    }
}

impl From<Farewell> for wire::goodbye::Reason {
    fn from(farewell: Farewell) -> Self {
        match farewell {
            Farewell::Unlinked => Self::Unlinked,
            Farewell::Paused => Self::Paused,
            Farewell::Incompatible => Self::Incompatible,
            Farewell::Duplicate => Self::Duplicate,
            Farewell::Stopping => Self::Stopping,
            Farewell::WrongCluster => Self::WrongCluster,
            Farewell::Flapping => Self::Flapping,
            Farewell::Unknown => Self::Unspecified,
        }
    }
}

impl From<i32> for Farewell {
    fn from(number: i32) -> Self {
        use wire::goodbye::Reason;
        match Reason::try_from(number) {
            Ok(Reason::Unlinked) => Self::Unlinked,
            Ok(Reason::Paused) => Self::Paused,
            Ok(Reason::Incompatible) => Self::Incompatible,
            Ok(Reason::Duplicate) => Self::Duplicate,
            Ok(Reason::Stopping) => Self::Stopping,
            Ok(Reason::WrongCluster) => Self::WrongCluster,
            Ok(Reason::Flapping) => Self::Flapping,
            Ok(Reason::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}
