//! The link to one gateway of a peer over TLS: its pool, its liveness, its streams.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_api::StreamOpen;
use corinth_model::GatewayId;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::Instant,
};
use tracing::debug;

use super::{
    Shared,
    connection::Connection,
    frame::Kind,
    pool::Pool,
    sockets::{Sockets, cut, shut_down},
    stream::TlsStream,
};
use crate::{
    BoxFuture, DialError, DialTarget, Link, LinkState, LinkStats, OpenError, Stream, TransportKind,
};

/// A stream waits this long for a connection before its next attempt is better.
const CONNECTION_WAIT: Duration = Duration::from_secs(2);
/// Idle connections are looked at this often. A stream is never opened on one whose peer has said something:
/// taking it looks too.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Streams of a closed link have this long to end by themselves.
const CLOSING: Duration = Duration::from_millis(500);
/// Connections beyond the spare are looked over this often.
const SHRINK_INTERVAL: Duration = Duration::from_secs(5);

/// The link to one gateway of a peer over TLS.
pub(super) struct TlsLink {
    pub(super) shared: Weak<Shared>,
    pub(super) peer: Arc<GatewayId>,
    pub(super) pool: Mutex<Pool>,
    pub(super) sockets: Mutex<Sockets>,
    pub(super) state: watch::Sender<LinkState>,
    /// True once we asked the peer to open no more streams.
    pub(super) draining: watch::Sender<bool>,
    /// Control connections that answer now, of either side's making.
    pub(super) controls: AtomicU32,
    /// Of those, the ones we dialled: one is enough.
    pub(super) dialled_controls: AtomicU32,
    /// Where more connections are dialled; `None` while only the peer has dialled.
    target: Mutex<Option<DialTarget>>,
    /// Wakes the control connections to look at once.
    pub(super) suspected: Notify,
    /// Microseconds, smoothed; 0 before the first answer.
    pub(super) rtt_us: AtomicU64,
    pub(super) announced_slots: AtomicU32,
    /// Connections on which the peer may open a stream, idle and busy.
    pub(super) inbound: AtomicU32,
    /// Of those that we dialled for the peer to open on, how many are free.
    pub(super) reverse_free: AtomicU32,
    pub(super) inbound_streams: AtomicU32,
    pub(super) opened: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) dialled: AtomicU64,
    /// So that the link can hand itself to its streams.
    this: Weak<Self>,
}

impl TlsLink {
    pub(super) fn new(shared: &Arc<Shared>, peer: GatewayId) -> Arc<Self> {
        let link = Arc::new_cyclic(|this| Self {
            shared: Arc::downgrade(shared),
            peer: Arc::new(peer),
            pool: Mutex::default(),
            sockets: Mutex::new(Sockets::new(Instant::now())),
            state: watch::Sender::new(LinkState::Dead),
            draining: watch::Sender::new(shared.links.is_draining()),
            controls: AtomicU32::new(0),
            dialled_controls: AtomicU32::new(0),
            target: Mutex::new(None),
            suspected: Notify::new(),
            rtt_us: AtomicU64::new(0),
            announced_slots: AtomicU32::new(0),
            inbound: AtomicU32::new(0),
            reverse_free: AtomicU32::new(0),
            inbound_streams: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            dialled: AtomicU64::new(0),
            this: Weak::clone(this),
        });
        tokio::spawn(keep(Arc::downgrade(&link)));
        link
    }

    pub(super) fn as_dyn(&self) -> Option<Arc<dyn Link>> {
        self.this.upgrade().map(|link| link as Arc<dyn Link>)
    }

    /// From now on more connections are dialled at `target`.
    pub(super) fn set_target(&self, target: &DialTarget) {
        *self.target.lock() = Some(target.clone());
    }

    pub(super) fn target(&self) -> Option<DialTarget> {
        self.target.lock().clone()
    }

