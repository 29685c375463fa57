//! The seam: what every transport offers and what it asks of its owner.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use corinth_api::{HeaderError, StreamOpen};
use corinth_model::{GatewayId, TrustDomain};
use tokio::sync::watch;

use crate::{DialError, OpenError, Stream};

/// A boxed future, so that the seam can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The closed set of ways to carry a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// In process, for tests and the simulation.
    Memory,
    /// Mutual TLS over TCP.
    Tls,
    /// QUIC over UDP.
    Quic,
}

impl TransportKind {
    /// The word in logs, metrics and CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }

    /// What it goes over, in the words of a firewall.
    pub fn underlay(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Tls => "TCP",
            Self::Quic => "UDP",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where to dial and who must answer there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialTarget {
    /// One address of the peer; a load balancer may stand behind it.
    pub address: SocketAddr,
    /// The trust domain of the linked peer. Nobody else is accepted at this address.
    pub trust_domain: TrustDomain,
}

/// A way to reach peers.
pub trait Transport: Send + Sync {
    /// Which way it is.
    fn kind(&self) -> TransportKind;

    /// Connects to one address and returns the link to the gateway that answered and proved itself.
    /// The same link is returned however often the same gateway answers. Cancel-safe.
    fn dial<'a>(
        &'a self,
        target: &'a DialTarget,
    ) -> BoxFuture<'a, Result<Arc<dyn Link>, DialError>>;
}

/// The live relation to one gateway of a peer.
pub trait Link: Send + Sync {
    /// Who the peer is, as its handshake proved it; never as a header claims it.
    fn peer(&self) -> &GatewayId;

    /// Which transport carries it.
    fn kind(&self) -> TransportKind;

    /// Opens a stream: the header is queued, nothing is sent before the first flush, so that the
    /// caller can add the first bytes and both leave together. Cancel-safe.
    fn open<'a>(&'a self, header: &'a StreamOpen) -> BoxFuture<'a, Result<Stream, OpenError>>;

    /// The state now and every change of it. Who borrows it lets it go before it asks the link anything else: a link
    /// changes its state while it holds what it would have to look at to answer.
    fn state(&self) -> watch::Receiver<LinkState>;

    /// An opened stream has waited longer than it should: look at once whether the path is dead.
    fn suspect(&self);

    /// Smoothed round-trip time and counters.
    fn stats(&self) -> LinkStats;

    /// Tells the peer to open no more streams here; those that are open go on.
    fn drain(&self);

    /// Ends the link and every stream on it.
    fn close(&self);
}

/// What a link is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Streams can be opened.
    Up,
    /// The peer asked for no more streams; it still takes them while nothing else does.
    Draining,
    /// The path is dead: nothing comes back. It may return.
    Dead,
    /// Over for good; a new dial makes a new link.
    Closed,
}

impl LinkState {
    /// The word in logs, metrics and CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Dead => "dead",
            Self::Closed => "closed",
        }
    }
}

/// Figures of one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkStats {
    /// Smoothed round-trip time of the liveness probes; `None` before the first answer.
    pub rtt: Option<Duration>,
    /// Tunnel connections held, busy or idle.
    pub connections: u32,
    /// Tunnel connections on which a stream can be opened at once.
    pub idle: u32,
    /// Streams now open, by either side.
    pub streams: u32,
    /// Streams opened by us since the link began.
    pub opened: u64,
    /// Streams opened by the peer since the link began.
    pub accepted: u64,
    /// Tunnel connections dialled since the link began.
    pub dialled: u64,
    /// How many gateway instances the peer says its cluster runs; 0 before it said so.
    pub announced_slots: u16,
    /// Answers are later than they should be; the path may be dead soon.
    pub is_overdue: bool,
    /// What is known of the path; `None` where there is none.
    pub path: Option<PathStats>,
}

/// Figures of the path below a link, a quarter of a second old at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathStats {
    /// Packets, over TCP segments with data, sent since the link began.
    pub sent_packets: u64,
    /// Of these, packets that counted as lost; over TCP those that were sent again.
    pub lost_packets: u64,
    /// Bytes that came since the link began; over QUIC with what is sent beside streams.
    pub received_bytes: u64,
    /// Bytes that the peer has acknowledged since the link began.
    pub delivered_bytes: u64,
    /// Of these, bytes that were acknowledged while there was more to send than was allowed to be on its way.
    pub filled_bytes: u64,
    /// Of the bytes that came, bytes that did while the peer said that it had more to send than the path took.
    pub received_filled_bytes: u64,
    /// What only QUIC knows; `None` over TCP, of which the kernel knows it for each connection.
    pub udp: Option<UdpStats>,
}

/// Figures of the path that only QUIC knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpStats {
    /// Batches of packets that were handed to the socket; it puts full ones together for the system.
    pub sends: u64,
    /// What may be on its way unacknowledged, in bytes, on the connection used last.
    pub congestion_window_bytes: u64,
    /// The largest packet the path is known to take, in bytes without IP and UDP.
    pub mtu_bytes: u16,
}

/// Whether of some time so much is as good as all. Whoever is held up by its reader pauses now and then, whoever is by the
/// path does not.
pub(crate) fn is_nearly_all(part: Duration, whole: Duration) -> bool {
    part * 20 >= whole * 19
}

/// Less within a look is no load.
pub(crate) const LOAD_MIN_BYTES: u64 = 16 << 10;

/// Takes the streams that peers open.
pub trait StreamSink: Send + Sync {
    /// Serves one stream to its end. Runs on the task that read the header, hence on its worker.
    /// When it returns, a stream whose two directions have not both ended is reset.
    fn accept<'a>(
        &'a self,
        link: &'a Arc<dyn Link>,
        header: StreamOpen,
        stream: &'a mut Stream,
    ) -> BoxFuture<'a, ()>;

    /// Notes a stream whose header could not be read; the peer is told, and the connection ends.
    fn unreadable(&self, link: &Arc<dyn Link>, error: &HeaderError) {
        let _ = (link, error);
    }
}
