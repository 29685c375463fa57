//! What the authority issues, and what it refuses to be.

use std::sync::Arc;

use super::*;
use crate::own::OwnIdentity;
use crate::testing::*;

#[test]
fn issued_leaf_has_exactly_the_promised_form() {
    let authority = Authority::create(domain(A), at(NOW)).unwrap();
    let name = DnsName::parse("443.payments.shop.svc.clusterset.local").unwrap();
    let leaf = authority
        .issue(
            &gateway(A),
            std::slice::from_ref(&name),
            at(NOW),
            LEAF_LIFETIME,
        )
        .unwrap();
    assert_eq!(*leaf.id(), gateway(A));
    assert_eq!(
        (leaf.not_before(), leaf.not_after()),
        (at(NOW - 600), at(NOW + 24 * 3600))
    );
    assert_eq!(leaf.chain().len(), 1, "the root is not sent");

    let certificate = presented::parse(&leaf.chain()[0]).unwrap();
    let names = &certificate
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value
        .general_names;
    let uri = gateway_uri(A);
    assert_eq!(
        *names,
        [
            GeneralName::URI(&uri),
            GeneralName::DNSName(&name.to_string())
        ]
    );
    let constraints = certificate.basic_constraints().unwrap().unwrap();
    assert!(!constraints.value.ca);
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature alone");
    let purpose = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purpose.server_auth && purpose.client_auth && !purpose.any && purpose.other.is_empty());
}

#[test]
fn leaf_ends_no_later_than_its_root() {
    let authority = Authority::create(domain(A), at(NOW)).unwrap();
    let root_end = NOW + ROOT_LIFETIME.as_secs();
    let leaf = authority
        .issue(&gateway(A), &[], at(root_end - 10), LEAF_LIFETIME)
        .unwrap();
    assert_eq!(leaf.not_after(), at(root_end));
    let late = authority.issue(&gateway(A), &[], at(root_end + 1), LEAF_LIFETIME);
    assert!(matches!(late, Err(AuthorityError::RootExpired(_))));
}

#[test]
fn authority_issues_only_in_its_own_trust_domain() {
    let authority = Authority::create(domain(A), at(NOW)).unwrap();
    let foreign = authority
        .issue(&gateway(B), &[], at(NOW), LEAF_LIFETIME)
        .unwrap_err();
    assert_eq!(
        foreign.to_string(),
        "spiffe://b.test/corinth/gateway/0 is not in the trust domain a.test of this authority"
    );
}

#[test]
fn serial_numbers_and_keys_differ() {
    let authority = Authority::create(domain(A), at(NOW)).unwrap();
    let [one, two] = [(); 2].map(|()| {
        authority
            .issue(&gateway(A), &[], at(NOW), LEAF_LIFETIME)
            .unwrap()
    });
    let parsed = [&one, &two].map(|leaf| presented::parse(&leaf.chain()[0]).unwrap());
    assert_ne!(parsed[0].raw_serial(), parsed[1].raw_serial());
    assert_ne!(parsed[0].public_key().raw, parsed[1].public_key().raw);
}

#[test]
fn authority_survives_its_text_form() {
    let before = Authority::create(domain(A), at(NOW)).unwrap();
    let after =
        Authority::from_pem(domain(A), before.certificate_pem(), &before.key_pem()).unwrap();
    assert_eq!(after.root(), before.root());
    assert!(meets(&after, &before.bundle(0)));
    let remade = Authority::from_key_pem(domain(A), &before.key_pem(), at(NOW)).unwrap();
    assert!(
        meets(&remade, &before.bundle(0)),
        "peers that pinned the old root accept leaves under the remade one"
    );
    assert!(meets(&before, &remade.bundle(0)));
}

#[test]
fn unfit_files_are_told_apart() {
    let [one, two] = [(); 2].map(|()| Authority::create(domain(A), at(NOW)).unwrap());
    let leaf = Forge::root(A).leaf(&gateway_uri(A), |_| {});
    let leaf = pem(&leaf.chain[0]);
    let (good, key) = (one.certificate_pem().to_owned(), one.key_pem());
    let chain = format!("{good}{good}");
    let cases = [
        (
            A,
            &*good,
            &*two.key_pem(),
            "the authority's key is not that of its certificate",
        ),
        (A, &good, "", "no PKCS#8 private key"),
        (A, &good, &good, "no PKCS#8 private key"),
        (A, "", &key, "holds 0 certificates"),
        (
            A,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            "cannot be read",
        ),
        (A, &chain, &key, "holds 2 certificates"),
        (A, &leaf, &key, "not an authority"),
        (
            B,
            &good,
            &key,
            "certificate is for spiffe://a.test, but the trust domain is b.test",
        ),
    ];
    for (name, certificate, key, words) in cases {
        let error = Authority::from_pem(domain(name), certificate, key)
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
}

#[test]
fn no_key_shows_in_any_debug_form() {
    let authority = Arc::new(Authority::create(domain(A), at(NOW)).unwrap());
    let leaf = authority
        .issue(&gateway(A), &[], at(NOW), LEAF_LIFETIME)
        .unwrap();
    let own = OwnIdentity::from_leaf(&leaf).unwrap();
    assert_eq!(
        format!("{authority:?}"),
        r#"Authority { trust_domain: TrustDomain("a.test"), root_not_after: 2215360000, .. }"#
    );
    for text in [format!("{leaf:?}"), format!("{own:?}")] {
        assert!(!text.contains("key"), "{text}");
    }
}

/// Does a leaf of this authority verify with these roots?
fn meets(authority: &Authority, roots: &Bundle) -> bool {
    let leaf = authority
        .issue(&gateway(A), &[], at(NOW), LEAF_LIFETIME)
        .unwrap();
    let bundles = bundles(&[(A, &roots.roots()[0])]);
    let verifier = crate::GatewayVerifier::dialer(bundles, crate::Denials::default(), domain(A));
    verifier
        .verify(&leaf.chain()[0], &[], crate::Side::Server, at(NOW))
        .is_ok()
}
