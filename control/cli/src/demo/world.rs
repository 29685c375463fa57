//! All clusters of the demo, and the ways into them.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use corinth_gateway::{Door, Gateway, StartError};
use tokio::time::sleep;

use super::{
    client::{self, Client},
    cluster::{Cluster, ClusterError},
    place::Place,
};

/// How long a link may take to come up, or to be seen as down.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// How long another carrier may take: what was left has to be well for some seconds before it is used again.
const CARRIER_PATIENCE: Duration = Duration::from_secs(20);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(2);
/// A port that was free may be taken by somebody else before it is used.
const BUILD_TRIES: u32 = 5;

/// All clusters, and what they need of this machine.
pub(super) struct World {
    pub(super) east: Cluster,
    pub(super) west: Cluster,
    pub(super) north: Option<Cluster>,
    pub(super) place: Place,
}

/// A link that is up, as east sees it.
pub(super) struct Linked {
    pub(super) gateway: String,
    /// Not known until the first probe has come back.
    pub(super) rtt: Option<Duration>,
}

/// One of the ways in which east's gateway is linked with one of a peer.
pub(super) struct Way {
    /// What carries streams there.
    pub(super) transport: &'static str,
    /// Whether new ones go there.
    is_used: bool,
    /// Why, where that is left to the gateway.
    pub(super) cause: Option<&'static str>,
    pub(super) rtt: Option<Duration>,
    /// Streams that east has opened there.
    opened: u64,
}

/// Where a service leads in the tables that east's gateway uses.
struct Led {
    import_port: Option<u16>,
    /// Endpoints and clusters.
    targets: Vec<String>,
}

impl World {
    /// Starts everything. Nobody knows anybody yet.
    pub(super) async fn build(clusters: u8) -> Result<Self, ClusterError> {
        let mut tries = 1;
        loop {
            match Self::try_build(clusters).await {
                Err(error) if is_taken(&error) && tries < BUILD_TRIES => tries += 1,
                built => return built,
            }
        }
    }

    async fn try_build(clusters: u8) -> Result<Self, ClusterError> {
        let mut world = Self::plan(clusters)?;
        for cluster in world.clusters_mut() {
            cluster.start().await?;
        }
        Ok(world)
    }

    fn plan(clusters: u8) -> io::Result<Self> {
        let mut place = Place::make()?;
        let west = [
            ("payments.shop", "payments-1"),
            ("payments.shop", "payments-2"),
            ("web.shop", "web-west"),
            ("ledger.shop", "ledger-1"),
        ];
        Ok(Self {
            east: Cluster::new("east", &[("web.shop", "web-east")], &mut place)?,
            west: Cluster::new("west", &west, &mut place)?,
            north: (clusters > 2)
                .then(|| Cluster::new("north", &[("web.shop", "web-north")], &mut place))
                .transpose()?,
            place,
        })
    }

    /// Every cluster but east.
    pub(super) fn others(&self) -> Vec<&Cluster> {
        std::iter::once(&self.west).chain(&self.north).collect()
    }

    pub(super) fn clusters_mut(&mut self) -> impl Iterator<Item = &mut Cluster> {
        [&mut self.east, &mut self.west]
            .into_iter()
            .chain(&mut self.north)
    }

