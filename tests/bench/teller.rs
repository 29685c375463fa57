//! A peer that tells its services: a relation of the control plane's own, without a control plane around it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corinth_api::HandOver;
use corinth_api::peering::Message;
use corinth_control::exchange::{self, Relations, Session};
use corinth_control::peering::{Limits, OpenedBy, Relation, SessionId};
use corinth_model::{
    ClusterName, GatewayId, Instance, Offer, OfferedPort, PortNumber, Protocol, Replay, ServiceId,
    ServiceKind, Slot, TrustDomain, Version,
};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Unix milliseconds; which ones does not matter.
const SINCE_MS: u64 = 1_800_000_000_000;

/// A peer.
pub(crate) struct Teller {
    name: ClusterName,
    told: Arc<Told>,
    offers: BTreeMap<ServiceId, Arc<Offer>>,
    version: Version,
    bytes: Arc<AtomicU64>,
    line: Vec<JoinHandle<()>>,
}

struct Told {
    relation: Mutex<Relation>,
    session: Mutex<Option<(SessionId, Session)>>,
    next: AtomicU64,
    heard: watch::Sender<Heard>,
}

/// What has been heard on the present stream.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    sessions: u64,
    has_ended: bool,
    acknowledged: Version,
    has_digest: bool,
}

impl Teller {
    /// A peer of `hub` that offers `count` services.
    pub(crate) fn new(name: &ClusterName, hub: &ClusterName, count: usize) -> Self {
        let limits = Limits { quota: 1_000 };
        let mut relation = Relation::new(name.clone(), hub.clone(), limits, Instant::now());
        let version = Version {
            epoch: 1,
            revision: 0,
        };
        let instance = Instance(fastrand::u128(..).to_be_bytes());
        relation.set_own_state(instance, version);
        relation.set_accepted(corinth_model::Accepted::default(), 1_000);
        let offers = (0..count).map(|n| {
            let service: ServiceId = format!("service-{n:05}.{name}").parse().unwrap();
            (service.clone(), Arc::new(offer(service, 3)))
        });
        let mut teller = Self {
            name: name.clone(),
            told: Arc::new(Told {
                relation: Mutex::new(relation),
                session: Mutex::default(),
                next: AtomicU64::new(1),
                heard: watch::Sender::default(),
            }),
            offers: offers.collect(),
            version,
            bytes: Arc::default(),
            line: Vec::new(),
        };
        teller.tell();
        teller
    }

    fn tell(&mut self) {
        self.version.revision += 1;
        let mut relation = self.told.relation.lock();
        relation.set_offers(self.offers.clone(), self.version, SINCE_MS);
        drop(relation);
        self.told.wake();
    }

    /// So many instances of one of its services are ready from now on.
    pub(crate) fn set_ready(&mut self, n: usize, ready: u32) {
        let Some((service, held)) = self.offers.iter_mut().nth(n) else {
            return;
        };
        *held = Arc::new(offer(service.clone(), ready));
        self.tell();
    }

    /// Takes as much work as [`Self::set_ready`] with what was told already, so that nothing is told.
    pub(crate) fn look_for_news(&mut self) {
        self.tell();
    }

