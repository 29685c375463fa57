//! The name of a route: a service port, and how far it is narrowed down.

use std::fmt;

use crate::name::{ClusterName, Label, NameError, PortNumber, ServiceId, ServiceName, dns, label};
use crate::text::text_form;

/// The zone all route names live in.
pub const ZONE: &str = "svc.clusterset.local";

/// Which clusters may answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Every cluster that exports the service.
    #[default]
    Any,
    /// This cluster only.
    Cluster(ClusterName),
    /// One pod of a headless service.
    Pod {
        /// The pod's host name.
        hostname: Label,
        /// The cluster it runs in.
        cluster: ClusterName,
    },
}

impl Scope {
    /// The cluster this scope pins, if any.
    #[must_use]
    pub fn cluster(&self) -> Option<&ClusterName> {
        match self {
            Self::Any => None,
            Self::Cluster(cluster) | Self::Pod { cluster, .. } => Some(cluster),
        }
    }
}

/// The labels of the scope, each with its dot, as they stand before the service.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Cluster(cluster) => write!(f, "{cluster}."),
            Self::Pod { hostname, cluster } => write!(f, "{hostname}.{cluster}."),
        }
    }
}

/// A service port of the clusterset, written `<port>.[[<hostname>.]<cluster>.]<service>.<namespace>.svc.clusterset.local`.
///
/// The protocol stands beside it, since an SNI has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteName {
    /// Port of the service.
    pub port: PortNumber,
    /// Which clusters may answer.
    pub scope: Scope,
    /// The service.
    pub service: ServiceId,
}

impl RouteName {
    /// The name of a service port in any cluster.
    #[must_use]
    pub fn new(service: ServiceId, port: PortNumber) -> Self {
        Self {
            port,
            scope: Scope::Any,
            service,
        }
    }

    /// The same service port with another scope.
    #[must_use]
    pub fn with_scope(&self, scope: Scope) -> Self {
        Self {
            port: self.port,
            scope,
            service: self.service.clone(),
        }
    }

    /// Reads the text form; one root dot is dropped, ASCII upper case is folded.
    ///
    /// # Errors
    /// The rule that was broken; [`NameError::OutsideZone`] for other host names.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let labels = ZoneLabels::split(text)?.ok_or(NameError::OutsideZone)?;
        let (port, scoped) = labels.rest.split_once('.').ok_or(NameError::Shape {
            labels: labels.count,
        })?;
        if !(3..=5).contains(&labels.count) {
            return Err(NameError::Shape {
                labels: labels.count,
            });
        }
        let port = PortNumber::parse(port)?;
        let (scope, service) = scoped_service(scoped)?;
        Ok(Self {
            port,
            scope,
            service,
        })
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}{}.{ZONE}", self.port, self.scope, self.service)
    }
}

text_form!(
    RouteName,
    NameError,
    "a route name: <port>.[[<hostname>.]<cluster>.]<service>.<namespace>.svc.clusterset.local"
);

/// What stands in front of the zone, every label checked.
pub(super) struct ZoneLabels<'a> {
    pub(super) rest: &'a str,
    pub(super) count: usize,
}

impl<'a> ZoneLabels<'a> {
    /// Takes `text` apart; `None` if it is no name of the zone.
    pub(super) fn split(text: &'a str) -> Result<Option<Self>, NameError> {
        let text = dns::without_root_dot(text)?;
        if dns::is_ip_literal(text) {
            return Err(NameError::IpLiteral);
        }
        let Some(rest) = before_zone(text) else {
            return Ok(None);
        };
        for part in rest.split('.') {
            label::check(part)?;
        }
        Ok(Some(Self {
            rest,
            count: rest.split('.').count(),
        }))
    }
}

fn before_zone(text: &str) -> Option<&str> {
    let dot = text.len().checked_sub(ZONE.len() + 1)?;
    let (rest, zone) = text.split_at_checked(dot)?;
    let zone = zone.strip_prefix('.')?;
    zone.eq_ignore_ascii_case(ZONE).then_some(rest)
}

/// Reads `[[<hostname>.]<cluster>.]<service>.<namespace>`.
pub(super) fn scoped_service(text: &str) -> Result<(Scope, ServiceId), NameError> {
    let mut labels = text.rsplit('.');
    let shape = || NameError::Shape {
        labels: text.split('.').count(),
    };
    let namespace = Label::parse(labels.next().ok_or_else(shape)?)?.into();
    let service = ServiceName::parse(labels.next().ok_or_else(shape)?)?;
    let scope = match (labels.next(), labels.next(), labels.next()) {
        (None, ..) => Scope::Any,
        (Some(cluster), None, _) => Scope::Cluster(ClusterName::parse(cluster)?),
        (Some(cluster), Some(hostname), None) => Scope::Pod {
            hostname: Label::parse(hostname)?,
            cluster: ClusterName::parse(cluster)?,
        },
        (Some(_), Some(_), Some(_)) => return Err(shape()),
    };
    Ok((scope, ServiceId { service, namespace }))
}
