//! The memory transport: gateways of one process joined by name, for tests and the simulation.
//!
//! A [`MemoryNetwork`] knows which gateway answers at which address. A dial makes one link on each side;
//! the two share a `Path`, which carries every stream between the two gateways and can be
//! made to fail: black (nothing passes, nobody is told), severed (every connection is cut), or one
//! gateway killed. A stream is a `Wire`: two directions with a bounded buffer each.
//!
//! ```text
//! write half ── queued ── flush ──> travelling ── path not black ──> arrived ── fill ──> read half
//! ```
//!
//! Nothing here is random and nothing looks at a clock other than tokio's, so that a run on one worker
//! with paused time repeats exactly. Streams are multiplexed: a link is one connection, however many
//! streams it carries.

mod datagram;
mod link;
mod path;
mod stream;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_api::StreamOpen;
use corinth_model::{Failure, GatewayId};
use parking_lot::Mutex;
use tokio::{runtime, time::timeout};

pub(crate) use self::{
    datagram::MemoryDatagrams,
    stream::{MemoryReadHalf, MemoryStream, MemoryWriteHalf},
};
use self::{link::MemoryLink, path::Path, wire::Wire};
use crate::{
    BoxFuture, DialError, DialTarget, Link, LinkState, Stream, StreamSink, Transport, TransportKind,
};

/// How long the network takes to notice things, in tokio's time.
#[derive(Debug, Clone, Copy)]
pub struct MemoryTimeouts {
    /// A dial on a black path gives up after this long.
    pub connect: Duration,
    /// Between two liveness probes; four in a row unanswered make a link dead.
    pub probe_interval: Duration,
    /// Streams on a path that is black for this long are cut.
    pub unacknowledged: Duration,
}

impl Default for MemoryTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            probe_interval: Duration::from_millis(200),
            unacknowledged: Duration::from_secs(10),
        }
    }
}

/// Gateways joined in one process, and the faults between them. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    timeouts: MemoryTimeouts,
    map: Mutex<Map>,
}

#[derive(Default)]
struct Map {
    gateways: BTreeMap<GatewayId, Weak<Gateway>>,
    /// Who answers where. More than one gateway at an address take turns, as behind a load balancer.
    addresses: BTreeMap<SocketAddr, VecDeque<GatewayId>>,
    /// By the two gateways, the smaller first. A path outlives its links: a fault on it stays.
    paths: BTreeMap<(GatewayId, GatewayId), Arc<Path>>,
}

/// One gateway of the network. It leaves the network when this is dropped, as if killed.
pub struct MemoryTransport {
    gateway: Arc<Gateway>,
}

/// What every link of one gateway holds on to.
struct Gateway {
    id: GatewayId,
    network: Arc<Shared>,
    sink: Arc<dyn StreamSink>,
    /// Where the streams of peers are served.
    worker: runtime::Handle,
    links: Mutex<BTreeMap<GatewayId, Arc<MemoryLink>>>,
    is_draining: AtomicBool,
    is_gone: AtomicBool,
}

impl MemoryNetwork {
    /// An empty network.
    pub fn new(timeouts: MemoryTimeouts) -> Self {
        Self {
            shared: Arc::new(Shared {
                timeouts,
                map: Mutex::default(),
            }),
        }
    }

    /// Adds a gateway that answers at `address` and hands the streams of its peers to `sink`, each on a
    /// task of the calling runtime. A gateway that is already there is killed first: this is its restart.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn join(
        &self,
        id: GatewayId,
        address: SocketAddr,
        sink: Arc<dyn StreamSink>,
    ) -> MemoryTransport {
        self.kill(&id);
        let gateway = Arc::new(Gateway {
            id: id.clone(),
            network: Arc::clone(&self.shared),
            sink,
            worker: runtime::Handle::current(),
            links: Mutex::default(),
            is_draining: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        });
        let mut map = self.shared.map.lock();
        map.addresses
            .entry(address)
            .or_default()
            .push_back(id.clone());
        map.gateways.insert(id, Arc::downgrade(&gateway));
        MemoryTransport { gateway }
    }

    /// Makes the path between two gateways black: whatever is sent from now on stays on its way, and
    /// nobody is told.
    pub fn cut(&self, a: &GatewayId, b: &GatewayId) {
        self.shared.path(a, b).cut();
    }

    /// Ends what [`Self::cut`] began; what is still on its way arrives.
    pub fn heal(&self, a: &GatewayId, b: &GatewayId) {
        self.shared.path(a, b).heal();
    }

    /// Cuts every connection between two gateways at once. Both notice; both may dial anew.
    pub fn sever(&self, a: &GatewayId, b: &GatewayId) {
        self.shared.path(a, b).sever();
    }

    /// Stops a gateway as a crash would: every connection of it is cut at once and nobody answers at
    /// its address until it joins again. Peers beyond a black path hear of it when the path is healed.
    pub fn kill(&self, id: &GatewayId) {
        let gateway = self
            .shared
            .map
            .lock()
            .gateways
            .get(id)
            .and_then(Weak::upgrade);
        if let Some(gateway) = gateway {
            gateway.leave();
        }
    }
}

impl Shared {
    fn path(&self, a: &GatewayId, b: &GatewayId) -> Arc<Path> {
        let pair = if a <= b { (a, b) } else { (b, a) };
        let mut map = self.map.lock();
        Arc::clone(
            map.paths
                .entry((pair.0.clone(), pair.1.clone()))
                .or_default(),
        )
    }

