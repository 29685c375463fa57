//! Where a stream is open.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use quinn::{StreamId, VarInt};

use crate::quic::{credit::Credit, link::QuicLink, tunnel::Tunnel};

/// Counts a stream where it is open, as long as it is.
pub(in crate::quic) struct Place {
    pub(super) tunnel: Arc<Tunnel>,
    link: Arc<QuicLink>,
    /// Once enough was sent or received for it to matter.
    credit: OnceLock<(u64, Arc<Credit>)>,
}

impl Place {
    pub(in crate::quic) fn on(tunnel: &Arc<Tunnel>, link: &Arc<QuicLink>) -> Self {
        tunnel.streams.send_modify(|open| *open += 1);
        link.streams.fetch_add(1, Relaxed);
        Self {
            tunnel: Arc::clone(tunnel),
            link: Arc::clone(link),
            credit: OnceLock::new(),
        }
    }

    /// The credit of the stream, kept from now on, and the number it goes by.
    pub(super) fn credit(&self, stream: StreamId) -> &(u64, Arc<Credit>) {
        self.credit.get_or_init(|| {
            let stream = u64::from(VarInt::from(stream));
            (stream, self.tunnel.credits.watch(stream))
        })
    }

    pub(super) fn rtt(&self) -> Duration {
        Duration::from_micros(self.link.rtt_us.load(Relaxed))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((stream, _)) = self.credit.get() {
            self.tunnel.credits.forget(*stream);
        }
        self.link.streams.fetch_sub(1, Relaxed);
        self.tunnel.streams.send_modify(|open| *open -= 1);
    }
}
