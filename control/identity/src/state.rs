//! The state directory of a standalone node: its authority, and what else must survive a restart.
//!
//! The directory is 0700 and every file in it 0600. A file is replaced by writing a temporary one beside it, syncing and
//! renaming it, so a crash leaves the old content or the new. The key is written before the certificate: a crash between
//! the two is repaired by making the certificate anew for that key, which changes nothing for peers.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use corinth_model::TrustDomain;
use rustls_pki_types::UnixTime;

use crate::authority::{Authority, AuthorityError};
use crate::bundle::{Bundle, BundleError};

mod archive;
mod rotation;

pub use archive::ARCHIVE_MAX_BYTES;
pub use rotation::{Rotation, RotationPhase};

/// Largest file of this module, in bytes.
const FILE_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Largest further file, in bytes: what a control plane keeps of one peer may be long.
const FURTHER_MAX_BYTES: u64 = 32 * 1024 * 1024;

const KEY_FILE: &str = "ca.key";
const CERTIFICATE_FILE: &str = "ca.pem";
const BUNDLE_FILE: &str = "bundle.pem";
const LOCK_FILE: &str = "lock";
const TEMPORARY_SUFFIX: &str = ".new";
/// Most parts of the name of a further file: folders, then the file.
const NAME_PARTS_MAX: usize = 4;

/// A directory that belongs to one standalone node.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// What [`StateDir::load_or_create`] found or made.
#[derive(Debug)]
pub struct State {
    /// The authority of the node's trust domain that issues.
    pub authority: Authority,
    /// The roots to hand to peers: the authority's own, and another during a change of root.
    pub bundle: Bundle,
    /// The same roots in PEM form.
    pub bundle_pem: String,
    /// The change of root that is under way, if one is.
    pub rotation: Option<Rotation>,
    /// The authority did not exist before.
    pub is_new: bool,
}

/// Why the state directory cannot be used. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("{action} {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others may read or write what must be ours alone.
    #[error("{path} is open to others (mode {mode:04o}); run: chmod {wanted:04o} {path}")]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
        /// The mode bits it must have.
        wanted: u32,
    },
    /// Something else is where a plain file or directory must be.
    #[error("{path} is not a plain {wanted}; move it away")]
    Kind {
        /// Where.
        path: PathBuf,
        /// `file` or `directory`.
        wanted: &'static str,
    },
    /// The file is larger than anything we write.
    #[error("{path} is larger than {limit_bytes} bytes, so it is not ours; move it away")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is accepted.
        limit_bytes: u64,
    },
    /// The certificate is there but the key is not.
    #[error(
        "{path} has a root certificate but no {key}: restore the backup of this directory, or remove \
         {CERTIFICATE_FILE} to start with a new authority (every link must then be made anew)"
    )]
    KeyMissing {
        /// The directory.
        path: PathBuf,
        /// The key's file.
        key: &'static str,
    },
    /// What is kept about roots cannot be read.
    #[error(
        "{file} in {path} is damaged: restore the backup of this directory",
        file = rotation::ROOTS_FILE
    )]
    Roots {
        /// The directory.
        path: PathBuf,
    },
    /// A change of root was begun before and has not come to its end.
    #[error("a change of root is under way; finish it first")]
    RotationUnderWay,
    /// No change of root has come to the point at which this could be done.
    #[error("no change of root is so far; begin one first")]
    NoRotation,
    /// The authority on disk cannot be used.
    #[error("the authority in {path}: {error}")]
    Authority {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: AuthorityError,
    },
    /// The bundle on disk cannot be used.
    #[error(
        "{BUNDLE_FILE} in {path}: {error}; remove it to have it made anew from {CERTIFICATE_FILE}"
    )]
    Bundle {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: BundleError,
    },
    /// A name that is no plain file name, or one of ours.
    #[error("{0:?} is not a name for a file in the state directory")]
    Name(String),
    /// The archive is not one of ours, or damaged.
    #[error("this is not a Corinth backup, or it is damaged: {0}")]
    Archive(String),
    /// More than a restore would read.
    #[error(
        "{path} holds more than the {ARCHIVE_MAX_BYTES} bytes of a backup; remove the files of peers in it that are no \
         longer linked"
    )]
    BackupTooLarge {
        /// The directory.
        path: PathBuf,
    },
    /// Restoring would overwrite.
    #[error("{0} already exists; restore into an empty state directory")]
    Occupied(PathBuf),
    /// There is nothing to back up yet.
    #[error("{path} has no authority yet; start the node once, then back it up")]
    Empty {
        /// The directory.
        path: PathBuf,
    },
}

