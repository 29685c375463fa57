//! A change of root in steps, each of which a crash leaves done or not done.
//!
//! ```text
//!            begin                    switch                     finish
//! one root ────────> new root told ──────────> new root issues ──────────> one root
//!                    (sequence + 1)                                        (sequence + 1)
//! ```
//!
//! When to take which step is for others to decide; here it is only carried out. The new pair lies beside the old one
//! until the last step moves it into its place.

use std::fs::{self, File};
use std::io;
use std::time::Duration;

use corinth_model::TrustDomain;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};

use super::{BUNDLE_FILE, CERTIFICATE_FILE, KEY_FILE, State, StateDir, StateError, failed};
use crate::authority::Authority;
use crate::bundle::Bundle;
use crate::link::root_pin;

#[cfg(test)]
mod tests;

pub(super) const NEXT_KEY_FILE: &str = "ca-next.key";
pub(super) const NEXT_CERTIFICATE_FILE: &str = "ca-next.pem";
pub(super) const ROOTS_FILE: &str = "roots.json";

/// A change of root that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// How far it has come.
    pub phase: RotationPhase,
    /// The root that is to go.
    pub old: CertificateDer<'static>,
    /// The root that is to stay.
    pub new: CertificateDer<'static>,
}

/// How far a change of root has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationPhase {
    /// The new root is told to peers; the old one issues.
    Announced,
    /// The new root issues; both are trusted.
    Issuing {
        /// Since when; leaves under the old root are older.
        since: UnixTime,
    },
}

/// What is kept about roots beside the certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RootsFile {
    /// Grows with every change of the bundle.
    pub(super) sequence: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", tag = "phase")]
enum Step {
    Announced,
    Issuing {
        since: u64,
    },
    /// The old root is being removed; done again until it is done.
    Finishing,
}

impl RootsFile {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl StateDir {
    /// Makes a new root and puts it into the bundle, whose sequence grows. The old root goes on issuing.
    ///
    /// # Errors
    /// If a change of root is under way already, or the directory cannot be used.
    pub fn begin_rotation(
        &self,
        trust_domain: &TrustDomain,
        now: UnixTime,
    ) -> Result<State, StateError> {
        let _lock = self.lock()?;
        let state = self.load_locked(trust_domain, now)?;
        if state.rotation.is_some() {
            return Err(StateError::RotationUnderWay);
        }
        let made =
            Authority::create(trust_domain.clone(), now).map_err(|error| self.broken(error))?;
        self.put(NEXT_KEY_FILE, made.key_pem().as_bytes())?;
        self.put(NEXT_CERTIFICATE_FILE, made.certificate_pem().as_bytes())?;
        // Before the bundle: a sequence without news does no harm, news without a sequence would.
        self.put_roots(&RootsFile {
            sequence: state.bundle.sequence() + 1,
            rotation: Some(Step::Announced),
        })?;
        // Loading puts the new root into the bundle.
        self.load_locked(trust_domain, now)
    }

    /// Lets the new root issue from now on.
    ///
    /// # Errors
    /// If no new root was begun, or the directory cannot be used.
    pub fn switch_rotation(
        &self,
        trust_domain: &TrustDomain,
        now: UnixTime,
    ) -> Result<State, StateError> {
        let _lock = self.lock()?;
        let state = self.load_locked(trust_domain, now)?;
        match state.rotation {
            None => return Err(StateError::NoRotation),
            Some(Rotation {
                phase: RotationPhase::Issuing { .. },
                ..
            }) => return Ok(state),
            Some(Rotation {
                phase: RotationPhase::Announced,
                ..
            }) => {}
        }
        let since = now.as_secs();
        self.put_roots(&RootsFile {
            sequence: state.bundle.sequence(),
            rotation: Some(Step::Issuing { since }),
        })?;
        self.load_locked(trust_domain, now)
    }

