//! The rules once more, as slow and plain as they can be written, against random clusters.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::{option, prelude::*};

use super::*;

/// One cluster as the reference sees it: ours too, if it takes part.
struct Cluster<'a> {
    name: &'a ClusterName,
    exported_at_ms: Option<u64>,
    kind: ServiceKind,
    ports: Vec<(u16, Protocol, bool, Replay, BTreeSet<DnsName>)>,
}

/// What decides at one port: the tls, replay and names of the oldest export of the kind that the oldest export has.
fn decided(
    home: &ClusterName,
    own: Option<&OwnService>,
    peers: &BTreeMap<ClusterName, Offered<'_>>,
    key: (PortNumber, Protocol),
) -> Option<(bool, Replay, BTreeSet<DnsName>)> {
    let mut clusters: Vec<Cluster<'_>> = peers
        .iter()
        .map(|(name, told)| Cluster {
            name,
            exported_at_ms: Some(told.offer.exported_at_ms),
            kind: told.offer.kind,
            ports: told
                .offer
                .ports
                .iter()
                .map(|port| {
                    let names = port.sni_names.iter().cloned().collect();
                    (port.port.get(), port.protocol, port.tls, port.replay, names)
                })
                .collect(),
        })
        .collect();
    clusters.extend(own.map(|own| {
        Cluster {
            name: home,
            exported_at_ms: own.exported_at_ms,
            kind: own.kind,
            ports: own
                .ports
                .iter()
                .map(|((number, protocol), port)| {
                    let names = port.sni_names.iter().cloned().collect();
                    (number.get(), *protocol, port.tls, port.replay, names)
                })
                .collect(),
        }
    }));
    // Those that export go before those that do not, then age, then name.
    clusters.sort_by_key(|one| (one.exported_at_ms.unwrap_or(u64::MAX), one.name));
    let kind = clusters.first()?.kind;
    clusters
        .into_iter()
        .filter(|one| one.kind == kind && kind == ServiceKind::ClusterSetIp)
        .flat_map(|one| one.ports)
        .find(|port| (port.0, port.1) == (key.0.get(), key.1))
        .map(|(_, _, tls, replay, names)| (tls, replay, names))
}

