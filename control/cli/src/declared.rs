//! What a node's own file declares, as its control plane takes it.

use std::collections::BTreeMap;

use corinth_control::cluster::{
    Audience, Declared, DeclaredExport, DeclaredLink, DeclaredPort, LinkMode, SourceShare,
};
use corinth_gateway::settings::{Direct, Files, Peer, Settings, Transport};
use corinth_model::{Accepted, Carriage, ClusterName, Replay, Selector, TransportChoice};

/// Peers, exports and imports of a node's file, as declarations. A peer is accepted for what is imported from it.
pub(crate) fn declared(settings: &Settings, files: &Files) -> Declared {
    let mut declared = Declared::default();
    for peer in &settings.peers {
        let roots = files.peers.get(&peer.name);
        let link = DeclaredLink {
            trust_domain: peer.trust_domain.clone(),
            roots: roots.map(|roots| roots.ders().to_vec()).unwrap_or_default(),
            // A file has no sequence of its own: what the peer tells later is newer.
            bundle_sequence: 0,
            addresses: peer.addresses.iter().map(ToString::to_string).collect(),
            accepted: accepted(settings, &peer.name),
            max_streams: Some(peer.max_streams),
            quota: None,
            mode: LinkMode::Active,
            carriage: carriage(peer),
        };
        declared.links.insert(peer.name.clone(), link);
    }
    add_exports(settings, &mut declared);
    add_imports(settings, &mut declared);
    declared
}

fn carriage(peer: &Peer) -> Carriage {
    Carriage {
        transport: match peer.transport {
            Transport::Tls => TransportChoice::Tls,
            Transport::Quic => TransportChoice::Quic,
            Transport::Auto => TransportChoice::Auto,
        },
        // Of another kind there is none in a file.
        congestion: peer
            .congestion
            .and_then(|congestion| congestion.as_str().parse().ok()),
    }
}

fn accepted(settings: &Settings, peer: &ClusterName) -> Accepted {
    let imports = settings.imports.iter();
    let from_peer = imports.filter(|import| {
        let mut sources = import.from.iter();
        sources.any(|source| source.cluster == *peer)
    });
    let mut selectors: Vec<_> = from_peer
        .map(|import| Selector::Service(import.service.clone()))
        .collect();
    selectors.sort();
    selectors.dedup();
    Accepted(selectors)
}

fn add_exports(settings: &Settings, declared: &mut Declared) {
    for export in &settings.exports {
        let port = DeclaredPort {
            endpoints: export.endpoints.clone(),
            tls: export.tls,
            sni_names: export.names.clone(),
            direct: export.direct.as_ref().map(direct),
            max_streams: export.max_streams,
            only: Some(export.to.clone()),
            ..DeclaredPort::default()
        };
        let service = declared.services.entry(export.service.clone()).or_default();
        service.ports.insert((export.port, export.protocol), port);
        let to = declared
            .exports
            .entry(export.service.clone())
            .or_insert_with(|| DeclaredExport {
                to: Audience::Only(Default::default()),
                since_ms: 0,
            });
        if let Audience::Only(to) = &mut to.to {
            to.extend(export.to.iter().cloned());
        }
    }
}

fn add_imports(settings: &Settings, declared: &mut Declared) {
    for import in &settings.imports {
        let sources: BTreeMap<_, _> = import
            .from
            .iter()
            .map(|source| {
                let share = SourceShare {
                    weight: source.weight,
                    priority: source.priority,
                };
                (source.cluster.clone(), share)
            })
            .collect();
        let key = (import.service.clone(), import.port);
        let import_as = declared.imports.entry(key).or_default();
        import_as.protocols.insert(import.protocol);
        if let Some(port) = import.fixed_port() {
            import_as.import_ports.insert(import.protocol, port);
        }
        import_as.sources.extend(sources);
        // Names and TLS are of connections only; the rest is one thing for both protocols.
        let may_repeat = import_as.replay.unwrap_or(import.replay) == import.replay;
        import_as.replay = Some(if may_repeat {
            import.replay
        } else {
            Replay::Never
        });
        import_as.sni_names.extend(import.names.iter().cloned());
        import_as.tls |= import.tls;
    }
}

fn direct(direct: &Direct) -> corinth_model::Direct {
    match direct {
        Direct::Terminate { callers } => corinth_model::Direct::Terminate {
            callers: callers.clone(),
        },
        Direct::Passthrough { sources } => corinth_model::Direct::Passthrough {
            sources: sources.clone(),
        },
    }
}
