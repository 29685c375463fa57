//! Sees to it that there is a peering stream to every linked cluster: asks a gateway that has a link to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corinth_model::{ClusterName, Reason};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::debug;

use super::Shared;
use crate::cluster::LinkMode;

/// How long a gateway may take to hand over what it was asked for.
const ASKED_MAX: Duration = Duration::from_secs(10);
/// How long we wait after it could not.
const PAUSE: Duration = Duration::from_secs(1);

/// The streams that were asked for.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    asked: Mutex<Asked>,
    look: Notify,
}

#[derive(Debug, Default)]
struct Asked {
    next: u64,
    by_ticket: BTreeMap<u64, ClusterName>,
    /// Not before then is a cluster asked for again.
    again: BTreeMap<ClusterName, Instant>,
}

impl Dialling {
    /// Something has changed: look whether a stream is missing.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// A stream was handed over; yields for whom it was asked.
    pub(super) fn opened(&self, ticket: u64) -> Option<ClusterName> {
        self.asked.lock().by_ticket.remove(&ticket)
    }

    /// A stream did not come about.
    pub(super) fn failed(&self, ticket: u64, reason: Reason) {
        let mut asked = self.asked.lock();
        if let Some(cluster) = asked.by_ticket.remove(&ticket) {
            debug!(peer = %cluster, code = reason.code(), "no peering stream");
            asked.again.insert(cluster, Instant::now() + PAUSE);
        }
        drop(asked);
        self.look();
    }

    /// A ticket for a cluster, unless one was given lately.
    fn ticket(&self, cluster: &ClusterName, now: Instant) -> Result<u64, Instant> {
        let mut asked = self.asked.lock();
        if let Some(again) = asked.again.get(cluster).filter(|again| **again > now) {
            return Err(*again);
        }
        asked.next += 1;
        let ticket = asked.next;
        asked.by_ticket.retain(|_, other| other != cluster);
        asked.by_ticket.insert(ticket, cluster.clone());
        asked.again.insert(cluster.clone(), now + ASKED_MAX);
        Ok(ticket)
    }

    /// Nobody could be asked: the next look may ask at once.
    fn unasked(&self, cluster: &ClusterName, ticket: u64) {
        let mut asked = self.asked.lock();
        asked.by_ticket.remove(&ticket);
        asked.again.remove(cluster);
    }
}

/// Asks for what is missing, whenever that may have changed.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let due = ask(&shared, Instant::now());
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = shared.dialling.look.notified() => {}
        }
    }
}

/// Asks for every stream that is missing; yields when to look again.
fn ask(shared: &Shared, now: Instant) -> Option<Instant> {
    let missing: Vec<_> = shared.look(|plane| {
        let declared = plane.declared();
        let is_used = |cluster: &ClusterName| {
            let link = declared.links.get(cluster);
            link.is_some_and(|link| link.mode != LinkMode::Paused)
        };
        let peers = plane.peers().iter();
        let missing = peers.filter(|(cluster, peer)| is_used(cluster) && !peer.has_session());
        missing
            .map(|(cluster, peer)| (cluster.clone(), peer.dial_at))
            .collect()
    });
    let mut next: Option<Instant> = None;
    for (cluster, dial_at) in missing {
        if let Some(later) = ask_one(shared, &cluster, dial_at, now) {
            next = Some(next.map_or(later, |next| next.min(later)));
        }
    }
    next
}

fn ask_one(
    shared: &Shared,
    cluster: &ClusterName,
    dial_at: Option<Instant>,
    now: Instant,
) -> Option<Instant> {
    if let Some(later) = dial_at.filter(|at| *at > now) {
        return Some(later);
    }
    let ticket = match shared.dialling.ticket(cluster, now) {
        Ok(ticket) => ticket,
        Err(later) => return Some(later),
    };
    if shared.consumers.ask_for_peering(cluster, ticket) {
        return Some(now + ASKED_MAX);
    }
    // A gateway that becomes linked says so, and we look again.
    shared.dialling.unasked(cluster, ticket);
    None
}
