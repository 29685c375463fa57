//! Short ways to write down offers and versions, and two relations that talk to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corinth_api::peering::{Message, State};
use corinth_api::wire;
use corinth_model::{
    Accepted, ClusterName, Condition, Instance, Offer, OfferedPort, PortNumber, Protocol, Replay,
    ServiceId, ServiceKind, Version,
};
use prost::Message as _;

use super::{Limits, OpenedBy, Relation, RelationEvent, SavedRelation, SessionId};

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Some time in Unix milliseconds.
pub(super) const TODAY_MS: u64 = 1_800_000_000_000;
pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

pub(super) fn id(text: &str) -> ServiceId {
    text.parse().unwrap()
}

pub(super) fn at(epoch: u64, revision: u64) -> Version {
    Version { epoch, revision }
}

pub(super) fn state(instance: u8, epoch: u64, revision: u64) -> State {
    State {
        instance: Instance([instance; 16]),
        version: at(epoch, revision),
    }
}

/// An offer with port 80 and so many ready endpoints.
pub(super) fn offer(service: &str, ready: u32) -> Arc<Offer> {
    let port = OfferedPort {
        port: PortNumber::new(80).unwrap(),
        protocol: Protocol::Tcp,
        name: None,
        tls: false,
        replay: Replay::Never,
        sni_names: Vec::new(),
    };
    Arc::new(Offer {
        service: id(service),
        kind: ServiceKind::ClusterSetIp,
        ports: vec![port],
        exported_at_ms: 7,
        ready,
        headroom: None,
        zones: BTreeMap::new(),
    })
}

pub(super) fn offers(services: &[&str]) -> BTreeMap<ServiceId, Arc<Offer>> {
    let services = services.iter();
    services.map(|name| (id(name), offer(name, 1))).collect()
}

