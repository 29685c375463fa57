//! What a relation is told, and what it tells whoever acts for it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use corinth_model::{Condition, ServiceId};

use super::Relation;
use crate::peering::held::Stale;

/// Names one peering stream for as long as it is open; whoever opens streams gives the numbers out, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Who opened a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenedBy {
    /// This cluster.
    Us,
    /// The peer.
    Peer,
}

/// What one peer may take up here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most services of it that are taken.
    pub quota: usize,
}

/// How sure it is that something is still offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The newest state that was told has it.
    Fresh,
    /// A whole snapshot left it out; it goes at this time.
    Stale {
        /// When.
        until: Instant,
    },
}

/// What somebody should do or know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelationEvent {
    /// The offers of these services are not what they were; see [`Relation::offer`].
    OffersChanged(BTreeSet<ServiceId>),
    /// The peer told its roots.
    TrustTold {
        /// Grows with every change.
        sequence: u64,
        /// DER certificates.
        roots: Arc<[Vec<u8>]>,
        /// The sequence of our roots that it holds, if it holds any that we told.
        held: Option<u64>,
    },
    /// The peer told where its gateways are.
    GatewaysTold {
        /// `host:port`.
        addresses: Arc<[String]>,
        /// How many gateways there are.
        slots: u32,
    },
    /// A condition stands from now on, or no longer.
    Condition {
        /// Which.
        condition: Condition,
        /// The service it is about, if it is about one.
        about: Option<ServiceId>,
        /// Whether it stands.
        stands: bool,
    },
    /// This stream is to be ended, after everything that was to be written on it. No report of its end is needed.
    EndSession(SessionId),
    /// The peer has seen a future of our state that we have lost, or says so: a new instance is to be made, and told to
    /// this relation by [`Relation::set_own_state`]. Others need none, so that a peer that lies troubles nobody else.
    BeganNewInstance,
    /// The peer has ended the link; it is dialled no more.
    PeerUnlinked,
    /// There is no stream. One may be opened from this time on.
    DialAllowedAt(Instant),
}

/// What is said of roots, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) sequence: u64,
    pub(super) roots: Arc<[Vec<u8>]>,
    /// Which of the reader's are held.
    pub(super) held: Option<u64>,
}

/// Events that nobody has asked for yet. Later ones take the place of earlier ones, so that they do not pile up.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) changed: BTreeSet<ServiceId>,
    pub(super) trust: Option<Trust>,
    pub(super) gateways: Option<(Arc<[String]>, u32)>,
    pub(super) ended: VecDeque<SessionId>,
    pub(super) began_new_instance: bool,
    pub(super) unlinked: bool,
    pub(super) dial_at: Option<Instant>,
}

impl Relation {
    /// What has happened that somebody should act on.
    pub fn poll_event(&mut self) -> Option<RelationEvent> {
        let news = &mut self.news;
        if let Some(id) = news.ended.pop_front() {
            return Some(RelationEvent::EndSession(id));
        }
        if std::mem::take(&mut news.began_new_instance) {
            return Some(RelationEvent::BeganNewInstance);
        }
        if std::mem::take(&mut news.unlinked) {
            return Some(RelationEvent::PeerUnlinked);
        }
        if let Some(trust) = news.trust.take() {
            return Some(RelationEvent::TrustTold {
                sequence: trust.sequence,
                roots: trust.roots,
                held: trust.held,
            });
        }
        if let Some((addresses, slots)) = news.gateways.take() {
            return Some(RelationEvent::GatewaysTold { addresses, slots });
        }
        if !news.changed.is_empty() {
            let changed = std::mem::take(&mut news.changed);
            return Some(RelationEvent::OffersChanged(changed));
        }
        if let Some(((condition, about), stands)) = self.conditions.poll() {
            return Some(RelationEvent::Condition {
                condition,
                about,
                stands,
            });
        }
        self.news.dial_at.take().map(RelationEvent::DialAllowedAt)
    }
}

impl From<Option<Stale>> for Freshness {
    fn from(stale: Option<Stale>) -> Self {
        match stale {
            None => Self::Fresh,
            Some(stale) => Self::Stale { until: stale.until },
        }
    }
}
