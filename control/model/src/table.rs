//! All routes of one cluster. A table shares with the one it was made from what did not change, so that a small change
//! of a large table takes little time and memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rpds::HashTrieMapSync;
use serde::Serialize;

use crate::name::{
    ClusterName, DnsName, PortNumber, Protocol, RouteName, Scope, ScopedService, SniName,
};
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

/// What is the same for a route before and after it changes.
pub type RouteKey = (RouteName, Protocol);

/// The routes of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfName {
    tcp: Option<Arc<Route>>,
    udp: Option<Arc<Route>>,
}

impl OfName {
    fn of(&self, protocol: Protocol) -> Option<&Arc<Route>> {
        match protocol {
            Protocol::Tcp => self.tcp.as_ref(),
            Protocol::Udp => self.udp.as_ref(),
        }
    }

    fn place(&mut self, protocol: Protocol) -> &mut Option<Arc<Route>> {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
        }
    }

    fn is_empty(&self) -> bool {
        self.tcp.is_none() && self.udp.is_none()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.tcp.iter().chain(&self.udp)
    }
}

/// All routes of a cluster. Immutable; every look-up costs the same whatever the size.
#[derive(Debug, Clone)]
pub struct RouteTable {
    own: ClusterName,
    by_name: HashTrieMapSync<RouteName, OfName>,
    by_import_port: HashTrieMapSync<(PortNumber, Protocol), Arc<Route>>,
    by_sni_name: HashTrieMapSync<DnsName, Arc<Route>>,
    /// The few routes of each service, and none without any.
    by_service: HashTrieMapSync<ScopedService, Vec<Arc<Route>>>,
    len: usize,
}

impl RouteTable {
    /// Builds the table of the cluster `own`, to which candidates that are endpoints belong. The order of `routes`
    /// does not matter.
    ///
    /// # Errors
    /// Every conflict among them.
    pub fn build(own: &ClusterName, routes: Vec<Route>) -> Result<Self, Vec<RouteConflict>> {
        Self::empty(own).with(routes.into_iter().map(Arc::new).collect())
    }

    /// The table of a cluster that has no routes.
    #[must_use]
    pub fn empty(own: &ClusterName) -> Self {
        Self {
            own: own.clone(),
            by_name: HashTrieMapSync::default(),
            by_import_port: HashTrieMapSync::default(),
            by_sni_name: HashTrieMapSync::default(),
            by_service: HashTrieMapSync::default(),
            len: 0,
        }
    }

    /// The table with other routes of these keys, or none of them. Takes time proportional to the changes, not to the
    /// table.
    ///
    /// # Errors
    /// Every conflict of the new routes among each other and with those that stay.
    pub fn changed(
        &self,
        changes: BTreeMap<RouteKey, Option<Arc<Route>>>,
    ) -> Result<Self, Vec<RouteConflict>> {
        let mut table = self.clone();
        for (name, protocol) in changes.keys() {
            table.remove(name, *protocol);
        }
        table.with(changes.into_values().flatten().collect())
    }

    fn with(mut self, mut routes: Vec<Arc<Route>>) -> Result<Self, Vec<RouteConflict>> {
        routes.sort_by(|a, b| order(a).cmp(&order(b)));
        let mut conflicts = Vec::new();
        for route in routes {
            self.add(route, &mut conflicts);
        }
        if conflicts.is_empty() {
            Ok(self)
        } else {
            Err(conflicts)
        }
    }

    fn remove(&mut self, name: &RouteName, protocol: Protocol) {
        let Some(of_name) = self.by_name.get_mut(name) else {
            return;
        };
        let Some(route) = of_name.place(protocol).take() else {
            return;
        };
        if of_name.is_empty() {
            self.by_name.remove_mut(name);
        }
        self.len -= 1;
        if let Some(port) = route.import_port {
            self.by_import_port.remove_mut(&(port, protocol));
        }
        for sni in &route.sni_names {
            self.by_sni_name.remove_mut(sni);
        }
        let service = service_of(&route);
        if let Some(routes) = self.by_service.get_mut(&service) {
            routes.retain(|one| !Arc::ptr_eq(one, &route));
            if routes.is_empty() {
                self.by_service.remove_mut(&service);
            }
        }
    }

