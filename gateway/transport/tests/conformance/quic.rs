//! The QUIC transport under test, over real sockets on the loopback addresses.

use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use corinth_api::StreamReply;
use corinth_identity::Denials;
use corinth_model::Failure;
use corinth_transport::{
    Congestions, DialTarget, Link, Stream, Transport,
    quic::{Doorkeeper, QuicKeys, QuicSettings, QuicTimeouts, QuicTransport},
};
use rustls::time_provider::TimeProvider;
use tokio::sync::mpsc;

use crate::{
    pair::{A, B, Between, Carrier, Gateway, Incoming, Pair, Sink, header},
    talk::Talk,
    tls::{Clock, Cluster, bundles},
    udp::{Resets, UdpProxy, dialling_key},
};

/// What the transport of a test is told.
pub(crate) fn settings(
    cluster: &Cluster,
    linked: &[&Cluster],
    clock: &Arc<Clock>,
    timeouts: QuicTimeouts,
) -> QuicSettings {
    QuicSettings {
        own: Arc::clone(&cluster.own),
        bundles: bundles(linked),
        denials: Denials::default(),
        clock: Arc::clone(clock) as Arc<dyn TimeProvider>,
        timeouts,
        slots: 1,
        streams_per_peer: 65_536,
        congestions: Congestions::default(),
        window_budget_bytes: 256 << 20,
        keys: QuicKeys {
            reset: secret(),
            token: secret(),
        },
    }
}

fn secret() -> [u8; 32] {
    std::array::from_fn(|_| fastrand::u8(..))
}

/// Two gateways joined by QUIC over IPv4 or IPv6.
pub(crate) struct Quic<const IPV6: bool> {
    pub(crate) clock: Arc<Clock>,
    pub(crate) a: Cluster,
    pub(crate) b: Cluster,
    address: SocketAddr,
    proxy: Option<UdpProxy>,
}

impl<const IPV6: bool> Quic<IPV6> {
    fn proxy(&self) -> &UdpProxy {
        self.proxy
            .as_ref()
            .expect("a pair that faults were asked for")
    }
}

impl<const IPV6: bool> Carrier for Quic<IPV6> {
    /// The first credit of one stream, and what two gateways and the path hold beyond.
    const BUFFERED_MAX_BYTES: usize = 2 << 20;

    async fn pair(between: Between) -> Pair<Self> {
        let ip = if IPV6 {
            Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        };
        let mut timeouts = QuicTimeouts::default();
        if between == Between::Faults {
            timeouts.probe_interval = Duration::from_millis(50);
        }
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let ((a_sink, a_incoming), (b_sink, b_incoming)) = (Sink::new(), Sink::new());
        let a_settings = settings(&a, &[&b], &clock, timeouts);
        let b_settings = settings(&b, &[&a], &clock, timeouts);
        let resets = Resets {
            client: dialling_key(&a_settings.keys.reset),
            server: b_settings.keys.reset,
        };
        let a_transport = Arc::new(QuicTransport::new(a_settings, a_sink));
        let b_transport = Arc::new(QuicTransport::new(b_settings, b_sink));
        let listening = listen(&b_transport, ip);
        let seed = match between {
            Between::Nothing | Between::Faults => None,
            Between::Pieces(seed) => Some(seed),
        };
        let proxy = match between {
            Between::Nothing => None,
            Between::Faults | Between::Pieces(_) => {
                let proxy = UdpProxy::to(listening, seed, resets).await;
                Some(proxy.expect("a free port"))
            }
        };
        let address = proxy.as_ref().map_or(listening, |proxy| proxy.address);
        Pair {
            a: as_gateway(&a_transport, a_incoming),
            b: as_gateway(&b_transport, b_incoming),
            carrier: Self {
                clock,
                a,
                b,
                address,
                proxy,
            },
        }
    }

    fn target(&self) -> DialTarget {
        self.b.target(self.address)
    }

    fn cut(&self) {
        self.proxy().cut();
    }

