//! Makes the four namespaces, joins them, and takes them away again.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Family, GatewayConfig, Ground, Host, Net, Pki, Site, Transport,
    guard::{self, PREFIX, Place, Watchdog},
    host::{feed_ip, ip},
};

/// Numbers of a host's addresses: gateways of east.
const EAST: u8 = 1;
/// Gateways of west.
const WEST: u8 = 11;
/// Gateways of south, which run on the host of west.
const SOUTH: u8 = 21;
/// Client and server; further addresses of the server follow.
const OUTER: u8 = 100;
/// Addresses each of them has.
const SPARES: u8 = 4;

/// Four hosts in a row.
pub struct Lab {
    /// Where clients are.
    pub client: Host,
    /// Where the gateways of the near cluster run.
    pub east: Host,
    /// Where the gateways of the far cluster run, and those of `south`.
    pub west: Host,
    /// Where servers are.
    pub server: Host,
    /// Who certifies whom.
    pub pki: Pki,
    /// What this laboratory speaks.
    pub family: Family,
    /// What carries streams between its gateways.
    pub transport: Transport,
    sites: Vec<Site>,
    // The order of the rest is the order of going.
    _watchdog: Watchdog,
    folder: TempDir,
    _place: Place,
}

/// A laboratory that is being planned.
#[must_use]
pub struct LabBuilder {
    name: String,
    ground: Ground,
    slots: Vec<(&'static str, u8)>,
    alone: bool,
    deadline: Duration,
}

impl Lab {
    /// Plans a laboratory for the test that this thread runs.
    pub fn on(ground: impl Into<Ground>) -> LabBuilder {
        LabBuilder {
            name: std::thread::current().name().unwrap_or("a test").to_owned(),
            ground: ground.into(),
            slots: Vec::new(),
            alone: false,
            deadline: Duration::from_secs(90),
        }
    }

    /// The configuration of slot 0 of a cluster: linked with nobody yet.
    pub fn gateway(&self, cluster: &str) -> GatewayConfig<'_> {
        self.slot(cluster, 0)
    }

    /// The configuration of one slot of a cluster.
    ///
    /// # Panics
    /// When there is no such cluster.
    pub fn slot(&self, cluster: &str, slot: u8) -> GatewayConfig<'_> {
        let folder = self.folder();
        GatewayConfig::new(
            self.site(cluster),
            &self.sites,
            &self.pki,
            Ground {
                family: self.family,
                transport: self.transport,
            },
            slot,
            folder,
        )
    }

    /// A cluster.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn site(&self, cluster: &str) -> &Site {
        let found = self.sites.iter().find(|site| site.cluster == cluster);
        found.unwrap_or_else(|| panic!("there is no cluster {cluster}"))
    }

    /// An address of the server: it has several.
    pub fn server_at(&self, number: u8, port: u16) -> std::net::SocketAddr {
        self.family.socket(Net::Far, OUTER + number, port)
    }

    /// An address on the host of east that belongs to nobody west is linked with.
    pub fn stranger(&self) -> std::net::IpAddr {
        self.family.address(Net::Elsewhere, OUTER)
    }

    /// Where files of this laboratory are; they go with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn hosts(&self) -> [&Host; 4] {
        [&self.client, &self.east, &self.west, &self.server]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in self.hosts() {
            guard::remove(&host.namespace);
        }
    }
}

impl LabBuilder {
    /// A cluster has so many gateways; one if not said otherwise.
    pub fn slots(mut self, cluster: &'static str, slots: u8) -> Self {
        self.slots.push((cluster, slots));
        self
    }

    /// No other laboratory stands at the same time: this one measures.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// How long the test may take.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Makes it; `None` where that is not possible, which has been told then.
    ///
    /// # Panics
    /// When it is not possible although it should be.
    pub fn build(self) -> Option<Lab> {
        if let Some(why) = guard::obstacle() {
            guard::skip(&self.name, why);
            return None;
        }
        let place = Place::take(self.alone);
        let [client, east, west, server] = namespaces();
        let names = [&client, &east, &west, &server].map(|host| host.namespace.clone());
        let watchdog = Watchdog::start(&self.name, names.to_vec(), self.deadline);
        let folder = guard::folder();
        let site = |cluster, host: &Host, first, own_net| Site {
            cluster,
            host: host.clone(),
            first,
            slots: self
                .slots
                .iter()
                .find(|(name, _)| *name == cluster)
                .map_or(1, |(_, slots)| *slots),
            own_net,
        };
        let lab = Lab {
            sites: vec![
                site("east", &east, EAST, Net::Near),
                site("west", &west, WEST, Net::Far),
                site("south", &west, SOUTH, Net::Far),
            ],
            pki: Pki::new(folder.path()),
            family: self.ground.family,
            transport: self.ground.transport,
            client,
            east,
            west,
            server,
            _watchdog: watchdog,
            folder,
            _place: place,
        };
        lab.join();
        Some(lab)
    }
}

