//! Reads what a presented certificate says about itself. Nothing read here is proven until the chain verifies.

use corinth_model::{Failure, GatewayId, SpiffeId};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use crate::verify::VerifyError;

/// Longest part of a foreign certificate's subject that is repeated in an error, in characters.
const SUBJECT_SHOWN_MAX: usize = 128;

/// Who the verified peer of a tunnel is, and until when its leaf is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLeaf {
    /// The gateway at the other end.
    pub gateway: GatewayId,
    /// Last second of its leaf; afterwards no new stream opens on the connection.
    pub not_after: UnixTime,
}

/// Who the verified peer of a connection is, whatever its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The identity at the other end.
    pub id: SpiffeId,
    /// Last second of its leaf.
    pub not_after: UnixTime,
}

/// Reads the gateway out of the chain (leaf first) which rustls reports after a handshake. Only meaningful when one of
/// this crate's verifiers has accepted that chain.
///
/// # Errors
/// [`Failure::Untrusted`] for an empty or unreadable chain, [`Failure::WrongRole`] for anyone but a gateway.
pub fn peer_gateway(certificates: &[CertificateDer<'_>]) -> Result<PeerLeaf, Failure> {
    let PeerIdentity { id, not_after } = peer_identity(certificates)?;
    let gateway = GatewayId::try_from(&id).map_err(|_| Failure::WrongRole)?;
    Ok(PeerLeaf { gateway, not_after })
}

/// As [`peer_gateway`], for peers of any role (callers of a *terminate* route).
///
/// # Errors
/// [`Failure::Untrusted`] for an empty or unreadable chain.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Result<PeerIdentity, Failure> {
    let leaf = certificates.first().ok_or(Failure::Untrusted)?;
    let facts = read_leaf(leaf).map_err(|error| error.failure())?;
    Ok(PeerIdentity {
        id: facts.id,
        not_after: facts.not_after,
    })
}

/// What a well-formed leaf says.
#[derive(Debug)]
pub(crate) struct LeafFacts {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
}

/// Reads a leaf and checks its form: one URI name, which is a SPIFFE ID with a path; not an authority; key usage that
/// allows to authenticate and nothing else that matters (X509-SVID §2–§5).
pub(crate) fn read_leaf(der: &CertificateDer<'_>) -> Result<LeafFacts, VerifyError> {
    let certificate = parse(der)?;
    refuse_authority(&certificate)?;
    check_key_usage(&certificate)?;
    let id = SpiffeId::parse(only_uri(&certificate)?)
        .map_err(|error| VerifyError::SpiffeId(error.to_string()))?;
    let validity = certificate.validity();
    Ok(LeafFacts {
        id,
        not_before: unix_time(validity.not_before.timestamp()),
        not_after: unix_time(validity.not_after.timestamp()),
    })
}

/// Parses a version 3 certificate that fills `der` exactly.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, VerifyError> {
    let Ok((rest, certificate)) = X509Certificate::from_der(der.as_ref()) else {
        return Err(VerifyError::Malformed("not X.509"));
    };
    if !rest.is_empty() {
        return Err(VerifyError::Malformed("trailing bytes"));
    }
    if certificate.version() != X509Version::V3 {
        return Err(VerifyError::Malformed("not version 3"));
    }
    Ok(certificate)
}

/// Is this a certificate of an authority, and may it sign certificates?
pub(crate) fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    let constraints = certificate.basic_constraints();
    constraints.is_ok_and(|found| found.is_some_and(|extension| extension.value.ca))
        && may_sign(certificate)
}

/// May this issuer sign certificates? An authority without key usage may (RFC 5280 §4.2.1.3).
pub(crate) fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    certificate
        .key_usage()
        .is_ok_and(|found| found.is_none_or(|extension| extension.value.key_cert_sign()))
}

/// The subject of an issuer that has URI name constraints, escaped and shortened for an error text.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "constraints on other kinds of names are for webpki"
)]
pub(crate) fn uri_constrained(certificate: &X509Certificate<'_>) -> Option<String> {
    let constraints = certificate.name_constraints().ok().flatten()?.value;
    let subtrees = constraints
        .permitted_subtrees
        .iter()
        .chain(&constraints.excluded_subtrees)
        .flatten();
    let about_uris = |base: &GeneralName<'_>| match base {
        GeneralName::URI(_) => true,
        // Context tag 6 is the URI, also when its bytes are not ASCII.
        GeneralName::Invalid(tag, _) => tag.0 == 6,
        _ => false,
    };
    subtrees
        .map(|subtree| &subtree.base)
        .any(about_uris)
        .then(|| {
            certificate
                .subject()
                .to_string()
                .chars()
                .take(SUBJECT_SHOWN_MAX)
                .collect()
        })
}

fn refuse_authority(certificate: &X509Certificate<'_>) -> Result<(), VerifyError> {
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| VerifyError::Malformed("basic constraints"))?;
    if constraints.is_some_and(|extension| extension.value.ca) {
        return Err(VerifyError::LeafIsAuthority);
    }
    Ok(())
}

fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), VerifyError> {
    let usage = certificate
        .key_usage()
        .map_err(|_| VerifyError::Malformed("key usage"))?;
    let usage = usage.ok_or(VerifyError::LeafMayNotAuthenticate)?;
    if usage.value.key_cert_sign() {
        return Err(VerifyError::LeafMaySign("keyCertSign"));
    }
    if usage.value.crl_sign() {
        return Err(VerifyError::LeafMaySign("cRLSign"));
    }
    if !usage.critical || !usage.value.digital_signature() {
        return Err(VerifyError::LeafMayNotAuthenticate);
    }
    Ok(())
}

/// The only URI among the subject alternative names. A name that cannot be read could be anything, also a second URI.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "names of other kinds do not matter"
)]
fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, VerifyError> {
    const UNREADABLE: VerifyError = VerifyError::Malformed("subject alternative names");
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| UNREADABLE)?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let mut uris = Vec::new();
    for name in names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(..) => return Err(UNREADABLE),
            _ => {}
        }
    }
    match uris[..] {
        [uri] => Ok(uri),
        _ => Err(VerifyError::UriNames(uris.len())),
    }
}

/// Times before 1970 count as 1970.
pub(crate) fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(seconds).unwrap_or(0),
    ))
}

/// The last second of a certificate in DER form, Unix; `None` if it is none.
#[must_use]
pub fn not_after(certificate: &[u8]) -> Option<u64> {
    let certificate = CertificateDer::from(certificate);
    let end = parse(&certificate).ok()?.validity().not_after.timestamp();
    u64::try_from(end).ok()
}
