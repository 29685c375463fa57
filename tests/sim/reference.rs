//! What every cluster must call in the end, computed from what is declared and nothing else, as plainly as possible.

use std::collections::{BTreeMap, BTreeSet};

use corinth_control::peering::Freshness;
use corinth_model::{Replay, Route, ServiceId, ServiceKind};

use crate::cluster::{Cluster, Mode, Peer, endpoint_address};
use crate::world::World;

/// What one cluster says of one service.
struct Claim {
    since_ms: u64,
    name: String,
    kind: ServiceKind,
    /// Number, TLS, replay.
    ports: Vec<(u16, bool, bool)>,
    /// As the reference shows them.
    candidates: Vec<String>,
}

/// Fails unless every cluster has the routes it must have.
pub(crate) fn check(world: &World) {
    let services = world.services();
    for cluster in world.clusters.iter().filter(|cluster| !cluster.is_liar) {
        assert!(cluster.is_running, "everything runs in the end");
        for peer in cluster.peers.values() {
            for (service, offer, freshness) in peer.relation.offers() {
                let is_honest = !world.clusters[index(peer)].is_liar;
                let is_fresh = freshness == Freshness::Fresh;
                assert!(
                    !is_honest || is_fresh || !converses(world, cluster, peer),
                    "{service} is stale"
                );
                assert_eq!(offer.service, *service);
            }
        }
        for service in &services {
            let kept = cluster.routes.get(service).cloned().unwrap_or_default();
            let anew = cluster.merged(service);
            assert_eq!(kept, anew, "{}: nobody was told of {service}", cluster.name);
            let is: BTreeSet<String> = kept.iter().map(shown).collect();
            let must = expected(world, cluster, service);
            assert_eq!(is, must, "{}: {service}, seed {}", cluster.name, world.seed);
        }
    }
}

fn index(peer: &Peer) -> usize {
    peer.name.as_str()[1..]
        .parse()
        .expect("the name says the number")
}

/// Whether the two have told each other everything.
fn converses(world: &World, cluster: &Cluster, peer: &Peer) -> bool {
    let other = &world.clusters[index(peer)];
    let there = other.peers.get(&cluster.index);
    peer.mode != Mode::Paused && there.is_some_and(|there| there.mode != Mode::Paused)
}

fn claims(world: &World, cluster: &Cluster, service: &ServiceId) -> Vec<Claim> {
    let own = cluster.services.get(service);
    let own = own.and_then(|declared| {
        let endpoint = |n| format!("{}*1@0", endpoint_address(cluster.index, n));
        Some(Claim {
            since_ms: declared.export.as_ref()?.since_ms,
            name: cluster.name.to_string(),
            kind: ServiceKind::ClusterSetIp,
            ports: vec![(
                declared.port,
                declared.tls,
                declared.replay == Replay::Idempotent,
            )],
            candidates: (0..declared.ready).map(endpoint).collect(),
        })
    });
    let peers = cluster.peers.values().filter_map(|peer| {
        if peer.mode == Mode::Paused {
            return None;
        }
        let other = &world.clusters[index(peer)];
        if other.is_liar || !converses(world, cluster, peer) {
            return told(cluster, peer, service);
        }
        let declared = other.services.get(service)?;
        let is_offered = declared.is_offered_to(cluster.index);
        if !is_offered || !peer.accepted.accepts(service) {
            return None;
        }
        let last = peer.mode == Mode::Draining;
        Some(Claim {
            since_ms: declared.export.as_ref()?.since_ms,
            name: other.name.to_string(),
            kind: ServiceKind::ClusterSetIp,
            ports: vec![(
                declared.port,
                declared.tls,
                declared.replay == Replay::Idempotent,
            )],
            candidates: vec![candidate(other.name.as_str(), declared.ready, last)],
        })
    });
    own.into_iter().chain(peers).collect()
}

/// Of whoever does not tell the truth, or nothing any more, what it told last counts.
fn told(cluster: &Cluster, peer: &Peer, service: &ServiceId) -> Option<Claim> {
    let (offer, freshness) = peer.relation.offer(service)?;
    let last = freshness != Freshness::Fresh || peer.mode == Mode::Draining;
    assert_ne!(cluster.name, peer.name);
    let ports = offer.ports.iter();
    Some(Claim {
        since_ms: offer.exported_at_ms,
        name: peer.name.to_string(),
        kind: offer.kind,
        ports: ports
            .map(|port| (port.port.get(), port.tls, port.replay == Replay::Idempotent))
            .collect(),
        candidates: vec![candidate(peer.name.as_str(), offer.ready, last)],
    })
}

fn candidate(name: &str, ready: u32, last: bool) -> String {
    let (weight, priority) = (ready.min(65_535), if last { 255 } else { 0 });
    format!("{name}*{weight}@{priority}")
}

/// One line for each port.
fn expected(world: &World, cluster: &Cluster, service: &ServiceId) -> BTreeSet<String> {
    let mut claims = claims(world, cluster, service);
    claims.sort_by(|a, b| (a.since_ms, &a.name).cmp(&(b.since_ms, &b.name)));
    let kind = claims.first().map(|claim| claim.kind);
    if kind != Some(ServiceKind::ClusterSetIp) {
        return BTreeSet::new();
    }
    claims.retain(|claim| claim.kind == ServiceKind::ClusterSetIp);
    let mut lines = BTreeMap::new();
    for claim in &claims {
        for (port, tls, again) in &claim.ports {
            let line = lines
                .entry(*port)
                .or_insert((*tls, *again, BTreeSet::new()));
            line.2.extend(claim.candidates.iter().cloned());
        }
    }
    let lines = lines.into_iter();
    lines
        .map(|(port, (tls, again, candidates))| line(service, port, tls, again, &candidates))
        .collect()
}

fn shown(route: &Route) -> String {
    let candidates = route.candidates.iter();
    let candidates = candidates
        .map(|one| format!("{}*{}@{}", one.target, one.weight, one.priority))
        .collect();
    let again = route.replay == Replay::Idempotent;
    let (service, port) = (&route.name.service, route.name.port.get());
    line(service, port, route.tls, again, &candidates)
}

fn line(
    service: &ServiceId,
    port: u16,
    tls: bool,
    again: bool,
    candidates: &BTreeSet<String>,
) -> String {
    format!("{service}:{port} tls={tls} again={again} {candidates:?}")
}
