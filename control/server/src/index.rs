//! From what is declared here to what is exported: entries for the gateways, offers for each peer. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use corinth_model::{
    ClusterName, DnsName, Export, Offer, OfferedPort, PortNumber, Protocol, ServiceId, ServiceKind,
};

use crate::cluster::{Audience, Declared, DeclaredPort, DeclaredService, LinkMode};

#[cfg(test)]
mod tests;

/// To which linked clusters a service is open now; paused links are open to nothing.
#[must_use]
pub fn audience(declared: &Declared, service: &ServiceId) -> BTreeSet<ClusterName> {
    let Some(export) = declared.exports.get(service) else {
        return BTreeSet::new();
    };
    let is_open = |peer: &&ClusterName| match &export.to {
        Audience::All => true,
        Audience::Only(peers) => peers.contains(*peer),
    };
    let linked = declared.links.iter();
    let usable = linked.filter(|(_, link)| link.mode != LinkMode::Paused);
    usable
        .map(|(peer, _)| peer)
        .filter(is_open)
        .cloned()
        .collect()
}

/// Everything that is exported, as gateways have to know it. Services that nobody may call, but which are open to
/// direct clients, are among them. Of two services with one server name the one that was exported first has it, then
/// the one whose name is lower.
#[must_use]
pub fn exports(declared: &Declared) -> Vec<Export> {
    let mut exports = Vec::new();
    let owners = owners(declared);
    for (id, service) in &declared.services {
        let audience = audience(declared, id);
        for ((port, protocol), what) in &service.ports {
            let audience = narrowed(&audience, what);
            if !audience.is_empty() || what.direct.is_some() {
                let mut export = export(id, *port, *protocol, what, audience);
                let key = (id, *port);
                export
                    .sni_names
                    .retain(|name| owners.get(name) == Some(&key));
                exports.push(export);
            }
        }
    }
    exports
}

/// Whose each server name is among the services that run here.
fn owners(declared: &Declared) -> BTreeMap<&DnsName, (&ServiceId, PortNumber)> {
    let mut claims = Vec::new();
    for (id, service) in &declared.services {
        let since_ms = declared.exports.get(id).map(|export| export.since_ms);
        for ((port, _), what) in &service.ports {
            let age = (since_ms.is_none(), since_ms, id, *port);
            claims.extend(what.sni_names.iter().map(|name| (age, name)));
        }
    }
    claims.sort();
    let mut owners = BTreeMap::new();
    for ((_, _, id, port), name) in claims {
        owners.entry(name).or_insert((id, port));
    }
    owners
}

fn export(
    service: &ServiceId,
    port: PortNumber,
    protocol: Protocol,
    what: &DeclaredPort,
    audience: BTreeSet<ClusterName>,
) -> Export {
    Export {
        service: service.clone(),
        port,
        protocol,
        endpoints: what.endpoints.clone(),
        audience,
        sni_names: what.sni_names.clone(),
        tls: what.tls,
        direct: what.direct.clone(),
        max_streams: what.max_streams,
    }
}

/// What is offered to each linked cluster. One offer is shared by all that get it.
#[must_use]
pub fn offers(declared: &Declared) -> BTreeMap<ClusterName, BTreeMap<ServiceId, Arc<Offer>>> {
    let linked = declared.links.keys();
    let mut offers: BTreeMap<_, BTreeMap<_, _>> =
        linked.map(|peer| (peer.clone(), BTreeMap::new())).collect();
    for (id, export) in &declared.exports {
        let Some(service) = declared.services.get(id) else {
            continue;
        };
        let mut shared: BTreeMap<Vec<(PortNumber, Protocol)>, Arc<Offer>> = BTreeMap::new();
        for peer in audience(declared, id) {
            let open = open_ports(service, &peer);
            if open.is_empty() {
                continue;
            }
            let offer = shared
                .entry(open)
                .or_insert_with_key(|open| Arc::new(offer(id, service, open, export.since_ms)));
            if let Some(offers) = offers.get_mut(&peer) {
                offers.insert(id.clone(), Arc::clone(offer));
            }
        }
    }
    offers
}

/// Who of an audience may call a port.
fn narrowed(audience: &BTreeSet<ClusterName>, port: &DeclaredPort) -> BTreeSet<ClusterName> {
    match &port.only {
        Some(only) => audience.intersection(only).cloned().collect(),
        None => audience.clone(),
    }
}

/// The ports of a service that a cluster of its audience may call.
fn open_ports(service: &DeclaredService, peer: &ClusterName) -> Vec<(PortNumber, Protocol)> {
    let is_open = |port: &DeclaredPort| port.only.as_ref().is_none_or(|only| only.contains(peer));
    let ports = service.ports.iter();
    let open = ports.filter(|(_, port)| is_open(port));
    open.map(|(key, _)| *key).collect()
}

/// A service as peers are told of it that may call `open` of its ports.
fn offer(
    id: &ServiceId,
    service: &DeclaredService,
    open: &[(PortNumber, Protocol)],
    since_ms: u64,
) -> Offer {
    let ports = || {
        let ports = service.ports.iter();
        ports.filter(|(key, _)| open.contains(key))
    };
    let port = |((port, protocol), what): (&(PortNumber, Protocol), &DeclaredPort)| OfferedPort {
        port: *port,
        protocol: *protocol,
        name: None,
        tls: what.tls,
        replay: what.replay,
        sni_names: what.sni_names.clone(),
    };
    let endpoints = ports().flat_map(|(_, port)| &port.endpoints);
    // An endpoint of several ports is one; different ports on one machine may be different ones, so the most count.
    let ready = ports().map(|(_, port)| port.endpoints.len()).max();
    let mut places = BTreeSet::new();
    let mut zones: BTreeMap<Box<str>, u32> = BTreeMap::new();
    for endpoint in endpoints {
        if let Some(zone) = &endpoint.locality().zone
            && places.insert(endpoint.address())
        {
            *zones.entry(zone.clone()).or_default() += 1;
        }
    }
    Offer {
        service: id.clone(),
        kind: ServiceKind::ClusterSetIp,
        ports: ports().map(port).collect(),
        exported_at_ms: since_ms,
        ready: u32::try_from(ready.unwrap_or_default()).unwrap_or(u32::MAX),
        headroom: None,
        zones,
    }
}

/// Exports of services that are not declared.
#[must_use]
pub fn unknown(declared: &Declared) -> BTreeSet<ServiceId> {
    let exports = declared.exports.keys();
    let unknown = exports.filter(|id| !declared.services.contains_key(*id));
    unknown.cloned().collect()
}
