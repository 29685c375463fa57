//! What this cluster offers, and to whom.
//!
//! The table holds one view per peer with exactly the exports of which the peer is in the audience. Admission asks the
//! view and nothing else, so that "not exported to you" and "does not exist" cannot be told apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::{Equivalent, IndexMap};
use ipnet::IpNet;
use serde::Serialize;

use crate::endpoint::Endpoint;
use crate::identity::SpiffeId;
use crate::name::{
    ClusterName, DnsName, PortNumber, Protocol, RouteName, Scope, ServiceId, SniName,
};
use crate::only::Only;

#[cfg(test)]
mod tests;

/// One service port offered to peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Export {
    /// The service.
    pub service: ServiceId,
    /// Its port.
    pub port: PortNumber,
    /// The port's protocol.
    pub protocol: Protocol,
    /// Where it is delivered.
    pub endpoints: Vec<Endpoint>,
    /// The clusters that may call it; empty means nobody.
    pub audience: BTreeSet<ClusterName>,
    /// Further server names it answers to.
    pub sni_names: Vec<DnsName>,
    /// The application speaks TLS on this port.
    pub tls: bool,
    /// Whether, and to whom, it is open without a tunnel.
    pub direct: Option<Direct>,
    /// Most streams at a time, over all peers.
    pub max_streams: Option<u32>,
}

impl Export {
    /// What names it within its cluster.
    #[must_use]
    pub fn key(&self) -> ExportKey {
        ExportKey {
            service: self.service.clone(),
            port: self.port,
            protocol: self.protocol,
        }
    }

    /// The name under which any cluster's export of this port is called.
    #[must_use]
    pub fn route_name(&self) -> RouteName {
        RouteName::new(self.service.clone(), self.port)
    }

    /// Whether a TLS client that gave no port can mean this one: TCP, and marked TLS or 443.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.protocol == Protocol::Tcp && (self.tls || self.port == PortNumber::HTTPS)
    }
}

/// Who may connect to an export without a tunnel, on the tunnel port, by server name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direct {
    /// Mutual TLS ends at the gateway.
    Terminate {
        /// The identities that may connect; empty means nobody.
        callers: Vec<SpiffeId>,
    },
    /// The bytes are handed to the endpoint untouched; the client is anonymous.
    Passthrough {
        /// The addresses clients may have; empty means nobody.
        sources: Vec<IpNet>,
    },
}

/// What names an export within its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportKey {
    /// The service.
    pub service: ServiceId,
    /// Its port.
    pub port: PortNumber,
    /// The port's protocol.
    pub protocol: Protocol,
}

impl std::fmt::Display for ExportKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} port {}/{}", self.service, self.port, self.protocol)
    }
}

/// [`ExportKey`] by reference; hashes like it.
#[derive(Hash)]
struct ExportKeyRef<'a> {
    service: &'a ServiceId,
    port: PortNumber,
    protocol: Protocol,
}

impl Equivalent<ExportKey> for ExportKeyRef<'_> {
    fn equivalent(&self, key: &ExportKey) -> bool {
        *self.service == key.service && self.port == key.port && self.protocol == key.protocol
    }
}

/// Why exports cannot stand in one table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportConflict {
    /// The same port of the same service twice.
    #[error("{export} is exported twice; merge the two entries")]
    Duplicate {
        /// The export.
        export: ExportKey,
    },
    /// One server name on two exports.
    #[error("the server name {sni} is listed by {first} and by {second}; it can mean only one")]
    DuplicateSniName {
        /// The name.
        sni: DnsName,
        /// The export that keeps it.
        first: ExportKey,
        /// The export it was refused to.
        second: ExportKey,
    },
    /// A server name inside the zone, which belongs to the service it spells.
    #[error(
        "{export} lists the server name {sni}, which is inside {}; names there are given by the services",
        crate::name::ZONE
    )]
    ReservedSniName {
        /// The name.
        sni: DnsName,
        /// The export that lists it.
        export: ExportKey,
    },
    /// Server names or direct clients on a port without TLS over TCP.
    #[error("{export} lists server names or direct clients; both need TCP")]
    NotTcp {
        /// The export.
        export: ExportKey,
    },
}

/// All exports of this cluster. Immutable.
#[derive(Debug, Clone)]
pub struct ExportTable {
    own: ClusterName,
    exports: IndexMap<ExportKey, Arc<Export>>,
    views: IndexMap<ClusterName, ExportView>,
    direct_tls_ports: IndexMap<ServiceId, Only<Arc<Export>>>,
    direct_sni_names: IndexMap<DnsName, Arc<Export>>,
}

impl ExportTable {
    /// Builds the table of the cluster `own`. The order of `exports` does not matter.
    ///
    /// # Errors
    /// Every conflict among them.
    pub fn build(own: &ClusterName, exports: Vec<Export>) -> Result<Self, Vec<ExportConflict>> {
        Self::build_shared(own, exports.into_iter().map(Arc::new).collect())
    }

    /// As [`build`](Self::build), of exports that somebody else may hold as well.
    ///
    /// # Errors
    /// Every conflict among them.
    pub fn build_shared(
        own: &ClusterName,
        exports: Vec<Arc<Export>>,
    ) -> Result<Self, Vec<ExportConflict>> {
        let mut exports: Vec<_> = exports
            .into_iter()
            .map(|export| (export.key(), export))
            .collect();
        exports.sort_by(|a, b| a.0.cmp(&b.0));
        let conflicts = conflicts(&exports);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mut table = Self::empty(own);
        for (key, export) in exports {
            table.add(key, export);
        }
        Ok(table)
    }

