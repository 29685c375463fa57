//! Serves a connection on which the peer opens streams.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use corinth_api::{StreamOpen, StreamReply};
use corinth_model::Failure;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{
    Role, Shared, connection::Connection, control, frame::Kind, link::TlsLink, reader::Event,
    stream::TlsStream,
};
use crate::{DialTarget, LinkState, Stream, StreamError};

/// Free connections a dialer keeps on which the acceptor may open.
const REVERSE_FREE: u32 = 2;
/// However many streams the acceptor opens, a dialer holds at most this many connections for them.
const REVERSE_MAX: u32 = 4_096;
/// Before a connection is dialled for the peer in place of the last one that ended.
const REVERSE_PAUSE: Duration = Duration::from_millis(500);

/// Reads what an accepted connection is for, and serves it so.
pub(super) async fn first_frame(
    shared: &Arc<Shared>,
    mut connection: Box<Connection>,
) -> Result<(), StreamError> {
    let first = timeout(shared.settings.timeouts.first_frame, connection.next())
        .await
        .map_err(|_| {
            StreamError::Failed(
                Failure::FirstFrameTimeout,
                "no first frame within its deadline",
            )
        })??;
    let role = match &first {
        Event::Frame {
            kind: Kind::Ping,
            payload,
            ..
        } if payload.len() == 9 => Role::from_byte(payload[0]),
        Event::Frame { .. } | Event::Data { .. } | Event::Ended => None,
    };
    let link = shared.link_to(&connection.peer);
    match role {
        Some(Role::DialerOpens) => streams(shared, &link, connection, &Made::ByPeer).await,
        Some(Role::AcceptorOpens) => {
            link.give(connection);
            Ok(())
        }
        // On the heap: what a control connection needs is not to be held for each of the others.
        Some(Role::Control) => Box::pin(control::answer(shared, &link, connection)).await,
        None => Err(StreamError::Protocol(
            "a connection that does not begin with its role",
        )),
    }
}

/// Which side dialled a connection on which the peer opens streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Made {
    ByPeer,
    ByUs(DialTarget),
}

/// Serves one stream after the other until the connection ends.
pub(super) async fn streams(
    shared: &Arc<Shared>,
    link: &Arc<TlsLink>,
    connection: Box<Connection>,
    made: &Made,
) -> Result<(), StreamError> {
    let Some(_held) = shared.hold(&link.peer.trust_domain) else {
        connection.close();
        return Err(StreamError::Protocol(
            "more connections than one peer may hold",
        ));
    };
    link.inbound.fetch_add(1, Relaxed);
    let served = serve(shared, link, connection, made).await;
    link.inbound.fetch_sub(1, Relaxed);
    served
}

