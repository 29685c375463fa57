//! Decides: which candidates a connection tries, in which order, and who may come in.
//!
//! A [`Core`] is a value. It is told what time it is and what happened, and answers with values: a [`Plan`], an
//! [`Admission`], a [`Refusal`], [`Action`]s it wants done and [`Event`]s it wants known. It never reads a clock, opens
//! a socket, logs, waits, or draws a number that is not determined by its seed: the same calls give the same answers.
//!
//! ```text
//! tables ── apply ──┐                 ┌── poll_action: dial, drain, withdraw
//! client ── route ──┤                 ├── poll_event: ejected, on probation, returned, ...
//! peer ──── admit ──┼──> [ Core ] ────┤
//! attempt ─ report ─┤                 ├── poll_timeout: when to call handle_timeout, and why
//! link ─ handle_link┘                 └── Plan, Admission or Refusal, at once
//! ```
//!
//! The owner keeps it under one short lock, makes one call, and then polls actions and events until there are none.
//! The session walks its plan or admission without the core, reports each attempt, and releases its permit at the end.
//!
//! A traffic policy belongs to a route or an export and is read where that was just found, nowhere else: in
//! [`Core::route`] before the candidates are ordered (faults, connection limits, retry budget), in [`Core::admit`]
//! beside the stream limits, and in [`Core::report`], where the route's own [`Outlier`] takes the place of the general one.

mod admit;
mod carrier;
mod check;
mod event;
mod key;
mod links;
mod permits;
mod pool;
mod request;
mod select;
mod settings;
mod standing;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use corinth_model::{
    ClusterName, Export, GatewayId, Protocol, Refusal, Route, RouteName, SniName, Tables, Target,
};
use fastrand::Rng;

use crate::event::{Events, Verdict};
use crate::key::KeyRef;
use crate::links::Links;
use crate::permits::Permits;
use crate::pool::Pool;
use crate::select::Shortlist;
use crate::standing::{Change, Happening, Standings};

pub use carrier::{
    Carrier, CarrierChange, Carriers, Cause, Costs, Delivered, Direction, Losses, Moved, Pulse,
};
pub use event::{Action, EVENTS_MAX, Event, Outcome};
pub use key::RouteKey;
pub use links::LinkState;
pub use permits::PermitId;
pub use request::{Admission, Attempt, By, DirectClient, Opening, Plan, Request};
pub use settings::{ATTEMPTS_MAX, AttemptLimit, EJECTION_MAX, Outlier, Own, Settings};
pub use standing::Standing;

/// Whether a direct client may reach what its TLS hello names by these tables; limits aside.
pub fn allows_direct(tables: &Tables, sni: &SniName, client: &DirectClient) -> bool {
    admit::direct(tables, sni, client).is_ok()
}

/// Everything a gateway decides by. See the crate's introduction for the order of calls.
///
/// Every call that may ever depend on the time takes it, so that a new timer changes no caller.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    own: Own,
    rng: Rng,
    tables: Arc<Tables>,
    standings: Standings,
    links: Links,
    permits: Permits,
    is_closed: bool,
    actions: VecDeque<Action>,
    events: Events,
}

impl Core {
    /// A core without tables: it refuses everything until [`Core::apply`].
    pub fn new(settings: Settings, own: Own, seed: u64, _now: Instant) -> Self {
        Self {
            settings,
            rng: Rng::with_seed(seed),
            tables: Arc::new(Tables::empty(own.cluster.clone())),
            own,
            standings: Standings::default(),
            links: Links::default(),
            permits: Permits::default(),
            is_closed: false,
            actions: VecDeque::new(),
            events: Events::default(),
        }
    }

    /// Decides by these tables from now on. They must be of our own cluster.
    ///
    /// Takes time proportional to what is remembered (standings, open streams by peer and export, peers), not to the
    /// tables. Returns the tables it replaces: drop them after the lock, as that may free many routes.
    #[must_use = "drop the old tables outside the lock"]
    pub fn apply(&mut self, tables: Arc<Tables>, _now: Instant) -> Arc<Tables> {
        debug_assert_eq!(tables.own, self.own.cluster, "tables of another cluster");
        let old = mem::replace(&mut self.tables, tables);
        let new = &self.tables;
        let reconciled = self.standings.reconcile(|key| Pool::of(new, key));
        self.links.want(&new.peers, &mut self.actions);
        self.permits.prune();
        let mut lookups = reconciled.routes;
        for lane in self.permits.lanes() {
            lookups += 1;
            if admit::is_withdrawn(&old, new, lane) {
                self.actions.push_back(Action::Withdraw {
                    peer: lane.peer.clone(),
                    route: lane.route.clone(),
                });
            }
        }
        self.events.push(Event::TableApplied {
            revision: new.revision,
            lookups,
            forgotten: reconciled.forgotten,
        });
        old
    }

