//! When a leaf is renewed, and what may take its place.

use super::*;
use crate::authority::LEAF_LIFETIME;
use crate::testing::*;

#[test]
fn renewal_is_due_at_half_life() {
    let own = issued();
    let half = NOW + LEAF_LIFETIME.as_secs() / 2;
    assert_eq!(own.next_renewal(at(NOW)), Duration::from_secs(half - NOW));
    assert_eq!(own.next_renewal(at(half - 1)), Duration::from_secs(1));
    assert_eq!(own.next_renewal(at(half)), Duration::ZERO);
    assert_eq!(own.next_renewal(at(half + 1_000_000)), Duration::ZERO);
    assert_eq!(
        own.next_renewal(at(0)),
        Duration::from_secs(half),
        "also when the clock was set back"
    );
}

#[test]
fn leaf_is_expiring_in_the_last_quarter_of_its_life() {
    let own = issued();
    let quarter = NOW + LEAF_LIFETIME.as_secs() / 4 * 3;
    assert!(!own.is_expiring(at(NOW)) && !own.is_expiring(at(quarter)));
    assert!(own.is_expiring(at(quarter + 1)));
    own.renew(at(quarter + 1)).unwrap();
    assert!(!own.is_expiring(at(quarter + 1)));
}

#[test]
fn who_waits_for_the_first_leaf_shows_none_and_then_that() {
    let own = OwnIdentity::awaiting(gateway(A));
    assert!(own.certified().is_none() && own.is_expiring(at(NOW)));
    assert_eq!(own.not_after(), at(0));
    assert_eq!(own.next_renewal(at(NOW)), Duration::ZERO);
    let authority = Authority::create(domain(A), at(NOW)).unwrap();
    let leaf = authority.issue(&gateway(A), &[], at(NOW), LEAF_LIFETIME);
    own.replace(&leaf.unwrap()).unwrap();
    assert!(own.certified().is_some() && !own.is_expiring(at(NOW)));
}

#[test]
fn leaf_is_known_to_be_under_its_root_and_no_other_whenever_that_is_asked() {
    let [one, other] = [(); 2].map(|()| Authority::create(domain(A), at(NOW)).unwrap());
    let own = OwnIdentity::awaiting(gateway(A));
    assert!(own.is_under(one.root()).unwrap(), "there is none");
    let leaf = one.issue(&gateway(A), &[], at(NOW), LEAF_LIFETIME).unwrap();
    own.replace(&leaf).unwrap();
    assert!(own.is_under(one.root()).unwrap());
    assert!(!own.is_under(other.root()).unwrap());
    assert!(own.is_under(&CertificateDer::from(vec![1])).is_err());
}

#[test]
fn renewed_leaf_is_shown_at_once() {
    let own = issued();
    let before = own.certified().unwrap();
    own.renew(at(NOW + 3600)).unwrap();
    assert_eq!(own.not_after(), at(NOW + 3600 + LEAF_LIFETIME.as_secs()));
    assert_ne!(own.certified().unwrap().cert, before.cert);
}

#[test]
fn failed_renewal_keeps_the_leaf() {
    let own = issued();
    let before = own.certified().unwrap();
    let after_root = NOW + crate::ROOT_LIFETIME.as_secs() + 1;
    assert!(matches!(
        own.renew(at(after_root)),
        Err(RenewalError::Authority(_))
    ));
    let other = Authority::create(domain(A), at(NOW)).unwrap();
    let stranger = other
        .issue(
            &id("spiffe://a.test/corinth/gateway/1"),
            &[],
            at(NOW),
            LEAF_LIFETIME,
        )
        .unwrap();
    assert!(matches!(
        own.replace(&stranger),
        Err(RenewalError::OtherIdentity { .. })
    ));
    assert!(Arc::ptr_eq(&own.certified().unwrap(), &before));
}

