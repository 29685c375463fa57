//! Writes down what has to outlive the process, some time after it changed.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use corinth_daemon::background;
use corinth_model::ClusterName;
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::Shared;
use crate::plane::{KeptPeer, Plane};

/// Anything is written at most this often.
const KEEP_GAP: Duration = Duration::from_millis(200);
/// What was told to and by peers is written for less than a fiftieth of the time: it takes a processor and memory. What a
/// crash takes of it is told again.
const PEERS_GAP_PER_WRITE: u32 = 60;
const PEERS_GAP_MAX: Duration = Duration::from_secs(30);

/// What has changed and is not written down.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    pub(super) peers: BTreeSet<ClusterName>,
    pub(super) ports: bool,
    pub(super) roots: bool,
    pub(super) issued: bool,
}

/// The right to write. Threads that write hold it, since they outlive the task that started them; nobody waits for it but
/// whoever ends the control plane.
#[derive(Clone)]
pub(super) struct Turn {
    _held: Arc<OwnedMutexGuard<()>>,
}

impl Turn {
    pub(super) async fn take(shared: &Shared) -> Self {
        let held = Arc::clone(&shared.keep_turn).lock_owned().await;
        Self {
            _held: Arc::new(held),
        }
    }
}

/// Writes what is to be kept.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut peers_at = Instant::now();
    loop {
        let has_peers = !shared.unkept.lock().peers.is_empty();
        tokio::select! {
            () = shared.to_keep.notified() => {}
            () = sleep_until(peers_at), if has_peers => {}
        }
        let turn = Turn::take(&shared).await;
        let (keeping, writing) = (Arc::clone(&shared), turn.clone());
        // Files are written outside the runtime's own threads.
        let kept = spawn_blocking(move || {
            keeping.keep_few();
            drop(writing);
        });
        let _ = kept.await;
        let began = Instant::now();
        if began >= peers_at {
            keep_peers_later(&shared, &turn).await;
            let gap = began.elapsed() * PEERS_GAP_PER_WRITE;
            peers_at = Instant::now() + gap.min(PEERS_GAP_MAX);
        }
        drop(turn);
        sleep(KEEP_GAP).await;
    }
}

/// Writes down what was told to and by peers, without delaying what is urgent.
async fn keep_peers_later(shared: &Arc<Shared>, turn: &Turn) {
    let peers = take(&mut shared.unkept.lock().peers);
    for cluster in peers {
        let keeping = Arc::clone(shared);
        let gathered = spawn_blocking(move || (keeping.gather(&cluster), cluster));
        if let Ok((Some(kept), cluster)) = gathered.await {
            let (keeping, writing) = (Arc::clone(shared), turn.clone());
            let store = move || {
                keeping.store(&cluster, &kept);
                drop(writing);
            };
            background::run("keep", store).await;
        }
    }
}

impl Shared {
    /// Which certificates were issued has changed.
    pub(crate) fn keep_issued(&self) {
        self.unkept.lock().issued = true;
        self.to_keep.notify_one();
    }

    /// Writes down what has changed. Who calls this has the turn: what is older must not be written last.
    pub(super) fn keep_last(&self) {
        self.keep_few();
        self.keep_peers();
    }

    /// Writes down what is small, and must not be lost: gateways have been told of import ports by now.
    fn keep_few(&self) {
        let (ports, roots, issued) = {
            let mut unkept = self.unkept.lock();
            (
                take(&mut unkept.ports),
                take(&mut unkept.roots),
                take(&mut unkept.issued),
            )
        };
        if ports {
            let ports = self.look(|plane| plane.ports().clone());
            if let Err(error) = self.keep.store_ports(&ports) {
                warn!(%error, "import ports cannot be kept");
            }
        }
        if roots {
            self.keep_roots();
        }
        if issued && let Err(error) = self.keep.store_issued(&self.signing.issued()) {
            warn!(%error, "which certificates were issued cannot be kept");
        }
    }

    fn keep_peers(&self) {
        let peers = take(&mut self.unkept.lock().peers);
        for cluster in peers {
            if let Some(kept) = self.gather(&cluster) {
                self.store(&cluster, &kept);
            }
        }
    }

    fn gather(&self, cluster: &ClusterName) -> Option<KeptPeer> {
        self.look(|plane| {
            let peer = plane.peers().get(cluster)?;
            Some(peer.kept(std::time::Instant::now()))
        })
    }

    fn store(&self, cluster: &ClusterName, kept: &KeptPeer) {
        if let Err(error) = self.keep.store_peer(cluster, kept) {
            warn!(peer = %cluster, %error, "what was told cannot be kept");
        }
    }

    /// Writes down what peers told of their roots, and then lets them rely on it.
    fn keep_roots(&self) {
        let (learned, changes) = self.look(Plane::learned);
        match self.roots.keep(&learned) {
            Ok(()) => self.change(|plane, _| plane.handle_roots_kept(changes)),
            Err(error) => warn!(%error, "what peers told of their roots cannot be kept"),
        }
    }
}
