//! How much a peer may have on its way to us and we to it: windows within one budget.
//!
//! A window is credit: memory is used only where a reader stops while its peer goes on. Each connection is given credit
//! when its peer has proved who it is, the less the more is given already, and more when its path turns out to hold more.
//!
//! What a connection has had no use for lately is given back. What its peer was told once cannot be taken back from it
//! before it has used it up, though; so what peers could still use beyond their windows is bounded as well.
//!
//! What we hold for peers until they have acknowledged it has a budget of the same kind.
//!
//! A peer issues the identities of its gateways itself, so what counts is its trust domain: however many connections its
//! gateways make, they have no more than a part of the budget.

mod fit;
mod returned;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use corinth_model::TrustDomain;
use parking_lot::Mutex;

pub(super) use self::{
    fit::{Seen, Shape, Windows},
    returned::Returned,
};
use super::credit;

/// What a connection is given while there is plenty: enough to begin with, as it grows within a few looks at the path.
const OFFER_MAX_BYTES: u64 = 4 << 20;
/// What a connection is given when little is left; with less it is of no use.
const OFFER_MIN_BYTES: u64 = 512 << 10;
/// This part of the budget, and of what a peer may have of it, is given in pieces of that size alone and to the first
/// connections of gateways alone, so that there is something for many.
const RESERVE: u64 = 4;
/// All connections of one peer are given at most this part of the budget.
const PEERS_PER_BUDGET: u64 = 2;
/// One stream may take this part of the credit of its connection: one that nobody reads stops no other.
const STREAMS_PER_WINDOW: u64 = 2;
/// The credit of a connection is so many times what is on its way: what follows a lost packet waits for it, and another one
/// may be lost meanwhile.
const WINDOWS_PER_PATH: u64 = 6;
/// What we may hold for a peer is so many congestion windows: what a gap keeps from being let go counts as well.
const CONGESTION_WINDOWS: u64 = 3;
/// The most any connection grows to.
const WINDOW_MAX_BYTES: u64 = 64 << 20;
/// Of what is left beyond the reserve, one connection is given at most this part.
const PART_OF_THE_REST: u64 = 4;
/// Of what is left of that for its peer, this part.
const PART_OF_THE_PEERS: u64 = 2;
/// And one that begins is given at most this part of that.
const OFFERS_OF_THE_PEERS: u64 = 16;

/// Which of the connections with one gateway one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// The first one that one of both sides has dialled, or its successor: without it there is no link.
    First,
    /// One more, for another worker. It gives way: the reserve is not for it.
    Further,
}

impl Rank {
    /// What of so many bytes there is for it.
    fn part(self, bytes: u64) -> u64 {
        match self {
            Self::First => bytes,
            Self::Further => bytes - bytes / RESERVE,
        }
    }
}

/// The credit that all connections share.
#[derive(Debug)]
pub(super) struct Budget {
    total_bytes: u64,
    given: Mutex<Given>,
}

/// What is given, to all and to each.
#[derive(Debug, Default)]
struct Given {
    bytes: u64,
    /// Given back although the peers could still use it.
    promised_bytes: u64,
    to_peers: BTreeMap<TrustDomain, ToPeer>,
}

/// What is given to one peer.
#[derive(Debug, Default)]
struct ToPeer {
    bytes: u64,
    promised_bytes: u64,
}

impl Given {
    /// Gives what a connection is to begin with: as much of `bytes` as this peer may have, and little where little is left.
    fn offer(&mut self, total_bytes: u64, peer: &TrustDomain, rank: Rank, bytes: u64) -> u64 {
        let part = self.plenty(total_bytes, peer) / OFFERS_OF_THE_PEERS;
        let bytes = bytes.min(round(part));
        self.give(total_bytes, peer, rank, bytes)
    }

    /// Gives more of what is left beyond the reserve.
    fn add(&mut self, total_bytes: u64, peer: &TrustDomain, bytes: u64) -> u64 {
        let part = self.plenty(total_bytes, peer) / PART_OF_THE_PEERS;
        let bytes = bytes.min(self.part(total_bytes)).min(part);
        self.give(total_bytes, peer, Rank::Further, bytes)
    }

