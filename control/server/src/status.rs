//! What operators are shown: plain values that become JSON. Times are Unix milliseconds, sizes numbers.

use std::collections::BTreeMap;
use std::time::Instant;

use corinth_api::{LinkReport, LinkState};
use corinth_model::{ClusterName, Condition, CongestionChoice, Protocol, Route, ServiceId, Target};
use rustls_pki_types::UnixTime;
use serde::Serialize;

use crate::app::Shared;
use crate::cluster::{Audience, LinkMode};
use crate::conditions::About;
use crate::index;
use crate::peering::{Freshness, RelationSummary};
use crate::plane::Plane;
use crate::routes::Seen;

/// One screen: this cluster and its peers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// This cluster.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: String,
    /// Its state.
    pub instance: String,
    /// How far that has come.
    pub version: String,
    /// The revision of the tables.
    pub revision: u64,
    /// Services that are exported.
    pub exports: usize,
    /// Services of peers that are usable here.
    pub imports: usize,
    /// Service ports that can be called.
    pub routes: usize,
    /// Those who follow.
    pub consumers: Vec<Seen>,
    /// The peers.
    pub links: Vec<LinkStatus>,
    /// What an operator should know.
    pub conditions: Vec<ConditionStatus>,
}

/// One peer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// The peer.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: String,
    /// `active`, `draining` or `paused`.
    pub mode: &'static str,
    /// The tunnel: `up`, `draining`, `down`; `unknown` while no gateway has said.
    pub tunnel: &'static str,
    /// Smoothed round-trip time.
    pub rtt_us: Option<u64>,
    /// The other control plane: `told`, `telling` or `silent`.
    pub peering: &'static str,
    /// Where its gateways are dialled.
    pub addresses: Vec<String>,
    /// What is asked to carry the streams that are opened to it: `tls`, `quic` or `auto`.
    pub transport: &'static str,
    /// How fast is sent: `cubic` or `bbr`; none means what is usual for the transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub congestion: Option<&'static str>,
    /// What of its services is accepted.
    pub accepted: Vec<String>,
    /// Services it offers that are usable here.
    pub imports: usize,
    /// Of those, the ones its newest state left out.
    pub stale: usize,
    /// Services we offer to it.
    pub exports: usize,
    /// The conversation as it stands.
    pub relation: RelationStatus,
}

/// The conversation with one control plane.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RelationStatus {
    /// How far the peer has taken what we told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<String>,
    /// How far it has told us its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Whether it has taken everything we have to tell.
    pub is_current: bool,
    /// Services of ours that it has not taken.
    pub rejected: usize,
    /// Services of it that are not taken here, by the name of the reason.
    pub not_taken: BTreeMap<&'static str, usize>,
    /// How long the stream has been open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_for_ms: Option<u64>,
}

impl From<RelationSummary> for RelationStatus {
    fn from(summary: RelationSummary) -> Self {
        let ms = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self {
            acknowledged: summary.acknowledged.map(|version| version.to_string()),
            held: summary.held.map(|state| state.version.to_string()),
            is_current: summary.own.map(|own| own.version) <= summary.acknowledged,
            rejected: summary.rejected,
            not_taken: summary
                .not_taken
                .iter()
                .map(|(condition, count)| (condition.name(), *count))
                .collect(),
            open_for_ms: summary.session.map(|session| ms(session.since)),
        }
    }
}

/// One condition that stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionStatus {
    /// Its code.
    pub code: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    #[serde(flatten)]
    pub about: About,
    /// Since when.
    pub since_ms: u64,
    /// What it means.
    pub summary: &'static str,
    /// What to do.
    pub hint: &'static str,
    /// What there is to say beyond that.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub words: String,
}

impl ConditionStatus {
    fn new(condition: Condition, about: About, since_ms: u64, words: String) -> Self {
        Self {
            code: condition.code(),
            name: condition.name(),
            about,
            since_ms,
            summary: condition.summary(),
            hint: condition.hint(),
            words,
        }
    }
}

/// One exported service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportStatus {
    /// The service.
    pub service: ServiceId,
    /// Its ports, such as `80/tcp`.
    pub ports: Vec<String>,
    /// To whom it is declared to be open.
    pub to: Vec<String>,
    /// Who may call it now.
    pub open_to: Vec<ClusterName>,
    /// Endpoints.
    pub endpoints: usize,
    /// Since when.
    pub since_ms: u64,
}

/// One service of a peer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportStatus {
    /// The service.
    pub service: ServiceId,
    /// Whose.
    pub from: ClusterName,
    /// Its ports, such as `80/tcp`, each with the import port if it has one.
    pub ports: Vec<ImportPort>,
    /// Ready endpoints there.
    pub ready: u32,
    /// Left out of the peer's newest state.
    pub stale: bool,
}

