use proptest::{collection::btree_map, collection::vec, option, prelude::*};

use super::*;

proptest! {
    #[test]
    fn what_was_written_is_read(message in messages()) {
        prop_assert_eq!(again(&message), Ok(message));
    }

    #[test]
    fn an_entry_has_one_encoding(entry in offers()) {
        let bytes = encode_offer(&entry);
        let read = decode_offer(&bytes);
        prop_assert_eq!(read.as_ref(), Ok(&entry));
        prop_assert_eq!(read.map(|read| encode_offer(&read)), Ok(bytes));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..2048)) {
        if let Ok(message) = wire::Message::decode(bytes.as_slice()) {
            let _ = Message::decode(message);
        }
        let _ = decode_offer(&bytes);
    }

    #[test]
    fn a_message_with_changed_bytes_is_read_or_refused(
        message in messages(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = wire::Message::from(&message).encode_to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(message) = wire::Message::decode(bytes.as_slice()) {
            let _ = Message::decode(message);
        }
    }
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".prop_filter("an IDN mask is no label", |label| {
        !label.starts_with("xn--")
    })
}

fn services() -> impl Strategy<Value = ServiceId> {
    (label(), label()).prop_map(|(service, namespace)| id(&format!("{service}.{namespace}")))
}

fn versions() -> impl Strategy<Value = Version> {
    any::<(u64, u64)>().prop_map(|(epoch, revision)| Version { epoch, revision })
}

fn states() -> impl Strategy<Value = State> {
    (any::<[u8; 16]>(), versions()).prop_map(|(instance, version)| State {
        instance: Instance(instance),
        version,
    })
}

fn ports() -> impl Strategy<Value = Vec<OfferedPort>> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let names = vec(
        label().prop_map(|label| format!("{label}.example.com")),
        0..4,
    );
    let rest = (option::of(label()), any::<bool>(), any::<bool>(), names);
    btree_map((1..=u16::MAX, protocol), rest, 0..5).prop_map(|ports| {
        let port = |((number, protocol), (name, tls, again, names)): (
            (u16, Protocol),
            (Option<String>, bool, bool, Vec<String>),
        )| OfferedPort {
            protocol,
            name: name.map(|name| Label::parse(&name).unwrap()),
            tls,
            replay: if again {
                Replay::Idempotent
            } else {
                Replay::Never
            },
            sni_names: match protocol {
                Protocol::Tcp => names.iter().map(|name| name.parse().unwrap()).collect(),
                Protocol::Udp => Vec::new(),
            },
            ..port(number)
        };
        ports.into_iter().map(port).collect()
    })
}

fn offers() -> impl Strategy<Value = Offer> {
    let kind = prop_oneof![Just(ServiceKind::ClusterSetIp), Just(ServiceKind::Headless)];
    let zones = btree_map(
        "[a-zA-Z0-9]{1,20}".prop_map(String::into),
        any::<u32>(),
        0..5,
    );
    let headroom = any::<Option<u32>>();
    (
        services(),
        kind,
        ports(),
        any::<(u64, u32)>(),
        headroom,
        zones,
    )
        .prop_map(
            |(service, kind, ports, (exported_at_ms, ready), headroom, zones)| Offer {
                service,
                kind,
                ports,
                exported_at_ms,
                ready,
                headroom,
                zones,
            },
        )
}

/// Everything but entries that were not taken, of which only the name is written.
fn messages() -> impl Strategy<Value = Message> {
    let digests = || any::<[u8; 32]>().prop_map(Digest);
    let hello = (label(), any::<(u16, u16)>(), states(), option::of(states())).prop_map(
        |(cluster, (min, more), own, held)| {
            Message::Hello(Hello {
                cluster: ClusterName::parse(&cluster).unwrap(),
                protocol_min: min.into(),
                protocol_max: u32::from(min) + u32::from(more),
                own,
                held,
            })
        },
    );
    let conditions = option::of(prop::sample::select(Condition::ALL));
    let addresses = vec("[a-z]{1,8}:[1-9][0-9]{0,3}", 0..4);
    prop_oneof![
        hello,
        (states(), any::<u32>())
            .prop_map(|(state, services)| Message::SnapshotBegin { state, services }),
        (versions(), offers()).prop_map(|(at, offer)| Message::upsert(at, Arc::new(offer))),
        (versions(), services())
            .prop_map(|(version, service)| Message::Tombstone { version, service }),
        (versions(), digests())
            .prop_map(|(version, digest)| Message::SnapshotEnd { version, digest }),
        versions().prop_map(Message::Ack),
        (versions(), digests()).prop_map(|(version, digest)| Message::Digest { version, digest }),
        Just(Message::Resync),
        (services(), conditions)
            .prop_map(|(service, condition)| Message::Rejected { service, condition }),
        (
            any::<u64>(),
            vec(vec(any::<u8>(), 1..64), 0..4),
            option::of(any::<u64>()),
        )
            .prop_map(|(sequence, roots, held)| Message::Trust {
                sequence,
                roots: roots.into(),
                held,
            }),
        (addresses, 0..=GATEWAY_SLOTS_MAX).prop_map(|(addresses, slots)| Message::Gateways {
            addresses: addresses.into(),
            slots,
        }),
        (0..9_i32).prop_map(|number| Message::Goodbye(number.into())),
    ]
}
