//! The story of one flow of a local client: ask the core, walk the plan, watch over the flow until it ends.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use corinth_api::{SourceClaim, StreamKind, StreamOpen, StreamReply};
use corinth_core::{By, Outcome, Plan, Request};
use corinth_daemon::drain::Phase;
use corinth_model::{
    ClusterName, Culprit, Failure, PortNumber, Protocol, Reason, Refusal, Replay, RouteName,
    Tables, Target,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    client::{Flow, Verdict},
    endpoint::EndpointSocket,
    near::source_of,
    trunk::Trunk,
};
use crate::{
    opening::{accepted_after, late_after},
    record::{Intake, Record},
    shared::Shared,
};

/// A flow that found nobody is not tried again for so long: its client asks again and again.
const PAUSE: Duration = Duration::from_secs(1);

/// The story of one flow. Says whether anybody had taken it: a peer accepted, and its endpoint did not refuse at once.
pub(super) async fn run(shared: &Arc<Shared>, flow: &Arc<Flow>) -> bool {
    let now = std::time::Instant::now();
    let source = source_of(flow.ends);
    let mut record = Record::open(&shared.telemetry, Intake::Flow, source, now);
    let reason = serve_flow(shared, flow, &mut record).await;
    flow.finish(reason);
    let is_endpoints =
        matches!(reason, Reason::Failed(failure) if failure.culprit() == Culprit::Endpoint);
    let was_taken = record.is_accepted() && (flow.tally.is_answered() || !is_endpoints);
    record.close_flow(&flow.tally, reason, std::time::Instant::now());
    was_taken
}

/// Lets a while pass after a flow that nobody has taken: its client's next datagram begins another one.
pub(super) async fn pause(shared: &Shared, flow: &Flow, was_taken: bool) {
    if was_taken {
        return;
    }
    tokio::select! {
        () = sleep(PAUSE) => {}
        () = flow.port.closed() => {}
        _ = shared.terminated() => {}
    }
}

/// Who accepted.
enum Found {
    Endpoint(Arc<EndpointSocket>),
    Peer,
}

async fn serve_flow(shared: &Arc<Shared>, flow: &Arc<Flow>, record: &mut Record<'_>) -> Reason {
    let request = Request {
        intake: By::ImportPort(flow.port.number),
        protocol: Protocol::Udp,
        source: source_of(flow.ends).ip(),
    };
    // Before it is planned, so that no change after it is missed.
    let mut tables = shared.tables.subscribe();
    let planned = shared
        .core
        .lock()
        .route(&request, std::time::Instant::now());
    let plan = match planned {
        Ok(plan) => plan,
        Err(refusal) => return Reason::Refused(refusal),
    };
    record.route = Some(Box::new(plan.route.name.clone()));
    flow.tally.serves(plan.route.name.port);
    let walked = tokio::select! {
        // That we are ending is the reason why links close then.
        biased;
        failure = shared.terminated() => Err(Reason::Failed(failure)),
        walked = walk(shared, flow, &plan, record) => walked,
    };
    match walked {
        Ok((found, target)) => {
            record.accepted(std::time::Instant::now());
            let name = &plan.route.name;
            tokio::select! {
                biased;
                () = left(&mut tables, flow.port.number, name, &target) => {
                    Reason::Failed(Failure::Withdrawn)
                }
                reason = watch(shared, flow, &plan, &target, &found) => reason,
            }
        }
        Err(reason) => reason,
    }
}

