//! Which peers we want links to, and how those links are.

use std::collections::{BTreeMap, VecDeque};

use corinth_model::{ClusterName, Peer, TrustDomain};

use crate::event::Action;

/// The state of the link to a peer, over all of its gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// At least one gateway of the peer takes streams.
    Up,
    /// No gateway of the peer can be reached; also before the first was.
    Down,
    /// Every gateway of the peer is about to stop.
    Draining,
}

#[derive(Debug)]
struct Link {
    trust_domain: TrustDomain,
    state: LinkState,
}

/// The links the tables want, by cluster.
#[derive(Debug, Default)]
pub(crate) struct Links {
    links: BTreeMap<ClusterName, Link>,
}

impl Links {
    /// Takes over the peers of new tables and says what that changes: new links first, then the old.
    pub(crate) fn want(
        &mut self,
        peers: &BTreeMap<ClusterName, Peer>,
        actions: &mut VecDeque<Action>,
    ) {
        let mut drains = Vec::new();
        self.links.retain(|cluster, link| {
            let peer = peers.get(cluster);
            let keep = peer.is_some_and(|peer| peer.trust_domain == link.trust_domain);
            if !keep {
                let drain = Action::Drain {
                    peer: cluster.clone(),
                    trust_domain: link.trust_domain.clone(),
                };
                // A peer under a new identity: its old link goes first, or the two are confused.
                if peer.is_some() {
                    actions.push_back(drain);
                } else {
                    drains.push(drain);
                }
            }
            keep
        });
        for (cluster, peer) in peers {
            if self.links.contains_key(cluster) {
                continue;
            }
            let link = Link {
                trust_domain: peer.trust_domain.clone(),
                state: LinkState::Down,
            };
            self.links.insert(cluster.clone(), link);
            actions.push_back(Action::Dial {
                peer: cluster.clone(),
                trust_domain: peer.trust_domain.clone(),
            });
        }
        actions.extend(drains);
    }

    /// The state before; `None` if the peer is not linked.
    pub(crate) fn set(&mut self, peer: &ClusterName, state: LinkState) -> Option<LinkState> {
        let link = self.links.get_mut(peer)?;
        Some(std::mem::replace(&mut link.state, state))
    }

    pub(crate) fn is_up(&self, peer: &ClusterName) -> bool {
        let link = self.links.get(peer);
        link.is_some_and(|link| link.state == LinkState::Up)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ClusterName, LinkState)> {
        self.links
            .iter()
            .map(|(cluster, link)| (cluster, link.state))
    }

    /// Panics if the links are not exactly those of the tables.
    pub(crate) fn check(&self, peers: &BTreeMap<ClusterName, Peer>) {
        let links = self.links.iter();
        let links = links.map(|(cluster, link)| (cluster, &link.trust_domain));
        let peers = peers.iter();
        let peers = peers.map(|(cluster, peer)| (cluster, &peer.trust_domain));
        assert!(links.eq(peers), "the links are not those of the tables");
    }
}
