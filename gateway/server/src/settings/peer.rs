//! The clusters this one is linked with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use corinth_model::{ClusterName, TrustDomain};
use corinth_transport::Congestion;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::address::HostPort;
use super::field::{At, Field, Optional, items, lacking, missing};
use super::files::{self, Certificates};
use super::mistake::{Findings, MistakeCode, Position};
use super::show::NamedFile;
use super::value::{Choice, Flag, Number, Pem, distinct, number};

/// Most streams one peer may be allowed.
pub(super) const STREAMS_MAX: u32 = 1_000_000;

/// Another cluster, and how to reach and recognise it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// What we call it.
    pub name: ClusterName,
    /// The trust domain its gateways must prove.
    pub trust_domain: TrustDomain,
    /// The roots its certificates are verified against.
    #[serde(flatten)]
    pub roots: Roots,
    /// Its gateways; empty only where `accept_only`.
    pub addresses: Vec<HostPort>,
    /// We wait for it to dial us.
    pub accept_only: bool,
    /// Most streams it may have open here at once.
    pub max_streams: u32,
    /// What carries the streams that we open.
    pub transport: Transport,
    /// How fast we send to it; none means what the system does for TCP, and BBR for QUIC.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_a_word")]
    pub congestion: Option<Congestion>,
}

/// Where a peer's roots are.
#[derive(Clone, Debug, Serialize)]
pub enum Roots {
    /// In a PEM file.
    #[serde(rename = "bundle")]
    File(NamedFile),
    /// In the configuration itself; shown as a count.
    #[serde(rename = "bundlePem", serialize_with = "count")]
    Inline(Certificates),
}

/// What carries streams to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Mutual TLS 1.3 over TCP.
    Tls,
    /// QUIC over UDP.
    Quic,
    /// Both are linked, and streams go where they arrive soonest and surest.
    Auto,
}

impl Choice for Transport {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("tls", Self::Tls),
        ("quic", Self::Quic),
        ("auto", Self::Auto),
    ];
    const WHAT: &'static str = "a transport";
}

impl Choice for Congestion {
    const WORDS: &'static [(&'static str, Self)] = &[("cubic", Self::Cubic), ("bbr", Self::Bbr)];
    const WHAT: &'static str = "a congestion control";
}

/// Another cluster that this one is linked with.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawPeer {
    /// What we call it.
    #[schemars(required)]
    pub(super) name: Option<Field<ClusterName>>,
    /// The trust domain its gateways must prove. Default `<name>.corinth.internal`.
    trust_domain: Option<Field<TrustDomain>>,
    /// PEM file with the roots of its trust domain.
    bundle: Option<Field<PathBuf>>,
    /// The same roots as text, instead of `bundle`.
    bundle_pem: Option<Field<Pem>>,
    /// Its gateways, as host and port. At least one, unless `acceptOnly`.
    #[serde(default)]
    addresses: Option<Vec<Field<HostPort>>>,
    /// Wait for it to dial us. Default `false`.
    accept_only: Option<Field<Flag>>,
    /// Most streams it may have open here at once. Default: `limits.streamsPerPeer`.
    max_streams: Option<Field<Number>>,
    /// What carries the streams that we open: `tls`, `quic`, for which UDP has to pass, or `auto`, which links both ways
    /// and takes the better one. Default `tls`.
    transport: Option<Field<Transport>>,
    /// How fast we send: `cubic` or `bbr`. Default: what the system does for TCP, `bbr` for QUIC.
    congestion: Option<Field<Congestion>>,
}

/// Us, as far as peers may not be the same.
pub(super) struct Own<'a> {
    pub(super) cluster: Option<&'a ClusterName>,
    pub(super) trust_domain: Option<&'a TrustDomain>,
    pub(super) streams_per_peer: u32,
    pub(super) origin: &'a Path,
}

/// Where peers reach the gateways of a cluster, each once.
pub(super) fn gateways(raw: Option<Vec<Field<HostPort>>>, found: &mut Findings) -> Vec<HostPort> {
    distinct(items(raw.unwrap_or_default(), found), found)
}

/// The peers that can be used; whatever stands in their way is reported.
pub(super) fn read(raw: Vec<At<RawPeer>>, own: &Own<'_>, found: &mut Findings) -> Vec<Peer> {
    let mut names = BTreeMap::new();
    let mut domains = BTreeMap::new();
    let mut peers = Vec::with_capacity(raw.len());
    for At { at, value } in raw {
        let domain_at = value.trust_domain.as_ref().map(|field| field.at);
        let Some(name) = value.name.clone().required("name", at, found) else {
            continue;
        };
        check_name(&name, own, &mut names, found);
        let Some(peer) = read_one(name.value, at, value, own, found) else {
            continue;
        };
        check_domain(
            &peer,
            domain_at.unwrap_or(name.at),
            own,
            &mut domains,
            found,
        );
        peers.push(peer);
    }
    peers
}

