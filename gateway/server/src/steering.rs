//! Tells the core's [`Carriers`] how the links of each gateway are and what they deliver, and carries out what follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use corinth_core::{
    Carrier, CarrierChange, Carriers, Costs, Delivered, Direction, Losses, Moved, Pulse,
};
use corinth_model::{ClusterName, GatewayId, TrustDomain};
use corinth_transport::{Link, LinkState, PathStats, TransportKind};
use parking_lot::RwLock;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep_until;
use tracing::info;

use crate::{shared::Shared, transports::Wish};

/// Between two looks at losses, round trips and what was delivered.
const LOOK: Duration = Duration::from_millis(250);

/// What carries new streams to one gateway, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steered {
    pub(crate) change: CarrierChange,
    pub(crate) at: Instant,
}

impl Steered {
    pub(crate) fn kind(self) -> TransportKind {
        kind(self.change.to)
    }
}

/// What carriers deliver and cost, as the last look found it.
#[derive(Default)]
pub(crate) struct Measured {
    goodputs: RwLock<BTreeMap<(GatewayId, TransportKind), Goodputs>>,
    costs: RwLock<Costs>,
}

/// What a link delivered of late when it was given more than it took, in bytes per second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Goodputs {
    pub(crate) sent: Option<f64>,
    pub(crate) received: Option<f64>,
}

impl Measured {
    /// What a link delivered of late when it was given more than it took.
    pub(crate) fn goodputs(&self, gateway: &GatewayId, kind: TransportKind) -> Goodputs {
        let goodputs = self.goodputs.read();
        let known = goodputs.get(&(gateway.clone(), kind)).copied();
        known.unwrap_or_default()
    }

    /// What the carriers take of the processors.
    pub(crate) fn costs(&self) -> Costs {
        *self.costs.read()
    }
}

/// One gateway of a peer that may be reached in two ways.
struct Steering {
    carriers: Carriers,
    /// What QUIC and TLS had done at the last look.
    seen: [PathStats; 2],
}

/// Chooses between the carriers of every gateway, as long as the gateway lives.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut changes = shared.transports.changes();
    let mut gateways: BTreeMap<GatewayId, Steering> = BTreeMap::new();
    let mut look_at = Instant::now() + LOOK;
    let mut processors = processors();
    loop {
        changes.mark_seen();
        let now = Instant::now();
        let is_look = now >= look_at;
        if is_look {
            look_at = now + LOOK;
        }
        let mut due = look_at;
        let links = shared.transports.links();
        let seen: BTreeSet<&GatewayId> = links.iter().map(|link| link.peer()).collect();
        gateways.retain(|gateway, _| seen.contains(gateway));
        shared
            .steered
            .write()
            .retain(|gateway, _| seen.contains(gateway));
        // By QUIC and TLS, to and from everybody.
        let mut moved_bytes = [0; 2];
        for gateway in seen {
            let steering = gateways.entry(gateway.clone()).or_insert_with(|| Steering {
                carriers: Carriers::new(now),
                seen: [PathStats::default(); 2],
            });
            steering.tell_pulses(&links, gateway, now);
            if is_look {
                let moved = steering.look(&links, gateway, now);
                moved_bytes = [moved_bytes[0] + moved[0], moved_bytes[1] + moved[1]];
                steering.show(&shared.measured, gateway, now);
            }
            let cluster = steered_cluster(&shared, &gateway.trust_domain);
            steering.carry_out(&shared, cluster.as_ref(), &links, gateway, now);
            if cluster.is_some() {
                due = steering.due(&links, gateway, due);
            }
        }
        if is_look {
            let mut goodputs = shared.measured.goodputs.write();
            goodputs.retain(|(gateway, _), _| gateways.contains_key(gateway));
            drop(goodputs);
            let taken = self::processors();
            let since = taken.saturating_sub(std::mem::replace(&mut processors, taken));
            let [quic_bytes, tls_bytes] = moved_bytes;
            let mut costs = shared.measured.costs.write();
            costs.handle_look(since, quic_bytes, tls_bytes);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep_until(due.into()) => {}
        }
    }
}

