//! Flows of datagrams, each with a socket and a thread.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Context, control::Heard, load::Load, measure::Window, streams};
use crate::{
    count::{Count, Counter, Part, Sample},
    datagram::{HELLO, Header, MAX_BYTES, Tally},
    error::Error,
    flow::Sending,
    gate::Gate,
    result::{Datagrams, TestResult, Throughput},
    role::{Role, flows},
    socket::Granted,
    spec::TestSpec,
    wire::{Report, TestId},
};

/// Until something comes, the server is told this often where we are.
const HELLO_EVERY: Duration = Duration::from_millis(50);

/// What is on its way at the end has this long to arrive.
const TAIL: Duration = Duration::from_millis(500);

/// All flows of a test.
pub(super) struct Flows {
    flows: Vec<Flow>,
    alive: mpsc::Receiver<()>,
}

struct Flow {
    number: u32,
    part: Part,
    counter: Arc<Counter>,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread of a flow works with.
struct Working {
    spec: TestSpec,
    test: TestId,
    number: u32,
    socket: UdpSocket,
    counter: Arc<Counter>,
    tally: Arc<Mutex<Tally>>,
    gate: Arc<Gate>,
    _alive: mpsc::Sender<()>,
}

impl Flows {
    pub(super) fn open(context: &Context<'_>) -> Result<Self, Error> {
        let (sender, alive) = mpsc::channel();
        let mut opened = Vec::new();
        for (number, role) in flows(context.spec) {
            opened.push(Flow::open(context, number, role, &sender)?);
        }
        Ok(Self {
            flows: opened,
            alive,
        })
    }
}

impl Flow {
    fn open(
        context: &Context<'_>,
        number: u32,
        role: Role,
        alive: &mpsc::Sender<()>,
    ) -> Result<Self, Error> {
        let address = context.addresses.first().copied();
        let socket = address
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
            .and_then(connect);
        let working = Working {
            spec: context.spec.clone(),
            test: context.test,
            number,
            socket: socket.map_err(Error::local("cannot open a socket for datagrams"))?,
            counter: Arc::default(),
            tally: Arc::default(),
            gate: Arc::clone(&context.gate),
            _alive: alive.clone(),
        };
        let (counter, tally) = (Arc::clone(&working.counter), Arc::clone(&working.tally));
        let heard = context.heard.clone();
        let sends = role == Role::Up;
        let thread = std::thread::Builder::new()
            .name("flow".to_owned())
            .spawn(move || {
                let Some(started) = working.gate.pass() else {
                    return;
                };
                let done = if sends {
                    working.send(started)
                } else {
                    working.receive(started)
                };
                if let Err(error) = done {
                    // A test that is over no longer listens.
                    let _ = heard.send(Heard::Failed(format!("flow {number}: {error}")));
                }
            });
        Ok(Self {
            number,
            part: if sends { Part::Sends } else { Part::Receives },
            counter,
            tally,
            thread: Some(thread.map_err(Error::local("cannot start a thread"))?),
        })
    }
}

fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(HELLO_EVERY))?;
    Ok(socket)
}

impl Working {
    fn send(&self, started: Instant) -> io::Result<()> {
        let sending = Sending {
            spec: &self.spec,
            test: self.test,
            flow: self.number,
            counter: &self.counter,
            gate: &self.gate,
        };
        sending.run(started, |datagram| self.socket.send(datagram))
    }

