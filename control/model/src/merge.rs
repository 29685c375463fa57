//! What one service is here, given what this cluster and its peers say of it.
//!
//! The result follows from the *set* of what is said. Who said it first, how often, and over which stream makes no
//! difference, so that every restart of every cluster comes to the same routes. Nothing that is said of one service
//! changes another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

use crate::endpoint::Endpoint;
use crate::locality::Locality;
use crate::name::{ClusterName, DnsName, PortNumber, Protocol, RouteName, ServiceId};
use crate::offer::{Offer, OfferedPort, ServiceKind};
use crate::route::{Candidate, Replay, Route, Target};

#[cfg(test)]
mod tests;

/// Largest weight of a candidate: what a peer says of itself counts no further.
pub const WEIGHT_MAX: u32 = 65_535;
/// Priority of a peer that is used when nobody else is left.
pub const PRIORITY_LAST: u8 = u8::MAX;

/// A service as it runs here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnService {
    /// When it was exported, Unix milliseconds; `None` if it is not. It then joins only the routes that an import names.
    pub exported_at_ms: Option<u64>,
    /// How it is addressed.
    pub kind: ServiceKind,
    /// Its ports.
    pub ports: BTreeMap<(PortNumber, Protocol), OwnPort>,
}

/// One port of a service that runs here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnPort {
    /// Where it is delivered.
    pub endpoints: Vec<Endpoint>,
    /// The application speaks TLS.
    pub tls: bool,
    /// Whether bytes may be sent twice.
    pub replay: Replay,
    /// Further server names it answers to.
    pub sni_names: Vec<DnsName>,
}

/// What a peer offers, and how it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offered<'a> {
    /// The offer.
    pub offer: &'a Offer,
    /// Used only when nobody else is left, because it is stale or the peer is being drained.
    pub is_last: bool,
}

/// How a port of the service is used here, where that differs from what follows by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportRule {
    /// Shares and order of clusters; the own name means the endpoints here. Those not named follow by themselves.
    pub shares: BTreeMap<ClusterName, Share>,
    /// Whether bytes may be sent twice, whatever the exporters say.
    pub replay: Option<Replay>,
    /// Further server names that local clients may ask for.
    pub sni_names: Vec<DnsName>,
    /// The application speaks TLS, whatever the exporters say.
    pub tls: bool,
}

/// Share and order of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Higher gets more.
    pub weight: u32,
    /// Lower goes first.
    pub priority: u8,
}

/// What became of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// One for each port and protocol, in order, none with an import port.
    pub routes: Vec<Route>,
    /// Where clusters disagree.
    pub conflicts: Vec<MergeConflict>,
}

/// Clusters that disagree on a property of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MergeConflict {
    /// Of which port; `None` if it is a property of the whole service.
    pub port: Option<(PortNumber, Protocol)>,
    /// On what.
    pub property: Property,
    /// Whose export is the oldest, and decides.
    pub decided_by: ClusterName,
    /// Who says otherwise.
    pub against: BTreeSet<ClusterName>,
}

/// What clusters can disagree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// How the service is addressed.
    Kind,
    /// Whether the application speaks TLS.
    Tls,
    /// Whether bytes may be sent twice.
    Replay,
    /// Which server names it answers to.
    SniNames,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "how it is addressed",
            Self::Tls => "whether it speaks TLS",
            Self::Replay => "replay",
            Self::SniNames => "its server names",
        })
    }
}

impl fmt::Display for MergeConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((port, protocol)) = self.port {
            write!(f, "port {port}/{protocol}: ")?;
        }
        let against: Vec<&str> = self.against.iter().map(ClusterName::as_str).collect();
        write!(
            f,
            "{} decides {}, against {}",
            self.decided_by,
            self.property,
            against.join(", ")
        )
    }
}

/// Puts together what this cluster and its peers say of one service. `peers` holds what is accepted from peers that are
/// not paused; offers of other services among them are passed over. `imports` are the rules for its ports.
#[must_use]
pub fn merge(
    cluster: &ClusterName,
    service: &ServiceId,
    own: Option<&OwnService>,
    peers: &BTreeMap<ClusterName, Offered<'_>>,
    imports: &BTreeMap<PortNumber, ImportRule>,
) -> Merged {
    let peers = peers
        .iter()
        .filter(|(peer, offered)| *peer != cluster && offered.offer.service == *service);
    let peers: Vec<_> = peers.collect();
    let mut merged = Merged::default();
    let Some(kind) = decide_kind(cluster, own, &peers, &mut merged.conflicts) else {
        return merged;
    };
    if kind == ServiceKind::Headless {
        return merged;
    }
    let unruled = ImportRule::default();
    for ((port, protocol), said) in by_port(own, &peers, imports, kind) {
        let voices = said.voices(cluster);
        let decided = decide_port((port, protocol), &voices, &mut merged.conflicts);
        let rule = imports.get(&port).unwrap_or(&unruled);
        merged.routes.push(Route {
            name: RouteName::new(service.clone(), port),
            protocol,
            import_port: None,
            sni_names: names(protocol, &decided, rule),
            tls: decided.tls || rule.tls,
            replay: rule.replay.unwrap_or(decided.replay),
            candidates: said.candidates(cluster, rule),
        });
    }
    settle_names(&mut merged.routes, imports);
    merged
}

