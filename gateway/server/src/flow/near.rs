//! Flows of local clients come in at the socket of an import port, one for each worker. Nothing is ever sent to an address
//! that has not sent first.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use corinth_daemon::drain::Phase;
use corinth_model::{Failure, PortNumber, Reason, Refusal};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::coop::consume_budget,
    time::Instant,
};
use tracing::warn;

use super::{
    account::Throttle,
    client::Flow,
    companion::Companion,
    session,
    socket::{ClientSocket, Ends},
    tally::OVER,
    trunk::Trunks,
};
use crate::{
    record::{Intake, Record},
    relay::Carried,
    shared::Shared,
};

/// Serves one import port on one worker until told to close.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    trunks: Arc<Trunks>,
    socket: std::net::UdpSocket,
    companion: Companion,
    number: PortNumber,
    mut closing: oneshot::Receiver<oneshot::Sender<()>>,
) {
    let socket = match ClientSocket::new(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return warn!(port = %number, %error, "a socket for flows is of no use"),
    };
    let port = Arc::new(Port {
        number,
        socket: Arc::downgrade(&socket),
        trunks,
        flows: Mutex::default(),
        is_closed: watch::Sender::new(false),
        left: Notify::new(),
        refusals: Throttle::default(),
    });
    let done = tokio::select! {
        done = &mut closing => done,
        never = port.listen(&shared, &socket) => match never {},
    };
    port.take_all(&shared, &socket);
    port.is_closed.send_replace(true);
    if shared.drain.phase() < Phase::Draining {
        // The import is gone, and with it what was at its port; who has the port next finds it free.
        for flow in port.flows() {
            flow.ended(Reason::Failed(Failure::Withdrawn));
        }
        drop(socket);
        if let Ok(done) = done {
            let _ = done.send(());
        }
        return;
    }
    if let Ok(done) = done {
        let _ = done.send(());
    }
    let all_have_left = async {
        port.emptied().await;
        companion.last_has_left().await;
    };
    tokio::select! {
        () = all_have_left => {}
        never = port.listen(&shared, &socket) => match never {},
    }
}

/// An import port on one worker.
pub(super) struct Port {
    pub(super) number: PortNumber,
    /// As long as the port is served.
    pub(super) socket: Weak<ClientSocket>,
    pub(super) trunks: Arc<Trunks>,
    flows: Mutex<BTreeMap<Ends, Arc<Flow>>>,
    /// New flows are not taken.
    is_closed: watch::Sender<bool>,
    /// A flow has gone.
    left: Notify,
    /// Lines about flows that the limits refused: who floods is not to fill the log.
    refusals: Throttle,
}

impl Port {
    async fn listen(self: &Arc<Self>, shared: &Arc<Shared>, socket: &ClientSocket) -> Infallible {
        loop {
            // An error is that of the last datagram that could not be delivered, or the reactor's.
            if socket.readable().await.is_ok() {
                self.take(shared, socket);
            }
            consume_budget().await;
        }
    }

    /// Takes a batch; `false` if there was none.
    fn take(self: &Arc<Self>, shared: &Arc<Shared>, socket: &ClientSocket) -> bool {
        let taken = socket.take(|ends, datagram| self.datagram(shared, ends, datagram));
        !matches!(taken, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Takes what the kernel has queued, within reason.
    fn take_all(self: &Arc<Self>, shared: &Arc<Shared>, socket: &ClientSocket) {
        const BATCHES: usize = 64;
        let took_some = |_: &usize| self.take(shared, socket);
        let _ = (0..BATCHES).take_while(took_some).count();
    }

    fn datagram(self: &Arc<Self>, shared: &Arc<Shared>, ends: Ends, datagram: &[u8]) {
        let known = self.flows.lock().get(&ends).map(Arc::clone);
        let flow = match known {
            Some(flow) => flow,
            None => match self.begin(shared, ends) {
                Ok(flow) => flow,
                Err(refusal) => {
                    shared.telemetry.datagrams_dropped(refusal.name(), 1);
                    return;
                }
            },
        };
        flow.take(datagram);
    }

    fn begin(self: &Arc<Self>, shared: &Arc<Shared>, ends: Ends) -> Result<Arc<Flow>, Refusal> {
        if *self.is_closed.borrow() {
            return Err(Refusal::Draining);
        }
        let place = shared
            .flows
            .of_client(ends.client.ip())
            .inspect_err(|refusal| {
                self.record_refused(shared, ends, *refusal);
            })?;
        let flow = Flow::new(ends, Arc::clone(self), shared.flows.first());
        let flow = Arc::new(flow);
        self.flows.lock().insert(ends, Arc::clone(&flow));
        // Taken before the task runs: a drain waits for what was accepted, not only for what has begun.
        let working = shared.drain.guard();
        let (shared, flow_of_task) = (Arc::clone(shared), Arc::clone(&flow));
        tokio::spawn(async move {
            let was_taken = session::run(&shared, &flow_of_task).await;
            drop(working);
            session::pause(&shared, &flow_of_task, was_taken).await;
            flow_of_task.leave();
            let late = flow_of_task.tally.take_dropped();
            shared.telemetry.datagrams_dropped(OVER, late);
            drop(place);
        });
        Ok(flow)
    }

    fn record_refused(&self, shared: &Shared, ends: Ends, refusal: Refusal) {
        let now = std::time::Instant::now();
        let mut record = Record::open(&shared.telemetry, Intake::Flow, source_of(ends), now);
        record.is_left_out = !self.refusals.lets_pass(Instant::now());
        record.close(&Carried::default(), Reason::Refused(refusal), now);
    }

    /// A flow has ended.
    pub(super) fn forget(&self, ends: Ends) {
        self.flows.lock().remove(&ends);
        self.left.notify_one();
    }

    /// Resolves when it is closed.
    pub(super) async fn closed(&self) {
        // The sender lives in `self`: changes never fail.
        let _ = self
            .is_closed
            .subscribe()
            .wait_for(|is_closed| *is_closed)
            .await;
    }

    fn flows(&self) -> Vec<Arc<Flow>> {
        self.flows.lock().values().map(Arc::clone).collect()
    }

    async fn emptied(&self) {
        while !self.flows.lock().is_empty() {
            self.left.notified().await;
        }
    }
}

/// Where a client is, in the form in which it is shown and counted.
pub(super) fn source_of(ends: Ends) -> SocketAddr {
    SocketAddr::new(ends.client.ip().to_canonical(), ends.client.port())
}
