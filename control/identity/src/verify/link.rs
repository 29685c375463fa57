//! Decides whether a presented certificate is that of the inviter whose token we hold.

use std::collections::BTreeSet;

use corinth_model::{Role, SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    PathError, Side, VerifyError, explain, read_chain, tls12_refused, verify_path, verify_signature,
};
use crate::bundle::Bundle;
use crate::link::root_pin;
use crate::tls;

/// Accepts the control plane of one trust domain, under a root that is known by the SHA-256 of its key alone. The root
/// must be shown, because nothing else of it is known.
#[derive(Debug)]
pub struct LinkVerifier {
    pins: BTreeSet<[u8; 32]>,
    trust_domain: TrustDomain,
}

impl LinkVerifier {
    /// Accepts control planes of `trust_domain` under a root with one of these pins.
    #[must_use]
    pub const fn new(pins: BTreeSet<[u8; 32]>, trust_domain: TrustDomain) -> Self {
        Self { pins, trust_domain }
    }

    /// Runs every step for a chain presented by a server, at `now`: form, trust domain, pin, signatures with each
    /// pinned certificate alone, role.
    ///
    /// # Errors
    /// The first step that failed.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SpiffeId, VerifyError> {
        let id = read_chain(leaf, shown)?.id;
        if *id.trust_domain() != self.trust_domain {
            return Err(VerifyError::WrongPeer {
                expected: self.trust_domain.clone(),
                presented: Box::new(id),
            });
        }
        let mut outcome = Err(VerifyError::NotPinned);
        for root in shown.iter().filter(|shown| self.is_pinned(shown)) {
            outcome = self.verify_under(root, leaf, shown, &id, now);
            if outcome.is_ok() {
                break;
            }
        }
        outcome?;
        match id.role() {
            Role::Control(_) => Ok(id),
            Role::Gateway(_) | Role::Redirect(_) | Role::Other => {
                Err(VerifyError::NotControl(Box::new(id)))
            }
        }
    }

    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        root_pin(certificate).is_some_and(|pin| self.pins.contains(&pin))
    }

    fn verify_under(
        &self,
        root: &CertificateDer<'_>,
        leaf: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        id: &SpiffeId,
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let root = root.clone().into_owned();
        let bundle = Bundle::new(self.trust_domain.clone(), vec![root], 0)
            .map_err(|_| VerifyError::Malformed("the pinned root"))?;
        match verify_path(leaf, shown, &bundle, Side::Server, now) {
            Ok(()) => Ok(()),
            Err(PathError::Issuer(error)) => Err(error),
            Err(PathError::Webpki(error)) => Err(explain(&error, id.clone(), shown, Side::Server)),
        }
    }
}

impl ServerCertVerifier for LinkVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The identity is the SPIFFE ID, not a DNS name.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, now)
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
