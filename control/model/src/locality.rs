//! Where something runs, and how near two such places are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest region or zone in bytes: a Kubernetes label value.
const PLACE_MAX_BYTES: usize = 63;

/// Longest node name in bytes: a DNS name.
const NODE_MAX_BYTES: usize = 253;

/// Where an endpoint, a gateway or a client runs, as far as it is known.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "RawLocality")]
pub struct Locality {
    /// `topology.kubernetes.io/region`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Box<str>>,
    /// `topology.kubernetes.io/zone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Box<str>>,
    /// Name of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Box<str>>,
}

/// A region, zone or node that no cluster could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocalityError {
    /// Given, but empty; leave it out instead.
    #[error("the {part} is empty; leave it out if it is unknown")]
    Empty {
        /// `region`, `zone` or `node`.
        part: &'static str,
    },
    /// Longer than Kubernetes allows.
    #[error("the {part} has {bytes} bytes; {limit} are allowed")]
    TooLong {
        /// `region`, `zone` or `node`.
        part: &'static str,
        /// Length that was given.
        bytes: usize,
        /// Length that is allowed.
        limit: usize,
    },
    /// A character outside letters, digits, '.', '-' and '_'.
    #[error(
        "'{}' is not allowed in the {part}; letters, digits, '.', '-' and '_' are",
        found.escape_default()
    )]
    Character {
        /// `region`, `zone` or `node`.
        part: &'static str,
        /// The first such character.
        found: char,
    },
}

impl Locality {
    /// Checks the parts against what Kubernetes allows as label value and node name.
    ///
    /// # Errors
    /// The first part that breaks a rule.
    pub fn new(
        region: Option<&str>,
        zone: Option<&str>,
        node: Option<&str>,
    ) -> Result<Self, LocalityError> {
        Ok(Self {
            region: region
                .map(|text| part("region", text, PLACE_MAX_BYTES))
                .transpose()?,
            zone: zone
                .map(|text| part("zone", text, PLACE_MAX_BYTES))
                .transpose()?,
            node: node
                .map(|text| part("node", text, NODE_MAX_BYTES))
                .transpose()?,
        })
    }
}

fn part(part: &'static str, text: &str, limit: usize) -> Result<Box<str>, LocalityError> {
    if text.is_empty() {
        return Err(LocalityError::Empty { part });
    }
    if text.len() > limit {
        return Err(LocalityError::TooLong {
            part,
            bytes: text.len(),
            limit,
        });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    match text.chars().find(|c| !allowed(*c)) {
        Some(found) => Err(LocalityError::Character { part, found }),
        None => Ok(text.into()),
    }
}

/// The parts as they were written, before they are checked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawLocality {
    region: Option<Box<str>>,
    zone: Option<Box<str>>,
    node: Option<Box<str>>,
}

impl TryFrom<RawLocality> for Locality {
    type Error = LocalityError;

    fn try_from(raw: RawLocality) -> Result<Self, Self::Error> {
        Self::new(
            raw.region.as_deref(),
            raw.zone.as_deref(),
            raw.node.as_deref(),
        )
    }
}

/// How near something is, nearest first. The own cluster comes before every other, wherever those are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Proximity {
    /// Same cluster, same node.
    SameNode,
    /// Same cluster, same zone.
    SameZone,
    /// Same cluster, same region.
    SameRegion,
    /// Same cluster, elsewhere or not known where.
    SameCluster,
    /// Another cluster, in the same zone.
    RemoteZone,
    /// Another cluster, in the same region.
    RemoteRegion,
    /// Another cluster, elsewhere or not known where.
    Remote,
}

/// How near `to` is, seen from `from`. What is unknown on either side never counts as equal.
///
/// Zones of different regions are different even if they share a name; nodes are compared within a cluster only.
#[must_use]
pub fn proximity(from: &Locality, to: &Locality, same_cluster: bool) -> Proximity {
    let same_region = is_same(from.region.as_deref(), to.region.as_deref());
    let other_region = from.region.is_some() && to.region.is_some() && !same_region;
    let same_zone = !other_region && is_same(from.zone.as_deref(), to.zone.as_deref());
    let same_node = is_same(from.node.as_deref(), to.node.as_deref());
    match (same_cluster, same_zone, same_region) {
        (true, _, _) if same_node => Proximity::SameNode,
        (true, true, _) => Proximity::SameZone,
        (true, false, true) => Proximity::SameRegion,
        (true, false, false) => Proximity::SameCluster,
        (false, true, _) => Proximity::RemoteZone,
        (false, false, true) => Proximity::RemoteRegion,
        (false, false, false) => Proximity::Remote,
    }
}

fn is_same(a: Option<&str>, b: Option<&str>) -> bool {
    a.is_some() && a == b
}

#[cfg(test)]
mod tests;
