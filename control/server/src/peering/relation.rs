//! Everything about one peer: what we tell it, what it told us, and the streams in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corinth_api::peering::{Farewell, Message, State};
use corinth_model::{Accepted, ClusterName, Condition, Instance, Offer, ServiceId, Version};

use super::conditions::Conditions;
use super::damping::{Damping, TURNED_AWAY};
use super::held::{Held, Left};
use super::journal::Journal;
use super::saved::{RestoreError, SavedRelation};
use event::News;
use session::Session;

mod event;
mod hearing;
mod session;
mod summary;
mod telling;

#[cfg(test)]
mod tests;

pub use event::{Freshness, Limits, OpenedBy, RelationEvent, SessionId};
pub use summary::{RelationSummary, SessionSummary};

/// How often a digest is sent although nothing has changed: it shows that the stream lives.
pub(super) const DIGEST_INTERVAL: Duration = Duration::from_secs(20);
/// Least time between two digests that confirm changes. Both sides make one of everything there is, which takes longer
/// than a change among thousands of services.
pub(super) const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);
/// A stream on which nothing has come for this long is ended.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Least time between two times that we ask for everything.
pub(super) const RESYNC_INTERVAL: Duration = Duration::from_secs(10);
/// Least time between two times that we answer such a question.
pub(super) const RESYNC_ANSWER_INTERVAL: Duration = Duration::from_secs(5);
/// Most entries that wait to be answered as not taken; those beyond are not answered.
pub(super) const REJECTIONS_MAX: usize = 1_024;
/// Most streams that wait for their goodbye; those beyond end without one.
const CLOSING_MAX: usize = 64;

/// Everything about one peer.
#[derive(Debug)]
pub struct Relation {
    own: ClusterName,
    peer: ClusterName,
    /// `None` until our state is known.
    journal: Option<Journal>,
    /// What we offer is known, so that there is something to tell.
    is_ready: bool,
    held: Held,
    trust: Option<(u64, Arc<[Vec<u8>]>)>,
    /// The sequence of the peer's roots that we hold, once it told them.
    held_trust: Option<u64>,
    gateways: Option<(Arc<[String]>, u32)>,
    /// What of our offers the peer has not taken, and why if that is known here.
    rejected: BTreeMap<ServiceId, Option<Condition>>,
    session: Option<Session>,
    /// Streams that are still to be told goodbye.
    closing: VecDeque<(SessionId, Farewell)>,
    damping: Damping,
    conditions: Conditions,
    asked_for_everything_at: Option<Instant>,
    /// Since when the peer is not heard; `None` while it is.
    silent_since: Option<Instant>,
    last_farewell: Option<Farewell>,
    is_unlinked: bool,
    /// We said goodbye for a reason that lasts.
    is_closed: bool,
    is_dirty: bool,
    news: News,
}

impl Relation {
    /// A relation with a peer that was never spoken with.
    #[must_use]
    pub fn new(own: ClusterName, peer: ClusterName, limits: Limits, now: Instant) -> Self {
        Self {
            own,
            peer,
            journal: None,
            is_ready: false,
            held: Held::new(limits.quota),
            trust: None,
            held_trust: None,
            gateways: None,
            rejected: BTreeMap::new(),
            session: None,
            closing: VecDeque::new(),
            damping: Damping::new(),
            conditions: Conditions::default(),
            asked_for_everything_at: None,
            silent_since: Some(now),
            last_farewell: None,
            is_unlinked: false,
            is_closed: false,
            is_dirty: false,
            news: News::default(),
        }
    }

