//! The composition root: makes a gateway out of settings, changes it, stops it.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use corinth_core::{Core, Own};
use corinth_daemon::{
    access_log::{AccessLog, AccessLogError, AccessLogTarget},
    drain::{Drain, Phase},
    metrics::{Metrics, MetricsError},
    ready::Readiness,
};
use corinth_identity::{Denials, SharedBundles, StateDir};
use corinth_model::Tables;
use corinth_transport::{
    Congestions, StreamSink,
    quic::{QuicSettings, QuicTimeouts},
    tls::TlsSettings,
};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::{task::JoinHandle, time::timeout};
use tracing::{info, warn};

use crate::{
    body::{self, Body},
    control::ControlPlane,
    dialers::Dialers,
    feed::{self, Feed},
    flow::{FlowLimits, FlowQuota},
    inbound::Sink,
    keeper,
    leaf::{self, Asker},
    limits::{HalfOpen, HalfOpenLimits},
    listen::{Door, ListenError, Listening},
    node::{self, IdentityError, Node},
    observe,
    pages::ControlRow,
    quic_keys::{self, QuicKeysError},
    record::{Logged, Telemetry},
    settings::{
        AccessScope, AccessTarget, Files, Identity, Mistakes, PortBookError, Settings, load_ports,
        read_file, store_ports,
    },
    shared::Shared,
    steering,
    terminate::Terminators,
    transports::Transports,
    wanted::Wanted,
    worker::Worker,
};

/// What was sent on streams that have ended has this long to arrive at peers, and their connections to end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What peers may have sent by QUIC that nobody has read yet, all of them together. It is memory only where readers stop.
const QUIC_WINDOW_BUDGET_BYTES: u64 = 256 << 20;

