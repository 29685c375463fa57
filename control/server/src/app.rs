//! The composition root: makes a control plane out of settings and declarations, runs it, stops it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use corinth_api::HandOver;
use corinth_api::peering::{Farewell, Message};
use corinth_daemon::metrics::{Metrics, MetricsError};
use corinth_identity::{AuthorityError, StateDir, StateError};
use corinth_model::{ClusterName, Instance, PortAllocator, Reason, Version};
use parking_lot::Mutex;
use rustls_pki_types::UnixTime;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::cluster::Cluster;
use crate::exchange::{self, Relations, Session};
use crate::handover::{self, SocketError};
use crate::identity::Signing;
use crate::keep::{Keep, KeepError};
use crate::link::OwnSide;
use crate::link::invitations::Invitations;
use crate::link::inviter::Inviter;
use crate::peering::{OpenedBy, Relation, SessionId};
use crate::plane::{Effect, Now, Plane, Terms};
use crate::routes::{Consumers, Source};
use crate::settings::Settings;
use crate::tables::Change;

mod dial;
mod keeping;
mod roots;
mod serve;

use dial::Dialling;
use keeping::{Turn, Unkept};
use roots::Roots;

pub(crate) use roots::{Stand, Step};

/// How long a goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// What is kept cannot be written.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// A socket cannot be listened on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The authority cannot be used.
    #[error("the authority: {0}")]
    Authority(#[from] AuthorityError),
    /// A metric cannot be registered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// An address of the gateways is none.
    #[error("an address of the gateways: {0}")]
    Address(corinth_api::HostPortError),
    /// The system has no randomness.
    #[error("no random bytes from the operating system")]
    Random,
}

/// A running control plane. It ends when this is dropped; what it has told stays in use everywhere.
pub struct ControlPlane {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the tasks of a control plane share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) consumers: Consumers,
    pub(crate) invitations: Arc<Invitations>,
    pub(crate) inviter: Inviter,
    pub(crate) side: watch::Sender<Arc<OwnSide>>,
    pub(crate) signing: Signing,
    roots: Roots,
    plane: Mutex<Plane>,
    keep: Keep,
    revisions: watch::Sender<u64>,
    sessions: Mutex<Sessions>,
    session_ended: Notify,
    /// This control plane is no more; what it still serves ends.
    ended: watch::Sender<bool>,
    next_session: AtomicU64,
    dialling: Dialling,
    /// Timers may have changed.
    moved: Notify,
    /// Something is to be kept.
    unkept: Mutex<Unkept>,
    to_keep: Notify,
    /// Held by whoever keeps something.
    keep_turn: Arc<tokio::sync::Mutex<()>>,
}

type Sessions = BTreeMap<(ClusterName, SessionId), Session>;

