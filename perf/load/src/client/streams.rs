//! Bulk streams, as many as asked for, each with a thread.

use std::{
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    thread::JoinHandle,
};

use super::{Context, control::Heard, load::Load, measure::Window};
use crate::{
    count::{Counter, Part, Sample},
    error::Error,
    result::{TestResult, Throughput, Verified},
    role::{Role, role, streams},
    socket::{self, Granted},
    spec::Verify,
    stream::{StreamFault, StreamPlan},
    wire::Report,
};

/// All streams of a test.
pub(super) struct Streams {
    streams: Vec<Stream>,
    verify: Verify,
}

struct Stream {
    connection: u32,
    part: Part,
    socket: Arc<TcpStream>,
    counter: Arc<Counter>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), StreamFault>>>,
}

impl Streams {
    /// Opens them; their threads wait at the gate.
    pub(super) fn connect(context: &Context<'_>) -> Result<Self, Error> {
        let mut opened = Vec::new();
        for connection in streams(context.spec) {
            opened.push(Stream::connect(context, connection)?);
        }
        Ok(Self {
            streams: opened,
            verify: context.spec.verify,
        })
    }
}

impl Stream {
    fn connect(context: &Context<'_>, connection: u32) -> Result<Self, Error> {
        let unreachable = |source| Error::Unreachable {
            target: context.spec.target.clone(),
            source,
        };
        let socket = context.dial(connection).map_err(unreachable)?;
        let sends = role(context.spec, connection) == Some(Role::Up);
        let plan = StreamPlan::new(context.spec, connection);
        let socket = Arc::new(socket);
        let counter = Arc::new(Counter::default());
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (socket, counter, gate) = (
                Arc::clone(&socket),
                Arc::clone(&counter),
                Arc::clone(&context.gate),
            );
            let heard = context.heard.clone();
            let ends = Arc::clone(&is_over);
            std::thread::Builder::new()
                .name("stream".to_owned())
                .spawn(move || {
                    let done = if sends {
                        plan.send(&socket, &counter, &gate)
                    } else {
                        plan.receive(&socket, &counter, &gate)
                    };
                    ends.store(true, Release);
                    // A test that is over no longer listens.
                    let _ = heard.send(match &done {
                        Ok(()) => Heard::Finished,
                        Err(fault) => Heard::Failed(format!("stream {connection}: {fault}")),
                    });
                    done
                })
        };
        Ok(Self {
            connection,
            part: if sends { Part::Sends } else { Part::Receives },
            socket,
            counter,
            is_over,
            thread: Some(thread.map_err(Error::local("cannot start a thread"))?),
        })
    }
}

impl Load for Streams {
    fn samples(&self) -> Vec<Sample> {
        let sample = |stream: &Stream| Sample {
            connection: stream.connection,
            part: stream.part,
            count: stream.counter.look(),
            tcp: match stream.part {
                Part::Sends => socket::facts(&stream.socket),
                Part::Receives | Part::Asks => None,
            },
        };
        self.streams.iter().map(sample).collect()
    }

    fn granted(&self) -> Option<Granted> {
        let first = self.streams.first()?;
        Some(Granted::to(&first.socket))
    }

    fn is_done(&self) -> bool {
        self.streams
            .iter()
            .all(|stream| stream.is_over.load(Acquire))
    }

    fn settle(&mut self) {}

    fn halt(&mut self) {
        for stream in &self.streams {
            // Refused only where the other side has closed it already.
            let _ = stream.socket.shutdown(Shutdown::Both);
        }
        for stream in &mut self.streams {
            if let Some(thread) = stream.thread.take() {
                // Its fault was heard of.
                let _ = thread.join();
            }
        }
    }

    fn write(&self, window: &Window, report: Option<&Report>, result: &mut TestResult) {
        let has = |part| self.streams.iter().any(|stream| stream.part == part);
        if has(Part::Sends) {
            result.up = Some(up(window, report));
        }
        if has(Part::Receives) {
            result.down = Some(down(window, report));
        }
        result.throughput = together(result.up.as_ref(), result.down.as_ref());
        if self.verify == Verify::EveryByte {
            let received = |stream: &Stream| stream.counter.look().received_bytes;
            let there = report.map_or(0, |report| report.verified_bytes);
            let verified = result.verified.get_or_insert_with(Verified::default);
            verified.bytes += self.streams.iter().map(received).sum::<u64>() + there;
        }
    }
}

/// From client to server: the server counts.
fn up(window: &Window, report: Option<&Report>) -> Throughput {
    let received = report.map(|report| report.received_bytes.iter().sum::<u64>());
    let seconds = report.map_or(window.seconds, |report| report.seconds);
    Throughput {
        sent_bytes: Some(window.sum(Part::Sends).sent_bytes),
        received_bytes: received,
        seconds,
        bits_per_second: received.and_then(|bytes| bits_per_second(bytes, seconds)),
        retransmits: window.retransmits,
    }
}

/// From server to client: the client counts.
fn down(window: &Window, report: Option<&Report>) -> Throughput {
    let received = window.sum(Part::Receives).received_bytes;
    Throughput {
        sent_bytes: report.map(|report| report.sent_bytes.iter().sum()),
        received_bytes: Some(received),
        seconds: window.seconds,
        bits_per_second: bits_per_second(received, window.seconds),
        retransmits: report.and_then(|report| report.retransmits),
    }
}

pub(super) fn bits_per_second(bytes: u64, seconds: f64) -> Option<f64> {
    (seconds > 0.0).then(|| bytes as f64 * 8.0 / seconds)
}

/// Both directions; a figure that one of them lacks is missing in the sum.
pub(super) fn together(up: Option<&Throughput>, down: Option<&Throughput>) -> Option<Throughput> {
    let (Some(up), Some(down)) = (up, down) else {
        return up.or(down).cloned();
    };
    let sum = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
    Some(Throughput {
        sent_bytes: sum(up.sent_bytes, down.sent_bytes),
        received_bytes: sum(up.received_bytes, down.received_bytes),
        seconds: up.seconds.max(down.seconds),
        bits_per_second: up
            .bits_per_second
            .zip(down.bits_per_second)
            .map(|(up, down)| up + down),
        retransmits: sum(up.retransmits, down.retransmits),
    })
}
