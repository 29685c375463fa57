//! Every knob of quinn, set by hand: what a stranger may hold before it has proved who it is, and how a path is used.
//!
//! What a peer may hold once it is known is set on its connection, see [`Tunnel`](super::tunnel::Tunnel).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::hkdf;
use quinn::{
    IdleTimeout, MtuDiscoveryConfig, NoneTokenStore, ServerConfig, TransportConfig,
    ValidationTokenConfig, VarInt,
    congestion::{ControllerFactory, CubicConfig},
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};
use quinn_proto::TimeSource;
use rustix::net::sockopt;
use rustls::time_provider::TimeProvider;
use socket2::SockRef;

use super::{QuicSettings, acks::Acknowledged, credit, rate::ByRateConfig};
use crate::Congestion;

/// Handshakes that wait to be begun.
pub(super) const INCOMING_MAX: usize = 2_048;
/// What one of them may have sent ahead: a ClientHello with its hybrid key takes two packets.
const INCOMING_BYTES: u64 = 32 << 10;
/// What all of them together may have sent ahead.
const INCOMING_TOTAL_BYTES: u64 = 8 << 20;
/// What somebody may send who has not proved who it is: nothing that is not in the handshake.
const STRANGER_WINDOW_BYTES: u32 = 64 << 10;
/// What we hold for such a one.
const STRANGER_SEND_BYTES: u64 = 256 << 10;
/// Messages of a handshake that arrived out of order.
const HANDSHAKE_BYTES: usize = 24 << 10;
/// Datagrams of one connection that came and wait to be sorted; beyond it the oldest are thrown away.
const DATAGRAMS_BYTES: usize = 1 << 20;
/// Datagrams that quinn has and has not sent: what is said about the connection waits behind those of users that are among
/// them. It is enough for a few batches; the others wait in [`Waiting`](super::datagram::Waiting).
const DATAGRAMS_TO_SEND_BYTES: usize = 64 << 10;
/// Silence that a middlebox takes for an end is shorter than this.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Before anything is measured; a quarter of a second is lost if the first packet is.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// What every path takes (RFC 9000 §14.1).
const MTU_MIN_BYTES: u16 = 1_200;
/// What is taken at most, whatever a link could carry: a jumbo frame of Ethernet less IPv4 and UDP. Packets are sealed one
/// by one, so that fewer and larger ones cost less.
pub(super) const PACKET_MAX_BYTES: u16 = 8_972;
/// Where the system does not say how large packets may be: Ethernet less IPv6 and UDP.
pub(super) const PACKET_USUAL_BYTES: u16 = 1_452;
/// Headers of UDP below IPv4 and IPv6 (RFC 768, RFC 791, RFC 8200).
const HEADERS_V4_BYTES: u32 = 28;
const HEADERS_V6_BYTES: u32 = 48;
/// A path that swallows large packets is tried with them again after this long.
const BLACK_HOLE_COOLDOWN: Duration = Duration::from_secs(60);
/// How long a Retry may be answered.
const RETRY_LIFETIME: Duration = Duration::from_secs(15);
/// What a socket should hold, in bytes and either direction, while its worker is busy: what the system is asked for.
pub const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// What a socket was granted, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketBuffers {
    /// For what has arrived and is not yet read.
    pub receive_bytes: usize,
    /// For what waits to leave.
    pub send_bytes: usize,
}

impl SocketBuffers {
    /// The smaller of each.
    pub(super) fn min(self, other: Self) -> Self {
        Self {
            receive_bytes: self.receive_bytes.min(other.receive_bytes),
            send_bytes: self.send_bytes.min(other.send_bytes),
        }
    }
}

/// Lets a socket hold so many bytes that are not yet read: beyond the limit of the system only with the right to it; without,
/// what the limit allows.
///
/// # Errors
/// When the system does not do as told.
pub fn hold_unread(socket: impl AsFd, bytes: usize) -> io::Result<()> {
    if sockopt::set_socket_recv_buffer_size_force(&socket, bytes).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    Ok(())
}

/// Asks for large buffers and says what was granted: the kernel cuts silently what is beyond its limit.
pub(super) fn widen(socket: &UdpSocket) -> io::Result<SocketBuffers> {
    let plain = SockRef::from(socket);
    hold_unread(socket, SOCKET_BUFFER_BYTES)?;
    if sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_BYTES).is_err() {
        plain.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    }
    Ok(SocketBuffers {
        receive_bytes: plain.recv_buffer_size()?,
        send_bytes: plain.send_buffer_size()?,
    })
}

/// How large a packet to `peer` may be for the link that leads there, in bytes of UDP payload. The path beyond is probed.
pub(super) fn packet_max_bytes(peer: SocketAddr) -> u16 {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let Ok(mtu_bytes) = link_mtu_bytes(peer) else {
        return PACKET_USUAL_BYTES;
    };
    let headers = match peer {
        SocketAddr::V4(_) => HEADERS_V4_BYTES,
        SocketAddr::V6(_) => HEADERS_V6_BYTES,
    };
    let fits = u16::try_from(mtu_bytes.saturating_sub(headers)).unwrap_or(u16::MAX);
    fits.clamp(MTU_MIN_BYTES, PACKET_MAX_BYTES)
}

