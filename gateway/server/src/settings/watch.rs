//! Watches the configuration, and the files it names, for changes.
//!
//! What is watched are the directories: editors replace a file by renaming another over it, and Kubernetes swaps a
//! link named `..data` beside it. Notices may be lost or not come at all (network file systems, a directory that was
//! replaced), so that everything is read again once a minute as well. Notices only say when to look: whether something
//! changed is decided by what stands in the files. Reading and parsing happen off the runtime's threads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use super::Settings;
use super::files::read_file;
use super::mistake::Mistakes;

#[cfg(test)]
mod tests;

/// How often everything is read again without a notice.
const POLL: Duration = Duration::from_mins(1);
/// How long to wait after a notice: whoever writes a file may not be done with it.
const SETTLE: Duration = Duration::from_millis(100);
/// How long a file may be gone while somebody replaces it.
const GONE: Duration = Duration::from_millis(400);

/// Watches until it is dropped. Needs a tokio runtime with time.
#[derive(Debug)]
pub struct ConfigWatch {
    changes: mpsc::Receiver<Result<Settings, Mistakes>>,
    task: JoinHandle<()>,
}

impl ConfigWatch {
    /// Watches the file that `current` was parsed from and the files it names.
    pub fn start(current: &Settings) -> Self {
        Self::every(current, POLL)
    }

    fn every(current: &Settings, poll: Duration) -> Self {
        // One change waits at most; the next one is looked for when that has been taken.
        let (sender, changes) = mpsc::channel(1);
        let (notice, notices) = mpsc::channel(1);
        let watching = Watching {
            path: current.origin.clone(),
            seen: fingerprint(current.text().as_bytes(), current),
            good: current.files().into_iter().map(Path::to_owned).collect(),
            directories: Directories::new(notice),
        };
        Self {
            changes,
            task: tokio::spawn(watching.run(sender, notices, poll)),
        }
    }

    /// Waits for the next change: the new settings, or what is wrong with them. The same mistakes come once.
    ///
    /// Also comes when only a file that the configuration names has changed. Cancel-safe. `None` after a failure of
    /// the watch itself, which does not happen.
    pub async fn next(&mut self) -> Option<Result<Settings, Mistakes>> {
        self.changes.recv().await
    }
}

impl Drop for ConfigWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the watching task owns.
struct Watching {
    path: PathBuf,
    /// What stood in the files when they were last looked at.
    seen: Fingerprint,
    /// The files that the last good configuration names.
    good: Vec<PathBuf>,
    directories: Directories,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fingerprint(Vec<u8>);

/// What one look found.
struct Look {
    fingerprint: Fingerprint,
    settings: Result<Settings, Mistakes>,
}

impl Watching {
    async fn run(
        mut self,
        sender: mpsc::Sender<Result<Settings, Mistakes>>,
        mut notices: mpsc::Receiver<()>,
        poll: Duration,
    ) {
        let mut again = tokio::time::interval(poll);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = again.tick() => {}
                Some(()) = notices.recv() => {
                    tokio::time::sleep(SETTLE).await;
                    // What was noticed until now is covered by the look that follows.
                    while notices.try_recv().is_ok() {}
                }
            }
            // Before looking, so that nothing changes unnoticed between the two.
            self.directories.refresh(&self.path, &self.good);
            let Some(look) = self.look().await else {
                continue;
            };
            if look.fingerprint == self.seen {
                continue;
            }
            self.seen = look.fingerprint;
            if let Ok(settings) = &look.settings {
                self.good = settings.files().into_iter().map(Path::to_owned).collect();
                self.directories.extend(&self.path, &self.good);
            }
            if sender.send(look.settings).await.is_err() {
                return;
            }
        }
    }

    /// Reads everything; `None` if the reading itself was cut short.
    async fn look(&self) -> Option<Look> {
        let look = look(self.path.clone()).await?;
        if self.path.exists() {
            return Some(look);
        }
        tokio::time::sleep(GONE).await;
        self::look(self.path.clone()).await
    }
}

async fn look(path: PathBuf) -> Option<Look> {
    let read = move || {
        let settings = Settings::read(&path);
        let fingerprint = match &settings {
            Ok(settings) => fingerprint(settings.text().as_bytes(), settings),
            Err(mistakes) => Fingerprint(mistakes.to_string().into_bytes()),
        };
        Look {
            fingerprint,
            settings,
        }
    };
    tokio::task::spawn_blocking(read).await.ok()
}

/// A digest of the text and of every file that it names.
fn fingerprint(text: &[u8], settings: &Settings) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    add(text);
    for path in settings.files() {
        match read_file(path) {
            Ok(bytes) => add(&bytes),
            Err(error) => add(error.kind().to_string().as_bytes()),
        }
    }
    Fingerprint(context.finish().as_ref().to_vec())
}

/// The directories that notices come from.
struct Directories {
    watcher: Option<notify::RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    notice: mpsc::Sender<()>,
}

impl Directories {
    fn new(notice: mpsc::Sender<()>) -> Self {
        let noticed = notice.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                // A full channel already holds the notice.
                let _ = noticed.try_send(());
            }
        });
        if let Err(error) = &watcher {
            warn!(%error, "no notices of file changes; the configuration is read every minute");
        }
        Self {
            watcher: watcher.ok(),
            watched: BTreeSet::new(),
            notice,
        }
    }

    /// Watches all anew, because a directory may have been replaced by another of its name.
    fn refresh(&mut self, path: &Path, named: &[PathBuf]) {
        if let Some(watcher) = &mut self.watcher {
            for old in std::mem::take(&mut self.watched) {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(&old);
            }
        }
        self.add(path, named);
    }

    /// Watches what is not watched yet. What changed there since it was read is seen by another look.
    fn extend(&mut self, path: &Path, named: &[PathBuf]) {
        if self.add(path, named) {
            let _ = self.notice.try_send(());
        }
    }

    /// Watches where the files are, and where they are after following links; says whether a directory was new.
    fn add(&mut self, path: &Path, named: &[PathBuf]) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let files = named.iter().map(PathBuf::as_path).chain([path]);
        let wanted: BTreeSet<_> = files.flat_map(directories).collect();
        let before = self.watched.len();
        for directory in wanted {
            // One that does not exist yet is tried again at the next look.
            if !self.watched.contains(&directory)
                && watcher
                    .watch(&directory, RecursiveMode::NonRecursive)
                    .is_ok()
            {
                self.watched.insert(directory);
            }
        }
        self.watched.len() > before
    }
}

fn directories(file: &Path) -> impl Iterator<Item = PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        other => other.map(Path::to_owned),
    };
    let real = file.canonicalize().ok();
    [parent(file), real.as_deref().and_then(parent)]
        .into_iter()
        .flatten()
}

/// Whether an event may mean new content; our own reading must not.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}
