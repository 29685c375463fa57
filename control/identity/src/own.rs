//! The leaf this process shows, replaced in place while connections run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use corinth_model::{DnsName, SpiffeId};
use parking_lot::RwLock;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::authority::{Authority, AuthorityError, BACKDATED};
use crate::bundle::BundleError;
use crate::leaf::{Leaf, LeafError};
use crate::state::{StateDir, StateError};
use crate::{tls, verify};

/// Who we are in handshakes: the leaf in use, as rustls asks for it. Every new handshake takes the leaf of the moment;
/// running connections are not touched by a replacement.
pub struct OwnIdentity {
    id: SpiffeId,
    source: Source,
    /// `None` until the first leaf from outside is there.
    current: RwLock<Option<Current>>,
}

/// Where the next leaf comes from.
enum Source {
    /// We issue it ourselves.
    Authority {
        /// Shared by all that were made from one another.
        authority: Arc<RwLock<Arc<Authority>>>,
        /// The root of the leaf in use.
        root: RwLock<CertificateDer<'static>>,
        /// Where the authority is kept, if it may change there.
        kept: Option<Arc<StateDir>>,
        dns_names: Vec<DnsName>,
        lifetime: Duration,
    },
    /// Someone else does and calls [`OwnIdentity::replace`].
    Outside,
}

struct Current {
    certified: Arc<CertifiedKey>,
    /// Life counts from here: the date in the certificate is earlier, for clocks that run behind.
    issued_at: UnixTime,
    not_after: UnixTime,
}

/// Why there is no new leaf. The old one stays in use.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// Our authority did not issue.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The leaf cannot be used.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The leaf is someone else's.
    #[error(
        "the new certificate is for {found}, but this is {expected}; an identity does not change while running"
    )]
    OtherIdentity {
        /// Who we are.
        expected: Box<SpiffeId>,
        /// Who the new leaf is.
        found: Box<SpiffeId>,
    },
    /// The certificate comes from outside, so it cannot be renewed here.
    #[error("the certificate was given from outside; replace its files to renew it")]
    FromOutside,
}

impl OwnIdentity {
    /// Uses a leaf issued elsewhere, until [`replace`](Self::replace) brings the next.
    ///
    /// # Errors
    /// A key that is unusable or not that of the certificate.
    pub fn from_leaf(leaf: &Leaf) -> Result<Self, LeafError> {
        Self::with_source(leaf, Source::Outside)
    }

    /// Waits for the first leaf issued elsewhere, which [`replace`](Self::replace) brings. Every handshake fails until then.
    #[must_use]
    pub const fn awaiting(id: SpiffeId) -> Self {
        Self {
            id,
            source: Source::Outside,
            current: RwLock::new(None),
        }
    }

    /// Has `authority` issue a leaf for `id` now, and again at each [`renew`](Self::renew). `dns_names` is empty for
    /// tunnels; the certificate of a *terminate* route carries the route's names.
    ///
    /// # Errors
    /// Why the authority did not issue.
    pub fn issued_by(
        authority: Arc<Authority>,
        id: &SpiffeId,
        dns_names: Vec<DnsName>,
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let authority = Arc::new(RwLock::new(authority));
        Self::issued_by_shared(authority, id, dns_names, lifetime, now)
    }

    fn issued_by_shared(
        shared: Arc<RwLock<Arc<Authority>>>,
        id: &SpiffeId,
        dns_names: Vec<DnsName>,
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let authority = Arc::clone(&shared.read());
        let leaf = authority.issue(id, &dns_names, now, lifetime)?;
        Ok(Self::with_source(
            &leaf,
            Source::Authority {
                root: RwLock::new(authority.root().clone()),
                authority: shared,
                kept: None,
                dns_names,
                lifetime,
            },
        )?)
    }

    /// As it is, and from now on [`follow`](Self::follow) looks into this directory for the authority that issues.
    #[must_use]
    pub fn following(mut self, state_dir: Arc<StateDir>) -> Self {
        if let Source::Authority { kept, .. } = &mut self.source {
            *kept = Some(state_dir);
        }
        self
    }

    /// Takes the authority that issues by now, if another root took over in the state directory that is followed. The
    /// leaf in use, and those made from it [under names](Self::under_names), are then due for renewal. Reads from disk.
    ///
    /// # Errors
    /// Why the directory cannot be read; the authority of before goes on issuing.
    pub fn follow(&self, now: UnixTime) -> Result<(), StateError> {
        let Source::Authority {
            authority,
            kept: Some(state_dir),
            ..
        } = &self.source
        else {
            return Ok(());
        };
        let found = state_dir.load(self.id.trust_domain(), now)?.authority;
        if found.root() != authority.read().root() {
            *authority.write() = Arc::new(found);
        }
        Ok(())
    }

