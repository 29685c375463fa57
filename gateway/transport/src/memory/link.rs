//! The link to one gateway in memory: its state, its counters, its liveness.

use std::{
    convert::Infallible,
    future,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_api::StreamOpen;
use corinth_model::GatewayId;
use futures_util::FutureExt;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{
    Gateway, MemoryTimeouts, change,
    path::{End, Path, is_usable},
    stream::MemoryStream,
    wire::Wire,
};
use crate::{BoxFuture, Link, LinkState, LinkStats, OpenError, Stream, TransportKind};

/// Probes in a row without an answer that mark a path dead.
const MISSED_MAX: u32 = 4;
/// While a stream waits, a path is given this long to answer.
const SUSPECT_ANSWER: Duration = Duration::from_millis(300);

/// The link to one gateway in memory.
pub(super) struct MemoryLink {
    gateway: Weak<Gateway>,
    peer: GatewayId,
    path: Arc<Path>,
    /// Ours of the two ends of the path.
    end: End,
    state: watch::Sender<LinkState>,
    has_drained: AtomicBool,
    /// Wakes the keeper to look at once.
    suspected: Notify,
    streams: AtomicU32,
    opened: AtomicU64,
    accepted: AtomicU64,
    dialled: AtomicU64,
    /// So that the link can hand itself to its streams.
    this: Weak<Self>,
}

impl MemoryLink {
    /// A link that nobody has connected yet.
    pub(super) fn new(gateway: &Arc<Gateway>, peer: &GatewayId, path: Arc<Path>) -> Arc<Self> {
        let end = if gateway.id <= *peer {
            End::Lower
        } else {
            End::Upper
        };
        let link = Arc::new_cyclic(|this| Self {
            gateway: Arc::downgrade(gateway),
            peer: peer.clone(),
            path: Arc::clone(&path),
            end,
            state: watch::Sender::new(LinkState::Dead),
            has_drained: AtomicBool::new(gateway.is_draining.load(Relaxed)),
            suspected: Notify::new(),
            streams: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            dialled: AtomicU64::new(0),
            this: Weak::clone(this),
        });
        path.attach(end, Arc::downgrade(&link));
        let keeper = Keeper {
            link: Arc::downgrade(&link),
            path: Arc::clone(&path),
            state: link.state.subscribe(),
            timeouts: gateway.network.timeouts,
        };
        gateway.worker.spawn(keeper.run());
        link
    }

    /// A dial has reached the peer; `true` if the link was not connected before.
    pub(super) fn connected(&self, peer_has_drained: bool) -> bool {
        let was_usable = is_usable(*self.state.borrow());
        if !was_usable {
            change(&self.state, LinkState::Up);
        }
        if peer_has_drained {
            self.hear_drain();
        }
        !was_usable
    }

    pub(super) fn count_dial(&self) {
        self.dialled.fetch_add(1, Relaxed);
    }

    pub(super) fn is_open(&self) -> bool {
        *self.state.borrow() != LinkState::Closed
    }

    pub(super) fn become_dead(&self) {
        change(&self.state, LinkState::Dead);
    }

    /// The peer asks for no more streams. Of a dead link nothing is known until it is dialled again.
    pub(super) fn hear_drain(&self) {
        if *self.state.borrow() == LinkState::Up {
            change(&self.state, LinkState::Draining);
        }
    }

    /// Whether we asked the peer for no more streams.
    pub(super) fn has_drained(&self) -> bool {
        self.has_drained.load(Relaxed)
    }

    /// Serves a stream that the peer opened.
    pub(super) fn serve(&self, wire: Arc<Wire>, header: &[u8]) {
        match (self.gateway.upgrade(), self.this.upgrade()) {
            (Some(gateway), Some(link)) => {
                self.accepted.fetch_add(1, Relaxed);
                gateway.serve(link, wire, header);
            }
            (None | Some(_), None | Some(_)) => wire.sever(),
        }
    }

    pub(super) fn stream_began(&self) {
        self.streams.fetch_add(1, Relaxed);
    }

    pub(super) fn stream_ended(&self) {
        self.streams.fetch_sub(1, Relaxed);
    }

    fn far(&self) -> Option<Arc<Self>> {
        self.path.link(self.end.other())
    }
}

impl Link for MemoryLink {
    fn peer(&self) -> &GatewayId {
        &self.peer
    }

    fn kind(&self) -> TransportKind {
        TransportKind::Memory
    }

    fn open<'a>(&'a self, header: &'a StreamOpen) -> BoxFuture<'a, Result<Stream, OpenError>> {
        Box::pin(async move {
            match *self.state.borrow() {
                LinkState::Up | LinkState::Draining => {}
                LinkState::Dead => return Err(OpenError::PathDead),
                LinkState::Closed => return Err(OpenError::Closed),
            }
            let link = self.this.upgrade().ok_or(OpenError::Closed)?;
            self.opened.fetch_add(1, Relaxed);
            let wire = self.path.open_stream(self.end);
            Ok(Stream::memory(MemoryStream::opened(wire, link, header)))
        })
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    fn suspect(&self) {
        if self.path.is_black() {
            self.suspected.notify_one();
        }
    }

    fn stats(&self) -> LinkStats {
        let connections = u32::from(is_usable(*self.state.borrow()));
        let gateway = self.gateway.upgrade();
        LinkStats {
            rtt: Some(Duration::ZERO),
            connections,
            idle: connections,
            streams: self.streams.load(Relaxed),
            opened: self.opened.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            dialled: self.dialled.load(Relaxed),
            announced_slots: gateway.map_or(0, |gateway| gateway.network.slots(&self.peer)),
            is_overdue: false,
            path: None,
        }
    }

    fn drain(&self) {
        self.has_drained.store(true, Relaxed);
        if let Some(far) = self.far()
            && !self.path.is_black()
        {
            far.hear_drain();
        }
    }

    fn close(&self) {
        if !change(&self.state, LinkState::Closed) {
            return;
        }
        if let Some(gateway) = self.gateway.upgrade() {
            gateway.forget(&self.peer);
        }
        self.path.lose(self.end);
        if let Some(far) = self.far()
            && !self.path.is_black()
        {
            far.become_dead();
        }
    }
}

/// Notices for one link that its path is black.
struct Keeper {
    link: Weak<MemoryLink>,
    path: Arc<Path>,
    state: watch::Receiver<LinkState>,
    timeouts: MemoryTimeouts,
}

impl Keeper {
    async fn run(self) {
        let Self {
            link,
            path,
            mut state,
            timeouts,
        } = self;
        let closed = closed(&mut state);
        tokio::pin!(closed);
        loop {
            tokio::select! {
                biased;
                () = &mut closed => return,
                () = path.until_black(true) => {}
            }
            tokio::select! {
                biased;
                () = &mut closed => return,
                () = path.until_black(false) => {}
                never = silent(&link, timeouts) => match never {},
            }
            // A suspicion about the silence that is over must not shorten the next one.
            if let Some(link) = link.upgrade() {
                let _ = link.suspected.notified().now_or_never();
            }
        }
    }
}

/// Resolves when the link is closed for good, or dropped.
async fn closed(state: &mut watch::Receiver<LinkState>) {
    let _ = state.wait_for(|state| *state == LinkState::Closed).await;
}

/// What happens while the path stays silent: first the link is dead, then its streams are cut.
async fn silent(link: &Weak<MemoryLink>, timeouts: MemoryTimeouts) -> Infallible {
    let since = Instant::now();
    let dead_at = since + timeouts.probe_interval * MISSED_MAX;
    tokio::select! {
        biased;
        () = sleep_until(dead_at) => {}
        () = suspected(link) => sleep_until(dead_at.min(Instant::now() + SUSPECT_ANSWER)).await,
    }
    if let Some(link) = link.upgrade() {
        link.become_dead();
    }
    sleep_until(since + timeouts.unacknowledged).await;
    if let Some(link) = link.upgrade() {
        link.path.lose(link.end);
    }
    future::pending().await
}

async fn suspected(link: &Weak<MemoryLink>) {
    match link.upgrade() {
        Some(link) => link.suspected.notified().await,
        None => future::pending().await,
    }
}