impl Steering {
    /// Tells the carriers how the links are now.
    fn tell_pulses(&mut self, links: &[Arc<dyn Link>], gateway: &GatewayId, now: Instant) {
        let carriers = &mut self.carriers;
        for carrier in [Carrier::Quic, Carrier::Tls] {
            let link = find(links, gateway, carrier);
            let pulse = link.map_or(Pulse::Gone, |link| pulse(link.as_ref()));
            carriers.handle_pulse(carrier, pulse, now);
        }
        carriers.handle_timeout(now);
    }

    /// Tells the carriers what the links have done since the look before. Returns how many bytes QUIC and TLS have moved.
    fn look(&mut self, links: &[Arc<dyn Link>], gateway: &GatewayId, now: Instant) -> [u64; 2] {
        let stats = [Carrier::Quic, Carrier::Tls]
            .map(|carrier| find(links, gateway, carrier).map(|link| link.stats()));
        if let Some(rtt) = stats.iter().flatten().filter_map(|stats| stats.rtt).min() {
            self.carriers.handle_round_trip(rtt, now);
        }
        let paths = stats.map(|stats| stats.and_then(|stats| stats.path).unwrap_or_default());
        let before = std::mem::replace(&mut self.seen, paths);
        let [quic, tls] = [0, 1].map(|at| since(&before[at], &paths[at]));
        self.carriers.handle_losses(quic.losses, now);
        self.carriers.handle_moved(quic.moved, tls.moved, now);
        [quic.moved, tls.moved].map(|moved| moved.sent.bytes + moved.received.bytes)
    }

    /// Lets others see what was measured.
    fn show(&self, measured: &Measured, gateway: &GatewayId, now: Instant) {
        let mut goodputs = measured.goodputs.write();
        for carrier in [Carrier::Quic, Carrier::Tls] {
            let goodput = |direction| self.carriers.goodput(carrier, direction, now);
            let known = Goodputs {
                sent: goodput(Direction::Sent),
                received: goodput(Direction::Received),
            };
            goodputs.insert((gateway.clone(), kind(carrier)), known);
        }
    }

    /// Lets sessions know what has changed, and ends streams for which nothing can be done.
    fn carry_out(
        &mut self,
        shared: &Shared,
        cluster: Option<&ClusterName>,
        links: &[Arc<dyn Link>],
        gateway: &GatewayId,
        now: Instant,
    ) {
        while let Some(change) = self.carriers.poll_change() {
            let steered = Steered { change, at: now };
            shared.steered.write().insert(gateway.clone(), steered);
            if let Some(cluster) = cluster {
                let CarrierChange { to, cause } = change;
                info!(%gateway, transport = %to, %cause, "new streams go another way");
                shared.telemetry.carrier_changed(cluster, gateway, change);
            }
        }
        for carrier in [Carrier::Quic, Carrier::Tls] {
            let is_over = self
                .carriers
                .gives_up_at(carrier)
                .is_some_and(|at| at <= now);
            if let Some(link) =
                find(links, gateway, carrier).filter(|_| cluster.is_some() && is_over)
            {
                info!(%gateway, transport = %carrier, "the path stayed dead; its streams end");
                link.close();
            }
        }
    }

    /// The next time something is to be done, at the latest `due`.
    fn due(&self, links: &[Arc<dyn Link>], gateway: &GatewayId, due: Instant) -> Instant {
        // What is not linked is given up already.
        let gives_up = [Carrier::Quic, Carrier::Tls]
            .into_iter()
            .filter(|carrier| find(links, gateway, *carrier).is_some())
            .map(|carrier| self.carriers.gives_up_at(carrier));
        let times = gives_up.chain([self.carriers.poll_timeout()]);
        times.flatten().fold(due, Instant::min)
    }
}

