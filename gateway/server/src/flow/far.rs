//! Flows of peers, as they come on a stream of kind FLOWS: each is admitted, and finds an endpoint.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use corinth_api::{FlowFrame, FlowNumber, StreamKind, StreamOpen, StreamReply};
use corinth_core::{Admission, Opening, Outcome};
use corinth_model::{Failure, GatewayId, Protocol, Reason, Refusal, Target};
use corinth_transport::{Link, Stream};
use parking_lot::Mutex;
use rustls::pki_types::UnixTime;
use tokio::time::Instant;

use super::{
    account::Account,
    arrived::{self, Arrived, Beginning, Ending},
    endpoint::EndpointSocket,
    inlet,
    outlet::Outlet,
    quota::Place,
    tally::OVER,
};
use crate::{
    inbound::{No, answer, turn_away},
    record::{Intake, Record},
    relay::Carried,
    session::unlinked,
    shared::Shared,
};

/// The source of a flow that does not claim one.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Serves a stream of kind FLOWS to its end.
pub(crate) async fn carry(shared: Arc<Shared>, link: &Arc<dyn Link>, stream: &mut Stream) {
    let peer = stream.peer().clone();
    let account = shared.flows.account(&peer.trust_domain);
    let Some(_place) = account.enter() else {
        return refuse(&shared, &account, stream).await;
    };
    let outlet = Arc::new(Outlet::new(&account));
    outlet.lead_beside(stream.datagrams());
    let not_after = stream.expiry().not_after;
    if answer(stream, &StreamReply::Accepted).await.is_err() {
        return;
    }
    let trunk = Arc::new(FarTrunk {
        peer,
        account,
        not_after,
        outlet,
        flows: Mutex::default(),
    });
    let mut state = link.state();
    let (mut from_peer, mut to_peer) = stream.split();
    let reading = async {
        let mut last = None;
        let hear = |frame: FlowFrame<'_>| trunk.hear(&shared, frame, &mut last);
        let beside = trunk.outlet.beside();
        inlet::read(&mut from_peer, beside, &shared.telemetry, hear).await?;
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

/// A peer with as many streams of this kind as it may have gets no more.
async fn refuse(shared: &Shared, account: &Account, stream: &mut Stream) {
    let now = std::time::Instant::now();
    let source = SocketAddr::new(NOWHERE, 0);
    let mut record = Record::open(&shared.telemetry, Intake::PeerFlow, source, now);
    let tables = shared.tables.borrow().clone();
    let cluster = tables.cluster_of(&stream.peer().trust_domain);
    record.peer = cluster.map(|cluster| cluster.as_str().into());
    record.is_left_out = !account.refusals.lets_pass(Instant::now());
    let reason = turn_away(stream, No::Refused(Refusal::FlowLimit)).await;
    record.close(&Carried::default(), reason, now);
}

/// The flows of one stream of a peer.
pub(super) struct FarTrunk {
    peer: GatewayId,
    account: Arc<Account>,
    /// Unix seconds from which nothing more is taken.
    not_after: u64,
    pub(super) outlet: Arc<Outlet>,
    flows: Mutex<BTreeMap<FlowNumber, Arc<Arrived>>>,
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
            FlowFrame::Data(number, bytes) => match self.find(number) {
                Some(flow) => flow.give(bytes),
                None => shared.telemetry.datagrams_dropped(OVER, 1),
            },
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
                return Err(self.turn_down(record, reply, began));
            }
        };
        let permit = admission.permit;
        let connected = first_endpoint(shared, &opening, &admission, &mut record);
        let (endpoint, socket) = match connected {
            Ok(connected) => connected,
            Err(reply) => {
                shared.core.lock().release(permit, began);
                return Err(self.turn_down(record, reply, began));
            }
        };
        let attempts = record.attempts;
        record.hand_on();
        let flow = Arc::new(Arrived::new(number, socket, opening.route.port));
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
            arrived::run(&shared, &trunk, &flow, beginning).await;
            drop((place, working));
        });
        Ok(())
    }

    /// Writes down that a flow was not taken, or that this is left out: who asks for many is not to fill the log.
    fn turn_down(
        &self,
        mut record: Record<'_>,
        reply: StreamReply,
        began: std::time::Instant,
    ) -> StreamReply {
        record.is_left_out = !self.account.refusals.lets_pass(Instant::now());
        record.close(&Carried::default(), reason_of(reply), began);
        reply
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

    pub(super) fn forget(&self, number: FlowNumber) -> Option<Arc<Arrived>> {
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
) -> Result<(SocketAddr, EndpointSocket), StreamReply> {
    let mut last = Failure::EndpointUnreachable;
    for address in &admission.endpoints {
        record.endpoint = Some(*address);
        record.attempts = record.attempts.saturating_add(1);
        match EndpointSocket::connect(*address) {
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
