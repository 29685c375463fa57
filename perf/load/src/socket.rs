//! TCP sockets as a test wants them, and what the kernel made of it.

use std::{
    io,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::{error::Error, netlink, result::Environment, spec::TestSpec};

/// What the kernel says about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFacts {
    /// Segments sent again since it was opened.
    pub retransmits: u64,
    /// Congestion window.
    pub window_bytes: u64,
    /// Size of a segment.
    pub segment_bytes: u32,
}

/// Host and port as one writes them: `host`, `host:port`, `[v6]:port`, `v6`.
pub fn resolve(target: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let fault = |reason: String| Error::Target {
        target: target.to_owned(),
        reason,
    };
    if let Ok(address) = target.parse::<std::net::IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let has_port = target
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let found = if has_port {
        target.to_socket_addrs()
    } else {
        (target, port).to_socket_addrs()
    };
    let found: Vec<SocketAddr> = found.map_err(|error| fault(error.to_string()))?.collect();
    if found.is_empty() {
        return Err(fault("the name has no address".to_owned()));
    }
    Ok(found)
}

/// Opens a connection to the first address that answers, with the options the test asks for set before.
pub fn connect(
    addresses: &[SocketAddr],
    spec: &TestSpec,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let until = Instant::now() + timeout;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match connect_one(*address, spec, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_one(address: SocketAddr, spec: &TestSpec, timeout: Duration) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    tune(&SockRef::from(&socket), spec)?;
    socket.connect_timeout(&address.into(), timeout)?;
    // In place of what the route has for those who connect, which the kernel has just taken.
    set_congestion_control(&SockRef::from(&socket), spec)?;
    Ok(socket.into())
}

/// Sets what a test asks for.
pub fn tune(socket: &SockRef<'_>, spec: &TestSpec) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    set_congestion_control(socket, spec)?;
    if let Some(bytes) = spec.socket_buffer_bytes {
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        socket.set_send_buffer_size(bytes)?;
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

fn set_congestion_control(socket: &SockRef<'_>, spec: &TestSpec) -> io::Result<()> {
    let Some(algorithm) = &spec.congestion_control else {
        return Ok(());
    };
    let set = socket.set_tcp_congestion(algorithm.as_bytes());
    set.map_err(|error| {
        let told = format!("congestion control {algorithm}: {error}");
        io::Error::new(error.kind(), told)
    })
}

/// What the kernel granted to a connection, and the device it leaves by.
#[derive(Debug, Clone, Default)]
pub struct Granted {
    send_buffer_bytes: Option<u64>,
    receive_buffer_bytes: Option<u64>,
    congestion_control: Option<String>,
    segment_bytes: Option<u32>,
    device: Option<netlink::Device>,
}

impl Granted {
    /// To a connection that is open: of one that was shut down the kernel no longer knows the peer.
    pub fn to(stream: &TcpStream) -> Self {
        let socket = SockRef::from(stream);
        let peer = stream.peer_addr().ok();
        Self {
            send_buffer_bytes: socket.send_buffer_size().ok().map(|bytes| bytes as u64),
            receive_buffer_bytes: socket.recv_buffer_size().ok().map(|bytes| bytes as u64),
            congestion_control: congestion_control(stream),
            segment_bytes: facts(stream).map(|facts| facts.segment_bytes),
            device: peer.and_then(|peer| netlink::device_towards(peer.ip())),
        }
    }

    /// Writes it down in place of what is usual on this machine.
    pub fn write(self, environment: &mut Environment) {
        environment.send_buffer_bytes = self.send_buffer_bytes;
        environment.receive_buffer_bytes = self.receive_buffer_bytes;
        if self.congestion_control.is_some() {
            environment.congestion_control = self.congestion_control;
        }
        environment.segment_bytes = self.segment_bytes;
        if let Some(device) = self.device {
            environment.device = device.name;
            environment.mtu = device.mtu;
            environment.qdisc = device.qdisc;
            environment.offloads = device.offloads;
        }
    }
}

/// What was granted to the first of many brief connections that asks to be looked at.
#[derive(Debug, Clone, Default)]
pub struct FirstGranted(Arc<OnceLock<Granted>>);

impl FirstGranted {
    /// Looks at a connection, unless it was done with another one.
    pub fn look_at(&self, stream: &TcpStream) {
        if self.0.get().is_none() {
            // Another one may have been quicker.
            let _ = self.0.set(Granted::to(stream));
        }
    }

    /// What was seen, if anything.
    pub fn seen(&self) -> Option<Granted> {
        self.0.get().cloned()
    }
}

/// The congestion control of a connection.
pub fn congestion_control(stream: &TcpStream) -> Option<String> {
    let name = SockRef::from(stream).tcp_congestion().ok()?;
    let name: Vec<u8> = name.into_iter().take_while(|byte| *byte != 0).collect();
    String::from_utf8(name).ok()
}

/// What the kernel says about a connection now.
pub fn facts(stream: &TcpStream) -> Option<TcpFacts> {
    netlink::tcp_facts(stream.local_addr().ok()?, stream.peer_addr().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_one_writes_them() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:9"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("::1", "[::1]:9"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(
                resolve(text, 9).unwrap(),
                [expected.parse().unwrap()],
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_target_is_a_usage_error() {
        let error = resolve("no such host here", 9).unwrap_err();
        assert!(error.is_usage(), "{error}");
    }
}
