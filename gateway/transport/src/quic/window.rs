//! How much a peer may have on its way to us and we to it: windows within one budget.
//!
//! A window is credit: memory is used only where a reader stops while its peer goes on. Each connection is given credit
//! when its peer has proved who it is, the less the more is given already, and more when its path turns out to hold more.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

/// One stream may take this part of the first credit of its connection. Fewer that nobody reads stop no other, and when they
/// are more, the connection is given more.
const STREAMS_PER_WINDOW: u64 = 8;
/// What a connection is given while there is plenty: with it one stream fills 330 Mb/s at 100 ms.
const OFFER_MAX_BYTES: u64 = 32 << 20;
/// What a connection is given however little is left.
const OFFER_MIN_BYTES: u64 = 1 << 20;
/// The most any connection grows to.
const WINDOW_MAX_BYTES: u64 = 128 << 20;
/// The most we hold unacknowledged for a peer.
const SEND_MAX_BYTES: u64 = 64 << 20;
/// Of what is left, one connection is given at most this part.
const PART_OF_THE_REST: u64 = 4;
/// What we hold unacknowledged for a peer, at least.
const SEND_MIN_BYTES: u64 = 4 << 20;

/// The credit that all connections share.
#[derive(Debug)]
pub(super) struct Budget {
    total_bytes: u64,
    given_bytes: Mutex<u64>,
}

impl Budget {
    pub(super) fn new(total_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            total_bytes,
            given_bytes: Mutex::new(0),
        })
    }

    /// What a connection made now would be given. Nothing is set aside: a handshake costs a stranger little.
    pub(super) fn offer(&self) -> u64 {
        let left = self.total_bytes.saturating_sub(*self.given_bytes.lock());
        let part = (left / PART_OF_THE_REST).clamp(OFFER_MIN_BYTES, OFFER_MAX_BYTES);
        1 << part.ilog2()
    }

    /// Gives what was offered. Who has proved who it is gets it also where others were faster: what is given beyond the
    /// total is at most one offer for each handshake that was under way.
    pub(super) fn give(self: &Arc<Self>, bytes: u64) -> Share {
        *self.given_bytes.lock() += bytes;
        Share {
            budget: Arc::clone(self),
            bytes,
        }
    }
}

/// The credit of one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Grows to `wanted_bytes`, or as far as the budget goes. `true` if it grew.
    pub(super) fn grow(&mut self, wanted_bytes: u64) -> bool {
        let mut given = self.budget.given_bytes.lock();
        let left = self.budget.total_bytes.saturating_sub(*given);
        let more = wanted_bytes
            .min(WINDOW_MAX_BYTES)
            .saturating_sub(self.bytes)
            .min(left / PART_OF_THE_REST);
        *given += more;
        self.bytes += more;
        more > 0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.budget.given_bytes.lock() -= self.bytes;
    }
}

/// The window of one stream on a connection with this much credit.
pub(super) fn of_a_stream(connection_bytes: u64) -> u64 {
    connection_bytes / STREAMS_PER_WINDOW
}

/// Twice what is on its way when `bytes` arrive in `elapsed`: a window that size is never what holds a path up.
pub(super) fn wanted(bytes: u64, elapsed: Duration, rtt: Duration) -> u64 {
    let elapsed_us = elapsed.as_micros().max(1);
    let product = u128::from(bytes) * rtt.as_micros() * 2 / elapsed_us;
    u64::try_from(product).unwrap_or(u64::MAX)
}

/// What we may hold for a peer whose path takes `congestion_window_bytes` at once.
pub(super) fn to_send(congestion_window_bytes: u64) -> u64 {
    congestion_window_bytes
        .saturating_mul(2)
        .clamp(SEND_MIN_BYTES, SEND_MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: u64 = 256 << 20;

    #[test]
    fn the_more_is_given_the_less_is_offered() {
        let budget = Budget::new(TOTAL);
        let mut shares = Vec::new();
        let mut last = OFFER_MAX_BYTES;
        for _ in 0..200 {
            let offer = budget.offer();
            assert!(offer <= last && offer >= OFFER_MIN_BYTES);
            last = offer;
            shares.push(budget.give(offer));
        }
        assert_eq!(last, OFFER_MIN_BYTES);
        drop(shares);
        assert_eq!(budget.offer(), OFFER_MAX_BYTES);
    }

    #[test]
    fn a_share_grows_within_its_own_limit_and_the_budget() {
        let budget = Budget::new(TOTAL);
        let mut share = budget.give(OFFER_MAX_BYTES);
        assert!(!share.grow(OFFER_MAX_BYTES));
        // No step takes much of what is left.
        while share.grow(u64::MAX) {}
        assert_eq!(share.bytes(), WINDOW_MAX_BYTES);
        let _others = budget.give(TOTAL);
        let mut late = budget.give(OFFER_MIN_BYTES);
        assert!(!late.grow(OFFER_MAX_BYTES));
    }

    #[test]
    fn a_path_wants_twice_what_is_on_its_way() {
        let tick = Duration::from_millis(200);
        // 1 Gb/s at 100 ms.
        assert_eq!(wanted(25_000_000, tick, tick / 2), 25_000_000);
        assert_eq!(wanted(0, tick, tick), 0);
        assert_eq!(wanted(u64::MAX, Duration::ZERO, tick), u64::MAX);
    }
}
