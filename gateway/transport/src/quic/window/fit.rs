//! Fits the windows of one connection to its path, by looking now and then at what has passed.

use std::time::Duration;

use tokio::time::Instant;

use super::{Share, to_send, wanted};

/// A look that follows another one sooner is part of it: what so short a while shows is how packets come in batches. Two
/// probes that a busy worker reads one after the other are such.
const LOOKS_APART: Duration = Duration::from_millis(20);

/// What may be on the way of one connection, and what was seen of it last.
pub(in crate::quic) struct Windows {
    to_receive: Share,
    to_send: Share,
    seen: Seen,
    at: Instant,
}

/// What a connection counts, since it began.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::quic) struct Seen {
    pub(in crate::quic) received_bytes: u64,
    pub(in crate::quic) sent_bytes: u64,
    pub(in crate::quic) sent_packets: u64,
    pub(in crate::quic) lost_packets: u64,
    /// Calls in which packets were sent.
    pub(in crate::quic) sends: u64,
    /// How often the peer has said that the window holds it up.
    pub(in crate::quic) blocked: u64,
}

/// What has passed between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::quic) struct Passed {
    pub(in crate::quic) received_bytes: u64,
    pub(in crate::quic) sent_bytes: u64,
    pub(in crate::quic) sent_packets: u64,
    pub(in crate::quic) lost_packets: u64,
    pub(in crate::quic) sends: u64,
    is_blocked: bool,
    elapsed: Duration,
}

impl Passed {
    /// Bytes in a second, in both directions together.
    pub(in crate::quic) fn rate(&self) -> u64 {
        let bytes = self.received_bytes + self.sent_bytes;
        (bytes as f64 / self.elapsed.as_secs_f64()) as u64
    }
}

impl Windows {
    /// Those of a connection that begins.
    pub(in crate::quic) fn new(to_receive: Share, to_send: Share, now: Instant) -> Self {
        Self {
            to_receive,
            to_send,
            seen: Seen::default(),
            at: now,
        }
    }

    /// What the peer may send, in bytes.
    pub(in crate::quic) fn to_receive(&self) -> u64 {
        self.to_receive.bytes()
    }

    /// What we may send, in bytes.
    pub(in crate::quic) fn to_send(&self) -> u64 {
        self.to_send.bytes()
    }

    /// What has passed since the look before; `None` if that was just now. Where the path has changed, its packets count
    /// anew.
    pub(in crate::quic) fn handle_look(&mut self, seen: Seen, now: Instant) -> Option<Passed> {
        let elapsed = now.saturating_duration_since(self.at);
        if elapsed < LOOKS_APART {
            return None;
        }
        let before = std::mem::replace(&mut self.seen, seen);
        self.at = now;
        Some(Passed {
            received_bytes: seen.received_bytes.saturating_sub(before.received_bytes),
            sent_bytes: seen.sent_bytes.saturating_sub(before.sent_bytes),
            sent_packets: seen.sent_packets.saturating_sub(before.sent_packets),
            lost_packets: seen.lost_packets.saturating_sub(before.lost_packets),
            sends: seen.sends.saturating_sub(before.sends),
            is_blocked: seen.blocked != before.blocked,
            elapsed,
        })
    }

    /// Makes the windows as large as what has passed has use for, and the budget allows. `true` if one has changed.
    pub(in crate::quic) fn fit(
        &mut self,
        passed: &Passed,
        rtt: Duration,
        congestion_window_bytes: u64,
    ) -> bool {
        let mut bytes = wanted(passed.received_bytes, passed.elapsed, rtt);
        if passed.is_blocked {
            // Streams that nobody reads have taken it: the others need one as well.
            bytes = bytes.max(self.to_receive.bytes() * 2);
        }
        let receives_more = self.to_receive.grow(bytes);
        let sends_more = self.to_send.grow(to_send(congestion_window_bytes));
        receives_more || sends_more
    }
}

#[cfg(test)]
mod tests {
    use corinth_model::TrustDomain;

    use super::*;
    use crate::quic::window::Budget;

    const RTT: Duration = Duration::from_millis(100);

    fn windows(now: Instant) -> Windows {
        let peer = TrustDomain::parse("peer.test").unwrap();
        let [to_receive, to_send] = [(); 2].map(|()| Budget::new(256 << 20).give(&peer).unwrap());
        Windows::new(to_receive, to_send, now)
    }

    fn received(received_bytes: u64) -> Seen {
        Seen {
            received_bytes,
            ..Seen::default()
        }
    }

    #[test]
    fn two_looks_within_a_moment_are_one() {
        let began = Instant::now();
        let mut windows = windows(began);
        let first = began + RTT;
        let passed = windows.handle_look(received(10_000), first).unwrap();
        assert_eq!((passed.received_bytes, passed.rate()), (10_000, 100_000));
        // A packet later that would stand for gigabytes in a second.
        let just_after = first + Duration::from_micros(1);
        assert_eq!(windows.handle_look(received(11_500), just_after), None);
        let passed = windows.handle_look(received(20_000), first + RTT).unwrap();
        assert_eq!((passed.received_bytes, passed.rate()), (10_000, 100_000));
        assert!(!windows.fit(&passed, RTT, 0));
    }

    #[test]
    fn windows_grow_with_what_passes() {
        let began = Instant::now();
        let mut windows = windows(began);
        let first = windows.to_receive();
        let passed = windows.handle_look(received(first), began + RTT).unwrap();
        assert!(windows.fit(&passed, RTT, 0));
        assert_eq!(windows.to_receive(), 6 * first);
        assert_eq!(windows.to_send(), first);
    }
}
