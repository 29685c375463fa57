//! Short ways to write down names, routes and exports in tests.

use std::net::SocketAddr;

use crate::{
    AddressSource, Candidate, ClusterName, DnsName, Endpoint, Export, Locality, PortNumber,
    Protocol, Replay, Route, RouteName, SniName, Target, ZONE,
};

pub(crate) fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

pub(crate) fn port(port: u16) -> PortNumber {
    PortNumber::new(port).unwrap()
}

pub(crate) fn dns(name: &str) -> DnsName {
    DnsName::parse(name).unwrap()
}

pub(crate) fn sni(name: &str) -> SniName {
    SniName::parse(name).unwrap()
}

/// A route name without its zone: `name("443.payments.shop")`.
pub(crate) fn name(front: &str) -> RouteName {
    RouteName::parse(&format!("{front}.{ZONE}")).unwrap()
}

/// A TCP route without its zone, with clusters or addresses as candidates of equal weight.
pub(crate) fn route(front: &str, targets: &[&str]) -> Route {
    Route {
        name: name(front),
        protocol: Protocol::Tcp,
        import_port: None,
        sni_names: Vec::new(),
        tls: false,
        replay: Replay::Never,
        candidates: targets.iter().map(|target| candidate(target)).collect(),
    }
}

fn candidate(target: &str) -> Candidate {
    let target = match target.parse::<SocketAddr>() {
        Ok(address) => Target::Endpoint(address),
        Err(_) => Target::Cluster(cluster(target)),
    };
    Candidate {
        target,
        weight: 1,
        priority: 0,
        locality: Locality::default(),
    }
}

/// A TCP export of `front` (port, service and namespace) to `audience`.
pub(crate) fn export(front: &str, audience: &[&str]) -> Export {
    let name = name(front);
    let address = SocketAddr::from(([10, 0, 0, 1], name.port.get()));
    Export {
        service: name.service,
        port: name.port,
        protocol: Protocol::Tcp,
        endpoints: vec![
            Endpoint::new(address, Locality::default(), AddressSource::Learned).unwrap(),
        ],
        audience: audience.iter().map(|peer| cluster(peer)).collect(),
        sni_names: Vec::new(),
        tls: false,
        direct: None,
        max_streams: None,
    }
}
