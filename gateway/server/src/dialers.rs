//! Keeps links to every address of every peer: resolves, dials, dials again.
//!
//! A link that is dead is dialled again at once and then with growing gaps. Behind one address several
//! gateways of the peer may stand: while fewer are linked than the peer announces, the address is dialled
//! further, so that the load balancer in between hands out the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use corinth_daemon::ready::Pending;
use corinth_model::{ClusterName, TrustDomain};
use corinth_transport::{DialError, DialTarget, Link, LinkState, TransportKind};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{shared::Shared, transports::Wish};

/// The first gap between two dials; each further one is twice as long.
const GAP_MIN: Duration = Duration::from_millis(100);
/// The longest gap: a peer that returns is found within it.
const GAP_MAX: Duration = Duration::from_secs(2);
/// How long a gateway that starts waits for its first dials at most.
const FIRST_TRIES_MAX: Duration = Duration::from_secs(3);
/// TLS is dialled so much later than QUIC, where both are.
const HEAD_START: Duration = Duration::from_millis(250);
/// How often it is looked whether every worker has a connection of its own, while that brings some.
const WIDENING_GAP: Duration = Duration::from_secs(2);
/// And where it does not.
const WIDENING_GAP_MAX: Duration = Duration::from_secs(60);
/// While gateways of the peer are missing, the address is dialled again this often.
const FURTHER_GAP: Duration = Duration::from_millis(500);
/// Further dials in a row that brought no new gateway before we wait longer.
const FURTHER_MAX: u32 = 16;
/// How long we wait then.
const FURTHER_PAUSE: Duration = Duration::from_secs(30);

/// A peer to be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dialled {
    pub(crate) trust_domain: TrustDomain,
    /// In which way.
    pub(crate) by: Wish,
    /// `host:port`; names are resolved at each dial.
    pub(crate) addresses: Vec<String>,
}

/// Held by those who have not tried an address yet.
#[derive(Debug, Clone)]
struct Trying(#[expect(dead_code, reason = "held, and dropped")] mpsc::Sender<()>);

impl Trying {
    /// `pending` is done when all of it and its clones are dropped, or when that takes too long: a peer that answers
    /// nothing, or a resolver, must not keep the others waiting.
    fn until_all_have(pending: Pending) -> Self {
        let (trying, mut tried) = mpsc::channel(1);
        tokio::spawn(async move {
            // Either will do.
            let _ = timeout(FIRST_TRIES_MAX, tried.recv()).await;
            drop(pending);
        });
        Self(trying)
    }
}

/// The tasks that keep links.
#[derive(Default)]
pub(crate) struct Dialers {
    /// The gateway is not ready before the first peers were tried.
    first_tries: Option<Pending>,
    tasks: BTreeMap<ClusterName, (Dialled, JoinHandle<()>)>,
}

impl Dialers {
    /// Nobody yet. `first_tries` is done when each address of the first peers to be dialled was tried once, or some
    /// time later: who comes before that finds no link.
    pub(crate) fn new(first_tries: Pending) -> Self {
        Self {
            first_tries: Some(first_tries),
            tasks: BTreeMap::new(),
        }
    }

    /// Dials exactly these peers from now on; links of others are not touched here.
    pub(crate) fn set(&mut self, shared: &Arc<Shared>, wanted: BTreeMap<ClusterName, Dialled>) {
        self.tasks.retain(|cluster, (dialled, task)| {
            let stays = wanted.get(cluster) == Some(dialled);
            if !stays {
                task.abort();
            }
            stays
        });
        let first_tries = self.first_tries.take().map(Trying::until_all_have);
        for (cluster, dialled) in wanted {
            self.tasks.entry(cluster).or_insert_with_key(|cluster| {
                let shared = Arc::clone(shared);
                let task = keep(
                    shared,
                    cluster.clone(),
                    dialled.clone(),
                    first_tries.clone(),
                );
                (dialled, tokio::spawn(task))
            });
        }
    }
}

impl Drop for Dialers {
    fn drop(&mut self) {
        for (_, task) in self.tasks.values() {
            task.abort();
        }
    }
}

async fn keep(
    shared: Arc<Shared>,
    cluster: ClusterName,
    dialled: Dialled,
    first_tries: Option<Trying>,
) {
    let ways = match dialled.by {
        Wish::Only(kind) => vec![(kind, Duration::ZERO)],
        Wish::Auto => vec![
            (TransportKind::Quic, Duration::ZERO),
            (TransportKind::Tls, HEAD_START),
        ],
    };
    let mut addresses = FuturesUnordered::new();
    for (kind, head_start) in ways {
        for address in &dialled.addresses {
            let (domain, first_try) = (&dialled.trust_domain, first_tries.clone());
            let kept = keep_address(&shared, &cluster, domain, kind, address, first_try);
            addresses.push(async move {
                sleep(head_start).await;
                kept.await;
            });
        }
    }
    drop(first_tries);
    while addresses.next().await.is_some() {}
}

/// Keeps a link to whatever stands behind one configured address. Never ends.
async fn keep_address(
    shared: &Arc<Shared>,
    cluster: &ClusterName,
    trust_domain: &TrustDomain,
    kind: TransportKind,
    address: &str,
    first_try: Option<Trying>,
) {
    let mut first_try = first_try;
    let mut gap = GAP_MIN;
    let mut told = None;
    let mut held = FuturesUnordered::new();
    let mut holding: BTreeSet<SocketAddr> = BTreeSet::new();
    loop {
        match tokio::net::lookup_host(address).await {
            Ok(found) => {
                for found in found {
                    if holding.insert(found) {
                        held.push(hold(shared, trust_domain, kind, found, first_try.clone()));
                    }
                }
            }
            Err(error) => {
                let words = format!("{address}: {error}; does the name exist in DNS?");
                tell_once(&mut told, cluster, words);
            }
        }
        first_try = None;
        if let Some(Held { address, error }) = held.next().await {
            holding.remove(&address);
            match error {
                Some(error) => tell_once(&mut told, cluster, error.to_string()),
                None => {
                    (gap, told) = (GAP_MIN, None);
                    info!(peer = %cluster, %address, transport = %kind, "link lost; dialling again");
                    continue;
                }
            }
        }
        // Spread, so that gateways that lost one peer together do not return together.
        let pause = sleep(gap.mul_f64(0.75 + fastrand::f64() / 2.0));
        tokio::pin!(pause);
        // The links that stand are kept going meanwhile.
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(Held { address, .. }) = held.next() => {
                    holding.remove(&address);
                }
            }
        }
        gap = (gap * 2).min(GAP_MAX);
    }
}

