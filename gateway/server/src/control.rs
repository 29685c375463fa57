//! The control plane beside a gateway, as far as connections need it: where streams are handed over, and how many.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use corinth_api::HandOver;
use corinth_model::ClusterName;
use parking_lot::Mutex;
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::settings::Control;

/// Most streams between control planes that one peer may have open here, and most that we open to it: a conversation
/// is one stream, and a new one may begin before the old one has ended.
const PEERING_MAX: u32 = 4;
/// Most of those who want to be linked, at a time.
const JOINING_MAX: usize = 10;
/// Most of those who begin to want to be linked within [`JOINING_WINDOW`].
const JOINING_BEGUN_MAX: usize = 20;
const JOINING_WINDOW: Duration = Duration::from_secs(1);
/// A control plane on the same host takes a connection within this time, or it is not there.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

/// The control plane beside a gateway.
pub(crate) struct ControlPlane {
    handover: PathBuf,
    peering: Arc<Mutex<BTreeMap<(ClusterName, Opener), u32>>>,
    joining: Arc<Semaphore>,
    /// When those of the last [`JOINING_WINDOW`] began.
    joining_begun: Mutex<VecDeque<Instant>>,
}

/// Which side opened a stream between control planes. Neither can use up the places of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Opener {
    /// We did.
    Own,
    /// The peer did.
    Peer,
}

/// One of the streams between control planes, counted until this is dropped.
pub(crate) struct PeeringPlace {
    counts: Arc<Mutex<BTreeMap<(ClusterName, Opener), u32>>>,
    key: (ClusterName, Opener),
}

/// The control plane does not take what is handed over: it does not run, or it hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotTaken;

impl ControlPlane {
    pub(crate) fn new(settings: &Control) -> Self {
        Self {
            handover: settings.handover.clone(),
            peering: Arc::default(),
            joining: Arc::new(Semaphore::new(JOINING_MAX)),
            joining_begun: Mutex::default(),
        }
    }

    /// A place for a stream to or from the control plane of `cluster`, if there is one.
    pub(crate) fn enter(&self, cluster: &ClusterName, opener: Opener) -> Option<PeeringPlace> {
        let key = (cluster.clone(), opener);
        let mut counts = self.peering.lock();
        let count = counts.entry(key.clone()).or_insert(0);
        if *count >= PEERING_MAX {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(PeeringPlace {
            counts: Arc::clone(&self.peering),
            key,
        })
    }

    /// A place for somebody who wants to be linked, if there is one.
    pub(crate) fn enter_joining(&self, now: Instant) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.joining).try_acquire_owned().ok()?;
        let mut begun = self.joining_begun.lock();
        let is_over = |begun: &Instant| now.saturating_duration_since(*begun) >= JOINING_WINDOW;
        while begun.front().is_some_and(is_over) {
            begun.pop_front();
        }
        if begun.len() >= JOINING_BEGUN_MAX {
            return None;
        }
        begun.push_back(now);
        Some(permit)
    }

    /// Connects to where streams are handed over and says which one this is; its own bytes follow.
    pub(crate) async fn hand_over(&self, what: &HandOver) -> Result<UnixStream, NotTaken> {
        let connected = async {
            let mut socket = UnixStream::connect(&self.handover).await?;
            socket.write_all(&what.encode()).await?;
            std::io::Result::Ok(socket)
        };
        match timeout(TAKEN_WITHIN, connected).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(_)) | Err(_) => Err(NotTaken),
        }
    }
}

impl Drop for PeeringPlace {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> ControlPlane {
        ControlPlane::new(&Control::in_state_dir("/nowhere".as_ref()))
    }

    fn cluster(name: &str) -> ClusterName {
        ClusterName::parse(name).unwrap()
    }

    #[test]
    fn a_peer_has_four_streams_and_takes_none_from_others() {
        let (control, west) = (control(), cluster("west"));
        let enter = || control.enter(&west, Opener::Peer);
        let mut places: Vec<_> = std::iter::repeat_with(enter).take(4).collect();
        assert!(places.iter().all(Option::is_some) && enter().is_none());
        assert!(control.enter(&west, Opener::Own).is_some());
        assert!(control.enter(&cluster("north"), Opener::Peer).is_some());
        places.pop();
        assert!(enter().is_some());
        drop(places);
        assert!(control.peering.lock().is_empty());
    }

    #[test]
    fn ten_may_want_to_be_linked_at_a_time() {
        let control = control();
        let now = Instant::now();
        let mut places: Vec<_> = std::iter::repeat_with(|| control.enter_joining(now))
            .take(10)
            .collect();
        assert!(places.iter().all(Option::is_some) && control.enter_joining(now).is_none());
        places.pop();
        assert!(control.enter_joining(now).is_some());
    }

    #[test]
    fn twenty_may_begin_to_be_linked_in_any_second() {
        let control = control();
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        for number in 0..20 {
            assert!(control.enter_joining(at(number * 10)).is_some(), "{number}");
        }
        assert!(control.enter_joining(at(999)).is_none());
        // As many as a second ago.
        assert!(control.enter_joining(at(1_000)).is_some());
        assert!(control.enter_joining(at(1_000)).is_none());
        assert!(control.enter_joining(at(1_010)).is_some());
    }

    #[tokio::test]
    async fn without_a_control_plane_nothing_is_taken() {
        let source = "192.0.2.7:40000".parse().unwrap();
        let taken = control().hand_over(&HandOver::Joining { source }).await;
        assert_eq!(taken.map(|_| ()), Err(NotTaken));
    }
}
