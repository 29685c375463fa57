//! The services of peers that are usable here.

use std::collections::{BTreeMap, BTreeSet};

use corinth_model::{ClusterName, DnsName, PortNumber, Protocol, Replay, ServiceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::export::{meant, tls};
use super::field::{At, Field, OneOf, Optional, items};
use super::listen::{Listen, Listeners};
use super::mistake::{Findings, MistakeCode, Position};
use super::value::{Choice, Flag, Number, distinct, number};

/// Largest weight: sums of weights stay far from overflow.
const WEIGHT_MAX: u32 = 65_535;

/// A service port of peers that is usable here.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// Which service.
    pub service: ServiceId,
    /// Which of its ports, as callers name it.
    pub port: PortNumber,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port on which it is accepted here: as written, or as [`super::Settings::assign_ports`] chose.
    pub import_port: Option<PortNumber>,
    /// Clusters that provide it; empty only for a service of our own.
    pub from: Vec<Source>,
    /// Whether a request may be sent twice.
    pub replay: Replay,
    /// Further names that local TLS clients may ask for.
    pub names: Vec<DnsName>,
    /// The application speaks TLS on this port.
    pub tls: bool,
    /// Whether the import port was written by the operator.
    #[serde(skip)]
    pub(super) is_fixed: bool,
    #[serde(skip)]
    pub(super) at: Position,
}

/// A cluster that provides an imported service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Which peer.
    pub cluster: ClusterName,
    /// Share among sources of the same priority, from 1.
    pub weight: u32,
    /// Lower goes first; 0 is first.
    pub priority: u8,
}

impl Import {
    /// The import port that the operator chose, if one was.
    #[must_use]
    pub fn fixed_port(&self) -> Option<PortNumber> {
        self.import_port.filter(|_| self.is_fixed)
    }
}

impl Choice for Replay {
    const WORDS: &'static [(&'static str, Self)] =
        &[("never", Self::Never), ("idempotent", Self::Idempotent)];
    const WHAT: &'static str = "when a request may be sent twice";
}

/// A service port of peers that is usable here.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawImport {
    /// The service and its namespace, such as `payments.shop`.
    #[schemars(required)]
    pub(super) service: Option<Field<ServiceId>>,
    /// The port as callers name it.
    #[schemars(required)]
    pub(super) port: Option<Field<PortNumber>>,
    /// Its protocol. Default `tcp`.
    pub(super) protocol: Option<Field<Protocol>>,
    /// The port on which it is accepted here, within `listen.importPorts`. Default: chosen once and kept.
    import_port: Option<Field<PortNumber>>,
    /// Peers that provide it: names, or mappings with weight and priority. An export of our own joins by itself.
    from: Option<Vec<OneOf<ClusterName, RawSource>>>,
    /// Whether a request may be sent to another endpoint after one may have received it. Default `never`.
    replay: Option<Field<Replay>>,
    /// Further names that local TLS clients may ask for.
    names: Option<Vec<Field<DnsName>>>,
    /// Whether the application speaks TLS on this port. Default `false`; `true` with `names`.
    tls: Option<Field<Flag>>,
}

/// A peer that provides a service.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawSource {
    /// Which peer.
    #[schemars(required)]
    cluster: Option<Field<ClusterName>>,
    /// Share among sources of the same priority. Default 1.
    weight: Option<Field<Number>>,
    /// Lower goes first. Default 0.
    priority: Option<Field<Number>>,
}

/// What imports are checked against.
pub(super) struct Around<'a> {
    pub(super) cluster: Option<&'a ClusterName>,
    pub(super) peers: &'a BTreeSet<ClusterName>,
    pub(super) listen: &'a Listen,
    /// Services that are exported here as well.
    pub(super) exported: &'a BTreeSet<(ServiceId, PortNumber, Protocol)>,
}

