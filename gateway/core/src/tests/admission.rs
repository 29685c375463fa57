//! Who may come in.

use std::net::IpAddr;

use corinth_model::{Direct, Protocol, Refusal, SpiffeId};

use super::lab::{World, cluster, gateway_of, name, world};
use crate::{DirectClient, Opening, Settings};

const PAY: &str = "80.pay.shop";

/// `pay` is exported to `b`; `c` is linked, too.
fn exported_to_b() -> World {
    world()
        .peer("b")
        .peer("c")
        .export("pay.shop", 80)
        .for_peer("b")
        .at("10.0.0.1:80")
}

#[test]
fn a_peer_reaches_what_is_exported_to_it() {
    let mut lab = exported_to_b().lab();

    for text in [PAY, "80.a.pay.shop"] {
        let admission = lab.admit("b", text).unwrap();
        assert_eq!(admission.endpoints, ["10.0.0.1:80".parse().unwrap()]);
    }
}

#[test]
fn a_peer_cannot_tell_what_is_not_for_it_from_what_does_not_exist() {
    let mut lab = exported_to_b().lab();

    for (peer, text) in [
        ("c", PAY),
        ("c", "80.none.shop"),
        ("b", "80.none.shop"),
        ("b", "81.pay.shop"),
        ("b", "80.b.pay.shop"),
        ("b", "80.web-0.a.pay.shop"),
    ] {
        assert_eq!(
            lab.admit(peer, text).unwrap_err(),
            Refusal::Forbidden,
            "{peer} {text}"
        );
    }
}

#[test]
fn a_gateway_of_no_linked_cluster_is_refused() {
    let mut lab = exported_to_b().for_peer("d").lab();

    assert_eq!(lab.admit("d", PAY).unwrap_err(), Refusal::Unlinked);
}

#[test]
fn a_peer_is_known_by_its_trust_domain_not_by_its_name() {
    let mut lab = world()
        .peer_under("b", "elsewhere", 10)
        .export("pay.shop", 80)
        .for_peer("b")
        .at("10.0.0.1:80")
        .lab();

    assert_eq!(lab.admit("b", PAY).unwrap_err(), Refusal::Unlinked);
    assert!(lab.admit("elsewhere", PAY).is_ok());
    assert_eq!(lab.core.open_streams(&cluster("b")), 1);
}

#[test]
fn a_stream_that_has_passed_two_gateways_is_refused() {
    let mut lab = exported_to_b().lab();

    assert!(lab.admit_after("b", PAY, 1).is_ok());
    for hops in [2, 3, 255] {
        assert_eq!(
            lab.admit_after("b", PAY, hops).unwrap_err(),
            Refusal::TooManyHops
        );
    }
}

#[test]
fn an_export_without_endpoints_takes_no_permit() {
    let mut lab = world().peer("b").export("pay.shop", 80).for_peer("b").lab();

    assert_eq!(lab.admit("b", PAY).unwrap_err(), Refusal::NoEndpoint);
    assert_eq!(lab.core.open_streams(&cluster("b")), 0);
}

#[test]
fn a_peer_at_its_limit_waits_for_a_release_and_others_do_not() {
    let mut lab = world()
        .peer_with("b", 2)
        .peer("c")
        .export("pay.shop", 80)
        .for_peer("b")
        .for_peer("c")
        .at("10.0.0.1:80")
        .lab();
    let first = lab.admit("b", PAY).unwrap();
    lab.admit("b", PAY).unwrap();

    assert_eq!(lab.admit("b", PAY).unwrap_err(), Refusal::OverLimit);
    assert!(lab.admit("c", PAY).is_ok());
    lab.core.release(first.permit, lab.now);
    assert!(lab.admit("b", PAY).is_ok());
}

#[test]
fn an_export_at_its_limit_is_full_for_all_peers_and_other_exports_are_not() {
    let mut lab = exported_to_b()
        .for_peer("c")
        .max_streams(1)
        .export("cart.shop", 80)
        .for_peer("c")
        .at("10.0.0.2:80")
        .lab();
    let only = lab.admit("b", PAY).unwrap();

    assert_eq!(lab.admit("c", PAY).unwrap_err(), Refusal::OverLimit);
    assert!(lab.admit("c", "80.cart.shop").is_ok());
    lab.core.release(only.permit, lab.now);
    assert!(lab.admit("c", PAY).is_ok());
}

#[test]
fn a_permit_given_back_twice_counts_once() {
    let mut lab = exported_to_b().lab();
    let first = lab.admit("b", PAY).unwrap();
    lab.core.release(first.permit, lab.now);
    let second = lab.admit("b", PAY).unwrap();

    lab.core.release(first.permit, lab.now);

    assert_ne!(first.permit, second.permit);
    assert_eq!(lab.core.open_streams(&cluster("b")), 1);
    lab.core.check();
}