#[test]
fn root_that_took_over_in_the_state_directory_issues_the_next_leaf() {
    let temp = tempfile::TempDir::new().unwrap();
    let open = || StateDir::open(temp.path().join("state")).unwrap();
    let first = open().load_or_create(&domain(A), at(NOW)).unwrap();
    let authority = Arc::new(first.authority);
    let own = OwnIdentity::issued_by(authority, &gateway(A), Vec::new(), LEAF_LIFETIME, at(NOW));
    let own = own.unwrap().following(Arc::new(open()));
    let named = own.under_names(Vec::new(), at(NOW)).unwrap().unwrap();
    let is_due = |own: &OwnIdentity| own.next_renewal(at(NOW)).is_zero();
    open().begin_rotation(&domain(A), at(NOW)).unwrap();
    own.follow(at(NOW)).unwrap();
    assert!(!is_due(&own), "the old root still issues");
    let switched = open().switch_rotation(&domain(A), at(NOW)).unwrap();
    own.follow(at(NOW)).unwrap();
    assert!(is_due(&own) && is_due(&named));
    own.renew(at(NOW)).unwrap();
    assert!(
        !is_due(&own) && is_due(&named),
        "each has a leaf of its own"
    );
    named.renew(at(NOW)).unwrap();
    assert!(!is_due(&named));
    let bundles = bundles(&[(A, switched.authority.root())]);
    let peer = crate::GatewayVerifier::dialer(bundles, crate::Denials::default(), domain(A));
    for own in [&own, &named] {
        let leaf = &own.certified().unwrap().cert[0];
        peer.verify(leaf, &[], crate::Side::Server, at(NOW))
            .unwrap();
    }
    // A directory that cannot be read changes nothing.
    std::fs::remove_dir_all(temp.path()).unwrap();
    assert!(own.follow(at(NOW)).is_err());
    own.renew(at(NOW)).unwrap();
}

#[test]
fn leaf_from_outside_is_replaced_from_outside() {
    let forge = Forge::root(A);
    let leaf = |slot: u32| {
        let presented = forge.leaf(&gateway_uri(A), |p| {
            set_validity(p, NOW, NOW + u64::from(slot))
        });
        Leaf::new(presented.chain, presented.key).unwrap()
    };
    let own = OwnIdentity::from_leaf(&leaf(100)).unwrap();
    assert!(matches!(own.renew(at(NOW)), Err(RenewalError::FromOutside)));
    own.replace(&leaf(200)).unwrap();
    assert_eq!(own.not_after(), at(NOW + 200));
}

#[test]
fn unfit_leaf_is_told_apart() {
    let forge = Forge::root(A);
    let [one, two] = [(); 2].map(|()| forge.leaf(&gateway_uri(A), |_| {}));
    let mixed = Leaf::new(one.chain.clone(), two.key).unwrap();
    assert!(matches!(
        OwnIdentity::from_leaf(&mixed),
        Err(LeafError::Mismatch(_))
    ));
    assert!(matches!(
        Leaf::new(Vec::new(), one.key.clone_key()),
        Err(LeafError::Empty)
    ));
    let nameless = forge.leaf(&gateway_uri(A), |p| p.subject_alt_names.clear());
    assert!(matches!(
        Leaf::new(nameless.chain, nameless.key),
        Err(LeafError::Certificate(_))
    ));

    let (chain, key) = (
        pem(&one.chain[0]),
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    let leaf = Leaf::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let error = OwnIdentity::from_leaf(&leaf).unwrap_err().to_string();
    assert!(
        error.starts_with("the private key does not fit the certificate"),
        "{error}"
    );
    assert!(matches!(
        Leaf::from_pem(chain.as_bytes(), chain.as_bytes()),
        Err(LeafError::Key)
    ));
    assert!(matches!(
        Leaf::from_pem(b"", key.as_bytes()),
        Err(LeafError::Empty)
    ));
}

#[test]
fn leaf_under_names_lives_as_long_as_ours() {
    let authority = Arc::new(Authority::create(domain(A), at(NOW)).unwrap());
    let life = Duration::from_secs(60);
    let own = OwnIdentity::issued_by(authority, &gateway(A), Vec::new(), life, at(NOW)).unwrap();
    let names = vec![DnsName::parse("payments.example.org").unwrap()];
    let named = own.under_names(names, at(NOW + 30)).unwrap().unwrap();
    assert_eq!(named.id(), own.id());
    assert_eq!(named.not_after(), at(NOW + 30 + 60));
}

#[test]
fn leaf_from_outside_is_under_no_other_names() {
    let authority = Authority::create(domain(A), at(NOW)).unwrap();
    let leaf = authority.issue(&gateway(A), &[], at(NOW), LEAF_LIFETIME);
    let own = OwnIdentity::from_leaf(&leaf.unwrap()).unwrap();
    assert!(own.under_names(Vec::new(), at(NOW)).is_none());
}

fn issued() -> OwnIdentity {
    let authority = Arc::new(Authority::create(domain(A), at(NOW)).unwrap());
    OwnIdentity::issued_by(authority, &gateway(A), Vec::new(), LEAF_LIFETIME, at(NOW)).unwrap()
}
