//! Flows of peers: each gets a socket of its own, connected to the endpoint that was chosen for it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use corinth_api::{FlowFrame, FlowNumber, StreamKind, StreamOpen, StreamReply};
use corinth_core::{Admission, Opening, Outcome, PermitId};
use corinth_daemon::drain::Phase;
use corinth_model::{
    ClusterName, Failure, GatewayId, Protocol, Reason, Refusal, RouteName, Tables, Target,
};
use corinth_transport::{Link, Stream};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustls::pki_types::UnixTime;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::{Notify, watch},
    task::coop::consume_budget,
    time::{Instant, sleep_until},
};

use super::{
    client::failure_of,
    inlet,
    outlet::Outlet,
    quota::Place,
    socket::take_from_endpoint,
    tally::{Patience, Tally},
};
use crate::{
    inbound::{answer, withdrawn},
    opening::accepted_after,
    record::{Intake, Record},
    relay::{Carried, Side},
    session::unlinked,
    shared::{PermitGuard, Shared},
};

/// Who took the client decides when a flow is over; we wait so much longer.
const GRACE: Duration = Duration::from_secs(15);
/// The source of a flow that does not claim one.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Serves a stream of kind FLOWS to its end.
pub(crate) async fn carry(shared: Arc<Shared>, link: &Arc<dyn Link>, stream: &mut Stream) {
    let outlet = Arc::new(Outlet::default());
    outlet.lead_beside(stream.datagrams());
    let not_after = stream.expiry().not_after;
    let peer = stream.peer().clone();
    if answer(stream, &StreamReply::Accepted).await.is_err() {
        return;
    }
    let trunk = Arc::new(FarTrunk {
        peer,
        not_after,
        outlet,
        flows: Mutex::default(),
    });
    let mut state = link.state();
    let (mut from_peer, mut to_peer) = stream.split();
    let reading = async {
        let mut last = None;
        let hear = |frame: FlowFrame<'_>| trunk.hear(&shared, frame, &mut last);
        inlet::read(&mut from_peer, trunk.outlet.beside(), hear).await?;
        trunk.outlet.close();
        Ok(())
    };
    let ended = tokio::select! {
        // Whoever withdraws also cuts the tunnel: the reason is told before its consequence.
        biased;
        failure = unlinked(&shared, &mut state) => Err(failure),
        both = async { tokio::try_join!(reading, trunk.outlet.write(&mut to_peer)) } => both.map(|_| ()),
    };
    let failure = ended.err();
    trunk.end_all(failure.unwrap_or(Failure::PeerReset));
    if let Some(failure) = failure {
        stream.reset(failure);
    }
}

/// The flows of one stream of a peer.
struct FarTrunk {
    peer: GatewayId,
    /// Unix seconds from which nothing more is taken.
    not_after: u64,
    outlet: Arc<Outlet>,
    flows: Mutex<BTreeMap<FlowNumber, Arc<Arrived>>>,
}

/// A flow of a peer.
struct Arrived {
    number: FlowNumber,
    socket: UdpSocket,
    tally: Tally,
    ended: Mutex<Option<Ending>>,
    /// It was ended elsewhere than in its task.
    over: Notify,
}

/// Why a flow is over.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// Our own socket has learnt that its endpoint is gone.
    Endpoint(Failure),
    /// The peer, the link or the operator wants it so, which says nothing about the endpoint.
    Other(Reason),
}

/// What the task of a flow needs to know of how it began.
struct Beginning {
    /// The cluster whose certificate the peer has.
    cluster: Option<ClusterName>,
    tables: watch::Receiver<Arc<Tables>>,
    route: RouteName,
    exported: RouteName,
    source: SocketAddr,
    endpoint: SocketAddr,
    permit: PermitId,
    attempts: u8,
    began: std::time::Instant,
}

