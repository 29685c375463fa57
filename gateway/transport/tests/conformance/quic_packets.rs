//! Packets that no QUIC library sends: Initials made by hand, and a peer whose packets carry other frames than it meant.

use std::{any::Any, sync::Arc};

use bytes::BytesMut;
use corinth_identity::{Denials, GatewayVerifier, tls::server_config};
use corinth_transport::quic::QuicTimeouts;
use parking_lot::Mutex;
use quinn::{
    ConnectionId, Side,
    crypto::{
        ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey,
        ServerConfig, Session,
        rustls::{QuicClientConfig, QuicServerConfig},
    },
};
use quinn_proto::{ConnectError, TransportError, transport_parameters::TransportParameters};
use rustls::time_provider::TimeProvider;

use crate::{
    pair::B,
    quic::settings,
    tls::{Clock, Cluster, bundles},
};

/// The version of RFC 9000.
pub(crate) const VERSION: u32 = 1;
/// What a datagram that begins a connection has at least (RFC 9000 §14.1).
pub(crate) const INITIAL_BYTES: usize = 1_200;
/// Bytes of the IDs that are made up here.
pub(crate) const ID_BYTES: usize = 8;
const NUMBER_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
/// Bytes of the length in a long header.
const LENGTH_BYTES: usize = 2;
/// PADDING, which means nothing.
const PADDING: u8 = 0;
const CONNECTION_CLOSE: u8 = 0x1c;

/// Makes Initials, whose keys anybody can make (RFC 9001 §5.2).
pub(crate) struct Initials {
    server: QuicServerConfig,
}

impl Initials {
    pub(crate) fn new() -> Self {
        let clock = Clock::new();
        let b = Cluster::new(B);
        let settings = settings(&b, &[], &clock, QuicTimeouts::default());
        let domain = settings.own.id().trust_domain().clone();
        let verifier = GatewayVerifier::listener(bundles(&[]), Denials::default(), domain);
        let tls = server_config(
            Arc::new(verifier),
            Arc::clone(&settings.own) as _,
            &[b"corinth/1"],
            clock as Arc<dyn TimeProvider>,
        );
        Self {
            server: QuicServerConfig::try_from(Arc::new(tls)).unwrap(),
        }
    }

    fn keys(&self, destination: &[u8]) -> Keys {
        let destination = ConnectionId::new(destination);
        self.server.initial_keys(VERSION, &destination).unwrap()
    }

    /// A datagram that begins a connection with these frames.
    pub(crate) fn make(
        &self,
        destination: &[u8],
        source: [u8; ID_BYTES],
        token: &[u8],
        frames: &[u8],
    ) -> Vec<u8> {
        let mut packet = vec![0xc0 | (NUMBER_BYTES as u8 - 1)];
        packet.extend(VERSION.to_be_bytes());
        for id in [destination, &source] {
            packet.push(id.len() as u8);
            packet.extend(id);
        }
        packet.extend((token.len() as u16 | 0x4000).to_be_bytes());
        packet.extend(token);
        let number_at = packet.len() + LENGTH_BYTES;
        let header_bytes = number_at + NUMBER_BYTES;
        let payload_bytes = (INITIAL_BYTES - header_bytes - TAG_BYTES).max(frames.len());
        let length = NUMBER_BYTES + payload_bytes + TAG_BYTES;
        packet.extend((length as u16 | 0x4000).to_be_bytes());
        packet.extend([0; NUMBER_BYTES]);
        packet.extend(frames);
        packet.resize(header_bytes + payload_bytes, PADDING);
        packet.resize(header_bytes + payload_bytes + TAG_BYTES, 0);
        // These keys do either.
        let keys = self.keys(destination);
        keys.packet.remote.encrypt(0, &mut packet, header_bytes);
        keys.header.remote.encrypt(number_at, &mut packet);
        packet
    }

