//! The seam to where a cluster's declarations are kept: a file here, Kubernetes later.
//!
//! A [`Cluster`] tells what is declared now and whenever that changes, and writes down what was decided at run time: a
//! link that was made by a token, an export that was asked for on the command line. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use corinth_model::{
    Accepted, Carriage, ClusterName, Denied, Direct, DnsName, Endpoint, PortNumber, Protocol,
    Replay, ServiceId, TrustDomain,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

pub mod file;

/// Everything that is declared for one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// Its services, whether exported or not.
    pub services: BTreeMap<ServiceId, DeclaredService>,
    /// What is exported.
    pub exports: BTreeMap<ServiceId, DeclaredExport>,
    /// The clusters it is linked with.
    pub links: BTreeMap<ClusterName, DeclaredLink>,
    /// How routes are used here, where that differs from what follows by itself.
    pub imports: BTreeMap<(ServiceId, PortNumber), DeclaredImport>,
    /// Who is no longer believed.
    pub denied: BTreeSet<Denied>,
}

/// A service as it runs here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclaredService {
    /// Its ports.
    pub ports: BTreeMap<(PortNumber, Protocol), DeclaredPort>,
}

/// One port of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclaredPort {
    /// Where it is delivered.
    pub endpoints: Vec<Endpoint>,
    /// The application speaks TLS.
    pub tls: bool,
    /// Whether bytes may be sent twice.
    pub replay: Replay,
    /// Further server names it answers to.
    pub sni_names: Vec<DnsName>,
    /// Whether, and to whom, it is open without a tunnel.
    pub direct: Option<Direct>,
    /// Most streams at a time, over all peers.
    pub max_streams: Option<u32>,
    /// Who of the service's audience may call this port; `None` means all of it.
    pub only: Option<BTreeSet<ClusterName>>,
}

/// That a service is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredExport {
    /// To whom.
    pub to: Audience,
    /// Since when, Unix milliseconds; 0 if that is not known.
    pub since_ms: u64,
}

/// To whom something is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// To every cluster that is linked, now and later: `*`.
    All,
    /// To these; to nobody if empty.
    Only(BTreeSet<ClusterName>),
}

/// A link as its operator wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredLink {
    /// The trust domain of the peer.
    pub trust_domain: TrustDomain,
    /// Its roots as they were when it was linked.
    pub roots: Vec<CertificateDer<'static>>,
    /// Their sequence.
    pub bundle_sequence: u64,
    /// Where its gateways are dialled, `host:port`; empty if only it dials.
    pub addresses: Vec<String>,
    /// What of its services is accepted here.
    pub accepted: Accepted,
    /// Most streams it may have open here.
    pub max_streams: Option<u32>,
    /// Most services of it that are taken.
    pub quota: Option<u32>,
    /// What it is to be used for now.
    pub mode: LinkMode,
    /// What carries the streams that are opened to it.
    pub carriage: Carriage,
}

/// What a link is used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LinkMode {
    /// For everything.
    #[default]
    Active,
    /// For what nobody else can serve; open streams go on.
    Draining,
    /// For nothing; the peer is still known.
    Paused,
}

/// How a route is used here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclaredImport {
    /// The port on the gateways, for each protocol that one was chosen for.
    pub import_ports: BTreeMap<Protocol, PortNumber>,
    /// What peers that have told nothing are taken to offer; TCP where nothing is said.
    pub protocols: BTreeSet<Protocol>,
    /// Shares and order of clusters; those that are not named follow by themselves.
    pub sources: BTreeMap<ClusterName, SourceShare>,
    /// Whether bytes may be sent twice, whatever the exporter says.
    pub replay: Option<Replay>,
    /// Further server names local clients may ask for.
    pub sni_names: Vec<DnsName>,
    /// The application speaks TLS.
    pub tls: bool,
}

impl DeclaredImport {
    /// What a peer that has told nothing is taken to offer.
    pub(crate) fn spoken(&self) -> impl Iterator<Item = Protocol> {
        let tcp = self.protocols.is_empty().then_some(Protocol::Tcp);
        tcp.into_iter().chain(self.protocols.iter().copied())
    }
}

/// Share and order of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceShare {
    /// Higher gets more.
    pub weight: u32,
    /// Lower goes first.
    pub priority: u8,
}

/// A change of what is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Declares a link, in place of one with the same cluster.
    Link(ClusterName, Box<DeclaredLink>),
    /// Takes a link away, and the cluster out of every audience.
    Unlink(ClusterName),
    /// Declares a service, in place of one with the same name.
    Service(ServiceId, DeclaredService),
    /// Exports a service in this way; `None` ends it.
    Export(ServiceId, Option<DeclaredExport>),
    /// Denies somebody.
    Deny(Denied),
    /// Believes somebody again.
    Lift(Denied),
}

impl Write {
    /// Whether it only adds to what is offered, or denies somebody.
    #[must_use]
    pub const fn is_addition(&self) -> bool {
        match self {
            Self::Service(..) | Self::Export(_, Some(_)) | Self::Deny(_) => true,
            Self::Link(..) | Self::Unlink(_) | Self::Export(_, None) | Self::Lift(_) => false,
        }
    }
}

/// Why a change was not written down.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It is declared where we do not write, such as in the node's own configuration.
    #[error("{what} is declared in {place}; change it there")]
    ElsewhereDeclared {
        /// What.
        what: String,
        /// Where.
        place: String,
    },
    /// There is no such thing.
    #[error("there is no {0}")]
    Unknown(String),
    /// It contradicts what is declared already.
    #[error("this contradicts what is declared: {0}")]
    Conflict(String),
    /// The place cannot be written to.
    #[error("{place} cannot be written: {error}")]
    Io {
        /// Where.
        place: String,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Where declarations are kept.
pub trait Cluster: Send + Sync {
    /// What is declared now, and every change.
    fn declared(&self) -> watch::Receiver<Arc<Declared>>;

    /// Writes a change down; it has happened when this returns.
    ///
    /// # Errors
    /// Why not; then nothing has changed.
    fn write(&self, change: Write) -> Result<(), WriteError>;
}
