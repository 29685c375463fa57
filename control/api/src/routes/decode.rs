//! From the wire to the model: every field is held against its rule, once.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use corinth_model::{
    AddressSource, Candidate, ClusterName, Denied, Direct, DnsName, Endpoint, Export, ExportKey,
    Instance, IpNet, Label, Locality, Namespace, PortNumber, Protocol, Reason, Replay, Route,
    RouteName, ServiceId, ServiceName, Slot, SpiffeId, Target, TrustDomain,
};

use super::carriage::carriage;
use super::{
    ADDRESSES_MAX, CLOSED_MAX, ClosedPort, Entry, EntryKey, LINKS_MAX, LinkReport, LinkState,
    LinkedPeer, MEMBERS_MAX, ROOT_MAX_BYTES, ROOTS_MAX, Report, RoutesError, SNI_NAMES_MAX, Update,
    WORDS_MAX_BYTES, is_host_and_port,
};
use crate::wire::routes as wire;

impl TryFrom<wire::Update> for Update {
    type Error = RoutesError;

    fn try_from(update: wire::Update) -> Result<Self, RoutesError> {
        use wire::update::Kind;
        Ok(match update.kind.ok_or(RoutesError::UnknownKind)? {
            Kind::Begin(begin) => Self::Begin {
                instance: instance("begin.instance", &begin.instance)?,
                revision: begin.revision,
                whole: begin.whole,
            },
            Kind::Peer(peer) => {
                let (cluster, peer) = linked_peer(peer)?;
                Self::Put(Entry::Peer(cluster, peer))
            }
            Kind::Route(route) => Self::Put(Entry::Route(route.try_into()?)),
            Kind::Export(export) => Self::Put(Entry::Export(export.try_into()?)),
            Kind::Denial(denial) => Self::Put(Entry::Denial(denial.try_into()?)),
            Kind::Removed(removed) => Self::Removed(removed.try_into()?),
            Kind::Commit(commit) => Self::Commit {
                revision: commit.revision,
            },
            Kind::OpenPeering(open) => Self::OpenPeering {
                cluster: cluster("open_peering.cluster", &open.cluster)?,
                ticket: open.ticket,
            },
        })
    }
}

impl TryFrom<wire::Removed> for EntryKey {
    type Error = RoutesError;

    fn try_from(removed: wire::Removed) -> Result<Self, RoutesError> {
        use wire::removed::What;
        let key = match removed.what.as_ref().ok_or(RoutesError::UnknownKind)? {
            What::Peer(peer) => Self::Peer(cluster("removed.peer.cluster", &peer.cluster)?),
            What::Route(route) => Self::Route(
                route_name("removed.route.name", &route.name)?,
                protocol("removed.route.protocol", route.protocol)?,
            ),
            What::Export(export) => Self::Export(export_key(export)?),
            What::Denial(denial) => Self::Denial(denial.clone().try_into()?),
        };
        if wire::Removed::from(&key) != removed {
            return Err(RoutesError::NotAKey);
        }
        Ok(key)
    }
}

fn linked_peer(peer: wire::Peer) -> Result<(ClusterName, LinkedPeer), RoutesError> {
    at_most("peer.addresses", peer.addresses.len(), ADDRESSES_MAX)?;
    at_most("peer.roots", peer.roots.len(), ROOTS_MAX)?;
    if !peer.addresses.iter().all(|text| is_host_and_port(text)) {
        return Err(invalid("peer.addresses"));
    }
    let is_root = |root: &Vec<u8>| (1..=ROOT_MAX_BYTES).contains(&root.len());
    if !peer.roots.iter().all(is_root) {
        return Err(invalid("peer.roots"));
    }
    let cluster = cluster("peer.cluster", &peer.cluster)?;
    let linked = LinkedPeer {
        trust_domain: TrustDomain::parse(&peer.trust_domain)
            .map_err(|_| invalid("peer.trust_domain"))?,
        max_streams: peer.max_streams,
        addresses: peer.addresses,
        roots: peer.roots,
        bundle_sequence: peer.bundle_sequence,
        carriage: carriage(peer.transport, peer.congestion)?,
    };
    Ok((cluster, linked))
}

impl TryFrom<wire::Route> for Route {
    type Error = RoutesError;

    fn try_from(route: wire::Route) -> Result<Self, RoutesError> {
        at_most("route.candidates", route.candidates.len(), MEMBERS_MAX)?;
        let import_port = match route.import_port {
            0 => None,
            number => Some(port("route.import_port", number)?),
        };
        Ok(Self {
            name: route_name("route.name", &route.name)?,
            protocol: protocol("route.protocol", route.protocol)?,
            import_port,
            sni_names: sni_names("route.sni_names", &route.sni_names)?,
            tls: route.tls,
            replay: if route.idempotent {
                Replay::Idempotent
            } else {
                Replay::Never
            },
            candidates: all(route.candidates, TryInto::try_into)?,
        })
    }
}

impl TryFrom<wire::Candidate> for Candidate {
    type Error = RoutesError;

