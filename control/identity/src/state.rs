//! The state directory of a standalone node: its authority, and what else must survive a restart.
//!
//! The directory is 0700 and every file in it 0600. A file is replaced by writing a temporary one beside it, syncing and
//! renaming it, so a crash leaves the old content or the new. The key is written before the certificate: a crash between
//! the two is repaired by making the certificate anew for that key, which changes nothing for peers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use corinth_model::TrustDomain;
use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, AuthorityError};
use crate::bundle::{Bundle, BundleError};

/// Largest archive [`StateDir::restore`] reads, in bytes.
pub const ARCHIVE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Largest file kept in the directory, in bytes.
const FILE_MAX_BYTES: u64 = 8 * 1024 * 1024;

const KEY_FILE: &str = "ca.key";
const CERTIFICATE_FILE: &str = "ca.pem";
const BUNDLE_FILE: &str = "bundle.pem";
const LOCK_FILE: &str = "lock";
const TEMPORARY_SUFFIX: &str = ".new";
const ARCHIVE_FORMAT: &str = "corinth-backup/1";

/// A directory that belongs to one standalone node.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// What [`StateDir::load_or_create`] found or made.
#[derive(Debug)]
pub struct State {
    /// The authority of the node's trust domain.
    pub authority: Authority,
    /// The roots to hand to peers: the authority's own, and earlier ones during a change of root.
    pub bundle: Bundle,
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
    #[error("{0} is larger than {FILE_MAX_BYTES} bytes, so it is not ours; move it away")]
    TooLarge(PathBuf),
    /// The certificate is there but the key is not.
    #[error(
        "{path} has {CERTIFICATE_FILE} but no {KEY_FILE}: restore the backup of this directory, or remove \
         {CERTIFICATE_FILE} to start with a new authority (every link must then be made anew)"
    )]
    KeyMissing {
        /// The directory.
        path: PathBuf,
    },
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

