//! A server with its client, for the tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time;
use tracing::subscriber::DefaultGuard;

use crate::admin::answer::Answers;
use crate::admin::{Admin, AdminPages, Limits, Page};
use crate::logging::tests::{Lines, logging};
use crate::logging::{LogFormat, LogLevel};
use crate::metrics::{Build, Metrics};
use crate::ready::Readiness;

/// A server on the runtime of the test, and the logging of the test's thread.
pub(super) struct Lab {
    pub(super) address: SocketAddr,
    pub(super) readiness: Readiness,
    pub(super) level: LogLevel,
    pub(super) lines: Lines,
    _logging: DefaultGuard,
}

impl Lab {
    pub(super) fn new() -> Self {
        Self::with(|pages| pages)
    }

    pub(super) fn with(more: impl FnOnce(AdminPages) -> AdminPages) -> Self {
        Self::start(Limits::DEFAULT, more)
    }

    /// With deadlines short enough to wait for.
    pub(super) fn impatient(connections: usize) -> Self {
        Self::impatient_with(connections, |pages| pages)
    }

    pub(super) fn impatient_with(
        connections: usize,
        more: impl FnOnce(AdminPages) -> AdminPages,
    ) -> Self {
        let limits = Limits {
            request: Duration::from_millis(200),
            connection: Duration::from_millis(600),
            connections,
        };
        Self::start(limits, more)
    }

    fn start(limits: Limits, more: impl FnOnce(AdminPages) -> AdminPages) -> Self {
        let (guard, level, lines) = logging("warn", LogFormat::Text);
        let readiness = Readiness::new();
        let pages = AdminPages::new(readiness.clone(), metrics())
            .log_level(level.clone())
            .page("/routes", || Page::json("{\"routes\":[]}"));
        let mut admin =
            Admin::bind(any_port(), AdminPages::new(Readiness::new(), metrics())).unwrap();
        admin.answers = Arc::new(Answers::new(more(pages), limits.request).unwrap());
        admin.limits = limits;
        let address = admin.local_addr();
        tokio::spawn(admin.serve(std::future::pending()));
        Self {
            address,
            readiness,
            level,
            lines,
            _logging: guard,
        }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(&get_request(path)).await
    }

    pub(super) async fn put_level(&self, query: &str, directive: &str) -> Answer {
        let length = directive.len();
        let request = format!(
            "PUT /log-level{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{directive}"
        );
        self.send(&request).await
    }

    pub(super) async fn send(&self, request: &str) -> Answer {
        exchange(self.address, request).await
    }

    pub(super) async fn send_bytes(&self, request: &[u8]) -> Answer {
        exchange_bytes(self.address, request).await
    }
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

pub(super) async fn exchange(address: SocketAddr, request: &str) -> Answer {
    exchange_bytes(address, request.as_bytes()).await
}

pub(super) async fn exchange_bytes(address: SocketAddr, request: &[u8]) -> Answer {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    Answer::parse(&answer)
}

/// Whether the server ends the connection without an answer.
pub(super) async fn ended_soon(mut client: TcpStream) -> bool {
    let mut answer = Vec::new();
    let ended = time::timeout(Duration::from_secs(30), client.read_to_end(&mut answer)).await;
    ended.is_ok() && answer.is_empty()
}

pub(super) fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

pub(super) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(super) fn metrics() -> Metrics {
    Metrics::new(Build {
        binary: "corinth-test",
        version: "0.0.0",
    })
    .unwrap()
}