    /// The table of a cluster that exports nothing.
    #[must_use]
    pub fn empty(own: &ClusterName) -> Self {
        Self {
            own: own.clone(),
            exports: IndexMap::new(),
            views: IndexMap::new(),
            direct_tls_ports: IndexMap::new(),
            direct_sni_names: IndexMap::new(),
        }
    }

    fn add(&mut self, key: ExportKey, export: Arc<Export>) {
        for peer in &export.audience {
            let view = self.views.entry(peer.clone());
            let view = view.or_insert_with(|| ExportView::empty(&self.own));
            view.exports.insert(key.clone(), Arc::clone(&export));
        }
        if export.direct.is_some() {
            if export.is_tls() {
                let ports = self.direct_tls_ports.entry(export.service.clone());
                ports.or_default().add(Arc::clone(&export));
            }
            for name in &export.sni_names {
                self.direct_sni_names
                    .insert(name.clone(), Arc::clone(&export));
            }
        }
        self.exports.insert(key, export);
    }

    /// What `peer` may reach; `None` if that is nothing.
    #[must_use]
    pub fn view(&self, peer: &ClusterName) -> Option<&ExportView> {
        self.views.get(peer)
    }

    /// The export a TLS client without a tunnel means, if it is open to such clients at all.
    ///
    /// The caller still has to hold the client against [`Direct`]. A service without port means its only direct port
    /// that [is TLS](Export::is_tls); names pinned to another cluster mean nothing here.
    #[must_use]
    pub fn direct(&self, sni: &SniName) -> Option<DirectMatch<'_>> {
        let export = match sni {
            SniName::Route(name) => find(&self.exports, &self.own, name, Protocol::Tcp)?,
            SniName::Service(name) if is_here(&name.scope, &self.own) => {
                self.direct_tls_ports.get(&name.service)?.one()?
            }
            SniName::Service(_) => return None,
            SniName::Other(name) => self.direct_sni_names.get(name)?,
        };
        let direct = export.direct.as_ref()?;
        Some(DirectMatch { export, direct })
    }

    /// The export with this key.
    #[must_use]
    pub fn export(&self, key: &ExportKey) -> Option<&Arc<Export>> {
        self.exports.get(key)
    }

    /// All exports, by service, port and protocol.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Export>> {
        self.exports.values()
    }

    /// How many exports there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exports.len()
    }

    /// Whether nothing is exported.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exports.is_empty()
    }

    /// The cluster whose exports these are.
    #[must_use]
    pub fn own(&self) -> &ClusterName {
        &self.own
    }
}

/// Equal if the same cluster exports the same.
impl PartialEq for ExportTable {
    fn eq(&self, other: &Self) -> bool {
        self.own == other.own && self.exports == other.exports
    }
}

impl Eq for ExportTable {}

/// As the list of exports.
impl Serialize for ExportTable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Arc::as_ref))
    }
}

/// An export that is open to clients without a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectMatch<'a> {
    /// The export.
    pub export: &'a Arc<Export>,
    /// To whom it is open.
    pub direct: &'a Direct,
}

/// What one peer may reach, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportView {
    own: ClusterName,
    exports: IndexMap<ExportKey, Arc<Export>>,
}

impl ExportView {
    fn empty(own: &ClusterName) -> Self {
        Self {
            own: own.clone(),
            exports: IndexMap::new(),
        }
    }

    /// The export a route name means here: in any scope that includes this cluster, pods excepted.
    #[must_use]
    pub fn lookup(&self, name: &RouteName, protocol: Protocol) -> Option<&Arc<Export>> {
        find(&self.exports, &self.own, name, protocol)
    }

    /// All of them, by service, port and protocol.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Export>> {
        self.exports.values()
    }
}

fn find<'a>(
    exports: &'a IndexMap<ExportKey, Arc<Export>>,
    own: &ClusterName,
    name: &RouteName,
    protocol: Protocol,
) -> Option<&'a Arc<Export>> {
    if !is_here(&name.scope, own) {
        return None;
    }
    exports.get(&ExportKeyRef {
        service: &name.service,
        port: name.port,
        protocol,
    })
}

/// Whether a scope means the cluster `own` as a whole.
fn is_here(scope: &Scope, own: &ClusterName) -> bool {
    match scope {
        Scope::Any => true,
        Scope::Cluster(cluster) => cluster == own,
        Scope::Pod { .. } => false,
    }
}

/// What is wrong with `exports`, which are sorted by key.
fn conflicts(exports: &[(ExportKey, Arc<Export>)]) -> Vec<ExportConflict> {
    let mut conflicts = Vec::new();
    for pair in exports.windows(2) {
        if let [(first, _), (second, _)] = pair
            && first == second
        {
            conflicts.push(ExportConflict::Duplicate {
                export: first.clone(),
            });
        }
    }
    let mut taken: IndexMap<&DnsName, &ExportKey> = IndexMap::new();
    for (key, export) in exports {
        let wants_tls = export.direct.is_some() || !export.sni_names.is_empty();
        if wants_tls && export.protocol != Protocol::Tcp {
            conflicts.push(ExportConflict::NotTcp {
                export: key.clone(),
            });
        }
        for sni in &export.sni_names {
            if sni.is_in_zone() {
                let conflict = ExportConflict::ReservedSniName {
                    sni: sni.clone(),
                    export: key.clone(),
                };
                conflicts.push(conflict);
            }
            let first = *taken.entry(sni).or_insert(key);
            if first != key {
                conflicts.push(ExportConflict::DuplicateSniName {
                    sni: sni.clone(),
                    first: first.clone(),
                    second: key.clone(),
                });
            }
        }
    }
    conflicts
}
