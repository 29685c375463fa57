//! Names of clusters, services and their ports, in the forms in which they travel as SNI and in stream headers.
//!
//! All names are DNS names or parts of them, held in lower case without the root dot, so that equal names are equal
//! values. ASCII upper case is folded while parsing; everything else outside letters, digits and '-' is refused.

mod dns;
mod label;
mod port;
mod route;
mod sni;
#[cfg(test)]
mod tests;

pub use dns::{DNS_NAME_MAX_BYTES, DnsName};
pub use label::{ClusterName, LABEL_MAX_BYTES, Label, Namespace, ServiceId, ServiceName};
pub use port::{PortNumber, Protocol};
pub use route::{RouteName, Scope, ZONE};
pub use sni::{ScopedService, SniName};

/// The rule a name broke. Shows at most one character of what it refused, escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("the name is empty")]
    Empty,
    /// More than [`DNS_NAME_MAX_BYTES`] without the root dot.
    #[error("the name has {bytes} bytes; {DNS_NAME_MAX_BYTES} are allowed")]
    TooLong {
        /// Length that was given, without the root dot.
        bytes: usize,
    },
    /// Two dots in a row, or one at the front.
    #[error("a label of the name is empty: two dots in a row, or a dot at the front")]
    LabelEmpty,
    /// More than one dot at the end.
    #[error("the name ends in more than one dot")]
    TrailingDots,
    /// A label of more than [`LABEL_MAX_BYTES`].
    #[error("a label has {bytes} bytes; {LABEL_MAX_BYTES} are allowed")]
    LabelTooLong {
        /// Length that was given.
        bytes: usize,
    },
    /// A character outside letters, digits and '-'.
    #[error(
        "'{}' is not allowed in a name; letters, digits and '-' are",
        found.escape_default()
    )]
    Character {
        /// The first such character.
        found: char,
    },
    /// A label begins or ends with '-'.
    #[error("a label begins or ends with '-'")]
    Hyphen,
    /// An internationalised ("xn--") label: it can be made to look like another name.
    #[error("labels beginning with \"xn--\" are not accepted; use the plain ASCII name")]
    Masked,
    /// An address where a name belongs.
    #[error("this is an IP address, not a name")]
    IpLiteral,
    /// A host name without a dot.
    #[error(
        "the name has a single label; a full host name such as \"payments.example.com\" is needed"
    )]
    SingleLabel,
    /// A service without its namespace, or with more than that.
    #[error("a service is written \"<service>.<namespace>\"")]
    NotAService,
    /// Not below [`ZONE`].
    #[error("the name is outside the zone {ZONE}")]
    OutsideZone,
    /// Below [`ZONE`], but with a number of labels no form has.
    #[error(
        "{labels} labels in front of {ZONE}; the form is <port>.[[<hostname>.]<cluster>.]<service>.<namespace>.{ZONE}"
    )]
    Shape {
        /// Labels in front of the zone.
        labels: usize,
    },
    /// A name, sign, blank or leading zero where a port number belongs.
    #[error("a port is written in decimal, without sign, blank or leading zero")]
    PortNotDecimal,
    /// Port 0 or above 65535.
    #[error("a port is between 1 and 65535")]
    PortOutOfRange,
}
