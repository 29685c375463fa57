//! One entry: a service as it is offered, in its one encoding, and the digests over it.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use corinth_model::{
    Condition, DnsName, Label, Locality, OFFERED_PORTS_MAX, OFFERED_SNI_NAMES_MAX,
    OFFERED_ZONES_MAX, Offer, OfferedPort, PortNumber, Protocol, Replay, ServiceId, ServiceKind,
};
use prost::Message as _;

use crate::wire::peering as wire;

/// A SHA-256: of one entry as it was written, or of several in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; SHA256_OUTPUT_LEN]);

impl Digest {
    /// Of an entry as we write it.
    #[must_use]
    pub fn of(offer: &Offer) -> Self {
        Self::of_bytes(&encode_offer(offer))
    }

    /// Of an encoded entry.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::from_output(digest(&SHA256, bytes).as_ref())
    }

    fn from_output(bytes: &[u8]) -> Self {
        Self(bytes.try_into().expect("SHA-256 has this length"))
    }
}

/// Takes the digests of entries one by one, in order, and gives the one over all of them.
#[derive(Clone)]
pub struct Digester(Context);

impl Default for Digester {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

impl Digester {
    /// Adds an entry.
    pub fn add(&mut self, entry: &Digest) {
        self.0.update(&entry.0);
    }

    /// Over everything added.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_output(self.0.finish().as_ref())
    }
}

impl<'a> FromIterator<&'a Self> for Digest {
    fn from_iter<T: IntoIterator<Item = &'a Self>>(entries: T) -> Self {
        let mut digester = Digester::default();
        entries.into_iter().for_each(|entry| digester.add(entry));
        digester.finish()
    }
}

/// Why an entry is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}: {condition}")]
pub struct EntryError {
    /// The service, if its name can be read.
    pub service: Option<ServiceId>,
    /// What to answer.
    pub condition: Condition,
    /// The rule that was broken.
    pub why: &'static str,
}

