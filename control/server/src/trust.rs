//! What becomes of roots over time: those that peers tell, and our own when they change (protocol §7 "Roots").
//!
//! Deciding is apart: [`judge`] says what a told bundle is worth, [`lacking`] and [`in_use`] what stands in the way of the
//! next step of a change of root. [`Learned`] keeps what was taken from peers, [`OwnRoots`] carries our own steps out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use corinth_identity::{Bundle, RotationPhase, State, StateDir, StateError, root_pin};
use corinth_model::{ClusterName, Condition, SpiffeId, TrustDomain};
use rustls_pki_types::{CertificateDer, UnixTime};

mod learned;
#[cfg(test)]
mod tests;

pub use learned::{FILE as LEARNED_FILE, Learned};

/// What a told bundle is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one we hold.
    Held,
    /// It follows from the one we hold and takes its place: to be written down and used.
    Next,
    /// It is not used: [`Condition::BundleOlder`], [`Condition::BundleConflict`] or [`Condition::BundleUnrelated`].
    Refused(Condition),
}

/// Where the bundle that we hold of a peer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From the declaration of the link, whose author may not have known the sequence.
    Declared,
    /// From the peer itself.
    Told,
}

/// Judges a bundle that a peer told over its own link by the one we hold. Roots are the same if their keys are: a path
/// ends at a key.
#[must_use]
pub fn judge(held: &Bundle, origin: Origin, told: &Bundle) -> Verdict {
    if told.trust_domain() != held.trust_domain() {
        return Verdict::Refused(Condition::BundleUnrelated);
    }
    let (ours, theirs) = (keys(held), keys(told));
    if told.sequence() < held.sequence() {
        // Only the number was wrong: without the peer's own, nothing it told would be newer until it has caught up.
        return match ours == theirs && origin == Origin::Declared {
            true => Verdict::Next,
            false => Verdict::Refused(Condition::BundleOlder),
        };
    }
    if told.sequence() == held.sequence() {
        return match ours == theirs {
            true => Verdict::Held,
            false => Verdict::Refused(Condition::BundleConflict),
        };
    }
    if ours.is_disjoint(&theirs) {
        return Verdict::Refused(Condition::BundleUnrelated);
    }
    Verdict::Next
}

fn keys(bundle: &Bundle) -> BTreeSet<[u8; 32]> {
    bundle
        .roots()
        .iter()
        .filter_map(|root| root_pin(root))
        .collect()
}

/// The linked peers that have not acknowledged the bundle of this sequence, so that a leaf under a root that is new in
/// it would be refused by them.
#[must_use]
pub fn lacking(sequence: u64, peers: &BTreeMap<ClusterName, Option<u64>>) -> BTreeSet<ClusterName> {
    let lacks = |held: &Option<u64>| held.is_none_or(|held| held < sequence);
    let peers = peers.iter().filter(|(_, held)| lacks(held));
    peers.map(|(peer, _)| peer.clone()).collect()
}

/// Something that still relies on a root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootUse {
    /// A leaf under it.
    Leaf {
        /// Whose.
        id: SpiffeId,
        /// Its last second, Unix.
        not_after_s: u64,
    },
    /// Leaves that were issued before the new root took over, whoever has them.
    Leaves {
        /// The last second of the last of them, Unix.
        until_s: u64,
    },
    /// A peer that does not hold the new root yet.
    Peer(ClusterName),
    /// The old root still issues.
    Issuing,
}

impl fmt::Display for RootUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf { id, not_after_s } => {
                write!(
                    f,
                    "the certificate of {id}, until {not_after_s} (Unix seconds)"
                )
            }
            Self::Leaves { until_s } => write!(
                f,
                "certificates from before the change, until {until_s} (Unix seconds)"
            ),
            Self::Peer(peer) => write!(f, "{peer}, which does not hold the new root"),
            Self::Issuing => f.write_str("this cluster, which still issues under it"),
        }
    }
}

/// A leaf that is in use, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafInUse {
    /// Whose.
    pub id: SpiffeId,
    /// The root it is under.
    pub root: CertificateDer<'static>,
    /// Its last second.
    pub not_after: UnixTime,
}

/// Which leaves are in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeavesInUse {
    /// These and no others.
    Known(Vec<LeafInUse>),
    /// Nobody knows; none lives longer than this.
    Unknown {
        /// The longest life a leaf was issued with.
        life_max: Duration,
    },
}

