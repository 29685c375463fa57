//! What a plane concludes from what it is told, without streams and files.

mod ports;

use corinth_api::peering::{Digester, Hello, PROTOCOL, State};
use corinth_identity::Authority;
use corinth_model::{
    Accepted, AddressSource, Carriage, DnsName, Endpoint, Locality, PortRange, Protocol, Target,
};
use rustls_pki_types::UnixTime;

use super::*;
use crate::cluster::{
    Audience, DeclaredExport, DeclaredImport, DeclaredPort, DeclaredService, SourceShare,
};
use crate::peering::OpenedBy;

const EAST: &str = "east";
const WEST: &str = "west";
const INSTANCE: Instance = Instance([1; 16]);

fn name(text: &str) -> ClusterName {
    text.parse().unwrap()
}

fn now() -> Now {
    Now {
        instant: Instant::now(),
        unix_ms: 1_800_000_000_000,
    }
}

fn plane() -> Plane {
    let port = |number| PortNumber::new(number).unwrap();
    let own = Own {
        cluster: name(EAST),
        trust_domain: TrustDomain::of_cluster(&name(EAST)),
        gateways: Vec::new(),
        slots: 1,
        roots: Arc::new([]),
        bundle_sequence: 0,
    };
    let terms = Terms {
        ports: PortAllocator {
            range: PortRange {
                first: port(20_000),
                last: port(20_100),
            },
            taken: BTreeSet::new(),
        },
        streams_per_peer: 10,
    };
    let version = Version {
        epoch: 1,
        revision: 0,
    };
    let (ports, learned) = (PortBook::default(), Learned::default());
    Plane::new(own, terms, (INSTANCE, version), ports, learned, INSTANCE)
}

fn root() -> Vec<u8> {
    let domain = TrustDomain::of_cluster(&name(WEST));
    let made = Authority::create(domain, UnixTime::now()).unwrap();
    made.root().to_vec()
}

fn link(roots: &[&[u8]], bundle_sequence: u64) -> DeclaredLink {
    DeclaredLink {
        trust_domain: TrustDomain::of_cluster(&name(WEST)),
        roots: roots.iter().map(|root| root.to_vec().into()).collect(),
        bundle_sequence,
        addresses: Vec::new(),
        accepted: Accepted::default(),
        max_streams: None,
        quota: None,
        mode: LinkMode::Active,
        carriage: Carriage::default(),
    }
}

/// `web.shop` is imported from west.
fn importing(mode: LinkMode) -> Declared {
    let share = SourceShare {
        weight: 3,
        priority: 1,
    };
    let import = DeclaredImport {
        sources: BTreeMap::from([(name(WEST), share)]),
        ..DeclaredImport::default()
    };
    let port = PortNumber::new(80).unwrap();
    let link = DeclaredLink {
        mode,
        ..link(&[], 0)
    };
    Declared {
        links: BTreeMap::from([(name(WEST), link)]),
        imports: BTreeMap::from([(("web.shop".parse().unwrap(), port), import)]),
        ..Declared::default()
    }
}

fn declare(plane: &mut Plane, link: DeclaredLink) -> Vec<Effect> {
    let declared = Declared {
        links: BTreeMap::from([(name(WEST), link)]),
        ..Declared::default()
    };
    set(plane, declared)
}

fn set(plane: &mut Plane, declared: Declared) -> Vec<Effect> {
    plane.set_declared(Arc::new(declared), |_| None, now())
}

/// West says hello and tells its roots.
fn tell(plane: &mut Plane, session: u64, roots: &[&[u8]], sequence: u64) -> Vec<Effect> {
    let hello = Hello {
        cluster: name(WEST),
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        own: State {
            instance: Instance([2; 16]),
            version: Version {
                epoch: 1,
                revision: 1,
            },
        },
        held: None,
    };
    let roots = roots.iter().map(|root| root.to_vec()).collect();
    let trust = Message::Trust {
        sequence,
        roots,
        held: Some(0),
    };
    let told = plane.relate(&name(WEST), now(), |relation| {
        let (id, now) = (SessionId(session), now());
        relation.handle_opened(id, OpenedBy::Peer, now.instant);
        for message in [Message::Hello(hello), trust] {
            relation.handle_message(id, message, now.instant, now.unix_ms);
        }
    });
    told.unwrap().1
}

/// Which of west's roots it is told that we hold.
fn said(plane: &mut Plane) -> Vec<Option<u64>> {
    let messages = std::iter::from_fn(|| plane.next_message(&name(WEST), Instant::now()));
    let mut said = Vec::new();
    for (_, message) in messages {
        if let Message::Trust { held, .. } = message {
            said.push(held);
        }
    }
    said
}

