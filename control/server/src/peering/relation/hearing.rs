//! What the peer says, and what of it is believed.

use std::sync::Arc;
use std::time::Instant;

use corinth_api::peering::{Digest, Digester, Farewell, Hello, Message, State};
use corinth_model::{Condition, ServiceId, Version};

use super::event::Trust;
use super::session::{Hear, Session, Tell};
use super::{REJECTIONS_MAX, Relation, SessionId};
use crate::peering::held::{Outcome, Told};

impl Relation {
    /// A message came on a stream. What comes late on one that is no longer the current one says nothing.
    pub fn handle_message(&mut self, id: SessionId, message: Message, now: Instant, unix_ms: u64) {
        let Some(session) = self.session.as_mut().filter(|one| one.id == id) else {
            return;
        };
        session.heard_at = now;
        let is_greeted = session.is_greeted();
        match message {
            Message::Goodbye(farewell) => self.hear_goodbye(farewell, now),
            Message::Hello(hello) if !is_greeted => self.hear_hello(hello, now, unix_ms),
            // One greeting, before everything else.
            Message::Hello(_) => self.hear_nonsense(now),
            _ if !is_greeted => self.hear_nonsense(now),
            Message::SnapshotBegin { state, .. } => self.hear_snapshot_begin(state),
            Message::Upsert {
                version,
                digest,
                offer,
            } => {
                let service = offer.service.clone();
                let offer = Ok(offer);
                self.hear_entry(
                    &service,
                    Told {
                        version,
                        digest,
                        offer,
                    },
                    now,
                );
            }
            Message::NotTaken {
                version,
                digest,
                service,
                condition,
            } => match (service, digest) {
                (Some(service), Some(digest)) => {
                    let offer = Err(condition);
                    self.hear_entry(
                        &service,
                        Told {
                            version,
                            digest,
                            offer,
                        },
                        now,
                    );
                }
                (_, digest) => self.hear_nameless(version, digest, now),
            },
            Message::Tombstone { version, service } => self.hear_tombstone(version, &service, now),
            Message::SnapshotEnd { version, digest } => {
                self.hear_snapshot_end(version, digest, now);
            }
            Message::Digest { version, digest } => self.hear_digest(version, digest, now),
            Message::Ack(version) => self.hear_ack(version),
            Message::Resync => self.hear_resync(now),
            Message::Rejected { service, condition } => self.hear_rejected(service, condition),
            Message::Trust {
                sequence,
                roots,
                held,
            } => {
                self.news.trust = Some(Trust {
                    sequence,
                    roots,
                    held,
                });
            }
            Message::Gateways { addresses, slots } => {
                self.news.gateways = Some((Arc::clone(&addresses), slots));
            }
        }
    }

    /// A message came that cannot be understood, or not here: the conversation has no meaning any more.
    pub fn handle_malformed(&mut self, id: SessionId, now: Instant) {
        if self.session.as_ref().is_some_and(|one| one.id == id) {
            self.hear_nonsense(now);
        }
    }

    fn hear_nonsense(&mut self, now: Instant) {
        self.conditions.set(Condition::EntryInvalid, true);
        self.end_session(None, now);
    }

    fn hear_hello(&mut self, hello: Hello, now: Instant, unix_ms: u64) {
        if hello.cluster != self.peer {
            self.end_session(Some(Farewell::WrongCluster), now);
            return;
        }
        let is_compatible = hello.is_compatible();
        self.conditions.set(Condition::Incompatible, !is_compatible);
        if !is_compatible {
            self.end_session(Some(Farewell::Incompatible), now);
            return;
        }
        self.is_dirty |= self.is_unlinked;
        self.is_unlinked = false;
        self.is_closed = false;
        self.news.unlinked = false;
        self.silent_since = None;
        self.last_farewell = None;
        self.conditions.set(Condition::PeerUnlinked, false);
        self.conditions.set(Condition::PeerSilent, false);
        self.conditions.set(Condition::EntryInvalid, false);
        if let Some(journal) = &mut self.journal {
            self.is_dirty |= journal.forget_old(unix_ms);
        }
        let hear = match self.held.state() {
            Some(held) if held.instance == hello.own.instance => {
                let went_back = hello.own.version < held.version;
                self.conditions.set(Condition::VersionWentBack, went_back);
                if went_back {
                    Hear::Refused
                } else {
                    Hear::Delta
                }
            }
            Some(_) | None => Hear::Waiting,
        };
        if let Some(session) = &mut self.session {
            session.hear = hear;
            session.tell = Tell::Unready(hello.held);
        }
        self.start_telling();
        self.ask_for_everything(now);
    }

