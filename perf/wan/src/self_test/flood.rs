//! Numbered UDP packets, counted on the far side.

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{NanosleepRelativeResult, nanosleep};
use socket2::SockRef;

use crate::{netns, wan::Wan};

const PACKETS: u32 = 20_000;
/// Sent at once, every [`PAUSE`].
const BURST_PACKETS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);
/// After so long without a packet there will be none.
const QUIET: Duration = Duration::from_millis(300);
/// Room for all of them, should the counting thread not run for a while.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;

/// What became of the packets.
pub(super) struct Flood {
    pub(super) sent: f64,
    pub(super) lost: f64,
}

/// Sends [`PACKETS`] forward.
pub(super) fn send(wan: &Wan) -> io::Result<Flood> {
    let [first, second] = wan.sides();
    let target = wan.addresses(1)[0];
    let receiver = netns::within(&second.namespace, || UdpSocket::bind((target, 0)));
    let receiver = receiver.map_err(io::Error::other)??;
    let sender = netns::within(&first.namespace, || {
        UdpSocket::bind((wan.addresses(0)[0], 0))
    });
    let sender = sender.map_err(io::Error::other)??;
    sender.connect(SocketAddr::new(target, receiver.local_addr()?.port()))?;
    grow(&receiver)?;
    receiver.set_read_timeout(Some(QUIET))?;

    let got = thread::scope(|scope| {
        let counting = scope.spawn(|| count(&receiver));
        pour(&sender)?;
        counting
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the counting thread died")))
    })?;
    Ok(Flood {
        sent: PACKETS.into(),
        lost: f64::from(PACKETS) - got as f64,
    })
}

/// Sets a buffer beyond what users may have.
fn grow(receiver: &UdpSocket) -> io::Result<()> {
    rustix::net::sockopt::set_socket_recv_buffer_size_force(receiver, RECEIVE_BUFFER_BYTES)
        .map_err(io::Error::from)
        .or_else(|_| SockRef::from(receiver).set_recv_buffer_size(RECEIVE_BUFFER_BYTES))
}

fn pour(sender: &UdpSocket) -> io::Result<()> {
    let began = Instant::now();
    for number in 0..PACKETS {
        sender.send(&number.to_be_bytes())?;
        if number % BURST_PACKETS == BURST_PACKETS - 1 {
            let next = PAUSE * (number / BURST_PACKETS + 1);
            pause(next.saturating_sub(began.elapsed()));
        }
    }
    Ok(())
}

/// Paces; being woken early does no harm.
pub(super) fn pause(time: Duration) {
    let request = rustix::time::Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    match nanosleep(&request) {
        NanosleepRelativeResult::Ok
        | NanosleepRelativeResult::Interrupted(_)
        | NanosleepRelativeResult::Err(_) => {}
    }
}

fn count(receiver: &UdpSocket) -> io::Result<usize> {
    let mut numbers = BTreeSet::new();
    let mut packet = [0; 64];
    loop {
        match receiver.recv(&mut packet) {
            Ok(bytes) => numbers.insert(packet[..bytes].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(numbers.len()),
            Err(error) => return Err(error),
        };
    }
}
