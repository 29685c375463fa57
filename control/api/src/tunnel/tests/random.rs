use proptest::{collection::vec, option, prelude::*};

use super::*;

proptest! {
    #[test]
    fn what_was_written_is_read(open in streams()) {
        prop_assert_eq!(StreamOpen::decode(&encoded(&open)), Ok(open));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..HEADER_MAX_BYTES + 16)) {
        if let Ok(open) = StreamOpen::decode(&bytes) {
            prop_assert_eq!(StreamOpen::decode(&encoded(&open)), Ok(open));
        }
        let _ = StreamReply::decode(&bytes);
    }

    #[test]
    fn a_header_with_changed_bytes_is_read_or_refused(
        open in streams(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encoded(&open);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(open) = StreamOpen::decode(&bytes) {
            prop_assert_eq!(StreamOpen::decode(&encoded(&open)), Ok(open));
        }
        let _ = StreamReply::decode(&bytes);
    }
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".prop_filter("an IDN mask is no label", |label| {
        !label.starts_with("xn--")
    })
}

fn streams() -> impl Strategy<Value = StreamOpen> {
    let deadline = (0..=DEADLINE_MAX.as_millis() as u64).prop_map(Duration::from_millis);
    (
        kinds(),
        claims(),
        any::<u8>(),
        any::<u8>(),
        option::of(deadline),
        option::of(traces()),
    )
        .prop_map(
            |(kind, claim, attempt, hops, deadline, traceparent)| StreamOpen {
                kind,
                claim,
                attempt,
                hops,
                deadline,
                traceparent,
            },
        )
}

fn kinds() -> impl Strategy<Value = StreamKind> {
    let route = (1..=u16::MAX, vec(label(), 2..=4)).prop_filter_map(
        "longer than a name may be",
        |(port, labels)| {
            RouteName::parse(&format!("{port}.{}.svc.clusterset.local", labels.join("."))).ok()
        },
    );
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    prop_oneof![
        1 => Just(StreamKind::Peering),
        1 => Just(StreamKind::Flows),
        9 => (route, protocol).prop_map(|(route, protocol)| StreamKind::Service { route, protocol }),
    ]
}

fn claims() -> impl Strategy<Value = SourceClaim> {
    (
        option::of(label()),
        option::of(label()),
        option::of("[a-z0-9.-]{1,253}"),
        any::<Option<IpAddr>>(),
    )
        .prop_map(|(cluster, namespace, workload, address)| SourceClaim {
            cluster: cluster.map(|name| ClusterName::parse(&name).expect("labels are names")),
            namespace: namespace.map(|name| Namespace::parse(&name).expect("labels are names")),
            workload: workload
                .map(|name| WorkloadName::parse(&name).expect("the pattern is the rule")),
            address,
        })
}

fn traces() -> impl Strategy<Value = Traceparent> {
    "0[0-9]-1[0-9a-f]{31}-[0-9a-f]{15}1-0[01]"
        .prop_map(|text| Traceparent::parse(&text).expect("the pattern is the rule"))
}
