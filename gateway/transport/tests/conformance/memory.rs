//! The memory transport under test.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use corinth_model::GatewayId;
use corinth_transport::{
    DialTarget, Transport,
    memory::{MemoryNetwork, MemoryTimeouts, MemoryTransport},
};

use crate::pair::{A, B, Between, Carrier, Gateway, Pair, Sink, gateway};

pub(crate) struct Memory {
    network: MemoryNetwork,
    a: GatewayId,
    b: GatewayId,
}

const A_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const B_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2);

impl Carrier for Memory {
    /// What both halves and the wire between them hold.
    const BUFFERED_MAX_BYTES: usize = 3 * (64 << 10);

    async fn pair(between: Between) -> Pair<Self> {
        let mut timeouts = MemoryTimeouts::default();
        if between == Between::Faults {
            timeouts.probe_interval = Duration::from_millis(50);
        }
        let network = MemoryNetwork::new(timeouts);
        let (a, b) = (gateway(A), gateway(B));
        Pair {
            a: join(&network, &a, A_ADDRESS),
            b: join(&network, &b, B_ADDRESS),
            carrier: Self { network, a, b },
        }
    }

    fn target(&self) -> DialTarget {
        DialTarget {
            address: B_ADDRESS,
            trust_domain: self.b.trust_domain.clone(),
        }
    }

    fn cut(&self) {
        self.network.cut(&self.a, &self.b);
    }

    fn heal(&self) {
        self.network.heal(&self.a, &self.b);
    }

    fn sever(&self) {
        self.network.sever(&self.a, &self.b);
    }
}

fn join(network: &MemoryNetwork, id: &GatewayId, address: SocketAddr) -> Gateway {
    let (sink, incoming) = Sink::new();
    let transport: Arc<MemoryTransport> = Arc::new(network.join(id.clone(), address, sink));
    let (for_links, for_drain) = (Arc::clone(&transport), Arc::clone(&transport));
    Gateway {
        transport: transport as Arc<dyn Transport>,
        links: Box::new(move || for_links.links()),
        drain: Box::new(move || for_drain.drain()),
        incoming,
    }
}
