//! The configuration of a gateway: one YAML file, read whole or refused whole.
//!
//! Text becomes a tree that knows where everything stands (`document`), the tree becomes raw structs (`reader`,
//! `field`, `value`, `units`), and each section turns its raw struct into settings in a module of its own. No step ends
//! at the first mistake: all of them come together, each with line, code and hint ([`Mistakes`]). Reading does no IO;
//! the files that a configuration names are read by [`Settings::load`].
//!
//! Beside that: import ports chosen and remembered, the tables that follow ([`Settings::tables`]),
//! changes ([`ConfigWatch`]), and the last configuration that was applied ([`LastGood`]). Never in here: opening
//! sockets, deciding about connections, keys in any output.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corinth_model::{ClusterName, Locality, PortNumber, Protocol, ServiceId, Slot, TrustDomain};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::control::RawControl;
use self::field::{At, Field, Mapping, Optional, mappings, section};
use self::identity::RawIdentity;
use self::limits::{RawDrain, RawLimits, RawTimeouts};
use self::listen::{Listeners, RawListen};
use self::log::{RawAccessLog, RawLog};
use self::mistake::Findings;
use self::value::{Number, PlaceName, number};

mod address;
mod control;
mod document;
mod export;
mod field;
mod files;
mod identity;
mod import;
mod last_good;
mod limits;
mod listen;
mod log;
mod mistake;
mod peer;
mod ports;
mod reader;
mod show;
mod tables;
mod units;
mod value;
mod watch;

#[cfg(test)]
mod tests;

pub use self::address::{Host, HostPort};
pub use self::control::Control;
pub use self::export::{Direct, Export};
pub(crate) use self::files::read_limited;
pub use self::files::{Certificates, FILE_MAX_BYTES, Files, IdentityFiles, read_file};
pub use self::identity::Identity;
pub use self::import::{Import, Source};
pub use self::last_good::{Damage, Generation, Kept, LastGood, LastGoodError};
pub use self::limits::{Drain, Limits, Timeouts};
pub use self::listen::Listen;
pub use self::log::{AccessLog, AccessScope, AccessTarget, Log, LogFormat};
pub use self::mistake::{Mistake, MistakeCode, Mistakes, Position};
pub use self::peer::{Peer, Roots, Transport};
pub use self::ports::PortBookError;
pub(crate) use self::ports::{load as load_ports, store as store_ports};
pub use self::show::{NamedFile, Secret};
pub use self::watch::ConfigWatch;

/// Where state is kept unless told otherwise.
const STATE_DIR: &str = "/var/lib/corinth";
/// Most workers: beyond this, connections of one peer spread too thin.
const WORKERS_MAX: u32 = 256;
/// Most gateway instances of one cluster.
const SLOTS_MAX: u32 = 1_000;

/// A configuration that holds together. Serialized, it reads like the file, with every default filled in.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The name of this cluster.
    pub cluster: ClusterName,
    /// The trust domain of this cluster.
    pub trust_domain: TrustDomain,
    /// Which instance of the cluster's gateway this is.
    pub slot: Slot,
    /// How many instances there are.
    pub slots: u32,
    /// Where this gateway runs.
    pub locality: Locality,
    /// Where keys, ports and the last good configuration are kept.
    pub state_dir: PathBuf,
    /// A secret that instances without a common state directory share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_key: Option<PathBuf>,
    /// Threads that carry connections.
    pub workers: u32,
    /// Where it listens.
    pub listen: Listen,
    /// Who issues its certificate.
    pub identity: Identity,
    /// Where peers reach the gateways of this cluster. With them a node can be linked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<HostPort>,
    /// The control plane it follows. Then peers, exports and imports come from there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// The clusters it is linked with.
    pub peers: Vec<Peer>,
    /// What it offers.
    pub exports: Vec<Export>,
    /// What it makes usable here.
    pub imports: Vec<Import>,
    /// Most that may be held for others.
    pub limits: Limits,
    /// How long each phase of a connection may take.
    pub timeouts: Timeouts,
    /// How it stops.
    pub drain: Drain,
    /// One record for each connection.
    pub access_log: AccessLog,
    /// What it says about itself.
    pub log: Log,
    /// Ports that no import may be given.
    #[serde(skip)]
    taken_ports: BTreeSet<u16>,
    #[serde(skip)]
    origin: PathBuf,
    #[serde(skip)]
    text: Arc<str>,
}

