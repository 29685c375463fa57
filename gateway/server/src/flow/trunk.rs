//! The stream on which one worker carries the flows of its clients to one gateway of a peer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_api::{FlowFrame, FlowNumber, StreamKind, StreamOpen, StreamReply};
use corinth_core::Outcome;
use corinth_model::{Failure, GatewayId, Reason};
use corinth_transport::{Link, ReadHalf, TransportKind};
use parking_lot::Mutex;
use rustls::pki_types::UnixTime;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tracing::debug;

use super::{account::Account, client::Flow, inlet, outlet::Outlet, tally::OVER};
use crate::{
    opening::{gone, late_after, tidy},
    record::Telemetry,
    relay,
    shared::Shared,
};

/// A trunk without flows is kept for those that come next.
const UNUSED: Duration = Duration::from_secs(30);
/// Other connections that are tried, one after the other, for a stream that is not answered.
const OTHERS_MAX: usize = 8;

/// The trunks of one worker, one for each link.
#[derive(Default)]
pub(crate) struct Trunks {
    by_link: Mutex<BTreeMap<(GatewayId, TransportKind), Arc<Trunk>>>,
}

impl Trunks {
    /// The trunk on a link, begun if there is none that takes more flows.
    pub(super) fn on(&self, shared: &Arc<Shared>, link: &Arc<dyn Link>) -> Arc<Trunk> {
        let key = (link.peer().clone(), link.kind());
        let now = UnixTime::now().as_secs();
        let mut by_link = self.by_link.lock();
        by_link.retain(|_, trunk| !trunk.is_over());
        if let Some(trunk) = by_link.get(&key)
            && trunk.takes_more(now)
        {
            return Arc::clone(trunk);
        }
        let account = shared.flows.account(&key.0.trust_domain);
        let trunk = Arc::new(Trunk::new(Arc::clone(link), &account));
        by_link.insert(key, Arc::clone(&trunk));
        drop(by_link);
        tokio::spawn(run(Arc::clone(shared), Arc::clone(&trunk)));
        trunk
    }
}

/// The stream on which one worker carries flows to one gateway of a peer.
pub(super) struct Trunk {
    pub(super) link: Arc<dyn Link>,
    outlet: Outlet,
    /// Unix seconds from which no flow is opened on it.
    retire_at: AtomicU64,
    /// It was not answered in time: new flows go elsewhere until it is.
    is_late: AtomicBool,
    /// Another stream of its link was opened after it and answered before it.
    is_overtaken: AtomicBool,
    flows: Mutex<Flows>,
    /// The last flow has gone, or one has come.
    changed: Notify,
}

struct Flows {
    by_number: BTreeMap<FlowNumber, Arc<Flow>>,
    /// `None` where numbers are used up.
    next: Option<FlowNumber>,
    is_over: bool,
}

/// Why a trunk ended.
enum Broken {
    /// Nothing of any flow was delivered.
    Unsent(Outcome),
    Lost(Failure),
}

