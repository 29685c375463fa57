//! Keeps the last configuration that was applied, so that the gateway starts even when the file is gone or broken.
//!
//! Two generations lie in the state directory, each with a checksum in its first line. A new one is written beside the
//! old, which becomes the previous one; a damaged one never displaces a good one. Whatever moment the machine dies at,
//! one of the two is whole.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use corinth_daemon::disk;

use super::document::TEXT_MAX_BYTES;
use super::files::read_limited;

#[cfg(test)]
mod tests;

const CURRENT: &str = "last-good.yaml";
const PREVIOUS: &str = "last-good.previous.yaml";
const HEADER: &str = "# The last configuration that was applied, SHA-256 ";

/// The kept configurations of one state directory.
#[derive(Clone, Debug)]
pub struct LastGood {
    directory: PathBuf,
}

/// A configuration that was kept.
#[derive(Debug)]
pub struct Kept {
    /// The text, as it was applied.
    pub text: String,
    /// Which of the two it is.
    pub generation: Generation,
    /// What is wrong with the current one, where this is the previous one because of that.
    pub damage: Option<Damage>,
}

/// Which configuration was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The last that was applied.
    Current,
    /// The one before.
    Previous,
}

/// What is wrong with a kept configuration.
#[derive(Debug)]
pub enum Damage {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is not UTF-8, or does not begin with our first line.
    Foreign,
    /// It is not what was written.
    Checksum,
}

/// Why there is no configuration to start from, or none could be kept.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    /// Both generations are there and damaged, or one is and the other is not there.
    #[error("the kept configuration {} {current}; the one before it {}", path.display(), before(previous.as_ref()))]
    Damaged {
        /// Where the current one is.
        path: PathBuf,
        /// What is wrong with it.
        current: Damage,
        /// What is wrong with the previous one, if there is one.
        previous: Option<Damage>,
    },
    /// It cannot be written.
    #[error("cannot keep the configuration in {}: {source}", path.display())]
    Write {
        /// The state directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LastGood {
    /// The kept configurations in `state_dir`, which must exist when it is used.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            directory: state_dir.to_owned(),
        }
    }

    /// Keeps `text`; nothing is written if it is kept already.
    ///
    /// # Errors
    /// If it cannot be written; what was kept before is still there.
    pub fn store(&self, text: &str) -> Result<(), LastGoodError> {
        self.write(text).map_err(|source| LastGoodError::Write {
            path: self.directory.clone(),
            source,
        })
    }

    /// What was kept; `None` if nothing ever was.
    ///
    /// # Errors
    /// If something was, and none of it can be used.
    pub fn load(&self) -> Result<Option<Kept>, LastGoodError> {
        let path = self.directory.join(CURRENT);
        let damage = match read(&path) {
            Ok(Some(text)) => {
                return Ok(Some(Kept {
                    text,
                    generation: Generation::Current,
                    damage: None,
                }));
            }
            Ok(None) => None,
            Err(damage) => Some(damage),
        };
        match (read(&self.directory.join(PREVIOUS)), damage) {
            (Ok(Some(text)), damage) => Ok(Some(Kept {
                text,
                generation: Generation::Previous,
                damage,
            })),
            (Ok(None), None) => Ok(None),
            (Ok(None), Some(current)) => Err(LastGoodError::Damaged {
                path,
                current,
                previous: None,
            }),
            (Err(previous), Some(current)) => Err(LastGoodError::Damaged {
                path,
                current,
                previous: Some(previous),
            }),
            (Err(current), None) => Err(LastGoodError::Damaged {
                path: self.directory.join(PREVIOUS),
                current,
                previous: None,
            }),
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let current = self.directory.join(CURRENT);
        let kept = read(&current);
        if matches!(&kept, Ok(Some(kept)) if kept == text) {
            return Ok(());
        }
        if matches!(kept, Ok(Some(_))) {
            std::fs::rename(&current, self.directory.join(PREVIOUS))?;
            disk::sync(&self.directory)?;
        }
        let bytes = format!("{HEADER}{}\n{text}", checksum(text.as_bytes()));
        disk::replace(&current, bytes.as_bytes())
    }
}

fn read(path: &Path) -> Result<Option<String>, Damage> {
    let bytes = match read_limited(path, (TEXT_MAX_BYTES + 1024) as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Damage::Unreadable(error)),
    };
    let bytes = String::from_utf8(bytes).map_err(|_| Damage::Foreign)?;
    let rest = bytes.strip_prefix(HEADER).ok_or(Damage::Foreign)?;
    let (written, text) = rest.split_once('\n').ok_or(Damage::Foreign)?;
    if checksum(text.as_bytes()) == written {
        Ok(Some(text.to_owned()))
    } else {
        Err(Damage::Checksum)
    }
}

fn checksum(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read ({error})"),
            Self::Foreign => f.write_str("is not one of ours"),
            Self::Checksum => f.write_str("does not match its checksum"),
        }
    }
}

fn before(previous: Option<&Damage>) -> String {
    previous.map_or_else(|| "is not there".to_owned(), ToString::to_string)
}
