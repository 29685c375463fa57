//! One flow of a peer at its endpoint: watches over it until it ends, and carries what the endpoint says.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use corinth_api::FlowNumber;
use corinth_core::{Outcome, PermitId};
use corinth_daemon::drain::Phase;
use corinth_model::{
    ClusterName, Failure, PortNumber, Protocol, Reason, RouteName, Tables, Target,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{
    endpoint::{EndpointSocket, Given},
    far::FarTrunk,
    tally::{Patience, Tally},
};
use crate::{
    opening::accepted_after,
    record::{Intake, Record},
    relay::Side,
    shared::{PermitGuard, Shared},
};

/// Who took the client decides when a flow is over; we wait so much longer.
const GRACE: Duration = Duration::from_secs(15);

/// A flow of a peer.
pub(super) struct Arrived {
    number: FlowNumber,
    socket: EndpointSocket,
    tally: Tally,
    ended: Mutex<Option<Ending>>,
    /// It was ended elsewhere than in its task.
    over: Notify,
}

/// Why a flow is over.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    /// Our own socket has learnt that its endpoint is gone.
    Endpoint(Failure),
    /// The peer, the link or the operator wants it so, which says nothing about the endpoint.
    Other(Reason),
}

/// What the task of a flow needs to know of how it began.
pub(super) struct Beginning {
    /// The cluster whose certificate the peer has.
    pub(super) cluster: Option<ClusterName>,
    pub(super) tables: watch::Receiver<Arc<Tables>>,
    pub(super) route: RouteName,
    pub(super) exported: RouteName,
    pub(super) source: SocketAddr,
    pub(super) endpoint: SocketAddr,
    pub(super) permit: PermitId,
    pub(super) attempts: u8,
    pub(super) began: std::time::Instant,
}

impl Arrived {
    /// A flow of a service with this port.
    pub(super) fn new(number: FlowNumber, socket: EndpointSocket, port: PortNumber) -> Self {
        let tally = Tally::new(Side::Endpoint);
        tally.serves(port);
        Self {
            number,
            socket,
            tally,
            ended: Mutex::new(None),
            over: Notify::new(),
        }
    }

    /// Gives a datagram of the client to the endpoint. Never waits.
    pub(super) fn give(&self, datagram: &[u8]) {
        match self.socket.give(datagram) {
            Given::Sent => self.tally.gave(datagram.len()),
            Given::Dropped => self.tally.drop_some(1),
            Given::Gone(failure) => {
                self.tally.drop_some(1);
                self.end(Ending::Endpoint(failure));
            }
        }
    }

    pub(super) fn end(&self, ending: Ending) {
        self.ended.lock().get_or_insert(ending);
        self.over.notify_one();
    }

    async fn ended(&self) -> Ending {
        loop {
            if let Some(ending) = *self.ended.lock() {
                return ending;
            }
            self.over.notified().await;
        }
    }
}

/// The story of one flow after it was taken.
pub(super) async fn run(
    shared: &Arc<Shared>,
    trunk: &Arc<FarTrunk>,
    flow: &Arc<Arrived>,
    mut beginning: Beginning,
) {
    let _permit = PermitGuard {
        shared,
        permit: beginning.permit,
    };
    let mut record = Record::resume(
        &shared.telemetry,
        Intake::PeerFlow,
        beginning.source,
        beginning.began,
    );
    record.peer = beginning
        .cluster
        .as_ref()
        .map(|cluster| cluster.as_str().into());
    record.route = Some(Box::new(beginning.exported.clone()));
    record.endpoint = Some(beginning.endpoint);
    record.attempts = beginning.attempts;
    record.accepted(std::time::Instant::now());
    let reason = serve(shared, trunk, flow, &mut beginning).await;
    if trunk.forget(flow.number).is_some() {
        trunk.outlet.end(flow.number, reason);
    }
    record.close_flow(&flow.tally, reason, std::time::Instant::now());
}

async fn serve(
    shared: &Arc<Shared>,
    trunk: &FarTrunk,
    flow: &Arrived,
    beginning: &mut Beginning,
) -> Reason {
    let target = Target::Endpoint(beginning.endpoint);
    let report = |outcome| shared.report(&beginning.route, Protocol::Udp, &target, outcome);
    let gone = left(
        &mut beginning.tables,
        beginning.cluster.as_ref(),
        &beginning.route,
        beginning.endpoint,
    );
    let terminated = shared.terminated();
    tokio::pin!(gone, terminated);
    let mut phases = shared.drain.subscribe();
    let mut is_reported = false;
    loop {
        if !is_reported && flow.tally.is_answered() {
            is_reported = true;
            report(accepted_after(beginning.began));
        }
        let is_draining = *phases.borrow_and_update() >= Phase::Draining;
        let patience = shared.times().flows;
        let patience = Patience {
            unanswered: patience.unanswered + GRACE,
            idle: patience.idle + GRACE,
            answered: patience.answered + GRACE,
        };
        let due = flow.tally.due(patience, is_draining);
        if due <= Instant::now() {
            return flow.tally.silenced();
        }
        let said = |datagram: &[u8]| {
            flow.tally.took(datagram.len());
            flow.tally
                .drop_some(trunk.outlet.datagram(flow.number, datagram, Instant::now()));
        };
        let ending = tokio::select! {
            biased;
            () = &mut gone => Ending::Other(Reason::Failed(Failure::Withdrawn)),
            failure = &mut terminated => Ending::Other(Reason::Failed(failure)),
            ending = flow.ended() => ending,
            failure = flow.socket.hear(said) => match failure {
                Some(failure) => Ending::Endpoint(failure),
                None => continue,
            },
            () = flow.tally.news.notified() => continue,
            _ = phases.changed() => continue,
            () = sleep_until(due) => continue,
        };
        return match ending {
            Ending::Endpoint(failure) => {
                // Also of one that has answered before: what it says now is that it is there no more.
                report(Outcome::Failed(failure));
                Reason::Failed(failure)
            }
            Ending::Other(reason) => reason,
        };
    }
}

/// Resolves when the peer may no longer reach this endpoint by this name: because of the export, or because the endpoint
/// has left it. Streams end with their endpoint; of a flow nobody else tells that it goes nowhere.
async fn left(
    tables: &mut watch::Receiver<Arc<Tables>>,
    cluster: Option<&ClusterName>,
    route: &RouteName,
    endpoint: SocketAddr,
) {
    let leads_there = |tables: &Arc<Tables>| {
        let view = cluster.and_then(|cluster| tables.exports.view(cluster));
        let export = view.and_then(|view| view.lookup(route, Protocol::Udp));
        export.is_some_and(|export| {
            let mut endpoints = export.endpoints.iter();
            endpoints.any(|one| one.address() == endpoint)
        })
    };
    // An error means that the gateway itself is gone, which is the same.
    let _ = tables.wait_for(|tables| !leads_there(tables)).await;
}
