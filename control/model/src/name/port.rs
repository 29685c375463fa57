//! The port and protocol of a service.

use std::fmt;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::NameError;

/// A TCP or UDP port, 1 to 65535.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct PortNumber(NonZeroU16);

impl PortNumber {
    /// 443, which counts as TLS whatever the service says of itself.
    pub const HTTPS: Self = match NonZeroU16::new(443) {
        Some(port) => Self(port),
        None => unreachable!(),
    };

    /// The port, unless it is 0.
    #[must_use]
    pub const fn new(port: u16) -> Option<Self> {
        match NonZeroU16::new(port) {
            Some(port) => Some(Self(port)),
            None => None,
        }
    }

    /// Reads a port in decimal, as it stands at the front of a route name.
    ///
    /// # Errors
    /// [`NameError::PortNotDecimal`] for anything but digits without a leading zero,
    /// [`NameError::PortOutOfRange`] for 0 and for more than 65535.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if !is_decimal(text) {
            return Err(NameError::PortNotDecimal);
        }
        if text == "0" {
            return Err(NameError::PortOutOfRange);
        }
        if text.starts_with('0') {
            return Err(NameError::PortNotDecimal);
        }
        text.parse()
            .map(Self)
            .map_err(|_| NameError::PortOutOfRange)
    }

    /// The port as a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// Whether `text` consists of digits only: in the place of a port it then is one, never a name.
pub(super) fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for PortNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for PortNumber {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl From<PortNumber> for u16 {
    fn from(port: PortNumber) -> Self {
        port.get()
    }
}

impl TryFrom<u16> for PortNumber {
    type Error = NameError;

    fn try_from(port: u16) -> Result<Self, Self::Error> {
        Self::new(port).ok_or(NameError::PortOutOfRange)
    }
}

/// What a service port speaks below the application.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections, carried as streams.
    #[default]
    Tcp,
    /// Datagrams, carried as flows.
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
