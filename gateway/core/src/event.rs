//! What the core is told about attempts, and what it wants done and known.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use corinth_model::{ClusterName, Culprit, Failure, Refusal, Target, TrustDomain};

use crate::key::RouteKey;
use crate::links::LinkState;

/// What became of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint's connect succeeded.
    Accepted {
        /// Time from the attempt's start to the answer.
        after: Duration,
    },
    /// The peer said no.
    Refused(Refusal),
    /// The attempt broke.
    Failed(Failure),
}

/// What an [`Outcome`] says about the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Bad,
    /// Nothing: somebody else was at fault, or the candidate is well but busy.
    Silent,
}

impl Outcome {
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Accepted { .. } => Verdict::Good,
            Self::Refused(refusal) => match refusal {
                // It cannot serve this route, however healthy it is otherwise.
                Refusal::UnknownRoute
                | Refusal::Forbidden
                | Refusal::NoEndpoint
                | Refusal::Unlinked
                | Refusal::TooManyHops
                | Refusal::SourceNotAllowed => Verdict::Bad,
                // Busy or leaving, which passes; ejecting it would turn a full cluster into a lost one.
                Refusal::OverLimit
                | Refusal::Overloaded
                | Refusal::Draining
                | Refusal::FlowLimit => Verdict::Silent,
                // The fault is in what was asked.
                Refusal::AmbiguousName | Refusal::InvalidName => Verdict::Silent,
            },
            Self::Failed(failure) => match failure.culprit() {
                Culprit::Peer | Culprit::Endpoint => Verdict::Bad,
                Culprit::Client | Culprit::Local => Verdict::Silent,
            },
        }
    }
}

/// What the core wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Keep a link to this peer from now on, dialling as often as it takes.
    Dial {
        /// The peer's cluster.
        peer: ClusterName,
        /// Whom to expect there.
        trust_domain: TrustDomain,
    },
    /// The peer is no longer linked: open nothing more, end what is open within 5 s, close.
    Drain {
        /// The peer's cluster.
        peer: ClusterName,
        /// Whom the link was to.
        trust_domain: TrustDomain,
    },
    /// This export was withdrawn from the peer: end the peer's streams to it within 5 s.
    Withdraw {
        /// The peer's cluster; `None` for the clients without a tunnel, all of them.
        peer: Option<ClusterName>,
        /// The service port it was admitted to.
        route: RouteKey,
    },
}

/// What the core wants known; for logs, metrics and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// New tables are in use.
    TableApplied {
        /// Their revision.
        revision: u64,
        /// How many look-ups it took under the lock; as many as there were routes with a standing and
        /// pairs of peer and export with open streams, whatever the size of the tables.
        lookups: usize,
        /// How many standings were forgotten because their candidate is gone.
        forgotten: usize,
    },
    /// A candidate left service.
    Ejected {
        /// The route it is a candidate of.
        route: RouteKey,
        /// The candidate.
        target: Target,
        /// When it goes on probation.
        until: Instant,
        /// How often in a row it was ejected.
        strikes: u32,
    },
    /// A candidate gets its trial.
    OnProbation {
        /// The route it is a candidate of.
        route: RouteKey,
        /// The candidate.
        target: Target,
    },
    /// A candidate is back in service.
    Returned {
        /// The route it is a candidate of.
        route: RouteKey,
        /// The candidate.
        target: Target,
    },
    /// A link changed its state.
    LinkChanged {
        /// The peer's cluster.
        peer: ClusterName,
        /// The new state.
        state: LinkState,
    },
}

/// Events not yet polled. Beyond this many the oldest are lost: whoever does not poll may not fill memory.
pub const EVENTS_MAX: usize = 4096;

/// A queue that forgets its oldest rather than grow.
#[derive(Debug, Default)]
pub(crate) struct Events(VecDeque<Event>);

impl Events {
    pub(crate) fn push(&mut self, event: Event) {
        if self.0.len() == EVENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
