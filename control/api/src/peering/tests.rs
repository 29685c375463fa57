use std::collections::BTreeMap;

use corinth_model::{
    OFFERED_PORTS_MAX, OFFERED_SNI_NAMES_MAX, OFFERED_ZONES_MAX, OfferedPort, Protocol, Replay,
    ServiceKind, ZONE,
};
use prost::Message as _;

use super::*;

mod random;

const AT: Version = Version {
    epoch: 3,
    revision: 7,
};

fn id(text: &str) -> ServiceId {
    text.parse().unwrap()
}

fn port(number: u16) -> OfferedPort {
    OfferedPort {
        port: PortNumber::new(number).unwrap(),
        protocol: Protocol::Tcp,
        name: None,
        tls: false,
        replay: Replay::Never,
        sni_names: Vec::new(),
    }
}

fn offer(service: &str) -> Offer {
    Offer {
        service: id(service),
        kind: ServiceKind::ClusterSetIp,
        ports: vec![port(80)],
        exported_at_ms: 1_700_000_000_000,
        ready: 3,
        headroom: Some(100),
        zones: BTreeMap::from([("a".into(), 1), ("b".into(), 2)]),
    }
}

fn again(message: &Message) -> Result<Message, PeeringError> {
    let bytes = wire::Message::from(message).encode_to_vec();
    Message::decode(wire::Message::decode(bytes.as_slice()).unwrap())
}

/// What becomes of an entry after `change`.
fn changed(change: impl FnOnce(&mut wire::Service)) -> Message {
    let mut service = wire::Service::decode(&*encode_offer(&offer("web.shop"))).unwrap();
    change(&mut service);
    upsert(service.encode_to_vec()).unwrap()
}

fn upsert(service: Vec<u8>) -> Result<Message, PeeringError> {
    let version = Some(AT.into());
    Message::decode(wire::Message {
        kind: Some(Kind::Upsert(wire::Upsert { version, service })),
    })
}

fn assert_not_taken(message: &Message, expected: Condition, case: &str) {
    let Message::NotTaken {
        version,
        digest: Some(_),
        service: Some(service),
        condition,
    } = message
    else {
        panic!("{case}: {message:?}");
    };
    assert_eq!(
        (*version, service, *condition),
        (AT, &id("web.shop"), expected),
        "{case}"
    );
}

#[test]
fn a_malformed_entry_still_says_which_service_is_meant() {
    let cases: [(&str, fn(&mut wire::Service)); 13] = [
        ("no kind", |service| service.kind = 0),
        ("a kind of the future", |service| service.kind = 9),
        ("port 0", |service| service.ports[0].port = 0),
        ("port 65536", |service| service.ports[0].port = 65_536),
        ("no protocol", |service| service.ports[0].protocol = 0),
        ("a protocol of the future", |service| {
            service.ports[0].protocol = 3;
        }),
        ("a port twice", |service| {
            service.ports.push(service.ports[0].clone());
        }),
        ("ports out of order", |service| {
            service.ports.insert(0, service.ports[0].clone());
            service.ports[0].port = 81;
        }),
        ("a port's name", |service| {
            service.ports[0].name = "-".to_owned();
        }),
        ("a server name", |service| {
            service.ports[0].sni_names = vec!["10.0.0.1".to_owned()];
        }),
        ("a server name in the zone", |service| {
            service.ports[0].sni_names = vec![format!("80.dns.kube-system.{ZONE}")];
        }),
        ("server names on UDP", |service| {
            service.ports[0].protocol = 2;
            service.ports[0].sni_names = vec!["www.example.com".to_owned()];
        }),
        ("a zone", |service| {
            service.zones = BTreeMap::from([("a b".to_owned(), 1)]);
        }),
    ];
    for (case, change) in cases {
        assert_not_taken(&changed(change), Condition::EntryInvalid, case);
    }
}

