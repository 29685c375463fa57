//! Drives rustls through a handshake over TCP and takes the secrets out of it.
//!
//! rustls works on our buffers here (its unbuffered interface): bytes already read by whoever classified
//! the ClientHello go in first, bytes read beyond the handshake come out again.

use std::sync::Arc;

use rustls::{
    ClientConfig, ExtractedSecrets, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::{CertificateDer, ServerName},
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::record::Schedule;

/// The most an unfinished handshake may hold: one full record and its certificate chain.
const INCOMING_MAX_BYTES: usize = 24 << 10;
const READ_BYTES: usize = 4 << 10;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// rustls refused what the peer sent, or the peer refused us.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The socket failed or was closed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The peer sent more than a handshake needs.
    #[error("the peer sent more than a handshake needs")]
    TooLong,
    /// The peer does not speak our protocol.
    #[error("the peer did not agree on the protocol")]
    NoProtocol,
}

/// A finished handshake.
pub(super) struct Secured {
    pub(super) secrets: ExtractedSecrets,
    pub(super) schedule: Schedule,
    pub(super) peer_certificates: Vec<CertificateDer<'static>>,
    /// Sealed bytes read beyond the handshake.
    pub(super) leftover: Vec<u8>,
    /// Application data already opened.
    pub(super) plain: Vec<u8>,
}

/// Our side as the dialer. No name of anything is sent in clear.
pub(super) async fn connect(
    socket: &mut TcpStream,
    config: Arc<ClientConfig>,
) -> Result<Secured, HandshakeError> {
    let nameless = ServerName::from(socket.peer_addr()?.ip());
    let mut side = UnbufferedClientConnection::new(config, nameless)?;
    let mut progress = Progress::default();
    drive(&mut side, socket, &mut progress).await?;
    let peer_certificates = certificates(side.peer_certificates());
    if side.alpn_protocol() != Some(super::ALPN) {
        return Err(HandshakeError::NoProtocol);
    }
    let (secrets, kernel) = side.dangerous_into_kernel_connection()?;
    Ok(progress.finish(secrets, Schedule::client(kernel), peer_certificates))
}

/// Our side as the listener; `received` is what was already read from the socket.
pub(super) async fn accept(
    socket: &mut TcpStream,
    config: Arc<ServerConfig>,
    received: Vec<u8>,
) -> Result<Secured, HandshakeError> {
    let mut side = UnbufferedServerConnection::new(config)?;
    let mut progress = Progress {
        incoming: received,
        ..Progress::default()
    };
    drive(&mut side, socket, &mut progress).await?;
    let peer_certificates = certificates(side.peer_certificates());
    if side.alpn_protocol() != Some(super::ALPN) {
        return Err(HandshakeError::NoProtocol);
    }
    let (secrets, kernel) = side.dangerous_into_kernel_connection()?;
    Ok(progress.finish(secrets, Schedule::server(kernel), peer_certificates))
}

fn certificates(chain: Option<&[CertificateDer<'static>]>) -> Vec<CertificateDer<'static>> {
    chain.map(<[_]>::to_vec).unwrap_or_default()
}

#[derive(Default)]
struct Progress {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    plain: Vec<u8>,
}

impl Progress {
    fn finish(
        self,
        secrets: ExtractedSecrets,
        schedule: Schedule,
        peer_certificates: Vec<CertificateDer<'static>>,
    ) -> Secured {
        Secured {
            secrets,
            schedule,
            peer_certificates,
            leftover: self.incoming,
            plain: self.plain,
        }
    }
}

/// The two sides differ only in their type.
trait Side: Send {
    type Data;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// What one step of rustls asks for.
enum Step {
    Again,
    Send,
    Receive,
    Done,
}

async fn drive<S: Side>(
    side: &mut S,
    socket: &mut TcpStream,
    progress: &mut Progress,
) -> Result<(), HandshakeError> {
    loop {
        match step(side, progress) {
            Ok(Step::Again) => {}
            Ok(Step::Send) => {
                socket.write_all(&progress.outgoing).await?;
                progress.outgoing.clear();
            }
            Ok(Step::Receive) => receive(socket, &mut progress.incoming).await?,
            Ok(Step::Done) => return Ok(()),
            Err(error) => {
                send_alert(side, socket, progress).await;
                return Err(error);
            }
        }
    }
}

fn step<S: Side>(side: &mut S, progress: &mut Progress) -> Result<Step, HandshakeError> {
    let UnbufferedStatus { discard, state, .. } = side.process(&mut progress.incoming);
    let state = match state {
        Ok(state) => state,
        Err(error) => {
            // rustls remembers positions in what is left: the front must go now as well.
            progress.incoming.drain(..discard);
            return Err(error.into());
        }
    };
    let step = match state {
        ConnectionState::EncodeTlsData(mut data) => {
            encode(&mut progress.outgoing, |room| data.encode(room))?;
            Step::Again
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Step::Send
        }
        ConnectionState::BlockedHandshake => Step::Receive,
        ConnectionState::WriteTraffic(_) => Step::Done,
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                progress.plain.extend_from_slice(record?.payload);
            }
            Step::Again
        }
        ConnectionState::ReadEarlyData(_)
        | ConnectionState::PeerClosed
        | ConnectionState::Closed
        | _ => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
    };
    progress.incoming.drain(..discard);
    Ok(step)
}

/// Encodes at the end of `outgoing`, which grows to what is needed.
fn encode(
    outgoing: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), HandshakeError> {
    let used = outgoing.len();
    match write(&mut outgoing[used..]) {
        Ok(_) => Ok(()),
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
            outgoing.resize(used + required_size, 0);
            write(&mut outgoing[used..])
                .map(|_| ())
                .map_err(|_| rustls::Error::EncryptError.into())
        }
        Err(EncodeError::AlreadyEncoded) => Ok(()),
    }
}

async fn receive(socket: &mut TcpStream, incoming: &mut Vec<u8>) -> Result<(), HandshakeError> {
    if incoming.len() >= INCOMING_MAX_BYTES {
        return Err(HandshakeError::TooLong);
    }
    incoming.reserve(READ_BYTES);
    if socket.read_buf(incoming).await? == 0 {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(())
}

/// After an error rustls has an alert to send; whether it arrives changes nothing.
async fn send_alert<S: Side>(side: &mut S, socket: &mut TcpStream, progress: &mut Progress) {
    while let Ok(Step::Again) = step(side, progress) {}
    let _ = socket.write_all(&progress.outgoing).await;
}
