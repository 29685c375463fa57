//! Files that the configuration names, and text that must not be shown.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::field::At;
use super::mistake::Position;

/// A file that the configuration names.
#[derive(Clone, Debug)]
pub struct NamedFile {
    pub(super) at: Position,
    path: PathBuf,
}

/// Text that is never shown, such as a private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl NamedFile {
    /// `written`, relative to the directory of the configuration `origin`.
    pub(super) fn new(written: At<PathBuf>, origin: &Path) -> Self {
        Self {
            at: written.at,
            path: beside(origin, &written.value),
        }
    }

    /// Where the file is, relative paths already resolved against the directory of the configuration.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Serialize for NamedFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.path.display())
    }
}

/// `path` relative to the directory in which the configuration lies.
pub(super) fn beside(origin: &Path, path: &Path) -> PathBuf {
    origin
        .parent()
        .map_or_else(|| path.to_owned(), |directory| directory.join(path))
}

impl Secret {
    pub(super) const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for whoever has to use it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
