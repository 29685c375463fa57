//! What is compared: how each system is configured, started, made ready and reached.
//!
//! A [`Recipe`] is a value: it can be shown without running anything. [`crate::running`] carries it out.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{Side, lab};

pub mod corinth;
pub mod envoy;
pub mod haproxy;
pub mod nginx;
pub mod stunnel;
pub mod wireguard;

/// Where the load's server listens in the last namespace.
pub const SERVER_PORT: u16 = 5301;
/// Connections any system may have to hold at once, with room above.
pub(crate) const CONNECTIONS_MAX: u32 = 9_500;
/// Connections that may wait to be accepted; the kernel's limit in the namespaces is the same.
pub(crate) const BACKLOG: u32 = 4_096;
/// The name in the certificate of gateway B.
pub(crate) const FAR_NAME: &str = "b.perf.internal";

/// One of the things compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemKey {
    /// The kernels of both gateways forward; nobody encrypts.
    Direct,
    /// Ours, over TLS.
    Corinth,
    /// Ours, over QUIC.
    CorinthQuic,
    /// Ours, which chooses between the two.
    CorinthAuto,
    /// HAProxy twice, nobody encrypts.
    Haproxy,
    /// HAProxy twice, mutual TLS between.
    HaproxyMtls,
    /// nginx with the stream module twice, mutual TLS between.
    NginxMtls,
    /// stunnel twice.
    Stunnel,
    /// Envoy twice, a TLS connection for each connection.
    EnvoyMtls,
    /// Envoy twice, streams of HTTP/2 CONNECT in a TLS connection.
    EnvoyHttp2,
    /// WireGuard in user space, in Go.
    WireguardGo,
    /// WireGuard in user space, in Rust.
    Boringtun,
}

impl SystemKey {
    /// All, in the order of tables.
    pub const ALL: [Self; 12] = [
        Self::Direct,
        Self::Corinth,
        Self::CorinthQuic,
        Self::CorinthAuto,
        Self::Haproxy,
        Self::HaproxyMtls,
        Self::NginxMtls,
        Self::Stunnel,
        Self::EnvoyMtls,
        Self::EnvoyHttp2,
        Self::WireguardGo,
        Self::Boringtun,
    ];

    /// On the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Corinth => "corinth",
            Self::CorinthQuic => "corinth-quic",
            Self::CorinthAuto => "corinth-auto",
            Self::Haproxy => "haproxy",
            Self::HaproxyMtls => "haproxy-mtls",
            Self::NginxMtls => "nginx-mtls",
            Self::Stunnel => "stunnel",
            Self::EnvoyMtls => "envoy-mtls",
            Self::EnvoyHttp2 => "envoy-http2",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
        }
    }

    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Corinth => "Corinth",
            Self::CorinthQuic => "Corinth, QUIC",
            Self::CorinthAuto => "Corinth, auto",
            Self::Haproxy => "HAProxy, plain",
            Self::HaproxyMtls => "HAProxy mTLS",
            Self::NginxMtls => "nginx stream mTLS",
            Self::Stunnel => "stunnel",
            Self::EnvoyMtls => "Envoy mTLS",
            Self::EnvoyHttp2 => "Envoy HTTP/2 CONNECT",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
        }
    }

    /// What one must know of it to read its figures.
    pub const fn note(self) -> &'static str {
        match self {
            Self::Direct => {
                "The kernels of A and B forward, nobody encrypts: the limit of the path."
            }
            Self::Corinth => {
                "Kept TLS 1.3 connections between the gateways (X25519MLKEM768, AES-128-GCM, P-256 leaves, both sides \
                 verified); a connection of a client takes a free one. Changed beside addresses: no access log."
            }
            Self::CorinthQuic => {
                "The same gateways with `transport: quic`: a stream of one QUIC connection for each connection of a client."
            }
            Self::CorinthAuto => {
                "The same gateways with `transport: auto`: both are linked, and streams go where they are expected to do best."
            }
            Self::Haproxy => {
                "Plain TCP all the way: three TCP connections for each connection, nobody encrypts."
            }
            Self::HaproxyMtls => {
                "A TLS 1.3 connection for each connection (AES-128-GCM, P-256 leaves, both sides verified, sessions \
                 resumed). Changed: backlog, connection limit, long timeouts."
            }
            Self::NginxMtls => {
                "A TLS 1.3 connection for each connection (AES-128-GCM, P-256 leaves, both sides verified, sessions \
                 resumed), a worker for each core. Changed: backlog, connection limit, long timeouts, reuseport."
            }
            Self::Stunnel => {
                "A TLS 1.3 connection and a thread for each connection (AES-128-GCM, P-256 leaves, both sides verified)."
            }
            Self::EnvoyMtls => {
                "tcp_proxy at both ends; a TLS 1.3 connection for each connection (P-256 leaves, both sides verified, \
                 BoringSSL picks AES-128-GCM). A worker for each core. Changed: backlog, circuit breakers, long timeouts."
            }
            Self::EnvoyHttp2 => {
                "tcp_proxy into HTTP/2 CONNECT streams over one TLS 1.3 connection for each worker (both sides verified), \
                 ended at the far Envoy. Changed: backlog, circuit breakers, stream limits and windows, long timeouts."
            }
            Self::WireguardGo => {
                "A tunnel of packets (ChaCha20-Poly1305); the connections of clients end at the server, as on the direct \
                 path. MTU 1420."
            }
            Self::Boringtun => {
                "A tunnel of packets (ChaCha20-Poly1305); the connections of clients end at the server, as on the direct \
                 path. MTU 1420, a thread for each core."
            }
        }
    }
}