/// Tries the candidates of the plan in order.
async fn walk(
    shared: &Arc<Shared>,
    flow: &Arc<Flow>,
    plan: &Plan,
    record: &mut Record<'_>,
) -> Result<(Found, Target), Reason> {
    let mut last = Reason::Refused(Refusal::NoEndpoint);
    let deadline = Instant::now() + shared.times().open;
    for (number, attempt) in plan.attempts.iter().enumerate() {
        if Instant::now() >= deadline {
            break;
        }
        record.attempts = record.attempts.saturating_add(1);
        let tried = match &attempt.target {
            Target::Endpoint(address) => {
                record.endpoint = Some(*address);
                record.peer = None;
                speak(flow, *address).map(Found::Endpoint)
            }
            Target::Cluster(cluster) => {
                record.endpoint = None;
                record.peer = Some(cluster.as_str().into());
                ask(shared, flow, plan, cluster, number, deadline)
                    .await
                    .map(|()| Found::Peer)
            }
        };
        let missed = match tried {
            Ok(found) => return Ok((found, attempt.target.clone())),
            Err(missed) => missed,
        };
        let (outcome, is_last) = match missed {
            Missed::Next(outcome) => (outcome, false),
            Missed::Last(failure) => (Outcome::Failed(failure), true),
            Missed::Ended(reason) => return Err(reason),
        };
        let route = &plan.route;
        shared.report(&route.name, route.protocol, &attempt.target, outcome);
        last = match outcome {
            Outcome::Accepted { .. } => Reason::Completed,
            Outcome::Refused(refusal) => Reason::Refused(refusal),
            Outcome::Failed(failure) => Reason::Failed(failure),
        };
        if is_last {
            break;
        }
    }
    Err(last)
}

/// Why an attempt found nobody.
enum Missed {
    /// The next candidate may be tried.
    Next(Outcome),
    /// What the client said may have been delivered: nobody else may get it.
    Last(Failure),
    /// The flow is over.
    Ended(Reason),
}

fn speak(flow: &Flow, address: SocketAddr) -> Result<Arc<EndpointSocket>, Missed> {
    let missed = |failure| Missed::Next(Outcome::Failed(failure));
    let endpoint = Arc::new(EndpointSocket::connect(address).map_err(missed)?);
    flow.speak_to(&endpoint).map_err(missed)?;
    Ok(endpoint)
}

/// Asks a cluster, at its best gateway, then at its others.
async fn ask(
    shared: &Arc<Shared>,
    flow: &Arc<Flow>,
    plan: &Plan,
    cluster: &ClusterName,
    number: usize,
    deadline: Instant,
) -> Result<(), Missed> {
    let mut header = StreamOpen::new(StreamKind::Service {
        route: plan.route.name.clone(),
        protocol: plan.route.protocol,
    });
    header.attempt = u8::try_from(number).unwrap_or(u8::MAX);
    header.claim = SourceClaim {
        cluster: Some(shared.own.clone()),
        address: Some(source_of(flow.ends).ip()),
        ..SourceClaim::default()
    };
    let mut missed = Missed::Next(Outcome::Failed(Failure::PeerUnreachable));
    let mut links = VecDeque::from(shared.links_to(cluster));
    while let Some(link) = links.pop_front() {
        let trunk = flow.port.trunks.on(shared, &link);
        let Some(number) = flow.ask(&trunk, &header) else {
            continue;
        };
        let verdict = answer(flow, &trunk, deadline).await;
        if let Verdict::Reply(StreamReply::Accepted) = verdict {
            return Ok(());
        }
        let has_spoken = flow.seek();
        let outcome = match verdict {
            Verdict::Reply(StreamReply::Accepted) => return Ok(()),
            Verdict::Reply(StreamReply::Refused(refusal)) => Outcome::Refused(refusal),
            Verdict::Reply(StreamReply::Failed(failure)) => Outcome::Failed(failure),
            Verdict::Unsent(outcome) => outcome,
            Verdict::Lost(failure) => {
                trunk.end(number, Reason::Failed(failure));
                let is_over = has_spoken && plan.route.replay != Replay::Idempotent;
                match (is_over, trunk.was_overtaken()) {
                    (true, false) => return Err(Missed::Last(failure)),
                    // Only its connection was dead, which says nothing about the peer.
                    (true, true) => return Err(Missed::Ended(Reason::Failed(failure))),
                    (false, true) if Instant::now() < deadline => links.push_front(link),
                    (false, _) => {}
                }
                Outcome::Failed(failure)
            }
            Verdict::Ended(reason) => {
                trunk.end(number, reason);
                return Err(Missed::Ended(reason));
            }
        };
        missed = Missed::Next(outcome);
        // What another gateway of the same cluster would answer as well.
        if matches!(outcome, Outcome::Refused(refusal)
            if refusal != Refusal::Draining && refusal != Refusal::Overloaded)
        {
            break;
        }
    }
    Err(missed)
}

