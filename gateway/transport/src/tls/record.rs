//! Seals and opens TLS 1.3 records in place (RFC 8446 §5.2 and §5.3).
//!
//! rustls does the handshake, derives the secrets and keeps deriving them on key updates; aws-lc-rs does
//! the cryptography; this module only lays a record out, counts the nonce, and looks at the content type.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce,
    UnboundKey,
};
use rustls::{
    ConnectionTrafficSecrets, client::ClientConnectionData, kernel::KernelConnection,
    server::ServerConnectionData,
};

/// Content type, legacy version, length.
pub(super) const HEADER_BYTES: usize = 5;
/// The most plaintext one record carries (RFC 8446 §5.1).
pub(super) const PLAINTEXT_MAX_BYTES: usize = 16_384;
/// What sealing adds behind the content: the inner content type and the tag.
pub(super) const TRAILER_BYTES: usize = 1 + TAG_BYTES;
/// The largest record a peer may send (RFC 8446 §5.2).
pub(super) const RECORD_MAX_BYTES: usize = HEADER_BYTES + PLAINTEXT_MAX_BYTES + 256;

const TAG_BYTES: usize = 16;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const KEY_UPDATE: u8 = 24;
const NEW_SESSION_TICKET: u8 = 4;
const CLOSE_NOTIFY: u8 = 0;
/// AES-GCM keeps its margin up to 2^24.5 full records (RFC 8446 §5.5); a fresh key is taken well before.
const RECORDS_PER_KEY: u64 = 1 << 23;
/// Key updates a peer may ask for without sending anything else between them.
const IDLE_KEY_UPDATES_MAX: u8 = 16;

/// What is wrong with a record. All of them end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("a record that is not protected application data")]
    Unprotected,
    #[error("a record longer than the limit")]
    TooLong,
    #[error("a record that does not authenticate")]
    BadMac,
    #[error("a record without a content type")]
    NoContentType,
    #[error("a handshake message that has no place after the handshake")]
    UnexpectedHandshake,
    #[error("a fatal alert")]
    Alert,
    #[error("too many key updates in a row")]
    KeyUpdateFlood,
    #[error("no further keys can be derived")]
    KeysExhausted,
}

/// What a record held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// Application data of this length, right behind the record's header.
    Data(usize),
    /// Nothing for us: a ticket, or a key update that was carried out.
    Nothing,
    /// The peer will send nothing more.
    CloseNotify,
}

/// The key schedule of one connection, which lives in rustls.
pub(super) struct Schedule {
    side: Side,
    /// The peer asked us to renew our sending key as well.
    owes_update: bool,
}

enum Side {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Schedule {
    pub(super) fn client(kernel: KernelConnection<ClientConnectionData>) -> Self {
        Self {
            side: Side::Client(kernel),
            owes_update: false,
        }
    }

    pub(super) fn server(kernel: KernelConnection<ServerConnectionData>) -> Self {
        Self {
            side: Side::Server(kernel),
            owes_update: false,
        }
    }

    pub(super) fn owes_update(&self) -> bool {
        self.owes_update
    }

    fn next_sending_keys(&mut self) -> Result<Keys, RecordError> {
        self.owes_update = false;
        match &mut self.side {
            Side::Client(kernel) => kernel.update_tx_secret(),
            Side::Server(kernel) => kernel.update_tx_secret(),
        }
        .ok()
        .and_then(Keys::new)
        .ok_or(RecordError::KeysExhausted)
    }

