//! Who gets a certificate, and what is remembered of it.

use std::collections::BTreeSet;

use corinth_identity::{LEAF_LIFETIME, LeafKey, ROOT_LIFETIME};
use corinth_model::Denied;

use super::*;

const NOW: u64 = 1_900_000_000;

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn authority() -> Authority {
    let domain = TrustDomain::parse("east.corinth.internal").unwrap();
    Authority::create(domain, at(NOW)).unwrap()
}

fn asking(id: &str) -> Vec<u8> {
    let id = SpiffeId::parse(id).unwrap();
    LeafKey::generate(&id).unwrap().request().to_vec()
}

fn gateway(slot: &str) -> String {
    format!("spiffe://east.corinth.internal/corinth/gateway/{slot}")
}

/// Where nobody is denied.
fn asked(request: &[u8], lifetime: Duration, now: u64) -> Result<Signed, SignRefusal> {
    sign(
        &authority(),
        &Denials::default(),
        request,
        lifetime,
        at(now),
    )
}

fn refused(request: &[u8], now: u64) -> Condition {
    let signed = asked(request, LEAF_LIFETIME, now);
    signed.expect_err("it is refused").condition()
}

#[test]
fn gateway_of_this_cluster_gets_a_certificate_for_the_configured_time() {
    let lifetime = Duration::from_secs(90);
    let signed = asked(&asking(&gateway("3")), lifetime, NOW).unwrap();
    assert_eq!(signed.id.to_string(), gateway("3"));
    assert_eq!(signed.response.not_after_s, NOW + 90);
    assert_eq!(not_after(&signed.response.chain[0]), Some(NOW + 90));
}

#[test]
fn certificate_never_outlives_the_root() {
    let end = NOW + ROOT_LIFETIME.as_secs();
    let signed = asked(&asking(&gateway("0")), LEAF_LIFETIME, end - 60).unwrap();
    assert_eq!(signed.response.not_after_s, end);
}

#[test]
fn each_refusal_has_its_condition() {
    let mut forged = asking(&gateway("0"));
    *forged.last_mut().unwrap() ^= 1;
    let of = |id: &str| asking(&format!("spiffe://{id}"));
    for (request, now, condition) in [
        (b"request".to_vec(), NOW, Condition::SigningRequestInvalid),
        (Vec::new(), NOW, Condition::SigningRequestInvalid),
        (forged, NOW, Condition::SigningRequestInvalid),
        (
            of("west.corinth.internal/corinth/gateway/0"),
            NOW,
            Condition::IdentityForeign,
        ),
        // A name that merely begins like ours.
        (
            of("east.corinth.internal.example/corinth/gateway/0"),
            NOW,
            Condition::IdentityForeign,
        ),
        (
            of("east.corinth.internal/corinth/control/0"),
            NOW,
            Condition::IdentityNotGateway,
        ),
        (
            of("east.corinth.internal/corinth/redirect/node"),
            NOW,
            Condition::IdentityNotGateway,
        ),
        (
            of("east.corinth.internal/corinth/gateway/0/more"),
            NOW,
            Condition::IdentityNotGateway,
        ),
        (
            of("east.corinth.internal/ns/shop/sa/web"),
            NOW,
            Condition::IdentityNotGateway,
        ),
        (
            asking(&gateway("0")),
            NOW + ROOT_LIFETIME.as_secs() + 1,
            Condition::NotIssuing,
        ),
    ] {
        assert_eq!(refused(&request, now), condition);
    }
}

#[test]
fn who_is_denied_gets_no_certificate() {
    let domain = TrustDomain::parse("east.corinth.internal").unwrap();
    let denied_gateway = Denied::Id(SpiffeId::parse(&gateway("0")).unwrap());
    for (denied, slot, is_refused) in [
        (denied_gateway.clone(), "0", true),
        (denied_gateway, "1", false),
        (Denied::TrustDomain(domain), "1", true),
    ] {
        let denials = Denials::new(BTreeSet::from([denied]));
        let request = asking(&gateway(slot));
        let signed = sign(&authority(), &denials, &request, LEAF_LIFETIME, at(NOW));
        let refused = signed.err().map(|refusal| refusal.condition());
        assert_eq!(refused, is_refused.then_some(Condition::IdentityDenied));
    }
}

#[test]
fn each_fault_of_a_request_has_its_condition() {
    use SigningRequestError::{Identity, Key, Malformed, Signature};
    for (error, condition) in [
        (Malformed, Condition::SigningRequestInvalid),
        (Signature, Condition::SigningRequestInvalid),
        (Identity, Condition::SigningRequestInvalid),
        (Key, Condition::SigningKeyUnfit),
    ] {
        assert_eq!(SignRefusal::from(error).condition(), condition);
    }
}

fn signed(id: &str, not_after_s: u64) -> Signed {
    Signed {
        id: SpiffeId::parse(id).unwrap(),
        response: SignResponse {
            chain: Vec::new(),
            not_after_s,
        },
    }
}

#[test]
fn certificate_in_its_last_quarter_stands_out_until_it_is_renewed() {
    let mut issued = Issued::default();
    issued.record(&signed(&gateway("0"), NOW + 100), at(NOW));
    issued.record(&signed(&gateway("1"), NOW + 400), at(NOW));
    let expiring = |issued: &Issued, now| {
        let expiring = issued.expiring(at(now));
        expiring.map(|(id, _)| id.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(expiring(&issued, NOW + 75), [""; 0]);
    assert_eq!(expiring(&issued, NOW + 76), [gateway("0")]);
    issued.record(&signed(&gateway("0"), NOW + 176), at(NOW + 76));
    assert_eq!(expiring(&issued, NOW + 76), [""; 0]);
    assert_eq!(issued.iter().count(), 2);
}

#[test]
fn certificate_is_forgotten_a_life_after_its_end() {
    let mut issued = Issued::default();
    issued.record(&signed(&gateway("0"), NOW + 100), at(NOW));
    let ids = |issued: &Issued| {
        issued
            .iter()
            .map(|(id, _)| id.to_owned())
            .collect::<Vec<_>>()
    };
    issued.record(&signed(&gateway("1"), NOW + 500), at(NOW + 200));
    assert_eq!(ids(&issued), [gateway("0"), gateway("1")]);
    issued.record(&signed(&gateway("1"), NOW + 501), at(NOW + 201));
    assert_eq!(ids(&issued), [gateway("1")]);
}

#[test]
fn a_gateway_that_is_no_more_is_not_told_of_for_ever() {
    let mut issued = Issued::default();
    issued.record(&signed(&gateway("0"), NOW + 100), at(NOW));
    let expiring = |now_s| issued.expiring(at(now_s)).count();
    assert_eq!([NOW + 75, NOW + 76, NOW + 200].map(expiring), [0, 1, 1]);
    assert_eq!(expiring(NOW + 201), 0);
}

#[test]
fn of_too_many_certificates_the_one_that_ends_first_is_forgotten() {
    let mut issued = Issued::default();
    for slot in 0..=ISSUED_MAX {
        let end = NOW + 1_000 + u64::try_from(slot).unwrap();
        issued.record(&signed(&gateway(&slot.to_string()), end), at(NOW));
    }
    assert_eq!(issued.iter().count(), ISSUED_MAX);
    assert!(issued.iter().all(|(id, _)| id != gateway("0")));
    let text = serde_json::to_string(&issued).unwrap();
    assert_eq!(serde_json::from_str::<Issued>(&text).unwrap(), issued);
}