proptest! {
    #[test]
    fn properties_of_a_port_are_those_of_its_oldest_export(world in worlds()) {
        let merged = world.merge();
        let peers = world.peers();
        let own = world.own.as_ref();
        let expected = |key: (PortNumber, Protocol)| {
            let takes_part = own.filter(|own| {
                own.exported_at_ms.is_some() || world.imports.contains_key(&key.0)
            });
            // What is not exported has no say in the kind unless nobody exports.
            let takes_part = takes_part.filter(|own| {
                own.exported_at_ms.is_some() || peers.is_empty() || kind_of(&peers) == own.kind
            });
            decided(&world.home, takes_part, &peers, key)
        };
        let asks = |number: u16, name: &DnsName| {
            let rule = world.imports.get(&port(number));
            rule.is_some_and(|rule| rule.sni_names.contains(name))
        };
        for number in PORTS {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let key = (port(number), protocol);
                let expected_here = expected(key);
                let route = merged.routes.iter().find(|route| {
                    (route.name.port, route.protocol) == key
                });
                prop_assert_eq!(route.is_some(), expected_here.is_some(), "{:?}", key);
                let (Some(route), Some((tls, replay, names))) = (route, expected_here) else {
                    continue;
                };
                let rule = world.imports.get(&key.0).cloned().unwrap_or_default();
                let mut names = names;
                names.extend(rule.sni_names.iter().cloned());
                if protocol == Protocol::Udp {
                    names.clear();
                }
                // A name at both ports is that of 80, unless only the rule of 443 asks for it.
                let other = if number == 80 { 443 } else { 80 };
                if let Some((_, _, others)) = expected((port(other), Protocol::Tcp)) {
                    names.retain(|name| {
                        let is_there = others.contains(name) || asks(other, name);
                        let is_of_80 = asks(80, name) || !asks(443, name);
                        !is_there || (number == 80) == is_of_80
                    });
                }
                prop_assert_eq!(route.tls, tls || rule.tls);
                prop_assert_eq!(route.replay, rule.replay.unwrap_or(replay));
                prop_assert_eq!(&route.sni_names, &names.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_order_of_arrival_makes_no_difference(world in worlds(), order in any::<u64>()) {
        let mut told: Vec<_> = world.told.iter().collect();
        // Some say it twice, and say something else before.
        let old = Offer { ready: 99, exported_at_ms: 0, ..offer(0, 1) };
        let mut peers = BTreeMap::new();
        for peer in world.told.keys() {
            peers.insert(peer.clone(), Offered { offer: &old, is_last: true });
        }
        let mut random = order;
        while !told.is_empty() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (peer, (offer, is_last)) = told.remove((random >> 33) as usize % told.len());
            peers.insert(peer.clone(), Offered { offer, is_last: *is_last });
        }
        let merged = merge(&world.home, &web(), world.own.as_ref(), &peers, &world.imports);
        prop_assert_eq!(merged, world.merge());
    }

    #[test]
    fn a_peer_that_joins_adds_itself_and_takes_no_candidate_away(world in worlds()) {
        let all = world.merge();
        for leaves in world.told.keys() {
            let mut without = world.clone();
            without.told.remove(leaves);
            if without.kind() != world.kind() {
                continue;
            }
            for route in without.merge().routes {
                let after = all.routes.iter().find(|after| {
                    (&after.name, after.protocol) == (&route.name, route.protocol)
                });
                let after = after.map(|after| {
                    let others = after.candidates.iter().filter(|one| {
                        one.target != Target::Cluster(leaves.clone())
                    });
                    others.cloned().collect::<Vec<_>>()
                });
                prop_assert_eq!(after, Some(route.candidates));
            }
        }
    }

    #[test]
    fn what_is_said_of_another_service_changes_nothing(world in worlds(), other in offers()) {
        let other = Offer { service: "db.shop".parse().unwrap(), ..other };
        let mut peers = world.peers();
        peers.insert(cluster("yankee"), Offered { offer: &other, is_last: false });
        let merged = merge(&world.home, &web(), world.own.as_ref(), &peers, &world.imports);
        prop_assert_eq!(merged, world.merge());
    }

    #[test]
    fn whoever_is_named_in_a_conflict_exports_and_does_not_decide(world in worlds()) {
        let merged = world.merge();
        for conflict in &merged.conflicts {
            prop_assert!(!conflict.against.is_empty());
            prop_assert!(!conflict.against.contains(&conflict.decided_by));
            let exports = |one: &ClusterName| {
                world.told.contains_key(one)
                    || (*one == world.home
                        && world.own.as_ref().is_some_and(|own| own.exported_at_ms.is_some()))
            };
            prop_assert!(conflict.against.iter().all(exports), "{:?}", conflict);
        }
        let mut distinct = merged.conflicts.clone();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), merged.conflicts.len());
    }

    #[test]
    fn every_merge_fits_into_one_table(world in worlds()) {
        let table = crate::RouteTable::build(&world.home, world.merge().routes);
        prop_assert!(table.is_ok(), "{:?}", table);
    }
}

const PORTS: [u16; 2] = [80, 443];

