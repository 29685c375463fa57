//! The built-in certificate authority of one trust domain.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand;
use corinth_model::{DnsName, SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use x509_parser::extensions::GeneralName;

use crate::bundle::{Bundle, BundleError};
use crate::leaf::{Leaf, LeafError};
use crate::presented;
use crate::request::SigningRequest;

/// Life of a gateway's leaf. It is renewed at half of it, so a cluster outlives its authority by at least 12 hours.
pub const LEAF_LIFETIME: Duration = Duration::from_hours(24);

/// Life of a root made here. Peers pin roots, so a change of root is an operation of its own.
pub const ROOT_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);

/// Certificates are valid from this long before they are made: peers' clocks differ, and verification has no tolerance.
pub(crate) const BACKDATED: Duration = Duration::from_mins(10);

/// The last second an X.509 date can say: 9999-12-31T23:59:59Z.
const DATE_MAX_SECONDS: u64 = 253_402_300_799;

/// The certificate authority of one trust domain: a root certificate and its key (ECDSA P-256 when made here).
pub struct Authority {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
    root_not_after: UnixTime,
}

/// Why the authority cannot be used, or does not issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The library that makes certificates failed.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The certificate is not that of an authority we can trust ourselves.
    #[error(transparent)]
    Root(#[from] BundleError),
    /// The PEM text must hold exactly one certificate.
    #[error("the authority's certificate file holds {0} certificates, it must hold exactly one")]
    CertificateCount(usize),
    /// The PEM text holds no private key we can use.
    #[error("the authority's key file holds no PKCS#8 private key in PEM form")]
    Key,
    /// Key and certificate belong to different authorities.
    #[error("the authority's key is not that of its certificate")]
    KeyMismatch,
    /// The certificate names another trust domain.
    #[error("the authority's certificate is for {found}, but the trust domain is {expected}")]
    OtherTrustDomain {
        /// Trust domain asked for.
        expected: TrustDomain,
        /// URI name in the certificate.
        found: String,
    },
    /// An authority issues only inside its own trust domain.
    #[error("{id} is not in the trust domain {trust_domain} of this authority")]
    Foreign {
        /// Identity asked for.
        id: Box<SpiffeId>,
        /// What this authority may issue.
        trust_domain: TrustDomain,
    },
    /// The root has expired, so a leaf under it would be worthless.
    #[error(
        "the authority's root certificate expired at {} (Unix seconds); it must be replaced and linked anew",
        .0.as_secs()
    )]
    RootExpired(UnixTime),
    /// The certificate just made would be refused by peers.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
}

impl Authority {
    /// Makes a new authority with a fresh key, valid from 10 minutes before `now` for [`ROOT_LIFETIME`].
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn create(trust_domain: TrustDomain, now: UnixTime) -> Result<Self, AuthorityError> {
        Self::with_key(
            trust_domain,
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            now,
        )
    }

