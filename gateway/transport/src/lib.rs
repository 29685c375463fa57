//! Carries streams between gateways: authenticated tunnels behind one seam.
//!
//! A [`Transport`] dials an address of a peer and yields a [`Link`], the live side of the relation to
//! one gateway of that peer. A [`Link`] opens [`Stream`]s; streams the peer opens are handed to a
//! [`StreamSink`] on the task and worker that read them. Bytes move on lent buffers: the writer lends
//! room that the transport seals in place, the reader lends what the transport opened in place.
//!
//! ```text
//! session ── Link::open ──> Stream ── frames ── records ── TCP ──> peer ── StreamSink::accept ──> session
//! ```
//!
//! What it never does: look at a route, decide who may come in, read configuration, or trust anything
//! but the handshake for who the peer is.

mod buffer;
mod congestion;
mod datagram;
mod direction;
mod error;
mod link;
mod links;
mod stream;

pub mod memory;
pub mod quic;
pub mod ready;
pub mod tls;

pub use congestion::{Congestion, Congestions};
pub use datagram::{Datagrams, Sent};
pub use error::{DialError, OpenError, StreamError};
pub use link::{
    BoxFuture, DialTarget, Link, LinkState, LinkStats, PathStats, StreamSink, Transport,
    TransportKind, UdpStats,
};
pub use stream::{Expiry, Fill, ReadHalf, Stream, WriteHalf};
