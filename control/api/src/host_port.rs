//! Where somebody is dialled, as it is written in tokens and told by peers.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use corinth_model::{DNS_NAME_MAX_BYTES, Label, PortNumber};

#[cfg(test)]
mod tests;

/// A host and a port to dial: `gateway.west.example:15443`, `192.0.2.7:15443`, `[2001:db8::7]:15443`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Whom to dial.
    pub host: Host,
    /// On which port.
    pub port: PortNumber,
}

/// An address, or a name that is resolved at each dial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address.
    Address(IpAddr),
    /// A host name in lower case; one label is enough.
    Name(Box<str>),
}

/// The text is no host and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// No colon with a port behind it.
    #[error(
        "a host name or address, a colon and a port are needed, such as `gateway.example:15443`"
    )]
    Port,
    /// What stands before the port is neither address nor name.
    #[error(
        "a host name, an IPv4 address, or an IPv6 address in brackets is needed before the port"
    )]
    Host,
}

impl HostPort {
    /// Reads `host:port`; IPv6 addresses stand in brackets.
    ///
    /// # Errors
    /// Which part is wrong.
    pub fn parse(text: &str) -> Result<Self, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError::Port)?;
        let port = PortNumber::parse(port).map_err(|_| HostPortError::Port)?;
        let host = Host::parse(host).ok_or(HostPortError::Host)?;
        Ok(Self { host, port })
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            let address: Ipv6Addr = inner.parse().ok()?;
            return Some(Self::Address(address.into()));
        }
        if let Ok(address) = text.parse() {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        // Resolvers read a name that ends in a number as an address.
        let last = text.rsplit('.').next().unwrap_or(text);
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = text.len() <= DNS_NAME_MAX_BYTES
            && text.split('.').all(|label| Label::parse(label).is_ok());
        (is_name && !is_number).then(|| Self::Name(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        Self::parse(text)
    }
}
