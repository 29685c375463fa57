//! Handshakes of linking in memory, and the proof over them.

use std::sync::Arc;

use super::*;
use crate::testing::*;
use crate::tls::Hardened;
use crate::verify::{VerifyError, describe};

const PARTY: &[u8] = b"a party";

#[test]
fn joiner_believes_the_pinned_control_plane_and_both_hold_the_same_binding() {
    let inviter = authority(A);
    let handshake = Handshake::run(client(&inviter, A, NOW), server(&inviter));
    assert!(handshake.is_established(), "{:?}", handshake.client_error);
    assert_eq!(handshake.client.alpn_protocol(), Some(LINK_ALPN));
    let (ours, theirs) = bindings(&handshake);
    let key = LinkKey::of_secret(&[7; 32]);
    let mac = key.mac(LinkMessage::Answer, &ours, PARTY);
    assert!(key.verifies(LinkMessage::Answer, &theirs, PARTY, &mac));
}

#[test]
fn clock_of_the_joiner_may_be_a_day_off() {
    let inviter = authority(A);
    for now in [NOW - 86_400, NOW - 3_600, NOW + 3_600, NOW + 86_399] {
        let handshake = Handshake::run(client(&inviter, A, now), server(&inviter));
        assert!(handshake.is_established(), "{:?}", handshake.client_error);
    }
    let handshake = Handshake::run(client(&inviter, A, NOW + 90_000), server(&inviter));
    assert!(!handshake.is_established());
}

#[test]
fn another_root_and_another_trust_domain_are_refused() {
    let (inviter, other) = (authority(A), authority(A));
    let error = refused(Handshake::run(client(&other, A, NOW), server(&inviter)));
    assert_eq!(error, VerifyError::NotPinned.to_string());
    let error = refused(Handshake::run(client(&inviter, B, NOW), server(&inviter)));
    assert!(error.starts_with("expected a gateway of b.test"), "{error}");
}

#[test]
fn only_role_control_is_believed() {
    let inviter = authority(A);
    let leaf = inviter
        .issue(&gateway(A), &[], at(NOW), LINK_LEAF_REACH)
        .unwrap();
    let mut chain = leaf.chain().to_vec();
    chain.push(inviter.root().clone());
    let key = leaf.key().clone_key();
    let shown = Presented { chain, key }.resolver();
    let server = tls::server_config(Arc::new(NoClientAuth), shown, &[LINK_ALPN], Clock::new(NOW));
    let error = refused(Handshake::run(client(&inviter, A, NOW), server));
    assert_eq!(
        error,
        VerifyError::NotControl(Box::new(gateway(A))).to_string()
    );
}

#[test]
fn pinned_root_beside_a_leaf_of_another_authority_is_refused() {
    // Whoever saw a token's pins can show the root, which is public, but has no leaf under it.
    let (inviter, thief) = (authority(A), authority(A));
    let leaf = thief
        .issue(&control(), &[], at(NOW), LINK_LEAF_REACH)
        .unwrap();
    for above in [vec![inviter.root().clone()], Vec::new()] {
        let chain = leaf.chain().iter().cloned().chain(above).collect();
        let key = leaf.key().clone_key();
        let shown = Presented { chain, key }.resolver();
        let alpn = &[LINK_ALPN];
        let server = tls::server_config(Arc::new(NoClientAuth), shown, alpn, Clock::new(NOW));
        refused(Handshake::run(client(&inviter, A, NOW), server));
    }
}

#[test]
fn other_protocols_are_refused_by_the_inviter() {
    let inviter = authority(A);
    let mut stranger = client(&inviter, A, NOW);
    stranger.alpn_protocols = vec![b"h2".to_vec()];
    assert!(!Handshake::run(stranger, server(&inviter)).is_established());
}

#[test]
fn configurations_are_hardened() {
    let inviter = authority(A);
    assert_eq!(server(&inviter).broken_rule(), None);
    assert_eq!(client(&inviter, A, NOW).broken_rule(), None);
    assert!(!client(&inviter, A, NOW).enable_sni);
}

#[test]
fn mac_is_of_one_message_on_one_connection_for_one_party() {
    let inviter = authority(A);
    let connection = || Handshake::run(client(&inviter, A, NOW), server(&inviter));
    let ((here, _), (elsewhere, _)) = (bindings(&connection()), bindings(&connection()));
    let key = LinkKey::of_secret(&[7; 32]);
    let join = LinkMessage::Join { one_way: false };
    let mac = key.mac(join, &here, PARTY);
    assert!(key.verifies(join, &here, PARTY, &mac));
    let one_way = LinkMessage::Join { one_way: true };
    assert!(!key.verifies(one_way, &here, PARTY, &mac));
    assert!(!key.verifies(LinkMessage::Answer, &here, PARTY, &mac));
    assert!(!key.verifies(join, &elsewhere, PARTY, &mac));
    assert!(!key.verifies(join, &here, b"another", &mac));
    assert!(!LinkKey::of_secret(&[8; 32]).verifies(join, &here, PARTY, &mac));
}

#[test]
fn key_follows_from_the_secret_as_the_protocol_says() {
    // HMAC-SHA-256 by hand: extract with an empty salt, expand to one block.
    let sign = |key: &[u8], text: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
            .as_ref()
            .to_vec()
    };
    let extracted = sign(&[0; 32], &[7; 32]);
    let expanded = sign(&extracted, b"corinth-link/1\x01");
    let key = LinkKey::of_secret(&[7; 32]);
    assert_eq!(key.expose()[..], expanded);
    assert_eq!(LinkKey::from_bytes(*key.expose()), key);
    assert_eq!(format!("{key:?}"), "LinkKey(..)");
}

#[test]
fn pin_is_of_the_key_and_not_of_the_certificate() {
    let first = authority(A);
    let again = Authority::from_key_pem(domain(A), &first.key_pem(), at(NOW + 60)).unwrap();
    assert_ne!(first.root(), again.root());
    assert_eq!(root_pin(first.root()), root_pin(again.root()));
    assert_ne!(root_pin(first.root()), root_pin(authority(A).root()));
    assert_eq!(root_pin(&CertificateDer::from(vec![0x30, 0])), None);
}

fn authority(name: &str) -> Authority {
    Authority::create(domain(name), at(NOW)).unwrap()
}

fn control() -> SpiffeId {
    control_id(&domain(A), &Slot::parse("0").unwrap())
}

fn server(inviter: &Authority) -> ServerConfig {
    let slot = Slot::parse("0").unwrap();
    link_server_config(inviter, &slot, at(NOW), Clock::new(NOW)).unwrap()
}

fn client(pinned: &Authority, name: &str, now: u64) -> ClientConfig {
    let pins = BTreeSet::from([root_pin(pinned.root()).unwrap()]);
    link_client_config(pins, domain(name), Clock::new(now))
}

fn bindings(handshake: &Handshake) -> (LinkBinding, LinkBinding) {
    (
        LinkBinding::of(&handshake.client).unwrap(),
        LinkBinding::of(&handshake.server).unwrap(),
    )
}

fn refused(mut handshake: Handshake) -> String {
    assert!(!handshake.is_established());
    assert!(handshake.heard().is_empty(), "a stranger hears nothing");
    describe(&handshake.client_error.expect("the client refused"))
}
