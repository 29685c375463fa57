//! A route: a service port as this cluster may call it, and who can answer.

use std::fmt;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::locality::Locality;
use crate::name::{ClusterName, DnsName, PortNumber, Protocol, RouteName};

/// Whether bytes that may have reached an endpoint may be sent again to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// Never: a request is not delivered twice.
    #[default]
    Never,
    /// The application has said that a second delivery does no harm.
    Idempotent,
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::Idempotent => "idempotent",
        })
    }
}

/// A service port as this cluster may call it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// Its protocol, which with the name is its key.
    pub protocol: Protocol,
    /// The port on the gateways on which it is accepted.
    pub import_port: Option<PortNumber>,
    /// Further server names it answers to.
    pub sni_names: Vec<DnsName>,
    /// The application speaks TLS on this port.
    pub tls: bool,
    /// Whether bytes may be sent twice.
    pub replay: Replay,
    /// Who can answer; each target once.
    pub candidates: Vec<Candidate>,
}

impl Route {
    /// Whether a TLS client that gave no port can mean this one: TCP, and marked TLS or 443.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.protocol == Protocol::Tcp && (self.tls || self.name.port == PortNumber::HTTPS)
    }
}

/// One that can answer for a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Where.
    pub target: Target,
    /// Share among candidates of equal priority and proximity.
    pub weight: u32,
    /// Lower goes first; 0 is first.
    pub priority: u8,
    /// Where it runs.
    pub locality: Locality,
}

/// Where a connection can be sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// An address in our own cluster.
    Endpoint(SocketAddr),
    /// A linked cluster, whose gateway chooses the endpoint.
    Cluster(ClusterName),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(address) => address.fmt(f),
            Self::Cluster(cluster) => cluster.fmt(f),
        }
    }
}
