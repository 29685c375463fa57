//! Four network namespaces in a row, client – gateway A – gateway B – server.
//!
//! Whatever is started in them is ended here at the latest, by its own number. A namespace carries the number of the
//! process that made it, so that what a killed run left behind can be told from what another run is using.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsFd,
    panic::resume_unwind,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::Duration,
};

use rustix::{
    process::{Signal, geteuid},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{
    Fault, Interrupt,
    process::{self, Finished, Process},
};

/// What the names of namespaces and folders begin with; the process id follows.
pub(crate) const PREFIX: &str = "corinth-perf-";
/// Hung on every route: where it is not what the host allows everyone, a namespace may not make it its default.
pub(crate) const CONGESTION: &str = "cubic";

/// Where clients are.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 1);
/// Gateway A towards the client.
pub(crate) const A_NEAR: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 2);
/// Gateway A towards gateway B.
pub(crate) const A_FAR: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 1);
/// Gateway B towards gateway A.
pub(crate) const B_NEAR: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 2);
/// Gateway B towards the server.
pub(crate) const B_FAR: Ipv4Addr = Ipv4Addr::new(10, 71, 3, 1);
/// Where servers are.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 71, 3, 2);

static LABS: AtomicU32 = AtomicU32::new(0);

/// Set in every namespace. The listeners all lie below the ephemeral ports, and ports in TIME_WAIT are used again after
/// a second: otherwise a minute of short connections would measure the lack of ports.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/ip_local_port_range", "12000 65000"),
    ("net/ipv4/tcp_tw_reuse", "1"),
    ("net/core/somaxconn", "4096"),
    ("net/ipv4/tcp_max_syn_backlog", "8192"),
];

/// One of the four.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Where loads start.
    Client,
    /// The gateway near the client.
    A,
    /// The gateway near the server.
    B,
    /// Where loads end.
    Server,
}

impl Side {
    /// In the order of the path.
    pub const ALL: [Self; 4] = [Self::Client, Self::A, Self::B, Self::Server];

    /// For names of namespaces and devices.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::A => "a",
            Self::B => "b",
            Self::Server => "server",
        }
    }
}

/// What joins gateway A with gateway B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middle {
    /// A pair of virtual Ethernet devices, as between the others, all of which carry packets of that size.
    Wire(LinkMtu),
    /// Nothing; somebody else joins them.
    Open,
}

/// What a link carries, in bytes of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkMtu(pub u32);

impl LinkMtu {
    /// That of Ethernet.
    pub const ETHERNET: Self = Self(1_500);
}

/// The namespaces. They are removed when this is dropped.
#[derive(Debug)]
pub struct Lab {
    /// Of those this process has made.
    number: u32,
    interrupt: Interrupt,
}

impl Lab {
    /// Removes what killed runs left behind, and lays the path.
    ///
    /// # Errors
    /// When not root, or the kernel does not do as told.
    pub fn lay(middle: Middle, interrupt: &Interrupt) -> Result<Self, Fault> {
        if !geteuid().is_root() {
            return Err(Fault::NotRoot);
        }
        sweep();
        let lab = Self {
            number: LABS.fetch_add(1, Relaxed),
            interrupt: interrupt.clone(),
        };
        for side in Side::ALL {
            let name = lab.namespace(side);
            lab.ip(&["netns", "add", &name])?;
            lab.ip_in(side, "link set lo up")?;
            for (name, value) in SYSCTLS {
                lab.set_sysctl(side, name, value)?;
            }
        }
        let mtu = match middle {
            Middle::Wire(mtu) => mtu,
            Middle::Open => LinkMtu::ETHERNET,
        };
        lab.join((Side::Client, CLIENT), (Side::A, A_NEAR), mtu)?;
        if middle != Middle::Open {
            lab.join((Side::A, A_FAR), (Side::B, B_NEAR), mtu)?;
        }
        lab.join((Side::B, B_FAR), (Side::Server, SERVER), mtu)?;
        lab.route(Side::Client, "10.71.0.0/16", A_NEAR)?;
        lab.route(Side::Server, "10.71.0.0/16", B_FAR)?;
        if middle != Middle::Open {
            lab.route(Side::A, "10.71.3.0/24", B_NEAR)?;
            lab.route(Side::B, "10.71.1.0/24", A_FAR)?;
        }
        Ok(lab)
    }

