//! What must hold between the parts of a [`Core`] after every call; for tests and simulation.

use crate::{Core, EVENTS_MAX};

impl Core {
    /// Takes time proportional to everything the core remembers.
    ///
    /// # Panics
    /// With the invariant that does not hold.
    pub fn check(&self) {
        assert!(
            self.events.len() <= EVENTS_MAX,
            "the events outgrew their bound"
        );
        self.standings.check();
        self.permits.check();
        self.links.check(&self.tables.peers);
        for (key, target, _) in self.standings.iter() {
            assert!(
                self.pool(key).holds(target),
                "{key} {target}: has a standing but is no candidate"
            );
        }
        assert_eq!(
            self.tables.own, self.own.cluster,
            "the tables are another cluster's"
        );
    }
}