/// The configuration of one Corinth gateway outside Kubernetes.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Corinth gateway")]
struct Raw {
    /// The name of this cluster.
    #[schemars(required)]
    cluster: Option<Field<ClusterName>>,
    /// The trust domain of this cluster. Default `<cluster>.corinth.internal`.
    trust_domain: Option<Field<TrustDomain>>,
    /// Which instance of the cluster's gateway this is. Default `0`.
    slot: Option<Field<Slot>>,
    /// How many instances there are. Default 1.
    slots: Option<Field<Number>>,
    /// Where this gateway runs.
    locality: Option<Mapping<RawLocality>>,
    /// Where keys, ports and the last good configuration are kept. Default `/var/lib/corinth`.
    state_dir: Option<Field<PathBuf>>,
    /// File with a secret of at least 32 bytes that all instances of this cluster's gateway share, where they share no state
    /// directory: a peer whose packets are led to another instance then learns at once to dial anew. Default: none.
    shared_key: Option<Field<PathBuf>>,
    /// Threads that carry connections. Default: one for each core.
    workers: Option<Field<Number>>,
    /// Where it listens.
    listen: Option<Mapping<RawListen>>,
    /// Who issues its certificate.
    identity: Option<Mapping<RawIdentity>>,
    /// Where peers reach the gateways of this cluster, `host:port`. A node that says so runs a control plane and can be
    /// linked by token. Default: none.
    gateways: Option<Vec<Field<HostPort>>>,
    /// The control plane it follows, instead of `peers`, `exports` and `imports` of this file. Default: none.
    control: Option<Mapping<RawControl>>,
    /// The clusters it is linked with.
    peers: Option<Vec<Mapping<peer::RawPeer>>>,
    /// What it offers.
    exports: Option<Vec<Mapping<export::RawExport>>>,
    /// What it makes usable here.
    imports: Option<Vec<Mapping<import::RawImport>>>,
    /// Most that may be held for others.
    limits: Option<Mapping<RawLimits>>,
    /// How long each phase of a connection may take.
    timeouts: Option<Mapping<RawTimeouts>>,
    /// How it stops.
    drain: Option<Mapping<RawDrain>>,
    /// One record for each connection.
    access_log: Option<Mapping<RawAccessLog>>,
    /// What it says about itself.
    log: Option<Mapping<RawLog>>,
}

/// Where this gateway runs; what is not written is not known.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawLocality {
    /// Region, such as `eu-central-1`.
    region: Option<Field<PlaceName>>,
    /// Zone, such as `eu-central-1a`.
    zone: Option<Field<PlaceName>>,
    /// Node.
    node: Option<Field<PlaceName>>,
}

/// A commented configuration that can be used after changing names and addresses.
pub const fn example() -> &'static str {
    include_str!("settings/example.yaml")
}

/// The JSON schema (draft 2020-12) of the configuration, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Raw).to_value()
}

impl Settings {
    /// The state directory that a configuration names, however wrong the rest of it is; the default if it
    /// names none. For finding the last good configuration when the present one cannot be used.
    pub fn state_dir_of(text: &str, origin: &Path) -> PathBuf {
        let named = text.lines().find_map(|line| line.strip_prefix("stateDir:"));
        let named = named.map(|value| value.split(" #").next().unwrap_or(value).trim());
        let named = named.map(|value| value.trim_matches(['"', '\'']));
        show::beside(
            origin,
            Path::new(named.filter(|value| !value.is_empty()).unwrap_or(STATE_DIR)),
        )
    }

