//! Handshakes: quinn's, with our verifier as a witness of why one was refused.

use std::{any::Any, io, sync::Arc};

use corinth_identity::{GatewayVerifier, describe, peer_gateway, refusal_of, tls};
use corinth_model::Failure;
use parking_lot::Mutex;
use quinn::{ConnectionError, Incoming, crypto::rustls::HandshakeData};
use rustls::{
    AlertDescription, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tokio::time::{Instant, timeout};

use super::{
    Shared, Worker,
    acks::Acknowledged,
    code::{code_of, known_failure_of},
    config,
    connections::Dialler,
    tunnel::{Term, Tunnel},
    window::Windows,
};
use crate::{
    Congestion, DialError, DialTarget, TransportKind,
    tls::{ALPN, AcceptError},
};

/// Error codes of QUIC that carry a TLS alert (RFC 9001 §4.8).
const CRYPTO_ERROR: u64 = 0x100;

/// Connects to `target`. The peer is known when this returns; whether it takes us in is not.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    target: &DialTarget,
    worker: Worker,
) -> Result<Tunnel, DialError> {
    let address = target.address;
    let settings = &shared.settings;
    let unreachable = |source| DialError::Connect {
        transport: TransportKind::Quic,
        address,
        source,
    };
    let refused = |(failure, detail)| DialError::Handshake {
        address,
        failure,
        detail,
    };
    // Read before the handshake: a renewal meanwhile must not lend the old leaf the new one's life.
    let own_not_after = settings.own.not_after().as_secs();
    let witness = Arc::new(Witness::of(GatewayVerifier::dialer(
        settings.bundles.clone(),
        settings.denials.clone(),
        target.trust_domain.clone(),
    )));
    let mut tls = tls::client_config(
        Arc::clone(&witness) as Arc<dyn ServerCertVerifier>,
        Arc::clone(&settings.own) as _,
        &[ALPN],
        Arc::clone(&settings.clock),
    );
    tls.enable_sni = false;
    let congestion = settings.congestions.of(&target.trust_domain);
    let congestion = congestion.unwrap_or(Congestion::OF_QUIC);
    let acknowledged = Acknowledged::default();
    let packet_max_bytes = config::packet_max_bytes(address);
    let config = config::client(settings, tls, congestion, &acknowledged, packet_max_bytes)
        .map_err(|error| refused((Failure::TlsFailed, error.to_string())))?;
    let mut connecting = shared.connect(config, address).map_err(unreachable)?;
    let secured = timeout(settings.timeouts.handshake, async {
        match timeout(settings.timeouts.connect, connecting.handshake_data()).await {
            Err(_) => return Err(unreachable(io::ErrorKind::TimedOut.into())),
            Ok(Err(error)) => return Err(refused(witness.explain(&error))),
            Ok(Ok(_)) => {}
        }
        connecting
            .await
            .map_err(|error| refused(witness.explain(&error)))
    });
    let quic = secured
        .await
        .map_err(|_| DialError::HandshakeTimeout { address })??;
    let handshake = (quic, acknowledged);
    admit(shared, handshake, own_not_after, worker, Dialler::We).map_err(refused)
}

/// Finishes the handshake of somebody who dialled us.
pub(super) async fn accept(shared: &Shared, incoming: Incoming) -> Result<Tunnel, AcceptError> {
    let settings = &shared.settings;
    let refused = |(failure, detail)| AcceptError::Handshake { failure, detail };
    let own_not_after = settings.own.not_after().as_secs();
    let witness = Arc::new(Witness::of(shared.listener_verifier()));
    let tls = tls::server_config(
        Arc::clone(&witness) as Arc<dyn ClientCertVerifier>,
        Arc::clone(&settings.own) as _,
        &[ALPN],
        Arc::clone(&settings.clock),
    );
    let acknowledged = Acknowledged::default();
    let packet_max_bytes = config::packet_max_bytes(incoming.remote_address());
    let config = config::server(settings, tls, &acknowledged, packet_max_bytes)
        .map_err(|error| refused((Failure::TlsFailed, error.to_string())))?;
    let connecting = incoming
        .accept_with(Arc::new(config))
        .map_err(|error| refused(witness.explain(&error)))?;
    let quic = timeout(settings.timeouts.handshake, connecting)
        .await
        .map_err(|_| AcceptError::Timeout)?
        .map_err(|error| refused(witness.explain(&error)))?;
    let (handshake, worker) = ((quic, acknowledged), shared.worker_here());
    admit(shared, handshake, own_not_after, worker, Dialler::Peer).map_err(refused)
}