type PeerOffer<'a> = (&'a ClusterName, &'a Offered<'a>);

/// The kind the oldest export has; that of our own service if nobody exports; `None` if there is neither.
fn decide_kind(
    cluster: &ClusterName,
    own: Option<&OwnService>,
    peers: &[PeerOffer<'_>],
    conflicts: &mut Vec<MergeConflict>,
) -> Option<ServiceKind> {
    let exported = own.and_then(|own| Some((own.exported_at_ms?, cluster, own.kind)));
    let offered = peers.iter().map(|(peer, offered)| {
        let offer = offered.offer;
        (offer.exported_at_ms, *peer, offer.kind)
    });
    let exports: Vec<_> = exported.into_iter().chain(offered).collect();
    let Some((_, decided_by, kind)) = exports.iter().min().copied() else {
        return own.map(|own| own.kind);
    };
    let against = exports.iter().filter(|(_, _, other)| *other != kind);
    report(
        conflicts,
        None,
        Property::Kind,
        decided_by,
        against.map(|(_, cluster, _)| *cluster),
    );
    Some(kind)
}

/// All that is said of one port.
#[derive(Default)]
struct Said<'a> {
    own: Option<(Option<u64>, &'a OwnPort)>,
    peers: Vec<(PeerOffer<'a>, &'a OfferedPort)>,
}

/// What is said of each port by those whose service is of the kind that was decided.
fn by_port<'a>(
    own: Option<&'a OwnService>,
    peers: &[PeerOffer<'a>],
    imports: &BTreeMap<PortNumber, ImportRule>,
    kind: ServiceKind,
) -> BTreeMap<(PortNumber, Protocol), Said<'a>> {
    let mut ports: BTreeMap<_, Said<'a>> = BTreeMap::new();
    if let Some(own) = own.filter(|own| own.kind == kind) {
        for (key, port) in &own.ports {
            if own.exported_at_ms.is_some() || imports.contains_key(&key.0) {
                ports.entry(*key).or_default().own = Some((own.exported_at_ms, port));
            }
        }
    }
    for peer in peers.iter().filter(|(_, told)| told.offer.kind == kind) {
        for port in &peer.1.offer.ports {
            let said = ports.entry((port.port, port.protocol)).or_default();
            said.peers.push((*peer, port));
        }
    }
    ports
}

impl<'a> Said<'a> {
    /// What each cluster wants the properties of the port to be.
    fn voices(&self, cluster: &'a ClusterName) -> Vec<Voice<'a>> {
        let own = self.own.map(|(exported_at_ms, port)| Voice {
            exported_at_ms,
            cluster,
            tls: port.tls,
            replay: port.replay,
            sni_names: port.sni_names.iter().collect(),
        });
        let peers = self.peers.iter().map(|((peer, offered), port)| Voice {
            exported_at_ms: Some(offered.offer.exported_at_ms),
            cluster: peer,
            tls: port.tls,
            replay: port.replay,
            sni_names: port.sni_names.iter().collect(),
        });
        own.into_iter().chain(peers).collect()
    }

    /// Our endpoints by address, then peers by name.
    fn candidates(&self, cluster: &ClusterName, rule: &ImportRule) -> Vec<Candidate> {
        let share = rule.shares.get(cluster);
        // One candidate for one address; if it is given with several places, the first of them.
        let endpoints = self.own.iter().flat_map(|(_, port)| &port.endpoints);
        let mut places: BTreeMap<SocketAddr, &Locality> = BTreeMap::new();
        for endpoint in endpoints {
            let locality = endpoint.locality();
            let place = places.entry(endpoint.address()).or_insert(locality);
            *place = (*place).min(locality);
        }
        let endpoints = places.into_iter().map(|(address, locality)| Candidate {
            target: Target::Endpoint(address),
            weight: share.map_or(1, |share| share.weight),
            priority: share.map_or(0, |share| share.priority),
            locality: locality.clone(),
        });
        let peers = self.peers.iter();
        let peers = peers.map(|(peer, _)| candidate(peer, rule.shares.get(peer.0)));
        endpoints.chain(peers).collect()
    }
}

/// What one cluster wants the properties of a port to be.
struct Voice<'a> {
    exported_at_ms: Option<u64>,
    cluster: &'a ClusterName,
    tls: bool,
    replay: Replay,
    sni_names: BTreeSet<&'a DnsName>,
}

