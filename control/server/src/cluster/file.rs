//! Declarations in one YAML file, followed while it changes, beside those of the node's own configuration.
//!
//! ```text
//! cluster.yaml ──> form ──> good? ──┐ no: what it said before stays, and the mistakes are told
//!                                   └──> merged with the fixed part ──> watchers
//! Write ──> what the file says now, changed ──> the file ──> watchers
//! ```
//!
//! A good text is kept beside the file, so that a start with a broken or missing one goes on with what it said before:
//! nothing that was declared vanishes by accident. Whoever really wants nothing writes an empty file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corinth_model::{ClusterName, TrustDomain};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{Cluster, Declared, DeclaredLink, Write, WriteError};

mod change;
mod disk;
mod document;
mod follow;
mod form;
mod merge;
mod mistake;
mod reader;
mod render;
#[cfg(test)]
mod tests;

pub use form::{Own, parse};
pub use mistake::{Mistake, Position};

/// All that can be declared, with comments.
pub const EXAMPLE: &str = include_str!("file/objects.example.yaml");

/// The file's name in the state directory, where no other is given.
pub const DEFAULT_NAME: &str = "cluster.yaml";

/// What ends the name under which the last good text is kept, beside the file.
pub const LAST_GOOD_SUFFIX: &str = ".last-good";

/// What is declared where we do not write.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    /// The declarations.
    pub declared: Declared,
    /// Where they stand, for people.
    pub place: String,
}

/// How the file is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileState {
    /// What is wrong with the text. If there is anything, it is not used; what it said before is.
    pub mistakes: Vec<Mistake>,
    /// What stands in the file although it is declared elsewhere, which wins.
    pub doubles: Vec<String>,
}

impl FileState {
    /// Whether the file cannot be used ([`corinth_model::Condition::Unreadable`]).
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        !self.mistakes.is_empty()
    }
}

/// Declarations in one file. Follows it until dropped.
#[derive(Debug)]
pub struct ObjectsFile {
    shared: Arc<Shared>,
    following: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    own: Own,
    /// Held by whoever reads or changes the file, so that one does not overtake the other. What takes it says that it
    /// blocks; readers of what is declared never do.
    disk: Mutex<Known>,
    fixed: RwLock<Arc<Fixed>>,
    declared: watch::Sender<Arc<Declared>>,
    state: watch::Sender<Arc<FileState>>,
}

/// What is known of the file.
#[derive(Debug)]
struct Known {
    /// The text that was looked at last; `None` if there was none.
    seen: Option<String>,
    /// What the last good text said.
    good: Declared,
    /// Whether the text that was looked at last is good.
    is_good: bool,
}

impl ObjectsFile {
    /// Reads the file and begins to follow it. A broken file is told ([`state`](Self::state)) and replaced by the last
    /// good text. Needs a tokio runtime with time; reads from disk.
    ///
    /// # Errors
    /// If the directory of the file cannot be read.
    pub fn open(path: impl Into<PathBuf>, own: Own, fixed: Fixed) -> io::Result<Self> {
        let path = path.into();
        let (text, last_good) = (disk::read(&path)?, disk::read(&last_good_path(&path))?);
        let before = last_good.as_deref().map(|text| parse(text, &own));
        let known = Known {
            seen: None,
            good: before.and_then(Result::ok).unwrap_or_default(),
            is_good: text.is_none() && last_good.is_none(),
        };
        let shared = Arc::new(Shared {
            path,
            own,
            disk: Mutex::new(known),
            fixed: RwLock::new(Arc::new(fixed)),
            declared: watch::Sender::default(),
            state: watch::Sender::default(),
        });
        {
            let mut known = shared.disk.lock();
            shared.take(&mut known, text);
            // Without a file there is still what is declared elsewhere.
            shared.publish(&known);
        }
        let following = tokio::spawn(follow::follow(Arc::clone(&shared)));
        Ok(Self { shared, following })
    }

