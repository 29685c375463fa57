//! What gateways are told, entry by entry, and what of it changed since when.
//!
//! Every entry carries the revision since which it stands; what is gone leaves its key behind, so that a consumer that
//! missed some revisions is told the difference. A revision holds for one instance: the life of this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use corinth_api::{Entry, EntryKey};
use corinth_model::Instance;

#[cfg(test)]
mod tests;

/// Most keys of entries that are gone which are remembered; consumers that missed more are told everything.
const GONE_MAX: usize = 100_000;

/// What changed again since is noted up to this many times beyond once for each entry.
const NOTED_AGAIN: usize = 1_000;

/// All entries at one revision.
#[derive(Debug)]
pub struct Tables {
    instance: Instance,
    revision: u64,
    entries: BTreeMap<EntryKey, Standing>,
    /// Which keys changed last in which revision.
    changed: BTreeMap<u64, Vec<EntryKey>>,
    /// How many keys that are.
    noted: usize,
    gone: usize,
    /// Changes up to here may be forgotten.
    forgotten: u64,
}

/// One key, since one revision.
#[derive(Debug)]
struct Standing {
    since: u64,
    /// `None` if it is gone.
    entry: Option<Arc<Entry>>,
}

/// What leads a consumer to a revision.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose revisions these are.
    pub instance: Instance,
    /// The revision it leads to.
    pub revision: u64,
    /// Whether what is not in it is gone.
    pub is_whole: bool,
    /// What is there, in place of entries with the same keys.
    pub put: Vec<Arc<Entry>>,
    /// What is gone.
    pub removed: Vec<EntryKey>,
}

impl Tables {
    /// No entries, at revision 0.
    #[must_use]
    pub fn new(instance: Instance) -> Self {
        Self {
            instance,
            revision: 0,
            entries: BTreeMap::new(),
            changed: BTreeMap::new(),
            noted: 0,
            gone: 0,
            forgotten: 0,
        }
    }

    /// The revision now; it grows with each [`Self::update`] that changes something.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Puts entries in and takes keys out, as one revision. Returns whether anything changed.
    pub fn update(
        &mut self,
        put: impl IntoIterator<Item = Entry>,
        remove: impl IntoIterator<Item = EntryKey>,
    ) -> bool {
        let next = self.revision + 1;
        let mut keys = Vec::new();
        for entry in put {
            let key = entry.key();
            if self.get(&key).is_some_and(|held| **held == entry) {
                continue;
            }
            self.set(key.clone(), Some(Arc::new(entry)), next);
            keys.push(key);
        }
        for key in remove {
            if self.get(&key).is_some() {
                self.set(key.clone(), None, next);
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return false;
        }
        self.revision = next;
        self.noted += keys.len();
        self.changed.insert(next, keys);
        self.forget();
        if self.noted > self.entries.len() * 2 + NOTED_AGAIN {
            self.compact();
        }
        true
    }

    fn set(&mut self, key: EntryKey, entry: Option<Arc<Entry>>, since: u64) {
        let is_gone = entry.is_none();
        let before = self.entries.insert(key, Standing { since, entry });
        let was_gone = before.is_some_and(|before| before.entry.is_none());
        self.gone = self.gone + usize::from(is_gone) - usize::from(was_gone);
    }

    /// Forgets the oldest changes while too many keys of what is gone are held.
    fn forget(&mut self) {
        while self.gone > GONE_MAX {
            let Some((revision, keys)) = self.changed.pop_first() else {
                return;
            };
            self.forgotten = revision;
            self.noted -= keys.len();
            for key in keys {
                let is_gone_since =
                    |standing: &Standing| standing.since == revision && standing.entry.is_none();
                if self.entries.get(&key).is_some_and(is_gone_since) {
                    self.entries.remove(&key);
                    self.gone -= 1;
                }
            }
        }
    }

    /// Notes each key at its last change only: that is all that consumers are told.
    fn compact(&mut self) {
        let entries = &self.entries;
        self.changed.retain(|revision, keys| {
            keys.retain(|key| {
                let standing = entries.get(key);
                standing.is_some_and(|standing| standing.since == *revision)
            });
            keys.shrink_to_fit();
            !keys.is_empty()
        });
        self.noted = self.changed.values().map(Vec::len).sum();
    }

    /// The entry with this key.
    #[must_use]
    pub fn get(&self, key: &EntryKey) -> Option<&Arc<Entry>> {
        self.entries.get(key)?.entry.as_ref()
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries
            .values()
            .filter_map(|standing| standing.entry.as_ref())
    }

    /// The keys of all entries, in order.
    pub fn keys(&self) -> impl Iterator<Item = &EntryKey> {
        let held = self.entries.iter();
        held.filter_map(|(key, standing)| standing.entry.is_some().then_some(key))
    }

    /// What a consumer lacks that holds `held`; `None` if it lacks nothing.
    #[must_use]
    pub fn since(&self, held: Option<(Instance, u64)>) -> Option<Change> {
        let known = held.and_then(|(instance, revision)| {
            let is_known =
                instance == self.instance && (self.forgotten..=self.revision).contains(&revision);
            is_known.then_some(revision)
        });
        if known == Some(self.revision) {
            return None;
        }
        let mut change = Change {
            instance: self.instance,
            revision: self.revision,
            is_whole: known.is_none(),
            put: Vec::new(),
            removed: Vec::new(),
        };
        match known {
            None => change.put.extend(self.iter().cloned()),
            Some(revision) => {
                for (at, keys) in self.changed.range(revision + 1..) {
                    keys.iter().for_each(|key| self.tell(key, *at, &mut change));
                }
            }
        }
        Some(change)
    }

    /// Tells how a key stands, if it has not changed again after the revision `at`.
    fn tell(&self, key: &EntryKey, at: u64, change: &mut Change) {
        let Some(standing) = self
            .entries
            .get(key)
            .filter(|standing| standing.since == at)
        else {
            return;
        };
        match &standing.entry {
            Some(entry) => change.put.push(Arc::clone(entry)),
            None => change.removed.push(key.clone()),
        }
    }
}