    /// Waits until east has a link to `cluster` that is up.
    pub(super) async fn linked(&self, cluster: &str) -> Result<Linked, String> {
        let deadline = Instant::now() + LINK_PATIENCE;
        loop {
            if let Some(linked) = self.link_to(cluster) {
                return Ok(linked);
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "east has no link to {cluster} after {LINK_PATIENCE:?}"
                ));
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until east has noticed that its link to `cluster` is gone.
    pub(super) async fn unlinked(&self, cluster: &str) -> Result<(), String> {
        let deadline = Instant::now() + LINK_PATIENCE;
        while self.link_to(cluster).is_some() {
            if Instant::now() >= deadline {
                return Err(format!(
                    "east still has a link to {cluster} after {LINK_PATIENCE:?}"
                ));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn link_to(&self, cluster: &str) -> Option<Linked> {
        let links = self.east.gateway()?.links().links;
        let is_up = |peer: Option<&str>, state: &str| peer == Some(cluster) && state == "up";
        links
            .into_iter()
            .find(|link| is_up(link.peer.as_ref().map(|peer| peer.as_str()), link.state))
            .map(|link| Linked {
                gateway: link.gateway,
                rtt: link.rtt_seconds.map(Duration::from_secs_f64),
            })
    }

    /// Waits until new streams from east to `cluster` go over `transport`.
    pub(super) async fn carried(&self, cluster: &str, transport: &str) -> Result<Way, String> {
        let deadline = Instant::now() + CARRIER_PATIENCE;
        loop {
            let mut ways = self.ways(cluster).into_iter();
            if let Some(way) = ways.find(|way| way.is_used && way.transport == transport) {
                return Ok(way);
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "calls to {cluster} do not go over {transport} after {CARRIER_PATIENCE:?}"
                ));
            }
            sleep(LOOK).await;
        }
    }

    /// Streams that east has opened to `cluster` over `transport`.
    pub(super) fn opened(&self, cluster: &str, transport: &str) -> u64 {
        let ways = self.ways(cluster).into_iter();
        ways.filter(|way| way.transport == transport)
            .map(|way| way.opened)
            .sum()
    }

    fn ways(&self, cluster: &str) -> Vec<Way> {
        let links = self.east.gateway().map(|gateway| gateway.links().links);
        let links = links.into_iter().flatten();
        links
            .filter(|link| {
                link.peer
                    .as_ref()
                    .is_some_and(|peer| peer.as_str() == cluster)
            })
            .map(|link| Way {
                transport: link.transport,
                is_used: link.is_used,
                cause: link.cause,
                rtt: link.rtt_seconds.map(Duration::from_secs_f64),
                opened: link.opened,
            })
            .collect()
    }

    /// From now on no network between the clusters lets UDP pass, or all do again.
    pub(super) fn block_udp(&self, is_blocked: bool) {
        for cluster in self.others().into_iter().chain([&self.east]) {
            cluster.relay.block_udp(is_blocked);
        }
    }

    /// Waits until `service` leads to all of `peers` in the tables that east's gateway uses.
    pub(super) async fn leads_to(&self, service: &str, peers: &[&str]) -> Result<(), String> {
        let deadline = Instant::now() + LINK_PATIENCE;
        let leads = |peer: &&str| {
            let route = self.route(service);
            route.is_some_and(|route| route.targets.iter().any(|target| target == peer))
        };
        while !peers.iter().all(leads) {
            if Instant::now() >= deadline {
                let peers = peers.join(" and ");
                return Err(format!(
                    "{service} does not lead to {peers} after {LINK_PATIENCE:?}"
                ));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// The port of east at which `service` is called, if there is one now.
    pub(super) fn import_port(&self, service: &str) -> Option<SocketAddr> {
        let port = self.route(service)?.import_port?;
        Some((Ipv4Addr::LOCALHOST, port).into())
    }

    fn route(&self, service: &str) -> Option<Led> {
        let name = format!("80.{service}.svc.clusterset.local");
        let mut rows = self.east.gateway().map(Gateway::routes)?.into_iter();
        let row = rows.find(|row| row.name == name)?;
        let targets = row.candidates.into_iter();
        Some(Led {
            import_port: row.import_port,
            targets: targets.map(|candidate| candidate.target).collect(),
        })
    }

    /// Calls `service` at its import port.
    pub(super) fn by_import(&self, service: &str) -> Result<Client, String> {
        let port = self.import_port(service);
        let port = port.ok_or_else(|| format!("east has no import port for {service}"))?;
        Ok(client(client::Door::Import(port), service))
    }

    /// Calls `service` through east's SOCKS5.
    pub(super) fn by_socks(&self, service: &str) -> Result<Client, String> {
        Ok(client(
            client::Door::Socks(self.intake(Door::Socks)?),
            service,
        ))
    }

    /// Calls `service` through east's HTTP CONNECT.
    pub(super) fn by_connect(&self, service: &str) -> Result<Client, String> {
        Ok(client(
            client::Door::Connect(self.intake(Door::Connect)?),
            service,
        ))
    }

    fn intake(&self, door: Door) -> Result<SocketAddr, String> {
        let address = self.east.address_of(door);
        address.ok_or_else(|| format!("east does not listen: {door:?}"))
    }
}

/// Calls `service` through `door`.
fn client(door: client::Door, service: &str) -> Client {
    Client {
        door,
        host: format!("{service}.svc.clusterset.local"),
    }
}

fn is_taken(error: &ClusterError) -> bool {
    let kind = match error {
        ClusterError::Io(error) => error.kind(),
        ClusterError::Start(StartError::Listen(error)) => error.source.kind(),
        ClusterError::Start(_)
        | ClusterError::Control(_)
        | ClusterError::Mistakes(_)
        | ClusterError::Admin(_)
        | ClusterError::Metrics(_) => return false,
    };
    kind == io::ErrorKind::AddrInUse
}
