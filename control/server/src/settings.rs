//! What a control plane is told at its start; everything else is declared.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corinth_identity::LEAF_LIFETIME;
use corinth_model::{ClusterName, PortNumber, PortRange, Slot, TrustDomain};
use serde::Deserialize;

#[cfg(test)]
mod tests;

/// Largest file that is read.
const TEXT_MAX_BYTES: usize = 1 << 20;
/// A certificate is renewed at half its life; below this, a slow clock would already make it invalid.
const LEAF_LIFETIME_MIN: Duration = Duration::from_secs(10);
/// The longest life that a gateway can give its certificate, where it is not known how long it is.
const LEAF_LIFETIME_MAX: Duration = Duration::from_hours(30 * 24);

/// Keys that only the file of a control plane has, and not that of a gateway.
const OWN_KEYS: &[&str] = &[
    "socket",
    "handover",
    "objects",
    "importPorts",
    "streamsPerPeer",
    "leafLifetime",
    "admin",
];

/// How a control plane runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name of its cluster.
    pub cluster: ClusterName,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Which instance of the control plane it is.
    pub slot: Slot,
    /// Where keys and state are kept.
    pub state_dir: PathBuf,
    /// The socket that speaks gRPC.
    pub socket: PathBuf,
    /// The socket that takes streams.
    pub handover: PathBuf,
    /// The file with links, services and exports.
    pub objects: PathBuf,
    /// Where peers reach the gateways, `host:port`.
    pub gateways: Vec<String>,
    /// How many gateways there are.
    pub slots: u32,
    /// Where import ports come from.
    pub import_ports: PortRange,
    /// Ports of it that are in use for something else.
    pub taken_ports: BTreeSet<u16>,
    /// Most streams a peer may have open, unless its link says otherwise.
    pub streams_per_peer: u32,
    /// How long a certificate lives that is issued to a gateway.
    pub leaf_lifetime: Duration,
    /// How long a certificate of a gateway lives at most: as long an old root is needed after a new one took over.
    pub leaf_lifetime_max: Duration,
}

/// What only a process of its own needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Health, metrics and state; loopback only.
    pub admin: SocketAddr,
    /// What is logged.
    pub log: String,
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It is wrong.
    #[error("{}: {words}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        words: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    cluster: String,
    trust_domain: Option<String>,
    slot: Option<String>,
    state_dir: PathBuf,
    socket: Option<PathBuf>,
    handover: Option<PathBuf>,
    objects: Option<PathBuf>,
    #[serde(default)]
    gateways: Vec<String>,
    slots: Option<u32>,
    import_ports: Option<String>,
    streams_per_peer: Option<u32>,
    leaf_lifetime: Option<String>,
    admin: Option<SocketAddr>,
    log: Option<String>,
}

impl Settings {
    /// Settings with every default filled in; paths are within `state_dir`.
    #[must_use]
    pub fn new(cluster: ClusterName, trust_domain: TrustDomain, state_dir: &Path) -> Self {
        Self {
            cluster,
            trust_domain,
            slot: Slot::parse("0").expect("a digit is a slot"),
            state_dir: state_dir.to_owned(),
            socket: state_dir.join("control.sock"),
            handover: state_dir.join("handover.sock"),
            objects: state_dir.join("cluster.yaml"),
            gateways: Vec::new(),
            slots: 1,
            import_ports: default_ports(),
            taken_ports: BTreeSet::new(),
            streams_per_peer: 10_000,
            leaf_lifetime: LEAF_LIFETIME,
            leaf_lifetime_max: LEAF_LIFETIME_MAX,
        }
    }

    /// Reads the file of a control plane that runs as a process of its own. Relative paths start at the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<(Self, Process), SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|error| SettingsError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(&text, path)
    }

    /// Whether a text is meant to configure a control plane, be it right or wrong, and not a gateway.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        let mut keys = text
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0));
        keys.any(|key| OWN_KEYS.contains(&key))
    }

    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Process), SettingsError> {
        let wrong = |words: String| SettingsError::Wrong {
            path: path.to_owned(),
            words,
        };
        if text.len() > TEXT_MAX_BYTES {
            return Err(wrong(format!("it is longer than {TEXT_MAX_BYTES} bytes")));
        }
        let raw: Raw = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let cluster: ClusterName = raw
            .cluster
            .parse()
            .map_err(|error| wrong(format!("cluster: {error}")))?;
        let trust_domain = match &raw.trust_domain {
            Some(text) => {
                TrustDomain::parse(text).map_err(|error| wrong(format!("trustDomain: {error}")))?
            }
            None => TrustDomain::of_cluster(&cluster),
        };
        let beside = |inner: &Path| {
            let folder = path.parent().unwrap_or_else(|| Path::new(""));
            folder.join(inner)
        };
        let mut settings = Self::new(cluster, trust_domain, &beside(&raw.state_dir));
        for (place, given) in [
            (&mut settings.socket, raw.socket),
            (&mut settings.handover, raw.handover),
            (&mut settings.objects, raw.objects),
        ] {
            if let Some(given) = given {
                *place = beside(&given);
            }
        }
        if let Some(slot) = raw.slot {
            settings.slot = Slot::parse(&slot).map_err(|error| wrong(format!("slot: {error}")))?;
        }
        if let Some(range) = raw.import_ports {
            settings.import_ports = ports(&range).ok_or_else(|| {
                wrong("importPorts: write a range such as 20000-27999".to_owned())
            })?;
        }
        for gateway in &raw.gateways {
            let is_good = gateway
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<PortNumber>().is_ok());
            if !is_good {
                return Err(wrong("gateways: write host:port".to_owned()));
            }
        }
        settings.gateways = raw.gateways;
        settings.slots = raw.slots.unwrap_or(settings.slots).max(1);
        settings.streams_per_peer = raw.streams_per_peer.unwrap_or(settings.streams_per_peer);
        if let Some(text) = &raw.leaf_lifetime {
            settings.leaf_lifetime = leaf_lifetime(text).ok_or_else(|| {
                wrong("leafLifetime: write a time from 10s to 30 days, such as 24h".to_owned())
            })?;
        }
        let process = Process {
            admin: raw.admin.unwrap_or_else(|| ([127, 0, 0, 1], 15_001).into()),
            log: raw.log.unwrap_or_else(|| "info".to_owned()),
        };
        Ok((settings, process))
    }
}

fn ports(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-')?;
    let range = PortRange {
        first: first.trim().parse().ok()?,
        last: last.trim().parse().ok()?,
    };
    (range.first <= range.last).then_some(range)
}

/// A number and its unit, as in `90s`, `30m` and `24h`.
fn leaf_lifetime(text: &str) -> Option<Duration> {
    let (number, unit_s) = [("s", 1), ("m", 60), ("h", 3_600)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    let is_plain = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit_s)?;
    let lifetime = Duration::from_secs(seconds);
    let is_allowed = (LEAF_LIFETIME_MIN..=LEAF_LIFETIME_MAX).contains(&lifetime);
    (is_plain && is_allowed).then_some(lifetime)
}

fn default_ports() -> PortRange {
    let port = |number| PortNumber::new(number).expect("not zero");
    PortRange {
        first: port(20_000),
        last: port(27_999),
    }
}
