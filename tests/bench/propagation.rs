//! How long after `corinth export` a service can be used at the peers, while everybody else changes things too.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::child::Process;
use crate::cluster::{Admin, Cluster, Service, at, imports_of};
use crate::echo;
use crate::figures::{Figures, Times, shown};
use crate::relay::Relay;
use crate::role::Role;

const CLUSTERS: u8 = 5;
/// What each of them exports; the others all accept it.
const SERVICES: usize = 1_000;
const ROUND_TRIP: Duration = Duration::from_millis(60);
/// Each cluster exports a service or takes one back this often.
const CHURN: Duration = Duration::from_secs(1);
/// Services of a cluster of which that is true in turn.
const CHURNING: usize = 10;
/// Most exports that are watched, each at four peers, and for how long.
const EXPORTS: usize = 75;
const WATCHED_FOR: Duration = Duration::from_secs(75);
/// A watched export that is not usable by then is a failure.
const LATE: Duration = Duration::from_secs(20);
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(2);
const PROBE_PORT: u16 = 28_001;

const P50_MAX: Duration = Duration::from_millis(200);
const P99_MAX: Duration = Duration::from_secs(1);

/// When a watched export had got how far, since it was asked for.
struct Seen {
    /// The import port takes connections: the route is in the table in use.
    listens: Duration,
    /// A connection has been answered by the endpoint.
    answers: Duration,
}

pub(crate) async fn measure(figures: &mut Figures) {
    let begun = Instant::now();
    let endpoint = echo::serve().await;
    let mut relays = Vec::new();
    for _ in 0..CLUSTERS {
        relays.push(Relay::listen(ROUND_TRIP).await);
    }
    let clusters: Vec<Cluster> = (0..CLUSTERS)
        .zip(&relays)
        .map(|(number, relay)| Cluster::new(&format!("c{number}"), Some(relay.address)))
        .collect();
    let mut processes = Vec::new();
    for (number, (cluster, relay)) in (0..CLUSTERS).zip(clusters.iter().zip(&relays)) {
        let services: Vec<Service> = (0..SERVICES)
            .map(|n| Service {
                name: busy(number, n),
                endpoint,
                is_exported: true,
            })
            .chain([Service {
                name: watched(number),
                endpoint,
                is_exported: false,
            }])
            .collect();
        let others = (0..CLUSTERS).filter(|other| *other != number);
        let imports: Vec<(String, u16)> = others
            .map(|other| (watched(other), PROBE_PORT + u16::from(other)))
            .collect();
        let peers = clusters.iter().filter(|peer| peer.name != cluster.name);
        cluster.declare(peers, &services, &imports);
        cluster.configure(imports_of(number + 1));
        let (process, tunnel) = Process::start(Role::Node, cluster);
        relay.lead_to(tunnel);
        processes.push(process);
    }
    let admins: Vec<Admin> = clusters.iter().map(Cluster::admin).collect();
    for admin in &admins {
        until_told(admin.clone()).await;
    }
    let told = begun.elapsed();

    let churning = (0..CLUSTERS).zip(&admins);
    let churning: Vec<_> = churning
        .map(|(number, admin)| tokio::spawn(churn(number, admin.clone())))
        .collect();
    let mut written = Vec::new();
    let mut seen = Vec::new();
    let watching = Instant::now();
    for turn in (0..EXPORTS).take_while(|_| watching.elapsed() < WATCHED_FOR) {
        let number = u8::try_from(turn % usize::from(CLUSTERS)).unwrap();
        watch_one(
            number,
            admins[usize::from(number)].clone(),
            &mut written,
            &mut seen,
        )
        .await;
    }
    churning.iter().for_each(tokio::task::JoinHandle::abort);

    let listens = Times::new(seen.iter().map(|seen| seen.listens).collect());
    let answers = Times::new(seen.iter().map(|seen| seen.answers).collect());
    figures.head(&format!(
        "propagation: {CLUSTERS} clusters, {SERVICES} services each, round trip {} by a relay over loopback, each cluster \
         changes an export every {}",
        shown(ROUND_TRIP),
        shown(CHURN)
    ));
    figures.note("all started, linked and told after", &shown(told));
    figures.times("the export is written after", &Times::new(written));
    figures.times("a peer's import port takes connections after", &listens);
    figures.times("a connection there is answered after", &answers);
    let (p50, p99) = (answers.permille(500), answers.permille(990));
    figures.promise("p50 of that", &shown(p50), "at most 200 ms", p50 <= P50_MAX);
    figures.promise("p99 of that", &shown(p99), "at most 1 s", p99 <= P99_MAX);
}

fn busy(cluster: u8, n: usize) -> String {
    format!("s{n:04}.c{cluster}")
}

fn watched(cluster: u8) -> String {
    format!("watched.c{cluster}")
}

/// Until a cluster has the services of all others, and its gateway routes to them.
async fn until_told(mut admin: Admin) {
    let routes = SERVICES * usize::from(CLUSTERS);
    let all = async {
        loop {
            let status = admin.status().await;
            let has_all = status["routes"].as_u64() >= Some(routes as u64);
            let consumers = status["consumers"].as_array();
            let is_applied = consumers
                .is_some_and(|all| all.iter().any(|one| one["applied"] == status["revision"]));
            if has_all && is_applied {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(90), all)
        .await
        .expect("all clusters are told in time");
}

/// Takes exports back and makes them again, one every so often.
async fn churn(cluster: u8, mut admin: Admin) {
    let mut tick = interval(CHURN);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in (0..CHURNING).cycle() {
        tick.tick().await;
        admin.unexport(&busy(cluster, n)).await;
        tick.tick().await;
        admin.export(&busy(cluster, n)).await;
    }
}

/// Exports a service, sees when every peer can use it, and takes it back.
async fn watch_one(
    number: u8,
    mut admin: Admin,
    written: &mut Vec<Duration>,
    seen: &mut Vec<Seen>,
) {
    let asked_at = Instant::now();
    let others = || (0..CLUSTERS).filter(|other| *other != number);
    let watching: Vec<_> = others()
        .map(|other| {
            let port = at(imports_of(other + 1), PROBE_PORT + u16::from(number));
            tokio::spawn(timeout(LATE, until_usable(port, asked_at)))
        })
        .collect();
    admin.export(&watched(number)).await;
    written.push(asked_at.elapsed());
    for watching in watching {
        seen.push(watching.await.unwrap().expect("it can be used in time"));
    }
    admin.unexport(&watched(number)).await;
    for other in others() {
        let port = at(imports_of(other + 1), PROBE_PORT + u16::from(number));
        let gone = async {
            while TcpStream::connect(port).await.is_ok() {
                sleep(AGAIN).await;
            }
        };
        timeout(LATE, gone).await.expect("it is gone in time");
    }
}

async fn until_usable(port: std::net::SocketAddr, asked_at: Instant) -> Seen {
    let mut listens = None;
    loop {
        if let Ok(mut socket) = TcpStream::connect(port).await {
            listens.get_or_insert_with(|| asked_at.elapsed());
            let mut back = [0; 5];
            let is_answered = socket.write_all(b"hello").await.is_ok()
                && socket.read_exact(&mut back).await.is_ok();
            if is_answered {
                let answers = asked_at.elapsed();
                let listens = listens.unwrap_or(answers);
                return Seen { listens, answers };
            }
        }
        sleep(AGAIN).await;
    }
}