    /// Makes a new root certificate for a key that exists. Leaves under an earlier root of the same key and trust domain
    /// verify with the new one and the other way round: a path ends at subject and key, not at a certificate's bytes.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn from_key_pem(
        trust_domain: TrustDomain,
        key_pem: &str,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        Self::with_key(trust_domain, read_key(key_pem)?, now)
    }

    /// Takes an authority made earlier, or an imported one: one certificate and its PKCS#8 key, both in PEM form.
    ///
    /// # Errors
    /// Which of the two texts is wrong, and how; or that they are of another trust domain.
    pub fn from_pem(
        trust_domain: TrustDomain,
        certificate_pem: &str,
        key_pem: &str,
    ) -> Result<Self, AuthorityError> {
        let certificates = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
            .filter_map(Result::ok)
            .collect::<Vec<_>>();
        let [root] = &certificates[..] else {
            return Err(AuthorityError::CertificateCount(certificates.len()));
        };
        Self::assemble(
            trust_domain,
            root.clone(),
            certificate_pem.to_owned(),
            read_key(key_pem)?,
        )
    }

    fn with_key(
        trust_domain: TrustDomain,
        key: KeyPair,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, now, after(now, ROOT_LIFETIME));
        params.serial_number = Some(serial()?);
        params.distinguished_name = name("Corinth root");
        // SPIFFE X509-SVID §3: a signing certificate may carry the trust domain's ID, without a path.
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key)?;
        Self::assemble(trust_domain, root.der().clone(), root.pem(), key)
    }

    fn assemble(
        trust_domain: TrustDomain,
        root: CertificateDer<'static>,
        root_pem: String,
        key: KeyPair,
    ) -> Result<Self, AuthorityError> {
        // Whatever peers would refuse as a root is refused here, before anything is issued under it.
        Bundle::new(trust_domain.clone(), vec![root.clone()], 0)?;
        let malformed = || BundleError::Malformed {
            trust_domain: trust_domain.clone(),
            position: 1,
        };
        let certificate = presented::parse(&root).map_err(|_| malformed())?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::KeyMismatch);
        }
        let expected = format!("spiffe://{trust_domain}");
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| malformed())?;
        for name in names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            if let GeneralName::URI(found) = name
                && *found != expected
            {
                let found = found.escape_debug().to_string();
                return Err(AuthorityError::OtherTrustDomain {
                    expected: trust_domain,
                    found,
                });
            }
        }
        let root_not_after = presented::unix_time(certificate.validity().not_after.timestamp());
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        Ok(Self {
            trust_domain,
            issuer,
            root,
            root_pem,
            root_not_after,
        })
    }

    /// The trust domain it issues for.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root certificate in DER form.
    #[must_use]
    pub const fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// What peers need to verify what this authority issues.
    #[must_use]
    pub fn bundle(&self, sequence: u64) -> Bundle {
        Bundle::new(self.trust_domain.clone(), vec![self.root.clone()], sequence)
            .expect("the root was accepted as a bundle when this authority was assembled")
    }

    /// The root certificate in PEM form.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.root_pem
    }

    /// The private key in PEM form (PKCS#8). Secret: for the state directory and nothing else.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a leaf with a fresh P-256 key: `id` as its only URI name, `dns_names` beside it, valid from 10 minutes
    /// before `now` until `lifetime` after it, or until the root ends.
    ///
    /// # Errors
    /// An identity outside the trust domain, or a root that has expired.
    pub fn issue(
        &self,
        id: &SpiffeId,
        dns_names: &[DnsName],
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Leaf, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = self.sign(&key, id, dns_names, now, lifetime)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Leaf::new(vec![certificate], key)?)
    }

    /// Issues a certificate for the key of a signing request. Who it is for is decided by whoever authenticated the
    /// request; the other terms are those of [`issue`](Self::issue).
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn issue_for_request(
        &self,
        request: &SigningRequest,
        id: &SpiffeId,
        dns_names: &[DnsName],
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let certificate = self.sign(request.key(), id, dns_names, now, lifetime)?;
        Ok(vec![certificate])
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        id: &SpiffeId,
        dns_names: &[DnsName],
        now: UnixTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        if *id.trust_domain() != self.trust_domain {
            let trust_domain = self.trust_domain.clone();
            return Err(AuthorityError::Foreign {
                id: Box::new(id.clone()),
                trust_domain,
            });
        }
        if now > self.root_not_after {
            return Err(AuthorityError::RootExpired(self.root_not_after));
        }
        let mut params = CertificateParams::default();
        set_validity(
            &mut params,
            now,
            after(now, lifetime).min(self.root_not_after),
        );
        params.serial_number = Some(serial()?);
        params.distinguished_name = name("Corinth leaf");
        params.subject_alt_names = vec![uri(&id.to_string())?];
        for name in dns_names {
            params
                .subject_alt_names
                .push(SanType::DnsName(name.to_string().try_into()?));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

impl fmt::Debug for Authority {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("root_not_after", &self.root_not_after.as_secs())
            .finish_non_exhaustive()
    }
}

fn read_key(pem: &str) -> Result<KeyPair, AuthorityError> {
    // The cause is dropped: it could quote the key.
    KeyPair::from_pem(pem).map_err(|_| AuthorityError::Key)
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Corinth");
    name.push(DnType::CommonName, common_name);
    name
}

fn uri(text: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(text.try_into()?))
}

/// 16 random bytes, positive (RFC 5280 §4.1.2.2: at most 20, unique per issuer).
fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn after(time: UnixTime, span: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(
        time.as_secs().saturating_add(span.as_secs()),
    ))
}

/// From [`BACKDATED`] before `now` until `end`, in whole seconds.
fn set_validity(params: &mut CertificateParams, now: UnixTime, end: UnixTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let date = |seconds: u64| epoch + Duration::from_secs(seconds.min(DATE_MAX_SECONDS));
    params.not_before = date(now.as_secs().saturating_sub(BACKDATED.as_secs()));
    params.not_after = date(end.as_secs());
}

#[cfg(test)]
mod tests;
