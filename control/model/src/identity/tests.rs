//! Every malformation of a SPIFFE ID, and the roles.

use crate::{
    ClusterName, GatewayId, Label, NotAGateway, Role, Slot, SpiffeError, SpiffeId, TrustDomain,
};

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// A SPIFFE ID of exactly `bytes` bytes.
fn id_text(bytes: usize) -> String {
    let front = "spiffe://west/";
    format!("{front}{}", "a".repeat(bytes - front.len()))
}

#[test]
fn a_spiffe_id_is_read_as_its_parts_and_written_back() {
    let text = "spiffe://west.corinth.internal/ns/Shop_1/sa/pay.ments-2";
    let id = id(text);
    assert_eq!(id.trust_domain().as_str(), "west.corinth.internal");
    assert_eq!(
        id.segments().collect::<Vec<_>>(),
        ["ns", "Shop_1", "sa", "pay.ments-2"]
    );
    assert_eq!(id.to_string(), text);
}

#[test]
fn every_malformed_spiffe_id_is_refused_by_the_rule_it_broke() {
    let domain = |found| SpiffeError::TrustDomainCharacter { found };
    let path = |found| SpiffeError::PathCharacter { found };
    let cases = [
        ("", SpiffeError::Scheme),
        ("SPIFFE://west/a", SpiffeError::Scheme),
        ("Spiffe://west/a", SpiffeError::Scheme),
        ("spiffe:/west/a", SpiffeError::Scheme),
        ("spiffe:west", SpiffeError::Scheme),
        ("https://west/a", SpiffeError::Scheme),
        (" spiffe://west/a", SpiffeError::Scheme),
        ("spiffe://", SpiffeError::TrustDomainEmpty),
        ("spiffe:///a", SpiffeError::TrustDomainEmpty),
        ("spiffe://West/a", domain('W')),
        ("spiffe://west:443/a", domain(':')),
        ("spiffe://user@west/a", domain('@')),
        ("spiffe://user:pass@west/a", domain(':')),
        ("spiffe://we%73t/a", domain('%')),
        ("spiffe://[::1]/a", domain('[')),
        ("spiffe://west\0/a", domain('\0')),
        ("spiffe://wést/a", domain('é')),
        ("spiffe://west?x=1", domain('?')),
        ("spiffe://west#x", domain('#')),
        ("spiffe://west", SpiffeError::PathMissing),
        ("spiffe://west/", SpiffeError::PathMissing),
        ("spiffe://west//", SpiffeError::SegmentEmpty),
        ("spiffe://west//a", SpiffeError::SegmentEmpty),
        ("spiffe://west/a//b", SpiffeError::SegmentEmpty),
        ("spiffe://west/a/", SpiffeError::SegmentEmpty),
        ("spiffe://west/.", SpiffeError::SegmentRelative),
        ("spiffe://west/a/./b", SpiffeError::SegmentRelative),
        ("spiffe://west/a/../b", SpiffeError::SegmentRelative),
        (
            "spiffe://west/corinth/gateway/..",
            SpiffeError::SegmentRelative,
        ),
        ("spiffe://west/a?query", path('?')),
        ("spiffe://west/a#fragment", path('#')),
        ("spiffe://west/%2e/b", path('%')),
        ("spiffe://west/a%2fb", path('%')),
        ("spiffe://west/a b", path(' ')),
        ("spiffe://west/a\0", path('\0')),
        ("spiffe://west/a\n", path('\n')),
        ("spiffe://west/ä", path('ä')),
        ("spiffe://west/a:b", path(':')),
        ("spiffe://west/a\\b", path('\\')),
    ];
    for (text, error) in cases {
        assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
        assert!(error.to_string().is_ascii(), "{error}");
    }
}

