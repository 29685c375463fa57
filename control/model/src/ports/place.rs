//! A number among those of one protocol: TCP and UDP count apart.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::name::{PortNumber, Protocol};

/// A number among those of one protocol; reads `20000/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) number: PortNumber,
    protocol: Protocol,
}

impl Place {
    /// The number, for the protocol of a service port such as `dns.infra:53/udp`. Without one it is TCP's.
    pub(super) fn of(service: &str, number: PortNumber) -> Self {
        let protocol = match service.rsplit_once('/') {
            Some((_, "udp")) => Protocol::Udp,
            Some(_) | None => Protocol::Tcp,
        };
        Self { number, protocol }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// As in text.
impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From text; a number alone, as in books of earlier versions, is TCP's.
impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.split_once('/').map_or(&*text, |(number, _)| number);
        let number = number.parse().map_err(de::Error::custom)?;
        let number = PortNumber::new(number).ok_or_else(|| de::Error::custom("no port is 0"))?;
        Ok(Self::of(&text, number))
    }
}
