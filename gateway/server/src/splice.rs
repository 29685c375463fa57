//! Moves bytes between two plain sockets inside the kernel, with splice(2) through a pipe.
//!
//! Chunks are bounded so that one connection does not hold its worker; a pipe is held only while bytes
//! are in it or expected at once, so that an idle connection holds none.

use std::{cell::RefCell, io, os::fd::OwnedFd, time::Duration};

use corinth_model::Failure;
use corinth_transport::ready;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream, task::coop::consume_budget};

use crate::{
    relay::{Carried, Side, disarm, idleness, socket_error},
    said::Said,
};

/// What one splice moves at most, and how large we ask a pipe to be.
const CHUNK_BYTES: usize = 256 << 10;
/// Free pipes a worker keeps.
const PIPES_KEPT: usize = 16;

/// Sends the endpoint what the client has said already, then relays.
pub(crate) async fn run_after(
    said: &Said,
    client: &TcpStream,
    endpoint: &TcpStream,
    idle: Option<Duration>,
    carried: &Carried,
) -> Result<(), Failure> {
    let mut left = said.bytes.as_slice();
    while !left.is_empty() {
        match endpoint.try_write(left) {
            Ok(bytes) => left = &left[bytes..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                endpoint
                    .writable()
                    .await
                    .map_err(|_| Failure::EndpointReset)?;
            }
            Err(_) => return Err(Failure::EndpointReset),
        }
    }
    carried.add_sent(said.bytes.len());
    // An end that was read already is found again by the next read.
    run(client, endpoint, idle, carried).await
}

/// Relays between a client and an endpoint until both directions have ended, or one fails.
pub(crate) async fn run(
    client: &TcpStream,
    endpoint: &TcpStream,
    idle: Option<Duration>,
    carried: &Carried,
) -> Result<(), Failure> {
    let both = async {
        tokio::try_join!(
            one_way((client, Side::Client), (endpoint, Side::Endpoint), |n| {
                carried.add_sent(n)
            }),
            one_way((endpoint, Side::Endpoint), (client, Side::Client), |n| {
                carried.add_received(n)
            }),
        )
    };
    let ended = tokio::select! {
        ended = both => ended.map(|_| ()),
        failure = socket_error(client, Side::Client) => Err(failure),
        failure = socket_error(endpoint, Side::Endpoint) => Err(failure),
        () = idleness(idle, carried) => Err(Failure::IdleTimeout),
    };
    if ended.is_ok() {
        disarm(client);
        disarm(endpoint);
    }
    ended
}

async fn one_way(
    (from, from_side): (&TcpStream, Side),
    (to, to_side): (&TcpStream, Side),
    count: impl Fn(usize),
) -> Result<(), Failure> {
    loop {
        ready::readable(from).await.map_err(|_| from_side.reset())?;
        let pipe = Pipe::take().map_err(|_| Failure::Internal)?;
        loop {
            match from.try_io(Interest::READABLE, || pipe.fill(from)) {
                Ok(0) => {
                    let _ = SockRef::from(to).shutdown(std::net::Shutdown::Write);
                    return Ok(());
                }
                Ok(bytes) => {
                    drain(&pipe, bytes, to).await.map_err(|_| to_side.reset())?;
                    count(bytes);
                    consume_budget().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(from_side.reset()),
            }
        }
        pipe.give_back();
    }
}

async fn drain(pipe: &Pipe, mut bytes: usize, to: &TcpStream) -> io::Result<()> {
    while bytes > 0 {
        match to.try_io(Interest::WRITABLE, || pipe.empty_into(to, bytes)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(moved) => bytes -= moved,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready::writable(to).await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Both ends of a pipe. Dropped unless given back, so that a pipe with bytes in it is never used again.
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(pipe) = FREE.with(|free| free.borrow_mut().pop()) {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user may hold only so many large pipes; a small one works as well, only slower.
        let _ = fcntl_setpipe_size(&write, CHUNK_BYTES);
        Ok(Self { read, write })
    }

    fn give_back(self) {
        FREE.with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < PIPES_KEPT {
                free.push(self);
            }
        });
    }

    fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        Ok(splice(from, None, &self.write, None, CHUNK_BYTES, flags)?)
    }

    fn empty_into(&self, to: &TcpStream, bytes: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        Ok(splice(&self.read, None, to, None, bytes, flags)?)
    }
}

thread_local! {
    static FREE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}
