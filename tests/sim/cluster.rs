//! A cluster: what its operator declares, and a relation with each peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use corinth_api::peering::{Message, State};
use corinth_control::peering::{Freshness, Limits, Relation, SavedRelation, SessionSummary};
use corinth_model::{
    Accepted, AddressSource, ClusterName, Endpoint, Instance, Locality, Offer, Offered,
    OfferedPort, OwnPort, OwnService, PortNumber, Protocol, Replay, Route, ServiceId, ServiceKind,
    Version, merge,
};
use fastrand::Rng;

use crate::time::Time;
use crate::watch::Watch;

/// A service as it is declared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Declared {
    pub(crate) ready: u32,
    pub(crate) tls: bool,
    pub(crate) replay: Replay,
    pub(crate) port: u16,
    pub(crate) export: Option<Export>,
}

/// To whom a service is offered, and since when by the clock of its cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Export {
    /// `None` for everybody.
    pub(crate) to: Option<BTreeSet<usize>>,
    pub(crate) since_ms: u64,
}

/// What a peer is used for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Active,
    Draining,
    Paused,
}

/// With what the next process starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Restart {
    /// With what was written down.
    Kept,
    /// With a copy of some time ago, if there is one.
    Backup,
    /// With nothing.
    Nothing,
}

/// A cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) index: usize,
    pub(crate) name: ClusterName,
    pub(crate) is_liar: bool,
    pub(crate) is_running: bool,
    /// Writes its state down some time later, and loses what it had not when it crashes.
    pub(crate) is_lazy: bool,
    pub(crate) version: Version,
    pub(crate) skew_ms: i64,
    pub(crate) services: BTreeMap<ServiceId, Declared>,
    pub(crate) peers: BTreeMap<usize, Peer>,
    pub(crate) routes: BTreeMap<ServiceId, Vec<Route>>,
    /// A copy of the state directory.
    pub(crate) backup: Option<Backup>,
    pub(crate) restart: Restart,
}

/// One side of a link.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: ClusterName,
    pub(crate) relation: Relation,
    pub(crate) accepted: Accepted,
    pub(crate) quota: usize,
    pub(crate) mode: Mode,
    pub(crate) dials: bool,
    pub(crate) dial_at: Option<Time>,
    pub(crate) timer_at: Option<Time>,
    /// What is on disk.
    saved: Saved,
    past: Past,
    pub(crate) watch: Watch,
}

/// What one relation has written down.
#[derive(Debug, Clone, Default)]
struct Saved {
    bytes: Vec<u8>,
    past: Vec<RangeInclusive<Version>>,
}

/// Which versions of its instance a cluster knows that it told a peer, counted apart from what the relation itself does.
#[derive(Debug, Default)]
struct Past {
    /// Those of the processes before, as far as they had written them down.
    before: Vec<RangeInclusive<Version>>,
    /// The first one of this process.
    since: Version,
}

/// Of one moment.
#[derive(Debug, Clone)]
pub(crate) struct Backup {
    epoch: u64,
    saved: BTreeMap<usize, Saved>,
}

pub(crate) fn cluster_name(index: usize) -> ClusterName {
    ClusterName::parse(&format!("c{index:02}")).expect("a label")
}

pub(crate) fn instance(rng: &mut Rng) -> Instance {
    Instance(rng.u128(..).to_be_bytes())
}

impl Cluster {
    pub(crate) fn new(index: usize, is_liar: bool, rng: &mut Rng) -> Self {
        Self {
            index,
            name: cluster_name(index),
            is_liar,
            is_running: true,
            is_lazy: rng.u8(..8) == 0,
            version: Version {
                epoch: 1,
                revision: 0,
            },
            skew_ms: rng.i64(-100_000..100_000),
            services: BTreeMap::new(),
            peers: BTreeMap::new(),
            routes: BTreeMap::new(),
            backup: None,
            restart: Restart::Kept,
        }
    }

