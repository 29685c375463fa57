//! Who may run a test.

use std::{
    io::{self, Read},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Host, Notice, Place,
    session::{self, SILENCE_MAX},
};
use crate::{
    spec::TestSpec,
    wire::{self, ASK_MAX_BYTES, Ask, Tell},
};

/// A client has this long to say which test it wants, from the first byte to the last.
const OPENING_PATIENCE: Duration = Duration::from_secs(30);

/// What a client still says after its refusal, or after the end of its test, is read for so long.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// Talks with a client that wants a test, and runs it. `rest` came with the preamble.
pub(super) fn converse(host: &Arc<Host>, mut control: TcpStream, rest: &[u8], client: SocketAddr) {
    let refused = |reason: String| host.notify(Notice::Refused { client, reason });
    match admit(host, &control, rest) {
        Ok((spec, place)) => {
            host.notify(Notice::Started {
                client,
                workload: spec.workload,
                connections: spec.connections,
            });
            let fault = session::run(host, spec, &control, place);
            host.notify(Notice::Ended { client, fault });
        }
        Err(Refusal::Told(reason)) => {
            // A client that has left needs no answer.
            let _ = wire::write_message(&mut control, &Tell::Refused(reason.clone()));
            drain(&control);
            refused(reason);
        }
        Err(Refusal::Silent(error)) => refused(format!("it asked for no test: {error}")),
    }
}

enum Refusal {
    Told(String),
    Silent(io::Error),
}

fn admit(host: &Arc<Host>, control: &TcpStream, rest: &[u8]) -> Result<(TestSpec, Place), Refusal> {
    control
        .set_write_timeout(Some(SILENCE_MAX))
        .map_err(Refusal::Silent)?;
    let opening = Until::within(OPENING_PATIENCE, control);
    let ask: Ask =
        wire::read_message(&mut rest.chain(opening), ASK_MAX_BYTES).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                return Refusal::Told(format!("it sent {error}"));
            }
            Refusal::Silent(error)
        })?;
    let Ask::Open { spec, token } = ask else {
        return Err(Refusal::Told("a test must be opened first".to_owned()));
    };
    if !host.knows(token.as_deref()) {
        let reason = match token {
            None => "it wants a token (--token)",
            Some(_) => "the token is not the right one",
        };
        return Err(Refusal::Told(reason.to_owned()));
    }
    if let Some(fault) = spec.fault().or_else(|| host.settings.limits.refusal(&spec)) {
        return Err(Refusal::Told(fault));
    }
    let place = host
        .take_place()
        .ok_or_else(|| Refusal::Told("it is busy with another test; try again later".to_owned()))?;
    Ok((*spec, place))
}

/// Lets a refusal arrive: closing with unread bytes would reset the connection.
pub(super) fn drain(control: &TcpStream) {
    let _ = control.shutdown(Shutdown::Write);
    let rest = Until::within(DRAIN_PATIENCE, control);
    let _ = io::copy(&mut rest.take(ASK_MAX_BYTES as u64), &mut io::sink());
}

/// Reads until a moment, however little comes at a time.
struct Until<'a> {
    from: &'a TcpStream,
    end: Instant,
}

impl<'a> Until<'a> {
    fn within(patience: Duration, from: &'a TcpStream) -> Self {
        Self {
            from,
            end: Instant::now() + patience,
        }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.from.set_read_timeout(Some(left))?;
        self.from.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::TcpListener, thread};

    use super::*;

    #[test]
    fn whoever_never_stops_talking_is_not_listened_to_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (control, _) = listener.accept().unwrap();
        let talking = thread::spawn(move || while client.write_all(b"x").is_ok() {});
        let mut reader = Until::within(Duration::from_millis(20), &control);
        let ended = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(matches!(
            ended.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        ));
        control.shutdown(Shutdown::Both).unwrap();
        drop(control);
        talking.join().unwrap();
    }
}