impl StateDir {
    /// Opens the directory, or makes it (with its parents) with mode 0700.
    ///
    /// # Errors
    /// A directory that cannot be made, is open to others, or is none.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateError> {
        let path = path.into();
        match fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
                made.map_err(failed("making the directory", &path))?;
            }
            Err(error) => return Err(failed("looking at", &path)(error)),
        }
        let metadata = fs::metadata(&path).map_err(failed("looking at", &path))?;
        if !metadata.is_dir() {
            return Err(StateError::Kind {
                path,
                wanted: "directory",
            });
        }
        refuse_open_mode(&path, metadata.mode(), 0o700)?;
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads the authority of `trust_domain`, or creates it if there is none. Several processes may do so at once.
    ///
    /// # Errors
    /// What is wrong with the directory and what to do about it.
    pub fn load_or_create(
        &self,
        trust_domain: &TrustDomain,
        now: UnixTime,
    ) -> Result<State, StateError> {
        let _lock = self.lock()?;
        self.load_locked(trust_domain, now)
    }

    /// Loads the authority of `trust_domain`, which must be there.
    ///
    /// # Errors
    /// What is wrong with the directory and what to do about it; [`StateError::Empty`] without an authority.
    pub fn load(&self, trust_domain: &TrustDomain, now: UnixTime) -> Result<State, StateError> {
        let _lock = self.lock()?;
        let path = self.path.join(KEY_FILE);
        if fs::symlink_metadata(&path).is_err() && self.read_text(CERTIFICATE_FILE)?.is_none() {
            return Err(StateError::Empty {
                path: self.path.clone(),
            });
        }
        self.load_locked(trust_domain, now)
    }

    fn load_locked(&self, trust_domain: &TrustDomain, now: UnixTime) -> Result<State, StateError> {
        let roots = self.settle_roots(trust_domain)?;
        let loaded = self.load_pair(KEY_FILE, CERTIFICATE_FILE, trust_domain, now)?;
        let is_new = loaded.is_none();
        let authority = match loaded {
            Some(authority) => authority,
            None => self.create(trust_domain, now)?,
        };
        let (authority, rotation) = self.rotating(&roots, trust_domain, authority, now)?;
        let (bundle, bundle_pem) =
            self.load_bundle(trust_domain, rotation.as_ref(), roots.sequence)?;
        Ok(State {
            authority,
            bundle,
            bundle_pem,
            rotation,
            is_new,
        })
    }

    /// An authority out of its two files; a certificate that is missing is made anew. `None` if both are missing.
    fn load_pair(
        &self,
        key_file: &'static str,
        certificate_file: &str,
        trust_domain: &TrustDomain,
        now: UnixTime,
    ) -> Result<Option<Authority>, StateError> {
        let broken = |error| self.broken(error);
        match (self.read_text(key_file)?, self.read_text(certificate_file)?) {
            (Some(key), Some(certificate)) => {
                let read = Authority::from_pem(trust_domain.clone(), &certificate, &key);
                read.map(Some).map_err(broken)
            }
            (Some(key), None) => {
                let authority =
                    Authority::from_key_pem(trust_domain.clone(), &key, now).map_err(broken)?;
                self.put(certificate_file, authority.certificate_pem().as_bytes())?;
                Ok(Some(authority))
            }
            (None, Some(_)) => Err(StateError::KeyMissing {
                path: self.path.clone(),
                key: key_file,
            }),
            (None, None) => Ok(None),
        }
    }

    fn broken(&self, error: AuthorityError) -> StateError {
        StateError::Authority {
            path: self.path.clone(),
            error,
        }
    }

    fn broken_bundle(&self, error: BundleError) -> StateError {
        StateError::Bundle {
            path: self.path.clone(),
            error,
        }
    }

    fn create(&self, trust_domain: &TrustDomain, now: UnixTime) -> Result<Authority, StateError> {
        let made = Authority::create(trust_domain.clone(), now);
        let authority = made.map_err(|error| self.broken(error))?;
        self.put(KEY_FILE, authority.key_pem().as_bytes())?;
        self.put(CERTIFICATE_FILE, authority.certificate_pem().as_bytes())?;
        Ok(authority)
    }

    /// The bundle file, made if it is missing. It must contain the authority's root, and both during a change of root, or
    /// peers that take it would refuse us.
    fn load_bundle(
        &self,
        trust_domain: &TrustDomain,
        rotation: Option<&Rotation>,
        sequence: u64,
    ) -> Result<(Bundle, String), StateError> {
        let read = |pem: &str| {
            let read = Bundle::from_pem(trust_domain.clone(), pem.as_bytes(), sequence);
            read.map_err(|error| self.broken_bundle(error))
        };
        let written = self.read_text(BUNDLE_FILE)?;
        let mut roots = match &written {
            Some(pem) => read(pem)?.roots().to_vec(),
            None => Vec::new(),
        };
        let mut pem = written.clone().unwrap_or_default();
        let next = rotation.map(|_| rotation::NEXT_CERTIFICATE_FILE);
        for file in [CERTIFICATE_FILE].into_iter().chain(next) {
            let own = self.read_text(file)?.unwrap_or_default();
            let own_roots = read(&own)?.roots().to_vec();
            if !own_roots.iter().all(|root| roots.contains(root)) {
                pem = format!("{own}{pem}");
                roots.extend(own_roots);
            }
        }
        if written.as_ref() != Some(&pem) {
            self.put(BUNDLE_FILE, pem.as_bytes())?;
        }
        Ok((read(&pem)?, pem))
    }

    /// Reads a further file of the node; `None` if there is none.
    ///
    /// # Errors
    /// A name that is not allowed, or a file that cannot be read or is open to others.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        self.take(foreign_name(name)?)
    }

    /// Replaces a further file of the node, all at once, with mode 0600.
    ///
    /// # Errors
    /// A name that is not allowed, or a file that cannot be written; the old content is kept.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        self.make_folders(foreign_name(name)?)?;
        self.put(name, content)
    }

    /// Reads a further file of the node, or makes it with this content where there is none: of several who make it at once
    /// all get the same.
    ///
    /// # Errors
    /// A name that is not allowed, or a file that can be neither read nor written.
    pub fn read_or_write(&self, name: &str, content: &[u8]) -> Result<Vec<u8>, StateError> {
        self.make_folders(foreign_name(name)?)?;
        // Freed when this returns.
        let _locked = self.lock()?;
        if let Some(kept) = self.take(name)? {
            return Ok(kept);
        }
        self.put(name, content)?;
        Ok(content.to_vec())
    }

    /// Held while the authority is read or made; freed when the file closes.
    fn lock(&self) -> Result<File, StateError> {
        let path = self.path.join(LOCK_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(failed("opening", &path))?;
        file.lock().map_err(failed("locking", &path))?;
        Ok(file)
    }

    fn read_text(&self, name: &str) -> Result<Option<String>, StateError> {
        let Some(bytes) = self.take(name)? else {
            return Ok(None);
        };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => {
                let error = io::Error::new(io::ErrorKind::InvalidData, "not text");
                Err(failed("reading", &self.path.join(name))(error))
            }
        }
    }

    fn take(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("looking at", &path)(error)),
        };
        if !metadata.is_file() {
            return Err(StateError::Kind {
                path,
                wanted: "file",
            });
        }
        refuse_open_mode(&path, metadata.mode(), 0o600)?;
        let limit_bytes = match is_own(name) {
            true => FILE_MAX_BYTES,
            false => FURTHER_MAX_BYTES,
        };
        let mut content = Vec::new();
        let file = File::open(&path).map_err(failed("opening", &path))?;
        file.take(limit_bytes + 1)
            .read_to_end(&mut content)
            .map_err(failed("reading", &path))?;
        if content.len() as u64 > limit_bytes {
            return Err(StateError::TooLarge { path, limit_bytes });
        }
        Ok(Some(content))
    }

    /// Makes the folders of a name, with mode 0700.
    fn make_folders(&self, name: &str) -> Result<(), StateError> {
        let Some((folders, _)) = name.rsplit_once('/') else {
            return Ok(());
        };
        let path = self.path.join(folders);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(failed("making the directory", &path))
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!("{name}{TEMPORARY_SUFFIX}"));
        // A left-over of a crash is of no use, and could have other permissions.
        match fs::remove_file(&temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("removing", &temporary)(error)),
        }
        let write = || {
            let mut file = create_private(&temporary)?;
            file.write_all(content)?;
            file.sync_all()
        };
        write().map_err(failed("writing", &temporary))?;
        fs::rename(&temporary, &path).map_err(failed("renaming to", &path))?;
        let directory = path.parent().unwrap_or(&self.path);
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("syncing", directory))
    }
}

