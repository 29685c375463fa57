//! One stream between the two, and where the conversation on it stands in either direction.

use std::collections::BTreeMap;
use std::time::Instant;

use corinth_api::peering::{Digester, State};
use corinth_model::{Condition, ServiceId, Version};

use super::{CONFIRM_INTERVAL, DIGEST_INTERVAL, OpenedBy, SessionId};
use crate::peering::journal::Cursor;

/// A stream.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) by: OpenedBy,
    pub(super) opened_at: Instant,
    pub(super) heard_at: Instant,
    pub(super) hear: Hear,
    pub(super) tell: Tell,
    pub(super) due: Due,
    /// When the next digest is due although nothing has changed.
    pub(super) digest_at: Instant,
    /// Changes were told that no digest confirms yet.
    pub(super) is_unconfirmed: bool,
    /// When the last digest was sent.
    pub(super) confirmed_at: Option<Instant>,
    /// The newest version up to which everything was written.
    pub(super) told_through: Option<Version>,
    /// When the peer asked for everything last.
    pub(super) answered_at: Option<Instant>,
    /// When it gets everything again because it asked too early.
    pub(super) again_at: Option<Instant>,
    /// It gets everything again right after the snapshot that is on its way.
    pub(super) again_after: bool,
}

/// How far we are with what the peer says.
#[derive(Debug)]
pub(super) enum Hear {
    /// Its Hello has not come.
    Greeting,
    /// Nothing it says of its services can be used before a snapshot begins.
    Waiting,
    /// Its state is older than what it has told before.
    Refused,
    /// It tells what has changed.
    Delta,
    /// It tells everything.
    Snapshot { state: State, digester: Digester },
}

/// How far we are with what we say.
#[derive(Debug)]
pub(super) enum Tell {
    /// The peer's Hello has not come.
    Greeting,
    /// We do not know yet what to say to a peer that holds this.
    Unready(Option<State>),
    /// Our state lacks what the peer has seen; we wait for a new instance.
    Lost,
    /// Everything.
    Snapshot(Snapshot),
    /// What has changed after this.
    Delta(Cursor),
}

/// A snapshot on its way.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Its state, once its begin was written.
    pub(super) state: Option<State>,
    pub(super) after: Option<ServiceId>,
    pub(super) digester: Digester,
}

/// What is to be written before anything of the state.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) hello: bool,
    pub(super) trust: bool,
    pub(super) gateways: bool,
    pub(super) resync: bool,
    pub(super) ack: Option<Version>,
    pub(super) rejections: BTreeMap<ServiceId, Condition>,
    /// Once there is nothing else to say.
    pub(super) digest: bool,
}

impl Session {
    pub(super) fn new(id: SessionId, by: OpenedBy, now: Instant) -> Self {
        Self {
            id,
            by,
            opened_at: now,
            heard_at: now,
            hear: Hear::Greeting,
            tell: Tell::Greeting,
            due: Due {
                hello: true,
                trust: true,
                gateways: true,
                ..Due::default()
            },
            digest_at: now + DIGEST_INTERVAL,
            is_unconfirmed: false,
            confirmed_at: None,
            told_through: None,
            answered_at: None,
            again_at: None,
            again_after: false,
        }
    }

    /// When a digest becomes due that confirms what was told: at once, unless there was one just before. `None` also while
    /// one is due.
    pub(super) fn confirms_at(&self) -> Option<Instant> {
        let earliest = self.confirmed_at.map(|at| at + CONFIRM_INTERVAL);
        (self.is_unconfirmed && !self.due.digest).then(|| earliest.unwrap_or(self.opened_at))
    }

    /// Whether the peer has said who it is.
    pub(super) fn is_greeted(&self) -> bool {
        !matches!(self.hear, Hear::Greeting)
    }

    /// Whether asking for everything makes sense: it is not being told already.
    pub(super) fn may_ask(&self) -> bool {
        match self.hear {
            Hear::Waiting | Hear::Delta => !self.due.resync,
            Hear::Greeting | Hear::Refused | Hear::Snapshot { .. } => false,
        }
    }
}