    /// What is left for a peer beyond the reserve.
    fn plenty(&self, total_bytes: u64, peer: &TrustDomain) -> u64 {
        let given = self.to_peers.get(peer).map_or(0, |to_peer| to_peer.bytes);
        let plenty = Rank::Further.part(total_bytes / PEERS_PER_BUDGET);
        plenty.saturating_sub(given)
    }

    fn give(&mut self, total_bytes: u64, peer: &TrustDomain, rank: Rank, bytes: u64) -> u64 {
        let to_peer = self.to_peers.entry(peer.clone()).or_default();
        let left = rank.part(total_bytes).saturating_sub(self.bytes);
        let peers_bytes = rank.part(total_bytes / PEERS_PER_BUDGET);
        let left_for_peer = peers_bytes.saturating_sub(to_peer.bytes);
        let given = bytes.min(left).min(left_for_peer);
        to_peer.bytes += given;
        self.bytes += given;
        given
    }

    fn take_back(&mut self, peer: &TrustDomain, bytes: u64) {
        self.bytes -= bytes;
        self.change(peer, |to_peer| to_peer.bytes -= bytes);
    }

    /// Takes as much of `bytes` back as the peer may still use then. Its promises are never more than its part, and those of
    /// all never more than the budget.
    fn take_back_promised(&mut self, total_bytes: u64, peer: &TrustDomain, bytes: u64) -> u64 {
        let to_peer = self.to_peers.entry(peer.clone()).or_default();
        let left_for_peer = (total_bytes / PEERS_PER_BUDGET).saturating_sub(to_peer.promised_bytes);
        let left = total_bytes.saturating_sub(self.promised_bytes);
        let promised = bytes.min(left).min(left_for_peer);
        to_peer.promised_bytes += promised;
        self.promised_bytes += promised;
        self.take_back(peer, promised);
        promised
    }

    /// The peer has used so much of what it was promised, or can use it no more.
    fn keep_promise(&mut self, peer: &TrustDomain, bytes: u64) {
        self.promised_bytes -= bytes;
        self.change(peer, |to_peer| to_peer.promised_bytes -= bytes);
    }

    /// Who has nothing is forgotten.
    fn change(&mut self, peer: &TrustDomain, change: impl FnOnce(&mut ToPeer)) {
        if let Some(to_peer) = self.to_peers.get_mut(peer) {
            change(to_peer);
            if to_peer.bytes == 0 && to_peer.promised_bytes == 0 {
                self.to_peers.remove(peer);
            }
        }
    }

    /// What may be given to one connection that wants as much as it can have.
    fn part(&self, total_bytes: u64) -> u64 {
        let plenty = Rank::Further.part(total_bytes);
        plenty.saturating_sub(self.bytes) / PART_OF_THE_REST
    }
}

impl Budget {
    pub(super) fn new(total_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            total_bytes,
            given: Mutex::default(),
        })
    }

    /// What a connection made now is given, if its peer has not had its part.
    fn offer(&self) -> u64 {
        round(self.given.lock().part(self.total_bytes))
    }

    /// Gives what a connection is to begin with to a peer that has proved who it is; `None` if nothing of use is left
    /// for it.
    pub(super) fn give(self: &Arc<Self>, peer: &TrustDomain, rank: Rank) -> Option<Share> {
        let bytes = self.offer();
        let mut given = self.given.lock();
        let bytes = given.offer(self.total_bytes, peer, rank, bytes);
        drop(given);
        let share = Share {
            budget: Arc::clone(self),
            peer: peer.clone(),
            first_bytes: bytes,
            bytes,
            promised_bytes: 0,
        };
        (bytes >= OFFER_MIN_BYTES).then_some(share)
    }
}

/// The credit of one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    peer: TrustDomain,
    /// What it began with.
    first_bytes: u64,
    bytes: u64,
    /// Given back, and the peer could still use it.
    promised_bytes: u64,
}

impl Share {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Grows to `wanted_bytes`, or as far as the budget goes. `true` if it grew.
    fn grow(&mut self, wanted_bytes: u64) -> bool {
        let wanted = wanted_bytes
            .min(WINDOW_MAX_BYTES)
            .saturating_sub(self.bytes);
        let total = self.budget.total_bytes;
        let mut given = self.budget.given.lock();
        let more = given.add(total, &self.peer, wanted);
        self.bytes += more;
        more > 0
    }

