//! A relation as it is written to disk. Whatever is found there is checked as if a stranger had written it.

use corinth_api::peering::Digest;
use corinth_model::{ClusterName, Condition, Instance, ServiceId, Version};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// The form that is written here.
const FORMAT: u32 = 1;

/// What has to outlive the process: what the peer was told, and what it told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRelation {
    format: u32,
    pub(super) own: ClusterName,
    pub(super) peer: ClusterName,
    pub(super) told: Option<SavedJournal>,
    pub(super) held: SavedHeld,
    pub(super) is_unlinked: bool,
}

/// Why what was written down cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Not what we write at all.
    #[error("the saved state cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// Written by a version that is not understood here.
    #[error("the saved state has the form {0}, which is unknown here")]
    UnknownFormat(u32),
    /// Of a relation between other clusters.
    #[error("the saved state is of the clusters {own} and {peer}")]
    OtherClusters {
        /// Whose state it is.
        own: ClusterName,
        /// With whom.
        peer: ClusterName,
    },
    /// Well-formed, but it contradicts itself.
    #[error("the saved state is damaged: {0}")]
    Damaged(&'static str),
}

/// What does not fit together.
pub(super) struct Damaged(pub(super) &'static str);

impl From<Damaged> for RestoreError {
    fn from(Damaged(why): Damaged) -> Self {
        Self::Damaged(why)
    }
}

impl SavedRelation {
    pub(super) fn new(
        (own, peer): (ClusterName, ClusterName),
        told: Option<SavedJournal>,
        held: SavedHeld,
        is_unlinked: bool,
    ) -> Self {
        Self {
            format: FORMAT,
            own,
            peer,
            told,
            held,
            is_unlinked,
        }
    }

    /// The bytes to write to disk: JSON.
    ///
    /// # Panics
    /// Never: nothing in it can fail to be JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names, numbers and base64 are JSON")
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// Why it is not that.
    pub fn parse(bytes: &[u8]) -> Result<Self, RestoreError> {
        let saved: Self = serde_json::from_slice(bytes).map_err(RestoreError::Unreadable)?;
        if saved.format != FORMAT {
            return Err(RestoreError::UnknownFormat(saved.format));
        }
        Ok(saved)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedJournal {
    pub(super) instance: Instance,
    pub(super) top: Version,
    pub(super) complete_from: Version,
    pub(super) acknowledged: Version,
    pub(super) lost: Vec<(Version, Version)>,
    pub(super) told: Vec<SavedTold>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedTold {
    pub(super) service: ServiceId,
    pub(super) version: Version,
    pub(super) what: SavedWhat,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SavedWhat {
    Offer(Base64<32>),
    /// Since when, Unix milliseconds.
    Gone(u64),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedHeld {
    pub(super) instance: Option<Instance>,
    pub(super) version: Version,
    pub(super) wants_everything: bool,
    pub(super) is_overflowing: bool,
    pub(super) entries: Vec<SavedEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedEntry {
    pub(super) service: ServiceId,
    pub(super) version: Version,
    pub(super) digest: Base64<32>,
    /// As it travels, so that it is read with the same care again.
    pub(super) offer: Option<SavedOffer>,
    pub(super) stale: Option<SavedStale>,
    /// Code of the condition.
    pub(super) trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedStale {
    pub(super) left_ms: u64,
    pub(super) is_massive: bool,
}

impl SavedEntry {
    pub(super) fn trouble(&self) -> Result<Option<Condition>, Damaged> {
        let code = self.trouble.as_deref();
        code.map(|code| Condition::from_code(code).ok_or(Damaged("a code is unknown")))
            .transpose()
    }
}

/// An encoded offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SavedOffer(pub(super) Vec<u8>);

/// Bytes of a fixed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base64<const N: usize>([u8; N]);

impl From<Digest> for Base64<32> {
    fn from(digest: Digest) -> Self {
        Self(digest.0)
    }
}

impl From<Base64<32>> for Digest {
    fn from(bytes: Base64<32>) -> Self {
        Self(bytes.0)
    }
}

impl<const N: usize> Serialize for Base64<N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&BASE64.encode_display(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Base64<N> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = decoded(deserializer)?;
        let bytes = bytes.try_into();
        bytes
            .map(Self)
            .map_err(|_| serde::de::Error::custom("the bytes have another length"))
    }
}

impl Serialize for SavedOffer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&BASE64.encode_display(&self.0))
    }
}

impl<'de> Deserialize<'de> for SavedOffer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decoded(deserializer).map(Self)
    }
}

fn decoded<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    BASE64
        .decode(text.as_bytes())
        .map_err(serde::de::Error::custom)
}
