//! How many connections one gateway of a peer has with us.

use std::{collections::BTreeMap, sync::Arc};

use corinth_model::GatewayId;
use parking_lot::Mutex;

/// Connections of one gateway at once. It needs one for each worker of either side, and others for a while: beside one that
/// expires, or that is silent, and for a moment where it finds that it has one already. One that was replaced counts for as
/// long as there are streams on it, which may be days.
pub const CONNECTIONS_MAX: u32 = 64;

/// Counts the connections of each gateway.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<BTreeMap<GatewayId, u32>>);

impl Connections {
    /// A place for one more connection with `peer`, if there is one.
    pub(super) fn enter(self: &Arc<Self>, peer: &GatewayId) -> Option<Entered> {
        let mut counts = self.0.lock();
        let count = counts.entry(peer.clone()).or_insert(0);
        if *count >= CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Entered {
            connections: Arc::clone(self),
            peer: peer.clone(),
        })
    }
}

/// One of the connections of a gateway; given back when dropped.
#[derive(Debug)]
pub(super) struct Entered {
    connections: Arc<Connections>,
    peer: GatewayId,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.connections.0.lock();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}
