//! Everything a control plane knows, and what follows from it. Pure: time comes in, effects come out.
//!
//! Facts come in through the setters and `handle_*`; each marks what may have changed. `Plane::settle` draws the
//! conclusions, service by service, and returns what is left to be done outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corinth_api::peering::Message;
use corinth_api::{Entry, EntryKey, LinkedPeer};
use corinth_model::{
    ClusterName, Condition, Instance, MergeConflict, PortAllocator, PortBook, PortNumber, Route,
    ServiceId, TrustDomain, Version,
};

use crate::cluster::{Declared, DeclaredLink, LinkMode};
use crate::conditions::{About, Conditions};
use crate::index;
use crate::peering::{Relation, RelationEvent, SessionId};
use crate::tables::Tables;
use crate::trust::Learned;
use names::Names;

mod names;
mod peer;
mod roots;
mod routes;

#[cfg(test)]
mod tests;

pub use peer::{KeptPeer, Peer};

/// What a cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its name.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Where its gateways are reached, `host:port`.
    pub gateways: Vec<String>,
    /// How many there are.
    pub slots: u32,
    /// Its roots, DER.
    pub roots: Arc<[Vec<u8>]>,
    /// Their sequence.
    pub bundle_sequence: u64,
}

/// What a plane is made with.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Where import ports come from.
    pub ports: PortAllocator,
    /// Most streams a peer may have open, unless its link says otherwise.
    pub streams_per_peer: u32,
}

/// The time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For how long something lasts.
    pub instant: Instant,
    /// For what is written down: Unix milliseconds.
    pub unix_ms: u64,
}

/// What is left to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The tables are at this revision now.
    Tables(u64),
    /// What was told to or by this peer is to be kept.
    KeepPeer(ClusterName),
    /// This peer is no longer linked.
    ForgetPeer(ClusterName),
    /// The import ports are to be kept.
    KeepPorts,
    /// This session is to end once everything was sent.
    EndSession(ClusterName, SessionId),
    /// Sessions of this peer may have something to send.
    Wake(ClusterName),
    /// Roots that peers told are to be kept; then [`Plane::handle_roots_kept`] is to be told.
    KeepRoots,
    /// What this peer was told has a future that we lost: a new instance must be begun for it.
    BeginAnew(ClusterName),
    /// A condition has come or gone.
    Condition {
        /// Which.
        condition: Condition,
        /// About what.
        about: About,
        /// Whether it stands now.
        stands: bool,
    },
}

/// Everything a control plane knows.
pub struct Plane {
    own: Own,
    terms: Terms,
    instance: Instance,
    version: Version,
    declared: Arc<Declared>,
    peers: BTreeMap<ClusterName, Peer>,
    routes: BTreeMap<ServiceId, Vec<Route>>,
    names: Names,
    /// On what clusters disagree, by service.
    disagreements: BTreeMap<ServiceId, Vec<MergeConflict>>,
    /// Roots that peers told since they were declared.
    learned: Learned,
    /// How often they have changed, and how much of that is written down.
    learned_changes: u64,
    learned_kept: u64,
    ports: PortBook,
    ports_left: PortsLeft,
    /// Import ports that gateways cannot listen on, with why.
    closed: BTreeMap<PortNumber, String>,
    tables: Tables,
    conditions: Conditions,
    dirty: Dirty,
}

/// What is known of the import ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortsLeft {
    /// Nothing: the book was read from disk, and may give ports to what is gone since.
    Unknown,
    /// Every route has one, and nothing else has.
    Some,
    /// All are given, and none can be freed before then.
    NoneBefore {
        /// In seconds since 1970.
        at_s: u64,
        /// The same by the other clock: then it is tried again.
        due: Instant,
    },
}

/// How long what a peer tells waits for more of it, so that a snapshot is not merged word by word: this long, and so
/// much longer for each service with routes, because giving import ports may look at all of them.
const TOGETHER: Duration = Duration::from_millis(3);
const TOGETHER_PER_SERVICE: Duration = Duration::from_micros(1);

/// What may have changed since the conclusions were drawn.
#[derive(Debug, Default)]
struct Dirty {
    services: BTreeSet<ServiceId>,
    has_links: bool,
    /// When the first of it was seen.
    since: Option<Instant>,
}

impl Dirty {
    fn is_empty(&self) -> bool {
        self.services.is_empty() && !self.has_links
    }
}

