//! How two clusters become linked by a token (protocol §7 "Linking").
//!
//! ```text
//! inviter: Invitations::create ──> token ──> by hand ──> joiner: join
//!          inviter ══ TLS through a gateway, corinth-link/1 ══> Join ──> proof, conflicts, redeem, record, Answer
//! ```
//!
//! Either side records the other by [`Cluster::write`](crate::cluster::Cluster::write) and nothing else: a link that
//! exports nothing and accepts nothing until its operator says so. What is *one-way* is decided at the beginning and
//! only says who dials: the joiner uses the inviter's services, so the joiner dials, tells no addresses of its own, and
//! the inviter waits for it. Nothing more is recorded, because accepting is each side's own decision anyway.

use std::sync::Arc;

use corinth_api::link::Party;
use corinth_identity::{Authority, Bundle};
use corinth_model::{ClusterName, Slot, TrustDomain};
use rustls_pki_types::CertificateDer;

use crate::cluster::{Declared, DeclaredLink};

pub mod address;
pub mod invitations;
pub mod inviter;
pub mod joiner;
mod wire;

#[cfg(test)]
mod tests;

/// What this cluster is, as linking needs it.
#[derive(Debug, Clone)]
pub struct OwnSide {
    /// What it says of itself.
    pub party: Party,
    /// Which instance of the control plane this is.
    pub slot: Slot,
    /// What issues its leaf.
    pub authority: Arc<Authority>,
}

/// Two clusters that have become linked, as one of them sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linked {
    /// The other.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// The joiner uses the inviter's services, and not the other way round.
    pub one_way: bool,
}

/// Why a party cannot be linked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conflict {
    /// It has our name or trust domain.
    OwnCluster,
    /// Another link has its name or trust domain.
    AlreadyLinked,
}

impl Conflict {
    const fn condition(self) -> corinth_model::Condition {
        match self {
            Self::OwnCluster => corinth_model::Condition::OwnCluster,
            Self::AlreadyLinked => corinth_model::Condition::AlreadyLinked,
        }
    }
}

/// What stands between us and a link with a cluster of this name and trust domain.
fn conflict(
    cluster: &ClusterName,
    trust_domain: &TrustDomain,
    own: &Party,
    declared: &Declared,
) -> Option<Conflict> {
    if *cluster == own.cluster || *trust_domain == own.trust_domain {
        return Some(Conflict::OwnCluster);
    }
    let is_linked = declared
        .links
        .iter()
        .any(|(name, link)| name == cluster || link.trust_domain == *trust_domain);
    is_linked.then_some(Conflict::AlreadyLinked)
}

/// The roots a party told, if they are roots.
fn roots(party: &Party) -> Option<Bundle> {
    let roots = party.roots.iter().cloned().map(CertificateDer::from);
    Bundle::new(
        party.trust_domain.clone(),
        roots.collect(),
        party.bundle_sequence,
    )
    .ok()
}

/// A new link with a party: nothing is accepted, nothing is exported.
fn new_link(bundle: &Bundle, addresses: Vec<String>) -> DeclaredLink {
    DeclaredLink {
        trust_domain: bundle.trust_domain().clone(),
        roots: bundle.roots().to_vec(),
        bundle_sequence: bundle.sequence(),
        addresses,
        accepted: corinth_model::Accepted::default(),
        max_streams: None,
        quota: None,
        mode: crate::cluster::LinkMode::Active,
        carriage: corinth_model::Carriage::default(),
    }
}
