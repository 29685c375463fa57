//! Clusters, streams and time, moved on one event after the other.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use corinth_api::peering::{Farewell, Message};
use corinth_api::wire;
use corinth_control::peering::{OpenedBy, RelationEvent, SessionId};
use corinth_model::ServiceId;
use fastrand::Rng;
use prost::Message as _;

use crate::cluster::{Cluster, Mode, Peer, Restart, instance};
use crate::liar::Liar;
use crate::network::{Item, Network};
use crate::time::Time;
use crate::watch::Cause;

/// What happens at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// Something arrives on a stream, at one of its sides.
    Arrive { stream: u64, side: usize },
    /// One side learns that a stream is over.
    Lost { stream: u64, cluster: usize },
    /// A relation wants to be called.
    Timer { cluster: usize, peer: usize },
    /// A cluster may dial another.
    Dial { cluster: usize, peer: usize },
    /// A dial comes to nothing.
    NoAnswer { cluster: usize, peer: usize },
    /// A cluster that was down runs again.
    Start { cluster: usize },
    /// The liar talks.
    Lie,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) network: Network,
    pub(crate) liar: Option<Liar>,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    trace: DefaultHasher,
    /// Some messages come twice.
    pub(crate) repeats: bool,
    /// Which messages do not come at all, although those after them do. Drawn from a generator of its own, so that the
    /// rest of the world stays as it is without.
    pub(crate) drops: Option<Rng>,
}

