//! What is held of a peer, as it is written down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corinth_api::peering::{decode_offer, encode_offer};
use corinth_model::Condition;

use super::{Entry, Held, MASSIVE_STALE_FOR, Stale};
use crate::peering::saved::{Damaged, SavedEntry, SavedHeld, SavedOffer, SavedStale};

impl Held {
    pub(in crate::peering) fn saved(&self, now: Instant) -> SavedHeld {
        let entries = self.entries.iter().map(|(service, entry)| SavedEntry {
            service: service.clone(),
            version: entry.version,
            digest: entry.digest.into(),
            offer: entry
                .offer
                .as_ref()
                .map(|offer| SavedOffer(encode_offer(offer))),
            stale: entry.stale.map(|stale| SavedStale {
                left_ms: milliseconds(stale.until.saturating_duration_since(now)),
                is_massive: stale.is_massive,
            }),
            trouble: entry.trouble.map(|condition| condition.code().to_owned()),
        });
        SavedHeld {
            instance: self.instance,
            version: self.version,
            wants_everything: self.wants_everything(),
            is_overflowing: self.is_overflowing,
            entries: entries.collect(),
        }
    }

    /// As it was saved. Nothing is accepted until [`Self::set_accepted`] says so; until then everything is kept.
    pub(in crate::peering) fn restore(
        saved: SavedHeld,
        quota: usize,
        now: Instant,
    ) -> Result<Self, Damaged> {
        let mut held = Self {
            instance: saved.instance,
            version: saved.version,
            seen: saved.version,
            wanted_since: saved.wants_everything.then_some(0),
            is_overflowing: saved.is_overflowing,
            ..Self::new(quota)
        };
        for entry in saved.entries {
            let trouble = entry.trouble()?;
            let offer = entry.offer.as_ref().map(|offer| decode_offer(&offer.0));
            let offer = offer
                .transpose()
                .map_err(|_| Damaged("an offer is malformed"))?;
            if offer
                .as_ref()
                .is_some_and(|offer| offer.service != entry.service)
            {
                return Err(Damaged("an offer is of another service"));
            }
            let hold = |stale: SavedStale| Stale {
                until: now + Duration::from_millis(stale.left_ms).min(MASSIVE_STALE_FOR),
                is_massive: stale.is_massive,
            };
            held.taken += usize::from(offer.is_some());
            let entry = (
                entry.service,
                Entry {
                    version: entry.version,
                    digest: entry.digest.into(),
                    round: 0,
                    added: 0,
                    offer: offer.map(Arc::new),
                    stale: entry.stale.map(hold),
                    trouble,
                    is_excess: trouble == Some(Condition::OverQuota),
                },
            );
            if held.entries.insert(entry.0, entry.1).is_some() {
                return Err(Damaged("a service is there twice"));
            }
        }
        held.find_next_expiry();
        Ok(held)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
