//! Chooses import ports and remembers them.
//!
//! A service keeps its port over restarts and changes, because other machines' connections, firewalls and derived
//! Services name it. A port that becomes free goes to nobody else for an hour: a client with stale knowledge must find
//! nothing there rather than another service. Only the service that had it gets it back sooner, and only an operator
//! who writes the number into the configuration can give it away at once.
//!
//! [`PortAllocator`] is pure: the book before and the time go in, the book after comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use corinth_model::PortNumber;
use serde::{Deserialize, Serialize};

use super::Settings;
use super::disk;
use super::import::Import;
use super::mistake::{Findings, MistakeCode, Mistakes};
use super::value::PortRange;

#[cfg(test)]
mod tests;

/// How long a freed port goes to nobody else.
pub const QUARANTINE: Duration = Duration::from_hours(1);
/// Name of the book in the state directory.
const FILE: &str = "import-ports.json";

/// Which service has which import port, and which ports were freed lately. Keys read `payments.shop:80/tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortBook {
    given: BTreeMap<String, PortNumber>,
    freed: BTreeMap<PortNumber, Freed>,
}

/// Who had a port until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Freed {
    service: String,
    /// Seconds since 1970.
    at: u64,
}

/// Chooses ports out of a range.
#[derive(Clone, Debug)]
pub struct PortAllocator {
    /// Where ports are taken from.
    pub range: PortRange,
    /// Ports that are in use for something else.
    pub taken: BTreeSet<u16>,
}

/// A service port that needs an import port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The service port, such as `payments.shop:80/tcp`; each at most once.
    pub service: String,
    /// The port that the operator chose for it.
    pub fixed: Option<PortNumber>,
}

/// No port in the range is free for a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no import port is free for {service}")]
pub struct NoPortLeft {
    /// The first service that went without.
    pub service: String,
}

/// The book in the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PortBookError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} is damaged: {source}; remove it to choose import ports anew", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PortBook {
    /// The port of a service port such as `payments.shop:80/tcp`.
    pub fn port(&self, service: &str) -> Option<PortNumber> {
        self.given.get(service).copied()
    }

    /// Reads the book in the state directory; an empty one if there is none yet.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn load(state_dir: &Path) -> Result<Self, PortBookError> {
        let path = state_dir.join(FILE);
        let bytes = match super::read_file(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(PortBookError::Read { path, source }),
        };
        serde_json::from_slice(&bytes).map_err(|source| PortBookError::Damaged { path, source })
    }

    /// Writes the book into the state directory, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn store(&self, state_dir: &Path) -> Result<(), PortBookError> {
        let path = state_dir.join(FILE);
        let result = serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .and_then(|bytes| disk::replace(&path, &bytes));
        result.map_err(|source| PortBookError::Write { path, source })
    }
}

impl PortAllocator {
    /// The book that gives every wanted service a port, with as few changes to `previous` as possible.
    ///
    /// # Errors
    /// If the range has too few ports.
    pub fn assign(
        &self,
        previous: &PortBook,
        wanted: &[Wanted],
        now: SystemTime,
    ) -> Result<PortBook, NoPortLeft> {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let mut in_use: BTreeSet<_> = wanted.iter().filter_map(|wanted| wanted.fixed).collect();
        let mut given = BTreeMap::new();
        for wanted in wanted {
            let kept = || {
                previous
                    .had(&wanted.service)
                    .filter(|port| self.may_give(*port))
            };
            let port = wanted
                .fixed
                .or_else(|| kept().filter(|port| in_use.insert(*port)));
            given.extend(port.map(|port| (wanted.service.clone(), port)));
        }
        let mut freed = previous.freed_by(now);
        freed.retain(|port, _| !in_use.contains(port));
        let mut free = (self.range.first.get()..=self.range.last.get())
            .filter_map(PortNumber::new)
            .filter(|port| self.may_give(*port) && !freed.contains_key(port));
        for wanted in wanted {
            if given.contains_key(&wanted.service) {
                continue;
            }
            let Some(port) = free.find(|port| in_use.insert(*port)) else {
                return Err(NoPortLeft {
                    service: wanted.service.clone(),
                });
            };
            given.insert(wanted.service.clone(), port);
        }
        drop(free);
        Ok(PortBook { given, freed })
    }

    fn may_give(&self, port: PortNumber) -> bool {
        self.range.contains(port) && !self.taken.contains(&port.get())
    }
}

impl PortBook {
    /// The port a service has, or had until lately.
    fn had(&self, service: &str) -> Option<PortNumber> {
        let lately = || {
            self.freed
                .iter()
                .filter(|(_, freed)| freed.service == service)
        };
        self.port(service).or_else(|| {
            lately()
                .max_by_key(|(_, freed)| freed.at)
                .map(|(port, _)| *port)
        })
    }

    /// Ports that nobody else may have at `now`: those freed lately, and those that are given and may be freed now.
    fn freed_by(&self, now: u64) -> BTreeMap<PortNumber, Freed> {
        let lately = self.freed.iter().map(|(port, freed)| {
            // A clock that was set back must not keep a port away for longer than the quarantine.
            let at = freed.at.min(now);
            (
                *port,
                Freed {
                    service: freed.service.clone(),
                    at,
                },
            )
        });
        let mut freed: BTreeMap<_, _> = lately
            .filter(|(_, freed)| now - freed.at < QUARANTINE.as_secs())
            .collect();
        for (service, port) in &self.given {
            freed.insert(
                *port,
                Freed {
                    service: service.clone(),
                    at: now,
                },
            );
        }
        freed
    }
}

impl Settings {
    /// Gives every import that has none a port, and returns the book to be stored before the ports are used.
    ///
    /// # Errors
    /// If the range is used up; at the first import that goes without.
    pub fn assign_ports(
        &mut self,
        previous: &PortBook,
        now: SystemTime,
    ) -> Result<PortBook, Mistakes> {
        let allocator = PortAllocator {
            range: self.listen.import_ports,
            taken: self.taken_ports.clone(),
        };
        let wanted: Vec<_> = self.imports.iter().map(Import::wanted).collect();
        let mut found = Findings::default();
        let book = allocator.assign(previous, &wanted, now).map_err(|NoPortLeft { service }| {
            let import = self.imports.iter().find(|import| import.key() == service);
            found.add(
                import.map(|import| import.at).unwrap_or_default(),
                MistakeCode::NoImportPort,
                format!("no port in {} is free for `{service}`", self.listen.import_ports),
                "widen `listen.importPorts`; ports freed within the last hour are not given to others",
            );
        });
        let book = found.finish(book.ok(), &self.origin)?;
        for import in &mut self.imports {
            import.import_port = book.port(&import.key());
        }
        Ok(book)
    }
}

impl Import {
    /// The service port as the book calls it.
    fn key(&self) -> String {
        format!("{}:{}/{}", self.service, self.port, self.protocol)
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            service: self.key(),
            fixed: self.import_port.filter(|_| self.is_fixed),
        }
    }
}
