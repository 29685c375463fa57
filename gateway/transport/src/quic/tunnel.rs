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
    datagram::Inboxes,
    farewell::Farewells,
    window::{self, Share},
};
use crate::tls::retire_at;

/// Streams a peer may have open on one connection.
const STREAMS_MAX: u32 = 16_384;
/// Each side has one unidirectional stream, for what is said about the connection.
const CONTROL_STREAMS_MAX: u32 = 1;
/// Said by whoever ends a connection in peace.
const NO_ERROR: VarInt = VarInt::from_u32(0);
/// What was sent on streams that are over has this long to arrive before their connection ends.
const ARRIVING: Duration = Duration::from_secs(1);

/// One authenticated QUIC connection of a link.
pub(super) struct Tunnel {
    pub(super) quic: quinn::Connection,
    pub(super) acknowledged: Acknowledged,
    pub(super) peer: Arc<GatewayId>,
    /// Who drives it.
    pub(super) worker: Worker,
    /// Unix seconds at which the earlier of both leaves expires: no stream opens after it.
    pub(super) not_after: u64,
    /// Unix seconds from which we open no stream on it any more: somewhat earlier, as the peer's clock decides too.
    pub(super) retire_at: u64,
    /// Unix seconds from which its successor is dialled: as much earlier again, so that there is time to fail.
    pub(super) renew_at: u64,
    /// What comes beside its streams.
    pub(super) inboxes: Inboxes,
    /// Streams open on it, by either side.
    pub(super) streams: watch::Sender<u32>,
    /// What was said last on streams that are over.
    pub(super) farewells: Farewells,
    /// How far its streams may be sent.
    pub(super) credits: Credits,
    windows: Mutex<Windows>,
    stream_max_bytes: AtomicU64,
    /// Bytes in a second that pass on it, in both directions together.
    rate: AtomicU64,
    is_overdue: AtomicBool,
    /// Nothing comes back on it any more, as far as its probes say.
    is_dead: watch::Sender<bool>,
    _entered: Entered,
}

/// What may be on its way, and what is known of the path's size.
pub(super) struct Windows {
    to_receive: Share,
    to_send: Share,
    received_bytes: u64,
    sent_bytes: u64,
    sent_packets: u64,
    lost_packets: u64,
    sends: u64,
    /// How often the peer has said that the window holds it up.
    blocked: u64,
    at: Instant,
}

impl Windows {
    pub(super) fn new(to_receive: Share, to_send: Share) -> Self {
        Self {
            to_receive,
            to_send,
            received_bytes: 0,
            sent_bytes: 0,
            sent_packets: 0,
            lost_packets: 0,
            sends: 0,
            blocked: 0,
            at: Instant::now(),
        }
    }
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
    pub(super) congestion_window_bytes: u64,
    pub(super) mtu_bytes: u16,
}

impl Tunnel {
    /// A connection whose peer has proved who it is, and may from now on do what peers may.
    pub(super) fn new(
        quic: quinn::Connection,
        acknowledged: Acknowledged,
        peer: GatewayId,
        not_after: u64,
        now_unix_seconds: u64,
        worker: Worker,
        mut windows: Windows,
        entered: Entered,
    ) -> Self {
        let retire_at = retire_at(not_after, now_unix_seconds);
        quic.set_receive_window(varint(windows.to_receive.bytes()));
        quic.set_send_window(windows.to_send.bytes());
        quic.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_MAX));
        quic.set_max_concurrent_uni_streams(VarInt::from_u32(CONTROL_STREAMS_MAX));
        windows.received_bytes = quic.stats().udp_rx.bytes;
        Self {
            acknowledged,
            peer: Arc::new(peer),
            worker,
            not_after,
            retire_at,
            renew_at: retire_at.saturating_sub(not_after - retire_at),
            inboxes: Inboxes::default(),
            streams: watch::Sender::new(0),
            farewells: Farewells::default(),
            credits: Credits::default(),
            rate: AtomicU64::new(0),
            stream_max_bytes: AtomicU64::new(window::of_a_stream(windows.to_receive.bytes())),
            windows: Mutex::new(windows),
            is_overdue: AtomicBool::new(false),
            is_dead: watch::Sender::new(false),
            _entered: entered,
            quic,
        }
    }

    /// Looks what the path has carried since the last time, and fits the windows to it.
    pub(super) fn look(&self, now: Instant) -> Looked {
        let stats = self.quic.stats();
        let path = stats.path;
        let mut windows = self.windows.lock();
        let received = stats.udp_rx.bytes.saturating_sub(windows.received_bytes);
        let elapsed = now.duration_since(windows.at);
        let sent = stats.udp_tx.bytes.saturating_sub(windows.sent_bytes);
        windows.received_bytes = stats.udp_rx.bytes;
        windows.sent_bytes = stats.udp_tx.bytes;
        windows.at = now;
        let per_second = (received + sent) as f64 / elapsed.as_secs_f64().max(f64::EPSILON);
        self.rate.store(per_second as u64, Relaxed);
        let looked = Looked {
            rtt: path.rtt,
            sent_packets: path.sent_packets.saturating_sub(windows.sent_packets),
            lost_packets: path.lost_packets.saturating_sub(windows.lost_packets),
            sends: stats.udp_tx.ios - windows.sends,
            congestion_window_bytes: path.cwnd,
            mtu_bytes: path.current_mtu,
        };
        // Counted anew where the path has changed.
        windows.sent_packets = path.sent_packets;
        windows.lost_packets = path.lost_packets;
        windows.sends = stats.udp_tx.ios;
        let mut wanted = window::wanted(received, elapsed, path.rtt);
        let blocked = stats.frame_rx.data_blocked;
        if blocked != std::mem::replace(&mut windows.blocked, blocked) {
            // Streams that nobody reads have taken it: the others need one as well.
            wanted = wanted.max(windows.to_receive.bytes() * 2);
        }
        if windows.to_receive.grow(wanted) {
            let bytes = windows.to_receive.bytes();
            self.quic.set_receive_window(varint(bytes));
            self.stream_max_bytes
                .store(window::of_a_stream(bytes), Relaxed);
        }
        if windows.to_send.grow(window::to_send(path.cwnd)) {
            self.quic.set_send_window(windows.to_send.bytes());
        }
        looked
    }

    /// The largest window that a stream may have on it now.
    pub(super) fn stream_max_bytes(&self) -> u64 {
        self.stream_max_bytes.load(Relaxed)
    }

    /// Bytes in a second that passed on it lately, in both directions together.
    pub(super) fn rate(&self) -> u64 {
        self.rate.load(Relaxed)
    }

    /// Nothing comes back on it, whatever other connections of its link do.
    pub(super) fn set_dead(&self) {
        self.is_dead.send_replace(true);
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
