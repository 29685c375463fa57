//! From what is said of a service to its routes, with import ports.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use corinth_api::{Entry, EntryKey};
use corinth_model::{
    ClusterName, Condition, DnsName, ImportRule, Offer, Offered, OfferedPort, OwnPort, OwnService,
    PortNumber, Protocol, QUARANTINE, Route, ServiceId, ServiceKind, Share, Wanted, merge,
};

use super::names::Standing;
use super::{Effect, Now, Plane, PortsLeft};
use crate::cluster::{DeclaredImport, LinkMode};
use crate::conditions::About;
use crate::peering::Freshness;

impl Plane {
    /// Merges these services anew.
    pub(super) fn merge(
        &mut self,
        services: &BTreeSet<ServiceId>,
        now: Now,
        put: &mut Vec<Entry>,
        remove: &mut Vec<EntryKey>,
        effects: &mut Vec<Effect>,
    ) {
        if services.is_empty() {
            return;
        }
        let (mut gone, mut came) = (Vec::new(), Vec::new());
        let mut told = services.clone();
        for service in services {
            let routes = self.merge_one(service);
            let claims = self.claims(service, &routes);
            told.extend(self.names.set(service, claims));
            let before = self.routes.remove(service).unwrap_or_default();
            let (held, kept) = (keys(&before), keys(&routes));
            if held != kept {
                let (had, has) = (in_book_of(&before), in_book_of(&routes));
                gone.extend(had.difference(&has).cloned());
                came.extend(has.difference(&had).cloned());
            }
            remove.extend(held.difference(&kept).cloned());
            if !routes.is_empty() {
                self.routes.insert(service.clone(), routes);
            }
        }
        self.give_ports(services, (&gone, &came), now, put, effects);
        for service in &told {
            self.note_conflicts(service, now);
        }
        let routes = told.iter().filter_map(|service| self.routes.get(service));
        put.extend(
            routes
                .flatten()
                .map(|route| Entry::Route(self.as_told(route))),
        );
    }

    fn merge_one(&mut self, service: &ServiceId) -> Vec<Route> {
        let declared = &self.declared;
        let own = declared.services.get(service).map(|what| OwnService {
            exported_at_ms: declared.exports.get(service).map(|export| export.since_ms),
            kind: ServiceKind::ClusterSetIp,
            ports: what
                .ports
                .iter()
                .map(|(key, port)| {
                    let port = OwnPort {
                        endpoints: port.endpoints.clone(),
                        tls: port.tls,
                        replay: port.replay,
                        sni_names: port.sni_names.clone(),
                    };
                    (*key, port)
                })
                .collect(),
        });
        let expected = self.expected(service);
        let mut offered = BTreeMap::new();
        for (cluster, peer) in &self.peers {
            let mode = declared.links.get(cluster).map(|link| link.mode);
            let is_used =
                mode.is_some_and(|mode| mode != LinkMode::Paused) && !peer.relation.is_unlinked();
            let told = peer.relation.offer(service);
            let told = told.map(|(offer, freshness)| (&**offer, freshness));
            let expected = expected.get(cluster).map(|offer| (offer, Freshness::Fresh));
            let Some((offer, freshness)) = told.or(expected).filter(|_| is_used) else {
                continue;
            };
            let is_last =
                mode == Some(LinkMode::Draining) || matches!(freshness, Freshness::Stale { .. });
            offered.insert(cluster.clone(), Offered { offer, is_last });
        }
        let imports = self.rules(service);
        let merged = merge(&self.own.cluster, service, own.as_ref(), &offered, &imports);
        match merged.conflicts.is_empty() {
            true => self.disagreements.remove(service),
            false => self.disagreements.insert(service.clone(), merged.conflicts),
        };
        merged.routes
    }

