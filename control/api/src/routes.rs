//! What a control plane tells its gateways and redirectors, and what they answer.
//!
//! A change is a row of [`Update`]s from `Begin` to `Commit`; each entry is checked by itself here, and all together
//! when tables are built from them.

use std::{net::SocketAddr, time::Duration};

use corinth_model::{
    Candidate, Carriage, ClusterName, Denied, Direct, DnsName, Endpoint, Export, ExportKey,
    Instance, Label, Locality, PortNumber, Protocol, Reason, Replay, Route, RouteName, Slot,
    Target, TrustDomain,
};
use prost::Message;

use crate::wire::routes as wire;

mod carriage;
mod decode;

/// The most bytes of one message of this conversation, either way.
pub const ROUTES_MESSAGE_MAX_BYTES: usize = 1024 * 1024;

/// Most addresses under which the gateways of one peer are dialled.
pub const ADDRESSES_MAX: usize = 32;

/// Most roots of one peer; more than a rotation ever needs.
pub const ROOTS_MAX: usize = 32;

/// Largest root certificate, DER, in bytes.
pub const ROOT_MAX_BYTES: usize = 16 * 1024;

/// Most candidates of a route, endpoints of an export, clusters of an audience, callers or sources of a direct one.
pub const MEMBERS_MAX: usize = 8192;

/// Most further server names of one route or export.
pub const SNI_NAMES_MAX: usize = 64;

/// Most links one report tells of, and most gateways of one of them.
pub const LINKS_MAX: usize = 4096;

/// Most import ports one report tells to be closed; those beyond are not told.
pub const CLOSED_MAX: usize = 256;

/// Most bytes of words in a report: why something was refused, which version a program is.
pub const WORDS_MAX_BYTES: usize = 256;

/// From the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// A change begins.
    Begin {
        /// Whose revisions these are.
        instance: Instance,
        /// The revision it leads to.
        revision: u64,
        /// What is not in this change is gone.
        whole: bool,
    },
    /// An entry is there, in place of one with the same key.
    Put(Entry),
    /// An entry is gone.
    Removed(EntryKey),
    /// The change is complete.
    Commit {
        /// As in its beginning.
        revision: u64,
    },
    /// Beside changes: a stream of kind PEERING to this peer is asked for.
    OpenPeering {
        /// To whom.
        cluster: ClusterName,
        /// To be repeated when the stream is handed over.
        ticket: u64,
    },
}

/// One entry of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A linked cluster.
    Peer(ClusterName, LinkedPeer),
    /// A service port that can be called here.
    Route(Route),
    /// A service port offered to peers.
    Export(Export),
    /// Somebody who is no longer believed.
    Denial(Denied),
}

/// What names an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKey {
    /// A linked cluster.
    Peer(ClusterName),
    /// A service port that can be called here.
    Route(RouteName, Protocol),
    /// A service port offered to peers.
    Export(ExportKey),
    /// Somebody who is no longer believed.
    Denial(Denied),
}

/// A linked cluster as a gateway has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedPeer {
    /// The trust domain its gateways speak under.
    pub trust_domain: TrustDomain,
    /// Most streams it may have open here at a time.
    pub max_streams: u32,
    /// Where its gateways are dialled, `host:port`; empty where only the peer dials.
    pub addresses: Vec<String>,
    /// The roots of its trust domain, DER. Whether they are certificates shows when they are used.
    pub roots: Vec<Vec<u8>>,
    /// The sequence of these roots.
    pub bundle_sequence: u64,
    /// What carries the streams that are opened to it.
    pub carriage: Carriage,
}