    /// Refuses everything new as draining, from now on; for when the listeners are closed. Reports, releases and
    /// timeouts go on.
    pub fn close(&mut self, _now: Instant) {
        self.is_closed = true;
    }

    /// Chooses what to try, and in which order, for a local client's connection.
    ///
    /// Usable candidates come first: by priority, then by proximity, then drawn by weight. After them the ejected ones
    /// and those whose link is not up, in the same order: better to try them than to refuse. Last those of weight 0.
    ///
    /// # Errors
    /// [`Refusal::UnknownRoute`], [`Refusal::AmbiguousName`], [`Refusal::NoEndpoint`] if the route has no candidate,
    /// [`Refusal::Draining`] once closed.
    pub fn route(&mut self, request: &Request, now: Instant) -> Result<Plan, Refusal> {
        if self.is_closed {
            return Err(Refusal::Draining);
        }
        let route = self.find(request)?;
        let key = KeyRef::new(&route.name, route.protocol);
        let group = self.standings.group(key);
        let contenders = route.candidates.iter().map(|candidate| {
            let standing = group.map_or(Standing::GOOD, |group| group.of(&candidate.target));
            let link_is_up = match &candidate.target {
                Target::Endpoint(_) => true,
                Target::Cluster(peer) => self.links.is_up(peer),
            };
            pool::contend(candidate, standing, link_is_up, &self.own.locality, now)
        });
        let chosen = Shortlist::draw(contenders, self.settings.attempts, &mut self.rng);
        let mut attempts = Vec::with_capacity(chosen.len());
        attempts.extend(chosen.iter().map(|target| Attempt {
            target: target.clone(),
        }));
        let first = attempts.first().ok_or(Refusal::NoEndpoint)?;
        self.begin_trial(key, &first.target, now);
        Ok(Plan { route, attempts })
    }

    /// Decides whether a peer may open a stream here, and to which endpoints, in which order.
    ///
    /// `peer` is what the tunnel's handshake proved. A stream that came from a peer is delivered to local endpoints
    /// only.
    ///
    /// # Errors
    /// [`Refusal::Unlinked`], [`Refusal::TooManyHops`], [`Refusal::Forbidden`] for what is not exported to the peer as
    /// for what does not exist, [`Refusal::OverLimit`], [`Refusal::FlowLimit`], [`Refusal::NoEndpoint`], [`Refusal::Draining`] once closed.
    pub fn admit(
        &mut self,
        peer: &GatewayId,
        opening: &Opening,
        now: Instant,
    ) -> Result<Admission, Refusal> {
        if self.is_closed {
            return Err(Refusal::Draining);
        }
        let tables = Arc::clone(&self.tables);
        let (cluster, export) = admit::peer(&tables, peer, opening)?;
        self.let_in(Some(cluster), export, now)
    }

    /// Decides whether a client without a tunnel may reach the export that its TLS hello names.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] if no export of that name is open to direct clients, [`Refusal::SourceNotAllowed`],
    /// [`Refusal::OverLimit`], [`Refusal::NoEndpoint`], [`Refusal::Draining`] once closed.
    pub fn admit_direct(
        &mut self,
        sni: &SniName,
        client: &DirectClient,
        now: Instant,
    ) -> Result<Admission, Refusal> {
        if self.is_closed {
            return Err(Refusal::Draining);
        }
        let tables = Arc::clone(&self.tables);
        let export = admit::direct(&tables, sni, client)?;
        self.let_in(None, export, now)
    }

    /// Takes back the permit of a stream that has ended. A permit that was already given back changes nothing.
    pub fn release(&mut self, permit: PermitId, _now: Instant) {
        self.permits.give_back(permit);
    }

    /// Learns what became of an attempt: of a plan, or at one of an admission's endpoints.
    ///
    /// `route` and `protocol` are those of the plan's route or of the opening. Failures that are not the candidate's
    /// fault say nothing about it; failures of a cluster whose link is not up are known from the link.
    pub fn report(
        &mut self,
        route: &RouteName,
        protocol: Protocol,
        target: &Target,
        outcome: Outcome,
        now: Instant,
    ) {
        let key = KeyRef::new(route, protocol);
        let happening = match outcome.verdict() {
            Verdict::Silent => return,
            Verdict::Good => Happening::Succeeded,
            Verdict::Bad => {
                if matches!(target, Target::Cluster(peer) if !self.links.is_up(peer)) {
                    return;
                }
                let pool = self.pool(&key.to_owned());
                // The candidate may have gone with a table while the attempt was under way.
                if !pool.holds(target) {
                    return;
                }
                let group = self.standings.group(key);
                let (own, outlier) = (&self.own.locality, &self.settings.outlier);
                let may_eject = pool.may_eject(target, group, own, outlier);
                Happening::Failed { may_eject }
            }
        };
        self.move_on(key, target, happening, now);
    }

