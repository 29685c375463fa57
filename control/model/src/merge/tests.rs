use std::net::SocketAddr;

use super::*;
use crate::endpoint::AddressSource;
use crate::testing::{cluster, dns, name, port};

mod reference;

const TCP: Protocol = Protocol::Tcp;

fn web() -> ServiceId {
    "web.shop".parse().unwrap()
}

/// An offer of `web.shop` with port 80.
fn offer(exported_at_ms: u64, ready: u32) -> Offer {
    Offer {
        service: web(),
        kind: ServiceKind::ClusterSetIp,
        ports: vec![offered(80)],
        exported_at_ms,
        ready,
        headroom: None,
        zones: BTreeMap::new(),
    }
}

fn offered(number: u16) -> OfferedPort {
    OfferedPort {
        port: port(number),
        protocol: TCP,
        name: None,
        tls: false,
        replay: Replay::Never,
        sni_names: Vec::new(),
    }
}

fn endpoint(address: &str) -> Endpoint {
    let address: SocketAddr = address.parse().unwrap();
    Endpoint::new(address, Locality::default(), AddressSource::Learned).unwrap()
}

/// Our own `web.shop` with two endpoints on port 80.
fn own(exported_at_ms: Option<u64>) -> OwnService {
    let port_80 = OwnPort {
        endpoints: vec![endpoint("10.0.0.2:80"), endpoint("10.0.0.1:80")],
        ..OwnPort::default()
    };
    OwnService {
        exported_at_ms,
        kind: ServiceKind::ClusterSetIp,
        ports: BTreeMap::from([((port(80), TCP), port_80)]),
    }
}

/// Merges at `home`, with fresh offers of these peers.
fn at_home(
    own: Option<&OwnService>,
    peers: &[(&str, &Offer)],
    imports: &BTreeMap<PortNumber, ImportRule>,
) -> Merged {
    let peers = peers.iter().map(|(peer, offer)| {
        let is_last = false;
        (cluster(peer), Offered { offer, is_last })
    });
    merge(&cluster("home"), &web(), own, &peers.collect(), imports)
}

fn unruled() -> BTreeMap<PortNumber, ImportRule> {
    BTreeMap::new()
}

/// The candidates of the only route, as `target*weight@priority`.
fn candidates(merged: &Merged) -> Vec<String> {
    let [route] = merged.routes.as_slice() else {
        panic!("one route: {merged:?}");
    };
    assert_eq!(route.name, name("80.web.shop"));
    let shown = |one: &Candidate| format!("{}*{}@{}", one.target, one.weight, one.priority);
    route.candidates.iter().map(shown).collect()
}

#[test]
fn a_route_leads_to_own_endpoints_and_to_each_peer_by_its_ready_endpoints() {
    let merged = at_home(
        Some(&own(Some(5))),
        &[("west", &offer(1, 7)), ("east", &offer(2, 1))],
        &unruled(),
    );
    assert_eq!(
        candidates(&merged),
        ["10.0.0.1:80*1@0", "10.0.0.2:80*1@0", "east*1@0", "west*7@0"]
    );
    assert_eq!(merged.conflicts, []);
}

#[test]
fn a_peer_with_nothing_ready_is_tried_last_and_one_that_boasts_counts_for_no_more_than_the_limit() {
    let merged = at_home(
        None,
        &[("east", &offer(1, 0)), ("west", &offer(2, u32::MAX))],
        &unruled(),
    );
    assert_eq!(candidates(&merged), ["east*0@0", "west*65535@0"]);
}

#[test]
fn a_peer_that_is_stale_or_drained_is_used_when_nobody_else_is_left() {
    let offer = offer(1, 3);
    let peers = [("east", true), ("west", false)].map(|(peer, is_last)| {
        let offer = &offer;
        (cluster(peer), Offered { offer, is_last })
    });
    let merged = merge(&cluster("home"), &web(), None, &peers.into(), &unruled());
    assert_eq!(candidates(&merged), ["east*3@255", "west*3@0"]);
}