    fn receive(&self, started: Instant) -> io::Result<()> {
        let from = started + self.spec.omit();
        let end = from + self.spec.duration();
        let mut datagram = vec![0; MAX_BYTES];
        let mut is_counting = false;
        let mut is_found = false;
        loop {
            if !is_found {
                self.say_hello()?;
            }
            let got = self.socket.recv(&mut datagram);
            let now = Instant::now();
            if !is_counting && now >= from {
                is_counting = true;
                self.tally.lock().begin();
            }
            match got {
                Ok(length) => {
                    let Some(header) = datagram.get(..length).and_then(Header::read) else {
                        continue;
                    };
                    if header.test == self.test && header.flow == self.number {
                        is_found = true;
                        let now_ns = now.duration_since(started).as_nanos() as u64;
                        self.tally
                            .lock()
                            .note(header.number, header.sent_ns, now_ns);
                        self.counter.received(length);
                    }
                }
                // Nothing came for a while, which after the end is the end.
                Err(_) if now >= end || self.gate.is_over() => return Ok(()),
                Err(_) => {}
            }
            if now >= end + TAIL || self.gate.is_over() {
                return Ok(());
            }
        }
    }

    fn say_hello(&self) -> io::Result<()> {
        let hello = Header {
            test: self.test,
            flow: self.number,
            number: HELLO,
            sent_ns: 0,
        };
        let mut datagram = [0; crate::datagram::HEADER_BYTES];
        hello.write(&mut datagram);
        match self.socket.send(&datagram) {
            Ok(_) => Ok(()),
            // The next one may get through.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Load for Flows {
    fn samples(&self) -> Vec<Sample> {
        let sample = |flow: &Flow| Sample {
            connection: flow.number,
            part: flow.part,
            count: flow.counter.look(),
            tcp: None,
        };
        self.flows.iter().map(sample).collect()
    }

    fn granted(&self) -> Option<Granted> {
        None
    }

    fn is_done(&self) -> bool {
        false
    }

    fn settle(&mut self) {
        // Ends when the last thread has ended.
        let _ = self.alive.recv_timeout(2 * TAIL);
        if self.flows.iter().any(|flow| flow.part == Part::Sends) {
            // Nobody tells when the last one has arrived.
            Gate::default().wait_until(Instant::now() + TAIL);
        }
    }

    fn halt(&mut self) {
        for flow in &mut self.flows {
            if let Some(thread) = flow.thread.take() {
                // One that panicked has printed why.
                let _ = thread.join();
            }
        }
    }

    fn write(&self, window: &Window, report: Option<&Report>, result: &mut TestResult) {
        let bytes = result.test.message_bytes;
        let sums = |part| self.flows.iter().any(|flow| flow.part == part);
        let mut both: Option<Datagrams> = None;
        if sums(Part::Sends) {
            let senders = self.flows.iter().filter(|flow| flow.part == Part::Sends);
            let sent = senders
                .map(|flow| window.since_start(flow.number, flow.counter.look()))
                .fold(Count::default(), Count::plus);
            let there = report.and_then(|report| report.datagrams.clone());
            result.up = Some(throughput(
                Some(sent.sent_bytes),
                there.as_ref(),
                bytes,
                window,
            ));
            both = there.map(|there| there.with_loss(sent.completed));
        }
        if sums(Part::Receives) {
            let mut here = Datagrams::default();
            for flow in self.flows.iter().filter(|flow| flow.part == Part::Receives) {
                flow.tally.lock().add_to(&mut here);
            }
            let sent = report.map(|report| report.sent_bytes.iter().sum());
            result.down = Some(throughput(sent, Some(&here), bytes, window));
            let here = report.map(|report| here.with_loss(report.datagrams_sent));
            both = match (both, here) {
                (Some(up), Some(down)) => Some(up.plus(&down)),
                (up, down) => up.or(down),
            };
        }
        result.datagrams = both;
        result.throughput = streams::together(result.up.as_ref(), result.down.as_ref());
    }
}

/// What was received over the time in which it was sent.
fn throughput(
    sent: Option<u64>,
    received: Option<&Datagrams>,
    datagram_bytes: u64,
    window: &Window,
) -> Throughput {
    let received = received.map(|received| received.received * datagram_bytes);
    Throughput {
        sent_bytes: sent,
        received_bytes: received,
        seconds: window.seconds,
        bits_per_second: received.and_then(|bytes| streams::bits_per_second(bytes, window.seconds)),
        retransmits: None,
    }
}
