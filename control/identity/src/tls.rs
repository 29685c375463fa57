//! rustls configurations, built by hand so that nothing is left to a default.
//!
//! TLS 1.3 only; aws-lc-rs; X25519MLKEM768 first, AES-128-GCM first; no resumption and no early data, because a resumed
//! session never meets the verifier again. Secret extraction is on in the tunnel's two configurations alone, where the
//! record path takes the keys over.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use corinth_model::{SpiffeId, TrustDomain};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::bundle::SharedBundles;
use crate::denials::Denials;
use crate::own::OwnIdentity;
use crate::verify::{CallerVerifier, GatewayVerifier};

/// ALPN of a tunnel between gateways.
pub const TUNNEL_ALPN: &[u8] = b"corinth/1";

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
        ],
        ..default_provider()
    })
});

/// The one set of algorithms, for every TLS and QUIC connection.
#[must_use]
pub fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}

/// What dials a tunnel: shows `own`, accepts gateways of exactly `expected`, offers [`TUNNEL_ALPN`], sends no server
/// name. The caller still checks after the handshake that the ALPN was agreed (rustls lets a silent server pass).
#[must_use]
pub fn tunnel_client_config(
    own: Arc<OwnIdentity>,
    bundles: SharedBundles,
    denials: Denials,
    expected: &TrustDomain,
    clock: Arc<dyn TimeProvider>,
) -> ClientConfig {
    let verifier = Arc::new(GatewayVerifier::dialer(bundles, denials, expected.clone()));
    let mut config = client_config(verifier, own, &[TUNNEL_ALPN], clock);
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    config
}

/// What accepts tunnels: shows `own`, demands a certificate, accepts gateways of every trust domain in `bundles` except
/// our own. The caller still checks after the handshake that the ALPN was agreed (rustls lets a silent client pass).
#[must_use]
pub fn tunnel_server_config(
    own: Arc<OwnIdentity>,
    bundles: SharedBundles,
    denials: Denials,
    clock: Arc<dyn TimeProvider>,
) -> ServerConfig {
    let verifier = Arc::new(GatewayVerifier::listener(
        bundles,
        denials,
        own.id().trust_domain().clone(),
    ));
    let mut config = server_config(verifier, own, &[TUNNEL_ALPN], clock);
    config.enable_secret_extraction = true;
    config
}

/// What ends mutual TLS of direct clients on a *terminate* route: shows `own` (issued for the route's DNS names), demands
/// a certificate, accepts exactly `callers`, of any role. ALPN is the application's; none is offered here.
#[must_use]
pub fn terminate_server_config(
    own: Arc<OwnIdentity>,
    callers: BTreeSet<SpiffeId>,
    bundles: SharedBundles,
    denials: Denials,
    clock: Arc<dyn TimeProvider>,
) -> ServerConfig {
    server_config(
        Arc::new(CallerVerifier::new(bundles, denials, callers)),
        own,
        &[],
        clock,
    )
}

/// A hardened client configuration around a verifier, a certificate and a list of ALPN names.
#[must_use]
pub fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    own: Arc<dyn ResolvesClientCert>,
    alpn: &[&[u8]],
    clock: Arc<dyn TimeProvider>,
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_details(Arc::clone(provider()), clock)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites and groups of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(own);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// A hardened server configuration around a verifier, a certificate and a list of ALPN names.
#[must_use]
pub fn server_config(
    verifier: Arc<dyn ClientCertVerifier>,
    own: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
    clock: Arc<dyn TimeProvider>,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_details(Arc::clone(provider()), clock)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has suites and groups of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config
}

/// What must hold of every configuration before it is used, and why it would be unsafe otherwise.
pub trait Hardened {
    /// The first rule that is broken, if any.
    fn broken_rule(&self) -> Option<&'static str>;
}

impl Hardened for ServerConfig {
    fn broken_rule(&self) -> Option<&'static str> {
        first_broken(&[
            (
                is_ours(self.crypto_provider()),
                "algorithms are not those of corinth_identity::tls::provider",
            ),
            (
                self.max_early_data_size == 0,
                "early data is accepted; it can be replayed",
            ),
            (
                self.send_tls13_tickets == 0,
                "tickets are sent; a resumed session skips the verifier",
            ),
            (
                self.max_tls13_tickets == 0,
                "tickets are sent on request; a resumed session skips the verifier",
            ),
            (
                !self.session_storage.can_cache(),
                "sessions are stored; a resumed session skips the verifier",
            ),
            (
                !self.ticketer.enabled(),
                "a ticketer is set; a resumed session skips the verifier",
            ),
            (
                !self.send_half_rtt_data,
                "data is sent before the client is verified",
            ),
            (
                !self.key_log.will_log("CLIENT_TRAFFIC_SECRET_0"),
                "secrets are logged",
            ),
        ])
    }
}

impl Hardened for ClientConfig {
    fn broken_rule(&self) -> Option<&'static str> {
        // The store is private to rustls; its name in the debug form is the only way to see which it is.
        let stores_sessions = !format!("{:?}", self.resumption).contains("NoClientSessionStorage");
        first_broken(&[
            (
                is_ours(self.crypto_provider()),
                "algorithms are not those of corinth_identity::tls::provider",
            ),
            (
                !self.enable_early_data,
                "early data is sent; it can be replayed",
            ),
            (
                !stores_sessions,
                "sessions are stored; a resumed session skips the verifier",
            ),
            (
                !self.key_log.will_log("CLIENT_TRAFFIC_SECRET_0"),
                "secrets are logged",
            ),
        ])
    }
}

/// Stops the process if a configuration is not hardened: better no gateway than one that can be replayed.
///
/// # Panics
/// With the broken rule.
pub fn assert_hardened(config: &impl Hardened) {
    if let Some(rule) = config.broken_rule() {
        panic!("unsafe TLS configuration: {rule}");
    }
}

fn is_ours(found: &Arc<CryptoProvider>) -> bool {
    Arc::ptr_eq(found, provider())
}

fn first_broken(rules: &[(bool, &'static str)]) -> Option<&'static str> {
    rules
        .iter()
        .find(|(holds, _)| !holds)
        .map(|(_, rule)| *rule)
}

#[cfg(test)]
mod tests;
