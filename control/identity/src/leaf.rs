//! A leaf certificate with its chain and key.

use std::fmt;

use corinth_model::SpiffeId;
use data_encoding::BASE64;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::presented;
use crate::verify::VerifyError;

/// A leaf certificate with its chain (leaf first, the root left out) and its private key.
pub struct Leaf {
    id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    not_before: UnixTime,
    not_after: UnixTime,
}

/// Why a chain and a key make no leaf.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The PEM text has no certificate, or a broken one.
    #[error("no chain of certificates in PEM form: {0}")]
    Chain(rustls_pki_types::pem::Error),
    /// The chain is empty.
    #[error("the chain has no certificate")]
    Empty,
    /// The PEM text has no private key, or a broken one.
    #[error("no private key in PEM form (PKCS#8, SEC1 or PKCS#1)")]
    Key,
    /// The certificate is not what a peer would accept.
    #[error("peers would refuse this certificate: {0}")]
    Certificate(#[from] VerifyError),
    /// The key is of a kind we cannot use, or not that of the certificate.
    #[error("the private key does not fit the certificate: {0}")]
    Mismatch(rustls::Error),
}

impl Leaf {
    /// Takes a chain (leaf first) and its key, after checking that the leaf has the form a peer demands.
    ///
    /// # Errors
    /// What a peer would object to, told before a peer does.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, LeafError> {
        let facts = presented::read_leaf(chain.first().ok_or(LeafError::Empty)?)?;
        Ok(Self {
            id: facts.id,
            chain,
            key,
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    /// Reads chain (leaf first) and key from PEM text.
    ///
    /// # Errors
    /// As [`new`](Self::new), and text without certificate or key.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, LeafError> {
        let chain = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(LeafError::Chain)?;
        // The cause is dropped: it could quote the key.
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| LeafError::Key)?;
        Self::new(chain, key)
    }

    /// Key and chain as one PEM text, which [`from_pem`](Self::from_pem) reads as both. Secret: for the state directory and
    /// nothing else.
    #[must_use]
    pub fn to_pem(&self) -> String {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "forms that the library may learn are not made here"
        )]
        let label = match &self.key {
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let chain = self.chain.iter();
        let chain = chain.map(|certificate| pem("CERTIFICATE", certificate));
        pem(label, self.key.secret_der()) + &chain.collect::<String>()
    }

    /// The identity the leaf carries.
    #[must_use]
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The chain in DER form, leaf first, without the root.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key in DER form.
    #[must_use]
    pub const fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// First second of its life.
    #[must_use]
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// Last second of its life.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    /// Letters on a line.
    const LINE: usize = 64;

    let mut text = format!("-----BEGIN {label}-----\n");
    let encoded = BASE64.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text + &format!("-----END {label}-----\n")
}

impl fmt::Debug for Leaf {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("id", &self.id)
            .field("not_before", &self.not_before.as_secs())
            .field("not_after", &self.not_after.as_secs())
            .finish_non_exhaustive()
    }
}
