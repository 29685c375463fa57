//! Flows of TCP with CUBIC.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};

use super::{Stop, flood::pause};
use crate::{netns, wan::Wan};

const FLOWS: u32 = 6;
/// While windows are found.
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(6);
/// How often somebody who wants the end is looked for.
const SLICE: Duration = Duration::from_millis(50);
/// A flow that moves nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
const CHUNK_BYTES: usize = 64 << 10;
/// Room for windows far beyond those expected, whatever the machine's default is.
const TCP_MEMORY: &str = "4096 131072 8388608";

/// What flows reached.
pub(super) struct Bulk {
    /// The mean of all flows.
    pub(super) bits_per_second: f64,
    pub(super) segment_bytes: u32,
}

/// Runs [`FLOWS`] forward at once.
pub(super) fn run(wan: &Wan, stop: Stop<'_>) -> io::Result<Bulk> {
    let [first, second] = wan.sides();
    let target = wan.addresses(1)[0];
    let listen = || {
        prepare()?;
        TcpListener::bind((target, 0))
    };
    let listener = netns::within(&second.namespace, listen).map_err(io::Error::other)??;
    let target = listener.local_addr()?;
    let connect = || {
        prepare()?;
        (0..FLOWS)
            .map(|_| connect(target))
            .collect::<io::Result<Vec<_>>>()
    };
    let senders = netns::within(&first.namespace, connect).map_err(io::Error::other)??;
    let receivers = (0..FLOWS).map(|_| Ok(listener.accept()?.0));
    let receivers: Vec<TcpStream> = receivers.collect::<io::Result<_>>()?;
    let segment_bytes = SockRef::from(&senders[0]).tcp_mss()?;

    let bytes = AtomicU64::new(0);
    let bits_per_second = thread::scope(|scope| {
        for stream in receivers {
            scope.spawn(|| drain(stream, &bytes));
        }
        for stream in &senders {
            scope.spawn(|| fill(stream));
        }
        pause_unless(stop, WARM_UP);
        let (began, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
        pause_unless(stop, MEASURED);
        let moved = bytes.load(Ordering::Relaxed) - before;
        let rate = moved as f64 * 8.0 / began.elapsed().as_secs_f64();
        for stream in &senders {
            // It may have ended by itself.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        rate / f64::from(FLOWS)
    });
    Ok(Bulk {
        bits_per_second,
        segment_bytes,
    })
}

/// Lets time pass, but not for somebody who wants the end.
fn pause_unless(stop: Stop<'_>, time: Duration) {
    let until = Instant::now() + time;
    while !stop() && Instant::now() < until {
        pause(SLICE.min(until.saturating_duration_since(Instant::now())));
    }
}

/// In the namespace of the calling thread: windows that may grow, and nothing remembered of earlier runs.
fn prepare() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/tcp_rmem", TCP_MEMORY)?;
    fs::write("/proc/sys/net/ipv4/tcp_wmem", TCP_MEMORY)?;
    fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_congestion(b"cubic")?;
    socket.connect_timeout(&target.into(), PATIENCE)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Until the other end, or we, shut it down.
fn fill(mut stream: &TcpStream) {
    let chunk = vec![0; CHUNK_BYTES];
    while stream.write_all(&chunk).is_ok() {}
}

fn drain(mut stream: TcpStream, bytes: &AtomicU64) {
    if stream.set_read_timeout(Some(PATIENCE)).is_err() {
        return;
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
}