#[test]
fn roots_told_under_an_earlier_declaration_are_not_used_after_another_one() {
    let [first, told, other] = [root(), root(), root()];
    let mut plane = plane();
    declare(&mut plane, link(&[&first], 1));
    let effects = tell(&mut plane, 1, &[&first, &told], 9);
    assert!(effects.contains(&Effect::KeepRoots));
    assert_eq!(plane.roots(&name(WEST)), (vec![first, told], 9));

    // West lost everything and was linked again, without a word in between: its roots begin anew.
    let effects = declare(&mut plane, link(&[&other], 0));
    assert!(effects.contains(&Effect::KeepRoots));
    assert_eq!(plane.roots(&name(WEST)), (vec![other], 0));
}

#[test]
fn a_peer_hears_that_its_roots_are_held_once_they_are_written_down() {
    let [first, next] = [root(), root()];
    let mut plane = plane();
    declare(&mut plane, link(&[&first], 1));
    tell(&mut plane, 1, &[&first], 1);
    assert_eq!(said(&mut plane), [Some(1)]);
    tell(&mut plane, 2, &[&first, &next], 2);
    assert_eq!(said(&mut plane), [Some(1)]);
    let (_, changes) = plane.learned();
    let effects = plane.handle_roots_kept(changes);
    assert!(effects.contains(&Effect::Wake(name(WEST))));
    assert_eq!(said(&mut plane), [Some(2)]);
}

#[test]
fn roots_that_are_refused_are_not_said_to_be_held() {
    let [first, unrelated] = [root(), root()];
    let mut plane = plane();
    declare(&mut plane, link(&[&first], 1));
    tell(&mut plane, 1, &[&unrelated], 2);
    assert_eq!(said(&mut plane), [None]);
}

#[test]
fn a_link_declared_with_too_high_a_sequence_of_the_right_roots_works_and_follows_a_change_of_root()
{
    let [first, next] = [root(), root()];
    let mut plane = plane();
    declare(&mut plane, link(&[&first], 1));
    let effects = tell(&mut plane, 1, &[&first], 0);
    assert!(effects.contains(&Effect::KeepRoots));
    assert_eq!(plane.conditions().iter().count(), 0);
    let (_, changes) = plane.learned();
    plane.handle_roots_kept(changes);
    assert_eq!(said(&mut plane), [Some(0)]);
    tell(&mut plane, 2, &[&first, &next], 1);
    assert_eq!(plane.conditions().iter().count(), 0);
    assert_eq!(plane.roots(&name(WEST)), (vec![first, next], 1));
}

#[test]
fn a_new_instance_for_one_peer_is_kept_to_by_what_is_told_after_it() {
    let first = root();
    let mut plane = plane();
    declare(&mut plane, link(&[&first], 1));
    let fresh = Instance([7; 16]);
    plane.begin_anew(&name(WEST), fresh, now());
    declare(&mut plane, link(&[&first], 2));
    let told = |plane: &Plane| plane.peers()[&name(WEST)].relation.own_state();
    assert_eq!(told(&plane).map(|state| state.instance), Some(fresh));
    assert_eq!(plane.state().0, INSTANCE);
}

#[test]
fn an_import_that_names_a_silent_peer_has_it_as_a_candidate_until_it_tells_its_own_state() {
    let declared = importing;
    let candidates = |plane: &Plane| -> Vec<_> {
        let routes = plane.routes().flat_map(|(_, routes)| routes);
        let candidates = routes.flat_map(|route| &route.candidates);
        candidates
            .map(|one| (one.target.clone(), one.weight, one.priority))
            .collect()
    };
    let mut plane = plane();
    set(&mut plane, declared(LinkMode::Active));
    let west = Target::Cluster(name(WEST));
    assert_eq!(candidates(&plane), [(west, 3, 1)]);
    set(&mut plane, declared(LinkMode::Paused));
    assert_eq!(candidates(&plane), []);
    set(&mut plane, declared(LinkMode::Active));

    // It has a control plane after all, and offers nothing.
    tell(&mut plane, 1, &[], 0);
    assert_eq!(candidates(&plane).len(), 1);
    let state = State {
        instance: Instance([2; 16]),
        version: Version {
            epoch: 1,
            revision: 1,
        },
    };
    let snapshot = [
        Message::SnapshotBegin { state, services: 0 },
        Message::SnapshotEnd {
            version: state.version,
            digest: Digester::default().finish(),
        },
    ];
    plane.relate(&name(WEST), now(), |relation| {
        for message in snapshot {
            let now = now();
            relation.handle_message(SessionId(1), message, now.instant, now.unix_ms);
        }
    });
    let instant = plane.poll_timeout().unwrap();
    plane.handle_timeout(Now { instant, ..now() });
    assert_eq!(candidates(&plane), []);
}