    /// What peers are taken to offer that have not told their state yet, because an import that is declared here names
    /// them: a peer may have no control plane, and its gateways serve all the same. It decides no property of the service.
    fn expected(&self, service: &ServiceId) -> BTreeMap<ClusterName, Offer> {
        let mut expected: BTreeMap<ClusterName, Offer> = BTreeMap::new();
        for (port, import) in self.imports_of(service) {
            let silent = import.sources.keys().filter(|cluster| {
                let peer = self.peers.get(*cluster);
                peer.is_some_and(|peer| !peer.has_told)
            });
            for cluster in silent {
                let offer = expected.entry(cluster.clone()).or_insert_with(|| Offer {
                    service: service.clone(),
                    kind: ServiceKind::ClusterSetIp,
                    ports: Vec::new(),
                    exported_at_ms: u64::MAX,
                    ready: 1,
                    headroom: None,
                    zones: BTreeMap::new(),
                });
                offer
                    .ports
                    .extend(import.spoken().map(|protocol| OfferedPort {
                        port,
                        protocol,
                        name: None,
                        tls: import.tls,
                        replay: import.replay.unwrap_or_default(),
                        sni_names: Vec::new(),
                    }));
            }
        }
        expected
    }

    fn imports_of(
        &self,
        service: &ServiceId,
    ) -> impl Iterator<Item = (PortNumber, &DeclaredImport)> {
        let all = self.declared.imports.iter();
        let of_service = all.filter(move |((id, _), _)| id == service);
        of_service.map(|((_, port), import)| (*port, import))
    }

    /// What gives a service a right to the server names of its routes.
    fn claims(&self, service: &ServiceId, routes: &[Route]) -> BTreeMap<DnsName, Standing> {
        let offers = self.peers.values();
        let offers = offers.filter_map(|peer| peer.relation.offer(service));
        let exported_at_ms = offers.map(|(offer, _)| offer.exported_at_ms).min();
        let offered = Standing::Offered {
            exported_at_ms: exported_at_ms.unwrap_or(u64::MAX),
        };
        let own = self.declared.services.get(service);
        let own_export = self.declared.exports.get(service);
        let own_standing = Standing::Own {
            exported_at_ms: own_export.map_or(u64::MAX, |export| export.since_ms),
        };
        let mut claims = BTreeMap::new();
        for route in routes {
            let port = route.name.port;
            let rule = self.declared.imports.get(&(service.clone(), port));
            let own = own.and_then(|own| own.ports.get(&(port, route.protocol)));
            for name in &route.sni_names {
                let standing = if rule.is_some_and(|rule| rule.sni_names.contains(name)) {
                    Standing::Asked
                } else if own.is_some_and(|own| own.sni_names.contains(name)) {
                    own_standing
                } else {
                    offered
                };
                claims.insert(name.clone(), standing);
            }
        }
        claims
    }

    /// Shows on what clusters disagree about a service, and the names another service has.
    fn note_conflicts(&mut self, service: &ServiceId, now: Now) {
        let disagreements = self.disagreements.get(service).into_iter().flatten();
        let refused = self.names.refused(service);
        let refused =
            refused.map(|(name, owner)| format!("the server name {name} is that of {owner}"));
        let words: Vec<_> = disagreements
            .map(ToString::to_string)
            .chain(refused)
            .collect();
        let (about, stands) = (About::service(service), !words.is_empty());
        let (condition, words) = (Condition::ExportConflict, words.join("; "));
        self.conditions
            .set(condition, about, stands, &words, now.unix_ms);
    }

    fn rules(&self, service: &ServiceId) -> BTreeMap<PortNumber, ImportRule> {
        let imports = self.imports_of(service);
        imports.map(|(port, import)| (port, rule(import))).collect()
    }