async fn serve(
    shared: &Arc<Shared>,
    link: &Arc<TlsLink>,
    mut connection: Box<Connection>,
    made: &Made,
) -> Result<(), StreamError> {
    let Some(as_dyn) = link.as_dyn() else {
        return Ok(());
    };
    let mut state = link.state.subscribe();
    let mut draining = link.draining.subscribe();
    let mut told_to_drain = false;
    loop {
        if *draining.borrow_and_update() && !told_to_drain {
            connection.put(Kind::Drain, 0, &[])?;
            connection.flush().await?;
            told_to_drain = true;
        }
        let event = tokio::select! {
            event = connection.next() => event?,
            () = closed(&mut state) => {
                connection.close();
                return Ok(());
            }
            Ok(()) = draining.changed(), if !told_to_drain => continue,
        };
        let Event::Frame {
            kind,
            stream: id,
            payload,
        } = event
        else {
            return match event {
                Event::Ended => Ok(()),
                Event::Data { .. } | Event::Frame { .. } => {
                    Err(StreamError::Protocol("DATA outside a stream"))
                }
            };
        };
        match kind {
            Kind::Open => {}
            Kind::Close => return Ok(()),
            Kind::Reply
            | Kind::Data
            | Kind::End
            | Kind::Reset
            | Kind::Ping
            | Kind::Pong
            | Kind::Drain => {
                return Err(StreamError::Protocol(
                    "a frame that has no place between streams",
                ));
            }
        }
        if id != connection.last_stream.wrapping_add(1) {
            return Err(StreamError::Protocol("stream numbers that do not count up"));
        }
        if connection.not_after <= shared.now_unix_seconds() {
            return Err(StreamError::Failed(
                Failure::CertificateExpired,
                "a stream on a connection whose certificate expired",
            ));
        }
        connection.last_stream = id;
        let header = match StreamOpen::decode(&payload) {
            Ok(header) => header,
            Err(error) => {
                shared.sink.unreadable(&as_dyn, &error);
                let mut reply = Vec::new();
                StreamReply::Failed(Failure::HeaderInvalid).encode(&mut reply);
                connection.put(Kind::Reply, id, &reply)?;
                connection.flush().await?;
                return Err(error.into());
            }
        };
        link.accepted.fetch_add(1, Relaxed);
        link.inbound_streams.fetch_add(1, Relaxed);
        replace_reverse(shared, link, made);
        link.know(&mut connection);
        let mut stream = Stream::tls(Box::new(TlsStream::accepted(connection)));
        shared.sink.accept(&as_dyn, header, &mut stream).await;
        link.inbound_streams.fetch_sub(1, Relaxed);
        if *made != Made::ByPeer {
            link.reverse_free.fetch_add(1, Relaxed);
        }
        let Some(returned) = stream
            .into_tls()
            .and_then(|stream| stream.into_connection())
        else {
            return Ok(());
        };
        connection = returned;
    }
}

/// Resolves when the link is closed for good.
async fn closed(state: &mut watch::Receiver<LinkState>) {
    if state
        .wait_for(|state| *state == LinkState::Closed)
        .await
        .is_err()
    {
        std::future::pending::<()>().await;
    }
}

/// The peer used one of the connections we dialled for it: it finds another one free next time.
fn replace_reverse(shared: &Arc<Shared>, link: &Arc<TlsLink>, made: &Made) {
    let Made::ByUs(target) = made else {
        return;
    };
    link.reverse_free.fetch_sub(1, Relaxed);
    keep_reverse(shared, link, target);
}

/// Dials until enough connections are free for the peer to open on.
pub(super) fn keep_reverse(shared: &Arc<Shared>, link: &Arc<TlsLink>, target: &DialTarget) {
    while link.reverse_free.load(Relaxed) < REVERSE_FREE && link.inbound.load(Relaxed) < REVERSE_MAX
    {
        link.reverse_free.fetch_add(1, Relaxed);
        tokio::spawn(reverse(
            Arc::clone(shared),
            Arc::clone(link),
            target.clone(),
        ));
    }
}

async fn reverse(shared: Arc<Shared>, mut link: Arc<TlsLink>, target: DialTarget) {
    let served = match shared.dial(&target, Role::AcceptorOpens).await {
        Ok(connection) => {
            // Behind a load balancer another gateway of the peer may have answered.
            if connection.peer != link.peer {
                link.reverse_free.fetch_sub(1, Relaxed);
                tokio::spawn(replace_later(Arc::clone(&shared), link, target.clone()));
                link = shared.link_to(&connection.peer);
                link.reverse_free.fetch_add(1, Relaxed);
            }
            streams(&shared, &link, connection, &Made::ByUs(target.clone())).await
        }
        Err(error) => {
            debug!(address = %target.address, %error, "dialling for the peer's streams failed");
            Ok(())
        }
    };
    link.reverse_free.fetch_sub(1, Relaxed);
    if let Err(error) = served {
        debug!(peer = %link.peer, %error, "a connection for the peer's streams ended");
    }
    replace_later(shared, link, target).await;
}

/// They expire and break like any other, or reach another gateway; without one the peer would have no way to us.
async fn replace_later(shared: Arc<Shared>, link: Arc<TlsLink>, target: DialTarget) {
    sleep(REVERSE_PAUSE).await;
    let is_up = *link.state.borrow() == LinkState::Up;
    if is_up && !*link.draining.borrow() && link.reverse_free.load(Relaxed) == 0 {
        keep_reverse(&shared, &link, &target);
    }
}
