//! ClientHellos that no TLS library would send.

/// A ClientHello of TLS 1.3 (RFC 8446 §4.1.2), as far as it is asked for.
#[derive(Debug, Clone)]
#[must_use]
pub struct Hello {
    suites: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
}

/// server_name (RFC 6066 §3).
const SERVER_NAME: u16 = 0;
/// supported_groups.
const GROUPS: u16 = 10;
/// signature_algorithms.
const SIGNATURES: u16 = 13;
/// application_layer_protocol_negotiation (RFC 7301).
const ALPN: u16 = 16;
/// supported_versions.
const VERSIONS: u16 = 43;
/// key_share.
const KEY_SHARE: u16 = 51;
/// X25519.
const X25519: u16 = 0x001d;

impl Default for Hello {
    fn default() -> Self {
        Self::new()
    }
}

impl Hello {
    /// One that every TLS 1.3 server can answer, without a name and without a protocol.
    pub fn new() -> Self {
        let share = [short(X25519), vector16(&[9; 32])].concat();
        Self {
            suites: vec![0x1301, 0x1302, 0x1303],
            extensions: vec![
                (VERSIONS, vector8(&[3, 4])),
                (GROUPS, vector16(&short(X25519))),
                (SIGNATURES, vector16(&[4, 3, 8, 4, 8, 7])),
                (KEY_SHARE, vector16(&share)),
            ],
        }
    }

    /// The versions offered, two bytes each.
    pub fn versions(mut self, versions: &[u8]) -> Self {
        self.extensions.retain(|(kind, _)| *kind != VERSIONS);
        self.extension(VERSIONS, &vector8(versions))
    }

    /// Asks for this server, whatever the bytes are.
    pub fn sni(self, name: impl AsRef<[u8]>) -> Self {
        self.sni_entries(&[(0, name.as_ref())])
    }

    /// A server_name list of these types and names.
    pub fn sni_entries(self, entries: &[(u8, &[u8])]) -> Self {
        let entry = |(kind, name): &(u8, &[u8])| [vec![*kind], vector16(name)].concat();
        let list: Vec<u8> = entries.iter().flat_map(entry).collect();
        self.extension(SERVER_NAME, &vector16(&list))
    }

    /// Offers these protocols.
    pub fn alpn(self, protocols: &[&[u8]]) -> Self {
        let list: Vec<u8> = protocols.iter().flat_map(|name| vector8(name)).collect();
        self.extension(ALPN, &vector16(&list))
    }

    /// One more extension, last.
    pub fn extension(mut self, kind: u16, payload: &[u8]) -> Self {
        self.extensions.push((kind, payload.to_vec()));
        self
    }

    /// One more cipher suite, first.
    pub fn suite(mut self, suite: u16) -> Self {
        self.suites.insert(0, suite);
        self
    }

    /// The record it is sent in.
    pub fn bytes(&self) -> Vec<u8> {
        record(22, &self.message())
    }

    /// The handshake message.
    pub fn message(&self) -> Vec<u8> {
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| short(*suite)).collect();
        let extension =
            |(kind, payload): &(u16, Vec<u8>)| [short(*kind), vector16(payload)].concat();
        let extensions: Vec<u8> = self.extensions.iter().flat_map(extension).collect();
        let body = [
            vec![3, 3],
            vec![7; 32],
            vector8(&[8; 32]),
            vector16(&suites),
            vector8(&[0]),
            vector16(&extensions),
        ]
        .concat();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }
}

/// A TLS record.
pub fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    [vec![kind, 3, 1], vector16(payload)].concat()
}

fn short(number: u16) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn vector8(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    [&[length], bytes].concat()
}

fn vector16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}