    /// The same identity in a leaf of its own that carries these names, with the same issuer and lifetime: for a
    /// *terminate* route. `None` where somebody else issues our leaf.
    ///
    /// # Errors
    /// Why the authority did not issue.
    pub fn under_names(
        &self,
        dns_names: Vec<DnsName>,
        now: UnixTime,
    ) -> Option<Result<Self, AuthorityError>> {
        let Source::Authority {
            authority,
            lifetime,
            ..
        } = &self.source
        else {
            return None;
        };
        let authority = Arc::clone(authority);
        Some(Self::issued_by_shared(
            authority, &self.id, dns_names, *lifetime, now,
        ))
    }

    fn with_source(leaf: &Leaf, source: Source) -> Result<Self, LeafError> {
        Ok(Self {
            id: leaf.id().clone(),
            source,
            current: RwLock::new(Some(current(leaf)?)),
        })
    }

    /// Who we are.
    #[must_use]
    pub const fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Last second of the leaf in use; long past while there is none.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        let current = self.current.read();
        let epoch = UnixTime::since_unix_epoch(Duration::ZERO);
        current.as_ref().map_or(epoch, |current| current.not_after)
    }

    /// Whether less than a quarter of the life of the leaf in use is left, or there is none: it should have been renewed.
    #[must_use]
    pub fn is_expiring(&self, now: UnixTime) -> bool {
        let current = self.current.read();
        current.as_ref().is_none_or(|current| {
            let (start, end) = (current.issued_at.as_secs(), current.not_after.as_secs());
            now.as_secs() > end - end.saturating_sub(start) / 4
        })
    }

    /// How long from `now` until the leaf in use should be renewed: at half of its life, zero when that has passed,
    /// there is none, or another root of ours issues by now.
    #[must_use]
    pub fn next_renewal(&self, now: UnixTime) -> Duration {
        if let Source::Authority {
            authority, root, ..
        } = &self.source
            && *root.read() != *authority.read().root()
        {
            return Duration::ZERO;
        }
        let current = self.current.read();
        let Some(current) = current.as_ref() else {
            return Duration::ZERO;
        };
        let (start, end) = (current.issued_at.as_secs(), current.not_after.as_secs());
        let half = start + end.saturating_sub(start) / 2;
        Duration::from_secs(half.saturating_sub(now.as_secs()))
    }

    /// Whether the leaf in use is under this root, whatever the time; also while there is none, as there is none to replace.
    ///
    /// # Errors
    /// A root that peers would not take as one.
    pub fn is_under(&self, root: &CertificateDer<'_>) -> Result<bool, BundleError> {
        let current = self.current.read();
        let Some(current) = current.as_ref() else {
            return Ok(true);
        };
        let (chain, root) = (&current.certified.cert, root.clone().into_owned());
        verify::is_under(chain, root, self.id.trust_domain(), current.not_after)
    }

    /// Has our authority issue the next leaf and uses it from now on.
    ///
    /// # Errors
    /// Why there is no new leaf; the old one stays in use.
    pub fn renew(&self, now: UnixTime) -> Result<(), RenewalError> {
        let Source::Authority {
            authority,
            root,
            dns_names,
            lifetime,
            ..
        } = &self.source
        else {
            return Err(RenewalError::FromOutside);
        };
        let authority = Arc::clone(&authority.read());
        self.replace(&authority.issue(&self.id, dns_names, now, *lifetime)?)?;
        *root.write() = authority.root().clone();
        Ok(())
    }

    /// Uses a leaf issued elsewhere from now on. It must be for the same identity.
    ///
    /// # Errors
    /// A leaf of another identity or with an unfit key; the old one stays in use.
    pub fn replace(&self, leaf: &Leaf) -> Result<(), RenewalError> {
        if *leaf.id() != self.id {
            let (expected, found) = (Box::new(self.id.clone()), Box::new(leaf.id().clone()));
            return Err(RenewalError::OtherIdentity { expected, found });
        }
        let next = current(leaf)?;
        *self.current.write() = Some(next);
        Ok(())
    }

    /// The leaf in use, with its chain, as rustls wants it; `None` while there is none.
    #[must_use]
    pub fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read();
        current
            .as_ref()
            .map(|current| Arc::clone(&current.certified))
    }
}

fn current(leaf: &Leaf) -> Result<Current, LeafError> {
    let certified = CertifiedKey::from_der(
        leaf.chain().to_vec(),
        leaf.key().clone_key(),
        tls::provider(),
    )
    .map_err(LeafError::Mismatch)?;
    let issued_at = Duration::from_secs(leaf.not_before().as_secs()) + BACKDATED;
    let not_after = Duration::from_secs(leaf.not_after().as_secs());
    Ok(Current {
        certified: Arc::new(certified),
        issued_at: UnixTime::since_unix_epoch(issued_at.min(not_after)),
        not_after: leaf.not_after(),
    })
}

impl ResolvesServerCert for OwnIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for OwnIdentity {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for OwnIdentity {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnIdentity")
            .field("id", &self.id)
            .field("not_after", &self.not_after().as_secs())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