fn kind_of(peers: &BTreeMap<ClusterName, Offered<'_>>) -> ServiceKind {
    let age =
        |(peer, told): &(&ClusterName, &Offered<'_>)| (told.offer.exported_at_ms, (*peer).clone());
    let oldest = peers.iter().min_by_key(age);
    oldest.expect("there are peers").1.offer.kind
}

#[derive(Debug, Clone)]
struct World {
    home: ClusterName,
    own: Option<OwnService>,
    told: BTreeMap<ClusterName, (Offer, bool)>,
    imports: BTreeMap<PortNumber, ImportRule>,
}

impl World {
    fn peers(&self) -> BTreeMap<ClusterName, Offered<'_>> {
        let told = self.told.iter();
        told.map(|(peer, (offer, is_last))| {
            let is_last = *is_last;
            (peer.clone(), Offered { offer, is_last })
        })
        .collect()
    }

    fn merge(&self) -> Merged {
        let own = self.own.as_ref();
        merge(&self.home, &web(), own, &self.peers(), &self.imports)
    }

    /// That of the oldest export.
    fn kind(&self) -> Option<ServiceKind> {
        let mut conflicts = Vec::new();
        let peers = self.peers();
        let peers: Vec<_> = peers.iter().collect();
        decide_kind(&self.home, self.own.as_ref(), &peers, &mut conflicts)
    }
}

fn worlds() -> impl Strategy<Value = World> {
    let told = btree_map(clusters(), (offers(), any::<bool>()), 0..5);
    (own_services(), told, imports()).prop_map(|(own, told, imports)| World {
        home: cluster("home"),
        own,
        told,
        imports,
    })
}

fn clusters() -> impl Strategy<Value = ClusterName> {
    prop::sample::select(&["alpha", "bravo", "charlie", "kilo", "zulu"][..]).prop_map(cluster)
}

fn kinds() -> impl Strategy<Value = ServiceKind> {
    prop_oneof![
        4 => Just(ServiceKind::ClusterSetIp),
        1 => Just(ServiceKind::Headless),
    ]
}

fn keys() -> impl Strategy<Value = (PortNumber, Protocol)> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (prop::sample::select(&PORTS[..]).prop_map(port), protocol)
}

fn replays() -> impl Strategy<Value = Replay> {
    prop_oneof![Just(Replay::Never), Just(Replay::Idempotent)]
}

fn name_sets() -> impl Strategy<Value = Vec<DnsName>> {
    let name = prop::sample::select(&["a.example.com", "b.example.com"][..]).prop_map(dns);
    btree_set(name, 0..3).prop_map(|names| names.into_iter().collect())
}

fn offers() -> impl Strategy<Value = Offer> {
    let rest = (any::<bool>(), replays(), name_sets());
    (kinds(), btree_map(keys(), rest, 0..4), 0..4_u64, 0..4_u32).prop_map(
        |(kind, ports, exported_at_ms, ready)| {
            let port = |((port, protocol), (tls, replay, sni_names))| OfferedPort {
                port,
                protocol,
                name: None,
                tls,
                replay,
                sni_names,
            };
            Offer {
                kind,
                ports: ports.into_iter().map(port).collect(),
                ..offer(exported_at_ms, ready)
            }
        },
    )
}

fn own_services() -> impl Strategy<Value = Option<OwnService>> {
    let address = (1..4_u8).prop_map(|last| endpoint(&format!("10.0.0.{last}:80")));
    let one = (vec(address, 0..4), any::<bool>(), replays(), name_sets());
    let one = one.prop_map(|(endpoints, tls, replay, sni_names)| OwnPort {
        endpoints,
        tls,
        replay,
        sni_names,
    });
    let service = (option::of(0..4_u64), kinds(), btree_map(keys(), one, 0..4));
    option::of(
        service.prop_map(|(exported_at_ms, kind, ports)| OwnService {
            exported_at_ms,
            kind,
            ports,
        }),
    )
}

fn imports() -> impl Strategy<Value = BTreeMap<PortNumber, ImportRule>> {
    let share = (1..9_u32, 0..3_u8).prop_map(|(weight, priority)| Share { weight, priority });
    let shares = btree_map(clusters(), share, 0..3);
    let rule = (shares, option::of(replays()), name_sets(), any::<bool>());
    let rule = rule.prop_map(|(shares, replay, sni_names, tls)| ImportRule {
        shares,
        replay,
        sni_names,
        tls,
    });
    btree_map(prop::sample::select(&PORTS[..]).prop_map(port), rule, 0..2)
}
