//! What one peer has told, as far as it is accepted here.
//!
//! Nothing but a tombstone, or a whole snapshot after its time, removes anything. Of what is not taken only the name is
//! kept, with the digest of the entry, so that it can be told whether we know of everything there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corinth_api::peering::{Digest, State};
use corinth_model::{Accepted, Condition, Instance, Offer, ServiceId, Version, is_reserved};

mod disk;

#[cfg(test)]
mod tests;

/// How long what a whole snapshot left out is still used.
pub(super) const STALE_FOR: Duration = Duration::from_secs(10 * 60);
/// The same, if it left out more than half of [`MASSIVE_FROM`] or more.
pub(super) const MASSIVE_STALE_FOR: Duration = Duration::from_secs(60 * 60);
/// Of fewer services than this any part may go at a time.
pub(super) const MASSIVE_FROM: usize = 10;
/// Most names that are remembered without their entry.
pub(super) const NAMES_MAX: usize = 10_000;

/// What a peer has told.
#[derive(Debug, Clone)]
pub(super) struct Held {
    instance: Option<Instance>,
    /// Everything up to here is known.
    version: Version,
    /// The newest change that came; there may be more of this version.
    seen: Version,
    entries: BTreeMap<ServiceId, Entry>,
    /// `None` until somebody has said so; what was saved is kept until then.
    accepted: Option<Accepted>,
    quota: usize,
    /// Entries with an offer.
    taken: usize,
    /// Counts the snapshots; an entry carries the number of the last one it was in.
    round: u32,
    /// The last one that was whole.
    whole_round: u32,
    /// There is something we want to be told again, since this snapshot.
    wanted_since: Option<u32>,
    /// There is more than can be remembered, even by name.
    is_overflowing: bool,
    next_expiry: Option<Instant>,
    digest: Option<Digest>,
    /// Whether services were above the quota when the digest was made.
    has_excess: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    version: Version,
    digest: Digest,
    /// The snapshot it was last in.
    round: u32,
    /// The snapshot it first came in, or after which it came.
    added: u32,
    offer: Option<Arc<Offer>>,
    stale: Option<Stale>,
    trouble: Option<Condition>,
    /// Not taken because the quota was used up by others.
    is_excess: bool,
}

/// Left out of the newest whole snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stale {
    pub(super) until: Instant,
    is_massive: bool,
}

/// One entry as it came, with what was read of it.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) version: Version,
    pub(super) digest: Digest,
    pub(super) offer: Result<Arc<Offer>, Condition>,
}

/// What became of an entry that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What is offered is not what it was.
    pub(super) has_changed: bool,
    /// Why it was not taken.
    pub(super) refused: Option<Condition>,
}

/// Why an entry is not taken.
#[derive(Debug, Clone, Copy)]
struct NotTaken {
    condition: Condition,
    is_excess: bool,
}

const NOTHING: Outcome = Outcome {
    has_changed: false,
    refused: None,
};

impl Held {
    pub(super) fn new(quota: usize) -> Self {
        Self {
            instance: None,
            version: Version::default(),
            seen: Version::default(),
            entries: BTreeMap::new(),
            accepted: None,
            quota,
            taken: 0,
            round: 0,
            whole_round: 0,
            wanted_since: None,
            is_overflowing: false,
            next_expiry: None,
            digest: None,
            has_excess: false,
        }
    }

