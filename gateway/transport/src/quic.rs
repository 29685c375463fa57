//! The QUIC transport: one authenticated connection per peer gateway, with as many streams on it as are open.
//!
//! An application's connection is a bidirectional QUIC stream that begins with its header; what is said about the
//! connection itself goes over a unidirectional stream of each side. Either side opens streams, whichever dialled. A dialer
//! replaces its connection before a certificate expires; streams on the old one go on.
//!
//! Until a peer has proved who it is, it can open no stream and send nothing but its handshake. After that its windows are
//! what the budget of the gateway allows and the path has use for.
//!
//! A worker listens on a socket of its own with [`QuicTransport::serve`]. Each connection is dialled from a socket of its
//! own: a packet for a port that several workers share may reach any of them, and what stands on the way, a load balancer
//! or a table of connections, decides by the port where packets go and may have to decide anew.

mod acks;
mod batch;
mod beginnings;
mod code;
mod config;
mod connections;
mod control;
mod credit;
mod datagram;
mod dial;
mod door;
mod endpoints;
mod farewell;
mod frames;
mod handshake;
mod ids;
mod link;
mod post;
mod rate;
mod serve;
mod stream;
mod tunnel;
mod window;

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, OnceLock},
    thread::{self, ThreadId},
    time::Duration,
};

use corinth_identity::{Denials, GatewayVerifier, OwnIdentity, SharedBundles};
use corinth_model::{Failure, GatewayId, TrustDomain};
use parking_lot::Mutex;
use quinn::Endpoint;
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use tokio::sync::watch;

use self::{
    acks::Acknowledged, connections::Connections, door::Counts, endpoints::Listed, link::QuicLink,
    post::Post, window::Budget,
};
pub use self::{
    config::{SOCKET_BUFFER_BYTES, SocketBuffers, hold_unread},
    connections::{CONNECTIONS_MAX, FURTHER_CONNECTIONS_MAX},
    door::{Doorkeeper, Handshakes},
};
pub(crate) use self::{
    datagram::QuicDatagrams,
    stream::{QuicReadHalf, QuicStream, QuicWriteHalf},
};
use crate::{
    BoxFuture, Congestions, DialError, DialTarget, Link, StreamSink, Transport, TransportKind,
    links::Links,
};

/// Time limits of the transport.
#[derive(Debug, Clone, Copy)]
pub struct QuicTimeouts {
    /// From a dial to the first answer of anybody.
    pub connect: Duration,
    /// The whole handshake.
    pub handshake: Duration,
    /// From the end of the handshake to the first frame, and from the beginning of a stream to the end of its header.
    pub first_frame: Duration,
    /// Between two liveness probes.
    pub probe_interval: Duration,
    /// A connection from which nothing came for this long is over, and what was open on it is cut.
    pub idle: Duration,
}

impl Default for QuicTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            handshake: Duration::from_secs(5),
            first_frame: Duration::from_secs(5),
            probe_interval: Duration::from_millis(200),
            idle: Duration::from_secs(10),
        }
    }
}

/// Secrets of a gateway. They stay with it over restarts, so that who was connected before learns at once that the
/// connection is gone.
#[derive(Clone)]
pub struct QuicKeys {
    /// Makes the tokens of stateless resets (RFC 9000 §10.3). Slots that share it answer for each other, so that whoever is
    /// led to another slot learns at once that its connection is not there.
    pub reset: [u8; 32],
    /// Seals the tokens of Retry packets (RFC 9000 §8.1.2), for one slot.
    pub token: [u8; 32],
}

/// What a QUIC transport needs to know.
pub struct QuicSettings {
    /// Our leaf, swapped in place when it is renewed.
    pub own: Arc<OwnIdentity>,
    /// The roots of every linked trust domain, swapped in place when links change.
    pub bundles: SharedBundles,
    /// Identities that are refused although their certificates are good.
    pub denials: Denials,
    /// Tells the time of day, for certificates and tokens only.
    pub clock: Arc<dyn TimeProvider>,
    /// Time limits.
    pub timeouts: QuicTimeouts,
    /// How many gateway instances our cluster runs; told to peers.
    pub slots: u16,
    /// Streams one peer may have opened here, however many gateways it has.
    pub streams_per_peer: u32,
    /// How fast we send on connections that we dial. On others it is BBR: it has to be chosen before it is known who
    /// dials.
    pub congestions: Congestions,
    /// What all peers together may send that nobody here has read yet, in bytes; and as much again what we may send them
    /// that they have not acknowledged. No peer has more than half of it. What it was given before and did not use is given
    /// to others; if it uses that as well, it has twice as much until that is read.
    pub window_budget_bytes: u64,
    /// Secrets of this gateway's slot.
    pub keys: QuicKeys,
}