/// One port of a service of a peer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportPort {
    /// The service port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where to connect to it here.
    pub import_port: Option<u16>,
}

/// One route, and why it is as it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// The route.
    #[serde(flatten)]
    pub route: Route,
    /// What each candidate follows from, in the order of the candidates.
    pub why: Vec<String>,
}

/// Everything on one screen.
pub(crate) fn status(shared: &Shared) -> Status {
    let links = links(shared);
    shared.look(|plane| {
        let (instance, version) = plane.state();
        let own = plane.own();
        let imports: std::collections::BTreeSet<_> = plane
            .peers()
            .values()
            .flat_map(|peer| peer.relation.offers().map(|(id, ..)| id))
            .collect();
        Status {
            cluster: own.cluster.clone(),
            trust_domain: own.trust_domain.to_string(),
            instance: instance.to_string(),
            version: version.to_string(),
            revision: plane.tables().revision(),
            exports: plane.declared().exports.len(),
            imports: imports.len(),
            routes: plane.routes().map(|(_, routes)| routes.len()).sum(),
            consumers: shared.consumers.seen(),
            links,
            conditions: conditions(shared, plane),
        }
    })
}

/// The peers.
pub(crate) fn links(shared: &Shared) -> Vec<LinkStatus> {
    let tunnels = shared.consumers.links();
    shared.look(|plane| {
        let offers = index::offers(plane.declared());
        let links = plane.declared().links.keys();
        links
            .filter_map(|cluster| {
                let exported = offers.get(cluster).map_or(0, BTreeMap::len);
                link(plane, cluster, tunnels.get(cluster), exported)
            })
            .collect()
    })
}

fn link(
    plane: &Plane,
    cluster: &ClusterName,
    tunnel: Option<&LinkReport>,
    exports: usize,
) -> Option<LinkStatus> {
    let declared = plane.declared().links.get(cluster)?;
    let peer = plane.peers().get(cluster)?;
    let stale = |freshness: &Freshness| matches!(freshness, Freshness::Stale { .. });
    Some(LinkStatus {
        cluster: cluster.clone(),
        trust_domain: declared.trust_domain.to_string(),
        mode: match declared.mode {
            LinkMode::Active => "active",
            LinkMode::Draining => "draining",
            LinkMode::Paused => "paused",
        },
        tunnel: match tunnel.map(|tunnel| tunnel.state) {
            Some(LinkState::Up) => "up",
            Some(LinkState::Draining) => "draining",
            Some(LinkState::Down) => "down",
            None => "unknown",
        },
        rtt_us: tunnel
            .and_then(|tunnel| tunnel.rtt)
            .and_then(|rtt| u64::try_from(rtt.as_micros()).ok()),
        peering: if peer.has_session() { "told" } else { "silent" },
        addresses: plane.addresses(cluster),
        transport: declared.carriage.transport.as_str(),
        congestion: declared.carriage.congestion.map(CongestionChoice::as_str),
        accepted: declared
            .accepted
            .0
            .iter()
            .map(ToString::to_string)
            .collect(),
        imports: peer.relation.offers().count(),
        stale: peer
            .relation
            .offers()
            .filter(|(_, _, freshness)| stale(freshness))
            .count(),
        exports,
        relation: peer.relation.summary().into(),
    })
}

fn conditions(shared: &Shared, plane: &Plane) -> Vec<ConditionStatus> {
    let standing = plane.conditions().iter();
    let standing = standing.map(|(condition, about, since_ms, words)| {
        ConditionStatus::new(condition, about.clone(), since_ms, words.to_owned())
    });
    standing.chain(expiring(shared)).collect()
}

/// Certificates that should have been renewed. They follow from what was issued and the time, so nothing raises them.
fn expiring(shared: &Shared) -> Vec<ConditionStatus> {
    let now = UnixTime::now();
    let issued = shared.signing.issued();
    let expiring = issued.expiring(now);
    expiring
        .map(|(id, leaf)| {
            let words = match leaf.not_after_s.checked_sub(now.as_secs()) {
                Some(left_s) => format!("it expires in {left_s} seconds"),
                None => "it has expired".to_owned(),
            };
            let (about, since_ms) = (About::identity(id), leaf.last_quarter_s() * 1_000);
            ConditionStatus::new(Condition::CertificateExpiring, about, since_ms, words)
        })
        .collect()
}

/// What an operator should know.
pub(crate) fn all_conditions(shared: &Shared) -> Vec<ConditionStatus> {
    shared.look(|plane| conditions(shared, plane))
}

