//! What the control plane keeps on disk: which instance it is, and what was told to and by each peer.
//!
//! Every file is replaced whole. A file that cannot be read is moved aside and counts as lost, which is safe: a lost
//! instance is begun anew, and a peer whose state is lost is asked for everything.

use std::io;
use std::path::{Path, PathBuf};

use corinth_daemon::disk;
use corinth_model::{ClusterName, Instance, PortBook};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::identity::Issued;

#[cfg(test)]
mod tests;

/// Folder in the state directory.
const FOLDER: &str = "control";
/// Largest file that is read.
const FILE_MAX_BYTES: u64 = 256 << 20;

/// Why something cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct KeepError {
    /// Where.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

/// The files of one control plane.
#[derive(Debug, Clone)]
pub struct Keep {
    folder: PathBuf,
}

/// Which life of the state this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The instance.
    pub instance: Instance,
    /// This start of it, from 1.
    pub epoch: u64,
    /// The instance was begun now.
    pub is_new: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LifeFile {
    instance: [u8; 16],
    epoch: u64,
}

impl Keep {
    /// Opens the folder, which is made if there is none, for our eyes only.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, KeepError> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = state_dir.join(FOLDER);
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for path in [folder.clone(), folder.join("peers")] {
            builder
                .create(&path)
                .map_err(|error| KeepError { path, error })?;
        }
        Ok(Self { folder })
    }

    /// Counts one more start of the instance that is kept, or begins `fresh`.
    ///
    /// # Errors
    /// If it cannot be written; then nothing may be told to peers.
    pub fn begin(&self, fresh: Instance) -> Result<Life, KeepError> {
        let kept: Option<LifeFile> = self.read("instance.json");
        let life = match kept {
            Some(kept) => Life {
                instance: Instance(kept.instance),
                epoch: kept.epoch.saturating_add(1),
                is_new: false,
            },
            None => Life {
                instance: fresh,
                epoch: 1,
                is_new: true,
            },
        };
        self.write(
            "instance.json",
            &LifeFile {
                instance: life.instance.0,
                epoch: life.epoch,
            },
        )?;
        Ok(life)
    }

    /// What was told to and by a peer.
    pub fn peer<T: DeserializeOwned>(&self, peer: &ClusterName) -> Option<T> {
        self.read(&peer_file(peer))
    }

    /// Keeps what was told to and by a peer.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn store_peer<T: Serialize>(&self, peer: &ClusterName, state: &T) -> Result<(), KeepError> {
        self.write(&peer_file(peer), state)
    }

    /// Forgets a peer that is no longer linked.
    ///
    /// # Errors
    /// If its file cannot be removed.
    pub fn forget_peer(&self, peer: &ClusterName) -> Result<(), KeepError> {
        let path = self.folder.join(peer_file(peer));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KeepError { path, error }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The import ports that were given.
    #[must_use]
    pub fn ports(&self) -> PortBook {
        self.read("import-ports.json").unwrap_or_default()
    }

    /// Keeps the import ports.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn store_ports(&self, ports: &PortBook) -> Result<(), KeepError> {
        self.write("import-ports.json", ports)
    }

    /// The certificates that gateways were given.
    #[must_use]
    pub fn issued(&self) -> Issued {
        self.read("issued.json").unwrap_or_default()
    }

    /// Keeps the certificates that gateways were given; they are public.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn store_issued(&self, issued: &Issued) -> Result<(), KeepError> {
        self.write("issued.json", issued)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.folder.join(name);
        let metadata = std::fs::metadata(&path).ok()?;
        let read = || -> io::Result<T> {
            if metadata.len() > FILE_MAX_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(serde_json::from_slice(&std::fs::read(&path)?)?)
        };
        match read() {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "cannot be read; moved aside and begun anew");
                let _ = std::fs::rename(&path, path.with_extension("damaged"));
                None
            }
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), KeepError> {
        let path = self.folder.join(name);
        serde_json::to_vec(value)
            .map_err(io::Error::from)
            .and_then(|bytes| disk::replace(&path, &bytes))
            .map_err(|error| KeepError { path, error })
    }
}

/// A cluster's name is a DNS label, which cannot leave the folder.
fn peer_file(peer: &ClusterName) -> String {
    format!("peers/{peer}.json")
}