impl Lab {
    /// Cables, addresses, filters.
    fn join(&self) {
        let mut cables = String::new();
        for (net, [left, right]) in Net::CABLES.iter().zip(self.hosts().array_windows()) {
            cables += &format!(
                "link add name r{0} netns {1} type veth peer name l{0} netns {2}\n",
                net.number(),
                left.namespace,
                right.namespace
            );
        }
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]);
        feed_ip(command, &cables);

        let gateways: Vec<u8> = (WEST..WEST + SPARES).chain(SOUTH..SOUTH + SPARES).collect();
        let east: Vec<u8> = (EAST..EAST + SPARES).collect();
        let outer: Vec<u8> = (OUTER..OUTER + SPARES).collect();
        equip(&self.client, &[("r1", Net::Near, &outer)]);
        equip(
            &self.east,
            &[
                ("l1", Net::Near, &east),
                ("r2", Net::Between, &east),
                ("r2", Net::Elsewhere, &outer),
            ],
        );
        equip(
            &self.west,
            &[("l2", Net::Between, &gateways), ("r3", Net::Far, &gateways)],
        );
        equip(&self.server, &[("l3", Net::Far, &outer)]);
        let by_default: String = [Family::V4, Family::V6]
            .iter()
            .map(|family| {
                format!(
                    "route add default via {}\n",
                    family.address(Net::Near, EAST)
                )
            })
            .collect();
        self.client.ip_batch(&by_default);
        self.west
            .ip_batch("route add 10.66.0.0/24 dev l2\nroute add fd00:66::/64 dev l2\n");
        // Which of several addresses a connection comes from is not left to the kernel.
        speak_as(&self.client, "r1", Net::Near, OUTER);
        speak_as(&self.east, "r2", Net::Between, EAST);
        speak_as(&self.west, "l2", Net::Between, WEST);
        speak_as(&self.west, "r3", Net::Far, WEST);
        for host in self.hosts() {
            host.firewall().prepare();
        }
    }
}

/// Brings interfaces up and gives them addresses of both families.
fn equip(host: &Host, interfaces: &[(&str, Net, &[u8])]) {
    let mut batch = String::from("link set lo up\n");
    for (interface, net, numbers) in interfaces {
        batch += &format!("link set {interface} up\n");
        for number in *numbers {
            let (v4, v6) = (
                Family::V4.address(*net, *number),
                Family::V6.address(*net, *number),
            );
            batch += &format!("addr add {v4}/24 dev {interface}\n");
            // Nobody else is there who could have the same address.
            batch += &format!("addr add {v6}/64 dev {interface} nodad\n");
        }
    }
    host.ip_batch(&batch);
}

/// Connections into `net` come from the address `number`.
fn speak_as(host: &Host, interface: &str, net: Net, number: u8) {
    let (v4, v6) = (
        Family::V4.address(net, number),
        Family::V6.address(net, number),
    );
    let (v4_net, v6_net) = (Family::V4.address(net, 0), Family::V6.address(net, 0));
    host.ip_batch(&format!(
        "route replace {v4_net}/24 dev {interface} src {v4}\n\
         route add {v6_net}/64 dev {interface} src {v6} metric 1\n"
    ));
}

/// Four new namespaces with names of our own.
fn namespaces() -> [Host; 4] {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Relaxed);
    ["client", "east", "west", "server"].map(|part| {
        let namespace = format!("{PREFIX}{}-{number}-{part}", std::process::id());
        let made = ip(&["netns", "add", &namespace]);
        assert!(made.status.success(), "{made:#?}");
        Host { namespace }
    })
}