    fn try_from(candidate: wire::Candidate) -> Result<Self, RoutesError> {
        use wire::candidate::Target as Wire;
        let target = match candidate.target.ok_or(invalid("candidate.target"))? {
            // What may be called here was put together by our own control plane, loopback included.
            Wire::Endpoint(text) => Target::Endpoint(
                endpoint(
                    "candidate.endpoint",
                    &text,
                    Locality::default(),
                    AddressSource::OwnConfig,
                )?
                .address(),
            ),
            Wire::Cluster(text) => Target::Cluster(cluster("candidate.cluster", &text)?),
        };
        Ok(Self {
            target,
            weight: candidate.weight,
            priority: u8::try_from(candidate.priority)
                .map_err(|_| invalid("candidate.priority"))?,
            locality: locality("candidate.locality", candidate.locality)?,
        })
    }
}

impl TryFrom<wire::Export> for Export {
    type Error = RoutesError;

    fn try_from(export: wire::Export) -> Result<Self, RoutesError> {
        at_most("export.endpoints", export.endpoints.len(), MEMBERS_MAX)?;
        at_most("export.audience", export.audience.len(), MEMBERS_MAX)?;
        let key = export_key(&export)?;
        let audience: BTreeSet<_> = all(export.audience, |text| cluster("export.audience", &text))?
            .into_iter()
            .collect();
        Ok(Self {
            service: key.service,
            port: key.port,
            protocol: key.protocol,
            endpoints: all(export.endpoints, TryInto::try_into)?,
            audience,
            sni_names: sni_names("export.sni_names", &export.sni_names)?,
            tls: export.tls,
            direct: export.direct.map(TryInto::try_into).transpose()?,
            max_streams: export.max_streams,
        })
    }
}

fn export_key(export: &wire::Export) -> Result<ExportKey, RoutesError> {
    Ok(ExportKey {
        service: ServiceId {
            service: ServiceName::parse(&export.service).map_err(|_| invalid("export.service"))?,
            namespace: Namespace::parse(&export.namespace)
                .map_err(|_| invalid("export.namespace"))?,
        },
        port: port("export.port", export.port)?,
        protocol: protocol("export.protocol", export.protocol)?,
    })
}

impl TryFrom<wire::Endpoint> for Endpoint {
    type Error = RoutesError;

    fn try_from(wire: wire::Endpoint) -> Result<Self, RoutesError> {
        let source = if wire.own_config {
            AddressSource::OwnConfig
        } else {
            AddressSource::Learned
        };
        let locality = locality("endpoint.locality", wire.locality)?;
        endpoint("endpoint.address", &wire.address, locality, source)
    }
}

/// Whether only our own configuration can have given this address.
pub(super) fn needs_own_config(address: SocketAddr) -> bool {
    Endpoint::new(address, Locality::default(), AddressSource::Learned).is_err()
}

impl TryFrom<wire::Direct> for Direct {
    type Error = RoutesError;

    fn try_from(direct: wire::Direct) -> Result<Self, RoutesError> {
        use wire::direct::Way;
        Ok(match direct.way.ok_or(invalid("direct.way"))? {
            Way::Terminate(terminate) => {
                at_most("direct.callers", terminate.callers.len(), MEMBERS_MAX)?;
                let callers = all(terminate.callers, |text| {
                    SpiffeId::parse(&text).map_err(|_| invalid("direct.callers"))
                })?;
                Self::Terminate { callers }
            }
            Way::Passthrough(passthrough) => {
                at_most("direct.sources", passthrough.sources.len(), MEMBERS_MAX)?;
                let sources = all(passthrough.sources, |text| {
                    text.parse::<IpNet>().map_err(|_| invalid("direct.sources"))
                })?;
                Self::Passthrough { sources }
            }
        })
    }
}

impl TryFrom<wire::Denial> for Denied {
    type Error = RoutesError;

    fn try_from(denial: wire::Denial) -> Result<Self, RoutesError> {
        use wire::denial::Who;
        Ok(match denial.who.ok_or(invalid("denial.who"))? {
            Who::SpiffeId(text) => {
                Self::Id(SpiffeId::parse(&text).map_err(|_| invalid("denial.spiffe_id"))?)
            }
            Who::TrustDomain(text) => Self::TrustDomain(
                TrustDomain::parse(&text).map_err(|_| invalid("denial.trust_domain"))?,
            ),
        })
    }
}

impl TryFrom<wire::Report> for Report {
    type Error = RoutesError;

    fn try_from(report: wire::Report) -> Result<Self, RoutesError> {
        use wire::report::Kind;
        Ok(match report.kind.ok_or(RoutesError::UnknownKind)? {
            Kind::Hello(hello) => hello_report(hello)?,
            Kind::Applied(applied) => {
                at_most("applied.closed", applied.closed.len(), CLOSED_MAX)?;
                Self::Applied {
                    revision: applied.revision,
                    closed: all(applied.closed, TryInto::try_into)?,
                }
            }
            Kind::Refused(refused) => Self::Refused {
                revision: refused.revision,
                why: words("refused.why", refused.why)?,
            },
            Kind::Links(links) => {
                at_most("links", links.links.len(), LINKS_MAX)?;
                Self::Links(all(links.links, TryInto::try_into)?)
            }
            Kind::PeeringFailed(failed) => Self::PeeringFailed {
                ticket: failed.ticket,
                reason: Reason::from_code(&failed.code)
                    .filter(|reason| *reason != Reason::Completed)
                    .ok_or(invalid("peering_failed.code"))?,
            },
        })
    }
}

