//! Keeps the tables that are in use, so that the gateway starts with them while the control plane is away.
//!
//! A file is a version byte, the SHA-256 of what follows, and one whole change: each message with its length (u32) in
//! front. Two generations lie in the state directory; a damaged one never displaces a good one. Whatever moment the
//! machine dies at, one of the two is whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;
use corinth_api::{Entry, LinkedPeer, RoutesError, Update, wire};
use corinth_daemon::disk;
use corinth_model::{ClusterName, Denied, Export, Instance, Route};

use super::{
    collect::{Change, Collected, Collector},
    held::Held,
};
use crate::settings::read_limited;

const CURRENT: &str = "tables.bin";
const PREVIOUS: &str = "tables.previous.bin";
/// Another form of the file has another number.
const VERSION: u8 = 1;
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = 1 + DIGEST_BYTES;
/// Largest file that is read: far beyond the largest tables we are made for.
const FILE_MAX_BYTES: u64 = 512 << 20;

/// The kept tables of one state directory.
#[derive(Debug)]
pub(super) struct KeptTables {
    directory: PathBuf,
}

/// One generation.
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) change: Result<Change, Damage>,
}

/// Why a file holds no tables.
#[derive(Debug)]
pub(super) enum Damage {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is of another version, or not one of ours.
    Foreign,
    /// It is not what was written.
    Checksum,
    /// It is what was written, but not understood here.
    NotUnderstood(String),
}

impl KeptTables {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            directory: state_dir.to_owned(),
        }
    }

    /// What is there, the newest first.
    pub(super) fn load(&self) -> Vec<Kept> {
        let paths = [CURRENT, PREVIOUS].map(|name| self.directory.join(name));
        let kept = paths.into_iter().filter_map(|path| {
            let bytes = match read_limited(&path, FILE_MAX_BYTES) {
                Ok(bytes) => Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) => Err(Damage::Unreadable(error)),
            };
            let change = bytes.and_then(|bytes| decode(&bytes));
            Some(Kept { path, change })
        });
        kept.collect()
    }

    /// Keeps what [`InUse::encode`] made; nothing is written if it is kept already.
    pub(super) fn store(&self, bytes: &[u8]) -> io::Result<()> {
        let current = self.directory.join(CURRENT);
        let there = read_limited(&current, FILE_MAX_BYTES);
        if there.as_ref().is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        let is_good = there.is_ok_and(|there| content(&there).is_ok());
        if is_good {
            std::fs::rename(&current, self.directory.join(PREVIOUS))?;
            disk::sync(&self.directory)?;
        }
        disk::replace(&current, bytes)
    }
}

/// The entries that are in use. They are shared, so that what takes long is done without keeping them from changing.
pub(super) struct InUse {
    state: (Instance, u64),
    peers: BTreeMap<ClusterName, LinkedPeer>,
    routes: Vec<Arc<Route>>,
    exports: Vec<Arc<Export>>,
    denied: BTreeSet<Denied>,
}

impl InUse {
    pub(super) fn of(held: &Held, state: (Instance, u64)) -> Self {
        Self {
            state,
            peers: held.peers.clone(),
            routes: held.routes.values().cloned().collect(),
            exports: held.exports.values().cloned().collect(),
            denied: held.denied.clone(),
        }
    }

    /// The file that holds them.
    pub(super) fn encode(self) -> Vec<u8> {
        let (instance, revision) = self.state;
        let mut bytes = vec![0; HEADER_BYTES];
        let mut add = |message: wire::routes::Update| {
            let message = prost::Message::encode_to_vec(&message);
            let length = u32::try_from(message.len()).expect("a message has at most 1 MiB");
            bytes.extend(length.to_be_bytes());
            bytes.extend(message);
        };
        let begin = Update::Begin {
            instance,
            revision,
            whole: true,
        };
        add((&begin).into());
        for (cluster, peer) in self.peers {
            add((&Entry::Peer(cluster, peer)).into());
        }
        for route in self.routes {
            let kind = wire::routes::update::Kind::Route((&*route).into());
            add(wire::routes::Update { kind: Some(kind) });
        }
        for export in self.exports {
            let kind = wire::routes::update::Kind::Export((&*export).into());
            add(wire::routes::Update { kind: Some(kind) });
        }
        for denied in self.denied {
            add((&Entry::Denial(denied)).into());
        }
        add((&Update::Commit { revision }).into());
        let digest = digest::digest(&digest::SHA256, &bytes[HEADER_BYTES..]);
        bytes[0] = VERSION;
        bytes[1..HEADER_BYTES].copy_from_slice(digest.as_ref());
        bytes
    }
}

