//! What the core is asked, and what it answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use corinth_model::{Export, PortNumber, Protocol, Route, RouteName, SniName, SpiffeId, Target};

use crate::permits::PermitId;

/// A local client wants to reach a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How it named the service.
    pub intake: By,
    /// What it speaks to us.
    pub protocol: Protocol,
    /// The address it came from.
    pub source: IpAddr,
}

/// How a local client named the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// By the import port it connected to.
    ImportPort(PortNumber),
    /// By the server name of its TLS hello.
    Sni(SniName),
    /// By the route name, as SOCKS and HTTP CONNECT do.
    Name(RouteName),
}

/// The ordered, already chosen attempts for one connection.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The route that was asked for.
    pub route: Arc<Route>,
    /// At least one, each target once, the best first.
    pub attempts: Vec<Attempt>,
}

/// One candidate to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// A local endpoint, or a cluster whose gateway chooses the endpoint.
    pub target: Target,
}

/// A peer wants to open a stream to a service of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The service it names.
    pub route: RouteName,
    /// The protocol beside the name.
    pub protocol: Protocol,
    /// How many gateways the stream has passed before us.
    pub hops: u8,
}

/// A client without a tunnel that wants to reach an export of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectClient {
    /// Nobody knows who it is, only where it comes from.
    Anonymous(IpAddr),
    /// Its certificate was verified.
    Identified(SpiffeId),
}

/// A stream may be opened to an export of ours.
#[derive(Debug, Clone)]
pub struct Admission {
    /// What it reaches.
    pub export: Arc<Export>,
    /// The endpoints to try in this order until one connects; at least one.
    pub endpoints: Vec<SocketAddr>,
    /// To be given back with [`Core::release`](crate::Core::release) when the stream has ended.
    pub permit: PermitId,
}