fn hello_report(hello: wire::Hello) -> Result<Report, RoutesError> {
    let held = if hello.instance.is_empty() {
        None
    } else {
        Some((instance("hello.instance", &hello.instance)?, hello.revision))
    };
    Ok(Report::Hello {
        role: Label::parse(&hello.role).map_err(|_| invalid("hello.role"))?,
        slot: slot("hello.slot", &hello.slot)?,
        held,
        version: words("hello.version", hello.version)?,
    })
}

impl TryFrom<wire::ClosedPort> for ClosedPort {
    type Error = RoutesError;

    fn try_from(closed: wire::ClosedPort) -> Result<Self, RoutesError> {
        Ok(Self {
            port: port("applied.closed.port", closed.port)?,
            why: words("applied.closed.why", closed.why)?,
        })
    }
}

impl TryFrom<wire::Link> for LinkReport {
    type Error = RoutesError;

    fn try_from(link: wire::Link) -> Result<Self, RoutesError> {
        at_most("link.slots", link.slots.len(), LINKS_MAX)?;
        let state = LinkState::ALL
            .into_iter()
            .find(|state| state.as_str() == link.state);
        Ok(Self {
            cluster: cluster("link.cluster", &link.cluster)?,
            state: state.ok_or(invalid("link.state"))?,
            rtt: (link.rtt_us > 0).then(|| Duration::from_micros(link.rtt_us.into())),
            slots: all(link.slots, |text| slot("link.slots", &text))?,
        })
    }
}

pub(super) const fn invalid(field: &'static str) -> RoutesError {
    RoutesError::Invalid { field }
}

fn at_most(field: &'static str, count: usize, limit: usize) -> Result<(), RoutesError> {
    if count > limit {
        return Err(RoutesError::TooMany {
            field,
            count,
            limit,
        });
    }
    Ok(())
}

fn all<A, B>(
    list: Vec<A>,
    read: impl FnMut(A) -> Result<B, RoutesError>,
) -> Result<Vec<B>, RoutesError> {
    list.into_iter().map(read).collect()
}

fn instance(field: &'static str, bytes: &[u8]) -> Result<Instance, RoutesError> {
    bytes.try_into().map(Instance).map_err(|_| invalid(field))
}

fn cluster(field: &'static str, text: &str) -> Result<ClusterName, RoutesError> {
    ClusterName::parse(text).map_err(|_| invalid(field))
}

fn slot(field: &'static str, text: &str) -> Result<Slot, RoutesError> {
    Slot::parse(text).map_err(|_| invalid(field))
}

fn route_name(field: &'static str, text: &str) -> Result<RouteName, RoutesError> {
    RouteName::parse(text).map_err(|_| invalid(field))
}

fn port(field: &'static str, number: u32) -> Result<PortNumber, RoutesError> {
    let port = u16::try_from(number).ok().and_then(PortNumber::new);
    port.ok_or_else(|| invalid(field))
}

fn protocol(field: &'static str, number: i32) -> Result<Protocol, RoutesError> {
    match wire::Protocol::try_from(number) {
        Ok(wire::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(wire::Protocol::Udp) => Ok(Protocol::Udp),
        Ok(wire::Protocol::Unspecified) | Err(_) => Err(invalid(field)),
    }
}

fn sni_names(field: &'static str, names: &[String]) -> Result<Vec<DnsName>, RoutesError> {
    at_most(field, names.len(), SNI_NAMES_MAX)?;
    let read = |text: &String| DnsName::parse(text).map_err(|_| invalid(field));
    names.iter().map(read).collect()
}

fn endpoint(
    field: &'static str,
    text: &str,
    locality: Locality,
    source: AddressSource,
) -> Result<Endpoint, RoutesError> {
    let address: SocketAddr = text.parse().map_err(|_| invalid(field))?;
    Endpoint::new(address, locality, source).map_err(|_| invalid(field))
}

fn locality(field: &'static str, wire: Option<wire::Locality>) -> Result<Locality, RoutesError> {
    let Some(wire) = wire else {
        return Ok(Locality::default());
    };
    Locality::new(known(&wire.region), known(&wire.zone), known(&wire.node))
        .map_err(|_| invalid(field))
}

fn known(part: &str) -> Option<&str> {
    Some(part).filter(|part| !part.is_empty())
}

fn words(field: &'static str, text: String) -> Result<String, RoutesError> {
    if text.len() > WORDS_MAX_BYTES || text.contains(char::is_control) {
        return Err(invalid(field));
    }
    Ok(text)
}
