//! The story of one connection of a local client: ask the core, walk the plan, relay, record.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use corinth_api::{SourceClaim, StreamKind, StreamOpen};
use corinth_core::{Outcome, Plan, Request};
use corinth_daemon::drain::Phase;
use corinth_model::{ClusterName, Failure, Reason, Refusal, Target};
use corinth_transport::{Link, LinkState, Stream, ready};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpStream, sync::watch, time::timeout};

use crate::{
    greeting::Greeting,
    opening::{Missed, Opening, accepted_after},
    record::{Intake, Record},
    relay::{self, Carried, Side},
    said::Said,
    shared::Shared,
    splice,
};

/// A local client that has said which service it wants.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    pub(crate) source: SocketAddr,
    pub(crate) intake: Intake,
    pub(crate) request: Request,
    /// How it is told that its service accepted, or why not.
    pub(crate) greeting: Greeting,
    /// What it said beyond its request.
    pub(crate) said: Said,
    pub(crate) began: Instant,
}

/// What the walk found.
enum Found {
    Endpoint(TcpStream),
    Peer { link: Arc<dyn Link>, stream: Stream },
}

/// Serves a client to its end.
pub(crate) async fn run(shared: &Arc<Shared>, client: Box<Client>) {
    let mut record = Record::open(
        &shared.telemetry,
        client.intake,
        client.source,
        client.began,
    );
    let carried = Carried::default();
    let reason = serve(shared, client, &mut record, &carried).await;
    record.close(&carried, reason, Instant::now());
}

async fn serve(
    shared: &Arc<Shared>,
    mut client: Box<Client>,
    record: &mut Record<'_>,
    carried: &Carried,
) -> Reason {
    let planned = shared.core.lock().route(&client.request, Instant::now());
    let plan = match planned {
        Ok(plan) => plan,
        Err(refusal) => return refuse(client, Reason::Refused(refusal)).await,
    };
    record.route = Some(Box::new(plan.route.name.clone()));
    let found = tokio::select! {
        // That we are ending is the reason why links close then.
        biased;
        failure = shared.terminated() => Err(Reason::Failed(failure)),
        // On the heap: the task keeps room for its largest phase as long as it lives.
        found = Box::pin(walk(shared, &mut client, &plan, record)) => found,
    };
    drop(plan);
    match found {
        Ok(found) => {
            record.accepted(Instant::now());
            if client.greeting.accept(&client.socket).await.is_err() {
                return Reason::Failed(Failure::ClientGone);
            }
            match found {
                Found::Endpoint(endpoint) => {
                    Box::pin(splice_to(shared, client, endpoint, carried)).await
                }
                Found::Peer { link, stream } => {
                    carried.add_sent(client.said.bytes.len());
                    relay_to(shared, client, &link, stream, carried).await
                }
            }
        }
        Err(reason) => refuse(client, reason).await,
    }
}

/// Tells the client no, in its own words where its protocol has some, else by RST: never a clean end.
async fn refuse(client: Box<Client>, reason: Reason) -> Reason {
    let Client {
        socket, greeting, ..
    } = *client;
    if greeting.refuse(&socket, reason).await {
        relay::finish(socket).await;
    } else {
        relay::abort(socket);
    }
    reason
}

/// Tries the candidates of the plan in order.
async fn walk(
    shared: &Arc<Shared>,
    client: &mut Client,
    plan: &Plan,
    record: &mut Record<'_>,
) -> Result<Found, Reason> {
    let mut last = Reason::Refused(Refusal::NoEndpoint);
    let deadline = Instant::now() + shared.times().open;
    for (number, attempt) in plan.attempts.iter().enumerate() {
        let began = Instant::now();
        if began >= deadline {
            break;
        }
        record.attempts = record.attempts.saturating_add(1);
        let tried = match &attempt.target {
            Target::Endpoint(address) => {
                record.endpoint = Some(*address);
                record.peer = None;
                connect(shared, *address)
                    .await
                    .map(Found::Endpoint)
                    .map_err(|failure| Missed::Next(Outcome::Failed(failure)))
            }
            Target::Cluster(cluster) => {
                record.endpoint = None;
                record.peer = Some(cluster.as_str().into());
                open(shared, client, plan, cluster, number, deadline).await
            }
        };
        let outcome = match &tried {
            Ok(_) => accepted_after(began),
            Err(Missed::Next(outcome)) => *outcome,
            Err(Missed::Lost(failure)) => Outcome::Failed(*failure),
            Err(Missed::Client(failure)) => return Err(Reason::Failed(*failure)),
        };
        let route = &plan.route;
        shared.report(&route.name, route.protocol, &attempt.target, outcome);
        match tried {
            Ok(found) => return Ok(found),
            Err(Missed::Lost(failure) | Missed::Client(failure)) => {
                return Err(Reason::Failed(failure));
            }
            Err(Missed::Next(outcome)) => last = reason_of(outcome),
        }
    }
    Err(last)
}

fn reason_of(outcome: Outcome) -> Reason {
    match outcome {
        Outcome::Accepted { .. } => Reason::Completed,
        Outcome::Refused(refusal) => Reason::Refused(refusal),
        Outcome::Failed(failure) => Reason::Failed(failure),
    }
}

