//! Requests and responses: one after the other, on a schedule, or each on a connection of its own.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    Context,
    crew::{Crew, Found, Member, Span},
    load::Load,
    measure::Window,
};
use crate::{
    count::Sample,
    error::Error,
    exchange::Questions,
    latency::Times,
    result::{Rate, TestResult, Verified},
    schedule::{self, Schedule},
    socket::{self, FirstGranted, Granted},
    spec::{Pace, Verify},
    wire::{PREAMBLE_BYTES, Report},
};

/// The least that is read at once.
const READ_BYTES: usize = 64 << 10;

/// So many failures one after the other, and there is no point in going on.
const FAILURES_MAX: u32 = 1_000;

/// Connections that ask.
pub(super) struct Asking {
    crew: Crew,
    sockets: Vec<Arc<TcpStream>>,
    per_second: Option<f64>,
    /// To a connection that was not kept.
    granted: FirstGranted,
}

impl Asking {
    /// Opens connections that are kept.
    pub(super) fn connect(context: &Context<'_>) -> Result<Self, Error> {
        let mut asking = Self::new(context);
        for connection in 0..context.spec.connections {
            let stream = context
                .dial(connection)
                .map_err(|source| Error::Unreachable {
                    target: context.spec.target.clone(),
                    source,
                })?;
            asking.sockets.push(Arc::new(stream));
        }
        match context.spec.pace() {
            Pace::Closed => asking.start_closed(context)?,
            Pace::PerSecond(rate) => asking.start_open(context, rate)?,
            Pace::PercentOfKnee(_) => {
                return Err(Error::Spec("the knee is not known yet".to_owned()));
            }
        }
        Ok(asking)
    }

    /// Opens a connection for each request.
    pub(super) fn call(context: &Context<'_>) -> Result<Self, Error> {
        let mut asking = Self::new(context);
        for connection in 0..context.spec.connections {
            let caller = Caller {
                addresses: context.addresses.clone(),
                preamble: context.preamble(connection).encode(),
                granted: (connection == 0).then(|| asking.granted.clone()),
            };
            let counter = asking.crew.count(connection);
            asking.crew.start(context, counter, move |member, span| {
                caller.run(member, span)
            })?;
        }
        Ok(asking)
    }

    fn new(context: &Context<'_>) -> Self {
        Self {
            crew: Crew::new(context.spec),
            sockets: Vec::new(),
            per_second: context.spec.rate_per_second,
            granted: FirstGranted::default(),
        }
    }

    fn start_closed(&mut self, context: &Context<'_>) -> Result<(), Error> {
        for (connection, socket) in (0..).zip(self.sockets.clone()) {
            let counter = self.crew.count(connection);
            self.crew.start(context, counter, move |member, span| {
                ask_in_turn(&socket, member, span)
            })?;
        }
        Ok(())
    }

    /// One thread sends for all, so that the schedule is one; each connection has a thread that reads.
    fn start_open(&mut self, context: &Context<'_>, per_second: f64) -> Result<(), Error> {
        let sent = Arc::new(AtomicU64::new(0));
        let sockets = self.sockets.clone();
        let lanes = sockets.len() as u64;
        for (connection, socket) in (0..).zip(sockets.clone()) {
            let counter = self.crew.count(connection);
            let lane = Lane {
                socket,
                number: u64::from(connection),
                lanes,
                per_second,
                sent: Arc::clone(&sent),
            };
            self.crew.start(context, counter, move |member, span| {
                lane.read(member, span)
            })?;
        }
        let counter = Arc::default();
        self.crew.start(context, counter, move |member, span| {
            send_on_schedule(&sockets, &sent, per_second, member, span)
        })
    }
}

impl Load for Asking {
    fn samples(&self) -> Vec<Sample> {
        self.crew.samples()
    }

    fn granted(&self) -> Option<Granted> {
        let kept = self.sockets.first().map(|socket| Granted::to(socket));
        kept.or_else(|| self.granted.seen())
    }

    fn is_done(&self) -> bool {
        self.crew.is_done()
    }

    fn settle(&mut self) {
        self.crew.settle();
    }

