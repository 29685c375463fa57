//! The socket of an import port: tells which of our addresses a datagram came to, and answers from that one.

use std::{
    cell::RefCell,
    io::{self, IoSliceMut},
    net::IpAddr,
    os::fd::AsFd,
};

use corinth_transport::quic::hold_unread;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use tokio::{io::Interest, net::UdpSocket};

/// Datagrams read at once, at most; with receive offload each may be a series.
const BATCH: usize = 8;
/// A series of datagrams, or one of the largest.
pub(super) const BUFFER_BYTES: usize = 64 << 10;

/// What a socket may hold that is not yet read, in bytes as the system counts them, which is twice what they are: 50 ms at
/// 250 Mbit/s, in which the machine may have had something else to do. The system's own choice is a twentieth of it.
const UNREAD_MAX_BYTES: usize = 4 << 20;

/// Lets a socket hold what comes at once while its worker is busy.
pub(super) fn widen(socket: impl AsFd) -> io::Result<()> {
    hold_unread(socket, UNREAD_MAX_BYTES)
}

thread_local! {
    /// What was just read. Sockets of a worker take turns: none reads while another's datagrams are looked at.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BATCH * BUFFER_BYTES]);
}

/// Who speaks to which address of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ends {
    pub(super) client: std::net::SocketAddr,
    /// `None` where the system does not say.
    pub(super) own: Option<IpAddr>,
}

/// The socket of an import port.
pub(super) struct ClientSocket {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl ClientSocket {
    /// Takes over a bound socket; on a worker.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let is_ipv6 = socket.local_addr()?.is_ipv6();
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        widen(&socket)?;
        // A tunnel's packets must not be fragmented; answers to local clients may be as large as they like.
        sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::WANT)?;
        if is_ipv6 {
            sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::WANT)?;
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6DontFrag, &false)?;
        }
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            state,
        })
    }

    /// Waits for datagrams. Cancel-safe.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Lends each datagram of a batch to `each`; `WouldBlock` where none is there.
    pub(super) fn take(&self, mut each: impl FnMut(Ends, &[u8])) -> io::Result<()> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut meta = [RecvMeta::default(); BATCH];
            let mut chunks = buffer.chunks_mut(BUFFER_BYTES);
            let mut slices: [_; BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let count = self.socket.try_io(Interest::READABLE, || {
                self.state
                    .recv(UdpSockRef::from(&self.socket), &mut slices, &mut meta)
            })?;
            for (meta, bytes) in meta.iter().zip(&slices).take(count) {
                let ends = Ends {
                    client: meta.addr,
                    own: meta.dst_ip,
                };
                let bytes = &bytes[..meta.len.min(bytes.len())];
                if bytes.is_empty() {
                    each(ends, bytes);
                }
                for datagram in bytes.chunks(meta.stride.max(1)) {
                    each(ends, datagram);
                }
            }
            Ok(())
        })
    }

    /// Sends one datagram to a client, from the address it spoke to. Never waits.
    pub(super) fn send(&self, to: Ends, datagram: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: to.client,
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: to.own,
        };
        self.state
            .try_send(UdpSockRef::from(&self.socket), &transmit)
    }
}

/// Lends every datagram that an endpoint's socket has to `each`, up to a number that leaves others their turn.
pub(super) fn take_from_endpoint(
    socket: &UdpSocket,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    /// Then others have their turn.
    const TURN: usize = 64;
    BUFFER.with_borrow_mut(|buffer| {
        for _ in 0..TURN {
            match socket.try_recv(buffer) {
                Ok(bytes) => each(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};

    use super::*;

    async fn taken(socket: &ClientSocket) -> Vec<(Ends, Vec<u8>)> {
        let mut taken = Vec::new();
        while taken.is_empty() {
            socket.readable().await.unwrap();
            // What is not there yet will be.
            let _ = socket.take(|ends, bytes| taken.push((ends, bytes.to_vec())));
        }
        taken
    }

    async fn echo(bound: &str, client: IpAddr, spoken_to: IpAddr, sent: &[u8]) {
        let socket = StdSocket::bind(bound).unwrap();
        let port = socket.local_addr().unwrap().port();
        let socket = ClientSocket::new(socket).unwrap();
        let client = StdSocket::bind(SocketAddr::new(client, 0)).unwrap();
        // Only answers from the address that was spoken to are heard.
        client.connect(SocketAddr::new(spoken_to, port)).unwrap();
        client.send(sent).unwrap();
        let (ends, bytes) = taken(&socket).await.remove(0);
        assert_eq!(bytes, sent);
        socket.send(ends, &bytes).unwrap();
        let mut answer = vec![0; BUFFER_BYTES];
        let length = client.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], sent);
    }

    #[tokio::test]
    async fn answers_leave_from_the_address_that_was_spoken_to() {
        let second = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        echo("0.0.0.0:0", local, second, b"hello").await;
        echo("[::]:0", local, second, b"hello").await;
        let local = IpAddr::V6(Ipv6Addr::LOCALHOST);
        echo("[::]:0", local, local, b"hello").await;
    }

    #[tokio::test]
    async fn empty_and_large_datagrams_pass() {
        for (bound, local) in [
            ("127.0.0.1:0", IpAddr::V4(Ipv4Addr::LOCALHOST)),
            ("[::1]:0", IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ] {
            echo(bound, local, local, b"").await;
            echo(bound, local, local, &[7; 4_000]).await;
            echo(bound, local, local, &[7; 65_507]).await;
        }
    }

    #[tokio::test]
    async fn a_burst_is_kept_while_nobody_reads() {
        const DATAGRAMS: usize = 800;
        let socket = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let socket = ClientSocket::new(socket).unwrap();
        let limit = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        let granted = sockopt::socket_recv_buffer_size(&socket.socket).unwrap();
        assert!(granted >= UNREAD_MAX_BYTES.min(limit), "{granted} bytes");
        let client = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Each takes a page of what was granted at most.
        let burst = DATAGRAMS.min(granted / 4_096);
        for _ in 0..burst {
            client.send_to(&[1; 1_200], address).unwrap();
        }
        let mut came = 0;
        while came < burst {
            came += taken(&socket).await.len();
        }
        assert_eq!(came, burst);
    }
}