/// Why a gateway could not start or change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// The node has no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The secrets for QUIC can be neither read nor made.
    #[error("the secrets for QUIC: {0}")]
    QuicKeys(#[from] QuicKeysError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The import ports could not be remembered.
    #[error(transparent)]
    Ports(#[from] PortBookError),
    /// The access log cannot be written.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// A metric cannot be registered.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A thread could not be started.
    #[error("starting a worker: {0}")]
    Worker(io::Error),
    /// A setting cannot change while the gateway runs.
    #[error("`{0}` cannot change while the gateway runs; restart it")]
    NeedsRestart(&'static str),
}

/// A running gateway. Needs a tokio runtime beside its own workers.
pub struct Gateway {
    body: Arc<Body>,
    node: Node,
    readiness: Readiness,
    /// What is known of the control plane, where there is one.
    feed: Option<Arc<Feed>>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the process around a gateway provides.
pub struct Surroundings {
    /// Tells whether the process is ready.
    pub readiness: Readiness,
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// The phases of stopping.
    pub drain: Drain,
}

impl Gateway {
    /// Makes everything and starts to serve.
    pub fn start(mut settings: Settings, surroundings: Surroundings) -> Result<Self, StartError> {
        let Surroundings {
            readiness,
            metrics,
            drain,
        } = surroundings;
        let pending = readiness.register("gateway");
        let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
        let now = rustls::pki_types::UnixTime::now();
        let files = settings.load(read_file)?;
        let node = Node::load(&settings, &files, now)?;
        let wanted = wanted(&mut settings, &files, 1)?;
        let bundles = SharedBundles::default();
        let denials = Denials::default();

        let sink = Arc::new(Sink::default());
        let shared = Arc::new(Shared::new(
            core(&settings),
            Arc::new(Tables::empty(settings.cluster.clone())),
            transports(&settings, &node, &bundles, &denials, &clock, &sink)?,
            telemetry(&settings, &metrics)?,
            HalfOpen::new(HalfOpenLimits::within(
                settings.limits.unauthenticated_connections,
                settings.limits.per_prefix_connections,
                settings.limits.unauthenticated_bytes,
            )),
            FlowQuota::new(FlowLimits::new(
                settings.limits.flows,
                settings.limits.flows_per_client,
            )),
            Terminators::new(
                Arc::clone(&node.own),
                bundles.clone(),
                denials.clone(),
                Arc::clone(&clock),
            ),
            drain,
            body::times(&settings),
            denials,
            settings.control.as_ref().map(ControlPlane::new),
        ));
        sink.connect(&shared);
        observe::register(&metrics, &shared, &node.own)?;
        let workers = (0..settings.workers as usize)
            .map(|number| Worker::start(number, Arc::clone(&shared)))
            .collect::<io::Result<Vec<_>>>()
            .map_err(StartError::Worker)?;
        let mut tasks = vec![
            tokio::spawn(keeper::observe_links(Arc::clone(&shared))),
            tokio::spawn(keeper::run_core(Arc::clone(&shared))),
            tokio::spawn(steering::run(Arc::clone(&shared))),
        ];
        if node.authority.is_some() {
            tasks.push(tokio::spawn(keeper::renew(Arc::clone(&node.own), clock)));
        }
        if let (Identity::Control, Some(control)) = (&settings.identity, &settings.control) {
            let state_dir = StateDir::open(&settings.state_dir).map_err(IdentityError::State)?;
            let asker = Asker::new(Arc::clone(&node.own), state_dir, control, &metrics)?;
            let first = leaf::pending(&node.own, &control.socket, now);
            let first = first.map(|why| readiness.register(&why));
            tasks.push(tokio::spawn(
                asker.run(first, Arc::new(DefaultTimeProvider)),
            ));
        }
        let dialers = Dialers::new(readiness.register("links"));
        let body = Arc::new(Body::new(
            shared,
            workers,
            bundles,
            settings.clone(),
            dialers,
        ));
        body.change(None, wanted)?;
        let feed = match &settings.control {
            Some(control) => {
                let feed = Feed::new(Arc::clone(&body), control, &settings, &metrics)?;
                tasks.extend(Arc::clone(&feed).start(readiness.register(feed::PENDING)));
                Some(feed)
            }
            None => None,
        };
        pending.done();
        Ok(Self {
            body,
            node,
            readiness,
            feed,
            tasks,
        })
    }

    /// Changes to other settings without dropping a connection that they still allow. On error
    /// everything stays as it was.
    pub fn apply(&self, mut settings: Settings) -> Result<(), StartError> {
        unchangeable(&self.body.settings(), &settings)?;
        let files = settings.load(read_file)?;
        let revision = self.body.next_revision();
        let wanted = wanted(&mut settings, &files, revision)?;
        node::take_new_leaf(&self.node.own, &files)?;
        for closed in self.body.change(Some(settings), wanted)? {
            warn!(port = %closed.port, error = %closed.error, "an import port stays closed");
        }
        info!(revision, "configuration applied");
        Ok(())
    }

    /// Where it listens, as bound.
    pub fn listening(&self) -> Vec<Listening> {
        self.body.listening()
    }

    /// The address bound for `door`, the first if there are several.
    pub fn address_of(&self, door: Door) -> Option<SocketAddr> {
        self.listening()
            .into_iter()
            .find(|open| open.door == door)
            .map(|open| open.address)
    }

    /// The roots to hand to peers, PEM.
    pub fn bundle_pem(&self) -> &str {
        &self.node.bundle_pem
    }

    /// When our certificate expires, Unix seconds; 0 while there is none.
    pub fn certificate_not_after(&self) -> u64 {
        self.node.own.not_after().as_secs()
    }

    /// How long our certificate holds, in words.
    pub fn certificate(&self) -> String {
        leaf::words(&self.node.own, rustls::pki_types::UnixTime::now())
    }

    /// What pages show.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.body.shared
    }

    /// What is known of the control plane; `None` where the gateway follows its file alone.
    pub fn control(&self) -> Option<ControlRow> {
        self.feed.as_ref().map(|feed| feed.row())
    }

    /// The settings in use.
    pub fn settings(&self) -> Settings {
        self.body.settings()
    }

    /// Stops in order: not ready, peers told, listeners closed after the delay, streams let end within the
    /// limit, the rest cut. Ends early when the drain is terminated meanwhile.
    pub async fn stop(&self) {
        let shared = &self.body.shared;
        let drain = shared.drain.clone();
        let limits = self.body.drain();
        self.readiness.drain();
        drain.start();
        shared.transports.drain();
        // Load balancers need this long to send nobody here any more.
        let _ = timeout(limits.delay, drain.reached(Phase::Terminating)).await;
        for closed in self.body.close_all() {
            let _ = closed.await;
        }
        let left = drain.wait_idle_for(limits.limit).await;
        if left > 0 && drain.phase() < Phase::Terminating {
            info!(left, "drain limit reached; what is still open is cut");
            shared.drain_limit_is_reached.store(true, Relaxed);
        }
        drain.terminate();
        shared.core.lock().close(Instant::now());
        // A link that we close is not to be dialled again.
        self.body.dial_nobody();
        // Streams see their link close and say that we are ending.
        shared.transports.close_for(shared.termination());
        let _ = timeout(Duration::from_secs(1), drain.wait_idle()).await;
        // What peers are told last leaves with the workers' next turns.
        let _ = timeout(LAST_WORDS, shared.transports.quic.ended()).await;
        shared.telemetry.flush();
        if let Some(feed) = &self.feed {
            Arc::clone(feed).finish().await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.body.shared.drain.terminate();
        let shared = &self.body.shared;
        shared.transports.close_for(shared.termination());
    }
}

fn core(settings: &Settings) -> Core {
    let own = Own {
        cluster: settings.cluster.clone(),
        locality: settings.locality.clone(),
    };
    Core::new(
        corinth_core::Settings {
            flows_per_peer: settings.limits.flows_per_peer,
            ..corinth_core::Settings::default()
        },
        own,
        fastrand::u64(..),
        Instant::now(),
    )
}

fn transports(
    settings: &Settings,
    node: &Node,
    bundles: &SharedBundles,
    denials: &Denials,
    clock: &Arc<dyn TimeProvider>,
    sink: &Arc<Sink>,
) -> Result<Transports, QuicKeysError> {
    let timeouts = &settings.timeouts;
    let slots = u16::try_from(settings.slots).unwrap_or(u16::MAX);
    // One for each stream, and some to spare for those that wait.
    let streams_per_peer = settings.limits.streams_per_peer.saturating_add(64);
    let congestions = Congestions::default();
    let tls = TlsSettings {
        own: Arc::clone(&node.own),
        bundles: bundles.clone(),
        denials: denials.clone(),
        clock: Arc::clone(clock),
        timeouts: corinth_transport::tls::Timeouts {
            connect: timeouts.connect,
            handshake: timeouts.tls_handshake,
            first_frame: timeouts.first_frame,
            ..Default::default()
        },
        slots,
        connections_per_peer: streams_per_peer,
        congestions: congestions.clone(),
    };
    let state_dir = StateDir::open(&settings.state_dir)?;
    let quic = QuicSettings {
        own: Arc::clone(&node.own),
        bundles: bundles.clone(),
        denials: denials.clone(),
        clock: Arc::clone(clock),
        timeouts: QuicTimeouts {
            connect: timeouts.connect,
            handshake: timeouts.tls_handshake,
            first_frame: timeouts.first_frame,
            ..Default::default()
        },
        slots,
        streams_per_peer,
        congestions,
        window_budget_bytes: QUIC_WINDOW_BUDGET_BYTES,
        keys: quic_keys::load_or_make(&state_dir, &settings.slot, settings.shared_key.as_deref())?,
    };
    let sink = Arc::clone(sink) as Arc<dyn StreamSink>;
    Ok(Transports::new(tls, quic, &sink))
}

fn telemetry(settings: &Settings, metrics: &Metrics) -> Result<Telemetry, StartError> {
    let target = match &settings.access_log.target {
        AccessTarget::Stdout => AccessLogTarget::Stdout,
        AccessTarget::Stderr => AccessLogTarget::Stderr,
        AccessTarget::Off => AccessLogTarget::Off,
        AccessTarget::File(path) => AccessLogTarget::File(path.to_path_buf()),
    };
    let logged = match settings.access_log.what {
        AccessScope::All => Logged::All,
        AccessScope::Errors => Logged::Errors,
    };
    Ok(Telemetry::new(
        metrics,
        AccessLog::open(target, metrics)?,
        logged,
    )?)
}

/// What the file says is to be carried out; `None` where the control plane says it.
fn wanted(
    settings: &mut Settings,
    files: &Files,
    revision: u64,
) -> Result<Option<Wanted>, StartError> {
    if settings.control.is_some() {
        return Ok(None);
    }
    remember_ports(settings)?;
    Wanted::of_settings(settings, files, revision).map(Some)
}

/// Imports without a port get one, which is remembered before it is used.
fn remember_ports(settings: &mut Settings) -> Result<(), StartError> {
    let book = load_ports(&settings.state_dir)?;
    let next = settings.assign_ports(&book, SystemTime::now())?;
    Ok(store_ports(&next, &settings.state_dir)?)
}

/// What a running gateway is made of cannot change under it: better refused than silently without effect.
fn unchangeable(old: &Settings, new: &Settings) -> Result<(), StartError> {
    let changed = [
        ("cluster", old.cluster != new.cluster),
        ("trustDomain", old.trust_domain != new.trust_domain),
        ("slot", old.slot != new.slot),
        ("slots", old.slots != new.slots),
        ("locality", old.locality != new.locality),
        ("stateDir", old.state_dir != new.state_dir),
        ("control", old.control != new.control),
        ("workers", old.workers != new.workers),
        ("listen.admin", old.listen.admin != new.listen.admin),
        ("identity", differ(&old.identity, &new.identity)),
        ("limits", differ(&old.limits, &new.limits)),
        (
            "timeouts.firstFrame",
            old.timeouts.first_frame != new.timeouts.first_frame,
        ),
        (
            "timeouts.tlsHandshake",
            old.timeouts.tls_handshake != new.timeouts.tls_handshake,
        ),
        (
            "timeouts.connect",
            old.timeouts.connect != new.timeouts.connect,
        ),
        ("gateways", old.gateways != new.gateways),
        ("accessLog", differ(&old.access_log, &new.access_log)),
        ("log", differ(&old.log, &new.log)),
    ];
    match changed.into_iter().find(|(_, is_changed)| *is_changed) {
        Some((name, _)) => Err(StartError::NeedsRestart(name)),
        None => Ok(()),
    }
}

/// Whether two sections read differently.
fn differ(old: &impl serde::Serialize, new: &impl serde::Serialize) -> bool {
    match (serde_json::to_value(old), serde_json::to_value(new)) {
        (Ok(old), Ok(new)) => old != new,
        (Err(_), _) | (_, Err(_)) => true,
    }
}