    fn halt(&mut self) {
        for socket in &self.sockets {
            // Refused only where the other side has closed it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.crew.join();
    }

    fn write(&self, window: &Window, _: Option<&Report>, result: &mut TestResult) {
        write_requests(self.crew.times(), self.per_second, window, result);
    }
}

/// Rate and times of requests.
pub(super) fn write_requests(
    times: &Times,
    per_second: Option<f64>,
    window: &Window,
    result: &mut TestResult,
) {
    let count = window.sum(crate::count::Part::Asks);
    let due = per_second.map(|rate| window.due(rate));
    // On a schedule a request that was never answered has failed, whether it could be sent or not.
    let failed = count
        .failed
        .max(due.map_or(0, |due| due.saturating_sub(times.count())));
    result.rate = Some(Rate {
        completed: count.completed,
        failed,
        per_second: if window.seconds > 0.0 {
            count.completed as f64 / window.seconds
        } else {
            0.0
        },
    });
    result.latency = match per_second.zip(due) {
        Some((rate, due)) => times.open(rate, due),
        None => times.closed(),
    };
    if result.test.verify == Verify::EveryByte {
        let each = result.test.response_bytes.saturating_sub(8);
        let verified = result.verified.get_or_insert_with(Verified::default);
        verified.bytes += count.completed * each;
    }
}

/// Ping-pong on one connection.
fn ask_in_turn(socket: &TcpStream, member: &Member, span: Span) -> Found {
    let mut times = Times::default();
    let fault = match try_in_turn(socket, member, span, &mut times) {
        Ok(()) => None,
        Err(_) if member.gate.is_over() => None,
        Err(error) => {
            member.counter.failed(1);
            Some(format!("a request was not answered: {}", explain(&error)))
        }
    };
    Found::new(times, fault)
}

fn try_in_turn(
    mut socket: &TcpStream,
    member: &Member,
    span: Span,
    times: &mut Times,
) -> io::Result<()> {
    socket.set_read_timeout(Some(member.spec.timeout()))?;
    let mut questions = Questions::new(&member.spec);
    let mut request = Vec::new();
    let mut response = vec![0; questions.response_bytes()];
    for number in 0.. {
        request.clear();
        questions.ask(number, &mut request);
        let asked = Instant::now();
        if asked >= span.to || member.gate.is_over() {
            break;
        }
        socket.write_all(&request)?;
        socket.read_exact(&mut response)?;
        let answered = Instant::now();
        check(questions.read(&response), number)?;
        member.counter.completed();
        if span.holds(asked) && span.holds(answered) {
            times.note(answered - asked);
        }
    }
    Ok(())
}

fn check(read: Result<u64, crate::exchange::Corrupt>, expected: u64) -> io::Result<()> {
    match read {
        Ok(number) if number == expected => Ok(()),
        Ok(number) => Err(io::Error::other(format!(
            "request {expected} was answered by response {number}"
        ))),
        Err(corrupt) => Err(io::Error::other(corrupt.to_string())),
    }
}

/// One connection of an open loop.
struct Lane {
    socket: Arc<TcpStream>,
    number: u64,
    lanes: u64,
    per_second: f64,
    sent: Arc<AtomicU64>,
}

/// Sends each request when it is due, on one connection after the other.
fn send_on_schedule(
    sockets: &[Arc<TcpStream>],
    sent: &AtomicU64,
    per_second: f64,
    member: &Member,
    span: Span,
) -> Found {
    schedule::sleep_precisely();
    let schedule = Schedule::new(span.started, per_second);
    let mut questions = Questions::new(&member.spec);
    let mut request = Vec::new();
    let mut fault = None;
    for number in 0..schedule.due_before(span.to) {
        let lane = (number % sockets.len() as u64) as usize;
        request.clear();
        questions.ask(number, &mut request);
        if !schedule::wait_until(schedule.due(number), &member.gate) {
            break;
        }
        // Before it is sent, so that its reader never sees an answer to what was not asked.
        sent.store(number + 1, Relaxed);
        let written = sockets
            .get(lane)
            .map_or(Ok(()), |socket| (&**socket).write_all(&request));
        if let Err(error) = written {
            fault = Some(format!("a request could not be sent: {error}"));
            break;
        }
    }
    Found::new(Times::default(), fault)
}

impl Lane {
    fn read(&self, member: &Member, span: Span) -> Found {
        let mut times = Times::default();
        let fault = match self.try_read(member, span, &mut times) {
            Ok(()) => None,
            Err(_) if member.gate.is_over() => None,
            Err(error) => Some(format!("connection {}: {}", self.number, explain(&error))),
        };
        Found::new(times, fault)
    }

