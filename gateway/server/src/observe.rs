//! What is read off at each scrape: links, standings, the certificate, those who have not proved themselves.

use std::sync::{Arc, Weak};

use corinth_core::{Carrier, Standing};
use corinth_daemon::metrics::{Metrics, MetricsError};
use corinth_identity::OwnIdentity;
use corinth_transport::LinkState;
use prometheus::{
    GaugeVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use rustls::pki_types::UnixTime;

use self::{path::Path, quic::Quic};
use crate::shared::Shared;

mod path;
mod quic;

/// Collects the state of one gateway.
struct Observed {
    shared: Weak<Shared>,
    own: Arc<OwnIdentity>,
    up: IntGaugeVec,
    rtt: GaugeVec,
    connections: IntGaugeVec,
    idle: IntGaugeVec,
    streams: IntGaugeVec,
    path: Path,
    quic: Quic,
    costs: GaugeVec,
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
        path: Path::new(&link)?,
        quic: Quic::new()?,
        costs: GaugeVec::new(
            Opts::new(
                "carrier_cpu_seconds_per_byte",
                "What the process takes of the processors for each byte that comes or goes by a transport.",
            ),
            &["transport"],
        )?,
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
        self.path.reset();
        self.quic.refresh(&shared.transports.quic);
        let costs = shared.measured.costs();
        for carrier in [Carrier::Quic, Carrier::Tls] {
            if let Some(cost) = costs.seconds_per_byte(carrier) {
                self.costs.with_label_values(&[carrier.as_str()]).set(cost);
            }
        }
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
                let goodputs = shared.measured.goodputs(link.peer(), link.kind());
                self.path.show(&labels, path, goodputs);
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
        parts.extend(self.path.parts());
        parts.extend::<[&dyn Collector; 12]>([
            &self.costs,
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
