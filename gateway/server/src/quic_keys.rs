//! The secrets of this gateway for QUIC, kept in the state directory.
//!
//! A peer that was connected before a restart learns by them at once that its connection is gone. The one that makes resets
//! is shared by all slots that share the directory, or a file with a secret, so that a peer whose packets are led to another
//! slot learns it too; the other one is the slot's own. A gateway that lost them is only slower to be found again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aws_lc_rs::{error::Unspecified, hmac, rand};
use corinth_identity::{StateDir, StateError};
use corinth_model::Slot;
use corinth_transport::quic::QuicKeys;

/// Bytes of each of the two.
const KEY_BYTES: usize = 32;
/// The file of the one that slots share.
const SHARED: &str = "quic-reset-key";
/// What is made of a secret that slots share is for.
const FOR_RESETS: &[u8] = b"corinth quic resets";

/// The secrets for QUIC can be neither read nor made.
#[derive(Debug, thiserror::Error)]
pub enum QuicKeysError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file with the secret that slots share cannot be read.
    #[error("the shared key {}: {source}", path.display())]
    Shared {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The secret that slots share could be guessed.
    #[error("the shared key {} has {bytes} bytes; at least {KEY_BYTES} are needed", path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// How many there are.
        bytes: usize,
    },
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[from] Unspecified),
}

/// The secrets of `slot`, made on first use. What slots share comes from the file `shared` if one is named.
pub(crate) fn load_or_make(
    state_dir: &StateDir,
    slot: &Slot,
    shared: Option<&Path>,
) -> Result<QuicKeys, QuicKeysError> {
    Ok(QuicKeys {
        reset: match shared {
            Some(path) => derived(path)?,
            None => key(state_dir, SHARED)?,
        },
        token: key(state_dir, &format!("quic-token-key-{slot}"))?,
    })
}

/// The key for resets that follows from the secret in this file.
fn derived(path: &Path) -> Result<[u8; KEY_BYTES], QuicKeysError> {
    let secret = fs::read(path).map_err(|source| QuicKeysError::Shared {
        path: path.to_owned(),
        source,
    })?;
    if secret.len() < KEY_BYTES {
        return Err(QuicKeysError::Short {
            path: path.to_owned(),
            bytes: secret.len(),
        });
    }
    let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), FOR_RESETS);
    let mut key = [0; KEY_BYTES];
    key.copy_from_slice(made.as_ref());
    Ok(key)
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
        let keys = load_or_make(state_dir, &Slot::parse(slot).unwrap(), None).unwrap();
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
    fn slots_without_a_common_directory_share_what_follows_from_a_common_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shared.key");
        fs::write(&file, [7; KEY_BYTES]).unwrap();
        let slot = Slot::parse("0").unwrap();
        let of = |name: &str| {
            let state_dir = StateDir::open(folder.path().join(name)).unwrap();
            let keys = load_or_make(&state_dir, &slot, Some(&file)).unwrap();
            (keys.reset, keys.token)
        };
        let (one, another) = (of("one"), of("another"));
        assert_eq!(one.0, another.0);
        assert_ne!(one.0, [7; KEY_BYTES]);
        assert_ne!(one.1, another.1);
    }

    #[test]
    fn a_common_file_that_is_not_there_or_could_be_guessed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shared.key");
        let state_dir = StateDir::open(folder.path().join("state")).unwrap();
        let refused = || {
            let slot = Slot::parse("0").unwrap();
            load_or_make(&state_dir, &slot, Some(&file)).err().unwrap()
        };
        assert!(matches!(refused(), QuicKeysError::Shared { .. }));
        fs::write(&file, [7; KEY_BYTES - 1]).unwrap();
        assert!(matches!(refused(), QuicKeysError::Short { bytes: 31, .. }));
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
