//! Tables: all routes, exports and peers of one cluster at one revision. Built beside the old ones, swapped in whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::{Equivalent, IndexMap};
use serde::Serialize;

use crate::export::ExportTable;
use crate::identity::TrustDomain;
use crate::name::{
    ClusterName, DnsName, PortNumber, Protocol, RouteName, Scope, ScopedService, SniName,
};
use crate::only::Only;
use crate::refusal::Refusal;
use crate::route::{Route, Target};

#[cfg(test)]
mod tests;

/// Why routes cannot stand in one table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteConflict {
    /// Two routes of one name and protocol.
    #[error("the route {name} ({protocol}) is there twice; merge the two entries")]
    DuplicateName {
        /// The name.
        name: RouteName,
        /// The protocol.
        protocol: Protocol,
    },
    /// One import port for two routes of one protocol.
    #[error("import port {port}/{protocol} is given to {first} and to {second}")]
    DuplicateImportPort {
        /// The port.
        port: PortNumber,
        /// The protocol.
        protocol: Protocol,
        /// The route that keeps it.
        first: RouteName,
        /// The route it was refused to.
        second: RouteName,
    },
    /// One server name on two routes.
    #[error("the server name {sni} is listed by {first} and by {second}; it can mean only one")]
    DuplicateSniName {
        /// The name.
        sni: DnsName,
        /// The route that keeps it.
        first: RouteName,
        /// The route it was refused to.
        second: RouteName,
    },
    /// A server name inside the zone, which belongs to the service it spells.
    #[error(
        "{route} lists the server name {sni}, which is inside {}; names there are given by the services",
        crate::name::ZONE
    )]
    ReservedSniName {
        /// The name.
        sni: DnsName,
        /// The route that lists it.
        route: RouteName,
    },
    /// Server names on a route that is not TCP.
    #[error("{route} lists server names, which need TCP")]
    NotTcp {
        /// The route.
        route: RouteName,
    },
    /// One target twice among the candidates of a route.
    #[error("{target} is twice among the candidates of {route}; add up the weights")]
    DuplicateTarget {
        /// The target.
        target: Target,
        /// The route.
        route: RouteName,
    },
}

type RouteKey = (RouteName, Protocol);

/// [`RouteKey`] by reference; hashes like it.
#[derive(Hash)]
struct RouteKeyRef<'a>(&'a RouteName, Protocol);

impl Equivalent<RouteKey> for RouteKeyRef<'_> {
    fn equivalent(&self, key: &RouteKey) -> bool {
        *self.0 == key.0 && self.1 == key.1
    }
}

/// All routes of a cluster. Immutable; every look-up costs the same whatever the size.
#[derive(Debug, Clone)]
pub struct RouteTable {
    own: ClusterName,
    by_name: IndexMap<RouteKey, Arc<Route>>,
    by_import_port: IndexMap<(PortNumber, Protocol), Arc<Route>>,
    by_sni_name: IndexMap<DnsName, Arc<Route>>,
    tls_ports: IndexMap<ScopedService, Only<Arc<Route>>>,
}

impl RouteTable {
    /// Builds the table of the cluster `own`, to which candidates that are endpoints belong. The order of `routes`
    /// does not matter.
    ///
    /// # Errors
    /// Every conflict among them.
    pub fn build(own: &ClusterName, routes: Vec<Route>) -> Result<Self, Vec<RouteConflict>> {
        Self::build_shared(own, routes.into_iter().map(Arc::new).collect())
    }

    /// As [`build`](Self::build), of routes that another table may hold as well.
    ///
    /// # Errors
    /// Every conflict among them.
    pub fn build_shared(
        own: &ClusterName,
        mut routes: Vec<Arc<Route>>,
    ) -> Result<Self, Vec<RouteConflict>> {
        routes.sort_by(|a, b| order(a).cmp(&order(b)));
        let mut table = Self::empty(own);
        table.by_name.reserve_exact(routes.len());
        let mut conflicts = Vec::new();
        for route in routes {
            table.add(route, &mut conflicts);
        }
        if conflicts.is_empty() {
            Ok(table)
        } else {
            Err(conflicts)
        }
    }

    /// The table of a cluster that has no routes.
    #[must_use]
    pub fn empty(own: &ClusterName) -> Self {
        Self {
            own: own.clone(),
            by_name: IndexMap::new(),
            by_import_port: IndexMap::new(),
            by_sni_name: IndexMap::new(),
            tls_ports: IndexMap::new(),
        }
    }