    /// Removes the old root and its key; the sequence of the bundle grows.
    ///
    /// # Errors
    /// If the new root does not issue yet, or the directory cannot be used.
    pub fn finish_rotation(
        &self,
        trust_domain: &TrustDomain,
        now: UnixTime,
    ) -> Result<State, StateError> {
        let _lock = self.lock()?;
        let state = self.load_locked(trust_domain, now)?;
        let Some(Rotation {
            phase: RotationPhase::Issuing { .. },
            ..
        }) = state.rotation
        else {
            return Err(StateError::NoRotation);
        };
        self.put_roots(&RootsFile {
            sequence: state.bundle.sequence() + 1,
            rotation: Some(Step::Finishing),
        })?;
        self.load_locked(trust_domain, now)
    }

    /// The change of root that is under way, with the authority that issues.
    pub(super) fn rotating(
        &self,
        roots: &RootsFile,
        trust_domain: &TrustDomain,
        old: Authority,
        now: UnixTime,
    ) -> Result<(Authority, Option<Rotation>), StateError> {
        let phase = match roots.rotation {
            None | Some(Step::Finishing) => return Ok((old, None)),
            Some(Step::Announced) => RotationPhase::Announced,
            Some(Step::Issuing { since }) => RotationPhase::Issuing {
                since: UnixTime::since_unix_epoch(Duration::from_secs(since)),
            },
        };
        let new = self.load_pair(NEXT_KEY_FILE, NEXT_CERTIFICATE_FILE, trust_domain, now)?;
        let new = new.ok_or_else(|| StateError::KeyMissing {
            path: self.path.clone(),
            key: NEXT_KEY_FILE,
        })?;
        let rotation = Rotation {
            phase,
            old: old.root().clone(),
            new: new.root().clone(),
        };
        Ok(match phase {
            RotationPhase::Announced => (old, Some(rotation)),
            RotationPhase::Issuing { .. } => (new, Some(rotation)),
        })
    }

    /// What is kept about roots, after what a crash has left undone is done.
    pub(super) fn settle_roots(&self, trust_domain: &TrustDomain) -> Result<RootsFile, StateError> {
        let mut roots = match self.take(ROOTS_FILE)? {
            Some(bytes) => RootsFile::read(&bytes).ok_or_else(|| StateError::Roots {
                path: self.path.clone(),
            })?,
            None => RootsFile::default(),
        };
        if roots.rotation == Some(Step::Finishing) {
            self.drop_old(trust_domain)?;
            roots.rotation = None;
            self.put_roots(&roots)?;
        }
        Ok(roots)
    }

    /// Moves the new pair into the place of the old one and takes the old root out of the bundle; may be done again.
    fn drop_old(&self, trust_domain: &TrustDomain) -> Result<(), StateError> {
        if let (Some(old), Some(_), Some(bundle)) = (
            self.read_text(CERTIFICATE_FILE)?,
            self.read_text(NEXT_CERTIFICATE_FILE)?,
            self.read_text(BUNDLE_FILE)?,
        ) {
            let roots = |pem: &str| {
                let read = Bundle::from_pem(trust_domain.clone(), pem.as_bytes(), 0);
                read.map(|bundle| bundle.roots().to_vec())
                    .map_err(|error| self.broken_bundle(error))
            };
            let old: Vec<_> = roots(&old)?.iter().map(root_pin).collect();
            let mut pem = String::new();
            for block in blocks(&bundle) {
                if !roots(block)?
                    .iter()
                    .any(|root| old.contains(&root_pin(root)))
                {
                    pem.push_str(block);
                    pem.push('\n');
                }
            }
            self.put(BUNDLE_FILE, pem.as_bytes())?;
        }
        self.rename(NEXT_KEY_FILE, KEY_FILE)?;
        self.rename(NEXT_CERTIFICATE_FILE, CERTIFICATE_FILE)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), StateError> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("renaming to", &to)(error)),
        }
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(failed("syncing", &self.path))
    }

    fn put_roots(&self, roots: &RootsFile) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(roots).expect("numbers and words are JSON");
        self.put(ROOTS_FILE, &text)
    }
}

/// The certificates of a PEM text, each with what stands before it.
fn blocks(pem: &str) -> impl Iterator<Item = &str> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .map(|block| block.trim_start_matches(['\r', '\n']))
        .filter(|block| block.ends_with(END))
}
