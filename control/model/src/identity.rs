//! SPIFFE identities as parsed parts: who a certificate speaks for, and in which role.
//!
//! Parsing is strict: an identity has exactly one spelling, so that comparing parts is comparing identities.
//! Nothing is folded, decoded or normalised; what would need it is refused.

use std::fmt;
use std::sync::Arc;

use crate::name::{ClusterName, Label, NameError};
use crate::text::text_form;

#[cfg(test)]
mod tests;

/// Longest SPIFFE ID in bytes (SPIFFE-ID §2.3).
pub const SPIFFE_ID_MAX_BYTES: usize = 2048;

/// Longest trust domain in bytes (SPIFFE-ID §2.1).
pub const TRUST_DOMAIN_MAX_BYTES: usize = 255;

const SCHEME: &str = "spiffe://";

/// The rule a SPIFFE ID or one of its parts broke. Shows at most one character of what it refused, escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SpiffeError {
    /// More than [`SPIFFE_ID_MAX_BYTES`].
    #[error("the SPIFFE ID has {bytes} bytes; {SPIFFE_ID_MAX_BYTES} are allowed")]
    TooLong {
        /// Length that was given.
        bytes: usize,
    },
    /// Does not begin with `spiffe://` in lower case.
    #[error("a SPIFFE ID begins with \"spiffe://\", in lower case")]
    Scheme,
    /// No trust domain.
    #[error("the trust domain is empty")]
    TrustDomainEmpty,
    /// A trust domain of more than [`TRUST_DOMAIN_MAX_BYTES`].
    #[error("the trust domain has {bytes} bytes; {TRUST_DOMAIN_MAX_BYTES} are allowed")]
    TrustDomainTooLong {
        /// Length that was given.
        bytes: usize,
    },
    /// A character a trust domain cannot have: upper case, port, user, anything encoded.
    #[error(
        "'{}' is not allowed in a trust domain; a-z, 0-9, '.', '-' and '_' are",
        found.escape_default()
    )]
    TrustDomainCharacter {
        /// The first such character.
        found: char,
    },
    /// No path, or the root.
    #[error("the SPIFFE ID has no path")]
    PathMissing,
    /// Two slashes in a row, or one at the end.
    #[error("a segment of the path is empty: two slashes in a row, or one at the end")]
    SegmentEmpty,
    /// `.` or `..`.
    #[error("a segment of the path is \".\" or \"..\"")]
    SegmentRelative,
    /// A character a path cannot have: query, fragment, anything encoded.
    #[error(
        "'{}' is not allowed in the path; letters, digits, '.', '-' and '_' are",
        found.escape_default()
    )]
    PathCharacter {
        /// The first such character.
        found: char,
    },
}

/// The name a cluster's CA speaks under: 1 to 255 of `a-z`, `0-9`, `.`, `-`, `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads a trust domain. Upper case is refused, not folded (SPIFFE-ID §2.1).
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.is_empty() {
            return Err(SpiffeError::TrustDomainEmpty);
        }
        if text.len() > TRUST_DOMAIN_MAX_BYTES {
            return Err(SpiffeError::TrustDomainTooLong { bytes: text.len() });
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        if let Some(found) = text.chars().find(|c| !allowed(*c)) {
            return Err(SpiffeError::TrustDomainCharacter { found });
        }
        Ok(Self(text.into()))
    }

    /// The trust domain a cluster has unless it was given another: `<cluster>.corinth.internal`.
    #[must_use]
    pub fn of_cluster(cluster: &ClusterName) -> Self {
        Self(format!("{cluster}.corinth.internal").into())
    }

    /// The trust domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(
    TrustDomain,
    SpiffeError,
    "a trust domain: up to 255 of a-z, 0-9, '.', '-' and '_'"
);

/// A SPIFFE ID with a path, written `spiffe://<trust domain>/<segment>/…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Segments joined by '/', without one in front.
    path: Arc<str>,
}

