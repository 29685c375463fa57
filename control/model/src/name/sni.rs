//! What a TLS client asked for by server name.

use std::fmt;

use crate::name::route::{ZoneLabels, scoped_service};
use crate::name::{DnsName, NameError, PortNumber, RouteName, Scope, ServiceId, ZONE, port};
use crate::text::text_form;

/// A service without a port, which then must have a single port that speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopedService {
    /// Which clusters may answer.
    pub scope: Scope,
    /// The service.
    pub service: ServiceId,
}

impl fmt::Display for ScopedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}.{ZONE}", self.scope, self.service)
    }
}

/// A server name, sorted by what it can mean here.
///
/// In front of a service a label of digits is always a port, never a cluster or a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SniName {
    /// A service port.
    Route(RouteName),
    /// A service whose port is left to the only one that speaks TLS.
    Service(ScopedService),
    /// Any other host name; exports and routes may list such.
    Other(DnsName),
}

impl SniName {
    /// Reads a server name; one root dot is dropped, ASCII upper case is folded.
    ///
    /// # Errors
    /// The rule that was broken, also for names of the zone in a form that no route has.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let Some(labels) = ZoneLabels::split(text)? else {
            return DnsName::parse(text).map(Self::Other);
        };
        let (first, rest) = labels.rest.split_once('.').ok_or(NameError::Shape {
            labels: labels.count,
        })?;
        if port::is_decimal(first) || labels.count >= 5 {
            if !(3..=5).contains(&labels.count) {
                return Err(NameError::Shape {
                    labels: labels.count,
                });
            }
            let port = PortNumber::parse(first)?;
            let (scope, service) = scoped_service(rest)?;
            return Ok(Self::Route(RouteName {
                port,
                scope,
                service,
            }));
        }
        let (scope, service) = scoped_service(labels.rest)?;
        Ok(Self::Service(ScopedService { scope, service }))
    }
}

impl fmt::Display for SniName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(name) => name.fmt(f),
            Self::Service(service) => service.fmt(f),
            Self::Other(name) => name.fmt(f),
        }
    }
}

text_form!(SniName, NameError, "a server name");
