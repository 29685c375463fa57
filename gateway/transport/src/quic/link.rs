//! The link to one gateway of a peer over QUIC: its connections, and on which of them streams open.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_api::StreamOpen;
use corinth_model::GatewayId;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tracing::debug;

use super::{
    Shared, Worker,
    stream::{Place, QuicStream},
    tunnel::{Looked, Tunnel},
};
use crate::{
    BoxFuture, DialTarget, Link, LinkState, LinkStats, OpenError, PathStats, Stream, TransportKind,
};

/// A stream waits this long for a connection, or for a place on it, before its next attempt is better.
const CONNECTION_WAIT: Duration = Duration::from_secs(2);

/// A connection is laden, and streams open on another one, when it carries so many times what that one does and so many
/// bytes in a second more: then somebody moves much on it, and short streams would wait behind that.
const LADEN_TIMES: u64 = 4;
const LADEN_BYTES: u64 = 4 << 20;

/// The link to one gateway of a peer over QUIC.
pub(super) struct QuicLink {
    shared: Weak<Shared>,
    pub(super) peer: Arc<GatewayId>,
    /// Connections whose path lives, the newest last.
    live: Mutex<Vec<Live>>,
    pub(super) state: watch::Sender<LinkState>,
    /// True once we asked the peer to open no more streams.
    pub(super) draining: watch::Sender<bool>,
    /// Changes whenever there is another connection.
    renewed: watch::Sender<u64>,
    is_renewing: AtomicBool,
    /// Where the next connection is dialled; `None` while only the peer has dialled.
    target: Mutex<Option<DialTarget>>,
    /// Wakes the control streams to look at once.
    pub(super) suspected: Notify,
    /// Microseconds, as QUIC has smoothed them; 0 before the first answer.
    pub(super) rtt_us: AtomicU64,
    path: Mutex<PathStats>,
    pub(super) announced_slots: AtomicU32,
    pub(super) streams: AtomicU32,
    opened: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) dialled: AtomicU64,
    /// So that the link can hand itself to its streams.
    this: Weak<Self>,
}

struct Live {
    tunnel: Arc<Tunnel>,
    is_dialled: bool,
    /// Who drives it at the peer.
    peers_worker: Worker,
}

impl Live {
    /// We dialled it, and for our worker.
    fn is_dialled_for(&self, worker: Worker) -> bool {
        self.is_dialled && self.tunnel.worker == worker
    }

    /// Whose it is at the side that dialled it: another one of the same worker has taken its place, or will.
    fn dialler(&self) -> (bool, Worker) {
        let worker = if self.is_dialled {
            self.tunnel.worker
        } else {
            self.peers_worker
        };
        (self.is_dialled, worker)
    }
}