#[test]
fn an_entry_above_a_quota_is_over_quota_and_one_at_the_quota_is_taken() {
    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("n{n}.example.com")).collect()
    }
    fn ports(service: &mut wire::Service, count: usize) {
        let one = service.ports[0].clone();
        let port = |n: usize| wire::Port {
            port: n as u32,
            ..one.clone()
        };
        service.ports = (1..=count).map(port).collect();
    }
    fn zones(count: usize) -> BTreeMap<String, u32> {
        (0..count).map(|n| (format!("zone-{n}"), 1)).collect()
    }
    let fits = changed(|service| {
        ports(service, OFFERED_PORTS_MAX);
        for port in &mut service.ports {
            port.sni_names = names(OFFERED_SNI_NAMES_MAX);
        }
        service.zones = zones(OFFERED_ZONES_MAX);
    });
    assert!(matches!(fits, Message::Upsert { .. }), "{fits:?}");
    assert!(wire::Message::from(&fits).encoded_len() < MESSAGE_MAX_BYTES);

    let cases: [(&str, fn(&mut wire::Service)); 3] = [
        ("ports", |service| ports(service, OFFERED_PORTS_MAX + 1)),
        ("server names", |service| {
            service.ports[0].sni_names = names(OFFERED_SNI_NAMES_MAX + 1);
        }),
        ("zones", |service| {
            service.zones = zones(OFFERED_ZONES_MAX + 1)
        }),
    ];
    for (case, change) in cases {
        assert_not_taken(&changed(change), Condition::OverQuota, case);
    }
}

#[test]
fn an_entry_that_cannot_be_read_at_all_does_not_end_the_conversation() {
    // Not protobuf; a name that is not UTF-8; a name that is none; nothing.
    for bytes in [
        &b"\xff\xff"[..],
        b"\x0a\x01\xff",
        b"\x0a\x01-\x12\x01a",
        b"",
    ] {
        let expected = Message::NotTaken {
            version: AT,
            digest: Some(Digest::of_bytes(bytes)),
            service: None,
            condition: Condition::EntryInvalid,
        };
        assert_eq!(upsert(bytes.to_vec()), Ok(expected));
    }
}

#[test]
fn fields_of_the_future_are_skipped_and_covered_by_the_digest() {
    let mut bytes = encode_offer(&offer("web.shop"));
    let today = Digest::of_bytes(&bytes);
    bytes.extend([0xa2, 0x06, 0x01, b'x']);
    let message = upsert(bytes.clone());
    let Ok(Message::Upsert {
        digest,
        offer: read,
        ..
    }) = message
    else {
        panic!("{message:?}");
    };
    assert_eq!(*read, offer("web.shop"));
    assert_eq!(digest, Digest::of_bytes(&bytes));
    assert_ne!(digest, today);
}

#[test]
fn a_message_without_what_it_needs_ends_the_conversation() {
    let without = [
        Kind::Hello(wire::Hello {
            cluster: "west".to_owned(),
            ..wire::Hello::default()
        }),
        Kind::SnapshotBegin(wire::SnapshotBegin::default()),
        Kind::Upsert(wire::Upsert::default()),
        Kind::Tombstone(wire::Tombstone::default()),
        Kind::SnapshotEnd(wire::SnapshotEnd::default()),
        Kind::Ack(wire::Ack::default()),
        Kind::Digest(wire::Digest::default()),
    ];
    for kind in without {
        let case = format!("{kind:?}");
        let read = Message::decode(wire::Message { kind: Some(kind) });
        assert!(
            matches!(read, Err(PeeringError::Missing { .. })),
            "{case}: {read:?}"
        );
    }
    assert_eq!(
        Message::decode(wire::Message { kind: None }),
        Err(PeeringError::UnknownKind)
    );
}

