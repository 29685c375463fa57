//! Look-ups, conflicts and pins.

use std::collections::BTreeMap;

use crate::testing::{cluster, dns, export, name, port, route, sni};
use crate::{
    ExportTable, Peer, PeerConflict, PortNumber, Protocol, Refusal, Route, RouteConflict,
    RouteTable, Tables, Target, TrustDomain,
};

fn table(routes: Vec<Route>) -> RouteTable {
    RouteTable::build(&cluster("east"), routes).unwrap()
}

fn peer(trust_domain: &str) -> Peer {
    Peer {
        trust_domain: TrustDomain::parse(trust_domain).unwrap(),
        max_streams: 100,
    }
}

/// The name a server name leads to, and the targets of its candidates.
fn by_sni(table: &RouteTable, text: &str) -> Result<(String, Vec<String>), Refusal> {
    let route = table.by_sni(&sni(text))?;
    let targets = route
        .candidates
        .iter()
        .map(|candidate| candidate.target.to_string());
    Ok((route.name.to_string(), targets.collect()))
}

#[test]
fn a_route_is_found_by_name_and_protocol() {
    let mut datagrams = route("443.payments.shop", &["north"]);
    datagrams.protocol = Protocol::Udp;
    let table = table(vec![route("443.payments.shop", &["west"]), datagrams]);
    let target = |protocol| {
        let route = table.by_name(&name("443.payments.shop"), protocol).unwrap();
        route.candidates[0].target.clone()
    };
    assert_eq!(target(Protocol::Tcp), Target::Cluster(cluster("west")));
    assert_eq!(target(Protocol::Udp), Target::Cluster(cluster("north")));
    assert!(
        table
            .by_name(&name("80.payments.shop"), Protocol::Tcp)
            .is_none()
    );
    assert!(
        table
            .by_name(&name("443.west.payments.shop"), Protocol::Tcp)
            .is_none()
    );
}

#[test]
fn a_route_is_found_by_import_port_and_protocol() {
    let mut payments = route("443.payments.shop", &["west"]);
    payments.import_port = Some(port(20_000));
    let table = table(vec![payments, route("80.web.shop", &["west"])]);
    let found = table.by_import_port(port(20_000), Protocol::Tcp).unwrap();
    assert_eq!(found.name, name("443.payments.shop"));
    assert!(table.by_import_port(port(20_000), Protocol::Udp).is_none());
    assert!(table.by_import_port(port(20_001), Protocol::Tcp).is_none());
}

#[test]
fn a_server_name_leads_to_its_route() {
    let mut payments = route("8443.payments.shop", &["west"]);
    payments.tls = true;
    payments.sni_names = vec![dns("pay.example.com")];
    let table = table(vec![payments, route("80.payments.shop", &["west"])]);
    let payments = || {
        Ok((
            "8443.payments.shop.svc.clusterset.local".into(),
            vec!["west".into()],
        ))
    };
    for (text, expected) in [
        ("8443.payments.shop.svc.clusterset.local", payments()),
        ("8443.PAYMENTS.shop.svc.clusterset.local.", payments()),
        ("payments.shop.svc.clusterset.local", payments()),
        ("pay.example.com", payments()),
        (
            "9.payments.shop.svc.clusterset.local",
            Err(Refusal::UnknownRoute),
        ),
        (
            "ledger.shop.svc.clusterset.local",
            Err(Refusal::UnknownRoute),
        ),
        ("www.pay.example.com", Err(Refusal::UnknownRoute)),
        ("kubernetes.default.svc", Err(Refusal::UnknownRoute)),
        (
            "443.kubernetes.default.svc.clusterset.local",
            Err(Refusal::UnknownRoute),
        ),
        ("metadata.google.internal", Err(Refusal::UnknownRoute)),
    ] {
        assert_eq!(by_sni(&table, text), expected, "{text}");
    }
}

