//! Full host names, as far as they may name a service.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::name::{NameError, ZONE, label, port};
use crate::text::text_form;

/// Longest host name in bytes, without the root dot (RFC 1035 §2.3.4).
pub const DNS_NAME_MAX_BYTES: usize = 253;

/// A host name of at least two labels, in lower case, without the root dot; never an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(Arc<str>);

impl DnsName {
    /// Reads a host name; one root dot is dropped, ASCII upper case is folded.
    ///
    /// # Errors
    /// The rule of RFC 1123 §2.1 that was broken, [`NameError::IpLiteral`] for an address,
    /// [`NameError::SingleLabel`] for a name without a dot.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = without_root_dot(text)?;
        if is_ip_literal(text) {
            return Err(NameError::IpLiteral);
        }
        for part in text.split('.') {
            label::check(part)?;
        }
        let Some((_, last)) = text.rsplit_once('.') else {
            return Err(NameError::SingleLabel);
        };
        // No top-level domain is a number; resolvers read "127.1" and "0x7f.1" as addresses.
        if port::is_decimal(last) || is_hexadecimal(last) {
            return Err(NameError::IpLiteral);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name in lower case, without the root dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies in the zone of the route names, where only services give names.
    #[must_use]
    pub fn is_in_zone(&self) -> bool {
        let above = self.0.strip_suffix(ZONE);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(DnsName, NameError, "a full host name, not an IP address");

/// Drops one dot at the end and checks the length of the rest.
pub(super) fn without_root_dot(text: &str) -> Result<&str, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.ends_with('.') {
        return Err(NameError::TrailingDots);
    }
    if name.is_empty() {
        return Err(NameError::LabelEmpty);
    }
    if name.len() > DNS_NAME_MAX_BYTES {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    Ok(name)
}

/// Whether `text` is an address, also in brackets or with a scope (`[::1]`, `fe80::1%eth0`).
pub(super) fn is_ip_literal(text: &str) -> bool {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if inner.parse::<IpAddr>().is_ok() {
        return true;
    }
    inner
        .split_once('%')
        .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok())
}

fn is_hexadecimal(text: &str) -> bool {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
