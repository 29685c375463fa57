//! The entries that the control plane told, and the tables that follow from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use corinth_api::{Entry, EntryKey, LinkedPeer};
use corinth_identity::{Bundle, BundleError, BundleSet};
use corinth_model::{
    ClusterName, CongestionChoice, Denied, Export, ExportKey, ExportTable, Peer, PortNumber,
    Protocol, Route, RouteKey, RouteTable, Tables, TransportChoice,
};
use corinth_transport::{Congestion, TransportKind};
use rustls_pki_types::CertificateDer;

use super::collect::Step;
use crate::{dialers::Dialled, transports::Wish, wanted::Wanted};

/// Entries by key. Shared with the tables in use, so that a small change of large tables copies little.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) peers: BTreeMap<ClusterName, LinkedPeer>,
    pub(super) routes: BTreeMap<RouteKey, Arc<Route>>,
    pub(super) exports: BTreeMap<ExportKey, Arc<Export>>,
    pub(super) denied: BTreeSet<Denied>,
    built: Built,
}

/// The tables that were built last, and what has changed since: only that is built anew.
#[derive(Debug, Default)]
struct Built {
    routes: Option<RouteTable>,
    /// Of those routes. Shared with what is in use: thousands, of which few change.
    import_ports: Arc<BTreeSet<(PortNumber, Protocol)>>,
    changed: BTreeSet<RouteKey>,
    exports: Option<Arc<ExportTable>>,
}

/// Why entries cannot stand side by side: the first conflict, and how many there are.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Conflict {
    /// Entries that exclude one another.
    #[error("{first}{}", more(*.further))]
    Tables {
        /// The first conflict.
        first: String,
        /// How many there are beside it.
        further: usize,
    },
    /// Roots that are none.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl Held {
    /// Takes steps in, in their order.
    pub(super) fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Put(entry) => self.put(entry),
                Step::Remove(key) => self.remove(&key),
            }
        }
    }

    fn put(&mut self, entry: Entry) {
        match entry {
            Entry::Peer(cluster, peer) => drop(self.peers.insert(cluster, peer)),
            Entry::Route(route) => {
                let key = (route.name.clone(), route.protocol);
                self.built.changed.insert(key.clone());
                self.routes.insert(key, Arc::new(route));
            }
            Entry::Export(export) => {
                self.built.exports = None;
                self.exports.insert(export.key(), Arc::new(export));
            }
            Entry::Denial(denied) => drop(self.denied.insert(denied)),
        }
    }

    fn remove(&mut self, key: &EntryKey) {
        match key {
            EntryKey::Peer(cluster) => drop(self.peers.remove(cluster)),
            EntryKey::Route(name, protocol) => {
                let key = (name.clone(), *protocol);
                self.routes.remove(&key);
                self.built.changed.insert(key);
            }
            EntryKey::Export(key) => {
                self.built.exports = None;
                self.exports.remove(key);
            }
            EntryKey::Denial(denied) => drop(self.denied.remove(denied)),
        }
    }

    /// What is to be carried out in the cluster `own`, which must be the same each time.
    pub(super) fn wanted(&mut self, own: &ClusterName, revision: u64) -> Result<Wanted, Conflict> {
        let routes = self.route_table(own)?;
        let exports = self.export_table(own)?;
        let peers = self.peers.iter().map(|(cluster, peer)| {
            let linked = Peer {
                trust_domain: peer.trust_domain.clone(),
                max_streams: peer.max_streams,
            };
            (cluster.clone(), linked)
        });
        let tables = Tables::build(own.clone(), peers.collect(), routes, exports, revision);
        let tables = Arc::new(tables.map_err(first)?);
        let mut bundles = BundleSet::new();
        // Each building makes a new set: what the control plane says now holds, whatever it said before.
        for peer in self.peers.values() {
            let roots = peer.roots.iter().cloned().map(CertificateDer::from);
            bundles.insert(Bundle::new(
                peer.trust_domain.clone(),
                roots.collect(),
                peer.bundle_sequence,
            )?)?;
        }
        Ok(Wanted {
            import_ports: Arc::clone(&self.built.import_ports),
            tables,
            bundles,
            dialled: self.dialled(),
            carriers: self
                .peers
                .iter()
                .map(|(cluster, peer)| (cluster.clone(), wish(peer)))
                .collect(),
            congestions: self
                .peers
                .values()
                .filter_map(|peer| Some((peer.trust_domain.clone(), congestion(peer)?)))
                .collect(),
            denied: self.denied.clone(),
        })
    }

    fn route_table(&mut self, own: &ClusterName) -> Result<RouteTable, Conflict> {
        let changed = self.built.changed.iter();
        let changes = changed.map(|key| (key.clone(), self.routes.get(key).cloned()));
        let before = self.built.routes.take();
        let before = before.unwrap_or_else(|| RouteTable::empty(own));
        match before.changed(changes.collect()) {
            Ok(table) => {
                let changed = std::mem::take(&mut self.built.changed);
                let (had, has) = (ports_of(&before, &changed), ports_of(&table, &changed));
                if had != has {
                    let ports = Arc::make_mut(&mut self.built.import_ports);
                    ports.retain(|port| !had.contains(port));
                    ports.extend(has);
                }
                self.built.routes = Some(table.clone());
                Ok(table)
            }
            Err(conflicts) => {
                self.built.routes = Some(before);
                Err(first(conflicts))
            }
        }
    }

    fn export_table(&mut self, own: &ClusterName) -> Result<Arc<ExportTable>, Conflict> {
        if let Some(built) = &self.built.exports {
            return Ok(Arc::clone(built));
        }
        let exports = self.exports.values().cloned().collect();
        let built = Arc::new(ExportTable::build_shared(own, exports).map_err(first)?);
        self.built.exports = Some(Arc::clone(&built));
        Ok(built)
    }

    fn dialled(&self) -> BTreeMap<ClusterName, Dialled> {
        let peers = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.addresses.is_empty());
        let dialled = peers.map(|(cluster, peer)| {
            let dialled = Dialled {
                trust_domain: peer.trust_domain.clone(),
                by: wish(peer),
                addresses: peer.addresses.clone(),
            };
            (cluster.clone(), dialled)
        });
        dialled.collect()
    }
}

