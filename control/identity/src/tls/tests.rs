//! What the configurations agree on, and what they never do.

use std::sync::Mutex;
use std::time::Duration;

use corinth_model::Failure;
use rustls::server::{Acceptor, ProducesTickets, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion, SignatureScheme};

use super::*;
use crate::authority::{Authority, LEAF_LIFETIME};
use crate::testing::*;
use crate::verify::refusal_of;

/// Two linked clusters with authorities of their own.
struct Pair {
    a: Arc<OwnIdentity>,
    b: Arc<OwnIdentity>,
    bundles: SharedBundles,
    clock: Arc<Clock>,
}

impl Pair {
    fn new() -> Self {
        let [a, b] = [A, B].map(|name| Arc::new(Authority::create(domain(name), at(NOW)).unwrap()));
        let bundles = bundles(&[(A, a.root()), (B, b.root())]);
        let own = |authority: &Arc<Authority>, name: &str| {
            let authority = Arc::clone(authority);
            Arc::new(
                OwnIdentity::issued_by(
                    authority,
                    &gateway(name),
                    Vec::new(),
                    LEAF_LIFETIME,
                    at(NOW),
                )
                .unwrap(),
            )
        };
        Self {
            a: own(&a, A),
            b: own(&b, B),
            bundles,
            clock: Clock::new(NOW),
        }
    }

    fn client(&self) -> ClientConfig {
        let own = Arc::clone(&self.b);
        let clock = Arc::<Clock>::clone(&self.clock);
        tunnel_client_config(
            own,
            self.bundles.clone(),
            Denials::default(),
            &domain(A),
            clock,
        )
    }

    fn server(&self) -> ServerConfig {
        let own = Arc::clone(&self.a);
        let clock = Arc::<Clock>::clone(&self.clock);
        tunnel_server_config(own, self.bundles.clone(), Denials::default(), clock)
    }

    fn terminate(&self) -> ServerConfig {
        let callers = BTreeSet::from([gateway(B)]);
        let clock = Arc::<Clock>::clone(&self.clock);
        terminate_server_config(
            Arc::clone(&self.a),
            callers,
            self.bundles.clone(),
            Denials::default(),
            clock,
        )
    }
}

#[test]
fn every_configuration_is_hardened() {
    let pair = Pair::new();
    assert_hardened(&pair.client());
    assert_hardened(&pair.server());
    assert_hardened(&pair.terminate());
    assert!(pair.client().enable_secret_extraction && pair.server().enable_secret_extraction);
    assert!(
        !pair.terminate().enable_secret_extraction,
        "only tunnels hand their keys over"
    );
}

#[test]
fn each_broken_rule_of_a_server_is_told() {
    #[derive(Debug)]
    struct Ticketer;
    impl ProducesTickets for Ticketer {
        fn enabled(&self) -> bool {
            true
        }
        fn lifetime(&self) -> u32 {
            60
        }
        fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
            None
        }
        fn decrypt(&self, _cipher: &[u8]) -> Option<Vec<u8>> {
            None
        }
    }
    let cases: [(fn(&mut ServerConfig), &str); 6] = [
        (|c| c.max_early_data_size = u32::MAX, "early data"),
        (|c| c.send_tls13_tickets = 1, "tickets are sent"),
        (|c| c.max_tls13_tickets = 1, "on request"),
        (
            |c| c.session_storage = ServerSessionMemoryCache::new(8),
            "sessions are stored",
        ),
        (|c| c.ticketer = Arc::new(Ticketer), "a ticketer"),
        (
            |c| c.send_half_rtt_data = true,
            "before the client is verified",
        ),
    ];
    let pair = Pair::new();
    for (spoil, words) in cases {
        let mut config = pair.server();
        spoil(&mut config);
        let rule = config
            .broken_rule()
            .unwrap_or_else(|| panic!("{words}: not noticed"));
        assert!(rule.contains(words), "{rule:?} does not say {words:?}");
    }
}

#[test]
fn each_broken_rule_of_a_client_is_told() {
    let pair = Pair::new();
    let mut config = pair.client();
    config.resumption = Resumption::in_memory_sessions(8);
    assert!(
        config
            .broken_rule()
            .is_some_and(|rule| rule.contains("sessions are stored"))
    );
    let mut config = pair.client();
    config.enable_early_data = true;
    assert!(
        config
            .broken_rule()
            .is_some_and(|rule| rule.contains("early data"))
    );
    let foreign = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(dialer(&pair)))
        .with_no_client_auth();
    assert!(
        foreign
            .broken_rule()
            .is_some_and(|rule| rule.contains("algorithms"))
    );
}

