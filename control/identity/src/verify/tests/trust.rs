//! Leaves of a good form, and who may vouch for them, when, and for whom.

use std::collections::BTreeSet;
use std::sync::Arc;

use corinth_model::{Denied, Failure};
use rcgen::{
    BasicConstraints, CustomExtension, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints,
};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;

use super::*;
use crate::bundle::BundleSet;

#[test]
fn chains_of_up_to_four_certificates_verify_and_longer_ones_do_not() {
    let world = World::new();
    let one = world.b.intermediate("one", |_| {});
    let two = one.intermediate("two", |_| {});
    let three = two.intermediate("three", |_| {});
    let four = three.intermediate("four", |_| {});
    for issuer in [&one, &two, &three] {
        let presented = issuer.leaf(&gateway_uri(B), |_| {});
        let length = presented.chain.len();
        assert!(
            world.as_client(&presented).is_established(),
            "{length} certificates"
        );
    }
    let handshake = world.as_client(&four.leaf(&gateway_uri(B), |_| {}));
    assert_client_refused(
        "five certificates",
        handshake,
        Failure::Untrusted,
        "has 5 certificates",
    );
}

#[test]
fn validity_is_exact_to_the_second() {
    let world = World::new();
    let (from, to) = (NOW - 600, NOW + 86_400);
    let presented = world.b.leaf(&gateway_uri(B), |_| {});
    for (now, accepted) in [(from - 1, false), (from, true), (to, true), (to + 1, false)] {
        world.clock.set(now);
        let listener = world.listener(
            &world
                .a
                .leaf(&gateway_uri(A), |p| set_validity(p, from - 9, to + 9)),
        );
        let handshake = Handshake::run(world.dialer(&presented), listener);
        if accepted {
            assert!(handshake.is_established(), "at {now}");
            continue;
        }
        // The other side learns this one reason, since its operator has to act.
        let alert = handshake.client_error.as_ref().and_then(refusal_of);
        assert_eq!(alert, Some(Failure::CertificateExpired), "at {now}");
        assert_client_refused(
            "out of date",
            handshake,
            Failure::CertificateExpired,
            "certificate",
        );
    }
}

#[test]
fn expired_intermediate_is_refused() {
    let world = World::new();
    let expired = world
        .b
        .intermediate("expired", |p| set_validity(p, NOW - 100, NOW - 1));
    let handshake = world.as_client(&expired.leaf(&gateway_uri(B), |_| {}));
    assert_client_refused(
        "expired intermediate",
        handshake,
        Failure::CertificateExpired,
        "expired",
    );
}

#[test]
fn no_trust_domain_vouches_for_another() {
    let world = World::new();
    let cases = [
        (
            "C's authority signs B's name",
            &world.c,
            B,
            "does not verify with the bundle",
        ),
        (
            "a stranger's authority signs B's name",
            &world.stranger,
            B,
            "does not verify with the bundle",
        ),
        (
            "B's authority signs a stranger's name",
            &world.b,
            STRANGER,
            "stranger.test, which is not linked",
        ),
        (
            "a stranger's own gateway",
            &world.stranger,
            STRANGER,
            "stranger.test, which is not linked",
        ),
    ];
    for (case, authority, name, words) in cases {
        let handshake = world.as_client(&authority.leaf(&gateway_uri(name), |_| {}));
        assert_client_refused(case, handshake, Failure::Untrusted, words);
    }
    let forged = world.b.leaf(&gateway_uri(A), |_| {});
    assert_client_refused(
        "B speaks as A to A",
        world.as_client(&forged),
        Failure::WrongPeer,
        "our own trust domain",
    );
    let forged = world.c.leaf(&gateway_uri(A), |_| {});
    assert_server_refused(
        "C serves as A",
        &world.as_server(&forged),
        Failure::Untrusted,
        "does not verify",
    );
    let other = world.c.leaf(&gateway_uri(C), |_| {});
    let handshake = world.as_server(&other);
    assert_server_refused(
        "C's gateway at A's address",
        &handshake,
        Failure::WrongPeer,
        "expected a gateway of a.test",
    );
    // The listener, though, takes any linked domain.
    assert!(world.as_client(&other).is_established());
}

#[test]
fn certificate_that_the_root_did_not_allow_is_refused() {
    let world = World::new();
    let root = Presented {
        chain: vec![world.b.certificate().clone()],
        ..world.b.leaf(&gateway_uri(B), |_| {})
    };
    assert_client_refused(
        "the root itself",
        world.as_client(&root),
        Failure::Untrusted,
        "cA=true",
    );

    let no_ca = world
        .b
        .intermediate("no ca", |p| p.is_ca = IsCa::ExplicitNoCa);
    let handshake = world.as_client(&no_ca.leaf(&gateway_uri(B), |_| {}));
    assert_client_refused(
        "leaf as issuer",
        handshake,
        Failure::Untrusted,
        "does not verify",
    );

    let no_sign = world.b.intermediate("no sign", |p| {
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature]
    });
    let handshake = world.as_client(&no_sign.leaf(&gateway_uri(B), |_| {}));
    assert_client_refused(
        "issuer without keyCertSign",
        handshake,
        Failure::Untrusted,
        "keyCertSign",
    );

    let narrow = world.b.intermediate("narrow", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
    });
    let below = narrow.intermediate("below", |_| {});
    let handshake = world.as_client(&below.leaf(&gateway_uri(B), |_| {}));
    assert_client_refused(
        "path length",
        handshake,
        Failure::Untrusted,
        "does not verify",
    );

    let mut cut = below.leaf(&gateway_uri(B), |_| {});
    cut.chain.truncate(1);
    assert_client_refused(
        "missing intermediate",
        world.as_client(&cut),
        Failure::Untrusted,
        "does not verify",
    );

    let mut damaged = world.b.leaf(&gateway_uri(B), |_| {});
    let mut bytes = damaged.chain[0].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    damaged.chain[0] = CertificateDer::from(bytes);
    assert_client_refused(
        "broken signature",
        world.as_client(&damaged),
        Failure::Untrusted,
        "does not verify",
    );
}

