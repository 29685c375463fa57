//! A sample application: an HTTP server that says who it is.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// The header that comes back as it was sent, so that an answer belongs to its question.
pub(super) const NONCE: &str = "x-demo-nonce";

/// Who an instance is: the whole of its answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Who {
    pub(super) cluster: String,
    pub(super) service: String,
    pub(super) instance: String,
}

/// One instance of an application, at an address of its own that it keeps.
pub(super) struct Instance {
    pub(super) who: Who,
    pub(super) address: SocketAddr,
    served: Arc<AtomicU64>,
    serving: Option<JoinHandle<()>>,
}

impl Instance {
    pub(super) fn new(cluster: &str, service: &str, instance: &str, address: SocketAddr) -> Self {
        Self {
            who: Who {
                cluster: cluster.to_owned(),
                service: service.to_owned(),
                instance: instance.to_owned(),
            },
            address,
            served: Arc::default(),
            serving: None,
        }
    }

    /// Serves from now on.
    pub(super) async fn start(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        let served = Arc::clone(&self.served);
        self.serving = Some(tokio::spawn(serve(listener, self.who.clone(), served)));
        Ok(())
    }

    /// Ends it as a crash would: nobody listens any more when this returns, and what was open is cut.
    pub(super) async fn kill(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // Cancelled, which is what was wanted.
            let _ = serving.await;
        }
    }

    /// Requests answered since the demo began.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn serve(listener: TcpListener, who: Who, served: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((socket, _)) = accepted {
                    connections.spawn(answer(socket, who.clone(), Arc::clone(&served)));
                }
            }
        }
    }
}

async fn answer(socket: TcpStream, who: Who, served: Arc<AtomicU64>) {
    let service = service_fn(|request: Request<Incoming>| {
        served.fetch_add(1, Relaxed);
        let response = response(&request, &who);
        async { Ok::<_, Infallible>(response) }
    });
    // A caller that goes away is its own business.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

fn response(request: &Request<Incoming>, who: &Who) -> Response<Full<Bytes>> {
    let body = serde_json::to_string(who).unwrap_or_default() + "\n";
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    if let Some(nonce) = request.headers().get(NONCE) {
        headers.insert(NONCE, nonce.clone());
    }
    response
}