/// What passed between two looks.
struct Passed {
    losses: Losses,
    moved: Moved,
}

/// What passed from `before` to `now`. A link that was made anew counts from nothing, and passed nothing as far as is known.
fn since(before: &PathStats, now: &PathStats) -> Passed {
    let passed = |count: fn(&PathStats) -> u64| count(now).saturating_sub(count(before));
    Passed {
        losses: Losses {
            sent_packets: passed(|path| path.sent_packets),
            lost_packets: passed(|path| path.lost_packets),
        },
        moved: Moved {
            sent: Delivered {
                bytes: passed(|path| path.delivered_bytes),
                filled_bytes: passed(|path| path.filled_bytes),
            },
            received: Delivered {
                bytes: passed(|path| path.received_bytes),
                filled_bytes: passed(|path| path.received_filled_bytes),
            },
        },
    }
}

/// What this process has taken of the processors until now.
fn processors() -> Duration {
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        taken.tv_sec.try_into().unwrap_or(0),
        taken.tv_nsec.try_into().unwrap_or(0),
    )
}

/// The cluster of this trust domain, if it is left to us how it is reached.
fn steered_cluster(shared: &Shared, trust_domain: &TrustDomain) -> Option<ClusterName> {
    let cluster = shared.tables.borrow().cluster_of(trust_domain).cloned();
    cluster.filter(|cluster| shared.wish(cluster) == Wish::Auto)
}

fn find<'a>(
    links: &'a [Arc<dyn Link>],
    gateway: &GatewayId,
    carrier: Carrier,
) -> Option<&'a Arc<dyn Link>> {
    let is_meant = |link: &&Arc<dyn Link>| link.kind() == kind(carrier) && link.peer() == gateway;
    links.iter().find(is_meant)
}

/// What the transports call it.
pub(crate) fn kind(carrier: Carrier) -> TransportKind {
    match carrier {
        Carrier::Quic => TransportKind::Quic,
        Carrier::Tls => TransportKind::Tls,
    }
}

fn pulse(link: &dyn Link) -> Pulse {
    // What is borrowed is let go before the link is asked again, see `Link::state`.
    let state = *link.state().borrow();
    match state {
        LinkState::Up | LinkState::Draining if link.stats().is_overdue => Pulse::Overdue,
        LinkState::Up | LinkState::Draining => Pulse::Steady,
        LinkState::Dead | LinkState::Closed => Pulse::Gone,
    }
}

#[cfg(test)]
mod tests {
    use corinth_api::StreamOpen;
    use corinth_model::Slot;
    use corinth_transport::{LinkStats, OpenError, Stream};
    use futures_util::future::BoxFuture;
    use tokio::sync::watch;

    use super::*;

    /// Dies when it is asked how it is.
    struct Dying {
        peer: GatewayId,
        state: watch::Sender<LinkState>,
    }

    impl Link for Dying {
        fn peer(&self) -> &GatewayId {
            &self.peer
        }

        fn kind(&self) -> TransportKind {
            TransportKind::Quic
        }

        fn open<'a>(&'a self, _: &'a StreamOpen) -> BoxFuture<'a, Result<Stream, OpenError>> {
            Box::pin(async { Err(OpenError::PathDead) })
        }

        fn state(&self) -> watch::Receiver<LinkState> {
            self.state.subscribe()
        }

        fn suspect(&self) {}

        fn stats(&self) -> LinkStats {
            self.state.send_replace(LinkState::Dead);
            LinkStats::default()
        }

        fn drain(&self) {}

        fn close(&self) {}
    }

    #[test]
    fn a_link_may_change_while_it_is_looked_at() {
        let link = Dying {
            peer: GatewayId {
                trust_domain: TrustDomain::parse("west.test").unwrap(),
                slot: Slot::parse("0").unwrap(),
            },
            state: watch::Sender::new(LinkState::Up),
        };
        assert_eq!(pulse(&link), Pulse::Steady);
        assert_eq!(pulse(&link), Pulse::Gone);
    }
}
