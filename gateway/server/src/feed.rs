//! Follows the control plane: takes its changes in, says what became of them, and goes on with what is in use while it
//! is away.
//!
//! ```text
//! control plane ── Update ──> collect ──> held ──> wanted ──> body       off the workers' threads
//!        ^                                  └──> kept, on disk           at most once a second
//!        └──────── Report ── applied, refused, links, peering that failed
//! ```
//!
//! A change counts when it has come whole. One that cannot be used leaves in use what was before.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use corinth_api::{ClosedPort, Report};
use corinth_daemon::{
    background,
    metrics::{IntCounterVec, IntGauge, Metrics, MetricsError},
    ready::Pending,
};
use corinth_model::{ClusterName, Instance, Slot};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep},
};
use tracing::{info, warn};

use self::{
    collect::{Change, Spoiled},
    held::Held,
    kept::{InUse, KeptTables},
};
use crate::{
    body::Body,
    pages::{ControlRow, RefusedRow},
    settings::{Control, Settings},
};

mod collect;
pub(crate) mod connect;
mod follow;
mod held;
mod kept;
mod links;

/// What `/readyz` shows while there are no tables.
pub(crate) const PENDING: &str = "tables: none on disk, and none from the control plane yet";

/// Tables are written to disk at most this often, and for less than a fiftieth of the time: it takes a processor and
/// memory from connections. What a gateway has not written when it is killed, its control plane tells it again.
const KEEP_GAP: Duration = Duration::from_secs(1);
const KEEP_GAP_PER_WRITE: u32 = 60;
const KEEP_GAP_MAX: Duration = Duration::from_secs(30);
/// A gateway without tables for this long says why it is not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// Follows one control plane.
pub(crate) struct Feed {
    body: Arc<Body>,
    own: ClusterName,
    slot: Slot,
    socket: PathBuf,
    /// Locked for as long as tables are built, and only on threads that may block.
    follower: Mutex<Follower>,
    /// `None` once the last was written: what comes after that is another process's to keep.
    kept: Mutex<Option<KeptTables>>,
    /// What is in use differs from what is on disk.
    is_dirty: Notify,
    status: Mutex<Status>,
    pending: Mutex<Option<Pending>>,
    connected: IntGauge,
    revision: IntGauge,
    taken_in: IntCounterVec,
}

/// What was told, and how much of it is in use.
#[derive(Default)]
struct Follower {
    held: Held,
    /// Whose state `held` is, and which; `None` if a part of it is missing.
    told: Option<(Instance, u64)>,
    applied: Option<(Instance, u64)>,
}

/// What is shown of the conversation.
struct Status {
    is_connected: bool,
    since: SystemTime,
    /// Why there is no connection.
    why: Option<String>,
    applied: Option<(Instance, u64)>,
    /// Import ports of it that are closed, and why.
    closed: Vec<ClosedPort>,
    /// What was told last is what is in use.
    is_in_step: bool,
    refused: Option<RefusedRow>,
}

/// What became of changes that were taken in together.
enum Outcome {
    Applied {
        revision: u64,
        closed: Vec<ClosedPort>,
    },
    Refused {
        revision: u64,
        why: String,
        /// What follows cannot be understood without what is missing: everything has to be told anew.
        is_lost: bool,
    },
}

