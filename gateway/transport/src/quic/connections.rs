//! How many connections one gateway of a peer has with us, and which of them its link cannot do without.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use corinth_model::GatewayId;
use parking_lot::Mutex;

use super::{tunnel::Term, window::Rank};

/// Connections of one gateway at once. It needs one for each worker of either side, and others for a while: beside one that
/// expires, or that is silent, and for a moment where it finds that it has one already. One that was replaced counts for as
/// long as there are streams on it, which may be days.
pub const CONNECTIONS_MAX: u32 = 64;
/// So many of them may be further ones. The other places are for first ones, without which there is no link.
pub const FURTHER_CONNECTIONS_MAX: u32 = 56;

/// Which of two gateways has dialled a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialler {
    We,
    Peer,
}

/// The connections of each gateway.
#[derive(Debug, Default)]
pub(super) struct Connections {
    by_gateway: Mutex<BTreeMap<GatewayId, Vec<Known>>>,
    entered: AtomicU64,
}

/// What matters of one connection to others of its gateway.
#[derive(Debug)]
struct Known {
    number: u64,
    dialler: Dialler,
    rank: Rank,
    /// 0 if nothing comes back on it.
    renew_at: u64,
}

impl Connections {
    /// A place for one more connection with `peer`, if there is one. It is the first one if its dialler has no other that
    /// lives and is not about to be replaced.
    pub(super) fn enter(
        self: &Arc<Self>,
        peer: &GatewayId,
        dialler: Dialler,
        term: Term,
        now_unix_seconds: u64,
    ) -> Option<Entered> {
        let mut by_gateway = self.by_gateway.lock();
        let others = by_gateway.entry(peer.clone()).or_default();
        let lasts = |other: &Known| other.dialler == dialler && other.renew_at > now_unix_seconds;
        let rank = if others.iter().any(lasts) {
            Rank::Further
        } else {
            Rank::First
        };
        if !has_place(others, rank) {
            return None;
        }
        let number = self.entered.fetch_add(1, Relaxed);
        others.push(Known {
            number,
            dialler,
            rank,
            renew_at: term.renew_at,
        });
        drop(by_gateway);
        Some(Entered {
            connections: Arc::clone(self),
            peer: peer.clone(),
            rank,
            number,
        })
    }
}

/// Whether there is one more place for a connection of this rank.
fn has_place(others: &[Known], rank: Rank) -> bool {
    let further = others.iter().filter(|other| other.rank == Rank::Further);
    let is_left = match rank {
        Rank::First => true,
        Rank::Further => further.count() < FURTHER_CONNECTIONS_MAX as usize,
    };
    is_left && others.len() < CONNECTIONS_MAX as usize
}

/// One of the connections of a gateway; given back when dropped.
#[derive(Debug)]
pub(super) struct Entered {
    connections: Arc<Connections>,
    peer: GatewayId,
    pub(super) rank: Rank,
    number: u64,
}

impl Entered {
    /// Nothing comes back on it: whoever dials after it may well be its successor.
    pub(super) fn set_dead(&self) {
        let mut by_gateway = self.connections.by_gateway.lock();
        let others = by_gateway.get_mut(&self.peer).into_iter().flatten();
        for known in others.filter(|known| known.number == self.number) {
            known.renew_at = 0;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut by_gateway = self.connections.by_gateway.lock();
        if let Some(others) = by_gateway.get_mut(&self.peer) {
            others.retain(|known| known.number != self.number);
            if others.is_empty() {
                by_gateway.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use corinth_model::{Slot, TrustDomain};

    use super::*;

    const NOW: u64 = 1_000_000;
    const DAY: u64 = 86_400;

    fn gateway() -> GatewayId {
        GatewayId {
            trust_domain: TrustDomain::parse("peer.test").unwrap(),
            slot: Slot::parse("0").unwrap(),
        }
    }

    #[test]
    fn each_side_has_a_first_connection_and_so_has_its_successor() {
        let connections = Arc::<Connections>::default();
        let enter = |dialler, now| {
            let term = Term::of(NOW + DAY, NOW);
            connections.enter(&gateway(), dialler, term, now).unwrap()
        };
        let first = enter(Dialler::We, NOW);
        let further = enter(Dialler::We, NOW);
        let peers = enter(Dialler::Peer, NOW);
        let ranks = [&first, &further, &peers].map(|entered| entered.rank);
        assert_eq!(ranks, [Rank::First, Rank::Further, Rank::First]);
        // When it is time to replace them, none of them counts.
        assert_eq!(enter(Dialler::We, NOW + DAY).rank, Rank::First);
        // Nor does one whose gateway is silent.
        assert_eq!(enter(Dialler::Peer, NOW).rank, Rank::Further);
        peers.set_dead();
        assert_eq!(enter(Dialler::Peer, NOW).rank, Rank::First);
        drop((first, further));
        assert_eq!(enter(Dialler::We, NOW).rank, Rank::First);
        drop(peers);
        assert!(connections.by_gateway.lock().is_empty());
    }

    #[test]
    fn further_connections_leave_places_to_first_ones_and_there_are_so_many_for_both() {
        let connections = Arc::<Connections>::default();
        let enter = |dialler| {
            let term = Term::of(NOW + DAY, NOW);
            connections.enter(&gateway(), dialler, term, NOW)
        };
        let mut entered: Vec<_> = std::iter::from_fn(|| enter(Dialler::Peer)).collect();
        assert_eq!(entered.len(), 1 + FURTHER_CONNECTIONS_MAX as usize);
        // Our own first one, and a successor of each whose path has died.
        entered.push(enter(Dialler::We).unwrap());
        while entered.len() < CONNECTIONS_MAX as usize {
            for one in &entered {
                one.set_dead();
            }
            let first = enter(Dialler::Peer).unwrap();
            assert_eq!(first.rank, Rank::First);
            entered.push(first);
        }
        assert!(enter(Dialler::We).is_none());
        entered.pop();
        assert!(enter(Dialler::We).is_some());
    }

    #[test]
    fn a_place_given_back_by_a_further_connection_is_there_for_another_one() {
        let connections = Arc::<Connections>::default();
        let term = Term::of(NOW + DAY, NOW);
        let enter = || connections.enter(&gateway(), Dialler::Peer, term, NOW);
        let mut entered: Vec<_> = std::iter::from_fn(enter).collect();
        assert!(enter().is_none());
        entered.pop();
        assert_eq!(enter().unwrap().rank, Rank::Further);
    }
}
