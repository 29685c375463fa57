//! What must hold after every step, for what one cluster holds of one peer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use corinth_api::peering::{Digest, Message, State};
use corinth_control::peering::{Freshness, Relation};
use corinth_model::{Accepted, Offer, ServiceId, Version, is_reserved};

use crate::time::Time;

/// Why something may have changed.
#[derive(Debug)]
pub(crate) enum Cause<'a> {
    /// The peer said this.
    Message(&'a Message),
    /// Time has passed.
    Time,
    /// The operator has confirmed.
    Confirmed,
    /// Anything else that happens to a relation: nothing that is held may change.
    Other,
}

/// What was there after the last step.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    seen: BTreeMap<ServiceId, (Arc<Offer>, Freshness)>,
    /// Everything that was ever there.
    touched: BTreeSet<ServiceId>,
    held: Option<State>,
    /// What tombstones took away since the last snapshot began, and their versions.
    removed: BTreeMap<ServiceId, Version>,
    /// What came of the snapshot that is on its way.
    snapshot: Vec<Digest>,
}

impl Watch {
    pub(crate) fn new(relation: &Relation) -> Self {
        let mut watch = Self::default();
        watch.take(relation);
        watch
    }

    pub(crate) fn names(&self) -> Vec<ServiceId> {
        self.seen.keys().cloned().collect()
    }

    fn take(&mut self, relation: &Relation) {
        let offers = relation.offers();
        self.seen = offers
            .map(|(service, offer, freshness)| (service.clone(), (Arc::clone(offer), freshness)))
            .collect();
        self.touched.extend(self.seen.keys().cloned());
        self.held = relation.held_state();
    }

    /// The operator accepts something else: what is not accepted any more goes, and nothing comes.
    pub(crate) fn accept(&mut self, relation: &Relation, accepted: &Accepted) {
        let before = std::mem::take(&mut self.seen);
        self.take(relation);
        for service in before.keys() {
            let stays = self.seen.contains_key(service);
            assert_eq!(
                stays,
                accepted.accepts(service),
                "{service} after accepting"
            );
        }
        let comes = self
            .seen
            .keys()
            .find(|service| !before.contains_key(*service));
        assert_eq!(comes, None, "it was not there before it was accepted");
    }

    /// Whether these are services the peer may say something of.
    pub(crate) fn check_changed(&self, changed: &BTreeSet<ServiceId>, accepted: &Accepted) {
        for service in changed {
            assert!(
                accepted.accepts(service) || self.touched.contains(service),
                "{service} is reported but not accepted"
            );
        }
    }

    /// Compares what is there with what was there.
    pub(crate) fn check(
        &mut self,
        relation: &Relation,
        (accepted, quota): (&Accepted, usize),
        cause: &Cause<'_>,
        now: Time,
    ) {
        let before = std::mem::take(&mut self.seen);
        let held_before = self.held;
        self.take(relation);
        for service in self.seen.keys() {
            assert!(
                accepted.accepts(service),
                "{service} is used but not accepted"
            );
            assert!(
                !is_reserved(&service.namespace),
                "{service} is Kubernetes' own"
            );
        }
        assert!(self.seen.len() <= quota, "more than the quota is used");
        if let (Some(before), Some(after)) = (held_before, self.held)
            && before.instance == after.instance
        {
            assert!(
                before.version <= after.version,
                "a version fell by {cause:?}"
            );
        }
        for (service, (_, freshness)) in &before {
            match self.seen.get(service) {
                None => assert!(
                    may_go(service, *freshness, cause, now),
                    "{service} went by {cause:?}"
                ),
                Some((_, after)) => check_freshness(service, (*freshness, *after), cause, now),
            }
        }
        for (service, (offer, _)) in &self.seen {
            let is_new = before
                .get(service)
                .is_none_or(|(before, _)| before != offer);
            let said = matches!(cause, Cause::Message(Message::Upsert { offer, .. }) if offer.service == *service);
            assert!(!is_new || said, "{service} came or changed by {cause:?}");
        }
        self.check_removed(&before, cause);
        self.check_snapshot(&before, cause);
    }