#[test]
fn an_own_service_joins_only_if_it_is_exported_or_imported() {
    let west = offer(1, 1);
    let peers = [("west", &west)];
    let merged = at_home(Some(&own(None)), &peers, &unruled());
    assert_eq!(candidates(&merged), ["west*1@0"]);

    let imports = BTreeMap::from([(port(80), ImportRule::default())]);
    let merged = at_home(Some(&own(None)), &peers, &imports);
    assert_eq!(
        candidates(&merged),
        ["10.0.0.1:80*1@0", "10.0.0.2:80*1@0", "west*1@0"]
    );

    let elsewhere = BTreeMap::from([(port(81), ImportRule::default())]);
    let merged = at_home(Some(&own(None)), &peers, &elsewhere);
    assert_eq!(candidates(&merged), ["west*1@0"]);
}

#[test]
fn a_service_that_is_not_exported_disagrees_with_nobody() {
    let mut own = own(None);
    own.ports.get_mut(&(port(80), TCP)).unwrap().tls = true;
    let imports = BTreeMap::from([(port(80), ImportRule::default())]);
    let merged = at_home(Some(&own), &[("west", &offer(9, 1))], &imports);
    assert_eq!(merged.conflicts, []);
    assert!(!merged.routes[0].tls);

    let alone = at_home(Some(&own), &[], &imports);
    assert!(alone.routes[0].tls);
}

#[test]
fn ports_are_the_union_of_what_clusters_have() {
    let mut west = offer(1, 1);
    west.ports = vec![offered(80), offered(443)];
    let mut east = offer(2, 2);
    let udp = OfferedPort {
        protocol: Protocol::Udp,
        ..offered(80)
    };
    east.ports = vec![udp];
    let merged = at_home(None, &[("west", &west), ("east", &east)], &unruled());
    let shown: Vec<String> = merged
        .routes
        .iter()
        .map(|route| {
            let candidates = route.candidates.iter().map(|one| one.target.to_string());
            let targets: Vec<String> = candidates.collect();
            format!(
                "{}/{} {}",
                route.name.port,
                route.protocol,
                targets.join("+")
            )
        })
        .collect();
    assert_eq!(shown, ["80/tcp west", "80/udp east", "443/tcp west"]);
    assert_eq!(merged.conflicts, []);
}

#[test]
fn the_oldest_export_decides_and_then_the_lower_name() {
    let plain = offer(5, 1);
    let mut secure = offer(5, 1);
    secure.ports[0].tls = true;
    secure.ports[0].replay = Replay::Idempotent;
    secure.ports[0].sni_names = vec![dns("www.example.com")];
    for (east, west, decided_by, tls) in [
        (&plain, &secure, "east", false),
        (&secure, &plain, "east", true),
        (
            &Offer {
                exported_at_ms: 6,
                ..plain.clone()
            },
            &secure,
            "west",
            true,
        ),
    ] {
        let merged = at_home(None, &[("east", east), ("west", west)], &unruled());
        let route = &merged.routes[0];
        assert_eq!((route.tls, route.sni_names.len()), (tls, usize::from(tls)));
        assert_eq!(route.replay == Replay::Idempotent, tls);
        let other = if decided_by == "east" { "west" } else { "east" };
        let conflict = |property| MergeConflict {
            port: Some((port(80), TCP)),
            property,
            decided_by: cluster(decided_by),
            against: BTreeSet::from([cluster(other)]),
        };
        assert_eq!(
            merged.conflicts,
            [Property::Tls, Property::Replay, Property::SniNames].map(conflict)
        );
    }
}

#[test]
fn a_conflict_can_be_printed() {
    let conflict = MergeConflict {
        port: Some((port(80), TCP)),
        property: Property::Tls,
        decided_by: cluster("east"),
        against: BTreeSet::from([cluster("north"), cluster("west")]),
    };
    assert_eq!(
        conflict.to_string(),
        "port 80/tcp: east decides whether it speaks TLS, against north, west"
    );
}

