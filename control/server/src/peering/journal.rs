//! What is to be told to one peer: each service it may use, or the word that it may no longer, with the version since
//! which that holds.
//!
//! The journal outlives the process. Only then can a service that went away while nobody ran become a tombstone, and
//! only then can the peer be told what has changed instead of everything.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use corinth_api::peering::{Digest, State};
use corinth_model::{Instance, Offer, ServiceId, Version};

use super::next;
use super::saved::{Damaged, SavedJournal, SavedTold, SavedWhat};

#[cfg(test)]
mod tests;

/// How long a tombstone is kept for a peer that does not acknowledge it.
pub(super) const TOMBSTONE_AGE_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Most tombstones that are kept; the peer gets everything instead if it lacks one that went.
pub(super) const TOMBSTONES_MAX: usize = 10_000;
/// Most runs of versions that are known to be lost; beyond that the two oldest count as one.
pub(super) const LOST_MAX: usize = 16;

/// What one peer is to be told.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    instance: Instance,
    /// Of the newest change, or of the start if nothing has changed since.
    top: Version,
    /// A peer that holds less than this may lack a tombstone that is no longer here.
    complete_from: Version,
    /// What the peer is known to have taken.
    acknowledged: Version,
    /// Versions strictly between these two belong to a past that was not written down.
    lost: Vec<(Version, Version)>,
    told: BTreeMap<ServiceId, Told>,
    /// The same by version. The service is always there; without one a key is the least of its version.
    by_version: BTreeSet<(Version, Option<ServiceId>)>,
    tombstones: BTreeSet<(Version, ServiceId)>,
    digest: Option<Digest>,
}

/// What holds for one service.
#[derive(Debug, Clone)]
struct Told {
    version: Version,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Offer {
        digest: Digest,
        offer: Arc<Offer>,
    },
    /// As an earlier process left it; what it said of the service is known by its digest only.
    Unread {
        digest: Digest,
    },
    Tombstone {
        since_ms: u64,
    },
}

/// How far the peer has been told: up to this version, and within it up to this service.
pub(super) type Cursor = (Version, Option<ServiceId>);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Upsert { digest: Digest, offer: Arc<Offer> },
    Tombstone,
}

impl Journal {
    /// A journal of a state that is at `version`, which nobody has been told of.
    pub(super) fn new(state: State) -> Self {
        Self {
            instance: state.instance,
            top: state.version,
            complete_from: state.version,
            acknowledged: Version::default(),
            lost: Vec::new(),
            told: BTreeMap::new(),
            by_version: BTreeSet::new(),
            tombstones: BTreeSet::new(),
            digest: None,
        }
    }

    pub(super) fn state(&self) -> State {
        State {
            instance: self.instance,
            version: self.top,
        }
    }

    pub(super) fn acknowledged(&self) -> Version {
        self.acknowledged
    }

    /// How many services are offered.
    pub(super) fn len(&self) -> usize {
        self.told.len() - self.tombstones.len()
    }

    pub(super) fn offers(&self, service: &ServiceId) -> bool {
        self.told.get(service).is_some_and(Told::is_offered)
    }

    /// The state is this one from now on. Whether that changed anything.
    pub(super) fn set_state(&mut self, state: State) -> bool {
        if state.instance != self.instance {
            self.begin_instance(state);
            return true;
        }
        // Within an epoch the version moves with what is told; others may have been told more.
        if state.version.epoch <= self.top.epoch {
            return false;
        }
        self.lost.push((self.top, state.version));
        if self.lost.len() > LOST_MAX {
            let (after, _) = self.lost.remove(0);
            self.lost[0].0 = after;
        }
        self.top = state.version;
        true
    }

    /// Everything holds from now on; nothing is known to have ended.
    fn begin_instance(&mut self, state: State) {
        self.told.retain(|_, told| told.is_offered());
        self.by_version.clear();
        for (service, told) in &mut self.told {
            told.version = state.version;
            self.by_version
                .insert((state.version, Some(service.clone())));
        }
        self.tombstones.clear();
        self.lost.clear();
        self.instance = state.instance;
        self.top = state.version;
        self.complete_from = state.version;
        self.acknowledged = Version::default();
    }

