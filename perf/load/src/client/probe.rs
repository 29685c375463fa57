//! The failover meter: a numbered request at every beat, a new connection as soon as one is found broken.

use std::{
    io::{self, Read},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::{
    io::Errno,
    net::{SendFlags, send},
};

use super::{
    Context,
    asking::write_requests,
    crew::{Crew, Found, Member, Span},
    load::Load,
    measure::Window,
};
use crate::{
    count::Sample,
    error::Error,
    exchange::Questions,
    gap::GapMeter,
    latency::Times,
    result::{Gap, TestResult},
    schedule::{self, Schedule},
    seen::Seen,
    socket::{self, Granted},
    wire::{PREAMBLE_BYTES, Report},
};

/// How often it is looked whether an answer is overdue, and how soon a refused connection is tried again.
const LOOK_EVERY: Duration = Duration::from_millis(5);

const READ_BYTES: usize = 64 << 10;

/// Requests on one connection at a time.
pub(super) struct Probe {
    crew: Crew,
    line: Arc<Line>,
}

/// What the thread that sends and the one that reads share.
struct Line {
    addresses: Vec<SocketAddr>,
    preamble: [u8; PREAMBLE_BYTES],
    per_second: f64,
    current: Mutex<Current>,
    sent: AtomicU64,
    reconnects: AtomicU64,
    meter: Mutex<Option<Answered>>,
}

/// The connection in use.
#[derive(Default)]
struct Current {
    stream: Option<Arc<TcpStream>>,
    /// Since when an answer is awaited.
    waiting_since: Option<Instant>,
}

/// What was answered.
struct Answered {
    gaps: GapMeter,
    seen: Seen,
    answered: u64,
}

impl Probe {
    pub(super) fn connect(context: &Context<'_>, per_second: f64) -> Result<Self, Error> {
        let unreachable = |source| Error::Unreachable {
            target: context.spec.target.clone(),
            source,
        };
        let first = context.dial(0).map_err(unreachable)?;
        let line = Arc::new(Line {
            addresses: context.addresses.clone(),
            preamble: context.preamble(0).encode(),
            per_second,
            current: Mutex::new(Current {
                stream: Some(Arc::new(first)),
                waiting_since: None,
            }),
            sent: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            meter: Mutex::new(None),
        });
        let mut crew = Crew::new(context.spec);
        let reader = Arc::clone(&line);
        let counter = crew.count(0);
        crew.start(context, counter, move |member, span| {
            Found::new(reader.read(member, span), None)
        })?;
        let sender = Arc::clone(&line);
        crew.start(context, Arc::default(), move |member, span| {
            sender.send(member, span);
            Found::new(Times::default(), None)
        })?;
        Ok(Self { crew, line })
    }
}

impl Line {
    /// Sends what is due, if there is a connection that takes it; what cannot be sent is lost.
    fn send(&self, member: &Member, span: Span) {
        schedule::sleep_precisely();
        let schedule = Schedule::new(span.started, self.per_second);
        let mut questions = Questions::new(&member.spec);
        let mut request = Vec::new();
        for number in 0..schedule.due_before(span.to) {
            request.clear();
            questions.ask(number, &mut request);
            if !schedule::wait_until(schedule.due(number), &member.gate) {
                return;
            }
            let mut current = self.current.lock();
            let Some(stream) = current.stream.clone() else {
                continue;
            };
            self.sent.store(number + 1, Relaxed);
            match send(
                stream.as_fd(),
                &request,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(sent) if sent == request.len() => {
                    current.waiting_since.get_or_insert_with(Instant::now);
                }
                // The queue is full: the beat goes on.
                Err(Errno::AGAIN) => {
                    current.waiting_since.get_or_insert_with(Instant::now);
                }
                // Half a request would put all others out of step. The reader sees it closed.
                Ok(_) | Err(_) => {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
    }

    /// Reads answers, and keeps a connection open.
    fn read(&self, member: &Member, span: Span) -> Times {
        let mut times = Times::default();
        *self.meter.lock() = Some(Answered {
            gaps: GapMeter::new(member.spec.omit()),
            seen: Seen::default(),
            answered: 0,
        });
        let last_call = span.to + member.spec.timeout();
        while !member.gate.is_over() && Instant::now() < last_call {
            let stream = self.current.lock().stream.clone();
            let Some(stream) = stream else {
                self.reconnect(member);
                continue;
            };
            // Why it ended does not matter: the next one is opened at once.
            let ended = self.read_one(&stream, member, span, &mut times);
            if ended.is_ok() {
                break;
            }
            let _ = stream.shutdown(Shutdown::Both);
            *self.current.lock() = Current::default();
        }
        times
    }

    fn reconnect(&self, member: &Member) {
        let began = Instant::now();
        let opened = socket::connect(&self.addresses, &member.spec, member.spec.timeout())
            .and_then(|mut stream| {
                io::Write::write_all(&mut stream, &self.preamble)?;
                Ok(stream)
            });
        match opened {
            Ok(stream) => {
                self.reconnects.fetch_add(1, Relaxed);
                self.current.lock().stream = Some(Arc::new(stream));
            }
            // Refused at once: asking again and again would only heat the machine.
            Err(_) => member.gate.wait_until(began + LOOK_EVERY),
        }
    }

    /// Reads from one connection until everything is answered; an error if it is of no more use.
    fn read_one(
        &self,
        stream: &TcpStream,
        member: &Member,
        span: Span,
        times: &mut Times,
    ) -> io::Result<()> {
        let schedule = Schedule::new(span.started, self.per_second);
        let last = schedule.due_before(span.to).saturating_sub(1);
        let questions = Questions::new(&member.spec);
        let response_bytes = questions.response_bytes();
        let mut buffer = vec![0; READ_BYTES.max(response_bytes)];
        let mut held = 0;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
        loop {
            let got = (&*stream).read(&mut buffer[held..]);
            let now = Instant::now();
            let got = match got {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.give_up_if_overdue(member, now)?;
                    if member.gate.is_over() || now > span.to + member.spec.timeout() {
                        return Ok(());
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            held += got;
            let whole = held / response_bytes * response_bytes;
            let mut newest = 0;
            for response in buffer[..whole].chunks_exact(response_bytes) {
                let number = questions.read(response).map_err(io::Error::other)?;
                if number >= self.sent.load(Relaxed) {
                    return Err(io::Error::other("an answer to what was not asked"));
                }
                newest = newest.max(number);
                self.note(number, schedule.due(number), now, member, span, times);
            }
            buffer.copy_within(whole..held, 0);
            held -= whole;
            if whole > 0 {
                let mut current = self.current.lock();
                let is_all = newest + 1 >= self.sent.load(Relaxed);
                current.waiting_since = (!is_all).then_some(now);
            }
            if whole > 0 && newest == last {
                return Ok(());
            }
        }
    }

    fn give_up_if_overdue(&self, member: &Member, now: Instant) -> io::Result<()> {
        let since = self.current.lock().waiting_since;
        match since {
            Some(since) if now.saturating_duration_since(since) > member.spec.timeout() => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn note(
        &self,
        number: u64,
        due: Instant,
        now: Instant,
        member: &Member,
        span: Span,
        times: &mut Times,
    ) {
        let mut meter = self.meter.lock();
        let Some(answered) = meter.as_mut() else {
            return;
        };
        let before = answered.seen.duplicated();
        answered.seen.note(number);
        if answered.seen.duplicated() > before {
            return;
        }
        answered.gaps.answered(now.min(span.to) - span.started);
        if span.holds(due) {
            answered.answered += 1;
            member.counter.completed();
            times.note(now - due);
        }
    }
}

impl Load for Probe {
    fn samples(&self) -> Vec<Sample> {
        self.crew.samples()
    }

    fn granted(&self) -> Option<Granted> {
        None
    }

    fn is_done(&self) -> bool {
        self.crew.is_done()
    }

    fn settle(&mut self) {
        self.crew.settle();
    }

    fn halt(&mut self) {
        let stream = self.line.current.lock().stream.clone();
        if let Some(stream) = stream {
            // Refused only where the other side has closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.crew.join();
    }

    fn write(&self, window: &Window, report: Option<&Report>, result: &mut TestResult) {
        write_requests(
            self.crew.times(),
            Some(self.line.per_second),
            window,
            result,
        );
        let due = window.due(self.line.per_second);
        let Some(answered) = self.line.meter.lock().take() else {
            return;
        };
        let omit = result.test.omit();
        let gaps = answered
            .gaps
            .finish(omit + Duration::from_secs_f64(window.seconds).min(result.test.duration()));
        let sent = due.max(answered.answered);
        let lost = sent - answered.answered;
        result.gap = Some(Gap {
            longest_ms: gaps.longest().as_secs_f64() * 1e3,
            longest_at_ms: Some(gaps.longest_at().as_secs_f64() * 1e3),
            lost,
            duplicated: report.map(|report| report.duplicated),
            sent,
            answered: answered.answered,
            reconnects: self.line.reconnects.load(Relaxed),
        });
        if let Some(rate) = &mut result.rate {
            rate.completed = answered.answered;
            rate.failed = lost;
        }
    }
}