    fn add(&mut self, route: Arc<Route>, conflicts: &mut Vec<RouteConflict>) {
        self.add_import_port(&route, conflicts);
        self.add_sni_names(&route, conflicts);
        check_candidates(&route, conflicts);
        let service = ScopedService {
            scope: route.name.scope.clone(),
            service: route.name.service.clone(),
        };
        let tls_port = self.tls_ports.entry(service).or_default();
        if route.is_tls() {
            tls_port.add(Arc::clone(&route));
        }
        let (name, protocol) = (route.name.clone(), route.protocol);
        if self
            .by_name
            .insert((name.clone(), protocol), route)
            .is_some()
        {
            conflicts.push(RouteConflict::DuplicateName { name, protocol });
        }
    }

    fn add_import_port(&mut self, route: &Arc<Route>, conflicts: &mut Vec<RouteConflict>) {
        let Some(port) = route.import_port else {
            return;
        };
        let protocol = route.protocol;
        if let Some(first) = self
            .by_import_port
            .insert((port, protocol), Arc::clone(route))
        {
            let (first, second) = (first.name.clone(), route.name.clone());
            conflicts.push(RouteConflict::DuplicateImportPort {
                port,
                protocol,
                first,
                second,
            });
        }
    }

    fn add_sni_names(&mut self, route: &Arc<Route>, conflicts: &mut Vec<RouteConflict>) {
        if !route.sni_names.is_empty() && route.protocol != Protocol::Tcp {
            conflicts.push(RouteConflict::NotTcp {
                route: route.name.clone(),
            });
        }
        for sni in &route.sni_names {
            if sni.is_in_zone() {
                let route = route.name.clone();
                conflicts.push(RouteConflict::ReservedSniName {
                    sni: sni.clone(),
                    route,
                });
            }
            let first = self.by_sni_name.insert(sni.clone(), Arc::clone(route));
            if let Some(first) = first.filter(|first| !Arc::ptr_eq(first, route)) {
                let (first, second) = (first.name.clone(), route.name.clone());
                conflicts.push(RouteConflict::DuplicateSniName {
                    sni: sni.clone(),
                    first,
                    second,
                });
            }
        }
    }

    /// The route of exactly this name.
    #[must_use]
    pub fn by_name(&self, name: &RouteName, protocol: Protocol) -> Option<&Arc<Route>> {
        self.by_name.get(&RouteKeyRef(name, protocol))
    }

    /// The route that is accepted on this port of the gateways.
    #[must_use]
    pub fn by_import_port(&self, port: PortNumber, protocol: Protocol) -> Option<&Arc<Route>> {
        self.by_import_port.get(&(port, protocol))
    }

    /// The route a name means: the one of exactly this name, or for a name pinned to a cluster the route of any
    /// cluster, with its candidates in that cluster only, made for this call.
    ///
    /// # Errors
    /// [`Refusal::UnknownRoute`] if there is neither.
    pub fn resolve(&self, name: &RouteName, protocol: Protocol) -> Result<Arc<Route>, Refusal> {
        if let Some(route) = self.by_name(name, protocol) {
            return Ok(Arc::clone(route));
        }
        let any = self.by_name(&name.with_scope(Scope::Any), protocol);
        any.and_then(|any| self.pinned(any, &name.scope))
            .ok_or(Refusal::UnknownRoute)
    }

    /// The route a TLS client means.
    ///
    /// # Errors
    /// [`Refusal::UnknownRoute`]; [`Refusal::AmbiguousName`] for a name without port unless the service has exactly
    /// one port that [is TLS](Route::is_tls).
    pub fn by_sni(&self, sni: &SniName) -> Result<Arc<Route>, Refusal> {
        match sni {
            SniName::Route(name) => self.resolve(name, Protocol::Tcp),
            SniName::Service(service) => self.by_service(service),
            SniName::Other(name) => self
                .by_sni_name
                .get(name)
                .cloned()
                .ok_or(Refusal::UnknownRoute),
        }
    }

    fn by_service(&self, service: &ScopedService) -> Result<Arc<Route>, Refusal> {
        let exact = self.tls_ports.get(service);
        match exact {
            Some(Only::One(route)) => return Ok(Arc::clone(route)),
            Some(Only::Several) => return Err(Refusal::AmbiguousName),
            Some(Only::None) | None => {}
        }
        // A pinned name without a TLS port of its own may still mean the one of any cluster.
        let any = ScopedService {
            scope: Scope::Any,
            service: service.service.clone(),
        };
        let Some(any) = self.tls_ports.get(&any) else {
            return Err(exact.map_or(Refusal::UnknownRoute, |_| Refusal::AmbiguousName));
        };
        let any = any.one().ok_or(Refusal::AmbiguousName)?;
        self.pinned(any, &service.scope)
            .ok_or(Refusal::UnknownRoute)
    }

