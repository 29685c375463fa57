//! The services this cluster offers.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use corinth_model::{
    AddressSource, ClusterName, DnsName, Endpoint, IpNet, Locality, PortNumber, Protocol,
    ServiceId, SpiffeId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field::{At, Field, Mapping, OneOf, Optional, items, lacking};
use super::mistake::{Findings, MistakeCode, Position, nearest};
use super::peer::STREAMS_MAX;
use super::value::{Choice, Flag, Number, PlaceName, distinct, number};

/// A service port that this cluster offers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// Which service.
    pub service: ServiceId,
    /// Which of its ports, as callers name it.
    pub port: PortNumber,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it answers; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Peers that may call it.
    pub to: BTreeSet<ClusterName>,
    /// Further names that direct clients may ask for.
    pub names: Vec<DnsName>,
    /// The application speaks TLS on this port.
    pub tls: bool,
    /// How clients without a gateway may call it, if they may.
    pub direct: Option<Direct>,
    /// Most streams open to it at once; none means no limit of its own.
    pub max_streams: Option<u32>,
    #[serde(skip)]
    pub(super) at: Position,
}

/// How clients without a gateway reach a service on the tunnel port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "mode")]
pub enum Direct {
    /// Mutual TLS ends at this gateway.
    Terminate {
        /// Who may call; at least one.
        callers: Vec<SpiffeId>,
    },
    /// TLS ends at the application; nobody is asked who they are.
    Passthrough {
        /// From where; at least one.
        sources: Vec<IpNet>,
    },
}

/// A service port that this cluster offers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawExport {
    /// The service and its namespace, such as `payments.shop`.
    #[schemars(required)]
    pub(super) service: Option<Field<ServiceId>>,
    /// The port as callers name it.
    #[schemars(required)]
    pub(super) port: Option<Field<PortNumber>>,
    /// Its protocol. Default `tcp`.
    pub(super) protocol: Option<Field<Protocol>>,
    /// Where it answers: `address:port`, or a mapping with the zone.
    #[schemars(required)]
    endpoints: Option<Vec<OneOf<SocketAddr, RawEndpoint>>>,
    /// Peers that may call it.
    to: Option<Vec<Field<ClusterName>>>,
    /// Further names that direct clients may ask for.
    names: Option<Vec<Field<DnsName>>>,
    /// Whether the application speaks TLS on this port. Default `false`; `true` with `direct.passthrough`.
    tls: Option<Field<Flag>>,
    /// How clients without a gateway may call it. Default: not at all.
    direct: Option<Mapping<RawDirect>>,
    /// Most streams open to it at once. Default: no limit of its own.
    max_streams: Option<Field<Number>>,
}

/// An endpoint with its zone.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawEndpoint {
    /// Address and port.
    #[schemars(required)]
    address: Option<Field<SocketAddr>>,
    /// The zone it runs in. Default: not known.
    zone: Option<Field<PlaceName>>,
}

/// How clients without a gateway may call a service: `terminate`, or `passthrough` with `sources`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawDirect {
    /// Mutual TLS ends here; these SPIFFE IDs may call.
    terminate: Option<Vec<Field<SpiffeId>>>,
    /// TLS ends at the application; the word `anonymous` says that nobody is asked who they are.
    passthrough: Option<Field<Anonymous>>,
    /// Networks that clients of `passthrough` must come from.
    sources: Option<Vec<Field<IpNet>>>,
}

/// The word that admits what passthrough means.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anonymous;

impl Choice for Anonymous {
    const WORDS: &'static [(&'static str, Self)] = &[("anonymous", Self)];
    const WHAT: &'static str = "the word anonymous";
}

impl Choice for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("udp", Self::Udp)];
    const WHAT: &'static str = "a protocol";
}

/// What exports are checked against.
pub(super) struct Around<'a> {
    pub(super) peers: &'a BTreeSet<ClusterName>,
    pub(super) locality: &'a Locality,
    /// Services that are imported here as well.
    pub(super) imported: &'a BTreeSet<(ServiceId, PortNumber, Protocol)>,
}

