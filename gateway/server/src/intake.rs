//! Finds out which service a local client wants: by the port it connected to, by the SNI of its TLS, or by
//! asking it (SOCKS5, HTTP CONNECT). Names are resolved by us, never by DNS.

use std::{io::Cursor, net::SocketAddr, sync::Arc, time::Instant};

use corinth_core::{By, Request};
use corinth_model::{
    Failure, NameError, PortNumber, Protocol, Reason, Refusal, RouteName, SniName,
};
use fast_socks5::{Socks5Command, server::Socks5ServerProtocol, util::target_addr::TargetAddr};
use rustls::server::Acceptor;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    greeting::Greeting,
    record::{Intake, Record},
    relay::{self, Carried},
    said::Said,
    session::{self, Client},
    shared::Shared,
};

/// The longest CONNECT request head.
const CONNECT_HEAD_MAX_BYTES: usize = 8 << 10;
/// The longest ClientHello: one with post-quantum shares is below 2 KiB, TLS allows 16 KiB in a record.
pub(crate) const HELLO_MAX_BYTES: usize = 16 << 10;
const HEADERS_MAX: usize = 64;

/// A client of an import port.
pub(crate) async fn import(
    shared: &Arc<Shared>,
    socket: TcpStream,
    source: SocketAddr,
    port: PortNumber,
) {
    let request = Request {
        intake: By::ImportPort(port),
        protocol: Protocol::Tcp,
        source: source.ip(),
    };
    begin(
        shared,
        socket,
        source,
        Intake::Import,
        request,
        Greeting::Silent,
        Said::default(),
        Instant::now(),
    )
    .await;
}

/// A client of the SNI intake: its TLS is read as far as the name and passed on untouched.
pub(crate) async fn sni(shared: &Arc<Shared>, mut socket: TcpStream, source: SocketAddr) {
    let began = Instant::now();
    let hello = match timeout(shared.times().request, read_hello(&mut socket)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(refused)) => {
            let _ = socket.write_all(&refused.alert).await;
            return turn_away(
                shared,
                socket,
                source,
                Intake::Sni,
                Reason::Failed(refused.failure),
                began,
            );
        }
        Err(_) => {
            let late = Reason::Failed(Failure::TlsTimeout);
            return turn_away(shared, socket, source, Intake::Sni, late, began);
        }
    };
    let name = match hello.sni() {
        Ok(name) => name,
        Err(reason) => return turn_away(shared, socket, source, Intake::Sni, reason, began),
    };
    let request = Request {
        intake: By::Sni(name),
        protocol: Protocol::Tcp,
        source: source.ip(),
    };
    let said = Said::of(hello.bytes);
    begin(
        shared,
        socket,
        source,
        Intake::Sni,
        request,
        Greeting::Silent,
        said,
        began,
    )
    .await;
}

/// A SOCKS5 client.
pub(crate) async fn socks(shared: &Arc<Shared>, mut socket: TcpStream, source: SocketAddr) {
    let began = Instant::now();
    let asked = timeout(shared.times().request, ask_socks(&mut socket)).await;
    let named = match asked {
        Ok(Ok(named)) => named,
        Ok(Err(reason)) => {
            // Whether it hears the answer changes nothing.
            Greeting::Socks.refuse(&socket, reason).await;
            return turn_away(shared, socket, source, Intake::Socks, reason, began);
        }
        Err(_) => {
            let late = Reason::Failed(Failure::BadRequest);
            return turn_away(shared, socket, source, Intake::Socks, late, began);
        }
    };
    let request = Request {
        intake: named,
        protocol: Protocol::Tcp,
        source: source.ip(),
    };
    begin(
        shared,
        socket,
        source,
        Intake::Socks,
        request,
        Greeting::Socks,
        Said::default(),
        began,
    )
    .await;
}

async fn ask_socks(socket: &mut TcpStream) -> Result<By, Reason> {
    const BAD: Reason = Reason::Failed(Failure::BadRequest);
    let protocol = Socks5ServerProtocol::accept_no_auth(socket)
        .await
        .map_err(|_| BAD)?;
    let (_, command, target) = protocol.read_command().await.map_err(|_| BAD)?;
    if command != Socks5Command::TCPConnect {
        return Err(BAD);
    }
    match target {
        TargetAddr::Domain(host, port) => named(&host, port),
        // An address is no name of a service; the client must leave resolving to us (socks5h).
        TargetAddr::Ip(_) => Err(Reason::Refused(Refusal::InvalidName)),
    }
}

/// An HTTP CONNECT client.
pub(crate) async fn connect(shared: &Arc<Shared>, mut socket: TcpStream, source: SocketAddr) {
    let began = Instant::now();
    let asked = timeout(shared.times().request, ask_connect(&mut socket)).await;
    let (named, said) = match asked {
        Ok(Ok(asked)) => asked,
        Ok(Err(reason)) => {
            Greeting::Connect.refuse(&socket, reason).await;
            relay::finish(socket).await;
            return note(shared, source, Intake::Connect, reason, began);
        }
        Err(_) => {
            let late = Reason::Failed(Failure::BadRequest);
            return turn_away(shared, socket, source, Intake::Connect, late, began);
        }
    };
    let request = Request {
        intake: named,
        protocol: Protocol::Tcp,
        source: source.ip(),
    };
    begin(
        shared,
        socket,
        source,
        Intake::Connect,
        request,
        Greeting::Connect,
        said,
        began,
    )
    .await;
}

