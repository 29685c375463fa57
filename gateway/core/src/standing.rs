//! What we think of each candidate.
//!
//! A candidate of a route is a (route, target) pair: a cluster that fails for one service still serves
//! the others. Only what is not perfectly well has an entry, so a healthy gateway remembers nothing and
//! looks nothing up twice. A standing never forbids an attempt; it only decides who is tried first.
//!
//! ```text
//!            failures in a row                       time is up
//! Serving ─────────────────────> Ejected ──────────────────────────> Probation
//!    ^  ^                        │     ^                              │     │
//!    │  └──── any success ───────┘     └──── one failure, longer ─────┘     │
//!    └───────────────────────── one success ────────────────────────────────┘
//! ```

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::time::Instant;

use corinth_model::{ClusterName, Target};
use indexmap::IndexMap;

use crate::key::{KeyRef, RouteKey};
use crate::pool::Pool;
use crate::settings::Outlier;

/// What we think of one candidate of one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In service; so many attempts in a row have failed.
    Serving {
        /// Failures since the last success.
        failures: u32,
    },
    /// Out of service: tried only when nothing better is left.
    Ejected {
        /// When it goes on probation.
        until: Instant,
        /// How often in a row it was ejected, at least 1.
        strikes: u32,
    },
    /// Out of service but for one trial at a time: a success returns it, a failure ejects it again.
    Probation {
        /// How often in a row it was ejected, at least 1.
        strikes: u32,
        /// The earliest time of the next trial.
        trial_at: Instant,
    },
}

impl Standing {
    /// The standing of a candidate we have nothing against.
    pub const GOOD: Self = Self::Serving { failures: 0 };

    /// Whether it is neither out of service nor kept in it only because too many others are out.
    pub(crate) fn is_working(self, outlier: &Outlier) -> bool {
        matches!(self, Self::Serving { failures } if failures < outlier.failures.get())
    }

    /// Whether it was taken out of service and has not yet returned.
    pub(crate) fn is_out(self) -> bool {
        !matches!(self, Self::Serving { .. })
    }

    /// Whether a plan may put it before those that are out of service.
    pub(crate) fn is_usable(self, now: Instant) -> bool {
        match self {
            Self::Serving { .. } => true,
            Self::Ejected { .. } => false,
            Self::Probation { trial_at, .. } => trial_at <= now,
        }
    }

    /// The next standing.
    pub(crate) fn after(self, happening: Happening, outlier: &Outlier, now: Instant) -> Self {
        let ejected = |strikes: u32| Self::Ejected {
            until: now + outlier.ejection(strikes),
            strikes,
        };
        match (self, happening) {
            (_, Happening::Succeeded) => Self::GOOD,
            (Self::Serving { failures }, Happening::Failed { may_eject }) => {
                let failures = failures.saturating_add(1);
                if may_eject && failures >= outlier.failures.get() {
                    ejected(1)
                } else {
                    Self::Serving { failures }
                }
            }
            // Attempts that began before the ejection end after it; they must not prolong it.
            (Self::Ejected { .. }, Happening::Failed { .. }) => self,
            (Self::Probation { strikes, .. }, Happening::Failed { .. }) => {
                ejected(strikes.saturating_add(1))
            }
            (Self::Ejected { strikes, .. }, Happening::Reprieved) => Self::Probation {
                strikes,
                trial_at: now,
            },
            (Self::Serving { .. } | Self::Probation { .. }, Happening::Reprieved) => self,
            (Self::Probation { strikes, .. }, Happening::TrialBegan) => Self::Probation {
                strikes,
                trial_at: now + outlier.trial_gap,
            },
            (Self::Serving { .. } | Self::Ejected { .. }, Happening::TrialBegan) => self,
        }
    }
}

/// What moves a standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    /// An attempt was accepted.
    Succeeded,
    /// An attempt failed through the candidate's own fault.
    Failed {
        /// Whether enough of its tier would be left without it.
        may_eject: bool,
    },
    /// Its time is up, or the path to it has just come back.
    Reprieved,
    /// A plan has put it first.
    TrialBegan,
}

/// A change of standing that somebody should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) route: RouteKey,
    pub(crate) target: Target,
    pub(crate) standing: Standing,
}

/// The candidates of one route that are not perfectly well.
#[derive(Debug, Default)]
pub(crate) struct Group(IndexMap<Target, Standing>);

impl Group {
    pub(crate) fn of(&self, target: &Target) -> Standing {
        self.0.get(target).copied().unwrap_or(Standing::GOOD)
    }
}

/// How much [`Standings::reconcile`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// Routes looked up in the new tables.
    pub(crate) routes: usize,
    /// Standings forgotten because their candidate is gone.
    pub(crate) forgotten: usize,
}

/// All standings but the good ones, and when the ejected ones return.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    groups: IndexMap<RouteKey, Group>,
    returns: BTreeSet<(Instant, RouteKey, Target)>,
}

