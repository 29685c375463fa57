//! Threads that ask and take the time, each on its own.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Context, control::Heard};
use crate::{
    count::{Counter, Part, Sample},
    error::Error,
    gate::Gate,
    latency::Times,
    spec::TestSpec,
};

/// The part of the time that counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) started: Instant,
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Span {
    pub(super) fn new(spec: &TestSpec, started: Instant) -> Self {
        let from = started + spec.omit();
        Self {
            started,
            from,
            to: from + spec.duration(),
        }
    }

    pub(super) fn holds(&self, moment: Instant) -> bool {
        self.from <= moment && moment < self.to
    }
}

/// What a thread of a crew works with.
pub(super) struct Member {
    pub(super) counter: Arc<Counter>,
    pub(super) gate: Arc<Gate>,
    pub(super) spec: TestSpec,
    /// Dropped when the thread ends.
    _alive: mpsc::Sender<()>,
}

/// What a thread found, and what it could not get over.
pub(super) struct Found {
    pub(super) times: Times,
    pub(super) fault: Option<String>,
}

impl Found {
    pub(super) const fn new(times: Times, fault: Option<String>) -> Self {
        Self { times, fault }
    }
}

/// The threads of one load.
pub(super) struct Crew {
    threads: Vec<JoinHandle<Times>>,
    counters: Vec<(u32, Arc<Counter>)>,
    alive: mpsc::Receiver<()>,
    alive_sender: Option<mpsc::Sender<()>>,
    timeout: Duration,
    times: Times,
}

impl Crew {
    pub(super) fn new(spec: &TestSpec) -> Self {
        let (sender, alive) = mpsc::channel();
        Self {
            threads: Vec::new(),
            counters: Vec::new(),
            alive,
            alive_sender: Some(sender),
            timeout: spec.timeout(),
            times: Times::default(),
        }
    }

    /// A counter for the connection of this number.
    pub(super) fn count(&mut self, connection: u32) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        self.counters.push((connection, Arc::clone(&counter)));
        counter
    }

    /// Starts a thread that waits at the gate and then works until the end of the span.
    pub(super) fn start(
        &mut self,
        context: &Context<'_>,
        counter: Arc<Counter>,
        work: impl FnOnce(&Member, Span) -> Found + Send + 'static,
    ) -> Result<(), Error> {
        let Some(alive) = self.alive_sender.clone() else {
            return Ok(());
        };
        let member = Member {
            counter,
            gate: Arc::clone(&context.gate),
            spec: context.spec.clone(),
            _alive: alive,
        };
        let heard = context.heard.clone();
        let thread = std::thread::Builder::new()
            .name("asking".to_owned())
            .spawn(move || {
                let Some(started) = member.gate.pass() else {
                    return Times::default();
                };
                let found = work(&member, Span::new(&member.spec, started));
                if let Some(fault) = found.fault.filter(|_| !member.gate.is_over()) {
                    // A test that is over no longer listens.
                    let _ = heard.send(Heard::Failed(fault));
                }
                found.times
            });
        self.threads
            .push(thread.map_err(Error::local("cannot start a thread"))?);
        Ok(())
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let sample = |(connection, counter): &(u32, Arc<Counter>)| Sample {
            connection: *connection,
            part: Part::Asks,
            count: counter.look(),
            tcp: None,
        };
        self.counters.iter().map(sample).collect()
    }

    pub(super) fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until all threads have ended, but not longer than an answer may take.
    pub(super) fn settle(&mut self) {
        self.alive_sender = None;
        let ended = self.alive.recv_timeout(self.timeout);
        debug_assert!(matches!(
            ended,
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout)
        ));
    }

    /// Takes over what the threads found, once they are made to end.
    pub(super) fn join(&mut self) {
        self.alive_sender = None;
        for thread in self.threads.drain(..) {
            // One that panicked has printed why.
            if let Ok(times) = thread.join() {
                self.times.join(&times);
            }
        }
    }

    pub(super) const fn times(&self) -> &Times {
        &self.times
    }
}
