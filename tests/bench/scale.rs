//! What a hundred thousand routes cost: memory and time of the control plane, and what callers notice of new tables.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::child::Process;
use crate::cluster::{Admin, Cluster, Service, at, imports_of};
use crate::echo;
use crate::figures::{Figures, Times, shown};
use crate::role::Role;
use crate::teller::{Teller, keep_time};

const PEERS: usize = 10;
/// As many as one peer may tell.
const SERVICES: usize = 10_000;
const OWN_PORT: u16 = 28_000;
/// Beyond this it has not come about.
const LATE: Duration = Duration::from_secs(100);

/// Turns with and without changes, in between each other.
const TURNS: usize = 12;
/// Of so many ratios in their order, the median of all there could be lies between these two 96 times in 100.
const UNSURE: [usize; 2] = [2, 9];
const TURN: Duration = Duration::from_millis(2_500);
/// A service changes this often, in those turns in which one does.
const CHANGE: Duration = Duration::from_millis(100);
/// Requests go out on a schedule, each on a connection of its own.
const REQUEST: Duration = Duration::from_millis(5);

const RESIDENT_MAX: u64 = 300_000_000;
const RECONNECT_MAX_BYTES: u64 = 10_000;

pub(crate) async fn measure(figures: &mut Figures) {
    let endpoint = echo::serve().await;
    let hub = Cluster::new("hub", None);
    let peers: Vec<Cluster> = (0..PEERS)
        .map(|n| Cluster::new(&format!("p{n}"), None))
        .collect();
    let own = Service {
        name: "echo.hub".to_owned(),
        endpoint,
        is_exported: true,
    };
    hub.declare(&peers, &[own], &[("echo.hub".to_owned(), OWN_PORT)]);
    hub.configure(imports_of(1));
    let (plane, _) = Process::start(Role::ControlPlane, &hub);
    let (gateway, _) = Process::start(Role::Gateway, &hub);
    let mut admin = hub.admin();
    in_use(&mut admin, 1).await;
    let empty = plane.resident();

    let mut tellers: Vec<Teller> = peers
        .iter()
        .map(|peer| Teller::new(&peer.name, &hub.name, SERVICES))
        .collect();
    let timing = keep_time(&tellers);
    let begun = Instant::now();
    for teller in &mut tellers {
        teller.connect(&hub.handover()).await;
    }
    for teller in &tellers {
        timeout(LATE, teller.until_in_step())
            .await
            .expect("everything is taken in time");
    }
    let taken = begun.elapsed();
    in_use(&mut admin, PEERS * SERVICES + 1).await;
    let in_use_after = begun.elapsed();
    // What is kept on disk is written some time later.
    sleep(Duration::from_secs(3)).await;
    let (now, most) = plane.resident();
    let reconnect = reconnect(&mut tellers[0], &hub).await;

    figures.head(&format!(
        "scale: {} routes of {PEERS} peers",
        PEERS * SERVICES
    ));
    figures.note("all told to the control plane after", &shown(taken));
    figures.note("all in use at the gateway after", &shown(in_use_after));
    figures.promise(
        "resident memory of the control plane",
        &format!(
            "{}, {} at its most, {} before",
            megabytes(now),
            megabytes(most),
            megabytes(empty.0)
        ),
        "at most 300 MB",
        now <= RESIDENT_MAX,
    );
    figures.note(
        "resident memory of the gateway",
        &megabytes(gateway.resident().0),
    );
    figures.promise(
        "bytes of a reconnect with nothing changed",
        &reconnect.to_string(),
        "less than 10 KB",
        reconnect < RECONNECT_MAX_BYTES,
    );
    swaps(figures, &mut tellers[1], &mut admin).await;
    timing.abort();
}

/// Until there are so many routes, and the gateway has them in use. The revision.
async fn in_use(admin: &mut Admin, routes: usize) -> u64 {
    let all = async {
        loop {
            let status = admin.status().await;
            let revision = status["revision"].as_u64().unwrap();
            let consumers = status["consumers"].as_array().unwrap();
            let is_applied = consumers.iter().any(|one| one["applied"] == revision);
            if status["routes"] == routes && is_applied {
                return revision;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(LATE, all)
        .await
        .expect("the routes are in use in time")
}

/// What a stream carries, both ways, until both sides know that nothing has changed.
async fn reconnect(teller: &mut Teller, hub: &Cluster) -> u64 {
    teller.cut().await;
    teller.connect(&hub.handover()).await;
    timeout(LATE, teller.until_in_step())
        .await
        .expect("a peer can come back");
    teller.bytes()
}

/// Requests through the gateway while tables are changed, and while they are not.
async fn swaps(figures: &mut Figures, teller: &mut Teller, admin: &mut Admin) {
    let target = at(imports_of(1), OWN_PORT);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let (mut ratios, mut beside) = (Vec::new(), Duration::ZERO);
    let before = in_use(admin, PEERS * SERVICES + 1).await;
    for turn in 0..TURNS * 2 {
        let changes = turn % 2 == 1;
        let asking = thread::spawn(move || ask(target));
        let begun = Instant::now();
        let mut n = 0;
        while begun.elapsed() < TURN {
            if changes {
                teller.set_ready(n * 7 % SERVICES, 4 + u32::try_from(turn).unwrap());
            } else {
                // Playing a peer takes a processor too, which is not what is measured.
                teller.look_for_news();
            }
            n += 1;
            sleep(CHANGE).await;
        }
        let times = tokio::task::spawn_blocking(move || asking.join().unwrap());
        let times = times.await.unwrap();
        let p99 = Times::new(times.clone()).permille(990);
        if changes {
            ratios.push(p99.as_secs_f64() / beside.as_secs_f64());
            with.extend(times);
        } else {
            beside = p99;
            without.extend(times);
        }
        // What is still being built belongs to this turn.
        in_use(admin, PEERS * SERVICES + 1).await;
        sleep(Duration::from_millis(1_500)).await;
    }
    let after = in_use(admin, PEERS * SERVICES + 1).await;
    let (with, without) = (Times::new(with), Times::new(without));
    figures.note(
        "revisions of the tables meanwhile",
        &format!(
            "{}, one change each {} in every other {}",
            after - before,
            shown(CHANGE),
            shown(TURN)
        ),
    );
    figures.times("a request on a new connection, no change", &without);
    figures.times("the same while tables change", &with);
    ratios.sort_by(f64::total_cmp);
    let [low, high] = UNSURE.map(|rank| ratios[rank]);
    let median = f64::midpoint(ratios[TURNS / 2 - 1], ratios[TURNS / 2]);
    figures.promise(
        "p99 with changes / without, turn by turn",
        &format!("{median:.2} [{low:.2} – {high:.2}]"),
        "not told from 1",
        low <= 1.0,
    );
}

/// Asks on a schedule for as long as a turn lasts; each time is from when the request was due.
#[expect(clippy::disallowed_methods, reason = "a schedule is kept by waiting")]
fn ask(target: SocketAddr) -> Vec<Duration> {
    let begun = Instant::now();
    let mut times = Vec::new();
    for n in 0.. {
        let due = begun + REQUEST * n;
        if due >= begun + TURN {
            break;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut socket = TcpStream::connect(target).unwrap();
        let mut back = [0; 64];
        socket.write_all(&[7; 64]).unwrap();
        socket.read_exact(&mut back).unwrap();
        times.push(due.elapsed());
    }
    times
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
