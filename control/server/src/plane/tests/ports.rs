//! Import ports for many services, and when tables are made of them.

use std::time::Duration;

use corinth_api::peering::{Digest, Hello, PROTOCOL, State};
use corinth_model::{
    Accepted, Carriage, Offer, OfferedPort, PortNumber, PortRange, Protocol, Replay, Selector,
    ServiceKind,
};

use super::*;
use crate::peering::OpenedBy;

const SESSION: SessionId = SessionId(1);

fn port(number: u16) -> PortNumber {
    PortNumber::new(number).unwrap()
}

fn at(instant: Instant) -> Now {
    Now {
        instant,
        unix_ms: 1_800_000_000_000,
    }
}

/// `east`, which accepts everything of `west`.
fn linked(west: &ClusterName, now: Instant) -> Plane {
    let cluster: ClusterName = "east".parse().unwrap();
    let own = Own {
        trust_domain: TrustDomain::of_cluster(&cluster),
        cluster,
        gateways: Vec::new(),
        slots: 1,
        roots: [].into(),
        bundle_sequence: 1,
    };
    let range = PortRange {
        first: port(20_000),
        last: port(20_009),
    };
    let terms = Terms {
        ports: PortAllocator {
            range,
            taken: BTreeSet::new(),
        },
        streams_per_peer: 10,
    };
    let state = (Instance([1; 16]), Version::default());
    let (ports, learned) = (PortBook::default(), Learned::default());
    let mut plane = Plane::new(own, terms, state, ports, learned, Instance([2; 16]));
    let link = DeclaredLink {
        trust_domain: TrustDomain::of_cluster(west),
        roots: Vec::new(),
        bundle_sequence: 1,
        addresses: Vec::new(),
        accepted: Accepted(vec![Selector::All]),
        max_streams: None,
        quota: None,
        mode: LinkMode::Active,
        carriage: Carriage::default(),
    };
    let declared = Declared {
        links: BTreeMap::from([(west.clone(), link)]),
        ..Declared::default()
    };
    plane.set_declared(Arc::new(declared), |_| None, at(now));
    plane
}

impl Plane {
    /// How many routes have an import port, and how many services are said to have none.
    fn ports_given(&self) -> (usize, usize) {
        let routes = self.routes().flat_map(|(_, routes)| routes);
        let given = routes.filter(|route| self.as_told(route).import_port.is_some());
        let standing = self.conditions().iter();
        let without = standing.filter(|(condition, ..)| *condition == Condition::NoImportPort);
        (given.count(), without.count())
    }
}

fn offer(n: u32) -> Arc<Offer> {
    Arc::new(Offer {
        service: format!("s{n:02}.shop").parse().unwrap(),
        kind: ServiceKind::ClusterSetIp,
        ports: vec![OfferedPort {
            port: port(80),
            protocol: Protocol::Tcp,
            name: None,
            tls: false,
            replay: Replay::Never,
            sni_names: Vec::new(),
        }],
        exported_at_ms: 1,
        ready: 1,
        headroom: None,
        zones: BTreeMap::new(),
    })
}

/// A whole snapshot of so many services.
fn snapshot(west: &ClusterName, count: u32) -> Vec<Message> {
    let version = Version {
        epoch: 1,
        revision: 1,
    };
    let state = State {
        instance: Instance([3; 16]),
        version,
    };
    let hello = Hello {
        cluster: west.clone(),
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        own: state,
        held: None,
    };
    let begin = Message::SnapshotBegin {
        state,
        services: count,
    };
    let offers: Vec<_> = (0..count).map(offer).collect();
    let digests: Vec<_> = offers.iter().map(|offer| Digest::of(offer)).collect();
    let digest = digests.iter().collect();
    [Message::Hello(hello), begin]
        .into_iter()
        .chain(
            offers
                .into_iter()
                .map(|offer| Message::upsert(version, offer)),
        )
        .chain([Message::SnapshotEnd { version, digest }])
        .collect()
}

