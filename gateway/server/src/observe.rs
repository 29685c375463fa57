//! What is read off at each scrape: links, standings, the certificate, those who have not proved themselves.

use std::sync::{Arc, Weak};

use corinth_core::Standing;
use corinth_daemon::metrics::{Metrics, MetricsError};
use corinth_identity::OwnIdentity;
use corinth_transport::{
    LinkState, PathStats,
    quic::{QuicTransport, SOCKET_BUFFER_BYTES},
};
use prometheus::{
    GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use rustls::pki_types::UnixTime;

use crate::shared::Shared;

/// Collects the state of one gateway.
struct Observed {
    shared: Weak<Shared>,
    own: Arc<OwnIdentity>,
    up: IntGaugeVec,
    rtt: GaugeVec,
    connections: IntGaugeVec,
    idle: IntGaugeVec,
    streams: IntGaugeVec,
    quic: Quic,
    standings: IntGaugeVec,
    routes: IntGauge,
    revision: IntGauge,
    half_open: IntGauge,
    expiry: IntGauge,
    expiring: IntGauge,
}

/// Registers what is read off a gateway at each scrape.
pub(crate) fn register(
    metrics: &Metrics,
    shared: &Arc<Shared>,
    own: &Arc<OwnIdentity>,
) -> Result<(), MetricsError> {
    let link = ["peer", "slot", "transport"];
    let ints =
        |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
    let observed = Observed {
        shared: Arc::downgrade(shared),
        own: Arc::clone(own),
        up: ints(
            "link_up",
            "1 while streams can be opened on the link.",
            &link,
        )?,
        rtt: GaugeVec::new(
            Opts::new(
                "link_smoothed_rtt_seconds",
                "Smoothed round trip of the liveness probes.",
            ),
            &link,
        )?,
        connections: ints("link_connections", "Tunnel connections of the link.", &link)?,
        idle: ints(
            "link_idle_connections",
            "Tunnel connections ready for a stream.",
            &link,
        )?,
        streams: ints(
            "link_streams_active",
            "Streams open on the link, by either side.",
            &link,
        )?,
        quic: Quic::new(&link)?,
        standings: ints(
            "candidates",
            "Candidates that are not plainly serving, by standing.",
            &["standing"],
        )?,
        routes: IntGauge::new("routes", "Routes in use.")?,
        revision: IntGauge::new("route_revision", "Revision of the tables in use.")?,
        half_open: IntGauge::new(
            "half_open_connections",
            "Connections to the tunnel port that have not proved who they are.",
        )?,
        expiry: IntGauge::new(
            "certificate_expiry_timestamp_seconds",
            "When our certificate expires; 0 while there is none.",
        )?,
        expiring: IntGauge::new(
            "certificate_expiring",
            "1 while less than a quarter of the life of our certificate is left.",
        )?,
    };
    metrics.register(Box::new(observed))
}

impl Observed {
    fn refresh(&self, shared: &Shared) {
        let links = [&self.up, &self.connections, &self.idle, &self.streams];
        links.into_iter().for_each(IntGaugeVec::reset);
        self.rtt.reset();
        self.quic.refresh(&shared.transports.quic);
        let tables = Arc::clone(&shared.tables.borrow());
        for link in shared.transports.links() {
            let Some(peer) = tables.cluster_of(&link.peer().trust_domain) else {
                continue;
            };
            let stats = link.stats();
            let labels = [
                peer.as_str(),
                link.peer().slot.as_str(),
                link.kind().as_str(),
            ];
            let is_up = matches!(*link.state().borrow(), LinkState::Up | LinkState::Draining);
            self.up.with_label_values(&labels).set(i64::from(is_up));
            self.connections
                .with_label_values(&labels)
                .set(i64::from(stats.connections));
            self.idle
                .with_label_values(&labels)
                .set(i64::from(stats.idle));
            self.streams
                .with_label_values(&labels)
                .set(i64::from(stats.streams));
            if let Some(rtt) = stats.rtt {
                self.rtt.with_label_values(&labels).set(rtt.as_secs_f64());
            }
            if let Some(path) = stats.path {
                self.quic.show(&labels, path);
            }
        }
        let (mut ejected, mut on_probation) = (0, 0);
        for (_, _, standing) in shared.core.lock().standings() {
            match standing {
                Standing::Serving { .. } => {}
                Standing::Ejected { .. } => ejected += 1,
                Standing::Probation { .. } => on_probation += 1,
            }
        }
        self.standings.with_label_values(&["ejected"]).set(ejected);
        self.standings
            .with_label_values(&["probation"])
            .set(on_probation);
        self.routes
            .set(i64::try_from(tables.routes.len()).unwrap_or(i64::MAX));
        self.revision
            .set(i64::try_from(tables.revision).unwrap_or(i64::MAX));
        self.half_open.set(i64::from(shared.half_open.open()));
        let expiry = self.own.not_after().as_secs();
        self.expiry.set(i64::try_from(expiry).unwrap_or(i64::MAX));
        let is_expiring = self.own.is_expiring(UnixTime::now());
        self.expiring.set(i64::from(is_expiring));
    }

    fn parts(&self) -> Vec<&dyn Collector> {
        let mut parts = self.quic.parts();
        parts.extend::<[&dyn Collector; 11]>([
            &self.up,
            &self.rtt,
            &self.connections,
            &self.idle,
            &self.streams,
            &self.standings,
            &self.routes,
            &self.revision,
            &self.half_open,
            &self.expiry,
            &self.expiring,
        ]);
        parts
    }
}

/// What only QUIC has to show.
struct Quic {
    sent_packets: IntCounterVec,
    lost_packets: IntCounterVec,
    sends: IntCounterVec,
    congestion_window: IntGaugeVec,
    mtu: IntGaugeVec,
    handshakes: IntCounterVec,
    handed_over: IntCounter,
    buffers: IntGaugeVec,
    buffers_asked: IntGauge,
}

impl Quic {
    fn new(link: &[&str]) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels)
        };
        Ok(Self {
            sent_packets: counters(
                "link_sent_packets_total",
                "Packets sent on the link since it began.",
                link,
            )?,
            lost_packets: counters(
                "link_lost_packets_total",
                "Packets sent on the link that counted as lost.",
                link,
            )?,
            sends: counters(
                "link_sends_total",
                "Batches in which packets were handed to the socket, which puts full ones together for the system.",
                link,
            )?,
            congestion_window: gauges(
                "link_congestion_window_bytes",
                "What may be on its way unacknowledged.",
                link,
            )?,
            mtu: gauges(
                "link_mtu_bytes",
                "The largest packet the path is known to take.",
                link,
            )?,
            handshakes: counters(
                "quic_handshakes_total",
                "Those who dialled us by QUIC, by what became of them.",
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
            buffers: gauges(
                "udp_buffer_bytes",
                "The smallest buffers that the system granted a UDP socket.",
                &["direction"],
            )?,
        })
    }

    /// What does not belong to a link. The links are shown one by one after it.
    fn refresh(&self, quic: &QuicTransport) {
        self.sent_packets.reset();
        self.lost_packets.reset();
        self.sends.reset();
        self.congestion_window.reset();
        self.mtu.reset();
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

    fn show(&self, link: &[&str; 3], path: PathStats) {
        let window = i64::try_from(path.congestion_window_bytes).unwrap_or(i64::MAX);
        self.sent_packets
            .with_label_values(link)
            .inc_by(path.sent_packets);
        self.lost_packets
            .with_label_values(link)
            .inc_by(path.lost_packets);
        self.sends.with_label_values(link).inc_by(path.sends);
        self.congestion_window.with_label_values(link).set(window);
        self.mtu
            .with_label_values(link)
            .set(i64::from(path.mtu_bytes));
    }

    fn parts(&self) -> Vec<&dyn Collector> {
        vec![
            &self.sent_packets,
            &self.lost_packets,
            &self.sends,
            &self.congestion_window,
            &self.mtu,
            &self.handshakes,
            &self.handed_over,
            &self.buffers,
            &self.buffers_asked,
        ]
    }
}

impl Collector for Observed {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if let Some(shared) = self.shared.upgrade() {
            self.refresh(&shared);
        }
        self.parts()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}
