//! A peer with good credentials that says whatever comes to its mind.

use std::collections::BTreeSet;
use std::sync::Arc;

use corinth_api::peering::{Digest, Farewell, Hello, Message, PROTOCOL, State, encode_offer};
use corinth_api::wire::peering as wire;
use corinth_model::{
    Condition, Instance, Offer, OfferedPort, Protocol, Replay, ServiceId, ServiceKind, Version,
};
use fastrand::Rng;
use prost::Message as _;

use crate::chaos::{SERVICES, one_of, service};
use crate::cluster::{cluster_name, port_number};
use crate::network::Item;
use crate::world::World;

/// Names outside every grant, or outside every reason.
const FORBIDDEN: [&str; 4] = [
    "dns.kube-system",
    "kubernetes.default",
    "api.kube-public",
    "secret.vault",
];
/// What stands for a million.
const FLOOD: usize = 150;

/// The liar.
#[derive(Debug)]
pub(crate) struct Liar {
    pub(crate) index: usize,
    /// Its streams, each with the cluster at the other end.
    pub(crate) streams: Vec<(u64, usize)>,
    greeted: BTreeSet<u64>,
    /// What it has written, to be written again.
    sent: Vec<Vec<u8>>,
    instance: Instance,
    version: Version,
    pub(crate) is_silent: bool,
}

impl Liar {
    pub(crate) fn new(index: usize) -> Self {
        Self {
            index,
            streams: Vec::new(),
            greeted: BTreeSet::new(),
            sent: Vec::new(),
            instance: Instance([0xee; 16]),
            version: Version {
                epoch: 3,
                revision: 1,
            },
            is_silent: false,
        }
    }

    /// Its turn.
    pub(crate) fn talk(&mut self, world: &mut World) {
        let peers = world.clusters[self.index].peers.keys().copied();
        let peers: Vec<usize> = peers
            .filter(|peer| world.clusters[*peer].is_running)
            .collect();
        if !self.is_silent
            && world.rng.u8(..6) == 0
            && let Some(peer) = world.rng.choice(peers)
        {
            let stream = world.dial_by_liar(self.index, peer);
            self.streams.push((stream, peer));
        }
        for (stream, peer) in self.streams.clone() {
            let mut said = Vec::new();
            if self.greeted.insert(stream) {
                said.push(bytes(
                    &self.greeting(&mut world.rng, world.clusters[peer].version),
                ));
            } else if !self.is_silent {
                self.lie(&mut world.rng, &mut said);
            }
            for bytes in said {
                world.put(stream, self.index, Item::Bytes(bytes));
            }
        }
    }

    /// Mostly it is who it is; what it says it holds is anything.
    fn greeting(&mut self, rng: &mut Rng, version: Version) -> Message {
        let is_wrong = !self.is_silent && rng.u8(..10) == 0;
        let held = rng.bool().then(|| State {
            instance: Instance(rng.u128(..).to_be_bytes()),
            version,
        });
        Message::Hello(Hello {
            cluster: cluster_name(if is_wrong { 99 } else { self.index }),
            protocol_min: if is_wrong { PROTOCOL + 1 } else { 0 },
            protocol_max: PROTOCOL + 1,
            own: self.state(),
            held,
        })
    }

    fn state(&self) -> State {
        State {
            instance: self.instance,
            version: self.version,
        }
    }

    fn lie(&mut self, rng: &mut Rng, said: &mut Vec<Vec<u8>>) {
        match rng.u8(..8) {
            0 => self.flood(rng, said),
            1 | 2 => self.snapshot(rng, said),
            3 => self.change_back(rng, said),
            _ => {
                for _ in 0..rng.usize(1..8) {
                    said.push(self.anything(rng));
                }
            }
        }
        let some = said.iter().take(8).cloned();
        self.sent.extend(some);
        let excess = self.sent.len().saturating_sub(64);
        self.sent.drain(..excess);
    }

    fn next_version(&mut self, rng: &mut Rng) -> Version {
        self.version.revision += rng.u64(..3);
        self.version
    }

    fn flood(&mut self, rng: &mut Rng, said: &mut Vec<Vec<u8>>) {
        let version = self.next_version(rng);
        for n in 0..FLOOD {
            let offer = offer(service(&format!("n{n}.shop")), rng);
            said.push(bytes(&Message::upsert(version, Arc::new(offer))));
        }
    }

