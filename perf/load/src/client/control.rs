//! The client's end of the control connection.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::Setup;
use crate::{
    error::Error,
    socket,
    spec::TestSpec,
    wire::{self, Ask, Kind, Preamble, Report, TELL_MAX_BYTES, Tell, TestId},
};

/// A server answers at once.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Before it starts it may have to wait for our connections.
const START_PATIENCE: Duration = Duration::from_secs(40);

/// Having reported, it clears up in less than this.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);

/// How often the client says that it lives.
const PING_EVERY: Duration = Duration::from_secs(1);

/// A server that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What a running test hears of.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message of the server.
    Told(Tell),
    /// The control connection ended.
    Gone(String),
    /// A worker came to its end.
    Finished,
    /// A worker cannot go on.
    Failed(String),
}

/// The control connection of an accepted test.
pub(super) struct Control {
    stream: TcpStream,
    target: String,
    test: TestId,
    addresses: Vec<SocketAddr>,
    next_ping: Instant,
    last_heard: Instant,
}

impl Drop for Control {
    fn drop(&mut self) {
        // Refused only where the server has closed it already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Control {
    /// Asks the server for a test.
    pub(super) fn open(
        spec: &TestSpec,
        setup: &Setup,
        addresses: &[SocketAddr],
        sender: &mpsc::Sender<Heard>,
        heard: &mpsc::Receiver<Heard>,
    ) -> Result<(Self, TestId), Error> {
        let unreachable = |source| Error::Unreachable {
            target: spec.target.clone(),
            source,
        };
        let mut stream =
            dial(addresses, setup.connect_timeout, Preamble::CONTROL).map_err(unreachable)?;
        let ask = Ask::Open {
            spec: Box::new(spec.clone()),
            token: setup.token.clone(),
        };
        wire::write_message(&mut stream, &ask).map_err(unreachable)?;
        listen(&stream, sender).map_err(Error::local("cannot start a thread"))?;
        let now = Instant::now();
        let mut control = Self {
            stream,
            target: spec.target.clone(),
            test: TestId([0; 16]),
            addresses: addresses.to_vec(),
            next_ping: now,
            last_heard: now,
        };
        let told = control.wait(heard, ANSWER_PATIENCE)?;
        let Tell::Accepted { test } = told else {
            return Err(control.stranger("it answers out of turn"));
        };
        control.test =
            TestId::from_hex(&test).ok_or_else(|| control.stranger("it gives the test no name"))?;
        let test = control.test;
        Ok((control, test))
    }

    /// Says that all connections are there, and waits for the start.
    pub(super) fn start(&mut self, heard: &mpsc::Receiver<Heard>) -> Result<(), Error> {
        self.ask(&Ask::Start).map_err(|source| Error::Unreachable {
            target: self.target.clone(),
            source,
        })?;
        match self.wait(heard, START_PATIENCE)? {
            Tell::Started => {
                self.last_heard = Instant::now();
                Ok(())
            }
            Tell::Refused(_) | Tell::Accepted { .. } | Tell::Pong | Tell::Report(_) => {
                Err(self.stranger("it answers out of turn"))
            }
        }
    }

    /// Says from time to time that the client lives; why the server is thought gone, if it is.
    pub(super) fn tick(&mut self, now: Instant) -> Result<(), String> {
        if now > self.last_heard + SILENCE_MAX {
            return Err(format!(
                "the server has said nothing for {} s",
                SILENCE_MAX.as_secs()
            ));
        }
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            self.ask(&Ask::Ping).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Does what takes a while, and says meanwhile that the client lives.
    pub(super) fn stay_while(&self, work: impl FnOnce()) {
        let (working, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(PING_EVERY) == Err(RecvTimeoutError::Timeout) {
                    // A server that is gone is noticed when its report does not come.
                    let _ = self.ask(&Ask::Ping);
                }
            });
            work();
            drop(working);
        });
    }

    /// The server lives.
    pub(super) const fn note_heard(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Ends the test and gets what the server counted.
    pub(super) fn stop(&mut self, heard: &mpsc::Receiver<Heard>) -> Result<Box<Report>, String> {
        let asked = self.ask(&Ask::Stop);
        // A server that ended the test by itself has sent a report before it closed.
        self.await_report(heard)
            .map_err(|reason| asked.err().map_or(reason, |error| error.to_string()))
    }

    /// The same on a new connection, after the first has broken.
    pub(super) fn stop_anew(
        &mut self,
        sender: &mpsc::Sender<Heard>,
        heard: &mpsc::Receiver<Heard>,
    ) -> Result<Box<Report>, String> {
        let preamble = Preamble {
            kind: Kind::Resume,
            test: self.test,
            connection: 0,
        };
        let anew = dial(&self.addresses, ANSWER_PATIENCE, preamble).and_then(|stream| {
            listen(&stream, sender)?;
            Ok(stream)
        });
        self.stream = anew.map_err(|error| error.to_string())?;
        self.stop(heard)
    }

    /// Waits until the server is ready for another test.
    pub(super) fn finish(&self, heard: &mpsc::Receiver<Heard>) {
        let until = Instant::now() + FINISH_PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match heard.recv_timeout(left) {
                Ok(Heard::Gone(_)) | Err(_) => return,
                Ok(Heard::Told(_) | Heard::Finished | Heard::Failed(_)) => {}
            }
        }
    }

    fn await_report(&self, heard: &mpsc::Receiver<Heard>) -> Result<Box<Report>, String> {
        let until = Instant::now() + ANSWER_PATIENCE + ANSWER_PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match heard.recv_timeout(left) {
                Ok(Heard::Told(Tell::Report(report))) => return Ok(report),
                Ok(Heard::Gone(reason)) => return Err(reason),
                Ok(Heard::Told(_) | Heard::Finished | Heard::Failed(_)) => {}
                Err(_) => return Err("no report came".to_owned()),
            }
        }
    }

    fn ask(&self, ask: &Ask) -> io::Result<()> {
        wire::write_message(&mut &self.stream, ask)
    }

    fn wait(&self, heard: &mpsc::Receiver<Heard>, patience: Duration) -> Result<Tell, Error> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match heard.recv_timeout(left) {
                Ok(Heard::Told(Tell::Refused(reason))) => {
                    return Err(Error::Refused {
                        target: self.target.clone(),
                        reason,
                    });
                }
                Ok(Heard::Told(Tell::Pong) | Heard::Finished) => {}
                Ok(Heard::Told(told)) => return Ok(told),
                Ok(Heard::Gone(reason) | Heard::Failed(reason)) => {
                    return Err(self.stranger(reason));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(
                        self.stranger(format!("it said nothing for {} s", patience.as_secs()))
                    );
                }
            }
        }
    }

    fn stranger(&self, reason: impl Into<String>) -> Error {
        Error::NoServer {
            target: self.target.clone(),
            reason: reason.into(),
        }
    }
}

