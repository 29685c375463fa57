//! Listening sockets: one per address and worker, all of one address sharing its port.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use corinth_model::PortNumber;
use socket2::{Domain, Socket, Type};

use crate::{flow::Companion, relay};

/// Connections that wait to be accepted, at most; the kernel caps it further.
const BACKLOG: i32 = 4_096;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// Gateways of peers and direct clients.
    Tunnel,
    /// Gateways of peers by QUIC, on the UDP port beside the tunnel port.
    Quic,
    /// Local clients of an imported service port.
    Import(PortNumber),
    /// The same over UDP.
    Flows(PortNumber),
    /// Local clients that speak TLS.
    Sni,
    /// Local SOCKS5 clients.
    Socks,
    /// Local HTTP CONNECT clients.
    Connect,
}

impl Door {
    /// Whether nothing is said at it before the session: what a session's socket needs, connections then have from their
    /// listener, which spares two system calls for each.
    pub(crate) const fn is_silent(self) -> bool {
        match self {
            Self::Import(_) => true,
            Self::Tunnel
            | Self::Quic
            | Self::Flows(_)
            | Self::Sni
            | Self::Socks
            | Self::Connect => false,
        }
    }
}

/// Where a gateway listens, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    /// The address; with port 0 the kernel picks one.
    pub address: SocketAddr,
    /// What for.
    pub door: Door,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "listening on {address}: {source}; is another process using the port, or the address not ours?"
)]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

/// A socket that listens.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// For flows, beside those of the other workers.
    Flows(PortNumber, UdpSocket, Companion),
}

/// One socket for each of `count` workers, on the address that was asked for or picked. `is_ours` says that sockets of ours
/// have that port already and share it.
pub(crate) fn bind(
    address: SocketAddr,
    door: Door,
    count: usize,
    is_ours: bool,
) -> Result<(SocketAddr, Vec<Listener>), ListenError> {
    let failed = |source: io::Error| {
        let source = match door {
            Door::Quic | Door::Flows(_) => {
                io::Error::new(source.kind(), format!("by UDP: {source}"))
            }
            Door::Tunnel | Door::Import(_) | Door::Sni | Door::Socks | Door::Connect => source,
        };
        ListenError { address, source }
    };
    // Ports are shared among our workers only: a first socket that does not share finds out whether
    // somebody else has the port.
    let kind = match door {
        Door::Quic | Door::Flows(_) => Type::DGRAM,
        Door::Tunnel | Door::Import(_) | Door::Sni | Door::Socks | Door::Connect => Type::STREAM,
    };
    let sharing = if is_ours { Sharing::Yes } else { Sharing::No };
    let probe = socket(address, kind, sharing).map_err(failed)?;
    let bound = probe
        .local_addr()?
        .as_socket()
        .ok_or_else(|| failed(io::ErrorKind::Other.into()))?;
    drop(probe);
    let listeners = Companion::group(count)
        .map(|companion| {
            let socket = socket(bound, kind, Sharing::Yes)?;
            if let Door::Flows(port) = door {
                return Ok(Listener::Flows(port, socket.into(), companion));
            }
            if kind == Type::DGRAM {
                return Ok(Listener::Udp(socket.into()));
            }
            if door.is_silent() {
                relay::prepare(&socket)?;
            }
            socket.listen(BACKLOG)?;
            Ok(Listener::Tcp(socket.into()))
        })
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    Ok((bound, listeners))
}

/// One more socket for UDP on a port that our workers share.
pub(crate) fn rebind(address: SocketAddr) -> io::Result<UdpSocket> {
    Ok(socket(address, Type::DGRAM, Sharing::Yes)?.into())
}

impl From<io::Error> for ListenError {
    fn from(source: io::Error) -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
            source,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Sharing {
    Yes,
    No,
}

fn socket(address: SocketAddr, kind: Type, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        // Connections of before may still be closing. With UDP it would share the port with everybody.
        socket.set_reuse_address(true)?;
    }
    if sharing == Sharing::Yes {
        socket.set_reuse_port(true)?;
    }
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // The unspecified IPv6 address takes IPv4 as well.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, time::Duration};

    use socket2::SockRef;

    use super::*;

    fn accepted_at(door: Door) -> (TcpStream, TcpStream) {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (bound, listeners) = bind(any, door, 1, false).unwrap();
        let client = TcpStream::connect(bound).unwrap();
        let Some(Listener::Tcp(listener)) = listeners.first() else {
            panic!("no TCP listener");
        };
        let accepted = loop {
            match listener.accept() {
                Ok((socket, _)) => break socket,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        (client, accepted)
    }

    #[test]
    fn a_client_of_an_import_port_comes_prepared() {
        let port = PortNumber::new(80).unwrap();
        let (_client, accepted) = accepted_at(Door::Import(port));
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
    }

    #[test]
    fn who_may_be_turned_away_in_words_is_not_reset_by_them() {
        for door in [Door::Tunnel, Door::Sni, Door::Socks, Door::Connect] {
            let (_client, accepted) = accepted_at(door);
            assert_eq!(SockRef::from(&accepted).linger().unwrap(), None, "{door:?}");
        }
    }

    #[test]
    fn a_udp_port_is_shared_among_workers_and_with_nobody_else() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (bound, sockets) = bind(any, Door::Quic, 2, false).unwrap();
        assert_eq!(sockets.len(), 2);
        for socket in &sockets {
            let Listener::Udp(socket) = socket else {
                panic!("no UDP socket");
            };
            assert_eq!(socket.local_addr().unwrap(), bound);
        }
        let taken = bind(bound, Door::Quic, 2, false).map(|_| ()).unwrap_err();
        assert_eq!(taken.source.kind(), io::ErrorKind::AddrInUse);
        assert!(bind(bound, Door::Quic, 2, true).is_ok(), "they are ours");
        drop(sockets);
        assert!(bind(bound, Door::Quic, 2, false).is_ok());
    }
}
