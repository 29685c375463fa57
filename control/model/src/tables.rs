//! Tables: all routes, exports and peers of one cluster at one revision. Made beside the old ones, swapped in whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::export::ExportTable;
use crate::identity::TrustDomain;
use crate::name::ClusterName;
use crate::table::RouteTable;

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
    #[serde(serialize_with = "shared")]
    pub exports: Arc<ExportTable>,
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
        exports: impl Into<Arc<ExportTable>>,
        revision: u64,
    ) -> Result<Self, Vec<PeerConflict>> {
        let exports = exports.into();
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
            exports: Arc::new(ExportTable::empty(&own)),
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

fn shared<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.serialize(serializer)
}