impl ControlPlane {
    /// Makes everything and starts to serve. Needs a tokio runtime.
    ///
    /// # Errors
    /// What is missing; then nothing runs.
    pub fn start(
        settings: Settings,
        cluster: Arc<dyn Cluster>,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let state_dir = StateDir::open(&settings.state_dir)?;
        let state = state_dir.load_or_create(&settings.trust_domain, UnixTime::now())?;
        let keep = Keep::open(&settings.state_dir)?;
        let life = keep.begin(Instance(random()?))?;
        let side = watch::Sender::new(Arc::new(serve::side(&settings, state)?));
        let roots = Roots::open(&settings)?;
        let invitations = Arc::new(Invitations::load(state_dir)?);
        let plane = Plane::new(
            serve::own(&settings, &side.borrow()),
            terms(&settings),
            (
                life.instance,
                Version {
                    epoch: life.epoch,
                    revision: 0,
                },
            ),
            keep.ports(),
            roots.learned()?,
            Instance(random()?),
        );
        let listener = handover::listen(&settings.socket)?;
        let streams = handover::listen(&settings.handover)?;
        let shared = Arc::new(Shared {
            inviter: Inviter::new(
                side.subscribe(),
                Arc::clone(&invitations),
                Arc::clone(&cluster),
                Arc::new(rustls::time_provider::DefaultTimeProvider),
            ),
            settings,
            cluster,
            consumers: Consumers::default(),
            invitations,
            side,
            signing: Signing::new(keep.issued(), metrics)?,
            roots,
            plane: Mutex::new(plane),
            keep,
            revisions: watch::Sender::new(0),
            sessions: Mutex::default(),
            session_ended: Notify::new(),
            ended: watch::Sender::new(false),
            next_session: AtomicU64::new(1),
            dialling: Dialling::default(),
            moved: Notify::new(),
            unkept: Mutex::default(),
            to_keep: Notify::new(),
            keep_turn: Arc::default(),
        });
        crate::observe::register(metrics, &shared)?;
        shared.use_declarations();
        info!(
            cluster = %shared.settings.cluster,
            instance = %life.instance,
            epoch = life.epoch,
            "control plane ready"
        );
        let tasks = run(&shared, listener, streams);
        Ok(Self { shared, tasks })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Tells peers that it stops, keeps what is not kept yet, and ends.
    pub async fn stop(mut self) {
        let peers: Vec<_> = self
            .shared
            .look(|plane| plane.peers().keys().cloned().collect());
        let said = peers
            .iter()
            .map(|peer| self.shared.farewell(peer, Farewell::Stopping));
        futures_util::future::join_all(said).await;
        // What is being gathered and written comes first; what changes meanwhile is written last.
        let _turn = Turn::take(&self.shared).await;
        self.end_tasks().await;
        self.shared.keep_last();
    }
}

impl ControlPlane {
    /// Ends at once and without a word, as if the process had died; when this returns its sockets are free and nothing of what
    /// is kept in the background is written any more.
    pub async fn kill(mut self) {
        self.end_tasks().await;
        drop(Turn::take(&self.shared).await);
    }

    async fn end_tasks(&mut self) {
        self.end();
        for task in self.tasks.drain(..) {
            // It was told to end.
            let _ = task.await;
        }
    }

    fn end(&self) {
        self.shared.ended.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(shared: &Arc<Shared>, listener: UnixListener, streams: UnixListener) -> Vec<JoinHandle<()>> {
    let take = {
        let shared = Arc::clone(shared);
        move |what, stream| Arc::clone(&shared).take(what, stream)
    };
    vec![
        tokio::spawn(serve::grpc(Arc::clone(shared), listener)),
        tokio::spawn(handover::serve(streams, take)),
        tokio::spawn(follow(Arc::clone(shared))),
        tokio::spawn(time(Arc::clone(shared))),
        tokio::spawn(keeping::run(Arc::clone(shared))),
        tokio::spawn(dial::run(Arc::clone(shared))),
    ]
}

/// Follows the declarations.
async fn follow(shared: Arc<Shared>) {
    let mut declared = shared.cluster.declared();
    while declared.changed().await.is_ok() {
        shared.use_declarations();
    }
}

/// Runs the timers of the plane.
async fn time(shared: Arc<Shared>) {
    loop {
        let due = shared.plane.lock().poll_timeout();
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {
                let effects = shared.plane.lock().handle_timeout(now());
                shared.carry_out(effects);
            }
            () = shared.moved.notified() => {}
        }
    }
}

impl Shared {
    /// Looks at what is known.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Plane) -> T) -> T {
        look(&self.plane.lock())
    }

    /// Changes what is known, and carries out what follows.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Plane, Now) -> Vec<Effect>) {
        let effects = change(&mut self.plane.lock(), now());
        self.carry_out(effects);
    }

    /// Changes one relation, if the cluster is linked, and carries out what follows.
    pub(crate) fn relate(&self, cluster: &ClusterName, change: impl FnOnce(&mut Relation, Now)) {
        self.change(|plane, now| {
            let changed = plane.relate(cluster, now, |relation| change(relation, now));
            changed.map(|((), effects)| effects).unwrap_or_default()
        });
    }

    fn use_declarations(&self) {
        let declared = self.cluster.declared().borrow().clone();
        self.change(|plane, now| {
            plane.set_declared(declared, |cluster| self.keep.peer(cluster), now)
        });
        self.dialling.look();
    }