    /// A stream begins on `connection`: from now on it ends when the link closes.
    pub(super) fn know(&self, connection: &mut Connection) {
        if !std::mem::replace(&mut connection.is_known, true) {
            self.sockets.lock().add(&connection.socket, Instant::now());
        }
        // The link may have closed before the socket was known.
        if *self.state.borrow() == LinkState::Closed {
            shut_down(&connection.socket);
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
        if changed && matches!(state, LinkState::Dead | LinkState::Closed) {
            let mut pool = self.pool.lock();
            pool.closed |= state == LinkState::Closed;
            pool.fail_waiting();
            pool.clear();
        }
        if changed {
            debug!(peer = %self.peer, state = state.as_str(), "link state");
            if let Some(shared) = self.shared.upgrade() {
                shared.links.changed();
            }
        }
    }

    /// The peer answered `rtt` after it was asked (RFC 6298 smoothing).
    pub(super) fn measured(&self, rtt: Duration) {
        let sample = rtt.as_micros().clamp(1, u128::from(u64::MAX)) as u64;
        let smoothed = match self.rtt_us.load(Relaxed) {
            0 => sample,
            old => old - old / 8 + sample / 8,
        };
        self.rtt_us.store(smoothed.max(1), Relaxed);
    }

    /// How long an answer may take before it is late.
    pub(super) fn answer_within(&self) -> Duration {
        (Duration::from_micros(self.rtt_us.load(Relaxed)) * 3).max(Duration::from_millis(300))
    }

    /// A connection on which we may open, new or done with its stream.
    pub(super) fn give(&self, connection: Box<Connection>) {
        self.pool.lock().give(connection, Instant::now());
    }

    /// The connection of a stream that is over; `None` if the stream broke it.
    pub(super) fn take_back(&self, connection: Option<Box<Connection>>) {
        let mut pool = self.pool.lock();
        pool.busy -= 1;
        if let Some(connection) = connection {
            pool.give(connection, Instant::now());
        }
    }

    async fn connection(&self) -> Result<Box<Connection>, OpenError> {
        let shared = self.shared.upgrade().ok_or(OpenError::Closed)?;
        let now = shared.now_unix_seconds();
        // The peer would only say so after we took its handshake for a success.
        if shared.settings.own.not_after().as_secs() <= now {
            return Err(OpenError::CertificateExpired);
        }
        let mut state = self.state.subscribe();
        let waiting = {
            let mut pool = self.pool.lock();
            match *state.borrow_and_update() {
                LinkState::Dead => return Err(OpenError::PathDead),
                LinkState::Closed => return Err(OpenError::Closed),
                LinkState::Up | LinkState::Draining => {}
            }
            let taken = pool.take(now);
            let drains = *state.borrow() == LinkState::Draining;
            if taken.is_none() && drains && self.target().is_none() {
                // A peer that drains dials no more for us, and what is in use is not used again.
                return Err(OpenError::NoConnection);
            }
            let waiting = taken.is_none().then(|| pool.wait());
            self.dial_more(&shared, &mut pool);
            drop(pool);
            match (taken, waiting) {
                (Some(connection), _) => return self.bring_home(connection),
                (None, waiting) => waiting,
            }
        };
        let Some(waiting) = waiting else {
            return Err(OpenError::NoConnection);
        };
        let answer = tokio::select! {
            answer = waiting => answer.map_err(|_| self.why_none()),
            () = tokio::time::sleep(CONNECTION_WAIT) => Err(OpenError::NoConnection),
        };
        self.bring_home(answer?)
    }

    /// Has the calling worker drive the connection.
    fn bring_home(&self, connection: Box<Connection>) -> Result<Box<Connection>, OpenError> {
        // Whoever looks at its socket holds on to it, and one that comes from another worker is to have it alone.
        let _sockets = (!connection.is_home()).then(|| self.sockets.lock());
        connection.bring_home().map_err(|_| OpenError::NoConnection)
    }

    fn why_none(&self) -> OpenError {
        match *self.state.borrow() {
            LinkState::Dead => OpenError::PathDead,
            LinkState::Closed => OpenError::Closed,
            LinkState::Up | LinkState::Draining => OpenError::NoConnection,
        }
    }

    /// Starts the dials that the pool wants, where we can dial.
    fn dial_more(&self, shared: &Arc<Shared>, pool: &mut Pool) {
        let wanted = pool.dials_wanted();
        if wanted == 0 || pool.closed {
            return;
        }
        let (Some(target), Some(link)) = (self.target(), self.this.upgrade()) else {
            return;
        };
        for _ in 0..wanted {
            pool.dialling += 1;
            tokio::spawn(dial_one(
                Arc::clone(shared),
                Arc::clone(&link),
                target.clone(),
            ));
        }
    }

    /// Keeps the spare warm from the beginning.
    pub(super) fn warm_up(&self) {
        if let Some(shared) = self.shared.upgrade() {
            let mut pool = self.pool.lock();
            self.dial_more(&shared, &mut pool);
        }
    }
}

/// Dials one more connection for us to open on. It goes to the link of whichever gateway answers.
async fn dial_one(shared: Arc<Shared>, link: Arc<TlsLink>, target: DialTarget) {
    let dialled = shared.dial_for_streams(&target).await;
    let mut pool = link.pool.lock();
    pool.dialling -= 1;
    match dialled {
        Ok(connection) if connection.peer == link.peer => {
            pool.give(connection, Instant::now());
            // Who came while all dials were taken still waits.
            link.dial_more(&shared, &mut pool);
            drop(pool);
            link.dialled.fetch_add(1, Relaxed);
        }
        Ok(connection) => {
            let nobody_left = pool.dialling == 0;
            if nobody_left {
                pool.fail_waiting();
            }
            drop(pool);
            shared.adopt(connection);
        }
        Err(error) => {
            if pool.dialling == 0 {
                pool.fail_waiting();
            }
            drop(pool);
            log_dial(&target, &error);
        }
    }
}

fn log_dial(target: &DialTarget, error: &DialError) {
    debug!(address = %target.address, %error, "dialling one more connection failed");
}

/// Watches the idle connections of a link for the peer's word, and closes those nobody needs.
async fn keep(link: Weak<TlsLink>) {
    let mut next_shrink = Instant::now() + SHRINK_INTERVAL;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(link) = link.upgrade() else {
            return;
        };
        if *link.state.borrow() == LinkState::Closed {
            return;
        }
        let now = Instant::now();
        link.sockets.lock().look(now);
        let mut pool = link.pool.lock();
        pool.look();
        if now >= next_shrink {
            pool.shrink(now);
            next_shrink = now + SHRINK_INTERVAL;
        }
    }
}