    /// The relation as it was saved. What it held is in use at once; what is accepted, and what we offer, is to be said
    /// anew.
    ///
    /// # Errors
    /// Why it cannot be used; a new one does no harm, the peer is asked for everything.
    pub fn restore(
        saved: SavedRelation,
        own: ClusterName,
        peer: ClusterName,
        limits: Limits,
        now: Instant,
    ) -> Result<Self, RestoreError> {
        if saved.own != own || saved.peer != peer {
            return Err(RestoreError::OtherClusters {
                own: saved.own,
                peer: saved.peer,
            });
        }
        let mut relation = Self::new(own, peer, limits, now);
        relation.journal = saved.told.map(Journal::restore).transpose()?;
        relation.held = Held::restore(saved.held, limits.quota, now)?;
        relation.is_unlinked = saved.is_unlinked;
        relation.news.unlinked = saved.is_unlinked;
        relation
            .conditions
            .set(Condition::PeerUnlinked, saved.is_unlinked);
        relation.conditions.refill(relation.held.troubles());
        relation.note_stale();
        let offers = relation.held.offers().map(|(service, ..)| service.clone());
        relation.news.changed = offers.collect();
        Ok(relation)
    }

    /// What has to outlive the process. To be written soon whenever [`Self::take_dirty`] says so, but nothing has to wait
    /// for it: the epoch is written before anything is told, so no version is ever used for two contents, and a peer that
    /// holds one that was not written down makes us begin a new instance.
    #[must_use]
    pub fn saved(&self, now: Instant) -> SavedRelation {
        SavedRelation::new(
            (self.own.clone(), self.peer.clone()),
            self.journal.as_ref().map(Journal::saved),
            self.held.saved(now),
            self.is_unlinked,
        )
    }

    /// Whether what [`Self::saved`] gives has changed since this was asked last.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    /// Whether the peer has ended the link.
    #[must_use]
    pub const fn is_unlinked(&self) -> bool {
        self.is_unlinked
    }

    /// Whether what [`Self::saved`] gives has changed since [`Self::take_dirty`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Our own state is of this instance and has come this far. To be said once before everything else, and again when
    /// the instance changes; it does no harm to say it more often. A relation that was restored knows its instance, see
    /// [`Self::own_state`]; another one begins a new life.
    pub fn set_own_state(&mut self, instance: Instance, version: Version) {
        let state = State { instance, version };
        let Some(journal) = &mut self.journal else {
            self.journal = Some(Journal::new(state));
            self.is_dirty = true;
            return;
        };
        let was = journal.state().instance;
        self.is_dirty |= journal.set_state(state);
        if was != instance {
            self.tell_new_instance();
        }
    }

    /// These are the services this peer may use from now on, as of `version` of our state. Our state must be known.
    pub fn set_offers(
        &mut self,
        offers: BTreeMap<ServiceId, Arc<Offer>>,
        version: Version,
        unix_ms: u64,
    ) {
        let Some(journal) = &mut self.journal else {
            debug_assert!(false, "the state is known before what is offered");
            return;
        };
        let changed = journal.set_offers(offers, version, unix_ms);
        let forgot = journal.forget_old(unix_ms);
        self.is_dirty |= forgot || !changed.is_empty();
        for service in &changed {
            self.rejected.remove(service);
        }
        self.is_ready = true;
        self.start_telling();
    }

    /// This is what is accepted of the peer from now on, and how many services of it.
    pub fn set_accepted(&mut self, accepted: Accepted, quota: usize) {
        let left = self.held.set_accepted(accepted, quota);
        self.note(left);
        self.conditions.refill(self.held.troubles());
        self.is_dirty = true;
    }

    /// These are our roots. Told at once and on every stream.
    pub fn set_trust(&mut self, sequence: u64, roots: Arc<[Vec<u8>]>) {
        let trust = Some((sequence, roots));
        if self.trust != trust {
            self.trust = trust;
            self.session
                .iter_mut()
                .for_each(|session| session.due.trust = true);
        }
    }

    /// Of the roots the peer told, those of this sequence are held and written down, so that it may rely on it. Told at
    /// once and on every stream.
    pub fn set_held_trust(&mut self, sequence: Option<u64>) {
        if self.held_trust != sequence {
            self.held_trust = sequence;
            self.session
                .iter_mut()
                .for_each(|session| session.due.trust = true);
        }
    }