    /// Reads a configuration; `origin` is the file it came from, which relative paths start at.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn parse(text: &str, origin: &Path) -> Result<Self, Mistakes> {
        let mut found = Findings::default();
        let raw =
            document::parse(text, &mut found).and_then(|root| reader::document(&root, &mut found));
        let settings = raw.and_then(|raw| Self::convert(raw, text, origin, &mut found));
        found.finish(settings, origin)
    }

    /// Reads the configuration in the file `path`.
    ///
    /// # Errors
    /// Every mistake in it, or why the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, Mistakes> {
        let bytes = read_file(path).map_err(|error| {
            let hint = "check the path and who may read the file; `corinth config example` prints a beginning";
            let message = format!("the configuration cannot be read: {error}");
            Mistakes::one(MistakeCode::UnreadableFile, message, hint, path)
        })?;
        let text = String::from_utf8(bytes).map_err(|_| {
            let message = "the configuration is not UTF-8 text";
            Mistakes::one(MistakeCode::Syntax, message, "save it as UTF-8", path)
        })?;
        Self::parse(&text, path)
    }

    /// The text that these settings were read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The file that they were read from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Keys whose values differ from those of `running` and take effect only when the gateway starts anew.
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        [
            ("cluster", self.cluster != running.cluster),
            ("trustDomain", self.trust_domain != running.trust_domain),
            ("slot", self.slot != running.slot),
            ("slots", self.slots != running.slots),
            ("locality", self.locality != running.locality),
            ("stateDir", self.state_dir != running.state_dir),
            ("sharedKey", self.shared_key != running.shared_key),
            ("workers", self.workers != running.workers),
            ("listen", self.listen != running.listen),
            ("gateways", self.gateways != running.gateways),
            ("control", self.control != running.control),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// Ports that no import may be given.
    #[must_use]
    pub fn taken_ports(&self) -> &BTreeSet<u16> {
        &self.taken_ports
    }

    /// These settings for a gateway that follows a control plane: what of them the control plane tells is left out.
    #[must_use]
    pub fn follow(mut self, control: Control) -> Self {
        self.peers.clear();
        self.exports.clear();
        self.imports.clear();
        self.control = Some(control);
        self
    }

    fn convert(raw: At<Raw>, text: &str, origin: &Path, found: &mut Findings) -> Option<Self> {
        let At { at, value: raw } = raw;
        let cluster = raw
            .cluster
            .required("cluster", at, found)
            .map(|cluster| cluster.value);
        let trust_domain = raw.trust_domain.optional(found);
        let trust_domain = trust_domain.or_else(|| cluster.as_ref().map(TrustDomain::of_cluster));
        let (slot, slots) = slot(raw.slot, raw.slots, found);
        let locality = locality(section(raw.locality).value, found);
        let limits = Limits::read(section(raw.limits).value, found);
        let mut listeners = Listeners::default();
        let listen = Listen::read(section(raw.listen).value, &mut listeners, found);

        let (peers, exports, imports) = (
            mappings(raw.peers),
            mappings(raw.exports),
            mappings(raw.imports),
        );
        let gateways = peer::gateways(raw.gateways, found);
        let control = raw.control.and_then(Mapping::take);
        if control.is_some() {
            for (key, first) in [
                ("peers", peers.first().map(|peer| peer.at)),
                ("exports", exports.first().map(|export| export.at)),
                ("imports", imports.first().map(|import| import.at)),
            ] {
                refuse_beside_control(key, first, found);
            }
        }
        let peer_names = good(peers.iter().map(|peer| &peer.value.name));
        let exported = service_ports(exports.iter().map(|export| {
            let export = &export.value;
            (&export.service, &export.port, &export.protocol)
        }));
        let imported = service_ports(imports.iter().map(|import| {
            let import = &import.value;
            (&import.service, &import.port, &import.protocol)
        }));
        let own = peer::Own {
            cluster: cluster.as_ref(),
            trust_domain: trust_domain.as_ref(),
            streams_per_peer: limits.streams_per_peer,
            origin,
        };
        let peers = peer::read(peers, &own, found);
        let around = import::Around {
            cluster: cluster.as_ref(),
            peers: &peer_names,
            listen: &listen,
            exported: &exported,
        };
        let imports = import::read(imports, &around, &mut listeners, found);
        let around = export::Around {
            peers: &peer_names,
            locality: &locality,
            imported: &imported,
        };
        let (exports, reached) = export::read(exports, &around, found);
        check_endpoints(&reached, &listeners, found);
        if let Some(cluster) = &cluster {
            tables::check(cluster, &exports, &imports, found);
        }

        let state_dir = raw.state_dir.otherwise(PathBuf::from(STATE_DIR), found);
        let state_dir = show::beside(origin, &state_dir);
        let shared_key = raw.shared_key.optional(found);
        let shared_key = shared_key.map(|written| show::beside(origin, &written));
        let control = control.map(|raw| Control::read(raw, &state_dir, origin, found));
        let workers = number(raw.workers, cores(), 1..=WORKERS_MAX, found);
        let identity = Identity::read(section(raw.identity), control.is_some(), origin, found);
        let timeouts = Timeouts::read(section(raw.timeouts).value, found);
        let drain = Drain::read(section(raw.drain).value, found);
        let access_log = AccessLog::read(section(raw.access_log).value, origin, found);
        let log = Log::read(section(raw.log).value, found);
        Some(Self {
            cluster: cluster?,
            trust_domain: trust_domain?,
            slot: slot?,
            slots,
            locality,
            state_dir,
            shared_key,
            gateways,
            control,
            workers,
            taken_ports: listen.taken_ports(&listeners, &reached),
            listen,
            identity: identity?,
            peers,
            exports,
            imports,
            limits,
            timeouts,
            drain,
            access_log,
            log,
            origin: origin.to_owned(),
            text: text.into(),
        })
    }
}

