//! Identities the operator denied, whatever their certificates say.

use std::collections::BTreeSet;
use std::sync::Arc;

use corinth_model::SpiffeId;
use parking_lot::RwLock;

/// The denied identities, shared and replaceable at run time: new handshakes see a change at once. Whoever holds live
/// connections compares their peers with [`Denials::contains`] after a change and closes those denied.
#[derive(Clone, Debug, Default)]
pub struct Denials(Arc<RwLock<Arc<BTreeSet<SpiffeId>>>>);

impl Denials {
    /// Denies exactly `ids`.
    #[must_use]
    pub fn new(ids: BTreeSet<SpiffeId>) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(ids))))
    }

    /// Is this identity denied now?
    #[must_use]
    pub fn contains(&self, id: &SpiffeId) -> bool {
        self.0.read().contains(id)
    }

    /// The identities denied now.
    #[must_use]
    pub fn current(&self) -> Arc<BTreeSet<SpiffeId>> {
        Arc::clone(&self.0.read())
    }

    /// From now on denies exactly `ids`.
    pub fn replace(&self, ids: BTreeSet<SpiffeId>) {
        *self.0.write() = Arc::new(ids);
    }
}