    /// Gives import ports to what came and takes them from what went. Looks at every route there is only if it must.
    fn give_ports(
        &mut self,
        services: &BTreeSet<ServiceId>,
        (gone, came): (&[String], &[String]),
        now: Now,
        put: &mut Vec<Entry>,
        effects: &mut Vec<Effect>,
    ) {
        let came = self.wanted(services, came);
        let is_chosen_anew = self.is_chosen_anew(services, &came);
        if gone.is_empty() && came.is_empty() && !is_chosen_anew {
            return;
        }
        let seconds = now.unix_ms / 1_000;
        let is_fitting =
            |wanted: &Wanted| wanted.fixed.is_none() && !self.ports.knows(&wanted.service);
        match self.ports_left {
            PortsLeft::Some if !is_chosen_anew => {
                let ports = &self.terms.ports;
                let is_enough = ports.adjust(&mut self.ports, gone, &came, seconds);
                if is_enough || !self.assign_ports(now, put, effects) {
                    self.ports_changed(now, effects);
                }
            }
            // All are given, none can be freed yet, and none of these has or had one.
            PortsLeft::NoneBefore { at_s, .. }
                if !is_chosen_anew
                    && seconds < at_s
                    && came.iter().all(is_fitting)
                    && !gone.iter().any(|service| self.ports.knows(service)) =>
            {
                self.note_without(services, now);
            }
            PortsLeft::Some | PortsLeft::NoneBefore { .. } | PortsLeft::Unknown => {
                let _ = self.assign_ports(now, put, effects);
            }
        }
    }

    /// Of the routes of these services those that came, with the ports that were chosen for them.
    fn wanted(&self, services: &BTreeSet<ServiceId>, came: &[String]) -> Vec<Wanted> {
        if came.is_empty() {
            return Vec::new();
        }
        let came: BTreeSet<_> = came.iter().collect();
        let routes = services
            .iter()
            .filter_map(|service| self.routes.get(service));
        routes
            .flatten()
            .map(|route| self.wanted_port(route))
            .filter(|wanted| came.contains(&wanted.service))
            .collect()
    }

    fn wanted_port(&self, route: &Route) -> Wanted {
        let key = (route.name.service.clone(), route.name.port);
        let import = self.declared.imports.get(&key);
        Wanted {
            service: in_book(route),
            fixed: import.and_then(|import| import.import_ports.get(&route.protocol).copied()),
        }
    }

    /// Gives ports whose time of rest is over to routes that have none. If the clock was set back, that is tried again.
    pub(super) fn give_freed_ports(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut put = Vec::new();
        let _ = self.assign_ports(now, &mut put, effects);
        if self.tables.update(put, Vec::new()) {
            effects.push(Effect::Tables(self.tables.revision()));
        }
    }

    /// Whether one of these that was there before has another port than the operator has chosen for it, or one that only
    /// he could choose.
    fn is_chosen_anew(&self, services: &BTreeSet<ServiceId>, came: &[Wanted]) -> bool {
        let routes = services
            .iter()
            .filter_map(|service| self.routes.get(service));
        let came: BTreeSet<_> = came.iter().map(|wanted| &wanted.service).collect();
        routes.flatten().any(|route| {
            let wanted = self.wanted_port(route);
            let given = self.ports.port(&wanted.service);
            let is_other = match wanted.fixed {
                Some(_) => given != wanted.fixed,
                None => given.is_some_and(|port| !self.terms.ports.may_give(port)),
            };
            is_other && !came.contains(&wanted.service)
        })
    }

    fn note_without(&mut self, services: &BTreeSet<ServiceId>, now: Now) {
        for service in services {
            let routes = self.routes.get(service).into_iter().flatten();
            let mut ports = routes.map(|route| self.port_of(route));
            let is_without = ports.any(|port| port.is_none());
            let (condition, about) = (Condition::NoImportPort, About::service(service));
            self.conditions
                .set(condition, about, is_without, "", now.unix_ms);
        }
    }

