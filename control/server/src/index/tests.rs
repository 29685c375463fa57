use corinth_model::{AddressSource, Direct, DnsName, Endpoint, ExportTable, Locality, TrustDomain};

use super::*;
use crate::cluster::{DeclaredExport, DeclaredLink};

fn name(text: &str) -> ClusterName {
    text.parse().unwrap()
}

fn service(text: &str) -> ServiceId {
    text.parse().unwrap()
}

fn endpoint(address: &str, zone: &str) -> Endpoint {
    let locality = Locality {
        zone: Some(zone.into()),
        ..Locality::default()
    };
    Endpoint::new(address.parse().unwrap(), locality, AddressSource::OwnConfig).unwrap()
}

fn link(peer: &str, mode: LinkMode) -> (ClusterName, DeclaredLink) {
    let link = DeclaredLink {
        trust_domain: TrustDomain::of_cluster(&name(peer)),
        roots: Vec::new(),
        bundle_sequence: 1,
        addresses: Vec::new(),
        accepted: corinth_model::Accepted::default(),
        max_streams: None,
        quota: None,
        mode,
        carriage: corinth_model::Carriage::default(),
    };
    (name(peer), link)
}

/// `web.shop` with two endpoints, linked with west (active), north (draining) and south (paused).
fn declared(to: Audience) -> Declared {
    let port = DeclaredPort {
        endpoints: vec![endpoint("10.0.0.1:80", "a"), endpoint("10.0.0.2:80", "a")],
        ..DeclaredPort::default()
    };
    let key = (PortNumber::new(80).unwrap(), Protocol::Tcp);
    let web = DeclaredService {
        ports: BTreeMap::from([(key, port)]),
    };
    Declared {
        services: BTreeMap::from([(service("web.shop"), web)]),
        exports: BTreeMap::from([(service("web.shop"), DeclaredExport { to, since_ms: 5 })]),
        links: BTreeMap::from([
            link("west", LinkMode::Active),
            link("north", LinkMode::Draining),
            link("south", LinkMode::Paused),
        ]),
        ..Declared::default()
    }
}

#[test]
fn an_export_to_all_is_open_to_every_link_that_is_not_paused() {
    let declared = declared(Audience::All);
    let open = BTreeSet::from([name("north"), name("west")]);
    assert_eq!(audience(&declared, &service("web.shop")), open);
    let offers = offers(&declared);
    assert_eq!(offers[&name("west")].len(), 1);
    assert_eq!(offers[&name("south")].len(), 0);
}

#[test]
fn clusters_that_are_not_linked_get_nothing() {
    let declared = declared(Audience::Only(BTreeSet::from([name("west"), name("mars")])));
    assert_eq!(
        audience(&declared, &service("web.shop")),
        BTreeSet::from([name("west")])
    );
    assert!(!offers(&declared).contains_key(&name("mars")));
}

#[test]
fn an_offer_tells_how_many_endpoints_there_are_and_where_but_not_which() {
    let offers = offers(&declared(Audience::All));
    let offer = &offers[&name("west")][&service("web.shop")];
    assert_eq!((offer.ready, offer.exported_at_ms), (2, 5));
    assert_eq!(offer.zones, BTreeMap::from([("a".into(), 2)]));
}

#[test]
fn what_is_not_exported_is_no_entry_unless_open_to_direct_clients() {
    let mut declared = declared(Audience::Only(BTreeSet::new()));
    assert_eq!(exports(&declared), []);
    let web = declared.services.get_mut(&service("web.shop")).unwrap();
    for port in web.ports.values_mut() {
        port.direct = Some(Direct::Passthrough { sources: vec![] });
    }
    assert_eq!(exports(&declared).len(), 1);
}

#[test]
fn a_port_may_be_open_to_fewer_than_its_service() {
    let mut declared = declared(Audience::All);
    let web = declared.services.get_mut(&service("web.shop")).unwrap();
    let admin = DeclaredPort {
        endpoints: vec![endpoint("10.0.0.1:9090", "a")],
        only: Some(BTreeSet::from([name("north")])),
        ..DeclaredPort::default()
    };
    let key = (PortNumber::new(9090).unwrap(), Protocol::Tcp);
    web.ports.insert(key, admin);
    let offers = offers(&declared);
    let ports = |peer: &str| offers[&name(peer)][&service("web.shop")].ports.len();
    assert_eq!((ports("north"), ports("west")), (2, 1));
    let exports = exports(&declared);
    let admin = exports.iter().find(|export| export.port == key.0).unwrap();
    assert_eq!(admin.audience, BTreeSet::from([name("north")]));
}

#[test]
fn an_export_of_nothing_is_told() {
    let mut declared = declared(Audience::All);
    declared.services.clear();
    assert_eq!(unknown(&declared), BTreeSet::from([service("web.shop")]));
    assert_eq!(offers(&declared)[&name("west")].len(), 0);
}

#[test]
fn of_two_services_with_one_server_name_the_one_exported_first_has_it() {
    let mut declared = declared(Audience::All);
    let names = vec![DnsName::parse("www.example.com").unwrap()];
    for port in declared
        .services
        .values_mut()
        .flat_map(|web| web.ports.values_mut())
    {
        port.sni_names.clone_from(&names);
    }
    let web = declared.services[&service("web.shop")].clone();
    declared.services.insert(service("api.shop"), web);
    let export = DeclaredExport {
        to: Audience::All,
        since_ms: 6,
    };
    declared.exports.insert(service("api.shop"), export);
    let exports = exports(&declared);
    let with_name = exports.iter().filter(|export| export.sni_names == names);
    let with_name: Vec<_> = with_name.map(|export| &export.service).collect();
    assert_eq!(with_name, [&service("web.shop")]);
    ExportTable::build(&name("east"), exports).expect("they fit into one table");
}