impl FarTrunk {
    fn hear(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        frame: FlowFrame<'_>,
        last: &mut Option<FlowNumber>,
    ) -> Result<(), Failure> {
        match frame {
            FlowFrame::Open(number, header) => {
                if last.is_some_and(|last| number <= last) {
                    return Err(Failure::ProtocolViolation);
                }
                *last = Some(number);
                let reply = match self.open(shared, number, *header) {
                    Ok(()) => StreamReply::Accepted,
                    Err(reply) => reply,
                };
                self.outlet.reply(number, &reply);
            }
            FlowFrame::Reply(..) => return Err(Failure::ProtocolViolation),
            FlowFrame::Data(number, bytes) => {
                if let Some(flow) = self.find(number) {
                    flow.give(bytes);
                }
            }
            FlowFrame::End(number, reason) => {
                if let Some(flow) = self.forget(number) {
                    flow.end(Ending::Other(reason));
                }
            }
        }
        Ok(())
    }

    /// Admits a flow and finds it an endpoint, at once.
    fn open(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        number: FlowNumber,
        header: Result<StreamOpen, corinth_api::HeaderError>,
    ) -> Result<(), StreamReply> {
        let began = std::time::Instant::now();
        // Before it is decided, so that no change after the decision is missed.
        let mut tables = shared.tables.subscribe();
        let cluster = tables
            .borrow_and_update()
            .cluster_of(&self.peer.trust_domain)
            .cloned();
        let header = header.ok();
        let source = header.as_ref().and_then(|header| header.claim.address);
        let source = SocketAddr::new(source.unwrap_or(NOWHERE), 0);
        let mut record = Record::open(&shared.telemetry, Intake::PeerFlow, source, began);
        record.peer = cluster.as_ref().map(|cluster| cluster.as_str().into());
        let admitted = self.admit(shared, header, &mut record);
        let (opening, admission, place) = match admitted {
            Ok(admitted) => admitted,
            Err(reply) => {
                record.close(&Carried::default(), reason_of(reply), began);
                return Err(reply);
            }
        };
        let permit = admission.permit;
        let connected = first_endpoint(shared, &opening, &admission, &mut record);
        let (endpoint, socket) = match connected {
            Ok(connected) => connected,
            Err(reply) => {
                shared.core.lock().release(permit, began);
                record.close(&Carried::default(), reason_of(reply), began);
                return Err(reply);
            }
        };
        let attempts = record.attempts;
        record.hand_on();
        let flow = Arc::new(Arrived {
            number,
            socket,
            tally: Tally::new(Side::Endpoint),
            ended: Mutex::new(None),
            over: Notify::new(),
        });
        flow.tally.serves(opening.route.port);
        self.flows.lock().insert(number, Arc::clone(&flow));
        let beginning = Beginning {
            cluster,
            tables,
            route: opening.route,
            exported: admission.export.route_name(),
            source,
            endpoint,
            permit,
            attempts,
            began,
        };
        let (shared, trunk) = (Arc::clone(shared), Arc::clone(self));
        let working = shared.drain.guard();
        tokio::spawn(async move {
            run(&shared, &trunk, &flow, beginning).await;
            drop((place, working));
        });
        Ok(())
    }

    fn admit(
        &self,
        shared: &Arc<Shared>,
        header: Option<StreamOpen>,
        record: &mut Record<'_>,
    ) -> Result<(Opening, Admission, Place), StreamReply> {
        if self.not_after <= UnixTime::now().as_secs() {
            return Err(StreamReply::Failed(Failure::CertificateExpired));
        }
        let Some(StreamOpen {
            kind:
                StreamKind::Service {
                    route,
                    protocol: Protocol::Udp,
                },
            hops,
            ..
        }) = header
        else {
            return Err(StreamReply::Failed(Failure::HeaderInvalid));
        };
        let opening = Opening {
            route,
            protocol: Protocol::Udp,
            hops,
        };
        let place = shared.flows.of_peer().map_err(StreamReply::Refused)?;
        let now = std::time::Instant::now();
        let admitted = shared.core.lock().admit(&self.peer, &opening, now);
        match admitted {
            Ok(admission) => {
                // Only a name that is ours becomes a label.
                record.route = Some(Box::new(admission.export.route_name()));
                Ok((opening, admission, place))
            }
            Err(refusal) => {
                record.asked = Some(opening.route.to_string().into());
                Err(StreamReply::Refused(refusal))
            }
        }
    }

    fn find(&self, number: FlowNumber) -> Option<Arc<Arrived>> {
        self.flows.lock().get(&number).map(Arc::clone)
    }

