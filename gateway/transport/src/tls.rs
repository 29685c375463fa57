//! The TLS transport: a pool of warm mutually authenticated TLS connections per peer gateway, one stream
//! at a time on each.
//!
//! A dialer keeps, for each gateway that answered: one control connection that carries the liveness
//! probes, connections on which it opens streams (as many as are in use, and a spare), and a few on which
//! the *acceptor* opens streams, so that a side which cannot dial is not mute. The first frame of each
//! connection says which of the three it is. All connections of one gateway, of either side's making,
//! belong to one `TlsLink`.

mod connection;
mod control;
pub(crate) mod frame;
mod handshake;
mod kernel;
mod link;
mod pool;
mod reader;
mod record;
mod serve;
mod sockets;
mod stream;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_identity::{Denials, OwnIdentity, SharedBundles};
use corinth_model::{Failure, GatewayId, TrustDomain};
use parking_lot::Mutex;
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::timeout,
};
use tracing::warn;

pub(crate) use self::connection::retire_at;
pub use self::handshake::HandshakeError;
pub(crate) use self::stream::{TlsReadHalf, TlsStream, TlsWriteHalf};
use self::{connection::Connection, frame::Kind, link::TlsLink};
use crate::{
    BoxFuture, Congestions, DialError, DialTarget, Link, StreamError, StreamSink, Transport,
    TransportKind, links::Links,
};

/// The application protocol of a tunnel connection.
pub const ALPN: &[u8] = corinth_identity::tls::TUNNEL_ALPN;

/// Time limits of the transport.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// TCP connect of a dial.
    pub connect: Duration,
    /// The whole TLS handshake.
    pub handshake: Duration,
    /// From the end of the handshake to the first frame.
    pub first_frame: Duration,
    /// Between two liveness probes.
    pub probe_interval: Duration,
    /// Unacknowledged data ends a connection after this long (`TCP_USER_TIMEOUT`).
    pub unacknowledged: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            handshake: Duration::from_secs(3),
            first_frame: Duration::from_secs(5),
            probe_interval: Duration::from_millis(200),
            unacknowledged: Duration::from_secs(10),
        }
    }
}

/// What a TLS transport needs to know.
pub struct TlsSettings {
    /// Our leaf, swapped in place when it is renewed.
    pub own: Arc<OwnIdentity>,
    /// The roots of every linked trust domain, swapped in place when links change.
    pub bundles: SharedBundles,
    /// Identities that are refused although their certificates are good.
    pub denials: Denials,
    /// Tells the time of day, for certificates only.
    pub clock: Arc<dyn TimeProvider>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// How many gateway instances our cluster runs; told to peers.
    pub slots: u16,
    /// Connections one peer may hold here to open streams on, however many gateways it has.
    pub connections_per_peer: u32,
    /// How fast we send.
    pub congestions: Congestions,
}

/// The TLS transport.
pub struct TlsTransport {
    shared: Arc<Shared>,
}

/// What every task of the transport holds on to.
pub(crate) struct Shared {
    settings: TlsSettings,
    server_config: Arc<rustls::ServerConfig>,
    client_configs: Mutex<BTreeMap<TrustDomain, Arc<rustls::ClientConfig>>>,
    sink: Arc<dyn StreamSink>,
    links: Links<TlsLink>,
    slots: AtomicU16,
    /// Connections that peers hold here to open streams on, by trust domain.
    held: Mutex<BTreeMap<TrustDomain, u32>>,
    /// The system does not do what an operator wants of it, which was told.
    has_complained: AtomicBool,
}

/// One of the connections that a peer may hold here; given back when dropped.
struct Held<'a> {
    shared: &'a Shared,
    trust_domain: TrustDomain,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.shared.held.lock().get_mut(&self.trust_domain) {
            *count -= 1;
        }
    }
}

/// A connection whose handshake is done and whose peer is known, not yet served.
pub struct Accepted {
    connection: Box<Connection>,
}

impl Accepted {
    /// Who the peer is, as the handshake proved it.
    pub fn peer(&self) -> &Arc<GatewayId> {
        &self.connection.peer
    }
}

/// Why an incoming connection did not become part of a link.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The handshake took longer than its deadline.
    #[error("the TLS handshake took longer than its deadline")]
    Timeout,
    /// The handshake failed.
    #[error("the TLS handshake failed: {detail}")]
    Handshake {
        /// The failure as the access log shows it.
        failure: Failure,
        /// The handshake's own words.
        detail: String,
    },
}

impl AcceptError {
    /// The failure that log, metric and CLI show.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Timeout => Failure::TlsTimeout,
            Self::Handshake { failure, .. } => *failure,
        }
    }
}