impl Standings {
    /// The unwell candidates of a route, if there are any.
    pub(crate) fn group(&self, key: KeyRef<'_>) -> Option<&Group> {
        self.groups.get(&key)
    }

    pub(crate) fn of(&self, key: KeyRef<'_>, target: &Target) -> Standing {
        self.group(key)
            .map_or(Standing::GOOD, |group| group.of(target))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RouteKey, &Target, Standing)> {
        self.groups.iter().flat_map(|(key, group)| {
            let standings = group.0.iter();
            standings.map(move |(target, standing)| (key, target, *standing))
        })
    }

    /// Moves one standing; returns the change if it is now of another kind.
    pub(crate) fn move_on(
        &mut self,
        key: KeyRef<'_>,
        target: &Target,
        happening: Happening,
        outlier: &Outlier,
        now: Instant,
    ) -> Option<Change> {
        let before = self.of(key, target);
        let standing = before.after(happening, outlier, now);
        if standing == before {
            return None;
        }
        self.set(key, target, before, standing);
        (discriminant(&before) != discriminant(&standing)).then(|| Change {
            route: key.to_owned(),
            target: target.clone(),
            standing,
        })
    }

    /// Puts every ejected candidate whose time is up on probation.
    pub(crate) fn reprieve_due(&mut self, outlier: &Outlier, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some((until, route, target)) = self.returns.first().cloned()
            && until <= now
        {
            changes.extend(self.move_on(
                route.as_ref(),
                &target,
                Happening::Reprieved,
                outlier,
                now,
            ));
        }
        changes
    }

    /// Puts every ejected route of a peer on probation: what we held against it was the path.
    pub(crate) fn reprieve_peer(
        &mut self,
        peer: &ClusterName,
        outlier: &Outlier,
        now: Instant,
    ) -> Vec<Change> {
        let ejected: Vec<(RouteKey, Target)> = self
            .returns
            .iter()
            .filter(|(_, _, target)| matches!(target, Target::Cluster(cluster) if cluster == peer))
            .map(|(_, route, target)| (route.clone(), target.clone()))
            .collect();
        let mut changes = Vec::new();
        for (route, target) in ejected {
            changes.extend(self.move_on(
                route.as_ref(),
                &target,
                Happening::Reprieved,
                outlier,
                now,
            ));
        }
        changes
    }

    /// Forgets the candidates that no longer exist. `pool` is asked once per route that has standings, so
    /// the work does not depend on the size of the tables.
    pub(crate) fn reconcile<'t>(&mut self, pool: impl Fn(&RouteKey) -> Pool<'t>) -> Reconciled {
        let mut done = Reconciled::default();
        let returns = &mut self.returns;
        self.groups.retain(|key, group| {
            let pool = pool(key);
            done.routes += 1;
            group.0.retain(|target, standing| {
                let keep = pool.holds(target);
                if !keep {
                    done.forgotten += 1;
                    if let Standing::Ejected { until, .. } = *standing {
                        returns.remove(&(until, key.clone(), target.clone()));
                    }
                }
                keep
            });
            !group.0.is_empty()
        });
        done
    }

    /// When the next ejected candidate goes on probation.
    pub(crate) fn next_return(&self) -> Option<Instant> {
        self.returns.first().map(|(until, _, _)| *until)
    }

    /// Panics if the groups and the times of return disagree.
    pub(crate) fn check(&self) {
        let mut ejected = 0;
        for (key, target, standing) in self.iter() {
            assert_ne!(
                standing,
                Standing::GOOD,
                "{key} {target}: a good standing is kept"
            );
            match standing {
                Standing::Serving { .. } => {}
                Standing::Ejected { until, strikes } => {
                    ejected += 1;
                    let entry = (until, key.clone(), target.clone());
                    assert!(strikes > 0, "{key} {target}: ejected without a strike");
                    assert!(
                        self.returns.contains(&entry),
                        "{key} {target}: never returns"
                    );
                }
                Standing::Probation { strikes, .. } => {
                    assert!(strikes > 0, "{key} {target}: on probation without a strike");
                }
            }
        }
        assert_eq!(
            ejected,
            self.returns.len(),
            "a time of return without an ejection"
        );
        let empty = self.groups.iter().find(|(_, group)| group.0.is_empty());
        assert!(empty.is_none(), "an empty group is kept");
    }

    fn set(&mut self, key: KeyRef<'_>, target: &Target, before: Standing, standing: Standing) {
        if let Standing::Ejected { until, .. } = before {
            self.returns
                .remove(&(until, key.to_owned(), target.clone()));
        }
        if let Standing::Ejected { until, .. } = standing {
            self.returns.insert((until, key.to_owned(), target.clone()));
        }
        if standing != Standing::GOOD {
            let index = self
                .groups
                .get_index_of(&key)
                .unwrap_or_else(|| self.groups.insert_full(key.to_owned(), Group::default()).0);
            self.groups[index].0.insert(target.clone(), standing);
            return;
        }
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        group.0.swap_remove(target);
        if group.0.is_empty() {
            self.groups.swap_remove(&key);
        }
    }
}
