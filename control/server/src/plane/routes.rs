//! From what is said of a service to its routes, with import ports.

use std::collections::{BTreeMap, BTreeSet};

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
        let mut claims = BTreeMap::new();
        for route in routes {
            let port = route.name.port;
            let rule = self.declared.imports.get(&(service.clone(), port));
            let own = own.and_then(|own| own.ports.get(&(port, route.protocol)));
            for name in &route.sni_names {
                let standing = if rule.is_some_and(|rule| rule.sni_names.contains(name)) {
                    Standing::Asked
                } else if own.is_some_and(|own| own.sni_names.contains(name)) {
                    Standing::Own
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
        let about = About::service(service);
        if words.is_empty() {
            self.conditions.clear(Condition::ExportConflict, &about);
        } else {
            let words = words.join("; ");
            self.conditions
                .raise(Condition::ExportConflict, about, &words, now.unix_ms);
        }
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
        let has_chosen = self.has_chosen_ports(services);
        if gone.is_empty() && came.is_empty() && !has_chosen {
            return;
        }
        let seconds = now.unix_ms / 1_000;
        let knows = |service: &String| self.ports.knows(service);
        match self.ports_left {
            PortsLeft::Some if !has_chosen => {
                effects.push(Effect::KeepPorts);
                let ports = &self.terms.ports;
                if !ports.adjust(&mut self.ports, gone, came, seconds) {
                    self.assign_ports(now, put, effects);
                }
            }
            // All are given, none can be freed yet, and none of these has or had one.
            PortsLeft::NoneBefore(at)
                if !has_chosen && seconds < at && !gone.iter().chain(came).any(knows) =>
            {
                self.note_without(services, now);
            }
            PortsLeft::Some | PortsLeft::NoneBefore(_) | PortsLeft::Unknown => {
                self.assign_ports(now, put, effects);
            }
        }
    }

    /// Whether one of these has another port than the operator has chosen for it, or one that only he could choose.
    fn has_chosen_ports(&self, services: &BTreeSet<ServiceId>) -> bool {
        let routes = services
            .iter()
            .filter_map(|service| self.routes.get(service));
        routes.flatten().any(|route| {
            let key = (route.name.service.clone(), route.name.port);
            let import = self.declared.imports.get(&key);
            let (chosen, given) = (
                import.and_then(|import| import.import_ports.get(&route.protocol).copied()),
                self.port_of(route),
            );
            match chosen {
                Some(_) => given != chosen,
                None => given.is_some_and(|port| !self.terms.ports.may_give(port)),
            }
        })
    }

    fn note_without(&mut self, services: &BTreeSet<ServiceId>, now: Now) {
        for service in services {
            let routes = self.routes.get(service).into_iter().flatten();
            let mut ports = routes.map(|route| self.port_of(route));
            let is_without = ports.any(|port| port.is_none());
            let about = About::service(service);
            if is_without {
                self.conditions
                    .raise(Condition::NoImportPort, about, "", now.unix_ms);
            } else {
                self.conditions.clear(Condition::NoImportPort, &about);
            }
        }
    }

    /// Gives every route an import port while there are any; routes whose port is another one are put anew.
    fn assign_ports(&mut self, now: Now, put: &mut Vec<Entry>, effects: &mut Vec<Effect>) {
        let routes = self.routes.values().flatten();
        let wanted: Vec<Wanted> = routes
            .map(|route| {
                let key = (route.name.service.clone(), route.name.port);
                let import = self.declared.imports.get(&key);
                Wanted {
                    service: in_book(route),
                    fixed: import
                        .and_then(|import| import.import_ports.get(&route.protocol).copied()),
                }
            })
            .collect();
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
            true => PortsLeft::NoneBefore(frees_at()),
            false => PortsLeft::Some,
        };
        if before != self.ports {
            effects.push(Effect::KeepPorts);
        }
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
    }

    /// Takes which import ports gateways cannot listen on, with why.
    pub fn set_closed_ports(&mut self, closed: &BTreeMap<PortNumber, String>, now: Now) {
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
