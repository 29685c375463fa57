//! Why a presented certificate was not accepted.

use corinth_model::{Failure, SpiffeId, TrustDomain};
use rustls::{AlertDescription, CertificateError, OtherError};
use rustls_pki_types::UnixTime;

/// Why a presented certificate was not accepted. The text is for our own log; the other side only sees a TLS alert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a version 3 X.509 certificate, or an extension in it cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Malformed(&'static str),
    /// A SPIFFE certificate has exactly one URI name (X509-SVID §2).
    #[error("the certificate has {0} URI names; a SPIFFE certificate has exactly one")]
    UriNames(usize),
    /// The URI name is no SPIFFE ID.
    #[error("the URI name of the certificate is no SPIFFE ID: {0}")]
    SpiffeId(String),
    /// The leaf says cA=true: a signing certificate never authenticates (X509-SVID §5.2).
    #[error(
        "the leaf is a certificate authority (cA=true), which must not be used to authenticate"
    )]
    LeafIsAuthority,
    /// The leaf may sign certificates or revocation lists (X509-SVID §5.2).
    #[error("the leaf has key usage {0}, which only an authority may have")]
    LeafMaySign(&'static str),
    /// The leaf lacks a critical key usage with digitalSignature (X509-SVID §4.3).
    #[error("the leaf has no critical key usage with digitalSignature")]
    LeafMayNotAuthenticate,
    /// The extended key usage does not allow this side of a connection.
    #[error("the extended key usage of the certificate does not allow {0}")]
    WrongPurpose(&'static str),
    /// More certificates than [`CHAIN_MAX_CERTIFICATES`](crate::CHAIN_MAX_CERTIFICATES).
    #[error("the chain has {0} certificates, more than the {max} accepted", max = crate::CHAIN_MAX_CERTIFICATES)]
    ChainTooLong(usize),
    /// We hold no bundle for the trust domain the certificate claims.
    #[error("the certificate claims the trust domain {0}, which is not linked")]
    UnknownTrustDomain(TrustDomain),
    /// A certificate on the way to the root has URI name constraints, which the TLS library refuses unconditionally.
    #[error(
        "the authority {issuer:?} has URI name constraints, and chains under such an authority are always refused; \
         issue from an authority without them, the trust domain is checked anyway"
    )]
    UriNameConstraint {
        /// Subject of that authority, as presented.
        issuer: String,
    },
    /// An intermediate lacks the right to sign certificates.
    #[error("a certificate on the way to the root has no key usage keyCertSign")]
    IssuerMayNotSign,
    /// `notAfter` has passed.
    #[error("the certificate expired at {} (Unix seconds), now is {}", not_after.as_secs(), now.as_secs())]
    Expired {
        /// Our time.
        now: UnixTime,
        /// End of the certificate's life.
        not_after: UnixTime,
    },
    /// `notBefore` has not come.
    #[error(
        "the certificate is valid from {} (Unix seconds), now is {}; do the clocks agree?",
        not_before.as_secs(), now.as_secs()
    )]
    NotYetValid {
        /// Our time.
        now: UnixTime,
        /// Start of the certificate's life.
        not_before: UnixTime,
    },
    /// No path of valid signatures leads to a root of the bundle of its own trust domain.
    #[error("the certificate of {id} does not verify with the bundle of its trust domain: {why}")]
    Chain {
        /// Identity it claims.
        id: Box<SpiffeId>,
        /// What the path building said.
        why: String,
    },
    /// The identity was denied by the operator.
    #[error("the identity {0} is denied")]
    Denied(Box<SpiffeId>),
    /// A valid certificate, but not a gateway's.
    #[error("{0} is not a gateway identity")]
    WrongRole(Box<SpiffeId>),
    /// The certificate is of another trust domain than that of the link dialled.
    #[error(
        "expected a gateway of {expected}, got {presented}; does the link's address lead to another cluster?"
    )]
    WrongPeer {
        /// Trust domain of the link.
        expected: TrustDomain,
        /// Identity presented.
        presented: Box<SpiffeId>,
    },
    /// The certificate is of our own trust domain: a link to ourselves.
    #[error("{0} is of our own trust domain; is a link pointing at ourselves?")]
    OwnTrustDomain(Box<SpiffeId>),
    /// A valid caller that is not on the list of the route.
    #[error("{0} is not among the callers this route accepts")]
    CallerNotListed(Box<SpiffeId>),
    /// No certificate of the chain has a key that the token pins.
    #[error("no root that the token pins was shown; does something on the way end TLS?")]
    NotPinned,
    /// A valid certificate, but not a control plane's.
    #[error("{0} is not a control plane's identity")]
    NotControl(Box<SpiffeId>),
}

