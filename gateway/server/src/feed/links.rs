//! Tells the control plane how the links are, whenever that changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use corinth_api::{LINKS_MAX, LinkReport, LinkState, Report};
use corinth_transport as transport;
use tokio::{sync::mpsc, time::sleep};

use crate::shared::Shared;

/// Links that come up or go down together are told together.
const SETTLE: Duration = Duration::from_millis(100);

/// Tells now, and again after each change. Ends when nobody listens.
pub(super) async fn tell(shared: Arc<Shared>, reports: mpsc::Sender<Report>) {
    let mut changes = shared.transports.changes();
    let mut tables = shared.tables.subscribe();
    let mut told = None;
    loop {
        changes.mark_seen();
        tables.borrow_and_update();
        let links = links(&shared);
        let news = states(&links);
        if told.as_ref() != Some(&news) {
            if reports.send(Report::Links(links)).await.is_err() {
                return;
            }
            told = Some(news);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = tables.changed() => if changed.is_err() { return },
        }
        sleep(SETTLE).await;
    }
}

/// What makes a report news; a round-trip time never does.
fn states(links: &[LinkReport]) -> Vec<LinkReport> {
    let without_rtt = |link: &LinkReport| LinkReport {
        rtt: None,
        ..link.clone()
    };
    links.iter().map(without_rtt).collect()
}

fn links(shared: &Shared) -> Vec<LinkReport> {
    let tables = Arc::clone(&shared.tables.borrow());
    let down = tables.peers.keys().take(LINKS_MAX).map(|cluster| {
        let report = LinkReport {
            cluster: cluster.clone(),
            state: LinkState::Down,
            rtt: None,
            slots: Vec::new(),
        };
        (cluster, report)
    });
    let mut reports: BTreeMap<_, _> = down.collect();
    for link in shared.transports.links() {
        let state = match *link.state().borrow() {
            transport::LinkState::Up => LinkState::Up,
            transport::LinkState::Draining => LinkState::Draining,
            transport::LinkState::Dead | transport::LinkState::Closed => continue,
        };
        let report = tables
            .cluster_of(&link.peer().trust_domain)
            .and_then(|cluster| reports.get_mut(cluster));
        if let Some(report) = report {
            report.state = report.state.min(state);
            report.rtt = report.rtt.into_iter().chain(link.stats().rtt).min();
            report.slots.push(link.peer().slot.clone());
        }
    }
    for report in reports.values_mut() {
        report.slots.sort();
        // A gateway may be linked in two ways.
        report.slots.dedup();
        report.slots.truncate(LINKS_MAX);
    }
    reports.into_values().collect()
}
