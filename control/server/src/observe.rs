//! What is read off at each scrape: peers, consumers, tables, conditions.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use corinth_daemon::metrics::{IntGauge, IntGaugeVec, Metrics, MetricsError};
use corinth_model::Condition;
use prometheus::Opts;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use rustls_pki_types::UnixTime;

use crate::app::Shared;

/// Collects the state of one control plane.
struct Observed {
    shared: Weak<Shared>,
    connected: IntGaugeVec,
    offers: IntGaugeVec,
    consumers: IntGaugeVec,
    revision: IntGauge,
    routes: IntGauge,
    conditions: IntGaugeVec,
}

/// Registers what is read off a control plane at each scrape.
pub(crate) fn register(metrics: &Metrics, shared: &Arc<Shared>) -> Result<(), MetricsError> {
    let by =
        |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
    let observed = Observed {
        shared: Arc::downgrade(shared),
        connected: by(
            "control_peer_connected",
            "1 while the peer's control plane is connected.",
            &["peer"],
        )?,
        offers: by(
            "control_peer_offers",
            "Services of the peer that are usable here.",
            &["peer"],
        )?,
        consumers: by(
            "control_consumers",
            "Gateways and redirectors that follow the tables, by whether they hold the newest.",
            &["is_current"],
        )?,
        revision: IntGauge::new("control_tables_revision", "Revision of the tables.")?,
        routes: IntGauge::new("control_routes", "Service ports that can be called.")?,
        conditions: by(
            "control_conditions",
            "Conditions that stand, by code.",
            &["code"],
        )?,
    };
    metrics.register(Box::new(observed))
}

impl Observed {
    fn look(&self, shared: &Shared) {
        let revision = shared.look(|plane| {
            self.connected.reset();
            self.offers.reset();
            for (cluster, peer) in plane.peers() {
                let peer_label = [cluster.as_str()];
                self.connected
                    .with_label_values(&peer_label)
                    .set(peer.has_session().into());
                self.offers
                    .with_label_values(&peer_label)
                    .set(count(peer.relation.offers().count()));
            }
            let mut by_code: BTreeMap<&str, i64> = BTreeMap::new();
            for (condition, ..) in plane.conditions().iter() {
                *by_code.entry(condition.code()).or_default() += 1;
            }
            let expiring = shared.signing.issued().expiring(UnixTime::now()).count();
            if expiring > 0 {
                by_code.insert(Condition::CertificateExpiring.code(), count(expiring));
            }
            self.conditions.reset();
            for (code, standing) in by_code {
                self.conditions.with_label_values(&[code]).set(standing);
            }
            self.routes
                .set(count(plane.routes().map(|(_, routes)| routes.len()).sum()));
            plane.tables().revision()
        });
        self.revision
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
        let seen = shared.consumers.seen();
        let current = seen.iter().filter(|one| one.applied == revision).count();
        self.consumers
            .with_label_values(&["true"])
            .set(count(current));
        self.consumers
            .with_label_values(&["false"])
            .set(count(seen.len() - current));
    }

    fn each(&self) -> [&dyn Collector; 6] {
        [
            &self.connected,
            &self.offers,
            &self.consumers,
            &self.revision,
            &self.routes,
            &self.conditions,
        ]
    }
}

impl Collector for Observed {
    fn desc(&self) -> Vec<&Desc> {
        self.each().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // A control plane that has ended has nothing to say.
        let Some(shared) = self.shared.upgrade() else {
            return Vec::new();
        };
        self.look(&shared);
        self.each()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