    /// Learns that the link to a peer changed. States of peers that are not linked are ignored.
    pub fn handle_link(&mut self, peer: &ClusterName, state: LinkState, now: Instant) {
        let Some(before) = self.links.set(peer, state) else {
            return;
        };
        if before == state {
            return;
        }
        let peer = peer.clone();
        if state == LinkState::Up {
            let outlier = &self.settings.outlier;
            let changes = self.standings.reprieve_peer(&peer, outlier, now);
            self.tell(changes);
        }
        self.events.push(Event::LinkChanged { peer, state });
    }

    /// Does what is due by `now`; to be called when [`Core::poll_timeout`] says so. Harmless at other times.
    pub fn handle_timeout(&mut self, now: Instant) {
        let changes = self.standings.reprieve_due(&self.settings.outlier, now);
        self.tell(changes);
    }

    /// When [`Core::handle_timeout`] is to be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let next = self.standings.next_return()?;
        Some((next, "an ejection ends"))
    }

    /// The next thing to do, oldest first.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to know, oldest first. At most [`EVENTS_MAX`] wait.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// The tables in use.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The peers we want links to, by cluster, and the last state heard of each.
    pub fn links(&self) -> impl Iterator<Item = (&ClusterName, LinkState)> {
        self.links.iter()
    }

    /// The standings of all candidates that are not perfectly well.
    pub fn standings(&self) -> impl Iterator<Item = (&RouteKey, &Target, Standing)> {
        self.standings.iter()
    }

    /// What we think of one candidate.
    pub fn standing(&self, route: &RouteName, protocol: Protocol, target: &Target) -> Standing {
        self.standings.of(KeyRef::new(route, protocol), target)
    }

    /// How many streams a peer has open here, flows aside.
    pub fn open_streams(&self, peer: &ClusterName) -> u32 {
        self.permits.open_from(peer)
    }

    /// How many flows a peer has open here.
    pub fn open_flows(&self, peer: &ClusterName) -> u32 {
        self.permits.flows_from(peer)
    }

    pub(crate) fn pool(&self, key: &RouteKey) -> Pool<'_> {
        Pool::of(&self.tables, key)
    }

    fn find(&self, request: &Request) -> Result<Arc<Route>, Refusal> {
        let routes = &self.tables.routes;
        match &request.intake {
            By::ImportPort(port) => routes
                .by_import_port(*port, request.protocol)
                .cloned()
                .ok_or(Refusal::UnknownRoute),
            By::Sni(name) => routes.by_sni(name),
            By::Name(name) => routes.resolve(name, request.protocol),
        }
    }

    fn let_in(
        &mut self,
        peer: Option<&ClusterName>,
        export: &Arc<Export>,
        now: Instant,
    ) -> Result<Admission, Refusal> {
        let flows_per_peer = self.settings.flows_per_peer;
        admit::within_limits(&self.tables, &self.permits, flows_per_peer, peer, export)?;
        let key = KeyRef::of_export(export);
        let group = self.standings.group(key);
        let contenders = export.endpoints.iter().map(|endpoint| {
            let target = Target::Endpoint(endpoint.address());
            let standing = group.map_or(Standing::GOOD, |group| group.of(&target));
            pool::contend_locally(endpoint, standing, &self.own.locality, now)
        });
        let chosen = Shortlist::draw(contenders, self.settings.endpoints, &mut self.rng);
        let mut endpoints = Vec::with_capacity(chosen.len());
        endpoints.extend(chosen.iter());
        let first = *endpoints.first().ok_or(Refusal::NoEndpoint)?;
        let permit = self.permits.grant(peer, key).ok_or(Refusal::OverLimit)?;
        self.begin_trial(key, &Target::Endpoint(first), now);
        Ok(Admission {
            export: Arc::clone(export),
            endpoints,
            permit,
        })
    }

    /// A candidate on probation that goes first is on trial; the next plan puts it last again.
    fn begin_trial(&mut self, key: KeyRef<'_>, first: &Target, now: Instant) {
        let standing = self.standings.of(key, first);
        if standing.is_out() && standing.is_usable(now) {
            self.move_on(key, first, Happening::TrialBegan, now);
        }
    }

    fn move_on(&mut self, key: KeyRef<'_>, target: &Target, happening: Happening, now: Instant) {
        let outlier = &self.settings.outlier;
        let change = self.standings.move_on(key, target, happening, outlier, now);
        self.tell(change);
    }

    fn tell(&mut self, changes: impl IntoIterator<Item = Change>) {
        for Change {
            route,
            target,
            standing,
        } in changes
        {
            self.events.push(match standing {
                Standing::Serving { .. } => Event::Returned { route, target },
                Standing::Ejected { until, strikes } => Event::Ejected {
                    route,
                    target,
                    until,
                    strikes,
                },
                Standing::Probation { .. } => Event::OnProbation { route, target },
            });
        }
    }
}

#[cfg(test)]
mod tests;
