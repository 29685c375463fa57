//! Sees to it that there is a peering stream to every linked cluster: asks a gateway that has a link to it. How long to
//! wait after a stream has ended, or did not come about, is for the relation with the cluster to decide.

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

/// The streams that were asked for.
#[derive(Debug, Default)]
pub(super) struct Dialling {
    asked: Mutex<Asked>,
    look: Notify,
}

/// One stream for each cluster at a time.
#[derive(Debug, Default)]
struct Asked {
    next: u64,
    by_cluster: BTreeMap<ClusterName, Ticket>,
}

#[derive(Debug)]
struct Ticket {
    number: u64,
    /// Until when it can come; `None` once it has.
    until: Option<Instant>,
}

/// What is known of the stream to one cluster.
enum Awaited {
    /// Nobody was asked: this is the ticket to ask with.
    Not(u64),
    /// One is there, or may still come until then.
    Until(Option<Instant>),
    /// It has not come.
    InVain,
}

impl Dialling {
    /// Something has changed: look whether a stream is missing.
    pub(super) fn look(&self) {
        self.look.notify_one();
    }

    /// A stream was handed over: whether it was asked for. [`Self::over`] is to be called when it has ended.
    pub(super) fn opened(&self, number: u64, cluster: &ClusterName) -> bool {
        let mut asked = self.asked.lock();
        let ticket = asked.by_cluster.get_mut(cluster);
        match ticket.filter(|ticket| ticket.number == number && ticket.until.is_some()) {
            Some(ticket) => {
                ticket.until = None;
                true
            }
            None => false,
        }
    }

    /// A stream has ended, or did not come about. Yields for whom it was asked.
    pub(super) fn over(&self, number: u64) -> Option<ClusterName> {
        let mut asked = self.asked.lock();
        let mut tickets = asked.by_cluster.iter();
        let (cluster, _) = tickets.find(|(_, ticket)| ticket.number == number)?;
        let cluster = cluster.clone();
        asked.by_cluster.remove(&cluster);
        drop(asked);
        self.look();
        Some(cluster)
    }

    /// Nobody could be asked.
    fn forget(&self, cluster: &ClusterName) {
        self.asked.lock().by_cluster.remove(cluster);
    }

    fn ask(&self, cluster: &ClusterName, now: Instant) -> Awaited {
        let mut asked = self.asked.lock();
        match asked.by_cluster.get(cluster).map(|ticket| ticket.until) {
            Some(Some(until)) if until <= now => {
                asked.by_cluster.remove(cluster);
                return Awaited::InVain;
            }
            Some(until) => return Awaited::Until(until),
            None => {}
        }
        asked.next += 1;
        let ticket = Ticket {
            number: asked.next,
            until: Some(now + ASKED_MAX),
        };
        let number = ticket.number;
        asked.by_cluster.insert(cluster.clone(), ticket);
        Awaited::Not(number)
    }
}

impl Shared {
    /// A stream that a gateway was asked for could not be opened.
    pub(super) fn dial_failed(&self, number: u64, reason: Reason) {
        if let Some(cluster) = self.dialling.over(number) {
            debug!(peer = %cluster, code = reason.code(), "no peering stream");
            self.back_off(&cluster);
        }
    }

    /// No session came of what was asked for.
    pub(super) fn back_off(&self, cluster: &ClusterName) {
        self.relate(cluster, |relation, now| {
            relation.handle_dial_failed(now.instant)
        });
        self.dialling.look();
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
        let missing = peers.filter(|(cluster, peer)| {
            is_used(cluster) && !peer.has_session() && !peer.relation.is_unlinked()
        });
        missing
            .map(|(cluster, peer)| (cluster.clone(), peer.dial_at))
            .collect()
    });
    let again = missing
        .into_iter()
        .filter_map(|(cluster, dial_at)| ask_one(shared, &cluster, dial_at, now));
    again.min()
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
    match shared.dialling.ask(cluster, now) {
        Awaited::Not(number) => {
            if shared.consumers.ask_for_peering(cluster, number) {
                return Some(now + ASKED_MAX);
            }
            // A gateway that becomes linked says so, and we look again.
            shared.dialling.forget(cluster);
            None
        }
        Awaited::Until(until) => until,
        Awaited::InVain => {
            shared.back_off(cluster);
            None
        }
    }
}