#[test]
fn uri_name_constraints_are_named_in_the_error() {
    let world = World::new();
    for permitted in [true, false] {
        let constrained = world.b.intermediate("narrow authority", |p| {
            p.custom_extensions.push(uri_constraint(permitted))
        });
        let handshake = world.as_client(&constrained.leaf(&gateway_uri(B), |_| {}));
        assert_client_refused(
            "URI constraint",
            handshake,
            Failure::Untrusted,
            "URI name constraints",
        );
        let handshake = world.as_client(&constrained.leaf(&gateway_uri(B), |_| {}));
        assert!(describe(&handshake.server_error.unwrap()).contains("CN=narrow authority"));
    }
    // Constraints on other kinds of names are webpki's business.
    let dns = world.b.intermediate("dns", |p| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("b.test".to_owned())];
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees,
            excluded_subtrees: Vec::new(),
        });
    });
    assert!(
        world
            .as_client(&dns.leaf(&gateway_uri(B), |_| {}))
            .is_established()
    );
    let outside = dns.leaf(&gateway_uri(B), |p| {
        p.subject_alt_names.push(dns_name("evil.test"))
    });
    assert_client_refused(
        "DNS constraint",
        world.as_client(&outside),
        Failure::Untrusted,
        "does not verify",
    );
}

#[test]
fn change_of_bundles_and_denials_is_seen_by_the_next_handshake() {
    let world = World::new();
    let presented = world.b.leaf(&gateway_uri(B), |_| {});
    let listener = Arc::new(world.good_listener());
    let meet = || Handshake::run(world.dialer(&presented), ServerConfig::clone(&listener));
    assert!(meet().is_established());

    for denied in [Denied::Id(gateway(B)), Denied::TrustDomain(domain(B))] {
        world.denials.replace(BTreeSet::from([denied]));
        assert_client_refused("denied", meet(), Failure::Untrusted, "is denied");
    }
    world.denials.replace(BTreeSet::new());
    assert!(meet().is_established());

    let mut without_b = BundleSet::clone(&world.bundles.current());
    without_b.remove(&domain(B)).unwrap();
    let before = world.bundles.replace(without_b);
    assert_client_refused(
        "unlinked",
        meet(),
        Failure::Untrusted,
        "which is not linked",
    );

    let mut distrusted = BundleSet::clone(&before);
    distrusted.remove(&domain(B)).unwrap();
    distrusted
        .insert(Bundle::new(domain(B), Vec::new(), 9).unwrap())
        .unwrap();
    world.bundles.replace(distrusted);
    assert_client_refused(
        "empty bundle",
        meet(),
        Failure::Untrusted,
        "does not verify",
    );

    world.bundles.replace(BundleSet::clone(&before));
    assert!(meet().is_established());
}

#[test]
fn roots_overlap_during_their_rotation() {
    let world = World::new();
    let next = Forge::root(B);
    let mut set = BundleSet::clone(&world.bundles.current());
    let roots = vec![world.b.certificate().clone(), next.certificate().clone()];
    set.insert(Bundle::new(domain(B), roots, 2).unwrap())
        .unwrap();
    world.bundles.replace(set);
    for authority in [&world.b, &next] {
        assert!(
            world
                .as_client(&authority.leaf(&gateway_uri(B), |_| {}))
                .is_established()
        );
    }
}

#[test]
fn terminate_accepts_listed_callers_of_any_role_and_nobody_else() {
    let world = World::new();
    let (caller, other) = (
        "spiffe://b.test/ns/shop/sa/web",
        "spiffe://b.test/ns/shop/sa/webs",
    );
    let callers = BTreeSet::from([id(caller), id("spiffe://a.test/ns/shop/sa/cron")]);
    let call = |presented: &Presented| {
        let verifier = CallerVerifier::new(
            world.bundles.clone(),
            world.denials.clone(),
            callers.clone(),
        );
        let own = world.a.leaf(&gateway_uri(A), |_| {}).resolver();
        let server = tls::server_config(
            Arc::new(verifier),
            own,
            &[],
            Arc::<Clock>::clone(&world.clock),
        );
        Handshake::run(world.dialer(presented), server)
    };
    assert!(call(&world.b.leaf(caller, |_| {})).is_established());
    assert!(
        call(&world.a.leaf("spiffe://a.test/ns/shop/sa/cron", |_| {})).is_established(),
        "own callers too"
    );
    for presented in [
        world.b.leaf(other, |_| {}),
        world.b.leaf(&gateway_uri(B), |_| {}),
    ] {
        assert_client_refused(
            "not listed",
            call(&presented),
            Failure::Untrusted,
            "not among the callers",
        );
    }
    let forged = world.c.leaf(caller, |_| {});
    assert_client_refused(
        "signed by another",
        call(&forged),
        Failure::Untrusted,
        "does not verify",
    );
}

/// A critical constraint of URIs to b.test, as permitted or as excluded (RFC 5280 §4.2.1.10).
fn uri_constraint(permitted: bool) -> CustomExtension {
    let subtree = der(0x30, &der(0x86, b"b.test"));
    let content = der(0x30, &der(if permitted { 0xa0 } else { 0xa1 }, &subtree));
    let mut extension = CustomExtension::from_oid_content(NAME_CONSTRAINTS, content);
    extension.set_criticality(true);
    extension
}