    /// Here our gateways are reached, and so many there are. Told at once and on every stream.
    pub fn set_gateways(&mut self, addresses: Arc<[String]>, slots: u32) {
        let gateways = Some((addresses, slots));
        if self.gateways != gateways {
            self.gateways = gateways;
            self.session
                .iter_mut()
                .for_each(|session| session.due.gateways = true);
        }
    }

    /// A stream was opened. Of two the one that was opened by the cluster whose name sorts first stays; of two by the
    /// same cluster the newer one, because whoever opened it knows that the other is gone.
    pub fn handle_opened(&mut self, id: SessionId, by: OpenedBy, now: Instant) {
        if by == OpenedBy::Peer && !self.damping.handle_begun(now) {
            let is_flapping = self.damping.is_flapping();
            self.conditions.set(Condition::Flapping, is_flapping);
            self.close(id, Farewell::Flapping);
            return;
        }
        if let Some(current) = &self.session {
            let stays = if self.own < self.peer {
                OpenedBy::Us
            } else {
                OpenedBy::Peer
            };
            if current.by != by && current.by == stays {
                self.close(id, Farewell::Duplicate);
                return;
            }
            let current = current.id;
            self.close(current, Farewell::Duplicate);
        }
        self.news.dial_at = None;
        self.is_closed = false;
        self.session = Some(Session::new(id, by, now));
    }

    /// A stream has come to its end, or cannot be understood any longer.
    pub fn handle_closed(&mut self, id: SessionId, now: Instant) {
        if self.session.as_ref().is_some_and(|one| one.id == id) {
            self.forget_session(now);
        }
        self.closing.retain(|(closing, _)| *closing != id);
    }

    /// A stream that we wanted to open did not come about.
    pub fn handle_dial_failed(&mut self, now: Instant) {
        self.is_closed = false;
        if self.session.is_none() {
            self.allow_dial(Duration::ZERO, now);
        }
    }

    /// Time has come; see [`Self::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        let gone = self.held.handle_timeout(now);
        if !gone.is_empty() {
            self.note_gone(gone);
        }
        if self.damping.handle_timeout(now) {
            self.conditions.set(Condition::Flapping, false);
        }
        if self.is_past_silence(now) {
            self.conditions.set(Condition::PeerSilent, true);
        }
        let Some(session) = &mut self.session else {
            return;
        };
        if now >= session.heard_at + SILENCE_MAX {
            self.end_session(None, now);
            return;
        }
        if now >= session.digest_at {
            session.digest_at = now + DIGEST_INTERVAL;
            session.due.digest = true;
        }
        if session.confirms_at().is_some_and(|at| now >= at) {
            // It leaves when the peer reads again, however long that takes.
            session.due.digest = true;
        }
        if session.again_at.is_some_and(|at| now >= at) {
            self.tell_again(now);
        }
        self.ask_for_everything(now);
    }

    /// When [`Self::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref();
        let silent = self.silent_since.filter(|_| !self.is_known_as_silent());
        [
            self.held.poll_timeout(),
            self.damping.poll_timeout(),
            silent.map(|since| since + SILENCE_MAX),
            session.map(|session| session.heard_at + SILENCE_MAX),
            session.map(|session| session.digest_at),
            session.and_then(Session::confirms_at),
            session.and_then(|session| session.again_at),
            self.asks_for_everything_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What is to be written next, and on which stream. Ask again when that was written, not before: what is left to
    /// tell waits here, not in a queue.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(SessionId, Message)> {
        if let Some((id, farewell)) = self.closing.pop_front() {
            self.news.ended.push_back(id);
            return Some((id, Message::Goodbye(farewell)));
        }
        self.next_message(now)
    }

    /// What the peer offers and is accepted, by name.
    pub fn offers(&self) -> impl Iterator<Item = (&ServiceId, &Arc<Offer>, Freshness)> {
        let offers = self.held.offers();
        offers.map(|(service, offer, stale)| (service, offer, stale.into()))
    }

    /// What the peer offers under this name, if it is accepted.
    #[must_use]
    pub fn offer(&self, service: &ServiceId) -> Option<(&Arc<Offer>, Freshness)> {
        let (offer, stale) = self.held.offer(service)?;
        Some((offer, stale.into()))
    }

    /// The operator says that what a whole snapshot left out is meant to be gone: it goes now.
    pub fn confirm_stale(&mut self) {
        let gone = self.held.confirm_stale();
        if !gone.is_empty() {
            self.note_gone(gone);
        }
    }

    /// Ends the conversation, with the reason. Nothing is dialled until a stream is opened again.
    pub fn goodbye(&mut self, farewell: Farewell) {
        if let Some(session) = self.session.take() {
            self.close(session.id, farewell);
            self.is_closed = true;
        }
        self.news.dial_at = None;
    }
}

