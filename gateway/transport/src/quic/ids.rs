//! Connection IDs: which worker of which slot a packet belongs to, and whether we could have issued its ID at all.
//!
//! An ID of a listening endpoint has eight bytes: the number of the endpoint, a byte that stands for the slot, four random
//! ones, and two that only who has the key can make. All slots of a cluster that share the key know each other's IDs. A
//! packet for a connection that is nowhere any more, or at another slot, is answered by a stateless reset; any other
//! packet that we do not know is not answered.
//!
//! An endpoint that dials has a port to itself and answers nobody. Its IDs are random, and its resets made with another
//! key, so that nothing a listening port says could end a connection that we dialled.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
    hmac,
};
use corinth_model::SpiffeId;
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use quinn_proto::InvalidCid;

use super::{QuicKeys, config::PACKET_MAX_BYTES, post::EndpointNumber};

/// The version of RFC 9000; of drafts there is nobody to speak to.
pub(super) const VERSION: u32 = 1;
/// Set in the first byte of a packet with a long header (RFC 9000 §17.2).
pub(super) const LONG_HEADER: u8 = 0x80;
/// Bytes of an ID.
const ID_BYTES: usize = 8;
/// Of these, the last ones are made from the others.
const CHECK_BYTES: usize = 2;
/// Between two resets we send, so that nobody is flooded through us.
const RESET_INTERVAL: Duration = Duration::from_millis(20);
/// What the keys that are made from the one of the slots are for.
const FOR_IDS: &[u8] = b"corinth quic ids";
const FOR_DIALLING: &[u8] = b"corinth quic dialling";

/// What stands for the slot in an ID. Two slots may have the same one, and are told apart by their connections then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotTag(pub(super) u8);

/// What stands for the slot of this gateway.
pub(super) fn slot_of(own: &SpiffeId) -> SlotTag {
    // The whole name, as its last part alone may be that of a slot of somebody else.
    let name = digest(&SHA256, own.to_string().as_bytes());
    SlotTag(name.as_ref()[0])
}

/// What an endpoint is that shares its port with those of the other workers.
pub(super) fn listening(keys: &QuicKeys, slot: SlotTag, number: EndpointNumber) -> EndpointConfig {
    let ids = Issued {
        key: derived(&keys.reset, FOR_IDS),
        slot,
        number,
    };
    let mut config = endpoint(hmac::Key::new(hmac::HMAC_SHA256, &keys.reset));
    config.cid_generator(move || Box::new(ids.clone()));
    config
}

/// What an endpoint is that has a port to itself and takes nobody.
pub(super) fn dialling(keys: &QuicKeys) -> EndpointConfig {
    let mut config = endpoint(derived(&keys.reset, FOR_DIALLING));
    config.cid_generator(|| Box::new(Unknown));
    config
}

fn endpoint(reset: hmac::Key) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(reset));
    // It is within what quinn takes; peers send larger ones only where they pass.
    let _ = config.max_udp_payload_size(PACKET_MAX_BYTES);
    config.supported_versions(vec![VERSION]);
    config.min_reset_interval(RESET_INTERVAL);
    config.grease_quic_bit(true);
    config
}

fn derived(key: &[u8; 32], label: &[u8]) -> hmac::Key {
    let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), label);
    hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
}

/// Where the endpoint and the slot stand that issued the ID of a packet with a short header.
pub(super) fn issuer(packet: &[u8]) -> Option<(EndpointNumber, SlotTag)> {
    let [first, number, slot, ..] = packet else {
        return None;
    };
    (first & LONG_HEADER == 0).then_some((EndpointNumber(*number), SlotTag(*slot)))
}

/// The IDs of a listening endpoint.
#[derive(Clone)]
struct Issued {
    key: hmac::Key,
    slot: SlotTag,
    number: EndpointNumber,
}

impl Issued {
    fn check(&self, front: &[u8]) -> [u8; CHECK_BYTES] {
        let tag = hmac::sign(&self.key, front);
        std::array::from_fn(|at| tag.as_ref()[at])
    }
}

impl ConnectionIdGenerator for Issued {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = random();
        id[0] = self.number.0;
        id[1] = self.slot.0;
        let (front, back) = id.split_at_mut(ID_BYTES - CHECK_BYTES);
        back.copy_from_slice(&self.check(front));
        ConnectionId::new(&id)
    }

    /// Only what one of the slots has issued.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let (front, back) = id
            .split_at_checked(ID_BYTES - CHECK_BYTES)
            .ok_or(InvalidCid)?;
        verify_slices_are_equal(&self.check(front), back).map_err(|_| InvalidCid)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The IDs of an endpoint that dials.
struct Unknown;

impl ConnectionIdGenerator for Unknown {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&random())
    }

    /// None is ours but those of connections there are.
    fn validate(&self, _: &ConnectionId) -> Result<(), InvalidCid> {
        Err(InvalidCid)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn random() -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    aws_lc_rs::rand::fill(&mut id).expect("the system has random bytes");
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(key: u8, slot: &str, number: u8) -> Issued {
        let id = format!("spiffe://a.test/corinth/gateway/{slot}");
        Issued {
            key: derived(&[key; 32], FOR_IDS),
            slot: slot_of(&SpiffeId::parse(&id).unwrap()),
            number: EndpointNumber(number),
        }
    }

    #[test]
    fn an_id_tells_the_endpoint_and_the_slot_that_issued_it() {
        let mut ids = issued(1, "7", 3);
        let id = ids.generate_cid();
        let packet = [&[0x40], &id[..]].concat();
        assert_eq!(issuer(&packet), Some((EndpointNumber(3), ids.slot)));
        assert_eq!(issuer(&[&[0xc0], &id[..]].concat()), None);
        assert_eq!(issuer(&packet[..2]), None);
        assert_ne!(ids.generate_cid(), id);
    }

    #[test]
    fn slots_that_share_a_key_know_each_others_ids_and_nobody_elses() {
        let id = issued(1, "0", 3).generate_cid();
        assert!(issued(1, "1", 0).validate(&id).is_ok());
        assert!(issued(2, "0", 3).validate(&id).is_err());
        assert!(Unknown.validate(&id).is_err());
        let of_a_dial = Unknown.generate_cid();
        assert!(Unknown.validate(&of_a_dial).is_err());
        for at in 0..ID_BYTES {
            let mut other: [u8; ID_BYTES] = id[..].try_into().unwrap();
            other[at] ^= 1;
            let other = ConnectionId::new(&other);
            assert!(issued(1, "0", 3).validate(&other).is_err(), "byte {at}");
        }
        assert!(issued(1, "0", 3).validate(&ConnectionId::new(&[])).is_err());
    }
}