    /// What to tell the peer that we hold of its state.
    pub(super) fn state(&self) -> Option<State> {
        let instance = self.instance?;
        Some(State {
            instance,
            version: self.version,
        })
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn wants_everything(&self) -> bool {
        self.wanted_since.is_some()
    }

    pub(super) fn want_everything(&mut self) {
        self.wanted_since = Some(self.round);
    }

    /// Everything up to here is known. Whether that is news.
    pub(super) fn complete(&mut self, version: Version) -> bool {
        let is_news = version > self.version;
        self.version = self.version.max(version);
        self.seen = self.seen.max(version);
        is_news
    }

    /// A change of this version comes: whether it can be news. Versions never fall, so that the next one shows that all
    /// of the one before has come, and a lower one is old, or a lie.
    pub(super) fn see(&mut self, version: Version) -> bool {
        if version <= self.version || version < self.seen {
            return false;
        }
        if version > self.seen {
            self.version = self.version.max(self.seen);
            self.seen = version;
        }
        true
    }

    /// Whether there was room for services that were above the quota, when the digest was last made.
    pub(super) fn has_room(&self) -> bool {
        self.taken < self.quota && self.has_excess
    }

    /// A snapshot begins. Versions of another instance say nothing about this one.
    pub(super) fn begin_snapshot(&mut self, state: &State) {
        if self.instance != Some(state.instance) {
            self.instance = Some(state.instance);
            self.version = Version::default();
            self.seen = Version::default();
            for entry in self.entries.values_mut() {
                entry.version = Version::default();
            }
        }
        self.round = self.round.saturating_add(1);
        self.is_overflowing = false;
        self.digest = None;
    }

    /// The snapshot was whole: what it left out is stale from now on, and of names nothing stays. What has changed.
    pub(super) fn end_snapshot(&mut self, now: Instant) -> Left {
        let round = self.round;
        // Those that came with this snapshot, or with one that was cut, do not make what it leaves out a smaller part.
        let known = self
            .entries
            .values()
            .filter(|entry| entry.offer.is_some() && entry.added <= self.whole_round);
        let left_out = known.clone().filter(|entry| entry.round != round).count();
        let known = known.count();
        let is_massive = known >= MASSIVE_FROM && left_out * 2 > known;
        let until = now
            + if is_massive {
                MASSIVE_STALE_FOR
            } else {
                STALE_FOR
            };
        let mut left = Left::default();
        self.entries.retain(|service, entry| {
            if entry.round == round {
                return true;
            }
            if entry.offer.is_none() {
                left.forgotten.insert(service.clone());
                return false;
            }
            if entry.stale.is_none() {
                entry.stale = Some(Stale { until, is_massive });
                left.changed.insert(service.clone());
            }
            true
        });
        self.whole_round = round;
        // What was wanted while the snapshot came may be in the part that came before.
        self.wanted_since = self.wanted_since.filter(|since| *since >= round);
        self.digest = None;
        self.find_next_expiry();
        left
    }

    /// An entry came, within a snapshot or after one. A snapshot says how things are, whatever was said before: the
    /// writer may have lost a part of its past, and then what it tells now is true although its version is not above.
    pub(super) fn upsert(&mut self, service: &ServiceId, told: Told, in_snapshot: bool) -> Outcome {
        let known = self.entries.get(service);
        if !in_snapshot && !self.is_news(known, &told) {
            return NOTHING;
        }
        let refusal = self.refusal(service, &told);
        let refused = refusal.map(|refusal| refusal.condition);
        if known.is_none() && refused.is_some() && self.names() >= NAMES_MAX {
            self.is_overflowing = true;
            self.digest = None;
            return Outcome {
                has_changed: false,
                refused,
            };
        }
        self.put(service, told, refusal)
    }

    /// Whether a change says something that was not known.
    fn is_news(&self, known: Option<&Entry>, told: &Told) -> bool {
        match known {
            // It was removed by what is known since.
            None => told.version > self.version,
            Some(entry) if entry.offer.is_none() => told.version >= entry.version,
            Some(entry) => told.version > entry.version,
        }
    }

    fn put(&mut self, service: &ServiceId, told: Told, refusal: Option<NotTaken>) -> Outcome {
        self.digest = None;
        let refused = refusal.map(|refusal| refusal.condition);
        let old = self.entries.get_mut(service);
        let before = old.as_ref().and_then(|entry| entry.offer.clone());
        let was_stale = old.as_ref().is_some_and(|entry| entry.stale.is_some());
        // An entry that cannot be used leaves what is held of its service as it is.
        let offer = match (told.offer, refused) {
            (Ok(offer), None) => Some(offer),
            (Ok(_) | Err(_), _) => before.clone(),
        };
        let has_changed = was_stale || before != offer;
        match (&before, &offer) {
            (None, Some(_)) => self.taken += 1,
            (Some(_), None) => self.taken -= 1,
            (None, None) | (Some(_), Some(_)) => {}
        }
        let entry = Entry {
            version: told.version,
            digest: told.digest,
            round: self.round,
            added: old.as_ref().map_or(self.round, |entry| entry.added),
            offer,
            stale: None,
            trouble: refused,
            is_excess: refusal.is_some_and(|refusal| refusal.is_excess),
        };
        match old {
            Some(old) => *old = entry,
            None => drop(self.entries.insert(service.clone(), entry)),
        }
        Outcome {
            has_changed,
            refused,
        }
    }

    /// An entry of which not even the name can be read passed by.
    pub(super) fn pass_over(&mut self) {
        self.is_overflowing = true;
        self.digest = None;
    }

    /// Why an entry is not taken.
    fn refusal(&self, service: &ServiceId, told: &Told) -> Option<NotTaken> {
        let by_itself = self
            .forbidden(service)
            .or_else(|| told.offer.as_ref().err().copied());
        if let Some(condition) = by_itself {
            return Some(NotTaken {
                condition,
                is_excess: false,
            });
        }
        let known = self.entries.get(service);
        let is_taken = known.is_some_and(|entry| entry.offer.is_some());
        (!is_taken && self.taken >= self.quota).then_some(NotTaken {
            condition: Condition::OverQuota,
            is_excess: true,
        })
    }

    /// Why a service of this name is not taken, whatever it is.
    fn forbidden(&self, service: &ServiceId) -> Option<Condition> {
        if is_reserved(&service.namespace) {
            return Some(Condition::ReservedNamespace);
        }
        let accepted = self.accepted.as_ref();
        let is_accepted = accepted.is_some_and(|accepted| accepted.accepts(service));
        (!is_accepted).then_some(Condition::NotAccepted)
    }

    /// A service is no longer offered since this version. Whether one that was used is gone.
    pub(super) fn remove(&mut self, service: &ServiceId, version: Version) -> Option<Removed> {
        let entry = self.entries.get(service)?;
        if version <= entry.version {
            return None;
        }
        self.take_out(service)
    }

    fn take_out(&mut self, service: &ServiceId) -> Option<Removed> {
        let entry = self.entries.remove(service)?;
        self.digest = None;
        let was_used = entry.offer.is_some();
        self.taken -= usize::from(was_used);
        Some(Removed { was_used })
    }

    /// Removes what has been stale for long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> BTreeSet<ServiceId> {
        if self.next_expiry.is_none_or(|at| now < at) {
            return BTreeSet::new();
        }
        self.remove_stale(|stale| stale.until <= now)
    }

