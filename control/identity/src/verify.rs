//! Decides whether a presented certificate may be at the other end of a connection.
//!
//! The same steps for every side and policy, in this order:
//! 1. form: length of the chain, then everything [`presented::read_leaf`] demands, which yields one SPIFFE ID;
//! 2. policy that needs no proof: denied identities, the trust domain a dialer expects;
//! 3. the bundle of the trust domain in that ID, and of no other;
//! 4. signatures, validity and purpose, by webpki with the roots of that bundle alone;
//! 5. role, or the list of callers.
//!
//! Every handshake reads the bundles anew, so a change is seen at once.

use std::collections::BTreeSet;

use corinth_model::{Role, SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::bundle::{Bundle, BundleError, SharedBundles};
use crate::denials::Denials;
use crate::presented::{self, LeafFacts};
use crate::tls;

mod error;
mod link;

pub use error::{VerifyError, describe, refusal_of};
pub use link::LinkVerifier;

/// Longest chain accepted, leaf included and root left out. Longer ones only cost us time.
pub const CHAIN_MAX_CERTIFICATES: usize = 4;

/// Accepts gateways: the verifier of both ends of a tunnel.
#[derive(Debug)]
pub struct GatewayVerifier {
    bundles: SharedBundles,
    denials: Denials,
    policy: GatewayPolicy,
}

/// Whose gateways are accepted.
#[derive(Debug)]
enum GatewayPolicy {
    /// A dialer accepts the trust domain of the link it dials, no other.
    Expect(TrustDomain),
    /// A listener accepts every trust domain there is a bundle for, save its own.
    AnyLinked { own: TrustDomain },
}

impl GatewayVerifier {
    /// For the side that dials: accepts gateways of exactly the trust domain `expected`.
    #[must_use]
    pub const fn dialer(bundles: SharedBundles, denials: Denials, expected: TrustDomain) -> Self {
        Self {
            bundles,
            denials,
            policy: GatewayPolicy::Expect(expected),
        }
    }

    /// For the side that listens: accepts gateways of every trust domain in `bundles` (the linked ones) except `own`,
    /// which would be a link to ourselves.
    #[must_use]
    pub const fn listener(bundles: SharedBundles, denials: Denials, own: TrustDomain) -> Self {
        Self {
            bundles,
            denials,
            policy: GatewayPolicy::AnyLinked { own },
        }
    }

    /// Runs every step for a chain presented by `side`, at `now`.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        let facts = read_chain(leaf, intermediates)?;
        self.check_trust_domain(&facts.id)?;
        let id = verify_chain(
            leaf,
            facts,
            intermediates,
            &self.bundles,
            &self.denials,
            side,
            now,
        )?;
        match id.role() {
            Role::Gateway(_) => Ok(id),
            Role::Control(_) | Role::Redirect(_) | Role::Other => {
                Err(VerifyError::WrongRole(Box::new(id)))
            }
        }
    }

    fn check_trust_domain(&self, id: &SpiffeId) -> Result<(), VerifyError> {
        match &self.policy {
            GatewayPolicy::Expect(expected) if id.trust_domain() != expected => {
                Err(VerifyError::WrongPeer {
                    expected: expected.clone(),
                    presented: Box::new(id.clone()),
                })
            }
            GatewayPolicy::AnyLinked { own } if id.trust_domain() == own => {
                Err(VerifyError::OwnTrustDomain(Box::new(id.clone())))
            }
            GatewayPolicy::Expect(_) | GatewayPolicy::AnyLinked { .. } => Ok(()),
        }
    }
}

/// Accepts listed callers of any role: the verifier of *terminate* routes, where mutual TLS ends at the gateway.
#[derive(Debug)]
pub struct CallerVerifier {
    bundles: SharedBundles,
    denials: Denials,
    callers: BTreeSet<SpiffeId>,
}

impl CallerVerifier {
    /// Accepts exactly `callers`, each verified with the bundle of its own trust domain.
    #[must_use]
    pub const fn new(
        bundles: SharedBundles,
        denials: Denials,
        callers: BTreeSet<SpiffeId>,
    ) -> Self {
        Self {
            bundles,
            denials,
            callers,
        }
    }

    /// Runs every step for a chain presented by a client, at `now`.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        let facts = read_chain(leaf, intermediates)?;
        let id = verify_chain(
            leaf,
            facts,
            intermediates,
            &self.bundles,
            &self.denials,
            Side::Client,
            now,
        )?;
        if !self.callers.contains(&id) {
            return Err(VerifyError::CallerNotListed(Box::new(id)));
        }
        Ok(id)
    }
}

/// The end of a connection that presents a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that dialled.
    Client,
    /// The side that accepted.
    Server,
}

impl Side {
    const fn usage(self) -> KeyUsage {
        match self {
            Self::Client => KeyUsage::client_auth(),
            Self::Server => KeyUsage::server_auth(),
        }
    }

    const fn purpose(self) -> &'static str {
        match self {
            Self::Client => "client authentication (clientAuth)",
            Self::Server => "server authentication (serverAuth)",
        }
    }
}

