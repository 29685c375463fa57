//! The file as its operator writes it, read into [`Declared`]. `objects.example.yaml` shows every key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use corinth_api::HostPort;
use corinth_identity::Bundle;
use corinth_model::{
    Accepted, AddressSource, Carriage, ClusterName, CongestionChoice, Denied, Direct, DnsName,
    Endpoint, IpNet, Locality, PortNumber, Protocol, Replay, Selector, ServiceId, SpiffeId,
    TransportChoice, TrustDomain,
};

use super::document::{self, Kind, Node};
use super::mistake::{Findings, Mistake, Position};
use super::reader::{At, Count, Mapping, value};
use crate::cluster::{
    Audience, Declared, DeclaredExport, DeclaredImport, DeclaredLink, DeclaredPort,
    DeclaredService, LinkMode, SourceShare,
};

mod words;

use words::{Anonymous, Pem, Priority, Receiver, Weight};

/// Most ports of one service.
const PORTS_MAX: usize = 64;
/// Most addresses of one link.
const ADDRESSES_MAX: usize = 16;

/// What the cluster is, as far as links may not be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its name.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
}

/// Reads the text of the file.
///
/// # Errors
/// Every mistake in it, in the order of the file.
pub fn parse(text: &str, own: &Own) -> Result<Declared, Vec<Mistake>> {
    let mut found = Findings::default();
    let declared = document::parse(text, &mut found)
        .map(|root| read(&root, own, &mut found))
        .unwrap_or_default();
    let mistakes = found.finish();
    if mistakes.is_empty() {
        return Ok(declared);
    }
    Err(mistakes)
}

fn read(root: &Node, own: &Own, found: &mut Findings) -> Declared {
    const KNOWN: &[&str] = &["links", "services", "exports", "imports", "denied"];
    let mut declared = Declared::default();
    if matches!(root.kind, Kind::Null) {
        return declared;
    }
    let Some(root) = Mapping::read(root, "", KNOWN, found) else {
        return declared;
    };
    let mut domains = BTreeMap::new();
    for (path, node) in root.list("links", found) {
        if let Some((name, one)) = link(node, &path, own, &mut domains, found) {
            keep(&mut declared.links, name, one, "link with", found);
        }
    }
    for (path, node) in root.list("services", found) {
        if let Some((name, one)) = service(node, &path, found) {
            keep(&mut declared.services, name, one, "service", found);
        }
    }
    for (path, node) in root.list("exports", found) {
        if let Some((name, one)) = export(node, &path, found) {
            keep(&mut declared.exports, name, one, "export of", found);
        }
    }
    for (path, node) in root.list("imports", found) {
        import(node, &path, &mut declared.imports, found);
    }
    let denied = root.values::<Denied>("denied", found);
    declared.denied = denied.into_iter().map(|one| one.value).collect();
    declared
}

/// Keeps something under its name, unless the name stands there already.
fn keep<K: Ord + std::fmt::Display, T>(
    kept: &mut BTreeMap<K, T>,
    name: At<K>,
    one: T,
    what: &str,
    found: &mut Findings,
) {
    if kept.contains_key(&name.value) {
        let message = format!("the {what} `{}` stands here twice", name.value);
        found.add(name.at, message, "make one of the two");
        return;
    }
    kept.insert(name.value, one);
}