#[test]
fn near_endpoints_come_first_and_ejected_ones_last() {
    let mut lab = world()
        .peer("b")
        .export("pay.shop", 80)
        .for_peer("b")
        .at("10.0.0.3:80")
        .at_zone("10.0.0.2:80", "1")
        .at_zone("10.0.0.1:80", "1")
        .lab();
    lab.fail(PAY, "10.0.0.1:80", 5);

    let admission = lab.admit("b", PAY).unwrap();

    let expected = ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"];
    assert_eq!(
        admission.endpoints,
        expected.map(|text| text.parse().unwrap())
    );
}

#[test]
fn an_address_listed_twice_is_tried_once() {
    let mut lab = exported_to_b()
        .at("10.0.0.1:80")
        .at_zone("10.0.0.1:80", "1")
        .lab();

    assert_eq!(lab.admit("b", PAY).unwrap().endpoints.len(), 1);
}

#[test]
fn a_direct_client_is_held_against_the_way_the_route_is_open() {
    let caller = SpiffeId::parse("spiffe://partner.example/billing").unwrap();
    let stranger = SpiffeId::parse("spiffe://partner.example/other").unwrap();
    let mut lab = world()
        .export("closed.shop", 443)
        .at("10.0.0.1:443")
        .export("mutual.shop", 443)
        .at("10.0.0.2:443")
        .direct(Direct::Terminate {
            callers: vec![caller.clone()],
        })
        .export("raw.shop", 443)
        .at("10.0.0.3:443")
        .max_streams(2)
        .direct(Direct::Passthrough {
            sources: vec!["192.0.2.0/24".parse().unwrap()],
        })
        .lab();
    let from = |text: &str| DirectClient::Anonymous(text.parse::<IpAddr>().unwrap());
    let identified = DirectClient::Identified(caller);
    let mut admit = |service: &str, client: &DirectClient| {
        let sni = format!("{service}.shop.svc.clusterset.local");
        lab.admit_direct(&sni, client).map(|_| ())
    };

    assert_eq!(admit("closed", &identified), Err(Refusal::Forbidden));
    assert_eq!(admit("none", &identified), Err(Refusal::Forbidden));
    assert_eq!(admit("mutual", &identified), Ok(()));
    assert_eq!(
        admit("mutual", &DirectClient::Identified(stranger)),
        Err(Refusal::SourceNotAllowed)
    );
    assert_eq!(
        admit("mutual", &from("192.0.2.1")),
        Err(Refusal::SourceNotAllowed)
    );
    assert_eq!(admit("raw", &identified), Err(Refusal::SourceNotAllowed));
    assert_eq!(
        admit("raw", &from("198.51.100.1")),
        Err(Refusal::SourceNotAllowed)
    );
    assert_eq!(admit("raw", &from("192.0.2.1")), Ok(()));
    assert_eq!(admit("raw", &from("::ffff:192.0.2.1")), Ok(()));
    assert_eq!(admit("raw", &from("192.0.2.1")), Err(Refusal::OverLimit));
}

#[test]
fn flows_have_a_limit_of_their_own_for_each_peer() {
    let mut lab = world()
        .peer_with("b", 1)
        .peer("c")
        .export("dns.infra", 53)
        .udp()
        .for_peer("b")
        .for_peer("c")
        .at("10.0.0.1:53")
        .export("dns.infra", 53)
        .for_peer("b")
        .at("10.0.0.1:53")
        .lab_with(
            Settings {
                flows_per_peer: 2,
                ..Settings::default()
            },
            7,
        );
    let mut open = |peer: &str, protocol| {
        let opening = Opening {
            route: name("53.dns.infra"),
            protocol,
            hops: 0,
        };
        lab.core.admit(&gateway_of(peer), &opening, lab.now)
    };
    let first = open("b", Protocol::Udp).unwrap();
    assert!(open("b", Protocol::Udp).is_ok());
    assert_eq!(open("b", Protocol::Udp).unwrap_err(), Refusal::FlowLimit);
    assert!(open("c", Protocol::Udp).is_ok());
    assert!(open("b", Protocol::Tcp).is_ok(), "flows are not streams");
    assert_eq!(open("b", Protocol::Tcp).unwrap_err(), Refusal::OverLimit);

    lab.core.release(first.permit, lab.now);
    assert_eq!(lab.core.open_flows(&cluster("b")), 1);
    assert_eq!(lab.core.open_streams(&cluster("b")), 1);
    lab.core.check();
}
