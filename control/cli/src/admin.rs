//! Asks a running gateway, over its admin pages.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time::timeout};

use crate::{args::AdminArgs, exit::Exit, trouble::Trouble};

/// How long an answer may take unless told otherwise: it is on this machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest page that is read: 100,000 routes are half of it.
const PAGE_MAX_BYTES: usize = 64 << 20;

/// Why there is no answer.
enum NoAnswer {
    Connect(io::Error),
    Http(hyper::Error),
    TooLate(Duration),
    TooLong,
    Status(StatusCode),
    Foreign(serde_json::Error),
}

/// What the page at `path` of the gateway shows.
pub(crate) async fn ask<T: DeserializeOwned>(args: &AdminArgs, path: &str) -> Result<T, Trouble> {
    let within = args.timeout.unwrap_or(ANSWER_TIMEOUT);
    ask_within(args, path, within).await
}

pub(crate) async fn ask_within<T: DeserializeOwned>(
    args: &AdminArgs,
    path: &str,
    within: Duration,
) -> Result<T, Trouble> {
    let page = timeout(within, page(&args.admin, path)).await;
    page.unwrap_or(Err(NoAnswer::TooLate(within)))
        .and_then(|page| serde_json::from_slice(&page).map_err(NoAnswer::Foreign))
        .map_err(|why| {
            let remedy = why.remedy();
            let what = format!("no answer from the gateway at {}", args.admin);
            Trouble::new(Exit::Unreachable, what, why, remedy)
        })
}

async fn page(address: &str, path: &str) -> Result<Bytes, NoAnswer> {
    let socket = TcpStream::connect(address)
        .await
        .map_err(NoAnswer::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let request = Request::get(path)
        .header(header::HOST, address)
        .body(Empty::<Bytes>::new())
        .map_err(|error| NoAnswer::Connect(io::Error::other(error)))?;
    let answer = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(NoAnswer::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), PAGE_MAX_BYTES).collect();
        let body = body.await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return NoAnswer::TooLong;
            }
            NoAnswer::Connect(io::Error::other(error))
        })?;
        Ok(body.to_bytes())
    };
    // The connection is driven until the answer is there; its own end tells nothing more.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = driven => never,
    }
}

impl NoAnswer {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::TooLate(_) => {
                "is a gateway running here, and is this its `listen.admin`? \
                 Name another address with --admin"
            }
            Self::Http(_) | Self::Status(_) | Self::Foreign(_) | Self::TooLong => {
                "something else answers there, or another version: \
                 name the `listen.admin` of a gateway with --admin"
            }
        }
    }
}

impl From<hyper::Error> for NoAnswer {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Http(error) => write!(f, "it does not speak HTTP as it should: {error}"),
            Self::TooLate(within) => write!(f, "nothing came within {within:?}"),
            Self::TooLong => write!(f, "the answer is longer than {PAGE_MAX_BYTES} bytes"),
            Self::Status(status) => write!(f, "it answered {status}"),
            Self::Foreign(error) => write!(f, "its answer is not what a gateway shows: {error}"),
        }
    }
}