/// The exports that can be used, and every endpoint with its place, also of exports that cannot.
pub(super) fn read(
    raw: Vec<At<RawExport>>,
    around: &Around<'_>,
    found: &mut Findings,
) -> (Vec<Export>, Vec<At<SocketAddr>>) {
    let mut reached = Vec::new();
    let exports = raw
        .into_iter()
        .filter_map(|export| read_one(export, around, &mut reached, found))
        .collect();
    (exports, reached)
}

fn read_one(
    raw: At<RawExport>,
    around: &Around<'_>,
    reached: &mut Vec<At<SocketAddr>>,
    found: &mut Findings,
) -> Option<Export> {
    let At { at, value: raw } = raw;
    let service = raw.service.required("service", at, found);
    let port = raw.port.required("port", at, found);
    let protocol = raw.protocol.otherwise(Protocol::Tcp, found);
    let endpoints = endpoints(raw.endpoints, at, around.locality, reached, found);
    let has_audience = raw.to.as_ref().is_some_and(|to| !to.is_empty()) || raw.direct.is_some();
    let to = audience(raw.to, around.peers, found);
    let names = distinct(items(raw.names.unwrap_or_default(), found), found);
    let direct = raw
        .direct
        .and_then(Mapping::take)
        .and_then(|direct| Direct::read(direct, found));
    let is_passthrough = matches!(direct, Some(Direct::Passthrough { .. }));
    let tls = tls(raw.tls, is_passthrough, "direct.passthrough", found);
    let max_streams = raw
        .max_streams
        .map(|field| number(Some(field), STREAMS_MAX, 1..=STREAMS_MAX, found));
    let (service, port) = (service?.value, port?.value);
    if !has_audience && !around.imported.contains(&(service.clone(), port, protocol)) {
        found.add(
            at,
            MistakeCode::ExportToNobody,
            format!("nobody can reach the export of `{service}`"),
            "name the peers that may call it under `to`",
        );
    }
    Some(Export {
        service,
        port,
        protocol,
        endpoints,
        to,
        names,
        tls,
        direct,
        max_streams,
        at,
    })
}

/// Whether the application speaks TLS, which follows from `implied` being configured.
pub(super) fn tls(
    field: Option<Field<Flag>>,
    is_implied: bool,
    implied: &str,
    found: &mut Findings,
) -> bool {
    let written = field.and_then(|field| field.placed(found));
    match written {
        Some(At {
            at,
            value: Flag(false),
        }) if is_implied => {
            found.add(
                at,
                MistakeCode::ConflictingKeys,
                format!(
                    "`tls: false` contradicts `{implied}`, which is for applications that speak TLS"
                ),
                "remove `tls: false`",
            );
            true
        }
        Some(At {
            value: Flag(written),
            ..
        }) => written,
        None => is_implied,
    }
}

