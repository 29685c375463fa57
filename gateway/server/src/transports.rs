//! Both ways to carry streams, side by side: mutual TLS over TCP, and QUIC.

use std::{
    any::Any,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use corinth_model::{Failure, GatewayId, Reason, TrustDomain};
use corinth_transport::{
    Congestions, DialError, DialTarget, Link, StreamSink, Transport, TransportKind,
    quic::{Doorkeeper, QuicSettings, QuicTransport},
    tls::{TlsSettings, TlsTransport},
};
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch, task::JoinSet, time::sleep};
use tracing::{debug, warn};

use crate::{intake, listen, record::Intake, shared::Shared};

/// Before a socket is opened in place of one that failed.
const REOPENING: Duration = Duration::from_millis(500);
/// So many workers have a connection of their own to each gateway of a peer; the others use theirs.
const CONNECTED_WORKERS_MAX: usize = 4;

/// What is to carry streams to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// This transport; what the peer has dialled in another way only where there is nothing else.
    Only(TransportKind),
    /// Whichever is better.
    Auto,
}

impl Wish {
    /// Whether streams may go over QUIC.
    pub(crate) fn may_be_quic(self) -> bool {
        self != Self::Only(TransportKind::Tls)
    }
}

/// Both ways to carry streams.
pub(crate) struct Transports {
    pub(crate) tls: TlsTransport,
    pub(crate) quic: Arc<QuicTransport>,
    /// How fast we send to each peer.
    pub(crate) congestions: Congestions,
    /// The workers, which drive the QUIC connections that we dial.
    workers: Mutex<Vec<Handle>>,
    /// Counts dials, so that workers take them in turn.
    dials: AtomicUsize,
}

impl Transports {
    pub(crate) fn new(tls: TlsSettings, quic: QuicSettings, sink: &Arc<dyn StreamSink>) -> Self {
        Self {
            congestions: tls.congestions.clone(),
            tls: TlsTransport::new(tls, Arc::clone(sink)),
            quic: Arc::new(QuicTransport::new(quic, Arc::clone(sink))),
            workers: Mutex::default(),
            dials: AtomicUsize::new(0),
        }
    }

    /// From now on this worker takes its turn in dialling.
    pub(crate) fn enlist(&self, worker: Handle) {
        self.workers.lock().push(worker);
    }

    /// Every link there is.
    pub(crate) fn links(&self) -> Vec<Arc<dyn Link>> {
        let mut links = self.tls.links();
        links.extend(self.quic.links());
        links
    }

    /// The links to the gateways of one trust domain.
    pub(crate) fn links_to(&self, trust_domain: &TrustDomain) -> Vec<Arc<dyn Link>> {
        let mut links = self.tls.links_to(trust_domain);
        links.extend(self.quic.links_to(trust_domain));
        links
    }

    /// Tells whenever a link is made, lost or changes its state.
    pub(crate) fn changes(&self) -> Changes {
        Changes {
            tls: self.tls.changes(),
            quic: self.quic.changes(),
        }
    }

    /// Ends the links of one trust domain and every stream on them.
    pub(crate) fn close_links_to(&self, trust_domain: &TrustDomain) {
        self.tls.close_links_to(trust_domain);
        self.quic.close_links_to(trust_domain);
    }

    /// Asks every peer to open no more streams.
    pub(crate) fn drain(&self) {
        self.tls.drain();
        self.quic.drain();
    }

    /// Ends every link and every stream. Peers are told why, as far as a transport has words for it.
    pub(crate) fn close_for(&self, failure: Failure) {
        self.tls.close();
        self.quic.close_for(failure);
    }

    /// Links to whoever answers at `target`.
    pub(crate) async fn dial(
        &self,
        kind: TransportKind,
        target: &DialTarget,
    ) -> Result<Arc<dyn Link>, DialError> {
        match kind {
            TransportKind::Quic => self.dial_by_quic(target).await,
            // The gateway has no other.
            TransportKind::Tls | TransportKind::Memory => self.tls.dial(target).await,
        }
    }

    /// Those who dial by QUIC.
    fn connected_workers(&self) -> Vec<Handle> {
        let workers = self.workers.lock();
        workers
            .iter()
            .take(CONNECTED_WORKERS_MAX)
            .cloned()
            .collect()
    }

    /// Has each of the workers dial a connection of its own to a gateway that is linked by QUIC, where it has none. What
    /// cannot be dialled is left: the link stands without it.
    pub(crate) async fn widen(&self, gateway: &GatewayId) {
        let mut dialling = JoinSet::new();
        for worker in self.connected_workers() {
            let (quic, gateway) = (Arc::clone(&self.quic), gateway.clone());
            dialling.spawn_on(
                async move {
                    if let Err(error) = quic.widen(&gateway).await {
                        debug!(%gateway, %error, "a worker without a connection of its own");
                    }
                },
                &worker,
            );
        }
        while dialling.join_next().await.is_some() {}
    }