    /// These are the offers from now on. Whether that is news; the change is at `version`, or just above the newest one
    /// if that is higher.
    pub(super) fn set_offers(
        &mut self,
        offers: BTreeMap<ServiceId, Arc<Offer>>,
        version: Version,
        unix_ms: u64,
    ) -> BTreeSet<ServiceId> {
        let (news, gone) = self.compare(offers);
        let version = version.max(next(self.top));
        let mut changed = BTreeSet::new();
        for (service, what) in news {
            self.put(service.clone(), Told { version, what });
            changed.insert(service);
        }
        for service in gone {
            let what = What::Tombstone { since_ms: unix_ms };
            self.put(service.clone(), Told { version, what });
            changed.insert(service);
        }
        if !changed.is_empty() {
            self.top = version;
            self.digest = None;
            self.forget_excess();
        }
        changed
    }

    /// What of it is new, and what is offered no more. Both are in the order of names, and so are read side by side.
    fn compare(
        &mut self,
        offers: BTreeMap<ServiceId, Arc<Offer>>,
    ) -> (Vec<(ServiceId, What)>, Vec<ServiceId>) {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        let mut told = self.told.iter_mut().peekable();
        let mut leave_out = |(service, told): (&ServiceId, &mut Told)| {
            if told.is_offered() {
                gone.push(service.clone());
            }
        };
        for (service, offer) in offers {
            while let Some(before) = told.next_if(|(name, _)| **name < service) {
                leave_out(before);
            }
            let known = told.next_if(|(name, _)| **name == service);
            if let Some(what) = news(known.map(|(_, told)| told), offer) {
                new.push((service, what));
            }
        }
        told.for_each(leave_out);
        (new, gone)
    }

    fn put(&mut self, service: ServiceId, told: Told) {
        if let Some(old) = self.told.get(&service) {
            self.by_version
                .remove(&(old.version, Some(service.clone())));
            self.tombstones.remove(&(old.version, service.clone()));
        }
        self.by_version
            .insert((told.version, Some(service.clone())));
        if !told.is_offered() {
            self.tombstones.insert((told.version, service.clone()));
        }
        self.told.insert(service, told);
    }

    /// The peer has taken everything up to here. Whether that is news.
    pub(super) fn acknowledge(&mut self, version: Version) -> bool {
        let version = version.min(self.top);
        if version <= self.acknowledged {
            return false;
        }
        self.acknowledged = version;
        while let Some((since, _)) = self.tombstones.first()
            && *since <= version
        {
            self.forget_first();
        }
        true
    }

    /// Throws away tombstones that are too old. Whether there were any.
    pub(super) fn forget_old(&mut self, unix_ms: u64) -> bool {
        let is_old = |(_, service): &&(Version, ServiceId)| match self.told.get(service) {
            Some(Told {
                what: What::Tombstone { since_ms },
                ..
            }) => unix_ms.saturating_sub(*since_ms) > TOMBSTONE_AGE_MS,
            Some(_) | None => false,
        };
        let newest = self.tombstones.iter().rev().find(is_old);
        let Some((newest, _)) = newest.cloned() else {
            return false;
        };
        // Those before it go too: a peer that lacks the one gets everything anyway.
        while let Some((since, _)) = self.tombstones.first()
            && *since <= newest
        {
            self.forget_first();
        }
        true
    }

    fn forget_excess(&mut self) {
        while self.tombstones.len() > TOMBSTONES_MAX {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((version, service)) = self.tombstones.pop_first() {
            self.complete_from = self.complete_from.max(version);
            self.told.remove(&service);
            self.by_version.remove(&(version, Some(service)));
        }
    }

    /// Whether whoever holds this has seen a future of ours that we have lost.
    pub(super) fn has_lost(&self, held: &State) -> bool {
        let is_lost =
            |(after, before): &(Version, Version)| held.version > *after && held.version < *before;
        held.instance == self.instance && (held.version > self.top || self.lost.iter().any(is_lost))
    }

    /// Whether what has changed since is all that whoever holds this lacks.
    pub(super) fn continues(&self, held: &State) -> bool {
        held.instance == self.instance
            && held.version > Version::default()
            && self.reaches_back_to(held.version)
    }

    /// Whether everything that has changed since is still here.
    pub(super) fn reaches_back_to(&self, version: Version) -> bool {
        version >= self.complete_from
    }

    /// The next change, and how far the peer is after it.
    pub(super) fn next_change(&self, after: &Cursor) -> Option<(Cursor, Change)> {
        let from = match after {
            (version, Some(_)) => Bound::Excluded((*version, after.1.clone())),
            (version, None) => Bound::Included((next(*version), None)),
        };
        let (version, service) = self.by_version.range((from, Bound::Unbounded)).next()?;
        let told = self.told.get(service.as_ref()?)?;
        Some(((*version, service.clone()), told.change()?))
    }

    /// The next service that is offered, by name, and its entry.
    pub(super) fn next_offer(
        &self,
        after: Option<&ServiceId>,
    ) -> Option<(&ServiceId, Version, Change)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.told.range::<ServiceId, _>((from, Bound::Unbounded));
        let (service, told) = rest.find(|(_, told)| told.is_offered())?;
        Some((service, told.version, told.change()?))
    }