#[test]
fn server_names_are_compared_as_a_set() {
    let with = |names: [&str; 2]| {
        let mut offer = offer(1, 1);
        offer.ports[0].sni_names = names.map(dns).into();
        offer
    };
    let (east, west) = (
        with(["a.example.com", "b.example.com"]),
        with(["b.example.com", "a.example.com"]),
    );
    let merged = at_home(None, &[("east", &east), ("west", &west)], &unruled());
    assert_eq!(merged.conflicts, []);
    assert_eq!(
        merged.routes[0].sni_names,
        [dns("a.example.com"), dns("b.example.com")]
    );
}

#[test]
fn a_headless_service_makes_no_route_yet_and_a_younger_one_of_that_kind_takes_none_away() {
    let headless = |exported_at_ms| Offer {
        kind: ServiceKind::Headless,
        ..offer(exported_at_ms, 1)
    };
    let merged = at_home(None, &[("west", &headless(1))], &unruled());
    assert_eq!(merged, Merged::default());

    let conflict = |decided_by, against| MergeConflict {
        port: None,
        property: Property::Kind,
        decided_by: cluster(decided_by),
        against: BTreeSet::from([cluster(against)]),
    };
    let (older, younger) = (headless(1), headless(9));
    let merged = at_home(Some(&own(Some(5))), &[("west", &younger)], &unruled());
    assert_eq!(candidates(&merged), ["10.0.0.1:80*1@0", "10.0.0.2:80*1@0"]);
    assert_eq!(merged.conflicts, [conflict("home", "west")]);

    let merged = at_home(Some(&own(Some(5))), &[("west", &older)], &unruled());
    assert_eq!(merged.routes, []);
    assert_eq!(merged.conflicts, [conflict("west", "home")]);
}

#[test]
fn an_import_sets_shares_order_replay_names_and_tls() {
    let share = |weight, priority| Share { weight, priority };
    let rule = ImportRule {
        shares: BTreeMap::from([
            (cluster("home"), share(2, 1)),
            (cluster("west"), share(30, 2)),
            (cluster("north"), share(5, 0)),
        ]),
        replay: Some(Replay::Idempotent),
        sni_names: vec![dns("www.example.com")],
        tls: true,
    };
    let imports = BTreeMap::from([(port(80), rule)]);
    let (west, east, north) = (offer(1, 1), offer(2, 4), offer(3, 0));
    let merged = at_home(
        Some(&own(Some(5))),
        &[("west", &west), ("east", &east), ("north", &north)],
        &imports,
    );
    assert_eq!(
        candidates(&merged),
        [
            "10.0.0.1:80*2@1",
            "10.0.0.2:80*2@1",
            "east*4@0",
            "north*0@0",
            "west*30@2"
        ]
    );
    let route = &merged.routes[0];
    assert_eq!(
        (route.replay, route.tls, route.sni_names.as_slice()),
        (Replay::Idempotent, true, &[dns("www.example.com")][..])
    );
}

#[test]
fn what_is_merged_always_fits_into_one_table() {
    let mut own = own(Some(1));
    let port_80 = own.ports.get_mut(&(port(80), TCP)).unwrap();
    // The same address twice, a name of the zone, a name on UDP.
    port_80.endpoints.push(endpoint("10.0.0.1:80"));
    port_80.sni_names = vec![dns("80.dns.kube-system.svc.clusterset.local")];
    let on_udp = OwnPort {
        sni_names: vec![dns("www.example.com")],
        ..OwnPort::default()
    };
    own.ports.insert((port(80), Protocol::Udp), on_udp);
    let mut west = offer(2, 1);
    west.ports[0].sni_names = vec![dns("80.web.shop.svc.clusterset.local")];
    let merged = at_home(Some(&own), &[("west", &west), ("home", &west)], &unruled());
    let table = crate::RouteTable::build(&cluster("home"), merged.routes);
    assert!(table.is_ok(), "{table:?}");
}
