//! HTTP/1.1 requests, on kept connections or each on its own, against any server.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    Context,
    asking::{explain, write_requests},
    crew::{Crew, Found, Member, Span},
    load::Load,
    measure::Window,
};
use crate::{
    count::Sample,
    error::Error,
    latency::Times,
    response::{Body, Head},
    result::TestResult,
    schedule::{self, Schedule},
    socket::{self, Granted},
    spec::{Pace, Reuse},
    url::Url,
    wire::Report,
};

/// The least that is read at once.
const READ_BYTES: usize = 64 << 10;

/// So many failures one after the other, and there is no point in going on.
const FAILURES_MAX: u32 = 1_000;

/// Connections that fetch.
pub(super) struct Http {
    crew: Crew,
    per_second: Option<f64>,
    /// To the connection that found out whether there is a server.
    granted: Granted,
}

/// What all connections ask for.
#[derive(Clone)]
struct Fetch {
    addresses: Vec<SocketAddr>,
    request: Arc<Vec<u8>>,
    schedule: Option<(f64, Arc<AtomicU64>)>,
}

impl Http {
    pub(super) fn open(context: &Context<'_>, url: &Url) -> Result<Self, Error> {
        let per_second = match context.spec.pace() {
            Pace::Closed => None,
            Pace::PerSecond(rate) => Some(rate),
            Pace::PercentOfKnee(_) => {
                return Err(Error::Spec("the knee is not known yet".to_owned()));
            }
        };
        let fetch = Fetch {
            addresses: context.addresses.clone(),
            request: Arc::new(request(context, url)),
            schedule: per_second.map(|rate| (rate, Arc::new(AtomicU64::new(0)))),
        };
        let first = socket::connect(
            &fetch.addresses,
            context.spec,
            context.setup.connect_timeout,
        );
        let first = first.map_err(|source| Error::Unreachable {
            target: context.spec.target.clone(),
            source,
        })?;
        let granted = Granted::to(&first);
        drop(first);
        let mut crew = Crew::new(context.spec);
        for connection in 0..context.spec.connections {
            let fetch = fetch.clone();
            let counter = crew.count(connection);
            crew.start(context, counter, move |member, span| {
                fetch.run(member, span)
            })?;
        }
        Ok(Self {
            crew,
            per_second,
            granted,
        })
    }
}

fn request(context: &Context<'_>, url: &Url) -> Vec<u8> {
    let mut head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: corinth-perf\r\n",
        url.path, url.authority
    );
    if let Some(token) = &context.setup.token {
        head.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if context.spec.reuse == Reuse::OncePerRequest {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

impl Fetch {
    fn run(self, member: &Member, span: Span) -> Found {
        schedule::sleep_precisely();
        let mut times = Times::default();
        let mut connection = None;
        let mut in_a_row = 0;
        while let Some(due) = self.wait_for_turn(member, span) {
            match self.fetch(&mut connection, member) {
                Ok(answered) => {
                    in_a_row = 0;
                    member.counter.completed();
                    self.note(due, answered, span, &mut times);
                }
                Err(_) if member.gate.is_over() => break,
                Err(error) => {
                    in_a_row += 1;
                    connection = None;
                    member.counter.failed(1);
                    if in_a_row == FAILURES_MAX || error.kind() == io::ErrorKind::AddrNotAvailable {
                        return Found::new(
                            times,
                            Some(format!("a request failed: {}", explain(&error))),
                        );
                    }
                }
            }
        }
        Found::new(times, None)
    }

    fn note(&self, due: Instant, answered: Instant, span: Span, times: &mut Times) {
        if !span.holds(due) {
            return;
        }
        if answered < span.to {
            times.note(answered - due);
        } else if self.schedule.is_some() {
            times.note_after_end(answered - due, answered - span.to);
        }
    }

    /// When the next request is, or was, due; `None` at the end.
    fn wait_for_turn(&self, member: &Member, span: Span) -> Option<Instant> {
        let Some((per_second, taken)) = &self.schedule else {
            let now = Instant::now();
            return (now < span.to && !member.gate.is_over()).then_some(now);
        };
        let due = Schedule::new(span.started, *per_second).due(taken.fetch_add(1, Relaxed));
        // What is late is sent late, and its time counts from when it was due.
        let is_over = due >= span.to || Instant::now() >= span.to + member.spec.timeout();
        (!is_over && schedule::wait_until(due, &member.gate)).then_some(due)
    }

    /// One request; when its response was there.
    fn fetch(&self, connection: &mut Option<Connection>, member: &Member) -> io::Result<Instant> {
        let mut open = match connection.take() {
            Some(open) => open,
            None => {
                let stream = socket::connect(&self.addresses, &member.spec, member.spec.timeout())?;
                stream.set_read_timeout(Some(member.spec.timeout()))?;
                Connection {
                    stream,
                    bytes: Vec::new(),
                    buffer: vec![0; READ_BYTES],
                }
            }
        };
        open.stream.write_all(&self.request)?;
        let is_last = open.read_response()?;
        let answered = Instant::now();
        if member.spec.reuse == Reuse::OncePerRequest {
            // The server closes first; whoever does has to remember the connection for a while.
            let _ = open.stream.read(&mut open.buffer);
        } else if !is_last {
            *connection = Some(open);
        }
        Ok(answered)
    }
}

struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Reads one response to its end; whether the server will close the connection.
    fn read_response(&mut self) -> io::Result<bool> {
        let head = loop {
            if let Some(head) = Head::parse(&self.bytes).map_err(io::Error::other)? {
                break head;
            }
            self.read_more()?;
        };
        self.bytes.drain(..head.bytes);
        if !(200..400).contains(&head.status) {
            return Err(io::Error::other(format!("status {}", head.status)));
        }
        let mut body = Body::of(&head);
        loop {
            let taken = body.take(&self.bytes).map_err(io::Error::other)?;
            self.bytes.drain(..taken);
            if body.is_whole() {
                return Ok(head.is_last);
            }
            match self.read_more() {
                Ok(()) => {}
                Err(error)
                    if error.kind() == io::ErrorKind::UnexpectedEof
                        && body.ends_with_connection() =>
                {
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let got = self.stream.read(&mut self.buffer)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bytes.extend_from_slice(&self.buffer[..got]);
        Ok(())
    }
}

impl Load for Http {
    fn samples(&self) -> Vec<Sample> {
        self.crew.samples()
    }

    fn granted(&self) -> Option<Granted> {
        Some(self.granted.clone())
    }

    fn is_done(&self) -> bool {
        self.crew.is_done()
    }

    fn settle(&mut self) {
        self.crew.settle();
    }

    fn halt(&mut self) {
        self.crew.join();
    }

    fn write(&self, window: &Window, _: Option<&Report>, result: &mut TestResult) {
        write_requests(self.crew.times(), self.per_second, window, result);
    }
}