/// What is exported.
pub(crate) fn exports(shared: &Shared) -> Vec<ExportStatus> {
    shared.look(|plane| {
        let declared = plane.declared();
        let exports = declared.exports.iter();
        exports
            .map(|(service, export)| {
                let ports = declared.services.get(service).map(|service| &service.ports);
                let ports = || ports.into_iter().flatten();
                ExportStatus {
                    service: service.clone(),
                    ports: ports()
                        .map(|((port, protocol), _)| format!("{port}/{protocol}"))
                        .collect(),
                    to: match &export.to {
                        Audience::All => vec!["*".to_owned()],
                        Audience::Only(peers) => peers.iter().map(ToString::to_string).collect(),
                    },
                    open_to: index::audience(declared, service).into_iter().collect(),
                    endpoints: ports().map(|(_, port)| port.endpoints.len()).sum(),
                    since_ms: export.since_ms,
                }
            })
            .collect()
    })
}

/// What peers offer and is usable here.
pub(crate) fn imports(shared: &Shared) -> Vec<ImportStatus> {
    shared.look(|plane| {
        let mut imports = Vec::new();
        for (cluster, peer) in plane.peers() {
            for (service, offer, freshness) in peer.relation.offers() {
                imports.push(ImportStatus {
                    service: service.clone(),
                    from: cluster.clone(),
                    ports: offer
                        .ports
                        .iter()
                        .map(|port| ImportPort {
                            port: port.port.get(),
                            protocol: port.protocol,
                            import_port: plane
                                .import_port(service, port.port, port.protocol)
                                .map(|port| port.get()),
                        })
                        .collect(),
                    ready: offer.ready,
                    stale: matches!(freshness, Freshness::Stale { .. }),
                });
            }
        }
        imports
    })
}

/// The routes, or those of the service or route called `name`.
pub(crate) fn routes(shared: &Shared, name: &str) -> Vec<RouteStatus> {
    shared.look(|plane| {
        let is_meant = |route: &Route| {
            name.is_empty()
                || route.name.to_string() == name
                || route.name.service.to_string() == name
        };
        let routes = plane.routes().flat_map(|(_, routes)| routes);
        routes
            .filter(|route| is_meant(route))
            .map(|route| RouteStatus {
                route: plane.as_told(route),
                why: route
                    .candidates
                    .iter()
                    .map(|candidate| why(plane, route, &candidate.target))
                    .collect(),
            })
            .collect()
    })
}

/// The object that a candidate follows from.
fn why(plane: &Plane, route: &Route, target: &Target) -> String {
    let service = &route.name.service;
    match target {
        Target::Endpoint(_) => format!("services: {service} is declared here"),
        Target::Cluster(cluster) => {
            let peer = plane.peers().get(cluster);
            if peer.is_some_and(|peer| peer.relation.offer(service).is_none()) {
                return format!(
                    "imports: {service} is declared to come from {cluster}, which has not told what it offers"
                );
            }
            let link = plane.declared().links.get(cluster);
            let accepted = link.and_then(|link| {
                let mut selectors = link.accepted.0.iter();
                selectors.find(|selector| selector.matches(service))
            });
            let accepted = accepted.map_or_else(String::new, ToString::to_string);
            format!("links: {cluster} offers {service}, and `accept: {accepted}` takes it")
        }
    }
}

/// One certificate, and until when it is good.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// `gateway`, `root`, or `peer root`.
    pub holder: &'static str,
    /// The identity in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// Whose, unless it is our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<ClusterName>,
    /// Unix seconds.
    pub not_after: u64,
    /// Unix seconds; from then on it should have been renewed. Of certificates that were issued here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_by: Option<u64>,
    /// The sequence of the bundle it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// The certificates that were issued here, and the roots that are believed.
pub(crate) fn certificates(shared: &Shared) -> Vec<CertificateStatus> {
    shared.look(|plane| {
        let own = plane.own();
        let issued = shared.signing.issued();
        let issued = issued.iter().map(|(id, leaf)| CertificateStatus {
            holder: "gateway",
            spiffe_id: Some(id.to_owned()),
            peer: None,
            not_after: leaf.not_after_s,
            renew_by: Some(leaf.last_quarter_s()),
            sequence: None,
        });
        let mut certificates: Vec<_> = issued.collect();
        let mut add = |holder, peer: Option<&ClusterName>, roots: &[Vec<u8>], sequence| {
            for root in roots {
                if let Some(not_after) = corinth_identity::not_after(root) {
                    certificates.push(CertificateStatus {
                        holder,
                        spiffe_id: None,
                        peer: peer.cloned(),
                        not_after,
                        renew_by: None,
                        sequence: Some(sequence),
                    });
                }
            }
        };
        add("root", None, &own.roots, own.bundle_sequence);
        for cluster in plane.declared().links.keys() {
            let (roots, sequence) = plane.roots(cluster);
            add("peer root", Some(cluster), &roots, sequence);
        }
        certificates
    })
}
