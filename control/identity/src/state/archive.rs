//! A state directory as one file, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use corinth_model::TrustDomain;
use serde::{Deserialize, Serialize};

use super::rotation::{NEXT_CERTIFICATE_FILE, NEXT_KEY_FILE, ROOTS_FILE, RootsFile};
use super::{BUNDLE_FILE, CERTIFICATE_FILE, KEY_FILE, StateDir, StateError, failed, foreign_name};
use crate::authority::Authority;
use crate::bundle::Bundle;

/// Largest archive [`StateDir::restore`] reads, in bytes.
pub const ARCHIVE_MAX_BYTES: u64 = 64 * 1024 * 1024;

const ARCHIVE_FORMAT: &str = "corinth-backup/1";

/// Files of this module that every directory has.
const NEEDED: [&str; 3] = [KEY_FILE, CERTIFICATE_FILE, BUNDLE_FILE];

/// Files of this module that a directory has once its root was changed.
const OF_ROTATION: [&str; 3] = [NEXT_KEY_FILE, NEXT_CERTIFICATE_FILE, ROOTS_FILE];

/// The backup, as JSON: every file as text. Secret: it holds the authority's key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Archive {
    format: String,
    files: BTreeMap<String, String>,
}

impl StateDir {
    /// Writes a backup: the authority, its roots, and of `further` what exists: files by name, and all files of the
    /// folders that are given with a slash at the end, folders in them included. The output is secret; make its file
    /// with [`create_private`](super::create_private).
    ///
    /// # Errors
    /// No authority yet, a file that cannot be read, or an output that fails.
    pub fn backup(&self, further: &[&str], output: &mut impl Write) -> Result<(), StateError> {
        let _lock = self.lock()?;
        let mut files = BTreeMap::new();
        for name in NEEDED {
            let text = self.read_text(name)?.ok_or_else(|| StateError::Empty {
                path: self.path.clone(),
            })?;
            files.insert(name.to_owned(), text);
        }
        let mut names: BTreeSet<String> = OF_ROTATION.iter().map(ToString::to_string).collect();
        for name in further {
            match name.strip_suffix('/') {
                Some(folder) => self.names_below(folder, &mut names)?,
                None => {
                    names.insert(foreign_name(name)?.to_owned());
                }
            }
        }
        for name in names {
            if let Some(text) = self.read_text(&name)? {
                files.insert(name, text);
            }
        }
        let archive = Archive {
            format: ARCHIVE_FORMAT.to_owned(),
            files,
        };
        let mut text = serde_json::to_vec_pretty(&archive).expect("texts are JSON");
        text.push(b'\n');
        if text.len() as u64 > ARCHIVE_MAX_BYTES {
            return Err(StateError::BackupTooLarge {
                path: self.path.clone(),
            });
        }
        output
            .write_all(&text)
            .map_err(failed("writing the backup of", &self.path))
    }

    /// Adds the names of all files below a folder; those that are being written are left out.
    fn names_below(&self, folder: &str, names: &mut BTreeSet<String>) -> Result<(), StateError> {
        let path = self.path.join(foreign_name(folder)?);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("reading", &path)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed("reading", &path))?;
            let kind = entry.file_type().map_err(failed("looking at", &path))?;
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if foreign_name(&name).is_err() {
                continue;
            }
            if kind.is_dir() {
                self.names_below(&name, names)?;
            } else if kind.is_file() {
                names.insert(name);
            }
        }
        Ok(())
    }

    /// Reads a backup into this directory, which must not hold an authority yet; files named in `leave_out` are not
    /// restored. Everything is checked before the first file is written.
    ///
    /// # Errors
    /// An archive that is damaged or of another trust domain, or a directory that is in use.
    pub fn restore(
        &self,
        trust_domain: &TrustDomain,
        leave_out: &[&str],
        input: impl Read,
    ) -> Result<(), StateError> {
        let mut archive = read_archive(input)?;
        check_archive(&archive, trust_domain)?;
        archive
            .files
            .retain(|name, _| !leave_out.contains(&name.as_str()));
        let _lock = self.lock()?;
        // What is left out must not be there either, or it would be taken for what was restored.
        let names = archive.files.keys().map(String::as_str);
        for name in names.chain(leave_out.iter().copied()) {
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
            self.make_folders(name)?;
            self.put(name, text.as_bytes())?;
        }
        Ok(())
    }
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
    let damaged = |error: &dyn std::error::Error| StateError::Archive(error.to_string());
    let file = |name: &str| archive.files.get(name).map(String::as_str);
    let needed =
        |name: &str| file(name).ok_or_else(|| StateError::Archive(format!("{name} is missing")));
    let (certificate, key) = (needed(CERTIFICATE_FILE)?, needed(KEY_FILE)?);
    let bundle = needed(BUNDLE_FILE)?;
    Authority::from_pem(trust_domain.clone(), certificate, key).map_err(|error| damaged(&error))?;
    Bundle::from_pem(trust_domain.clone(), bundle.as_bytes(), 0)
        .map_err(|error| damaged(&error))?;
    if let (Some(certificate), Some(key)) = (file(NEXT_CERTIFICATE_FILE), file(NEXT_KEY_FILE)) {
        Authority::from_pem(trust_domain.clone(), certificate, key)
            .map_err(|error| damaged(&error))?;
    }
    if let Some(roots) = file(ROOTS_FILE)
        && RootsFile::read(roots.as_bytes()).is_none()
    {
        return Err(StateError::Archive(format!("{ROOTS_FILE} cannot be read")));
    }
    for name in archive.files.keys() {
        let is_ours = NEEDED.iter().chain(&OF_ROTATION).any(|ours| ours == name);
        if !is_ours {
            foreign_name(name)?;
        }
    }
    Ok(())
}

/// Whether a part of a name is a plain file name.
pub(super) fn is_plain(part: &str) -> bool {
    Path::new(part).file_name() == Some(OsStr::new(part)) && !part.starts_with('.')
}