/// Waits for what a peer answers. An answer that is late makes us look at the path.
async fn answer(flow: &Flow, trunk: &Trunk, deadline: Instant) -> Verdict {
    let late = sleep(late_after(trunk.link.as_ref()));
    tokio::pin!(late);
    let mut is_late = false;
    loop {
        tokio::select! {
            biased;
            verdict = flow.verdict() => return verdict,
            () = &mut late, if !is_late => {
                is_late = true;
                trunk.link.suspect();
            }
            () = sleep_until(deadline) => return Verdict::Lost(Failure::PeerTimeout),
        }
    }
}

/// Watches over a flow that was accepted until it ends, and carries what a local endpoint says.
async fn watch(
    shared: &Arc<Shared>,
    flow: &Arc<Flow>,
    plan: &Plan,
    target: &Target,
    found: &Found,
) -> Reason {
    let began = std::time::Instant::now();
    let route = &plan.route;
    let report = |outcome| shared.report(&route.name, route.protocol, target, outcome);
    let terminated = shared.terminated();
    tokio::pin!(terminated);
    let mut phases = shared.drain.subscribe();
    let mut is_reported = false;
    loop {
        if !is_reported && flow.tally.is_answered() {
            is_reported = true;
            report(accepted_after(began));
        }
        let is_draining = *phases.borrow_and_update() >= Phase::Draining;
        let due = flow.tally.due(shared.times().flows, is_draining);
        if due <= Instant::now() {
            return flow.tally.silenced();
        }
        let reason = tokio::select! {
            biased;
            failure = &mut terminated => Reason::Failed(failure),
            verdict = flow.verdict() => match verdict {
                Verdict::Reply(_) => continue,
                Verdict::Unsent(Outcome::Refused(refusal)) => Reason::Refused(refusal),
                Verdict::Unsent(Outcome::Failed(failure)) | Verdict::Lost(failure) => {
                    Reason::Failed(failure)
                }
                Verdict::Unsent(Outcome::Accepted { .. }) => Reason::Completed,
                Verdict::Ended(reason) => reason,
            },
            failure = heard(flow, found) => match failure {
                Some(failure) => Reason::Failed(failure),
                None => continue,
            },
            () = flow.tally.news.notified() => continue,
            _ = phases.changed() => continue,
            () = sleep_until(due) => continue,
        };
        if let Reason::Failed(failure) = reason {
            // An endpoint here that has answered before is there no more; of those of a peer, others may be.
            let is_endpoint = matches!(found, Found::Endpoint(_));
            if !is_reported || (is_endpoint && failure.culprit() == Culprit::Endpoint) {
                report(Outcome::Failed(failure));
            }
        }
        return reason;
    }
}

/// Gives the client what an endpoint here says; a failure if there is no endpoint any more.
async fn heard(flow: &Flow, found: &Found) -> Option<Failure> {
    match found {
        Found::Endpoint(endpoint) => endpoint.hear(|datagram| flow.give(datagram)).await,
        Found::Peer => std::future::pending().await,
    }
}

/// Resolves when what is at this import port no longer leads there. Streams end with their endpoint, or with the link; a
/// flow would go on for as long as its client talks.
async fn left(
    tables: &mut watch::Receiver<Arc<Tables>>,
    port: PortNumber,
    name: &RouteName,
    target: &Target,
) {
    let leads_there = |tables: &Arc<Tables>| {
        let route = tables.routes.by_import_port(port, Protocol::Udp);
        route.is_some_and(|route| {
            let mut candidates = route.candidates.iter();
            route.name == *name && candidates.any(|candidate| candidate.target == *target)
        })
    };
    // An error means that the gateway itself is gone, which is the same.
    let _ = tables.wait_for(|tables| !leads_there(tables)).await;
}