/// The QUIC transport.
pub struct QuicTransport {
    shared: Arc<Shared>,
}

/// What every task of the transport holds on to.
pub(crate) struct Shared {
    settings: QuicSettings,
    sink: Arc<dyn StreamSink>,
    links: Links<QuicLink>,
    /// True once nobody new is taken.
    closed: watch::Sender<bool>,
    /// Why it was closed, if it was said; peers are told.
    closed_for: OnceLock<Failure>,
    to_receive: Arc<Budget>,
    to_send: Arc<Budget>,
    /// Endpoints that listen, or have connections.
    endpoints: Mutex<BTreeMap<u64, Listed>>,
    /// Streams that peers have opened here, by trust domain.
    held: Mutex<BTreeMap<TrustDomain, u32>>,
    /// Connections that each gateway of a peer has with us, whoever dialled.
    connections: Arc<Connections>,
    counts: Counts,
    /// Where the endpoints that share a port hand over packets to each other.
    post: Arc<Post>,
    /// The smallest buffers that a socket of ours was granted.
    granted: Mutex<Option<SocketBuffers>>,
    /// Threads that have connections, by their number.
    workers: Mutex<Vec<ThreadId>>,
}

/// The number of a worker, as peers are told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Worker(u8);

impl Worker {
    /// There are as many different ones.
    const COUNT: usize = 1 << 6;
}

/// One of the streams that a peer may have open here; given back when dropped.
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

impl QuicTransport {
    /// A transport that hands the streams of peers to `sink`.
    pub fn new(settings: QuicSettings, sink: Arc<dyn StreamSink>) -> Self {
        let slot = ids::slot_of(settings.own.id());
        Self {
            shared: Arc::new(Shared {
                to_receive: Budget::new(settings.window_budget_bytes),
                to_send: Budget::new(settings.window_budget_bytes),
                settings,
                sink,
                links: Links::default(),
                closed: watch::Sender::new(false),
                closed_for: OnceLock::new(),
                endpoints: Mutex::default(),
                held: Mutex::default(),
                connections: Arc::default(),
                counts: Counts::default(),
                post: Arc::new(Post::of(slot)),
                granted: Mutex::new(None),
                workers: Mutex::default(),
            }),
        }
    }

    /// Serves whoever dials this socket, on the calling worker, until `closing` resolves or the transport is closed.
    /// Connections that were taken by then go on, and keep their port: see [`Self::lingers_at`].
    ///
    /// # Errors
    ///
    /// The socket cannot be used, or fails.
    pub async fn serve(
        &self,
        socket: UdpSocket,
        keeper: Arc<dyn Doorkeeper>,
        closing: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let shared = &self.shared;
        let mut closed = shared.closed.subscribe();
        let server = shared.server_config()?;
        let address = socket.local_addr()?;
        let (endpoint, number) = match shared.revive(address, &server) {
            Some(revived) => {
                // What the kernel leads to it would be lost.
                drop(socket);
                revived
            }
            None => {
                let endpoint = shared.listening_endpoint(socket, server)?;
                let number = shared.list(&endpoint);
                (endpoint, number)
            }
        };
        tokio::pin!(closing);
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => door::receive(shared, incoming, &keeper),
                    None => {
                        // Nothing comes by this socket any more, for the connections on it neither.
                        shared.endpoints.lock().remove(&number);
                        return Err(io::Error::other("the socket failed"));
                    }
                },
                () = &mut closing => break,
                // The sender is ours.
                _ = closed.wait_for(|closed| *closed) => break,
            }
        }
        endpoint.set_server_config(None);
        shared.leave_when_idle(endpoint, number, Some(address));
        Ok(())
    }

    /// Whether this address is still ours, although nobody listens there: connections that were taken there keep it. A
    /// socket that shares the port can listen there again; with [`Self::serve`] on each worker that did before, their old
    /// sockets are used and the new ones closed.
    pub fn lingers_at(&self, address: SocketAddr) -> bool {
        let endpoints = self.shared.endpoints.lock();
        let mut lingering = endpoints.values().filter_map(|listed| listed.lingers);
        lingering.any(|(_, port)| port == address)
    }

    /// What became of those who dialled us.
    pub fn handshakes(&self) -> Handshakes {
        let ignored = self.shared.post.origins().lost();
        self.shared.counts.handshakes(ignored)
    }

    /// Packets, or batches of them, that came to another worker than their connection is on.
    pub fn handed_over(&self) -> u64 {
        self.shared.post.handed_over()
    }

    /// The smallest buffers that the system granted a socket of ours: on most systems less than was asked for, and packets
    /// that come while a worker is busy are lost if they do not fit. `None` before there is a socket.
    pub fn granted(&self) -> Option<SocketBuffers> {
        *self.shared.granted.lock()
    }

    /// Dials one more connection to a gateway that is linked by us, for the calling worker to drive, if it has none: on
    /// one connection nothing can take more than one core on either side. Streams that the worker opens go there.
    ///
    /// # Errors
    ///
    /// The gateway does not answer. What there is of the link stays.
    pub async fn widen(&self, peer: &GatewayId) -> Result<(), DialError> {
        dial::widen(&self.shared, peer).await
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

    /// The same as [`Self::close`]; peers are told why, for the streams that are cut by it.
    pub fn close_for(&self, failure: Failure) {
        // The first reason counts.
        let _ = self.shared.closed_for.set(failure);
        self.close();
    }

    /// Ends every link and every stream, and listens no more. What was sent on streams that are over still arrives, if
    /// that takes no longer than a second.
    pub fn close(&self) {
        self.shared.links.close();
        self.shared.closed.send_replace(true);
    }

    /// Resolves when every connection has ended and its peer was told. To be asked after [`Self::close`].
    pub async fn ended(&self) {
        let endpoints: Vec<Endpoint> = {
            let endpoints = self.shared.endpoints.lock();
            let listed = endpoints.values();
            listed.map(|listed| listed.endpoint.clone()).collect()
        };
        for endpoint in endpoints {
            endpoint.wait_idle().await;
        }
    }
}

