//! Who is no longer believed, whatever their certificate says.

use std::fmt;

use serde::Serialize;

use crate::identity::{SpiffeId, TrustDomain};

/// Who is no longer believed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// One identity.
    Id(SpiffeId),
    /// All of a trust domain.
    TrustDomain(TrustDomain),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::TrustDomain(domain) => domain.fmt(f),
        }
    }
}

/// As in text.
impl Serialize for Denied {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