impl fmt::Debug for Settings {
    /// What `Serialize` shows, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    u32::try_from(cores).map_or(WORKERS_MAX, |cores| cores.min(WORKERS_MAX))
}

/// Slots are counted from 0 where they are numbers.
fn slot(
    slot: Option<Field<Slot>>,
    slots: Option<Field<Number>>,
    found: &mut Findings,
) -> (Option<Slot>, u32) {
    let slots = number(slots, 1, 1..=SLOTS_MAX, found);
    let Some(field) = slot else {
        return (Slot::parse("0").ok(), slots);
    };
    let Some(At { at, value: slot }) = field.placed(found) else {
        return (None, slots);
    };
    if slot
        .as_str()
        .parse::<u32>()
        .is_ok_and(|number| number >= slots)
    {
        found.add(
            at,
            MistakeCode::SlotOutOfRange,
            format!("slot {slot} does not exist among {slots}, which are counted from 0"),
            "set `slots` to the number of gateway instances of this cluster",
        );
    }
    (Some(slot), slots)
}

fn locality(raw: RawLocality, found: &mut Findings) -> Locality {
    let mut part =
        |field: Option<Field<PlaceName>>,
         of: fn(&str) -> Result<Locality, corinth_model::LocalityError>| {
            let At {
                at,
                value: PlaceName(name),
            } = field?.placed(found)?;
            let checked = of(&name);
            if let Err(reason) = checked {
                let hint = "use 1 to 63 letters, digits, -, _ and ., or up to 253 for a node";
                found.add(at, MistakeCode::InvalidName, reason.to_string(), hint);
                return None;
            }
            Some(name)
        };
    Locality {
        region: part(raw.region, |name| Locality::new(Some(name), None, None)),
        zone: part(raw.zone, |name| Locality::new(None, Some(name), None)),
        node: part(raw.node, |name| Locality::new(None, None, Some(name))),
    }
}

/// Who is linked and what is offered has one owner.
fn refuse_beside_control(key: &str, first: Option<Position>, found: &mut Findings) {
    if let Some(at) = first {
        found.add(
            at,
            MistakeCode::ConflictingKeys,
            format!("`{key}` stands beside `control`: both would say what is true"),
            format!("move `{key}` to the control plane's configuration, or remove `control`"),
        );
    }
}

/// A gateway that delivers to itself would go round in circles.
fn check_endpoints(endpoints: &[At<SocketAddr>], listeners: &Listeners, found: &mut Findings) {
    for At { at, value: address } in endpoints {
        if let Some(listener) = listeners.reached_by(*address) {
            found.add(
                *at,
                MistakeCode::EndpointIsListener,
                format!(
                    "the endpoint {address} is {listener} of this gateway: it would call itself"
                ),
                "write the address and port on which the service itself listens",
            );
        }
    }
}

/// The values that could be read, in whatever state the rest of their mappings is.
fn good<'a, T: Ord + Clone + 'a>(
    fields: impl Iterator<Item = &'a Option<Field<T>>>,
) -> BTreeSet<T> {
    fields
        .filter_map(|field| field.as_ref()?.value.as_ref().ok().cloned())
        .collect()
}

/// The service ports that are written well. Where no protocol is written, it is TCP.
fn service_ports<'a>(
    fields: impl Iterator<
        Item = (
            &'a Option<Field<ServiceId>>,
            &'a Option<Field<PortNumber>>,
            &'a Option<Field<Protocol>>,
        ),
    >,
) -> BTreeSet<(ServiceId, PortNumber, Protocol)> {
    let good = fields.filter_map(|(service, port, protocol)| {
        let service = service.as_ref()?.value.as_ref().ok()?;
        let port = port.as_ref()?.value.as_ref().ok()?;
        let protocol = match protocol {
            Some(field) => *field.value.as_ref().ok()?,
            None => Protocol::Tcp,
        };
        Some((service.clone(), *port, protocol))
    });
    good.collect()
}