fn link(
    node: &Node,
    path: &str,
    own: &Own,
    domains: &mut BTreeMap<TrustDomain, ClusterName>,
    found: &mut Findings,
) -> Option<(At<ClusterName>, DeclaredLink)> {
    const KNOWN: &[&str] = &[
        "cluster",
        "trustDomain",
        "bundlePem",
        "bundleSequence",
        "addresses",
        "acceptOnly",
        "accept",
        "maxStreams",
        "quota",
        "mode",
        "transport",
        "congestion",
    ];
    let map = Mapping::read(node, path, KNOWN, found)?;
    let addresses = addresses(&map, found);
    let accepted = map.values::<Selector>("accept", found);
    let accepted = Accepted(accepted.into_iter().map(|one| one.value).collect());
    let max_streams = map.optional::<Count>("maxStreams", found);
    let quota = map.optional::<Count>("quota", found);
    let mode = map.optional::<LinkMode>("mode", found);
    let transport = map.optional::<TransportChoice>("transport", found);
    let congestion = map.optional::<CongestionChoice>("congestion", found);
    let sequence = map.optional::<u64>("bundleSequence", found);
    let pem = map.required::<Pem>("bundlePem", found);
    let trust_domain = map.optional::<TrustDomain>("trustDomain", found);
    let cluster = map.required::<ClusterName>("cluster", found)?;
    let trust_domain = trust_domain.unwrap_or_else(|| At {
        at: cluster.at,
        value: TrustDomain::of_cluster(&cluster.value),
    });
    refuse_own(&cluster, &trust_domain, own, found);
    let first = domains
        .entry(trust_domain.value.clone())
        .or_insert_with(|| cluster.value.clone());
    if *first != cluster.value {
        let message = format!("the link with `{first}` has this trust domain");
        let hint =
            "each cluster has a trust domain of its own: whoever holds it could speak as both";
        found.add(trust_domain.at, message, hint);
    }
    let sequence = sequence.map_or(0, |sequence| sequence.value);
    let bundle = bundle(&pem?, &trust_domain.value, sequence, found)?;
    let link = DeclaredLink {
        trust_domain: trust_domain.value,
        roots: bundle.roots().to_vec(),
        bundle_sequence: sequence,
        addresses,
        accepted,
        max_streams: max_streams.map(|count| count.value.0),
        quota: quota.map(|count| count.value.0),
        mode: mode.map(|mode| mode.value).unwrap_or_default(),
        carriage: Carriage {
            transport: transport.map(|one| one.value).unwrap_or_default(),
            congestion: congestion.map(|one| one.value),
        },
    };
    Some((cluster, link))
}

fn addresses(map: &Mapping<'_>, found: &mut Findings) -> Vec<String> {
    let accept_only = map.optional::<bool>("acceptOnly", found);
    let written = map.values::<HostPort>("addresses", found);
    let is_empty = map.list("addresses", found).is_empty();
    match accept_only {
        Some(At { at, value: true }) if !is_empty => found.add(
            at,
            "`acceptOnly` says that only the other side dials, but `addresses` says where to dial it",
            "remove one of the two",
        ),
        Some(At { value: true, .. }) => {}
        Some(At { value: false, .. }) | None if is_empty => map.lacks(
            "addresses",
            "at least one `host:port` of its gateways, or `acceptOnly: true`",
            found,
        ),
        Some(At { value: false, .. }) | None => {}
    }
    if let Some(beyond) = written.get(ADDRESSES_MAX) {
        let message = format!("a link has at most {ADDRESSES_MAX} addresses");
        found.add(beyond.at, message, "remove some");
    }
    written.iter().map(|one| one.value.to_string()).collect()
}

fn refuse_own(
    cluster: &At<ClusterName>,
    trust_domain: &At<TrustDomain>,
    own: &Own,
    found: &mut Findings,
) {
    if cluster.value == own.cluster {
        let message = format!("`{}` is the name of this cluster", cluster.value);
        found.add(
            cluster.at,
            message,
            "a cluster cannot be linked with itself",
        );
    } else if trust_domain.value == own.trust_domain {
        let message = format!(
            "`{}` is the trust domain of this cluster",
            trust_domain.value
        );
        found.add(
            trust_domain.at,
            message,
            "each cluster has a trust domain of its own",
        );
    }
}

fn bundle(
    pem: &At<Pem>,
    trust_domain: &TrustDomain,
    sequence: u64,
    found: &mut Findings,
) -> Option<Bundle> {
    let read = Bundle::from_pem(trust_domain.clone(), pem.value.0.as_bytes(), sequence);
    read.map_err(|error| {
        let hint = "paste what `corinth bundle` prints on the other cluster";
        found.add(pem.at, error.to_string(), hint);
    })
    .ok()
}

fn service(
    node: &Node,
    path: &str,
    found: &mut Findings,
) -> Option<(At<ServiceId>, DeclaredService)> {
    let map = Mapping::read(node, path, &["service", "ports"], found)?;
    let items = map.list("ports", found);
    if items.is_empty() {
        map.lacks("ports", "at least one port", found);
    }
    if items.len() > PORTS_MAX {
        let message = format!("a service has at most {PORTS_MAX} ports");
        found.add(map.at, message, "split the service");
    }
    let mut service = DeclaredService::default();
    for (path, node) in items {
        let Some((at, key, declared)) = port(node, &path, found) else {
            continue;
        };
        if service.ports.insert(key, declared).is_some() {
            let message = format!("the port {}/{} stands here twice", key.0, key.1);
            found.add(at, message, "make one of the two");
        }
    }
    let name = map.required::<ServiceId>("service", found)?;
    Some((name, service))
}