impl Plane {
    /// A plane without declarations. `version` is that of the first change; `tables` names this life of the process.
    #[must_use]
    pub fn new(
        own: Own,
        terms: Terms,
        (instance, version): (Instance, Version),
        ports: PortBook,
        learned: Learned,
        tables: Instance,
    ) -> Self {
        Self {
            own,
            terms,
            instance,
            version,
            declared: Arc::default(),
            peers: BTreeMap::new(),
            routes: BTreeMap::new(),
            names: Names::default(),
            disagreements: BTreeMap::new(),
            learned,
            learned_changes: 0,
            learned_kept: 0,
            ports,
            ports_left: PortsLeft::Unknown,
            closed: BTreeMap::new(),
            tables: Tables::new(tables),
            conditions: Conditions::default(),
            dirty: Dirty::default(),
        }
    }

    /// Takes new declarations. `restore` yields what was kept of a peer that is linked now.
    pub fn set_declared(
        &mut self,
        declared: Arc<Declared>,
        restore: impl Fn(&ClusterName) -> Option<KeptPeer>,
        now: Now,
    ) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.declared, Arc::clone(&declared));
        let mut effects = self.drop_unlinked();
        if self.learned.forget_others(&declared) {
            self.learned_changes += 1;
            effects.push(Effect::KeepRoots);
        }
        for (cluster, link) in &declared.links {
            let is_new = !self.peers.contains_key(cluster);
            if is_new {
                let own = &self.own.cluster;
                let limits = || peer::limits(link);
                let kept = Peer::restore(restore(cluster), own, cluster, limits(), now);
                let mut peer = kept.unwrap_or_else(|| {
                    let relation =
                        Relation::new(own.clone(), cluster.clone(), limits(), now.instant);
                    Peer::new(relation, Vec::new())
                });
                let instance = peer.instance(self.instance, self.version);
                peer.relation.set_own_state(instance, self.version);
                self.peers.insert(cluster.clone(), peer);
            }
            let was = before.links.get(cluster);
            if is_new || was != Some(link) {
                let is_same = |was: &DeclaredLink| {
                    was.roots == link.roots && was.bundle_sequence == link.bundle_sequence
                };
                self.use_link(cluster, link, was.is_some_and(is_same));
            }
        }
        self.mark(&before, &declared);
        self.offer(now);
        effects.extend(declared.links.keys().cloned().map(Effect::Wake));
        let unknown = index::unknown(&declared)
            .iter()
            .map(About::service)
            .collect();
        self.conditions
            .replace(Condition::ServiceUnknown, &unknown, "", now.unix_ms);
        self.heed_all(now, &mut effects);
        self.conclude(now, &mut effects);
        effects
    }

    fn drop_unlinked(&mut self) -> Vec<Effect> {
        let declared = Arc::clone(&self.declared);
        let mut effects = Vec::new();
        let gone: Vec<_> = self
            .peers
            .keys()
            .filter(|cluster| !declared.links.contains_key(*cluster))
            .cloned()
            .collect();
        for cluster in gone {
            self.mark_offers(&cluster);
            self.mark_imports(&cluster);
            self.peers.remove(&cluster);
            self.conditions.forget_peer(&cluster);
            effects.push(Effect::ForgetPeer(cluster));
        }
        effects
    }

    /// Tells a relation how its link is to be used.
    fn use_link(&mut self, cluster: &ClusterName, link: &DeclaredLink, has_same_roots: bool) {
        let own = &self.own;
        let Some(peer) = self.peers.get_mut(cluster) else {
            return;
        };
        if !has_same_roots {
            peer.trusted = None;
            peer.relation.set_held_trust(None);
        }
        let relation = &mut peer.relation;
        relation.set_accepted(link.accepted.clone(), peer::limits(link).quota);
        relation.set_trust(own.bundle_sequence, Arc::clone(&own.roots));
        relation.set_gateways(own.gateways.clone().into(), own.slots);
        self.dirty.has_links = true;
        self.mark_offers(cluster);
        self.mark_imports(cluster);
    }

    /// Marks what two declarations differ in.
    fn mark(&mut self, before: &Declared, now: &Declared) {
        let services = differing(&before.services, &now.services);
        let exports = differing(&before.exports, &now.exports);
        let imports = differing(&before.imports, &now.imports);
        self.dirty.services.extend(services);
        self.dirty.services.extend(exports);
        self.dirty
            .services
            .extend(imports.into_iter().map(|(service, _)| service));
        self.dirty.has_links = true;
    }

    /// Offers each peer what it may have now.
    fn offer(&mut self, now: Now) {
        self.version.revision += 1;
        let offers = index::offers(&self.declared);
        for (cluster, offers) in offers {
            if let Some(peer) = self.peers.get_mut(&cluster) {
                peer.relation.set_offers(offers, self.version, now.unix_ms);
            }
        }
    }

    /// Begins a new instance of our state for one peer; the others are not troubled.
    pub fn begin_anew(
        &mut self,
        cluster: &ClusterName,
        instance: Instance,
        now: Now,
    ) -> Vec<Effect> {
        let version = self.version;
        let begun = self.relate(cluster, now, |relation| {
            relation.set_own_state(instance, version);
        });
        let Some(((), effects)) = begun else {
            return Vec::new();
        };
        let about = About::peer(cluster);
        self.conditions
            .raise(Condition::StateLost, about, "", now.unix_ms);
        effects
    }

    /// Services that are imported from this cluster are to be looked at anew.
    fn mark_imports(&mut self, cluster: &ClusterName) {
        let imports = self.declared.imports.iter();
        let named = imports.filter(|(_, import)| import.sources.contains_key(cluster));
        let services = named.map(|((service, _), _)| service.clone());
        self.dirty.services.extend(services);
    }

    /// What a peer offers is to be looked at anew.
    fn mark_offers(&mut self, cluster: &ClusterName) {
        let peer = self.peers.get(cluster).into_iter();
        let offered = peer.flat_map(|peer| peer.relation.offers().map(|(id, ..)| id.clone()));
        self.dirty.services.extend(offered);
    }

    /// Changes one relation, and draws the conclusions. `None` if the cluster is not linked.
    pub fn relate<T>(
        &mut self,
        cluster: &ClusterName,
        now: Now,
        change: impl FnOnce(&mut Relation) -> T,
    ) -> Option<(T, Vec<Effect>)> {
        let peer = self.peers.get_mut(cluster)?;
        let changed = change(&mut peer.relation);
        let mut effects = vec![Effect::Wake(cluster.clone())];
        effects.extend(self.settle(now));
        Some((changed, effects))
    }

    /// What a session of a peer is to be told next.
    pub fn next_message(
        &mut self,
        cluster: &ClusterName,
        now: Instant,
    ) -> Option<(SessionId, Message)> {
        self.peers.get_mut(cluster)?.relation.poll_transmit(now)
    }

    /// Where a peer's gateways are dialled.
    #[must_use]
    pub fn addresses(&self, cluster: &ClusterName) -> Vec<String> {
        let link = self.declared.links.get(cluster);
        link.map(|link| self.linked(cluster, link).addresses)
            .unwrap_or_default()
    }

    /// Moves the clocks of all relations.
    pub fn handle_timeout(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (cluster, peer) in &mut self.peers {
            let due = peer.relation.poll_timeout();
            if due.is_some_and(|due| due <= now.instant) {
                peer.relation.handle_timeout(now.instant);
                effects.push(Effect::Wake(cluster.clone()));
            }
        }
        effects.extend(self.settle(now));
        effects
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = self.peers.values();
        timeouts
            .filter_map(|peer| peer.relation.poll_timeout())
            .chain(self.concludes_at())
            .chain(self.ports_free_at())
            .min()
    }

    /// When an import port may be free for a route that has none.
    fn ports_free_at(&self) -> Option<Instant> {
        match self.ports_left {
            PortsLeft::NoneBefore { due, .. } => Some(due),
            PortsLeft::Unknown | PortsLeft::Some => None,
        }
    }

    /// When conclusions are to be drawn from what has changed. Counted from when the first of it was seen, not from the
    /// last conclusions: drawing them takes time, in which more has come.
    fn concludes_at(&self) -> Option<Instant> {
        let services = u32::try_from(self.routes.len()).unwrap_or(u32::MAX);
        let together = TOGETHER + TOGETHER_PER_SERVICE.saturating_mul(services);
        self.dirty.since.map(|since| since + together)
    }

    /// Hears what relations have to say, and draws every conclusion whose time has come.
    fn settle(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.heed_all(now, &mut effects);
        if !self.dirty.is_empty() {
            self.dirty.since.get_or_insert(now.instant);
        }
        if self.concludes_at().is_some_and(|at| at <= now.instant) {
            self.conclude(now, &mut effects);
        }
        if self.ports_free_at().is_some_and(|at| at <= now.instant) {
            self.give_freed_ports(now, &mut effects);
        }
        effects
    }

    fn heed_all(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let clusters: Vec<_> = self.peers.keys().cloned().collect();
        for cluster in clusters {
            while let Some(event) = self
                .peers
                .get_mut(&cluster)
                .and_then(|peer| peer.relation.poll_event())
            {
                self.heed(&cluster, event, now, effects);
            }
            let Some(peer) = self.peers.get_mut(&cluster) else {
                continue;
            };
            let is_dirty = peer.relation.take_dirty();
            if !peer.has_told && peer::has_told(&peer.relation) {
                peer.has_told = true;
                self.mark_imports(&cluster);
            }
            if is_dirty {
                effects.push(Effect::KeepPeer(cluster));
            }
        }
    }

    fn conclude(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.is_empty() {
            return;
        }
        let mut put = Vec::new();
        let mut remove = Vec::new();
        if dirty.has_links {
            self.link_entries(&mut put, &mut remove);
        }
        self.merge(&dirty.services, now, &mut put, &mut remove, effects);
        if self.tables.update(put, remove) {
            effects.push(Effect::Tables(self.tables.revision()));
        }
    }

    /// Peers, exports and denials are few next to routes: they are compared whole.
    fn link_entries(&self, put: &mut Vec<Entry>, remove: &mut Vec<EntryKey>) {
        let peers = self
            .declared
            .links
            .iter()
            .filter(|(_, link)| link.mode != LinkMode::Paused)
            .map(|(cluster, link)| Entry::Peer(cluster.clone(), self.linked(cluster, link)));
        let exports = index::exports(&self.declared)
            .into_iter()
            .map(Entry::Export);
        let denied = self.declared.denied.iter().cloned().map(Entry::Denial);
        put.extend(peers.chain(exports).chain(denied));
        let kept: BTreeSet<_> = put.iter().map(Entry::key).collect();
        let held = self.tables.keys();
        let gone = held.filter(|key| !matches!(key, EntryKey::Route(..)) && !kept.contains(*key));
        remove.extend(gone.cloned());
    }

    /// A peer as gateways have to know it: declared addresses, then announced ones; the newest roots.
    fn linked(&self, cluster: &ClusterName, link: &DeclaredLink) -> LinkedPeer {
        let peer = self.peers.get(cluster);
        let mut addresses = link.addresses.clone();
        let announced = peer.into_iter().flat_map(|peer| &peer.announced);
        for address in announced {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let (roots, bundle_sequence) = self.roots_of(link);
        LinkedPeer {
            trust_domain: link.trust_domain.clone(),
            max_streams: link.max_streams.unwrap_or(self.terms.streams_per_peer),
            addresses,
            roots,
            bundle_sequence,
            carriage: link.carriage,
        }
    }

    /// What is declared.
    #[must_use]
    pub fn declared(&self) -> &Arc<Declared> {
        &self.declared
    }

    /// The linked clusters.
    #[must_use]
    pub fn peers(&self) -> &BTreeMap<ClusterName, Peer> {
        &self.peers
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What an operator should know.
    #[must_use]
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// What we say of ourselves.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// Our state: its instance and version.
    #[must_use]
    pub fn state(&self) -> (Instance, Version) {
        (self.instance, self.version)
    }

    /// The import ports that are given.
    #[must_use]
    pub fn ports(&self) -> &PortBook {
        &self.ports
    }

    /// The services with a route, with their routes.
    pub fn routes(&self) -> impl Iterator<Item = (&ServiceId, &[Route])> {
        self.routes.iter().map(|(id, routes)| (id, &routes[..]))
    }
}

/// The keys at which two maps differ.
fn differing<K: Ord + Clone, V: PartialEq>(
    one: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
) -> BTreeSet<K> {
    let changed = one
        .iter()
        .filter(|(key, value)| other.get(*key) != Some(*value));
    let added = other.iter().filter(|(key, _)| !one.contains_key(*key));
    changed.chain(added).map(|(key, _)| key.clone()).collect()
}

impl Plane {
    fn heed(
        &mut self,
        cluster: &ClusterName,
        event: RelationEvent,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        peer::heed(self, cluster, event, now, effects);
    }
}