    pub(crate) fn carry_out(&self, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out_one(effect);
        }
        self.moved.notify_one();
    }

    fn carry_out_one(&self, effect: Effect) {
        match effect {
            Effect::Tables(revision) => {
                self.revisions.send_replace(revision);
            }
            Effect::KeepPeer(cluster) => {
                self.unkept.lock().peers.insert(cluster);
                self.to_keep.notify_one();
            }
            Effect::KeepPorts => {
                self.unkept.lock().ports = true;
                self.to_keep.notify_one();
            }
            Effect::ForgetPeer(cluster) => {
                self.unkept.lock().peers.remove(&cluster);
                if let Err(error) = self.keep.forget_peer(&cluster) {
                    warn!(peer = %cluster, %error, "what was kept of a peer stays");
                }
                self.end_sessions(&cluster);
            }
            Effect::EndSession(cluster, session) => {
                if let Some(session) = self.sessions.lock().get(&(cluster, session)) {
                    session.end.send_replace(true);
                }
            }
            Effect::Wake(cluster) => self.wake(&cluster),
            Effect::KeepRoots => {
                self.unkept.lock().roots = true;
                self.to_keep.notify_one();
            }
            Effect::BeginAnew(cluster) => self.begin_anew(&cluster),
            Effect::Condition {
                condition,
                about,
                stands,
            } => {
                let (peer, service) = (about.peer.as_ref(), about.service.as_ref());
                let (peer, service) = (
                    peer.map(ToString::to_string),
                    service.map(ToString::to_string),
                );
                if stands {
                    warn!(
                        code = condition.code(),
                        peer,
                        service,
                        "{}",
                        condition.summary()
                    );
                } else {
                    info!(
                        code = condition.code(),
                        peer,
                        service,
                        "no longer: {}",
                        condition.summary()
                    );
                }
            }
        }
    }

    fn begin_anew(&self, cluster: &ClusterName) {
        match random() {
            Ok(fresh) => self.change(|plane, now| plane.begin_anew(cluster, Instance(fresh), now)),
            Err(error) => {
                warn!(peer = %cluster, %error, "no new instance of our state could be begun");
            }
        }
    }

    fn wake(&self, cluster: &ClusterName) {
        let sessions = self.sessions.lock();
        for ((peer, _), session) in sessions.iter() {
            if peer == cluster {
                session.wake.notify_one();
            }
        }
    }

    fn end_sessions(&self, cluster: &ClusterName) {
        let sessions = self.sessions.lock();
        for ((peer, _), session) in sessions.iter() {
            if peer == cluster {
                session.end.send_replace(true);
            }
        }
    }

    /// Says goodbye to a peer, and waits until it has been sent, but not for ever.
    pub(crate) async fn farewell(&self, cluster: &ClusterName, farewell: Farewell) {
        self.relate(cluster, |relation, _| relation.goodbye(farewell));
        self.end_sessions(cluster);
        let has_sessions = |sessions: &Sessions| sessions.keys().any(|(peer, _)| peer == cluster);
        let is_over = async {
            loop {
                let ended = self.session_ended.notified();
                if !has_sessions(&self.sessions.lock()) {
                    return;
                }
                ended.await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, is_over).await;
    }

    /// A message for another session than the one that asked: the last words of one that is to end.
    fn queue(&self, peer: &ClusterName, session: SessionId, message: Message) {
        if let Some(session) = self.sessions.lock().get(&(peer.clone(), session)) {
            session.last_words.lock().push(message);
            session.wake.notify_one();
        }
    }

    /// Takes a stream that a gateway hands over.
    async fn take(self: Arc<Self>, what: HandOver, stream: UnixStream) {
        let mut ended = self.ended.subscribe();
        let serving = self.serve_stream(what, stream);
        tokio::select! {
            () = serving => {}
            // An error means the same.
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }

    async fn serve_stream(self: Arc<Self>, what: HandOver, stream: UnixStream) {
        match what {
            HandOver::Peering { peer } => {
                let Some(cluster) = self.cluster_of(&peer.trust_domain) else {
                    return;
                };
                exchange::serve(self, cluster, stream).await;
            }
            HandOver::Opened { ticket, peer } => {
                // A stream that was not asked for, or leads to somebody else, is closed.
                let cluster = self.cluster_of(&peer.trust_domain);
                let asked = cluster.filter(|cluster| self.dialling.opened(ticket, cluster));
                if let Some(cluster) = asked {
                    let relations = Arc::clone(&self) as Arc<dyn Relations>;
                    let had_session = exchange::call(relations, cluster.clone(), stream).await;
                    self.dialling.over(ticket);
                    if !had_session {
                        self.back_off(&cluster);
                    }
                }
            }
            HandOver::Joining { source } => {
                let linked = self.inviter.serve(stream, source).await;
                if let Ok(linked) = linked {
                    info!(peer = %linked.cluster, "linked by token");
                }
            }
        }
    }

    fn cluster_of(&self, trust_domain: &corinth_model::TrustDomain) -> Option<ClusterName> {
        self.look(|plane| {
            let mut links = plane.declared().links.iter();
            let found = links.find(|(_, link)| link.trust_domain == *trust_domain);
            found.map(|(cluster, _)| cluster.clone())
        })
    }
}

impl Relations for Shared {
    fn opened(&self, peer: &ClusterName, by: OpenedBy, session: Session) -> Option<SessionId> {
        let id = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        self.sessions.lock().insert((peer.clone(), id), session);
        let now = now();
        let known = self.plane.lock().relate(peer, now, |relation| {
            relation.handle_opened(id, by, now.instant)
        });
        let Some(((), effects)) = known else {
            self.sessions.lock().remove(&(peer.clone(), id));
            return None;
        };
        self.carry_out(effects);
        Some(id)
    }

    fn received(&self, peer: &ClusterName, session: SessionId, message: Message) {
        self.relate(peer, |relation, now| {
            relation.handle_message(session, message, now.instant, now.unix_ms);
        });
    }

    fn malformed(&self, peer: &ClusterName, session: SessionId) {
        self.relate(peer, |relation, now| {
            relation.handle_malformed(session, now.instant)
        });
    }

    fn next(&self, peer: &ClusterName, session: SessionId) -> Option<Message> {
        let mut plane = self.plane.lock();
        while let Some((to, message)) = plane.next_message(peer, now().instant) {
            if to == session {
                return Some(message);
            }
            self.queue(peer, to, message);
        }
        // What was told is confirmed some time later.
        self.moved.notify_one();
        None
    }

    fn closed(&self, peer: &ClusterName, session: SessionId) {
        self.sessions.lock().remove(&(peer.clone(), session));
        self.session_ended.notify_waiters();
        self.relate(peer, |relation, now| {
            relation.handle_closed(session, now.instant)
        });
        self.dialling.look();
    }
}

impl Source for Shared {
    fn revisions(&self) -> watch::Receiver<u64> {
        self.revisions.subscribe()
    }

    fn since(&self, held: Option<(Instance, u64)>) -> Option<Change> {
        self.look(|plane| plane.tables().since(held))
    }

    fn peering_failed(&self, ticket: u64, reason: Reason) {
        self.dial_failed(ticket, reason);
    }

    fn links_changed(&self) {
        self.dialling.look();
    }

    fn closed_changed(&self) {
        let closed = self.consumers.closed();
        self.plane.lock().set_closed_ports(closed, now());
    }

    fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }
}

/// The time, by both clocks.
pub(crate) fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now {
        instant: Instant::now(),
        unix_ms: u64::try_from(since_1970.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
    }
}

fn terms(settings: &Settings) -> Terms {
    Terms {
        ports: PortAllocator {
            range: settings.import_ports,
            taken: settings.taken_ports.clone(),
        },
        streams_per_peer: settings.streams_per_peer,
    }
}

fn random() -> Result<[u8; 16], StartError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(bytes)
}