#[test]
#[should_panic(expected = "unsafe TLS configuration: early data is accepted")]
fn unsafe_configuration_stops_the_process() {
    let mut config = Pair::new().server();
    config.max_early_data_size = 1;
    assert_hardened(&config);
}

#[test]
fn tunnel_agrees_on_the_first_choice_of_everything() {
    let pair = Pair::new();
    let handshake = Handshake::run(pair.client(), pair.server());
    assert!(handshake.is_established());
    let client = &handshake.client;
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(
        client.negotiated_cipher_suite().unwrap().suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256
    );
    assert_eq!(
        client.negotiated_key_exchange_group().unwrap().name(),
        NamedGroup::X25519MLKEM768
    );
    assert_eq!(
        client.handshake_kind(),
        Some(HandshakeKind::Full),
        "no second round for the key share"
    );
    assert_eq!(client.alpn_protocol(), Some(TUNNEL_ALPN));
    assert_eq!(handshake.server.alpn_protocol(), Some(TUNNEL_ALPN));
}

#[test]
fn no_session_is_ever_resumed_nor_early_data_taken() {
    let pair = Pair::new();
    let mut client = pair.client();
    // What a client of another make would do.
    client.resumption = Resumption::in_memory_sessions(8);
    client.enable_early_data = true;
    for round in 0..3 {
        let mut handshake = Handshake::run(client.clone(), pair.server());
        assert!(handshake.is_established(), "round {round}");
        assert_eq!(handshake.heard(), FIRST_WORDS);
        assert_eq!(handshake.client.tls13_tickets_received(), 0);
        assert_eq!(handshake.client.handshake_kind(), Some(HandshakeKind::Full));
        assert!(handshake.client.early_data().is_none());
        assert!(handshake.server.early_data().is_none());
    }
}

#[test]
fn client_without_certificate_is_refused() {
    let pair = Pair::new();
    let mut client = ClientConfig::builder_with_details(
        Arc::clone(provider()),
        Arc::<Clock>::clone(&pair.clock),
    )
    .with_protocol_versions(&[&TLS13])
    .unwrap()
    .dangerous()
    .with_custom_certificate_verifier(Arc::new(dialer(&pair)))
    .with_no_client_auth();
    client.alpn_protocols = vec![TUNNEL_ALPN.to_vec()];
    for server in [pair.server(), pair.terminate()] {
        let mut handshake = Handshake::run(client.clone(), server);
        assert_eq!(
            handshake.server_error,
            Some(rustls::Error::NoCertificatesPresented)
        );
        assert_eq!(
            refusal_of(&rustls::Error::NoCertificatesPresented),
            Some(Failure::Untrusted)
        );
        assert_eq!(
            handshake.client_error.as_ref().and_then(refusal_of),
            Some(Failure::Untrusted)
        );
        assert!(handshake.heard().is_empty());
    }
}

#[test]
fn other_alpn_is_refused() {
    let pair = Pair::new();
    for name in [&b"h2"[..], b"corinth/9", b"corinth/", b"corinth/11"] {
        let mut client = pair.client();
        client.alpn_protocols = vec![name.to_vec()];
        let mut handshake = Handshake::run(client, pair.server());
        assert_eq!(
            handshake.server_error.as_ref().and_then(refusal_of),
            Some(Failure::AlpnRefused)
        );
        assert_eq!(
            handshake.client_error.as_ref().and_then(refusal_of),
            Some(Failure::AlpnRefused)
        );
        assert!(handshake.heard().is_empty());
    }
}

#[test]
fn tls_1_2_is_refused() {
    let pair = Pair::new();
    // What `openssl s_client -tls1_2` sends, less what does not matter: no supported_versions.
    let extensions = [
        &[0x00, 0x0a, 0x00, 0x06, 0x00, 0x04, 0x00, 0x1d, 0x00, 0x17][..],
        &[0x00, 0x0b, 0x00, 0x02, 0x01, 0x00],
        &[0x00, 0x0d, 0x00, 0x06, 0x00, 0x04, 0x04, 0x03, 0x08, 0x04],
    ]
    .concat();
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]);
    body.extend([
        0x00,
        0x00,
        0x04,
        0xc0,
        0x2b,
        0xc0,
        0x2f,
        0x01,
        0x00,
        0x00,
        extensions.len() as u8,
    ]);
    body.extend(extensions);
    let mut hello = vec![
        0x16,
        0x03,
        0x01,
        0x00,
        body.len() as u8 + 4,
        0x01,
        0x00,
        0x00,
        body.len() as u8,
    ];
    hello.extend(body);
    let mut server = rustls::ServerConnection::new(Arc::new(pair.server())).unwrap();
    server.read_tls(&mut &hello[..]).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(
        matches!(error, rustls::Error::PeerIncompatible(_)),
        "{error}"
    );
}

