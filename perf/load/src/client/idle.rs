//! Connections that are held: each passes a request when it is opened and another at the end.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::Instant,
};

use super::{Context, load::Load, measure::Window};
use crate::{
    count::{Counter, Part, Sample},
    error::Error,
    exchange::Questions,
    result::{Held, TestResult},
    socket,
    spec::TestSpec,
    wire::Report,
};

/// Connections that are opened or asked at the same time.
const AT_ONCE: usize = 32;

/// Connections that do nothing.
pub(super) struct Idle {
    spec: TestSpec,
    streams: Vec<TcpStream>,
    held: Held,
    counter: Arc<Counter>,
}

impl Idle {
    pub(super) fn open(context: &Context<'_>) -> Result<Self, Error> {
        let began = Instant::now();
        let numbers: Vec<u32> = (0..context.spec.connections).collect();
        let opened = in_groups(numbers, |connection| {
            if context.is_interrupted() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let stream = context.dial(connection)?;
            stream.set_read_timeout(Some(context.spec.timeout()))?;
            ask(&stream, context.spec, 0)?;
            Ok(stream)
        });
        let mut streams = Vec::with_capacity(opened.len());
        let mut first_failure = None;
        for one in opened {
            match one {
                Ok(stream) => streams.push(stream),
                Err(error) => {
                    first_failure.get_or_insert(error);
                }
            }
        }
        if let Some(source) = first_failure.filter(|_| streams.is_empty()) {
            return Err(Error::Unreachable {
                target: context.spec.target.clone(),
                source,
            });
        }
        let held = Held {
            connections: context.spec.connections,
            opened: streams.len() as u32,
            stayed: 0,
            opening_seconds: began.elapsed().as_secs_f64(),
        };
        Ok(Self {
            spec: context.spec.clone(),
            streams,
            held,
            counter: Arc::default(),
        })
    }
}

/// Does the same with each, some at once; in no particular order.
fn in_groups<T: Send, R: Send>(all: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let size = all.len().div_ceil(AT_ONCE).max(1);
    let mut all = all.into_iter();
    thread::scope(|scope| {
        let mut groups = Vec::new();
        loop {
            let group: Vec<T> = all.by_ref().take(size).collect();
            if group.is_empty() {
                break;
            }
            groups.push(scope.spawn(|| group.into_iter().map(&work).collect::<Vec<R>>()));
        }
        // A group that panicked has printed why; it counts as not done.
        groups
            .into_iter()
            .filter_map(|group| group.join().ok())
            .flatten()
            .collect()
    })
}

fn ask(mut stream: &TcpStream, spec: &TestSpec, number: u64) -> io::Result<()> {
    let mut questions = Questions::new(spec);
    let mut request = Vec::new();
    questions.ask(number, &mut request);
    stream.write_all(&request)?;
    let mut response = vec![0; questions.response_bytes()];
    stream.read_exact(&mut response)?;
    match questions.read(&response) {
        Ok(answered) if answered == number => Ok(()),
        Ok(_) | Err(_) => Err(io::Error::other("something else came back")),
    }
}

impl Load for Idle {
    fn samples(&self) -> Vec<Sample> {
        vec![Sample {
            connection: 0,
            part: Part::Asks,
            count: self.counter.look(),
            tcp: None,
        }]
    }

    fn is_done(&self) -> bool {
        false
    }

    fn settle(&mut self) {
        let spec = &self.spec;
        let counter = &self.counter;
        let asked = in_groups(self.streams.iter().collect(), |stream| {
            match ask(stream, spec, 1) {
                Ok(()) => counter.completed(),
                Err(_) => counter.failed(1),
            }
        });
        self.held.stayed = self.counter.look().completed as u32;
        debug_assert_eq!(asked.len(), self.streams.len());
    }

    fn halt(&mut self) {}

    fn write(&self, _: &Window, _: Option<&Report>, result: &mut TestResult) {
        if let Some(stream) = self.streams.first() {
            socket::note_granted(stream, &mut result.environment);
        }
        result.held = Some(self.held.clone());
    }
}