fn read_one(
    name: ClusterName,
    at: Position,
    raw: RawPeer,
    own: &Own<'_>,
    found: &mut Findings,
) -> Option<Peer> {
    // A wrong word may have been meant as `true`.
    let accept_only = raw
        .accept_only
        .is_some_and(|field| field.take(found).is_none_or(|flag| flag.0));
    let is_empty = raw.addresses.as_ref().is_none_or(Vec::is_empty);
    if is_empty && !accept_only {
        let expected = "at least one `host:port` of its gateways, or `acceptOnly: true`";
        lacking("addresses", expected, at, found);
    }
    let roots = roots(raw.bundle, raw.bundle_pem, at, own.origin, found);
    Some(Peer {
        trust_domain: raw
            .trust_domain
            .otherwise(TrustDomain::of_cluster(&name), found),
        name,
        addresses: distinct(items(raw.addresses.unwrap_or_default(), found), found),
        accept_only,
        max_streams: number(
            raw.max_streams,
            own.streams_per_peer,
            1..=STREAMS_MAX,
            found,
        ),
        transport: raw.transport.otherwise(Transport::Tls, found),
        congestion: raw.congestion.and_then(|field| field.take(found)),
        roots: roots?,
    })
}

fn roots(
    bundle: Option<Field<PathBuf>>,
    pem: Option<Field<Pem>>,
    at: Position,
    origin: &Path,
    found: &mut Findings,
) -> Option<Roots> {
    match (bundle, pem) {
        (Some(_), Some(pem)) => {
            found.add(
                pem.at,
                MistakeCode::ConflictingKeys,
                "the roots of a peer stand in `bundle` or in `bundlePem`, not in both",
                "remove one of the two",
            );
            None
        }
        (None, None) => {
            let expected =
                "the path of a PEM file with the peer's roots, or `bundlePem:` with the text";
            missing("bundle", expected, at, found);
            None
        }
        (Some(path), None) => path
            .placed(found)
            .map(|written| Roots::File(NamedFile::new(written, origin))),
        (None, Some(pem)) => {
            let At {
                at,
                value: Pem(text),
            } = pem.placed(found)?;
            let read = files::certificates("`bundlePem`", text);
            read.map_err(|wrong| found.wrong(at, wrong))
                .ok()
                .map(Roots::Inline)
        }
    }
}

fn check_name(
    name: &At<ClusterName>,
    own: &Own<'_>,
    names: &mut BTreeMap<ClusterName, Position>,
    found: &mut Findings,
) {
    if own.cluster == Some(&name.value) {
        found.add(
            name.at,
            MistakeCode::PeerIsSelf,
            format!("the peer `{}` has the name of this cluster", name.value),
            "clusters that are linked need different names: rename one of them, or remove the peer",
        );
    }
    if let Some(first) = names.insert(name.value.clone(), name.at) {
        found.add(
            name.at,
            MistakeCode::DuplicatePeer,
            format!(
                "the peer `{}` stands on line {} already",
                name.value, first.line
            ),
            "list all its gateways under `addresses` of one peer",
        );
    }
}

fn check_domain(
    peer: &Peer,
    at: Position,
    own: &Own<'_>,
    domains: &mut BTreeMap<TrustDomain, ClusterName>,
    found: &mut Findings,
) {
    if own.trust_domain == Some(&peer.trust_domain) && own.cluster != Some(&peer.name) {
        found.add(
            at,
            MistakeCode::PeerIsSelf,
            format!(
                "the peer `{}` has the trust domain of this cluster",
                peer.name
            ),
            "each cluster has a trust domain of its own; ask the peer's operator for its name",
        );
    }
    let first = domains
        .entry(peer.trust_domain.clone())
        .or_insert_with(|| peer.name.clone());
    if *first != peer.name {
        found.add(
            at,
            MistakeCode::DuplicateTrustDomain,
            format!(
                "the peers `{first}` and `{}` have the same trust domain",
                peer.name
            ),
            "each cluster has a trust domain of its own: whoever holds it could speak as both",
        );
    }
}

fn in_a_word<S: Serializer>(
    congestion: &Option<Congestion>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(congestion.map_or("", Congestion::as_str))
}

fn count<S: Serializer>(certificates: &Certificates, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!(
        "({} certificates)",
        certificates.ders().len()
    ))
}
