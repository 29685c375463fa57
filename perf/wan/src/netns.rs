//! Network namespaces by name.
//!
//! Namespaces made here are noted below `/run/corinth-wan`, with the process that made them. What a process left behind
//! that could not clean up is removed by the next one.

use std::{
    fs,
    fs::File,
    io,
    os::fd::AsFd,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process, thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{fault::Fault, program};

const NAMES: &str = "/run/netns";
const NOTES: &str = "/run/corinth-wan";

/// Does something in a network namespace, on a thread of its own. Sockets made by it stay there for good.
///
/// # Errors
/// When there is no such namespace, or we may not enter it.
pub fn within<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> Result<T, Fault> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| enter(namespace).map(|()| act()));
        inside.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Moves the calling thread.
pub(crate) fn enter(namespace: &str) -> Result<(), Fault> {
    let enter = || {
        let namespace = File::open(Path::new(NAMES).join(namespace))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(io::Error::from)
    };
    enter().map_err(|source| Fault::Enter {
        name: namespace.to_owned(),
        source,
    })
}

/// Whether everything else is reached through the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultRoute {
    Through,
    Elsewhere,
}

/// A namespace, removed when dropped if it was made here.
#[derive(Debug)]
pub(crate) enum Namespace {
    Given,
    Made { name: String },
}

impl Namespace {
    /// The namespace of this name, made if it is not there.
    pub(crate) fn find_or_make(name: &str) -> Result<Self, Fault> {
        if Path::new(NAMES).join(name).exists() {
            return Ok(Self::Given);
        }
        note(name).map_err(Fault::system("noting a namespace below /run/corinth-wan"))?;
        let made = Self::Made {
            name: name.to_owned(),
        };
        program::run("ip", &["netns", "add", name])?;
        program::run("ip", &["-n", name, "link", "set", "dev", "lo", "up"])?;
        Ok(made)
    }

    /// A namespace that was made here has nowhere else to send to.
    pub(crate) const fn default_route(&self) -> DefaultRoute {
        match self {
            Self::Given => DefaultRoute::Elsewhere,
            Self::Made { .. } => DefaultRoute::Through,
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        match self {
            Self::Given => {}
            Self::Made { name } => remove(name),
        }
    }
}

/// Removes the namespaces this process has made, whoever still uses them: for ending at once, without dropping what
/// stands. Devices in namespaces that were given end with the process.
pub fn clean_up() {
    let me = process::id().to_string();
    remove_those(|maker, _| maker == me);
}

/// Removes what processes left behind that are gone.
pub(crate) fn sweep() {
    remove_those(|maker, since| birth(maker).is_none_or(|now| now != since));
}

/// Removes the namespaces of those makers.
fn remove_those(is_meant: impl Fn(&str, &str) -> bool) {
    for entry in fs::read_dir(NOTES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let note = fs::read_to_string(entry.path()).unwrap_or_default();
        let (maker, since) = note.trim_end().split_once(' ').unwrap_or_default();
        if is_meant(maker, since) {
            remove(&name);
        }
    }
}

fn remove(name: &str) {
    if Path::new(NAMES).join(name).exists() {
        // There is nobody to tell: what cannot be removed now is tried again by the next sweep.
        if program::run("ip", &["netns", "del", name]).is_err() {
            return;
        }
    }
    let _ = fs::remove_file(note_of(name));
}

fn note(name: &str) -> io::Result<()> {
    let me = process::id().to_string();
    let since = birth(&me).unwrap_or_default();
    fs::create_dir_all(NOTES)?;
    fs::write(note_of(name), format!("{me} {since}\n"))
}

fn note_of(name: &str) -> PathBuf {
    Path::new(NOTES).join(name)
}

/// When a process began, in ticks since boot: with it, a process id means one process only.
fn birth(process: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything; the 20th word behind it is the 22nd of all.
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_birth() {
        let me = process::id().to_string();
        assert!(birth(&me).is_some_and(|since| since.parse::<u64>().is_ok()));
        assert_eq!(birth(&me), birth("self"));
        assert_ne!(birth(&me), birth("1"));
        assert_eq!(birth("no process"), None);
    }

    #[test]
    fn a_namespace_that_is_not_there_cannot_be_entered() {
        let fault = within("no-such-namespace", || ()).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "entering the network namespace `no-such-namespace`: No such file or directory (os error 2)"
        );
    }
}