fn decode(bytes: &[u8]) -> Result<Change, Damage> {
    let mut rest = content(bytes)?;
    let mut collector = Collector::default();
    let cut = || Damage::NotUnderstood("it ends within a message".to_owned());
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (message, after) = after.split_at_checked(length).ok_or_else(cut)?;
        rest = after;
        let message: wire::routes::Update = prost::Message::decode(message)
            .map_err(|error| Damage::NotUnderstood(RoutesError::Malformed(error).to_string()))?;
        match collector.take(message) {
            Ok(Collected::More) => {}
            Ok(Collected::Change(change)) => return Ok(change),
            Ok(Collected::Spoiled(spoiled)) => return Err(Damage::NotUnderstood(spoiled.why)),
            Ok(Collected::OpenPeering { .. }) => return Err(Damage::Foreign),
            Err(breach) => return Err(Damage::NotUnderstood(breach.to_string())),
        }
    }
    Err(cut())
}

/// What follows the header, if it is what was written.
fn content(bytes: &[u8]) -> Result<&[u8], Damage> {
    let (header, content) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or(Damage::Foreign)?;
    let (version, written) = header.split_first().ok_or(Damage::Foreign)?;
    if *version != VERSION {
        return Err(Damage::Foreign);
    }
    if digest::digest(&digest::SHA256, content).as_ref() != written {
        return Err(Damage::Checksum);
    }
    Ok(content)
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "the file cannot be read ({error})"),
            Self::Foreign => f.write_str("the file is not one of ours, or of another version"),
            Self::Checksum => f.write_str("the file does not match its checksum"),
            Self::NotUnderstood(why) => write!(f, "the file is not understood: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use corinth_model::TrustDomain;

    use super::*;
    use crate::feed::collect::Step;

    const INSTANCE: Instance = Instance([9; 16]);

    fn denial(domain: &str) -> Entry {
        Entry::Denial(Denied::TrustDomain(TrustDomain::parse(domain).unwrap()))
    }

    fn file(domain: &str, revision: u64) -> Vec<u8> {
        let mut held = Held::default();
        held.take(vec![Step::Put(denial(domain))]);
        InUse::of(&held, (INSTANCE, revision)).encode()
    }

    fn revisions(kept: &KeptTables) -> Vec<Option<u64>> {
        let revision = |kept: Kept| kept.change.ok().map(|change| change.revision);
        kept.load().into_iter().map(revision).collect()
    }

    #[test]
    fn what_was_kept_is_read() {
        let change = decode(&file("west", 4)).expect("we wrote it");
        let expected = Change {
            instance: INSTANCE,
            revision: 4,
            whole: true,
            steps: vec![Step::Put(denial("west"))],
        };
        assert_eq!(change, expected);
    }

    #[test]
    fn the_one_before_stays_until_the_new_one_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let kept = KeptTables::new(directory.path());
        assert_eq!(revisions(&kept), []);
        for revision in 1..=3 {
            kept.store(&file("west", revision)).unwrap();
        }
        assert_eq!(revisions(&kept), [Some(3), Some(2)]);
    }

    #[test]
    fn a_damaged_file_is_noticed_and_never_displaces_a_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let kept = KeptTables::new(directory.path());
        kept.store(&file("west", 1)).unwrap();
        kept.store(&file("west", 2)).unwrap();
        let current = directory.path().join(CURRENT);
        let mut bytes = std::fs::read(&current).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&current, bytes).unwrap();
        assert_eq!(revisions(&kept), [None, Some(1)]);
        kept.store(&file("west", 3)).unwrap();
        assert_eq!(revisions(&kept), [Some(3), Some(1)]);
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let good = file("west", 1);
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            assert!(decode(&bytes).is_err(), "byte {at}");
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
        }
    }
}
