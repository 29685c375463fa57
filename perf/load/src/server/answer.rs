//! Answers that are given where connections are accepted: they are short, or there are too many for threads.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Host, session::LATE_MAX, shared::Shared};
use crate::{exchange::Answers, spec::Workload};

/// A head of an HTTP request is not longer.
const HEAD_MAX_BYTES: usize = 8 << 10;

/// Fields in it.
const FIELDS_MAX: usize = 64;

/// The longest body asked for by `/bytes/N`.
const BODY_MAX_BYTES: u64 = 1 << 30;

/// A request has this long to come, and a client this long to take a part of the response.
const PATIENCE: Duration = Duration::from_secs(60);

const PART_BYTES: usize = 64 << 10;

/// Answers the requests of a `crr` or `idle` connection until the client closes it.
pub(super) async fn short(shared: &Shared, mut stream: TcpStream, rest: Vec<u8>) {
    let Some(_place) = shared.take_connection() else {
        return;
    };
    let mut stopped = shared.stopped.subscribe();
    let mut answers = Answers::new(&shared.spec);
    tokio::select! {
        // The client sees it end, which is all there is to say.
        _ = exchange(shared, &mut stream, &mut answers, rest) => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

async fn exchange(
    shared: &Shared,
    stream: &mut TcpStream,
    answers: &mut Answers,
    mut bytes: Vec<u8>,
) -> io::Result<()> {
    let mut out = Vec::new();
    shared.note_bytes(bytes.len());
    loop {
        answers.answer(&mut bytes, &mut out, |number| shared.note_request(number));
        if !out.is_empty() {
            stream.write_all(&out).await?;
            shared.note_bytes(out.len());
            out.clear();
            if shared.spec.workload == Workload::Crr {
                // Whoever closes first has to remember the connection for a while; a client runs out of ports.
                return stream.shutdown().await;
            }
            // There may be more that has come already.
            continue;
        }
        let got = stream.read_buf(&mut bytes).await?;
        if got == 0 {
            return Ok(());
        }
        shared.note_bytes(got);
    }
}

/// Answers HTTP/1.1 requests: `/bytes/N` with that many, anything else with two bytes. Nobody announces a test here,
/// so each connection may take what a test may take, and all together have the connections of one.
pub(super) async fn http(host: &Host, mut stream: TcpStream, bytes: Vec<u8>) {
    let Ok(_place) = host.callers.try_acquire() else {
        // It is sent away in any case.
        let _ = refuse(&mut stream, "503 Service Unavailable").await;
        return;
    };
    let mut stopped = host.stop.subscribe();
    let longest = host.settings.limits.duration.saturating_add(LATE_MAX);
    tokio::select! {
        // The client sees it end, which is all there is to say.
        _ = timeout(longest, serve(host, &mut stream, bytes)) => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

async fn serve(host: &Host, stream: &mut TcpStream, mut bytes: Vec<u8>) -> io::Result<()> {
    let mut left_bytes = host.settings.limits.bytes;
    loop {
        let request = match Request::parse(&bytes) {
            Ok(Some(request)) => request,
            Ok(None) if bytes.len() < HEAD_MAX_BYTES => {
                let read = timeout(PATIENCE, stream.read_buf(&mut bytes));
                if read.await.map_err(|_| io::ErrorKind::TimedOut)?? == 0 {
                    return Ok(());
                }
                continue;
            }
            Ok(None) | Err(NoRequest) => return refuse(stream, "400 Bad Request").await,
        };
        if !host.knows(request.token.as_deref()) {
            return refuse(stream, "401 Unauthorized").await;
        }
        let Some(body_bytes) = body_length(&request.path) else {
            return refuse(stream, "404 Not Found").await;
        };
        match left_bytes.checked_sub(request.body_bytes.saturating_add(body_bytes)) {
            Some(left) => left_bytes = left,
            None => return refuse(stream, "429 Too Many Requests").await,
        }
        bytes.drain(..request.head_bytes);
        skip_body(stream, &mut bytes, request.body_bytes).await?;
        respond(stream, body_bytes, &request).await?;
        if request.is_last {
            return stream.shutdown().await;
        }
    }
}

/// What is looked at of a request.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    head_bytes: usize,
    body_bytes: u64,
    path: String,
    token: Option<String>,
    is_last: bool,
    is_head: bool,
}

/// It is not HTTP/1, or more than we understand.
#[derive(Debug, PartialEq, Eq)]
struct NoRequest;

impl Request {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, NoRequest> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Request::new(&mut fields);
        let head_bytes = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(NoRequest),
        };
        let mut request = Self {
            head_bytes,
            body_bytes: 0,
            path: head.path.unwrap_or_default().to_owned(),
            token: None,
            is_last: head.version == Some(0),
            is_head: head.method == Some("HEAD"),
        };
        for field in head.headers.iter() {
            let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
            if field.name.eq_ignore_ascii_case("content-length") {
                request.body_bytes = value.parse().map_err(|_| NoRequest)?;
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(NoRequest);
            } else if field.name.eq_ignore_ascii_case("connection") {
                request.is_last = value.eq_ignore_ascii_case("close")
                    || request.is_last && !value.eq_ignore_ascii_case("keep-alive");
            } else if field.name.eq_ignore_ascii_case("authorization") {
                request.token = value.strip_prefix("Bearer ").map(str::to_owned);
            }
        }
        Ok(Some(request))
    }
}

fn body_length(path: &str) -> Option<u64> {
    match path.strip_prefix("/bytes/") {
        None => Some(2),
        Some(number) => number.parse().ok().filter(|bytes| *bytes <= BODY_MAX_BYTES),
    }
}

async fn skip_body(stream: &mut TcpStream, bytes: &mut Vec<u8>, body_bytes: u64) -> io::Result<()> {
    let here = bytes
        .len()
        .min(usize::try_from(body_bytes).unwrap_or(usize::MAX));
    bytes.drain(..here);
    let mut left = body_bytes - here as u64;
    let mut part = [0; HEAD_MAX_BYTES];
    while left > 0 {
        let most = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = timeout(PATIENCE, stream.read(&mut part[..most]));
        let got = read.await.map_err(|_| io::ErrorKind::TimedOut)??;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= got as u64;
    }
    Ok(())
}

async fn respond(stream: &mut TcpStream, body_bytes: u64, request: &Request) -> io::Result<()> {
    let connection = if request.is_last {
        "close"
    } else {
        "keep-alive"
    };
    let mut first = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {body_bytes}\r\nconnection: {connection}\r\n\r\n"
    )
    .into_bytes();
    let mut left = if request.is_head { 0 } else { body_bytes };
    let with_head = left.min(PART_BYTES as u64);
    first.resize(first.len() + with_head as usize, b'.');
    write_soon(stream, &first).await?;
    left -= with_head;
    if left > 0 {
        let part = [b'.'; PART_BYTES];
        while left > 0 {
            let length = left.min(PART_BYTES as u64);
            write_soon(stream, &part[..length as usize]).await?;
            left -= length;
        }
    }
    Ok(())
}

