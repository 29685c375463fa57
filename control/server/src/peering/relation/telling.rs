//! What we say: greetings first, then what the peer lacks of our state.

use std::time::Instant;

use corinth_api::peering::{Farewell, Hello, Message, PROTOCOL, State};
use corinth_model::{Condition, ServiceId, Version};

use super::session::{Due, Session, Snapshot, Tell};
use super::{RESYNC_ANSWER_INTERVAL, Relation, SessionId};
use crate::peering::journal::{Change, Journal};

impl Relation {
    /// The next message of the current stream.
    pub(super) fn next_message(&mut self, now: Instant) -> Option<(SessionId, Message)> {
        let journal = self.journal.as_mut().filter(|_| self.is_ready)?;
        let session = self.session.as_mut()?;
        let id = session.id;
        if std::mem::take(&mut session.due.hello) {
            let hello = Hello {
                cluster: self.own.clone(),
                protocol_min: PROTOCOL,
                protocol_max: PROTOCOL,
                own: journal.state(),
                held: self.held.state(),
            };
            return Some((id, Message::Hello(hello)));
        }
        if std::mem::take(&mut session.due.trust)
            && let Some((sequence, roots)) = self.trust.clone()
        {
            let held = self.held_trust;
            let trust = Message::Trust {
                sequence,
                roots,
                held,
            };
            return Some((id, trust));
        }
        if std::mem::take(&mut session.due.gateways)
            && let Some((addresses, slots)) = self.gateways.clone()
        {
            return Some((id, Message::Gateways { addresses, slots }));
        }
        let message = session.due.answer();
        let message = message.or_else(|| session.tell(journal, now));
        message.map(|message| (id, message))
    }

    /// Begins to say what the peer lacks, once both its Hello and our own state are there.
    pub(super) fn start_telling(&mut self) {
        let (Some(journal), Some(session)) = (&mut self.journal, &mut self.session) else {
            return;
        };
        let Tell::Unready(held) = &session.tell else {
            return;
        };
        if !self.is_ready {
            return;
        }
        session.due.digest = true;
        session.tell = match *held {
            Some(held) if journal.has_lost(&held) => {
                self.news.began_new_instance = true;
                Tell::Lost
            }
            Some(held) if journal.continues(&held) => {
                self.is_dirty |= journal.acknowledge(held.version);
                Tell::Delta((held.version, None))
            }
            Some(_) | None => {
                self.rejected.clear();
                Tell::Snapshot(Snapshot::default())
            }
        };
    }

    /// Our instance is another one: whoever was told something is told everything.
    pub(super) fn tell_new_instance(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.told_through = None;
        match session.tell {
            // Its Hello was about the old one; what it holds decides nothing any more.
            Tell::Unready(_) => session.tell = Tell::Unready(None),
            Tell::Lost | Tell::Snapshot(_) | Tell::Delta(_) => {
                session.tell = Tell::Snapshot(Snapshot::default());
                session.due.digest = true;
                self.rejected.clear();
            }
            Tell::Greeting => {}
        }
    }

    /// The peer wants everything again. One that asks too often waits.
    pub(super) fn hear_resync(&mut self, now: Instant) {
        if let Some(session) = &mut self.session {
            let earliest = session.answered_at.map(|at| at + RESYNC_ANSWER_INTERVAL);
            session.again_at = Some(earliest.map_or(now, |earliest| earliest.max(now)));
            if session.again_at == Some(now) {
                self.tell_again(now);
            }
        }
    }

    pub(super) fn tell_again(&mut self, now: Instant) {
        let Some(session) = &mut self.session else {
            return;
        };
        session.again_at = None;
        session.answered_at = Some(now);
        match &session.tell {
            Tell::Snapshot(_) => session.again_after = true,
            Tell::Delta(_) => {
                session.tell = Tell::Snapshot(Snapshot::default());
                self.rejected.clear();
            }
            Tell::Greeting | Tell::Unready(_) | Tell::Lost => {}
        }
    }

    /// The peer has taken everything up to here.
    pub(super) fn hear_ack(&mut self, version: Version) {
        let (Some(journal), Some(session)) = (&mut self.journal, &self.session) else {
            return;
        };
        // More than was told nobody can have taken.
        if session.told_through.is_some_and(|told| version <= told) {
            self.is_dirty |= journal.acknowledge(version);
        }
    }

