//! Datagrams that begin connections: how many of them are looked at, before anything is deciphered.
//!
//! Who sends them need not be who it says it is, and what is done for each, its keys to begin with, takes far longer than to
//! receive one. So a socket takes so many in a time and no more. The rest is lost, as on any network, and who means it comes
//! again. They are counted in three kinds, so that none of them stands in the way of another: from where a peer has come of
//! late, with a Retry token, and all others.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::RwLock;

use super::ids::{LONG_HEADER, VERSION};

/// A socket takes [`TAKEN_MAX`] of each kind in so much time: short, so that what is established never waits for many.
const WINDOW: Duration = Duration::from_millis(10);
/// Two thousand in a second of one kind take less than a tenth of a slow core.
const TAKEN_MAX: u32 = 20;
/// An address stays known for this long after a peer has come from there.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// Addresses that are known at most.
const KNOWN_MAX: usize = 4_096;

/// What a datagram says for itself that begins a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has been asked to show its address, and has something to show.
    Token,
    /// Nothing. Or it is of a version for which it has to be told ours.
    None,
}

impl Claim {
    /// What this datagram says, if it may begin a connection.
    pub(super) fn of(datagram: &[u8]) -> Option<Self> {
        /// The bits of the type of a long header: 0 is Initial (RFC 9000 §17.2).
        const TYPE: u8 = 0x30;
        let (first, rest) = datagram.split_first()?;
        if first & LONG_HEADER == 0 {
            return None;
        }
        if !rest.starts_with(&VERSION.to_be_bytes()) {
            return Some(Self::None);
        }
        if first & TYPE != 0 {
            return None;
        }
        let mut rest = rest.get(4..)?;
        for _ in ["destination", "source"] {
            let (length, id) = rest.split_first()?;
            rest = id.get(usize::from(*length)..)?;
        }
        // The length of the token.
        Some(match rest.first()? {
            0 => Self::None,
            _ => Self::Token,
        })
    }
}

/// Who is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    FromPeer,
    WithToken,
    Other,
}

/// Addresses from which peers have come of late, and how many beginnings were lost.
#[derive(Debug, Default)]
pub(super) struct Origins {
    known: RwLock<BTreeMap<IpAddr, Instant>>,
    lost: AtomicU64,
}

impl Origins {
    /// A peer has proved itself from there.
    pub(super) fn learn(&self, source: IpAddr, now: Instant) {
        let mut known = self.known.write();
        if known.len() >= KNOWN_MAX {
            known.retain(|_, until| *until > now);
        }
        let source = source.to_canonical();
        if known.len() < KNOWN_MAX || known.contains_key(&source) {
            known.insert(source, now + KNOWN_FOR);
        }
    }

    /// A peer is there, at the address that `source` names. Goes on for as long as it is polled.
    pub(super) async fn keep(&self, source: impl Fn() -> IpAddr) -> Infallible {
        loop {
            self.learn(source(), tokio::time::Instant::now().into_std());
            tokio::time::sleep(KNOWN_FOR / 2).await;
        }
    }

    /// Datagrams that began a connection and were not looked at.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    fn is_known(&self, source: IpAddr, now: Instant) -> bool {
        let known = self.known.read();
        let until = known.get(&source.to_canonical());
        until.is_some_and(|until| *until > now)
    }
}

/// What one socket has taken of late.
#[derive(Debug)]
pub(super) struct Beginnings {
    since: Instant,
    /// Of each kind.
    taken: [u32; 3],
}

