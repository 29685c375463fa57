//! From settings to the tables that the gateway decides by.

use std::collections::BTreeMap;

use corinth_model::{
    Candidate, ExportConflict, ExportKey, ExportTable, Locality, Route, RouteConflict, RouteName,
    RouteTable, Tables, Target,
};

use super::Settings;
use super::export::{Direct, Export};
use super::import::Import;
use super::mistake::{Findings, MistakeCode, Mistakes, Position};

impl Settings {
    /// The tables of this node. Imports without a port get none here; see [`Self::assign_ports`].
    ///
    /// # Errors
    /// What contradicts itself. After [`Self::parse`] only an import port can: one that was chosen twice.
    pub fn tables(&self, revision: u64) -> Result<Tables, Mistakes> {
        let mut found = Findings::default();
        let exports = exports(&self.cluster, &self.exports, &mut found);
        let routes = routes(&self.cluster, &self.imports, &self.exports, &mut found);
        let peers = self.peers.iter().map(|peer| {
            let link = corinth_model::Peer {
                trust_domain: peer.trust_domain.clone(),
                max_streams: peer.max_streams,
            };
            (peer.name.clone(), link)
        });
        let tables = exports.zip(routes).and_then(|(exports, routes)| {
            Tables::build(
                self.cluster.clone(),
                peers.collect(),
                routes,
                exports,
                revision,
            )
            .map_err(|conflicts| {
                for conflict in conflicts {
                    let hint = "each peer needs a name and a trust domain of its own";
                    found.add(
                        Position::default(),
                        MistakeCode::DuplicatePeer,
                        conflict.to_string(),
                        hint,
                    );
                }
            })
            .ok()
        });
        found.finish(tables, &self.origin)
    }
}

/// Reports what cannot stand in one table, except import ports, which are checked where they are written.
pub(super) fn check(
    own: &corinth_model::ClusterName,
    offered: &[Export],
    imports: &[Import],
    found: &mut Findings,
) {
    exports(own, offered, found);
    let without_ports: Vec<_> = imports
        .iter()
        .map(|import| Import {
            import_port: None,
            ..import.clone()
        })
        .collect();
    routes(own, &without_ports, offered, found);
}

/// The table of what we offer; conflicts are reported at the export that comes second in the file.
fn exports(
    own: &corinth_model::ClusterName,
    exports: &[Export],
    found: &mut Findings,
) -> Option<ExportTable> {
    let places: BTreeMap<_, _> = exports
        .iter()
        .map(|export| (model(export).key(), export.at))
        .collect();
    let place = |key: &ExportKey| places.get(key).copied().unwrap_or_default();
    ExportTable::build(own, exports.iter().map(model).collect())
        .map_err(|conflicts| {
            for conflict in conflicts {
                let (at, code, hint) = match &conflict {
                    ExportConflict::Duplicate { export } => {
                        let hint = "list all endpoints under one export";
                        (place(export), MistakeCode::DuplicateExport, hint)
                    }
                    ExportConflict::DuplicateSniName { first, second, .. } => {
                        let at = place(first).max(place(second));
                        (
                            at,
                            MistakeCode::DuplicateName,
                            "remove the name from one of them",
                        )
                    }
                    ExportConflict::ReservedSniName { export, .. } => {
                        let hint =
                            "remove it: a service answers to its names in the zone by itself";
                        (place(export), MistakeCode::InvalidName, hint)
                    }
                    ExportConflict::NotTcp { export } => (
                        place(export),
                        MistakeCode::NotCarried,
                        "write `protocol: tcp`",
                    ),
                };
                found.add(at, code, conflict.to_string(), hint);
            }
        })
        .ok()
}

/// The table of what we may call; conflicts are reported at the import that comes second in the file.
fn routes(
    own: &corinth_model::ClusterName,
    imports: &[Import],
    exports: &[Export],
    found: &mut Findings,
) -> Option<RouteTable> {
    let places: BTreeMap<_, _> = imports
        .iter()
        .map(|import| (name(import), import.at))
        .collect();
    let place = |name: &RouteName| places.get(name).copied().unwrap_or_default();
    let offered: BTreeMap<_, _> = exports
        .iter()
        .map(|export| ((&export.service, export.port, export.protocol), export))
        .collect();
    let routes = imports.iter().map(|import| {
        let own = offered.get(&(&import.service, import.port, import.protocol));
        route(import, own.copied())
    });
    RouteTable::build(own, routes.collect())
        .map_err(|conflicts| {
            for conflict in conflicts {
                let (at, code, hint) = match &conflict {
                    RouteConflict::DuplicateName { name, .. } => {
                        let hint = "list all its sources under one import";
                        (place(name), MistakeCode::DuplicateImport, hint)
                    }
                    RouteConflict::DuplicateImportPort { first, second, .. } => {
                        let at = place(first).max(place(second));
                        (
                            at,
                            MistakeCode::DuplicateImportPort,
                            "give each import a port of its own",
                        )
                    }
                    RouteConflict::DuplicateSniName { first, second, .. } => {
                        let at = place(first).max(place(second));
                        (
                            at,
                            MistakeCode::DuplicateName,
                            "remove the name from one of them",
                        )
                    }
                    RouteConflict::ReservedSniName { route, .. } => {
                        let hint =
                            "remove it: a service answers to its names in the zone by itself";
                        (place(route), MistakeCode::InvalidName, hint)
                    }
                    RouteConflict::NotTcp { route } => (
                        place(route),
                        MistakeCode::NotCarried,
                        "write `protocol: tcp`",
                    ),
                    RouteConflict::DuplicateTarget { route, .. } => (
                        place(route),
                        MistakeCode::DuplicateItem,
                        "remove one of the two",
                    ),
                };
                found.add(at, code, conflict.to_string(), hint);
            }
        })
        .ok()
}

fn model(export: &Export) -> corinth_model::Export {
    corinth_model::Export {
        service: export.service.clone(),
        port: export.port,
        protocol: export.protocol,
        endpoints: export.endpoints.clone(),
        audience: export.to.clone(),
        sni_names: export.names.clone(),
        tls: export.tls,
        direct: export.direct.as_ref().map(|direct| match direct {
            Direct::Terminate { callers } => corinth_model::Direct::Terminate {
                callers: callers.clone(),
            },
            Direct::Passthrough { sources } => corinth_model::Direct::Passthrough {
                sources: sources.clone(),
            },
        }),
        max_streams: export.max_streams,
    }
}

fn name(import: &Import) -> RouteName {
    RouteName::new(import.service.clone(), import.port)
}

/// What an import may be sent to: our own endpoints first by nearness, then the clusters it is taken from.
fn route(import: &Import, own: Option<&Export>) -> Route {
    let here = own
        .into_iter()
        .flat_map(|export| &export.endpoints)
        .map(|endpoint| Candidate {
            target: Target::Endpoint(endpoint.address()),
            weight: 1,
            priority: 0,
            locality: endpoint.locality().clone(),
        });
    let there = import.from.iter().map(|source| Candidate {
        target: Target::Cluster(source.cluster.clone()),
        weight: source.weight,
        priority: source.priority,
        locality: Locality::default(),
    });
    Route {
        name: name(import),
        protocol: import.protocol,
        import_port: import.import_port,
        sni_names: import.names.clone(),
        tls: import.tls,
        replay: import.replay,
        candidates: here.chain(there).collect(),
    }
}
