//! All clusters of the demo, and the ways into them.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use corinth_gateway::{Door, StartError};
use tokio::time::sleep;

use super::{
    client::{self, Client},
    cluster::{Cluster, ClusterError},
    place::Place,
    yaml,
};

/// How long a link may take to come up, or to be seen as down.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(2);
/// A port that was free may be taken by somebody else before it is used.
const BUILD_TRIES: u32 = 5;

/// All clusters, and what they need of this machine.
pub(super) struct World {
    pub(super) east: Cluster,
    pub(super) west: Cluster,
    pub(super) north: Option<Cluster>,
    pub(super) ports: Ports,
    pub(super) place: Place,
}

/// The import ports of east.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) payments: SocketAddr,
    pub(super) web: SocketAddr,
    pub(super) ledger: SocketAddr,
}

/// A link that is up, as east sees it.
pub(super) struct Linked {
    pub(super) gateway: String,
    pub(super) rtt: Duration,
}

impl World {
    /// Starts everything and links it, as operators would: each gateway alone at first, then each with the roots of
    /// the others.
    pub(super) async fn build(clusters: u8) -> Result<Self, ClusterError> {
        let mut tries = 1;
        loop {
            let mut world = Self::plan(clusters)?;
            match world.start().await {
                Err(error) if is_taken(&error) && tries < BUILD_TRIES => tries += 1,
                Err(error) => return Err(error),
                Ok(()) => return Ok(world),
            }
        }
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
            ports: Ports {
                payments: place.address()?,
                web: place.address()?,
                ledger: place.address()?,
            },
            place,
        })
    }

    async fn start(&mut self) -> Result<(), ClusterError> {
        for cluster in self.clusters_mut() {
            cluster.start(&yaml::alone(cluster)).await?;
            cluster.hand_out_bundle()?;
        }
        // Who is dialled is ready before who dials.
        for other in self.others() {
            other.apply(&yaml::other(other))?;
        }
        self.east
            .apply(&yaml::east(&self.east, &self.others(), &self.ports))
    }

    /// West as it was, after [`Cluster::kill`].
    pub(super) async fn restart_west(&mut self) -> Result<(), ClusterError> {
        let yaml = yaml::other(&self.west);
        self.west.start(&yaml).await
    }

    /// Every cluster but east.
    pub(super) fn others(&self) -> Vec<&Cluster> {
        std::iter::once(&self.west).chain(&self.north).collect()
    }

    fn clusters_mut(&mut self) -> impl Iterator<Item = &mut Cluster> {
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
                rtt: Duration::from_secs_f64(link.rtt_seconds.unwrap_or_default()),
            })
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
pub(super) fn client(door: client::Door, service: &str) -> Client {
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
        | ClusterError::Mistakes(_)
        | ClusterError::Admin(_)
        | ClusterError::Metrics(_) => return false,
    };
    kind == io::ErrorKind::AddrInUse
}
