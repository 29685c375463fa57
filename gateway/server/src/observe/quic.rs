//! What QUIC has to show that belongs to no link.

use corinth_transport::quic::{QuicTransport, SOCKET_BUFFER_BYTES};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, core::Collector};

/// What QUIC has to show that belongs to no link.
pub(super) struct Quic {
    handshakes: IntCounterVec,
    handed_over: IntCounter,
    buffers: IntGaugeVec,
    buffers_asked: IntGauge,
}

impl Quic {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            handshakes: IntCounterVec::new(
                Opts::new(
                    "quic_handshakes_total",
                    "Those who dialled us by QUIC, by what became of them.",
                ),
                &["outcome"],
            )?,
            handed_over: IntCounter::new(
                "quic_handed_over_total",
                "Packets, or batches of them, that came to another worker than their connection is on.",
            )?,
            buffers_asked: IntGauge::new(
                "udp_buffer_asked_bytes",
                "What the system is asked for, for each buffer of a UDP socket.",
            )?,
            buffers: IntGaugeVec::new(
                Opts::new(
                    "udp_buffer_bytes",
                    "The smallest buffers that the system granted a UDP socket.",
                ),
                &["direction"],
            )?,
        })
    }

    pub(super) fn refresh(&self, quic: &QuicTransport) {
        self.handshakes.reset();
        let handshakes = quic.handshakes();
        for (outcome, count) in [
            ("accepted", handshakes.accepted),
            ("failed", handshakes.failed),
            ("retried", handshakes.retried),
            ("refused", handshakes.refused),
            ("ignored", handshakes.ignored),
        ] {
            self.handshakes.with_label_values(&[outcome]).inc_by(count);
        }
        self.handed_over.reset();
        self.handed_over.inc_by(quic.handed_over());
        self.buffers_asked
            .set(i64::try_from(SOCKET_BUFFER_BYTES).unwrap_or(i64::MAX));
        if let Some(granted) = quic.granted() {
            for (direction, bytes) in [
                ("receive", granted.receive_bytes),
                ("send", granted.send_bytes),
            ] {
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                self.buffers.with_label_values(&[direction]).set(bytes);
            }
        }
    }

    pub(super) fn parts(&self) -> Vec<&dyn Collector> {
        vec![
            &self.handshakes,
            &self.handed_over,
            &self.buffers,
            &self.buffers_asked,
        ]
    }
}
