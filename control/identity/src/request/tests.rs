//! What a request must prove, and how little of it counts.

use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::*;
use crate::authority::{Authority, LEAF_LIFETIME};
use crate::own::OwnIdentity;
use crate::testing::*;

fn asking(key: &KeyPair, names: Vec<SanType>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.serialize_request(key).unwrap().der().to_vec()
}

fn refused(der: &[u8]) -> Option<SigningRequestError> {
    SigningRequest::read(der).err()
}

#[test]
fn key_and_chain_become_a_leaf_that_can_be_used() {
    let authority = Authority::create(domain(A), at(NOW)).unwrap();
    let key = LeafKey::generate(&gateway(A)).unwrap();
    let request = SigningRequest::read(key.request()).unwrap();
    assert_eq!(*request.id(), gateway(A));
    let chain = authority
        .issue_for_request(&request, request.id(), &[], at(NOW), LEAF_LIFETIME)
        .unwrap();
    let leaf = key.with_chain(chain).unwrap();
    let again = Leaf::from_pem(leaf.to_pem().as_bytes(), leaf.to_pem().as_bytes()).unwrap();
    assert_eq!(again.chain(), leaf.chain());
    let own = OwnIdentity::from_leaf(&again).unwrap();
    assert_eq!(own.not_after(), at(NOW + LEAF_LIFETIME.as_secs()));
}

#[test]
fn chain_of_another_key_cannot_be_used() {
    let authority = Authority::create(domain(A), at(NOW)).unwrap();
    let [asked, kept] = [(); 2].map(|()| LeafKey::generate(&gateway(A)).unwrap());
    let request = SigningRequest::read(asked.request()).unwrap();
    let chain = authority
        .issue_for_request(&request, request.id(), &[], at(NOW), LEAF_LIFETIME)
        .unwrap();
    let leaf = kept.with_chain(chain).unwrap();
    let own = OwnIdentity::from_leaf(&leaf);
    assert!(matches!(own, Err(LeafError::Mismatch(_))), "{own:?}");
}

#[test]
fn request_must_be_whole_and_prove_its_key() {
    let good = LeafKey::generate(&gateway(A)).unwrap();
    let good = good.request();
    assert_eq!(refused(good), None);
    let mut more = good.to_vec();
    more.push(0);
    let malformed = Some(SigningRequestError::Malformed);
    for bytes in [&more[..], &good[..good.len() - 1], b"request", b""] {
        assert_eq!(refused(bytes), malformed);
    }
    let mut forged = good.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(&forged), Some(SigningRequestError::Signature));
}

#[test]
fn only_keys_on_p256_are_taken() {
    for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(kind).unwrap();
        let request = asking(&key, vec![uri_name(&gateway_uri(A))]);
        assert_eq!(refused(&request), Some(SigningRequestError::Key));
    }
}

#[test]
fn exactly_one_spiffe_id_is_asked_for() {
    let key = KeyPair::generate().unwrap();
    let one = || uri_name(&gateway_uri(A));
    let dns = SanType::DnsName("gateway.a.test".try_into().unwrap());
    for names in [
        vec![],
        vec![dns.clone()],
        vec![one(), one()],
        vec![uri_name("https://a.test/corinth/gateway/0")],
    ] {
        let request = asking(&key, names);
        assert_eq!(refused(&request), Some(SigningRequestError::Identity));
    }
    assert_eq!(refused(&asking(&key, vec![dns, one()])), None);
}

#[test]
fn request_gives_its_key_and_its_identity_and_nothing_else() {
    let authority = Authority::create(domain(A), at(NOW)).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["gateway.a.test".to_owned()]).unwrap();
    params.subject_alt_names.push(uri_name(&gateway_uri(A)));
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let request = params.serialize_request(&key).unwrap();
    let request = SigningRequest::read(request.der()).unwrap();
    let issued = authority
        .issue_for_request(&request, request.id(), &[], at(NOW), LEAF_LIFETIME)
        .unwrap();
    let facts = crate::presented::read_leaf(&issued[0]).expect("no authority, no signing");
    assert_eq!(
        (facts.id, facts.not_after),
        (gateway(A), at(NOW + LEAF_LIFETIME.as_secs()))
    );
    let certificate = crate::presented::parse(&issued[0]).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
}