    fn hear_snapshot_begin(&mut self, state: State) {
        let Some(session) = &mut self.session else {
            return;
        };
        let held = self.held.state();
        let went_back = held
            .is_some_and(|held| held.instance == state.instance && state.version < held.version);
        self.conditions.set(Condition::VersionWentBack, went_back);
        if went_back {
            session.hear = Hear::Refused;
            return;
        }
        self.held.begin_snapshot(&state);
        self.is_dirty = true;
        session.hear = Hear::Snapshot {
            state,
            digester: Digester::default(),
        };
    }

    fn hear_snapshot_end(&mut self, version: Version, digest: Digest, now: Instant) {
        let Some(session) = &mut self.session else {
            return;
        };
        match std::mem::replace(&mut session.hear, Hear::Waiting) {
            Hear::Snapshot { state, digester } => {
                if state.version != version || digester.finish() != digest {
                    // It was not whole, so that it says nothing of what it left out.
                    self.held.want_everything();
                    self.ask_for_everything(now);
                    return;
                }
                session.hear = Hear::Delta;
                session.due.ack = Some(version);
                let left = self.held.end_snapshot(now);
                self.held.complete(version);
                self.note(left);
                self.conditions.refill(self.held.troubles());
                self.ask_for_everything(now);
            }
            Hear::Refused => session.hear = Hear::Refused,
            Hear::Greeting | Hear::Waiting | Hear::Delta => self.hear_nonsense(now),
        }
    }

    fn hear_entry(&mut self, service: &ServiceId, told: Told, now: Instant) {
        let Some(in_snapshot) = self.admit(told.version, Some(&told.digest), now) else {
            return;
        };
        let outcome = self.held.upsert(service, told, in_snapshot);
        self.is_dirty = true;
        self.conclude(service, outcome);
    }

    fn conclude(&mut self, service: &ServiceId, outcome: Outcome) {
        if outcome.has_changed {
            self.news.changed.insert(service.clone());
        }
        let trouble = outcome.refused.or_else(|| self.held.trouble(service));
        self.conditions.set_service(service, trouble);
        if let (Some(condition), Some(session)) = (outcome.refused, &mut self.session)
            && session.due.rejections.len() < REJECTIONS_MAX
        {
            session.due.rejections.insert(service.clone(), condition);
        }
    }

    /// An entry without a name that can be read, or a tombstone for one.
    fn hear_nameless(&mut self, version: Version, digest: Option<Digest>, now: Instant) {
        if self.admit(version, digest.as_ref(), now).is_some() {
            self.conditions.set(Condition::EntryInvalid, true);
            if digest.is_some() {
                self.held.pass_over();
                self.is_dirty = true;
            }
        }
    }

    fn hear_tombstone(&mut self, version: Version, service: &ServiceId, now: Instant) {
        match self.admit(version, None, now) {
            None => return,
            // A snapshot says what there is.
            Some(true) => return self.hear_nonsense(now),
            Some(false) => {}
        }
        if let Some(removed) = self.held.remove(service, version) {
            self.is_dirty = true;
            self.conditions.set_service(service, None);
            if removed.was_used {
                self.news.changed.insert(service.clone());
            }
        }
    }

    /// Whether a change is to be looked at, and if so whether it is part of a snapshot.
    fn admit(&mut self, version: Version, digest: Option<&Digest>, now: Instant) -> Option<bool> {
        let session = self.session.as_mut()?;
        match &mut session.hear {
            Hear::Snapshot { digester, .. } => {
                if let Some(digest) = digest {
                    digester.add(digest);
                }
                return Some(true);
            }
            Hear::Delta => {
                if version.epoch < self.held.version().epoch {
                    self.conditions.set(Condition::VersionWentBack, true);
                    return None;
                }
                return self.held.see(version).then_some(false);
            }
            Hear::Waiting => self.held.want_everything(),
            Hear::Greeting | Hear::Refused => return None,
        }
        self.ask_for_everything(now);
        None
    }

    fn hear_digest(&mut self, version: Version, digest: Digest, now: Instant) {
        let Some(Session { hear, due, .. }) = &mut self.session else {
            return;
        };
        match hear {
            Hear::Delta => {}
            // The end of the snapshot has not come, and will not come any more.
            Hear::Snapshot { .. } => {
                *hear = Hear::Waiting;
                self.held.want_everything();
                return self.ask_for_everything(now);
            }
            Hear::Greeting | Hear::Waiting | Hear::Refused => return,
        }
        if version < self.held.version() {
            self.conditions.set(Condition::VersionWentBack, true);
            return;
        }
        if self.held.digest().is_none_or(|held| held == digest) {
            due.ack = Some(version);
            self.is_dirty |= self.held.complete(version);
            if self.held.has_room() {
                self.held.want_everything();
            }
        } else {
            self.held.want_everything();
        }
        self.ask_for_everything(now);
    }
}