impl SpiffeId {
    /// Reads a SPIFFE ID that has a path (SPIFFE-ID §2; an X.509-SVID needs a path, SPIFFE X.509-SVID §2).
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > SPIFFE_ID_MAX_BYTES {
            return Err(SpiffeError::TooLong { bytes: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (trust_domain, path) = match rest.split_once('/') {
            Some((trust_domain, path)) => (trust_domain, Some(path)),
            None => (rest, None),
        };
        let trust_domain = TrustDomain::parse(trust_domain)?;
        let path = path
            .filter(|path| !path.is_empty())
            .ok_or(SpiffeError::PathMissing)?;
        for segment in path.split('/') {
            check_segment(segment)?;
        }
        Ok(Self {
            trust_domain,
            path: path.into(),
        })
    }

    /// Puts a SPIFFE ID together from its parts.
    ///
    /// # Errors
    /// The rule a segment broke, [`SpiffeError::PathMissing`] without segments, [`SpiffeError::TooLong`] for the whole.
    pub fn from_segments(
        trust_domain: TrustDomain,
        segments: &[&str],
    ) -> Result<Self, SpiffeError> {
        if segments.is_empty() {
            return Err(SpiffeError::PathMissing);
        }
        for segment in segments {
            check_segment(segment)?;
        }
        let path: Arc<str> = segments.join("/").into();
        let bytes = SCHEME.len() + trust_domain.as_str().len() + 1 + path.len();
        if bytes > SPIFFE_ID_MAX_BYTES {
            return Err(SpiffeError::TooLong { bytes });
        }
        Ok(Self { trust_domain, path })
    }

    /// The trust domain, which alone chooses the bundle it is verified against.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The segments of the path, at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.split('/')
    }

    /// What the holder may act as, by path alone.
    #[must_use]
    pub fn role(&self) -> Role {
        let mut segments = self.segments();
        let parts = (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        );
        let (Some("corinth"), Some(role), Some(instance), None) = parts else {
            return Role::Other;
        };
        let Ok(slot) = Slot::parse(instance) else {
            return Role::Other;
        };
        match role {
            "gateway" => Role::Gateway(slot),
            "control" => Role::Control(slot),
            "redirect" => Role::Redirect(slot.0),
            _ => Role::Other,
        }
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeError> {
    if segment.is_empty() {
        return Err(SpiffeError::SegmentEmpty);
    }
    if segment == "." || segment == ".." {
        return Err(SpiffeError::SegmentRelative);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    match segment.chars().find(|c| !allowed(*c)) {
        Some(found) => Err(SpiffeError::PathCharacter { found }),
        None => Ok(()),
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.trust_domain, self.path)
    }
}

text_form!(
    SpiffeId,
    SpiffeError,
    "a SPIFFE ID: spiffe://<trust domain>/<path>"
);

/// Stable name of one instance, kept over its restarts: a StatefulSet ordinal, `0` standalone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(Label);

impl Slot {
    /// Reads a slot, a label in lower case. Upper case is refused, since a slot is part of an identity.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if let Some(found) = text.chars().find(char::is_ascii_uppercase) {
            return Err(NameError::Character { found });
        }
        Label::parse(text).map(Self)
    }

    /// The slot as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_form!(Slot, NameError, "stable name of an instance: a DNS label");

/// What an identity may act as. Authorization looks at trust domain and role; nothing else of the path counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// `/corinth/gateway/<slot>`.
    Gateway(Slot),
    /// `/corinth/control/<slot>`.
    Control(Slot),
    /// `/corinth/redirect/<node>`.
    Redirect(Label),
    /// Anything else: a workload.
    Other,
}

/// One gateway instance of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId {
    /// Trust domain of its cluster.
    pub trust_domain: TrustDomain,
    /// Which instance.
    pub slot: Slot,
}

impl GatewayId {
    /// The identity its certificate carries.
    #[must_use]
    pub fn spiffe_id(&self) -> SpiffeId {
        SpiffeId {
            trust_domain: self.trust_domain.clone(),
            path: format!("corinth/gateway/{}", self.slot).into(),
        }
    }
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spiffe_id().fmt(f)
    }
}

impl serde::Serialize for GatewayId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The identity is well formed, but not a gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the identity is not a gateway's; a gateway's path is /corinth/gateway/<slot>")]
pub struct NotAGateway;

impl TryFrom<&SpiffeId> for GatewayId {
    type Error = NotAGateway;

    fn try_from(id: &SpiffeId) -> Result<Self, Self::Error> {
        match id.role() {
            Role::Gateway(slot) => Ok(Self {
                trust_domain: id.trust_domain.clone(),
                slot,
            }),
            Role::Control(_) | Role::Redirect(_) | Role::Other => Err(NotAGateway),
        }
    }
}
