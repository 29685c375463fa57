//! Worker threads: one current-thread runtime each; a connection stays on the worker that accepted it.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, thread, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tracing::warn;

use crate::{
    flow::{self, Trunks},
    intake,
    listen::{Door, Listener, Listening},
    shared::Shared,
    transports, tunnel_port,
};

/// What a worker is told.
pub(crate) enum Order {
    /// Accept here as well.
    Open(Listening, Listener),
    /// Accept here no more; what the kernel has queued is served first. Answered when that is done.
    Close(Listening, oneshot::Sender<()>),
}

/// One worker thread. It ends when this is dropped.
pub(crate) struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread.
    pub(crate) fn start(number: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        shared.transports.enlist(runtime.handle().clone());
        let (orders, received) = mpsc::unbounded_channel();
        let thread = thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || runtime.block_on(run(shared, received)))?;
        Ok(Self {
            orders,
            thread: Some(thread),
        })
    }

    /// Gives an order; a worker that has ended takes none.
    pub(crate) fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let (closed, _) = mpsc::unbounded_channel();
        self.orders = closed;
        if let Some(thread) = self.thread.take() {
            // A panic in it was logged where it happened.
            let _ = thread.join();
        }
    }
}

async fn run(shared: Arc<Shared>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut accepting: BTreeMap<Listening, oneshot::Sender<oneshot::Sender<()>>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let trunks = Arc::new(Trunks::default());
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open(listening, listener) => {
                let (close, closing) = oneshot::channel();
                accepting.insert(listening, close);
                let shared = Arc::clone(&shared);
                match listener {
                    Listener::Tcp(listener) => {
                        tasks.spawn(accept(shared, listening, listener, closing));
                    }
                    Listener::Udp(socket) => {
                        tasks.spawn(serve_quic(shared, listening.address, socket, closing));
                    }
                    Listener::Flows(port, socket, companion) => {
                        let trunks = Arc::clone(&trunks);
                        tasks.spawn(flow::serve(
                            shared, trunks, socket, companion, port, closing,
                        ));
                    }
                }
            }
            Order::Close(bound, done) => {
                if let Some(close) = accepting.remove(&bound) {
                    let _ = close.send(done);
                }
            }
        }
    }
}

/// Accepts until told to close, then empties the queue: closing a listener resets what waits in it.
async fn accept(
    shared: Arc<Shared>,
    listening: Listening,
    listener: std::net::TcpListener,
    mut closing: oneshot::Receiver<oneshot::Sender<()>>,
) {
    let Listening { address, door } = listening;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%address, %error, "listener is of no use"),
    };
    let done = loop {
        tokio::select! {
            done = &mut closing => break done,
            accepted = listener.accept() => match accepted {
                Ok((socket, source)) => take(&shared, door, socket, source),
                Err(error) => refused(&error).await,
            },
        }
    };
    empty_queue(&shared, door, listener);
    if let Ok(done) = done {
        let _ = done.send(());
    }
}

/// Takes QUIC connections until told to close; those that were taken go on.
async fn serve_quic(
    shared: Arc<Shared>,
    address: SocketAddr,
    socket: std::net::UdpSocket,
    closing: oneshot::Receiver<oneshot::Sender<()>>,
) {
    let mut done = None;
    let closing = async { done = closing.await.ok() };
    transports::serve_quic(shared, address, socket, closing).await;
    if let Some(done) = done {
        let _ = done.send(());
    }
}

/// Serves what the kernel has queued, asking the kernel itself: the runtime's readiness may be older than the
/// last connection.
fn empty_queue(shared: &Arc<Shared>, door: Door, listener: TcpListener) {
    let Ok(listener) = listener.into_std() else {
        return;
    };
    loop {
        match listener.accept() {
            Ok((socket, source)) => {
                let socket = socket
                    .set_nonblocking(true)
                    .and_then(|()| TcpStream::from_std(socket));
                if let Ok(socket) = socket {
                    take(shared, door, socket, source);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Out of descriptors or memory: others must end first, and trying at once would only burn the worker.
async fn refused(error: &io::Error) {
    const PAUSE: Duration = Duration::from_millis(20);
    let is_the_clients = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    );
    if !is_the_clients {
        warn!(%error, "cannot accept; are there too few file descriptors?");
        tokio::time::sleep(PAUSE).await;
    }
}

fn take(shared: &Arc<Shared>, door: Door, socket: TcpStream, source: SocketAddr) {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let shared = Arc::clone(shared);
    // Taken before the task runs: a drain waits for what was accepted, not only for what has begun.
    let working = shared.drain.guard();
    match door {
        Door::Tunnel => drop(tokio::spawn(async move {
            tunnel_port::serve(&shared, socket, source, working).await;
        })),
        // Nobody connects there by TCP.
        Door::Quic | Door::Flows(_) => {}
        Door::Import(port) => drop(tokio::spawn(async move {
            intake::import(&shared, socket, source, port).await;
            drop(working);
        })),
        Door::Sni => drop(tokio::spawn(async move {
            intake::sni(&shared, socket, source).await;
            drop(working);
        })),
        Door::Socks => drop(tokio::spawn(async move {
            intake::socks(&shared, socket, source).await;
            drop(working);
        })),
        Door::Connect => drop(tokio::spawn(async move {
            intake::connect(&shared, socket, source).await;
            drop(working);
        })),
    }
}

#[cfg(test)]
mod tests {
    use corinth_model::PortNumber;

    use super::*;

    /// What a task costs while its connection is idle, beside sockets and keys: paid by every connection. With what
    /// the runtime adds it stays below an allocator's size class of 2,560 bytes.
    const SESSION_MAX_BYTES: usize = 2_400;

    #[test]
    fn a_session_takes_little_memory() {
        let session = |(shared, socket, source, port): (&'static Arc<Shared>, _, _, PortNumber)| {
            intake::import(shared, socket, source, port)
        };
        let bytes = size_of_result(session);
        assert!(
            bytes <= SESSION_MAX_BYTES,
            "an import session takes {bytes} bytes"
        );
    }

    fn size_of_result<A, F>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }
}
