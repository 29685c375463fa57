//! Whose a server name is when several services want it. Pure.
//!
//! A name means one service. The order of arrival never matters: the owner follows from the set of claims alone.

use std::collections::{BTreeMap, BTreeSet};

use corinth_model::{DnsName, ServiceId};

#[cfg(test)]
mod tests;

/// How good a claim to a server name is; the least is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// An import that is declared here asks for it.
    Asked,
    /// A service that is declared here answers to it; the oldest export first, as among our exports. Before what peers
    /// say: none of them can take a name from us.
    Own {
        /// Since when, Unix milliseconds; the end of time for one that is not exported.
        exported_at_ms: u64,
    },
    /// Only peers say so; the oldest export first, Unix milliseconds.
    Offered {
        /// Since when.
        exported_at_ms: u64,
    },
}

/// Every claim to every server name.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_name: BTreeMap<DnsName, BTreeSet<(Standing, ServiceId)>>,
    by_service: BTreeMap<ServiceId, BTreeMap<DnsName, Standing>>,
}

impl Names {
    /// These are all claims of a service from now on. Yields the other services that gained or lost a name by it.
    pub(super) fn set(
        &mut self,
        service: &ServiceId,
        claims: BTreeMap<DnsName, Standing>,
    ) -> BTreeSet<ServiceId> {
        let before = match claims.is_empty() {
            true => self.by_service.remove(service),
            false => self.by_service.insert(service.clone(), claims.clone()),
        };
        let before = before.unwrap_or_default();
        let mut others = BTreeSet::new();
        let names: BTreeSet<_> = before.keys().chain(claims.keys()).collect();
        for name in names {
            let (was, is) = (before.get(name), claims.get(name));
            if was == is {
                continue;
            }
            let claimants = self.by_name.entry(name.clone()).or_default();
            let owner = claimants.first().cloned();
            if let Some(was) = was {
                claimants.remove(&(*was, service.clone()));
            }
            if let Some(is) = is {
                claimants.insert((*is, service.clone()));
            }
            others.extend(owner.into_iter().chain(claimants.first().cloned()));
            if claimants.is_empty() {
                self.by_name.remove(name);
            }
        }
        let others = others.into_iter().map(|(_, other)| other);
        others.filter(|other| other != service).collect()
    }

    /// Who has a name.
    pub(super) fn owner(&self, name: &DnsName) -> Option<&ServiceId> {
        let (_, owner) = self.by_name.get(name)?.first()?;
        Some(owner)
    }

    /// The names a service wants and does not get, with who has them.
    pub(super) fn refused(
        &self,
        service: &ServiceId,
    ) -> impl Iterator<Item = (&DnsName, &ServiceId)> {
        let wanted = self.by_service.get(service).into_iter().flatten();
        wanted.filter_map(move |(name, _)| {
            let owner = self.owner(name).filter(|owner| *owner != service);
            Some((name, owner?))
        })
    }
}
