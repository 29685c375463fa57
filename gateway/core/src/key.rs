//! The name under which the core remembers something about a route.

use std::fmt;
use std::hash::{Hash, Hasher};

use corinth_model::{
    ClusterName, Export, ExportKey, Label, PortNumber, Protocol, RouteName, Scope, ServiceId,
};
use indexmap::Equivalent;

/// A service port and its protocol, whichever way it was asked for.
///
/// `443.pay.shop` and `443.b.pay.shop` are one key: what we learn of cluster `b` through either holds
/// for both. A headless pod is a key of its own, as it fails alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    name: RouteName,
    protocol: Protocol,
}

impl RouteKey {
    /// The key of a route name, without the cluster it may be pinned to.
    pub fn new(name: &RouteName, protocol: Protocol) -> Self {
        KeyRef::new(name, protocol).to_owned()
    }

    /// The route name: of the whole clusterset, or of one pod.
    pub fn name(&self) -> &RouteName {
        &self.name
    }

    /// The protocol beside it.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The export that can be meant; none for a pod.
    pub(crate) fn export(&self) -> Option<ExportKey> {
        (self.name.scope == Scope::Any).then(|| ExportKey {
            service: self.name.service.clone(),
            port: self.name.port,
            protocol: self.protocol,
        })
    }

    pub(crate) fn as_ref(&self) -> KeyRef<'_> {
        KeyRef::new(&self.name, self.protocol)
    }
}

impl Hash for RouteKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_ref().hash(state);
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.protocol)
    }
}

/// A [`RouteKey`] not yet owned, so that looking something up copies no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyRef<'a> {
    service: &'a ServiceId,
    port: PortNumber,
    protocol: Protocol,
    pod: Option<(&'a Label, &'a ClusterName)>,
}

impl<'a> KeyRef<'a> {
    pub(crate) fn new(name: &'a RouteName, protocol: Protocol) -> Self {
        let pod = match &name.scope {
            Scope::Any | Scope::Cluster(_) => None,
            Scope::Pod { hostname, cluster } => Some((hostname, cluster)),
        };
        Self {
            service: &name.service,
            port: name.port,
            protocol,
            pod,
        }
    }

    pub(crate) fn of_export(export: &'a Export) -> Self {
        Self {
            service: &export.service,
            port: export.port,
            protocol: export.protocol,
            pod: None,
        }
    }

    pub(crate) fn to_owned(self) -> RouteKey {
        let scope = self
            .pod
            .map_or(Scope::Any, |(hostname, cluster)| Scope::Pod {
                hostname: hostname.clone(),
                cluster: cluster.clone(),
            });
        RouteKey {
            name: RouteName {
                port: self.port,
                scope,
                service: self.service.clone(),
            },
            protocol: self.protocol,
        }
    }
}

impl Equivalent<RouteKey> for KeyRef<'_> {
    fn equivalent(&self, key: &RouteKey) -> bool {
        *self == key.as_ref()
    }
}
