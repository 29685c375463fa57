//! One stream between two control planes: gRPC on bytes that a gateway handed over (`corinth.peering.v1`).
//!
//! Whoever opened the stream is the client of the call; after that both sides do the same. A session only moves
//! messages: what they mean, and whether the session may go on, is decided by the [`Relations`] it belongs to.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use corinth_api::peering::Message;
use corinth_api::wire::peering as wire;
use corinth_model::ClusterName;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;
use tracing::{debug, warn};

use crate::peering::{OpenedBy, SessionId};

/// Messages that wait to be sent; what is behind them stays in the journal.
const QUEUE: usize = 32;
/// Largest message, as the protocol says.
const MESSAGE_MAX_BYTES: usize = 1 << 20;
/// How long the other side may take to begin the call.
const BEGIN: Duration = Duration::from_secs(10);
/// HTTP/2 pings, so that a stream whose other end has vanished does not stay.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// What sessions belong to.
pub trait Relations: Send + Sync + 'static {
    /// A session begins; `wake` is called when there may be something to send.
    fn opened(&self, peer: &ClusterName, by: OpenedBy, session: Session) -> Option<SessionId>;
    /// A message came.
    fn received(&self, peer: &ClusterName, session: SessionId, message: Message);
    /// A message came that cannot be understood. The session is over.
    fn malformed(&self, peer: &ClusterName, session: SessionId);
    /// What is to be sent next, if anything.
    fn next(&self, peer: &ClusterName, session: SessionId) -> Option<Message>;
    /// It is over.
    fn closed(&self, peer: &ClusterName, session: SessionId);
}

/// A session as its relation holds it.
#[derive(Debug, Clone)]
pub struct Session {
    /// There may be something to send.
    pub wake: Arc<Notify>,
    /// It must end, once what is to be sent has been.
    pub end: watch::Sender<bool>,
    /// To be sent before anything else.
    pub last_words: Arc<Mutex<Vec<Message>>>,
}

/// Serves a stream that the peer opened, to its end.
pub async fn serve(relations: Arc<dyn Relations>, peer: ClusterName, stream: UnixStream) {
    let (done, ended) = watch::channel(false);
    let service = Served {
        relations,
        peer: peer.clone(),
        done: Arc::new(Mutex::new(Some(done))),
    };
    let service = wire::peering_server::PeeringServer::new(service)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let incoming = tokio_stream::once(Ok::<_, io::Error>(stream)).chain(tokio_stream::pending());
    let mut over = ended;
    // The call ends the connection: there is one call on each.
    let is_over = async move {
        let _ = over.wait_for(|is_done| *is_done).await;
    };
    let served = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(1)
        .http2_max_header_list_size(16 << 10)
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, is_over)
        .await;
    if let Err(error) = served {
        debug!(%peer, %error, "peering stream ended");
    }
}

/// Carries on a stream that we opened, to its end. Whether a session came of it.
pub async fn call(relations: Arc<dyn Relations>, peer: ClusterName, stream: UnixStream) -> bool {
    let mut had_session = false;
    if let Err(error) = call_on(relations, &peer, stream, &mut had_session).await {
        debug!(%peer, %error, "peering stream ended");
    }
    had_session
}

async fn call_on(
    relations: Arc<dyn Relations>,
    peer: &ClusterName,
    stream: UnixStream,
    had_session: &mut bool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut stream = Some(stream);
    let once = service_fn(move |_: Uri| {
        let stream = stream.take().map(TokioIo::new);
        std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    // The address is only a name: the stream is there already.
    let channel = Endpoint::from_static("http://control-plane.peer")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(16 << 10)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(once)
        .await?;
    let mut client = wire::peering_client::PeeringClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let (outgoing, queue) = mpsc::channel(QUEUE);
    let Some(running) = Running::begin(relations, peer.clone(), OpenedBy::Us, outgoing) else {
        return Ok(());
    };
    *had_session = true;
    // Our Hello goes out with the call: either side begins without waiting for the other.
    let call = client.exchange(ReceiverStream::new(queue));
    let answered = tokio::select! {
        answered = tokio::time::timeout(BEGIN, call) => answered,
        () = running.send() => return Ok(()),
    };
    running.run(answered??.into_inner()).await;
    Ok(())
}

/// The service on one connection, for one peer.
struct Served {
    relations: Arc<dyn Relations>,
    peer: ClusterName,
    /// Taken by the only call.
    done: Arc<Mutex<Option<watch::Sender<bool>>>>,
}

#[tonic::async_trait]
impl wire::peering_server::Peering for Served {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<wire::Message, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<wire::Message>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let done = self.done.lock().take();
        let done = done.ok_or_else(|| Status::already_exists("one call on each stream"))?;
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let relations = Arc::clone(&self.relations);
        let peer = self.peer.clone();
        let incoming = request.into_inner();
        tokio::spawn(async move {
            if let Some(running) = Running::begin(relations, peer, OpenedBy::Peer, outgoing) {
                running.run(incoming).await;
            }
            done.send_replace(true);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue).map(Ok))))
    }
}

/// A session that goes on; it is over when this is dropped.
struct Running {
    relations: Arc<dyn Relations>,
    peer: ClusterName,
    id: SessionId,
    wake: Arc<Notify>,
    end: watch::Receiver<bool>,
    last_words: Arc<Mutex<Vec<Message>>>,
    outgoing: mpsc::Sender<wire::Message>,
}

impl Running {
    fn begin(
        relations: Arc<dyn Relations>,
        peer: ClusterName,
        by: OpenedBy,
        outgoing: mpsc::Sender<wire::Message>,
    ) -> Option<Self> {
        let wake = Arc::new(Notify::new());
        let (end, ended) = watch::channel(false);
        let last_words = Arc::default();
        let session = Session {
            wake: Arc::clone(&wake),
            end,
            last_words: Arc::clone(&last_words),
        };
        let id = relations.opened(&peer, by, session)?;
        Some(Self {
            relations,
            peer,
            id,
            wake,
            end: ended,
            last_words,
            outgoing,
        })
    }

    async fn run(self, mut incoming: Streaming<wire::Message>) {
        tokio::select! {
            () = self.send() => {}
            () = self.receive(&mut incoming) => {}
        }
    }

    /// Sends what there is to send, until it must end or nobody listens.
    async fn send(&self) {
        let mut end = self.end.clone();
        loop {
            let Ok(room) = self.outgoing.reserve().await else {
                return;
            };
            let last = self.last_words.lock().pop();
            if let Some(message) = last.or_else(|| self.relations.next(&self.peer, self.id)) {
                room.send(wire::Message::from(&message));
                continue;
            }
            drop(room);
            if *end.borrow_and_update() {
                return self.linger().await;
            }
            tokio::select! {
                () = self.wake.notified() => {}
                ended = end.changed() => if ended.is_err() { return },
                () = self.outgoing.closed() => return,
            }
        }
    }

    /// Until the last words have been taken from the queue, but not for ever.
    async fn linger(&self) {
        let taken = self.outgoing.reserve_many(QUEUE);
        let _ = tokio::time::timeout(Duration::from_secs(1), taken).await;
    }

    async fn receive(&self, incoming: &mut Streaming<wire::Message>) {
        while let Some(Ok(message)) = incoming.next().await {
            match Message::decode(message) {
                Ok(message) => self.relations.received(&self.peer, self.id, message),
                Err(error) => {
                    warn!(peer = %self.peer, %error, "the peer breaks the protocol of peering");
                    return self.relations.malformed(&self.peer, self.id);
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.relations.closed(&self.peer, self.id);
    }
}
