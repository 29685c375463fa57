//! What is said between this cluster and one peer, and what follows from it. Pure: time comes in, messages go out.
//!
//! ```text
//! what we offer ──> journal ──> telling ──┐                     ┌──> events: offers, roots, gateways, conditions
//!                                         ├── relation: session ┤
//! what we accept ──> held <──── hearing ──┘                     └──> messages
//! ```
//!
//! A [`Relation`] outlives the streams it is carried on. It is asked with [`Relation::poll_transmit`] for what to write,
//! so that a peer that reads slowly makes no queue grow: what is left to tell is found in the journal. Around it somebody
//! else opens streams, keeps time, and writes [`Relation::saved`] down.
//!
//! The rules are those of the sections "Control planes through the tunnel" and "State exchange" of the protocol.

mod conditions;
mod damping;
mod held;
mod journal;
mod relation;
mod saved;

#[cfg(test)]
mod testing;

pub use relation::{
    Freshness, Limits, OpenedBy, Relation, RelationEvent, RelationSummary, SessionId,
    SessionSummary,
};
pub use saved::{RestoreError, SavedRelation};

use corinth_model::Version;

/// The least version above this one.
fn next(version: Version) -> Version {
    match version.revision.checked_add(1) {
        Some(revision) => Version {
            revision,
            ..version
        },
        None => Version {
            epoch: version.epoch.saturating_add(1),
            revision: 0,
        },
    }
}
