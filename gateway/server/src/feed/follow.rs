//! The conversation with the control plane: connects, takes in what it tells, says what became of it, and connects again.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use corinth_api::Report;
use corinth_model::{ClusterName, Label};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    Feed, Outcome,
    collect::{Collected, Collector},
    connect, links,
};
use crate::handover;

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

/// How a conversation ended.
struct Ended {
    why: String,
    /// Something of it came into use.
    was_fruitful: bool,
}

impl Feed {
    /// Follows the control plane until the task is aborted.
    pub(super) async fn follow(self: Arc<Self>) {
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