    /// A whole state, mostly with the right digest; often of another instance.
    fn snapshot(&mut self, rng: &mut Rng, said: &mut Vec<Vec<u8>>) {
        if rng.u8(..3) == 0 {
            self.instance = Instance(rng.u128(..).to_be_bytes());
        }
        let version = self.next_version(rng);
        let state = self.state();
        let services = u32::MAX;
        said.push(bytes(&Message::SnapshotBegin { state, services }));
        let mut digests = Vec::new();
        for _ in 0..rng.usize(..14) {
            let offer = offer(any_service(rng), rng);
            digests.push(Digest::of(&offer));
            said.push(bytes(&Message::upsert(version, Arc::new(offer))));
        }
        if rng.u8(..5) == 0 {
            digests.pop();
        }
        let digest = digests.iter().collect();
        said.push(bytes(&Message::SnapshotEnd { version, digest }));
    }

    /// Takes a service back by a tombstone, and tells the old entry again, and again.
    fn change_back(&mut self, rng: &mut Rng, said: &mut Vec<Vec<u8>>) {
        let name = any_service(rng);
        self.version.revision += 1;
        let old = Message::upsert(self.version, Arc::new(offer(name.clone(), rng)));
        said.push(bytes(&old));
        self.version.revision += 1;
        let version = self.version;
        let service = name;
        said.push(bytes(&Message::Tombstone { version, service }));
        said.push(bytes(&old));
        said.push(bytes(&old));
    }

    fn anything(&mut self, rng: &mut Rng) -> Vec<u8> {
        let version = match rng.u8(..4) {
            0 => Version {
                epoch: rng.u64(..9),
                revision: rng.u64(..9),
            },
            _ => self.next_version(rng),
        };
        let digest = Digest([rng.u8(..); 32]);
        let service = any_service(rng);
        match rng.u8(..16) {
            0 | 1 => bytes(&Message::upsert(version, Arc::new(offer(service, rng)))),
            2 => bytes(&Message::Tombstone { version, service }),
            3 => bytes(&Message::Digest { version, digest }),
            4 => bytes(&Message::Ack(version)),
            5 => bytes(&Message::Resync),
            6 => bytes(&Message::Rejected {
                service,
                condition: rng.choice(Condition::ALL.iter().copied()),
            }),
            7 => bytes(&Message::Trust {
                sequence: rng.u64(..),
                roots: [vec![1]].into(),
                held: Some(rng.u64(..)),
            }),
            8 | 9 => unreadable(version, service, rng),
            10 => (0..rng.usize(..40)).map(|_| rng.u8(..)).collect(),
            11 => rng.choice(self.sent.iter()).cloned().unwrap_or_default(),
            12 => bytes(&Message::Goodbye(Farewell::from(rng.i32(..12)))),
            13 => bytes(&Message::SnapshotEnd { version, digest }),
            14 => bytes(&self.greeting(rng, version)),
            _ => rng.choice(self.sent.iter()).cloned().unwrap_or_default(),
        }
    }
}

fn bytes(message: &Message) -> Vec<u8> {
    wire::Message::from(message).encode_to_vec()
}

fn any_service(rng: &mut Rng) -> ServiceId {
    service(if rng.u8(..5) == 0 {
        one_of(rng, &FORBIDDEN)
    } else {
        one_of(rng, &SERVICES)
    })
}

/// Anything well-formed, older than everybody else's and very ready.
fn offer(service: ServiceId, rng: &mut Rng) -> Offer {
    let port = |number| OfferedPort {
        port: port_number(number),
        protocol: Protocol::Tcp,
        name: None,
        tls: rng.bool(),
        replay: Replay::Idempotent,
        sni_names: Vec::new(),
    };
    let ports = [80, 443].map(port).into();
    let kinds = [ServiceKind::ClusterSetIp, ServiceKind::Headless];
    Offer {
        service,
        kind: kinds[usize::from(rng.u8(..4) == 0)],
        ports,
        exported_at_ms: rng.u64(..2),
        ready: one_of(rng, &[0, 1, u32::MAX]),
        headroom: Some(u32::MAX),
        zones: [("z".into(), 1)].into(),
    }
}

/// An entry that breaks a rule, or comes from the future.
fn unreadable(version: Version, service: ServiceId, rng: &mut Rng) -> Vec<u8> {
    let entry = encode_offer(&offer(service, rng));
    let mut entry = wire::Service::decode(entry.as_slice()).expect("our own entry");
    match rng.u8(..6) {
        0 => entry.kind = 17,
        1 => entry.ports[0].protocol = 17,
        2 => entry.ports[0].port = 0,
        3 => entry.namespace = "*".to_owned(),
        4 => entry.ports = vec![entry.ports[0].clone(); 100],
        _ => entry.ports[0].sni_names = vec!["80.a.shop.svc.clusterset.local".to_owned()],
    }
    let upsert = wire::Upsert {
        version: Some(wire::Version {
            epoch: version.epoch,
            revision: version.revision,
        }),
        service: entry.encode_to_vec(),
    };
    wire::Message {
        kind: Some(wire::message::Kind::Upsert(upsert)),
    }
    .encode_to_vec()
}
