//! Crafted certificates, each shown in a real handshake to the end it would attack.

use std::sync::Arc;

use corinth_model::Failure;
use rcgen::SanType;
use rustls::{ClientConfig, ServerConfig};

use super::*;
use crate::testing::*;

mod form;
mod trust;

/// Two linked clusters, a third linked with both, and what each trusts.
struct World {
    a: Forge,
    b: Forge,
    c: Forge,
    stranger: Forge,
    bundles: SharedBundles,
    denials: Denials,
    clock: Arc<Clock>,
}

impl World {
    fn new() -> Self {
        let [a, b, c, stranger] = [A, B, C, STRANGER].map(Forge::root);
        let bundles = bundles(&[
            (A, a.certificate()),
            (B, b.certificate()),
            (C, c.certificate()),
        ]);
        Self {
            a,
            b,
            c,
            stranger,
            bundles,
            denials: Denials::default(),
            clock: Clock::new(NOW),
        }
    }

    /// The dialer of the link to A, showing `presented`.
    fn dialer(&self, presented: &Presented) -> ClientConfig {
        let verifier =
            GatewayVerifier::dialer(self.bundles.clone(), self.denials.clone(), domain(A));
        let clock = Arc::clone(&self.clock);
        tls::client_config(
            Arc::new(verifier),
            presented.resolver(),
            &[tls::TUNNEL_ALPN],
            clock,
        )
    }

    /// A's listener, showing `presented`.
    fn listener(&self, presented: &Presented) -> ServerConfig {
        let verifier =
            GatewayVerifier::listener(self.bundles.clone(), self.denials.clone(), domain(A));
        let clock = Arc::clone(&self.clock);
        tls::server_config(
            Arc::new(verifier),
            presented.resolver(),
            &[tls::TUNNEL_ALPN],
            clock,
        )
    }

    fn good_dialer(&self) -> ClientConfig {
        self.dialer(&self.b.leaf(&gateway_uri(B), |_| {}))
    }

    fn good_listener(&self) -> ServerConfig {
        self.listener(&self.a.leaf(&gateway_uri(A), |_| {}))
    }

    /// B's dialer shows `presented` to A's listener.
    fn as_client(&self, presented: &Presented) -> Handshake {
        Handshake::run(self.dialer(presented), self.good_listener())
    }

    /// A's listener shows `presented` to B's dialer.
    fn as_server(&self, presented: &Presented) -> Handshake {
        Handshake::run(self.good_dialer(), self.listener(presented))
    }
}

/// The listener refused, with this failure and a text with these words; nothing was delivered.
#[track_caller]
fn assert_client_refused(case: &str, mut handshake: Handshake, failure: Failure, words: &str) {
    let error = handshake
        .server_error
        .as_ref()
        .unwrap_or_else(|| panic!("{case}: accepted"));
    assert_refusal(case, error, failure, words);
    assert!(handshake.heard().is_empty(), "{case}: bytes were delivered");
}

/// The dialer refused, with this failure and a text with these words.
#[track_caller]
fn assert_server_refused(case: &str, handshake: &Handshake, failure: Failure, words: &str) {
    let error = handshake
        .client_error
        .as_ref()
        .unwrap_or_else(|| panic!("{case}: accepted"));
    assert_refusal(case, error, failure, words);
    assert!(
        handshake.server.is_handshaking(),
        "{case}: the server thinks it was accepted"
    );
}

#[track_caller]
fn assert_refusal(case: &str, error: &rustls::Error, failure: Failure, words: &str) {
    assert_eq!(refusal_of(error), Some(failure), "{case}: {error}");
    let text = describe(error);
    assert!(
        text.contains(words),
        "{case}: {text:?} does not say {words:?}"
    );
}

#[test]
fn linked_gateways_meet() {
    let world = World::new();
    let mut handshake = Handshake::run(world.good_dialer(), world.good_listener());
    assert!(handshake.is_established());
    assert_eq!(handshake.heard(), FIRST_WORDS);
    let peer = presented::peer_gateway(handshake.server.peer_certificates().unwrap()).unwrap();
    assert_eq!(peer.gateway.spiffe_id(), gateway(B));
    assert_eq!(peer.not_after, at(NOW + 86_400));
    let peer = presented::peer_gateway(handshake.client.peer_certificates().unwrap()).unwrap();
    assert_eq!(peer.gateway.spiffe_id(), gateway(A));
}

fn dns_name(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}
