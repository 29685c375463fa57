//! A change of root through its steps, crashes between any two writes of it, and backups in the middle.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::authority::LEAF_LIFETIME;
use crate::bundle::{BundleSet, SharedBundles};
use crate::denials::Denials;
use crate::testing::*;
use crate::verify::{GatewayVerifier, Side};

#[test]
fn root_is_changed_in_three_steps() {
    let (_temp, dir) = started();
    let first = load(&dir);
    assert_eq!((first.bundle.sequence(), &first.rotation), (0, &None));

    let begun = dir.begin_rotation(&domain(A), at(NOW)).unwrap();
    let rotation = begun.rotation.clone().expect("a change is under way");
    assert_eq!(rotation.phase, RotationPhase::Announced);
    assert_eq!(begun.authority.root(), first.authority.root());
    assert_eq!(begun.bundle.sequence(), 1);
    assert_eq!(pins(&begun), both(&rotation));

    let switched = dir.switch_rotation(&domain(A), at(NOW + 60)).unwrap();
    assert_eq!(switched.authority.root(), &rotation.new);
    assert_eq!(
        (switched.bundle.sequence(), pins(&switched)),
        (1, both(&rotation))
    );
    let since = at(NOW + 60);
    let phase = switched.rotation.as_ref().map(|rotation| rotation.phase);
    assert_eq!(phase, Some(RotationPhase::Issuing { since }));

    let finished = dir.finish_rotation(&domain(A), at(NOW + 120)).unwrap();
    assert_eq!(finished.authority.root(), &rotation.new);
    assert_eq!((finished.bundle.sequence(), &finished.rotation), (2, &None));
    assert_eq!(pins(&finished), [root_pin(&rotation.new).unwrap()].into());
    assert_eq!(finished.bundle_pem.matches("BEGIN CERTIFICATE").count(), 1);
    for name in [NEXT_KEY_FILE, NEXT_CERTIFICATE_FILE] {
        assert!(!dir.path().join(name).exists(), "{name}");
    }
    // And again from there.
    let again = dir.begin_rotation(&domain(A), at(NOW)).unwrap();
    assert_eq!(again.bundle.sequence(), 3);
}

#[test]
fn peer_that_holds_what_it_was_told_believes_every_leaf_of_the_change() {
    let (_temp, dir) = started();
    let told = |bundle: &Bundle| {
        let mut set = BundleSet::new();
        set.insert(bundle.clone()).unwrap();
        let bundles = SharedBundles::new(set);
        GatewayVerifier::dialer(bundles, Denials::default(), domain(A))
    };
    let shows = |state: &State| {
        let leaf = state
            .authority
            .issue(&gateway(A), &[], at(NOW), LEAF_LIFETIME);
        leaf.unwrap().chain()[0].clone()
    };
    let before = load(&dir);
    let (old_peer, old_leaf) = (told(&before.bundle), shows(&before));
    let begun = dir.begin_rotation(&domain(A), at(NOW)).unwrap();
    let peer = told(&begun.bundle);
    assert!(
        believes(&old_peer, &shows(&begun)),
        "the old root still issues"
    );
    let switched = dir.switch_rotation(&domain(A), at(NOW)).unwrap();
    let new_leaf = shows(&switched);
    assert!(believes(&peer, &old_leaf) && believes(&peer, &new_leaf));
    assert!(
        !believes(&old_peer, &new_leaf),
        "why nobody switches too early"
    );
    let finished = dir.finish_rotation(&domain(A), at(NOW)).unwrap();
    let new_peer = told(&finished.bundle);
    assert!(believes(&new_peer, &shows(&finished)));
    assert!(
        !believes(&new_peer, &old_leaf),
        "why nobody finishes too early"
    );
}

#[test]
fn steps_out_of_order_are_refused() {
    let (_temp, dir) = started();
    let (a, now) = (domain(A), at(NOW));
    assert!(matches!(
        dir.switch_rotation(&a, now),
        Err(StateError::NoRotation)
    ));
    assert!(matches!(
        dir.finish_rotation(&a, now),
        Err(StateError::NoRotation)
    ));
    dir.begin_rotation(&a, now).unwrap();
    assert!(matches!(
        dir.begin_rotation(&a, now),
        Err(StateError::RotationUnderWay)
    ));
    assert!(matches!(
        dir.finish_rotation(&a, now),
        Err(StateError::NoRotation)
    ));
    let first = dir.switch_rotation(&a, now).unwrap();
    let again = dir.switch_rotation(&a, at(NOW + 60)).unwrap();
    assert_eq!(
        again.rotation, first.rotation,
        "it issues since the first time"
    );
}