    /// How long anything may take is up to whoever raises this.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The name of a namespace.
    pub fn namespace(&self, side: Side) -> String {
        format!(
            "{PREFIX}{}-{}-{}",
            std::process::id(),
            self.number,
            side.name()
        )
    }

    /// A command that runs there, and ends when this process ends, however that happens.
    pub fn command(&self, side: Side, argv: &[String]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "ip", "netns", "exec"])
            .arg(self.namespace(side))
            .args(argv);
        command
    }

    /// Starts a process that runs there until it is stopped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, side: Side, name: &str, argv: &[String]) -> Result<Process, Fault> {
        Process::start(name, self.command(side, argv))
    }

    /// Runs a command there to its end; `meanwhile` is called now and then.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub fn run(
        &self,
        side: Side,
        argv: &[String],
        limit: Duration,
        meanwhile: impl FnMut(),
    ) -> Result<Finished, Fault> {
        process::run(self.command(side, argv), limit, &self.interrupt, meanwhile)
    }

    /// Standard output of a short command there that must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn output(&self, side: Side, argv: &[String]) -> Result<String, Fault> {
        process::output(self.command(side, argv), &self.interrupt)
    }

    /// `ip` there, with the words of `arguments`.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn ip_in(&self, side: Side, arguments: &str) -> Result<String, Fault> {
        let namespace = self.namespace(side);
        let mut words = vec!["-n", &namespace];
        words.extend(arguments.split_whitespace());
        self.ip(&words)
    }

    fn ip(&self, arguments: &[&str]) -> Result<String, Fault> {
        let mut command = Command::new("ip");
        command.args(arguments);
        process::output(command, &self.interrupt)
    }

    fn join(
        &self,
        (left, left_address): (Side, Ipv4Addr),
        (right, right_address): (Side, Ipv4Addr),
        LinkMtu(bytes): LinkMtu,
    ) -> Result<(), Fault> {
        let (near, far) = (device_towards(right), device_towards(left));
        let words = format!(
            "link add {near} mtu {bytes} netns {} type veth peer name {far} mtu {bytes} netns {}",
            self.namespace(left),
            self.namespace(right)
        );
        self.ip(&words.split_whitespace().collect::<Vec<_>>())?;
        self.address(left, &near, left_address)?;
        self.address(right, &far, right_address)
    }

    fn address(&self, side: Side, device: &str, address: Ipv4Addr) -> Result<(), Fault> {
        let [a, b, c, _] = address.octets();
        self.ip_in(
            side,
            &format!("address add {address}/24 dev {device} noprefixroute"),
        )?;
        self.ip_in(side, &format!("link set {device} up"))?;
        self.ip_in(
            side,
            &format!("route add {a}.{b}.{c}.0/24 dev {device} src {address} congctl {CONGESTION}"),
        )
        .map(drop)
    }

    fn route(&self, side: Side, network: &str, hop: Ipv4Addr) -> Result<(), Fault> {
        self.ip_in(
            side,
            &format!("route add {network} via {hop} congctl {CONGESTION}"),
        )
        .map(drop)
    }

    /// Does something on a thread inside. Sockets made by it stay there.
    ///
    /// # Errors
    /// When the namespace is not there.
    pub fn within<T: Send>(&self, side: Side, act: impl FnOnce() -> T + Send) -> Result<T, Fault> {
        let path = Path::new("/run/netns").join(self.namespace(side));
        let namespace = fs::File::open(&path).map_err(Fault::file(&path))?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|error| {
                        Fault::Machine(format!("entering {}: {error}", path.display()))
                    })?;
                Ok(act())
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// A setting of the kernel there.
    ///
    /// # Errors
    /// When there is no such setting.
    pub fn sysctl(&self, side: Side, name: &str) -> Result<String, Fault> {
        let path = Path::new("/proc/sys").join(name);
        let read = self.within(side, || fs::read_to_string(&path))?;
        let text = read.map_err(Fault::file(&path))?;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn set_sysctl(&self, side: Side, name: &str, value: &str) -> Result<(), Fault> {
        let path = Path::new("/proc/sys").join(name);
        let written = self.within(side, || fs::write(&path, value))?;
        written.map_err(Fault::file(&path))?;
        let now = self.sysctl(side, name)?;
        if now == value {
            return Ok(());
        }
        Err(Fault::Machine(format!(
            "{name} is {now} in {}, not {value}",
            side.name()
        )))
    }

    /// Whether somebody listens on a TCP port there.
    pub fn is_listening(&self, side: Side, port: u16) -> bool {
        let read = |family: &str| {
            fs::read_to_string(format!("/proc/thread-self/net/{family}")).unwrap_or_default()
        };
        self.within(side, || ["tcp", "tcp6"].map(read))
            .is_ok_and(|tables| tables.iter().any(|table| lists_listener(table, port)))
    }

    /// The congestion control of the connections that are open there now.
    pub fn congestion_controls(&self, side: Side) -> Vec<String> {
        let argv = ["ss", "-tinH", "state", "established"].map(str::to_owned);
        let listed = self.output(side, &argv).unwrap_or_default();
        let known = self
            .sysctl(side, "net/ipv4/tcp_available_congestion_control")
            .unwrap_or_default();
        let uses = |name: &&str| {
            listed
                .lines()
                .any(|line| line.split_whitespace().next() == Some(name))
        };
        known.split(' ').filter(uses).map(str::to_owned).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for side in Side::ALL {
            remove_namespace(&self.namespace(side));
        }
    }
}

