//! The composition root: makes a gateway out of settings, changes it, stops it.

use std::{
    collections::{BTreeMap, BTreeSet},
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
use corinth_identity::{Denials, SharedBundles};
use corinth_model::{ClusterName, PortNumber, Tables};
use corinth_transport::tls::{TlsSettings, TlsTransport};
use parking_lot::Mutex;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tracing::info;

use crate::{
    dialers::{Dialers, Dialled},
    inbound::Sink,
    keeper,
    limits::{HalfOpen, HalfOpenLimits},
    listen::{self, Door, ListenError, Listening},
    node::{self, IdentityError, Node},
    observe,
    record::{Logged, Telemetry},
    settings::{
        AccessScope, AccessTarget, Mistakes, PortBookError, Settings, load_ports, read_file,
        store_ports,
    },
    shared::{Shared, Times},
    terminate::Terminators,
    worker::{Order, Worker},
};

/// Why a gateway could not start or change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// The node has no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
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
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    node: Node,
    bundles: SharedBundles,
    readiness: Readiness,
    changing: Mutex<Changing>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a new configuration changes.
struct Changing {
    settings: Settings,
    dialers: Dialers,
    /// What is listened on: as it was asked for, and as it was bound.
    listening: BTreeMap<Listening, SocketAddr>,
    revision: u64,
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
        remember_ports(&mut settings)?;
        let tables = Arc::new(settings.tables(1)?);
        let bundles = SharedBundles::new(node::bundles(&settings, &files)?);
        let denials = Denials::default();

        let sink = Arc::new(Sink::default());
        let shared = Arc::new(Shared::new(
            core(&settings, &tables),
            Arc::clone(&tables),
            transport(&settings, &node, &bundles, &denials, &clock, &sink),
            telemetry(&settings, &metrics)?,
            HalfOpen::new(HalfOpenLimits::within(
                settings.limits.unauthenticated_connections,
                settings.limits.per_prefix_connections,
                settings.limits.unauthenticated_bytes,
            )),
            Terminators::new(
                Arc::clone(&node.own),
                bundles.clone(),
                denials.clone(),
                Arc::clone(&clock),
            ),
            drain,
            times(&settings),
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
        ];
        if node.authority.is_some() {
            tasks.push(tokio::spawn(keeper::renew(Arc::clone(&node.own), clock)));
        }
        let gateway = Self {
            shared,
            workers,
            node,
            bundles,
            readiness,
            changing: Mutex::new(Changing {
                settings: settings.clone(),
                dialers: Dialers::default(),
                listening: BTreeMap::new(),
                revision: 0,
            }),
            tasks,
        };
        gateway.use_tables(&settings, tables, || {})?;
        pending.done();
        Ok(gateway)
    }

    /// Changes to other settings without dropping a connection that they still allow. On error
    /// everything stays as it was.
    pub fn apply(&self, mut settings: Settings) -> Result<(), StartError> {
        unchangeable(&self.changing.lock().settings, &settings)?;
        let files = settings.load(read_file)?;
        remember_ports(&mut settings)?;
        let revision = self.changing.lock().revision + 1;
        let tables = Arc::new(settings.tables(revision)?);
        let bundles = node::bundles(&settings, &files)?;
        node::take_new_leaf(&self.node.own, &files)?;
        self.use_tables(&settings, tables, || {
            self.bundles.replace(bundles);
            self.shared.set_times(times(&settings));
        })?;
        info!(revision, "configuration applied");
        Ok(())
    }

    /// Opens what is new, which can fail, then changes what cannot: `swap`, the tables, what is gone.
    fn use_tables(
        &self,
        settings: &Settings,
        tables: Arc<Tables>,
        swap: impl FnOnce(),
    ) -> Result<(), StartError> {
        let mut changing = self.changing.lock();
        let wanted = doors(settings);
        let opened = self.open_missing(&wanted, &changing.listening)?;
        changing.listening.extend(opened);

        swap();
        let old = self
            .shared
            .core
            .lock()
            .apply(Arc::clone(&tables), Instant::now());
        self.shared.tables.send_replace(Arc::clone(&tables));
        drop(old);
        keeper::carry_out(&self.shared);
        changing.dialers.set(&self.shared, dialled(settings));

        let gone: Vec<_> = changing
            .listening
            .keys()
            .filter(|door| !wanted.contains(door))
            .copied()
            .collect();
        for door in gone {
            if let Some(bound) = changing.listening.remove(&door) {
                self.close_listener(bound);
            }
        }
        changing.revision = tables.revision;
        changing.settings = settings.clone();
        Ok(())
    }

    fn open_missing(
        &self,
        wanted: &BTreeSet<Listening>,
        open: &BTreeMap<Listening, SocketAddr>,
    ) -> Result<BTreeMap<Listening, SocketAddr>, ListenError> {
        let mut opened = BTreeMap::new();
        for door in wanted.iter().filter(|door| !open.contains_key(door)) {
            let (bound, listeners) = listen::bind(door.address, door.door, self.workers.len())?;
            opened.insert(*door, (bound, listeners));
        }
        let opened = opened.into_iter().map(|(door, (bound, listeners))| {
            for (worker, listener) in self.workers.iter().zip(listeners) {
                let listening = Listening {
                    address: bound,
                    ..door
                };
                worker.tell(Order::Open(listening, listener));
            }
            (door, bound)
        });
        Ok(opened.collect())
    }

    /// Returns what tells when every worker has emptied its queue.
    fn close_listener(&self, address: SocketAddr) -> Vec<oneshot::Receiver<()>> {
        self.workers
            .iter()
            .map(|worker| {
                let (done, closed) = oneshot::channel();
                worker.tell(Order::Close(address, done));
                closed
            })
            .collect()
    }

    /// Where it listens, as bound.
    pub fn listening(&self) -> Vec<Listening> {
        let changing = self.changing.lock();
        let bound = changing.listening.iter();
        bound
            .map(|(door, bound)| Listening {
                address: *bound,
                ..*door
            })
            .collect()
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

    /// When our certificate expires, Unix seconds.
    pub fn certificate_not_after(&self) -> u64 {
        self.node.own.not_after().as_secs()
    }

    /// What pages show.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The settings in use.
    pub fn settings(&self) -> Settings {
        self.changing.lock().settings.clone()
    }

    /// Stops in order: not ready, peers told, listeners closed after the delay, streams let end within the
    /// limit, the rest cut. Ends early when the drain is terminated meanwhile.
    pub async fn stop(&self) {
        let drain = self.shared.drain.clone();
        let limits = self.changing.lock().settings.drain;
        self.readiness.drain();
        drain.start();
        self.shared.transport.drain();
        // Load balancers need this long to send nobody here any more.
        let _ = timeout(limits.delay, drain.reached(Phase::Terminating)).await;
        let listening = std::mem::take(&mut self.changing.lock().listening);
        for closed in listening
            .into_values()
            .flat_map(|bound| self.close_listener(bound))
        {
            let _ = closed.await;
        }
        let left = drain.wait_idle_for(limits.limit).await;
        if left > 0 && drain.phase() < Phase::Terminating {
            info!(left, "drain limit reached; what is still open is cut");
            self.shared.drain_limit_is_reached.store(true, Relaxed);
        }
        drain.terminate();
        self.shared.core.lock().close(Instant::now());
        // Streams see their link close and say that we are ending.
        self.shared.transport.close();
        let _ = timeout(Duration::from_secs(1), drain.wait_idle()).await;
        self.shared.telemetry.flush();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.drain.terminate();
        self.shared.transport.close();
    }
}

fn core(settings: &Settings, tables: &Tables) -> Core {
    let own = Own {
        cluster: tables.own.clone(),
        locality: settings.locality.clone(),
    };
    Core::new(
        corinth_core::Settings::default(),
        own,
        fastrand::u64(..),
        Instant::now(),
    )
}

fn transport(
    settings: &Settings,
    node: &Node,
    bundles: &SharedBundles,
    denials: &Denials,
    clock: &Arc<dyn TimeProvider>,
    sink: &Arc<Sink>,
) -> TlsTransport {
    let timeouts = corinth_transport::tls::Timeouts {
        connect: settings.timeouts.connect,
        handshake: settings.timeouts.tls_handshake,
        first_frame: settings.timeouts.first_frame,
        ..Default::default()
    };
    TlsTransport::new(
        TlsSettings {
            own: Arc::clone(&node.own),
            bundles: bundles.clone(),
            denials: denials.clone(),
            clock: Arc::clone(clock),
            timeouts,
            slots: u16::try_from(settings.slots).unwrap_or(u16::MAX),
            // One for each stream, and some to spare for those that wait.
            connections_per_peer: settings.limits.streams_per_peer.saturating_add(64),
        },
        Arc::clone(sink) as Arc<dyn corinth_transport::StreamSink>,
    )
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

fn times(settings: &Settings) -> Times {
    let timeouts = &settings.timeouts;
    Times {
        request: timeouts.tls_handshake,
        connect: timeouts.connect,
        open: timeouts.open,
        idle: timeouts.idle,
    }
}

/// Imports without a port get one, which is remembered before it is used.
fn remember_ports(settings: &mut Settings) -> Result<(), StartError> {
    let book = load_ports(&settings.state_dir)?;
    let next = settings.assign_ports(&book, SystemTime::now())?;
    Ok(store_ports(&next, &settings.state_dir)?)
}

/// Everything that is to be listened on.
fn doors(settings: &Settings) -> BTreeSet<Listening> {
    let listen = &settings.listen;
    let one =
        |address: Option<SocketAddr>, door| address.map(|address| Listening { address, door });
    let fixed = [
        one(Some(listen.tunnel), Door::Tunnel),
        one(listen.sni, Door::Sni),
        one(listen.socks, Door::Socks),
        one(listen.connect, Door::Connect),
    ];
    let imports = settings
        .imports
        .iter()
        .filter_map(|import| import.import_port);
    let imports = imports.flat_map(|port: PortNumber| {
        let on = move |ip| Listening {
            address: SocketAddr::new(ip, port.get()),
            door: Door::Import(port),
        };
        listen.imports.iter().copied().map(on)
    });
    fixed.into_iter().flatten().chain(imports).collect()
}

fn dialled(settings: &Settings) -> BTreeMap<ClusterName, Dialled> {
    let peers = settings
        .peers
        .iter()
        .filter(|peer| !peer.addresses.is_empty());
    let dialled = peers.map(|peer| {
        let addresses = peer.addresses.iter().map(ToString::to_string).collect();
        (
            peer.name.clone(),
            Dialled {
                trust_domain: peer.trust_domain.clone(),
                addresses,
            },
        )
    });
    dialled.collect()
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