    pub(crate) fn unix_ms(&self, now: Time) -> u64 {
        let passed_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX / 2);
        (1_800_000_000_000 + passed_ms + self.skew_ms)
            .max(0)
            .unsigned_abs()
    }

    /// Makes a link here.
    pub(crate) fn link(&mut self, other: usize, accepted: Accepted, quota: usize, now: Time) {
        let name = cluster_name(other);
        let limits = Limits { quota };
        let relation = Relation::new(self.name.clone(), name.clone(), limits, now.instant());
        let peer = Peer {
            name,
            relation,
            accepted,
            quota,
            mode: Mode::Active,
            dials: true,
            dial_at: Some(now),
            timer_at: None,
            saved: Saved::default(),
            past: Past::default(),
            watch: Watch::default(),
        };
        self.peers.insert(other, peer);
    }

    /// Says everything to a relation that a process says to it when it starts.
    pub(crate) fn begin(&mut self, other: usize, now: Time, rng: &mut Rng) {
        let offers = self.offers_to(other);
        let (version, unix_ms) = (self.version, self.unix_ms(now));
        let peer = self.peers.get_mut(&other).expect("a peer");
        let relation = &mut peer.relation;
        // The instance is that of what is told to this peer, as it was written down.
        let known = relation.own_state().map(|state| state.instance);
        let instance = known.unwrap_or_else(|| instance(rng));
        relation.set_own_state(instance, version);
        peer.past.since = version_of(relation);
        relation.set_offers(offers, version, unix_ms);
        relation.set_accepted(peer.accepted.clone(), peer.quota);
        relation.set_trust(1, [self.name.to_string().into_bytes()].into());
        relation.set_gateways(["gw:15443".to_owned()].into(), 2);
        peer.watch.accept(&peer.relation, &peer.accepted);
    }

    /// Writes down what is to outlive the process.
    pub(crate) fn save(&mut self, other: usize, now: Time) {
        if let Some(peer) = self.peers.get_mut(&other).filter(|_| self.is_running)
            && peer.relation.take_dirty()
        {
            let told = peer.past.since..=version_of(&peer.relation);
            let before = peer.past.before.iter().cloned();
            peer.saved = Saved {
                bytes: peer.relation.saved(now.instant()).to_bytes(),
                past: before.chain([told]).collect(),
            };
        }
    }

    /// Everything is on disk, if that is so at any time.
    pub(crate) fn save_if_diligent(&mut self, now: Time) {
        if self.is_lazy {
            return;
        }
        let others: Vec<usize> = self.peers.keys().copied().collect();
        for other in others {
            self.save(other, now);
        }
    }

    /// Copies what is on disk.
    pub(crate) fn take_backup(&mut self, now: Time) {
        self.save_if_diligent(now);
        self.backup = Some(Backup {
            epoch: self.version.epoch,
            saved: self.saved(),
        });
    }

    fn saved(&self) -> BTreeMap<usize, Saved> {
        let peers = self.peers.iter();
        peers
            .map(|(other, peer)| (*other, peer.saved.clone()))
            .collect()
    }

    /// Another process starts.
    pub(crate) fn start(&mut self, now: Time, rng: &mut Rng) {
        if self.restart == Restart::Nothing {
            let peers = self.peers.values_mut();
            peers.for_each(|peer| peer.saved = Saved::default());
            self.backup = None;
            self.version.epoch = 0;
        }
        let backup = self.backup.clone();
        let backup = backup.filter(|_| self.restart == Restart::Backup);
        let must_keep = self.restart == Restart::Kept && !self.is_lazy;
        let backup = backup.unwrap_or_else(|| Backup {
            epoch: self.version.epoch,
            saved: self.saved(),
        });
        self.version = Version {
            epoch: backup.epoch + 1,
            revision: 0,
        };
        let others: Vec<usize> = self.peers.keys().copied().collect();
        for other in others {
            let own = self.name.clone();
            let peer = self.peers.get_mut(&other).expect("a peer");
            let saved = backup.saved.get(&other);
            let saved = saved.filter(|saved| !saved.bytes.is_empty());
            let limits = Limits { quota: peer.quota };
            let before = peer.watch.names();
            peer.past.before = saved.map(|saved| saved.past.clone()).unwrap_or_default();
            peer.relation = match saved {
                Some(saved) => {
                    let saved =
                        SavedRelation::parse(&saved.bytes).expect("what was written is read");
                    Relation::restore(saved, own, peer.name.clone(), limits, now.instant())
                        .expect("what was saved can be used")
                }
                None => Relation::new(own, peer.name.clone(), limits, now.instant()),
            };
            peer.watch = Watch::new(&peer.relation);
            if must_keep {
                assert_eq!(before, peer.watch.names(), "a restart changes nothing");
            }
            (peer.dial_at, peer.timer_at) = (Some(now), None);
            self.begin(other, now, rng);
        }
    }

    /// What this peer may use.
    pub(crate) fn offers_to(&self, other: usize) -> BTreeMap<ServiceId, Arc<Offer>> {
        let services = self.services.iter().filter_map(|(service, declared)| {
            let offer = declared.offer(service, other)?;
            Some((service.clone(), Arc::new(offer)))
        });
        services.collect()
    }

    /// The routes of one service follow anew.
    pub(crate) fn route(&mut self, service: &ServiceId) {
        let routes = self.merged(service);
        if routes.is_empty() {
            self.routes.remove(service);
        } else {
            self.routes.insert(service.clone(), routes);
        }
    }

    pub(crate) fn merged(&self, service: &ServiceId) -> Vec<Route> {
        let own = self.services.get(service);
        let own = own.map(|declared| declared.own(self.index));
        let peers = self.peers.values().filter(|peer| peer.mode != Mode::Paused);
        let peers = peers.filter_map(|peer| {
            let (offer, freshness) = peer.relation.offer(service)?;
            let is_last = freshness != Freshness::Fresh || peer.mode == Mode::Draining;
            Some((peer.name.clone(), Offered { offer, is_last }))
        });
        let peers = peers.collect();
        merge(&self.name, service, own.as_ref(), &peers, &BTreeMap::new()).routes
    }
}

