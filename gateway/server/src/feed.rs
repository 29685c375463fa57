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
use corinth_model::{ClusterName, Instance, Label, Slot};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use self::{
    collect::{Change, Collected, Collector, Spoiled},
    held::Held,
    kept::{InUse, KeptTables},
};
use crate::{
    body::Body,
    handover,
    pages::{ControlRow, RefusedRow},
    settings::{Control, Settings},
};

mod collect;
pub(crate) mod connect;
mod held;
mod kept;
mod links;

/// What `/readyz` shows while there are no tables.
pub(crate) const PENDING: &str = "tables: none on disk, and none from the control plane yet";

/// The first gap between two connections to the control plane; each further one is twice as long.
const GAP_MIN: Duration = Duration::from_millis(100);
/// The longest gap: a control plane that returns is found within it.
const GAP_MAX: Duration = Duration::from_secs(5);
/// How long a control plane may take to answer a call.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Answers that wait to be read. A control plane that reads so little is not well.
const REPORTS_MAX: usize = 256;
/// Changes that wait while tables are built; more stay in the socket.
const WAITING_MAX: usize = 64;
/// Tables are written to disk at most this often, and for at most a part of the time: it takes a processor.
const KEEP_GAP: Duration = Duration::from_secs(1);
const KEEP_GAP_PER_WRITE: u32 = 20;
const KEEP_GAP_MAX: Duration = Duration::from_secs(5);
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
    kept: Mutex<KeptTables>,
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

/// How a conversation ended.
struct Ended {
    why: String,
    /// Something of it came into use.
    was_fruitful: bool,
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
            kept: Mutex::new(KeptTables::new(&settings.state_dir)),
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
        let kept = self.kept.lock().load();
        for kept in kept {
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

    async fn follow(self: Arc<Self>) {
        let mut gap = GAP_MIN;
        let mut told = None;
        loop {
            let ended = self.converse().await;
            self.connected.set(0);
            {
                let mut status = self.status.lock();
                if status.is_connected {
                    status.since = SystemTime::now();
                }
                status.is_connected = false;
                status.why = Some(ended.why.clone());
            }
            if ended.was_fruitful {
                (gap, told) = (GAP_MIN, None);
            }
            // The same trouble is told once, not at every try.
            if told.as_ref() != Some(&ended.why) {
                warn!(
                    socket = %self.socket.display(), reason = %ended.why,
                    "no control plane; what is in use stays"
                );
                told = Some(ended.why);
            }
            // Spread, so that gateways that lost it together do not return together.
            sleep(gap.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            gap = (gap * 2).min(GAP_MAX);
        }
    }

    /// One connection, from dialling to its end.
    async fn converse(self: &Arc<Self>) -> Ended {
        let in_vain = |why: String| Ended {
            why,
            was_fruitful: false,
        };
        let mut client = match connect::client(&self.socket).await {
            Ok(client) => client,
            Err(error) => return in_vain(connect::words(&error)),
        };
        let (reports, queue) = mpsc::channel(REPORTS_MAX);
        if reports.try_send(self.hello()).is_err() {
            return in_vain("there is no room for the first report".to_owned());
        }
        let mut updates = match timeout(ANSWER_MAX, client.follow(connect::outbound(queue))).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return in_vain(connect::status_words(&status)),
            Err(_) => return in_vain("it does not answer".to_owned()),
        };
        self.begin();
        let mut beside = JoinSet::new();
        beside.spawn(links::tell(Arc::clone(&self.body.shared), reports.clone()));
        let (mut collector, mut was_fruitful) = (Collector::default(), false);
        let mut waiting = Vec::new();
        let mut building: Option<JoinHandle<Outcome>> = None;
        let why = loop {
            if building.is_none() && !waiting.is_empty() {
                let (feed, changes) = (Arc::clone(self), std::mem::take(&mut waiting));
                building = Some(spawn_blocking(move || feed.take_in(changes)));
            }
            tokio::select! {
                update = updates.message(), if waiting.len() < WAITING_MAX => {
                    let update = match update {
                        Ok(Some(update)) => update,
                        Ok(None) => break "it ended the conversation".to_owned(),
                        Err(status) => break connect::status_words(&status),
                    };
                    match collector.take(update) {
                        Ok(Collected::More) => {}
                        Ok(Collected::Change(change)) => waiting.push(Ok(change)),
                        Ok(Collected::Spoiled(spoiled)) => waiting.push(Err(spoiled)),
                        Ok(Collected::OpenPeering { cluster, ticket }) => {
                            self.open_peering(cluster, ticket, reports.clone());
                        }
                        Err(breach) => break breach.to_string(),
                    }
                }
                outcome = finished(&mut building), if building.is_some() => {
                    building = None;
                    was_fruitful |= matches!(outcome, Outcome::Applied { .. });
                    let (report, is_lost) = outcome.report();
                    if reports.try_send(report).is_err() {
                        break "it does not read our reports".to_owned();
                    }
                    if is_lost {
                        break "a part of its state is missing; everything is asked for anew".to_owned();
                    }
                }
            }
        };
        // What it still changes is what the next conversation begins with.
        if let Some(building) = building {
            let last = building.await;
            was_fruitful |= matches!(last, Ok(Outcome::Applied { .. }));
        }
        Ended { why, was_fruitful }
    }

    fn hello(&self) -> Report {
        let status = self.status.lock();
        // If what was told is not what is in use, all is to be told again.
        let held = status.applied.filter(|_| status.is_in_step);
        Report::Hello {
            role: Label::parse("gateway").expect("the word is a label"),
            slot: self.slot.clone(),
            held,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn begin(&self) {
        let mut status = self.status.lock();
        status.is_connected = true;
        status.since = SystemTime::now();
        status.why = None;
        drop(status);
        self.connected.set(1);
        info!(socket = %self.socket.display(), "control plane connected");
    }

    fn open_peering(&self, cluster: ClusterName, ticket: u64, reports: mpsc::Sender<Report>) {
        let shared = Arc::clone(&self.body.shared);
        tokio::spawn(handover::open(shared, cluster, ticket, move |opened| {
            if let Err(reason) = opened {
                // One that reads no reports has ended the conversation by now.
                let _ = reports.try_send(Report::PeeringFailed { ticket, reason });
            }
        }));
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

    /// Writes what is in use to disk now.
    pub(crate) async fn flush(self: Arc<Self>) {
        // A panic in it was logged where it happened.
        let _ = spawn_blocking(move || self.write()).await;
    }

    fn write(&self) {
        // Locked first, so that what is older is not written last.
        let kept = self.kept.lock();
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

/// Resolves when what is being built is in use, or not; never while nothing is built. Cancel-safe.
async fn finished(building: &mut Option<JoinHandle<Outcome>>) -> Outcome {
    let Some(building) = building else {
        return std::future::pending().await;
    };
    building.await.unwrap_or_else(|_| Outcome::Refused {
        revision: 0,
        why: "a fault of the gateway itself".to_owned(),
        is_lost: true,
    })
}

fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}
