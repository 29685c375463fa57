//! Our own roots and those that peers told, in the state directory; and the change of our own, step by step.

use std::sync::Arc;
use std::time::Duration;

use corinth_identity::{RotationPhase, State, StateDir, StateError};
use rustls_pki_types::UnixTime;
use tracing::{error, info};

use super::{Shared, serve};
use crate::plane::Plane;
use crate::settings::Settings;
use crate::trust::{self, Learned, LeavesInUse, OwnRoots, RotateError};

/// Whoever issues looks once a minute which root does, so that a leaf under the old one may be as much younger than the
/// change.
const LOOK_MAX: Duration = Duration::from_mins(2);

/// What is kept of roots.
#[derive(Debug)]
pub(crate) struct Roots {
    own: OwnRoots,
}

/// A step of a change of our root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// None: only looks.
    Look,
    /// Makes a new root and announces it.
    Begin,
    /// Lets the new root issue; by force also while peers do not hold it.
    Switch {
        /// By force.
        is_forced: bool,
    },
    /// Removes the old root.
    Finish,
}

/// How far a change of our root has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stand {
    /// `None` while there is none.
    pub(crate) phase: Option<RotationPhase>,
    /// The sequence of our roots.
    pub(crate) sequence: u64,
    /// Peers that do not hold them.
    pub(crate) lacking: Vec<String>,
    /// What uses the old root.
    pub(crate) uses: Vec<String>,
}

impl Roots {
    pub(super) fn open(settings: &Settings) -> Result<Self, StateError> {
        let state_dir = StateDir::open(&settings.state_dir)?;
        Ok(Self {
            own: OwnRoots::new(state_dir, settings.trust_domain.clone()),
        })
    }

    /// What peers told, as it was kept.
    pub(super) fn learned(&self) -> Result<Learned, StateError> {
        Learned::load(self.own.state_dir())
    }

    /// Writes down what peers told.
    pub(super) fn keep(&self, learned: &Learned) -> Result<(), StateError> {
        learned.store(self.own.state_dir())
    }
}

impl Shared {
    /// Takes a step of a change of our root, and tells every peer what follows from it. Blocks while it is written down.
    pub(crate) fn rotate_root(&self, step: Step) -> Result<Stand, RotateError> {
        let now = UnixTime::now();
        let own = &self.roots.own;
        let holders = self.look(Plane::holders);
        let leaves = LeavesInUse::Unknown {
            life_max: self.settings.leaf_lifetime_max + LOOK_MAX,
        };
        let state = match step {
            Step::Look => own.current(now),
            Step::Begin => own.begin(now),
            Step::Switch { is_forced } => own.switch(&holders, is_forced, now),
            Step::Finish => own.finish(&leaves, &holders, now),
        }?;
        let lacking = trust::lacking(state.bundle.sequence(), &holders);
        let uses = trust::in_use(&state, &leaves, &holders, now);
        let stand = Stand {
            phase: state.rotation.as_ref().map(|rotation| rotation.phase),
            sequence: state.bundle.sequence(),
            lacking: lacking.iter().map(ToString::to_string).collect(),
            uses: uses.iter().map(ToString::to_string).collect(),
        };
        if step != Step::Look {
            info!(
                ?step,
                sequence = stand.sequence,
                "a step of the change of our root is done"
            );
            self.use_own_roots(state);
        }
        Ok(stand)
    }

    fn use_own_roots(&self, state: State) {
        let side = match serve::side(&self.settings, state) {
            Ok(side) => side,
            // The addresses were read when the control plane started.
            Err(error) => {
                return error!(%error, "our own roots are not told before the next start");
            }
        };
        let own = serve::own(&self.settings, &side);
        self.side.send_replace(Arc::new(side));
        self.change(|plane, _| plane.set_own_roots(own.roots, own.bundle_sequence));
    }
}
