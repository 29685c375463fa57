//! Who has which address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The protocol family a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What carries streams between the gateways of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Mutual TLS over TCP.
    Tls,
    /// QUIC over UDP.
    Quic,
}

/// What a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ground {
    /// What all of it speaks.
    pub family: Family,
    /// What is between the gateways.
    pub transport: Transport,
}

impl From<Family> for Ground {
    fn from(family: Family) -> Self {
        Self {
            family,
            transport: Transport::Tls,
        }
    }
}

impl Transport {
    /// What a configuration calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }
}

/// One of the three networks between neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Client and east.
    Near,
    /// East and west.
    Between,
    /// West and server.
    Far,
    /// Somewhere else: strangers, who reach west from the host of east.
    Elsewhere,
}

impl Family {
    /// The address of host number `host` in `net`.
    pub fn address(self, net: Net, host: u8) -> IpAddr {
        let net = net.number();
        match self {
            Self::V4 => Ipv4Addr::new(10, net, 0, host).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, hexadecimal(net), 0, 0, 0, 0, 0, host.into()).into(),
        }
    }

    /// The same with a port.
    pub fn socket(self, net: Net, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(net, host), port)
    }

    /// An address that no host has; clients reach it through east.
    pub fn service_address(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 96, 0, 1).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    /// What `curl` and `iperf3` call it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    /// What nftables calls it.
    pub(crate) fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// The number whose hexadecimal digits look like the decimal ones of `number`.
fn hexadecimal(number: u8) -> u16 {
    u16::from(number / 10) * 16 + u16::from(number % 10)
}

impl Net {
    pub(crate) const CABLES: [Self; 3] = [Self::Near, Self::Between, Self::Far];

    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Near => 1,
            Self::Between => 2,
            Self::Far => 3,
            Self::Elsewhere => 66,
        }
    }
}