#[test]
fn a_name_without_port_needs_exactly_one_tls_port() {
    let text = "payments.shop.svc.clusterset.local";
    let tls = |front: &str| Route {
        tls: true,
        ..route(front, &["west"])
    };
    let datagrams = |front: &str| Route {
        protocol: Protocol::Udp,
        ..tls(front)
    };
    let port = |routes: Vec<Route>| {
        table(routes)
            .by_sni(&sni(text))
            .map(|route| route.name.port)
    };
    assert_eq!(
        port(vec![tls("8443.payments.shop")]),
        Ok(PortNumber::new(8443).unwrap())
    );
    assert_eq!(
        port(vec![route("443.payments.shop", &["west"])]),
        Ok(PortNumber::HTTPS)
    );
    let one = vec![
        route("443.payments.shop", &["west"]),
        route("80.payments.shop", &["west"]),
    ];
    assert_eq!(port(one), Ok(PortNumber::HTTPS));
    let one = vec![
        route("443.payments.shop", &["west"]),
        datagrams("443.payments.shop"),
    ];
    assert_eq!(port(one), Ok(PortNumber::HTTPS));
    let none = vec![route("80.payments.shop", &["west"])];
    assert_eq!(port(none), Err(Refusal::AmbiguousName));
    assert_eq!(
        port(vec![datagrams("443.payments.shop")]),
        Err(Refusal::AmbiguousName)
    );
    let two = vec![
        route("443.payments.shop", &["west"]),
        tls("8443.payments.shop"),
    ];
    assert_eq!(port(two), Err(Refusal::AmbiguousName));
    assert_eq!(port(vec![]), Err(Refusal::UnknownRoute));
}

#[test]
fn a_pinned_name_keeps_to_its_cluster() {
    let mut payments = route(
        "443.payments.shop",
        &["west", "north", "10.0.0.1:443", "10.0.0.2:443"],
    );
    payments.import_port = Some(port(20_000));
    payments.sni_names = vec![dns("pay.example.com")];
    let table = table(vec![
        payments,
        route("443.north.payments.shop", &["10.9.9.9:443"]),
    ]);
    let found = |front: &str, targets: &[&str]| {
        let targets = targets.iter().map(|target| (*target).to_owned()).collect();
        Ok((format!("{front}.svc.clusterset.local"), targets))
    };
    let unknown = Err(Refusal::UnknownRoute);
    for (front, expected) in [
        (
            "443.west.payments.shop",
            found("443.west.payments.shop", &["west"]),
        ),
        (
            "west.payments.shop",
            found("443.west.payments.shop", &["west"]),
        ),
        (
            "443.east.payments.shop",
            found("443.east.payments.shop", &["10.0.0.1:443", "10.0.0.2:443"]),
        ),
        // A route made for the pinned name comes before the one of any cluster.
        (
            "443.north.payments.shop",
            found("443.north.payments.shop", &["10.9.9.9:443"]),
        ),
        ("443.south.payments.shop", unknown.clone()),
        ("south.payments.shop", unknown.clone()),
        ("80.west.payments.shop", unknown.clone()),
        ("443.web-0.west.payments.shop", unknown),
    ] {
        assert_eq!(
            by_sni(&table, &format!("{front}.svc.clusterset.local")),
            expected,
            "{front}"
        );
    }
    let pinned = table
        .resolve(&name("443.west.payments.shop"), Protocol::Tcp)
        .unwrap();
    assert_eq!((pinned.import_port, pinned.sni_names.len()), (None, 0));
    let any = table
        .resolve(&name("443.payments.shop"), Protocol::Tcp)
        .unwrap();
    assert_eq!(any.candidates.len(), 4);
    let refusal = table.resolve(&name("443.west.payments.shop"), Protocol::Udp);
    assert_eq!(refusal.unwrap_err(), Refusal::UnknownRoute);
}

#[test]
fn a_pinned_name_without_port_may_mean_the_tls_port_of_any_cluster() {
    let plain = route("80.west.payments.shop", &["west"]);
    let text = "west.payments.shop.svc.clusterset.local";
    let both = table(vec![route("443.payments.shop", &["west"]), plain.clone()]);
    assert_eq!(
        both.by_sni(&sni(text)).unwrap().name,
        name("443.west.payments.shop")
    );
    assert_eq!(
        table(vec![plain]).by_sni(&sni(text)),
        Err(Refusal::AmbiguousName)
    );
}

#[test]
fn conflicting_routes_are_all_named() {
    let mut first = route("443.payments.shop", &["west", "west"]);
    first.import_port = Some(port(20_000));
    first.sni_names = vec![dns("pay.example.com")];
    let mut second = route("443.web.shop", &["west"]);
    second.import_port = Some(port(20_000));
    second.sni_names = vec![dns("pay.example.com"), dns("a.svc.clusterset.local")];
    let mut datagrams = route("53.dns.shop", &["west"]);
    datagrams.protocol = Protocol::Udp;
    datagrams.sni_names = vec![dns("dns.example.com")];
    let again = route("443.web.shop", &["north"]);

    let conflicts = RouteTable::build(&cluster("east"), vec![second, datagrams, again, first]);
    let (payments, web) = (name("443.payments.shop"), name("443.web.shop"));
    assert_eq!(
        conflicts.unwrap_err(),
        [
            RouteConflict::NotTcp {
                route: name("53.dns.shop")
            },
            RouteConflict::DuplicateTarget {
                target: Target::Cluster(cluster("west")),
                route: payments.clone(),
            },
            RouteConflict::DuplicateImportPort {
                port: port(20_000),
                protocol: Protocol::Tcp,
                first: payments.clone(),
                second: web.clone(),
            },
            RouteConflict::DuplicateSniName {
                sni: dns("pay.example.com"),
                first: payments,
                second: web.clone(),
            },
            RouteConflict::ReservedSniName {
                sni: dns("a.svc.clusterset.local"),
                route: web.clone(),
            },
            RouteConflict::DuplicateName {
                name: web,
                protocol: Protocol::Tcp
            },
        ]
    );
}

