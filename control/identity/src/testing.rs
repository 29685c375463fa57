//! Fixtures: an authority that signs whatever a test asks for, and handshakes run in memory.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corinth_model::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use crate::bundle::{Bundle, BundleSet, SharedBundles};
use crate::tls;

/// The time at which tests take place, in Unix seconds.
pub(crate) const NOW: u64 = 1_900_000_000;

/// The listener's domain, the dialer's, a third linked one, and one nobody is linked with.
pub(crate) const A: &str = "a.test";
pub(crate) const B: &str = "b.test";
pub(crate) const C: &str = "c.test";
pub(crate) const STRANGER: &str = "stranger.test";

/// What every client says first.
pub(crate) const FIRST_WORDS: &[u8] = b"first words";

/// OIDs of the extensions tests write by hand.
pub(crate) const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
pub(crate) const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
pub(crate) const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn domain(text: &str) -> TrustDomain {
    TrustDomain::parse(text).unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

/// The identity of the gateway in slot 0 of a trust domain.
pub(crate) fn gateway(trust_domain: &str) -> SpiffeId {
    id(&gateway_uri(trust_domain))
}

pub(crate) fn gateway_uri(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/corinth/gateway/0")
}

/// A clock that stands still until it is set.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn new(seconds: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seconds)))
    }

    pub(crate) fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(at(self.0.load(Ordering::Relaxed)))
    }
}

/// An authority that signs whatever it is asked to.
pub(crate) struct Forge {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// What leaves must be presented with: this authority and those above it, without the root.
    above: Vec<CertificateDer<'static>>,
}

impl Forge {
    pub(crate) fn root(trust_domain: &str) -> Self {
        let (params, key) = (
            ca_params(&format!("root of {trust_domain}")),
            KeyPair::generate().unwrap(),
        );
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            above: Vec::new(),
        }
    }

    pub(crate) fn intermediate(
        &self,
        name: &str,
        tweak: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let (mut params, key) = (ca_params(name), KeyPair::generate().unwrap());
        tweak(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let above = std::iter::once(certificate.clone())
            .chain(self.above.iter().cloned())
            .collect();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            above,
        }
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A good leaf for `uri`, valid from 10 minutes before [`NOW`] for 24 hours, changed by `tweak`.
    pub(crate) fn leaf(&self, uri: &str, tweak: impl FnOnce(&mut CertificateParams)) -> Presented {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        set_validity(&mut params, NOW - 600, NOW + 86_400);
        params.subject_alt_names = vec![uri_name(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        tweak(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let chain = std::iter::once(leaf)
            .chain(self.above.iter().cloned())
            .collect();
        Presented {
            chain,
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    set_validity(&mut params, NOW - 86_400, NOW + 10 * 86_400);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn set_validity(params: &mut CertificateParams, from: u64, to: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(to);
}

pub(crate) fn uri_name(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// A subject alternative name extension with these URIs, whatever their bytes.
pub(crate) fn raw_uri_names(uris: &[&[u8]]) -> CustomExtension {
    let names: Vec<u8> = uris.iter().flat_map(|uri| der(0x86, uri)).collect();
    CustomExtension::from_oid_content(SUBJECT_ALT_NAME, der(0x30, &names))
}

/// One DER value with a definite length.
pub(crate) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xff => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

/// A chain and a key, shown in every handshake whatever they are.
#[derive(Debug)]
pub(crate) struct Presented {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Presented {
    /// For a configuration. Key and certificate need not fit.
    pub(crate) fn resolver(&self) -> Arc<Shown> {
        let key = tls::provider()
            .key_provider
            .load_private_key(self.key.clone_key())
            .unwrap();
        Arc::new(Shown(Arc::new(CertifiedKey::new(self.chain.clone(), key))))
    }
}

#[derive(Debug)]
pub(crate) struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Bundles of these trust domains with these roots.
pub(crate) fn bundles(roots: &[(&str, &CertificateDer<'static>)]) -> SharedBundles {
    let mut set = BundleSet::new();
    for (trust_domain, root) in roots {
        set.insert(Bundle::new(domain(trust_domain), vec![(*root).clone()], 1).unwrap())
            .unwrap();
    }
    SharedBundles::new(set)
}

/// Both ends of a connection after as much of a handshake as they would do.
pub(crate) struct Handshake {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
    pub(crate) client_error: Option<rustls::Error>,
    pub(crate) server_error: Option<rustls::Error>,
}

impl Handshake {
    /// Runs a handshake in memory until neither end has anything more to say. The client sends [`FIRST_WORDS`] as early
    /// as TLS lets it, so they arrive together with its certificate.
    pub(crate) fn run(client: ClientConfig, server: ServerConfig) -> Self {
        Self::run_to("gateway.invalid", client, server)
    }

    /// As [`run`](Self::run), with the host the client asks for.
    pub(crate) fn run_to(host: &'static str, client: ClientConfig, server: ServerConfig) -> Self {
        let name = ServerName::try_from(host).unwrap();
        let mut handshake = Self {
            client: ClientConnection::new(Arc::new(client), name).unwrap(),
            server: ServerConnection::new(Arc::new(server)).unwrap(),
            client_error: None,
            server_error: None,
        };
        handshake.client.writer().write_all(FIRST_WORDS).unwrap();
        handshake.pump();
        handshake
    }

    /// Moves bytes until both ends are quiet. An end that failed sends its alert and hears no more.
    pub(crate) fn pump(&mut self) {
        loop {
            let to_server = sent(|out| self.client.write_tls(out));
            let to_client = sent(|out| self.server.write_tls(out));
            if to_server.is_empty() && to_client.is_empty() {
                return;
            }
            if self.server_error.is_none() {
                let fed = feed(&to_server, |bytes| self.server.read_tls(bytes));
                self.server_error = fed.and_then(|()| self.server.process_new_packets()).err();
            }
            if self.client_error.is_none() {
                let fed = feed(&to_client, |bytes| self.client.read_tls(bytes));
                self.client_error = fed.and_then(|()| self.client.process_new_packets()).err();
            }
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        let errors = self.client_error.is_some() || self.server_error.is_some();
        !errors && !self.client.is_handshaking() && !self.server.is_handshaking()
    }

    /// What the server's application got since it was last asked.
    pub(crate) fn heard(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        // "Would block" ends what has arrived.
        let _ = self.server.reader().read_to_end(&mut heard);
        heard
    }

    /// Sends `text` from the client and returns what the server's application gets.
    pub(crate) fn say(&mut self, text: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(text).unwrap();
        self.pump();
        self.heard()
    }
}

fn sent(mut write: impl FnMut(&mut Vec<u8>) -> std::io::Result<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    while write(&mut out).unwrap() > 0 {}
    out
}

fn feed(
    mut bytes: &[u8],
    mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>,
) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        read(&mut bytes).map_err(|error| rustls::Error::General(error.to_string()))?;
    }
    Ok(())
}

/// PEM text of a certificate (RFC 7468).
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in certificate.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}