impl Feed {
    pub(crate) fn new(
        body: Arc<Body>,
        control: &Control,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, MetricsError> {
        Ok(Arc::new(Self {
            body,
            own: settings.cluster.clone(),
            slot: settings.slot.clone(),
            socket: control.socket.clone(),
            follower: Mutex::default(),
            kept: Mutex::new(Some(KeptTables::new(&settings.state_dir))),
            is_dirty: Notify::new(),
            status: Mutex::new(Status {
                is_connected: false,
                since: SystemTime::now(),
                why: Some("not tried yet".to_owned()),
                applied: None,
                closed: Vec::new(),
                is_in_step: true,
                refused: None,
            }),
            pending: Mutex::new(None),
            connected: metrics.gauge(
                "control_connected",
                "1 while the control plane is connected.",
            )?,
            revision: metrics.gauge(
                "tables_revision",
                "Revision of the control plane's tables that are in use.",
            )?,
            taken_in: metrics.counter_vec(
                "tables_applied_total",
                "Changes of the control plane, by what became of them.",
                &["result"],
            )?,
        }))
    }

    /// Starts from the tables on disk, then follows the control plane until the tasks are aborted. `pending` is done
    /// when the first tables are in use.
    pub(crate) fn start(self: Arc<Self>, pending: Pending) -> Vec<JoinHandle<()>> {
        *self.pending.lock() = Some(pending);
        self.start_from_disk();
        vec![
            tokio::spawn(Arc::clone(&self).follow()),
            tokio::spawn(Arc::clone(&self).keep()),
            tokio::spawn(self.complain()),
        ]
    }

    fn start_from_disk(&self) {
        let kept = self.kept.lock().as_ref().map(KeptTables::load);
        for kept in kept.into_iter().flatten() {
            let file = kept.path.display();
            let change = match kept.change {
                Ok(change) => change,
                Err(damage) => {
                    warn!(%file, "the kept tables cannot be used: {damage}");
                    continue;
                }
            };
            let revision = change.revision;
            match self.take_in(vec![Ok(change)]) {
                Outcome::Applied { .. } => {
                    return info!(%file, revision, "started from the tables on disk");
                }
                Outcome::Refused { why, .. } => {
                    warn!(%file, revision, "the kept tables cannot be used: {why}");
                }
            }
        }
        *self.follower.lock() = Follower::default();
        self.status.lock().is_in_step = true;
        info!("no tables on disk; waiting for the control plane");
    }

    async fn complain(self: Arc<Self>) {
        sleep(PATIENCE).await;
        if self.pending.lock().is_some() {
            let why = self.status.lock().why.clone().unwrap_or_default();
            warn!(socket = %self.socket.display(), %why, "not ready; {PENDING}");
        }
    }

    /// Takes changes in and puts what follows from all of them into use. Builds tables: not for a worker's thread.
    fn take_in(&self, changes: Vec<Result<Change, Spoiled>>) -> Outcome {
        let mut follower = self.follower.lock();
        let outcome = self.try_take_in(&mut follower, changes);
        {
            let mut status = self.status.lock();
            status.applied = follower.applied;
            status.is_in_step = follower.applied == follower.told;
        }
        drop(follower);
        match &outcome {
            Outcome::Applied { revision, closed } => {
                self.tell_closed(closed);
                self.taken_in.with_label_values(&["applied"]).inc();
                self.revision
                    .set(i64::try_from(*revision).unwrap_or(i64::MAX));
                drop(self.pending.lock().take());
                self.is_dirty.notify_one();
            }
            Outcome::Refused { revision, why, .. } => {
                self.taken_in.with_label_values(&["refused"]).inc();
                warn!(revision, reason = %why, "a change cannot be used; what is in use stays");
                self.status.lock().refused = Some(RefusedRow {
                    revision: *revision,
                    why: why.clone(),
                    at: timestamp(SystemTime::now()),
                });
            }
        }
        outcome
    }

    /// Tells of each import port once that it is closed, not with every change.
    fn tell_closed(&self, closed: &[ClosedPort]) {
        let before = std::mem::replace(&mut self.status.lock().closed, closed.to_vec());
        for closed in closed.iter().filter(|closed| !before.contains(closed)) {
            warn!(
                port = %closed.port, reason = %closed.why,
                "an import port stays closed; all others are served, and it is tried again with the next tables"
            );
        }
    }

    fn try_take_in(
        &self,
        follower: &mut Follower,
        changes: Vec<Result<Change, Spoiled>>,
    ) -> Outcome {
        let mut newest = (Instance([0; 16]), 0);
        for change in changes {
            let change = match change {
                Ok(change) => change,
                Err(Spoiled { revision, why }) => {
                    follower.told = None;
                    return Outcome::Refused {
                        revision,
                        why,
                        is_lost: false,
                    };
                }
            };
            newest = (change.instance, change.revision);
            let follows = follower
                .told
                .is_some_and(|(instance, _)| instance == change.instance);
            if change.whole {
                follower.held = Held::default();
            } else if !follows {
                follower.told = None;
                return Outcome::Refused {
                    revision: change.revision,
                    why: "it builds on a state that is not held here".to_owned(),
                    is_lost: true,
                };
            }
            follower.held.take(change.steps);
            follower.told = Some(newest);
        }
        let (_, revision) = newest;
        let refused = |why: String| Outcome::Refused {
            revision,
            why,
            is_lost: false,
        };
        let wanted = match follower.held.wanted(&self.own, self.body.next_revision()) {
            Ok(wanted) => wanted,
            Err(conflict) => return refused(conflict.to_string()),
        };
        let closed = match self.body.change(None, Some(wanted)) {
            Ok(closed) => closed,
            Err(error) => return refused(error.to_string()),
        };
        follower.applied = follower.told;
        let closed = closed.into_iter().map(|closed| ClosedPort {
            port: closed.port,
            why: closed.error.to_string(),
        });
        Outcome::Applied {
            revision,
            closed: closed.collect(),
        }
    }

    /// Writes what is in use to disk, some time after it changed.
    async fn keep(self: Arc<Self>) {
        loop {
            self.is_dirty.notified().await;
            let feed = Arc::clone(&self);
            let began = Instant::now();
            background::run("keep-tables", move || feed.write()).await;
            let gap = began.elapsed() * KEEP_GAP_PER_WRITE;
            sleep(gap.clamp(KEEP_GAP, KEEP_GAP_MAX)).await;
        }
    }

    /// Writes what is in use to disk now, and nothing after that.
    pub(crate) async fn finish(self: Arc<Self>) {
        // A panic in it was logged where it happened.
        let _ = spawn_blocking(move || {
            self.write();
            *self.kept.lock() = None;
        })
        .await;
    }

    fn write(&self) {
        // Locked first, so that what is older is not written last.
        let kept = self.kept.lock();
        let Some(kept) = &*kept else {
            return;
        };
        let follower = self.follower.lock();
        // What was told since and cannot be used must not be what the next start begins with.
        let Some(applied) = follower
            .applied
            .filter(|_| follower.applied == follower.told)
        else {
            return;
        };
        let in_use = InUse::of(&follower.held, applied);
        drop(follower);
        if let Err(error) = kept.store(&in_use.encode()) {
            warn!(%error, "the tables are in use but could not be kept for the next start");
        }
    }

    /// What `/control` shows.
    pub(crate) fn row(&self) -> ControlRow {
        let status = self.status.lock();
        // Whoever reads it may be in another directory.
        let socket = std::path::absolute(&self.socket);
        let socket = socket.unwrap_or_else(|_| self.socket.clone());
        ControlRow {
            socket: socket.display().to_string(),
            connected: status.is_connected,
            since: timestamp(status.since),
            why: status.why.clone(),
            instance: status.applied.map(|(instance, _)| instance.to_string()),
            revision: status.applied.map(|(_, revision)| revision),
            closed: status
                .closed
                .iter()
                .map(|closed| closed.why.clone())
                .collect(),
            refused: status.refused.clone(),
        }
    }
}

impl Outcome {
    /// What is told of it, and whether everything has to be told anew.
    fn report(self) -> (Report, bool) {
        match self {
            Self::Applied { revision, closed } => (Report::Applied { revision, closed }, false),
            Self::Refused {
                revision,
                why,
                is_lost,
            } => (Report::Refused { revision, why }, is_lost),
        }
    }
}

fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}
