//! The TLS transport under test, over real sockets on the loopback addresses.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use corinth_identity::{Authority, BundleSet, Denials, LEAF_LIFETIME, OwnIdentity, SharedBundles};
use corinth_transport::{
    DialTarget, Transport,
    tls::{Timeouts, TlsSettings, TlsTransport},
};
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use tokio::net::TcpListener;

use crate::{
    pair::{A, B, Between, Carrier, Gateway, Pair, Sink, gateway, trust_domain},
    proxy::Proxy,
};

/// The time at which tests begin, in Unix seconds.
pub(crate) const NOW: u64 = 1_900_000_000;

/// A clock that stands still until it is set.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(NOW)))
    }

    pub(crate) fn set(&self, unix_seconds: u64) {
        self.0.store(unix_seconds, Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(at(self.0.load(Relaxed)))
    }
}

pub(crate) fn at(unix_seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds))
}

/// What makes a gateway who it is.
pub(crate) struct Cluster {
    pub(crate) own: Arc<OwnIdentity>,
    authority: Arc<Authority>,
    domain: &'static str,
}

impl Cluster {
    pub(crate) fn new(domain: &'static str) -> Self {
        let authority = Authority::create(trust_domain(domain), at(NOW)).expect("a new authority");
        let authority = Arc::new(authority);
        let id = gateway(domain).spiffe_id();
        let own = OwnIdentity::issued_by(
            Arc::clone(&authority),
            &id,
            Vec::new(),
            LEAF_LIFETIME,
            at(NOW),
        );
        Self {
            own: Arc::new(own.expect("a leaf")),
            authority,
            domain,
        }
    }

    /// The transport of this cluster's gateway, which knows the bundles of `linked`.
    pub(crate) fn transport(
        &self,
        linked: &[&Self],
        clock: &Arc<Clock>,
        timeouts: Timeouts,
        sink: Arc<Sink>,
    ) -> Arc<TlsTransport> {
        let settings = TlsSettings {
            own: Arc::clone(&self.own),
            bundles: bundles(linked),
            denials: Denials::default(),
            clock: Arc::clone(clock) as Arc<dyn TimeProvider>,
            timeouts,
            slots: 1,
            congestions: Default::default(),
            connections_per_peer: 4_096,
        };
        Arc::new(TlsTransport::new(settings, sink))
    }

    pub(crate) fn target(&self, address: SocketAddr) -> DialTarget {
        DialTarget {
            address,
            trust_domain: trust_domain(self.domain),
        }
    }
}

/// The roots of these clusters.
pub(crate) fn bundles(linked: &[&Cluster]) -> SharedBundles {
    let mut bundles = BundleSet::new();
    for peer in linked {
        bundles
            .insert(peer.authority.bundle(1))
            .expect("each trust domain once");
    }
    SharedBundles::new(bundles)
}

/// Two gateways joined by TLS over IPv4 or IPv6.
pub(crate) struct Tls<const IPV6: bool> {
    pub(crate) clock: Arc<Clock>,
    pub(crate) a: Cluster,
    pub(crate) b: Cluster,
    address: SocketAddr,
    proxy: Option<Proxy>,
}

impl<const IPV6: bool> Tls<IPV6> {
    fn proxy(&self) -> &Proxy {
        self.proxy
            .as_ref()
            .expect("a pair that faults were asked for")
    }
}

impl<const IPV6: bool> Carrier for Tls<IPV6> {
    /// What two kernels and a proxy hold, generously.
    const BUFFERED_MAX_BYTES: usize = 64 << 20;

    async fn pair(between: Between) -> Pair<Self> {
        let ip = if IPV6 {
            Ipv6Addr::LOCALHOST.into()
        } else {
            Ipv4Addr::LOCALHOST.into()
        };
        let mut timeouts = Timeouts::default();
        if between == Between::Faults {
            timeouts.probe_interval = Duration::from_millis(50);
        }
        let clock = Clock::new();
        let (a, b) = (Cluster::new(A), Cluster::new(B));
        let ((a_sink, a_incoming), (b_sink, b_incoming)) = (Sink::new(), Sink::new());
        let a_transport = a.transport(&[&b], &clock, timeouts, a_sink);
        let b_transport = b.transport(&[&a], &clock, timeouts, b_sink);
        let listening = listen(&b_transport, ip).await;
        let proxy = match between {
            Between::Nothing => None,
            Between::Faults => Some(Proxy::to(listening, None).await.expect("a free port")),
            Between::Pieces(seed) => {
                Some(Proxy::to(listening, Some(seed)).await.expect("a free port"))
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

/// Serves what comes to a fresh port, as a gateway does.
pub(crate) async fn listen(transport: &Arc<TlsTransport>, ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::new(ip, 0))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let transport = Arc::clone(transport);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let transport = Arc::clone(&transport);
            tokio::spawn(async move {
                if let Ok(accepted) = transport.accept(socket, Vec::new()).await {
                    // Why a connection ended is seen by its streams.
                    let _ = transport.serve(accepted).await;
                }
            });
        }
    });
    address
}

fn as_gateway(
    transport: &Arc<TlsTransport>,
    incoming: tokio::sync::mpsc::UnboundedReceiver<crate::pair::Incoming>,
) -> Gateway {
    let (for_links, for_drain) = (Arc::clone(transport), Arc::clone(transport));
    Gateway {
        transport: Arc::clone(transport) as Arc<dyn Transport>,
        links: Box::new(move || for_links.links()),
        drain: Box::new(move || for_drain.drain()),
        incoming,
    }
}