async fn refuse(stream: &mut TcpStream, status: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    write_soon(stream, head.as_bytes()).await?;
    stream.shutdown().await
}

/// Writes at most a part of a response, to a client that takes it.
async fn write_soon(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let written = timeout(PATIENCE, stream.write_all(bytes));
    written.await.map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Request>, NoRequest> {
        Request::parse(text.as_bytes())
    }

    #[test]
    fn a_request_is_understood_as_far_as_it_matters() {
        let text =
            "POST /bytes/7 HTTP/1.1\r\nContent-Length: 3\r\nAuthorization: Bearer x\r\n\r\nabc";
        let expected = Request {
            head_bytes: text.len() - 3,
            body_bytes: 3,
            path: "/bytes/7".to_owned(),
            token: Some("x".to_owned()),
            is_last: false,
            is_head: false,
        };
        assert_eq!(parse(text), Ok(Some(expected)));
    }

    #[test]
    fn connections_last_as_their_version_says_unless_told() {
        let is_last = |text: &str| parse(text).unwrap().unwrap().is_last;
        assert!(!is_last("GET / HTTP/1.1\r\n\r\n"));
        assert!(is_last("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"));
        assert!(is_last("GET / HTTP/1.0\r\n\r\n"));
        assert!(!is_last("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn what_is_no_request_is_refused_and_what_is_unfinished_is_awaited() {
        assert_eq!(parse("GET / HT"), Ok(None));
        for wrong in [
            "\x16\x03\x01\x02\x00",
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(parse(wrong), Err(NoRequest), "{wrong:?}");
        }
    }

    #[test]
    fn nobody_gets_more_than_a_gigabyte_at_once() {
        assert_eq!(body_length("/"), Some(2));
        assert_eq!(body_length("/bytes/100"), Some(100));
        assert_eq!(body_length("/bytes/99999999999"), None);
        assert_eq!(body_length("/bytes/x"), None);
    }
}