/// What still uses the old root of a change: nothing, and it can go.
#[must_use]
pub fn in_use(
    state: &State,
    leaves: &LeavesInUse,
    peers: &BTreeMap<ClusterName, Option<u64>>,
    now: UnixTime,
) -> BTreeSet<RootUse> {
    let Some(rotation) = &state.rotation else {
        return BTreeSet::new();
    };
    let mut uses: BTreeSet<_> = lacking(state.bundle.sequence(), peers)
        .into_iter()
        .map(RootUse::Peer)
        .collect();
    let since = match rotation.phase {
        RotationPhase::Announced => {
            uses.insert(RootUse::Issuing);
            return uses;
        }
        RotationPhase::Issuing { since } => since,
    };
    match leaves {
        LeavesInUse::Known(leaves) => {
            let old = root_pin(&rotation.old);
            let under_old = leaves
                .iter()
                .filter(|leaf| root_pin(&leaf.root) == old && leaf.not_after >= now);
            uses.extend(under_old.map(|leaf| RootUse::Leaf {
                id: leaf.id.clone(),
                not_after_s: leaf.not_after.as_secs(),
            }));
        }
        LeavesInUse::Unknown { life_max } => {
            let until_s = since.as_secs().saturating_add(life_max.as_secs());
            if until_s >= now.as_secs() {
                uses.insert(RootUse::Leaves { until_s });
            }
        }
    }
    uses
}

/// Why a step of a change of root was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// Peers do not hold the new root yet.
    #[error("{}; they would refuse certificates under it", NotHeld(.0))]
    NotHeld(BTreeSet<ClusterName>),
    /// The old root is still in use.
    #[error("it is used by {}", Uses(.0))]
    InUse(BTreeSet<RootUse>),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
}

impl RotateError {
    /// The condition under which operators know this.
    #[must_use]
    pub const fn condition(&self) -> Option<Condition> {
        match self {
            Self::NotHeld(_) | Self::InUse(_) => Some(Condition::RootInUse),
            Self::State(_) => None,
        }
    }
}

struct NotHeld<'a>(&'a BTreeSet<ClusterName>);

impl fmt::Display for NotHeld<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<_> = self.0.iter().map(ClusterName::as_str).collect();
        write!(f, "the new root is not held yet by {}", peers.join(", "))
    }
}

struct Uses<'a>(&'a BTreeSet<RootUse>);

impl fmt::Display for Uses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uses: Vec<_> = self.0.iter().map(RootUse::to_string).collect();
        f.write_str(&uses.join("; "))
    }
}

/// Our own roots, and their change in three steps. Every step blocks while it is written down, and returns what the
/// state directory holds then: what is to be told to peers, and who issues.
#[derive(Debug)]
pub struct OwnRoots {
    state_dir: StateDir,
    trust_domain: TrustDomain,
}

impl OwnRoots {
    /// Those in a state directory.
    #[must_use]
    pub const fn new(state_dir: StateDir, trust_domain: TrustDomain) -> Self {
        Self {
            state_dir,
            trust_domain,
        }
    }

    /// Where they are kept.
    #[must_use]
    pub const fn state_dir(&self) -> &StateDir {
        &self.state_dir
    }

    /// What the state directory holds now.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub fn current(&self, now: UnixTime) -> Result<State, RotateError> {
        Ok(self.state_dir.load(&self.trust_domain, now)?)
    }

    /// Makes a new root and announces it: the bundle has both, under the next sequence.
    ///
    /// # Errors
    /// If a change is under way, or the state directory cannot be used.
    pub fn begin(&self, now: UnixTime) -> Result<State, RotateError> {
        Ok(self.state_dir.begin_rotation(&self.trust_domain, now)?)
    }

    /// Lets the new root issue, once every linked peer has acknowledged the bundle that holds it, or by force: peers
    /// that lack it then refuse us until they have it.
    ///
    /// # Errors
    /// Who lacks it, or what is wrong with the state directory.
    pub fn switch(
        &self,
        peers: &BTreeMap<ClusterName, Option<u64>>,
        is_forced: bool,
        now: UnixTime,
    ) -> Result<State, RotateError> {
        let state = self.current(now)?;
        let lacking = lacking(state.bundle.sequence(), peers);
        if !is_forced && state.rotation.is_some() && !lacking.is_empty() {
            return Err(RotateError::NotHeld(lacking));
        }
        Ok(self.state_dir.switch_rotation(&self.trust_domain, now)?)
    }

    /// Removes the old root and its key, once nothing uses it.
    ///
    /// # Errors
    /// What still uses it, or what is wrong with the state directory.
    pub fn finish(
        &self,
        leaves: &LeavesInUse,
        peers: &BTreeMap<ClusterName, Option<u64>>,
        now: UnixTime,
    ) -> Result<State, RotateError> {
        let state = self.current(now)?;
        let uses = in_use(&state, leaves, peers, now);
        if !uses.is_empty() {
            return Err(RotateError::InUse(uses));
        }
        Ok(self.state_dir.finish_rotation(&self.trust_domain, now)?)
    }
}