#[test]
fn tunnel_client_names_nobody_and_server_lists_no_roots() {
    /// Remembers what the server's request for a certificate listed.
    #[derive(Debug)]
    struct Asked(Arc<OwnIdentity>, Mutex<Option<usize>>);
    impl ResolvesClientCert for Asked {
        fn resolve(
            &self,
            roots: &[&[u8]],
            schemes: &[SignatureScheme],
        ) -> Option<Arc<CertifiedKey>> {
            *self.1.lock().unwrap() = Some(roots.len());
            ResolvesClientCert::resolve(&*self.0, roots, schemes)
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    let pair = Pair::new();
    let asked = Arc::new(Asked(Arc::clone(&pair.b), Mutex::new(None)));
    let mut client = pair.client();
    client.client_auth_cert_resolver = Arc::<Asked>::clone(&asked);
    assert!(Handshake::run(client, pair.server()).is_established());
    assert_eq!(*asked.1.lock().unwrap(), Some(0));

    let mut hello = Vec::new();
    let name = "a.test".try_into().unwrap();
    rustls::ClientConnection::new(Arc::new(pair.client()), name)
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &hello[..]).unwrap();
    let accepted = acceptor.accept().unwrap().unwrap();
    assert_eq!(accepted.client_hello().server_name(), None);
}

#[test]
fn running_connection_outlives_a_rotation_and_new_ones_use_the_new_leaf() {
    let pair = Pair::new();
    let server = pair.server();
    let mut old = Handshake::run(pair.client(), server.clone());
    for hour in 1..=100 {
        let now = NOW + hour * 3600;
        pair.clock.set(now);
        pair.a.renew(at(now)).unwrap();
        pair.b.renew(at(now)).unwrap();
        assert!(
            Handshake::run(pair.client(), server.clone()).is_established(),
            "hour {hour}"
        );
    }
    assert_eq!(old.heard(), FIRST_WORDS);
    assert_eq!(old.say(b"still here"), b"still here");
    let new = Handshake::run(pair.client(), server);
    assert_ne!(
        old.client.peer_certificates(),
        new.client.peer_certificates()
    );
}

#[test]
fn leaf_that_nobody_renewed_is_refused_after_its_end() {
    let pair = Pair::new();
    pair.clock.set(NOW + LEAF_LIFETIME.as_secs());
    assert!(Handshake::run(pair.client(), pair.server()).is_established());
    let late = at(NOW + LEAF_LIFETIME.as_secs() + 1);
    assert_eq!(pair.a.next_renewal(late), Duration::ZERO);
    pair.clock.set(late.as_secs());
    let handshake = Handshake::run(pair.client(), pair.server());
    assert_eq!(
        handshake.client_error.as_ref().and_then(refusal_of),
        Some(Failure::CertificateExpired)
    );
}

#[test]
fn terminate_shows_the_names_of_its_route() {
    let pair = Pair::new();
    let authority = Arc::new(Authority::create(domain(A), at(NOW)).unwrap());
    let name = corinth_model::DnsName::parse("443.payments.shop.svc.clusterset.local").unwrap();
    let own = OwnIdentity::issued_by(
        Arc::clone(&authority),
        &gateway(A),
        vec![name],
        LEAF_LIFETIME,
        at(NOW),
    )
    .unwrap();
    let clock = Arc::<Clock>::clone(&pair.clock);
    let callers = BTreeSet::from([gateway(B)]);
    let server = terminate_server_config(
        Arc::new(own),
        callers,
        pair.bundles.clone(),
        Denials::default(),
        clock,
    );

    // An ordinary client, which checks the DNS name against the root it was given.
    let connect = |host: &'static str| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.root().clone()).unwrap();
        let client = ClientConfig::builder_with_details(
            Arc::clone(provider()),
            Arc::<Clock>::clone(&pair.clock),
        )
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::<OwnIdentity>::clone(&pair.b));
        Handshake::run_to(host, client, server.clone())
    };
    let mut handshake = connect("443.payments.shop.svc.clusterset.local");
    assert!(handshake.is_established());
    assert_eq!(handshake.heard(), FIRST_WORDS);
    assert!(!connect("443.refunds.shop.svc.clusterset.local").is_established());
}

fn dialer(pair: &Pair) -> GatewayVerifier {
    GatewayVerifier::dialer(pair.bundles.clone(), Denials::default(), domain(A))
}
