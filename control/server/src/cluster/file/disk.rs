//! Reads a file within bounds, and writes it whole or not at all.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::document::TEXT_MAX_BYTES;

/// The text of a file; `None` if there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    let mut text = String::new();
    // One byte more than is taken, so that too much is noticed.
    file.take(TEXT_MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    if text.len() > TEXT_MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(text))
}

/// Replaces a file by `bytes`, for our eyes only (0600); after a crash it is the old file or the new one. A link is
/// followed, so that what it leads to is replaced.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    corinth_daemon::disk::replace(&path, bytes)
}