impl Link for TlsLink {
    fn peer(&self) -> &GatewayId {
        &self.peer
    }

    fn kind(&self) -> TransportKind {
        TransportKind::Tls
    }

    fn open<'a>(&'a self, header: &'a StreamOpen) -> BoxFuture<'a, Result<Stream, OpenError>> {
        Box::pin(async move {
            let mut connection = self.connection().await?;
            let Some(home) = self.this.upgrade() else {
                return Err(OpenError::Closed);
            };
            connection.last_stream = connection.last_stream.wrapping_add(1);
            let mut payload = Vec::with_capacity(256);
            header.encode(&mut payload);
            self.know(&mut connection);
            let id = connection.last_stream;
            let queued = connection.put(Kind::Open, id, &payload);
            self.pool.lock().busy += 1;
            let stream = TlsStream::opened(connection, home);
            queued.map_err(|_| OpenError::NoConnection)?;
            self.opened.fetch_add(1, Relaxed);
            Ok(Stream::tls(Box::new(stream)))
        })
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    fn suspect(&self) {
        self.suspected.notify_waiters();
    }

    fn stats(&self) -> LinkStats {
        let (idle, busy) = {
            let pool = self.pool.lock();
            (pool.idle(), pool.busy)
        };
        LinkStats {
            rtt: match self.rtt_us.load(Relaxed) {
                0 => None,
                rtt => Some(Duration::from_micros(rtt)),
            },
            connections: idle + busy + self.inbound.load(Relaxed) + self.controls.load(Relaxed),
            idle,
            streams: busy + self.inbound_streams.load(Relaxed),
            opened: self.opened.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            dialled: self.dialled.load(Relaxed),
            announced_slots: self.announced_slots.load(Relaxed) as u16,
            is_overdue: false,
            path: Some(self.sockets.lock().path()),
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
        self.set_state(LinkState::Closed);
        let sockets = self.sockets.lock().take();
        match Handle::try_current() {
            // Whoever carries a stream sees the state and says why it ends; sockets of others are cut then.
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(CLOSING).await;
                cut(&sockets);
            })),
            Err(_) => cut(&sockets),
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.links.forget(&self.peer);
        }
    }
}
