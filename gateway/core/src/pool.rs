//! The candidates of one route key: those of the route, and the endpoints of our own export of it.

use std::net::SocketAddr;
use std::time::Instant;

use corinth_model::{
    Candidate, Endpoint, Export, Locality, Proximity, Route, Tables, Target, proximity,
};

use crate::key::RouteKey;
use crate::select::{Contender, Rank, Turn};
use crate::settings::Outlier;
use crate::standing::{Group, Standing};

/// Where a key's candidates are found. Local clients come to an endpoint by the route and peers by the
/// export; what either learns of it serves both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pool<'t> {
    route: Option<&'t Route>,
    export: Option<&'t Export>,
}

impl<'t> Pool<'t> {
    pub(crate) fn of(tables: &'t Tables, key: &RouteKey) -> Self {
        let route = tables.routes.by_name(key.name(), key.protocol());
        let export = key
            .export()
            .and_then(|export| tables.exports.export(&export));
        Self {
            route: route.map(|route| &**route),
            export: export.map(|export| &**export),
        }
    }

    pub(crate) fn holds(&self, target: &Target) -> bool {
        let routed = self.route.is_some_and(|route| {
            let mut candidates = route.candidates.iter();
            candidates.any(|candidate| candidate.target == *target)
        });
        routed
            || self.export.is_some_and(|export| {
                let mut endpoints = export.endpoints.iter();
                endpoints.any(|endpoint| Target::Endpoint(endpoint.address()) == *target)
            })
    }

    /// Whether ejecting this candidate leaves enough of its tier: at least half of it, unless nothing in
    /// the tier works any more; then the whole tier goes, and the next one takes over.
    pub(crate) fn may_eject(
        &self,
        target: &Target,
        group: Option<&Group>,
        own: &Locality,
        outlier: &Outlier,
    ) -> bool {
        let candidates = self.route.into_iter().flat_map(|route| &route.candidates);
        let candidates = candidates.map(|candidate| {
            let tier = (candidate.priority, candidate_proximity(own, candidate));
            (tier, candidate.target.clone())
        });
        let endpoints = self.export.into_iter().flat_map(|export| &export.endpoints);
        let endpoints = endpoints.map(|endpoint| {
            let tier = (0, endpoint_proximity(own, endpoint));
            (tier, Target::Endpoint(endpoint.address()))
        });
        tier_allows(candidates, target, group, outlier)
            && tier_allows(endpoints, target, group, outlier)
    }
}

fn tier_allows(
    members: impl Iterator<Item = ((u8, Proximity), Target)> + Clone,
    target: &Target,
    group: Option<&Group>,
    outlier: &Outlier,
) -> bool {
    let Some((tier, _)) = members.clone().find(|(_, member)| member == target) else {
        return true;
    };
    let mut size = 0;
    let mut out = 1;
    let mut others_work = false;
    for (_, member) in members.filter(|(other, _)| *other == tier) {
        size += 1;
        if member == *target {
            continue;
        }
        let standing = group.map_or(Standing::GOOD, |group| group.of(&member));
        out += usize::from(standing.is_out());
        others_work |= standing.is_working(outlier);
    }
    out * 2 <= size || !others_work
}

/// The place of a candidate in the plan of its route.
pub(crate) fn contend<'t>(
    candidate: &'t Candidate,
    standing: Standing,
    link_is_up: bool,
    own: &Locality,
    now: Instant,
) -> Contender<&'t Target> {
    let turn = if candidate.weight == 0 {
        Turn::Withheld
    } else if link_is_up && standing.is_usable(now) {
        Turn::Regular
    } else {
        Turn::LastResort
    };
    Contender {
        what: &candidate.target,
        rank: Rank {
            turn,
            priority: candidate.priority,
            proximity: candidate_proximity(own, candidate),
        },
        weight: candidate.weight,
    }
}

/// The place of a local endpoint among those of its export.
pub(crate) fn contend_locally(
    endpoint: &Endpoint,
    standing: Standing,
    own: &Locality,
    now: Instant,
) -> Contender<SocketAddr> {
    let turn = if standing.is_usable(now) {
        Turn::Regular
    } else {
        Turn::LastResort
    };
    Contender {
        what: endpoint.address(),
        rank: Rank {
            turn,
            priority: 0,
            proximity: endpoint_proximity(own, endpoint),
        },
        weight: 1,
    }
}

fn candidate_proximity(own: &Locality, candidate: &Candidate) -> Proximity {
    let is_local = matches!(candidate.target, Target::Endpoint(_));
    proximity(own, &candidate.locality, is_local)
}

fn endpoint_proximity(own: &Locality, endpoint: &Endpoint) -> Proximity {
    proximity(own, endpoint.locality(), true)
}