/// Of which services it is shown that their import ports are closed, with why.
fn closed(plane: &Plane) -> Vec<(About, String)> {
    let standing = plane.conditions().iter();
    let closed = standing.filter(|(condition, ..)| *condition == Condition::ImportPortClosed);
    closed
        .map(|(_, about, _, words)| (about.clone(), words.to_owned()))
        .collect()
}

#[test]
fn an_import_port_that_a_gateway_cannot_listen_on_is_a_condition_of_its_service_while_it_cannot() {
    let mut plane = plane();
    set(&mut plane, importing(LinkMode::Active));
    let service: ServiceId = "web.shop".parse().unwrap();
    let port = PortNumber::new(80).unwrap();
    let given = plane.import_port(&service, port, Protocol::Tcp);
    let taken = BTreeMap::from([(given.unwrap(), "gateway/0: in use".to_owned())]);
    plane.set_closed_ports(taken, now());
    let about = About::service(&service);
    assert_eq!(closed(&plane), [(about, "gateway/0: in use".to_owned())]);
    plane.set_closed_ports(BTreeMap::new(), now());
    assert_eq!(closed(&plane), []);
}

#[test]
fn a_closed_port_that_another_service_gets_in_one_edit_is_a_condition_of_that_service() {
    let number = |number| PortNumber::new(number).unwrap();
    let [web, pay]: [ServiceId; 2] = ["web.shop", "pay.shop"].map(|text| text.parse().unwrap());
    let with_ports = |of_web: u16, of_pay: u16| {
        let mut declared = importing(LinkMode::Active);
        let import = declared.imports[&(web.clone(), number(80))].clone();
        for (service, port) in [(&web, of_web), (&pay, of_pay)] {
            let import = DeclaredImport {
                import_ports: [(Protocol::Tcp, number(port))].into(),
                ..import.clone()
            };
            let key = (service.clone(), number(80));
            declared.imports.insert(key, import);
        }
        declared
    };
    let mut plane = plane();
    set(&mut plane, with_ports(20_001, 20_002));
    let why = "gateway/0: in use";
    plane.set_closed_ports([(number(20_001), why.to_owned())].into(), now());
    assert_eq!(closed(&plane), [(About::service(&web), why.to_owned())]);

    // The gateway has nothing new to tell: the same port is closed.
    set(&mut plane, with_ports(20_002, 20_001));
    assert_eq!(closed(&plane), [(About::service(&pay), why.to_owned())]);
}

#[test]
fn of_two_own_services_with_one_server_name_the_same_has_it_near_and_far() {
    let port = (PortNumber::new(443).unwrap(), Protocol::Tcp);
    let name = DnsName::parse("pay.example.com").unwrap();
    let mut declared = importing(LinkMode::Active);
    for (service, since_ms) in [("a.shop", 9), ("b.shop", 5)] {
        let what = DeclaredPort {
            endpoints: vec![
                Endpoint::new(
                    "127.0.0.1:8443".parse().unwrap(),
                    Locality::default(),
                    AddressSource::OwnConfig,
                )
                .unwrap(),
            ],
            tls: true,
            sni_names: vec![name.clone()],
            ..DeclaredPort::default()
        };
        let service: ServiceId = service.parse().unwrap();
        let ports = [(port, what)].into();
        declared
            .services
            .insert(service.clone(), DeclaredService { ports });
        let to = Audience::All;
        declared
            .exports
            .insert(service, DeclaredExport { to, since_ms });
    }
    let far: Vec<_> = index::exports(&declared)
        .into_iter()
        .filter(|export| export.sni_names.contains(&name))
        .map(|export| export.service.to_string())
        .collect();
    let mut plane = plane();
    set(&mut plane, declared);
    let routes = plane.routes().flat_map(|(_, routes)| routes);
    let near: Vec<_> = routes
        .map(|route| plane.as_told(route))
        .filter(|route| route.sni_names.contains(&name))
        .map(|route| route.name.service.to_string())
        .collect();
    assert_eq!(
        (near, far),
        (vec!["b.shop".to_owned()], vec!["b.shop".to_owned()])
    );
}