    /// Replaces what is declared elsewhere, from now on. Blocks while the file is being written.
    pub fn set_static(&self, fixed: Fixed) {
        *self.shared.fixed.write() = Arc::new(fixed);
        let known = self.shared.disk.lock();
        self.shared.publish(&known);
    }

    /// How the file is now, and every change of that.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<FileState>> {
        self.shared.state.subscribe()
    }

    /// Looks at the file now; it is looked at by itself soon after it has changed, and once a minute. Blocks.
    pub fn look(&self) {
        self.shared.look();
    }
}

/// Reads one link in the form of the file.
///
/// # Errors
/// Every mistake, in words.
pub fn parse_link(
    text: &str,
    cluster: &ClusterName,
    trust_domain: &TrustDomain,
) -> Result<(ClusterName, DeclaredLink), String> {
    let own = Own {
        cluster: cluster.clone(),
        trust_domain: trust_domain.clone(),
    };
    let declared = parse(text, &own).map_err(|mistakes| {
        let mistakes: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        mistakes.join("\n")
    })?;
    let mut links = declared.links.into_iter();
    match (links.next(), links.next()) {
        (Some(link), None) => Ok(link),
        (None, _) => Err("there is no link in it".to_owned()),
        (Some(_), Some(_)) => Err("there is more than one link in it".to_owned()),
    }
}

/// Writes one link in the form of the file.
///
/// # Errors
/// If it cannot be written as YAML.
pub fn render_link(
    cluster: &ClusterName,
    link: DeclaredLink,
) -> Result<String, serde_saphyr::SerializeError> {
    let declared = Declared {
        links: BTreeMap::from([(cluster.clone(), link)]),
        ..Declared::default()
    };
    render::render(&declared)
}

impl Drop for ObjectsFile {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// Writing blocks while the file reaches the disk.
impl Cluster for ObjectsFile {
    fn declared(&self) -> watch::Receiver<Arc<Declared>> {
        self.shared.declared.subscribe()
    }

