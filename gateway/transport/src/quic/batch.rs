//! Packets that leave together: one call for as many as the kernel takes at once.
//!
//! quinn hands over a few packets at a time, and each call has its own way through the kernel. What is full is held until
//! more comes or nobody else on the worker has anything to do; what is not full ends what is held and leaves with it.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use parking_lot::Mutex;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::{sync::Notify, task::yield_now};
use tracing::debug;

/// Packets that quinn hands over at once: of the largest ones, no more fit into what one call takes.
const PIECE_PACKETS: usize = 7;
/// What one call takes: the payload of a UDP datagram over IPv4 before it is cut into packets (`udp(7)`).
const CALL_MAX_BYTES: usize = 65_507;

/// A socket that holds packets back for a moment, so that more of them leave together.
pub(super) struct BatchingSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    held: Mutex<Held>,
    /// Something is held, or the socket is gone.
    work: Arc<Notify>,
}

/// Packets of one size for one address.
#[derive(Default)]
struct Held {
    packets: Vec<u8>,
    way: Option<Way>,
}

/// What all packets of one call have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    destination: SocketAddr,
    source: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    packet_bytes: usize,
}

impl Way {
    fn of(transmit: &Transmit<'_>) -> Self {
        Self {
            destination: transmit.destination,
            source: transmit.src_ip,
            ecn: transmit.ecn,
            packet_bytes: transmit.segment_size.unwrap_or(transmit.contents.len()),
        }
    }
}

impl Held {
    /// Whether these packets can leave behind those that are held, in the same call.
    fn takes(&self, transmit: &Transmit<'_>, packets_max: usize) -> bool {
        let Some(way) = self.way else {
            return false;
        };
        let mut theirs = Way::of(transmit);
        if transmit.segment_size.is_none() && theirs.packet_bytes <= way.packet_bytes {
            // The last packet may be shorter.
            theirs.packet_bytes = way.packet_bytes;
        }
        let bytes = self.packets.len() + transmit.contents.len();
        theirs == way && bytes <= CALL_MAX_BYTES && bytes.div_ceil(way.packet_bytes) <= packets_max
    }

    fn add(&mut self, transmit: &Transmit<'_>) {
        self.way.get_or_insert_with(|| Way::of(transmit));
        self.packets.extend_from_slice(transmit.contents);
    }

    /// Whether another full piece would fit.
    fn has_room(&self, packets_max: usize) -> bool {
        self.way.is_some_and(|way| {
            let piece = PIECE_PACKETS * way.packet_bytes;
            let bytes = self.packets.len() + piece;
            bytes <= CALL_MAX_BYTES && bytes / way.packet_bytes <= packets_max
        })
    }

    fn send(&mut self, socket: &dyn AsyncUdpSocket) -> io::Result<()> {
        let Some(way) = self.way else {
            return Ok(());
        };
        let sent = socket.try_send(&Transmit {
            destination: way.destination,
            ecn: way.ecn,
            contents: &self.packets,
            segment_size: Some(way.packet_bytes),
            src_ip: way.source,
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // They are lost as on any network. Whoever is told of it may be of another connection.
            Err(error) => debug!(%error, "packets for {} were not sent", way.destination),
            Ok(()) => {}
        }
        self.packets.clear();
        self.way = None;
        Ok(())
    }
}

/// Whether more of the same is to be expected.
fn is_full_piece(transmit: &Transmit<'_>) -> bool {
    transmit
        .segment_size
        .is_some_and(|bytes| transmit.contents.len() == bytes * PIECE_PACKETS)
}

impl BatchingSocket {
    /// What is held is sent by a task of the calling worker, which drives the socket too.
    pub(super) fn over(socket: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
        let work = Arc::new(Notify::new());
        let batching = Arc::new(Self {
            socket,
            held: Mutex::default(),
            work: Arc::clone(&work),
        });
        tokio::spawn(flush_when_idle(Arc::downgrade(&batching), work));
        batching
    }

    fn packets_max(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn flush(&self) -> io::Result<()> {
        self.held.lock().send(&*self.socket)
    }
}

/// Sends what is held once everybody on the worker has had a turn.
async fn flush_when_idle(socket: Weak<BatchingSocket>, work: Arc<Notify>) {
    loop {
        work.notified().await;
        yield_now().await;
        let Some(socket) = socket.upgrade() else {
            return;
        };
        let mut poller = Arc::clone(&socket.socket).create_io_poller();
        while socket.flush().is_err() {
            let writable = std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await;
            if writable.is_err() {
                return;
            }
        }
    }
}

impl Drop for BatchingSocket {
    fn drop(&mut self) {
        // Nobody is there to wait for room.
        let _ = self.flush();
        self.work.notify_one();
    }
}

impl fmt::Debug for BatchingSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchingSocket")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for BatchingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let packets_max = self.packets_max();
        let mut held = self.held.lock();
        let joins = held.takes(transmit, packets_max);
        if !joins {
            held.send(&*self.socket)?;
        }
        let is_full = is_full_piece(transmit);
        if !joins && !is_full {
            return self.socket.try_send(transmit);
        }
        held.add(transmit);
        if is_full && held.has_room(packets_max) {
            self.work.notify_one();
        } else if held.send(&*self.socket).is_err() {
            // It is ours now, and leaves when there is room.
            self.work.notify_one();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.packets_max().min(PIECE_PACKETS)
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests;
