//! Leaves that say the wrong thing about themselves, under an authority that is trusted.

use corinth_model::Failure;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;

use super::*;

#[test]
fn leaf_of_a_wrong_form_is_refused_on_both_sides() {
    type Tweak = Box<dyn Fn(&mut CertificateParams)>;
    let cases: Vec<(&str, Tweak, &str)> = vec![
        (
            "no SAN",
            Box::new(|p| p.subject_alt_names.clear()),
            "0 URI names",
        ),
        (
            "DNS name only",
            Box::new(|p| p.subject_alt_names = vec![dns_name("b.test")]),
            "0 URI names",
        ),
        (
            "two SPIFFE IDs",
            Box::new(|p| p.subject_alt_names.push(uri_name(&gateway_uri(C)))),
            "2 URI names",
        ),
        (
            "same ID twice",
            Box::new(|p| p.subject_alt_names.push(p.subject_alt_names[0].clone())),
            "2 URI names",
        ),
        (
            "foreign URI beside",
            Box::new(|p| p.subject_alt_names.push(uri_name("https://b.test/"))),
            "2 URI names",
        ),
        (
            "cA=true",
            Box::new(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            "cA=true",
        ),
        (
            "keyCertSign",
            Box::new(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            "keyCertSign",
        ),
        (
            "cRLSign",
            Box::new(|p| p.key_usages.push(KeyUsagePurpose::CrlSign)),
            "cRLSign",
        ),
        (
            "no key usage",
            Box::new(|p| p.key_usages.clear()),
            "no critical key usage",
        ),
        (
            "no digitalSignature",
            Box::new(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
            "no critical key usage",
        ),
        (
            "key usage not critical",
            Box::new(lax_key_usage),
            "no critical key usage",
        ),
        (
            "EKU of another purpose",
            Box::new(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]),
            "extended key usage",
        ),
        (
            "EKU any",
            Box::new(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]),
            "extended key usage",
        ),
        (
            "unknown critical extension",
            Box::new(unknown_critical),
            "does not verify",
        ),
        (
            "two SAN extensions",
            Box::new(|p| {
                p.custom_extensions
                    .push(raw_uri_names(&[b"spiffe://c.test/x"]))
            }),
            "",
        ),
        (
            "empty SAN extension",
            Box::new(|p| replace_names(p, &[])),
            "URI names",
        ),
        (
            "NUL in the URI",
            Box::new(|p| replace_names(p, &[b"spiffe://b.test\0.evil/corinth/gateway/0"])),
            "SPIFFE ID",
        ),
        (
            "NUL at the end",
            Box::new(|p| replace_names(p, &[b"spiffe://b.test/corinth/gateway/0\0"])),
            "SPIFFE ID",
        ),
        (
            "0x80 in the URI",
            Box::new(|p| replace_names(p, &[b"spiffe://b.test/corinth/gateway/\x80"])),
            "names",
        ),
        (
            "UTF-8 in the URI",
            Box::new(|p| replace_names(p, &["spiffe://b.test/corinth/gateway/ä".as_bytes()])),
            "SPIFFE ID",
        ),
        (
            "good ID and an unreadable one",
            Box::new(|p| replace_names(p, &[gateway_uri(B).as_bytes(), b"\xff"])),
            "names",
        ),
        (
            "empty URI",
            Box::new(|p| replace_names(p, &[b""])),
            "SPIFFE ID",
        ),
    ];
    let world = World::new();
    for (case, tweak, words) in &cases {
        let client = world.b.leaf(&gateway_uri(B), tweak);
        assert_client_refused(case, world.as_client(&client), Failure::Untrusted, words);
        let server = world.a.leaf(&gateway_uri(A), tweak);
        assert!(
            world.as_server(&server).client_error.is_some(),
            "{case}: accepted as a server"
        );
    }
}

#[test]
fn uri_that_is_no_gateway_id_is_refused() {
    let long = |total: usize| {
        let start = "spiffe://b.test/corinth/gateway/";
        format!("{start}{}", "a".repeat(total - start.len()))
    };
    let untrusted: &[&str] = &[
        "SPIFFE://b.test/corinth/gateway/0",
        "Spiffe://b.test/corinth/gateway/0",
        "spiffe:/b.test/corinth/gateway/0",
        "spiffe:b.test/corinth/gateway/0",
        "https://b.test/corinth/gateway/0",
        "spiffe://B.test/corinth/gateway/0",
        "spiffe://b.test:15443/corinth/gateway/0",
        "spiffe://user@b.test/corinth/gateway/0",
        "spiffe://user:word@b.test/corinth/gateway/0",
        "spiffe://b.test/corinth/gateway/0?x=1",
        "spiffe://b.test/corinth/gateway/0#x",
        "spiffe://b.test/corinth/gateway/%30",
        "spiffe://b%2etest/corinth/gateway/0",
        "spiffe://b.test//corinth/gateway/0",
        "spiffe://b.test/corinth//gateway/0",
        "spiffe://b.test/corinth/../corinth/gateway/0",
        "spiffe://b.test/./corinth/gateway/0",
        "spiffe://b.test/corinth/gateway/0/",
        "spiffe://b.test/corinth/gateway/0//",
        "spiffe://b.test",
        "spiffe://b.test/",
        "spiffe:///corinth/gateway/0",
        " spiffe://b.test/corinth/gateway/0",
        "spiffe://b.test/corinth/gateway/0 ",
        "spiffe://b.test\\corinth/gateway/0",
        "spiffe://[::1]/corinth/gateway/0",
        "spiffe://b.test./corinth/gateway/0",
        "spiffe://b.test.evil/corinth/gateway/0",
        "spiffe://evil.b.test/corinth/gateway/0",
        &long(2049),
    ];
    let wrong_role: &[&str] = &[
        "spiffe://b.test/ns/shop/sa/payments",
        "spiffe://b.test/corinth/control/0",
        "spiffe://b.test/corinth/redirect/node-1",
        "spiffe://b.test/corinth/gateway",
        "spiffe://b.test/corinth/gateway/0/1",
        "spiffe://b.test/corinth/gateways/0",
        "spiffe://b.test/Corinth/gateway/0",
        "spiffe://b.test/x/corinth/gateway/0",
        &long(2048),
    ];
    let world = World::new();
    for uri in untrusted {
        assert_client_refused(
            uri,
            world.as_client(&world.b.leaf(uri, |_| {})),
            Failure::Untrusted,
            "",
        );
    }
    for uri in wrong_role {
        let handshake = world.as_client(&world.b.leaf(uri, |_| {}));
        assert_client_refused(
            uri,
            handshake,
            Failure::WrongRole,
            "is not a gateway identity",
        );
    }
    let workload = world.a.leaf("spiffe://a.test/ns/shop/sa/payments", |_| {});
    assert_server_refused(
        "workload",
        &world.as_server(&workload),
        Failure::WrongRole,
        "is not a gateway",
    );
}

#[test]
fn extended_key_usage_counts_by_side() {
    let world = World::new();
    let only = |purpose: ExtendedKeyUsagePurpose| {
        move |p: &mut CertificateParams| p.extended_key_usages = vec![purpose]
    };
    let client = world
        .b
        .leaf(&gateway_uri(B), only(ExtendedKeyUsagePurpose::ServerAuth));
    assert_client_refused(
        "server's",
        world.as_client(&client),
        Failure::Untrusted,
        "clientAuth",
    );
    let server = world
        .a
        .leaf(&gateway_uri(A), only(ExtendedKeyUsagePurpose::ClientAuth));
    assert_server_refused(
        "client's",
        &world.as_server(&server),
        Failure::Untrusted,
        "serverAuth",
    );
    let absent = world
        .b
        .leaf(&gateway_uri(B), |p| p.extended_key_usages.clear());
    assert!(
        world.as_client(&absent).is_established(),
        "SPIFFE lets the extension be absent"
    );
}

#[test]
fn unreadable_certificate_is_refused() {
    let world = World::new();
    let good = world.b.leaf(&gateway_uri(B), |_| {});
    let whole = good.chain[0].to_vec();
    let longer = [&whole[..], b"\0"].concat();
    for (case, bytes) in [
        ("cut", whole[..whole.len() - 1].to_vec()),
        ("trailing byte", longer),
        ("text", b"certificate".to_vec()),
        ("empty sequence", vec![0x30, 0]),
        ("huge length", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
    ] {
        let presented = Presented {
            chain: vec![CertificateDer::from(bytes)],
            key: good.key.clone_key(),
        };
        assert_client_refused(
            case,
            world.as_client(&presented),
            Failure::Untrusted,
            "cannot be read",
        );
    }
}

#[test]
fn client_must_own_the_key_of_its_certificate() {
    let world = World::new();
    let (mut thief, other) = (
        world.b.leaf(&gateway_uri(B), |_| {}),
        world.b.leaf(&gateway_uri(B), |_| {}),
    );
    thief.key = other.key;
    assert_client_refused(
        "stolen certificate",
        world.as_client(&thief),
        Failure::Untrusted,
        "",
    );
    let mut thief = world.a.leaf(&gateway_uri(A), |_| {});
    thief.key = world.a.leaf(&gateway_uri(A), |_| {}).key;
    assert_server_refused(
        "stolen certificate",
        &world.as_server(&thief),
        Failure::Untrusted,
        "",
    );
}

/// Puts a hand-written list of URIs in the place of all names.
fn replace_names(params: &mut CertificateParams, uris: &[&[u8]]) {
    params.subject_alt_names.clear();
    params.custom_extensions.push(raw_uri_names(uris));
}

/// digitalSignature, but not critical.
fn lax_key_usage(params: &mut CertificateParams) {
    params.key_usages.clear();
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(
            KEY_USAGE,
            vec![0x03, 0x02, 0x07, 0x80],
        ));
}

fn unknown_critical(params: &mut CertificateParams) {
    let mut extension =
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![0x05, 0x00]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
}