    fn heal(&self) {
        self.proxy().heal();
    }

    fn sever(&self) {
        self.proxy().sever();
    }
}

/// A gateway that dialled another one on IPv4, through something that can be made to fail.
pub(crate) struct Dialled {
    pub(crate) near: Arc<QuicTransport>,
    pub(crate) far: Arc<QuicTransport>,
    pub(crate) target: DialTarget,
    pub(crate) listening: SocketAddr,
    pub(crate) proxy: UdpProxy,
    pub(crate) link: Arc<dyn Link>,
    pub(crate) incoming: mpsc::UnboundedReceiver<Incoming>,
}

impl Dialled {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with other settings on both sides.
    pub(crate) async fn with(change: impl Fn(&mut QuicSettings)) -> Self {
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let ((a_sink, _), (b_sink, incoming)) = (Sink::new(), Sink::new());
        let transport = |own: &Cluster, peer: &Cluster, sink| {
            let mut settings = settings(own, &[peer], &clock, QuicTimeouts::default());
            change(&mut settings);
            Arc::new(QuicTransport::new(settings, sink))
        };
        let (near, far) = (transport(&a, &b, a_sink), transport(&b, &a, b_sink));
        let listening = listen(&far, Ipv4Addr::LOCALHOST.into());
        let no_keys = Resets {
            client: [1; 32],
            server: [2; 32],
        };
        let proxy = UdpProxy::to(listening, None, no_keys).await;
        let proxy = proxy.expect("a free port");
        let target = b.target(proxy.address);
        let link = near.dial(&target).await.expect("it answers");
        Self {
            near,
            far,
            target,
            listening,
            proxy,
            link,
            incoming,
        }
    }

    /// A stream that the dialler opened and the other side accepted.
    pub(crate) async fn stream(&mut self) -> (Stream, Incoming) {
        let mut near = self.link.open(&header()).await.expect("the link is up");
        near.flush().await.expect("the path is there");
        let mut far = self.incoming.recv().await.expect("its sink lives");
        let accepted = StreamReply::Accepted;
        far.answer(accepted).await.expect("it is open");
        assert_eq!(near.reply().await.expect("it was answered"), accepted);
        (near, far)
    }
}

/// Serves whoever dials a fresh port, as a gateway does.
pub(crate) fn listen(transport: &Arc<QuicTransport>, ip: IpAddr) -> SocketAddr {
    listen_behind(transport, ip, Arc::new(Open))
}

/// The same, with somebody at the door.
pub(crate) fn listen_behind(
    transport: &Arc<QuicTransport>,
    ip: IpAddr,
    keeper: Arc<dyn Doorkeeper>,
) -> SocketAddr {
    let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    serve(transport, socket, keeper);
    address
}

/// Serves this socket.
pub(crate) fn serve(
    transport: &Arc<QuicTransport>,
    socket: UdpSocket,
    keeper: Arc<dyn Doorkeeper>,
) {
    let transport = Arc::clone(transport);
    let forever = std::future::pending();
    tokio::spawn(async move {
        let served = transport.serve(socket, keeper, forever).await;
        served.expect("a socket");
    });
}

/// Has room for everybody.
pub(crate) struct Open;

impl Doorkeeper for Open {
    fn enter(&self, _: IpAddr) -> Option<Box<dyn Any + Send>> {
        Some(Box::new(()))
    }

    fn verified(&self, _: IpAddr) {}

    fn turned_away(&self, _: SocketAddr, _: Failure) {}
}

fn as_gateway(
    transport: &Arc<QuicTransport>,
    incoming: mpsc::UnboundedReceiver<Incoming>,
) -> Gateway {
    let (for_links, for_drain) = (Arc::clone(transport), Arc::clone(transport));
    Gateway {
        transport: Arc::clone(transport) as Arc<dyn Transport>,
        links: Box::new(move || for_links.links()),
        drain: Box::new(move || for_drain.drain()),
        incoming,
    }
}
