//! Where a result goes: what was there before stays until all of it is there.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Where a result is written.
pub(super) enum Place {
    /// Standard output.
    Stdout,
    /// Something that cannot be replaced, such as a pipe or a terminal.
    Direct,
    /// A file beside the one it is going to replace.
    Beside(Beside),
}

/// A file that is gone again, unless it is kept.
pub(super) struct Beside {
    written: PathBuf,
    kept_as: PathBuf,
}

/// Opens what is going to be at this path.
pub(super) fn open(path: &Path) -> io::Result<(Box<dyn Write>, Place)> {
    let before = fs::metadata(path).ok();
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        let direct = File::options().write(true).open(path)?;
        return Ok((Box::new(direct), Place::Direct));
    }
    // What a link points to is replaced, not the link.
    let kept_as = match &before {
        Some(_) => fs::canonicalize(path)?,
        None => path.to_owned(),
    };
    let Some(name) = kept_as.file_name() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let written = kept_as.with_file_name(hidden);
    let file = File::create(&written)?;
    let beside = Beside { written, kept_as };
    if let Some(before) = before {
        file.set_permissions(before.permissions())?;
    }
    Ok((Box::new(file), Place::Beside(beside)))
}

impl Place {
    /// All is written: it takes the place of what was there.
    pub(super) fn keep(&self) -> io::Result<()> {
        match self {
            Self::Stdout | Self::Direct => Ok(()),
            Self::Beside(beside) => fs::rename(&beside.written, &beside.kept_as),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It is not there any more if it was kept.
        let _ = fs::remove_file(&self.written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_there_stays_until_it_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "before").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let both = [file.clone(), link.clone()];
        for is_kept in [false, true] {
            let (mut to, place) = open(&link).unwrap();
            to.write_all(b"after").unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), "before");
            if is_kept {
                place.keep().unwrap();
                assert_eq!(fs::read_to_string(&file).unwrap(), "after");
            }
            drop(place);
            assert_eq!(names(folder.path()), both);
        }
        assert!(link.is_symlink());
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let (_, place) = open(Path::new("/dev/null")).unwrap();
        assert!(matches!(place, Place::Direct));
    }
}