fn dial(addresses: &[SocketAddr], timeout: Duration, preamble: Preamble) -> io::Result<TcpStream> {
    let plain = TestSpec::new(crate::spec::Workload::Rr, String::new());
    let mut stream = socket::connect(addresses, &plain, timeout)?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    io::Write::write_all(&mut stream, &preamble.encode())?;
    Ok(stream)
}

fn listen(stream: &TcpStream, sender: &mpsc::Sender<Heard>) -> io::Result<()> {
    let mut reader = stream.try_clone()?;
    let sender = sender.clone();
    let thread = std::thread::Builder::new().name("control".to_owned());
    thread.spawn(move || {
        loop {
            let heard = match wire::read_message(&mut reader, TELL_MAX_BYTES) {
                Ok(told) => Heard::Told(told),
                Err(error) => Heard::Gone(explain(&error)),
            };
            let is_gone = matches!(heard, Heard::Gone(_));
            if sender.send(heard).is_err() || is_gone {
                return;
            }
        }
    })?;
    Ok(())
}

fn explain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "it closed the connection".to_owned();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::wire::ASK_MAX_BYTES;

    #[test]
    fn a_client_that_is_busy_says_that_it_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let now = Instant::now();
        let control = Control {
            stream,
            target: String::new(),
            test: TestId([0; 16]),
            addresses: Vec::new(),
            next_ping: now,
            last_heard: now,
        };
        server
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        control.stay_while(|| {
            let heard: Ask = wire::read_message(&mut server, ASK_MAX_BYTES).unwrap();
            assert_eq!(heard, Ask::Ping);
        });
    }
}
