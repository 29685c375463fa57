use std::net::IpAddr;

use corinth_model::{
    AddressSource, CongestionChoice, Failure, IpNet, Namespace, PortNumber, Refusal, ServiceId,
    ServiceName, SpiffeId, TransportChoice,
};
use proptest::{collection::vec, option};

use super::*;

proptest! {
    #[test]
    fn updates_that_were_written_are_read(update in updates()) {
        prop_assert_eq!(Update::from_bytes(&update.to_bytes()), Ok(update));
    }

    #[test]
    fn reports_that_were_written_are_read(report in reports()) {
        prop_assert_eq!(Report::from_bytes(&report.to_bytes()), Ok(report));
    }

    #[test]
    fn messages_with_changed_bytes_are_read_or_refused(
        update in updates(),
        report in reports(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (mut update, mut report) = (update.to_bytes(), report.to_bytes());
        for (at, value) in changes {
            for bytes in [&mut update, &mut report] {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        if let Ok(update) = Update::from_bytes(&update) {
            prop_assert_eq!(Update::from_bytes(&update.to_bytes()), Ok(update));
        }
        if let Ok(report) = Report::from_bytes(&report) {
            prop_assert_eq!(Report::from_bytes(&report.to_bytes()), Ok(report));
        }
    }

    #[test]
    fn the_key_of_an_entry_removes_it(entry in entries()) {
        let removed = Update::Removed(entry.key());
        prop_assert_eq!(Update::from_bytes(&removed.to_bytes()), Ok(removed));
    }
}

fn updates() -> impl Strategy<Value = Update> {
    prop_oneof![
        1 => (any::<[u8; 16]>(), any::<u64>(), any::<bool>()).prop_map(|(instance, revision, whole)| {
            Update::Begin { instance: Instance(instance), revision, whole }
        }),
        6 => entries().prop_map(Update::Put),
        2 => entries().prop_map(|entry| Update::Removed(entry.key())),
        1 => any::<u64>().prop_map(|revision| Update::Commit { revision }),
        1 => (clusters(), any::<u64>())
            .prop_map(|(cluster, ticket)| Update::OpenPeering { cluster, ticket }),
    ]
}

fn entries() -> impl Strategy<Value = Entry> {
    prop_oneof![
        (clusters(), peers()).prop_map(|(cluster, peer)| Entry::Peer(cluster, peer)),
        routes().prop_map(Entry::Route),
        exports().prop_map(Entry::Export),
        denials().prop_map(Entry::Denial),
    ]
}

fn reports() -> impl Strategy<Value = Report> {
    let slot = || label().prop_map(|text| Slot::parse(&text).expect("labels are slots"));
    let held = option::of((any::<[u8; 16]>().prop_map(Instance), any::<u64>()));
    let role = label().prop_map(|text| Label::parse(&text).expect("labels are labels"));
    let state = prop::sample::select(LinkState::ALL.to_vec());
    let rtt = option::of((1..=u32::MAX).prop_map(|us| Duration::from_micros(us.into())));
    let link =
        (clusters(), state, rtt, vec(slot(), 0..4)).prop_map(|(cluster, state, rtt, slots)| {
            LinkReport {
                cluster,
                state,
                rtt,
                slots,
            }
        });
    let closed = (ports(), "[ -~]{0,64}").prop_map(|(port, why)| ClosedPort { port, why });
    let refusals = prop::sample::select(Refusal::ALL.to_vec()).prop_map(Reason::Refused);
    let failures = prop::sample::select(Failure::ALL.to_vec()).prop_map(Reason::Failed);
    prop_oneof![
        (role, slot(), held, "[ -~]{0,64}").prop_map(|(role, slot, held, version)| Report::Hello {
            role,
            slot,
            held,
            version
        }),
        (any::<u64>(), vec(closed, 0..3))
            .prop_map(|(revision, closed)| Report::Applied { revision, closed }),
        (any::<u64>(), "[ -~]{0,256}")
            .prop_map(|(revision, why)| Report::Refused { revision, why }),
        vec(link, 0..5).prop_map(Report::Links),
        (any::<u64>(), prop_oneof![refusals, failures])
            .prop_map(|(ticket, reason)| Report::PeeringFailed { ticket, reason }),
    ]
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?".prop_filter("masked", |label| !label.starts_with("xn--"))
}

fn clusters() -> impl Strategy<Value = ClusterName> {
    label().prop_map(|text| ClusterName::parse(&text).expect("labels are names"))
}

fn trust_domains() -> impl Strategy<Value = TrustDomain> {
    "[a-z0-9._-]{1,40}".prop_map(|text| TrustDomain::parse(&text).expect("the pattern is the rule"))
}

fn spiffe_ids() -> impl Strategy<Value = SpiffeId> {
    "spiffe://[a-z0-9._-]{1,20}/[a-z]{1,9}/[A-Za-z0-9]{1,9}"
        .prop_map(|text| SpiffeId::parse(&text).expect("the pattern is the rule"))
}

fn protocols() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn ports() -> impl Strategy<Value = PortNumber> {
    (1..=u16::MAX).prop_map(|port| PortNumber::new(port).expect("it is not 0"))
}

fn dns_names() -> impl Strategy<Value = DnsName> {
    vec(label(), 2..4).prop_filter_map("not a host name", |labels| {
        DnsName::parse(&labels.join(".")).ok()
    })
}

fn localities() -> impl Strategy<Value = Locality> {
    let place = || option::of("[a-zA-Z0-9._-]{1,63}");
    (place(), place(), place()).prop_map(|(region, zone, node)| {
        Locality::new(region.as_deref(), zone.as_deref(), node.as_deref())
            .expect("the pattern is the rule")
    })
}

fn endpoints() -> impl Strategy<Value = Endpoint> {
    (any::<IpAddr>(), 1..=u16::MAX, localities()).prop_filter_map(
        "nobody's endpoint",
        |(ip, port, locality)| {
            Endpoint::new((ip, port).into(), locality, AddressSource::OwnConfig).ok()
        },
    )
}

fn peers() -> impl Strategy<Value = LinkedPeer> {
    let address = (label(), 1..=u16::MAX).prop_map(|(host, port)| format!("{host}.example:{port}"));
    let root = vec(any::<u8>(), 1..64);
    (
        trust_domains(),
        any::<u32>(),
        vec(address, 0..4),
        vec(root, 0..3),
        any::<u64>(),
        carriages(),
    )
        .prop_map(
            |(trust_domain, max_streams, addresses, roots, bundle_sequence, carriage)| LinkedPeer {
                trust_domain,
                max_streams,
                addresses,
                roots,
                bundle_sequence,
                carriage,
            },
        )
}

fn carriages() -> impl Strategy<Value = Carriage> {
    (
        prop::sample::select(TransportChoice::ALL.to_vec()),
        option::of(prop::sample::select(CongestionChoice::ALL.to_vec())),
    )
        .prop_map(|(transport, congestion)| Carriage {
            transport,
            congestion,
        })
}

fn route_names() -> impl Strategy<Value = RouteName> {
    (1..=u16::MAX, vec(label(), 2..=4)).prop_filter_map(
        "longer than a name may be",
        |(port, labels)| {
            RouteName::parse(&format!("{port}.{}.svc.clusterset.local", labels.join("."))).ok()
        },
    )
}

fn routes() -> impl Strategy<Value = Route> {
    let target = prop_oneof![
        endpoints().prop_map(|endpoint| Target::Endpoint(endpoint.address())),
        clusters().prop_map(Target::Cluster),
    ];
    let candidate = (target, any::<u32>(), any::<u8>(), localities()).prop_map(
        |(target, weight, priority, locality)| Candidate {
            target,
            weight,
            priority,
            locality,
        },
    );
    (
        route_names(),
        protocols(),
        option::of(ports()),
        vec(dns_names(), 0..3),
        any::<bool>(),
        any::<bool>(),
        vec(candidate, 0..5),
    )
        .prop_map(
            |(name, protocol, import_port, sni_names, tls, idempotent, candidates)| Route {
                name,
                protocol,
                import_port,
                sni_names,
                tls,
                replay: if idempotent {
                    Replay::Idempotent
                } else {
                    Replay::Never
                },
                candidates,
            },
        )
}

fn exports() -> impl Strategy<Value = Export> {
    let network = (any::<IpAddr>(), 0..=32_u8)
        .prop_map(|(ip, length)| IpNet::new(ip, length).expect("32 bits fit either family"));
    let direct = prop_oneof![
        vec(spiffe_ids(), 0..3).prop_map(|callers| Direct::Terminate { callers }),
        vec(network, 0..3).prop_map(|sources| Direct::Passthrough { sources }),
    ];
    let service = (label(), label()).prop_map(|(service, namespace)| ServiceId {
        service: ServiceName::parse(&service).expect("labels are names"),
        namespace: Namespace::parse(&namespace).expect("labels are names"),
    });
    (
        (service, ports(), protocols()),
        vec(endpoints(), 0..4),
        prop::collection::btree_set(clusters(), 0..4),
        vec(dns_names(), 0..3),
        any::<bool>(),
        option::of(direct),
        option::of(any::<u32>()),
    )
        .prop_map(
            |(
                (service, port, protocol),
                endpoints,
                audience,
                sni_names,
                tls,
                direct,
                max_streams,
            )| {
                Export {
                    service,
                    port,
                    protocol,
                    endpoints,
                    audience,
                    sni_names,
                    tls,
                    direct,
                    max_streams,
                }
            },
        )
}

fn denials() -> impl Strategy<Value = Denied> {
    prop_oneof![
        spiffe_ids().prop_map(Denied::Id),
        trust_domains().prop_map(Denied::TrustDomain),
    ]
}