impl Drop for QuicTransport {
    /// Its tasks would go on probing for nobody.
    fn drop(&mut self) {
        self.close();
    }
}

impl Transport for QuicTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::Quic
    }

    fn dial<'a>(
        &'a self,
        target: &'a DialTarget,
    ) -> BoxFuture<'a, Result<Arc<dyn Link>, DialError>> {
        Box::pin(async move {
            let link = dial::dial(&self.shared, target).await?;
            Ok(link as Arc<dyn Link>)
        })
    }
}

impl Shared {
    fn now_unix_seconds(&self) -> u64 {
        self.settings
            .clock
            .current_time()
            .map_or(0, |now| UnixTime::as_secs(&now))
    }

    /// The number of the calling worker.
    fn worker_here(&self) -> Worker {
        let here = thread::current().id();
        let mut workers = self.workers.lock();
        let known = workers.iter().position(|worker| *worker == here);
        let number = known.unwrap_or_else(|| {
            workers.push(here);
            workers.len() - 1
        });
        Worker((number % Worker::COUNT) as u8)
    }

    /// The link to the gateway `peer`, made if there is none.
    fn link_to(self: &Arc<Self>, peer: &GatewayId) -> Arc<QuicLink> {
        let make = || QuicLink::new(self, peer.clone());
        self.links.get_or_make(peer, make)
    }

    /// A place for one more stream that a peer opens, if there is one.
    fn hold(&self, trust_domain: &TrustDomain) -> Option<Held<'_>> {
        let mut held = self.held.lock();
        let count = held.entry(trust_domain.clone()).or_insert(0);
        if *count >= self.settings.streams_per_peer {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Held {
            shared: self,
            trust_domain: trust_domain.clone(),
        })
    }

    fn listener_verifier(&self) -> GatewayVerifier {
        let settings = &self.settings;
        GatewayVerifier::listener(
            settings.bundles.clone(),
            settings.denials.clone(),
            settings.own.id().trust_domain().clone(),
        )
    }

    /// What quinn needs to know before it is told how to take a connection: each is taken with a configuration of its own.
    fn server_config(&self) -> io::Result<quinn::ServerConfig> {
        let settings = &self.settings;
        let tls = corinth_identity::tls::server_config(
            Arc::new(self.listener_verifier()),
            Arc::clone(&settings.own) as _,
            &[crate::tls::ALPN],
            Arc::clone(&settings.clock),
        );
        let nobodys = Acknowledged::default();
        config::server(settings, tls, &nobodys, config::PACKET_USUAL_BYTES)
            .map_err(io::Error::other)
    }
}
