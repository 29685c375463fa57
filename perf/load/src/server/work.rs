//! Threads that serve one data connection each.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
        mpsc,
    },
    thread::JoinHandle,
};

use socket2::SockRef;

use super::shared::{Arrival, Event, Shared};
use crate::{
    count::{Count, Counter, Part, Sample},
    exchange::Answers,
    role::{Role, role},
    socket::{self, Granted, TcpFacts},
    stream::{StreamFault, StreamPlan},
};

/// The least that is read at once.
const READ_BYTES: usize = 64 << 10;

/// One connection, and the thread that serves it.
pub(super) struct Work {
    role: Role,
    stream: Arc<TcpStream>,
    counter: Arc<Counter>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Work {
    /// Serves a connection that arrived; `None` if the test has no such connection.
    pub(super) fn start(
        shared: &Arc<Shared>,
        arrival: Arrival,
        events: &mpsc::SyncSender<Event>,
    ) -> io::Result<Option<Self>> {
        let Some(role) = role(&shared.spec, arrival.connection) else {
            return Ok(None);
        };
        socket::tune(&SockRef::from(&arrival.stream), &shared.spec)?;
        let stream = Arc::new(arrival.stream);
        let counter = Arc::new(Counter::default());
        let serving = Serving {
            shared: Arc::clone(shared),
            stream: Arc::clone(&stream),
            counter: Arc::clone(&counter),
            connection: arrival.connection,
            rest: arrival.rest,
        };
        let events = events.clone();
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let thread = std::thread::Builder::new()
            .name("data".to_owned())
            .spawn(move || {
                let event = match serving.serve(role) {
                    Ok(()) => Event::Finished,
                    Err(fault) => Event::Failed(fault),
                };
                ends.store(true, Release);
                // A session that is over no longer listens, and one that is busy looks by itself.
                let _ = events.try_send(event);
            })?;
        Ok(Some(Self {
            role,
            stream,
            counter,
            is_over,
            thread,
        }))
    }

    pub(super) fn count(&self) -> Count {
        self.counter.look()
    }

    /// What its streams show in intervals.
    pub(super) fn sample(&self, connection: u32) -> Option<Sample> {
        let part = match self.role {
            Role::Up => Part::Receives,
            Role::Down => Part::Sends,
            Role::Answers => return None,
        };
        Some(Sample {
            connection,
            part,
            count: self.count(),
            tcp: None,
        })
    }

    pub(super) fn retransmits(&self) -> Option<u64> {
        if self.role != Role::Down {
            return None;
        }
        socket::facts(&self.stream).map(|TcpFacts { retransmits, .. }| retransmits)
    }

    pub(super) fn granted(&self) -> Granted {
        Granted::to(&self.stream)
    }

    pub(super) fn is_running(&self) -> bool {
        !self.is_over.load(Acquire)
    }

    pub(super) fn is_answering(&self) -> bool {
        self.role == Role::Answers
    }

    /// Makes its thread come to an end.
    pub(super) fn halt(&self) {
        // Refused only where the client has closed it already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    pub(super) fn join(self) {
        // A worker that panicked has printed why.
        let _ = self.thread.join();
    }
}

struct Serving {
    shared: Arc<Shared>,
    stream: Arc<TcpStream>,
    counter: Arc<Counter>,
    connection: u32,
    rest: Vec<u8>,
}

impl Serving {
    fn serve(self, role: Role) -> Result<(), String> {
        let gate = &self.shared.gate;
        let plan = StreamPlan::new(&self.shared.spec, self.connection);
        let connection = self.connection;
        let explain = |fault: StreamFault| {
            if matches!(fault, StreamFault::Corrupt { .. }) {
                self.shared.note_corrupt();
            }
            format!("stream {connection}: {fault}")
        };
        match role {
            Role::Up => plan
                .receive(&self.stream, &self.counter, gate)
                .map_err(explain),
            Role::Down => plan
                .send(&self.stream, &self.counter, gate)
                .map_err(explain),
            Role::Answers => {
                // Its client counts what is not answered.
                let _ = self.answer();
                Ok(())
            }
        }
    }

    fn answer(self) -> io::Result<()> {
        let mut answers = Answers::new(&self.shared.spec);
        let mut stream = &*self.stream;
        let mut bytes = self.rest;
        let mut out = Vec::new();
        let mut buffer = vec![0; READ_BYTES.max(answers.request_bytes())];
        loop {
            answers.answer(&mut bytes, &mut out, |number| {
                self.shared.note_request(number)
            });
            if !out.is_empty() {
                stream.write_all(&out)?;
                self.counter.sent(out.len());
                out.clear();
                // There may be more that has come already.
                continue;
            }
            let got = stream.read(&mut buffer)?;
            if got == 0 {
                return Ok(());
            }
            self.counter.received(got);
            bytes.extend_from_slice(&buffer[..got]);
        }
    }
}
