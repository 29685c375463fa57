//! How a gateway asks its control plane for a certificate, and what it is given.
//!
//! What is read here has the right size; whether it is a request, and whether the chain is that of the key that was
//! asked for, is for whoever knows certificates.

use crate::wire::identity as wire;

#[cfg(test)]
mod tests;

/// The most bytes of a message.
pub const IDENTITY_MESSAGE_MAX_BYTES: usize = 64 << 10;

/// The most bytes of a signing request: some 300, and a SPIFFE ID of at most 2,048.
pub const SIGNING_REQUEST_MAX_BYTES: usize = 4096;

/// The most certificates of a chain: as many as a peer verifies.
pub const CHAIN_MAX: usize = 4;

/// The most bytes of one certificate.
pub const CERTIFICATE_MAX_BYTES: usize = 16_384;

/// A request for a certificate: PKCS #10 in DER form, one byte to [`SIGNING_REQUEST_MAX_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignRequest(Vec<u8>);

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignResponse {
    /// DER, leaf first, the root left out; one to [`CHAIN_MAX`].
    pub chain: Vec<Vec<u8>>,
    /// Its last second, Unix.
    pub not_after_s: u64,
}

/// The root under which certificates are issued from now on: DER, one byte to [`CERTIFICATE_MAX_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer(Vec<u8>);

/// Why a message is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the field {field} is missing or not valid")]
pub struct IdentityError {
    /// The field's name in the protocol file.
    pub field: &'static str,
}

impl SignRequest {
    /// Takes a request of the right size.
    ///
    /// # Errors
    /// None, or one that is too long.
    pub fn new(request: Vec<u8>) -> Result<Self, IdentityError> {
        if request.is_empty() || request.len() > SIGNING_REQUEST_MAX_BYTES {
            return Err(IdentityError { field: "request" });
        }
        Ok(Self(request))
    }

    /// The request, DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<wire::SignRequest> for SignRequest {
    type Error = IdentityError;

    fn try_from(request: wire::SignRequest) -> Result<Self, IdentityError> {
        Self::new(request.request)
    }
}

impl From<SignRequest> for wire::SignRequest {
    fn from(request: SignRequest) -> Self {
        Self { request: request.0 }
    }
}

impl TryFrom<wire::SignResponse> for SignResponse {
    type Error = IdentityError;

    fn try_from(response: wire::SignResponse) -> Result<Self, IdentityError> {
        let chain = response.chain;
        let is_good = |one: &Vec<u8>| (1..=CERTIFICATE_MAX_BYTES).contains(&one.len());
        if !(1..=CHAIN_MAX).contains(&chain.len()) || !chain.iter().all(is_good) {
            return Err(IdentityError { field: "chain" });
        }
        if response.not_after == 0 {
            return Err(IdentityError { field: "not_after" });
        }
        Ok(Self {
            chain,
            not_after_s: response.not_after,
        })
    }
}

impl From<SignResponse> for wire::SignResponse {
    fn from(response: SignResponse) -> Self {
        Self {
            chain: response.chain,
            not_after: response.not_after_s,
        }
    }
}

impl Issuer {
    /// Takes a root of the right size.
    ///
    /// # Errors
    /// None, or one that is too long.
    pub fn new(root: Vec<u8>) -> Result<Self, IdentityError> {
        if root.is_empty() || root.len() > CERTIFICATE_MAX_BYTES {
            return Err(IdentityError { field: "root" });
        }
        Ok(Self(root))
    }

    /// The root, DER.
    #[must_use]
    pub fn into_der(self) -> Vec<u8> {
        self.0
    }
}

impl TryFrom<wire::Issuer> for Issuer {
    type Error = IdentityError;

    fn try_from(issuer: wire::Issuer) -> Result<Self, IdentityError> {
        Self::new(issuer.root)
    }
}

impl From<Issuer> for wire::Issuer {
    fn from(issuer: Issuer) -> Self {
        Self { root: issuer.0 }
    }
}
