//! Connections that are held: each passes a request when it is opened and another at the end.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Context, load::Load, measure::Window};
use crate::{
    count::{Counter, Part, Sample},
    error::Error,
    exchange::Questions,
    result::{Held, TestResult},
    socket::Granted,
    spec::TestSpec,
    wire::Report,
};

/// Connections that are opened or asked at the same time.
const AT_ONCE: usize = 32;

/// An answer that is there already is still read when the time is up.
const GLANCE: Duration = Duration::from_millis(1);

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

fn ask(stream: &TcpStream, spec: &TestSpec, number: u64) -> io::Result<()> {
    put(stream, spec, number)?;
    hear(stream, spec, number)
}

fn put(mut stream: &TcpStream, spec: &TestSpec, number: u64) -> io::Result<()> {
    let mut request = Vec::new();
    Questions::new(spec).ask(number, &mut request);
    stream.write_all(&request)
}

fn hear(mut stream: &TcpStream, spec: &TestSpec, number: u64) -> io::Result<()> {
    let questions = Questions::new(spec);
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

    fn granted(&self) -> Option<Granted> {
        self.streams.first().map(Granted::to)
    }

    fn is_done(&self) -> bool {
        false
    }

    fn settle(&mut self) {
        let spec = &self.spec;
        let counter = &self.counter;
        let until = Instant::now() + spec.timeout();
        let left = || Some(until.saturating_duration_since(Instant::now()).max(GLANCE));
        // All are asked before anybody waits, so that those who do not answer take no time from the others.
        let streams: Vec<&TcpStream> = self.streams.iter().collect();
        let asked: Vec<io::Result<&TcpStream>> = in_groups(streams, |stream| {
            stream.set_write_timeout(left())?;
            put(stream, spec, 1)?;
            Ok(stream)
        });
        in_groups(asked, |asked| {
            let answered = asked.and_then(|stream| {
                stream.set_read_timeout(left())?;
                hear(stream, spec, 1)
            });
            match answered {
                Ok(()) => counter.completed(),
                Err(_) => counter.failed(1),
            }
        });
        self.held.stayed = self.counter.look().completed as u32;
    }

    fn halt(&mut self) {}

    fn write(&self, _: &Window, _: Option<&Report>, result: &mut TestResult) {
        result.held = Some(self.held.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::{exchange::Answers, spec::Workload};

    #[test]
    fn those_who_do_not_answer_are_waited_for_together() {
        const CONNECTIONS: usize = 20 * AT_ONCE;
        let mut spec = TestSpec::new(Workload::Idle, "host");
        spec.timeout_ms = 250;
        let mut request = Vec::new();
        Questions::new(&spec).ask(1, &mut request);
        let mut response = Vec::new();
        Answers::new(&spec).answer(&mut request, &mut response, |_| ());

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut streams = Vec::new();
        let mut others = Vec::new();
        for number in 0..CONNECTIONS {
            streams.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let (mut other, _) = listener.accept().unwrap();
            // One at the end of a group, and the last of all.
            if number == 19 || number == CONNECTIONS - 1 {
                other.write_all(&response).unwrap();
            }
            others.push(other);
        }
        let mut idle = Idle {
            spec,
            streams,
            held: Held {
                connections: CONNECTIONS as u32,
                opened: CONNECTIONS as u32,
                stayed: 0,
                opening_seconds: 0.0,
            },
            counter: Arc::default(),
        };
        let began = Instant::now();
        idle.settle();
        assert_eq!(idle.held.stayed, 2);
        // One after the other it would be 20 times as long.
        assert!(began.elapsed() < Duration::from_millis(8 * 250));
    }
}
