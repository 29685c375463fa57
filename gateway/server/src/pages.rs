//! What a gateway shows of itself, as JSON: its configuration, routes and links.

use corinth_core::Standing;
use corinth_model::{ClusterName, Protocol, Route, Target};
use serde::Serialize;

use crate::{Gateway, settings::Identity, transports::Wish};

/// One route, with what is thought of each candidate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRow {
    /// The route name.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port on which it is accepted here.
    pub import_port: Option<u16>,
    /// Where it can be served, in the order of the table.
    pub candidates: Vec<CandidateRow>,
}

/// One candidate of a route.
#[derive(Debug, Serialize)]
pub struct CandidateRow {
    /// A local endpoint or a cluster.
    pub target: String,
    /// Smaller is tried first.
    pub priority: u8,
    /// Share within its tier.
    pub weight: u32,
    /// `serving`, `ejected` or `probation`.
    pub standing: &'static str,
    /// The state of the cluster's link; absent for endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<&'static str>,
}

/// One link to one gateway of a peer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkRow {
    /// The peer; absent if the link belongs to nobody who is a peer now.
    pub peer: Option<ClusterName>,
    /// Its gateway, as it proved itself.
    pub gateway: String,
    /// What carries the streams.
    pub transport: &'static str,
    /// `up`, `draining`, `dead` or `closed`.
    pub state: &'static str,
    /// Smoothed round-trip time in seconds.
    pub rtt_seconds: Option<f64>,
    /// Tunnel connections held.
    pub connections: u32,
    /// Of those, ready for a stream.
    pub idle: u32,
    /// Streams open now, by either side.
    pub streams: u32,
    /// Streams we opened since the link began.
    pub opened: u64,
    /// Streams the peer opened since the link began.
    pub accepted: u64,
    /// Tunnel connections dialled since the link began.
    pub dialled: u64,
    /// Whether new streams go over this link while it lives.
    pub is_used: bool,
    /// Why it is used or not, where that is left to the gateway; absent before anything happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<&'static str>,
    /// Since when, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_since: Option<u64>,
    /// Packets sent since the link began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_packets: Option<u64>,
    /// Of these, packets that counted as lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_packets: Option<u64>,
    /// What the link delivered of our bytes of late when it was given more than it took, in bytes per second; absent if it
    /// was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_goodput_bytes_per_second: Option<u64>,
    /// The same of the peer's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_goodput_bytes_per_second: Option<u64>,
    /// What may be on its way unacknowledged, in bytes; absent over TCP, as the following.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub congestion_window_bytes: Option<u64>,
    /// The largest packet the path is known to take, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu_bytes: Option<u16>,
}

/// Peers that are configured and have no link now, so that they are not missed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Links {
    /// One row for each gateway of a peer.
    pub links: Vec<LinkRow>,
    /// Configured peers without any link.
    pub unlinked: Vec<ClusterName>,
    /// When our own certificate expires, Unix seconds.
    pub certificate_not_after: u64,
}

/// What is known of the control plane.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlRow {
    /// Its socket.
    pub socket: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: String,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whose tables are in use; absent if there are none.
    pub instance: Option<String>,
    /// Their revision.
    pub revision: Option<u64>,
    /// Why import ports of them are closed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<String>,
    /// The last change that could not be used.
    pub refused: Option<RefusedRow>,
}

/// The page `/control`: what is known of the control plane, and for how long a certificate does without it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPage {
    /// Our cluster.
    pub cluster: ClusterName,
    /// What is known of the control plane.
    #[serde(flatten)]
    pub control: ControlRow,
    /// When our certificate expires, Unix seconds; 0 while there is none.
    pub certificate_not_after: u64,
    /// Whether the control plane is who renews it.
    pub is_certificate_from_control: bool,
}

/// A change that could not be used.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRow {
    /// Its revision.
    pub revision: u64,
    /// Why.
    pub why: String,
    /// When.
    pub at: String,
}

