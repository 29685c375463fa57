use corinth_model::{Slot, TrustDomain};
use proptest::prelude::*;

use super::*;

fn gateway_ids() -> impl Strategy<Value = GatewayId> {
    ("[a-z0-9._-]{1,255}", "[a-z0-9]{1,63}").prop_map(|(domain, slot)| GatewayId {
        trust_domain: TrustDomain::parse(&domain).expect("the pattern is the rule"),
        slot: Slot::parse(&slot).expect("letters and digits are a label"),
    })
}

fn hand_overs() -> impl Strategy<Value = HandOver> {
    let source = (any::<std::net::IpAddr>(), any::<u16>());
    prop_oneof![
        gateway_ids().prop_map(|peer| HandOver::Peering { peer }),
        (any::<u64>(), gateway_ids()).prop_map(|(ticket, peer)| HandOver::Opened { ticket, peer }),
        source.prop_map(|source| HandOver::Joining {
            source: source.into()
        }),
    ]
}

/// Takes the length off, as a reader does.
fn read(bytes: &[u8]) -> Result<HandOver, HandOverError> {
    let (length, message) = bytes.split_first_chunk().expect("the length is there");
    assert_eq!(HandOver::length(*length), Ok(message.len()));
    HandOver::decode(message)
}

proptest! {
    #[test]
    fn what_was_written_is_read(hand_over in hand_overs()) {
        prop_assert_eq!(read(&hand_over.encode()), Ok(hand_over));
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(hand_over) = HandOver::decode(&bytes) {
            prop_assert_eq!(read(&hand_over.encode()), Ok(hand_over));
        }
    }
}

fn peering(peer: &str) -> Vec<u8> {
    let what = wire::hand_over::What::Peering(wire::Peering { peer: peer.into() });
    wire::HandOver { what: Some(what) }.encode_to_vec()
}

#[test]
fn only_a_gateway_can_be_the_peer() {
    let refused = Err(HandOverError::Invalid {
        field: "peering.peer",
    });
    let ids = [
        "",
        "west",
        "spiffe://west.corinth.internal",
        "spiffe://west.corinth.internal/corinth/control/0",
        "spiffe://west.corinth.internal/ns/shop/sa/default",
    ];
    for id in ids {
        assert_eq!(HandOver::decode(&peering(id)), refused, "{id}");
    }
    let id = "spiffe://west.corinth.internal/corinth/gateway/0";
    assert!(HandOver::decode(&peering(id)).is_ok());
}

#[test]
fn a_message_longer_than_allowed_is_not_read() {
    assert_eq!(HandOver::length([0x10, 0x00]), Ok(4096));
    assert_eq!(
        HandOver::length([0x10, 0x01]),
        Err(HandOverError::TooLong { bytes: 4097 })
    );
    assert_eq!(
        HandOver::decode(&[0; 5000]),
        Err(HandOverError::TooLong { bytes: 5000 })
    );
}

#[test]
fn an_empty_message_hands_nothing_over() {
    assert_eq!(HandOver::decode(&[]), Err(HandOverError::UnknownKind));
}
