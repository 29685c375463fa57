//! Where access log lines go, and the open file behind it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::AccessLogError;

/// Where access log lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// Standard error, between the lines of the log.
    Stderr,
    /// A file, appended to and created with mode 0640 when missing.
    File(PathBuf),
}

/// An open target.
pub(super) struct Output {
    pub(super) file: File,
    /// Set where the file has a name that a rotation may take away.
    path: Option<PathBuf>,
}

impl AccessLogTarget {
    /// Opens the target; nothing for `Off`.
    pub(super) fn open(self) -> Result<Option<Output>, AccessLogError> {
        match self {
            Self::Off => Ok(None),
            Self::Stdout => stream("stdout", io::stdout().as_fd()).map(Some),
            Self::Stderr => stream("stderr", io::stderr().as_fd()).map(Some),
            Self::File(path) => {
                let file = append(&path).map_err(|source| AccessLogError::Open {
                    path: path.display().to_string(),
                    source,
                })?;
                let path = Some(path);
                Ok(Some(Output { file, path }))
            }
        }
    }
}

/// `off`, `stdout`, `stderr`, or a path holding a slash.
impl FromStr for AccessLogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "stdout" => Ok(Self::Stdout),
            "stderr" => Ok(Self::Stderr),
            path if path.contains('/') && !path.ends_with('/') => Ok(Self::File(path.into())),
            other => Err(format!(
                "{other:?} is no place for the access log; write off, stdout, stderr or a path such as ./access.log"
            )),
        }
    }
}

impl fmt::Display for AccessLogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Output {
    /// Opens the file's name anew if it no longer leads to the open file; `true` if it did. When that fails the old
    /// file stays open, so that lines still go somewhere.
    pub(super) fn follow(&mut self) -> io::Result<bool> {
        let Some(path) = &self.path else {
            return Ok(false);
        };
        let held = self.file.metadata()?;
        let same = path
            .metadata()
            .is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino()));
        if same {
            return Ok(false);
        }
        self.file = append(path)?;
        Ok(true)
    }
}

/// A descriptor of our own for a standard stream, without the buffer and lock std puts before it.
fn stream(target: &'static str, descriptor: BorrowedFd<'_>) -> Result<Output, AccessLogError> {
    let own = descriptor
        .try_clone_to_owned()
        .map_err(|source| AccessLogError::Stream { target, source })?;
    let file = File::from(own);
    Ok(Output { file, path: None })
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}
