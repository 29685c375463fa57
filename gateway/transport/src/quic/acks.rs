//! Notices when a peer acknowledges something that it had not acknowledged before: then both directions of the path live.
//!
//! That an ACK frame came is not enough: each packet repeats what was acknowledged before, also when nothing reaches the
//! peer any more. What is new only the congestion controller is told, so one is put around it that counts.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;

/// What the peer of one connection has acknowledged.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    packets: AtomicU64,
    /// Since it was taken.
    bytes: AtomicU64,
    filled_us: AtomicU64,
}

/// What was acknowledged since the look before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acked {
    pub(super) bytes: u64,
    /// How long there was more to send than was allowed to be on its way.
    pub(super) filled: Duration,
}

impl Acknowledged {
    /// Packets since the connection began.
    pub(super) fn packets(&self) -> u64 {
        self.0.packets.load(Relaxed)
    }

    /// What was acknowledged since it was taken before.
    pub(super) fn take(&self) -> Acked {
        Acked {
            bytes: self.0.bytes.swap(0, Relaxed),
            filled: Duration::from_micros(self.0.filled_us.swap(0, Relaxed)),
        }
    }

    /// Makes controllers that count here and leave everything else to those of `inner`.
    pub(super) fn counting(
        &self,
        inner: Arc<dyn ControllerFactory + Send + Sync>,
    ) -> Arc<dyn ControllerFactory + Send + Sync> {
        Arc::new(Factory {
            inner,
            acknowledged: self.clone(),
        })
    }
}

struct Factory {
    inner: Arc<dyn ControllerFactory + Send + Sync>,
    acknowledged: Acknowledged,
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Counting {
            inner: Arc::clone(&self.inner).build(now, current_mtu),
            acknowledged: self.acknowledged.clone(),
            new_bytes: 0,
            filled_since: None,
        })
    }
}

struct Counting {
    inner: Box<dyn Controller>,
    acknowledged: Acknowledged,
    /// Acknowledged by what is being read.
    new_bytes: u64,
    /// When something was acknowledged last, if there was more to send.
    filled_since: Option<Instant>,
}

impl Controller for Counting {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.acknowledged.0.packets.fetch_add(1, Relaxed);
        self.new_bytes += bytes;
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        let bytes = std::mem::take(&mut self.new_bytes);
        let counts = &self.acknowledged.0;
        counts.bytes.fetch_add(bytes, Relaxed);
        // Nothing is known of the time between, but nobody who had nothing to send would have more at both of its ends.
        let is_filled = !app_limited && (in_flight + bytes) * 2 >= self.inner.window();
        if let Some(since) = self.filled_since.filter(|_| is_filled) {
            let us = now.saturating_duration_since(since).as_micros();
            counts
                .filled_us
                .fetch_add(us.try_into().unwrap_or(u64::MAX), Relaxed);
        }
        self.filled_since = is_filled.then_some(now);
        self.inner
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            acknowledged: self.acknowledged.clone(),
            new_bytes: self.new_bytes,
            filled_since: self.filled_since,
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

#[cfg(test)]
mod tests {
    use quinn::congestion::CubicConfig;

    use super::*;

    const APART: Duration = Duration::from_millis(10);

    /// What is counted of acknowledgements that come one after the other, each of so many bytes with so much on its way, after
    /// which there was nothing more to send or there was.
    fn acked(acks: &[(u64, u64, bool)]) -> Acked {
        let acknowledged = Acknowledged::default();
        let mut now = Instant::now();
        let mut controller = Counting {
            inner: Arc::new(CubicConfig::default()).build(now, 1_200),
            acknowledged: acknowledged.clone(),
            new_bytes: 0,
            filled_since: None,
        };
        for (bytes, in_flight, app_limited) in acks {
            now += APART;
            controller.new_bytes = *bytes;
            controller.on_end_acks(now, *in_flight, *app_limited, None);
        }
        acknowledged.take()
    }

    #[test]
    fn it_is_filled_from_one_acknowledgement_to_the_next_while_there_is_more() {
        let (more, none) = ((1_200, 1 << 20, false), (1_200, 1 << 20, true));
        assert_eq!(acked(&[more, more, more]).filled, APART * 2);
        assert_eq!(acked(&[more, none, more, more]).filled, APART);
        assert_eq!(acked(&[none, none]).filled, Duration::ZERO);
        assert_eq!(acked(&[more, none]).bytes, 2_400);
    }

    #[test]
    fn it_is_not_while_little_is_on_its_way() {
        let little = (1_200, 0, false);
        assert_eq!(acked(&[little, little]).filled, Duration::ZERO);
    }
}