impl QuicLink {
    pub(super) fn new(shared: &Arc<Shared>, peer: GatewayId) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            shared: Arc::downgrade(shared),
            peer: Arc::new(peer),
            live: Mutex::default(),
            state: watch::Sender::new(LinkState::Dead),
            draining: watch::Sender::new(shared.links.is_draining()),
            renewed: watch::Sender::new(0),
            is_renewing: AtomicBool::new(false),
            target: Mutex::new(None),
            suspected: Notify::new(),
            rtt_us: AtomicU64::new(0),
            path: Mutex::default(),
            announced_slots: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            dialled: AtomicU64::new(0),
            this: Weak::clone(this),
        })
    }

    pub(super) fn set_target(&self, target: &DialTarget) {
        *self.target.lock() = Some(target.clone());
    }

    pub(super) fn target(&self) -> Option<DialTarget> {
        self.target.lock().clone()
    }

    /// How many connections of our dialling live.
    pub(super) fn dialled_live(&self) -> usize {
        let live = self.live.lock();
        live.iter().filter(|one| one.is_dialled).count()
    }

    /// No stream can be opened on what there is.
    pub(super) fn expires(&self, now_unix_seconds: u64) -> bool {
        self.usable(now_unix_seconds).is_none()
    }

    /// We dial this peer, and this worker has no connection to it that lives: whoever else has one may lose it.
    pub(super) fn lacks_one_for(&self, worker: Worker) -> bool {
        let is_dialled = self.target.lock().is_some();
        let live = self.live.lock();
        is_dialled && !live.iter().any(|one| one.is_dialled_for(worker))
    }

    /// A connection that we dialled for another worker than `ours` leads to this worker of the peer.
    pub(super) fn reaches_for_another(&self, peers: Worker, ours: Worker) -> bool {
        let live = self.live.lock();
        live.iter()
            .any(|one| one.is_dialled && one.tunnel.worker != ours && one.peers_worker == peers)
    }

    /// We dialled no other connection for its worker after this one. What the peer dialled is the peer's to close: if both
    /// sides left one for the other, none would remain.
    pub(super) fn is_newest_dialled(&self, tunnel: &Arc<Tunnel>) -> bool {
        let live = self.live.lock();
        let mut newest_first = live.iter().rev();
        let newest = newest_first.find(|one| one.is_dialled_for(tunnel.worker));
        newest.is_some_and(|newest| Arc::ptr_eq(&newest.tunnel, tunnel))
    }

    /// `true` for the one who may dial a successor now.
    pub(super) fn begin_renewal(&self) -> bool {
        !self.is_renewing.swap(true, Relaxed)
    }

    pub(super) fn end_renewal(&self) {
        self.is_renewing.store(false, Relaxed);
    }

    /// One connection more on which streams can be opened.
    pub(super) fn alive(
        &self,
        tunnel: &Arc<Tunnel>,
        is_dialled: bool,
        peers_worker: Worker,
        draining: bool,
    ) {
        self.live.lock().push(Live {
            tunnel: Arc::clone(tunnel),
            is_dialled,
            peers_worker,
        });
        self.measured(tunnel.quic.rtt());
        self.set_state(if draining {
            LinkState::Draining
        } else {
            LinkState::Up
        });
        self.renewed.send_modify(|count| *count += 1);
        // Another connection may answer in time where the one before was late.
        if let Some(shared) = self.shared.upgrade() {
            shared.links.changed();
        }
    }

    /// One connection less; without any the path counts as dead.
    pub(super) fn lost(&self, tunnel: &Arc<Tunnel>) {
        let mut live = self.live.lock();
        live.retain(|one| !Arc::ptr_eq(&one.tunnel, tunnel));
        if live.is_empty() {
            // Under the lock, so that a connection that comes meanwhile has the last word.
            self.set_state(LinkState::Dead);
        }
        drop(live);
        // Whoever keeps connections may have to dial one.
        if let Some(shared) = self.shared.upgrade() {
            shared.links.changed();
        }
    }

    /// Changes the state unless the link is closed for good.
    pub(super) fn set_state(&self, state: LinkState) {
        let changed = self.state.send_if_modified(|now| {
            let changes = *now != LinkState::Closed && *now != state;
            if changes {
                *now = state;
            }
            changes
        });
        if changed {
            debug!(peer = %self.peer, state = state.as_str(), "link state");
            if let Some(shared) = self.shared.upgrade() {
                shared.links.changed();
            }
        }
    }

    pub(super) fn measured(&self, rtt: Duration) {
        let us = rtt.as_micros().clamp(1, u128::from(u64::MAX)) as u64;
        self.rtt_us.store(us, Relaxed);
    }

    /// Takes over what a look at one of its connections found.
    pub(super) fn looked(&self, looked: Looked) {
        self.measured(looked.rtt);
        let mut path = self.path.lock();
        path.sent_packets += looked.sent_packets;
        path.lost_packets += looked.lost_packets;
        path.received_bytes += looked.received_bytes;
        path.received_filled_bytes += looked.received_filled_bytes;
        path.delivered_bytes += looked.delivered_bytes;
        path.filled_bytes += looked.filled_bytes;
        let udp = path.udp.get_or_insert_default();
        udp.sends += looked.sends;
        udp.congestion_window_bytes = looked.congestion_window_bytes;
        udp.mtu_bytes = looked.mtu_bytes;
    }

    /// Notes whether answers on one of its connections are late.
    pub(super) fn set_overdue(&self, tunnel: &Tunnel, is_overdue: bool) {
        if tunnel.set_overdue(is_overdue)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.links.changed();
        }
    }

    /// How long an answer may take before it is late.
    pub(super) fn answer_within(&self) -> Duration {
        (Duration::from_micros(self.rtt_us.load(Relaxed)) * 3).max(Duration::from_millis(300))
    }

    /// The connection on which streams open: what we dialled, else what the peer did. What we dialled leads to the peer's
    /// own port, where somebody answers also after a restart. Each worker's newest counts. Of several it is one on which
    /// answers are in time and that does not carry far more than another; then that of the calling worker, then the one with
    /// the fewest streams.
    fn usable(&self, now_unix_seconds: u64) -> Option<Arc<Tunnel>> {
        let here = self.shared.upgrade()?.worker_here();
        let live = self.live.lock();
        let is_open = |one: &&Live| {
            let tunnel = &one.tunnel;
            tunnel.term.retire_at > now_unix_seconds && tunnel.is_open()
        };
        let mut usable: Vec<&Live> = Vec::new();
        for one in live.iter().rev().filter(is_open) {
            if usable.iter().all(|newer| newer.dialler() != one.dialler()) {
                usable.push(one);
            }
        }
        if usable.iter().any(|one| one.is_dialled) {
            usable.retain(|one| one.is_dialled);
        }
        let lightest = usable.iter().map(|one| one.tunnel.rate()).min()?;
        let laden = lightest.saturating_mul(LADEN_TIMES) + LADEN_BYTES;
        // Of several the first one is taken.
        let best = usable.iter().min_by_key(|one| {
            let tunnel = &one.tunnel;
            (
                tunnel.is_overdue(),
                tunnel.rate() > laden,
                tunnel.worker != here,
                *tunnel.streams.borrow(),
            )
        });
        best.map(|one| Arc::clone(&one.tunnel))
    }

    /// Waits for a connection and for a place on it.
    async fn place(
        &self,
    ) -> Result<(Arc<Tunnel>, quinn::SendStream, quinn::RecvStream), OpenError> {
        let shared = self.shared.upgrade().ok_or(OpenError::Closed)?;
        let mut renewed = self.renewed.subscribe();
        loop {
            let now = shared.now_unix_seconds();
            // No connection is made with it, and it is the reason why none is left.
            if shared.settings.own.not_after().as_secs() <= now {
                return Err(OpenError::CertificateExpired);
            }
            if let Some(error) = self.why_none() {
                return Err(error);
            }
            if let Some(tunnel) = self.usable(now) {
                let opened = tunnel.quic.open_bi().await;
                match opened {
                    Ok((send, recv)) => return Ok((tunnel, send, recv)),
                    // Its control stream will notice.
                    Err(error) => {
                        debug!(peer = %self.peer, %error, "a connection has ended");
                        // Another one may be usable, as this one no longer is.
                        continue;
                    }
                }
            }
            // The sender is ours.
            let _ = renewed.changed().await;
        }
    }

    fn why_none(&self) -> Option<OpenError> {
        match *self.state.borrow() {
            LinkState::Dead => Some(OpenError::PathDead),
            LinkState::Closed => Some(OpenError::Closed),
            LinkState::Up | LinkState::Draining => None,
        }
    }
}

