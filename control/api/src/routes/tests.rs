use proptest::prelude::*;

use super::*;

mod random;

fn accepts_back(update: &Update) {
    assert_eq!(Update::from_bytes(&update.to_bytes()).as_ref(), Ok(update));
}

fn refused(kind: wire::update::Kind) -> RoutesError {
    let update = wire::Update { kind: Some(kind) };
    Update::decode(update).expect_err("a broken rule is found")
}

fn peer() -> wire::Peer {
    wire::Peer {
        cluster: "west".into(),
        trust_domain: "west.corinth.internal".into(),
        max_streams: 100,
        addresses: vec!["gateway.west.example:15443".into()],
        roots: vec![vec![1, 2, 3]],
        bundle_sequence: 7,
        transport: wire::Transport::Auto.into(),
        congestion: wire::Congestion::Bbr.into(),
    }
}

fn route() -> wire::Route {
    wire::Route {
        name: "443.payments.shop.svc.clusterset.local".into(),
        protocol: wire::Protocol::Tcp.into(),
        candidates: vec![wire::Candidate {
            target: Some(wire::candidate::Target::Cluster("west".into())),
            weight: 1,
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn export() -> wire::Export {
    wire::Export {
        namespace: "shop".into(),
        service: "payments".into(),
        port: 443,
        protocol: wire::Protocol::Tcp.into(),
        ..Default::default()
    }
}

#[test]
fn a_loopback_endpoint_needs_the_word_of_our_own_configuration() {
    let with = |own_config| wire::Export {
        endpoints: vec![wire::Endpoint {
            address: "127.0.0.1:8080".into(),
            locality: None,
            own_config,
        }],
        ..export()
    };
    assert_eq!(
        refused(wire::update::Kind::Export(with(false))),
        RoutesError::Invalid {
            field: "endpoint.address"
        }
    );
    let kind = Some(wire::update::Kind::Export(with(true)));
    accepts_back(&Update::decode(wire::Update { kind }).expect("our own word counts"));
}

#[test]
fn an_endpoint_nobody_may_name_is_refused_whoever_names_it() {
    for address in ["169.254.169.254:80", "0.0.0.0:80", "10.0.0.1:0", "west:80"] {
        let target = Some(wire::candidate::Target::Endpoint(address.into()));
        let candidate = wire::Candidate {
            target,
            ..Default::default()
        };
        let route = wire::Route {
            candidates: vec![candidate],
            ..route()
        };
        assert_eq!(
            refused(wire::update::Kind::Route(route)),
            RoutesError::Invalid {
                field: "candidate.endpoint"
            },
            "{address}"
        );
    }
}

#[test]
fn an_address_to_dial_is_a_host_and_a_port() {
    for address in [
        "gateway.west.example:15443",
        "gateway-b:1",
        "192.0.2.7:15443",
        "[2001:db8::7]:15443",
    ] {
        assert!(is_host_and_port(address), "{address}");
    }
    for address in [
        "",
        "west",
        "west:",
        "west:0",
        "west:65536",
        "192.0.2:15443",
        "192.0.2.7:0",
        "2001:db8::7:15443",
        "https://west:1",
        "we st:1",
        ":1",
    ] {
        assert!(!is_host_and_port(address), "{address}");
        let peer = wire::Peer {
            addresses: vec![address.into()],
            ..peer()
        };
        assert_eq!(
            refused(wire::update::Kind::Peer(peer)),
            RoutesError::Invalid {
                field: "peer.addresses"
            }
        );
    }
}

#[test]
fn a_peer_of_which_no_transport_is_told_is_reached_by_tls_and_one_of_an_unknown_one_is_refused() {
    let told = |transport, congestion| {
        let peer = wire::Peer {
            transport,
            congestion,
            ..peer()
        };
        let kind = Some(wire::update::Kind::Peer(peer));
        let Update::Put(Entry::Peer(_, peer)) = Update::decode(wire::Update { kind })? else {
            panic!("a peer is put");
        };
        Ok(peer.carriage)
    };
    assert_eq!(told(0, 0), Ok(Carriage::default()));
    let field = |field| Err(RoutesError::Invalid { field });
    assert_eq!(told(4, 0), field("peer.transport"));
    assert_eq!(told(0, 3), field("peer.congestion"));
}

#[test]
fn lists_beyond_their_limit_are_refused() {
    let too_many = |field, limit| RoutesError::TooMany {
        field,
        count: limit + 1,
        limit,
    };
    let peer = wire::Peer {
        roots: vec![vec![1]; ROOTS_MAX + 1],
        ..peer()
    };
    assert_eq!(
        refused(wire::update::Kind::Peer(peer)),
        too_many("peer.roots", ROOTS_MAX)
    );
    let candidate = route().candidates.remove(0);
    let route = wire::Route {
        candidates: vec![candidate; MEMBERS_MAX + 1],
        ..route()
    };
    assert_eq!(
        refused(wire::update::Kind::Route(route)),
        too_many("route.candidates", MEMBERS_MAX)
    );
    let export = wire::Export {
        sni_names: vec!["pay.example.com".into(); SNI_NAMES_MAX + 1],
        ..export()
    };
    assert_eq!(
        refused(wire::update::Kind::Export(export)),
        too_many("export.sni_names", SNI_NAMES_MAX)
    );
}

#[test]
fn a_removal_holds_a_key_and_nothing_else() {
    let removed = |what| wire::update::Kind::Removed(wire::Removed { what: Some(what) });
    assert_eq!(
        refused(removed(wire::removed::What::Route(route()))),
        RoutesError::NotAKey
    );
    assert_eq!(
        refused(removed(wire::removed::What::Peer(peer()))),
        RoutesError::NotAKey
    );
    let kind = Some(removed(wire::removed::What::Export(export())));
    accepts_back(&Update::decode(wire::Update { kind }).expect("this is a key"));
}

#[test]
fn an_instance_has_sixteen_bytes() {
    for length in [0, 15, 17] {
        let begin = wire::Begin {
            instance: vec![1; length],
            revision: 1,
            whole: true,
        };
        assert_eq!(
            refused(wire::update::Kind::Begin(begin)),
            RoutesError::Invalid {
                field: "begin.instance"
            }
        );
    }
}

#[test]
fn an_empty_message_says_nothing() {
    assert_eq!(Update::from_bytes(&[]), Err(RoutesError::UnknownKind));
    assert_eq!(Report::from_bytes(&[]), Err(RoutesError::UnknownKind));
}

#[test]
fn words_are_cut_and_cleaned_before_they_are_sent() {
    let report = Report::Refused {
        revision: 3,
        why: format!("two\nlines {}", "ü".repeat(200)),
    };
    let Ok(Report::Refused { why, .. }) = Report::from_bytes(&report.to_bytes()) else {
        panic!("a report of ours is valid");
    };
    assert!(why.starts_with("two lines ü"), "{why}");
    assert!(why.len() <= WORDS_MAX_BYTES && why.len() > WORDS_MAX_BYTES - 2);
}

#[test]
fn a_peering_that_failed_has_a_reason() {
    for code in ["", "CRN000", "CRN999"] {
        let failed = wire::PeeringFailed {
            ticket: 1,
            code: code.into(),
        };
        let kind = Some(wire::report::Kind::PeeringFailed(failed));
        assert_eq!(
            Report::decode(wire::Report { kind }),
            Err(RoutesError::Invalid {
                field: "peering_failed.code"
            })
        );
    }
}