impl fmt::Display for SystemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SystemKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|key| key.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("no such system; there are {names}")
        })
    }
}

/// A file that is written before a system starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Below the folder of the system.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// How one notices that a process can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// It says a line with this in it.
    Line(&'static str),
    /// Somebody listens on this TCP port in its namespace.
    Port(u16),
    /// This file is there.
    File(PathBuf),
}

/// A process of a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The gateway it is.
    pub side: Side,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// When it can be used.
    pub ready: Ready,
}

/// A short command inside a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub side: Side,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// All it takes to bring a system up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Which one.
    pub key: SystemKey,
    /// Where a client connects to.
    pub target: SocketAddr,
    /// Where its files are.
    pub folder: PathBuf,
    /// What is in them, certificates and keys left out.
    pub files: Vec<ConfigFile>,
    /// Processes that have to run once, until they are ready, before the gateways can be started for the first time.
    pub first: Vec<Launch>,
    /// The gateways, in the order in which they start.
    pub gateways: Vec<Launch>,
    /// What is done when they run.
    pub after: Vec<Step>,
    /// What is done when they have ended, and need not succeed.
    pub undo: Vec<Step>,
}

/// Where things are.
#[derive(Debug, Clone)]
pub struct Place {
    /// Of everything a campaign writes.
    pub folder: PathBuf,
    /// Where certificates are.
    pub certificates: PathBuf,
    /// CPUs of this machine.
    pub cpus: usize,
    /// File descriptors a process may have.
    pub descriptors: u64,
}

impl Place {
    fn folder_of(&self, key: SystemKey) -> PathBuf {
        self.folder.join(key.name())
    }

    fn certificate(&self, name: &str) -> String {
        path_text(&self.certificates.join(name))
    }
}

impl Recipe {
    fn empty(key: SystemKey, target: SocketAddr, place: &Place) -> Self {
        Self {
            key,
            target,
            folder: place.folder_of(key),
            files: Vec::new(),
            first: Vec::new(),
            gateways: Vec::new(),
            after: Vec::new(),
            undo: Vec::new(),
        }
    }

    fn file(&mut self, name: &str, text: String) {
        self.files.push(ConfigFile {
            name: name.to_owned(),
            text,
        });
    }

    fn path(&self, name: &str) -> String {
        path_text(&self.folder.join(name))
    }

    /// The commands that are run, in order, as text.
    pub fn commands(&self) -> Vec<String> {
        let launches = self.first.iter().chain(&self.gateways);
        let launches = launches.map(|launch| (launch.side, &launch.argv));
        let steps = self.after.iter().map(|step| (step.side, &step.argv));
        launches
            .chain(steps)
            .map(|(side, argv)| format!("{}: {}", side.name(), argv.join(" ")))
            .collect()
    }
}

/// The direct path.
pub fn direct(place: &Place) -> Recipe {
    Recipe::empty(SystemKey::Direct, lab::at(lab::SERVER, SERVER_PORT), place)
}

pub(crate) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn words(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|&part| part.to_owned()).collect()
}

#[cfg(test)]
mod tests;
