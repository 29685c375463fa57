//! What linking by a token needs of identity: who shows what in `corinth-link/1`, and the proof of the token's secret
//! (protocol §7 "Linking").
//!
//! The inviter shows a leaf of role control and the root it is under. The joiner knows the root by its pin and nobody
//! knows the joiner; both then prove the secret of the token by a MAC over keying material that only the two ends of
//! this very connection have. Whoever ends TLS on the way has other keying material.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{digest, hkdf, hmac};
use corinth_model::{Slot, SpiffeId, TrustDomain};
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ConnectionCommon, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::authority::{Authority, AuthorityError};
use crate::leaf::LeafError;
use crate::presented;
use crate::tls;
use crate::verify::LinkVerifier;

#[cfg(test)]
mod tests;

/// ALPN of linking.
pub const LINK_ALPN: &[u8] = b"corinth-link/1";

/// Life of a leaf that is shown for linking, before and after its issue. It reaches far back because the joiner's clock
/// may be wrong: that of the inviter decides.
const LINK_LEAF_REACH: Duration = Duration::from_hours(24);

const EXPORTER_LABEL: &[u8] = b"EXPORTER-corinth-link/1";
const KEY_INFO: &[u8] = b"corinth-link/1";
const JOIN_LABEL: &[u8] = b"corinth-link/1 join";
const ANSWER_LABEL: &[u8] = b"corinth-link/1 answer";

/// What a token's secret is kept as: enough to check a proof, not enough to make the token again.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey([u8; 32]);

/// Keying material of one connection; both ends have the same, and no other connection has it.
#[derive(Clone, Copy)]
pub struct LinkBinding([u8; 32]);

/// Which of the two messages a MAC belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMessage {
    /// That of the joiner.
    Join {
        /// Whether only the joiner uses the other.
        one_way: bool,
    },
    /// That of the inviter.
    Answer,
}

impl LinkKey {
    /// The key that follows from a token's secret.
    #[must_use]
    pub fn of_secret(secret: &[u8; 32]) -> Self {
        let mut key = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(secret)
            .expand(&[KEY_INFO], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("32 bytes are one block of HKDF-SHA-256");
        Self(key)
    }

    /// A key that was kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key, to be kept in the state directory and nowhere else.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The MAC of a message with this encoded party.
    #[must_use]
    pub fn mac(&self, message: LinkMessage, binding: &LinkBinding, party: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.hmac(), &covered(message, binding, party));
        let mut mac = [0; 32];
        mac.copy_from_slice(tag.as_ref());
        mac
    }

    /// Whether a MAC is that of the message, in constant time.
    #[must_use]
    pub fn verifies(
        &self,
        message: LinkMessage,
        binding: &LinkBinding,
        party: &[u8],
        mac: &[u8; 32],
    ) -> bool {
        hmac::verify(&self.hmac(), &covered(message, binding, party), mac).is_ok()
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

/// What a MAC covers. Only the party has no fixed length, and what surrounds it is told by the label.
fn covered(message: LinkMessage, binding: &LinkBinding, party: &[u8]) -> Vec<u8> {
    match message {
        LinkMessage::Join { one_way } => {
            [JOIN_LABEL, &binding.0, party, &[u8::from(one_way)]].concat()
        }
        LinkMessage::Answer => [ANSWER_LABEL, &binding.0, party].concat(),
    }
}

impl LinkBinding {
    /// That of a connection, once its handshake is done.
    ///
    /// # Errors
    /// If the handshake is not done.
    pub fn of<Side>(connection: &ConnectionCommon<Side>) -> Result<Self, rustls::Error> {
        let exported = connection.export_keying_material([0; 32], EXPORTER_LABEL, None);
        exported.map(Self)
    }
}

/// SHA-256 of a root's subject public key info, by which a token pins it; `None` if it is no certificate.
#[must_use]
pub fn root_pin(root: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let certificate = presented::parse(root).ok()?;
    let hash = digest::digest(&digest::SHA256, certificate.public_key().raw);
    hash.as_ref().try_into().ok()
}

/// The identity of a control plane.
#[must_use]
pub fn control_id(trust_domain: &TrustDomain, slot: &Slot) -> SpiffeId {
    SpiffeId::from_segments(trust_domain.clone(), &["corinth", "control", slot.as_str()])
        .expect("a trust domain and a slot make a SPIFFE ID of less than 400 bytes")
}

/// What ends TLS of somebody who wants to link: shows a new leaf of role control, valid a day around `now`, followed by
/// its root; asks for no certificate; speaks [`LINK_ALPN`] alone. The caller still checks that the ALPN was agreed.
///
/// # Errors
/// Why the authority did not issue.
pub fn link_server_config(
    authority: &Authority,
    slot: &Slot,
    now: UnixTime,
    clock: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, AuthorityError> {
    let reach = LINK_LEAF_REACH;
    let start = Duration::from_secs(now.as_secs()).saturating_sub(reach);
    let leaf = authority.issue(
        &control_id(authority.trust_domain(), slot),
        &[],
        UnixTime::since_unix_epoch(start),
        2 * reach,
    )?;
    let mut chain = leaf.chain().to_vec();
    chain.push(authority.root().clone());
    let shown = CertifiedKey::from_der(chain, leaf.key().clone_key(), tls::provider())
        .map_err(LeafError::Mismatch)?;
    Ok(tls::server_config(
        Arc::new(NoClientAuth),
        Arc::new(Shown(Arc::new(shown))),
        &[LINK_ALPN],
        clock,
    ))
}

/// What dials an inviter: believes a control plane of `trust_domain` under a root with one of `pins`, shows nothing,
/// offers [`LINK_ALPN`] alone. The caller still checks that the ALPN was agreed.
#[must_use]
pub fn link_client_config(
    pins: BTreeSet<[u8; 32]>,
    trust_domain: TrustDomain,
    clock: Arc<dyn TimeProvider>,
) -> ClientConfig {
    let verifier = Arc::new(LinkVerifier::new(pins, trust_domain));
    let mut config = tls::client_config(verifier, Arc::new(NoCertificate), &[LINK_ALPN], clock);
    config.enable_sni = false;
    config
}

/// One certificate, whoever asks.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// None, because the inviter does not know us yet.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Leaves the key out.
impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey(..)")
    }
}

/// Leaves the material out.
impl fmt::Debug for LinkBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkBinding(..)")
    }
}
