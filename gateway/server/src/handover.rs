//! Streams that are not for an endpoint but for the control plane beside us: those between control planes, and those of
//! somebody who wants to be linked. They are handed over as they are; nothing of them is understood here.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use corinth_api::{HandOver, StreamKind, StreamOpen, StreamReply};
use corinth_core::Outcome;
use corinth_model::{ClusterName, Failure, Reason, Refusal, Replay};
use corinth_transport::{Fill, Link, ReadHalf, Stream, WriteHalf};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::coop::consume_budget,
    time::timeout,
};

use crate::{
    control::{ControlPlane, Opener},
    inbound::{self, No},
    intake,
    limits::Place,
    opening::{Missed, Opening},
    record::{Intake, Record},
    relay::{self, Carried, failure_of},
    said::Said,
    session::unlinked,
    shared::Shared,
};

/// The protocol of those who want to be linked.
pub(crate) const LINK_ALPN: &[u8] = b"corinth-link/1";
/// All of a linking must fit into this time (protocol, section 7).
const JOINING_MAX: Duration = Duration::from_secs(5);
/// And into this many bytes each way: two handshakes and two messages of 4 KiB do.
const JOINING_MAX_BYTES: u64 = 16 << 10;
/// How much of a stream between control planes is read at once.
const READ_BYTES: usize = 16 << 10;
/// The source of a stream that comes from a control plane.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Serves a stream of kind PEERING that a peer opened.
pub(crate) async fn serve(
    shared: &Shared,
    control: &ControlPlane,
    link: &Arc<dyn Link>,
    cluster: Option<&ClusterName>,
    hops: u8,
    stream: &mut Stream,
    record: &mut Record<'_>,
    carried: &Carried,
) -> Reason {
    let refused = |refusal| No::Refused(refusal);
    let Some(cluster) = cluster.filter(|_| !shared.denials.contains(&stream.peer().spiffe_id()))
    else {
        return inbound::turn_away(stream, refused(Refusal::Unlinked)).await;
    };
    if hops >= 2 {
        return inbound::turn_away(stream, refused(Refusal::TooManyHops)).await;
    }
    let Some(place) = control.enter(cluster, Opener::Peer) else {
        return inbound::turn_away(stream, refused(Refusal::OverLimit)).await;
    };
    let peer = stream.peer().clone();
    let Ok(socket) = control.hand_over(&HandOver::Peering { peer }).await else {
        drop(place);
        return inbound::turn_away(stream, refused(Refusal::NoEndpoint)).await;
    };
    record.accepted(Instant::now());
    if inbound::answer(stream, &StreamReply::Accepted)
        .await
        .is_err()
    {
        return Reason::Failed(Failure::TunnelCut);
    }
    carry(shared, link, &socket, stream, carried).await
}

/// Opens a stream of kind PEERING to a cluster for the control plane, hands it over and carries it to its end.
/// `Err` says why it did not come so far.
pub(crate) async fn open(
    shared: Arc<Shared>,
    cluster: ClusterName,
    ticket: u64,
    opened: impl FnOnce(Result<(), Reason>),
) {
    let mut record = Record::open(&shared.telemetry, Intake::Peering, NOWHERE, Instant::now());
    let carried = Carried::default();
    record.peer = Some(cluster.as_str().into());
    let reason = match begin(&shared, &cluster, ticket).await {
        Ok(Begun {
            link,
            mut stream,
            socket,
            _place,
        }) => {
            record.accepted(Instant::now());
            opened(Ok(()));
            carry(&shared, &link, &socket, &mut stream, &carried).await
        }
        Err(reason) => {
            opened(Err(reason));
            reason
        }
    };
    record.close(&carried, reason, Instant::now());
}

/// A stream that was opened and handed over.
struct Begun {
    link: Arc<dyn Link>,
    stream: Stream,
    socket: UnixStream,
    _place: crate::control::PeeringPlace,
}

