//! ICMP echo, answered by the kernel of the far side.

use std::{
    io::{self, Read},
    net::IpAddr,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::setpriority_process,
    thread::gettid,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Stop;
use crate::{netns, packet::checksum};

const ECHOES: u16 = 150;
const PRIORITY: i32 = -15;
/// Between a reply and the next request.
const PAUSE: Duration = Duration::from_millis(2);
/// The last stretch before the reply is expected is spun, so that our own waking up is not measured.
const SPIN: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(1);
/// Fewer answers than this are no median.
const ANSWERS_MIN: usize = ECHOES as usize / 2;

/// The median of [`ECHOES`] round trips of about `expected`.
pub(super) fn median_round_trip(
    namespace: &str,
    target: IpAddr,
    expected: Duration,
    stop: Stop<'_>,
) -> io::Result<Duration> {
    let ping = || {
        // Before programs that compute: what they take from us is not the network's delay. It works without.
        let _ = setpriority_process(Some(gettid()), PRIORITY);
        let pinger = Pinger::new(target)?;
        (0..ECHOES)
            .take_while(|_| !stop())
            .map(|number| pinger.ping(number, expected))
            .collect::<io::Result<Vec<_>>>()
    };
    let pinged = netns::within(namespace, ping).map_err(io::Error::other)??;
    let mut round_trips: Vec<Duration> = pinged.into_iter().flatten().collect();
    if round_trips.len() < ANSWERS_MIN {
        let answers = round_trips.len();
        return Err(io::Error::other(format!(
            "{answers} of {ECHOES} echoes were answered"
        )));
    }
    round_trips.sort();
    Ok(round_trips[round_trips.len() / 2])
}

struct Pinger {
    socket: Socket,
    request: u8,
    reply: u8,
    /// Where ICMP begins in what is received.
    icmp_at: usize,
}

impl Pinger {
    fn new(target: IpAddr) -> io::Result<Self> {
        let (domain, protocol, request, reply, icmp_at) = match target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0, 20),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129, 0),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.connect(&SockAddr::from(std::net::SocketAddr::new(target, 0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            request,
            reply,
            icmp_at,
        })
    }

    /// One round trip; `None` if there is no answer.
    fn ping(&self, number: u16, expected: Duration) -> io::Result<Option<Duration>> {
        self.idle(PAUSE)?;
        let mut echo = vec![self.request, 0, 0, 0, 0xc0, 0x41];
        echo.extend(number.to_be_bytes());
        // The kernel does this for ICMPv6.
        let sum = checksum(&[&echo]);
        echo[2..4].copy_from_slice(&sum.to_be_bytes());

        let sent = Instant::now();
        self.socket.send(&echo)?;
        self.idle(expected.saturating_sub(SPIN))?;
        while sent.elapsed() < PATIENCE {
            if self.is_answered(&echo)? {
                return Ok(Some(sent.elapsed()));
            }
            std::hint::spin_loop();
        }
        Ok(None)
    }

    fn is_answered(&self, echo: &[u8]) -> io::Result<bool> {
        let mut packet = [0; 256];
        match (&self.socket).read(&mut packet) {
            Ok(bytes) => {
                let icmp = packet[..bytes].get(self.icmp_at..).unwrap_or_default();
                Ok(icmp.first() == Some(&self.reply) && icmp.get(4..8) == Some(&echo[4..8]))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets time pass; not longer than until something comes.
    fn idle(&self, time: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: time.subsec_nanos().into(),
        };
        poll(
            &mut [PollFd::new(&self.socket, PollFlags::IN)],
            Some(&timeout),
        )?;
        Ok(())
    }
}
