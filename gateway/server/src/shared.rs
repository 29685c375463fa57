//! What every connection of a gateway has at hand.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use corinth_core::{Core, Outcome, PermitId, Standing};
use corinth_daemon::drain::{Drain, Phase};
use corinth_identity::Denials;
use corinth_model::{ClusterName, Failure, GatewayId, Protocol, RouteName, Tables, Target};
use corinth_transport::{Link, LinkState, TransportKind};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::{
    control::ControlPlane,
    flow::{FlowQuota, Patience},
    limits::HalfOpen,
    record::Telemetry,
    steering::{Measured, Steered},
    terminate::Terminators,
    transports::{Transports, Wish},
};

/// What every connection of a gateway has at hand.
pub(crate) struct Shared {
    pub(crate) own: ClusterName,
    /// Decides. Locked for one call at a time, never over an await.
    pub(crate) core: Mutex<Core>,
    /// The tables in use, for those who must notice when something is withdrawn.
    pub(crate) tables: watch::Sender<Arc<Tables>>,
    pub(crate) transports: Transports,
    pub(crate) telemetry: Telemetry,
    pub(crate) half_open: Arc<HalfOpen>,
    pub(crate) flows: Arc<FlowQuota>,
    pub(crate) terminators: Terminators,
    pub(crate) drain: Drain,
    /// Who is no longer believed.
    pub(crate) denials: Denials,
    /// The control plane beside us, where there is one.
    pub(crate) control: Option<ControlPlane>,
    pub(crate) drain_limit_is_reached: AtomicBool,
    /// The core may have something to say: actions, events, a nearer timer.
    pub(crate) core_moved: Notify,
    times: RwLock<Times>,
    /// What is to carry streams to a cluster.
    carriers: RwLock<BTreeMap<ClusterName, Wish>>,
    /// What carries new streams to a gateway where that is left to us, and why; QUIC where nothing is known yet.
    pub(crate) steered: RwLock<BTreeMap<GatewayId, Steered>>,
    /// What carriers deliver and cost.
    pub(crate) measured: Measured,
}

/// Time limits of a connection's phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// Until a client has said what it wants: ClientHello, SOCKS or CONNECT request.
    pub(crate) request: Duration,
    /// TCP connect to an endpoint.
    pub(crate) connect: Duration,
    /// From an OPEN to its answer.
    pub(crate) open: Duration,
    /// Without a byte in either direction; `None` for no limit.
    pub(crate) idle: Option<Duration>,
    /// Without a datagram of a flow.
    pub(crate) flows: Patience,
}

impl Shared {
    pub(crate) fn new(
        core: Core,
        tables: Arc<Tables>,
        transports: Transports,
        telemetry: Telemetry,
        half_open: Arc<HalfOpen>,
        flows: Arc<FlowQuota>,
        terminators: Terminators,
        drain: Drain,
        times: Times,
        denials: Denials,
        control: Option<ControlPlane>,
    ) -> Self {
        Self {
            own: tables.own.clone(),
            core: Mutex::new(core),
            tables: watch::Sender::new(tables),
            transports,
            telemetry,
            half_open,
            flows,
            terminators,
            drain,
            denials,
            control,
            drain_limit_is_reached: AtomicBool::new(false),
            core_moved: Notify::new(),
            times: RwLock::new(times),
            carriers: RwLock::default(),
            steered: RwLock::default(),
            measured: Measured::default(),
        }
    }

    pub(crate) fn times(&self) -> Times {
        *self.times.read()
    }

    pub(crate) fn set_times(&self, times: Times) {
        *self.times.write() = times;
    }

    pub(crate) fn set_carriers(&self, carriers: BTreeMap<ClusterName, Wish>) {
        *self.carriers.write() = carriers;
    }

    /// Tells the core what became of an attempt. Where a standing moves, the keeper has a new time to wait for.
    pub(crate) fn report(
        &self,
        route: &RouteName,
        protocol: Protocol,
        target: &Target,
        outcome: Outcome,
    ) {
        let mut core = self.core.lock();
        let was_well = core.standing(route, protocol, target) == Standing::GOOD;
        core.report(route, protocol, target, outcome, Instant::now());
        let is_well = core.standing(route, protocol, target) == Standing::GOOD;
        drop(core);
        if !(was_well && is_well) {
            self.core_moved.notify_one();
        }
    }

    /// What is to carry streams to a cluster.
    pub(crate) fn wish(&self, cluster: &ClusterName) -> Wish {
        let wish = self.carriers.read().get(cluster).copied();
        wish.unwrap_or(Wish::Only(TransportKind::Tls))
    }

    /// Whether new streams go over this link while it lives.
    pub(crate) fn is_wanted(&self, wish: Wish, link: &dyn Link) -> bool {
        let wanted = match wish {
            Wish::Only(kind) => kind,
            Wish::Auto => self
                .steered
                .read()
                .get(link.peer())
                .map_or(TransportKind::Quic, |steered| steered.kind()),
        };
        link.kind() == wanted
    }

    /// The links to the gateways of a cluster, the best first: up before draining, then those of the transport that is
    /// wanted for it, then the least busy. What the peer has dialled in another way is better than nothing.
    pub(crate) fn links_to(&self, cluster: &ClusterName) -> Vec<Arc<dyn Link>> {
        let Some(trust_domain) = self
            .tables
            .borrow()
            .peers
            .get(cluster)
            .map(|peer| peer.trust_domain.clone())
        else {
            return Vec::new();
        };
        let wish = self.wish(cluster);
        let mut links: Vec<_> = self
            .transports
            .links_to(&trust_domain)
            .into_iter()
            .filter_map(|link| {
                let rank = match *link.state().borrow() {
                    LinkState::Up => 0,
                    LinkState::Draining => 1,
                    LinkState::Dead | LinkState::Closed => return None,
                };
                Some((
                    (
                        rank,
                        !self.is_wanted(wish, link.as_ref()),
                        link.stats().streams,
                    ),
                    link,
                ))
            })
            .collect();
        links.sort_by_key(|(order, _)| *order);
        links.into_iter().map(|(_, link)| link).collect()
    }

    /// Resolves when the second signal or the drain limit ends what is left; says which of the two.
    pub(crate) async fn terminated(&self) -> Failure {
        let mut phases = self.drain.subscribe();
        // The sender lives in `self`: changes never fail.
        while *phases.borrow_and_update() < Phase::Terminating && phases.changed().await.is_ok() {}
        self.termination()
    }

    /// What ended those who were still there at the end of the drain.
    pub(crate) fn termination(&self) -> Failure {
        if self.drain_limit_is_reached.load(Relaxed) {
            return Failure::DrainLimit;
        }
        Failure::Terminated
    }
}

/// Gives an admission's permit back when the stream has ended, however it ends.
pub(crate) struct PermitGuard<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) permit: PermitId,
}

impl Drop for PermitGuard<'_> {
    fn drop(&mut self) {
        self.shared.core.lock().release(self.permit, Instant::now());
    }
}
