//! What goes on beside the connections: the core's timers, the links' states, the certificate's renewal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use corinth_core::{Action, Event};
use corinth_identity::OwnIdentity;
use corinth_model::{ClusterName, GatewayId};
use corinth_transport::{Link, LinkState, TransportKind};
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use tokio::time::{sleep, sleep_until};
use tracing::{info, warn};

use crate::shared::Shared;

/// A path that stays dead for this long ends the streams that are still on it.
const DEAD_MAX: Duration = Duration::from_secs(15);
/// A failed renewal is tried again after this long.
const RENEWAL_RETRY: Duration = Duration::from_secs(30);

/// Tells the core how the links are, and ends those whose path does not return.
pub(crate) async fn observe_links(shared: Arc<Shared>) {
    let mut changes = shared.transports.changes();
    let mut tables = shared.tables.subscribe();
    let mut dead_since: BTreeMap<(GatewayId, TransportKind), Instant> = BTreeMap::new();
    loop {
        let now = Instant::now();
        let links = shared.transports.links();
        close_denied(&shared, &links);
        dead_since.retain(|dead, _| links.iter().any(|link| named(link) == *dead));
        for link in &links {
            if *link.state().borrow() == LinkState::Dead {
                let since = *dead_since.entry(named(link)).or_insert(now);
                if now.duration_since(since) >= DEAD_MAX {
                    info!(gateway = %link.peer(), transport = %link.kind(), "the path stayed dead; its streams end");
                    link.close();
                }
            } else {
                dead_since.remove(&named(link));
            }
        }
        tell_core(&shared, &links, now);
        let next = dead_since.values().min().map(|since| *since + DEAD_MAX);
        let due = async {
            match next {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            // A peer may have linked itself before the tables named it.
            changed = tables.changed() => if changed.is_err() { return },
            () = due => {}
        }
    }
}

/// A gateway may be linked in two ways, of which one can die alone.
fn named(link: &Arc<dyn Link>) -> (GatewayId, TransportKind) {
    (link.peer().clone(), link.kind())
}

fn tell_core(shared: &Shared, links: &[Arc<dyn Link>], now: Instant) {
    let tables = Arc::clone(&shared.tables.borrow());
    for (cluster, peer) in &tables.peers {
        let states: BTreeSet<_> = links
            .iter()
            .filter(|link| link.peer().trust_domain == peer.trust_domain)
            .map(|link| rank(*link.state().borrow()))
            .collect();
        let state = match states.first() {
            Some(0) => corinth_core::LinkState::Up,
            Some(1) => corinth_core::LinkState::Draining,
            Some(_) | None => corinth_core::LinkState::Down,
        };
        tell_one(shared, cluster, state, now);
    }
}

fn tell_one(shared: &Shared, cluster: &ClusterName, state: corinth_core::LinkState, now: Instant) {
    let mut core = shared.core.lock();
    let is_news = core
        .links()
        .any(|(known, was)| known == cluster && was != state);
    if is_news {
        core.handle_link(cluster, state, now);
        drop(core);
        info!(peer = %cluster, ?state, "link state");
        shared.core_moved.notify_one();
    }
}

fn rank(state: LinkState) -> u8 {
    match state {
        LinkState::Up => 0,
        LinkState::Draining => 1,
        LinkState::Dead | LinkState::Closed => 2,
    }
}

/// Runs the core's timers, carries out its actions and tells its events.
pub(crate) async fn run_core(shared: Arc<Shared>) {
    loop {
        let timeout = {
            let mut core = shared.core.lock();
            core.handle_timeout(Instant::now());
            core.poll_timeout()
        };
        carry_out(&shared);
        let due = async {
            match timeout {
                Some((at, _)) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = shared.core_moved.notified() => {}
        }
    }
}

/// Links are dialled by configuration, and withdrawn streams end themselves when the tables change; what
/// is left of the core's actions is to end the links of those who are no longer peers.
pub(crate) fn carry_out(shared: &Shared) {
    loop {
        // The lock is held for each call only: closing a link takes other locks.
        let action = shared.core.lock().poll_action();
        match action {
            Some(Action::Drain { trust_domain, .. }) => {
                shared.transports.close_links_to(&trust_domain);
            }
            Some(Action::Dial { .. } | Action::Withdraw { .. }) => {}
            None => break,
        }
    }
    loop {
        let event = shared.core.lock().poll_event();
        match event {
            Some(Event::Ejected {
                route,
                target,
                strikes,
                ..
            }) => {
                warn!(%route, %target, strikes, "candidate ejected");
            }
            Some(Event::OnProbation { route, target, .. }) => {
                info!(%route, %target, "candidate on probation");
            }
            Some(Event::Returned { route, target, .. }) => {
                info!(%route, %target, "candidate back in service");
            }
            Some(Event::TableApplied { revision, .. }) => info!(revision, "tables applied"),
            Some(Event::LinkChanged { .. }) => {}
            None => break,
        }
    }
}

/// Ends the links of those who were denied. One may have come up while the denial was on its way.
pub(crate) fn close_denied(shared: &Shared, links: &[Arc<dyn Link>]) {
    for link in links {
        let is_closed = *link.state().borrow() == LinkState::Closed;
        if !is_closed && shared.denials.contains(&link.peer().spiffe_id()) {
            warn!(gateway = %link.peer(), "the gateway is denied; its link ends");
            link.close();
        }
    }
}

/// Renews our certificate at half its life, and when another root of our own took over; the one in use stays until the
/// new one is there.
pub(crate) async fn renew(own: Arc<OwnIdentity>, clock: Arc<dyn TimeProvider>) {
    /// The clock is looked at this often: it may be set while we wait.
    const LOOK: Duration = Duration::from_secs(60);
    loop {
        let Some(now) = clock.current_time() else {
            return;
        };
        follow(&own, now).await;
        let wait = own.next_renewal(now);
        if !wait.is_zero() {
            sleep(wait.min(LOOK)).await;
            continue;
        }
        match own.renew(now) {
            Ok(()) => info!(not_after = own.not_after().as_secs(), "certificate renewed"),
            Err(error) => {
                warn!(%error, "certificate not renewed; the one in use stays");
                sleep(RENEWAL_RETRY).await;
            }
        }
    }
}

/// Looks whether another root of our own took over. Without an answer the one of before issues.
async fn follow(own: &Arc<OwnIdentity>, now: UnixTime) {
    let own = Arc::clone(own);
    let looked = tokio::task::spawn_blocking(move || own.follow(now)).await;
    if let Ok(Err(error)) = looked {
        warn!(%error, "the state directory cannot be read; the root of before issues");
    }
}
