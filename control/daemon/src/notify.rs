//! Telling the supervisor that the process is ready or stopping.
//!
//! Two ways at once: a line on stderr that a script can wait for, and the datagram of sd_notify(3) to the socket named
//! by `NOTIFY_SOCKET`, if a supervisor set it. A supervisor that does not listen never holds the process up.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// The supervisor to tell; made once at start.
#[derive(Debug)]
pub struct Notifier {
    supervisor: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    /// Tells the socket in `NOTIFY_SOCKET`, or nobody if it is not set; a socket that cannot be used is warned about.
    pub fn from_env() -> Self {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
            return Self { supervisor: None };
        };
        Self::to(&socket).unwrap_or_else(|error| {
            warn!(%error, "NOTIFY_SOCKET cannot be used; the supervisor will not be told");
            Self { supervisor: None }
        })
    }

    /// Tells the datagram socket at `socket`: an absolute path, or `@name` for an abstract one. Fails on any other
    /// form and when no socket can be made.
    pub fn to(socket: &OsStr) -> io::Result<Self> {
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(socket)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the socket must be an absolute path or start with @",
                ));
            }
        };
        let sender = UnixDatagram::unbound()?;
        sender.set_nonblocking(true)?;
        Ok(Self {
            supervisor: Some((sender, address)),
        })
    }

    /// Says that the process is ready; `status` is one line for people, such as the addresses it listens on.
    pub fn ready(&self, status: &str) {
        self.ready_to(&mut io::stderr().lock(), status);
    }

    /// Says that the process has begun to stop; only the supervisor is told.
    pub fn stopping(&self, status: &str) {
        let status = one_line(status);
        self.send(&format!("STOPPING=1\nSTATUS={status}\n"));
    }

    fn ready_to(&self, stderr: &mut impl Write, status: &str) {
        let status = one_line(status);
        // With stderr gone there is nobody left to tell about it.
        let _ = stderr.write_all(format!("READY=1 {status}\n").as_bytes());
        self.send(&format!("READY=1\nSTATUS={status}\n"));
    }

    fn send(&self, message: &str) {
        let Some((sender, address)) = &self.supervisor else {
            return;
        };
        if let Err(error) = sender.send_to_addr(message.as_bytes(), address) {
            warn!(%error, "the supervisor could not be told");
        }
    }
}

/// `status` with anything that would end the line made a blank: a line break starts a new assignment in sd_notify.
fn one_line(status: &str) -> String {
    let blank = |c: char| if c.is_control() { ' ' } else { c };
    status.chars().map(blank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn ready_and_stopping_reach_a_socket_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str()).unwrap();
        let mut stderr = Vec::new();
        notifier.ready_to(&mut stderr, "tunnel 127.0.0.1:15443");
        assert_eq!(stderr, b"READY=1 tunnel 127.0.0.1:15443\n");
        assert_eq!(
            received(&socket),
            "READY=1\nSTATUS=tunnel 127.0.0.1:15443\n"
        );
        notifier.stopping("2 streams open");
        assert_eq!(received(&socket), "STOPPING=1\nSTATUS=2 streams open\n");
    }

    #[test]
    fn ready_reaches_an_abstract_socket() {
        let name = format!("corinth-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::to(OsStr::new(&format!("@{name}"))).unwrap();
        notifier.ready_to(&mut io::sink(), "up");
        assert_eq!(received(&socket), "READY=1\nSTATUS=up\n");
    }

    #[test]
    fn a_status_cannot_smuggle_an_assignment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str()).unwrap();
        let mut stderr = Vec::new();
        notifier.ready_to(&mut stderr, "up\nMAINPID=1\r\u{1b}[2J");
        assert_eq!(stderr, b"READY=1 up MAINPID=1  [2J\n");
        assert_eq!(received(&socket), "READY=1\nSTATUS=up MAINPID=1  [2J\n");
    }

    #[test]
    fn a_supervisor_that_does_not_listen_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let gone = Notifier::to(path.as_os_str()).unwrap();
        gone.ready_to(&mut io::sink(), "up");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        for _ in 0..2_000 {
            gone.ready_to(&mut io::sink(), "up");
        }
    }

    #[test]
    fn a_relative_socket_is_refused() {
        for socket in ["", "notify", "vsock:2:1"] {
            let error = Notifier::to(OsStr::new(socket)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{socket}");
        }
    }
}
