//! What is known of the path below each link.

use corinth_transport::PathStats;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, core::Collector};

use crate::steering::Goodputs;

/// What is known of the path below each link.
pub(super) struct Path {
    sent_packets: IntCounterVec,
    lost_packets: IntCounterVec,
    delivered: IntCounterVec,
    filled: IntCounterVec,
    goodput: GaugeVec,
    sends: IntCounterVec,
    congestion_window: IntGaugeVec,
    mtu: IntGaugeVec,
}

impl Path {
    pub(super) fn new(link: &[&str]) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), link);
        let gauges = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), link);
        Ok(Self {
            sent_packets: counters(
                "link_sent_packets_total",
                "Packets, over TCP segments with data, sent on the link since it began.",
            )?,
            lost_packets: counters(
                "link_lost_packets_total",
                "Packets sent on the link that counted as lost; over TCP those that were sent again.",
            )?,
            delivered: counters(
                "link_delivered_bytes_total",
                "Bytes sent on the link that the peer has acknowledged.",
            )?,
            filled: counters(
                "link_filled_bytes_total",
                "Bytes that the peer has acknowledged while the path took less than there was to send.",
            )?,
            goodput: GaugeVec::new(
                Opts::new(
                    "link_goodput_bytes_per_second",
                    "What the link delivered in the last quarter of an hour when it was given more than it took, of bytes \
                     that were sent or received.",
                ),
                &[link, &["direction"]].concat(),
            )?,
            sends: counters(
                "link_sends_total",
                "Batches in which packets were handed to the socket, which puts full ones together for the system.",
            )?,
            congestion_window: gauges(
                "link_congestion_window_bytes",
                "What may be on its way unacknowledged.",
            )?,
            mtu: gauges(
                "link_mtu_bytes",
                "The largest packet the path is known to take.",
            )?,
        })
    }

    pub(super) fn reset(&self) {
        let counters = [
            &self.sent_packets,
            &self.lost_packets,
            &self.delivered,
            &self.filled,
            &self.sends,
        ];
        counters.into_iter().for_each(IntCounterVec::reset);
        self.goodput.reset();
        self.congestion_window.reset();
        self.mtu.reset();
    }

    pub(super) fn show(&self, link: &[&str; 3], path: PathStats, goodputs: Goodputs) {
        for (counter, count) in [
            (&self.sent_packets, path.sent_packets),
            (&self.lost_packets, path.lost_packets),
            (&self.delivered, path.delivered_bytes),
            (&self.filled, path.filled_bytes),
        ] {
            counter.with_label_values(link).inc_by(count);
        }
        for (direction, goodput) in [("sent", goodputs.sent), ("received", goodputs.received)] {
            if let Some(goodput) = goodput {
                let [peer, slot, transport] = *link;
                let labels = [peer, slot, transport, direction];
                self.goodput.with_label_values(&labels).set(goodput);
            }
        }
        if let Some(udp) = path.udp {
            let window = i64::try_from(udp.congestion_window_bytes).unwrap_or(i64::MAX);
            self.sends.with_label_values(link).inc_by(udp.sends);
            self.congestion_window.with_label_values(link).set(window);
            self.mtu
                .with_label_values(link)
                .set(i64::from(udp.mtu_bytes));
        }
    }

    pub(super) fn parts(&self) -> [&dyn Collector; 8] {
        [
            &self.sent_packets,
            &self.lost_packets,
            &self.delivered,
            &self.filled,
            &self.goodput,
            &self.sends,
            &self.congestion_window,
            &self.mtu,
        ]
    }
}