/// Every state of the files that a crash can leave is one of before the write or after it, so that each of them is made
/// by hand and loaded.
#[test]
fn crash_between_any_two_writes_leaves_a_state_that_goes_on() {
    // In begin: the key, then the certificate, then the sequence, then the bundle.
    let (_temp, dir) = started();
    let before = load(&dir);
    let saved = fs::read(dir.path().join(BUNDLE_FILE)).unwrap();
    let begun = dir.begin_rotation(&domain(A), at(NOW)).unwrap();
    fs::write(dir.path().join(BUNDLE_FILE), &saved).unwrap();
    let repaired = load(&dir);
    assert_eq!(
        (repaired.bundle.sequence(), pins(&repaired)),
        (1, pins(&begun))
    );
    fs::remove_file(dir.path().join(ROOTS_FILE)).unwrap();
    fs::write(dir.path().join(BUNDLE_FILE), &saved).unwrap();
    let unbegun = load(&dir);
    assert_eq!((pins(&unbegun), &unbegun.rotation), (pins(&before), &None));
    fs::remove_file(dir.path().join(NEXT_CERTIFICATE_FILE)).unwrap();
    assert_eq!(load(&dir).rotation, None);

    // In finish: the step, the bundle, the key, the certificate, the step's end.
    let begun = dir.begin_rotation(&domain(A), at(NOW)).unwrap();
    let rotation = begun.rotation.expect("under way");
    dir.switch_rotation(&domain(A), at(NOW)).unwrap();
    let finishing = RootsFile {
        sequence: 2,
        rotation: Some(Step::Finishing),
    };
    for writes in 0..=4 {
        let (_temp, copy) = copy_of(dir.path());
        copy.put_roots(&finishing).unwrap();
        if writes >= 1 {
            let new = copy.read_text(NEXT_CERTIFICATE_FILE).unwrap().unwrap();
            copy.put(BUNDLE_FILE, new.as_bytes()).unwrap();
        }
        if writes >= 2 {
            copy.rename(NEXT_KEY_FILE, KEY_FILE).unwrap();
        }
        if writes >= 3 {
            copy.rename(NEXT_CERTIFICATE_FILE, CERTIFICATE_FILE)
                .unwrap();
        }
        if writes >= 4 {
            let rotation = None;
            copy.put_roots(&RootsFile {
                sequence: 2,
                rotation,
            })
            .unwrap();
        }
        let state = load(&copy);
        assert_eq!(state.authority.root(), &rotation.new, "{writes}");
        assert_eq!(
            pins(&state),
            [root_pin(&rotation.new).unwrap()].into(),
            "{writes}"
        );
        assert_eq!(
            (state.bundle.sequence(), &state.rotation),
            (2, &None),
            "{writes}"
        );
    }
}

#[test]
fn backup_in_the_middle_of_a_change_restores_it() {
    let (temp, dir) = started();
    dir.begin_rotation(&domain(A), at(NOW)).unwrap();
    let before = dir.switch_rotation(&domain(A), at(NOW)).unwrap();
    let mut archive = Vec::new();
    dir.backup(&[], &mut archive).unwrap();
    let elsewhere = StateDir::open(temp.path().join("elsewhere")).unwrap();
    elsewhere.restore(&domain(A), &[], &archive[..]).unwrap();
    let after = load(&elsewhere);
    assert_eq!(after.authority.root(), before.authority.root());
    assert_eq!(after.rotation, before.rotation);
    assert_eq!(after.bundle.sequence(), 1);
    assert_eq!(pins(&after), pins(&before));
}

#[test]
fn damage_is_told() {
    let (_temp, dir) = started();
    dir.begin_rotation(&domain(A), at(NOW)).unwrap();
    fs::write(dir.path().join(ROOTS_FILE), "{").unwrap();
    let error = dir.load(&domain(A), at(NOW)).unwrap_err().to_string();
    assert!(error.contains("roots.json in "), "{error}");
    assert!(error.contains("restore the backup"), "{error}");
    fs::write(
        dir.path().join(ROOTS_FILE),
        r#"{"sequence":1,"rotation":{"phase":"announced"}}"#,
    )
    .unwrap();
    fs::remove_file(dir.path().join(NEXT_KEY_FILE)).unwrap();
    let error = dir.load(&domain(A), at(NOW)).unwrap_err();
    assert!(
        matches!(
            error,
            StateError::KeyMissing {
                key: NEXT_KEY_FILE,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn directory_of_before_there_were_changes_of_root_is_loaded() {
    let (_temp, dir) = started();
    let _ = fs::remove_file(dir.path().join(ROOTS_FILE));
    let state = load(&dir);
    assert!(!state.is_new);
    assert_eq!((state.bundle.sequence(), state.rotation), (0, None));
    assert!(!dir.path().join(ROOTS_FILE).exists());
    let empty = TempDir::new().unwrap();
    let empty = StateDir::open(empty.path().join("state")).unwrap();
    assert!(matches!(
        empty.load(&domain(A), at(NOW)),
        Err(StateError::Empty { .. })
    ));
}

fn believes(peer: &GatewayVerifier, leaf: &CertificateDer<'_>) -> bool {
    peer.verify(leaf, &[], Side::Server, at(NOW)).is_ok()
}

fn started() -> (TempDir, StateDir) {
    let temp = TempDir::new().unwrap();
    let dir = StateDir::open(temp.path().join("state")).unwrap();
    dir.load_or_create(&domain(A), at(NOW)).unwrap();
    (temp, dir)
}

fn load(dir: &StateDir) -> State {
    dir.load(&domain(A), at(NOW)).unwrap()
}

fn copy_of(path: &Path) -> (TempDir, StateDir) {
    let temp = TempDir::new().unwrap();
    let copy: PathBuf = temp.path().join("state");
    let dir = StateDir::open(&copy).unwrap();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    (temp, dir)
}

fn pins(state: &State) -> std::collections::BTreeSet<[u8; 32]> {
    state
        .bundle
        .roots()
        .iter()
        .filter_map(|root| root_pin(root))
        .collect()
}

fn both(rotation: &Rotation) -> std::collections::BTreeSet<[u8; 32]> {
    [&rotation.old, &rotation.new]
        .into_iter()
        .filter_map(|root| root_pin(root))
        .collect()
}