    /// Opens a stream where a gateway would hand it over.
    pub(crate) async fn connect(&mut self, handover: &Path) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let socket: PathBuf = handover.to_owned();
        let mut hub = UnixStream::connect(socket).await.unwrap();
        let came = HandOver::Peering {
            peer: GatewayId {
                trust_domain: TrustDomain::of_cluster(&self.name),
                slot: Slot::parse("0").unwrap(),
            },
        };
        hub.write_all(&came.encode()).await.unwrap();
        let (from_us, to_us) = theirs.into_split();
        let (from_hub, to_hub) = hub.into_split();
        self.bytes.store(0, Ordering::Relaxed);
        self.told.heard.send_modify(|heard| {
            *heard = Heard {
                sessions: heard.sessions,
                ..Heard::default()
            };
        });
        let relations = Arc::clone(&self.told) as Arc<dyn Relations>;
        let hub: ClusterName = "hub".parse().unwrap();
        self.line = vec![
            tokio::spawn(count(from_us, to_hub, Arc::clone(&self.bytes))),
            tokio::spawn(count(from_hub, to_us, Arc::clone(&self.bytes))),
            tokio::spawn(async move {
                exchange::call(relations, hub, ours).await;
            }),
        ];
    }

    /// Cuts the stream, and waits until both sides know.
    pub(crate) async fn cut(&mut self) {
        let mut heard = self.told.heard.subscribe();
        // Without the line the call comes to its end by itself.
        self.line.drain(..2).for_each(|line| line.abort());
        heard.wait_for(|heard| heard.has_ended).await.unwrap();
        self.line.clear();
    }

    /// Until everything that it told was taken, and it was told everything.
    pub(crate) async fn until_in_step(&self) {
        let mut heard = self.told.heard.subscribe();
        let version = self.version;
        let is_so = |heard: &Heard| heard.acknowledged >= version && heard.has_digest;
        heard.wait_for(is_so).await.unwrap();
    }

    /// Bytes of the present stream, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Told {
    fn wake(&self) {
        if let Some((_, session)) = &*self.session.lock() {
            session.wake.notify_one();
        }
    }

    /// Nothing that happens here matters to a peer that only tells.
    fn settle(&self) {
        let mut relation = self.relation.lock();
        while relation.poll_event().is_some() {}
        drop(relation);
        self.wake();
    }
}

impl Relations for Told {
    fn opened(&self, _: &ClusterName, by: OpenedBy, session: Session) -> Option<SessionId> {
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        *self.session.lock() = Some((id, session));
        self.relation.lock().handle_opened(id, by, Instant::now());
        self.heard.send_modify(|heard| heard.sessions += 1);
        self.settle();
        Some(id)
    }

    fn received(&self, _: &ClusterName, session: SessionId, message: Message) {
        let acknowledged = if let Message::Ack(version) = &message {
            Some(*version)
        } else {
            None
        };
        let is_digest = matches!(
            message,
            Message::Digest { .. } | Message::SnapshotEnd { .. }
        );
        let mut relation = self.relation.lock();
        relation.handle_message(session, message, Instant::now(), SINCE_MS);
        drop(relation);
        self.heard.send_modify(|heard| {
            heard.acknowledged = acknowledged.unwrap_or(heard.acknowledged);
            heard.has_digest |= is_digest;
        });
        self.settle();
    }

    fn malformed(&self, _: &ClusterName, session: SessionId) {
        let mut relation = self.relation.lock();
        relation.handle_malformed(session, Instant::now());
        drop(relation);
        self.settle();
    }

    fn next(&self, _: &ClusterName, _: SessionId) -> Option<Message> {
        let next = self.relation.lock().poll_transmit(Instant::now());
        next.map(|(_, message)| message)
    }

    fn closed(&self, _: &ClusterName, session: SessionId) {
        self.relation.lock().handle_closed(session, Instant::now());
        *self.session.lock() = None;
        self.heard.send_modify(|heard| heard.has_ended = true);
        self.settle();
    }
}

/// Lets relations do what they do from time to time.
pub(crate) fn keep_time(tellers: &[Teller]) -> JoinHandle<()> {
    let told: Vec<_> = tellers.iter().map(|one| Arc::clone(&one.told)).collect();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            for told in &told {
                told.relation.lock().handle_timeout(Instant::now());
                told.settle();
            }
        }
    })
}

fn offer(service: ServiceId, ready: u32) -> Offer {
    Offer {
        service,
        kind: ServiceKind::ClusterSetIp,
        ports: vec![OfferedPort {
            port: PortNumber::new(443).unwrap(),
            protocol: Protocol::Tcp,
            name: None,
            tls: true,
            replay: Replay::Never,
            sni_names: Vec::new(),
        }],
        exported_at_ms: SINCE_MS,
        ready,
        headroom: None,
        zones: [("eu-central-1a".into(), ready)].into(),
    }
}

async fn count(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