    /// Only a whole snapshot makes anything stale.
    fn check_snapshot(
        &mut self,
        before: &BTreeMap<ServiceId, (Arc<Offer>, Freshness)>,
        cause: &Cause<'_>,
    ) {
        match cause {
            Cause::Message(Message::SnapshotBegin { .. }) => self.snapshot.clear(),
            Cause::Message(
                Message::Upsert { digest, .. }
                | Message::NotTaken {
                    digest: Some(digest),
                    ..
                },
            ) => self.snapshot.push(*digest),
            Cause::Message(Message::SnapshotEnd { digest, .. }) => {
                let is_whole = *digest == self.snapshot.iter().collect();
                let freshness = |seen: &BTreeMap<ServiceId, (Arc<Offer>, Freshness)>| {
                    let seen = seen.iter();
                    seen.map(|(service, (_, fresh))| (service.clone(), *fresh))
                        .collect::<Vec<_>>()
                };
                assert!(
                    is_whole || freshness(before) == freshness(&self.seen),
                    "a snapshot that was not whole made something stale"
                );
            }
            Cause::Message(_) | Cause::Time | Cause::Confirmed | Cause::Other => {}
        }
    }

    /// What a tombstone took away does not come back by something older.
    fn check_removed(
        &mut self,
        before: &BTreeMap<ServiceId, (Arc<Offer>, Freshness)>,
        cause: &Cause<'_>,
    ) {
        match cause {
            Cause::Message(Message::Tombstone { version, service })
                if before.contains_key(service) && !self.seen.contains_key(service) =>
            {
                self.removed.insert(service.clone(), *version);
            }
            Cause::Message(Message::SnapshotBegin { .. }) => self.removed.clear(),
            Cause::Message(Message::Upsert { version, offer, .. }) => {
                let removed = self.removed.get(&offer.service);
                let is_older = removed.is_some_and(|removed| version < removed);
                let is_back =
                    self.seen.contains_key(&offer.service) && !before.contains_key(&offer.service);
                assert!(
                    !(is_older && is_back),
                    "{} came back to life at {version} after {removed:?}",
                    offer.service
                );
            }
            Cause::Message(_) | Cause::Time | Cause::Confirmed | Cause::Other => {}
        }
    }
}

/// Only a tombstone removes, or time and the operator what a whole snapshot left out.
fn may_go(service: &ServiceId, freshness: Freshness, cause: &Cause<'_>, now: Time) -> bool {
    match (cause, freshness) {
        (Cause::Message(Message::Tombstone { service: gone, .. }), _) => gone == service,
        (Cause::Time, Freshness::Stale { until }) => until <= now.instant(),
        (Cause::Confirmed, Freshness::Stale { .. }) => true,
        (Cause::Message(_) | Cause::Time | Cause::Confirmed | Cause::Other, _) => false,
    }
}

fn check_freshness(
    service: &ServiceId,
    (before, after): (Freshness, Freshness),
    cause: &Cause<'_>,
    now: Time,
) {
    match (before, after) {
        (Freshness::Fresh, Freshness::Stale { until }) => {
            let is_end = matches!(cause, Cause::Message(Message::SnapshotEnd { .. }));
            assert!(is_end, "{service} became stale by {cause:?}");
            let hold = until - now.instant();
            let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
            assert!(
                [minutes(10), minutes(60)].contains(&hold),
                "{service} stays for {hold:?}"
            );
        }
        (Freshness::Stale { .. }, Freshness::Fresh) => {
            let said = matches!(cause, Cause::Message(Message::Upsert { offer, .. }) if offer.service == *service);
            let or_not = matches!(cause, Cause::Message(Message::NotTaken { service: Some(named), .. }) if named == service);
            assert!(said || or_not, "{service} became fresh by {cause:?}");
        }
        (Freshness::Stale { until: before }, Freshness::Stale { until: after }) => {
            assert_eq!(before, after, "the time of {service} was put off");
        }
        (Freshness::Fresh, Freshness::Fresh) => {}
    }
}