impl TlsTransport {
    /// A transport that hands the streams of peers to `sink`.
    pub fn new(settings: TlsSettings, sink: Arc<dyn StreamSink>) -> Self {
        let server_config = corinth_identity::tls::tunnel_server_config(
            Arc::clone(&settings.own),
            settings.bundles.clone(),
            settings.denials.clone(),
            Arc::clone(&settings.clock),
        );
        let slots = AtomicU16::new(settings.slots);
        Self {
            shared: Arc::new(Shared {
                settings,
                server_config: Arc::new(server_config),
                client_configs: Mutex::default(),
                sink,
                links: Links::default(),
                slots,
                held: Mutex::default(),
                has_complained: AtomicBool::new(false),
            }),
        }
    }

    /// Finishes the handshake of an incoming connection; `received` is what was read to classify it.
    pub async fn accept(
        &self,
        mut socket: TcpStream,
        received: Vec<u8>,
    ) -> Result<Accepted, AcceptError> {
        let shared = &self.shared;
        shared
            .tune(&socket)
            .map_err(|error| AcceptError::Handshake {
                failure: Failure::TlsFailed,
                detail: error.to_string(),
            })?;
        let config = Arc::clone(&shared.server_config);
        // Read before the handshake: a renewal meanwhile must not lend the old leaf the new one's life.
        let own_not_after = shared.settings.own.not_after().as_secs();
        let secured = timeout(
            shared.settings.timeouts.handshake,
            handshake::accept(&mut socket, config, received),
        )
        .await
        .map_err(|_| AcceptError::Timeout)?
        .map_err(|error| {
            let (failure, detail) = explain(&error);
            AcceptError::Handshake { failure, detail }
        })?;
        let connection = shared
            .admit(socket, secured, own_not_after)
            .map_err(|(failure, detail)| AcceptError::Handshake { failure, detail })?;
        Ok(Accepted { connection })
    }

    /// Serves an accepted connection until it ends; the streams on it run on this task.
    pub async fn serve(&self, accepted: Accepted) -> Result<(), StreamError> {
        serve::first_frame(&self.shared, accepted.connection).await
    }

    /// Every link there is.
    pub fn links(&self) -> Vec<Arc<dyn Link>> {
        self.shared.links.all()
    }

    /// The links to the gateways of one trust domain.
    pub fn links_to(&self, trust_domain: &TrustDomain) -> Vec<Arc<dyn Link>> {
        self.shared.links.to(trust_domain)
    }

    /// Changes whenever a link is made, lost or changes its state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.links.changes()
    }

    /// Ends the links of one trust domain and every stream on them.
    pub fn close_links_to(&self, trust_domain: &TrustDomain) {
        self.shared.links.close_to(trust_domain);
    }

    /// Asks every peer to open no more streams; those that come all the same are served.
    pub fn drain(&self) {
        self.shared.links.drain();
    }

    /// Ends every link and every stream.
    pub fn close(&self) {
        self.shared.links.close();
    }
}

impl Transport for TlsTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::Tls
    }

    fn dial<'a>(
        &'a self,
        target: &'a DialTarget,
    ) -> BoxFuture<'a, Result<Arc<dyn Link>, DialError>> {
        Box::pin(async move {
            let link = control::dial(&self.shared, target).await?;
            Ok(link as Arc<dyn Link>)
        })
    }
}

impl Shared {
    pub(crate) fn now_unix_seconds(&self) -> u64 {
        self.settings
            .clock
            .current_time()
            .map_or(0, |now| UnixTime::as_secs(&now))
    }

    /// The link to the gateway `peer`, made if there is none.
    fn link_to(self: &Arc<Self>, peer: &GatewayId) -> Arc<TlsLink> {
        let make = || TlsLink::new(self, peer.clone());
        self.links.get_or_make(peer, make)
    }

