//! What a peer keeps of its throughput while strangers, or another peer, flood the gateway that serves it.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use corinth_lab::{
    Family, Gateway, Ground, Lab, Service, Transport, WAIT, exchange, pause_until, until,
};
use quinn::ConnectionId;
use serde_json::json;

use crate::{
    fixture::{ECHO, ECHO_PORT, echo_back},
    flows::quic_sides,
};

on_both_families![
    twenty_thousand_spoofed_initials_a_second_take_little_of_a_peers_throughput,
    a_flood_of_datagrams_of_one_peer_takes_little_of_anothers_throughput,
    streams_that_nobody_reads_and_clients_that_vanish_take_little_of_a_peers_throughput,
];

/// What takes all that comes.
const SINK: &str = "sink.lab:9";
const SINK_PORT: u16 = 20_009;
/// What takes datagrams and says nothing.
const HOLE: &str = "hole.lab:9";
/// What says more than anybody reads.
const SOURCE: &str = "source.lab:19";
/// Where south accepts either.
const FLOODED_PORT: u16 = 20_019;
/// What the peer's client can send: so little that the machine has room for the flood beside it, and what is missing
/// is what the gateway did not give.
const RATE: &str = "100mbit";
/// Turns with the flood, and as many without.
const ROUNDS: usize = 5;
/// What a turn takes, after what it begins with has settled.
const TURN: Duration = Duration::from_millis(800);
const SETTLES_IN: Duration = Duration::from_millis(300);
const KEPT_MIN: f64 = 0.9;
const TRIES: usize = 3;
/// What a flood may cost.
const MEMORY_MAX_BYTES: u64 = 64 << 20;

fn on(family: Family) -> Option<Lab> {
    let transport = Transport::Quic;
    Lab::on(Ground { family, transport }).alone().build()
}

/// A flood that can be let in and shut out: so many at once, so often.
struct Flood {
    tap: Arc<Tap>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Tap {
    is_open: AtomicBool,
    is_over: AtomicBool,
    poured: AtomicU64,
}

impl Flood {
    const AT_ONCE: usize = 50;

    /// Does `pour` so often in a second, each time with the next number.
    fn start(per_second: u32, mut pour: impl FnMut(usize) + Send + 'static) -> Self {
        let every = Duration::from_secs(1) * Self::AT_ONCE as u32 / per_second;
        let tap = Arc::new(Tap::default());
        let flood = Arc::clone(&tap);
        let thread = thread::spawn(move || {
            let (mut number, mut next) = (0, Instant::now());
            while !flood.is_over.load(Relaxed) {
                next += every;
                if flood.is_open.load(Relaxed) {
                    (number..number + Self::AT_ONCE).for_each(&mut pour);
                    number += Self::AT_ONCE;
                    flood.poured.store(number as u64, Relaxed);
                } else {
                    next = Instant::now() + every;
                }
                pause_until(next);
            }
        });
        Self {
            tap,
            thread: Some(thread),
        }
    }

    fn open(&self, is_open: bool) {
        self.tap.is_open.store(is_open, Relaxed);
    }