    /// A QUIC connection stays on the worker that dials it, as do the streams on it that the peer opens.
    async fn dial_by_quic(&self, target: &DialTarget) -> Result<Arc<dyn Link>, DialError> {
        let worker = {
            let workers = self.connected_workers();
            let turn = self.dials.fetch_add(1, Relaxed) % workers.len().max(1);
            workers.get(turn).cloned().ok_or(DialError::Closed)?
        };
        let (quic, target) = (Arc::clone(&self.quic), target.clone());
        // Ends with us.
        let mut dialling = JoinSet::new();
        dialling.spawn_on(async move { quic.dial(&target).await }, &worker);
        match dialling.join_next().await {
            Some(Ok(dialled)) => dialled,
            // The worker has ended.
            Some(Err(_)) | None => Err(DialError::Closed),
        }
    }
}

/// What [`Transports::changes`] tells by.
pub(crate) struct Changes {
    tls: watch::Receiver<u64>,
    quic: watch::Receiver<u64>,
}

impl Changes {
    /// What has changed by now is known.
    pub(crate) fn mark_seen(&mut self) {
        self.tls.mark_unchanged();
        self.quic.mark_unchanged();
    }

    /// Waits for a change; an error means that the transports are gone.
    pub(crate) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            changed = self.tls.changed() => changed,
            changed = self.quic.changed() => changed,
        }
    }
}

/// Takes QUIC connections on `socket`, which is bound to `address`, until `closing` resolves. A socket that fails is
/// replaced.
pub(crate) async fn serve_quic(
    shared: Arc<Shared>,
    address: SocketAddr,
    socket: UdpSocket,
    closing: impl Future<Output = ()>,
) {
    let quic = Arc::clone(&shared.transports.quic);
    let keeper = Arc::new(Keeper(Arc::downgrade(&shared)));
    // The socket is not to keep the gateway alive.
    drop(shared);
    let closing = closing.shared();
    let serve = |socket| quic.serve(socket, Arc::clone(&keeper) as _, closing.clone());
    let open = || listen::rebind(address);
    keep_serving(address, socket, open, serve, closing.clone()).await;
}

/// Serves one socket after the other until one was served to its end, or `closing` resolves.
async fn keep_serving<S: Future<Output = io::Result<()>>>(
    address: SocketAddr,
    first: UdpSocket,
    open: impl Fn() -> io::Result<UdpSocket>,
    serve: impl Fn(UdpSocket) -> S,
    closing: impl Future<Output = ()> + Clone,
) {
    let mut bound = Ok(first);
    loop {
        let served = match bound {
            Ok(socket) => serve(socket).await,
            Err(error) => Err(error),
        };
        let Err(error) = served else {
            return;
        };
        warn!(%address, %error, "a socket for QUIC is of no use; another one is opened");
        tokio::select! {
            () = closing.clone() => return,
            () = sleep(REOPENING) => {}
        }
        bound = open();
    }
}

/// Counts those who come by QUIC among all who have not proved who they are.
struct Keeper(Weak<Shared>);

impl Doorkeeper for Keeper {
    fn enter(&self, source: IpAddr) -> Option<Box<dyn Any + Send>> {
        let place = self.0.upgrade()?.half_open.enter(source, Instant::now())?;
        Some(Box::new(place))
    }

    fn verified(&self, source: IpAddr) {
        if let Some(shared) = self.0.upgrade() {
            shared.half_open.verified(source, Instant::now());
        }
    }

    fn turned_away(&self, source: SocketAddr, failure: Failure) {
        if let Some(shared) = self.0.upgrade() {
            let reason = Reason::Failed(failure);
            intake::note(&shared, source, Intake::Tunnel, reason, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::mpsc;

    use super::*;

    fn socket() -> io::Result<UdpSocket> {
        UdpSocket::bind("127.0.0.1:0")
    }

    fn anywhere() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_fails_is_replaced_until_one_serves() {
        let (opened, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let open = || match opened.fetch_add(1, Relaxed) {
            0 => Err(io::ErrorKind::AddrInUse.into()),
            _ => socket(),
        };
        let serve = |_| {
            ready(match failures.fetch_add(1, Relaxed) {
                0 | 1 => Err(io::ErrorKind::NetworkDown.into()),
                _ => Ok(()),
            })
        };
        let never = pending().shared();
        keep_serving(anywhere(), socket().unwrap(), open, serve, never).await;
        assert_eq!((opened.into_inner(), failures.into_inner()), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn no_socket_is_opened_once_none_is_wanted() {
        let (served, mut tried) = mpsc::unbounded_channel();
        let serve = |_| {
            served.send(()).unwrap();
            ready(Err(io::ErrorKind::NetworkDown.into()))
        };
        let closed = ready(()).shared();
        keep_serving(anywhere(), socket().unwrap(), socket, serve, closed).await;
        assert_eq!(tried.try_recv(), Ok(()));
        assert!(tried.try_recv().is_err());
    }
}