    /// Gives every route an import port while there are any; routes whose port is another one are put anew. Whether any
    /// was given or taken.
    fn assign_ports(&mut self, now: Now, put: &mut Vec<Entry>, effects: &mut Vec<Effect>) -> bool {
        let routes = self.routes.values().flatten();
        let wanted: Vec<Wanted> = routes.map(|route| self.wanted_port(route)).collect();
        let seconds = now.unix_ms / 1_000;
        let assigned = self.terms.ports.assign(&self.ports, &wanted, seconds);
        let before = std::mem::replace(&mut self.ports, assigned.book);
        let is_full = !assigned.without.is_empty();
        // One that is freed from now on stays free for as long.
        let frees_at = || {
            let soonest = seconds.saturating_add(QUARANTINE.as_secs());
            self.ports.frees_at().map_or(soonest, |at| at.min(soonest))
        };
        self.ports_left = match is_full {
            true => {
                let at_s = frees_at();
                let left_ms = at_s.saturating_mul(1_000).saturating_sub(now.unix_ms);
                let due = now.instant + Duration::from_millis(left_ms);
                PortsLeft::NoneBefore { at_s, due }
            }
            false => PortsLeft::Some,
        };
        // Names are made once: there may be a hundred thousand of them.
        let mut about = BTreeSet::new();
        for (route, wanted) in self.routes.values().flatten().zip(&wanted) {
            let port = self.ports.port(&wanted.service);
            if before.port(&wanted.service) != port {
                put.push(Entry::Route(self.as_told(route)));
            }
            if port.is_none() {
                about.insert(About::service(&route.name.service));
            }
        }
        self.conditions
            .replace(Condition::NoImportPort, &about, "", now.unix_ms);
        let has_changed = before != self.ports;
        if has_changed {
            self.ports_changed(now, effects);
        }
        has_changed
    }

    /// Takes which import ports gateways cannot listen on, with why.
    pub fn set_closed_ports(&mut self, closed: BTreeMap<PortNumber, String>, now: Now) {
        self.closed = closed;
        self.note_closed(now);
    }

    /// Shows whose the closed ports are now.
    fn note_closed(&mut self, now: Now) {
        let closed = &self.closed;
        let mut about: BTreeMap<About, String> = BTreeMap::new();
        // Mostly there are none, and then nobody is looked for among many routes.
        let routes = self.routes.iter().filter(|_| !closed.is_empty());
        for (service, routes) in routes {
            let ports = routes.iter().filter_map(|route| self.port_of(route));
            let words: Vec<_> = ports
                .filter_map(|port| Some(closed.get(&port)?.as_str()))
                .collect();
            if !words.is_empty() {
                about.insert(About::service(service), words.join("; "));
            }
        }
        self.conditions
            .replace_each(Condition::ImportPortClosed, about, now.unix_ms);
    }

    /// Import ports were given or taken. One that is closed may be another service's now, of which no gateway tells: to
    /// it the port is closed as before.
    fn ports_changed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        effects.push(Effect::KeepPorts);
        self.note_closed(now);
    }

    /// Where a service port is accepted here.
    #[must_use]
    pub fn import_port(
        &self,
        service: &ServiceId,
        port: PortNumber,
        protocol: Protocol,
    ) -> Option<PortNumber> {
        self.ports.port(&name_in_book(service, port, protocol))
    }

    fn port_of(&self, route: &Route) -> Option<PortNumber> {
        self.ports.port(&in_book(route))
    }

    /// A route as gateways are told of it: with its import port, and with those server names that no other service has.
    #[must_use]
    pub fn as_told(&self, route: &Route) -> Route {
        let names = route.sni_names.iter();
        let names = names.filter(|name| self.names.owner(name) == Some(&route.name.service));
        Route {
            import_port: self.port_of(route),
            sni_names: names.cloned().collect(),
            ..route.clone()
        }
    }
}

/// How a service port is called in the book of ports.
fn name_in_book(service: &ServiceId, port: PortNumber, protocol: Protocol) -> String {
    format!("{service}:{port}/{protocol}")
}

fn in_book(route: &Route) -> String {
    name_in_book(&route.name.service, route.name.port, route.protocol)
}

fn in_book_of(routes: &[Route]) -> BTreeSet<String> {
    routes.iter().map(in_book).collect()
}

fn keys(routes: &[Route]) -> BTreeSet<EntryKey> {
    let routes = routes.iter();
    routes
        .map(|route| EntryKey::Route(route.name.clone(), route.protocol))
        .collect()
}

fn rule(import: &DeclaredImport) -> ImportRule {
    let shares = import.sources.iter().map(|(cluster, share)| {
        let share = Share {
            weight: share.weight,
            priority: share.priority,
        };
        (cluster.clone(), share)
    });
    ImportRule {
        shares: shares.collect(),
        replay: import.replay,
        sni_names: import.sni_names.clone(),
        tls: import.tls,
    }
}