    /// The gateway whose turn it is at `address`.
    fn answering(&self, address: SocketAddr) -> Option<Arc<Gateway>> {
        let mut map = self.map.lock();
        let turns = map.addresses.get_mut(&address)?;
        let id = turns.front()?.clone();
        turns.rotate_left(1);
        map.gateways.get(&id)?.upgrade()
    }

    /// How many gateways `peer`'s cluster runs.
    fn slots(&self, peer: &GatewayId) -> u16 {
        let map = self.map.lock();
        let of_cluster = map
            .gateways
            .keys()
            .filter(|id| id.trust_domain == peer.trust_domain);
        of_cluster.count().try_into().unwrap_or(u16::MAX)
    }
}

impl MemoryTransport {
    /// Every link there is.
    pub fn links(&self) -> Vec<Arc<dyn Link>> {
        let links = self.gateway.links.lock();
        links
            .values()
            .map(|link| Arc::clone(link) as Arc<dyn Link>)
            .collect()
    }

    /// Asks every peer to open no more streams; those that come all the same are served.
    pub fn drain(&self) {
        self.gateway.is_draining.store(true, Relaxed);
        for link in self.links() {
            link.drain();
        }
    }

    /// Ends every link and every stream.
    pub fn close(&self) {
        for link in self.links() {
            link.close();
        }
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.gateway.leave();
    }
}

impl Transport for MemoryTransport {
    fn kind(&self) -> TransportKind {
        TransportKind::Memory
    }

    fn dial<'a>(
        &'a self,
        target: &'a DialTarget,
    ) -> BoxFuture<'a, Result<Arc<dyn Link>, DialError>> {
        Box::pin(async move {
            let link = self.gateway.dial(target).await?;
            Ok(link as Arc<dyn Link>)
        })
    }
}

impl Gateway {
    async fn dial(self: &Arc<Self>, target: &DialTarget) -> Result<Arc<MemoryLink>, DialError> {
        let address = target.address;
        let connect = |kind: io::ErrorKind| DialError::Connect {
            transport: TransportKind::Memory,
            address,
            source: kind.into(),
        };
        let peer = self
            .network
            .answering(address)
            .ok_or_else(|| connect(io::ErrorKind::ConnectionRefused))?;
        let path = self.network.path(&self.id, &peer.id);
        timeout(self.network.timeouts.connect, path.until_black(false))
            .await
            .map_err(|_| connect(io::ErrorKind::TimedOut))?;
        // A gateway that left while the dial was on its way answers no more.
        if peer.is_gone.load(Relaxed) {
            return Err(connect(io::ErrorKind::ConnectionRefused));
        }
        if self.is_gone.load(Relaxed) {
            return Err(DialError::Closed);
        }
        self.check(target, &peer)?;
        let far = peer.link_to(self, &path);
        let near = self.link_to(&peer, &path);
        far.connected(near.has_drained());
        if near.connected(far.has_drained()) {
            near.count_dial();
        }
        Ok(near)
    }

    /// What certificates decide on a real network.
    fn check(&self, target: &DialTarget, peer: &Self) -> Result<(), DialError> {
        let refuse = |detail: String| DialError::Handshake {
            address: target.address,
            failure: Failure::WrongPeer,
            detail,
        };
        if peer.id.trust_domain != target.trust_domain {
            return Err(refuse(format!(
                "expected {}, found {}",
                target.trust_domain, peer.id
            )));
        }
        if peer.id.trust_domain == self.id.trust_domain {
            return Err(refuse(format!("{} is of our own trust domain", peer.id)));
        }
        Ok(())
    }

    fn link_to(self: &Arc<Self>, peer: &Self, path: &Arc<Path>) -> Arc<MemoryLink> {
        let mut links = self.links.lock();
        let link = links
            .entry(peer.id.clone())
            .or_insert_with(|| MemoryLink::new(self, &peer.id, Arc::clone(path)));
        Arc::clone(link)
    }

    /// Serves a stream whose header has arrived.
    fn serve(&self, link: Arc<MemoryLink>, wire: Arc<Wire>, header: &[u8]) {
        let sink = Arc::clone(&self.sink);
        let header = StreamOpen::decode(header);
        let mut stream = Stream::memory(MemoryStream::accepted(wire, Arc::clone(&link)));
        self.worker.spawn(async move {
            let link = link as Arc<dyn Link>;
            match header {
                Ok(header) => sink.accept(&link, header, &mut stream).await,
                // The stream is reset as it is dropped.
                Err(error) => sink.unreadable(&link, &error),
            }
        });
    }

    /// A closed link is remembered no more; the next dial makes a new one.
    fn forget(&self, peer: &GatewayId) {
        self.links.lock().remove(peer);
    }

    /// Ends every link and is no longer part of the network.
    fn leave(&self) {
        if self.is_gone.swap(true, Relaxed) {
            return;
        }
        {
            let mut map = self.network.map.lock();
            map.gateways.remove(&self.id);
            for turns in map.addresses.values_mut() {
                turns.retain(|id| *id != self.id);
            }
        }
        let links = std::mem::take(&mut *self.links.lock());
        for link in links.into_values() {
            link.close();
        }
    }
}

/// Changes `state` unless it is closed for good; `true` if it changed.
fn change(state: &tokio::sync::watch::Sender<LinkState>, to: LinkState) -> bool {
    state.send_if_modified(|now| {
        let changes = *now != LinkState::Closed && *now != to;
        if changes {
            *now = to;
        }
        changes
    })
}
