//! How addresses are written: of listeners, endpoints, peers and networks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use corinth_model::{Label, PortNumber};
use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::field::Value;
use super::mistake::{MistakeCode, Wrong, quote};

/// A host and a port to dial: `gateway.west.example:15443`, `192.0.2.7:15443`, `[2001:db8::7]:15443`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Whom to dial.
    pub host: Host,
    /// On which TCP and UDP port.
    pub port: PortNumber,
}

/// An address, or a name that is resolved at each dial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address.
    Address(IpAddr),
    /// A host name in lower case; one label is enough, as in `gateway-b` on a container network.
    Name(Box<str>),
}

impl Value for IpAddr {
    const EXPECTED: &'static str = "an IP address such as `127.0.0.1` or `::1`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        bare.parse().map_err(|_| address(Self::EXPECTED, text))
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address and a port such as `127.0.0.1:8080` or `[::1]:8080`";

    fn read(text: &str) -> Result<Self, Wrong> {
        text.parse().map_err(|_| address(Self::EXPECTED, text))
    }
}

fn address(expected: &str, text: &str) -> Wrong {
    let hint = if text.matches(':').count() > 1 && !text.starts_with('[') {
        "put the IPv6 address in brackets, such as `\"[::1]:8080\"`"
    } else if text.bytes().any(|b| b.is_ascii_alphabetic()) && !text.contains(':') {
        "write an address in digits; names are not resolved here"
    } else {
        "write the address in digits, a colon and the port, in quotes if it begins with a bracket"
    };
    Wrong::new(
        MistakeCode::InvalidAddress,
        format!("expected {expected}, found {}", quote(text)),
        hint,
    )
}

impl Value for HostPort {
    const EXPECTED: &'static str = "a host and a port such as `gateway.west.example:15443`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let wrong = |hint: &str| {
            let message = format!("expected {}, found {}", Self::EXPECTED, quote(text));
            Wrong::new(MistakeCode::InvalidAddress, message, hint)
        };
        if text.contains("://") {
            return Err(wrong(
                "leave out the scheme: write the host, a colon and the port",
            ));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(wrong("add the port of the peer's tunnel, usually `:15443`"));
        };
        let port = PortNumber::read(port).map_err(|_| wrong("end with a port from 1 to 65535"))?;
        Host::parse(host).map(|host| Self { host, port }).ok_or_else(|| {
            wrong("write a host name, an IPv4 address, or an IPv6 address in brackets before the port")
        })
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            return inner.parse().ok().map(|v6| Self::Address(IpAddr::V6(v6)));
        }
        if let Ok(v4) = text.parse() {
            return Some(Self::Address(IpAddr::V4(v4)));
        }
        let is_number = text
            .rsplit('.')
            .next()
            .is_none_or(|last| last.bytes().all(|b| b.is_ascii_digit()));
        let is_name = text.len() <= 253 && text.split('.').all(|label| Label::parse(label).is_ok());
        (is_name && !is_number).then(|| Self::Name(text.to_ascii_lowercase().into()))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]:{}", self.port.get()),
            Host::Address(IpAddr::V4(v4)) => write!(f, "{v4}:{}", self.port.get()),
            Host::Name(name) => write!(f, "{name}:{}", self.port.get()),
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|wrong| format!("{}; {}", wrong.message, wrong.hint))
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Value for IpNet {
    const EXPECTED: &'static str = "a network such as `10.0.0.0/8` or `fd00::/8`";

    fn read(text: &str) -> Result<Self, Wrong> {
        let Ok(net) = text.parse::<Self>() else {
            return Err(Wrong::new(
                MistakeCode::InvalidNetwork,
                format!("expected {}, found {}", Self::EXPECTED, quote(text)),
                "write the address, a slash and the prefix length; one host is `/32` or `/128`",
            ));
        };
        if net.trunc() != net {
            return Err(Wrong::new(
                MistakeCode::InvalidNetwork,
                format!("{} has bits set beyond its prefix", quote(text)),
                format!("write `{}`, or a longer prefix", net.trunc()),
            ));
        }
        Ok(net)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        for text in [
            "a:1",
            "gw.West.example:15443",
            "192.0.2.7:1",
            "[2001:db8::7]:15443",
        ] {
            let read = HostPort::read(text).expect(text);
            assert_eq!(read.to_string(), text.to_ascii_lowercase());
        }
        for text in [
            "",
            ":1",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:01",
            "1.2.3:1",
            "1.2.3.4.5:1",
            "::1:1",
            "a_b:1",
            "-a:1",
            "a..b:1",
            "a.:1",
            "https://a:1",
            "a b:1",
            "[::1]",
            "[a]:1",
            "1.2.3.256:1",
            "a:+1",
        ] {
            assert!(HostPort::read(text).is_err(), "{text}");
        }
    }
}