#[test]
fn a_spiffe_id_ends_exactly_at_2048_bytes() {
    assert_eq!(
        SpiffeId::parse(&id_text(2048)).unwrap().to_string(),
        id_text(2048)
    );
    assert_eq!(
        SpiffeId::parse(&id_text(2049)),
        Err(SpiffeError::TooLong { bytes: 2049 })
    );
    let west = TrustDomain::parse("west").unwrap();
    let fits = "a".repeat(2048 - "spiffe://west/".len());
    assert!(SpiffeId::from_segments(west.clone(), &[&fits]).is_ok());
    let error = SpiffeId::from_segments(west, &[&fits, "b"]);
    assert_eq!(error, Err(SpiffeError::TooLong { bytes: 2050 }));
}

#[test]
fn a_trust_domain_ends_exactly_at_255_bytes() {
    assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
    let error = SpiffeError::TrustDomainTooLong { bytes: 256 };
    assert_eq!(TrustDomain::parse(&"a".repeat(256)), Err(error));
    assert_eq!(TrustDomain::parse(""), Err(SpiffeError::TrustDomainEmpty));
    assert!(TrustDomain::parse("we_st-1.example").is_ok());
}

#[test]
fn a_cluster_has_a_trust_domain_of_its_own() {
    let west = ClusterName::parse("west").unwrap();
    assert_eq!(
        TrustDomain::of_cluster(&west).as_str(),
        "west.corinth.internal"
    );
}

#[test]
fn parts_put_together_obey_the_same_rules() {
    let west = TrustDomain::parse("west").unwrap();
    let made = SpiffeId::from_segments(west.clone(), &["corinth", "control", "0"]).unwrap();
    assert_eq!(made, id("spiffe://west/corinth/control/0"));
    for (segments, error) in [
        (&[][..], SpiffeError::PathMissing),
        (&["a", ""][..], SpiffeError::SegmentEmpty),
        (&["a", ".."][..], SpiffeError::SegmentRelative),
        (&["a/b"][..], SpiffeError::PathCharacter { found: '/' }),
    ] {
        assert_eq!(
            SpiffeId::from_segments(west.clone(), segments),
            Err(error),
            "{segments:?}"
        );
    }
}

#[test]
fn a_role_is_exactly_its_path() {
    let slot = |text| Slot::parse(text).unwrap();
    let node = Label::parse("node-7").unwrap();
    let cases = [
        ("corinth/gateway/0", Role::Gateway(slot("0"))),
        ("corinth/gateway/edge-1", Role::Gateway(slot("edge-1"))),
        ("corinth/control/0", Role::Control(slot("0"))),
        ("corinth/redirect/node-7", Role::Redirect(node)),
        ("corinth/gateway", Role::Other),
        ("corinth/gateway/0/more", Role::Other),
        ("corinth/gateway/A", Role::Other),
        ("corinth/gateway/a_b", Role::Other),
        ("corinth/gateway/-a", Role::Other),
        ("corinth/Gateway/0", Role::Other),
        ("Corinth/gateway/0", Role::Other),
        ("corinth/gateways/0", Role::Other),
        ("x/corinth/gateway/0", Role::Other),
        ("ns/shop/sa/payments", Role::Other),
        ("gateway/0", Role::Other),
    ];
    for (path, role) in cases {
        assert_eq!(id(&format!("spiffe://west/{path}")).role(), role, "{path}");
    }
}

#[test]
fn only_a_gateways_identity_becomes_a_gateway() {
    let text = "spiffe://west.corinth.internal/corinth/gateway/0";
    let gateway = GatewayId::try_from(&id(text)).unwrap();
    assert_eq!(gateway.spiffe_id(), id(text));
    assert_eq!(gateway.to_string(), text);
    for path in [
        "corinth/control/0",
        "corinth/redirect/node-7",
        "ns/shop/sa/payments",
    ] {
        let other = id(&format!("spiffe://west.corinth.internal/{path}"));
        assert_eq!(GatewayId::try_from(&other), Err(NotAGateway), "{path}");
    }
}

#[test]
fn identities_are_strings_in_json() {
    let text = "\"spiffe://west/corinth/gateway/0\"";
    let id: SpiffeId = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&id).unwrap(), text);
    assert!(serde_json::from_str::<SpiffeId>("\"spiffe://west/\"").is_err());
    assert!(serde_json::from_str::<Slot>("\"A\"").is_err());
}