/// A socket of a port that was not used before, of the family of `peer`.
pub(super) fn bind_towards(peer: SocketAddr) -> io::Result<UdpSocket> {
    let anywhere: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(anywhere)
}

/// What the route to `peer` takes, in bytes; nothing is sent.
fn link_mtu_bytes(peer: SocketAddr) -> io::Result<u32> {
    let socket = bind_towards(peer)?;
    socket.connect(peer)?;
    let mtu_bytes = match peer {
        SocketAddr::V4(_) => sockopt::ip_mtu(&socket)?,
        SocketAddr::V6(_) => sockopt::ipv6_mtu(&socket)?,
    };
    Ok(mtu_bytes)
}

/// Our clock, for quinn's tokens.
struct TimeOfDay(Arc<dyn TimeProvider>);

impl TimeSource for TimeOfDay {
    fn now(&self) -> SystemTime {
        let since_epoch = self.0.current_time().map_or(0, |now| now.as_secs());
        SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch)
    }
}

/// How connections are taken, with packets of up to `packet_max_bytes`. What is acknowledged on them is counted.
pub(super) fn server(
    settings: &QuicSettings,
    tls: rustls::ServerConfig,
    acknowledged: &Acknowledged,
    packet_max_bytes: u16,
) -> Result<ServerConfig, NoInitialCipherSuite> {
    let crypto = QuicServerConfig::try_from(Arc::new(tls))?;
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]);
    let token_key = salt.extract(&settings.keys.token);
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    // Whoever comes again proves its address again.
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    config.validation_token_config(tokens);
    config.retry_token_lifetime(RETRY_LIFETIME);
    config.time_source(Arc::new(TimeOfDay(Arc::clone(&settings.clock))));
    config.max_incoming(INCOMING_MAX);
    config.incoming_buffer_size(INCOMING_BYTES);
    config.incoming_buffer_size_total(INCOMING_TOTAL_BYTES);
    config.migration(true);
    config.transport_config(Arc::new(transport(
        settings,
        Congestion::OF_QUIC,
        acknowledged,
        packet_max_bytes,
    )));
    Ok(config)
}

/// How connections are dialled, with packets of up to `packet_max_bytes`. What is acknowledged on them is counted.
pub(super) fn client(
    settings: &QuicSettings,
    tls: rustls::ClientConfig,
    congestion: Congestion,
    acknowledged: &Acknowledged,
    packet_max_bytes: u16,
) -> Result<quinn::ClientConfig, NoInitialCipherSuite> {
    let crypto = QuicClientConfig::try_from(Arc::new(tls))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.token_store(Arc::new(NoneTokenStore));
    config.transport_config(Arc::new(transport(
        settings,
        congestion,
        acknowledged,
        packet_max_bytes,
    )));
    Ok(config)
}

fn transport(
    settings: &QuicSettings,
    congestion: Congestion,
    acknowledged: &Acknowledged,
    packet_max_bytes: u16,
) -> TransportConfig {
    let nobody = VarInt::from_u32(0);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(packet_max_bytes);
    mtu.black_hole_cooldown(BLACK_HOLE_COOLDOWN);
    let mut config = TransportConfig::default();
    config.max_concurrent_bidi_streams(nobody);
    config.max_concurrent_uni_streams(nobody);
    config.receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES));
    // Cannot be changed later, and is worth nothing beyond the window of the connection. Peers keep to less.
    config.stream_receive_window(varint(credit::MAX_BYTES));
    config.send_window(STRANGER_SEND_BYTES);
    config.send_fairness(true);
    // Nobody sends one before the handshake has proved who it is.
    config.datagram_receive_buffer_size(Some(DATAGRAMS_BYTES));
    config.datagram_send_buffer_size(DATAGRAMS_TO_SEND_BYTES);
    config.crypto_buffer_size(HANDSHAKE_BYTES);
    config.max_idle_timeout(IdleTimeout::try_from(settings.timeouts.idle).ok());
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config.initial_rtt(INITIAL_RTT);
    config.initial_mtu(MTU_MIN_BYTES);
    config.min_mtu(MTU_MIN_BYTES);
    config.mtu_discovery_config(Some(mtu));
    config.enable_segmentation_offload(true);
    config.allow_spin(false);
    let controllers: Arc<dyn ControllerFactory + Send + Sync> = match congestion {
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::Bbr => Arc::new(ByRateConfig),
    };
    config.congestion_controller_factory(acknowledged.counting(controllers));
    config
}

pub(super) fn varint(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).unwrap_or(VarInt::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_large_as_the_link_takes_and_no_larger_than_jumbo_frames() {
        // The loopback device takes 64 KiB.
        for peer in ["127.0.0.1:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(packet_max_bytes(peer.parse().unwrap()), PACKET_MAX_BYTES);
        }
    }

    #[test]
    fn where_no_route_leads_packets_have_the_usual_size() {
        // A socket cannot be connected to everybody.
        let nowhere = "255.255.255.255:1".parse().unwrap();
        assert_eq!(packet_max_bytes(nowhere), PACKET_USUAL_BYTES);
    }
}
