//! From what is said of a service to its routes, with import ports.

use std::collections::{BTreeMap, BTreeSet};

use corinth_api::{Entry, EntryKey};
use corinth_model::{
    Condition, ImportRule, Offered, OwnPort, OwnService, PortNumber, Protocol, QUARANTINE, Route,
    ServiceId, ServiceKind, Share, Wanted, merge,
};

use super::{Effect, Now, Plane};
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
        let mut others = Vec::new();
        for service in services {
            let routes = self.merge_one(service, now);
            let before = self.routes.remove(service).unwrap_or_default();
            let (held, kept) = (keys(&before), keys(&routes));
            if held != kept {
                let both = before.iter().chain(&routes);
                others.extend(both.map(|route| super::wanted(route, None).service));
            }
            remove.extend(held.difference(&kept).cloned());
            if !routes.is_empty() {
                self.routes.insert(service.clone(), routes);
            }
        }
        if self.dirty_ports(services) {
            self.assign_ports(now, put, effects);
        } else if !others.is_empty() {
            if self.has_no_port_for(&others, now) {
                self.note_without(services, now);
            } else {
                self.assign_ports(now, put, effects);
            }
        }
        let routes = services
            .iter()
            .filter_map(|service| self.routes.get(service));
        put.extend(
            routes
                .flatten()
                .map(|route| Entry::Route(self.with_port(route))),
        );
    }

    fn merge_one(&mut self, service: &ServiceId, now: Now) -> Vec<Route> {
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
        let mut offered = BTreeMap::new();
        for (cluster, peer) in &self.peers {
            let mode = declared.links.get(cluster).map(|link| link.mode);
            let is_used = mode.is_some_and(|mode| mode != LinkMode::Paused) && !peer.is_unlinked;
            let Some((offer, freshness)) = peer.relation.offer(service).filter(|_| is_used) else {
                continue;
            };
            let is_last =
                mode == Some(LinkMode::Draining) || matches!(freshness, Freshness::Stale { .. });
            offered.insert(cluster.clone(), Offered { offer, is_last });
        }
        let imports = self.rules(service);
        let merged = merge(&self.own.cluster, service, own.as_ref(), &offered, &imports);
        let about = About::service(service);
        if merged.conflicts.is_empty() {
            self.conditions.clear(Condition::ExportConflict, &about);
        } else {
            let words: Vec<_> = merged.conflicts.iter().map(ToString::to_string).collect();
            let words = words.join("; ");
            self.conditions
                .raise(Condition::ExportConflict, about, &words, now.unix_ms);
        }
        merged.routes
    }

    fn rules(&self, service: &ServiceId) -> BTreeMap<PortNumber, ImportRule> {
        let rules = self.declared.imports.iter();
        let of_service = rules.filter(|((id, _), _)| id == service);
        of_service
            .map(|((_, port), import)| (*port, rule(import)))
            .collect()
    }

    /// Whether the operator has named other ports for one of these.
    fn dirty_ports(&self, services: &BTreeSet<ServiceId>) -> bool {
        let imports = self.declared.imports.iter();
        let mut named = imports.filter(|((service, _), _)| services.contains(service));
        named.any(|((service, port), import)| {
            let given = self.import_port(service, *port, Protocol::Tcp);
            import.import_port.is_some() && given != import.import_port
        })
    }

    /// Whether giving ports anew would give and take none, although these came or went: all are given, none can be
    /// freed yet, and none of these has or had one. Tells so without a look at every route there is.
    fn has_no_port_for(&self, others: &[String], now: Now) -> bool {
        let is_full = self
            .no_port_before
            .is_some_and(|at| now.unix_ms / 1_000 < at);
        is_full && !others.iter().any(|service| self.ports.knows(service))
    }

    fn note_without(&mut self, services: &BTreeSet<ServiceId>, now: Now) {
        for service in services {
            let routes = self.routes.get(service).into_iter().flatten();
            let mut ports =
                routes.map(|route| self.ports.port(&super::wanted(route, None).service));
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
                super::wanted(route, import.and_then(|import| import.import_port))
            })
            .collect();
        let assigned = self
            .terms
            .ports
            .assign(&self.ports, &wanted, now.unix_ms / 1_000);
        let before = std::mem::replace(&mut self.ports, assigned.book);
        let seconds = now.unix_ms / 1_000;
        let is_full = !assigned.without.is_empty();
        // One that is freed from now on stays free for as long.
        let frees_at = || {
            let soonest = seconds.saturating_add(QUARANTINE.as_secs());
            self.ports.frees_at().map_or(soonest, |at| at.min(soonest))
        };
        self.no_port_before = is_full.then(frees_at);
        if before != self.ports {
            effects.push(Effect::KeepPorts);
        }
        // Names are made once: there may be a hundred thousand of them.
        let mut about = BTreeSet::new();
        for (route, wanted) in self.routes.values().flatten().zip(&wanted) {
            let port = self.ports.port(&wanted.service);
            if before.port(&wanted.service) != port {
                put.push(Entry::Route(self.with_port(route)));
            }
            if port.is_none() {
                about.insert(About::service(&route.name.service));
            }
        }
        self.conditions
            .replace(Condition::NoImportPort, &about, "", now.unix_ms);
    }

    /// Where a service port is accepted here.
    #[must_use]
    pub fn import_port(
        &self,
        service: &ServiceId,
        port: PortNumber,
        protocol: Protocol,
    ) -> Option<PortNumber> {
        self.ports.port(&format!("{service}:{port}/{protocol}"))
    }

    /// A route with its import port.
    #[must_use]
    pub fn with_port(&self, route: &Route) -> Route {
        Route {
            import_port: self.ports.port(&super::wanted(route, None).service),
            ..route.clone()
        }
    }
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