    /// Gives back what is beyond `wanted_bytes` and what it began with, if that is half of it. `true` if so.
    fn shrink(&mut self, wanted_bytes: u64) -> bool {
        let less = self.unwanted(wanted_bytes);
        self.budget.given.lock().take_back(&self.peer, less);
        self.bytes -= less;
        less > 0
    }

    /// The same where the peer was told what it has: it can still use that until so much more was read.
    fn shrink_promised(&mut self, wanted_bytes: u64) -> bool {
        let less = self.unwanted(wanted_bytes);
        let total = self.budget.total_bytes;
        let mut given = self.budget.given.lock();
        let less = given.take_back_promised(total, &self.peer, less);
        self.bytes -= less;
        self.promised_bytes += less;
        less > 0
    }

    fn unwanted(&self, wanted_bytes: u64) -> u64 {
        let kept = wanted_bytes.max(self.first_bytes);
        let less = self.bytes.saturating_sub(kept);
        if less < self.bytes / 2 { 0 } else { less }
    }

    /// So many bytes were read that the peer has sent: as many of what it was promised are used up.
    fn handle_read(&mut self, bytes: u64) {
        let used = bytes.min(self.promised_bytes);
        if used > 0 {
            self.promised_bytes -= used;
            self.budget.given.lock().keep_promise(&self.peer, used);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut given = self.budget.given.lock();
        given.keep_promise(&self.peer, self.promised_bytes);
        given.take_back(&self.peer, self.bytes);
    }
}

/// Of so much that may be given, what a connection begins with.
fn round(bytes: u64) -> u64 {
    let bytes = bytes.clamp(OFFER_MIN_BYTES, OFFER_MAX_BYTES);
    1 << bytes.ilog2()
}

/// The largest window of one stream on a connection with this much credit.
pub(super) fn of_a_stream(connection_bytes: u64) -> u64 {
    (connection_bytes / STREAMS_PER_WINDOW).min(credit::MAX_BYTES)
}

/// A few times what is on its way when `bytes` arrive in `elapsed`: a window that size is never what holds a path up.
fn wanted(bytes: u64, elapsed: Duration, rtt: Duration) -> u64 {
    let elapsed_us = elapsed.as_micros().max(1);
    let product =
        u128::from(bytes) * u128::from(WINDOWS_PER_PATH) * rtt.max(credit::RTT_MIN).as_micros()
            / elapsed_us;
    u64::try_from(product).unwrap_or(u64::MAX)
}

/// What we may hold for a peer whose path takes `congestion_window_bytes` at once.
fn to_send(congestion_window_bytes: u64) -> u64 {
    congestion_window_bytes.saturating_mul(CONGESTION_WINDOWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: u64 = 256 << 20;

    fn peer(number: usize) -> TrustDomain {
        TrustDomain::parse(&format!("peer-{number}.test")).unwrap()
    }

    #[test]
    fn the_more_is_given_the_less_is_offered_and_never_more_than_there_is() {
        let budget = Budget::new(TOTAL);
        let mut shares = Vec::new();
        let mut last = OFFER_MAX_BYTES;
        for number in 0.. {
            let offer = budget.offer();
            assert!(offer <= last && offer >= OFFER_MIN_BYTES);
            last = offer;
            let Some(share) = budget.give(&peer(number), Rank::First) else {
                break;
            };
            shares.push(share);
        }
        assert_eq!(last, OFFER_MIN_BYTES);
        assert_eq!(shares.iter().map(Share::bytes).sum::<u64>(), TOTAL);
        assert!(shares.len() > 150, "{} connections", shares.len());
        drop(shares);
        assert_eq!(budget.offer(), OFFER_MAX_BYTES);
        assert!(budget.given.lock().to_peers.is_empty());
    }

    #[test]
    fn one_peer_leaves_something_for_the_others() {
        let budget = Budget::new(TOTAL);
        let mut shares = Vec::new();
        while let Some(share) = budget.give(&peer(0), Rank::First) {
            shares.push(share);
        }
        assert_eq!(shares[0].bytes(), OFFER_MAX_BYTES);
        assert!(shares.len() > 80, "{} connections", shares.len());
        assert_eq!(shares.iter().map(Share::bytes).sum::<u64>(), TOTAL / 2);
        assert!(!shares[0].grow(u64::MAX));
        assert!(budget.give(&peer(1), Rank::First).is_some());
        assert!(budget.given.lock().to_peers.len() == 1);
    }

    #[test]
    fn further_connections_leave_their_places_to_first_ones() {
        let budget = Budget::new(TOTAL);
        let further = |number| budget.give(&peer(number), Rank::Further);
        let mut shares: Vec<_> = std::iter::from_fn(|| further(0)).collect();
        let given = shares.iter().map(Share::bytes).sum::<u64>();
        assert_eq!(given, TOTAL / 2 - TOTAL / 2 / RESERVE);
        let first = |number| budget.give(&peer(number), Rank::First);
        let firsts: Vec<_> = std::iter::from_fn(|| first(0)).collect();
        let places = TOTAL / 2 / RESERVE / OFFER_MIN_BYTES;
        assert_eq!(firsts.len() as u64, places);
        // Nor do those of all peers together.
        for number in 1..10 {
            shares.extend(std::iter::from_fn(|| further(number)));
        }
        assert_eq!(budget.given.lock().bytes, TOTAL - TOTAL / RESERVE);
        assert!(first(10).is_some());
    }

    #[test]
    fn a_share_grows_within_its_own_limit_and_the_budget() {
        let budget = Budget::new(2 * TOTAL);
        let mut share = budget.give(&peer(0), Rank::First).unwrap();
        assert_eq!(share.bytes(), OFFER_MAX_BYTES);
        assert!(!share.grow(OFFER_MAX_BYTES));
        // No step takes much of what is left.
        while share.grow(u64::MAX) {}
        assert_eq!(share.bytes(), WINDOW_MAX_BYTES);
        let others: Vec<_> = (1..)
            .map_while(|n| budget.give(&peer(n), Rank::First))
            .collect();
        let mut late = others.into_iter().last().unwrap();
        assert_eq!(late.bytes(), OFFER_MIN_BYTES);
        assert!(late.grow(OFFER_MAX_BYTES));
    }

    #[test]
    fn what_is_given_back_is_there_for_others_and_promises_are_bounded_too() {
        let budget = Budget::new(TOTAL);
        let grown = |number| {
            let mut share = budget.give(&peer(number), Rank::First).unwrap();
            while share.grow(u64::MAX) {}
            share
        };
        let mut share = grown(0);
        let before = share.bytes();
        assert!(!share.shrink_promised(before / 2 + 1), "much of it is used");
        assert!(share.shrink_promised(0));
        assert_eq!(share.bytes(), OFFER_MAX_BYTES);
        assert_eq!(share.promised_bytes, before - OFFER_MAX_BYTES);
        assert_eq!(budget.given.lock().bytes, OFFER_MAX_BYTES);
        // Again and again: it still could use all of it at once.
        let mut shares = vec![share];
        for _ in 0..8 {
            let mut another = grown(0);
            another.shrink_promised(0);
            shares.push(another);
        }
        let promised = shares.iter().map(|share| share.promised_bytes).sum::<u64>();
        assert_eq!(promised, TOTAL / 2);
        // What was read of it is no longer promised.
        shares[0].handle_read(before);
        assert_eq!(shares[0].promised_bytes, 0);
        let left = promised - (before - OFFER_MAX_BYTES);
        assert_eq!(budget.given.lock().promised_bytes, left);
        drop(shares);
        assert_eq!(budget.given.lock().promised_bytes, 0);
        assert!(budget.given.lock().to_peers.is_empty());
    }

    #[test]
    fn a_path_wants_a_few_times_what_is_on_its_way() {
        let tick = Duration::from_millis(200);
        // 1 Gb/s at 100 ms.
        assert_eq!(wanted(25_000_000, tick, tick / 2), 75_000_000);
        assert_eq!(wanted(0, tick, tick), 0);
        assert_eq!(wanted(u64::MAX, Duration::ZERO, tick), u64::MAX);
    }
}