    /// Removes what is stale at once.
    pub(super) fn confirm_stale(&mut self) -> BTreeSet<ServiceId> {
        self.remove_stale(|_| true)
    }

    fn remove_stale(&mut self, is_over: impl Fn(&Stale) -> bool) -> BTreeSet<ServiceId> {
        let over = self.entries.iter().filter(|(_, entry)| {
            let stale = entry.stale.as_ref();
            stale.is_some_and(&is_over)
        });
        let over: BTreeSet<ServiceId> = over.map(|(service, _)| service.clone()).collect();
        for service in &over {
            self.take_out(service);
        }
        self.find_next_expiry();
        over
    }

    /// When the next stale service goes. May be too early, never too late.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_expiry
    }

    fn find_next_expiry(&mut self) {
        let stale = self.entries.values().filter_map(|entry| entry.stale);
        self.next_expiry = stale.map(|stale| stale.until).min();
    }

    /// This is accepted from now on. What has changed for those that use it.
    pub(super) fn set_accepted(&mut self, accepted: Accepted, quota: usize) -> Left {
        if self.accepted.as_ref() == Some(&accepted) && quota == self.quota {
            return Left::default();
        }
        let has_more_room = quota > self.quota;
        self.accepted = Some(accepted);
        self.quota = quota;
        self.digest = None;
        let mut left = Left::default();
        let mut is_wanted = self.is_overflowing;
        let entries = std::mem::take(&mut self.entries);
        for (service, mut entry) in entries {
            let forbidden = self.forbidden(&service);
            if forbidden.is_none() {
                let was_forbidden = matches!(
                    entry.trouble,
                    Some(Condition::NotAccepted | Condition::ReservedNamespace)
                );
                is_wanted |= was_forbidden || (entry.is_excess && has_more_room);
                self.entries.insert(service, entry);
                continue;
            }
            self.taken -= usize::from(entry.offer.is_some());
            if entry.offer.take().is_some() {
                left.changed.insert(service.clone());
            }
            if entry.stale.is_some() {
                // The peer itself no longer has it.
                left.forgotten.insert(service);
                continue;
            }
            entry.trouble = forbidden;
            entry.is_excess = false;
            self.entries.insert(service, entry);
        }
        if is_wanted {
            self.want_everything();
        }
        self.drop_excess(&mut left);
        self.find_next_expiry();
        left
    }

    /// Takes away what is above the quota: the stale, then those with the highest names.
    fn drop_excess(&mut self, left: &mut Left) {
        let excess = self.taken.saturating_sub(self.quota);
        if excess == 0 {
            return;
        }
        let used = self.entries.iter().filter(|(_, one)| one.offer.is_some());
        let mut used: Vec<_> = used
            .map(|(service, entry)| (entry.stale.is_none(), service.clone()))
            .collect();
        used.sort_by(|(a_fresh, a), (b_fresh, b)| a_fresh.cmp(b_fresh).then(b.cmp(a)));
        for (is_fresh, service) in used.into_iter().take(excess) {
            if is_fresh && let Some(entry) = self.entries.get_mut(&service) {
                entry.offer = None;
                entry.trouble = Some(Condition::OverQuota);
                entry.is_excess = true;
                self.taken -= 1;
            } else {
                self.take_out(&service);
                left.forgotten.insert(service.clone());
            }
            left.changed.insert(service);
        }
    }

    /// Over all entries the peer has, by name; `None` if there are more than are remembered.
    pub(super) fn digest(&mut self) -> Option<Digest> {
        if self.digest.is_none() {
            self.has_excess = self.entries.values().any(|entry| entry.is_excess);
            let there = self.entries.values().filter(|entry| entry.stale.is_none());
            self.digest = Some(there.map(|entry| &entry.digest).collect());
        }
        self.digest.filter(|_| !self.is_overflowing)
    }

    /// What is offered and accepted, by name.
    pub(super) fn offers(&self) -> impl Iterator<Item = (&ServiceId, &Arc<Offer>, Option<Stale>)> {
        self.entries.iter().filter_map(|(service, entry)| {
            let offer = entry.offer.as_ref()?;
            Some((service, offer, entry.stale))
        })
    }

    pub(super) fn offer(&self, service: &ServiceId) -> Option<(&Arc<Offer>, Option<Stale>)> {
        let entry = self.entries.get(service)?;
        Some((entry.offer.as_ref()?, entry.stale))
    }

    /// What is wrong with this service.
    pub(super) fn trouble(&self, service: &ServiceId) -> Option<Condition> {
        self.entries.get(service)?.trouble
    }

    /// Everything with which something is wrong.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&ServiceId, Condition)> {
        let entries = self.entries.iter();
        entries.filter_map(|(service, entry)| Some((service, entry.trouble?)))
    }

    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    fn names(&self) -> usize {
        self.entries.len() - self.taken
    }

    pub(super) fn is_overflowing(&self) -> bool {
        self.is_overflowing
    }

    /// Whether more than half of everything went at once and is waiting to go.
    pub(super) fn is_massively_stale(&self) -> bool {
        self.next_expiry.is_some()
            && self
                .entries
                .values()
                .any(|entry| entry.stale.is_some_and(|stale| stale.is_massive))
    }
}

/// What a change of everything left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Used in another way than before, or no longer.
    pub(super) changed: BTreeSet<ServiceId>,
    /// Known no more, not even by name.
    pub(super) forgotten: BTreeSet<ServiceId>,
}

/// That a service was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removed {
    /// And used.
    pub(super) was_used: bool,
}