/// The same trouble is told once, not at every dial.
fn tell_once(told: &mut Option<String>, cluster: &ClusterName, words: String) {
    if told.as_ref() != Some(&words) {
        warn!(peer = %cluster, reason = %words, "cannot link; dialling on");
        *told = Some(words);
    }
}

/// How holding a link at an address ended: by an error before it stood, or lost after.
struct Held {
    address: SocketAddr,
    error: Option<DialError>,
}

/// Dials one address and stays until its link is dead.
async fn hold(
    shared: &Arc<Shared>,
    trust_domain: &TrustDomain,
    kind: TransportKind,
    address: SocketAddr,
    first_try: Option<Trying>,
) -> Held {
    let target = DialTarget {
        address,
        trust_domain: trust_domain.clone(),
    };
    let link = match shared.transports.dial(kind, &target).await {
        Ok(link) => link,
        Err(error) => {
            return Held {
                address,
                error: Some(error),
            };
        }
    };
    drop(first_try);
    let stats = link.stats();
    info!(gateway = %link.peer(), %address, transport = %kind, rtt = ?stats.rtt, "link established");
    let mut state = link.state();
    let lost = state.wait_for(|state| matches!(state, LinkState::Dead | LinkState::Closed));
    tokio::select! {
        _ = lost => {}
        () = find_further(shared, &target, link.as_ref()) => {}
        () = keep_wide(shared, link.as_ref()) => {}
    }
    Held {
        address,
        error: None,
    }
}

/// Dials on while the peer announces more gateways than are linked. Never ends.
async fn find_further(shared: &Arc<Shared>, target: &DialTarget, link: &dyn Link) {
    let mut in_vain = 0;
    loop {
        let linked = live(shared, &target.trust_domain, link.kind());
        if linked >= usize::from(link.stats().announced_slots) {
            in_vain = 0;
            sleep(FURTHER_GAP * 4).await;
            continue;
        }
        // Its error tells nothing new: the link at this address stands.
        let _ = shared.transports.dial(link.kind(), target).await;
        in_vain = if live(shared, &target.trust_domain, link.kind()) > linked {
            0
        } else {
            in_vain + 1
        };
        sleep(if in_vain < FURTHER_MAX {
            FURTHER_GAP
        } else {
            FURTHER_PAUSE
        })
        .await;
    }
}

/// Sees to it that a link by QUIC has a connection for each worker. Never ends.
async fn keep_wide(shared: &Arc<Shared>, link: &dyn Link) {
    match link.kind() {
        TransportKind::Quic => {
            let mut gap = WIDENING_GAP;
            loop {
                let before = link.stats().connections;
                if *link.state().borrow() == LinkState::Up {
                    shared.transports.widen(link.peer()).await;
                }
                let now = link.stats().connections;
                // A peer that takes no more of them is not to be asked for ever.
                gap = if now > before {
                    WIDENING_GAP
                } else {
                    (gap * 2).min(WIDENING_GAP_MAX)
                };
                if timeout(gap, fewer(shared, link, now)).await.is_ok() {
                    // The link may stand on those of the peer now.
                    gap = WIDENING_GAP;
                    sleep(gap).await;
                }
            }
        }
        // Over TLS each stream has a connection to itself.
        TransportKind::Tls | TransportKind::Memory => std::future::pending().await,
    }
}

/// Resolves when a link has fewer connections than so many.
async fn fewer(shared: &Shared, link: &dyn Link, than: u32) {
    let mut changes = shared.transports.changes();
    while link.stats().connections >= than {
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn live(shared: &Shared, trust_domain: &TrustDomain, kind: TransportKind) -> usize {
    let mut links = shared.transports.links_to(trust_domain);
    links.retain(|link| link.kind() == kind);
    let is_live = |link: &&Arc<dyn Link>| {
        matches!(*link.state().borrow(), LinkState::Up | LinkState::Draining)
    };
    links.iter().filter(is_live).count()
}