fn endpoints(
    raw: Option<Vec<OneOf<SocketAddr, RawEndpoint>>>,
    of: Position,
    own: &Locality,
    reached: &mut Vec<At<SocketAddr>>,
    found: &mut Findings,
) -> Vec<Endpoint> {
    let raw = raw.unwrap_or_default();
    if raw.is_empty() {
        lacking(
            "endpoints",
            "at least one `address:port` at which the service answers",
            of,
            found,
        );
    }
    let mut seen = BTreeSet::new();
    let mut endpoints = Vec::with_capacity(raw.len());
    for item in raw {
        let (address, zone) = match item {
            OneOf::Short(address) => (address.placed(found), None),
            OneOf::Long(mapping) => {
                let Some(At { at, value }) = mapping.take() else {
                    continue;
                };
                (value.address.required("address", at, found), value.zone)
            }
        };
        let zone = zone.and_then(|field| field.placed(found));
        let Some(At { at, value: address }) = address else {
            continue;
        };
        let locality = match locality(own, zone.as_ref()) {
            Ok(locality) => locality,
            Err((at, reason)) => {
                found.add(
                    at,
                    MistakeCode::InvalidName,
                    reason,
                    "use 1 to 63 letters, digits, -, _ and .",
                );
                continue;
            }
        };
        match Endpoint::new(address, locality, AddressSource::OwnConfig) {
            Ok(endpoint) if !seen.insert(endpoint.address()) => found.add(
                at,
                MistakeCode::DuplicateItem,
                format!("`{address}` stands twice in this list"),
                "remove one of the two",
            ),
            Ok(endpoint) => {
                reached.push(At {
                    at,
                    value: endpoint.address(),
                });
                endpoints.push(endpoint);
            }
            Err(reason) => found.add(
                at,
                MistakeCode::EndpointRefused,
                format!("not an endpoint: {reason}"),
                "write the address and port on which one instance of the service listens",
            ),
        }
    }
    endpoints
}

/// Where an endpoint is: in our region, and in the zone that was written for it.
fn locality(own: &Locality, zone: Option<&At<PlaceName>>) -> Result<Locality, (Position, String)> {
    let at = zone.map(|zone| zone.at).unwrap_or_default();
    let zone = zone.map(|zone| &*zone.value.0);
    Locality::new(own.region.as_deref(), zone, None).map_err(|reason| (at, reason.to_string()))
}

fn audience(
    raw: Option<Vec<Field<ClusterName>>>,
    peers: &BTreeSet<ClusterName>,
    found: &mut Findings,
) -> BTreeSet<ClusterName> {
    let to = items(raw.unwrap_or_default(), found);
    for At { at, value: name } in &to {
        if !peers.contains(name) {
            let message = format!("`{name}` is not a peer");
            found.add(
                *at,
                MistakeCode::ExportToUnknownPeer,
                message,
                meant(name, peers),
            );
        }
    }
    distinct(to, found).into_iter().collect()
}

/// What to do about a peer that does not exist.
pub(super) fn meant(name: &ClusterName, peers: &BTreeSet<ClusterName>) -> String {
    nearest(name.as_str(), peers.iter().map(ClusterName::as_str)).map_or_else(
        || format!("add a peer with `name: {name}` under `peers`, or remove it here"),
        |near| format!("did you mean {near}?"),
    )
}

impl Direct {
    fn read(raw: At<RawDirect>, found: &mut Findings) -> Option<Self> {
        let At { at, value: raw } = raw;
        match (raw.terminate, raw.passthrough) {
            (Some(callers), None) => {
                if callers.is_empty() {
                    lacking(
                        "terminate",
                        "at least one SPIFFE ID that may call",
                        at,
                        found,
                    );
                }
                if let Some(first) = raw.sources.as_ref().and_then(|sources| sources.first()) {
                    found.add(
                        first.at,
                        MistakeCode::ConflictingKeys,
                        "`sources` is for `passthrough`; callers of `terminate` prove who they are",
                        "remove `sources`",
                    );
                }
                let callers = distinct(items(callers, found), found);
                Some(Self::Terminate { callers })
            }
            (None, Some(word)) => {
                let word = word.take(found);
                let sources = raw.sources.unwrap_or_default();
                if sources.is_empty() {
                    let expected =
                        "the networks that clients come from; `0.0.0.0/0` and `::/0` are everyone";
                    lacking("sources", expected, at, found);
                }
                let sources = distinct(items(sources, found), found);
                word.map(|Anonymous| Self::Passthrough { sources })
            }
            (Some(_), Some(_)) | (None, None) => {
                found.add(
                    at,
                    MistakeCode::ConflictingKeys,
                    "a service is opened to direct clients in exactly one way",
                    "write `terminate:` with SPIFFE IDs, or `passthrough: anonymous` with `sources:`",
                );
                None
            }
        }
    }
}