/// One in so many messages does not come, where some do not.
const DROPPED_IN: u32 = 40;
/// Makes another generator of the same seed.
const DROPS: u64 = 0x6472_6f70_7065_6421;

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let count = if rng.bool() {
            rng.usize(2..4)
        } else {
            rng.usize(2..13)
        };
        let liar = (rng.u8(..3) == 0).then(|| rng.usize(..count));
        let clusters = (0..count).map(|index| Cluster::new(index, liar == Some(index), &mut rng));
        let mut world = Self {
            seed,
            now: Time::default(),
            clusters: clusters.collect(),
            network: Network::default(),
            liar: liar.map(Liar::new),
            events: BinaryHeap::new(),
            sequence: 0,
            trace: DefaultHasher::new(),
            repeats: rng.bool(),
            drops: Some(Rng::with_seed(seed ^ DROPS)).filter(|_| seed % 3 == 2),
            rng,
        };
        world.schedule(world.now, Event::Lie);
        world
    }

    /// A digest of everything that was written so far, and when.
    pub(crate) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(crate) fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        let at = at.max(self.now);
        self.events.push(Reverse((at, self.sequence, event)));
    }

    pub(crate) fn delay(&mut self) -> Duration {
        let millis = match self.rng.u8(..10) {
            0 => self.rng.u64(..3_000),
            _ => self.rng.u64(..80),
        };
        Duration::from_millis(millis)
    }

    /// Lets everything happen that happens within this time.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(Reverse((at, ..))) = self.events.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, event))) = self.events.pop() else {
                break;
            };
            self.now = at;
            self.handle(event);
        }
        self.now = end;
        self.network.sweep();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive { stream, side } => self.arrive(stream, side),
            Event::Lost { stream, cluster } => self.lose(stream, cluster),
            Event::Timer { cluster, peer } => self.time(cluster, peer),
            Event::Dial { cluster, peer } => self.dial(cluster, peer),
            Event::NoAnswer { cluster, peer } => {
                let now = self.now;
                if let Some(side) = self.running_side(cluster, peer) {
                    side.relation.handle_dial_failed(now.instant());
                    self.settle(cluster, peer, &Cause::Other);
                }
            }
            Event::Start { cluster } => self.start(cluster),
            Event::Lie => self.lie(),
        }
    }

    pub(crate) fn running_side(&mut self, cluster: usize, peer: usize) -> Option<&mut Peer> {
        let cluster = self.clusters.get_mut(cluster)?;
        let runs = cluster.is_running && !cluster.is_liar;
        cluster.peers.get_mut(&peer).filter(|_| runs)
    }

    fn time(&mut self, cluster: usize, peer: usize) {
        let now = self.now;
        let Some(side) = self.running_side(cluster, peer) else {
            return;
        };
        if side.timer_at.is_none_or(|at| at > now) {
            return;
        }
        side.timer_at = None;
        side.relation.handle_timeout(now.instant());
        self.settle(cluster, peer, &Cause::Time);
    }

    fn dial(&mut self, cluster: usize, peer: usize) {
        let now = self.now;
        let Some(side) = self.running_side(cluster, peer) else {
            return;
        };
        if side.dial_at.is_none_or(|at| at > now) || !side.dials || side.mode == Mode::Paused {
            return;
        }
        side.dial_at = None;
        if side.relation.session().is_some() {
            return;
        }
        let delay = self.delay();
        let is_blocked = [(cluster, peer), (peer, cluster)]
            .iter()
            .any(|(from, to)| self.network.blocked_until(*from, *to, now).is_some());
        if is_blocked || !self.clusters[peer].is_running {
            self.schedule(now + delay, Event::NoAnswer { cluster, peer });
            return;
        }
        let stream = self.network.open(cluster, peer);
        self.put(stream, cluster, Item::Opened);
        if let Some(side) = self.running_side(cluster, peer) {
            let session = SessionId(stream);
            side.relation
                .handle_opened(session, OpenedBy::Us, now.instant());
        }
        self.settle(cluster, peer, &Cause::Other);
    }

    /// A stream that the liar opens.
    pub(crate) fn dial_by_liar(&mut self, liar: usize, peer: usize) -> u64 {
        let stream = self.network.open(liar, peer);
        self.put(stream, liar, Item::Opened);
        stream
    }

    /// Puts something on its way from a cluster.
    pub(crate) fn put(&mut self, stream: u64, from: usize, item: Item) {
        let when = (self.now, self.delay());
        if let Item::Bytes(bytes) = &item {
            (self.now.as_millis(), stream, from, bytes).hash(&mut self.trace);
        }
        if let Some((at, side)) = self.network.send(stream, from, item, when) {
            self.schedule(at, Event::Arrive { stream, side });
        }
    }

    fn arrive(&mut self, stream: u64, side: usize) {
        let item = match self.network.arrive(stream, side, self.now) {
            Ok(item) => item,
            Err(None) => return,
            Err(Some(at)) => {
                self.schedule(at, Event::Arrive { stream, side });
                return;
            }
        };
        let Some(sides) = self.network.streams.get(&stream).map(|one| one.sides) else {
            return;
        };
        let (cluster, peer) = (sides[side], sides[1 - side]);
        match item {
            Item::Opened => self.take_stream(stream, cluster, peer),
            Item::Bytes(_) if self.is_dropped() => {}
            Item::Bytes(bytes) => self.take_bytes(stream, cluster, peer, &bytes),
            Item::End => self.lose(stream, cluster),
        }
        // There is room for what the other side has to say.
        if self.running_side(peer, cluster).is_some() {
            self.settle(peer, cluster, &Cause::Other);
        }
    }

    fn is_dropped(&mut self) -> bool {
        let drops = self.drops.as_mut();
        drops.is_some_and(|rng| rng.u32(..DROPPED_IN) == 0)
    }

    fn take_stream(&mut self, stream: u64, cluster: usize, peer: usize) {
        let now = self.now;
        if self.clusters[cluster].is_liar {
            if let Some(liar) = &mut self.liar {
                liar.streams.push((stream, peer));
            }
            return;
        }
        let Some(side) = self.running_side(cluster, peer) else {
            self.end(stream, cluster);
            return;
        };
        let session = SessionId(stream);
        side.relation
            .handle_opened(session, OpenedBy::Peer, now.instant());
        if side.mode == Mode::Paused {
            side.relation.goodbye(Farewell::Paused);
        }
        self.settle(cluster, peer, &Cause::Other);
    }

    fn take_bytes(&mut self, stream: u64, cluster: usize, peer: usize, bytes: &[u8]) {
        let now = self.now;
        let unix_ms = self.clusters[cluster].unix_ms(now);
        let repeats = self.repeats && self.rng.u8(..20) == 0;
        let Some(side) = self.running_side(cluster, peer) else {
            return;
        };
        let read = wire::peering::Message::decode(bytes).ok();
        let Some(message) = read.and_then(|message| Message::decode(message).ok()) else {
            side.relation
                .handle_malformed(SessionId(stream), now.instant());
            self.settle(cluster, peer, &Cause::Other);
            return;
        };
        let times = if repeats && may_repeat(&message) {
            2
        } else {
            1
        };
        for _ in 0..times {
            let Some(side) = self.running_side(cluster, peer) else {
                return;
            };
            let session = SessionId(stream);
            let current = side.relation.session();
            let current = current.filter(|current| current.id == session);
            let lost = current.and_then(|current| side.lost_by(&message, current));
            side.relation
                .handle_message(session, message.clone(), now.instant(), unix_ms);
            // What comes late on a stream that is over says nothing.
            let cause = if current.is_some() {
                Cause::Message(&message)
            } else {
                Cause::Other
            };
            self.settle(cluster, peer, &cause);
            if let (Some(lost), Some(side)) = (lost, self.running_side(cluster, peer)) {
                side.check_begun_anew(&lost);
            }
        }
    }

    /// One side learns that a stream is over.
    fn lose(&mut self, stream: u64, cluster: usize) {
        let now = self.now;
        let Some(one) = self.network.streams.get_mut(&stream) else {
            return;
        };
        let side = one.side(cluster);
        one.is_open[side] = false;
        let peer = one.sides[1 - side];
        if let Some(liar) = &mut self.liar {
            liar.streams
                .retain(|(open, _)| *open != stream || liar.index != cluster);
        }
        if let Some(side) = self.running_side(cluster, peer) {
            side.relation
                .handle_closed(SessionId(stream), now.instant());
            self.settle(cluster, peer, &Cause::Other);
        }
    }

    /// A cluster ends a stream; the other side learns it after everything that was written.
    pub(crate) fn end(&mut self, stream: u64, cluster: usize) {
        self.put(stream, cluster, Item::End);
        if let Some(one) = self.network.streams.get_mut(&stream) {
            let side = one.side(cluster);
            one.is_open[side] = false;
        }
    }

    /// The network cuts a stream. What was on its way is lost, or comes late.
    pub(crate) fn cut(&mut self, stream: u64) {
        let Some(sides) = self.network.streams.get(&stream).map(|one| one.sides) else {
            return;
        };
        for (side, cluster) in sides.into_iter().enumerate() {
            if self.rng.bool() {
                self.network.lose(stream, side);
            }
            let at = self.now + self.delay();
            self.schedule(at, Event::Lost { stream, cluster });
        }
    }

    /// A process ends, without a word.
    pub(crate) fn stop(&mut self, cluster: usize, how: Restart, down_for: Duration) {
        let now = self.now;
        let one = &mut self.clusters[cluster];
        one.save_if_diligent(now);
        one.is_running = false;
        one.restart = how;
        let streams = self.network.streams.iter();
        let streams = streams.filter(|(_, one)| one.sides.contains(&cluster));
        let streams: Vec<(u64, usize)> = streams
            .map(|(id, one)| (*id, one.sides[1 - one.side(cluster)]))
            .collect();
        for (stream, other) in streams {
            if let Some(one) = self.network.streams.get_mut(&stream) {
                let side = one.side(cluster);
                one.is_open[side] = false;
            }
            let at = self.now + self.delay();
            self.schedule(
                at,
                Event::Lost {
                    stream,
                    cluster: other,
                },
            );
        }
        self.schedule(self.now + down_for, Event::Start { cluster });
    }

    fn start(&mut self, cluster: usize) {
        let services = self.services();
        let one = &mut self.clusters[cluster];
        one.is_running = true;
        one.start(self.now, &mut self.rng);
        for service in &services {
            one.route(service);
        }
        let peers: Vec<usize> = one.peers.keys().copied().collect();
        for peer in peers {
            self.settle(cluster, peer, &Cause::Other);
            self.dial_soon(cluster, peer);
        }
    }

    /// Every service that anybody has a word on.
    pub(crate) fn services(&self) -> BTreeSet<ServiceId> {
        let clusters = self.clusters.iter();
        clusters
            .flat_map(|cluster| {
                let own = cluster.services.keys().cloned();
                let told = cluster.peers.values().flat_map(|peer| peer.watch.names());
                own.chain(told).chain(cluster.routes.keys().cloned())
            })
            .collect()
    }

    /// Does what a relation wants done, and looks at what has become of it.
    pub(crate) fn settle(&mut self, cluster: usize, peer: usize, cause: &Cause<'_>) {
        let now = self.now;
        let Some(side) = self.running_side(cluster, peer) else {
            return;
        };
        let grant = (&side.accepted, side.quota);
        side.watch.check(&side.relation, grant, cause, now);
        self.take_events(cluster, peer);
        self.save(cluster, peer);
        while let Some((stream, bytes)) = self.next_message(cluster, peer) {
            self.put(stream, cluster, Item::Bytes(bytes));
            self.take_events(cluster, peer);
            self.save(cluster, peer);
        }
        let Some(side) = self.running_side(cluster, peer) else {
            return;
        };
        let at = side.relation.poll_timeout().map(Time::from_instant);
        if let Some(at) = at.filter(|at| side.timer_at != Some(*at)) {
            side.timer_at = Some(at);
            self.schedule(at, Event::Timer { cluster, peer });
        }
    }

    /// The next message, if its stream takes one.
    fn next_message(&mut self, cluster: usize, peer: usize) -> Option<(u64, Vec<u8>)> {
        let side = self.running_side(cluster, peer)?;
        let session = side.relation.session();
        if let Some(session) = session
            && !self.network.has_room(session.id.0, cluster)
        {
            return None;
        }
        let now = self.now.instant();
        let side = self.running_side(cluster, peer)?;
        let (session, message) = side.relation.poll_transmit(now)?;
        let bytes = wire::peering::Message::from(&message).encode_to_vec();
        assert!(bytes.len() <= corinth_api::peering::MESSAGE_MAX_BYTES);
        Some((session.0, bytes))
    }

    /// Who is lazy writes things down now and then. Of all others it is enough to know what they had written when it is
    /// read, see [`Cluster::save`].
    fn save(&mut self, cluster: usize, peer: usize) {
        let now = self.now;
        if self.clusters[cluster].is_lazy && self.rng.u8(..8) == 0 {
            self.clusters[cluster].save(peer, now);
        }
    }

    fn take_events(&mut self, cluster: usize, peer: usize) {
        while let Some(side) = self.running_side(cluster, peer) {
            let Some(event) = side.relation.poll_event() else {
                return;
            };
            match event {
                RelationEvent::OffersChanged(services) => {
                    side.watch.check_changed(&services, &side.accepted);
                    for service in &services {
                        self.clusters[cluster].route(service);
                    }
                }
                RelationEvent::EndSession(session) => self.end(session.0, cluster),
                RelationEvent::BeganNewInstance => {
                    let new = instance(&mut self.rng);
                    let version = self.clusters[cluster].version;
                    if let Some(side) = self.running_side(cluster, peer) {
                        side.begin_instance(new, version);
                    }
                }
                RelationEvent::DialAllowedAt(at) => {
                    let at = Time::from_instant(at);
                    side.dial_at = Some(at);
                    self.schedule(at, Event::Dial { cluster, peer });
                }
                RelationEvent::PeerUnlinked
                | RelationEvent::TrustTold { .. }
                | RelationEvent::GatewaysTold { .. }
                | RelationEvent::Condition { .. } => {}
            }
        }
    }

    fn lie(&mut self) {
        let Some(mut liar) = self.liar.take() else {
            return;
        };
        liar.talk(self);
        let at = self.now + Duration::from_millis(self.rng.u64(50..4_000));
        self.schedule(at, Event::Lie);
        self.liar = Some(liar);
    }
}

/// What a stream may carry twice in a row without harm. A snapshot counts what it carries.
fn may_repeat(message: &Message) -> bool {
    matches!(
        message,
        Message::Tombstone { .. }
            | Message::Ack(_)
            | Message::Digest { .. }
            | Message::Rejected { .. }
            | Message::Trust { .. }
            | Message::Gateways { .. }
    )
}
