//! Fits the windows of one connection to its path, by looking now and then at what has passed.

use std::time::Duration;

use tokio::time::Instant;

use super::{Share, to_send, wanted};

/// A look that follows another one sooner is part of it: what so short a while shows is how packets come in batches. Two
/// probes that a busy worker reads one after the other are such.
const LOOKS_APART: Duration = Duration::from_millis(20);

/// What a connection has had no use for during so long a time is given back. Whoever moves much in bursts pauses for less.
const UNUSED: Duration = Duration::from_secs(30);

/// What may be on the way of one connection, and what was seen of it last.
pub(in crate::quic) struct Windows {
    to_receive: Share,
    to_send: Share,
    use_to_receive: Use,
    use_to_send: Use,
    /// The peer was held up by our window, and streams that may have taken it are open still.
    is_taken: bool,
    seen: Seen,
    at: Instant,
}

/// What there was use for lately.
struct Use {
    most_bytes: u64,
    since: Instant,
}

impl Use {
    fn since(now: Instant) -> Self {
        Self {
            most_bytes: 0,
            since: now,
        }
    }

    /// Takes what there is use for now. Returns the most there was use for, each time that is known of long enough.
    fn handle_wanted(&mut self, bytes: u64, now: Instant) -> Option<u64> {
        self.most_bytes = self.most_bytes.max(bytes);
        if now < self.since + UNUSED {
            return None;
        }
        self.since = now;
        Some(std::mem::take(&mut self.most_bytes))
    }
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
    /// What was read on streams, or thrown away of them.
    pub(in crate::quic) read_bytes: u64,
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
    read_bytes: u64,
    elapsed: Duration,
}

/// How a path is.
#[derive(Debug, Clone, Copy)]
pub(in crate::quic) struct Shape {
    pub(in crate::quic) rtt: Duration,
    pub(in crate::quic) congestion_window_bytes: u64,
}