impl Gateway {
    /// Every route.
    pub fn routes(&self) -> Vec<RouteRow> {
        let core = self.shared().core.lock();
        let rows = core.tables().routes.iter().map(|route| RouteRow {
            name: route.name.to_string(),
            protocol: route.protocol,
            import_port: route.import_port.map(|port| port.get()),
            candidates: candidates(&core, route),
        });
        rows.collect()
    }

    /// What `/control` shows; `None` where the gateway follows its file alone.
    pub fn control_page(&self) -> Option<ControlPage> {
        let settings = self.settings();
        Some(ControlPage {
            control: self.control()?,
            certificate_not_after: self.certificate_not_after(),
            is_certificate_from_control: matches!(settings.identity, Identity::Control),
            cluster: settings.cluster,
        })
    }

    /// Every link.
    pub fn links(&self) -> Links {
        let shared = self.shared();
        let tables = shared.tables.borrow().clone();
        let links: Vec<LinkRow> = shared
            .transports
            .links()
            .iter()
            .map(|link| {
                let stats = link.stats();
                let peer = tables.cluster_of(&link.peer().trust_domain).cloned();
                let wish = peer.as_ref().map(|peer| shared.wish(peer));
                let steered = shared.steered.read().get(link.peer()).copied();
                let steered = steered.filter(|_| wish == Some(Wish::Auto));
                let udp = stats.path.and_then(|path| path.udp);
                let goodputs = shared.measured.goodputs(link.peer(), link.kind());
                LinkRow {
                    is_used: wish.is_some_and(|wish| shared.is_wanted(wish, link.as_ref())),
                    cause: steered.map(|steered| steered.change.cause.as_str()),
                    seconds_since: steered.map(|steered| steered.at.elapsed().as_secs()),
                    peer,
                    gateway: link.peer().to_string(),
                    transport: link.kind().as_str(),
                    state: link.state().borrow().as_str(),
                    rtt_seconds: stats.rtt.map(|rtt| rtt.as_secs_f64()),
                    connections: stats.connections,
                    idle: stats.idle,
                    streams: stats.streams,
                    opened: stats.opened,
                    accepted: stats.accepted,
                    dialled: stats.dialled,
                    sent_packets: stats.path.map(|path| path.sent_packets),
                    lost_packets: stats.path.map(|path| path.lost_packets),
                    sent_goodput_bytes_per_second: goodputs.sent.map(|rate| rate as u64),
                    received_goodput_bytes_per_second: goodputs.received.map(|rate| rate as u64),
                    congestion_window_bytes: udp.map(|udp| udp.congestion_window_bytes),
                    mtu_bytes: udp.map(|udp| udp.mtu_bytes),
                }
            })
            .collect();
        let is_linked =
            |cluster: &ClusterName| links.iter().any(|link| link.peer.as_ref() == Some(cluster));
        let unlinked = tables
            .peers
            .keys()
            .filter(|cluster| !is_linked(cluster))
            .cloned()
            .collect();
        Links {
            links,
            unlinked,
            certificate_not_after: self.certificate_not_after(),
        }
    }
}

fn candidates(core: &corinth_core::Core, route: &Route) -> Vec<CandidateRow> {
    let rows = route.candidates.iter().map(|candidate| CandidateRow {
        target: candidate.target.to_string(),
        priority: candidate.priority,
        weight: candidate.weight,
        standing: match core.standing(&route.name, route.protocol, &candidate.target) {
            Standing::Serving { .. } => "serving",
            Standing::Ejected { .. } => "ejected",
            Standing::Probation { .. } => "probation",
        },
        link: match &candidate.target {
            Target::Endpoint(_) => None,
            Target::Cluster(cluster) => Some(link_state(core, cluster)),
        },
    });
    rows.collect()
}

fn link_state(core: &corinth_core::Core, cluster: &ClusterName) -> &'static str {
    match core
        .links()
        .find(|(known, _)| *known == cluster)
        .map(|(_, state)| state)
    {
        Some(corinth_core::LinkState::Up) => "up",
        Some(corinth_core::LinkState::Draining) => "draining",
        Some(corinth_core::LinkState::Down) | None => "down",
    }
}
