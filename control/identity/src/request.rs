//! A request for a leaf (PKCS #10): from the side that has the key, and from the side that issues.

use std::fmt;

use corinth_model::SpiffeId;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKey, SanType,
};
use rustls_pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::authority::AuthorityError;
use crate::leaf::{Leaf, LeafError};

/// A fresh P-256 key whose leaf somebody else is to issue. The key stays here; the request is public.
pub struct LeafKey {
    key: KeyPair,
    request: CertificateSigningRequestDer<'static>,
}

impl LeafKey {
    /// Makes a key, and the request for a leaf that names `id`.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate(id: &SpiffeId) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        let request = params.serialize_request(&key)?.into();
        Ok(Self { key, request })
    }

    /// The request in DER form: the public key, the identity, and a signature that proves the key.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// The leaf, once its chain is there (leaf first).
    ///
    /// # Errors
    /// A chain whose leaf peers would refuse. Whether the key is that of the leaf shows when it is put to use.
    pub fn with_chain(self, chain: Vec<CertificateDer<'static>>) -> Result<Leaf, LeafError> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        Leaf::new(chain, PrivateKeyDer::Pkcs8(key))
    }
}

impl fmt::Debug for LeafKey {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafKey").finish_non_exhaustive()
    }
}

/// A request whose sender has proven to have the key in it.
#[derive(Debug)]
pub struct SigningRequest {
    id: SpiffeId,
    key: PublicKey,
}

/// Why a request is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningRequestError {
    /// Not a PKCS #10 request, or more than one.
    #[error("the request for a certificate is not well formed")]
    Malformed,
    /// The key is not on the curve P-256.
    #[error("the key in the request is not an ECDSA key on the curve P-256")]
    Key,
    /// The signature is not by the key in the request.
    #[error("the signature of the request does not prove the key in it")]
    Signature,
    /// There is not exactly one URI, or it is no SPIFFE ID.
    #[error("the request does not name exactly one SPIFFE ID")]
    Identity,
}

impl SigningRequest {
    /// Reads a request in DER form. The key and the SPIFFE ID are taken from it, and nothing else.
    ///
    /// # Errors
    /// The first rule it breaks: form, kind of key, signature, identity.
    pub fn read(der: &[u8]) -> Result<Self, SigningRequestError> {
        let (rest, parsed) =
            X509CertificationRequest::from_der(der).map_err(|_| SigningRequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(SigningRequestError::Malformed);
        }
        // The signature's algorithm does not say which curve its key is on.
        if !is_p256(&parsed.certification_request_info.subject_pki) {
            return Err(SigningRequestError::Key);
        }
        let request = CertificateSigningRequestParams::from_der(&der.into()).map_err(|error| {
            match error == rcgen::Error::InvalidCertificationRequestSignature {
                true => SigningRequestError::Signature,
                false => SigningRequestError::Malformed,
            }
        })?;
        let mut uris = request.params.subject_alt_names.iter().filter_map(uri);
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(SigningRequestError::Identity);
        };
        let id = SpiffeId::parse(uri).map_err(|_| SigningRequestError::Identity)?;
        Ok(Self {
            id,
            key: request.public_key,
        })
    }

    /// The identity that is asked for. Whether the sender may have it is for the reader to decide.
    #[must_use]
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub(crate) const fn key(&self) -> &PublicKey {
        &self.key
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "names of other kinds do not count"
)]
fn uri(name: &SanType) -> Option<&str> {
    match name {
        SanType::URI(uri) => Some(uri.as_str()),
        _ => None,
    }
}

/// RFC 5480: an EC key whose parameters name P-256, as an uncompressed point.
fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    /// One byte for the form, then two coordinates.
    const POINT_BYTES: usize = 65;
    const UNCOMPRESSED: u8 = 4;

    let curve = key.algorithm.parameters.as_ref();
    let curve = curve.and_then(|parameters| parameters.as_oid().ok());
    let point = &key.subject_public_key.data;
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256)
        && point.len() == POINT_BYTES
        && point.first() == Some(&UNCOMPRESSED)
}

#[cfg(test)]
mod tests;
