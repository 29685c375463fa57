//! Servers and short tests.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use corinth_load::{
    Error, TestResult, TestSpec,
    client::{self, Setup, Unwatched},
    server::{Notice, Server, Settings},
    spec::Workload,
    wire::{self, ASK_MAX_BYTES, Ask, Kind, Preamble, TELL_MAX_BYTES, Tell, TestId},
};

/// Long enough for anything that is going to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a port of its own, and what it said.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    notices: mpsc::Receiver<Notice>,
}

pub(crate) fn server() -> Fixture {
    server_with(|_| ())
}

pub(crate) fn server_with(change: impl FnOnce(&mut Settings)) -> Fixture {
    let (sender, notices) = mpsc::channel();
    let mut settings = Settings::new("127.0.0.1:0".parse().unwrap());
    settings.notify = Arc::new(move |notice| {
        let _ = sender.send(notice);
    });
    change(&mut settings);
    Fixture {
        server: Server::start(settings).unwrap(),
        notices,
    }
}

impl Fixture {
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A short test against it.
    pub(crate) fn spec(&self, workload: Workload) -> TestSpec {
        short(workload, &self.address().to_string())
    }

    /// Waits for the end of a test and says what was wrong with it.
    pub(crate) fn wait_for_end(&self) -> Option<String> {
        loop {
            match self.notices.recv_timeout(PATIENCE).expect("no test ended") {
                Notice::Ended { fault, .. } => return fault,
                Notice::Started { .. } | Notice::Refused { .. } => {}
            }
        }
    }

    /// Waits until somebody is sent away, and says why.
    pub(crate) fn wait_for_refusal(&self) -> String {
        loop {
            match self
                .notices
                .recv_timeout(PATIENCE)
                .expect("nobody was refused")
            {
                Notice::Refused { reason, .. } => return reason,
                Notice::Started { .. } | Notice::Ended { .. } => {}
            }
        }
    }

    /// Waits until a test begins.
    pub(crate) fn wait_for_start(&self) {
        loop {
            match self.notices.recv_timeout(PATIENCE).expect("no test began") {
                Notice::Started { .. } => return,
                Notice::Refused { .. } | Notice::Ended { .. } => {}
            }
        }
    }
}

pub(crate) fn short(workload: Workload, target: &str) -> TestSpec {
    TestSpec {
        duration_ms: 300,
        interval_ms: 100,
        ..TestSpec::new(workload, target)
    }
}

pub(crate) fn run(spec: &TestSpec) -> Result<TestResult, Error> {
    client::run(spec, &Setup::default(), &mut Unwatched)
}

/// Runs a test that comes to its end.
pub(crate) fn run_whole(spec: &TestSpec) -> TestResult {
    let result = run(spec).unwrap();
    assert_eq!((result.partial, &result.fault), (false, &None));
    result
}

/// A client that says what it is told to say.
pub(crate) struct Talker {
    stream: TcpStream,
    pub(crate) address: SocketAddr,
}

impl Talker {
    pub(crate) fn connect(address: SocketAddr, first: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(first).unwrap();
        Self { stream, address }
    }

    /// Opens a test; its name.
    pub(crate) fn open(address: SocketAddr, spec: TestSpec) -> (Self, TestId) {
        let mut talker = Self::connect(address, &Preamble::CONTROL.encode());
        talker.say(&Ask::Open {
            spec: Box::new(spec),
            token: None,
        });
        let Tell::Accepted { test } = talker.hear() else {
            panic!("the test was not accepted");
        };
        (talker, TestId::from_hex(&test).unwrap())
    }

    /// Opens a data connection of a test.
    pub(crate) fn open_data(&self, test: TestId, connection: u32) -> Self {
        let preamble = Preamble {
            kind: Kind::Data,
            test,
            connection,
        };
        Self::connect(self.address, &preamble.encode())
    }

    pub(crate) fn say(&mut self, ask: &Ask) {
        wire::write_message(&mut self.stream, ask).unwrap();
    }

    pub(crate) fn hear(&mut self) -> Tell {
        wire::read_message(&mut self.stream, TELL_MAX_BYTES).unwrap()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // The server may have closed it, which is what some tests are about.
        let _ = self.stream.write_all(bytes);
    }

    pub(crate) fn read_exact(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Whether an answer of this length comes; if not, the server has closed it.
    pub(crate) fn is_answered(&mut self, length: usize) -> bool {
        match self.stream.read_exact(&mut vec![0; length]) {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the server neither answers nor closes: {error}")
            }
            Err(_) => false,
        }
    }

    /// Waits until nobody at the server has this connection open: what is sent on it then is answered with a reset.
    pub(crate) fn wait_for_reset(&mut self) {
        self.write(b"?");
        let patience = Timespec {
            tv_sec: PATIENCE.as_secs().cast_signed(),
            tv_nsec: 0,
        };
        let mut watched = [PollFd::new(&self.stream, PollFlags::empty())];
        assert_eq!(
            poll(&mut watched, Some(&patience)),
            Ok(1),
            "the server still has the connection"
        );
    }

    /// Reads until the server closes.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the server does not close: {error}"),
        }
        bytes
    }
}

/// What a server says to bytes it does not like.
pub(crate) fn refusal(mut bytes: &[u8]) -> String {
    match wire::read_message(&mut bytes, ASK_MAX_BYTES).unwrap() {
        Tell::Refused(reason) => reason,
        told @ (Tell::Accepted { .. } | Tell::Started | Tell::Pong | Tell::Report(_)) => {
            panic!("no refusal: {told:?}")
        }
    }
}
