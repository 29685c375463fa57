//! A relation as its operator sees it.

use std::collections::BTreeMap;
use std::time::Instant;

use corinth_api::peering::{Farewell, State};
use corinth_model::{ClusterName, Condition, ServiceId, Version};

use super::{OpenedBy, Relation, SessionId};
use crate::peering::journal::Journal;

/// Where a relation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationSummary {
    /// With whom.
    pub peer: ClusterName,
    /// What there is to tell of our state; `None` until that is known.
    pub own: Option<State>,
    /// How much of it the peer has taken.
    pub acknowledged: Option<Version>,
    /// How many services we offer.
    pub offered: usize,
    /// How many of them the peer has not taken.
    pub rejected: usize,
    /// What we hold of the peer's state.
    pub held: Option<State>,
    /// How many services of it are used, the stale ones among them.
    pub taken: usize,
    /// How many of these are about to go.
    pub stale: usize,
    /// How many services of it are not taken as they are, by reason.
    pub not_taken: BTreeMap<Condition, usize>,
    /// Whether there are more of those than are counted.
    pub is_overflowing: bool,
    /// What stands; of services at most a hundred.
    pub conditions: Vec<(Condition, Option<ServiceId>)>,
    /// The stream there is.
    pub session: Option<SessionSummary>,
    /// Why the last one was ended, if the peer said so.
    pub last_farewell: Option<Farewell>,
    /// The peer has ended the link.
    pub is_unlinked: bool,
}

/// A stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSummary {
    /// Which.
    pub id: SessionId,
    /// Who opened it.
    pub by: OpenedBy,
    /// Since when it is open.
    pub since: Instant,
    /// Whether the peer has said who it is.
    pub is_greeted: bool,
}

impl Relation {
    /// Where it stands. Looks at everything that is held.
    #[must_use]
    pub fn summary(&self) -> RelationSummary {
        let mut not_taken = BTreeMap::new();
        for (_, condition) in self.held.troubles() {
            *not_taken.entry(condition).or_default() += 1;
        }
        let journal = self.journal.as_ref();
        let stale = self.held.offers().filter(|(.., stale)| stale.is_some());
        RelationSummary {
            peer: self.peer.clone(),
            own: journal.map(Journal::state),
            acknowledged: journal.map(Journal::acknowledged),
            offered: journal.map_or(0, Journal::len),
            rejected: self.rejected.len(),
            held: self.held.state(),
            taken: self.held.taken(),
            stale: stale.count(),
            not_taken,
            is_overflowing: self.held.is_overflowing(),
            conditions: self.conditions.iter().collect(),
            session: self.session(),
            last_farewell: self.last_farewell,
            is_unlinked: self.is_unlinked,
        }
    }

    /// The stream there is.
    #[must_use]
    pub fn session(&self) -> Option<SessionSummary> {
        let session = self.session.as_ref()?;
        Some(SessionSummary {
            id: session.id,
            by: session.by,
            since: session.opened_at,
            is_greeted: session.is_greeted(),
        })
    }

    /// What there is to tell of our state; `None` until that is known.
    #[must_use]
    pub fn own_state(&self) -> Option<State> {
        self.journal.as_ref().map(Journal::state)
    }

    /// What we hold of the peer's state.
    #[must_use]
    pub fn held_state(&self) -> Option<State> {
        self.held.state()
    }

    /// Our services that the peer has not taken, and why if that is known here.
    pub fn rejected(&self) -> impl Iterator<Item = (&ServiceId, Option<Condition>)> {
        let rejected = self.rejected.iter();
        rejected.map(|(service, condition)| (service, *condition))
    }
}
