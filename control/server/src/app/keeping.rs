//! Writes down what has to outlive the process, some time after it changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corinth_model::ClusterName;
use tracing::warn;

use super::Shared;
use crate::plane::Plane;

/// What was told to and by peers is written at most this often, and for at most a part of the time: it takes a processor.
const KEEP_GAP: Duration = Duration::from_millis(200);
const KEEP_GAP_PER_WRITE: u32 = 10;

/// What has changed and is not written down.
#[derive(Debug, Default)]
pub(super) struct Unkept {
    pub(super) peers: BTreeSet<ClusterName>,
    pub(super) ports: bool,
    pub(super) roots: bool,
    pub(super) issued: bool,
}

/// Writes what is to be kept.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        shared.to_keep.notified().await;
        let keeping = Arc::clone(&shared);
        let began = Instant::now();
        // Files are written outside the runtime's own threads.
        let kept = tokio::task::spawn_blocking(move || keeping.keep_now());
        let _ = kept.await;
        tokio::time::sleep(KEEP_GAP.max(began.elapsed() * KEEP_GAP_PER_WRITE)).await;
    }
}

impl Shared {
    /// Which certificates were issued has changed.
    pub(crate) fn keep_issued(&self) {
        self.unkept.lock().issued = true;
        self.to_keep.notify_one();
    }

    /// Writes down what has changed. Blocks until then.
    pub(super) fn keep_now(&self) {
        let unkept = std::mem::take(&mut *self.unkept.lock());
        for cluster in unkept.peers {
            let kept = self.look(|plane| {
                let peer = plane.peers().get(&cluster);
                peer.map(|peer| peer.kept(Instant::now()))
            });
            let Some(kept) = kept else {
                continue;
            };
            if let Err(error) = self.keep.store_peer(&cluster, &kept) {
                warn!(peer = %cluster, %error, "what was told cannot be kept");
            }
        }
        if unkept.roots {
            self.keep_roots();
        }
        if unkept.issued
            && let Err(error) = self.keep.store_issued(&self.signing.issued())
        {
            warn!(%error, "which certificates were issued cannot be kept");
        }
        if unkept.ports {
            let ports = self.look(|plane| plane.ports().clone());
            if let Err(error) = self.keep.store_ports(&ports) {
                warn!(%error, "import ports cannot be kept");
            }
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