fn read_chain(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<LeafFacts, VerifyError> {
    let certificates = 1 + intermediates.len();
    if certificates > CHAIN_MAX_CERTIFICATES {
        return Err(VerifyError::ChainTooLong(certificates));
    }
    presented::read_leaf(leaf)
}

fn verify_chain(
    leaf: &CertificateDer<'_>,
    facts: LeafFacts,
    intermediates: &[CertificateDer<'_>],
    bundles: &SharedBundles,
    denials: &Denials,
    side: Side,
    now: UnixTime,
) -> Result<SpiffeId, VerifyError> {
    let id = facts.id;
    if denials.contains(&id) {
        return Err(VerifyError::Denied(Box::new(id)));
    }
    let bundles = bundles.current();
    let Some(bundle) = bundles.bundle(id.trust_domain()) else {
        return Err(VerifyError::UnknownTrustDomain(id.trust_domain().clone()));
    };
    match verify_path(leaf, intermediates, bundle, side, now) {
        Ok(()) => Ok(id),
        Err(PathError::Issuer(error)) => Err(error),
        Err(PathError::Webpki(error)) => Err(explain(&error, id, intermediates, side)),
    }
}

/// Why no path leads to a root.
enum PathError {
    Webpki(webpki::Error),
    Issuer(VerifyError),
}

/// Builds a path from the leaf to a root of this one bundle.
fn verify_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &Bundle,
    side: Side,
    now: UnixTime,
) -> Result<(), PathError> {
    let leaf = EndEntityCert::try_from(leaf).map_err(PathError::Webpki)?;
    let algorithms = tls::provider().signature_verification_algorithms.all;
    let path = leaf
        .verify_for_usage(
            algorithms,
            bundle.anchors(),
            intermediates,
            now,
            side.usage(),
            None,
            None,
        )
        .map_err(PathError::Webpki)?;
    // webpki checks cA on issuers but not their key usage.
    for issuer in path.intermediate_certificates() {
        let der = issuer.der();
        let issuer = presented::parse(&der).map_err(PathError::Issuer)?;
        if !presented::may_sign(&issuer) {
            return Err(PathError::Issuer(VerifyError::IssuerMayNotSign));
        }
    }
    Ok(())
}

/// Whether a path leads from this leaf, at the time `at`, to this root.
///
/// # Errors
/// A root that is none.
pub(crate) fn is_under(
    chain: &[CertificateDer<'_>],
    root: CertificateDer<'static>,
    trust_domain: &TrustDomain,
    at: UnixTime,
) -> Result<bool, BundleError> {
    let bundle = Bundle::new(trust_domain.clone(), vec![root], 0)?;
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Ok(false);
    };
    Ok(verify_path(leaf, intermediates, &bundle, Side::Server, at).is_ok())
}

/// Says in our words what webpki found.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other errors are told in webpki's words"
)]
fn explain(
    error: &webpki::Error,
    id: SpiffeId,
    intermediates: &[CertificateDer<'_>],
    side: Side,
) -> VerifyError {
    match error {
        webpki::Error::CertExpired { time, not_after } => VerifyError::Expired {
            now: *time,
            not_after: *not_after,
        },
        webpki::Error::CertNotValidYet { time, not_before } => VerifyError::NotYetValid {
            now: *time,
            not_before: *not_before,
        },
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => {
            VerifyError::WrongPurpose(side.purpose())
        }
        webpki::Error::CaUsedAsEndEntity => VerifyError::LeafIsAuthority,
        webpki::Error::NameConstraintViolation => match uri_constrained_issuer(intermediates) {
            Some(issuer) => VerifyError::UriNameConstraint { issuer },
            None => VerifyError::Chain {
                id: Box::new(id),
                why: error.to_string(),
            },
        },
        other => VerifyError::Chain {
            id: Box::new(id),
            why: other.to_string(),
        },
    }
}

fn uri_constrained_issuer(intermediates: &[CertificateDer<'_>]) -> Option<String> {
    intermediates
        .iter()
        .find_map(|der| presented::uri_constrained(&presented::parse(der).ok()?))
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The identity is the SPIFFE ID, not a DNS name (protocol: who is who).
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, Side::Server, now)
            .map_err(VerifyError::into_rustls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Both client verifiers differ only in the policy they call.
macro_rules! client_cert_verifier {
    ($verifier:ty, |$self:ident, $leaf:ident, $intermediates:ident, $now:ident| $verify:expr) => {
        impl ClientCertVerifier for $verifier {
            /// Empty: what we trust is nobody's business.
            fn root_hint_subjects(&self) -> &[DistinguishedName] {
                &[]
            }

            fn verify_client_cert(
                &$self,
                $leaf: &CertificateDer<'_>,
                $intermediates: &[CertificateDer<'_>],
                $now: UnixTime,
            ) -> Result<ClientCertVerified, rustls::Error> {
                $verify.map_err(VerifyError::into_rustls)?;
                Ok(ClientCertVerified::assertion())
            }

            fn verify_tls12_signature(
                &self,
                _message: &[u8],
                _certificate: &CertificateDer<'_>,
                _signed: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, rustls::Error> {
                Err(tls12_refused())
            }

            fn verify_tls13_signature(
                &self,
                message: &[u8],
                certificate: &CertificateDer<'_>,
                signed: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, rustls::Error> {
                verify_signature(message, certificate, signed)
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                tls::provider().signature_verification_algorithms.supported_schemes()
            }
        }
    };
}

client_cert_verifier!(GatewayVerifier, |self, leaf, intermediates, now| {
    self.verify(leaf, intermediates, Side::Client, now)
});
client_cert_verifier!(CallerVerifier, |self, leaf, intermediates, now| self
    .verify(leaf, intermediates, now));

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &tls::provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
}

/// Cannot be reached, because no configuration of ours has a TLS 1.2 suite; refuses all the same.
fn tls12_refused() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is refused".to_owned())
}

#[cfg(test)]
mod tests;