/// `s000.shop` and so on.
pub(super) fn many(count: usize) -> BTreeMap<ServiceId, Arc<Offer>> {
    let names: Vec<String> = (0..count).map(|n| format!("s{n:05}.shop")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    offers(&names)
}

pub(super) fn accepted(selectors: &[&str]) -> Accepted {
    Accepted(selectors.iter().map(|one| one.parse().unwrap()).collect())
}

/// One cluster of a [`Pair`].
pub(super) struct Side {
    pub(super) relation: Relation,
    pub(super) own: ClusterName,
    pub(super) peer: ClusterName,
    pub(super) changed: BTreeSet<ServiceId>,
    pub(super) standing: BTreeSet<(Condition, Option<ServiceId>)>,
    pub(super) ended: Vec<SessionId>,
    pub(super) dial_at: Option<Instant>,
    pub(super) began_new_instance: bool,
    pub(super) is_unlinked: bool,
    pub(super) trust: Option<u64>,
    /// What it wrote, as it was read at the other end.
    pub(super) written: Vec<Message>,
    pub(super) written_bytes: usize,
}

impl Side {
    pub(super) fn new(own: &str, peer: &str, now: Instant) -> Self {
        let (own, peer) = (own.parse().unwrap(), peer.parse().unwrap());
        let limits = Limits { quota: 10_000 };
        let mut relation = Relation::new(
            ClusterName::clone(&own),
            ClusterName::clone(&peer),
            limits,
            now,
        );
        relation.set_accepted(accepted(&["*"]), 10_000);
        Self {
            relation,
            own,
            peer,
            changed: BTreeSet::new(),
            standing: BTreeSet::new(),
            ended: Vec::new(),
            dial_at: None,
            began_new_instance: false,
            is_unlinked: false,
            trust: None,
            written: Vec::new(),
            written_bytes: 0,
        }
    }

    /// Starts again from what was saved, as another process with a higher epoch would.
    pub(super) fn restart(&mut self, saved: &[u8], now: Instant) {
        let saved = SavedRelation::parse(saved).unwrap();
        let (own, peer) = (self.own.clone(), self.peer.clone());
        let limits = Limits { quota: 10_000 };
        self.relation = Relation::restore(saved, own, peer, limits, now).unwrap();
        self.standing.clear();
    }

    pub(super) fn saved(&self, now: Instant) -> Vec<u8> {
        self.relation.saved(now).to_bytes()
    }

    pub(super) fn offers(&self) -> Vec<String> {
        let offers = self.relation.offers();
        offers.map(|(service, ..)| service.to_string()).collect()
    }

    pub(super) fn take_events(&mut self) {
        while let Some(event) = self.relation.poll_event() {
            match event {
                RelationEvent::OffersChanged(services) => self.changed.extend(services),
                RelationEvent::TrustTold { sequence, .. } => self.trust = Some(sequence),
                RelationEvent::GatewaysTold { .. } => {}
                RelationEvent::Condition {
                    condition,
                    about,
                    stands: true,
                } => assert!(
                    self.standing.insert((condition, about)),
                    "{condition} twice"
                ),
                RelationEvent::Condition {
                    condition,
                    about,
                    stands: false,
                } => assert!(self.standing.remove(&(condition, about)), "no {condition}"),
                RelationEvent::EndSession(session) => self.ended.push(session),
                RelationEvent::BeganNewInstance => self.began_new_instance = true,
                RelationEvent::PeerUnlinked => self.is_unlinked = true,
                RelationEvent::DialAllowedAt(at) => self.dial_at = Some(at),
            }
        }
    }

    pub(super) fn stands(&self, condition: Condition, about: Option<&str>) -> bool {
        self.standing.contains(&(condition, about.map(id)))
    }
}

/// Clusters `east` and `west`, linked, with a network that delivers at once.
pub(super) struct Pair {
    pub(super) east: Side,
    pub(super) west: Side,
    pub(super) now: Instant,
    next_session: u64,
}

impl Pair {
    /// East offers these; west offers nothing. Both accept everything.
    pub(super) fn new(services: &[&str]) -> Self {
        let now = Instant::now();
        let mut pair = Self {
            east: Side::new("east", "west", now),
            west: Side::new("west", "east", now),
            now,
            next_session: 0,
        };
        for (side, instance) in [(&mut pair.east, 1), (&mut pair.west, 2)] {
            let state = state(instance, 1, 1);
            side.relation.set_own_state(state.instance, state.version);
        }
        pair.offer(offers(services), at(1, 2));
        pair.west
            .relation
            .set_offers(BTreeMap::new(), at(1, 2), TODAY_MS);
        pair
    }

    /// The same, connected and at rest.
    pub(super) fn connected(services: &[&str]) -> Self {
        let mut pair = Self::new(services);
        pair.connect();
        pair
    }

    pub(super) fn offer(&mut self, offers: BTreeMap<ServiceId, Arc<Offer>>, version: Version) {
        self.east.relation.set_offers(offers, version, TODAY_MS);
    }

    /// East opens a stream; they talk until there is nothing left to say.
    pub(super) fn connect(&mut self) -> SessionId {
        let session = self.open();
        self.run();
        session
    }

    pub(super) fn open(&mut self) -> SessionId {
        self.next_session += 1;
        let session = SessionId(self.next_session);
        self.east
            .relation
            .handle_opened(session, OpenedBy::Us, self.now);
        self.west
            .relation
            .handle_opened(session, OpenedBy::Peer, self.now);
        session
    }

    pub(super) fn cut(&mut self) {
        let session = SessionId(self.next_session);
        self.east.relation.handle_closed(session, self.now);
        self.west.relation.handle_closed(session, self.now);
        self.settle();
    }

    pub(super) fn run(&mut self) {
        while self.step() {}
    }

    /// Each side writes one message if it has one. Whether one had.
    pub(super) fn step(&mut self) -> bool {
        let now = self.now;
        let to_west = write(&mut self.east, now);
        let to_east = write(&mut self.west, now);
        let moved = to_west.is_some() || to_east.is_some();
        if let Some((session, message)) = to_west {
            self.west
                .relation
                .handle_message(session, message, now, TODAY_MS);
        }
        if let Some((session, message)) = to_east {
            self.east
                .relation
                .handle_message(session, message, now, TODAY_MS);
        }
        self.settle();
        moved
    }

    /// Takes events; a stream that one side ends is over on the other.
    fn settle(&mut self) {
        let now = self.now;
        self.east.take_events();
        self.west.take_events();
        for session in self.east.ended.clone() {
            self.west.relation.handle_closed(session, now);
        }
        for session in self.west.ended.clone() {
            self.east.relation.handle_closed(session, now);
        }
        self.east.take_events();
        self.west.take_events();
    }

    /// Time passes on both sides, with everything that falls into it.
    pub(super) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let due = [&self.east, &self.west].map(|side| side.relation.poll_timeout());
            let due = due.into_iter().flatten().min().filter(|at| *at <= end);
            self.now = due.unwrap_or(end).max(self.now);
            self.east.relation.handle_timeout(self.now);
            self.west.relation.handle_timeout(self.now);
            self.run();
            if due.is_none() {
                return;
            }
        }
    }
}

fn write(side: &mut Side, now: Instant) -> Option<(SessionId, Message)> {
    let (session, message) = side.relation.poll_transmit(now)?;
    let bytes = wire::peering::Message::from(&message).encode_to_vec();
    side.written_bytes += bytes.len();
    let read = wire::peering::Message::decode(bytes.as_slice()).unwrap();
    let read = Message::decode(read).unwrap();
    side.written.push(read.clone());
    Some((session, read))
}
