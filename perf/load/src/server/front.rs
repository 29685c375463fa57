//! Accepts connections, looks at their first bytes, and hands them to whom they belong.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use super::{Host, Notice, admission, answer, shared};
use crate::{
    role::{Role, role},
    spec::Workload,
    wire::{self, Kind, MAGIC, PREAMBLE_BYTES, Preamble, PreambleFault, Tell},
};

/// Connections that have not yet said what they are, for each worker.
const STRANGERS_MAX: usize = 1_024;

/// They have this long to say it.
const STRANGER_PATIENCE: Duration = Duration::from_secs(5);

/// Clients that talk about a test at once, running or not.
const CONVERSATIONS_MAX: usize = 64;

/// As many as the kernel allows wait to be accepted.
const BACKLOG: i32 = 4_096;

/// What comes with the first packet; a preamble and a short request.
const FIRST_BYTES: usize = 4_096;

pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts until the server stops.
pub(super) async fn run(host: Arc<Host>, listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let local = tokio::task::LocalSet::new();
    let mut stopped = host.stop.subscribe();
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    local
        .run_until(async {
            while !*stopped.borrow() {
                let permit = Arc::clone(&strangers).acquire_owned();
                let (permit, accepted) = tokio::select! {
                    _ = stopped.changed() => break,
                    both = async { (permit.await, listener.accept().await) } => both,
                };
                match accepted {
                    Ok((stream, client)) => {
                        let host = Arc::clone(&host);
                        tokio::task::spawn_local(async move {
                            let visit = Visit { host, client };
                            visit.receive(stream, permit.ok()).await;
                        });
                    }
                    // Out of descriptors or memory: the ones we have must end first.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await;
}

/// A connection that was accepted.
struct Visit {
    host: Arc<Host>,
    client: SocketAddr,
}

/// What a connection turned out to be.
enum First {
    Ours(Preamble),
    Fault(PreambleFault),
    Text,
}

impl Visit {
    async fn receive(
        self,
        mut stream: TcpStream,
        permit: Option<tokio::sync::OwnedSemaphorePermit>,
    ) {
        if !self.host.allows(self.client.ip()) {
            self.refuse("its address is not allowed".to_owned());
            return;
        }
        let mut bytes = Vec::with_capacity(FIRST_BYTES);
        let Ok(Ok(first)) = timeout(STRANGER_PATIENCE, first_bytes(&mut stream, &mut bytes)).await
        else {
            return;
        };
        drop(permit);
        // Whoever closed it meanwhile is noticed at the next read.
        let _ = stream.set_nodelay(true);
        match first {
            First::Ours(preamble) => {
                let rest = bytes.split_off(PREAMBLE_BYTES);
                self.route(stream, preamble, rest).await;
            }
            First::Fault(fault) => {
                let reason = format!("{fault}; use the same version on both sides");
                self.tell_refusal(&mut stream, reason).await;
            }
            First::Text => answer::http(&self.host, stream, bytes).await,
        }
    }

    async fn route(self, stream: TcpStream, preamble: Preamble, rest: Vec<u8>) {
        match preamble.kind {
            Kind::Control => self.converse(stream, rest).await,
            Kind::Resume => {
                if let Some(entry) = self.host.entry(preamble.test)
                    && let Ok(stream) = blocking(stream)
                {
                    // A session that is over no longer listens.
                    let _ = entry.events.try_send(shared::Event::Resumed(stream, rest));
                }
            }
            Kind::Data => {
                let Some(entry) = self.host.entry(preamble.test) else {
                    return;
                };
                let spec = &entry.shared.spec;
                if matches!(spec.workload, Workload::Crr | Workload::Idle)
                    && role(spec, preamble.connection) == Some(Role::Answers)
                {
                    answer::short(&entry.shared, stream, rest).await;
                    return;
                }
                if let Ok(stream) = blocking(stream) {
                    let arrival = shared::Arrival {
                        stream,
                        connection: preamble.connection,
                        rest,
                    };
                    let _ = entry.events.try_send(shared::Event::Arrived(arrival));
                }
            }
        }
    }

    /// Gives a client that wants a test a thread.
    async fn converse(self, mut stream: TcpStream, rest: Vec<u8>) {
        let host = Arc::clone(&self.host);
        if host.conversations.fetch_add(1, SeqCst) >= CONVERSATIONS_MAX {
            host.conversations.fetch_sub(1, SeqCst);
            self.tell_refusal(&mut stream, "too many clients ask at once".to_owned())
                .await;
            return;
        }
        let client = self.client;
        let conversation = move |host: Arc<Host>| {
            if let Ok(stream) = blocking(stream) {
                admission::converse(&host, stream, &rest, client);
            }
            host.conversations.fetch_sub(1, SeqCst);
        };
        let its_host = Arc::clone(&host);
        let thread = std::thread::Builder::new().name("session".to_owned());
        match thread.spawn(move || conversation(its_host)) {
            Ok(session) => {
                let mut sessions = host.sessions.lock();
                sessions.retain(|session| !session.is_finished());
                sessions.push(session);
            }
            Err(_) => {
                host.conversations.fetch_sub(1, SeqCst);
            }
        }
    }

    async fn tell_refusal(&self, stream: &mut TcpStream, reason: String) {
        let mut message = Vec::new();
        if wire::write_message(&mut message, &Tell::Refused(reason.clone())).is_ok() {
            // It is sent away in any case.
            let _ = timeout(STRANGER_PATIENCE, stream.write_all(&message)).await;
        }
        self.refuse(reason);
    }

    fn refuse(&self, reason: String) {
        self.host.notify(Notice::Refused {
            client: self.client,
            reason,
        });
    }
}

/// Reads until it is clear who speaks.
async fn first_bytes(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<First> {
    loop {
        if stream.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let compared = bytes.len().min(MAGIC.len());
        if bytes[..compared] != MAGIC[..compared] {
            return Ok(First::Text);
        }
        if let Some(preamble) = bytes.first_chunk::<PREAMBLE_BYTES>() {
            return Ok(match Preamble::decode(preamble) {
                Ok(preamble) => First::Ours(preamble),
                Err(fault) => First::Fault(fault),
            });
        }
    }
}

fn blocking(stream: TcpStream) -> io::Result<std::net::TcpStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}