impl VerifyError {
    /// The reason under which logs, metrics and the CLI show this.
    #[must_use]
    pub const fn failure(&self) -> Failure {
        match self {
            Self::Expired { .. } | Self::NotYetValid { .. } => Failure::CertificateExpired,
            Self::WrongRole(_) | Self::NotControl(_) => Failure::WrongRole,
            Self::WrongPeer { .. } | Self::OwnTrustDomain(_) => Failure::WrongPeer,
            Self::Malformed(_)
            | Self::UriNames(_)
            | Self::SpiffeId(_)
            | Self::LeafIsAuthority
            | Self::LeafMaySign(_)
            | Self::LeafMayNotAuthenticate
            | Self::WrongPurpose(_)
            | Self::ChainTooLong(_)
            | Self::UnknownTrustDomain(_)
            | Self::UriNameConstraint { .. }
            | Self::IssuerMayNotSign
            | Self::Chain { .. }
            | Self::Denied(_)
            | Self::CallerNotListed(_)
            | Self::NotPinned => Failure::Untrusted,
        }
    }

    /// As rustls wants it. Out-of-date certificates keep rustls' own form, so that the other side gets the alert
    /// `certificate_expired` and its operator knows what to do; all else is `certificate_unknown`, which tells nothing.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other side learns nothing of all the rest"
    )]
    pub(super) fn into_rustls(self) -> rustls::Error {
        let error = match self {
            Self::Expired { now, not_after } => CertificateError::ExpiredContext {
                time: now,
                not_after,
            },
            Self::NotYetValid { now, not_before } => CertificateError::NotValidYetContext {
                time: now,
                not_before,
            },
            other => CertificateError::Other(OtherError(std::sync::Arc::new(other))),
        };
        rustls::Error::InvalidCertificate(error)
    }
}

/// What a TLS error says about identity, if it says anything: our verifier's refusal of the other side, a bad
/// signature, or the alert with which the other side refused us. `None` means the handshake failed for another cause.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other errors are about something else"
)]
#[must_use]
pub fn refusal_of(error: &rustls::Error) -> Option<Failure> {
    match error {
        rustls::Error::InvalidCertificate(error) => Some(failure_of_certificate(error)),
        rustls::Error::NoCertificatesPresented => Some(Failure::Untrusted),
        rustls::Error::NoApplicationProtocol => Some(Failure::AlpnRefused),
        rustls::Error::AlertReceived(alert) => failure_of_alert(*alert),
        _ => None,
    }
}

/// A TLS error in words for our own log: what our verifier found, or what rustls says.
#[must_use]
pub fn describe(error: &rustls::Error) -> String {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error
        && let Some(refusal) = inner.downcast_ref::<VerifyError>()
    {
        return refusal.to_string();
    }
    if let rustls::Error::AlertReceived(alert) = error
        && failure_of_alert(*alert).is_some()
    {
        return format!(
            "the other side refused our certificate or protocol: {alert:?}; its log says why"
        );
    }
    error.to_string()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other refusal of a certificate means the same to us"
)]
fn failure_of_certificate(error: &CertificateError) -> Failure {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Failure::CertificateExpired,
        CertificateError::Other(OtherError(inner)) => inner
            .downcast_ref::<VerifyError>()
            .map_or(Failure::Untrusted, VerifyError::failure),
        _ => Failure::Untrusted,
    }
}

/// RFC 8446 §6.2: the alerts that concern our certificate.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other alerts are about something else"
)]
fn failure_of_alert(alert: AlertDescription) -> Option<Failure> {
    match alert {
        AlertDescription::CertificateExpired => Some(Failure::CertificateExpired),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::CertificateRequired => Some(Failure::Untrusted),
        AlertDescription::NoApplicationProtocol => Some(Failure::AlpnRefused),
        _ => None,
    }
}
