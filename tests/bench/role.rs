//! The processes that are measured: this very program, told by its environment to be a control plane, a gateway or both.

use std::env;
use std::io::{Read, Write, stdin, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corinth_control::ControlPlane;
use corinth_control::cluster::Cluster;
use corinth_control::cluster::file::Fixed;
use corinth_daemon::drain::Drain;
use corinth_daemon::logging::{self, LogFormat};
use corinth_daemon::metrics::{Build, Metrics};
use corinth_daemon::ready::Readiness;
use corinth_gateway::settings::Settings;
use corinth_gateway::{Door, Gateway, Surroundings};
use corinth_model::{ClusterName, TrustDomain};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;

pub(crate) const ROLE: &str = "CORINTH_BENCH_ROLE";
pub(crate) const CLUSTER: &str = "CORINTH_BENCH_CLUSTER";
pub(crate) const DIRECTORY: &str = "CORINTH_BENCH_DIRECTORY";
/// Where peers reach the gateway.
pub(crate) const ANNOUNCED: &str = "CORINTH_BENCH_ANNOUNCED";
/// What a process says once it serves, before the address of its tunnel port.
pub(crate) const READY: &str = "ready ";
/// Set to a level to see what the processes log.
const LOG: &str = "CORINTH_BENCH_LOG";

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    ControlPlane,
    Gateway,
    Node,
}

/// What this process is, unless it is the one that measures.
pub(crate) fn ours() -> Option<Role> {
    match env::var(ROLE).ok()?.as_str() {
        "control" => Some(Role::ControlPlane),
        "gateway" => Some(Role::Gateway),
        "node" => Some(Role::Node),
        other => panic!("{other} is no role"),
    }
}

pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().expect("a runtime")
}

impl Role {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::ControlPlane => "control",
            Self::Gateway => "gateway",
            Self::Node => "node",
        }
    }

    /// Runs until standard input ends, as it does with the process that measures.
    pub(crate) fn play(self) {
        if let Ok(level) = env::var(LOG) {
            logging::init(&level, LogFormat::Text).expect("a level");
        }
        // An import port is a listener.
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let most = Rlimit {
            current: maximum,
            maximum,
        };
        setrlimit(Resource::Nofile, most).expect("up to the maximum is allowed");
        let cluster: ClusterName = env::var(CLUSTER).unwrap().parse().unwrap();
        let directory = PathBuf::from(env::var(DIRECTORY).unwrap());
        let runtime = runtime();
        let _runs = runtime.enter();
        let plane = (self != Self::Gateway).then(|| control_plane(&cluster, &directory));
        let gateway = (self != Self::ControlPlane).then(|| gateway(&directory));
        let tunnel = gateway
            .as_ref()
            .and_then(|one| one.address_of(Door::Tunnel));
        let tunnel = tunnel.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let mut out = stdout();
        writeln!(out, "{READY}{tunnel}")
            .and_then(|()| out.flush())
            .unwrap();
        let _ = stdin().read_to_end(&mut Vec::new());
        drop((plane, gateway));
        runtime.shutdown_background();
    }
}

fn metrics() -> Metrics {
    let build = Build {
        binary: "bench",
        version: "0",
    };
    Metrics::new(build).unwrap()
}

fn control_plane(cluster: &ClusterName, directory: &Path) -> ControlPlane {
    let domain = TrustDomain::of_cluster(cluster);
    let mut settings = corinth_control::settings::Settings::new(cluster.clone(), domain, directory);
    settings.gateways = env::var(ANNOUNCED).into_iter().collect();
    let objects = corinth_control::run::objects(&settings, Fixed::default()).unwrap();
    let objects = objects as Arc<dyn Cluster>;
    ControlPlane::start(settings, objects, &metrics()).unwrap()
}

fn gateway(directory: &Path) -> Gateway {
    let file = directory.join("gateway.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let settings = Settings::parse(&text, &file).unwrap();
    let surroundings = Surroundings {
        readiness: Readiness::new(),
        metrics: metrics(),
        drain: Drain::new(),
    };
    Gateway::start(settings, surroundings).unwrap()
}
