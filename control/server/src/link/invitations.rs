//! The tokens that are open, kept so that each is used as often as it may be and no more, over restarts too.
//!
//! Of a token only its key is kept, which checks a proof but cannot make the token again. Whatever is redeemed is on disk
//! before anybody is told.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand;
use corinth_api::HostPort;
use corinth_api::link::{Party, RootPin, Token, TokenError, TokenId, TokenSecret};
use corinth_identity::{LinkKey, StateDir, StateError, root_pin};
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use tracing::warn;

#[cfg(test)]
mod tests;

/// The file's name in the state directory.
pub const FILE: &str = "invitations.json";

/// Longest life of a token.
pub const LIFE_MAX: Duration = Duration::from_hours(24);

/// Most uses of one token.
pub const USES_MAX: u32 = 100;

/// Most tokens that are open at a time; more are a mistake.
pub const TOKENS_MAX: usize = 64;

/// The tokens of one cluster.
pub struct Invitations {
    state_dir: StateDir,
    /// Held while the file is written: two redemptions must not both see the last use. Nothing else waits for it.
    disk: Mutex<()>,
    /// What is in the file; held for look-ups only.
    kept: Mutex<Vec<Kept>>,
    /// Checked in place of the key of a token that is unknown, so that either takes as long.
    nobody: LinkKey,
}

/// One token as it is kept.
#[derive(Clone, PartialEq, Eq)]
struct Kept {
    id: TokenId,
    key: LinkKey,
    expires_at: UnixTime,
    uses_left: u32,
}