    fn poured(&self) -> u64 {
        self.tap.poured.load(Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.tap.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The client of a peer, which sends all the time as fast as its cable allows, and what arrives of it.
struct Sender {
    arrived: Arc<AtomicU64>,
    client: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    fn start(lab: &Lab, to: SocketAddr, arrived: Arc<AtomicU64>) -> Self {
        let shape = ["rate", RATE, "burst", "64kb", "latency", "50ms"];
        let words = ["qdisc", "replace", "dev", "r1", "root", "tbf"];
        let shaped = lab.client.run("tc", words.into_iter().chain(shape));
        assert!(shaped.status.success(), "{shaped:#?}");
        let client = lab.client.connect(to);
        let mut writing = client.try_clone().unwrap();
        let thread = thread::spawn(move || while writing.write_all(&[7; 65_536]).is_ok() {});
        let sender = Self {
            arrived,
            client,
            thread: Some(thread),
        };
        until("bytes arrive", WAIT, || {
            (sender.arrived.load(Relaxed) > 1 << 20).then_some(())
        });
        sender
    }

    /// Bytes in a second that arrive during a turn.
    fn throughput(&self) -> f64 {
        pause_until(Instant::now() + SETTLES_IN);
        let (began, before) = (Instant::now(), self.arrived.load(Relaxed));
        pause_until(began + TURN);
        let bytes = self.arrived.load(Relaxed) - before;
        bytes as f64 / began.elapsed().as_secs_f64()
    }

    /// The share of the throughput that is kept under a flood. A machine that does something else takes from it as well,
    /// but not each time: the best of some tries counts.
    fn kept_under(&self, mut flood: impl FnMut(bool)) -> f64 {
        let mut best = 0.0;
        for _ in 0..TRIES {
            best = self.kept_once(&mut flood).max(best);
            if best >= KEPT_MIN {
                break;
            }
        }
        best
    }

    /// By the medians of turns with and without it.
    fn kept_once(&self, flood: &mut impl FnMut(bool)) -> f64 {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            flood(false);
            without.push(self.throughput());
            flood(true);
            with.push(self.throughput());
        }
        flood(false);
        let megabits =
            |turns: &[f64]| -> Vec<f64> { turns.iter().map(|turn| turn * 8e-6).collect() };
        println!(
            "{:.1?} Mb/s without, {:.1?} with",
            megabits(&without),
            megabits(&with)
        );
        median(with) / median(without)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.client.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A service at `endpoint` that counts what comes.
fn sink(lab: &Lab, endpoint: SocketAddr) -> (Service, Arc<AtomicU64>) {
    let arrived = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&arrived);
    let serve = move |mut stream: TcpStream, _: &_| {
        let mut room = [0; 65_536];
        while let Ok(bytes @ 1..) = stream.read(&mut room) {
            counted.fetch_add(bytes as u64, Relaxed);
        }
    };
    (lab.server.serve(endpoint, serve), arrived)
}

/// The gateway of the peer.
fn east(lab: &Lab) -> Gateway {
    let east = lab
        .gateway("east")
        .peer("west")
        .imports(SINK, SINK_PORT, &["west"])
        .imports(ECHO, ECHO_PORT, &["west"])
        .start();
    east.await_links(1);
    east
}

/// Datagrams that begin connections with which nobody goes on.
struct Initials {
    keys: Arc<dyn quinn::crypto::ServerConfig>,
}

/// What such a datagram is good for.
#[derive(Clone, Copy)]
enum Initial {
    /// Nothing follows.
    Silent,
    /// It is not sealed with the key that everybody knows.
    Forged,
    /// What is to be a handshake is none.
    Senseless,
}

impl Initials {
    /// What a datagram that begins a connection has at least (RFC 9000 §14.1).
    const BYTES: usize = 1_200;
    const VERSION: u32 = 1;
    const NUMBER_BYTES: usize = 4;
    const TAG_BYTES: usize = 16;
    /// CRYPTO at 0 with a message of four bytes that is of no known type (RFC 9000 §19.6).
    const SENSELESS: [u8; 7] = [0x06, 0, 4, 0xfe, 0, 0, 0];

    fn new() -> Self {
        let (server, _) = quic_sides("anybody");
        Self {
            keys: server.crypto,
        }
    }

    /// One whose IDs are made of `number`.
    fn make(&self, number: u64, what: Initial) -> Vec<u8> {
        let id = (number | 0xfe << 56).to_be_bytes();
        let mut packet = vec![0xc0 | (Self::NUMBER_BYTES as u8 - 1)];
        packet.extend(Self::VERSION.to_be_bytes());
        for id in [id, id] {
            packet.push(id.len() as u8);
            packet.extend(id);
        }
        // No token.
        packet.push(0);
        let length = Self::BYTES - packet.len() - 2;
        packet.extend((length as u16 | 0x4000).to_be_bytes());
        let number_at = packet.len();
        let header_bytes = number_at + Self::NUMBER_BYTES;
        packet.resize(header_bytes, 0);
        if matches!(what, Initial::Senseless) {
            packet.extend(Self::SENSELESS);
        }
        // The rest is padding.
        packet.resize(Self::BYTES, 0);
        let keys = self
            .keys
            .initial_keys(Self::VERSION, &ConnectionId::new(&id))
            .unwrap();
        // These keys do either.
        keys.packet.remote.encrypt(0, &mut packet, header_bytes);
        keys.header.remote.encrypt(number_at, &mut packet);
        if matches!(what, Initial::Forged) {
            packet[Self::BYTES - Self::TAG_BYTES] ^= 1;
        }
        packet
    }
}

fn twenty_thousand_spoofed_initials_a_second_take_little_of_a_peers_throughput(family: Family) {
    const PER_SECOND: u32 = 20_000;
    /// Addresses they come from: the kernel spreads them over workers.
    const SOURCES: usize = 16;
    const DIFFERENT: u64 = 6_000;
    /// What an address that is not proven gets at most, as a multiple of what came from it (RFC 9000 §8.1).
    const AMPLIFICATION_MAX: u64 = 3;
    let Some(lab) = on(family) else {
        return;
    };
    let (endpoint, echo) = (lab.server_at(0, 7009), lab.server_at(0, 7007));
    let (_sink, arrived) = sink(&lab, endpoint);
    let _echo = lab.server.serve(echo, echo_back);
    let west = lab
        .gateway("west")
        .awaits("east")
        .exports(SINK, &[endpoint], &["east"])
        .exports(ECHO, &[echo], &["east"])
        .start();
    let mut first = east(&lab);

    let initials = Initials::new();
    let kinds = [Initial::Silent, Initial::Forged, Initial::Senseless];
    let packets: Vec<Vec<u8>> = (0..DIFFERENT)
        .zip(kinds.into_iter().cycle())
        .map(|(number, kind)| initials.make(number, kind))
        .collect();
    let sockets: Vec<UdpSocket> = (0..SOURCES)
        .map(|_| {
            let from = SocketAddr::new(lab.stranger(), 0);
            let socket = lab.east.datagrams(from, WAIT);
            lab.east.within(|| socket.connect(west.tunnel())).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let (sent, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counts = (Arc::clone(&sent), Arc::clone(&answered));
    let mut answer = [0; 2_048];
    let flood = Flood::start(PER_SECOND, move |number| {
        let socket = &sockets[number % SOURCES];
        // What the kernel does not take is one less.
        let bytes = socket.send(&packets[number % packets.len()]);
        counts.0.fetch_add(bytes.unwrap_or(0) as u64, Relaxed);
        while let Ok(bytes) = socket.recv(&mut answer) {
            counts.1.fetch_add(bytes as u64, Relaxed);
        }
    });

    let sender = Sender::start(&lab, first.at(SINK_PORT), arrived);
    let before = west.resident_bytes();
    let kept = sender.kept_under(|is_open| flood.open(is_open));
    let grown = west.resident_bytes().saturating_sub(before);
    let became = |outcome| {
        let label = format!("outcome=\"{outcome}\"");
        west.metric("corinth_quic_handshakes_total", &[&label])
    };
    let (sent, answered) = (sent.load(Relaxed), answered.load(Relaxed));
    println!(
        "{kept:.3} is kept; {} Initials, {sent} bytes, {answered} answered, {} asked again, {} failed, {} KiB more",
        flood.poured(),
        became("retried"),
        became("failed"),
        grown >> 10
    );
    assert!(kept >= KEPT_MIN, "{kept:.3}");
    assert!(
        answered <= AMPLIFICATION_MAX * sent,
        "{answered} for {sent}"
    );
    assert!(grown < MEMORY_MAX_BYTES, "{grown} bytes");
    assert!(became("retried") > 0.0, "most have to show their address");
    assert!(became("ignored") > 0.0, "there are too many to look at");

    // Who is linked comes back in meanwhile.
    flood.open(true);
    drop(sender);
    first.kill();
    let second = east(&lab);
    let mut client = lab.client.connect(second.at(ECHO_PORT));
    assert_eq!(exchange(&mut client, b"during", 6).unwrap(), b"during");
}

/// East, which sends to the sink and to nobody else.
fn importer(lab: &Lab) -> Gateway {
    let east = lab
        .gateway("east")
        .peer("west")
        .imports(SINK, SINK_PORT, &["west"])
        .start();
    east.await_links(1);
    east
}

/// South, which is linked with west as east is, and shares its host.
fn south(lab: &Lab, service: &str, keys: serde_json::Value) -> Gateway {
    let south = lab
        .gateway("south")
        .peer("west")
        .imports_with(service, FLOODED_PORT, &["west"], keys)
        .start();
    south.await_links(1);
    south
}

fn a_flood_of_datagrams_of_one_peer_takes_little_of_anothers_throughput(family: Family) {
    const PER_SECOND: u32 = 10_000;
    const SIZE: usize = 1_000;
    let Some(lab) = on(family) else {
        return;
    };
    let udp = json!({ "protocol": "udp" });
    let (endpoint, hole) = (lab.server_at(0, 7009), lab.server_at(1, 9));
    let (_sink, arrived) = sink(&lab, endpoint);
    // What it does not read is dropped.
    let taken = lab.server.datagrams(hole, WAIT);
    let west = lab
        .gateway("west")
        .awaits("east")
        .awaits("south")
        .exports(SINK, &[endpoint], &["east"])
        .exports_with(HOLE, &[hole], &["south"], udp.clone())
        .start();
    let east = importer(&lab);
    let south = south(&lab, HOLE, udp);
    let flooding = lab.server.datagrams(lab.server_at(2, 0), WAIT);
    let to = south.at(FLOODED_PORT);
    lab.server.within(|| flooding.connect(to)).unwrap();
    flooding.send(b"hello").unwrap();
    taken.recv(&mut [0; SIZE]).unwrap();
    let flood = Flood::start(PER_SECOND, move |_| {
        // What is not taken is one less.
        let _ = flooding.send(&[7; SIZE]);
    });

    let sender = Sender::start(&lab, east.at(SINK_PORT), arrived);
    let before = west.resident_bytes();
    let kept = sender.kept_under(|is_open| flood.open(is_open));
    let grown = west.resident_bytes().saturating_sub(before);
    println!(
        "{kept:.3} is kept; {} datagrams, {} KiB more",
        flood.poured(),
        grown >> 10
    );
    assert!(kept >= KEPT_MIN, "{kept:.3}");
    assert!(grown < MEMORY_MAX_BYTES, "{grown} bytes");
    assert!(flood.poured() > u64::from(PER_SECOND), "it was a flood");
}

fn streams_that_nobody_reads_and_clients_that_vanish_take_little_of_a_peers_throughput(
    family: Family,
) {
    const STREAMS: usize = 1_000;
    /// What the source says before it waits for its reader to end: more than a stream may have sent to begin with.
    const SAID_BYTES: usize = 1 << 20;
    /// Half of what windows may take is one peer's, and each stream has a buffer of 256 KiB.
    const HELD_MAX_BYTES: u64 = (128 << 20) + STREAMS as u64 * (256 << 10) + MEMORY_MAX_BYTES;
    let Some(lab) = on(family) else {
        return;
    };
    let (endpoint, source) = (lab.server_at(0, 7009), lab.server_at(1, 7019));
    let (_sink, arrived) = sink(&lab, endpoint);
    let _source = lab.server.serve(source, |mut stream, _| {
        let said = [7; 4_096];
        let is_said = (0..SAID_BYTES / said.len()).all(|_| stream.write_all(&said).is_ok());
        if is_said {
            let _ = stream.read(&mut [0]);
        }
    });
    let west = lab
        .gateway("west")
        .awaits("east")
        .awaits("south")
        .exports(SINK, &[endpoint], &["east"])
        .exports(SOURCE, &[source], &["south"])
        .start();
    let east = importer(&lab);
    let south = south(&lab, SOURCE, json!({}));

    let sender = Sender::start(&lab, east.at(SINK_PORT), arrived);
    let before = west.resident_bytes();
    let mut unread = Vec::new();
    let mut highest = 0;
    let kept = sender.kept_under(|is_open| {
        highest = highest.max(west.resident_bytes());
        unread.clear();
        if is_open {
            let open = || lab.server.connect(south.at(FLOODED_PORT));
            unread.extend((0..STREAMS).map(|_| open()));
        }
    });
    let grown = highest.saturating_sub(before);
    println!("{kept:.3} is kept; {} KiB more", grown >> 10);
    assert!(kept >= KEPT_MIN, "{kept:.3}");
    assert!(grown < HELD_MAX_BYTES, "{grown} bytes");
    assert_eq!(south.links("up"), 1);
}