async fn begin(shared: &Shared, cluster: &ClusterName, ticket: u64) -> Result<Begun, Reason> {
    let Some(control) = &shared.control else {
        return Err(Reason::Refused(Refusal::NoEndpoint));
    };
    let _place = control
        .enter(cluster, Opener::Own)
        .ok_or(Reason::Refused(Refusal::OverLimit))?;
    let (link, mut stream) = open_stream(shared, cluster).await?;
    let peer = stream.peer().clone();
    match control.hand_over(&HandOver::Opened { ticket, peer }).await {
        Ok(socket) => Ok(Begun {
            link,
            stream,
            socket,
            _place,
        }),
        Err(_) => {
            stream.reset(Failure::Withdrawn);
            Err(Reason::Refused(Refusal::NoEndpoint))
        }
    }
}

/// A stream to the control plane of `cluster`, over whichever of its gateways takes it.
async fn open_stream(
    shared: &Shared,
    cluster: &ClusterName,
) -> Result<(Arc<dyn Link>, Stream), Reason> {
    let header = StreamOpen::new(StreamKind::Peering);
    let deadline = Instant::now() + shared.times().open;
    let mut last = Reason::Failed(Failure::PeerUnreachable);
    for link in shared.links_to(cluster) {
        let mut said = Said::default();
        let mut opening = Opening {
            client: None,
            said: &mut said,
            replay: Replay::Never,
            deadline: deadline.saturating_duration_since(Instant::now()),
        };
        match opening.run(&link, &header).await {
            Ok(stream) => return Ok((link, stream)),
            Err(Missed::Next(Outcome::Refused(refusal))) => last = Reason::Refused(refusal),
            Err(Missed::Next(Outcome::Failed(failure)) | Missed::Lost(failure)) => {
                last = Reason::Failed(failure);
            }
            Err(Missed::Next(Outcome::Accepted { .. }) | Missed::Client(_)) => {
                last = Reason::Failed(Failure::Internal);
            }
        }
    }
    Err(last)
}

/// Carries a stream between control planes to its end.
async fn carry(
    shared: &Shared,
    link: &Arc<dyn Link>,
    socket: &UnixStream,
    stream: &mut Stream,
    carried: &Carried,
) -> Reason {
    let mut state = link.state();
    let relayed = tokio::select! {
        // Whoever withdraws also cuts the tunnel: the reason is told before its consequence.
        biased;
        failure = unlinked(shared, &mut state) => Err(failure),
        relayed = relay(socket, stream, carried) => relayed,
        failure = shared.terminated() => Err(failure),
    };
    match relayed {
        Ok(()) => Reason::Completed,
        Err(failure) => {
            stream.reset(failure);
            Reason::Failed(failure)
        }
    }
}

/// Relays until both directions have ended, or one fails.
async fn relay(socket: &UnixStream, stream: &mut Stream, carried: &Carried) -> Result<(), Failure> {
    let (mut from_peer, mut to_peer) = stream.split();
    tokio::try_join!(
        send(socket, &mut to_peer, carried),
        receive(socket, &mut from_peer, carried),
    )
    .map(|_| ())
}

async fn send(
    socket: &UnixStream,
    to_peer: &mut WriteHalf<'_>,
    carried: &Carried,
) -> Result<(), Failure> {
    to_peer.flush().await.map_err(failure_of)?;
    loop {
        match to_peer.lend(READ_BYTES, |room| socket.try_read_vectored(room)) {
            Ok(0) => {
                to_peer.put_end().map_err(failure_of)?;
                return to_peer.flush().await.map_err(failure_of);
            }
            Ok(bytes) => {
                carried.add_sent(bytes);
                to_peer.flush().await.map_err(failure_of)?;
                consume_budget().await;
            }
            Err(error) => {
                wait_out(&error)?;
                socket.readable().await.map_err(|_| GONE)?;
            }
        }
    }
}

async fn receive(
    socket: &UnixStream,
    from_peer: &mut ReadHalf<'_>,
    carried: &Carried,
) -> Result<(), Failure> {
    loop {
        match from_peer.fill().await.map_err(failure_of)? {
            Fill::End => {
                // An error here is the socket's own end, which the other direction reports.
                let _ = SockRef::from(socket).shutdown(Shutdown::Write);
                return Ok(());
            }
            Fill::Data => match from_peer.lend(|chunks| socket.try_write_vectored(chunks)) {
                Ok(bytes) => {
                    carried.add_received(bytes);
                    consume_budget().await;
                }
                Err(error) => {
                    wait_out(&error)?;
                    socket.writable().await.map_err(|_| GONE)?;
                }
            },
        }
    }
}

