//! Who may open a stream to an export of ours, decided from what the tables hold now.
//!
//! A peer is known by the trust domain its certificate proved and by nothing it wrote. It is judged by its
//! own view of our exports, in which a service that does not exist and one that is not for it look alike.

use std::sync::Arc;

use corinth_model::{ClusterName, Direct, Export, GatewayId, Protocol, Refusal, SniName, Tables};

use crate::key::KeyRef;
use crate::permits::{Lane, Permits};
use crate::request::{DirectClient, Opening};

/// A stream that has passed this many gateways before us would have us carry it on for others.
const HOPS_MAX: u8 = 2;

/// The cluster a peer speaks for and the export it may reach.
pub(crate) fn peer<'t>(
    tables: &'t Tables,
    peer: &GatewayId,
    opening: &Opening,
) -> Result<(&'t ClusterName, &'t Arc<Export>), Refusal> {
    let cluster = tables.cluster_of(&peer.trust_domain);
    let cluster = cluster.ok_or(Refusal::Unlinked)?;
    if opening.hops >= HOPS_MAX {
        return Err(Refusal::TooManyHops);
    }
    let view = tables.exports.view(cluster);
    let export = view.and_then(|view| view.lookup(&opening.route, opening.protocol));
    Ok((cluster, export.ok_or(Refusal::Forbidden)?))
}

/// The export a client without a tunnel may reach.
pub(crate) fn direct<'t>(
    tables: &'t Tables,
    sni: &SniName,
    client: &DirectClient,
) -> Result<&'t Arc<Export>, Refusal> {
    let found = tables.exports.direct(sni).ok_or(Refusal::Forbidden)?;
    let is_allowed = match (found.direct, client) {
        (Direct::Terminate { callers }, DirectClient::Identified(id)) => callers.contains(id),
        (Direct::Passthrough { sources }, DirectClient::Anonymous(address)) => {
            // A dual-stack listener shows an IPv4 client as ::ffff:a.b.c.d.
            let address = address.to_canonical();
            sources.iter().any(|source| source.contains(&address))
        }
        (Direct::Terminate { .. }, DirectClient::Anonymous(_))
        | (Direct::Passthrough { .. }, DirectClient::Identified(_)) => false,
    };
    if is_allowed {
        Ok(found.export)
    } else {
        Err(Refusal::SourceNotAllowed)
    }
}

/// Whether one more stream or flow stays within the limits of the peer and of the export.
pub(crate) fn within_limits(
    tables: &Tables,
    permits: &Permits,
    flows_per_peer: u32,
    peer: Option<&ClusterName>,
    export: &Export,
) -> Result<(), Refusal> {
    let limit_of = |peer| tables.peers.get(peer).map_or(0, |peer| peer.max_streams);
    match export.protocol {
        Protocol::Tcp if peer.is_some_and(|peer| permits.open_from(peer) >= limit_of(peer)) => {
            return Err(Refusal::OverLimit);
        }
        Protocol::Udp if peer.is_some_and(|peer| permits.flows_from(peer) >= flows_per_peer) => {
            return Err(Refusal::FlowLimit);
        }
        Protocol::Tcp | Protocol::Udp => {}
    }
    let open = || permits.open_to(KeyRef::of_export(export));
    if export.max_streams.is_some_and(|limit| open() >= limit) {
        return Err(Refusal::OverLimit);
    }
    Ok(())
}

/// Whether streams that `old` allowed in this lane are not all allowed by `new`.
pub(crate) fn is_withdrawn(old: &Tables, new: &Tables, lane: &Lane) -> bool {
    match &lane.peer {
        Some(peer) => may_reach(old, peer, lane) && !may_reach(new, peer, lane),
        None => match (direct_of(old, lane), direct_of(new, lane)) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(before), Some(after)) => narrows(before, after),
        },
    }
}

fn may_reach(tables: &Tables, peer: &ClusterName, lane: &Lane) -> bool {
    let (name, protocol) = (lane.route.name(), lane.route.protocol());
    let view = tables.exports.view(peer);
    tables.peers.contains_key(peer)
        && view.is_some_and(|view| view.lookup(name, protocol).is_some())
}

fn direct_of<'t>(tables: &'t Tables, lane: &Lane) -> Option<&'t Direct> {
    let export = tables.exports.export(&lane.route.export()?)?;
    export.direct.as_ref()
}

/// Whether someone who was let in might not be now. We do not keep who came in, so they all have to go.
fn narrows(before: &Direct, after: &Direct) -> bool {
    match (before, after) {
        (Direct::Terminate { callers: before }, Direct::Terminate { callers: after }) => {
            !before.iter().all(|caller| after.contains(caller))
        }
        (Direct::Passthrough { sources: before }, Direct::Passthrough { sources: after }) => {
            let is_kept = |source| after.iter().any(|other| other.contains(source));
            !before.iter().all(is_kept)
        }
        (Direct::Terminate { .. }, Direct::Passthrough { .. })
        | (Direct::Passthrough { .. }, Direct::Terminate { .. }) => true,
    }
}