    fn try_read(&self, member: &Member, span: Span, times: &mut Times) -> io::Result<()> {
        let schedule = Schedule::new(span.started, self.per_second);
        let all = schedule.due_before(span.to);
        let mine = (all + self.lanes - 1 - self.number) / self.lanes;
        let questions = Questions::new(&member.spec);
        let response_bytes = questions.response_bytes();
        let mut buffer = vec![0; READ_BYTES.max(response_bytes)];
        let mut held = 0;
        let mut answered = 0;
        while answered < mine {
            let got = (&*self.socket).read(&mut buffer[held..])?;
            let now = Instant::now();
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            held += got;
            let whole = held / response_bytes * response_bytes;
            for response in buffer[..whole].chunks_exact(response_bytes) {
                let number = questions
                    .read(response)
                    .map_err(|corrupt| io::Error::other(corrupt.to_string()))?;
                if number % self.lanes != self.number || number >= self.sent.load(Relaxed) {
                    return Err(io::Error::other(format!(
                        "an answer to request {number}, which was not asked"
                    )));
                }
                answered += 1;
                member.counter.completed();
                let due = schedule.due(number);
                if span.holds(due) && now < span.to {
                    times.note(now - due);
                } else if span.holds(due) {
                    times.note_after_end(now - due, now - span.to);
                }
            }
            buffer.copy_within(whole..held, 0);
            held -= whole;
        }
        Ok(())
    }
}

/// Connect, request, response, close.
struct Caller {
    addresses: Vec<SocketAddr>,
    preamble: [u8; PREAMBLE_BYTES],
    /// Where one of all callers says what its connections had.
    granted: Option<FirstGranted>,
}

impl Caller {
    fn run(&self, member: &Member, span: Span) -> Found {
        let mut times = Times::default();
        let mut questions = Questions::new(&member.spec);
        let mut call = Vec::new();
        let mut response = vec![0; questions.response_bytes()];
        let mut in_a_row = 0;
        for number in 0.. {
            call.clear();
            call.extend_from_slice(&self.preamble);
            questions.ask(number, &mut call);
            let asked = Instant::now();
            if asked >= span.to || member.gate.is_over() {
                break;
            }
            let done = self
                .call(&call, &mut response, member)
                .and_then(|answered| {
                    check(questions.read(&response), number)?;
                    Ok(answered)
                });
            match done {
                Ok(answered) => {
                    in_a_row = 0;
                    member.counter.completed();
                    if span.holds(asked) && span.holds(answered) {
                        times.note(answered - asked);
                    }
                }
                Err(_) if member.gate.is_over() => break,
                Err(error) => {
                    in_a_row += 1;
                    member.counter.failed(1);
                    if in_a_row == FAILURES_MAX || error.kind() == io::ErrorKind::AddrNotAvailable {
                        return Found::new(
                            times,
                            Some(format!("a connection failed: {}", explain(&error))),
                        );
                    }
                }
            }
        }
        Found::new(times, None)
    }

    /// One call; when its response was there.
    fn call(&self, call: &[u8], response: &mut [u8], member: &Member) -> io::Result<Instant> {
        let timeout = member.spec.timeout();
        let mut stream = socket::connect(&self.addresses, &member.spec, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.write_all(call)?;
        stream.read_exact(response)?;
        let answered = Instant::now();
        if let Some(granted) = &self.granted {
            granted.look_at(&stream);
        }
        // The server closes first.
        let mut end = [0];
        match stream.read(&mut end)? {
            0 => Ok(answered),
            _ => Err(io::Error::other("more than one answer came")),
        }
    }
}

/// What went wrong, for people.
pub(super) fn explain(error: &io::Error) -> String {
    if matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    ) {
        return "no answer in time".to_owned();
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "the connection was closed".to_owned();
    }
    error.to_string()
}
