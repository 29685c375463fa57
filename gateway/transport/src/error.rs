//! What can go wrong while carrying, each with the model's [`Failure`] that log, metric and CLI show.

use std::io;

use corinth_api::HeaderError;
use corinth_model::Failure;

use crate::TransportKind;

/// Why an address of a peer gave no authenticated connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody answered there: refused, unreachable or timed out.
    #[error(
        "dialing {address}: {source}; is {} port {} open between the networks?",
        transport.underlay(),
        address.port()
    )]
    Connect {
        /// How it was dialled.
        transport: TransportKind,
        /// The address that was dialled.
        address: std::net::SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The handshake did not end in time.
    #[error("the TLS handshake with {address} took longer than its deadline")]
    HandshakeTimeout {
        /// The address that was dialled.
        address: std::net::SocketAddr,
    },
    /// The handshake failed; the failure says which rule was broken.
    #[error("the TLS handshake with {address} failed: {detail}")]
    Handshake {
        /// The address that was dialled.
        address: std::net::SocketAddr,
        /// The failure as the access log shows it.
        failure: Failure,
        /// The handshake's own words.
        detail: String,
    },
    /// The link was closed meanwhile.
    #[error("the link was closed")]
    Closed,
}

impl DialError {
    /// The failure that log, metric and CLI show.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Connect { .. } | Self::Closed => Failure::PeerUnreachable,
            Self::HandshakeTimeout { .. } => Failure::TlsTimeout,
            Self::Handshake { failure, .. } => *failure,
        }
    }
}

/// Why a link gave no stream. Nothing of the stream had left, so the next candidate may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The path to the peer is dead.
    #[error("the path to the peer is dead")]
    PathDead,
    /// The link was closed, by us or by the peer.
    #[error("the link is closed")]
    Closed,
    /// No connection became free and none could be dialled.
    #[error("no tunnel connection is free and none could be dialled")]
    NoConnection,
    /// Our own certificate has expired, or there is none yet: no peer would take us in.
    #[error("our own certificate has expired")]
    CertificateExpired,
}

impl OpenError {
    /// The failure that log, metric and CLI show.
    pub fn failure(self) -> Failure {
        match self {
            Self::PathDead => Failure::PathDead,
            Self::Closed | Self::NoConnection => Failure::PeerUnreachable,
            Self::CertificateExpired => Failure::CertificateExpired,
        }
    }
}

/// Why a stream ended other than by its two ends.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer reset the stream, saying why.
    #[error("the peer reset the stream: {}", .0.name())]
    Reset(Failure),
    /// The connection ended without the stream's end: bytes may be missing.
    #[error("the tunnel connection was cut before the stream ended")]
    Cut,
    /// The peer broke a rule of the framing.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The connection ended although nobody broke a rule: silence, an expired certificate.
    #[error("{1}")]
    Failed(Failure, &'static str),
    /// The header or reply of the stream was not well formed.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The socket failed.
    #[error("tunnel socket: {0}")]
    Io(#[from] io::Error),
}

impl StreamError {
    /// The failure that log, metric and CLI show.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Reset(failure) | Self::Failed(failure, _) => *failure,
            Self::Cut | Self::Io(_) => Failure::TunnelCut,
            Self::Protocol(_) => Failure::ProtocolViolation,
            Self::Header(_) => Failure::HeaderInvalid,
        }
    }
}
