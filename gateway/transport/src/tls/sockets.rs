//! The sockets of a link's connections that carry streams: what they deliver, and how they are ended.

use std::{
    net::Shutdown,
    sync::{Arc, Weak},
};

use socket2::SockRef;
use tokio::{net::TcpStream, time::Instant};

use super::kernel::TcpFigures;
use crate::{
    PathStats,
    link::{LOAD_MIN_BYTES, is_nearly_all},
};

/// A look asks the kernel about so many sockets at most, in turn.
const LOOK_MAX: usize = 128;

/// The sockets of a link's connections that carry streams, of either side's opening.
#[derive(Default)]
pub(super) struct Sockets {
    known: Vec<Known>,
    /// With whom the next look begins.
    next: usize,
    path: PathStats,
    /// As of the last look.
    is_filled: bool,
    /// What the peer says of its own sending.
    is_peer_filled: bool,
}

struct Known {
    socket: Weak<TcpStream>,
    figures: TcpFigures,
    looked_at: Instant,
}

impl Sockets {
    /// One more.
    pub(super) fn add(&mut self, socket: &Arc<TcpStream>, now: Instant) {
        if self.known.len() == self.known.capacity() {
            self.known.retain(|known| known.socket.strong_count() > 0);
        }
        self.known.push(Known {
            socket: Arc::downgrade(socket),
            // What it carried as another link's, or before it moved to another worker, was counted then.
            figures: TcpFigures::of(&**socket).unwrap_or_default(),
            looked_at: now,
        });
    }

    /// Adds up what has passed since each of them was looked at before.
    pub(super) fn look(&mut self, now: Instant) {
        let before = self.path;
        self.look_at_some(now);
        let path = &mut self.path;
        let delivered_bytes = path.delivered_bytes - before.delivered_bytes;
        let filled_bytes = path.filled_bytes - before.filled_bytes;
        self.is_filled =
            delivered_bytes >= LOAD_MIN_BYTES && filled_bytes * 4 >= delivered_bytes * 3;
        if self.is_peer_filled {
            path.received_filled_bytes += path.received_bytes - before.received_bytes;
        }
    }

    /// What is sent is more than the path takes.
    pub(super) const fn is_filled(&self) -> bool {
        self.is_filled
    }

    /// The peer said whether it is with what the peer sends.
    pub(super) fn set_peer_filled(&mut self, is_filled: bool) {
        self.is_peer_filled = is_filled;
    }

    fn look_at_some(&mut self, now: Instant) {
        for _ in 0..LOOK_MAX.min(self.known.len()) {
            if self.next >= self.known.len() {
                self.next = 0;
            }
            let Some(known) = self.known.get_mut(self.next) else {
                return;
            };
            let figures = known
                .socket
                .upgrade()
                .map(|socket| TcpFigures::of(&*socket));
            if let Some(Ok(figures)) = figures {
                known.look(figures, &mut self.path, now);
                self.next += 1;
            } else {
                self.known.swap_remove(self.next);
            }
        }
    }

    pub(super) const fn path(&self) -> PathStats {
        self.path
    }

    /// None is known any more. Whoever carries a stream on them goes on.
    pub(super) fn take(&mut self) -> Vec<Weak<TcpStream>> {
        let known = std::mem::take(&mut self.known);
        known.into_iter().map(|known| known.socket).collect()
    }
}

impl Known {
    fn look(&mut self, figures: TcpFigures, path: &mut PathStats, now: Instant) {
        let before = std::mem::replace(&mut self.figures, figures);
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        let busy = figures.busy.saturating_sub(before.busy);
        let held_by_peer = figures.held_by_peer.saturating_sub(before.held_by_peer);
        let delivered_bytes = figures
            .acknowledged_bytes
            .saturating_sub(before.acknowledged_bytes);
        path.sent_packets += figures.sent_segments.saturating_sub(before.sent_segments);
        path.lost_packets += figures
            .resent_segments
            .saturating_sub(before.resent_segments);
        path.received_bytes += figures.received_bytes.saturating_sub(before.received_bytes);
        path.delivered_bytes += delivered_bytes;
        let held_by_path = busy.saturating_sub(held_by_peer);
        if !figures.is_app_limited && is_nearly_all(held_by_path, elapsed) {
            path.filled_bytes += delivered_bytes;
        }
    }
}

pub(super) fn cut(sockets: &[Weak<TcpStream>]) {
    for socket in sockets.iter().filter_map(Weak::upgrade) {
        shut_down(&socket);
    }
}

/// Ends a connection that somebody else reads and writes: both are woken, and find it ended.
pub(super) fn shut_down(socket: &TcpStream) {
    // One that is gone already needs nothing.
    let _ = SockRef::from(socket).shutdown(Shutdown::Both);
}