/// A broken rule, before it is known whose.
type Fault = (Condition, &'static str);

/// The encoding of an entry. One value has one encoding, whatever the machine or the version.
#[must_use]
pub fn encode_offer(offer: &Offer) -> Vec<u8> {
    let kind = match offer.kind {
        ServiceKind::ClusterSetIp => wire::service::Kind::ClusterSetIp,
        ServiceKind::Headless => wire::service::Kind::Headless,
    };
    let zones = offer.zones.iter();
    wire::Service {
        namespace: offer.service.namespace.to_string(),
        name: offer.service.service.to_string(),
        kind: kind.into(),
        ports: offer.ports.iter().map(encode_port).collect(),
        exported_at_ms: offer.exported_at_ms,
        ready: offer.ready,
        headroom: offer.headroom,
        zones: zones
            .map(|(zone, ready)| (String::from(&**zone), *ready))
            .collect(),
    }
    .encode_to_vec()
}

fn encode_port(port: &OfferedPort) -> wire::Port {
    let protocol = match port.protocol {
        Protocol::Tcp => wire::port::Protocol::Tcp,
        Protocol::Udp => wire::port::Protocol::Udp,
    };
    wire::Port {
        port: port.port.get().into(),
        protocol: protocol.into(),
        name: port.name.as_ref().map(Label::to_string).unwrap_or_default(),
        tls: port.tls,
        idempotent: port.replay == Replay::Idempotent,
        sni_names: port.sni_names.iter().map(DnsName::to_string).collect(),
    }
}

/// An entry of which nothing but the name is left.
pub(super) fn encode_name(service: Option<&ServiceId>) -> Vec<u8> {
    let text = |service: &ServiceId| (service.namespace.to_string(), service.service.to_string());
    let (namespace, name) = service.map(text).unwrap_or_default();
    wire::Service {
        namespace,
        name,
        ..wire::Service::default()
    }
    .encode_to_vec()
}

/// Reads an entry of a peer. Fields of later versions are skipped.
///
/// # Errors
/// Why it is not taken.
pub fn decode_offer(bytes: &[u8]) -> Result<Offer, EntryError> {
    let fault = |service, (condition, why)| EntryError {
        service,
        condition,
        why,
    };
    let service = wire::Service::decode(bytes)
        .map_err(|_| fault(None, invalid("the entry is not a well-formed message")))?;
    let id = super::service(&service.namespace, &service.name)
        .map_err(|_| fault(None, invalid("the name of the service is not valid")))?;
    read(id.clone(), service).map_err(|broken| fault(Some(id), broken))
}

fn read(id: ServiceId, service: wire::Service) -> Result<Offer, Fault> {
    let kind = match wire::service::Kind::try_from(service.kind) {
        Ok(wire::service::Kind::ClusterSetIp) => ServiceKind::ClusterSetIp,
        Ok(wire::service::Kind::Headless) => ServiceKind::Headless,
        Ok(wire::service::Kind::Unspecified) | Err(_) => {
            return Err(invalid("the kind of the service is unknown here"));
        }
    };
    if service.ports.len() > OFFERED_PORTS_MAX {
        return Err(too_many("the service has too many ports"));
    }
    if service.zones.len() > OFFERED_ZONES_MAX {
        return Err(too_many("the service has too many zones"));
    }
    let ports = service.ports.iter().map(read_port);
    let ports = ports.collect::<Result<Vec<_>, _>>()?;
    let is_ascending = ports.is_sorted_by(|a, b| (a.port, a.protocol) < (b.port, b.protocol));
    if !is_ascending {
        return Err(invalid("the ports are not each there once, in order"));
    }
    Ok(Offer {
        service: id,
        kind,
        ports,
        exported_at_ms: service.exported_at_ms,
        ready: service.ready,
        headroom: service.headroom,
        zones: read_zones(service.zones)?,
    })
}

fn read_port(port: &wire::Port) -> Result<OfferedPort, Fault> {
    let number = u16::try_from(port.port).ok().and_then(PortNumber::new);
    let protocol = match wire::port::Protocol::try_from(port.protocol) {
        Ok(wire::port::Protocol::Tcp) => Protocol::Tcp,
        Ok(wire::port::Protocol::Udp) => Protocol::Udp,
        Ok(wire::port::Protocol::Unspecified) | Err(_) => {
            return Err(invalid("the protocol of a port is unknown here"));
        }
    };
    let name = match port.name.as_str() {
        "" => None,
        name => Some(Label::parse(name).map_err(|_| invalid("the name of a port is not valid"))?),
    };
    if port.sni_names.len() > OFFERED_SNI_NAMES_MAX {
        return Err(too_many("a port has too many server names"));
    }
    if protocol != Protocol::Tcp && !port.sni_names.is_empty() {
        return Err(invalid("a port that is not TCP has server names"));
    }
    let sni_names = port.sni_names.iter().map(|name| {
        let name = DnsName::parse(name).ok().filter(|name| !name.is_in_zone());
        name.ok_or_else(|| invalid("a server name is not valid"))
    });
    Ok(OfferedPort {
        port: number.ok_or_else(|| invalid("the number of a port is out of range"))?,
        protocol,
        name,
        tls: port.tls,
        replay: if port.idempotent {
            Replay::Idempotent
        } else {
            Replay::Never
        },
        sni_names: sni_names.collect::<Result<_, _>>()?,
    })
}

fn read_zones(zones: BTreeMap<String, u32>) -> Result<BTreeMap<Box<str>, u32>, Fault> {
    let mut read = BTreeMap::new();
    for (zone, ready) in zones {
        Locality::new(None, Some(&zone), None)
            .map_err(|_| invalid("the name of a zone is not valid"))?;
        read.insert(zone.into(), ready);
    }
    Ok(read)
}

fn invalid(why: &'static str) -> Fault {
    (Condition::EntryInvalid, why)
}

fn too_many(why: &'static str) -> Fault {
    (Condition::OverQuota, why)
}
