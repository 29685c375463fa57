//! What lies between two gateways, and how it fails.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Acquire},
        },
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{link::MemoryLink, wire::Wire};
use crate::LinkState;

/// One end of a path: that of the smaller or of the larger of the two gateway ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Lower,
    Upper,
}

impl End {
    pub(super) const BOTH: [Self; 2] = [Self::Lower, Self::Upper];

    pub(super) fn other(self) -> Self {
        match self {
            Self::Lower => Self::Upper,
            Self::Upper => Self::Lower,
        }
    }
}

/// What lies between two gateways. It is there whether or not they are linked.
#[derive(Default)]
pub(super) struct Path {
    /// True while nothing passes.
    is_black: AtomicBool,
    /// Wakes who waits for the path to turn, in the order in which they came. (A watch channel wakes
    /// them in random order.)
    turned: Notify,
    ends: Mutex<Ends>,
    streams: Mutex<Streams>,
}

/// The links at both ends; each lives as long as its gateway remembers it.
#[derive(Default)]
struct Ends {
    lower: Weak<MemoryLink>,
    upper: Weak<MemoryLink>,
}

#[derive(Default)]
struct Streams {
    next: u64,
    wires: BTreeMap<u64, Weak<Wire>>,
}

impl Path {
    pub(super) fn is_black(&self) -> bool {
        self.is_black.load(Acquire)
    }

    /// Waits until nothing passes, or something does again.
    pub(super) async fn until_black(&self, wanted: bool) {
        loop {
            // A turn between the look and the wait is not missed: the notice is taken from here on.
            let turned = self.turned.notified();
            if self.is_black() == wanted {
                return;
            }
            turned.await;
        }
    }

    /// Returns how it was before.
    fn turn(&self, is_black: bool) -> bool {
        let was_black = self.is_black.swap(is_black, AcqRel);
        self.turned.notify_waiters();
        was_black
    }

    pub(super) fn attach(&self, end: End, link: Weak<MemoryLink>) {
        let mut ends = self.ends.lock();
        match end {
            End::Lower => ends.lower = link,
            End::Upper => ends.upper = link,
        }
    }

    /// The link at one end, if there is one that is not closed.
    pub(super) fn link(&self, end: End) -> Option<Arc<MemoryLink>> {
        let ends = self.ends.lock();
        let link = match end {
            End::Lower => ends.lower.upgrade(),
            End::Upper => ends.upper.upgrade(),
        };
        drop(ends);
        link.filter(|link| link.is_open())
    }

    pub(super) fn open_stream(self: &Arc<Self>, opened_by: End) -> Arc<Wire> {
        let mut streams = self.streams.lock();
        let number = streams.next;
        streams.next += 1;
        let wire = Arc::new(Wire::new(Arc::clone(self), number, opened_by));
        streams.wires.insert(number, Arc::downgrade(&wire));
        wire
    }

    /// Both sides of the stream are gone.
    pub(super) fn forget(&self, number: u64) {
        self.streams.lock().wires.remove(&number);
    }

    /// Hands a stream whose header arrived to the gateway at its end; without one it is cut.
    pub(super) fn deliver(&self, wire: Arc<Wire>, header: &[u8]) {
        match self.link(wire.accepted_by()) {
            Some(link) => link.serve(wire, header),
            None => wire.sever(),
        }
    }

    pub(super) fn cut(&self) {
        self.turn(true);
    }

    pub(super) fn heal(&self) {
        if !self.turn(false) {
            return;
        }
        for wire in self.wires() {
            wire.arrive_all();
        }
        // What a link said while nothing passed is heard now.
        for end in End::BOTH {
            let (near, far) = (self.link(end), self.link(end.other()));
            match (near, far) {
                (Some(near), Some(far)) if near.has_drained() => far.hear_drain(),
                (None, Some(far)) => far.become_dead(),
                (None | Some(_), None | Some(_)) => {}
            }
        }
    }

    pub(super) fn sever(&self) {
        for wire in self.wires() {
            wire.sever();
        }
        for end in End::BOTH {
            if let Some(link) = self.link(end) {
                link.become_dead();
            }
        }
    }

    /// The gateway at `end` loses every stream of the path; the other side is told if the path lets it.
    pub(super) fn lose(&self, end: End) {
        for wire in self.wires() {
            wire.lose(end);
        }
    }

    /// In the order in which they were opened.
    fn wires(&self) -> Vec<Arc<Wire>> {
        self.streams
            .lock()
            .wires
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

/// The states in which streams can be opened.
pub(super) fn is_usable(state: LinkState) -> bool {
    match state {
        LinkState::Up | LinkState::Draining => true,
        LinkState::Dead | LinkState::Closed => false,
    }
}
