//! What a plane concludes from what it is told, without streams and files.

use corinth_api::peering::{Hello, PROTOCOL, State};
use corinth_identity::Authority;
use corinth_model::{Accepted, PortRange};
use rustls_pki_types::UnixTime;

use super::*;
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
    let port = |number| corinth_model::PortNumber::new(number).unwrap();
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
    }
}

fn declare(plane: &mut Plane, link: DeclaredLink) -> Vec<Effect> {
    let declared = Declared {
        links: BTreeMap::from([(name(WEST), link)]),
        ..Declared::default()
    };
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
    let messages = std::iter::from_fn(|| plane.next_message(&name(WEST)));
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