/// The control plane has closed its end.
const GONE: Failure = Failure::EndpointReset;

/// Whether it is enough to wait.
fn wait_out(error: &io::Error) -> Result<(), Failure> {
    let is_passing = matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    );
    if is_passing { Ok(()) } else { Err(GONE) }
}

/// Serves somebody who wants to be linked: hands over what came, and relays until the control plane ends it.
pub(crate) async fn join(
    shared: &Shared,
    control: &ControlPlane,
    mut client: TcpStream,
    source: SocketAddr,
    received: Vec<u8>,
    place: Place,
    began: Instant,
) {
    // Nobody proves here who they are: they keep their place among those for as long as they stay.
    let _place = place;
    let Some(_permit) = control.enter_joining(began) else {
        let reason = Reason::Failed(Failure::TooManyConnections);
        return intake::turn_away(shared, client, source, Intake::Joining, reason, began);
    };
    let Ok(mut socket) = control.hand_over(&HandOver::Joining { source }).await else {
        let reason = Reason::Failed(Failure::AlpnRefused);
        return intake::turn_away(shared, client, source, Intake::Joining, reason, began);
    };
    let mut record = Record::open(&shared.telemetry, Intake::Joining, source, began);
    record.accepted(Instant::now());
    let carried = Carried::default();
    let left = JOINING_MAX.saturating_sub(began.elapsed());
    let talked = timeout(left, talk(&mut client, &received, &mut socket, &carried)).await;
    let reason = match talked {
        Ok(Ok(())) => Reason::Completed,
        Ok(Err(failure)) => Reason::Failed(failure),
        Err(_) => Reason::Failed(Failure::TlsTimeout),
    };
    if reason == Reason::Completed {
        finish(client).await;
    } else {
        relay::abort(client);
    }
    record.close(&carried, reason, Instant::now());
}

/// Ends a client in good order: what it still sends is read, as closing before would take the answer away from it.
async fn finish(mut client: TcpStream) {
    /// Whoever got an answer ends soon.
    const LINGER: Duration = Duration::from_secs(1);
    if client.shutdown().await.is_ok() {
        let mut nowhere = tokio::io::sink();
        let _ = timeout(LINGER, tokio::io::copy(&mut client, &mut nowhere)).await;
    }
}

/// Ends when the control plane does; one that answers nothing has no open token.
async fn talk(
    client: &mut TcpStream,
    received: &[u8],
    socket: &mut UnixStream,
    carried: &Carried,
) -> Result<(), Failure> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_control, mut to_control) = socket.split();
    let up = async {
        let first = received.chain(&mut from_client);
        let ways = (Failure::ClientReset, Failure::AlpnRefused);
        let poured = pour(first, &mut to_control, ways, |bytes| {
            carried.add_sent(bytes)
        })
        .await;
        match poured {
            // The other direction says when all is over, and what was still said.
            Ok(()) | Err(Failure::AlpnRefused) => std::future::pending().await,
            Err(failure) => failure,
        }
    };
    let ways = (Failure::AlpnRefused, Failure::ClientReset);
    let down = pour(&mut from_control, &mut to_client, ways, |bytes| {
        carried.add_received(bytes);
    });
    tokio::select! {
        ended = down => match ended {
            // It answered, and closed with something of the client unread.
            Err(Failure::AlpnRefused) if carried.received_bytes() > 0 => {}
            ended => ended?,
        },
        failure = up => return Err(failure),
    }
    if carried.received_bytes() == 0 {
        return Err(Failure::AlpnRefused);
    }
    Ok(())
}

/// Copies to the end of `from` and passes it on. The failures are those of reading and of writing.
async fn pour(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (unread, unwritten): (Failure, Failure),
    count: impl Fn(usize),
) -> Result<(), Failure> {
    let mut chunk = vec![0; 4 << 10];
    let mut poured = 0;
    loop {
        let bytes = from.read(&mut chunk).await.map_err(|_| unread)?;
        if bytes == 0 {
            return to.shutdown().await.map_err(|_| unwritten);
        }
        poured += bytes as u64;
        if poured > JOINING_MAX_BYTES {
            return Err(Failure::ProtocolViolation);
        }
        to.write_all(&chunk[..bytes]).await.map_err(|_| unwritten)?;
        count(bytes);
    }
}
