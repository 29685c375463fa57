//! Import ports of the services that a configuration imports, remembered in the state directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use corinth_daemon::disk;
use corinth_model::{Assigned, PortAllocator, PortBook, Wanted};

use super::Settings;
use super::import::Import;
use super::mistake::{Findings, MistakeCode, Mistakes};

#[cfg(test)]
mod tests;

/// Name of the book in the state directory.
const FILE: &str = "import-ports.json";

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

/// Reads the book in the state directory; an empty one if there is none yet.
///
/// # Errors
/// If it cannot be read or is damaged.
pub(crate) fn load(state_dir: &Path) -> Result<PortBook, PortBookError> {
    let path = state_dir.join(FILE);
    let bytes = match super::read_file(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PortBook::default()),
        Err(source) => return Err(PortBookError::Read { path, source }),
    };
    serde_json::from_slice(&bytes).map_err(|source| PortBookError::Damaged { path, source })
}

/// Writes the book into the state directory, whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn store(book: &PortBook, state_dir: &Path) -> Result<(), PortBookError> {
    let path = state_dir.join(FILE);
    let result = serde_json::to_vec_pretty(book)
        .map_err(io::Error::from)
        .and_then(|bytes| disk::replace(&path, &bytes));
    result.map_err(|source| PortBookError::Write { path, source })
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
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let Assigned { book, without } = allocator.assign(previous, &wanted, now);
        if let Some(service) = without.first() {
            let import = self.imports.iter().find(|import| import.key() == *service);
            found.add(
                import.map(|import| import.at).unwrap_or_default(),
                MistakeCode::NoImportPort,
                format!("no port in {} is free for `{service}`", self.listen.import_ports),
                "widen `listen.importPorts`; ports freed within the last hour are not given to others",
            );
        }
        let book = found.finish(Some(book), &self.origin)?;
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
            fixed: self.fixed_port(),
        }
    }
}