/// One open token, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its name.
    pub id: TokenId,
    /// Until when.
    pub expires_at: UnixTime,
    /// How often it can still be used.
    pub uses_left: u32,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Too many are open.
    #[error("{TOKENS_MAX} tokens are open; revoke some, or wait until they expire")]
    TooMany,
    /// A life of nothing or more than [`LIFE_MAX`].
    #[error("a token lives from one second to {} hours", LIFE_MAX.as_secs() / 3600)]
    Life,
    /// No use, or more than [`USES_MAX`].
    #[error("a token is used 1 to {USES_MAX} times")]
    Uses,
    /// Nobody could use it.
    #[error("this cluster has no address at which its gateways take links; tell it one")]
    NoAddress,
    /// Names and addresses make it too long.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// It could not be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Why a token was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// It is unknown, used up or expired; which of them is nobody's business.
    #[error("the token is unknown, used or expired")]
    Refused,
    /// That it was used could not be written down; it is as before.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Invitations {
    /// Those in the state directory. A damaged file is told in the log and holds none: tokens are soon made again.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(state_dir: StateDir) -> Result<Self, StateError> {
        let kept = match state_dir.read(FILE)? {
            Some(bytes) => read(&bytes).unwrap_or_else(|| {
                warn!(
                    file = FILE,
                    "the kept tokens are damaged; those that were open have ended"
                );
                Vec::new()
            }),
            None => Vec::new(),
        };
        let nobody = LinkKey::of_secret(&random().unwrap_or_default());
        Ok(Self {
            state_dir,
            disk: Mutex::default(),
            kept: Mutex::new(kept),
            nobody,
        })
    }

    /// Makes a token of this cluster that can be used `uses` times within `life`. Blocks while it is written down.
    ///
    /// # Errors
    /// Why there is none.
    pub fn create(
        &self,
        own: &Party,
        addresses: &[HostPort],
        life: Duration,
        uses: u32,
        now: UnixTime,
    ) -> Result<Token, CreateError> {
        if life < Duration::from_secs(1) || life > LIFE_MAX {
            return Err(CreateError::Life);
        }
        if !(1..=USES_MAX).contains(&uses) {
            return Err(CreateError::Uses);
        }
        if addresses.is_empty() {
            return Err(CreateError::NoAddress);
        }
        let secret: [u8; 32] = random().ok_or(CreateError::Random)?;
        let expires_at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + life);
        let pins = own
            .roots
            .iter()
            .map(|root| root_pin(&CertificateDer::from(&root[..])));
        let token = Token {
            id: TokenId(random().ok_or(CreateError::Random)?),
            secret: TokenSecret(secret),
            cluster: own.cluster.clone(),
            trust_domain: own.trust_domain.clone(),
            addresses: addresses.to_vec(),
            root_pins: pins.flatten().map(RootPin).collect(),
            expires_at: expires_at.as_secs(),
        };
        // A token that cannot be handed over is not kept.
        token.to_text()?;
        let one = Kept {
            id: token.id,
            key: LinkKey::of_secret(&secret),
            expires_at,
            uses_left: uses,
        };
        let _disk = self.disk.lock();
        let mut next = self.open_at(now);
        if next.len() >= TOKENS_MAX {
            return Err(CreateError::TooMany);
        }
        next.push(one);
        self.put(next)?;
        Ok(token)
    }

    /// Whether somebody could use a token now. Never blocks for long.
    #[must_use]
    pub fn is_open(&self, now: UnixTime) -> bool {
        self.kept.lock().iter().any(|one| one.is_open(now))
    }

    /// The tokens that are open now, by the order they were made in.
    #[must_use]
    pub fn list(&self, now: UnixTime) -> Vec<Open> {
        let open = self.open_at(now).into_iter().map(|one| Open {
            id: one.id,
            expires_at: one.expires_at,
            uses_left: one.uses_left,
        });
        open.collect()
    }

    /// The key to check a proof with. A token that is unknown has one too, which nobody can have used.
    #[must_use]
    pub fn key(&self, id: &TokenId) -> LinkKey {
        let kept = self.kept.lock();
        let one = kept.iter().find(|one| one.id == *id);
        one.map_or(&self.nobody, |one| &one.key).clone()
    }

    /// Uses a token once. It is written down when this returns; blocks until then. Of any number of calls at once
    /// exactly as many succeed as the token has uses left.
    ///
    /// # Errors
    /// If the token is not open, or that cannot be written down.
    pub fn redeem(&self, id: &TokenId, now: UnixTime) -> Result<(), RedeemError> {
        let _disk = self.disk.lock();
        let mut next = self.open_at(now);
        let one = next
            .iter_mut()
            .find(|one| one.id == *id)
            .ok_or(RedeemError::Refused)?;
        one.uses_left -= 1;
        next.retain(|one| one.uses_left > 0);
        Ok(self.put(next)?)
    }

    /// Ends a token before its time; says whether it was open. Blocks while that is written down.
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn revoke(&self, id: &TokenId, now: UnixTime) -> Result<bool, StateError> {
        let _disk = self.disk.lock();
        let mut next = self.open_at(now);
        let before = next.len();
        next.retain(|one| one.id != *id);
        let was_open = next.len() < before;
        if was_open {
            self.put(next)?;
        }
        Ok(was_open)
    }

    /// Forgets what has expired. Blocks while that is written down.
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn purge(&self, now: UnixTime) -> Result<(), StateError> {
        let _disk = self.disk.lock();
        let next = self.open_at(now);
        let has_expired = next.len() < self.kept.lock().len();
        if has_expired {
            self.put(next)?;
        }
        Ok(())
    }

    fn open_at(&self, now: UnixTime) -> Vec<Kept> {
        let kept = self.kept.lock();
        kept.iter()
            .filter(|one| one.is_open(now))
            .cloned()
            .collect()
    }

    /// Writes first, so that what is on disk is never behind.
    fn put(&self, next: Vec<Kept>) -> Result<(), StateError> {
        self.state_dir.write(FILE, &written(&next))?;
        *self.kept.lock() = next;
        Ok(())
    }
}

impl Kept {
    fn is_open(&self, now: UnixTime) -> bool {
        self.uses_left > 0 && now < self.expires_at
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tokens: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Line {
    id: String,
    key: String,
    expires_at: u64,
    uses_left: u32,
}

fn written(kept: &[Kept]) -> Vec<u8> {
    let line = |one: &Kept| Line {
        id: HEXLOWER.encode(&one.id.0),
        key: HEXLOWER.encode(one.key.expose()),
        expires_at: one.expires_at.as_secs(),
        uses_left: one.uses_left,
    };
    let tokens = kept.iter().map(line).collect();
    serde_json::to_vec_pretty(&File { tokens }).expect("strings and numbers are JSON")
}

fn read(bytes: &[u8]) -> Option<Vec<Kept>> {
    let file: File = serde_json::from_slice(bytes).ok()?;
    let kept = file.tokens.into_iter().map(|line| {
        Some(Kept {
            id: TokenId(bytes_of(&line.id)?),
            key: LinkKey::from_bytes(bytes_of(&line.key)?),
            expires_at: UnixTime::since_unix_epoch(Duration::from_secs(line.expires_at)),
            uses_left: line.uses_left,
        })
    });
    kept.collect()
}

fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Leaves keys out.
impl fmt::Debug for Invitations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitations")
            .field("kept", &self.kept.lock().len())
            .finish_non_exhaustive()
    }
}
