//! The socket that speaks to one endpoint: it hears nobody else, and learns from ICMP that nobody is there.
//!
//! That nobody answers says nothing: there are services that only listen.

use std::{io, net::SocketAddr};

use corinth_model::Failure;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{io::Interest, net::UdpSocket, task::coop::consume_budget};

use super::socket::{take_from_endpoint, widen};

/// Messages of the network that are looked at for one that says that the endpoint is gone.
const ERRORS_MAX: usize = 64;

/// The socket that speaks to one endpoint.
pub(super) struct EndpointSocket(UdpSocket);

/// What became of a datagram for an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// It has left.
    Sent,
    /// There was no room for it, or none for one so large.
    Dropped,
    /// There is no endpoint any more.
    Gone(Failure),
}

impl EndpointSocket {
    /// A socket for this endpoint; on a worker. Whether anybody listens there only datagrams can tell.
    pub(super) fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let connected = || {
            let kind = Type::DGRAM.nonblocking();
            let socket = Socket::new(Domain::for_address(address), kind, None)?;
            // Without it a host that is not there is never heard of, only a port.
            match address {
                SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
                SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
            }
            widen(&socket)?;
            socket.connect(&address.into())?;
            UdpSocket::from_std(socket.into())
        };
        connected()
            .map(Self)
            .map_err(|error: io::Error| match Errno::from_io_error(&error) {
                // There are too few of what every endpoint needs.
                Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN) => {
                    Failure::Internal
                }
                Some(_) | None => Failure::EndpointUnreachable,
            })
    }

    /// Sends one datagram. Never waits.
    pub(super) fn give(&self, datagram: &[u8]) -> Given {
        let socket = SockRef::from(&self.0);
        // What is wrong with an earlier datagram keeps one from leaving.
        for _ in 0..2 {
            match socket.send(datagram) {
                Ok(_) => return Given::Sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Given::Dropped,
                Err(error) => {
                    if let Some(failure) = failure_of(&error) {
                        return Given::Gone(failure);
                    }
                }
            }
        }
        Given::Dropped
    }

    /// Waits for what the endpoint says and lends each datagram to `each`; a failure if there is no endpoint any more.
    /// Cancel-safe.
    pub(super) async fn hear(&self, mut each: impl FnMut(&[u8])) -> Option<Failure> {
        let Ok(ready) = self.0.ready(Interest::READABLE | Interest::ERROR).await else {
            return Some(Failure::EndpointUnreachable);
        };
        let taken = take_from_endpoint(&self.0, &mut each);
        let mut failure = taken.err().and_then(|error| failure_of(&error));
        if failure.is_none() && ready.is_error() {
            failure = self.failure();
        }
        if failure.is_some() {
            // The system tells of an error before what was said before it.
            let _ = take_from_endpoint(&self.0, each);
        } else {
            // An endpoint that never stops must not keep the worker.
            consume_budget().await;
        }
        failure
    }

    /// What the network has said of the endpoint since it was last asked.
    fn failure(&self) -> Option<Failure> {
        let mut found = None;
        // Saying that there is nothing more is what makes the next wait one for news.
        let _ = self.0.try_io(Interest::ERROR, || {
            for _ in 0..ERRORS_MAX {
                let error = self.0.take_error().ok().flatten();
                found = found.or_else(|| error.as_ref().and_then(failure_of));
                // The datagram that it is about, of which nothing is wanted: as long as it lies there it takes up room.
                if recv(&self.0, &mut [0_u8; 1][..], RecvFlags::ERRQUEUE).is_err() {
                    break;
                }
            }
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
        found
    }
}

/// What an error says of the endpoint; `None` for what passes.
fn failure_of(error: &io::Error) -> Option<Failure> {
    let is_unreachable = matches!(
        error.kind(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
    );
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return Some(Failure::EndpointRefused);
    }
    is_unreachable.then_some(Failure::EndpointUnreachable)
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, Ipv6Addr, UdpSocket as StdSocket},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    async fn heard(socket: &EndpointSocket) -> (Vec<Vec<u8>>, Option<Failure>) {
        let mut heard = Vec::new();
        let waiting = async {
            loop {
                let failure = socket.hear(|bytes| heard.push(bytes.to_vec())).await;
                if failure.is_some() {
                    return failure;
                }
            }
        };
        let failure = timeout(Duration::from_secs(10), waiting).await;
        (heard, failure.expect("it is heard of"))
    }

    #[tokio::test]
    async fn one_datagram_is_enough_to_learn_that_nobody_listens() {
        for local in [
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
        ] {
            let endpoint = StdSocket::bind(local).unwrap();
            let address = endpoint.local_addr().unwrap();
            let socket = EndpointSocket::connect(address).unwrap();
            assert_eq!(socket.give(b"first"), Given::Sent);
            let mut room = [0; 16];
            let (length, from) = endpoint.recv_from(&mut room).unwrap();
            endpoint.send_to(&room[..length], from).unwrap();
            drop(endpoint);
            assert_eq!(socket.give(b"second"), Given::Sent);
            let expected = (vec![b"first".to_vec()], Some(Failure::EndpointRefused));
            assert_eq!(heard(&socket).await, expected);
        }
    }

    #[tokio::test]
    async fn one_that_was_too_large_keeps_no_other_from_leaving() {
        let endpoint = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let socket = EndpointSocket::connect(endpoint.local_addr().unwrap()).unwrap();
        assert_eq!(socket.give(&[0; 65_527]), Given::Dropped);
        assert_eq!(socket.give(b"small"), Given::Sent);
        assert_eq!(endpoint.recv(&mut [0; 16]).unwrap(), 5);
    }
}