    /// `any` with only its candidates in the cluster that `scope` pins; `None` if it has none there.
    fn pinned(&self, any: &Route, scope: &Scope) -> Option<Arc<Route>> {
        let Scope::Cluster(cluster) = scope else {
            return None;
        };
        let is_there = |target: &Target| match target {
            Target::Endpoint(_) => *cluster == self.own,
            Target::Cluster(other) => other == cluster,
        };
        let candidates = any
            .candidates
            .iter()
            .filter(|candidate| is_there(&candidate.target));
        let candidates: Vec<_> = candidates.cloned().collect();
        if candidates.is_empty() {
            return None;
        }
        Some(Arc::new(Route {
            name: any.name.with_scope(scope.clone()),
            protocol: any.protocol,
            import_port: None,
            sni_names: Vec::new(),
            tls: any.tls,
            replay: any.replay,
            candidates,
        }))
    }

    /// All routes, by service, port, scope and protocol.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Route>> {
        self.by_name.values()
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The cluster whose routes these are.
    #[must_use]
    pub fn own(&self) -> &ClusterName {
        &self.own
    }
}

/// Equal if the same cluster has the same routes.
impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        self.own == other.own && self.by_name == other.by_name
    }
}

impl Eq for RouteTable {}

/// As the list of routes.
impl Serialize for RouteTable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Arc::as_ref))
    }
}

/// The order in which people look for routes.
fn order(route: &Route) -> impl Ord + '_ {
    let name = &route.name;
    (&name.service, name.port, &name.scope, route.protocol)
}

fn check_candidates(route: &Route, conflicts: &mut Vec<RouteConflict>) {
    let mut seen = BTreeSet::new();
    for candidate in &route.candidates {
        if !seen.insert(&candidate.target) {
            let (target, route) = (candidate.target.clone(), route.name.clone());
            conflicts.push(RouteConflict::DuplicateTarget { target, route });
        }
    }
}

/// A linked cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// The trust domain its gateways speak under.
    pub trust_domain: TrustDomain,
    /// Most streams it may have open here at a time.
    pub max_streams: u32,
}

/// Why peers cannot stand side by side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerConflict {
    /// Two peers under one trust domain.
    #[error(
        "the clusters {first} and {second} are both linked under the trust domain {trust_domain}; each needs its own"
    )]
    SharedTrustDomain {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// The peer that keeps it.
        first: ClusterName,
        /// The peer it was refused to.
        second: ClusterName,
    },
    /// A peer named like this cluster.
    #[error("{cluster} is this cluster's own name; a cluster cannot be linked with itself")]
    OwnName {
        /// The name.
        cluster: ClusterName,
    },
}

/// Everything a gateway decides by, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tables {
    /// This cluster.
    pub own: ClusterName,
    /// The clusters it is linked with.
    pub peers: BTreeMap<ClusterName, Peer>,
    /// What it can call.
    pub routes: RouteTable,
    /// What it offers.
    pub exports: ExportTable,
    /// Grows with every change.
    pub revision: u64,
    #[serde(skip)]
    clusters: BTreeMap<TrustDomain, ClusterName>,
}

impl Tables {
    /// Puts tables together; `routes` and `exports` must have been built for `own`.
    ///
    /// # Errors
    /// Every conflict among the peers.
    pub fn build(
        own: ClusterName,
        peers: BTreeMap<ClusterName, Peer>,
        routes: RouteTable,
        exports: ExportTable,
        revision: u64,
    ) -> Result<Self, Vec<PeerConflict>> {
        debug_assert_eq!(
            &own,
            routes.own(),
            "a route table is used by the cluster it is built for"
        );
        debug_assert_eq!(
            &own,
            exports.own(),
            "an export table is used by the cluster it is built for"
        );
        let mut conflicts = Vec::new();
        if peers.contains_key(&own) {
            conflicts.push(PeerConflict::OwnName {
                cluster: own.clone(),
            });
        }
        let mut clusters = BTreeMap::new();
        for (name, peer) in &peers {
            let first: &mut ClusterName = clusters
                .entry(peer.trust_domain.clone())
                .or_insert_with(|| name.clone());
            if first != name {
                conflicts.push(PeerConflict::SharedTrustDomain {
                    trust_domain: peer.trust_domain.clone(),
                    first: first.clone(),
                    second: name.clone(),
                });
            }
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        Ok(Self {
            own,
            peers,
            routes,
            exports,
            revision,
            clusters,
        })
    }

    /// The tables of a cluster without links, routes and exports, at revision 0.
    #[must_use]
    pub fn empty(own: ClusterName) -> Self {
        Self {
            peers: BTreeMap::new(),
            routes: RouteTable::empty(&own),
            exports: ExportTable::empty(&own),
            revision: 0,
            clusters: BTreeMap::new(),
            own,
        }
    }

    /// The linked cluster that speaks under this trust domain.
    #[must_use]
    pub fn cluster_of(&self, trust_domain: &TrustDomain) -> Option<&ClusterName> {
        self.clusters.get(trust_domain)
    }
}