    fn forget(&self, number: FlowNumber) -> Option<Arc<Arrived>> {
        self.flows.lock().remove(&number)
    }

    fn end_all(&self, failure: Failure) {
        let flows = std::mem::take(&mut *self.flows.lock());
        for flow in flows.values() {
            flow.end(Ending::Other(Reason::Failed(failure)));
        }
    }
}

fn reason_of(reply: StreamReply) -> Reason {
    match reply {
        StreamReply::Accepted => Reason::Completed,
        StreamReply::Refused(refusal) => Reason::Refused(refusal),
        StreamReply::Failed(failure) => Reason::Failed(failure),
    }
}

/// Connects to the first endpoint to which there is a way. Whether anybody listens there only datagrams can tell.
fn first_endpoint(
    shared: &Shared,
    opening: &Opening,
    admission: &Admission,
    record: &mut Record<'_>,
) -> Result<(SocketAddr, UdpSocket), StreamReply> {
    let mut last = Failure::EndpointUnreachable;
    for address in &admission.endpoints {
        record.endpoint = Some(*address);
        record.attempts = record.attempts.saturating_add(1);
        match connect(*address) {
            Ok(socket) => return Ok((*address, socket)),
            // Of descriptors there are too few for any endpoint.
            Err(Failure::Internal) => return Err(StreamReply::Refused(Refusal::Overloaded)),
            Err(failure) => last = failure,
        }
        let target = Target::Endpoint(*address);
        shared.report(
            &opening.route,
            Protocol::Udp,
            &target,
            Outcome::Failed(last),
        );
    }
    Err(StreamReply::Failed(last))
}

/// A socket that speaks to one endpoint and hears nobody else; on a worker.
pub(super) fn connect(address: SocketAddr) -> Result<UdpSocket, Failure> {
    let connected = || {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking(),
            None,
        )?;
        socket.connect(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    connected().map_err(|error: io::Error| match Errno::from_io_error(&error) {
        // There are too few of what every endpoint needs.
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN) => {
            Failure::Internal
        }
        Some(_) | None => Failure::EndpointUnreachable,
    })
}

impl Arrived {
    /// Gives a datagram of the client to the endpoint. Never waits.
    fn give(&self, datagram: &[u8]) {
        match SockRef::from(&self.socket).send(datagram) {
            Ok(_) => self.tally.gave(datagram.len()),
            Err(error) => {
                self.tally.drop_some(1);
                if let Some(failure) = failure_of(&error) {
                    self.end(Ending::Endpoint(failure));
                }
            }
        }
    }

    fn end(&self, ending: Ending) {
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

async fn run(
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
    let cluster = beginning.cluster.as_ref();
    let gone = withdrawn(
        &mut beginning.tables,
        cluster,
        &beginning.route,
        Protocol::Udp,
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
        let ending = tokio::select! {
            biased;
            () = &mut gone => Ending::Other(Reason::Failed(Failure::Withdrawn)),
            failure = &mut terminated => Ending::Other(Reason::Failed(failure)),
            ending = flow.ended() => ending,
            failure = heard(trunk, flow) => match failure {
                Some(failure) => Ending::Endpoint(failure),
                None => continue,
            },
            () = flow.tally.news.notified() => continue,
            _ = phases.changed() => continue,
            () = sleep_until(due) => continue,
        };
        return match ending {
            Ending::Endpoint(failure) => {
                if !is_reported {
                    report(Outcome::Failed(failure));
                }
                Reason::Failed(failure)
            }
            Ending::Other(reason) => reason,
        };
    }
}

/// Sends the peer what the endpoint says; a failure if there is no endpoint any more.
async fn heard(trunk: &FarTrunk, flow: &Arrived) -> Option<Failure> {
    if flow.socket.readable().await.is_err() {
        return Some(Failure::EndpointUnreachable);
    }
    let taken = take_from_endpoint(&flow.socket, |datagram| {
        flow.tally.took(datagram.len());
        flow.tally
            .drop_some(trunk.outlet.datagram(flow.number, datagram));
    });
    let failure = taken.err().and_then(|error| failure_of(&error));
    if failure.is_none() {
        // An endpoint that never stops must not keep the worker.
        consume_budget().await;
    }
    failure
}
