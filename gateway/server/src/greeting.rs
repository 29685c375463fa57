//! How a client is told that its service accepted, or why not, in the words of its own protocol.

use std::io;

use corinth_model::{Culprit, Reason, Refusal};
use fast_socks5::ReplyError;
use tokio::net::TcpStream;

/// How a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Not at all: the client believes that it speaks with its service.
    Silent,
    /// A SOCKS5 reply (RFC 1928 §6).
    Socks,
    /// The status line of an HTTP CONNECT (RFC 9110 §9.3.6).
    Connect,
}

impl Greeting {
    /// Does the client speak before it is told?
    pub(crate) fn is_silent(self) -> bool {
        self == Self::Silent
    }

    /// Tells the client that its service accepted.
    pub(crate) async fn accept(self, client: &TcpStream) -> io::Result<()> {
        match self {
            Self::Silent => Ok(()),
            Self::Socks => say(client, &socks_reply(ReplyError::Succeeded)).await,
            Self::Connect => say(client, b"HTTP/1.1 200 Connection established\r\n\r\n").await,
        }
    }

    /// Tells the client why not; `false` if it has no words for it.
    pub(crate) async fn refuse(self, client: &TcpStream, reason: Reason) -> bool {
        let said = match self {
            Self::Silent => return false,
            Self::Socks => say(client, &socks_reply(socks_error(reason))).await,
            Self::Connect => say(client, connect_refusal(reason).as_bytes()).await,
        };
        said.is_ok()
    }
}

/// A reply without a bound address, which nobody uses for CONNECT.
fn socks_reply(reply: ReplyError) -> [u8; 10] {
    const VERSION: u8 = 5;
    const IPV4: u8 = 1;
    [VERSION, reply.as_u8(), 0, IPV4, 0, 0, 0, 0, 0, 0]
}

fn socks_error(reason: Reason) -> ReplyError {
    match reason {
        Reason::Completed => ReplyError::Succeeded,
        Reason::Refused(refusal) => match refusal {
            Refusal::Forbidden | Refusal::SourceNotAllowed | Refusal::Unlinked => {
                ReplyError::ConnectionNotAllowed
            }
            Refusal::UnknownRoute | Refusal::AmbiguousName | Refusal::InvalidName => {
                ReplyError::HostUnreachable
            }
            Refusal::NoEndpoint => ReplyError::ConnectionRefused,
            Refusal::OverLimit
            | Refusal::Overloaded
            | Refusal::Draining
            | Refusal::TooManyHops
            | Refusal::FlowLimit => ReplyError::GeneralFailure,
        },
        Reason::Failed(failure) => match failure.culprit() {
            Culprit::Endpoint => ReplyError::ConnectionRefused,
            Culprit::Peer => ReplyError::NetworkUnreachable,
            Culprit::Client | Culprit::Local => ReplyError::GeneralFailure,
        },
    }
}

/// Code and name stand in a header and in the body, so that both programs and people find them.
fn connect_refusal(reason: Reason) -> String {
    let status = match reason {
        Reason::Completed => "200 OK",
        Reason::Refused(refusal) => match refusal {
            Refusal::Forbidden | Refusal::SourceNotAllowed | Refusal::Unlinked => "403 Forbidden",
            Refusal::UnknownRoute => "404 Not Found",
            Refusal::AmbiguousName | Refusal::InvalidName => "400 Bad Request",
            Refusal::NoEndpoint
            | Refusal::OverLimit
            | Refusal::Overloaded
            | Refusal::Draining
            | Refusal::TooManyHops
            | Refusal::FlowLimit => "503 Service Unavailable",
        },
        Reason::Failed(failure) => match failure.culprit() {
            Culprit::Client => "400 Bad Request",
            Culprit::Local | Culprit::Peer | Culprit::Endpoint => "502 Bad Gateway",
        },
    };
    let (code, name) = (reason.code(), reason.name());
    let body = format!("{code} {name}: {}\n{}\n", reason.summary(), reason.hint());
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         connection: close\r\nx-corinth-reason: {code}\r\n\r\n{body}",
        body.len()
    )
}

async fn say(client: &TcpStream, mut words: &[u8]) -> io::Result<()> {
    while !words.is_empty() {
        client.writable().await?;
        match client.try_write(words) {
            Ok(bytes) => words = &words[bytes..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_an_answer_in_both_protocols() {
        for reason in Reason::all() {
            let answer = connect_refusal(reason);
            let head = answer.split("\r\n\r\n").next().unwrap();
            assert!(head.starts_with("HTTP/1.1 "), "{answer}");
            assert!(head.contains(reason.code()), "{answer}");
            assert_eq!(socks_reply(socks_error(reason))[0], 5);
        }
    }
}