impl Beginnings {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            taken: [0; 3],
        }
    }

    /// Whether one more from `source` is looked at.
    pub(super) fn take(
        &mut self,
        claim: Claim,
        source: IpAddr,
        origins: &Origins,
        now: Instant,
    ) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        // An address can be made up: who has a token is not bound to the share of peers.
        let is_known = origins.is_known(source, now);
        let is_taken = is_known && self.takes(Kind::FromPeer)
            || match claim {
                Claim::Token => self.takes(Kind::WithToken),
                Claim::None => !is_known && self.takes(Kind::Other),
            };
        if !is_taken {
            origins.lost.fetch_add(1, Relaxed);
        }
        is_taken
    }

    fn takes(&mut self, kind: Kind) -> bool {
        let taken = match kind {
            Kind::FromPeer => &mut self.taken[0],
            Kind::WithToken => &mut self.taken[1],
            Kind::Other => &mut self.taken[2],
        };
        let has_room = *taken < TAKEN_MAX;
        *taken += u32::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// A long header with IDs of two and three bytes, and what follows them.
    fn long(first: u8, version: u32, rest: &[u8]) -> Vec<u8> {
        let mut datagram = vec![first];
        datagram.extend(version.to_be_bytes());
        datagram.extend([2, 9, 9, 3, 9, 9, 9]);
        datagram.extend(rest);
        datagram
    }

    #[test]
    fn only_what_may_begin_a_connection_claims_something() {
        for (datagram, expected) in [
            (long(0xc3, VERSION, &[0, 0x44]), Some(Claim::None)),
            (long(0xc3, VERSION, &[0x40, 0x44]), Some(Claim::Token)),
            // The fixed bit may be anything (RFC 9287).
            (long(0x83, VERSION, &[0]), Some(Claim::None)),
            (long(0xe3, VERSION, &[0]), None),
            (long(0xd3, VERSION, &[0]), None),
            (long(0xf3, VERSION, &[0]), None),
            (long(0xe3, 0x6b33_43cf, &[0]), Some(Claim::None)),
            (long(0x43, VERSION, &[0]), None),
            (long(0xc3, VERSION, &[]), None),
            (vec![0xc0, 0, 0, 0, 1, 20, 1], None),
            (vec![], None),
        ] {
            assert_eq!(Claim::of(&datagram), expected, "{datagram:x?}");
        }
    }

    #[test]
    fn none_of_the_three_kinds_stands_in_the_way_of_another() {
        let mut now = Instant::now();
        let origins = Origins::default();
        origins.learn(PEER, now);
        let mut beginnings = Beginnings::new(now);
        let kinds = [
            (Claim::None, STRANGER),
            (Claim::Token, STRANGER),
            (Claim::None, PEER),
        ];
        for round in 1..=2 {
            for (claim, source) in kinds {
                for _ in 0..TAKEN_MAX {
                    assert!(beginnings.take(claim, source, &origins, now), "{claim:?}");
                }
                assert!(!beginnings.take(claim, source, &origins, now), "{claim:?}");
            }
            assert_eq!(origins.lost(), 3 * round);
            now += WINDOW;
        }
    }

    #[test]
    fn who_pretends_to_be_a_peer_does_not_take_what_peers_have_for_their_tokens() {
        let now = Instant::now();
        let origins = Origins::default();
        origins.learn(PEER, now);
        let mut beginnings = Beginnings::new(now);
        while beginnings.take(Claim::None, PEER, &origins, now) {}
        assert!(beginnings.take(Claim::Token, PEER, &origins, now));
        assert!(beginnings.take(Claim::None, STRANGER, &origins, now));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_stays_known_for_as_long_as_a_peer_is_there() {
        let origins = Origins::default();
        let there = origins.keep(|| PEER);
        let hours = tokio::time::sleep(KNOWN_FOR * 20);
        tokio::select! {
            never = there => match never {},
            () = hours => {}
        }
        let now = tokio::time::Instant::now().into_std();
        assert!(origins.is_known(PEER, now));
    }

    #[test]
    fn an_address_is_known_for_a_while_however_it_is_written() {
        let now = Instant::now();
        let origins = Origins::default();
        let IpAddr::V4(v4) = PEER else {
            unreachable!("it is one");
        };
        origins.learn(v4.to_ipv6_mapped().into(), now);
        assert!(origins.is_known(PEER, now));
        assert!(origins.is_known(v4.to_ipv6_mapped().into(), now));
        assert!(!origins.is_known(STRANGER, now));
        assert!(!origins.is_known(PEER, now + KNOWN_FOR));
    }
}