    fn write(&self, change: Write) -> Result<(), WriteError> {
        let shared = &self.shared;
        let mut known = shared.disk.lock();
        // Somebody may have changed the file a moment ago.
        let text = disk::read(&shared.path).map_err(|error| shared.failed(error))?;
        shared.take(&mut known, text);
        if !known.is_good {
            let why = "the file has mistakes of its own; mend them first";
            return Err(shared.failed(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let fixed = Arc::clone(&shared.fixed.read());
        let put = change::put(&change);
        let is_addition = change.is_addition();
        let changed = change::apply(&known.good, &fixed, change)?;
        shared.check(&put)?;
        let before = std::mem::replace(&mut known.good, changed);
        // Peers need not wait for the disk, which may take seconds; whoever asked for the change does. What takes away
        // cannot be taken back: streams would have ended.
        if is_addition {
            shared.publish(&known);
        }
        match shared.store(&known.good) {
            Ok(text) => {
                known.seen = Some(text);
                if !is_addition {
                    shared.publish(&known);
                }
                Ok(())
            }
            Err(error) => {
                known.good = before;
                shared.publish(&known);
                Err(error)
            }
        }
    }
}

impl Shared {
    /// What we write must be what we read, now and at the next start. Only what is new is read back: with thousands of
    /// services the whole takes longer than everything else.
    fn check(&self, put: &Declared) -> Result<(), WriteError> {
        match parse(&self.render(put)?, &self.own) {
            Ok(again) if again == *put => Ok(()),
            Ok(_) => Err(WriteError::Conflict(
                "it cannot be written down as it is".to_owned(),
            )),
            Err(mistakes) => {
                let first = mistakes.first().map(|mistake| mistake.message.clone());
                Err(WriteError::Conflict(first.unwrap_or_default()))
            }
        }
    }

    /// Writes the file, and the copy for a later start. The text.
    fn store(&self, declared: &Declared) -> Result<String, WriteError> {
        let text = self.render(declared)?;
        if text.len() > document::TEXT_MAX_BYTES {
            return Err(WriteError::Conflict(format!(
                "the file would have {} bytes, and at most {} are read",
                text.len(),
                document::TEXT_MAX_BYTES
            )));
        }
        disk::replace(&self.path, text.as_bytes()).map_err(|error| self.failed(error))?;
        self.keep(&text);
        Ok(text)
    }

    fn render(&self, declared: &Declared) -> Result<String, WriteError> {
        render::render(declared).map_err(|error| self.failed(io::Error::other(error.to_string())))
    }

    /// Reads the file and takes what has changed.
    fn look(&self) {
        let mut known = self.disk.lock();
        let text = match disk::read(&self.path) {
            Ok(text) => text,
            Err(error) => {
                return self.tell(&mut known, vec![unreadable(&error)]);
            }
        };
        self.take(&mut known, text);
    }

    /// Takes a text if it is good; tells its mistakes if not. Nothing happens if it was looked at before.
    fn take(&self, known: &mut Known, text: Option<String>) {
        if known.is_good && text == known.seen {
            return;
        }
        let read = match &text {
            Some(text) => parse(text, &self.own),
            None => Err(vec![gone()]),
        };
        let is_first = known.seen.is_none();
        known.seen = text;
        match read {
            Ok(declared) => {
                if !is_first {
                    info!(path = %self.path.display(), "links and exports read");
                }
                known.good = declared;
                known.is_good = true;
                if let Some(text) = &known.seen {
                    self.keep(text);
                }
                self.change_state(|state| state.mistakes.clear());
            }
            Err(mistakes) => self.tell(known, mistakes),
        }
        self.publish(known);
    }

    fn tell(&self, known: &mut Known, mistakes: Vec<Mistake>) {
        known.is_good = false;
        if self.state.borrow().mistakes == mistakes {
            return;
        }
        for mistake in &mistakes {
            warn!(
                path = %self.path.display(), line = mistake.at.line, column = mistake.at.column,
                message = %mistake.message, hint = %mistake.hint,
                "the file with links and exports is not used; what it said before is"
            );
        }
        self.change_state(|state| state.mistakes = mistakes);
    }

    /// Merges what the file says with what is declared elsewhere.
    fn publish(&self, known: &Known) {
        let fixed = Arc::clone(&self.fixed.read());
        let (declared, doubles) = merge::merge(&fixed, &known.good);
        for double in &doubles {
            if !self.state.borrow().doubles.contains(double) {
                warn!(path = %self.path.display(), "{double}");
            }
        }
        self.change_state(|state| state.doubles = doubles);
        self.declared.send_if_modified(|current| {
            let is_new = **current != declared;
            if is_new {
                *current = Arc::new(declared);
            }
            is_new
        });
    }

    fn change_state(&self, change: impl FnOnce(&mut FileState)) {
        self.state.send_if_modified(|state| {
            let mut next = (**state).clone();
            change(&mut next);
            let is_new = **state != next;
            if is_new {
                *state = Arc::new(next);
            }
            is_new
        });
    }

    /// Keeps a good text for a start with a broken one. Doing without costs nothing now.
    fn keep(&self, text: &str) {
        let path = last_good_path(&self.path);
        let kept = disk::read(&path).ok().flatten();
        if kept.as_deref() == Some(text) {
            return;
        }
        if let Err(error) = disk::replace(&path, text.as_bytes()) {
            warn!(path = %path.display(), %error, "the last good text cannot be kept");
        }
    }

    fn failed(&self, error: io::Error) -> WriteError {
        WriteError::Io {
            place: self.path.display().to_string(),
            error,
        }
    }
}

fn last_good_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(LAST_GOOD_SUFFIX);
    name.into()
}

fn gone() -> Mistake {
    Mistake {
        at: Position::default(),
        message: "the file is gone".to_owned(),
        hint: "put it back; an empty file declares nothing".to_owned(),
    }
}

fn unreadable(error: &io::Error) -> Mistake {
    Mistake {
        at: Position::default(),
        message: format!("the file cannot be read: {error}"),
        hint: "check that it is a text file of at most 4 MiB that this process may read".to_owned(),
    }
}