/// The device of a namespace that leads to a neighbour.
pub(crate) fn device_towards(side: Side) -> String {
    format!("to-{}", side.name())
}

/// An address of the path with a port.
pub(crate) const fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(address, port))
}

/// Whether a table as in `/proc/net/tcp` has a socket that listens on `port`.
fn lists_listener(table: &str, port: u16) -> bool {
    let ending = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().unwrap_or_default();
        let state = words.nth(1).unwrap_or_default();
        local.ends_with(&ending) && state == "0A"
    })
}

/// Removes the namespaces, folders and sockets of runs whose process is gone.
pub fn sweep() {
    for name in names_in("/run/netns") {
        if is_left_behind(&name, PREFIX) {
            remove_namespace(&name);
        }
    }
    for name in names_in(std::env::temp_dir()) {
        if is_left_behind(&name, PREFIX) {
            let _ = fs::remove_dir_all(std::env::temp_dir().join(name));
        }
    }
    crate::system::wireguard::sweep_sockets();
}

pub(crate) fn names_in(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Whether the process whose number follows the prefix has ended. One that nobody waited for has no command line left.
pub(crate) fn is_left_behind(name: &str, prefix: &str) -> bool {
    let owner = name.strip_prefix(prefix).and_then(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    });
    owner.is_some_and(|id| {
        fs::read(format!("/proc/{id}/cmdline")).map_or(true, |line| line.is_empty())
    })
}

/// Ends what still runs in a namespace of ours, and removes it.
fn remove_namespace(name: &str) {
    let listed = Command::new("ip").args(["netns", "pids", name]).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    for pid in text
        .unwrap_or_default()
        .lines()
        .filter_map(|pid| pid.parse().ok())
    {
        // A thread of this very process may be inside.
        if pid != std::process::id() {
            process::signal(pid, Signal::KILL);
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).output();
}

#[cfg(test)]
mod tests;