/// Reads who the verified peer is from its certificate.
fn admit(
    shared: &Shared,
    (quic, acknowledged): (quinn::Connection, Acknowledged),
    own_not_after: u64,
    worker: Worker,
    dialler: Dialler,
) -> Result<Tunnel, (Failure, String)> {
    let agreed = quic.handshake_data().and_then(downcast::<HandshakeData>);
    if agreed.and_then(|agreed| agreed.protocol).as_deref() != Some(ALPN) {
        let detail = "the peer did not agree on the protocol".to_owned();
        return Err((Failure::AlpnRefused, detail));
    }
    let certificates = quic
        .peer_identity()
        .and_then(downcast::<Vec<CertificateDer<'static>>>)
        .unwrap_or_default();
    let leaf =
        peer_gateway(&certificates).map_err(|failure| (failure, failure.summary().to_owned()))?;
    let peer = leaf.gateway;
    let now = shared.now_unix_seconds();
    let term = Term::of(leaf.not_after.as_secs().min(own_not_after), now);
    let placed = shared.connections.enter(&peer, dialler, term, now);
    let placed = placed.and_then(|entered| {
        let to_receive = shared.to_receive.give(&peer.trust_domain, entered.rank)?;
        let to_send = shared.to_send.give(&peer.trust_domain, entered.rank)?;
        let windows = Windows::new(to_receive, to_send, Instant::now());
        Some((entered, windows))
    });
    let Some((entered, windows)) = placed else {
        quic.close(code_of(Failure::TooManyConnections), b"");
        let detail = format!("{peer} has as many connections as it may");
        return Err((Failure::TooManyConnections, detail));
    };
    Ok(Tunnel::new(
        quic,
        acknowledged,
        peer,
        term,
        worker,
        windows,
        entered,
    ))
}

fn downcast<T: 'static>(any: Box<dyn Any>) -> Option<T> {
    any.downcast().ok().map(|known| *known)
}

/// A verifier that remembers what it refused: of an error in its handshake quinn tells only the words.
#[derive(Debug)]
struct Witness {
    verifier: GatewayVerifier,
    refusal: Mutex<Option<rustls::Error>>,
}

impl Witness {
    fn of(verifier: GatewayVerifier) -> Self {
        Self {
            verifier,
            refusal: Mutex::new(None),
        }
    }

    fn note<T>(&self, verified: Result<T, rustls::Error>) -> Result<T, rustls::Error> {
        if let Err(error) = &verified {
            *self.refusal.lock() = Some(error.clone());
        }
        verified
    }

    /// The failure and the words of a handshake that failed.
    fn explain(&self, error: &ConnectionError) -> (Failure, String) {
        match self.refusal.lock().as_ref() {
            Some(refusal) => (
                refusal_of(refusal).unwrap_or(Failure::Untrusted),
                describe(refusal),
            ),
            None => explain(error),
        }
    }
}

/// The failure and the words of a connection that ended before it was one.
pub(super) fn explain(error: &ConnectionError) -> (Failure, String) {
    let code = match error {
        ConnectionError::TransportError(error) => Some(error.code),
        ConnectionError::ConnectionClosed(close) => Some(close.error_code),
        ConnectionError::TimedOut => return (Failure::TlsTimeout, error.to_string()),
        ConnectionError::ApplicationClosed(close) => {
            let failure = known_failure_of(close.error_code);
            let failure = failure.unwrap_or(Failure::TlsFailed);
            return (failure, error.to_string());
        }
        ConnectionError::VersionMismatch => return (Failure::AlpnRefused, error.to_string()),
        ConnectionError::Reset
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => None,
    };
    let alert = code
        .and_then(|code| u64::from(code).checked_sub(CRYPTO_ERROR))
        .and_then(|alert| u8::try_from(alert).ok());
    match alert {
        Some(alert) => {
            let received = rustls::Error::AlertReceived(AlertDescription::from(alert));
            let failure = refusal_of(&received).unwrap_or(Failure::TlsFailed);
            (failure, describe(&received))
        }
        None => (Failure::TlsFailed, error.to_string()),
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.note(self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(&self.verifier, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(&self.verifier, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(&self.verifier)
    }
}

impl ClientCertVerifier for Witness {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        ClientCertVerifier::root_hint_subjects(&self.verifier)
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.note(
            self.verifier
                .verify_client_cert(end_entity, intermediates, now),
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls12_signature(&self.verifier, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ClientCertVerifier::verify_tls13_signature(&self.verifier, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(&self.verifier)
    }
}
