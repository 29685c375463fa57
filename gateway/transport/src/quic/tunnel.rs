//! One authenticated QUIC connection of a link: what its peer may hold, and for how long streams open on it.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_model::{Failure, GatewayId};
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    Worker,
    acks::Acknowledged,
    code::code_of,
    config::varint,
    connections::Entered,
    credit::Credits,
    datagram::{Inboxes, Waiting},
    farewell::Farewells,
    window::{self, Seen, Shape, Windows},
};
use crate::{
    link::{LOAD_MIN_BYTES, is_nearly_all},
    tls::retire_at,
};

/// Streams a peer may have open on one connection.
const STREAMS_MAX: u32 = 16_384;
/// Each side has one unidirectional stream, for what is said about the connection.
const CONTROL_STREAMS_MAX: u32 = 1;
/// Said by whoever ends a connection in peace.
const NO_ERROR: VarInt = VarInt::from_u32(0);
/// What was sent on streams that are over has this long to arrive before their connection ends.
const ARRIVING: Duration = Duration::from_secs(1);

/// Until when a connection is of use, in Unix seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    /// When the earlier of both leaves expires: no stream opens after it.
    pub(super) not_after: u64,
    /// From then on we open no stream on it any more: somewhat earlier, as the peer's clock decides too.
    pub(super) retire_at: u64,
    /// From then on its successor is dialled: as much earlier again, so that there is time to fail.
    pub(super) renew_at: u64,
}

impl Term {
    /// That of a connection made now.
    pub(super) fn of(not_after: u64, now_unix_seconds: u64) -> Self {
        let retire_at = retire_at(not_after, now_unix_seconds);
        Self {
            not_after,
            retire_at,
            renew_at: retire_at.saturating_sub(not_after - retire_at),
        }
    }
}

/// One authenticated QUIC connection of a link.
pub(super) struct Tunnel {
    pub(super) quic: quinn::Connection,
    pub(super) acknowledged: Acknowledged,
    pub(super) peer: Arc<GatewayId>,
    /// Who drives it.
    pub(super) worker: Worker,
    pub(super) term: Term,
    /// What comes beside its streams.
    pub(super) inboxes: Inboxes,
    /// Datagrams that are to leave.
    pub(super) waiting: Arc<Waiting>,
    /// Streams open on it, by either side.
    pub(super) streams: watch::Sender<u32>,
    /// What was said last on streams that are over.
    pub(super) farewells: Farewells,
    /// How far its streams may be sent.
    pub(super) credits: Credits,
    windows: Mutex<Windows>,
    stream_max_bytes: AtomicU64,
    /// What was read on its streams, or thrown away of them.
    read_bytes: AtomicU64,
    /// Bytes in a second that pass on it, in both directions together.
    rate: AtomicU64,
    is_overdue: AtomicBool,
    /// What is sent on it is more than the path takes, as of the last look.
    is_filled: AtomicBool,
    /// What the peer says of its own sending.
    is_peer_filled: AtomicBool,
    /// Nothing comes back on it any more, as far as its probes say.
    is_dead: watch::Sender<bool>,
    entered: Entered,
}

/// What a look at a connection found that is new.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    pub(super) rtt: Duration,
    /// Packets sent since the look before.
    pub(super) sent_packets: u64,
    /// Packets that counted as lost since the look before.
    pub(super) lost_packets: u64,
    /// Calls in which packets were sent since the look before.
    pub(super) sends: u64,
    pub(super) received_bytes: u64,
    pub(super) received_filled_bytes: u64,
    pub(super) delivered_bytes: u64,
    pub(super) filled_bytes: u64,
    pub(super) congestion_window_bytes: u64,
    pub(super) mtu_bytes: u16,
}