impl Trunk {
    fn new(link: Arc<dyn Link>, account: &Arc<Account>) -> Self {
        Self {
            link,
            outlet: Outlet::new(account),
            retire_at: AtomicU64::new(u64::MAX),
            is_late: AtomicBool::new(false),
            is_overtaken: AtomicBool::new(false),
            flows: Mutex::new(Flows {
                by_number: BTreeMap::new(),
                next: Some(FlowNumber::FIRST),
                is_over: false,
            }),
            changed: Notify::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.flows.lock().is_over
    }

    fn takes_more(&self, now_unix_seconds: u64) -> bool {
        let flows = self.flows.lock();
        let is_young = self.retire_at.load(Relaxed) > now_unix_seconds;
        !flows.is_over && flows.next.is_some() && is_young && !self.is_late.load(Relaxed)
    }

    /// Whether it has ended because its connection was dead and others of its link are not.
    pub(super) fn was_overtaken(&self) -> bool {
        self.is_overtaken.load(Relaxed)
    }

    /// Asks the peer for a flow. What it is told later goes to `flow`. `None` if the trunk is over.
    pub(super) fn open(&self, flow: &Arc<Flow>, header: &StreamOpen) -> Option<FlowNumber> {
        let mut flows = self.flows.lock();
        if flows.is_over {
            return None;
        }
        let number = flows.next?;
        flows.next = number.next();
        flows.by_number.insert(number, Arc::clone(flow));
        // Under the lock, so that the peer sees numbers go up.
        self.outlet.open(number, header);
        drop(flows);
        self.changed.notify_one();
        Some(number)
    }

    /// Sends a datagram behind the OPEN of its flow. Returns how many were thrown away.
    pub(super) fn send_first(&self, flow: FlowNumber, bytes: &[u8]) -> u64 {
        self.outlet.data(flow, bytes, Instant::now())
    }

    /// Sends a datagram of a flow that was accepted. Returns how many were thrown away.
    pub(super) fn send(&self, flow: FlowNumber, bytes: &[u8]) -> u64 {
        self.outlet.datagram(flow, bytes, Instant::now())
    }

    /// The flow is over on our side.
    pub(super) fn end(&self, flow: FlowNumber, reason: Reason) {
        if self.forget(flow).is_some() {
            self.outlet.end(flow, reason);
        }
    }

    fn forget(&self, number: FlowNumber) -> Option<Arc<Flow>> {
        let flow = self.flows.lock().by_number.remove(&number);
        self.changed.notify_one();
        flow
    }

    fn find(&self, number: FlowNumber) -> Option<Arc<Flow>> {
        self.flows.lock().by_number.get(&number).map(Arc::clone)
    }

    /// Carries flows until nobody needs the trunk any more.
    async fn carry(&self, telemetry: &Telemetry) -> Result<(), Broken> {
        let unsent = |failure| Broken::Unsent(Outcome::Failed(failure));
        let header = StreamOpen::new(StreamKind::Flows);
        let opened = self.link.open(&header).await;
        let mut stream = opened.map_err(|error| unsent(error.failure()))?;
        self.retire_at.store(stream.expiry().retire_at, Relaxed);
        self.outlet.lead_beside(stream.datagrams());
        let mut state = self.link.state();
        let connection_dead = stream.connection_dead();
        let (mut from_peer, mut to_peer) = stream.split();
        let ended = tokio::select! {
            biased;
            failure = gone(&mut state) => Err(Broken::Lost(failure)),
            // Datagrams are not to wait until it lives again.
            () = connection_dead => Err(Broken::Lost(Failure::PathDead)),
            both = async {
                tokio::try_join!(
                    self.read(&mut from_peer, telemetry),
                    async { self.outlet.write(&mut to_peer).await.map_err(Broken::Lost) },
                )
            } => both.map(|_| ()),
            never = self.close_when_unused() => match never {},
        };
        if let Err(Broken::Lost(failure)) = &ended {
            stream.reset(*failure);
        }
        ended
    }

    async fn read(
        &self,
        from_peer: &mut ReadHalf<'_>,
        telemetry: &Telemetry,
    ) -> Result<(), Broken> {
        let reply = tokio::select! {
            biased;
            reply = from_peer.reply() => reply.map_err(relay::failure_of),
            () = self.overtaken() => Err(Failure::PeerTimeout),
        };
        self.is_late.store(false, Relaxed);
        match reply.map_err(Broken::Lost)? {
            StreamReply::Accepted => {}
            StreamReply::Refused(refusal) => {
                return Err(Broken::Unsent(Outcome::Refused(refusal)));
            }
            StreamReply::Failed(failure) => return Err(Broken::Unsent(Outcome::Failed(failure))),
        }
        let hear = |frame: FlowFrame<'_>| self.hear(frame, telemetry);
        let read = inlet::read(from_peer, self.outlet.beside(), telemetry, hear);
        read.await.map_err(Broken::Lost)?;
        // The peer ended it, which it does only after us.
        self.outlet.close();
        Ok(())
    }

    /// Resolves when the stream was not answered in time and another one on the link was, which was opened after it: the
    /// connection that it is on is dead, though the path is not. Nobody would notice before flows have waited in vain.
    async fn overtaken(&self) {
        let late = late_after(self.link.as_ref());
        sleep(late).await;
        self.is_late.store(true, Relaxed);
        self.link.suspect();
        match self.link.kind() {
            TransportKind::Memory | TransportKind::Tls => {}
            // Each connection is watched.
            TransportKind::Quic => return std::future::pending().await,
        }
        for _ in 0..OTHERS_MAX {
            let header = StreamOpen::new(StreamKind::Flows);
            let Ok(mut other) = self.link.open(&header).await else {
                break;
            };
            let asking = async {
                let (mut from_peer, mut to_peer) = other.split();
                to_peer.flush().await.is_ok() && from_peer.reply().await.is_ok()
            };
            if matches!(timeout(late, asking).await, Ok(true)) {
                tokio::spawn(tidy(other));
                return self.is_overtaken.store(true, Relaxed);
            }
        }
        std::future::pending().await
    }

    /// What the peer says of a flow that is over here is late, and means nothing.
    fn hear(&self, frame: FlowFrame<'_>, telemetry: &Telemetry) -> Result<(), Failure> {
        match frame {
            FlowFrame::Open(..) => return Err(Failure::ProtocolViolation),
            FlowFrame::Reply(number, reply) => {
                // An answer that cannot be read is none.
                let reply = reply.unwrap_or(StreamReply::Failed(Failure::HeaderInvalid));
                let flow = match reply {
                    StreamReply::Accepted => self.find(number),
                    StreamReply::Refused(_) | StreamReply::Failed(_) => self.forget(number),
                };
                if let Some(flow) = flow {
                    flow.answered(reply);
                }
            }
            FlowFrame::Data(number, bytes) => match self.find(number) {
                Some(flow) => flow.give(bytes),
                None => telemetry.datagrams_dropped(OVER, 1),
            },
            FlowFrame::End(number, reason) => {
                if let Some(flow) = self.forget(number) {
                    flow.ended(reason);
                }
            }
        }
        Ok(())
    }

    /// Ends the stream once it was without flows for a while.
    async fn close_when_unused(&self) -> std::convert::Infallible {
        loop {
            while !self.flows.lock().by_number.is_empty() {
                self.changed.notified().await;
            }
            if timeout(UNUSED, self.changed.notified()).await.is_ok() {
                continue;
            }
            if self.retire() {
                self.outlet.close();
                return std::future::pending().await;
            }
        }
    }

    /// Takes no more flows, unless there are some.
    fn retire(&self) -> bool {
        let mut flows = self.flows.lock();
        let is_unused = flows.by_number.is_empty();
        flows.is_over |= is_unused;
        is_unused
    }

    /// Tells every flow that there is no way any more.
    fn finish(&self, broken: &Broken) {
        let mut flows = self.flows.lock();
        flows.is_over = true;
        let left = std::mem::take(&mut flows.by_number);
        drop(flows);
        for flow in left.values() {
            match broken {
                Broken::Unsent(outcome) => flow.unsent(*outcome),
                Broken::Lost(failure) => flow.lost(*failure),
            }
        }
    }
}

async fn run(shared: Arc<Shared>, trunk: Arc<Trunk>) {
    let carried = tokio::select! {
        carried = trunk.carry(&shared.telemetry) => carried,
        // Links are closed next; flows say by themselves why they end.
        failure = shared.terminated() => Err(Broken::Lost(failure)),
    };
    let broken = match carried {
        Ok(()) => Broken::Lost(Failure::PeerReset),
        Err(broken) => broken,
    };
    let peer = trunk.link.peer();
    debug!(%peer, transport = %trunk.link.kind(), "a trunk for flows has ended");
    trunk.finish(&broken);
}

#[cfg(test)]
mod tests;