    /// The peer has not taken one of our services.
    pub(super) fn hear_rejected(&mut self, service: ServiceId, condition: Option<Condition>) {
        let journal = self.journal.as_ref();
        if journal.is_some_and(|journal| journal.offers(&service)) {
            self.rejected.insert(service, condition);
        }
    }

    /// The peer ends the conversation.
    pub(super) fn hear_goodbye(&mut self, farewell: Farewell, now: Instant) {
        self.last_farewell = Some(farewell);
        match farewell {
            Farewell::Unlinked => {
                self.is_unlinked = true;
                self.is_dirty = true;
                self.news.unlinked = true;
                self.conditions.set(Condition::PeerUnlinked, true);
            }
            Farewell::Incompatible => self.conditions.set(Condition::Incompatible, true),
            Farewell::Paused
            | Farewell::Duplicate
            | Farewell::Stopping
            | Farewell::WrongCluster
            | Farewell::Flapping
            | Farewell::Unknown => {}
        }
        self.end_session(None, now);
    }
}

impl Due {
    /// What is to be answered to what the peer said.
    fn answer(&mut self) -> Option<Message> {
        if std::mem::take(&mut self.resync) {
            return Some(Message::Resync);
        }
        if let Some(version) = self.ack.take() {
            return Some(Message::Ack(version));
        }
        let (service, condition) = self.rejections.pop_first()?;
        Some(Message::Rejected {
            service,
            condition: Some(condition),
        })
    }
}

impl Session {
    /// The next message about our state.
    fn tell(&mut self, journal: &mut Journal, now: Instant) -> Option<Message> {
        if let Tell::Delta((version, _)) = &self.tell
            && !journal.reaches_back_to(*version)
        {
            self.tell = Tell::Snapshot(Snapshot::default());
        }
        match &mut self.tell {
            Tell::Greeting | Tell::Unready(_) | Tell::Lost => None,
            Tell::Snapshot(snapshot) => {
                let message = snapshot.next(journal);
                if let Message::SnapshotEnd { version, .. } = &message {
                    self.told_through = Some(*version);
                    self.due.digest = true;
                    self.tell = if std::mem::take(&mut self.again_after) {
                        Tell::Snapshot(Snapshot::default())
                    } else {
                        Tell::Delta((*version, None))
                    };
                }
                Some(message)
            }
            Tell::Delta(cursor) => {
                if let Some((next, change)) = journal.next_change(cursor) {
                    let message = message(&next, change);
                    *cursor = next;
                    self.is_unconfirmed = true;
                    return message;
                }
                let confirms = self.confirms_at().is_some_and(|at| at <= now);
                if !std::mem::take(&mut self.due.digest) && !confirms {
                    return None;
                }
                self.is_unconfirmed = false;
                self.confirmed_at = Some(now);
                let State { version, .. } = journal.state();
                self.told_through = Some(version);
                Some(Message::Digest {
                    version,
                    digest: journal.digest(),
                })
            }
        }
    }
}

fn message((version, service): &(Version, Option<ServiceId>), change: Change) -> Option<Message> {
    let version = *version;
    Some(match change {
        Change::Upsert { digest, offer } => Message::Upsert {
            version,
            digest,
            offer,
        },
        Change::Tombstone => Message::Tombstone {
            version,
            service: service.clone()?,
        },
    })
}

impl Snapshot {
    fn next(&mut self, journal: &Journal) -> Message {
        let Some(state) = self.state else {
            let state = journal.state();
            self.state = Some(state);
            return Message::SnapshotBegin {
                state,
                services: u32::try_from(journal.len()).unwrap_or(u32::MAX),
            };
        };
        if let Some((service, version, Change::Upsert { digest, offer })) =
            journal.next_offer(self.after.as_ref())
        {
            self.digester.add(&digest);
            self.after = Some(service.clone());
            return Message::Upsert {
                version,
                digest,
                offer,
            };
        }
        Message::SnapshotEnd {
            version: state.version,
            digest: std::mem::take(&mut self.digester).finish(),
        }
    }
}