/// From the consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The first report: who follows, and what it holds.
    Hello {
        /// What the consumer is, such as `gateway`.
        role: Label,
        /// Which instance.
        slot: Slot,
        /// The revision it holds, and whose.
        held: Option<(Instance, u64)>,
        /// Its program's version.
        version: String,
    },
    /// A change is in use.
    Applied {
        /// Which.
        revision: u64,
        /// Import ports of it that could not be listened on; cut to [`CLOSED_MAX`] when written.
        closed: Vec<ClosedPort>,
    },
    /// A change is not in use; what was before stays.
    Refused {
        /// Which.
        revision: u64,
        /// In words; cut to [`WORDS_MAX_BYTES`] when written.
        why: String,
    },
    /// The state of all links of this gateway.
    Links(Vec<LinkReport>),
    /// A stream that was asked for did not come about.
    PeeringFailed {
        /// Which.
        ticket: u64,
        /// Why.
        reason: Reason,
    },
}

/// An import port that a gateway could not listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedPort {
    /// The port.
    pub port: PortNumber,
    /// In words; cut to [`WORDS_MAX_BYTES`] when written.
    pub why: String,
}

/// The links to one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkReport {
    /// The peer.
    pub cluster: ClusterName,
    /// Whether it can be used.
    pub state: LinkState,
    /// Smoothed round-trip time in whole microseconds, if measured.
    pub rtt: Option<Duration>,
    /// The peer's gateways that are linked.
    pub slots: Vec<Slot>,
}

/// Whether a link can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkState {
    /// For new streams.
    Up,
    /// For the streams that are open.
    Draining,
    /// For nothing.
    Down,
}

/// Why a message of this conversation is not believed. Shows nothing of what it refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutesError {
    /// More bytes than [`ROUTES_MESSAGE_MAX_BYTES`].
    #[error("the message has {bytes} bytes; at most {ROUTES_MESSAGE_MAX_BYTES} are allowed")]
    TooLong {
        /// How many came.
        bytes: usize,
    },
    /// Not protobuf.
    #[error("the message is not well formed")]
    Malformed(#[source] prost::DecodeError),
    /// No kind, or one of a later version.
    #[error("the message is of a kind that is unknown here; is the other side newer?")]
    UnknownKind,
    /// A field whose content breaks its rule, or that is missing.
    #[error("the field {field} is missing or not valid")]
    Invalid {
        /// The field's name in the protocol file.
        field: &'static str,
    },
    /// A list with more members than its limit.
    #[error("the field {field} has {count} members; at most {limit} are allowed")]
    TooMany {
        /// The field's name in the protocol file.
        field: &'static str,
        /// How many came.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A removal that holds more than a key.
    #[error("a removal holds more than the key of an entry")]
    NotAKey,
}

impl Entry {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> EntryKey {
        match self {
            Self::Peer(cluster, _) => EntryKey::Peer(cluster.clone()),
            Self::Route(route) => EntryKey::Route(route.name.clone(), route.protocol),
            Self::Export(export) => EntryKey::Export(export.key()),
            Self::Denial(denied) => EntryKey::Denial(denied.clone()),
        }
    }
}

impl Update {
    /// Checks a message. Fields of later versions are skipped.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn decode(update: wire::Update) -> Result<Self, RoutesError> {
        update.try_into()
    }

    /// Reads the wire form, which must fill `bytes` exactly.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RoutesError> {
        read::<wire::Update>(bytes)?.try_into()
    }

    /// The wire form. An entry within the limits of this module stays within [`ROUTES_MESSAGE_MAX_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        wire::Update::from(self).encode_to_vec()
    }
}

impl Report {
    /// Checks a message. Fields of later versions are skipped.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn decode(report: wire::Report) -> Result<Self, RoutesError> {
        report.try_into()
    }

    /// Reads the wire form, which must fill `bytes` exactly.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RoutesError> {
        read::<wire::Report>(bytes)?.try_into()
    }

    /// The wire form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        wire::Report::from(self).encode_to_vec()
    }
}

impl LinkState {
    const ALL: [Self; 3] = [Self::Up, Self::Draining, Self::Down];

