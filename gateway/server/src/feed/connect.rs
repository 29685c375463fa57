//! gRPC over the control plane's socket.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use corinth_api::{ROUTES_MESSAGE_MAX_BYTES, Report, WORDS_MAX_BYTES, wire::routes as wire};
use futures_util::stream::{Stream, poll_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, sync::mpsc};
use tonic::{
    Status,
    codegen::{Service, http::Uri},
    transport::{Channel, Endpoint},
};

/// How long a connect on the same host may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Bytes on their way to us: one message, and four times that for the connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// A control plane that answers no ping for so long hangs: the next connection is tried.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers of an answer are a few hundred bytes.
const HEADERS_MAX_BYTES: u32 = 16 << 10;
/// Streams that were reset and are still remembered: we open one.
const RESET_MAX: usize = 8;

/// A client of the control plane that listens on `socket`, for its tables.
pub(super) async fn client(
    socket: &Path,
) -> Result<wire::routes_client::RoutesClient<Channel>, tonic::transport::Error> {
    let channel = channel(socket).await?;
    Ok(wire::routes_client::RoutesClient::new(channel)
        .max_decoding_message_size(ROUTES_MESSAGE_MAX_BYTES)
        .max_encoding_message_size(ROUTES_MESSAGE_MAX_BYTES))
}

/// A connection to the control plane that listens on `socket`.
pub(crate) async fn channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    // The name goes nowhere: the socket is what is connected to.
    let endpoint = Endpoint::from_static("http://control.invalid")
        .connect_timeout(CONNECT_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(false)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_TIMEOUT)
        .http2_max_header_list_size(HEADERS_MAX_BYTES)
        .http2_max_concurrent_reset_streams(RESET_MAX)
        .http2_max_local_error_reset_streams(RESET_MAX);
    let connector = Connector(socket.to_owned());
    endpoint.connect_with_connector(connector).await
}

/// What is reported, as it goes out.
pub(super) fn outbound(mut reports: mpsc::Receiver<Report>) -> impl Stream<Item = wire::Report> {
    poll_fn(move |context| {
        reports
            .poll_recv(context)
            .map(|report| report.as_ref().map(Into::into))
    })
}

/// What went wrong, down to what the system said.
pub(crate) fn words(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    short(&last.to_string())
}

/// What it answered instead.
pub(crate) fn status_words(status: &Status) -> String {
    short(&format!("{:?}: {}", status.code(), status.message()))
}

fn short(text: &str) -> String {
    let clean = text.chars().filter(|c| !c.is_control());
    clean.take(WORDS_MAX_BYTES).collect()
}

/// Connects to a socket in the file system, whatever address is asked for.
#[derive(Clone)]
struct Connector(PathBuf);

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}
