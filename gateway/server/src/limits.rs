//! What those who have not proved who they are may hold: a fixed number of connections, and so of bytes.
//!
//! Each such connection holds at most [`HALF_OPEN_MAX_BYTES`], so the number bounds the memory as well.
//! Addresses from which a peer has authenticated lately keep a reserved share, so that a flood from
//! elsewhere does not lock linked peers out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The most one connection holds before it is authenticated: ClientHello, handshake buffers, rustls.
pub(crate) const HALF_OPEN_MAX_BYTES: usize = 32 << 10;
/// An address stays verified for this long after a peer authenticated from it.
const VERIFIED_FOR: Duration = Duration::from_secs(600);
/// Verified addresses remembered at most.
const VERIFIED_MAX: usize = 4_096;
/// The share of connections kept for verified addresses, in hundredths.
const RESERVED_PERCENT: u32 = 25;

/// Counts the connections that have not proved who they are.
pub(crate) struct HalfOpen {
    limits: HalfOpenLimits,
    state: Mutex<State>,
}

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HalfOpenLimits {
    /// In all.
    pub(crate) connections: u32,
    /// From one source prefix: one IPv4 address, or one IPv6 /64.
    pub(crate) per_prefix: u32,
}

impl HalfOpenLimits {
    /// So many connections that their bytes stay below `bytes` as well.
    pub(crate) fn within(connections: u32, per_prefix: u32, bytes: u64) -> Self {
        let by_bytes = u32::try_from(bytes / HALF_OPEN_MAX_BYTES as u64).unwrap_or(u32::MAX);
        Self {
            connections: connections.min(by_bytes.max(1)),
            per_prefix,
        }
    }
}

#[derive(Default)]
struct State {
    open: u32,
    by_prefix: BTreeMap<IpAddr, u32>,
    verified: BTreeMap<IpAddr, Instant>,
}

/// One place among them, given back when dropped.
pub(crate) struct Place {
    counts: Arc<HalfOpen>,
    prefix: IpAddr,
}

impl HalfOpen {
    pub(crate) fn new(limits: HalfOpenLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
        })
    }

    /// A place for a connection from `source`, if there is one.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr, now: Instant) -> Option<Place> {
        let prefix = prefix_of(source);
        let mut state = self.state.lock();
        let is_verified = state
            .verified
            .get(&prefix)
            .is_some_and(|until| *until > now);
        let reserved = self.limits.connections * RESERVED_PERCENT / 100;
        let limit = self.limits.connections - if is_verified { 0 } else { reserved };
        let held = state.by_prefix.get(&prefix).copied().unwrap_or(0);
        let is_within_prefix = is_verified || held < self.limits.per_prefix;
        if state.open >= limit || !is_within_prefix {
            return None;
        }
        state.open += 1;
        *state.by_prefix.entry(prefix).or_insert(0) += 1;
        drop(state);
        Some(Place {
            counts: Arc::clone(self),
            prefix,
        })
    }

    /// A peer authenticated from this address.
    pub(crate) fn verified(&self, source: IpAddr, now: Instant) {
        let mut state = self.state.lock();
        if state.verified.len() >= VERIFIED_MAX {
            state.verified.retain(|_, until| *until > now);
        }
        if state.verified.len() < VERIFIED_MAX {
            state.verified.insert(prefix_of(source), now + VERIFIED_FOR);
        }
    }

    /// How many there are now.
    pub(crate) fn open(&self) -> u32 {
        self.state.lock().open
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.counts.state.lock();
        state.open -= 1;
        if let Some(held) = state.by_prefix.get_mut(&self.prefix) {
            *held -= 1;
            if *held == 0 {
                state.by_prefix.remove(&self.prefix);
            }
        }
    }
}

/// One IPv4 address, or one IPv6 /64, which is what one host can be expected to own.
pub(crate) fn prefix_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HalfOpenLimits = HalfOpenLimits {
        connections: 8,
        per_prefix: 3,
    };

    fn enter_all(counts: &Arc<HalfOpen>, sources: &[&str], now: Instant) -> Vec<Option<Place>> {
        sources
            .iter()
            .map(|source| counts.enter(source.parse().unwrap(), now))
            .collect()
    }

    #[test]
    fn one_prefix_gets_its_share_and_no_more() {
        let (counts, now) = (HalfOpen::new(LIMITS), Instant::now());
        let same_64 = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"];
        let places = enter_all(&counts, &same_64, now);
        assert_eq!(places.iter().flatten().count(), 3);
        assert!(
            counts
                .enter("2001:db8:0:1::1".parse().unwrap(), now)
                .is_some()
        );
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let (counts, now) = (HalfOpen::new(LIMITS), Instant::now());
        let places = enter_all(&counts, &["10.0.0.1"; 3], now);
        assert!(counts.enter("10.0.0.1".parse().unwrap(), now).is_none());
        drop(places);
        assert_eq!(counts.open(), 0);
        assert!(counts.enter("10.0.0.1".parse().unwrap(), now).is_some());
    }

    #[test]
    fn a_flood_from_elsewhere_leaves_verified_addresses_their_reserve() {
        let (counts, now) = (HalfOpen::new(LIMITS), Instant::now());
        counts.verified("10.9.9.9".parse().unwrap(), now);
        let flood: Vec<String> = (0..50).map(|host| format!("10.0.0.{host}")).collect();
        let flood: Vec<&str> = flood.iter().map(String::as_str).collect();
        let places = enter_all(&counts, &flood, now);
        assert_eq!(places.iter().flatten().count(), 6);
        assert!(counts.enter("10.9.9.9".parse().unwrap(), now).is_some());
        assert!(
            counts
                .enter("10.9.9.9".parse().unwrap(), now + VERIFIED_FOR)
                .is_none(),
            "the reserve is for addresses verified lately"
        );
    }
}