    /// `up`, `draining` or `down`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

fn read<M: Message + Default>(bytes: &[u8]) -> Result<M, RoutesError> {
    if bytes.len() > ROUTES_MESSAGE_MAX_BYTES {
        return Err(RoutesError::TooLong { bytes: bytes.len() });
    }
    M::decode(bytes).map_err(RoutesError::Malformed)
}

impl From<&Update> for wire::Update {
    fn from(update: &Update) -> Self {
        use wire::update::Kind;
        let kind = match update {
            Update::Begin {
                instance,
                revision,
                whole,
            } => Kind::Begin(wire::Begin {
                instance: instance.0.to_vec(),
                revision: *revision,
                whole: *whole,
            }),
            Update::Put(entry) => return entry.into(),
            Update::Removed(key) => Kind::Removed(key.into()),
            Update::Commit { revision } => Kind::Commit(wire::Commit {
                revision: *revision,
            }),
            Update::OpenPeering { cluster, ticket } => Kind::OpenPeering(wire::OpenPeering {
                cluster: cluster.to_string(),
                ticket: *ticket,
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<&Entry> for wire::Update {
    fn from(entry: &Entry) -> Self {
        use wire::update::Kind;
        let kind = match entry {
            Entry::Peer(cluster, peer) => Kind::Peer((cluster, peer).into()),
            Entry::Route(route) => Kind::Route(route.into()),
            Entry::Export(export) => Kind::Export(export.into()),
            Entry::Denial(denied) => Kind::Denial(denied.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl From<&EntryKey> for wire::Removed {
    fn from(key: &EntryKey) -> Self {
        use wire::removed::What;
        let what = match key {
            EntryKey::Peer(cluster) => What::Peer(wire::Peer {
                cluster: cluster.to_string(),
                ..Default::default()
            }),
            EntryKey::Route(name, protocol) => What::Route(wire::Route {
                name: name.to_string(),
                protocol: wire::Protocol::from(*protocol).into(),
                ..Default::default()
            }),
            EntryKey::Export(key) => What::Export(wire::Export {
                namespace: key.service.namespace.to_string(),
                service: key.service.service.to_string(),
                port: key.port.get().into(),
                protocol: wire::Protocol::from(key.protocol).into(),
                ..Default::default()
            }),
            EntryKey::Denial(denied) => What::Denial(denied.into()),
        };
        Self { what: Some(what) }
    }
}

impl From<(&ClusterName, &LinkedPeer)> for wire::Peer {
    fn from((cluster, peer): (&ClusterName, &LinkedPeer)) -> Self {
        Self {
            cluster: cluster.to_string(),
            trust_domain: peer.trust_domain.to_string(),
            max_streams: peer.max_streams,
            addresses: peer.addresses.clone(),
            roots: peer.roots.clone(),
            bundle_sequence: peer.bundle_sequence,
            transport: wire::Transport::from(peer.carriage.transport).into(),
            congestion: wire::Congestion::from(peer.carriage.congestion).into(),
        }
    }
}

impl From<&Route> for wire::Route {
    fn from(route: &Route) -> Self {
        Self {
            name: route.name.to_string(),
            protocol: wire::Protocol::from(route.protocol).into(),
            import_port: route.import_port.map_or(0, |port| port.get().into()),
            sni_names: texts(&route.sni_names),
            tls: route.tls,
            idempotent: route.replay == Replay::Idempotent,
            candidates: route.candidates.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Candidate> for wire::Candidate {
    fn from(candidate: &Candidate) -> Self {
        let target = match &candidate.target {
            Target::Endpoint(address) => wire::candidate::Target::Endpoint(address.to_string()),
            Target::Cluster(cluster) => wire::candidate::Target::Cluster(cluster.to_string()),
        };
        Self {
            target: Some(target),
            weight: candidate.weight,
            priority: candidate.priority.into(),
            locality: locality(&candidate.locality),
        }
    }
}

impl From<&Export> for wire::Export {
    fn from(export: &Export) -> Self {
        Self {
            namespace: export.service.namespace.to_string(),
            service: export.service.service.to_string(),
            port: export.port.get().into(),
            protocol: wire::Protocol::from(export.protocol).into(),
            endpoints: export.endpoints.iter().map(Into::into).collect(),
            audience: export.audience.iter().map(ToString::to_string).collect(),
            sni_names: texts(&export.sni_names),
            tls: export.tls,
            direct: export.direct.as_ref().map(Into::into),
            max_streams: export.max_streams,
        }
    }
}

impl From<&Endpoint> for wire::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            address: endpoint.address().to_string(),
            locality: locality(endpoint.locality()),
            own_config: decode::needs_own_config(endpoint.address()),
        }
    }
}

impl From<&Direct> for wire::Direct {
    fn from(direct: &Direct) -> Self {
        let way = match direct {
            Direct::Terminate { callers } => wire::direct::Way::Terminate(wire::Terminate {
                callers: callers.iter().map(ToString::to_string).collect(),
            }),
            Direct::Passthrough { sources } => wire::direct::Way::Passthrough(wire::Passthrough {
                sources: sources.iter().map(ToString::to_string).collect(),
            }),
        };
        Self { way: Some(way) }
    }
}

impl From<&Denied> for wire::Denial {
    fn from(denied: &Denied) -> Self {
        let who = match denied {
            Denied::Id(id) => wire::denial::Who::SpiffeId(id.to_string()),
            Denied::TrustDomain(domain) => wire::denial::Who::TrustDomain(domain.to_string()),
        };
        Self { who: Some(who) }
    }
}

impl From<&Report> for wire::Report {
    fn from(report: &Report) -> Self {
        use wire::report::Kind;
        let kind = match report {
            Report::Hello {
                role,
                slot,
                held,
                version,
            } => Kind::Hello(wire::Hello {
                role: role.to_string(),
                slot: slot.to_string(),
                instance: held.map_or_else(Vec::new, |(instance, _)| instance.0.to_vec()),
                revision: held.map_or(0, |(_, revision)| revision),
                version: words(version),
            }),
            Report::Applied { revision, closed } => Kind::Applied(wire::Applied {
                revision: *revision,
                closed: closed.iter().take(CLOSED_MAX).map(Into::into).collect(),
            }),
            Report::Refused { revision, why } => Kind::Refused(wire::Refused {
                revision: *revision,
                why: words(why),
            }),
            Report::Links(links) => Kind::Links(wire::Links {
                links: links.iter().map(Into::into).collect(),
            }),
            Report::PeeringFailed { ticket, reason } => Kind::PeeringFailed(wire::PeeringFailed {
                ticket: *ticket,
                code: reason.code().to_owned(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl From<&ClosedPort> for wire::ClosedPort {
    fn from(closed: &ClosedPort) -> Self {
        Self {
            port: closed.port.get().into(),
            why: words(&closed.why),
        }
    }
}

impl From<&LinkReport> for wire::Link {
    fn from(link: &LinkReport) -> Self {
        // 0 is what says that nothing was measured.
        let rtt_us = |rtt: Duration| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1);
        Self {
            cluster: link.cluster.to_string(),
            state: link.state.as_str().to_owned(),
            rtt_us: link.rtt.map_or(0, rtt_us),
            slots: link.slots.iter().map(ToString::to_string).collect(),
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

fn locality(locality: &Locality) -> Option<wire::Locality> {
    let text = |part: &Option<Box<str>>| part.as_deref().unwrap_or_default().to_owned();
    (*locality != Locality::default()).then(|| wire::Locality {
        region: text(&locality.region),
        zone: text(&locality.zone),
        node: text(&locality.node),
    })
}

fn texts(names: &[DnsName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The text without control characters, and no longer than words may be.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len().min(WORDS_MAX_BYTES));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if words.len() + c.len_utf8() > WORDS_MAX_BYTES {
            break;
        }
        words.push(c);
    }
    words
}

/// Whether the text is an address to dial: a name or an address, in brackets if it has colons, and a port.
fn is_host_and_port(text: &str) -> bool {
    if text
        .parse::<SocketAddr>()
        .is_ok_and(|address| address.port() != 0)
    {
        return true;
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_name = host.len() <= corinth_model::DNS_NAME_MAX_BYTES
        && host.split('.').all(|label| Label::parse(label).is_ok())
        && !host
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_name && PortNumber::parse(port).is_ok()
}

#[cfg(test)]
mod tests;