/// Makes a file that must not exist yet, with mode 0600 whatever the umask allows.
///
/// # Errors
/// What the system said; also when the file exists.
pub fn create_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Whether a file is this module's own.
fn is_own(name: &str) -> bool {
    [
        KEY_FILE,
        CERTIFICATE_FILE,
        BUNDLE_FILE,
        LOCK_FILE,
        rotation::NEXT_KEY_FILE,
        rotation::NEXT_CERTIFICATE_FILE,
        rotation::ROOTS_FILE,
    ]
    .contains(&name)
}

/// A name of plain parts that is none of this module's own; folders are parts with a slash between.
fn foreign_name(name: &str) -> Result<&str, StateError> {
    let parts = name.split('/').count();
    let is_plain = parts <= NAME_PARTS_MAX && name.split('/').all(archive::is_plain);
    if !is_plain || is_own(name) || name.ends_with(TEMPORARY_SUFFIX) || name.contains('\0') {
        return Err(StateError::Name(name.to_owned()));
    }
    Ok(name)
}

fn refuse_open_mode(path: &Path, mode: u32, wanted: u32) -> Result<(), StateError> {
    let mode = mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateError::Permissions {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |error| StateError::Io {
        action,
        path,
        error,
    }
}

#[cfg(test)]
mod tests;
