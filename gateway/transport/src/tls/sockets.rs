//! The sockets of a link's connections that carry streams: what they deliver, and how they are ended.

use std::{
    net::Shutdown,
    sync::{Arc, Weak},
    time::Duration,
};

use socket2::SockRef;
use tokio::{net::TcpStream, time::Instant};

use super::kernel::TcpFigures;
use crate::{
    PathStats,
    link::{LOAD_MIN_BYTES, is_nearly_all},
};

/// A look asks the kernel about so many sockets at most, in turn: the lock is taken by whoever opens a stream, too.
const LOOK_MAX: usize = 256;

/// The sockets of a link's connections that carry streams, of either side's opening.
pub(super) struct Sockets {
    known: Vec<Known>,
    /// With whom the next look begins.
    next: usize,
    path: PathStats,
    /// As of the last look.
    is_filled: bool,
    looked_at: Instant,
    /// What the peer says of its own sending.
    is_peer_filled: bool,
}

struct Known {
    socket: Weak<TcpStream>,
    figures: TcpFigures,
    looked_at: Instant,
}

impl Sockets {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            known: Vec::new(),
            next: 0,
            path: PathStats::default(),
            is_filled: false,
            looked_at: now,
            is_peer_filled: false,
        }
    }

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
        let since = std::mem::replace(&mut self.looked_at, now);
        self.look_at_some(now.saturating_duration_since(since), now);
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

    fn look_at_some(&mut self, interval: Duration, now: Instant) {
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
                known.look(figures, &mut self.path, interval, now);
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
    /// Whoever is not looked at each time has done as much in the time since the last look as in all the time since its own.
    fn look(
        &mut self,
        figures: TcpFigures,
        path: &mut PathStats,
        interval: Duration,
        now: Instant,
    ) {
        let before = std::mem::replace(&mut self.figures, figures);
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut self.looked_at, now));
        let busy = figures.busy.saturating_sub(before.busy);
        let held_by_peer = figures.held_by_peer.saturating_sub(before.held_by_peer);
        let part = interval.as_secs_f64() / elapsed.max(interval).as_secs_f64().max(f64::EPSILON);
        let passed = |count: fn(&TcpFigures) -> u64| {
            (count(&figures).saturating_sub(count(&before)) as f64 * part) as u64
        };
        let delivered_bytes = passed(|figures| figures.acknowledged_bytes);
        path.sent_packets += passed(|figures| figures.sent_segments);
        path.lost_packets += passed(|figures| figures.resent_segments);
        path.received_bytes += passed(|figures| figures.received_bytes);
        path.delivered_bytes += delivered_bytes;
        let held_by_path = busy.saturating_sub(held_by_peer);
        let is_more = figures.unsent_bytes > 0 && before.unsent_bytes > 0;
        if is_more && is_nearly_all(held_by_path, elapsed) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(100);

    /// What one socket adds to a path in looks that find these figures one after the other.
    fn passed(figures: &[TcpFigures], apart: Duration) -> PathStats {
        let now = Instant::now();
        let mut known = Known {
            socket: Weak::new(),
            figures: TcpFigures::default(),
            looked_at: now,
        };
        let mut path = PathStats::default();
        for (figures, number) in figures.iter().zip(1..) {
            known.look(*figures, &mut path, LOOK, now + apart * number);
        }
        path
    }

    /// Figures after so many looks, of a socket that has more to send all the time.
    fn filled(looks: u32) -> TcpFigures {
        TcpFigures {
            acknowledged_bytes: u64::from(looks) * 50_000,
            busy: LOOK * looks,
            unsent_bytes: 1,
            ..TcpFigures::default()
        }
    }

    #[test]
    fn what_is_delivered_while_there_is_more_fills_the_path() {
        let path = passed(&[filled(1), filled(2), filled(3)], LOOK);
        assert_eq!(path.delivered_bytes, 150_000);
        // Of the first look it is not known what was there when it began.
        assert_eq!(path.filled_bytes, 100_000);
    }

    #[test]
    fn a_reader_that_holds_the_sender_up_leaves_the_path_unfilled() {
        let held = [1, 2].map(|looks| TcpFigures {
            held_by_peer: LOOK * looks / 5,
            ..filled(looks)
        });
        assert_eq!(passed(&held, LOOK).filled_bytes, 0);
    }

    #[test]
    fn a_sender_that_has_nothing_more_leaves_the_path_unfilled() {
        let slow = [1, 2].map(|looks| TcpFigures {
            unsent_bytes: 0,
            ..filled(looks)
        });
        assert_eq!(passed(&slow, LOOK).filled_bytes, 0);
    }

    #[test]
    fn who_is_looked_at_now_and_then_counts_for_one_look_each_time() {
        let path = passed(&[filled(4), filled(8)], LOOK * 4);
        assert_eq!(path.delivered_bytes, 100_000);
        assert_eq!(path.filled_bytes, 50_000);
    }
}