/// Where these routes of a table are accepted.
fn ports_of(table: &RouteTable, routes: &BTreeSet<RouteKey>) -> BTreeSet<(PortNumber, Protocol)> {
    let routes = routes
        .iter()
        .filter_map(|(name, protocol)| table.by_name(name, *protocol));
    routes
        .filter_map(|route| Some((route.import_port?, route.protocol)))
        .collect()
}

fn wish(peer: &LinkedPeer) -> Wish {
    match peer.carriage.transport {
        TransportChoice::Tls => Wish::Only(TransportKind::Tls),
        TransportChoice::Quic => Wish::Only(TransportKind::Quic),
        TransportChoice::Auto => Wish::Auto,
    }
}

fn congestion(peer: &LinkedPeer) -> Option<Congestion> {
    Some(match peer.carriage.congestion? {
        CongestionChoice::Cubic => Congestion::Cubic,
        CongestionChoice::Bbr => Congestion::Bbr,
    })
}

fn first<E: Display>(conflicts: Vec<E>) -> Conflict {
    Conflict::Tables {
        first: conflicts
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        further: conflicts.len().saturating_sub(1),
    }
}

fn more(further: usize) -> String {
    match further {
        0 => String::new(),
        further => format!("; and {further} conflicts more"),
    }
}

#[cfg(test)]
mod tests {
    use corinth_model::{Carriage, Replay, RouteName, TrustDomain};

    use super::*;

    fn route(front: &str, import_port: u16) -> Step {
        let name = format!("{front}.svc.clusterset.local");
        Step::Put(Entry::Route(Route {
            name: RouteName::parse(&name).unwrap(),
            protocol: Protocol::Tcp,
            import_port: PortNumber::new(import_port),
            sni_names: Vec::new(),
            tls: false,
            replay: Replay::default(),
            candidates: Vec::new(),
        }))
    }

    fn ports(wanted: &Wanted) -> Vec<u16> {
        let ports = wanted.import_ports.iter();
        ports.map(|(port, _)| port.get()).collect()
    }

    #[test]
    fn what_carries_streams_to_a_peer_is_what_was_told() {
        let own = ClusterName::parse("east").unwrap();
        let mut held = Held::default();
        let carriages = [
            ("west", Carriage::default()),
            (
                "north",
                Carriage {
                    transport: TransportChoice::Auto,
                    congestion: Some(CongestionChoice::Bbr),
                },
            ),
        ];
        for (name, carriage) in carriages {
            let name = ClusterName::parse(name).unwrap();
            let peer = LinkedPeer {
                trust_domain: TrustDomain::of_cluster(&name),
                max_streams: 10,
                addresses: vec!["gw.example:15443".to_owned()],
                roots: Vec::new(),
                bundle_sequence: 1,
                carriage,
            };
            held.take(vec![Step::Put(Entry::Peer(name, peer))]);
        }
        let wanted = held.wanted(&own, 1).unwrap();
        let [north, west] = ["north", "west"].map(|name| ClusterName::parse(name).unwrap());
        let tls = Wish::Only(TransportKind::Tls);
        for (cluster, wish) in [(&west, tls), (&north, Wish::Auto)] {
            assert_eq!(wanted.carriers[cluster], wish);
            assert_eq!(wanted.dialled[cluster].by, wish);
        }
        let north = TrustDomain::of_cluster(&north);
        assert_eq!(wanted.congestions, [(north, Congestion::Bbr)].into());
    }

    #[test]
    fn a_conflict_that_was_refused_is_found_again_until_it_is_gone() {
        let own = ClusterName::parse("east").unwrap();
        let mut held = Held::default();
        held.take(vec![route("443.payments.shop", 20_000)]);
        assert_eq!(ports(&held.wanted(&own, 1).unwrap()), [20_000]);

        held.take(vec![route("80.web.shop", 20_000)]);
        let conflict = held.wanted(&own, 2).unwrap_err();
        held.take(vec![route("22.ssh.shop", 20_001)]);
        assert_eq!(held.wanted(&own, 2).unwrap_err(), conflict);

        held.take(vec![route("80.web.shop", 20_002)]);
        let wanted = held.wanted(&own, 2).unwrap();
        assert_eq!(ports(&wanted), [20_000, 20_001, 20_002]);
    }
}
