//! Gateways that get their certificates from their control plane.

use corinth_api::wire::admin::status_request::Kind;
use corinth_identity::LeafKey;
use corinth_model::{Condition, SpiffeId};
use serde_json::Value;

use crate::lab::Lab;

fn key(id: &str) -> LeafKey {
    LeafKey::generate(&SpiffeId::parse(id).unwrap()).unwrap()
}

fn gateways(certificates: &Value) -> Vec<&Value> {
    let certificates = certificates.as_array().unwrap().iter();
    certificates
        .filter(|one| one["holder"] == "gateway")
        .collect()
}

#[tokio::test]
async fn a_certificate_is_issued_and_still_listed_after_a_restart() {
    const ID: &str = "spiffe://east.corinth.internal/corinth/gateway/0";

    let mut lab = Lab::linked().await;
    let before = lab.east.status(Kind::Certificates).await;
    assert!(gateways(&before).is_empty());
    let signed = lab.east.sign(key(ID).request()).await.unwrap();
    for _ in 0..2 {
        let certificates = lab.east.status(Kind::Certificates).await;
        let [listed] = gateways(&certificates)[..] else {
            panic!("{certificates:#}");
        };
        assert_eq!(listed["spiffeId"], ID);
        assert_eq!(listed["notAfter"], signed.not_after);
        lab.east.stop().await;
        lab.east.start();
    }
}

#[tokio::test]
async fn a_refusal_is_answered_with_its_code() {
    let lab = Lab::linked().await;
    let peer = key("spiffe://west.corinth.internal/corinth/gateway/0");
    let control = key("spiffe://east.corinth.internal/corinth/control/0");
    for (request, condition) in [
        (&b"no request"[..], Condition::SigningRequestInvalid),
        (&[0; 5_000], Condition::SigningRequestInvalid),
        (peer.request(), Condition::IdentityForeign),
        (control.request(), Condition::IdentityNotGateway),
    ] {
        let refused = lab.east.sign(request).await.unwrap_err();
        let code = refused.metadata().get("corinth-code").unwrap();
        assert_eq!(code, condition.code(), "{refused}");
    }
    assert!(gateways(&lab.east.status(Kind::Certificates).await).is_empty());
}