/// The backup, as JSON: every file as text. Secret: it holds the authority's key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Archive {
    format: String,
    files: BTreeMap<String, String>,
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
        let broken = |error| StateError::Authority {
            path: self.path.clone(),
            error,
        };
        let key = self.read_text(KEY_FILE)?;
        let certificate = self.read_text(CERTIFICATE_FILE)?;
        let is_new = key.is_none();
        let authority = match (key, certificate) {
            (Some(key), Some(certificate)) => {
                Authority::from_pem(trust_domain.clone(), &certificate, &key).map_err(broken)?
            }
            (Some(key), None) => {
                let authority =
                    Authority::from_key_pem(trust_domain.clone(), &key, now).map_err(broken)?;
                self.put(CERTIFICATE_FILE, authority.certificate_pem().as_bytes())?;
                authority
            }
            (None, Some(_)) => {
                return Err(StateError::KeyMissing {
                    path: self.path.clone(),
                });
            }
            (None, None) => self.create(trust_domain, now)?,
        };
        let bundle = self.load_bundle(&authority)?;
        Ok(State {
            authority,
            bundle,
            is_new,
        })
    }

    fn create(&self, trust_domain: &TrustDomain, now: UnixTime) -> Result<Authority, StateError> {
        let made = Authority::create(trust_domain.clone(), now);
        let authority = made.map_err(|error| StateError::Authority {
            path: self.path.clone(),
            error,
        })?;
        self.put(KEY_FILE, authority.key_pem().as_bytes())?;
        self.put(CERTIFICATE_FILE, authority.certificate_pem().as_bytes())?;
        Ok(authority)
    }

    /// The bundle file, made from the authority if it is missing. It must contain the authority's own root, or peers
    /// that take it would refuse us.
    fn load_bundle(&self, authority: &Authority) -> Result<Bundle, StateError> {
        let Some(pem) = self.read_text(BUNDLE_FILE)? else {
            self.put(BUNDLE_FILE, authority.certificate_pem().as_bytes())?;
            return Ok(authority.bundle(0));
        };
        let broken = |error| StateError::Bundle {
            path: self.path.clone(),
            error,
        };
        let bundle = Bundle::from_pem(authority.trust_domain().clone(), pem.as_bytes(), 0)
            .map_err(broken)?;
        if bundle.roots().contains(authority.root()) {
            return Ok(bundle);
        }
        let pem = format!("{}{pem}", authority.certificate_pem());
        let bundle = Bundle::from_pem(authority.trust_domain().clone(), pem.as_bytes(), 0)
            .map_err(broken)?;
        self.put(BUNDLE_FILE, pem.as_bytes())?;
        Ok(bundle)
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
        self.put(foreign_name(name)?, content)
    }

    /// Writes a backup: the authority, its bundle, and those of the files `further` that exist. The output is secret;
    /// make its file with [`create_private`].
    ///
    /// # Errors
    /// No authority yet, a file that cannot be read, or an output that fails.
    pub fn backup(&self, further: &[&str], output: &mut impl Write) -> Result<(), StateError> {
        let _lock = self.lock()?;
        let mut files = BTreeMap::new();
        for name in [KEY_FILE, CERTIFICATE_FILE, BUNDLE_FILE] {
            let text = self.read_text(name)?.ok_or_else(|| StateError::Empty {
                path: self.path.clone(),
            })?;
            files.insert(name.to_owned(), text);
        }
        for name in further {
            if let Some(text) = self.read_text(foreign_name(name)?)? {
                files.insert((*name).to_owned(), text);
            }
        }
        let archive = Archive {
            format: ARCHIVE_FORMAT.to_owned(),
            files,
        };
        let written = serde_json::to_writer_pretty(&mut *output, &archive).map_err(io::Error::from);
        written
            .and_then(|()| writeln!(output))
            .map_err(failed("writing the backup of", &self.path))
    }

    /// Reads a backup into this directory, which must not hold an authority yet. Everything is checked before the first
    /// file is written.
    ///
    /// # Errors
    /// An archive that is damaged or of another trust domain, or a directory that is in use.
    pub fn restore(&self, trust_domain: &TrustDomain, input: impl Read) -> Result<(), StateError> {
        let archive = read_archive(input)?;
        check_archive(&archive, trust_domain)?;
        let _lock = self.lock()?;
        for name in archive.files.keys() {
            let path = self.path.join(name);
            if fs::symlink_metadata(&path).is_ok() {
                return Err(StateError::Occupied(path));
            }
        }
        // The key goes last: until it is there, a half-restored directory is refused (KeyMissing), never used.
        let (keys, others): (Vec<_>, Vec<_>) = archive
            .files
            .iter()
            .partition(|(name, _)| *name == KEY_FILE);
        for (name, text) in others.into_iter().chain(keys) {
            self.put(name, text.as_bytes())?;
        }
        Ok(())
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
        let mut content = Vec::new();
        let file = File::open(&path).map_err(failed("opening", &path))?;
        file.take(FILE_MAX_BYTES + 1)
            .read_to_end(&mut content)
            .map_err(failed("reading", &path))?;
        if content.len() as u64 > FILE_MAX_BYTES {
            return Err(StateError::TooLarge(path));
        }
        Ok(Some(content))
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
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(failed("syncing", &self.path))
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

fn read_archive(input: impl Read) -> Result<Archive, StateError> {
    let mut text = String::new();
    let read = input.take(ARCHIVE_MAX_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| StateError::Archive(error.to_string()))?;
    if text.len() as u64 > ARCHIVE_MAX_BYTES {
        return Err(StateError::Archive(format!(
            "larger than {ARCHIVE_MAX_BYTES} bytes"
        )));
    }
    // Only the place is told: the parser's text could quote the key.
    serde_json::from_str(&text).map_err(|error| {
        StateError::Archive(format!("line {}, column {}", error.line(), error.column()))
    })
}

fn check_archive(archive: &Archive, trust_domain: &TrustDomain) -> Result<(), StateError> {
    if archive.format != ARCHIVE_FORMAT {
        return Err(StateError::Archive(format!(
            "its format is not {ARCHIVE_FORMAT}"
        )));
    }
    let file = |name: &str| {
        let text = archive.files.get(name).map(String::as_str);
        text.ok_or_else(|| StateError::Archive(format!("{name} is missing")))
    };
    let (certificate, key, bundle) = (file(CERTIFICATE_FILE)?, file(KEY_FILE)?, file(BUNDLE_FILE)?);
    let authority = Authority::from_pem(trust_domain.clone(), certificate, key);
    authority.map_err(|error| StateError::Archive(error.to_string()))?;
    let bundle = Bundle::from_pem(trust_domain.clone(), bundle.as_bytes(), 0);
    bundle.map_err(|error| StateError::Archive(error.to_string()))?;
    for name in archive.files.keys() {
        if ![KEY_FILE, CERTIFICATE_FILE, BUNDLE_FILE].contains(&name.as_str()) {
            foreign_name(name)?;
        }
    }
    Ok(())
}

/// A plain file name that is none of this module's own.
fn foreign_name(name: &str) -> Result<&str, StateError> {
    let is_plain = Path::new(name).file_name() == Some(OsStr::new(name)) && !name.starts_with('.');
    let is_ours = [KEY_FILE, CERTIFICATE_FILE, BUNDLE_FILE, LOCK_FILE].contains(&name);
    if !is_plain || is_ours || name.ends_with(TEMPORARY_SUFFIX) || name.contains('\0') {
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
