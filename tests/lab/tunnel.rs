//! The dialling side of a tunnel connection, played by the test: every certificate, every byte.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use corinth_api::StreamOpen;
use corinth_identity::{Leaf, tls};
use corinth_model::Failure;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
    time_provider::DefaultTimeProvider,
};

/// The kinds of frames.
pub mod kind {
    /// Opens a stream.
    pub const OPEN: u8 = 1;
    /// Answers it.
    pub const REPLY: u8 = 2;
    /// Bytes of the application.
    pub const DATA: u8 = 3;
    /// No more of them.
    pub const END: u8 = 4;
    /// Both directions are over.
    pub const RESET: u8 = 5;
    /// Are you there?
    pub const PING: u8 = 6;
    /// Yes.
    pub const PONG: u8 = 7;
    /// Open no more streams.
    pub const DRAIN: u8 = 8;
    /// Done.
    pub const CLOSE: u8 = 9;
    /// None that exists.
    pub const UNKNOWN: u8 = 0x20;
}

/// Receivers may ignore the frame.
pub const MAY_IGNORE: u8 = 0x80;

/// A tunnel connection that says whatever the test wants.
pub struct Tunnel {
    tls: StreamOwned<ClientConnection, TcpStream>,
    source: SocketAddr,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// The stream it belongs to.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Tunnel {
    /// Does the handshake on `socket`, showing `certificate`, offering `alpn`. The other side may still refuse it after
    /// we are done (RFC 8446 §4.4.4).
    ///
    /// # Errors
    /// When the handshake fails before that.
    pub fn shake_hands(
        mut socket: TcpStream,
        certificate: Option<CertifiedKey>,
        alpn: &[&[u8]],
    ) -> io::Result<Self> {
        let mut config = tls::client_config(
            Arc::new(Anybody),
            Arc::new(Shown(certificate.map(Arc::new))),
            alpn,
            Arc::new(DefaultTimeProvider),
        );
        config.enable_sni = false;
        Self::with_config(&mut socket, config).map(|connection| Self {
            source: socket
                .local_addr()
                .unwrap_or_else(|_| ([0, 0, 0, 0], 0).into()),
            tls: StreamOwned::new(connection, socket),
        })
    }

    fn with_config(socket: &mut TcpStream, config: ClientConfig) -> io::Result<ClientConnection> {
        let name = ServerName::from(socket.peer_addr()?.ip());
        let mut connection =
            ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(socket)?;
        }
        // The last flight may still be with us.
        while connection.wants_write() {
            connection.complete_io(socket)?;
        }
        Ok(connection)
    }

    /// Where it comes from.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// Sends bytes in one record.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.write_all(bytes)?;
        self.tls.flush()
    }

    /// Takes new keys, and asks the other side to do so as well.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn update_keys(&mut self) -> io::Result<()> {
        self.tls
            .conn
            .refresh_traffic_keys()
            .map_err(io::Error::other)?;
        self.tls.flush()
    }

    /// Says what the connection is for, as it should be said.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn begin(&mut self) -> io::Result<()> {
        self.say(&first(0))
    }

    /// The next frame; `None` when the other side has ended the connection, in whatever way.
    ///
    /// # Panics
    /// When neither comes.
    pub fn hear(&mut self) -> Option<Frame> {
        let mut head = [0; 8];
        self.fill(&mut head)?;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
        self.fill(&mut payload)?;
        Some(Frame {
            kind: head[0],
            stream: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            payload,
        })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.tls.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) => {
                let is_open = matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                );
                assert!(!is_open, "neither a frame nor an end");
                None
            }
        }
    }
}

/// A frame, whether it may exist or not.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let head = [
        &[kind, flags][..],
        &length.to_be_bytes(),
        &stream.to_be_bytes(),
    ];
    [&head.concat(), payload].concat()
}

/// The first frame of a connection with this role.
pub fn first(role: u8) -> Vec<u8> {
    frame(kind::PING, 0, 0, &[role, 0, 0, 0, 0, 0, 0, 0, 1])
}

/// A header as it goes over the wire.
pub fn encoded(header: &StreamOpen) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes
}

/// A leaf as rustls shows it.
///
/// # Panics
/// When the key is of no use.
pub fn certified(leaf: &Leaf) -> CertifiedKey {
    paired(leaf.chain().to_vec(), leaf.key())
}

/// Any chain with any key, whether they belong together or not.
///
/// # Panics
/// When the key is of no use.
pub fn paired(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> CertifiedKey {
    let key = tls::provider()
        .key_provider
        .load_private_key(key.clone_key());
    CertifiedKey::new(chain, key.expect("a private key"))
}

/// The failure whose code a RESET or CLOSE carries.
pub fn code_of(frame: &Frame) -> Option<Failure> {
    let code = std::str::from_utf8(&frame.payload).ok()?;
    match corinth_model::Reason::from_code(code)? {
        corinth_model::Reason::Failed(failure) => Some(failure),
        corinth_model::Reason::Completed | corinth_model::Reason::Refused(_) => None,
    }
}

/// Shows one certificate, or none.
#[derive(Debug)]
struct Shown(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// Takes the other side for whoever it says it is: the tests are about what it thinks of us.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