fn port(
    node: &Node,
    path: &str,
    found: &mut Findings,
) -> Option<(Position, (PortNumber, Protocol), DeclaredPort)> {
    const KNOWN: &[&str] = &[
        "port",
        "protocol",
        "endpoints",
        "tls",
        "replay",
        "names",
        "direct",
        "maxStreams",
    ];
    let map = Mapping::read(node, path, KNOWN, found)?;
    let number = map.required::<PortNumber>("port", found);
    let protocol = map.optional::<Protocol>("protocol", found);
    let protocol = protocol.map(|one| one.value).unwrap_or_default();
    let direct = map
        .get("direct")
        .and_then(|node| direct(node, &format!("{path}.direct"), found));
    let tls = map.optional::<bool>("tls", found);
    let is_passthrough = matches!(direct, Some(Direct::Passthrough { .. }));
    if let Some(At { at, value: false }) = tls
        && is_passthrough
    {
        let message = "`tls: false` contradicts `direct.passthrough`, which is for applications that speak TLS";
        found.add(at, message, "remove `tls: false`");
    }
    let names = names(&map, found);
    if protocol == Protocol::Udp && (direct.is_some() || !names.is_empty()) {
        let message = "server names and direct clients need TCP";
        found.add(
            map.at,
            message,
            "remove `names` and `direct`, or write `protocol: tcp`",
        );
    }
    let declared = DeclaredPort {
        endpoints: endpoints(&map, found),
        tls: tls.map_or(is_passthrough, |one| one.value),
        replay: map
            .optional::<Replay>("replay", found)
            .map(|one| one.value)
            .unwrap_or_default(),
        sni_names: names,
        direct,
        max_streams: map
            .optional::<Count>("maxStreams", found)
            .map(|count| count.value.0),
        only: None,
    };
    Some((map.at, (number?.value, protocol), declared))
}

fn names(map: &Mapping<'_>, found: &mut Findings) -> Vec<DnsName> {
    let written = map.values::<DnsName>("names", found);
    for one in written.iter().filter(|one| one.value.is_in_zone()) {
        let message = format!("`{}` is in the zone of the route names", one.value);
        found.add(
            one.at,
            message,
            "remove it: names there are given by the services",
        );
    }
    written.into_iter().map(|one| one.value).collect()
}

fn endpoints(map: &Mapping<'_>, found: &mut Findings) -> Vec<Endpoint> {
    let mut seen = BTreeSet::new();
    let mut endpoints = Vec::new();
    for (path, node) in map.list("endpoints", found) {
        let Some((address, locality)) = endpoint(node, &path, found) else {
            continue;
        };
        match Endpoint::new(address.value, locality, AddressSource::OwnConfig) {
            Ok(endpoint) if !seen.insert(endpoint.address()) => {
                let message = format!("`{}` stands twice in `endpoints`", address.value);
                found.add(address.at, message, "remove one of the two");
            }
            Ok(endpoint) => endpoints.push(endpoint),
            Err(reason) => {
                let hint =
                    "write the address and port on which one instance of the service listens";
                found.add(address.at, format!("not an endpoint: {reason}"), hint);
            }
        }
    }
    endpoints
}

fn endpoint(node: &Node, path: &str, found: &mut Findings) -> Option<(At<SocketAddr>, Locality)> {
    if !matches!(node.kind, Kind::Map(_)) {
        return Some((value(node, found)?, Locality::default()));
    }
    let map = Mapping::read(node, path, &["address", "zone", "region", "node"], found)?;
    let address = map.required::<SocketAddr>("address", found);
    let mut part = |key| map.optional::<String>(key, found).map(|one| one.value);
    let (region, zone, node) = (part("region"), part("zone"), part("node"));
    let locality = Locality::new(region.as_deref(), zone.as_deref(), node.as_deref());
    match locality {
        Ok(locality) => Some((address?, locality)),
        Err(reason) => {
            let hint = "use 1 to 63 letters, digits, -, _ and .";
            found.add(map.at, reason.to_string(), hint);
            None
        }
    }
}

fn direct(node: &Node, path: &str, found: &mut Findings) -> Option<Direct> {
    let map = Mapping::read(node, path, &["terminate", "passthrough", "sources"], found)?;
    match (map.get("terminate"), map.get("passthrough")) {
        (Some(_), None) => {
            let callers = map.values::<SpiffeId>("terminate", found);
            if callers.is_empty() {
                map.lacks("terminate", "at least one SPIFFE ID that may call", found);
            }
            if map.get("sources").is_some() {
                let message =
                    "`sources` is for `passthrough`; callers of `terminate` prove who they are";
                found.add(map.at, message, "remove `sources`");
            }
            let callers = callers.into_iter().map(|one| one.value).collect();
            Some(Direct::Terminate { callers })
        }
        (None, Some(word)) => {
            value::<Anonymous>(word, found);
            let sources = map.values::<IpNet>("sources", found);
            if sources.is_empty() {
                map.lacks("sources", "the networks that clients come from", found);
            }
            let sources = sources.into_iter().map(|one| one.value).collect();
            Some(Direct::Passthrough { sources })
        }
        (Some(_), Some(_)) | (None, None) => {
            let hint =
                "write `terminate:` with SPIFFE IDs, or `passthrough: anonymous` with `sources:`";
            let message = "a service is opened to direct clients in exactly one way";
            found.add(map.at, message, hint);
            None
        }
    }
}

