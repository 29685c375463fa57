//! The client: runs one test against a server and writes down what was measured.
//!
//! It opens the control connection and the data connections, starts its threads behind a [`Gate`], opens the gate
//! when the server is ready, and looks at the counters until the end. Whatever breaks in between leaves a result
//! that is marked partial.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use crate::{
    error::Error,
    gate::Gate,
    result::{Environment, Interval, SCHEMA, ServerSide, TestResult},
    socket,
    spec::{PORT_DEFAULT, Pace, TestSpec, Workload},
    url::Url,
    wire::{Kind, Preamble, TestId},
};

mod asking;
mod control;
mod crew;
mod flows;
mod http;
mod idle;
mod knee;
mod load;
mod measure;
mod probe;
mod streams;

use control::{Control, Heard};
use http::Http;
use load::Load;

/// Is told what happens while a test runs.
pub trait Progress {
    /// An interval has passed: each connection, then all together.
    fn interval(&mut self, intervals: &[Interval]);

    /// Something to know.
    fn note(&mut self, text: &str);
}

/// Nobody looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Progress for Unwatched {
    fn interval(&mut self, _: &[Interval]) {}

    fn note(&mut self, _: &str) {}
}

/// What a test needs beside its specification.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What the server demands.
    pub token: Option<String>,
    /// Processes whose use of the machine is to be written down.
    pub watch: Vec<u32>,
    /// The command line, for the record.
    pub command: Vec<String>,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// Set by whoever wants the test to end now.
    pub interrupted: Arc<AtomicBool>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            token: None,
            watch: Vec::new(),
            command: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            interrupted: Arc::default(),
        }
    }
}

/// What the parts of a running test share.
struct Context<'a> {
    spec: &'a TestSpec,
    setup: &'a Setup,
    addresses: Vec<SocketAddr>,
    test: TestId,
    gate: Arc<Gate>,
    heard: mpsc::Sender<Heard>,
}

/// Runs a test to its end.
///
/// A test that was cut short is no error: its result is marked partial and says what happened.
pub fn run(
    spec: &TestSpec,
    setup: &Setup,
    progress: &mut dyn Progress,
) -> Result<TestResult, Error> {
    if let Some(fault) = spec.fault() {
        return Err(Error::Spec(fault));
    }
    crate::server::raise_descriptor_limit();
    let Pace::PercentOfKnee(percent) = spec.pace() else {
        return run_once(spec, setup, progress);
    };
    let knee = knee::find(spec, setup, progress)?;
    let spec = TestSpec {
        rate_per_second: Some(knee * percent / 100.0),
        ..spec.clone()
    };
    let mut result = run_once(&spec, setup, progress)?;
    if let Some(latency) = &mut result.latency {
        latency.knee_per_second = Some(knee);
    }
    Ok(result)
}

fn run_once(
    spec: &TestSpec,
    setup: &Setup,
    progress: &mut dyn Progress,
) -> Result<TestResult, Error> {
    if spec.workload == Workload::Http {
        return fetch(spec, setup, progress);
    }
    let addresses = socket::resolve(&spec.target, PORT_DEFAULT)?;
    let (sender, heard) = mpsc::channel();
    let started = jiff::Timestamp::now();
    let (mut control, test) = Control::open(spec, setup, &addresses, &sender, &heard)?;
    let context = Context {
        spec,
        setup,
        addresses,
        test,
        gate: Arc::default(),
        heard: sender,
    };
    let mut loads = load::connect(&context)?;
    let measured = measure::run(&context, &mut loads, Some(&mut control), &heard, progress)?;
    let mut result = TestResult::new(spec.clone(), setup.command.clone(), started.to_string());
    measured.write(&loads, &mut result);
    Ok(result)
}

/// Asks an HTTP server, which need not be ours: nobody is told of the test.
fn fetch(spec: &TestSpec, setup: &Setup, progress: &mut dyn Progress) -> Result<TestResult, Error> {
    let url = Url::parse(&spec.target, spec.response_bytes)?;
    let port = if spec.target.contains("://") {
        80
    } else {
        PORT_DEFAULT
    };
    let (sender, heard) = mpsc::channel();
    let started = jiff::Timestamp::now();
    let context = Context {
        spec,
        setup,
        addresses: socket::resolve(&url.authority, port)?,
        test: TestId([0; 16]),
        gate: Arc::default(),
        heard: sender,
    };
    let mut loads: Vec<Box<dyn Load>> = vec![Box::new(Http::open(&context, &url)?)];
    let measured = measure::run(&context, &mut loads, None, &heard, progress)?;
    let mut result = TestResult::new(spec.clone(), setup.command.clone(), started.to_string());
    measured.write(&loads, &mut result);
    Ok(result)
}

impl Context<'_> {
    fn is_interrupted(&self) -> bool {
        self.setup.interrupted.load(Relaxed)
    }

    /// Whether there are streams that only the end of the test ends.
    fn sends_until_counted(&self) -> bool {
        let has_streams = crate::role::streams(self.spec).next().is_some();
        has_streams && self.spec.total_bytes.is_none()
    }

    /// What a data connection begins with.
    const fn preamble(&self, connection: u32) -> Preamble {
        Preamble {
            kind: Kind::Data,
            test: self.test,
            connection,
        }
    }

    /// Opens a data connection.
    fn dial(&self, connection: u32) -> io::Result<TcpStream> {
        let mut stream = socket::connect(&self.addresses, self.spec, self.setup.connect_timeout)?;
        stream.write_all(&self.preamble(connection).encode())?;
        Ok(stream)
    }
}

impl TestResult {
    /// Nothing measured yet.
    pub fn new(test: TestSpec, command: Vec<String>, started: String) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            partial: false,
            fault: None,
            command,
            started,
            test,
            environment: Environment::here(),
            server: None,
            intervals: Vec::new(),
            throughput: None,
            up: None,
            down: None,
            rate: None,
            latency: None,
            datagrams: None,
            gap: None,
            held: None,
            verified: None,
            cost: None,
        }
    }
}