#[test]
fn a_field_that_breaks_its_rule_ends_the_conversation() {
    let hello = |change: fn(&mut wire::Hello)| {
        let mut hello = wire::Hello::from(&Hello {
            cluster: ClusterName::parse("west").unwrap(),
            protocol_min: 1,
            protocol_max: 2,
            own: State {
                instance: Instance([1; 16]),
                version: AT,
            },
            held: None,
        });
        change(&mut hello);
        Kind::Hello(hello)
    };
    let gateways = |address: &str| {
        Kind::Gateways(wire::Gateways {
            addresses: vec![address.to_owned()],
            slots: 1,
        })
    };
    let broken = [
        hello(|hello| hello.cluster = "we st".to_owned()),
        hello(|hello| hello.protocol_min = 3),
        hello(|hello| hello.own.as_mut().unwrap().instance = vec![1; 15]),
        hello(|hello| hello.held = Some(wire::State::default())),
        Kind::Digest(wire::Digest {
            version: Some(AT.into()),
            digest: vec![0; 31],
        }),
        Kind::Rejected(wire::Rejected::default()),
        Kind::Trust(wire::Trust {
            held_sequence: None,
            sequence: 1,
            roots: vec![Vec::new()],
        }),
        Kind::Trust(wire::Trust {
            held_sequence: None,
            sequence: 1,
            roots: vec![vec![0; TRUST_ROOT_MAX_BYTES + 1]],
        }),
        Kind::Trust(wire::Trust {
            held_sequence: None,
            sequence: 1,
            roots: vec![vec![0]; TRUST_ROOTS_MAX + 1],
        }),
        gateways("10.0.0.1"),
        gateways("10.0.0.1:0"),
        gateways("fd00::1:15443"),
        gateways("[10.0.0.1]:15443"),
        gateways("a b:15443"),
        Kind::Gateways(wire::Gateways {
            addresses: Vec::new(),
            slots: GATEWAY_SLOTS_MAX + 1,
        }),
    ];
    for kind in broken {
        let case = format!("{kind:?}");
        let read = Message::decode(wire::Message { kind: Some(kind) });
        assert!(read.is_err(), "{case}: {read:?}");
    }
    for address in [
        "10.0.0.1:1",
        "[fd00::1]:15443",
        "gw:15443",
        "gw.example.com:1",
    ] {
        let kind = Some(gateways(address));
        assert!(Message::decode(wire::Message { kind }).is_ok(), "{address}");
    }
}

#[test]
fn a_tombstone_for_what_is_no_name_is_passed_over() {
    let kind = Some(Kind::Tombstone(wire::Tombstone {
        version: Some(AT.into()),
        namespace: "*".to_owned(),
        name: "web".to_owned(),
    }));
    let expected = Message::NotTaken {
        version: AT,
        digest: None,
        service: None,
        condition: Condition::EntryInvalid,
    };
    assert_eq!(Message::decode(wire::Message { kind }), Ok(expected));
}

#[test]
fn words_of_the_future_are_understood_as_unknown() {
    let kind = Some(Kind::Goodbye(wire::Goodbye { reason: 99 }));
    let unknown = Message::Goodbye(Farewell::Unknown);
    assert_eq!(Message::decode(wire::Message { kind }), Ok(unknown));

    let kind = Some(Kind::Rejected(wire::Rejected {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        code: "CRN999".to_owned(),
    }));
    let unknown = Message::Rejected {
        service: id("web.shop"),
        condition: None,
    };
    assert_eq!(Message::decode(wire::Message { kind }), Ok(unknown));
}

#[test]
fn what_is_left_of_an_entry_that_was_not_taken_is_its_name() {
    let lost = changed(|service| service.kind = 0);
    let read = again(&lost).unwrap();
    assert_not_taken(&read, Condition::EntryInvalid, "read again");
}

#[test]
fn the_digest_over_entries_depends_on_each_of_them_and_on_their_order() {
    let (a, b) = (Digest::of(&offer("a.shop")), Digest::of(&offer("b.shop")));
    let over = |entries: &[Digest]| entries.iter().collect::<Digest>();
    let all = [
        over(&[]),
        over(&[a]),
        over(&[b]),
        over(&[a, b]),
        over(&[b, a]),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(!all[..index].contains(one), "{index}");
    }
    let mut digester = Digester::default();
    digester.add(&a);
    digester.add(&b);
    assert_eq!(digester.finish(), over(&[a, b]));
}

#[test]
fn the_encoding_of_an_entry_stays_as_it_is() {
    // Raw bytes, because the digests of two versions of this program must agree.
    let expected: &[u8] =
        b"\x0a\x04shop\x12\x03web\x18\x01\x22\x04\x08\x50\x10\x01\x28\x80\xd0\x95\xff\xbc\x31\
        \x30\x03\x38\x64\x42\x05\x0a\x01a\x10\x01\x42\x05\x0a\x01b\x10\x02";
    assert_eq!(encode_offer(&offer("web.shop")), expected);
}

#[test]
fn a_version_of_the_protocol_in_the_range_is_enough() {
    for (min, max, expected) in [(1, 1, true), (0, 3, true), (2, 3, false), (0, 0, false)] {
        let hello = Hello {
            cluster: ClusterName::parse("west").unwrap(),
            protocol_min: min,
            protocol_max: max,
            own: State {
                instance: Instance([0; 16]),
                version: AT,
            },
            held: None,
        };
        assert_eq!(hello.is_compatible(), expected, "{min}..={max}");
    }
}
