//! The entries that the control plane told, and the tables that follow from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use corinth_api::{Entry, EntryKey, LinkedPeer};
use corinth_identity::{Bundle, BundleError, BundleSet};
use corinth_model::{
    ClusterName, Denied, Export, ExportKey, ExportTable, Peer, Protocol, Route, RouteName,
    RouteTable, Tables,
};
use rustls_pki_types::CertificateDer;

use super::collect::Step;
use crate::{dialers::Dialled, wanted::Wanted};

/// Entries by key. Shared with the tables in use, so that a small change of large tables copies little.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) peers: BTreeMap<ClusterName, LinkedPeer>,
    pub(super) routes: BTreeMap<(RouteName, Protocol), Arc<Route>>,
    pub(super) exports: BTreeMap<ExportKey, Arc<Export>>,
    pub(super) denied: BTreeSet<Denied>,
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
                self.routes.insert(key, Arc::new(route));
            }
            Entry::Export(export) => drop(self.exports.insert(export.key(), Arc::new(export))),
            Entry::Denial(denied) => drop(self.denied.insert(denied)),
        }
    }

    fn remove(&mut self, key: &EntryKey) {
        match key {
            EntryKey::Peer(cluster) => drop(self.peers.remove(cluster)),
            EntryKey::Route(name, protocol) => {
                self.routes.remove(&(name.clone(), *protocol));
            }
            EntryKey::Export(key) => drop(self.exports.remove(key)),
            EntryKey::Denial(denied) => drop(self.denied.remove(denied)),
        }
    }

    /// What is to be carried out in the cluster `own`.
    pub(super) fn wanted(&self, own: &ClusterName, revision: u64) -> Result<Wanted, Conflict> {
        let routes = RouteTable::build_shared(own, self.routes.values().cloned().collect());
        let exports = ExportTable::build_shared(own, self.exports.values().cloned().collect());
        let peers = self.peers.iter().map(|(cluster, peer)| {
            let linked = Peer {
                trust_domain: peer.trust_domain.clone(),
                max_streams: peer.max_streams,
            };
            (cluster.clone(), linked)
        });
        let tables = Tables::build(
            own.clone(),
            peers.collect(),
            routes.map_err(first)?,
            exports.map_err(first)?,
            revision,
        );
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
        let ports = self
            .routes
            .values()
            .filter(|route| route.protocol == Protocol::Tcp);
        Ok(Wanted {
            tables: Arc::new(tables.map_err(first)?),
            bundles,
            dialled: self.dialled(),
            import_ports: ports.filter_map(|route| route.import_port).collect(),
            denied: self.denied.clone(),
        })
    }

    fn dialled(&self) -> BTreeMap<ClusterName, Dialled> {
        let peers = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.addresses.is_empty());
        let dialled = peers.map(|(cluster, peer)| {
            let dialled = Dialled {
                trust_domain: peer.trust_domain.clone(),
                addresses: peer.addresses.clone(),
            };
            (cluster.clone(), dialled)
        });
        dialled.collect()
    }
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