fn export(
    node: &Node,
    path: &str,
    found: &mut Findings,
) -> Option<(At<ServiceId>, DeclaredExport)> {
    let map = Mapping::read(node, path, &["service", "to", "since"], found)?;
    if map.get("to").is_none() {
        map.lacks(
            "to",
            "the clusters that may use it, or `[\"*\"]` for all that are linked",
            found,
        );
    }
    let to = map.values::<Receiver>("to", found);
    let all = to.iter().find(|one| one.value == Receiver::All);
    if let Some(all) = all
        && to.len() > 1
    {
        let message = "`*` means every linked cluster, so that no other name belongs beside it";
        found.add(all.at, message, "remove the others, or `*`");
    }
    let audience = if all.is_some() {
        Audience::All
    } else {
        let named = to.into_iter().filter_map(|one| match one.value {
            Receiver::All => None,
            Receiver::One(cluster) => Some(cluster),
        });
        Audience::Only(named.collect())
    };
    let since = map.optional::<u64>("since", found);
    let export = DeclaredExport {
        to: audience,
        since_ms: since.map_or(0, |since| since.value),
    };
    Some((map.required::<ServiceId>("service", found)?, export))
}

fn import(
    node: &Node,
    path: &str,
    imports: &mut BTreeMap<(ServiceId, PortNumber), DeclaredImport>,
    found: &mut Findings,
) -> Option<()> {
    const KNOWN: &[&str] = &[
        "service",
        "port",
        "importPort",
        "from",
        "names",
        "tls",
        "replay",
    ];
    let map = Mapping::read(node, path, KNOWN, found)?;
    let service = map.required::<ServiceId>("service", found);
    let port = map.required::<PortNumber>("port", found);
    let names = names(&map, found);
    let tls = map.optional::<bool>("tls", found);
    if let Some(At { at, value: false }) = tls
        && !names.is_empty()
    {
        let message = "`tls: false` contradicts `names`, which clients ask for by TLS";
        found.add(at, message, "remove `tls: false`");
    }
    let import_port = map.optional::<PortNumber>("importPort", found);
    let import_port = import_port.map(|one| one.value);
    let declared = DeclaredImport {
        import_ports: import_port
            .into_iter()
            .flat_map(|port| [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, port)))
            .collect(),
        protocols: BTreeSet::new(),
        sources: sources(&map, found),
        replay: map.optional::<Replay>("replay", found).map(|one| one.value),
        tls: tls.map_or(!names.is_empty(), |one| one.value),
        sni_names: names,
    };
    let (service, port) = (service?, port?);
    let is_taken = import_port.is_some_and(|port| {
        let mut others = imports
            .values()
            .flat_map(|other| other.import_ports.values());
        others.any(|other| *other == port)
    });
    if is_taken {
        let hint = "give each imported service port an import port of its own";
        found.add(map.at, "another import has this `importPort`", hint);
    }
    let key = (service.value, port.value);
    if imports.contains_key(&key) {
        let message = format!("the import of `{}` port {} stands here twice", key.0, key.1);
        found.add(service.at, message, "make one of the two");
        return None;
    }
    imports.insert(key, declared);
    Some(())
}

fn sources(map: &Mapping<'_>, found: &mut Findings) -> BTreeMap<ClusterName, SourceShare> {
    let mut sources = BTreeMap::new();
    for (path, node) in map.list("from", found) {
        let Some(map) = Mapping::read(node, path, &["cluster", "weight", "priority"], found) else {
            continue;
        };
        let weight = map.optional::<Weight>("weight", found);
        let priority = map.optional::<Priority>("priority", found);
        let share = SourceShare {
            weight: weight.map_or(1, |one| one.value.0),
            priority: priority.map_or(0, |one| one.value.0),
        };
        if let Some(cluster) = map.required::<ClusterName>("cluster", found) {
            keep(&mut sources, cluster, share, "source", found);
        }
    }
    sources
}