/// Connects to an endpoint.
pub(crate) async fn connect(shared: &Shared, address: SocketAddr) -> Result<TcpStream, Failure> {
    let connected = timeout(shared.times().connect, dial(address)).await;
    match connected {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(Failure::EndpointRefused)
        }
        Ok(Err(_)) => Err(Failure::EndpointUnreachable),
        Err(_) => Err(Failure::EndpointTimeout),
    }
}

/// Connects without a wait where the endpoint has answered by the time we look again, as those of the same machine do.
async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    relay::prepare(&socket)?;
    let address = address.into();
    let is_under_way = |tried: io::Result<()>| match tried {
        Ok(()) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::ALREADY.raw_os_error()) => Ok(true),
        Err(error) => Err(error),
    };
    let waits = is_under_way(socket.connect(&address))? && is_under_way(socket.connect(&address))?;
    let stream = TcpStream::from_std(socket.into())?;
    if waits {
        ready::writable(&stream).await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Opens a stream to a cluster, at its best gateway, then at its others.
async fn open(
    shared: &Arc<Shared>,
    client: &mut Client,
    plan: &Plan,
    cluster: &ClusterName,
    number: usize,
    deadline: Instant,
) -> Result<Found, Missed> {
    let mut header = StreamOpen::new(StreamKind::Service {
        route: plan.route.name.clone(),
        protocol: plan.route.protocol,
    });
    header.attempt = u8::try_from(number).unwrap_or(u8::MAX);
    header.claim = SourceClaim {
        cluster: Some(shared.own.clone()),
        address: Some(client.source.ip()),
        ..SourceClaim::default()
    };
    let mut missed = Missed::Next(Outcome::Failed(Failure::PeerUnreachable));
    for link in shared.links_to(cluster) {
        let mut opening = Opening {
            client: client.greeting.is_silent().then_some(&client.socket),
            said: &mut client.said,
            replay: plan.route.replay,
            deadline: deadline.saturating_duration_since(Instant::now()),
        };
        match opening.run(&link, &header).await {
            Ok(stream) => return Ok(Found::Peer { link, stream }),
            // What another gateway of the same cluster would answer as well.
            Err(refused @ Missed::Next(Outcome::Refused(refusal)))
                if refusal != Refusal::Draining && refusal != Refusal::Overloaded =>
            {
                return Err(refused);
            }
            Err(next @ Missed::Next(_)) => missed = next,
            Err(last @ (Missed::Lost(_) | Missed::Client(_))) => return Err(last),
        }
    }
    Err(missed)
}

async fn splice_to(
    shared: &Shared,
    client: Box<Client>,
    endpoint: TcpStream,
    carried: &Carried,
) -> Reason {
    let Client { socket, said, .. } = *client;
    let relayed = tokio::select! {
        relayed = splice::run_after(&said, &socket, &endpoint, shared.times().idle, carried) => relayed,
        failure = shared.terminated() => Err(failure),
    };
    match relayed {
        Ok(()) => Reason::Completed,
        Err(failure) => {
            relay::abort(socket);
            relay::abort(endpoint);
            Reason::Failed(failure)
        }
    }
}

async fn relay_to(
    shared: &Shared,
    client: Box<Client>,
    link: &Arc<dyn Link>,
    mut stream: Stream,
    carried: &Carried,
) -> Reason {
    let Client {
        mut socket, said, ..
    } = *client;
    let mut rest = said.into_rest();
    let mut state = link.state();
    let idle = shared.times().idle;
    let relayed = tokio::select! {
        // Whoever withdraws also cuts the tunnel: the reason is told before its consequence.
        biased;
        failure = unlinked(shared, &mut state) => Err(failure),
        relayed = relay::run(&mut socket, Side::Client, &mut rest, &mut stream, idle, carried) => relayed,
    };
    match relayed {
        Ok(()) => Reason::Completed,
        Err(failure) => {
            stream.reset(failure);
            relay::abort(socket);
            Reason::Failed(failure)
        }
    }
}

/// Resolves when the link is closed for good: because its path stayed dead, because it is wanted no more, or
/// because we are ending.
pub(crate) async fn unlinked(shared: &Shared, state: &mut watch::Receiver<LinkState>) -> Failure {
    let mut was_dead = *state.borrow_and_update() == LinkState::Dead;
    // An error means that the link itself is gone, which is the same.
    while state.changed().await.is_ok() {
        match *state.borrow_and_update() {
            LinkState::Closed => break,
            LinkState::Dead => was_dead = true,
            LinkState::Up | LinkState::Draining => was_dead = false,
        }
    }
    if shared.drain.phase() >= Phase::Terminating {
        shared.termination()
    } else if was_dead {
        Failure::PathDead
    } else {
        Failure::Withdrawn
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_endpoint_on_this_machine_is_connected_and_prepared() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = dial(listener.local_addr().unwrap()).await.unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.linger().unwrap(), Some(std::time::Duration::ZERO));
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn an_endpoint_that_does_not_listen_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = dial(address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