    /// Over all entries, by name.
    pub(super) fn digest(&mut self) -> Digest {
        if let Some(digest) = self.digest {
            return digest;
        }
        let digest = self.told.values().filter_map(Told::digest).collect();
        self.digest = Some(digest);
        digest
    }

    pub(super) fn saved(&self) -> SavedJournal {
        let told = self.told.iter().map(|(service, told)| SavedTold {
            service: service.clone(),
            version: told.version,
            what: match &told.what {
                What::Offer { digest, .. } | What::Unread { digest } => {
                    SavedWhat::Offer((*digest).into())
                }
                What::Tombstone { since_ms } => SavedWhat::Gone(*since_ms),
            },
        });
        SavedJournal {
            instance: self.instance,
            top: self.top,
            complete_from: self.complete_from,
            acknowledged: self.acknowledged,
            lost: self.lost.clone(),
            told: told.collect(),
        }
    }

    pub(super) fn restore(saved: SavedJournal) -> Result<Self, Damaged> {
        let state = State {
            instance: saved.instance,
            version: saved.top,
        };
        let mut journal = Self {
            complete_from: saved.complete_from,
            acknowledged: saved.acknowledged,
            lost: saved.lost,
            ..Self::new(state)
        };
        if journal.complete_from > journal.top || journal.acknowledged > journal.top {
            return Err(Damaged("the journal is ahead of itself"));
        }
        if journal.lost.len() > LOST_MAX {
            return Err(Damaged("too many lost versions"));
        }
        for entry in saved.told {
            if entry.version > journal.top {
                return Err(Damaged("an entry of the journal is ahead of it"));
            }
            let what = match entry.what {
                SavedWhat::Offer(digest) => What::Unread {
                    digest: digest.into(),
                },
                SavedWhat::Gone(since_ms) => What::Tombstone { since_ms },
            };
            let version = entry.version;
            journal.put(entry.service, Told { version, what });
        }
        journal.forget_excess();
        Ok(journal)
    }
}

/// What is new in this offer; one that says the same takes the place of the old.
fn news(told: Option<&mut Told>, offer: Arc<Offer>) -> Option<What> {
    let Some(told) = told else {
        let digest = Digest::of(&offer);
        return Some(What::Offer { digest, offer });
    };
    match &mut told.what {
        What::Offer { offer: old, .. } if Arc::ptr_eq(old, &offer) => None,
        What::Offer { offer: old, .. } if **old == *offer => {
            *old = offer;
            None
        }
        What::Unread { digest } if *digest == Digest::of(&offer) => {
            let digest = *digest;
            told.what = What::Offer { digest, offer };
            None
        }
        What::Offer { .. } | What::Unread { .. } | What::Tombstone { .. } => {
            let digest = Digest::of(&offer);
            Some(What::Offer { digest, offer })
        }
    }
}

impl Told {
    fn is_offered(&self) -> bool {
        !matches!(self.what, What::Tombstone { .. })
    }

    fn digest(&self) -> Option<&Digest> {
        match &self.what {
            What::Offer { digest, .. } | What::Unread { digest } => Some(digest),
            What::Tombstone { .. } => None,
        }
    }

    /// `None` for what an earlier process left; nobody is told before that is settled.
    fn change(&self) -> Option<Change> {
        match &self.what {
            What::Offer { digest, offer } => Some(Change::Upsert {
                digest: *digest,
                offer: Arc::clone(offer),
            }),
            What::Unread { .. } => None,
            What::Tombstone { .. } => Some(Change::Tombstone),
        }
    }
}
