//! The server: answers clients, one test at a time or as many as it is told, and survives all of them.
//!
//! One listening port takes everything. A few threads with an event loop each accept connections and look at the
//! first bytes (`front`): HTTP requests and short connections are answered there; what runs long gets threads of
//! its own, under the session of its test (`session`).

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::{
    error::Error,
    spec::{CONNECTIONS_MAX, TestSpec, Workload},
    wire::TestId,
};

mod admission;
mod answer;
mod flows;
mod front;
mod session;
mod shared;
mod work;

use shared::{Event, Shared};

/// What a client may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest test, what is omitted included.
    pub duration: Duration,
    /// Most payload of a test, in both directions together.
    pub bytes: u64,
    /// Most connections of a test.
    pub connections: u32,
    /// Most tests at once.
    pub tests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(3_600),
            bytes: 100 << 40,
            connections: 16_384,
            tests: 1,
        }
    }
}

/// Connections that have a thread each.
const THREADS_MAX: u32 = 4_096;

/// What all connections of a test may hold in memory.
const MEMORY_MAX_BYTES: u64 = 2 << 30;

/// Connections beyond those that were announced: where each request has its own, the next may come before the one
/// before is forgotten.
const OVERLAP_MAX: u32 = 64;

/// How long a server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifetime {
    /// Until it is stopped.
    #[default]
    Unlimited,
    /// Until one test has ended.
    OneTest,
}

/// Something an operator may want to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A test begins.
    Started {
        /// Whose.
        client: SocketAddr,
        /// Which.
        workload: Workload,
        /// Its connections.
        connections: u32,
    },
    /// A test has ended.
    Ended {
        /// Whose.
        client: SocketAddr,
        /// What was wrong with its end.
        fault: Option<String>,
    },
    /// Somebody was sent away.
    Refused {
        /// Who.
        client: SocketAddr,
        /// Why.
        reason: String,
    },
}

/// How a server is to be.
#[derive(Clone)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What clients have to know.
    pub token: Option<String>,
    /// Who may connect; everybody, if empty.
    pub allow: Vec<IpNet>,
    /// What a test may use up.
    pub limits: Limits,
    /// How long it serves.
    pub lifetime: Lifetime,
    /// Processes whose use of the machine is reported beside its own.
    pub watch: Vec<u32>,
    /// Gets what happens.
    pub notify: Arc<dyn Fn(Notice) + Send + Sync>,
}

impl Settings {
    /// A server for everybody who reaches this address, with the usual limits.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            token: None,
            allow: Vec::new(),
            limits: Limits::default(),
            lifetime: Lifetime::Unlimited,
            watch: Vec::new(),
            notify: Arc::new(|_| {}),
        }
    }
}