#[test]
fn routes_come_in_the_order_in_which_people_look_for_them() {
    let fronts = [
        "80.api.shop",
        "443.api.shop",
        "443.west.api.shop",
        "22.web.shop",
        "9.api.tools",
    ];
    let mut routes: Vec<_> = fronts.iter().map(|front| route(front, &["west"])).collect();
    let sorted = table(routes.clone());
    routes.reverse();
    assert_eq!(table(routes), sorted);
    let names: Vec<_> = sorted.iter().map(|route| route.name.to_string()).collect();
    let expected = [
        "80.api.shop.svc.clusterset.local",
        "443.api.shop.svc.clusterset.local",
        "443.west.api.shop.svc.clusterset.local",
        "9.api.tools.svc.clusterset.local",
        "22.web.shop.svc.clusterset.local",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_trust_domain_leads_to_its_cluster() {
    let peers = BTreeMap::from([
        (cluster("north"), peer("north.example")),
        (cluster("west"), peer("west.example")),
    ]);
    let own = cluster("east");
    let (routes, exports) = (RouteTable::empty(&own), ExportTable::empty(&own));
    let tables = Tables::build(own, peers, routes, exports, 7).unwrap();
    let cluster_of = |text| tables.cluster_of(&TrustDomain::parse(text).unwrap());
    assert_eq!(cluster_of("west.example"), Some(&cluster("west")));
    assert_eq!(cluster_of("north.example"), Some(&cluster("north")));
    assert_eq!(cluster_of("east.example"), None);
    assert_eq!(cluster_of("west.example.com"), None);
    assert_eq!(tables.revision, 7);
}

#[test]
fn conflicting_peers_are_all_named() {
    let peers = BTreeMap::from([
        (cluster("east"), peer("other.example")),
        (cluster("north"), peer("one.example")),
        (cluster("west"), peer("one.example")),
    ]);
    let own = cluster("east");
    let (routes, exports) = (RouteTable::empty(&own), ExportTable::empty(&own));
    assert_eq!(
        Tables::build(own, peers, routes, exports, 1).unwrap_err(),
        [
            PeerConflict::OwnName {
                cluster: cluster("east")
            },
            PeerConflict::SharedTrustDomain {
                trust_domain: TrustDomain::parse("one.example").unwrap(),
                first: cluster("north"),
                second: cluster("west"),
            },
        ]
    );
}

#[test]
fn tables_are_shown_as_lists_with_names_as_text() {
    let own = cluster("east");
    let peers = BTreeMap::from([(cluster("west"), peer("west.example"))]);
    let routes = RouteTable::build(&own, vec![route("443.payments.shop", &["west"])]).unwrap();
    let exports = ExportTable::build(&own, vec![export("80.web.shop", &["west"])]).unwrap();
    let tables = Tables::build(own, peers, routes, exports, 3).unwrap();
    let expected = serde_json::json!({
        "own": "east",
        "peers": { "west": { "trust_domain": "west.example", "max_streams": 100 } },
        "routes": [{
            "name": "443.payments.shop.svc.clusterset.local",
            "protocol": "tcp",
            "import_port": null,
            "sni_names": [],
            "tls": false,
            "replay": "never",
            "candidates": [
                { "target": { "cluster": "west" }, "weight": 1, "priority": 0, "locality": {} }
            ],
        }],
        "exports": [{
            "service": "web.shop",
            "port": 80,
            "protocol": "tcp",
            "endpoints": [{ "address": "10.0.0.1:80", "locality": {} }],
            "audience": ["west"],
            "sni_names": [],
            "tls": false,
            "direct": null,
            "max_streams": null,
        }],
        "revision": 3,
    });
    assert_eq!(serde_json::to_value(&tables).unwrap(), expected);
}
