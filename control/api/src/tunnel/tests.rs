use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

mod random;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn header_of_a_service_stream_returns_whole() {
    let open = StreamOpen {
        claim: SourceClaim {
            cluster: ClusterName::parse("west").ok(),
            namespace: Namespace::parse("front").ok(),
            workload: WorkloadName::parse("web-7d9f.canary"),
            address: Some(Ipv4Addr::new(10, 1, 2, 3).into()),
        },
        attempt: 2,
        hops: 1,
        deadline: Some(Duration::from_millis(1_500)),
        traceparent: Traceparent::parse(TRACE),
        ..service()
    };
    assert_eq!(StreamOpen::decode(&encoded(&open)), Ok(open));
}

#[test]
fn header_of_a_peering_stream_is_two_bytes() {
    let open = StreamOpen::new(StreamKind::Peering);
    assert_eq!(encoded(&open), [0x08, 0x02]);
    assert_eq!(StreamOpen::decode(&[0x08, 0x02]), Ok(open));
}

#[test]
fn every_reason_to_refuse_returns_whole() {
    for reason in Reason::all() {
        let reply = match reason {
            Reason::Completed => StreamReply::Accepted,
            Reason::Refused(refusal) => StreamReply::Refused(refusal),
            Reason::Failed(failure) => StreamReply::Failed(failure),
        };
        let mut bytes = Vec::new();
        reply.encode(&mut bytes);
        assert_eq!(StreamReply::decode(&bytes), Ok(reply), "{}", reason.code());
    }
}

#[test]
fn encode_appends() {
    let mut bytes = vec![0xAA];
    StreamOpen::new(StreamKind::Peering).encode(&mut bytes);
    assert_eq!(bytes, [0xAA, 0x08, 0x02]);
}

#[test]
fn header_with_every_field_at_its_limit_fits() {
    let open = StreamOpen {
        kind: StreamKind::Service {
            route: RouteName::parse(&route_of(253)).expect("253 bytes are a name"),
            protocol: Protocol::Udp,
        },
        claim: SourceClaim {
            cluster: ClusterName::parse(&"c".repeat(63)).ok(),
            namespace: Namespace::parse(&"n".repeat(63)).ok(),
            workload: WorkloadName::parse(&"w".repeat(WORKLOAD_MAX_BYTES)),
            address: Some(Ipv6Addr::LOCALHOST.into()),
        },
        attempt: u8::MAX,
        hops: u8::MAX,
        deadline: Some(DEADLINE_MAX),
        traceparent: Traceparent::parse(TRACE),
    };
    let bytes = encoded(&open);
    assert!(bytes.len() <= HEADER_MAX_BYTES, "{} bytes", bytes.len());
    assert_eq!(StreamOpen::decode(&bytes), Ok(open));
}

#[test]
fn summary_of_every_reason_fits_beside_its_code() {
    for reason in Reason::all() {
        assert!(
            reason.summary().len() <= REFUSAL_MESSAGE_MAX_BYTES,
            "{}",
            reason.code()
        );
    }
}

#[test]
fn header_of_4096_bytes_is_read_and_one_more_is_not() {
    // Field 1000 as bytes: what a later version might add. Its tag takes two bytes, its length two.
    let padded = |total: usize| {
        let mut bytes = encoded(&service());
        let rest = total - bytes.len() - 4;
        bytes.extend([0xC2, 0x3E, (rest as u8 & 0x7F) | 0x80, (rest >> 7) as u8]);
        bytes.resize(total, b'x');
        bytes
    };
    assert_eq!(StreamOpen::decode(&padded(HEADER_MAX_BYTES)), Ok(service()));
    assert_eq!(
        StreamOpen::decode(&padded(HEADER_MAX_BYTES + 1)),
        Err(HeaderError::TooLong {
            bytes: HEADER_MAX_BYTES + 1
        })
    );
    assert_eq!(
        StreamOpen::decode(&[0; 65_535]),
        Err(HeaderError::TooLong { bytes: 65_535 })
    );
    assert_eq!(
        StreamReply::decode(&[0; 65_535]),
        Err(HeaderError::TooLong { bytes: 65_535 })
    );
}

#[test]
fn empty_header_asks_for_nothing() {
    assert_eq!(StreamOpen::decode(&[]), Err(HeaderError::UnknownKind(0)));
    assert_eq!(StreamReply::decode(&[]), Err(HeaderError::NoOutcome));
}

