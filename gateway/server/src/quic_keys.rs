//! The secrets of this gateway's slot for QUIC, kept in the state directory.
//!
//! A peer that was connected before a restart learns by them at once that its connection is gone. They are of no use to
//! another slot, and a gateway that lost them is only slower to be found again.

use aws_lc_rs::{error::Unspecified, rand};
use corinth_identity::{StateDir, StateError};
use corinth_model::Slot;
use corinth_transport::quic::QuicKeys;

/// Bytes of each of the two.
const KEY_BYTES: usize = 32;

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
    let name = format!("quic-keys-{slot}");
    if let Some(keys) = state_dir.read(&name)?.as_deref().and_then(parse) {
        return Ok(keys);
    }
    let mut bytes = [0; 2 * KEY_BYTES];
    rand::fill(&mut bytes)?;
    state_dir.write(&name, &bytes)?;
    Ok(keys(&bytes))
}

/// Others than were written are made anew: nothing is lost with them.
fn parse(bytes: &[u8]) -> Option<QuicKeys> {
    bytes.try_into().ok().map(keys)
}

fn keys(bytes: &[u8; 2 * KEY_BYTES]) -> QuicKeys {
    let half = |from: usize| std::array::from_fn(|at| bytes[from + at]);
    QuicKeys {
        reset: half(0),
        token: half(KEY_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(state_dir: &StateDir, slot: &str) -> [[u8; KEY_BYTES]; 2] {
        let keys = load_or_make(state_dir, &Slot::parse(slot).unwrap()).unwrap();
        [keys.reset, keys.token]
    }

    #[test]
    fn a_slot_has_the_same_secrets_after_a_restart_and_no_other_slot_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(folder.path().join("state")).unwrap();
        let first = secrets(&state_dir, "0");
        assert_ne!(first[0], first[1]);
        assert_eq!(secrets(&state_dir, "0"), first);
        assert_ne!(secrets(&state_dir, "1"), first);
    }

    #[test]
    fn damaged_secrets_are_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(folder.path().join("state")).unwrap();
        let first = secrets(&state_dir, "0");
        state_dir.write("quic-keys-0", b"short").unwrap();
        let second = secrets(&state_dir, "0");
        assert_ne!(second, first);
        assert_eq!(secrets(&state_dir, "0"), second);
    }
}