/// A server that runs until it is dropped or stopped.
pub struct Server {
    address: SocketAddr,
    host: Arc<Host>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

/// What all parts of a server share.
struct Host {
    settings: Settings,
    tests: Mutex<HashMap<TestId, Entry>>,
    running: AtomicUsize,
    conversations: AtomicUsize,
    /// Places for connections on which HTTP is spoken.
    callers: Semaphore,
    sessions: Mutex<Vec<JoinHandle<()>>>,
    datagrams: Arc<UdpSocket>,
    is_stopping: AtomicBool,
    stop: watch::Sender<bool>,
}

/// Where the connections of a test go.
#[derive(Clone)]
struct Entry {
    events: mpsc::SyncSender<Event>,
    shared: Arc<Shared>,
}

/// The place a test takes up among those that may run at once.
struct Place {
    host: Arc<Host>,
}

impl Server {
    /// Listens and serves.
    pub fn start(settings: Settings) -> Result<Self, Error> {
        let listen = settings.listen;
        let cannot = |source| Error::Local {
            what: format!("cannot listen on {listen}"),
            source,
        };
        let listener = front::listen(listen).map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        raise_descriptor_limit();
        let (stop, _) = watch::channel(false);
        let callers = usize::try_from(settings.limits.connections).unwrap_or(usize::MAX);
        let host = Arc::new(Host {
            settings,
            tests: Mutex::default(),
            running: AtomicUsize::new(0),
            conversations: AtomicUsize::new(0),
            callers: Semaphore::new(callers),
            sessions: Mutex::default(),
            datagrams: Arc::new(flows::bind(address).map_err(cannot)?),
            is_stopping: AtomicBool::new(false),
            stop,
        });
        let workers =
            start_workers(&host, &listener).map_err(Error::local("cannot start a thread"))?;
        Ok(Self {
            address,
            host,
            workers: Mutex::new(workers),
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped.
    pub fn wait(&self) {
        let workers = std::mem::take(&mut *self.workers.lock());
        for worker in workers {
            // A worker that panicked has printed why.
            let _ = worker.join();
        }
        let sessions = std::mem::take(&mut *self.host.sessions.lock());
        for worker in sessions {
            // A worker that panicked has printed why.
            let _ = worker.join();
        }
    }

    /// Makes it stop; tests that run are ended.
    pub fn stop(&self) {
        self.host.stop();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.host.stop();
        self.wait();
    }
}

fn start_workers(host: &Arc<Host>, listener: &TcpListener) -> io::Result<Vec<JoinHandle<()>>> {
    let count = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let mut workers = Vec::with_capacity(count);
    for number in 0..count {
        let listener = listener.try_clone()?;
        let host = Arc::clone(host);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let worker = std::thread::Builder::new()
            .name(format!("front-{number}"))
            .spawn(move || runtime.block_on(front::run(host, listener)))?;
        workers.push(worker);
    }
    let host = Arc::clone(host);
    let datagrams = std::thread::Builder::new().name("datagrams".to_owned());
    workers.push(datagrams.spawn(move || flows::receive(&host, &host.datagrams))?);
    Ok(workers)
}

impl Host {
    fn stop(&self) {
        self.is_stopping.store(true, SeqCst);
        self.stop.send_replace(true);
        for entry in self.tests.lock().values() {
            entry.shared.gate.shut();
            // A session with no room for it looks at its gate soon.
            let _ = entry.events.try_send(Event::Stopping);
        }
    }

    fn notify(&self, notice: Notice) {
        (self.settings.notify)(notice);
    }

    /// Whether somebody at this address may connect.
    fn allows(&self, address: IpAddr) -> bool {
        allows(&self.settings.allow, address)
    }

    /// Whether this is what clients have to know.
    fn knows(&self, token: Option<&str>) -> bool {
        match &self.settings.token {
            None => true,
            Some(expected) => is_same(expected, token.unwrap_or_default()),
        }
    }

    fn entry(&self, test: TestId) -> Option<Entry> {
        self.tests.lock().get(&test).cloned()
    }

    /// Takes a place for a test, if there is one.
    fn take_place(self: &Arc<Self>) -> Option<Place> {
        let most = self.settings.limits.tests;
        let taken = self.running.fetch_update(SeqCst, SeqCst, |running| {
            (running < most).then_some(running + 1)
        });
        taken.ok().map(|_| Place {
            host: Arc::clone(self),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.host.running.fetch_sub(1, SeqCst);
        if self.host.settings.lifetime == Lifetime::OneTest {
            self.host.stop();
        }
    }
}

impl Limits {
    /// Why a test may not run here.
    pub fn refusal(&self, spec: &TestSpec) -> Option<String> {
        let asked = Duration::from_millis(spec.duration_ms.saturating_add(spec.omit_ms));
        if asked > self.duration {
            return Some(format!(
                "a test may last {} s, this one wants {} s",
                self.duration.as_secs(),
                asked.as_secs()
            ));
        }
        if spec.total_bytes.is_some_and(|bytes| bytes > self.bytes) {
            return Some(format!("a test may carry {} bytes", self.bytes));
        }
        if let Some(refusal) = memory_refusal(spec) {
            return Some(refusal);
        }
        let connections = crate::role::connections(spec);
        if connections > self.connections.min(CONNECTIONS_MAX) {
            return Some(format!(
                "a test may have {} connections, this one wants {connections}",
                self.connections
            ));
        }
        None
    }

    /// How many connections a test that is not refused may have at once.
    fn connections_of(&self, spec: &TestSpec) -> u32 {
        let announced = crate::role::connections(spec).saturating_add(OVERLAP_MAX);
        announced.min(self.connections)
    }
}

/// A connection holds a request and a response, or a write.
fn memory_refusal(spec: &TestSpec) -> Option<String> {
    let has_threads = match spec.workload {
        Workload::Stream | Workload::Rr | Workload::Udp | Workload::Mix | Workload::Probe => true,
        Workload::Crr | Workload::Idle | Workload::Http => false,
    };
    let connections = crate::role::connections(spec);
    if has_threads && connections > THREADS_MAX {
        return Some(format!(
            "a test of {} may have {THREADS_MAX} connections",
            spec.workload
        ));
    }
    let each = spec.message_bytes.saturating_add(spec.response_bytes);
    let all = each.saturating_mul(connections.into());
    (all > MEMORY_MAX_BYTES).then(|| {
        format!("a test may hold {MEMORY_MAX_BYTES} bytes in memory, this one wants {all}")
    })
}

fn allows(nets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.is_empty() || nets.iter().any(|net| net.contains(&address))
}

/// Takes as long for a wrong token as for a right one of the same length.
fn is_same(expected: &str, given: &str) -> bool {
    use subtle::ConstantTimeEq;
    expected.as_bytes().ct_eq(given.as_bytes()).into()
}

/// Lets this process have as many descriptors as it may.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Refused only where it is not higher anyway.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_right_only_as_a_whole() {
        assert!(is_same("secret", "secret"));
        for wrong in ["", "secre", "secrets", "Secret"] {
            assert!(!is_same("secret", wrong), "{wrong}");
        }
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_still_an_ipv4_client() {
        let nets = ["192.0.2.0/24".parse().unwrap()];
        assert!(allows(&nets, "::ffff:192.0.2.7".parse().unwrap()));
        assert!(!allows(&nets, "192.0.3.7".parse().unwrap()));
        assert!(allows(&[], "192.0.3.7".parse().unwrap()));
    }

    #[test]
    fn a_test_gets_the_connections_it_announced_and_a_few() {
        let limits = Limits {
            connections: 100,
            ..Limits::default()
        };
        let mut spec = TestSpec::new(Workload::Crr, "host");
        for (announced, allowed) in [(1, 1 + OVERLAP_MAX), (90, 100)] {
            spec.connections = announced;
            assert_eq!(limits.connections_of(&spec), allowed);
        }
    }

    #[test]
    fn a_test_above_a_limit_is_refused_in_words() {
        let limits = Limits {
            duration: Duration::from_secs(20),
            bytes: 1_000,
            connections: 3,
            tests: 1,
        };
        let spec = TestSpec::new(Workload::Stream, "host");
        assert_eq!(limits.refusal(&spec), None);
        let too_long = TestSpec {
            omit_ms: 11_000,
            ..spec.clone()
        };
        let too_much = TestSpec {
            total_bytes: Some(1_001),
            ..spec.clone()
        };
        let too_many = TestSpec {
            connections: 4,
            ..spec.clone()
        };
        let both_ways = TestSpec {
            connections: 2,
            direction: crate::spec::Direction::Both,
            ..spec
        };
        let too_large = TestSpec {
            connections: 1_000,
            message_bytes: 16 << 20,
            ..TestSpec::new(Workload::Crr, "host")
        };
        assert!(Limits::default().refusal(&too_large).is_some());
        for spec in [too_long, too_much, too_many, both_ways] {
            assert!(limits.refusal(&spec).is_some(), "{spec:?}");
        }
    }
}