    fn next_receiving_keys(&mut self) -> Result<Keys, RecordError> {
        match &mut self.side {
            Side::Client(kernel) => kernel.update_rx_secret(),
            Side::Server(kernel) => kernel.update_rx_secret(),
        }
        .ok()
        .and_then(Keys::new)
        .ok_or(RecordError::KeysExhausted)
    }
}

/// One direction's key, initialisation vector and record counter.
struct Keys {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Keys {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        Some(Self {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).ok()?),
            iv: iv.as_ref().try_into().ok()?,
            sequence,
        })
    }

    /// RFC 8446 §5.3: the counter, left-padded, exclusive-or the vector.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, count) in nonce[NONCE_LEN - 8..]
            .iter_mut()
            .zip(self.sequence.to_be_bytes())
        {
            *byte ^= count;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals what we send.
pub(super) struct Sealer {
    keys: Keys,
    records_per_key: u64,
}

impl Sealer {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        Some(Self {
            keys: Keys::new(secrets)?,
            records_per_key: RECORDS_PER_KEY,
        })
    }

    /// Renews keys after this many records; tests set it low.
    #[cfg(test)]
    pub(super) fn set_records_per_key(&mut self, records: u64) {
        self.records_per_key = records;
    }

    pub(super) fn is_due(&self) -> bool {
        self.keys.sequence >= self.records_per_key
    }

    /// Seals application data in place. `record` is the header's place, the content, and
    /// [`TRAILER_BYTES`] behind it.
    pub(super) fn seal(&mut self, record: &mut [u8]) {
        self.seal_as(APPLICATION_DATA, record);
    }

    /// Writes a key update into `record` with the old key and takes the next key (RFC 8446 §4.6.3).
    /// Returns the bytes used.
    pub(super) fn update_keys(
        &mut self,
        schedule: &mut Schedule,
        record: &mut [u8],
    ) -> Result<usize, RecordError> {
        const MESSAGE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];
        let used = HEADER_BYTES + MESSAGE.len() + TRAILER_BYTES;
        record[HEADER_BYTES..HEADER_BYTES + MESSAGE.len()].copy_from_slice(&MESSAGE);
        self.seal_as(HANDSHAKE, &mut record[..used]);
        self.keys = schedule.next_sending_keys()?;
        Ok(used)
    }

    /// Writes the alert that says nothing more will be sent. Returns the bytes used.
    pub(super) fn close_notify(&mut self, record: &mut [u8]) -> usize {
        const MESSAGE: [u8; 2] = [1, CLOSE_NOTIFY];
        let used = HEADER_BYTES + MESSAGE.len() + TRAILER_BYTES;
        record[HEADER_BYTES..HEADER_BYTES + MESSAGE.len()].copy_from_slice(&MESSAGE);
        self.seal_as(ALERT, &mut record[..used]);
        used
    }

    fn seal_as(&mut self, content_type: u8, record: &mut [u8]) {
        let (header, body) = record.split_at_mut(HEADER_BYTES);
        // A record is never longer than RECORD_MAX_BYTES, so its length fits.
        let length = body.len() as u16;
        header.copy_from_slice(&[APPLICATION_DATA, 3, 3, (length >> 8) as u8, length as u8]);
        let (content, tag_place) = body.split_at_mut(body.len() - TAG_BYTES);
        if let Some(last) = content.last_mut() {
            *last = content_type;
        }
        let nonce = self.keys.next_nonce();
        let tag = self
            .keys
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(&*header), content)
            .expect("a record is far below the cipher's length limit");
        tag_place.copy_from_slice(tag.as_ref());
    }
}

/// Opens what the peer sends.
pub(super) struct Opener {
    keys: Keys,
    idle_key_updates: u8,
}

impl Opener {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        Some(Self {
            keys: Keys::new(secrets)?,
            idle_key_updates: 0,
        })
    }

    /// The length of the whole record at the front of `bytes`; `None` while its header is incomplete.
    pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        if header[0] != APPLICATION_DATA {
            return Err(RecordError::Unprotected);
        }
        let length = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > RECORD_MAX_BYTES {
            return Err(RecordError::TooLong);
        }
        Ok(Some(length))
    }

    /// Opens one whole record in place.
    pub(super) fn open(
        &mut self,
        schedule: &mut Schedule,
        record: &mut [u8],
    ) -> Result<Opened, RecordError> {
        let (header, body) = record.split_at_mut(HEADER_BYTES);
        let nonce = self.keys.next_nonce();
        let padded = self
            .keys
            .key
            .open_in_place(nonce, Aad::from(&*header), body)
            .map_err(|_| RecordError::BadMac)?;
        // The inner content type is the last byte that is not zero; zeros behind it are padding.
        let end = padded
            .iter()
            .rposition(|byte| *byte != 0)
            .ok_or(RecordError::NoContentType)?;
        if end > PLAINTEXT_MAX_BYTES {
            return Err(RecordError::TooLong);
        }
        let content = &padded[..end];
        match padded[end] {
            APPLICATION_DATA => {
                if end > 0 {
                    self.idle_key_updates = 0;
                }
                Ok(Opened::Data(end))
            }
            HANDSHAKE => self.handshake(schedule, content),
            ALERT if content == [1, CLOSE_NOTIFY] => Ok(Opened::CloseNotify),
            ALERT => Err(RecordError::Alert),
            _ => Err(RecordError::Unprotected),
        }
    }

    fn handshake(
        &mut self,
        schedule: &mut Schedule,
        message: &[u8],
    ) -> Result<Opened, RecordError> {
        match message {
            [KEY_UPDATE, 0, 0, 1, request @ (0 | 1)] => {
                self.idle_key_updates += 1;
                if self.idle_key_updates > IDLE_KEY_UPDATES_MAX {
                    return Err(RecordError::KeyUpdateFlood);
                }
                self.keys = schedule.next_receiving_keys()?;
                schedule.owes_update |= *request == 1;
                Ok(Opened::Nothing)
            }
            // Our own servers send none; one that comes is of no use without resumption.
            [NEW_SESSION_TICKET, ..] => Ok(Opened::Nothing),
            _ => Err(RecordError::UnexpectedHandshake),
        }
    }
}