    fn add(&mut self, route: Arc<Route>, conflicts: &mut Vec<RouteConflict>) {
        self.add_import_port(&route, conflicts);
        self.add_sni_names(&route, conflicts);
        check_candidates(&route, conflicts);
        let (name, protocol) = (route.name.clone(), route.protocol);
        let mut of_name = self.by_name.get(&name).cloned().unwrap_or_default();
        if of_name
            .place(protocol)
            .replace(Arc::clone(&route))
            .is_some()
        {
            let name = name.clone();
            conflicts.push(RouteConflict::DuplicateName { name, protocol });
        }
        self.by_name.insert_mut(name, of_name);
        self.len += 1;
        let service = service_of(&route);
        match self.by_service.get_mut(&service) {
            Some(routes) => routes.push(route),
            None => self.by_service.insert_mut(service, vec![route]),
        }
    }

    fn add_import_port(&mut self, route: &Arc<Route>, conflicts: &mut Vec<RouteConflict>) {
        let Some(port) = route.import_port else {
            return;
        };
        let key = (port, route.protocol);
        if let Some(first) = self.by_import_port.get(&key) {
            conflicts.push(RouteConflict::DuplicateImportPort {
                port,
                protocol: route.protocol,
                first: first.name.clone(),
                second: route.name.clone(),
            });
        }
        self.by_import_port.insert_mut(key, Arc::clone(route));
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
            let first = self.by_sni_name.get(sni);
            if let Some(first) = first.filter(|first| !Arc::ptr_eq(first, route)) {
                conflicts.push(RouteConflict::DuplicateSniName {
                    sni: sni.clone(),
                    first: first.name.clone(),
                    second: route.name.clone(),
                });
            }
            self.by_sni_name.insert_mut(sni.clone(), Arc::clone(route));
        }
    }

    /// The route of exactly this name.
    #[must_use]
    pub fn by_name(&self, name: &RouteName, protocol: Protocol) -> Option<&Arc<Route>> {
        self.by_name.get(name)?.of(protocol)
    }

    /// The route that is accepted on this port of the gateways.
    #[must_use]
    pub fn by_import_port(&self, port: PortNumber, protocol: Protocol) -> Option<&Arc<Route>> {
        self.by_import_port.get(&(port, protocol))
    }

    /// The ports on which routes of this protocol are accepted.
    pub fn import_ports(&self, protocol: Protocol) -> impl Iterator<Item = PortNumber> {
        let ports = self.by_import_port.keys();
        ports.filter_map(move |(port, of)| (*of == protocol).then_some(*port))
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
        let exact = self.by_service.get(service);
        match exact.map(|routes| tls_port(routes)) {
            Some(Ok(Some(route))) => return Ok(Arc::clone(route)),
            Some(Err(refusal)) => return Err(refusal),
            Some(Ok(None)) | None => {}
        }
        // A pinned name without a TLS port of its own may still mean the one of any cluster.
        let any = ScopedService {
            scope: Scope::Any,
            service: service.service.clone(),
        };
        let Some(any) = self.by_service.get(&any) else {
            return Err(exact.map_or(Refusal::UnknownRoute, |_| Refusal::AmbiguousName));
        };
        let any = tls_port(any)?.ok_or(Refusal::AmbiguousName)?;
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

    /// All routes, by service, port, scope and protocol. Puts them in order first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Route>> {
        let mut routes: Vec<_> = self.by_name.values().flat_map(OfName::iter).collect();
        routes.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
        routes.into_iter()
    }

    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
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

fn service_of(route: &Route) -> ScopedService {
    ScopedService {
        scope: route.name.scope.clone(),
        service: route.name.service.clone(),
    }
}

/// The only one of a service's ports that is TLS, if there is any.
fn tls_port(routes: &[Arc<Route>]) -> Result<Option<&Arc<Route>>, Refusal> {
    let mut found = routes.iter().filter(|route| route.is_tls());
    match (found.next(), found.next()) {
        (one, None) => Ok(one),
        (_, Some(_)) => Err(Refusal::AmbiguousName),
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
