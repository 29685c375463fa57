//! The roots of trust domains: one bundle per domain, never pooled (SPIFFE Trust Domain and Bundle §6.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use corinth_model::TrustDomain;
use parking_lot::RwLock;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::presented;

/// Most roots in one bundle. A rotation needs two; a bundle with hundreds is a mistake or an attack.
pub const ROOTS_MAX: usize = 32;

/// Largest PEM text of a bundle, in bytes.
const PEM_MAX_BYTES: usize = 256 * 1024;

/// The roots of one trust domain. Without roots it distrusts everything.
#[derive(Clone, Debug)]
pub struct Bundle {
    trust_domain: TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    /// The roots as webpki uses them, made once.
    anchors: Vec<TrustAnchor<'static>>,
    sequence: u64,
}

/// Why roots make no bundle, or a bundle may not replace another.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The PEM text is larger than a bundle can be.
    #[error(
        "the bundle of {trust_domain} has {size_bytes} bytes, more than the {PEM_MAX_BYTES} accepted"
    )]
    TooLarge {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Its size.
        size_bytes: usize,
    },
    /// Not PEM, or no certificate in it.
    #[error("the bundle of {0} has no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    NotPem(TrustDomain),
    /// More roots than [`ROOTS_MAX`].
    #[error("the bundle of {0} has more than {ROOTS_MAX} roots")]
    TooManyRoots(TrustDomain),
    /// A certificate of the bundle cannot be read.
    #[error("certificate {position} of the bundle of {trust_domain} cannot be read")]
    Malformed {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which certificate, counted from 1.
        position: usize,
    },
    /// A certificate of the bundle is not that of an authority.
    #[error(
        "certificate {position} of the bundle of {trust_domain} is not an authority (cA=true with keyCertSign); \
         a bundle holds root certificates, not leaves"
    )]
    NotAuthority {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which certificate, counted from 1.
        position: usize,
    },
    /// A root has URI name constraints, which the TLS library refuses unconditionally.
    #[error(
        "root {position} of the bundle of {trust_domain} ({issuer:?}) has URI name constraints; chains under such an \
         authority are always refused, use one without them"
    )]
    UriNameConstraint {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Which certificate, counted from 1.
        position: usize,
        /// Subject of the root.
        issuer: String,
    },
    /// The sequence of a bundle only grows.
    #[error("the bundle of {trust_domain} has sequence {offered}, older than {held} which we hold")]
    Older {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// Sequence we hold.
        held: u64,
        /// Sequence offered.
        offered: u64,
    },
    /// Same sequence, other roots.
    #[error(
        "the bundle of {trust_domain} has the sequence {sequence} which we hold, but other roots"
    )]
    Conflict {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// The sequence of both.
        sequence: u64,
    },
}

impl Bundle {
    /// Takes the roots of a trust domain. No roots at all is allowed and distrusts everything.
    ///
    /// # Errors
    /// The first certificate that is no usable root, or too many of them.
    pub fn new(
        trust_domain: TrustDomain,
        roots: Vec<CertificateDer<'static>>,
        sequence: u64,
    ) -> Result<Self, BundleError> {
        if roots.len() > ROOTS_MAX {
            return Err(BundleError::TooManyRoots(trust_domain));
        }
        let mut anchors = Vec::with_capacity(roots.len());
        for (index, root) in roots.iter().enumerate() {
            anchors.push(anchor(&trust_domain, index + 1, root)?);
        }
        Ok(Self {
            trust_domain,
            roots,
            anchors,
            sequence,
        })
    }

    /// Reads the roots from PEM text: one certificate or more, nothing else counts.
    ///
    /// # Errors
    /// As [`new`](Self::new), and text that is too large or holds no certificate.
    pub fn from_pem(
        trust_domain: TrustDomain,
        pem: &[u8],
        sequence: u64,
    ) -> Result<Self, BundleError> {
        if pem.len() > PEM_MAX_BYTES {
            return Err(BundleError::TooLarge {
                trust_domain,
                size_bytes: pem.len(),
            });
        }
        let roots = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        match roots {
            Ok(roots) if !roots.is_empty() => Self::new(trust_domain, roots, sequence),
            Ok(_) | Err(_) => Err(BundleError::NotPem(trust_domain)),
        }
    }

    /// Whose roots these are.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root certificates in DER form.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Version of the bundle; it only grows.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

fn anchor(
    trust_domain: &TrustDomain,
    position: usize,
    root: &CertificateDer<'_>,
) -> Result<TrustAnchor<'static>, BundleError> {
    let malformed = || BundleError::Malformed {
        trust_domain: trust_domain.clone(),
        position,
    };
    let certificate = presented::parse(root).map_err(|_| malformed())?;
    if !presented::is_authority(&certificate) {
        return Err(BundleError::NotAuthority {
            trust_domain: trust_domain.clone(),
            position,
        });
    }
    if let Some(issuer) = presented::uri_constrained(&certificate) {
        return Err(BundleError::UriNameConstraint {
            trust_domain: trust_domain.clone(),
            position,
            issuer,
        });
    }
    Ok(webpki::anchor_from_trusted_cert(root)
        .map_err(|_| malformed())?
        .to_owned())
}

/// One bundle per trust domain.
#[derive(Clone, Debug, Default)]
pub struct BundleSet(BTreeMap<TrustDomain, Bundle>);

impl BundleSet {
    /// No bundles: nobody is trusted.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The bundle of exactly this trust domain.
    #[must_use]
    pub fn bundle(&self, trust_domain: &TrustDomain) -> Option<&Bundle> {
        self.0.get(trust_domain)
    }

    /// Puts a bundle in, or in the place of an older one. On error the set is as before.
    ///
    /// # Errors
    /// An older sequence, or the same sequence with other roots.
    pub fn insert(&mut self, bundle: Bundle) -> Result<(), BundleError> {
        if let Some(held) = self.0.get(&bundle.trust_domain) {
            let trust_domain = bundle.trust_domain.clone();
            if bundle.sequence < held.sequence {
                return Err(BundleError::Older {
                    trust_domain,
                    held: held.sequence,
                    offered: bundle.sequence,
                });
            }
            if bundle.sequence == held.sequence && bundle.roots != held.roots {
                return Err(BundleError::Conflict {
                    trust_domain,
                    sequence: bundle.sequence,
                });
            }
        }
        self.0.insert(bundle.trust_domain.clone(), bundle);
        Ok(())
    }

    /// Takes the bundle of a trust domain out, so that it is no longer trusted.
    pub fn remove(&mut self, trust_domain: &TrustDomain) -> Option<Bundle> {
        self.0.remove(trust_domain)
    }

    /// The trust domains in the set, in order.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.0.keys()
    }
}

/// The bundles in use, shared and replaceable at run time: the next handshake sees a replacement.
#[derive(Clone, Debug, Default)]
pub struct SharedBundles(Arc<RwLock<Arc<BundleSet>>>);

impl SharedBundles {
    /// Shares a set.
    #[must_use]
    pub fn new(set: BundleSet) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(set))))
    }

    /// The set in use now.
    #[must_use]
    pub fn current(&self) -> Arc<BundleSet> {
        Arc::clone(&self.0.read())
    }

    /// Uses `set` from now on and returns what was in use.
    pub fn replace(&self, set: BundleSet) -> Arc<BundleSet> {
        std::mem::replace(&mut *self.0.write(), Arc::new(set))
    }
}

#[cfg(test)]
mod tests;
