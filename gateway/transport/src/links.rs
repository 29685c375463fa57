//! The links of one transport, by the gateway they lead to.

use std::{collections::BTreeMap, sync::Arc};

use corinth_model::{GatewayId, TrustDomain};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::Link;

/// The links of one transport, at most one for each gateway.
pub(crate) struct Links<L> {
    links: Mutex<BTreeMap<GatewayId, Arc<L>>>,
    /// True once we asked our peers to open no more streams.
    draining: watch::Sender<bool>,
    changes: watch::Sender<u64>,
}

impl<L> Default for Links<L> {
    fn default() -> Self {
        Self {
            links: Mutex::default(),
            draining: watch::Sender::new(false),
            changes: watch::Sender::new(0),
        }
    }
}

impl<L: Link + 'static> Links<L> {
    /// The link to the gateway `peer`, if there is one.
    pub(crate) fn get(&self, peer: &GatewayId) -> Option<Arc<L>> {
        self.links.lock().get(peer).map(Arc::clone)
    }

    /// The link to the gateway `peer`, made if there is none.
    pub(crate) fn get_or_make(&self, peer: &GatewayId, make: impl FnOnce() -> Arc<L>) -> Arc<L> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(peer) {
            return Arc::clone(link);
        }
        let link = make();
        links.insert(peer.clone(), Arc::clone(&link));
        drop(links);
        self.changed();
        link
    }

    /// A closed link is remembered no more; the next connection of that gateway makes a new one.
    pub(crate) fn forget(&self, peer: &GatewayId) {
        self.links.lock().remove(peer);
        self.changed();
    }

    /// Every one.
    pub(crate) fn all(&self) -> Vec<Arc<dyn Link>> {
        let links = self.links.lock();
        let links = links.values();
        links
            .map(|link| Arc::clone(link) as Arc<dyn Link>)
            .collect()
    }

    /// Those to the gateways of one trust domain.
    pub(crate) fn to(&self, trust_domain: &TrustDomain) -> Vec<Arc<dyn Link>> {
        let links = self.links.lock();
        links
            .iter()
            .filter(|(gateway, _)| gateway.trust_domain == *trust_domain)
            .map(|(_, link)| Arc::clone(link) as Arc<dyn Link>)
            .collect()
    }

    /// Changes whenever a link is made, lost or changes its state.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A link has changed its state.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Asks every peer to open no more streams, those linked later too.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
        for link in self.all() {
            link.drain();
        }
    }

    /// Ends those to one trust domain and every stream on them.
    pub(crate) fn close_to(&self, trust_domain: &TrustDomain) {
        for link in self.to(trust_domain) {
            link.close();
        }
    }

    /// Ends every one and every stream.
    pub(crate) fn close(&self) {
        for link in self.all() {
            link.close();
        }
    }
}
