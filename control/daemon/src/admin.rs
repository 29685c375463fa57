//! The admin server: what an operator asks a running process, over HTTP/1.1 on a loopback address.
//!
//! Everyone who can reach the address is trusted to read everything shown and to change the log level, so it only ever
//! binds loopback, answers only requests whose `Host` names loopback (or a web page could reach it by DNS rebinding)
//! and needs no further login. All it holds is bounded: connections, header, body, and time. One request per
//! connection: scrapes are rare and a connection that idles is one to run out of.
//!
//! Built in: `/livez`, `/readyz[?verbose]`, `/metrics`, `/log-level` and an index at `/`. The binary adds pages of its
//! own, each a function that renders a value when asked.

mod answer;
mod host;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::{runtime, time};
use tracing::{debug, warn};

use crate::logging::LogLevel;
use crate::metrics::Metrics;
use crate::ready::Readiness;
use answer::Answers;

/// Largest request body taken, in bytes.
pub const BODY_MAX_BYTES: usize = 4096;

/// Most connections served at once; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 32;

/// Largest request head, in bytes; the smallest hyper allows.
const HEAD_MAX_BYTES: usize = 8192;

/// How long accepting pauses when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a page shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The media type of `body`.
    pub content_type: &'static str,
    /// The whole text.
    pub body: String,
}

/// What the admin server shows: the built-in pages and the binary's own.
pub struct AdminPages {
    readiness: Readiness,
    metrics: Metrics,
    log_level: Option<LogLevel>,
    /// Lines of `/readyz?verbose`.
    remarks: Vec<Remark>,
    pages: BTreeMap<&'static str, Render>,
}

/// An admin server that has its address and does not answer yet.
pub struct Admin {
    listener: StdListener,
    address: SocketAddr,
    answers: Arc<Answers>,
    limits: Limits,
}

/// An admin server on a thread of its own; it stops when this is dropped.
#[derive(Debug)]
pub struct AdminThread {
    address: SocketAddr,
    /// Dropping it is the signal to stop.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why an admin server could not start.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The address is reachable from elsewhere.
    #[error("admin address {0} is not loopback; use 127.0.0.1:{port} or [::1]:{port}", port = .0.port())]
    NotLoopback(SocketAddr),
    /// A page's path is built in, or is no path.
    #[error(
        "admin page {0:?}: a path starts with a slash, has no query and is not one of the built-in ones"
    )]
    Path(&'static str),
    /// The address could not be bound.
    #[error("admin address {address}: {source}; is another instance running?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The thread or its runtime could not be started.
    #[error("starting the admin server: {0}")]
    Start(io::Error),
}

type Remark = Box<dyn Fn() -> String + Send + Sync>;
/// Renders one page.
type Render = Box<dyn Fn() -> Page + Send + Sync>;

/// How long a client may take, and how many there may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// For the request head, and again for the body.
    request: Duration,
    /// For everything from accept to the last byte of the answer.
    connection: Duration,
    connections: usize,
}

impl Page {
    /// A page of plain text.
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    /// A page of JSON, already serialised.
    pub fn json(body: impl Into<String>) -> Self {
        Self {
            content_type: "application/json",
            body: body.into(),
        }
    }
}

impl AdminPages {
    /// The built-in pages without `/log-level`.
    pub fn new(readiness: Readiness, metrics: Metrics) -> Self {
        Self {
            readiness,
            metrics,
            log_level: None,
            remarks: Vec::new(),
            pages: BTreeMap::new(),
        }
    }

    /// Adds `/log-level`: GET shows the directive, PUT sets it, `PUT /log-level?for=SECONDS` sets it for a while.
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = Some(level);
        self
    }

    /// Adds a line to `/readyz?verbose`, rendered anew for each GET. It does not change the verdict.
    pub fn remark(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.remarks.push(Box::new(render));
        self
    }

    /// Adds a page at `path`, such as `/routes`, rendered anew for each GET. `render` runs on the admin server's
    /// thread and must not block. A later page of one path replaces the earlier.
    pub fn page(
        mut self,
        path: &'static str,
        render: impl Fn() -> Page + Send + Sync + 'static,
    ) -> Self {
        self.pages.insert(path, Box::new(render));
        self
    }
}

impl Admin {
    /// Binds `address` (port 0 picks a free one). Connections wait in the kernel until [`Self::serve`] or
    /// [`Self::spawn`].
    pub fn bind(address: SocketAddr, pages: AdminPages) -> Result<Self, AdminError> {
        if !address.ip().to_canonical().is_loopback() {
            return Err(AdminError::NotLoopback(address));
        }
        let answers = Answers::new(pages, Limits::DEFAULT.request)?;
        let bound = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bound().map_err(|source| AdminError::Bind { address, source })?;
        Ok(Self {
            listener,
            address,
            answers: Arc::new(answers),
            limits: Limits::DEFAULT,
        })
    }

    /// The address bound, with the port picked.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers on the runtime of the caller until `stop` resolves; what is under way then is cut.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), AdminError> {
        let listener = TcpListener::from_std(self.listener).map_err(AdminError::Start)?;
        serve(listener, self.answers, self.limits, stop).await;
        Ok(())
    }

    /// Answers on a thread and runtime of its own, so that neither holds the other up: the data path and a page that
    /// takes long to render.
    pub fn spawn(self) -> Result<AdminThread, AdminError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(AdminError::Start)?;
        let (stop, stopped) = oneshot::channel();
        let address = self.address;
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                let stopped = async {
                    // An error is the sender being dropped: the very signal.
                    let _ = stopped.await;
                };
                if let Err(error) = runtime.block_on(self.serve(stopped)) {
                    warn!(%error, "admin server ended");
                }
            })
            .map_err(AdminError::Start)?;
        Ok(AdminThread {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl AdminThread {
    /// The address bound, with the port picked.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops answering and waits for the thread to end.
    pub fn stop(mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of a page ended its own task, never the thread; there is nothing to pass on.
            let _ = thread.join();
        }
    }
}

impl Limits {
    const DEFAULT: Self = Self {
        request: Duration::from_secs(5),
        connection: Duration::from_secs(30),
        connections: CONNECTIONS_MAX,
    };
}

async fn serve(
    listener: TcpListener,
    answers: Arc<Answers>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stop => return,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "an admin page failed");
                }
            }
            client = accept(&listener), if connections.len() < limits.connections => {
                connections.spawn(connection(client, Arc::clone(&answers), limits));
            }
        }
    }
}

/// The next client from this machine.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            // With route_localnet set, the kernel lets others reach 127.0.0.1.
            Ok((client, peer)) if peer.ip().to_canonical().is_loopback() => return client,
            Ok((_, peer)) => debug!(%peer, "admin client refused: not from this machine"),
            Err(error) => {
                warn!(%error, "admin server cannot accept");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(client: TcpStream, answers: Arc<Answers>, limits: Limits) {
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, std::convert::Infallible>(answers.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .max_buf_size(HEAD_MAX_BYTES)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(client), service);
    match time::timeout(limits.connection, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin client went wrong"),
        Err(_) => debug!("admin client too slow"),
    }
}

#[cfg(test)]
mod tests;