impl Passed {
    /// Since the look before.
    pub(in crate::quic) fn elapsed(&self) -> Duration {
        self.elapsed
    }

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
            use_to_receive: Use::since(now),
            use_to_send: Use::since(now),
            is_taken: false,
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
            read_bytes: seen.read_bytes.saturating_sub(before.read_bytes),
            elapsed,
        })
    }

    /// Makes the windows as large as what has passed has use for, and the budget allows. `true` if one has changed.
    pub(in crate::quic) fn fit(
        &mut self,
        passed: &Passed,
        shape: Shape,
        has_streams: bool,
    ) -> bool {
        let receives = self.fit_to_receive(passed, shape.rtt, has_streams);
        let sends = self.fit_to_send(passed, shape);
        receives || sends
    }

    fn fit_to_receive(&mut self, passed: &Passed, rtt: Duration, has_streams: bool) -> bool {
        self.to_receive.handle_read(passed.read_bytes);
        let mut bytes = wanted(passed.received_bytes, passed.elapsed, rtt);
        if passed.is_blocked {
            // Streams that nobody reads have taken it: the others need one as well.
            bytes = bytes.max(self.to_receive.bytes() * 2);
        }
        self.is_taken = has_streams && (self.is_taken || passed.is_blocked);
        match self.use_to_receive.handle_wanted(bytes, self.at) {
            // What was taken by streams is of use although nothing moves.
            Some(most) if most < self.to_receive.bytes() => {
                !self.is_taken && self.to_receive.shrink_promised(most)
            }
            Some(_) | None => self.to_receive.grow(bytes),
        }
    }

    fn fit_to_send(&mut self, passed: &Passed, shape: Shape) -> bool {
        // An idle path keeps its congestion window and has no use for it.
        let moving = wanted(passed.sent_bytes, passed.elapsed, shape.rtt);
        let bytes = to_send(shape.congestion_window_bytes).min(moving);
        match self.use_to_send.handle_wanted(bytes, self.at) {
            Some(most) if most < self.to_send.bytes() => self.to_send.shrink(most),
            Some(_) | None => self.to_send.grow(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use corinth_model::TrustDomain;

    use super::*;
    use crate::quic::window::{Budget, Rank};

    const RTT: Duration = Duration::from_millis(100);

    fn windows(now: Instant) -> Windows {
        let peer = TrustDomain::parse("peer.test").unwrap();
        let [to_receive, to_send] =
            [(); 2].map(|()| Budget::new(256 << 20).give(&peer, Rank::First).unwrap());
        Windows::new(to_receive, to_send, now)
    }

    const PLENTY: Shape = Shape {
        rtt: RTT,
        congestion_window_bytes: 64 << 20,
    };

    fn moved(received_bytes: u64, sent_bytes: u64) -> Seen {
        Seen {
            received_bytes,
            sent_bytes,
            ..Seen::default()
        }
    }

    #[test]
    fn two_looks_within_a_moment_are_one() {
        let began = Instant::now();
        let mut windows = windows(began);
        let first = began + RTT;
        let passed = windows.handle_look(moved(10_000, 0), first).unwrap();
        assert_eq!((passed.received_bytes, passed.rate()), (10_000, 100_000));
        // A packet later that would stand for gigabytes in a second.
        let just_after = first + Duration::from_micros(1);
        assert_eq!(windows.handle_look(moved(11_500, 0), just_after), None);
        let passed = windows.handle_look(moved(20_000, 0), first + RTT).unwrap();
        assert_eq!((passed.received_bytes, passed.rate()), (10_000, 100_000));
        assert!(!windows.fit(&passed, PLENTY, true));
    }

    /// Looks at a connection for a while, and returns when it is over.
    fn idle(windows: &mut Windows, began: Instant, has_streams: bool) -> Instant {
        let (seen, mut now) = (windows.seen, began);
        while now < began + 2 * UNUSED {
            now += RTT;
            let passed = windows.handle_look(seen, now).unwrap();
            windows.fit(&passed, PLENTY, has_streams);
        }
        now
    }

    #[test]
    fn windows_grow_with_what_passes_and_what_is_idle_gives_back() {
        let began = Instant::now();
        let mut windows = windows(began);
        let first = windows.to_receive();
        let now = began + RTT;
        let passed = windows.handle_look(moved(first, first), now).unwrap();
        assert!(windows.fit(&passed, PLENTY, true));
        let grown = 6 * first;
        assert_eq!((windows.to_receive(), windows.to_send()), (grown, grown));
        idle(&mut windows, now, true);
        assert_eq!((windows.to_receive(), windows.to_send()), (first, first));
    }

    #[test]
    fn who_moves_much_now_and_then_keeps_its_windows() {
        let began = Instant::now();
        let mut windows = windows(began);
        let (step, mut now, mut total) = (windows.to_receive(), began, 0);
        for _ in 0..20 {
            now += RTT;
            total += step;
            let passed = windows.handle_look(moved(total, total), now).unwrap();
            windows.fit(&passed, PLENTY, true);
            assert_eq!(windows.to_receive(), 6 * step);
            now += UNUSED / 2;
            let passed = windows.handle_look(moved(total, total), now).unwrap();
            windows.fit(&passed, PLENTY, true);
            assert_eq!(
                (windows.to_receive(), windows.to_send()),
                (6 * step, 6 * step)
            );
        }
    }

    #[test]
    fn what_unread_streams_have_taken_is_given_back_when_they_are_over() {
        let began = Instant::now();
        let mut windows = windows(began);
        let first = windows.to_receive();
        let blocked = Seen {
            blocked: 1,
            ..Seen::default()
        };
        let passed = windows.handle_look(blocked, began + RTT).unwrap();
        assert!(windows.fit(&passed, PLENTY, true));
        assert_eq!(windows.to_receive(), 2 * first);
        let now = idle(&mut windows, began + RTT, true);
        assert_eq!(windows.to_receive(), 2 * first);
        idle(&mut windows, now, false);
        assert_eq!(windows.to_receive(), first);
    }
}