    /// The error code with which an Initial ends the connection that was begun with this ID.
    pub(crate) fn closed_with(&self, destination: &[u8], answer: &[u8]) -> Option<u64> {
        let mut answer = answer.to_vec();
        let keys = self.keys(destination);
        let ids = 5;
        let source_at = ids + 1 + usize::from(answer[ids]);
        let token_at = source_at + 1 + usize::from(answer[source_at]);
        // A server's Initial has no token.
        assert_eq!(answer[token_at], 0);
        let length_at = token_at + 1;
        let (length, number_at) = varint(&answer, length_at);
        keys.header.local.decrypt(number_at, &mut answer);
        let number_bytes = usize::from(answer[0] & 3) + 1;
        let number = answer[number_at..][..number_bytes].to_vec();
        let number = number
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let payload_at = number_at + number_bytes;
        let end = number_at + length as usize;
        let mut payload = BytesMut::from(&answer[payload_at..end]);
        let packet = &keys.packet.local;
        packet
            .decrypt(number, &answer[..payload_at], &mut payload)
            .unwrap();
        (payload[0] == CONNECTION_CLOSE).then(|| varint(&payload, 1).0)
    }
}

/// The number at this place, and where it ends (RFC 9000 §16).
pub(crate) fn varint(bytes: &[u8], at: usize) -> (u64, usize) {
    let end = at + (1 << (bytes[at] >> 6));
    let tail = &bytes[at + 1..end];
    let first = u64::from(bytes[at] & 0x3f);
    let value = tail
        .iter()
        .fold(first, |sum, byte| sum << 8 | u64::from(*byte));
    (value, end)
}

/// The same the other way, in eight bytes.
pub(crate) fn long(value: u64) -> [u8; 8] {
    (value | 0xc000_0000_0000_0000).to_be_bytes()
}

/// What the next packet of a peer carries instead of what it was to.
#[derive(Clone, Default)]
pub(crate) struct Instead(Arc<Mutex<Option<Vec<u8>>>>);

impl Instead {
    /// The next packet with room for them carries these frames.
    pub(crate) fn put(&self, frames: Vec<u8>) {
        *self.0.lock() = Some(frames);
    }

    /// What was put has left.
    pub(crate) fn is_sent(&self) -> bool {
        self.0.lock().is_none()
    }
}

/// A TLS client whose packets are changed before they are sealed.
pub(crate) struct Tampered {
    pub(crate) honest: Arc<QuicClientConfig>,
    pub(crate) instead: Instead,
}

impl ClientConfig for Tampered {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let honest = Arc::clone(&self.honest);
        Ok(Box::new(TamperedSession {
            honest: honest.start_session(version, server_name, params)?,
            instead: self.instead.clone(),
        }))
    }
}

struct TamperedSession {
    honest: Box<dyn Session>,
    instead: Instead,
}

impl TamperedSession {
    fn tampered(&self, keys: KeyPair<Box<dyn PacketKey>>) -> KeyPair<Box<dyn PacketKey>> {
        KeyPair {
            local: Box::new(TamperedKey {
                honest: keys.local,
                instead: self.instead.clone(),
            }),
            remote: keys.remote,
        }
    }
}

impl Session for TamperedSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.honest.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.honest.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.honest.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.honest.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.honest.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.honest.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.honest.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.honest.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.honest.write_handshake(buf)?;
        Some(Keys {
            header: keys.header,
            packet: self.tampered(keys.packet),
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.honest.next_1rtt_keys()?;
        Some(self.tampered(keys))
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.honest.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.honest.export_keying_material(output, label, context)
    }
}

struct TamperedKey {
    honest: Box<dyn PacketKey>,
    instead: Instead,
}

impl PacketKey for TamperedKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let end = buf.len() - self.tag_len();
        let payload = &mut buf[header_len..end];
        let mut instead = self.instead.0.lock();
        if let Some(frames) = instead.take_if(|frames| frames.len() <= payload.len()) {
            payload.fill(PADDING);
            payload[..frames.len()].copy_from_slice(&frames);
        }
        drop(instead);
        self.honest.encrypt(packet, buf, header_len);
    }

    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        self.honest.decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.honest.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.honest.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.honest.integrity_limit()
    }
}