/// What several of the above do.
impl Relation {
    /// Says goodbye on a stream, and ends it.
    fn close(&mut self, id: SessionId, farewell: Farewell) {
        if self.closing.len() < CLOSING_MAX {
            self.closing.push_back((id, farewell));
        } else {
            self.news.ended.push_back(id);
        }
    }

    /// Ends the current stream.
    fn end_session(&mut self, farewell: Option<Farewell>, now: Instant) {
        let Some(session) = &self.session else {
            return;
        };
        let id = session.id;
        match farewell {
            Some(farewell) => self.close(id, farewell),
            None => self.news.ended.push_back(id),
        }
        self.forget_session(now);
    }

    fn forget_session(&mut self, now: Instant) {
        if let Some(session) = self.session.take() {
            if session.is_greeted() {
                self.silent_since = Some(now);
            }
            self.allow_dial(now.saturating_duration_since(session.opened_at), now);
        }
    }

    fn allow_dial(&mut self, lasted: Duration, now: Instant) {
        let mut at = self.damping.handle_ended(lasted, now);
        if self.last_farewell == Some(Farewell::Flapping) {
            at = at.max(now + TURNED_AWAY);
        }
        if !self.is_unlinked && !self.is_closed {
            self.news.dial_at = Some(at);
        }
    }

    fn is_past_silence(&self, now: Instant) -> bool {
        let silent = self.silent_since;
        silent.is_some_and(|since| now >= since + SILENCE_MAX)
    }

    fn is_known_as_silent(&self) -> bool {
        let mut standing = self.conditions.iter();
        standing.any(|about| about == (Condition::PeerSilent, None))
    }

    /// When we may ask for everything, if we want to.
    fn asks_for_everything_at(&self) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let is_wanted = self.held.wants_everything() && session.may_ask();
        let at = self.asked_for_everything_at.map(|at| at + RESYNC_INTERVAL);
        is_wanted.then(|| at.unwrap_or(session.heard_at))
    }

    fn ask_for_everything(&mut self, now: Instant) {
        if self.asks_for_everything_at().is_some_and(|at| now >= at)
            && let Some(session) = &mut self.session
        {
            session.due.resync = true;
            self.asked_for_everything_at = Some(now);
        }
    }

    fn note(&mut self, left: Left) {
        for service in left.changed.iter().chain(&left.forgotten) {
            let trouble = self.held.trouble(service);
            self.conditions.set_service(service, trouble);
        }
        self.news.changed.extend(left.changed);
        self.note_stale();
        self.is_dirty = true;
    }

    fn note_gone(&mut self, gone: BTreeSet<ServiceId>) {
        self.note(Left {
            forgotten: gone.clone(),
            changed: gone,
        });
    }

    fn note_stale(&mut self) {
        let is_massive = self.held.is_massively_stale();
        self.conditions.set(Condition::Stale, is_massive);
    }
}