/// The imports that can be used; each import port written joins `listeners`.
pub(super) fn read(
    raw: Vec<At<RawImport>>,
    around: &Around<'_>,
    listeners: &mut Listeners,
    found: &mut Findings,
) -> Vec<Import> {
    let mut taken = BTreeMap::new();
    let mut imports = Vec::with_capacity(raw.len());
    for At { at, value: raw } in raw {
        let service = raw.service.required("service", at, found);
        let port = raw.port.required("port", at, found);
        let protocol = raw.protocol.otherwise(Protocol::Tcp, found);
        let import_port = raw.import_port.and_then(|field| field.placed(found));
        if let Some(written) = &import_port {
            let first = *taken.entry((written.value, protocol)).or_insert(written.at);
            if first == written.at {
                claim(written, protocol, around.listen, listeners, found);
            } else {
                found.add(
                    written.at,
                    MistakeCode::DuplicateImportPort,
                    format!("import port {} stands on line {} already", written.value, first.line),
                    "give each import a port of its own, or leave `importPort` out to have one chosen",
                );
            }
        }
        let has_source = raw.from.as_ref().is_some_and(|from| !from.is_empty());
        let from = sources(raw.from, around, found);
        let names = distinct(items(raw.names.unwrap_or_default(), found), found);
        let tls = tls(raw.tls, !names.is_empty(), "names", found);
        let replay = raw.replay.otherwise(Replay::Never, found);
        let (Some(service), Some(port)) = (service, port) else {
            continue;
        };
        let (service, port) = (service.value, port.value);
        if !has_source && !around.exported.contains(&(service.clone(), port, protocol)) {
            found.add(
                at,
                MistakeCode::ImportFromNobody,
                format!("nobody provides the import of `{service}`"),
                "name the peers that export it under `from`",
            );
        }
        imports.push(Import {
            service,
            port,
            protocol,
            is_fixed: import_port.is_some(),
            import_port: import_port.map(|written| written.value),
            from,
            replay,
            names,
            tls,
            at,
        });
    }
    imports
}

fn claim(
    port: &At<PortNumber>,
    protocol: Protocol,
    listen: &Listen,
    listeners: &mut Listeners,
    found: &mut Findings,
) {
    let At { at, value: port } = port;
    if !listen.import_ports.contains(*port) {
        found.add(
            *at,
            MistakeCode::OutOfRange,
            format!("import port {port} is outside {}", listen.import_ports),
            "choose a port in that range, or set another range in `listen.importPorts`",
        );
    }
    let name = format!("import port {port}");
    for address in &listen.imports {
        let is_clear = listeners.add(&name, protocol, (*address, port.get()).into(), *at, found);
        if !is_clear {
            return;
        }
    }
}

fn sources(
    raw: Option<Vec<OneOf<ClusterName, RawSource>>>,
    around: &Around<'_>,
    found: &mut Findings,
) -> Vec<Source> {
    let mut seen = BTreeSet::new();
    let mut sources = Vec::new();
    for item in raw.unwrap_or_default() {
        let (cluster, weight, priority) = match item {
            OneOf::Short(cluster) => (cluster.placed(found), 1, 0),
            OneOf::Long(mapping) => {
                let Some(At { at, value }) = mapping.take() else {
                    continue;
                };
                (
                    value.cluster.required("cluster", at, found),
                    number(value.weight, 1, 1..=WEIGHT_MAX, found),
                    number(value.priority, 0, 0..=u32::from(u8::MAX), found),
                )
            }
        };
        let Some(At { at, value: cluster }) = cluster else {
            continue;
        };
        check_source(&cluster, at, around, found);
        if seen.insert(cluster.clone()) {
            sources.push(Source {
                cluster,
                weight,
                priority: u8::try_from(priority).unwrap_or(u8::MAX),
            });
        } else {
            let message = format!("`{cluster}` stands twice in this list");
            found.add(
                at,
                MistakeCode::DuplicateItem,
                message,
                "remove one of the two",
            );
        }
    }
    sources
}

fn check_source(cluster: &ClusterName, at: Position, around: &Around<'_>, found: &mut Findings) {
    if around.peers.contains(cluster) {
        return;
    }
    let hint = if around.cluster == Some(cluster) {
        "leave this cluster out: what it exports joins its own imports by itself".to_owned()
    } else {
        meant(cluster, around.peers)
    };
    let message = format!("`{cluster}` is not a peer");
    found.add(at, MistakeCode::ImportFromUnknownPeer, message, hint);
}
