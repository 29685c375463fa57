//! Who this node is: its authority, its leaf, the roots it trusts; from files or made on first start.

use std::{sync::Arc, time::Duration};

use corinth_identity::{
    Authority, AuthorityError, Bundle, BundleError, BundleSet, Leaf, LeafError, OwnIdentity,
    RenewalError, StateDir, StateError,
};
use corinth_model::GatewayId;
use rustls::pki_types::UnixTime;

use crate::leaf;
use crate::settings::{Files, Identity, IdentityFiles, Settings};

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The authority cannot be used.
    #[error("the authority: {0}")]
    Authority(#[from] AuthorityError),
    /// The leaf cannot be used.
    #[error("the gateway's certificate: {0}")]
    Leaf(#[from] LeafError),
    /// The leaf was not replaced.
    #[error("the gateway's certificate: {0}")]
    Renewal(#[from] RenewalError),
    /// The roots of a peer cannot be used.
    #[error("the bundle of a peer: {0}")]
    Bundle(#[from] BundleError),
    /// The certificate names somebody else.
    #[error("the gateway's certificate is for {found}, this gateway is {expected}")]
    OtherIdentity {
        /// Who we are by configuration.
        expected: String,
        /// Who the certificate says we are.
        found: String,
    },
}

/// Who this node is.
pub(crate) struct Node {
    pub(crate) own: Arc<OwnIdentity>,
    /// `None` where somebody else issues our certificate.
    pub(crate) authority: Option<Arc<Authority>>,
    /// The roots to hand to peers, PEM; empty where the control plane has them.
    pub(crate) bundle_pem: String,
}

impl Node {
    /// Loads it, or makes it on first start.
    pub(crate) fn load(
        settings: &Settings,
        files: &Files,
        now: UnixTime,
    ) -> Result<Self, IdentityError> {
        let domain = &settings.trust_domain;
        // Ports and the last good configuration are kept there whoever issues our certificate.
        let state_dir = StateDir::open(&settings.state_dir)?;
        match (&settings.identity, &files.identity) {
            (Identity::BuiltIn { leaf_lifetime }, _) => {
                let state = state_dir.load_or_create(domain, now)?;
                let (authority, pem) = (state.authority, state.bundle_pem);
                let kept = Some(Arc::new(state_dir));
                Self::with_authority(settings, authority, pem, kept, *leaf_lifetime, now)
            }
            (Identity::Control, _) => Ok(Self {
                own: Arc::new(leaf::kept(
                    &state_dir,
                    &gateway_id(settings).spiffe_id(),
                    now,
                )),
                authority: None,
                bundle_pem: String::new(),
            }),
            (
                Identity::Authority { leaf_lifetime, .. },
                IdentityFiles::Authority { certificate, key },
            ) => {
                let authority =
                    Authority::from_pem(domain.clone(), certificate.pem(), key.expose())?;
                let pem = authority.certificate_pem().to_owned();
                Self::with_authority(settings, authority, pem, None, *leaf_lifetime, now)
            }
            (
                _,
                IdentityFiles::Leaf {
                    certificate,
                    key,
                    bundle,
                },
            ) => {
                let leaf = Leaf::from_pem(certificate.pem().as_bytes(), key.expose().as_bytes())?;
                let expected = gateway_id(settings).spiffe_id();
                if *leaf.id() != expected {
                    let (expected, found) = (expected.to_string(), leaf.id().to_string());
                    return Err(IdentityError::OtherIdentity { expected, found });
                }
                Ok(Self {
                    own: Arc::new(OwnIdentity::from_leaf(&leaf)?),
                    authority: None,
                    bundle_pem: bundle.pem().to_owned(),
                })
            }
            (Identity::Authority { .. } | Identity::Leaf { .. }, _) => {
                unreachable!("files are loaded for the identity that the settings name")
            }
        }
    }

    fn with_authority(
        settings: &Settings,
        authority: Authority,
        bundle_pem: String,
        kept: Option<Arc<StateDir>>,
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<Self, IdentityError> {
        let authority = Arc::new(authority);
        let id = gateway_id(settings).spiffe_id();
        let own = OwnIdentity::issued_by(Arc::clone(&authority), &id, Vec::new(), lifetime, now)?;
        let own = match kept {
            Some(state_dir) => own.following(state_dir),
            None => own,
        };
        Ok(Self {
            own: Arc::new(own),
            authority: Some(authority),
            bundle_pem,
        })
    }
}

/// A leaf that somebody else renewed is taken from its files.
pub(crate) fn take_new_leaf(own: &OwnIdentity, files: &Files) -> Result<(), IdentityError> {
    let IdentityFiles::Leaf {
        certificate, key, ..
    } = &files.identity
    else {
        return Ok(());
    };
    let leaf = Leaf::from_pem(certificate.pem().as_bytes(), key.expose().as_bytes())?;
    Ok(own.replace(&leaf)?)
}

/// The roots of every peer.
pub(crate) fn bundles(settings: &Settings, files: &Files) -> Result<BundleSet, IdentityError> {
    let mut set = BundleSet::new();
    for peer in &settings.peers {
        if let Some(roots) = files.peers.get(&peer.name) {
            let roots = roots.ders().to_vec();
            // A file has no sequence of its own; each reading makes a new set.
            set.insert(Bundle::new(peer.trust_domain.clone(), roots, 1)?)?;
        }
    }
    Ok(set)
}

/// Who this gateway is by configuration.
pub(crate) fn gateway_id(settings: &Settings) -> GatewayId {
    GatewayId {
        trust_domain: settings.trust_domain.clone(),
        slot: settings.slot.clone(),
    }
}
