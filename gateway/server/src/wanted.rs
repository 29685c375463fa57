//! What a gateway carries out, wherever it was told: in its file, or by its control plane.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use corinth_identity::BundleSet;
use corinth_model::{ClusterName, Denied, PortNumber, Protocol, Tables, TrustDomain};
use corinth_transport::{Congestion, TransportKind};

use crate::{
    app::StartError,
    dialers::Dialled,
    node,
    settings::{Files, Settings, Transport},
    transports::Wish,
};

/// What a gateway carries out. Made beside what is in use, then put in its place whole.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// What is decided by.
    pub(crate) tables: Arc<Tables>,
    /// The roots of every peer.
    pub(crate) bundles: BundleSet,
    /// The peers to dial.
    pub(crate) dialled: BTreeMap<ClusterName, Dialled>,
    /// What is to carry streams to a peer; TLS where nothing is said.
    pub(crate) carriers: BTreeMap<ClusterName, Wish>,
    /// How fast we send to a peer, where it is said.
    pub(crate) congestions: BTreeMap<TrustDomain, Congestion>,
    /// The ports on which imported service ports are accepted.
    pub(crate) import_ports: Arc<BTreeSet<(PortNumber, Protocol)>>,
    /// Who is no longer believed.
    pub(crate) denied: BTreeSet<Denied>,
}

impl Wanted {
    /// Nobody is linked, and nothing can be reached.
    pub(crate) fn nothing(own: ClusterName) -> Self {
        Self {
            tables: Arc::new(Tables::empty(own)),
            bundles: BundleSet::new(),
            dialled: BTreeMap::new(),
            carriers: BTreeMap::new(),
            congestions: BTreeMap::new(),
            import_ports: Arc::default(),
            denied: BTreeSet::new(),
        }
    }

    /// What the gateway's own file says. Each import must have its port by now.
    pub(crate) fn of_settings(
        settings: &Settings,
        files: &Files,
        revision: u64,
    ) -> Result<Self, StartError> {
        Ok(Self {
            tables: Arc::new(settings.tables(revision)?),
            bundles: node::bundles(settings, files)?,
            dialled: dialled(settings),
            carriers: settings
                .peers
                .iter()
                .map(|peer| (peer.name.clone(), wish(peer.transport)))
                .collect(),
            congestions: settings
                .peers
                .iter()
                .filter_map(|peer| Some((peer.trust_domain.clone(), peer.congestion?)))
                .collect(),
            import_ports: Arc::new(
                settings
                    .imports
                    .iter()
                    .filter_map(|import| Some((import.import_port?, import.protocol)))
                    .collect(),
            ),
            denied: BTreeSet::new(),
        })
    }
}

fn wish(transport: Transport) -> Wish {
    match transport {
        Transport::Tls => Wish::Only(TransportKind::Tls),
        Transport::Quic => Wish::Only(TransportKind::Quic),
        Transport::Auto => Wish::Auto,
    }
}

fn dialled(settings: &Settings) -> BTreeMap<ClusterName, Dialled> {
    let peers = settings
        .peers
        .iter()
        .filter(|peer| !peer.addresses.is_empty());
    let dialled = peers.map(|peer| {
        let addresses = peer.addresses.iter().map(ToString::to_string).collect();
        (
            peer.name.clone(),
            Dialled {
                trust_domain: peer.trust_domain.clone(),
                by: wish(peer.transport),
                addresses,
            },
        )
    });
    dialled.collect()
}
