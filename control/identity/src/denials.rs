//! Who the operator denied, whatever their certificates say.

use std::collections::BTreeSet;
use std::sync::Arc;

use corinth_model::{Denied, SpiffeId};
use parking_lot::RwLock;

/// The denied identities and trust domains, shared and replaceable at run time: new handshakes see a change at once.
/// Whoever holds live connections compares their peers with [`Denials::contains`] after a change and closes those denied.
#[derive(Clone, Debug, Default)]
pub struct Denials(Arc<RwLock<Arc<BTreeSet<Denied>>>>);

impl Denials {
    /// Denies exactly `denied`.
    #[must_use]
    pub fn new(denied: BTreeSet<Denied>) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(denied))))
    }

    /// Is this identity, or all of its trust domain, denied now?
    #[must_use]
    pub fn contains(&self, id: &SpiffeId) -> bool {
        let denied = self.current();
        // Nearly always nobody is denied, and nothing has to be put together to know it.
        !denied.is_empty()
            && (denied.contains(&Denied::Id(id.clone()))
                || denied.contains(&Denied::TrustDomain(id.trust_domain().clone())))
    }

    /// Who is denied now.
    #[must_use]
    pub fn current(&self) -> Arc<BTreeSet<Denied>> {
        Arc::clone(&self.0.read())
    }

    /// From now on denies exactly `denied`.
    pub fn replace(&self, denied: BTreeSet<Denied>) {
        *self.0.write() = Arc::new(denied);
    }
}
