//! One authenticated QUIC connection of a link: what its peer may hold, and for how long streams open on it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_model::GatewayId;
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::{sync::watch, time::Instant};

use super::{
    config::varint,
    datagram::Inboxes,
    window::{self, Share},
};
use crate::tls::retire_at;

/// Streams a peer may have open on one connection.
const STREAMS_MAX: u32 = 16_384;
/// Each side has one unidirectional stream, for what is said about the connection.
const CONTROL_STREAMS_MAX: u32 = 1;
/// Said by whoever ends a connection in peace.
const NO_ERROR: VarInt = VarInt::from_u32(0);

/// One authenticated QUIC connection of a link.
pub(super) struct Tunnel {
    pub(super) quic: quinn::Connection,
    pub(super) peer: Arc<GatewayId>,
    /// Unix seconds at which the earlier of both leaves expires: no stream opens after it.
    pub(super) not_after: u64,
    /// Unix seconds from which we open no stream on it any more: somewhat earlier, as the peer's clock decides too.
    pub(super) retire_at: u64,
    /// What comes beside its streams.
    pub(super) inboxes: Inboxes,
    /// Streams open on it, by either side.
    pub(super) streams: watch::Sender<u32>,
    window: Mutex<Window>,
    is_overdue: AtomicBool,
}

/// What is known of the path's size.
struct Window {
    share: Share,
    received_bytes: u64,
    sent_packets: u64,
    lost_packets: u64,
    at: Instant,
}

/// What a look at a connection found that is new.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    pub(super) rtt: Duration,
    /// Packets sent since the look before.
    pub(super) sent_packets: u64,
    /// Packets that counted as lost since the look before.
    pub(super) lost_packets: u64,
    pub(super) congestion_window_bytes: u64,
    pub(super) mtu_bytes: u16,
}

impl Tunnel {
    /// A connection whose peer has proved who it is, and may from now on do what peers may.
    pub(super) fn new(
        quic: quinn::Connection,
        peer: GatewayId,
        not_after: u64,
        now_unix_seconds: u64,
        share: Share,
    ) -> Self {
        quic.set_receive_window(varint(share.bytes()));
        quic.set_send_window(window::to_send(0));
        quic.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS_MAX));
        quic.set_max_concurrent_uni_streams(VarInt::from_u32(CONTROL_STREAMS_MAX));
        Self {
            peer: Arc::new(peer),
            not_after,
            retire_at: retire_at(not_after, now_unix_seconds),
            inboxes: Inboxes::default(),
            streams: watch::Sender::new(0),
            window: Mutex::new(Window {
                share,
                received_bytes: quic.stats().udp_rx.bytes,
                sent_packets: 0,
                lost_packets: 0,
                at: Instant::now(),
            }),
            is_overdue: AtomicBool::new(false),
            quic,
        }
    }

    /// Looks what the path has carried since the last time, and fits the windows to it.
    pub(super) fn look(&self, now: Instant) -> Looked {
        let stats = self.quic.stats();
        let path = stats.path;
        let mut window = self.window.lock();
        let received = stats.udp_rx.bytes.saturating_sub(window.received_bytes);
        let elapsed = now.duration_since(window.at);
        window.received_bytes = stats.udp_rx.bytes;
        window.at = now;
        let looked = Looked {
            rtt: path.rtt,
            sent_packets: path.sent_packets.saturating_sub(window.sent_packets),
            lost_packets: path.lost_packets.saturating_sub(window.lost_packets),
            congestion_window_bytes: path.cwnd,
            mtu_bytes: path.current_mtu,
        };
        // Counted anew where the path has changed.
        window.sent_packets = path.sent_packets;
        window.lost_packets = path.lost_packets;
        if window
            .share
            .grow(window::wanted(received, elapsed, path.rtt))
        {
            self.quic.set_receive_window(varint(window.share.bytes()));
        }
        drop(window);
        self.quic.set_send_window(window::to_send(path.cwnd));
        looked
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
        let _ = tokio::time::timeout(most, self.idle()).await;
    }

    /// Ends it and every stream on it.
    pub(super) fn close(&self) {
        self.quic.close(NO_ERROR, b"");
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
