//! The secrets of this gateway for QUIC, kept in the state directory.
//!
//! A peer that was connected before a restart learns by them at once that its connection is gone. The one that makes resets
//! is shared by all slots that share the directory, so that a peer whose packets are led to another slot learns it too;
//! the other one is the slot's own. A gateway that lost them is only slower to be found again.

use aws_lc_rs::{error::Unspecified, rand};
use corinth_identity::{StateDir, StateError};
use corinth_model::Slot;
use corinth_transport::quic::QuicKeys;

/// Bytes of each of the two.
const KEY_BYTES: usize = 32;
/// The file of the one that slots share.
const SHARED: &str = "quic-reset-key";

/// The secrets for QUIC can be neither read nor made.
#[derive(Debug, thiserror::Error)]
pub enum QuicKeysError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[from] Unspecified),
}

/// The secrets of `slot`, made on first use.
pub(crate) fn load_or_make(state_dir: &StateDir, slot: &Slot) -> Result<QuicKeys, QuicKeysError> {
    Ok(QuicKeys {
        reset: key(state_dir, SHARED)?,
        token: key(state_dir, &format!("quic-token-key-{slot}"))?,
    })
}

/// The secret in this file. What is no secret is made anew: nothing is lost with it.
fn key(state_dir: &StateDir, name: &str) -> Result<[u8; KEY_BYTES], QuicKeysError> {
    let mut made = [0; KEY_BYTES];
    rand::fill(&mut made)?;
    let kept = state_dir.read_or_write(name, &made)?;
    if let Ok(key) = kept.try_into() {
        return Ok(key);
    }
    state_dir.write(name, &made)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(state_dir: &StateDir, slot: &str) -> [[u8; KEY_BYTES]; 2] {
        let keys = load_or_make(state_dir, &Slot::parse(slot).unwrap()).unwrap();
        [keys.reset, keys.token]
    }

    #[test]
    fn a_slot_has_the_same_secrets_after_a_restart_and_shares_one_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(folder.path().join("state")).unwrap();
        let first = secrets(&state_dir, "0");
        assert_ne!(first[0], first[1]);
        assert_eq!(secrets(&state_dir, "0"), first);
        let other = secrets(&state_dir, "1");
        assert_eq!(other[0], first[0]);
        assert_ne!(other[1], first[1]);
    }

    #[test]
    fn slots_of_other_clusters_share_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name| secrets(&StateDir::open(folder.path().join(name)).unwrap(), "0");
        assert_ne!(of("east")[0], of("west")[0]);
    }

    #[test]
    fn damaged_secrets_are_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(folder.path().join("state")).unwrap();
        let first = secrets(&state_dir, "0");
        state_dir.write(SHARED, b"short").unwrap();
        let second = secrets(&state_dir, "0");
        assert_ne!(second[0], first[0]);
        assert_eq!(second[1], first[1]);
        assert_eq!(secrets(&state_dir, "0"), second);
    }
}
