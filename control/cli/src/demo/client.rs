//! A small HTTP client that goes through a gateway, as `curl` would: by SOCKS5, by CONNECT, or to an import port.
//!
//! Each call is a connection of its own, and counts only if what came back is the answer to what was asked.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::Bytes;
use corinth_model::Reason;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::service::{NONCE, Who};

/// A call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_MAX_BYTES: usize = 64 << 10;
/// The header in which a gateway says why it refuses a CONNECT.
const REASON: &str = "x-corinth-reason";

/// How a gateway is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Socks(SocketAddr),
    Connect(SocketAddr),
    Import(SocketAddr),
}

/// Who calls what, and how.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) door: Door,
    /// The service's name in the clusterset.
    pub(super) host: String,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// The gateway said no, with its reason.
    Refused(Reason),
    /// Something else, in words.
    Failed(String),
}

impl Client {
    /// Calls once.
    pub(super) async fn call(&self) -> Result<Who, Miss> {
        timeout(CALL_TIMEOUT, self.try_call())
            .await
            .unwrap_or_else(|_| Err(Miss::Failed(format!("no answer within {CALL_TIMEOUT:?}"))))
    }

    /// What a person would ask for.
    pub(super) fn url(&self) -> String {
        match self.door {
            Door::Socks(_) | Door::Connect(_) => format!("http://{}/", self.host),
            Door::Import(address) => format!("http://{address}/"),
        }
    }

    async fn try_call(&self) -> Result<Who, Miss> {
        match self.door {
            Door::Import(address) => {
                let socket = TcpStream::connect(address).await.map_err(failed)?;
                self.get(TokioIo::new(socket)).await
            }
            Door::Socks(address) => {
                let socket = self.through_socks(address).await?;
                self.get(TokioIo::new(socket)).await
            }
            Door::Connect(address) => self.get_through_connect(address).await,
        }
    }

    /// RFC 1928, without authentication.
    async fn through_socks(&self, proxy: SocketAddr) -> Result<TcpStream, Miss> {
        let mut socket = TcpStream::connect(proxy).await.map_err(failed)?;
        let length = u8::try_from(self.host.len()).map_err(failed)?;
        let mut words = vec![5, 1, 0, 5, 1, 0, 3, length];
        words.extend_from_slice(self.host.as_bytes());
        words.extend_from_slice(&80_u16.to_be_bytes());
        let (greeting, request) = words.split_at(3);
        socket.write_all(greeting).await.map_err(failed)?;
        let mut chosen = [0; 2];
        socket.read_exact(&mut chosen).await.map_err(failed)?;
        socket.write_all(request).await.map_err(failed)?;
        let mut reply = [0; 10];
        socket.read_exact(&mut reply).await.map_err(failed)?;
        match (chosen, reply[1]) {
            ([5, 0], 0) => Ok(socket),
            (_, code) => Err(Miss::Failed(format!("SOCKS5 reply {code}"))),
        }
    }

    /// RFC 9110 §9.3.6; the reason of a refusal stands in a header.
    async fn get_through_connect(&self, proxy: SocketAddr) -> Result<Who, Miss> {
        let socket = TcpStream::connect(proxy).await.map_err(failed)?;
        let authority = format!("{}:80", self.host);
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(&authority)
            .header(header::HOST, &authority)
            .body(Empty::<Bytes>::new())
            .map_err(failed)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket))
            .await
            .map_err(failed)?;
        let connection = connection.with_upgrades();
        let call = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            if response.status() != StatusCode::OK {
                return Err(refused(&response));
            }
            let opened = hyper::upgrade::on(response).await.map_err(failed)?;
            self.get(opened).await
        };
        drive(connection, call).await
    }

    async fn get<T>(&self, opened: T) -> Result<Who, Miss>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin,
    {
        let nonce = fastrand::u64(..).to_string();
        let request = Request::get("/")
            .header(header::HOST, &self.host)
            .header(NONCE, &nonce)
            .body(Empty::<Bytes>::new())
            .map_err(failed)?;
        let (mut sender, connection) = http1::handshake(opened).await.map_err(failed)?;
        let call = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            if response.status() != StatusCode::OK {
                return Err(failed(response.status()));
            }
            if response
                .headers()
                .get(NONCE)
                .map(header::HeaderValue::as_bytes)
                != Some(nonce.as_bytes())
            {
                return Err(failed("the answer to another question came back"));
            }
            let body = Limited::new(response.into_body(), BODY_MAX_BYTES)
                .collect()
                .await;
            serde_json::from_slice(&body.map_err(failed)?.to_bytes()).map_err(failed)
        };
        drive(connection, call).await
    }
}

/// Runs a connection for as long as a call on it takes.
async fn drive<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    call: impl Future<Output = Result<T, Miss>>,
) -> Result<T, Miss> {
    let driven = async {
        // How it ends is seen by the call.
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = call => answer,
        never = driven => never,
    }
}

fn refused(response: &Response<Incoming>) -> Miss {
    let named = response.headers().get(REASON);
    let reason = named.and_then(|code| Reason::from_code(code.to_str().ok()?));
    reason.map_or_else(|| failed(response.status()), Miss::Refused)
}

fn failed(why: impl fmt::Display) -> Miss {
    Miss::Failed(why.to_string())
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => write!(f, "{} {}", reason.code(), reason.name()),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl Door {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Socks(_) => "SOCKS5",
            Self::Connect(_) => "HTTP CONNECT",
            Self::Import(_) => "import port",
        }
    }
}