async fn ask_connect(socket: &mut TcpStream) -> Result<(By, Said), Reason> {
    const BAD: Reason = Reason::Failed(Failure::BadRequest);
    let mut head = Vec::with_capacity(512);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head).map_err(|_| BAD)? {
            httparse::Status::Complete(length) => {
                if request.method != Some("CONNECT") {
                    return Err(BAD);
                }
                let (host, port) = request
                    .path
                    .and_then(|path| path.rsplit_once(':'))
                    .ok_or(BAD)?;
                let port = port.parse().map_err(|_| BAD)?;
                let by = named(host, port)?;
                return Ok((by, Said::of(head.split_off(length))));
            }
            httparse::Status::Partial if head.len() >= CONNECT_HEAD_MAX_BYTES => return Err(BAD),
            httparse::Status::Partial => {}
        }
        if socket.read_buf(&mut head).await.map_err(|_| BAD)? == 0 {
            return Err(BAD);
        }
    }
}

/// The service behind a host name and a port.
fn named(host: &str, port: u16) -> Result<By, Reason> {
    const INVALID: Reason = Reason::Refused(Refusal::InvalidName);
    let port = PortNumber::new(port).ok_or(INVALID)?;
    match SniName::parse(host).map_err(|_| INVALID)? {
        SniName::Service(named) => Ok(By::Name(RouteName {
            port,
            scope: named.scope,
            service: named.service,
        })),
        SniName::Route(route) if route.port == port => Ok(By::Name(route)),
        SniName::Route(_) => Err(INVALID),
        other @ SniName::Other(_) => Ok(By::Sni(other)),
    }
}

/// Hands a client over to its session. Not an async function itself: its future would hold the client twice.
fn begin(
    shared: &Arc<Shared>,
    socket: TcpStream,
    source: SocketAddr,
    intake: Intake,
    request: Request,
    greeting: Greeting,
    said: Said,
    began: Instant,
) -> impl Future<Output = ()> + Send {
    if intake != Intake::Import {
        // It fails only on a socket that is gone, which the session finds out.
        let _ = relay::prepare(&SockRef::from(&socket));
    }
    let client = Client {
        socket,
        source,
        intake,
        request,
        greeting,
        said,
        began,
    };
    session::run(shared, Box::new(client))
}

/// Ends a client that did not come as far as a request.
pub(crate) fn turn_away(
    shared: &Shared,
    socket: TcpStream,
    source: SocketAddr,
    intake: Intake,
    reason: Reason,
    began: Instant,
) {
    drop(socket);
    note(shared, source, intake, reason, began);
}

/// Records a connection that did not come as far as a request.
pub(crate) fn note(
    shared: &Shared,
    source: SocketAddr,
    intake: Intake,
    reason: Reason,
    began: Instant,
) {
    let record = Record::open(&shared.telemetry, intake, source, began);
    record.close(&Carried::default(), reason, Instant::now());
}

/// A ClientHello, as far as it concerns us, and the bytes it came in.
pub(crate) struct Hello {
    pub(crate) server_name: Option<String>,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) bytes: Vec<u8>,
}

impl Hello {
    /// The service the client asked for.
    pub(crate) fn sni(&self) -> Result<SniName, Reason> {
        let name = self
            .server_name
            .as_deref()
            .ok_or(Reason::Failed(Failure::NoSni))?;
        SniName::parse(name).map_err(|_: NameError| Reason::Refused(Refusal::InvalidName))
    }
}

/// Why there is no ClientHello, and what to say before closing.
pub(crate) struct NoHello {
    pub(crate) failure: Failure,
    pub(crate) alert: Vec<u8>,
}

impl NoHello {
    fn silent(failure: Failure) -> Self {
        Self {
            failure,
            alert: Vec::new(),
        }
    }
}

/// Reads a ClientHello, in as many pieces as it comes; rustls says when it is whole. The bytes are kept:
/// whoever the connection is for gets them again.
pub(crate) async fn read_hello(socket: &mut TcpStream) -> Result<Hello, NoHello> {
    let mut acceptor = Acceptor::default();
    let mut bytes = Vec::with_capacity(2 << 10);
    loop {
        let before = bytes.len();
        let received = socket
            .read_buf(&mut bytes)
            .await
            .map_err(|_| NoHello::silent(Failure::NotTls))?;
        if received == 0 || bytes.len() > HELLO_MAX_BYTES {
            return Err(NoHello::silent(Failure::NotTls));
        }
        let mut news = Cursor::new(&bytes[before..]);
        while (news.position() as usize) < received {
            acceptor
                .read_tls(&mut news)
                .map_err(|_| NoHello::silent(Failure::NotTls))?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Ok(Hello {
                    server_name: hello.server_name().map(str::to_owned),
                    alpn: hello
                        .alpn()
                        .into_iter()
                        .flatten()
                        .map(<[u8]>::to_vec)
                        .collect(),
                    bytes,
                });
            }
            Err((_, mut alert)) => {
                let mut words = Vec::new();
                let _ = alert.write_all(&mut words);
                return Err(NoHello {
                    failure: Failure::NotTls,
                    alert: words,
                });
            }
        }
    }
}
