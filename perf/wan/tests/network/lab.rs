//! What the tests begin with.

use std::{
    env,
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use corinth_wan::{Change, Direction, Engine, Impairment, Spec, Wan, within};
use parking_lot::{Mutex, MutexGuard};
use rustix::{net::sockopt::set_socket_recv_buffer_size_force, process::geteuid};

/// How long a socket waits for the other side.
pub(crate) const WAIT: Duration = Duration::from_secs(10);
/// After so long without a packet there will be none.
pub(crate) const QUIET: Duration = Duration::from_millis(300);

const BUFFER_BYTES: usize = 16 << 20;

/// The right to use the clock, held by one test.
pub(crate) struct Turn {
    _turn: MutexGuard<'static, ()>,
}

/// Waits for its turn; says so if the test cannot run here. In CI that is a failure.
pub(crate) fn turn(name: &str) -> Option<Turn> {
    static TURN: Mutex<()> = Mutex::new(());
    if geteuid().is_root() {
        return Some(Turn { _turn: TURN.lock() });
    }
    let why = "network namespaces need root";
    assert!(
        env::var_os("CI").is_none_or(|value| value != "true"),
        "{name} cannot run, and CI=true allows no skips: {why}"
    );
    // Straight to standard error: what tests print is shown only when they fail.
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
    None
}

/// A specification with names nobody else has, and these impairments both ways.
pub(crate) fn spec(words: &str) -> Spec {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let place = format!(
        "wanit{}-{}",
        process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let mut spec =
        Spec::between(&format!("{place}-a"), &format!("{place}-b")).both(impairment(words));
    spec.engine = Engine::Tun;
    spec
}

pub(crate) fn impairment(words: &str) -> Impairment {
    let none = Impairment::default();
    match words {
        "" => none,
        words => words.parse::<Change>().unwrap().applied(&none, &none),
    }
}

/// A network with these impairments both ways.
pub(crate) fn wan(words: &str) -> Wan {
    Wan::start(&spec(words)).unwrap()
}

/// A network with these impairments forward, and none back.
pub(crate) fn forward(words: &str) -> Wan {
    Wan::start(&spec("").with(Direction::Forward, impairment(words))).unwrap()
}

/// A TCP connection from the first side to the second: both ends, the one that called first.
pub(crate) fn connect(wan: &Wan, target: IpAddr) -> [TcpStream; 2] {
    let [first, second] = wan.sides();
    let listener = within(&second.namespace, || {
        TcpListener::bind((target, 0)).unwrap()
    })
    .unwrap();
    let target = listener.local_addr().unwrap();
    let call = || TcpStream::connect_timeout(&target, WAIT).unwrap();
    let caller = within(&first.namespace, call).unwrap();
    let called = listener.accept().unwrap().0;
    for stream in [&caller, &called] {
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.set_write_timeout(Some(WAIT)).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    [caller, called]
}

/// UDP sockets on both sides that know each other.
pub(crate) fn sockets(wan: &Wan, family: usize) -> [UdpSocket; 2] {
    let bind = |side: usize| {
        let address = wan.addresses(side)[family];
        let bind = || UdpSocket::bind((address, 0)).unwrap();
        within(&wan.sides()[side].namespace, bind).unwrap()
    };
    let sockets = [bind(0), bind(1)];
    let addresses: [SocketAddr; 2] = sockets
        .each_ref()
        .map(|socket| socket.local_addr().unwrap());
    sockets[0].connect(addresses[1]).unwrap();
    sockets[1].connect(addresses[0]).unwrap();
    for socket in &sockets {
        socket.set_read_timeout(Some(WAIT)).unwrap();
        // Whatever a test sends finds room.
        set_socket_recv_buffer_size_force(socket, BUFFER_BYTES).unwrap();
    }
    sockets
}

/// Sends numbered packets, and gives the numbers of those that come.
pub(crate) fn survivors([from, to]: &[UdpSocket; 2], packets: u32) -> Vec<u32> {
    to.set_read_timeout(Some(QUIET)).unwrap();
    let mut numbers = Vec::new();
    let take = |numbers: &mut Vec<u32>| {
        let mut packet = [0; 64];
        match to.recv(&mut packet) {
            Ok(_) => numbers.push(u32::from_be_bytes(packet[..4].try_into().unwrap())),
            Err(_) => return false,
        }
        true
    };
    for number in 0..packets {
        from.send(&number.to_be_bytes()).unwrap();
        // So few at once that every buffer holds them.
        if number % 100 == 99 {
            to.set_nonblocking(true).unwrap();
            while take(&mut numbers) {}
            to.set_nonblocking(false).unwrap();
        }
    }
    while take(&mut numbers) {}
    numbers
}
