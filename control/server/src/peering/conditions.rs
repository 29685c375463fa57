//! Conditions of one relation: which stand, and what has changed since somebody asked.

use std::collections::{BTreeMap, BTreeSet};

use corinth_model::{Condition, ServiceId};

/// Most services that are named in conditions; the others are only counted.
pub(super) const NAMED_MAX: usize = 100;

/// A condition, and the service it is about if it is about one.
pub(super) type About = (Condition, Option<ServiceId>);

/// Which conditions stand.
#[derive(Debug, Clone, Default)]
pub(super) struct Conditions {
    general: BTreeSet<Condition>,
    named: BTreeMap<ServiceId, Condition>,
    /// What nobody was told yet, and whether it stands now.
    news: BTreeMap<About, bool>,
}

impl Conditions {
    /// The condition of the whole relation stands, or not.
    pub(super) fn set(&mut self, condition: Condition, stands: bool) {
        let has_changed = if stands {
            self.general.insert(condition)
        } else {
            self.general.remove(&condition)
        };
        if has_changed {
            self.tell((condition, None), stands);
        }
    }

    /// What is wrong with a service now.
    pub(super) fn set_service(&mut self, service: &ServiceId, now: Option<Condition>) {
        let before = self.named.get(service).copied();
        if before == now {
            return;
        }
        if let Some(before) = before {
            self.named.remove(service);
            self.tell((before, Some(service.clone())), false);
        }
        if let Some(now) = now
            && self.named.len() < NAMED_MAX
        {
            self.named.insert(service.clone(), now);
            self.tell((now, Some(service.clone())), true);
        }
    }

    /// Names what was only counted, as far as there is room again.
    pub(super) fn refill<'a>(&mut self, all: impl Iterator<Item = (&'a ServiceId, Condition)>) {
        for (service, condition) in all {
            if self.named.len() >= NAMED_MAX {
                return;
            }
            self.set_service(service, Some(condition));
        }
    }

    /// A change that nobody was told yet: what, and whether it stands now.
    pub(super) fn poll(&mut self) -> Option<(About, bool)> {
        self.news.pop_first()
    }

    /// All that stand.
    pub(super) fn iter(&self) -> impl Iterator<Item = About> + '_ {
        let general = self.general.iter().map(|condition| (*condition, None));
        let named = self.named.iter();
        general.chain(named.map(|(service, condition)| (*condition, Some(service.clone()))))
    }

    fn tell(&mut self, about: About, stands: bool) {
        // What came and went in between is no news.
        if self.news.get(&about) == Some(&!stands) {
            self.news.remove(&about);
        } else {
            self.news.insert(about, stands);
        }
    }
}