/// What the properties of a port are.
#[derive(Default)]
struct Decided<'a> {
    tls: bool,
    replay: Replay,
    sni_names: BTreeSet<&'a DnsName>,
}

/// The oldest export decides, then the lower name; a service that is not exported only if nobody exports the port.
fn decide_port<'a>(
    port: (PortNumber, Protocol),
    voices: &[Voice<'a>],
    conflicts: &mut Vec<MergeConflict>,
) -> Decided<'a> {
    let age = |voice: &&Voice<'a>| {
        let is_unexported = voice.exported_at_ms.is_none();
        (is_unexported, voice.exported_at_ms, voice.cluster)
    };
    let Some(oldest) = voices.iter().min_by_key(age) else {
        return Decided::default();
    };
    let exports = voices.iter().filter(|voice| voice.exported_at_ms.is_some());
    let mut compare = |property, differs: &dyn Fn(&Voice<'a>) -> bool| {
        let against = exports.clone().filter(|voice| differs(voice));
        let against = against.map(|voice| voice.cluster);
        report(conflicts, Some(port), property, oldest.cluster, against);
    };
    compare(Property::Tls, &|voice| voice.tls != oldest.tls);
    compare(Property::Replay, &|voice| voice.replay != oldest.replay);
    compare(Property::SniNames, &|voice| {
        voice.sni_names != oldest.sni_names
    });
    Decided {
        tls: oldest.tls,
        replay: oldest.replay,
        sni_names: oldest.sni_names.clone(),
    }
}

fn report<'a>(
    conflicts: &mut Vec<MergeConflict>,
    port: Option<(PortNumber, Protocol)>,
    property: Property,
    decided_by: &ClusterName,
    against: impl Iterator<Item = &'a ClusterName>,
) {
    let against: BTreeSet<ClusterName> = against.cloned().collect();
    if !against.is_empty() {
        conflicts.push(MergeConflict {
            port,
            property,
            decided_by: decided_by.clone(),
            against,
        });
    }
}

/// A peer as a candidate. Its weight is how many of its endpoints are ready, unless a rule gives it a share; with none
/// ready it is tried last.
fn candidate((peer, offered): &PeerOffer<'_>, share: Option<&Share>) -> Candidate {
    let weight = match (offered.offer.ready, share) {
        (0, _) => 0,
        (_, Some(share)) => share.weight,
        (ready, None) => ready.min(WEIGHT_MAX),
    };
    Candidate {
        target: Target::Cluster((*peer).clone()),
        weight,
        priority: match (offered.is_last, share) {
            (true, _) => PRIORITY_LAST,
            (false, Some(share)) => share.priority,
            (false, None) => 0,
        },
        locality: Locality::default(),
    }
}

/// The server names of a route. Only TCP has any, and the zone of the route names gives its own.
fn names(protocol: Protocol, decided: &Decided<'_>, rule: &ImportRule) -> Vec<DnsName> {
    if protocol != Protocol::Tcp {
        return Vec::new();
    }
    let asked = rule.sni_names.iter();
    let all: BTreeSet<&DnsName> = decided.sni_names.iter().copied().chain(asked).collect();
    all.into_iter()
        .filter(|name| !name.is_in_zone())
        .cloned()
        .collect()
}

/// A server name means one port: one whose rule asks for it before others, then the lowest.
fn settle_names(routes: &mut [Route], imports: &BTreeMap<PortNumber, ImportRule>) {
    let mut owners: BTreeMap<DnsName, PortNumber> = BTreeMap::new();
    let named = routes.iter().filter(|route| !route.sni_names.is_empty());
    let asked = named.clone().flat_map(|route| {
        let rule = imports.get(&route.name.port);
        let names = rule.into_iter().flat_map(|rule| &rule.sni_names);
        names.map(|name| (name, route.name.port))
    });
    let listed = named.flat_map(|route| {
        let names = route.sni_names.iter();
        names.map(|name| (name, route.name.port))
    });
    for (name, port) in asked.chain(listed) {
        owners.entry(name.clone()).or_insert(port);
    }
    for route in routes {
        let port = route.name.port;
        route
            .sni_names
            .retain(|name| owners.get(name) == Some(&port));
    }
}
