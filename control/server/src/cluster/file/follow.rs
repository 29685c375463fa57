//! Says when to look at the file: soon after a notice, and once a minute without one.
//!
//! The directory is watched, because editors replace a file by renaming another over it and Kubernetes swaps a link
//! beside it. Whether something has changed is decided by what stands in the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::warn;

use super::Shared;

/// How often the file is looked at without a notice.
const POLL: Duration = Duration::from_mins(1);
/// How long to wait after a notice: whoever writes may not be done.
const SETTLE: Duration = Duration::from_millis(100);
/// How long a file may be gone while somebody replaces it.
const GONE: Duration = Duration::from_millis(400);

/// Looks whenever there may be something new, until aborted.
pub(super) async fn follow(shared: Arc<Shared>) {
    let (notice, mut notices) = mpsc::channel(1);
    let mut watcher = watcher(notice);
    let mut watched = Vec::new();
    let mut again = interval(POLL);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = again.tick() => {}
            Some(()) = notices.recv() => {
                sleep(SETTLE).await;
                while notices.try_recv().is_ok() {}
            }
        }
        if let Some(watcher) = &mut watcher {
            // Before looking, so that nothing changes unnoticed between the two.
            refresh(watcher, &mut watched, &shared.path);
        }
        if !shared.path.exists() {
            sleep(GONE).await;
        }
        let looking = Arc::clone(&shared);
        // A look that panicked is made again.
        let _ = tokio::task::spawn_blocking(move || looking.look()).await;
    }
}

fn watcher(notice: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| is_change(event.kind)) {
            // A full channel already holds the notice.
            let _ = notice.try_send(());
        }
    });
    if let Err(error) = &watcher {
        warn!(%error, "no notices of file changes; links and exports are read every minute");
    }
    watcher.ok()
}

/// Watches where the file is, and where it is after following links; anew each time, because a directory may have been
/// replaced by another of its name.
fn refresh(watcher: &mut notify::RecommendedWatcher, watched: &mut Vec<PathBuf>, file: &Path) {
    for old in watched.drain(..) {
        // It may be gone, and its watch with it.
        let _ = watcher.unwatch(&old);
    }
    for directory in directories(file) {
        let is_watched = watched.contains(&directory);
        if !is_watched
            && watcher
                .watch(&directory, RecursiveMode::NonRecursive)
                .is_ok()
        {
            watched.push(directory);
        }
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