#[test]
fn truncated_header_is_never_taken_for_a_whole_one() {
    let open = StreamOpen {
        traceparent: Traceparent::parse(TRACE),
        ..service()
    };
    let bytes = encoded(&open);
    for length in 0..bytes.len() {
        assert_ne!(
            StreamOpen::decode(&bytes[..length]),
            Ok(open.clone()),
            "{length} bytes"
        );
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for trailing in [
        &[0x00][..],
        &[0xFF; 11],
        b"GET / HTTP/1.1\r\n",
        &[0x0D],
        &[0x12, 0x05, b'a'],
    ] {
        let mut bytes = encoded(&service());
        bytes.extend(trailing);
        assert!(
            matches!(StreamOpen::decode(&bytes), Err(HeaderError::Malformed(_))),
            "{trailing:?}"
        );
    }
}

#[test]
fn kinds_and_protocols_of_later_versions_are_refused() {
    let kind = |kind| wire::StreamOpen { kind, ..raw() };
    assert_eq!(decoded(kind(0)), Err(HeaderError::UnknownKind(0)));
    assert_eq!(decoded(kind(4)), Err(HeaderError::UnknownKind(4)));
    assert_eq!(decoded(kind(-1)), Err(HeaderError::UnknownKind(-1)));

    let protocol = |protocol| wire::StreamOpen { protocol, ..raw() };
    assert_eq!(decoded(protocol(0)), Err(HeaderError::UnknownProtocol(0)));
    assert_eq!(decoded(protocol(3)), Err(HeaderError::UnknownProtocol(3)));
}

#[test]
fn numbers_are_taken_up_to_their_limit() {
    let at = |attempt, hops, deadline_ms| {
        decoded(wire::StreamOpen {
            attempt,
            hops,
            deadline_ms,
            ..raw()
        })
    };
    let day = 24 * 60 * 60 * 1_000;
    let beyond = |field, value, limit| {
        Err(HeaderError::OutOfRange {
            field,
            value,
            limit,
        })
    };

    assert_eq!(
        at(255, 255, Some(day)),
        Ok(StreamOpen {
            attempt: 255,
            hops: 255,
            deadline: Some(DEADLINE_MAX),
            ..service()
        })
    );
    assert_eq!(at(256, 0, None), beyond("attempt", 256, 255));
    assert_eq!(at(0, 256, None), beyond("hops", 256, 255));
    assert_eq!(
        at(0, u32::MAX, None),
        beyond("hops", u64::from(u32::MAX), 255)
    );
    assert_eq!(at(0, 0, Some(day + 1)), beyond("deadline_ms", day + 1, day));
    assert_eq!(
        at(0, 0, Some(u64::MAX)),
        beyond("deadline_ms", u64::MAX, day)
    );
    assert_eq!(
        at(0, 0, Some(0)),
        Ok(StreamOpen {
            deadline: Some(Duration::ZERO),
            ..service()
        })
    );
}

#[test]
fn hop_count_is_carried_for_the_core_to_judge() {
    let open = StreamOpen {
        hops: 2,
        ..service()
    };
    assert_eq!(StreamOpen::decode(&encoded(&open)), Ok(open));
}

#[test]
fn deadline_is_cut_to_its_limit_and_to_whole_milliseconds() {
    let returned = |deadline| {
        let open = StreamOpen {
            deadline: Some(deadline),
            ..service()
        };
        StreamOpen::decode(&encoded(&open)).map(|open| open.deadline)
    };
    assert_eq!(returned(Duration::MAX), Ok(Some(DEADLINE_MAX)));
    assert_eq!(
        returned(Duration::from_micros(1_999)),
        Ok(Some(Duration::from_millis(1)))
    );
}

#[test]
fn invalid_route_names_are_refused_as_names() {
    let too_long = route_of(254);
    for route in [
        "",
        ".",
        "payments.shop.svc.clusterset.local",
        "0.payments.shop.svc.clusterset.local",
        "65536.payments.shop.svc.clusterset.local",
        "+80.payments.shop.svc.clusterset.local",
        "80.payments.shop.svc.clusterset.local..",
        "80.pay\0ments.shop.svc.clusterset.local",
        "80.pay ments.shop.svc.clusterset.local",
        "80.payments.shop.svc.cluster.local",
        "80.zahlung\u{e9}n.shop.svc.clusterset.local",
        &too_long,
    ] {
        let error = decoded(wire::StreamOpen {
            route: route.into(),
            ..raw()
        });
        assert!(matches!(error, Err(HeaderError::Route(_))), "{route:?}");
    }
}

#[test]
fn peering_stream_names_nothing() {
    let peering = wire::StreamOpen {
        kind: wire::Kind::Peering.into(),
        ..wire::StreamOpen::default()
    };
    assert_eq!(
        decoded(peering.clone()),
        Ok(StreamOpen::new(StreamKind::Peering))
    );
    assert_eq!(
        decoded(wire::StreamOpen {
            route: raw().route,
            ..peering.clone()
        }),
        Err(HeaderError::PeeringWithRoute)
    );
    assert_eq!(
        decoded(wire::StreamOpen {
            protocol: 1,
            ..peering
        }),
        Err(HeaderError::PeeringWithRoute)
    );
}

#[test]
fn stream_for_flows_names_nothing() {
    let flows = wire::StreamOpen {
        kind: wire::Kind::Flows.into(),
        ..wire::StreamOpen::default()
    };
    assert_eq!(
        decoded(flows.clone()),
        Ok(StreamOpen::new(StreamKind::Flows))
    );
    assert_eq!(
        decoded(wire::StreamOpen {
            route: raw().route,
            ..flows.clone()
        }),
        Err(HeaderError::FlowsWithRoute)
    );
    assert_eq!(
        decoded(wire::StreamOpen {
            protocol: 2,
            ..flows
        }),
        Err(HeaderError::FlowsWithRoute)
    );
}

#[test]
fn claims_are_checked_field_by_field() {
    let with = |claim: wire::SourceClaim| {
        decoded(wire::StreamOpen {
            claim: Some(claim),
            ..raw()
        })
    };
    let empty = wire::SourceClaim::default;
    let invalid = |field| Err(HeaderError::InvalidField { field });

    assert_eq!(with(empty()), Ok(service()));
    for text in ["a.b", "-a", "a\n", "\u{202e}", &"a".repeat(64)] {
        let text = text.to_owned();
        assert_eq!(
            with(wire::SourceClaim {
                cluster: text.clone(),
                ..empty()
            }),
            invalid("claim.cluster")
        );
        assert_eq!(
            with(wire::SourceClaim {
                namespace: text,
                ..empty()
            }),
            invalid("claim.namespace")
        );
    }
    for text in ["A", "a/b", "a\0", " ", &"a".repeat(WORKLOAD_MAX_BYTES + 1)] {
        let workload = text.to_owned();
        assert_eq!(
            with(wire::SourceClaim {
                workload,
                ..empty()
            }),
            invalid("claim.workload")
        );
    }
    for length in [1, 3, 5, 15, 17, 4_000] {
        let address = vec![1; length];
        assert_eq!(
            with(wire::SourceClaim { address, ..empty() }),
            invalid("claim.address")
        );
    }
}

#[test]
fn traceparents_keep_their_form() {
    assert!(Traceparent::parse(TRACE).is_some());
    for text in [
        "",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-00",
    ] {
        assert_eq!(Traceparent::parse(text), None, "{text}");
        if !text.is_empty() {
            assert_eq!(
                decoded(wire::StreamOpen {
                    traceparent: text.into(),
                    ..raw()
                }),
                Err(HeaderError::InvalidField {
                    field: "traceparent"
                })
            );
        }
    }
}

#[test]
fn unknown_codes_and_long_messages_are_refused() {
    let decoded = |code: &str, message: String| {
        let refused = wire::Refused {
            code: code.into(),
            message,
        };
        let reply = wire::StreamReply {
            outcome: Some(wire::stream_reply::Outcome::Refused(refused)),
        };
        StreamReply::decode(&reply.encode_to_vec())
    };
    let code = Reason::Refused(Refusal::Forbidden).code();

    assert_eq!(
        decoded(code, String::new()),
        Ok(StreamReply::Refused(Refusal::Forbidden))
    );
    assert_eq!(
        decoded(code, "x".repeat(256)),
        Ok(StreamReply::Refused(Refusal::Forbidden))
    );
    assert_eq!(
        decoded(code, "x".repeat(257)),
        Err(HeaderError::OutOfRange {
            field: "message",
            value: 257,
            limit: 256
        })
    );
    for code in ["", "CRN", "CRN000", "CRN999", "CRN001\0", "\u{1b}[2J"] {
        assert_eq!(
            decoded(code, String::new()),
            Err(HeaderError::UnknownCode),
            "{code:?}"
        );
    }
}

#[test]
fn errors_never_repeat_what_the_peer_wrote() {
    let hostile = "80.\u{1b}[2Jevil.shop.svc.clusterset.local";
    let error = decoded(wire::StreamOpen {
        route: hostile.into(),
        ..raw()
    })
    .expect_err("not a name");
    let mut told = error.to_string();
    if let Some(source) = std::error::Error::source(&error) {
        told.push_str(&source.to_string());
    }
    assert!(told.chars().all(|c| !c.is_control()), "{told:?}");
}

fn service() -> StreamOpen {
    let route = RouteName::parse(&raw().route).expect("the name is valid");
    StreamOpen::new(StreamKind::Service {
        route,
        protocol: Protocol::Tcp,
    })
}

/// The wire form of [`service`].
fn raw() -> wire::StreamOpen {
    wire::StreamOpen {
        kind: wire::Kind::Service.into(),
        route: "80.payments.shop.svc.clusterset.local".into(),
        protocol: wire::Protocol::Tcp.into(),
        ..wire::StreamOpen::default()
    }
}

fn encoded(open: &StreamOpen) -> Vec<u8> {
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    bytes
}

fn decoded(open: wire::StreamOpen) -> Result<StreamOpen, HeaderError> {
    StreamOpen::decode(&open.encode_to_vec())
}

/// A route name of this length, in its longest form: that of one pod.
fn route_of(bytes: usize) -> String {
    let label = "a".repeat(63);
    let namespace = "n".repeat(bytes - "80.".len() - 3 * 64 - ".svc.clusterset.local".len());
    format!("80.{label}.{label}.{label}.{namespace}.svc.clusterset.local")
}