#[test]
fn a_snapshot_becomes_one_revision_of_the_tables_soon_after_it_began() {
    let west: ClusterName = "west".parse().unwrap();
    let now = Instant::now();
    let mut plane = linked(&west, now);
    plane.relate(&west, at(now), |relation| {
        relation.handle_opened(SESSION, OpenedBy::Peer, now);
    });
    let before = plane.tables().revision();
    for message in snapshot(&west, 20) {
        plane.relate(&west, at(now), |relation| {
            relation.handle_message(SESSION, message, now, 0);
        });
    }
    assert_eq!(plane.tables().revision(), before);

    let due = plane.poll_timeout().unwrap();
    assert!(due <= now + Duration::from_millis(10), "{:?}", due - now);
    let effects = plane.handle_timeout(at(due));
    assert!(effects.contains(&Effect::Tables(before + 1)), "{effects:?}");
    assert_eq!(plane.routes().count(), 20);
    assert_eq!(plane.tables().revision(), before + 1);

    assert_eq!(plane.ports_given(), (10, 10));
}

#[test]
fn a_port_is_given_to_whoever_had_it_and_to_nobody_else_while_there_are_none() {
    let west: ClusterName = "west".parse().unwrap();
    let mut now = Instant::now();
    let mut plane = linked(&west, now);
    plane.relate(&west, at(now), |relation| {
        relation.handle_opened(SESSION, OpenedBy::Peer, now);
    });
    let mut tell = |plane: &mut Plane, messages: Vec<Message>| {
        for message in messages {
            plane.relate(&west, at(now), |relation| {
                relation.handle_message(SESSION, message, now, 0);
            });
        }
        now += Duration::from_secs(1);
        plane.handle_timeout(at(now));
    };
    tell(&mut plane, snapshot(&west, 11));
    assert_eq!(plane.ports_given(), (10, 1));
    let version = |revision| Version { epoch: 1, revision };
    let gone = |n, revision| Message::Tombstone {
        version: version(revision),
        service: offer(n).service.clone(),
    };

    // One more goes without, and one that was without goes for good.
    tell(&mut plane, vec![Message::upsert(version(2), offer(20))]);
    assert_eq!(plane.ports_given(), (10, 2));
    tell(&mut plane, vec![gone(10, 3)]);
    assert_eq!(plane.ports_given(), (10, 1));

    // A port that was freed waits for its service.
    let given = plane.ports().clone();
    tell(&mut plane, vec![gone(0, 4)]);
    assert_eq!(plane.ports_given(), (9, 1));
    tell(&mut plane, vec![Message::upsert(version(5), offer(21))]);
    assert_eq!(plane.ports_given(), (9, 2));
    tell(&mut plane, vec![Message::upsert(version(6), offer(0))]);
    assert_eq!(plane.ports_given(), (10, 2));
    assert_eq!(*plane.ports(), given);
}

#[test]
fn a_service_without_a_port_gets_one_when_its_time_of_rest_is_over() {
    let west: ClusterName = "west".parse().unwrap();
    let begun = Instant::now();
    let mut plane = linked(&west, begun);
    plane.relate(&west, at(begun), |relation| {
        relation.handle_opened(SESSION, OpenedBy::Peer, begun);
    });
    let gone = Message::Tombstone {
        version: Version {
            epoch: 1,
            revision: 2,
        },
        service: offer(0).service.clone(),
    };
    for message in snapshot(&west, 11) {
        plane.relate(&west, at(begun), |relation| {
            relation.handle_message(SESSION, message, begun, 0);
        });
    }
    let later = |passed: Duration| {
        let ms = u64::try_from(passed.as_millis()).unwrap();
        Now {
            instant: begun + passed,
            unix_ms: at(begun).unix_ms + ms,
        }
    };
    let freed = Duration::from_secs(1);
    plane.handle_timeout(later(freed));
    plane.relate(&west, later(freed), |relation| {
        relation.handle_message(SESSION, gone, begun + freed, 0);
    });
    plane.handle_timeout(later(2 * freed));
    assert_eq!(plane.ports_given(), (9, 1));

    // Nothing else happens than that time passes.
    let rest_is_over = corinth_model::QUARANTINE + 3 * freed;
    let mut effects = Vec::new();
    while plane.ports_given() != (10, 0) {
        let due = plane.poll_timeout().expect("it is tried again") - begun;
        assert!(due <= rest_is_over, "{due:?}: {:?}", plane.ports_given());
        effects = plane.handle_timeout(later(due));
    }
    assert!(effects.contains(&Effect::KeepPorts), "{effects:?}");
    let revision = plane.tables().revision();
    assert!(effects.contains(&Effect::Tables(revision)), "{effects:?}");
}
