//! Counts the streams and flows that peers have open here, and remembers each until it is given back.

use std::hash::Hash;
use std::sync::Arc;

use corinth_model::{ClusterName, Protocol};
use indexmap::{Equivalent, IndexMap};

use crate::key::{KeyRef, RouteKey};

/// The right to one open stream; worth nothing once it was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PermitId {
    slot: u32,
    generation: u32,
}

/// The streams of one peer, or of direct clients, to one export.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    /// `None`: clients without a tunnel.
    pub(crate) peer: Option<ClusterName>,
    pub(crate) route: RouteKey,
}

#[derive(Debug, Clone, Copy, Hash)]
struct LaneRef<'a> {
    peer: Option<&'a ClusterName>,
    route: KeyRef<'a>,
}

impl Equivalent<Arc<Lane>> for LaneRef<'_> {
    fn equivalent(&self, lane: &Arc<Lane>) -> bool {
        self.peer == lane.peer.as_ref() && self.route.equivalent(&lane.route)
    }
}

#[derive(Debug, Default)]
struct Slot {
    /// Goes up each time the slot is given back, so that an old permit is not mistaken for the new one.
    generation: u32,
    lane: Option<Arc<Lane>>,
}

/// All open permits. Granting and returning one takes constant time and copies no name while the lane
/// is known.
#[derive(Debug, Default)]
pub(crate) struct Permits {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    lanes: Meter<Arc<Lane>>,
    peers: Meter<ClusterName>,
    flows: Meter<ClusterName>,
    exports: Meter<RouteKey>,
}

impl Permits {
    /// Streams of a peer.
    pub(crate) fn open_from(&self, peer: &ClusterName) -> u32 {
        self.peers.value(peer)
    }

    /// Flows of a peer.
    pub(crate) fn flows_from(&self, peer: &ClusterName) -> u32 {
        self.flows.value(peer)
    }

    pub(crate) fn open_to(&self, route: KeyRef<'_>) -> u32 {
        self.exports.value(&route)
    }

    /// Lanes with at least one open stream.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().map(|(lane, _)| &**lane)
    }

    /// `None` if 2³² streams are open.
    pub(crate) fn grant(
        &mut self,
        peer: Option<&ClusterName>,
        route: KeyRef<'_>,
    ) -> Option<PermitId> {
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot::default());
                slot
            }
        };
        let lane = self.lanes.add(&LaneRef { peer, route }, || {
            Arc::new(Lane {
                peer: peer.cloned(),
                route: route.to_owned(),
            })
        });
        let lane = Arc::clone(lane);
        if let Some(peer) = peer {
            let protocol = lane.route.protocol();
            self.of(protocol).add(peer, || peer.clone());
        }
        self.exports.add(&route, || route.to_owned());
        let entry = &mut self.slots[slot as usize];
        entry.lane = Some(lane);
        Some(PermitId {
            slot,
            generation: entry.generation,
        })
    }

    /// Whether the permit was still open.
    pub(crate) fn give_back(&mut self, permit: PermitId) -> bool {
        let slot = self.slots.get_mut(permit.slot as usize);
        let Some(slot) = slot.filter(|slot| slot.generation == permit.generation) else {
            return false;
        };
        let Some(lane) = slot.lane.take() else {
            return false;
        };
        slot.generation = slot.generation.wrapping_add(1);
        self.vacant.push(permit.slot);
        if let Some(peer) = &lane.peer {
            let protocol = lane.route.protocol();
            self.of(protocol).subtract(peer);
        }
        self.exports.subtract(&lane.route);
        self.lanes.subtract(&lane);
        true
    }

    /// What counts the peers' streams, or their flows.
    fn of(&mut self, protocol: Protocol) -> &mut Meter<ClusterName> {
        match protocol {
            Protocol::Tcp => &mut self.peers,
            Protocol::Udp => &mut self.flows,
        }
    }

    /// Forgets the lanes, peers and exports that nothing is open on.
    pub(crate) fn prune(&mut self) {
        self.lanes.prune();
        self.peers.prune();
        self.flows.prune();
        self.exports.prune();
    }

    /// Panics if the counters disagree with the open permits.
    pub(crate) fn check(&self) {
        let open = self.slots.iter().filter(|slot| slot.lane.is_some()).count();
        assert_eq!(
            open + self.vacant.len(),
            self.slots.len(),
            "a slot is neither open nor vacant"
        );
        let open = open as u64;
        assert_eq!(
            self.lanes.total(),
            open,
            "the lanes do not add up to the open permits"
        );
        assert_eq!(
            self.exports.total(),
            open,
            "the exports do not add up to the open permits"
        );
        let streams = self.peers.iter().map(|count| (count, Protocol::Tcp));
        let flows = self.flows.iter().map(|count| (count, Protocol::Udp));
        for ((peer, count), protocol) in streams.chain(flows) {
            let lanes = self.lanes.iter();
            let of_peer = lanes.filter(|(lane, _)| {
                lane.peer.as_ref() == Some(peer) && lane.route.protocol() == protocol
            });
            let lanes: u32 = of_peer.map(|(_, count)| count).sum();
            assert_eq!(
                lanes, count,
                "{peer}: its lanes do not add up to its permits"
            );
        }
    }
}

/// Counts by key; a key that fell to zero stays until the next pruning, so that a key in steady use is
/// not made anew for each stream.
#[derive(Debug)]
struct Meter<K>(IndexMap<K, u32>);

impl<K> Default for Meter<K> {
    fn default() -> Self {
        Self(IndexMap::new())
    }
}

impl<K: Hash + Eq> Meter<K> {
    fn value<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> u32 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Adds one; the key in use, made with `own` if it is new.
    fn add<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q, own: impl FnOnce() -> K) -> &K {
        let index = match self.0.get_index_of(key) {
            Some(index) => index,
            None => self.0.insert_full(own(), 0).0,
        };
        let (key, count) = self
            .0
            .get_index_mut(index)
            .expect("the index was just found");
        *count += 1;
        key
    }

    fn subtract<Q: Hash + Equivalent<K> + ?Sized>(&mut self, key: &Q) {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&K, u32)> {
        let used = self.0.iter().filter(|(_, count)| **count > 0);
        used.map(|(key, count)| (key, *count))
    }

    fn prune(&mut self) {
        self.0.retain(|_, count| *count > 0);
    }

    fn total(&self) -> u64 {
        self.0.values().map(|count| u64::from(*count)).sum()
    }
}
