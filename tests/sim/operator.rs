//! What operators tell their clusters, and the peace that comes in the end.

use std::time::Duration;

use corinth_api::peering::Farewell;
use corinth_model::{Accepted, ServiceId};

use crate::watch::Cause;
use crate::world::{Event, World};

impl World {
    /// A new side of a link begins.
    pub(crate) fn begin(&mut self, cluster: usize, peer: usize) {
        self.clusters[cluster].begin(peer, self.now, &mut self.rng);
        self.settle(cluster, peer, &Cause::Other);
    }

    /// A side of a link is taken away, with a word to the other.
    pub(crate) fn unlink(&mut self, cluster: usize, peer: usize) {
        if let Some(side) = self.running_side(cluster, peer) {
            side.relation.goodbye(Farewell::Unlinked);
            self.settle(cluster, peer, &Cause::Other);
        }
        let Some(side) = self.clusters[cluster].peers.remove(&peer) else {
            return;
        };
        for service in side.watch.names() {
            self.clusters[cluster].route(&service);
        }
        let streams = self.network.streams.iter();
        let streams = streams.filter(|(_, one)| {
            let is_theirs = one.sides == [cluster, peer] || one.sides == [peer, cluster];
            is_theirs && one.is_open[one.side(cluster)]
        });
        let streams: Vec<u64> = streams.map(|(id, _)| *id).collect();
        for stream in streams {
            self.end(stream, cluster);
        }
    }

    /// A cluster may dial a peer from now on.
    pub(crate) fn dial_soon(&mut self, cluster: usize, peer: usize) {
        let at = self.now + self.delay();
        if let Some(side) = self.running_side(cluster, peer) {
            side.dial_at = Some(at);
            self.schedule(at, Event::Dial { cluster, peer });
        }
    }

    /// What a cluster declares has changed: it tells whom it concerns.
    pub(crate) fn declare(&mut self, cluster: usize, service: &ServiceId) {
        let one = &mut self.clusters[cluster];
        one.version.revision += 1;
        one.route(service);
        if !one.is_running || one.is_liar {
            return;
        }
        let (version, unix_ms) = (one.version, one.unix_ms(self.now));
        let peers: Vec<usize> = one.peers.keys().copied().collect();
        for peer in peers {
            let one = &mut self.clusters[cluster];
            let offers = one.offers_to(peer);
            if let Some(side) = one.peers.get_mut(&peer) {
                side.relation.set_offers(offers, version, unix_ms);
            }
            self.settle(cluster, peer, &Cause::Other);
        }
    }

    /// A cluster accepts this of a peer from now on.
    pub(crate) fn accept(&mut self, cluster: usize, peer: usize, accepted: Accepted) {
        let Some(side) = self.clusters[cluster].peers.get_mut(&peer) else {
            return;
        };
        side.accepted = accepted;
        if let Some(side) = self.running_side(cluster, peer) {
            side.relation
                .set_accepted(side.accepted.clone(), side.quota);
            side.watch.accept(&side.relation, &side.accepted);
            self.settle(cluster, peer, &Cause::Other);
        }
    }

    /// Chaos is over: networks heal, processes run, the liar is silent, half links are taken away. After some time
    /// nothing is left to be said.
    pub(crate) fn come_to_rest(&mut self) {
        self.network.heal();
        self.repeats = false;
        self.drops = None;
        if let Some(liar) = &mut self.liar {
            liar.is_silent = true;
        }
        self.run(Duration::from_secs(60));
        crate::chaos::tidy_up(self);
        self.run(Duration::from_secs(240));
        if self.rng.u8(..4) == 0 {
            // What was left out goes by itself, the last of it after an hour.
            self.run(Duration::from_secs(70 * 60));
        } else {
            self.confirm_everything();
            self.run(Duration::from_secs(60));
        }
    }

    fn confirm_everything(&mut self) {
        for cluster in 0..self.clusters.len() {
            let peers: Vec<usize> = self.clusters[cluster].peers.keys().copied().collect();
            for peer in peers {
                if let Some(side) = self.running_side(cluster, peer) {
                    side.relation.confirm_stale();
                    self.settle(cluster, peer, &Cause::Confirmed);
                }
            }
        }
    }
}
