//! What one cluster tells another about a service it exports, and what of that the other one accepts.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{DnsName, Label, NameError, Namespace, PortNumber, Protocol, ServiceId};
use crate::route::Replay;

#[cfg(test)]
mod tests;

/// Most services of one peer that are taken.
pub const OFFERS_MAX: usize = 10_000;
/// Most ports of one service.
pub const OFFERED_PORTS_MAX: usize = 64;
/// Most server names of one port.
pub const OFFERED_SNI_NAMES_MAX: usize = 32;
/// Most zones of one service.
pub const OFFERED_ZONES_MAX: usize = 64;

/// One exported service as one cluster offers it to one peer. Says how many endpoints there are, never which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// The service.
    pub service: ServiceId,
    /// How it is addressed.
    pub kind: ServiceKind,
    /// Its ports; each port and protocol once, in order.
    pub ports: Vec<OfferedPort>,
    /// When it was exported, Unix milliseconds by the clock of the cluster that exports it.
    pub exported_at_ms: u64,
    /// Endpoints that are ready.
    pub ready: u32,
    /// Streams it could take beyond those it has.
    pub headroom: Option<u32>,
    /// Ready endpoints by zone, as far as zones are known.
    pub zones: BTreeMap<Box<str>, u32>,
}

/// How a service is addressed (KEP-1645, `ServiceImport` type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// By one address for all its endpoints.
    ClusterSetIp,
    /// Each endpoint by its name.
    Headless,
}

/// One port of an offered service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OfferedPort {
    /// Its number.
    pub port: PortNumber,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its name in the service.
    pub name: Option<Label>,
    /// The application speaks TLS on it.
    pub tls: bool,
    /// Whether bytes may be sent twice.
    pub replay: Replay,
    /// Further server names it answers to.
    pub sni_names: Vec<DnsName>,
}

/// Names one life of a cluster's state. Another instance shares nothing with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub [u8; 16]);

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Instance {
    type Err = NotAnInstance;

    fn from_str(text: &str) -> Result<Self, NotAnInstance> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAnInstance);
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| NotAnInstance)
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance is written as 32 hexadecimal digits")]
pub struct NotAnInstance;

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// As in text.
impl Serialize for Instance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How far the state of one instance has come; later ones are greater.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version {
    /// Counts the starts of the control plane.
    pub epoch: u64,
    /// Counts the changes.
    pub revision: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.revision)
    }
}

/// Which services of a peer are accepted here. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Accepted(pub Vec<Selector>);

impl Accepted {
    /// Whether the service is accepted. Namespaces of Kubernetes itself never are.
    #[must_use]
    pub fn accepts(&self, service: &ServiceId) -> bool {
        !is_reserved(&service.namespace) && self.0.iter().any(|selector| selector.matches(service))
    }
}

/// Whether a namespace belongs to Kubernetes, so that no peer may put a service into it.
#[must_use]
pub fn is_reserved(namespace: &Namespace) -> bool {
    namespace.as_str().starts_with("kube-")
}

/// Picks services by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// All: `*`.
    All,
    /// Those of a namespace: `shop/*`.
    Namespace(Namespace),
    /// One: `web.shop`.
    Service(ServiceId),
}

impl Selector {
    /// Whether it picks this service.
    #[must_use]
    pub fn matches(&self, service: &ServiceId) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => *namespace == service.namespace,
            Self::Service(one) => one == service,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Namespace(namespace) => write!(f, "{namespace}/*"),
            Self::Service(service) => service.fmt(f),
        }
    }
}

impl FromStr for Selector {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "*" {
            return Ok(Self::All);
        }
        match text.strip_suffix("/*") {
            Some(namespace) => namespace.parse().map(Self::Namespace),
            None => text.parse().map(Self::Service),
        }
    }
}

/// As in text.
impl Serialize for Selector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