    /// A place for one more connection on which a peer opens streams, if there is one.
    fn hold(&self, trust_domain: &TrustDomain) -> Option<Held<'_>> {
        let mut held = self.held.lock();
        let count = held.entry(trust_domain.clone()).or_insert(0);
        if *count >= self.settings.connections_per_peer {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Held {
            shared: self,
            trust_domain: trust_domain.clone(),
        })
    }

    fn client_config(&self, expected: &TrustDomain) -> Arc<rustls::ClientConfig> {
        let mut configs = self.client_configs.lock();
        if let Some(config) = configs.get(expected) {
            return Arc::clone(config);
        }
        let config = Arc::new(corinth_identity::tls::tunnel_client_config(
            Arc::clone(&self.settings.own),
            self.settings.bundles.clone(),
            self.settings.denials.clone(),
            expected,
            Arc::clone(&self.settings.clock),
        ));
        configs.insert(expected.clone(), Arc::clone(&config));
        config
    }

    /// Connects to `target` and declares what the connection is for.
    async fn dial(&self, target: &DialTarget, role: Role) -> Result<Box<Connection>, DialError> {
        let address = target.address;
        let timeouts = &self.settings.timeouts;
        let mut socket = timeout(timeouts.connect, connect(address))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .and_then(|socket| self.tune(&socket).map(|()| socket))
            .map_err(|source| DialError::Connect {
                transport: TransportKind::Tls,
                address,
                source,
            })?;
        let config = self.client_config(&target.trust_domain);
        let own_not_after = self.settings.own.not_after().as_secs();
        let secured = timeout(timeouts.handshake, handshake::connect(&mut socket, config))
            .await
            .map_err(|_| DialError::HandshakeTimeout { address })?
            .map_err(|error| {
                let (failure, detail) = explain(&error);
                DialError::Handshake {
                    address,
                    failure,
                    detail,
                }
            })?;
        let mut connection =
            self.admit(socket, secured, own_not_after)
                .map_err(|(failure, detail)| DialError::Handshake {
                    address,
                    failure,
                    detail,
                })?;
        connection
            .put(Kind::Ping, 0, &role.first_payload())
            .map_err(|_| DialError::Closed)?;
        connection
            .flush()
            .await
            .map_err(|error| DialError::Connect {
                transport: TransportKind::Tls,
                address,
                source: io::Error::other(error),
            })?;
        Ok(connection)
    }

    async fn dial_for_streams(&self, target: &DialTarget) -> Result<Box<Connection>, DialError> {
        self.dial(target, Role::DialerOpens).await
    }

    /// A connection that was dialled for one gateway and answered by another of the same peer.
    fn adopt(self: &Arc<Self>, connection: Box<Connection>) {
        let link = self.link_to(&connection.peer);
        link.give(connection);
    }

    /// Reads who the verified peer is from its certificate.
    fn admit(
        &self,
        socket: TcpStream,
        secured: handshake::Secured,
        own_not_after: u64,
    ) -> Result<Box<Connection>, (Failure, String)> {
        let leaf = corinth_identity::peer_gateway(&secured.peer_certificates)
            .map_err(|failure| (failure, failure.summary().to_owned()))?;
        self.hasten(&socket, &leaf.gateway.trust_domain);
        Connection::new(
            socket,
            secured,
            Arc::new(leaf.gateway),
            leaf.not_after.as_secs().min(own_not_after),
            self.now_unix_seconds(),
        )
        .map(Box::new)
        .map_err(|error| (error.failure(), error.to_string()))
    }

    /// Has a connection to this peer send as its operator wants.
    fn hasten(&self, socket: &TcpStream, trust_domain: &TrustDomain) {
        let Some(congestion) = self.settings.congestions.of(trust_domain) else {
            return;
        };
        if let Err(error) = congestion.set(socket)
            && !self.has_complained.swap(true, Relaxed)
        {
            warn!(
                peer = %trust_domain, %congestion, %error,
                "the congestion control is not as configured; does net.ipv4.tcp_allowed_congestion_control have it?"
            );
        }
    }

    fn tune(&self, socket: &TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        give_up_after(
            &SockRef::from(socket),
            self.settings.timeouts.unacknowledged,
        )
    }
}

/// Ends a connection whose peer has not been heard for so long although it was asked. An idle one is asked in time for
/// several probes: the kernel counts from what it heard last, so that a single lost probe must not be the only one.
fn give_up_after(socket: &SockRef<'_>, unacknowledged: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(unacknowledged / 2)
            .with_interval(unacknowledged / 10),
    )
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.connect(address).await
}

/// What a connection is for; the dialer says it in the first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    DialerOpens,
    AcceptorOpens,
    Control,
}

impl Role {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::DialerOpens),
            1 => Some(Self::AcceptorOpens),
            2 => Some(Self::Control),
            _ => None,
        }
    }

    /// The payload of the first PING: the role, then a nonce that is 0 here.
    fn first_payload(self) -> [u8; 9] {
        [self.byte(), 0, 0, 0, 0, 0, 0, 0, 0]
    }

    const fn byte(self) -> u8 {
        match self {
            Self::DialerOpens => 0,
            Self::AcceptorOpens => 1,
            Self::Control => 2,
        }
    }
}

/// The failure and the words of a handshake that failed.
fn explain(error: &HandshakeError) -> (Failure, String) {
    let failure = match error {
        HandshakeError::Tls(error) => {
            corinth_identity::refusal_of(error).unwrap_or(Failure::TlsFailed)
        }
        HandshakeError::NoProtocol => Failure::AlpnRefused,
        HandshakeError::Io(_) | HandshakeError::TooLong => Failure::TlsFailed,
    };
    (failure, error.to_string())
}

impl Shared {
    fn announced_slots(&self) -> u16 {
        self.slots.load(Relaxed)
    }
}
