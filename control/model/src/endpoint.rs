//! Where a connection may be delivered. What must never be reached through a gateway cannot be an [`Endpoint`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde::Serialize;

use crate::locality::Locality;

#[cfg(test)]
mod tests;

/// Who gave an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressSource {
    /// Our own operator, in our own configuration: loopback is theirs to give.
    OwnConfig,
    /// Anyone else: the cluster's API, a peer.
    Learned,
}

/// Why an address cannot be an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Port 0.
    #[error("{address} has port 0")]
    PortZero {
        /// What was given.
        address: SocketAddr,
    },
    /// `0.0.0.0/8`, `::`.
    #[error("{address} is no address of a host")]
    Unspecified {
        /// What was given.
        address: SocketAddr,
    },
    /// `224.0.0.0/4`, `ff00::/8`.
    #[error("{address} is a multicast address")]
    Multicast {
        /// What was given.
        address: SocketAddr,
    },
    /// `255.255.255.255` and the rest of `240.0.0.0/4`.
    #[error("{address} is a broadcast or reserved address")]
    Broadcast {
        /// What was given.
        address: SocketAddr,
    },
    /// `169.254.0.0/16`, `fe80::/10`.
    #[error(
        "{address} is a link-local address, where machines keep their metadata and credentials"
    )]
    LinkLocal {
        /// What was given.
        address: SocketAddr,
    },
    /// A cloud's metadata service outside the link-local ranges.
    #[error("{address} is a cloud's metadata service")]
    Metadata {
        /// What was given.
        address: SocketAddr,
    },
    /// `127.0.0.0/8`, `::1`, from anyone but our own configuration.
    #[error("{address} is a loopback address; only our own configuration may name one")]
    Loopback {
        /// What was given.
        address: SocketAddr,
    },
    /// Ours, or a gateway's: delivering there would loop.
    #[error("{address} belongs to a gateway or to an address of ours; delivering there would loop")]
    Reserved {
        /// What was given.
        address: SocketAddr,
    },
}

/// One address that answers for a service, checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Endpoint {
    address: SocketAddr,
    locality: Locality,
}

impl Endpoint {
    /// Takes an address if a connection may be delivered there. IPv4 in IPv6 is unwrapped first and kept as IPv4.
    ///
    /// # Errors
    /// Why not.
    pub fn new(
        address: SocketAddr,
        locality: Locality,
        source: AddressSource,
    ) -> Result<Self, EndpointError> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        if address.port() == 0 {
            return Err(EndpointError::PortZero { address });
        }
        check(address, address.ip(), source)?;
        if let IpAddr::V6(ip) = address.ip()
            && let Some(inner) = embedded(ip)
        {
            check(address, inner.into(), source)?;
        }
        Ok(Self { address, locality })
    }

    /// The address, IPv4 never wrapped in IPv6.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it runs.
    #[must_use]
    pub fn locality(&self) -> &Locality {
        &self.locality
    }
}

fn check(address: SocketAddr, ip: IpAddr, source: AddressSource) -> Result<(), EndpointError> {
    if ip.is_multicast() {
        return Err(EndpointError::Multicast { address });
    }
    if ip.is_loopback() {
        return match source {
            AddressSource::OwnConfig => Ok(()),
            AddressSource::Learned => Err(EndpointError::Loopback { address }),
        };
    }
    match ip {
        IpAddr::V4(ip) => check_v4(address, ip),
        IpAddr::V6(ip) => check_v6(address, ip),
    }
}

fn check_v4(address: SocketAddr, ip: Ipv4Addr) -> Result<(), EndpointError> {
    /// Azure's host agent and Alibaba's metadata service.
    const METADATA: [Ipv4Addr; 2] = [
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(100, 100, 100, 200),
    ];

    let [first, ..] = ip.octets();
    if first == 0 {
        return Err(EndpointError::Unspecified { address });
    }
    if first >= 240 {
        return Err(EndpointError::Broadcast { address });
    }
    if ip.is_link_local() {
        return Err(EndpointError::LinkLocal { address });
    }
    if METADATA.contains(&ip) {
        return Err(EndpointError::Metadata { address });
    }
    Ok(())
}

fn check_v6(address: SocketAddr, ip: Ipv6Addr) -> Result<(), EndpointError> {
    /// The metadata services of EC2 and of Google Cloud.
    const METADATA: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];

    if ip.is_unspecified() {
        return Err(EndpointError::Unspecified { address });
    }
    if ip.is_unicast_link_local() {
        return Err(EndpointError::LinkLocal { address });
    }
    if METADATA.contains(&ip) {
        return Err(EndpointError::Metadata { address });
    }
    Ok(())
}

/// The IPv4 address a translator or tunnel on the way would take out of `ip`: NAT64 (RFC 6052 §2.1), 6to4
/// (RFC 3056 §2), IPv4-compatible (RFC 4291 §2.5.5.1).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => None,
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(from(high, low))
        }
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

/// Addresses that are nobody's endpoint although they look like any other: our service addresses, our gateways' and
/// our peers' gateways'.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReservedAddresses {
    /// Single addresses with their port.
    pub addresses: BTreeSet<SocketAddr>,
    /// Whole ranges, such as the one the cluster's service addresses are taken from.
    pub ranges: Vec<IpNet>,
}

impl ReservedAddresses {
    /// Refuses an endpoint that is one of these.
    ///
    /// # Errors
    /// [`EndpointError::Reserved`].
    pub fn check(&self, endpoint: &Endpoint) -> Result<(), EndpointError> {
        let address = endpoint.address;
        let ip = address.ip();
        if self.addresses.contains(&address) || self.ranges.iter().any(|range| range.contains(&ip))
        {
            return Err(EndpointError::Reserved { address });
        }
        Ok(())
    }
}