impl Link for QuicLink {
    fn peer(&self) -> &GatewayId {
        &self.peer
    }

    fn kind(&self) -> TransportKind {
        TransportKind::Quic
    }

    fn open<'a>(&'a self, header: &'a StreamOpen) -> BoxFuture<'a, Result<Stream, OpenError>> {
        Box::pin(async move {
            let link = self.this.upgrade().ok_or(OpenError::Closed)?;
            let mut state = self.state.subscribe();
            let placed = timeout(CONNECTION_WAIT, async {
                tokio::select! {
                    biased;
                    placed = self.place() => placed,
                    _ = state.wait_for(|now| matches!(now, LinkState::Dead | LinkState::Closed)) => {
                        Err(self.why_none().unwrap_or(OpenError::NoConnection))
                    }
                }
            });
            let (tunnel, send, recv) = placed.await.map_err(|_| OpenError::NoConnection)??;
            let mut stream = QuicStream::new(send, recv, Place::on(&tunnel, &link));
            stream.put_open(header);
            self.opened.fetch_add(1, Relaxed);
            Ok(Stream::quic(Box::new(stream)))
        })
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    fn suspect(&self) {
        self.suspected.notify_waiters();
    }

    fn stats(&self) -> LinkStats {
        let connections = self.live.lock().len() as u32;
        let usable = self
            .shared
            .upgrade()
            .and_then(|shared| self.usable(shared.now_unix_seconds()));
        LinkStats {
            rtt: match self.rtt_us.load(Relaxed) {
                0 => None,
                rtt => Some(Duration::from_micros(rtt)),
            },
            connections,
            idle: u32::from(usable.is_some()),
            streams: self.streams.load(Relaxed),
            opened: self.opened.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            dialled: self.dialled.load(Relaxed),
            announced_slots: self.announced_slots.load(Relaxed) as u16,
            // Where no stream can be opened, no answer will come in time.
            is_overdue: usable.is_none_or(|tunnel| tunnel.is_overdue()),
            path: Some(*self.path.lock()),
        }
    }

    fn drain(&self) {
        self.draining.send_replace(true);
    }

    fn close(&self) {
        if *self.state.borrow() == LinkState::Closed {
            // By now another link to this peer may be the one that is remembered.
            return;
        }
        // The tasks of its connections end them.
        self.set_state(LinkState::Closed);
        if let Some(shared) = self.shared.upgrade() {
            shared.links.forget(&self.peer);
        }
    }
}