impl Tunnel {
    /// A connection whose peer has proved who it is, and may from now on do what peers may.
    pub(super) fn new(
        quic: quinn::Connection,
        acknowledged: Acknowledged,
        peer: GatewayId,
        term: Term,
        worker: Worker,
        windows: Windows,
        entered: Entered,
    ) -> Self {
        quic.set_receive_window(varint(windows.to_receive()));
        quic.set_send_window(windows.to_send());
        quic.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_MAX));
        quic.set_max_concurrent_uni_streams(VarInt::from_u32(CONTROL_STREAMS_MAX));
        Self {
            acknowledged,
            peer: Arc::new(peer),
            worker,
            term,
            inboxes: Inboxes::default(),
            waiting: Waiting::on(&quic),
            streams: watch::Sender::new(0),
            farewells: Farewells::default(),
            credits: Credits::default(),
            read_bytes: AtomicU64::new(0),
            rate: AtomicU64::new(0),
            stream_max_bytes: AtomicU64::new(window::of_a_stream(windows.to_receive())),
            windows: Mutex::new(windows),
            is_overdue: AtomicBool::new(false),
            is_filled: AtomicBool::new(false),
            is_peer_filled: AtomicBool::new(false),
            is_dead: watch::Sender::new(false),
            entered,
            quic,
        }
    }

    /// Looks what the path has carried since the last time, and fits the windows to it. `None` if that was just now.
    pub(super) fn look(&self, now: Instant) -> Option<Looked> {
        let stats = self.quic.stats();
        let path = stats.path;
        let seen = Seen {
            received_bytes: stats.udp_rx.bytes,
            sent_bytes: stats.udp_tx.bytes,
            sent_packets: path.sent_packets,
            lost_packets: path.lost_packets,
            sends: stats.udp_tx.ios,
            blocked: stats.frame_rx.data_blocked,
            read_bytes: self.read_bytes.load(Relaxed),
        };
        let shape = Shape {
            rtt: path.rtt,
            congestion_window_bytes: path.cwnd,
        };
        let mut windows = self.windows.lock();
        let passed = windows.handle_look(seen, now)?;
        self.rate.store(passed.rate(), Relaxed);
        if windows.fit(&passed, shape, *self.streams.borrow() > 0) {
            let bytes = windows.to_receive();
            self.quic.set_receive_window(varint(bytes));
            self.quic.set_send_window(windows.to_send());
            self.stream_max_bytes
                .store(window::of_a_stream(bytes), Relaxed);
        }
        let delivered = self.acknowledged.take();
        let is_filled =
            delivered.bytes >= LOAD_MIN_BYTES && is_nearly_all(delivered.filled, passed.elapsed());
        self.is_filled.store(is_filled, Relaxed);
        let is_peer_filled = self.is_peer_filled.load(Relaxed);
        Some(Looked {
            rtt: path.rtt,
            sent_packets: passed.sent_packets,
            lost_packets: passed.lost_packets,
            sends: passed.sends,
            received_bytes: passed.received_bytes,
            received_filled_bytes: if is_peer_filled {
                passed.received_bytes
            } else {
                0
            },
            delivered_bytes: delivered.bytes,
            filled_bytes: if is_filled { delivered.bytes } else { 0 },
            congestion_window_bytes: path.cwnd,
            mtu_bytes: path.current_mtu,
        })
    }

    /// The largest window that a stream may have on it now.
    pub(super) fn stream_max_bytes(&self) -> u64 {
        self.stream_max_bytes.load(Relaxed)
    }

    /// The window was given back for so many bytes of one of its streams.
    pub(super) fn handle_read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Relaxed);
    }

    /// Bytes in a second that passed on it lately, in both directions together.
    pub(super) fn rate(&self) -> u64 {
        self.rate.load(Relaxed)
    }

    /// Nothing comes back on it, whatever other connections of its link do.
    pub(super) fn set_dead(&self) {
        self.is_dead.send_replace(true);
        self.entered.set_dead();
    }

    /// Resolves when nothing comes back on it any more.
    pub(super) fn dead(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut is_dead = self.is_dead.subscribe();
        async move {
            if is_dead.wait_for(|is_dead| *is_dead).await.is_err() {
                pending().await
            }
        }
    }

    /// Notes whether answers are late; `true` if that is news.
    pub(super) fn set_overdue(&self, is_overdue: bool) -> bool {
        self.is_overdue.swap(is_overdue, Relaxed) != is_overdue
    }

    /// What is sent on it is more than the path takes.
    pub(super) fn is_filled(&self) -> bool {
        self.is_filled.load(Relaxed)
    }

    /// The peer said whether it is with what the peer sends.
    pub(super) fn set_peer_filled(&self, is_filled: bool) {
        self.is_peer_filled.store(is_filled, Relaxed);
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.is_overdue.load(Relaxed)
    }

    /// Waits until no stream is open on it any more, or it has ended.
    pub(super) async fn idle(&self) {
        let mut streams = self.streams.subscribe();
        tokio::select! {
            // The sender is ours.
            _ = streams.wait_for(|open| *open == 0) => {}
            _ = self.quic.closed() => {}
        }
    }

    pub(super) async fn idle_within(&self, most: Duration) {
        // What is open after that is cut.
        let _ = timeout(most, self.idle()).await;
    }

    /// Lets what was sent on streams that are over arrive, then ends it and every stream on it. The peer is told why.
    pub(super) async fn end(&self, failure: Option<Failure>) {
        // What has not arrived by then is lost with the path.
        let _ = timeout(ARRIVING, self.farewells.arrived(self.quic.rtt())).await;
        self.close_for(failure);
    }

    /// Ends it and every stream on it at once. The peer is told why.
    pub(super) fn close_for(&self, failure: Option<Failure>) {
        // Else it would be forgotten why the peer has ended it.
        if self.is_open() {
            self.quic.close(failure.map_or(NO_ERROR, code_of), b"");
        }
    }

    /// Ends it and every stream on it at once.
    pub(super) fn close(&self) {
        self.close_for(None);
    }

    pub(super) fn is_open(&self) -> bool {
        self.quic.close_reason().is_none()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // One that nobody wanted; else it has ended already.
        self.close();
    }
}