impl Peer {
    /// A new instance of what is told to this peer begins.
    pub(crate) fn begin_instance(&mut self, instance: Instance, version: Version) {
        self.relation.set_own_state(instance, version);
        self.past = Past {
            before: Vec::new(),
            since: version_of(&self.relation),
        };
    }

    /// What the peer says by its greeting that it holds, if it was told so by a past of ours that we have lost.
    pub(crate) fn lost_by(&self, message: &Message, current: SessionSummary) -> Option<State> {
        let Message::Hello(hello) = message else {
            return None;
        };
        let counts = !current.is_greeted && hello.cluster == self.name && hello.is_compatible();
        let held = hello.held.filter(|_| counts);
        held.filter(|held| self.has_lost(held))
    }

    /// Only another instance leaves a lost past behind.
    pub(crate) fn check_begun_anew(&self, lost: &State) {
        let own = self.relation.own_state();
        assert!(
            own.is_some_and(|own| own.instance != lost.instance),
            "{} holds the lost {lost:?}, and no new instance begins",
            self.name
        );
    }

    fn has_lost(&self, held: &State) -> bool {
        let own = self.relation.own_state();
        let Some(own) = own.filter(|own| own.instance == held.instance) else {
            return false;
        };
        let told = self.past.since..=own.version;
        let mut known = self.past.before.iter().chain([&told]);
        held.version != Version::default() && !known.any(|known| known.contains(&held.version))
    }
}

fn version_of(relation: &Relation) -> Version {
    let own = relation.own_state();
    own.map(|own| own.version).unwrap_or_default()
}

impl Declared {
    pub(crate) fn is_offered_to(&self, other: usize) -> bool {
        let export = self.export.as_ref();
        export.is_some_and(|export| export.to.as_ref().is_none_or(|to| to.contains(&other)))
    }

    fn offer(&self, service: &ServiceId, other: usize) -> Option<Offer> {
        let export = self.export.as_ref().filter(|_| self.is_offered_to(other))?;
        Some(Offer {
            service: service.clone(),
            kind: ServiceKind::ClusterSetIp,
            ports: vec![OfferedPort {
                port: port_number(self.port),
                protocol: Protocol::Tcp,
                name: None,
                tls: self.tls,
                replay: self.replay,
                sni_names: Vec::new(),
            }],
            exported_at_ms: export.since_ms,
            ready: self.ready,
            headroom: None,
            zones: BTreeMap::new(),
        })
    }

    fn own(&self, cluster: usize) -> OwnService {
        let endpoint = |n: u32| {
            let address: SocketAddr = endpoint_address(cluster, n).parse().expect("an address");
            Endpoint::new(address, Locality::default(), AddressSource::Learned)
                .expect("an address of a host")
        };
        let port = OwnPort {
            endpoints: (0..self.ready).map(endpoint).collect(),
            tls: self.tls,
            replay: self.replay,
            sni_names: Vec::new(),
        };
        let key = (port_number(self.port), Protocol::Tcp);
        OwnService {
            exported_at_ms: self.export.as_ref().map(|export| export.since_ms),
            kind: ServiceKind::ClusterSetIp,
            ports: BTreeMap::from([(key, port)]),
        }
    }
}

pub(crate) fn port_number(number: u16) -> PortNumber {
    PortNumber::new(number).expect("not 0")
}

pub(crate) fn endpoint_address(cluster: usize, n: u32) -> String {
    format!("10.{cluster}.0.{}:80", n + 1)
}
