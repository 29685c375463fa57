//! A state directory through starts, crashes, damage and restoration.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::testing::*;

#[test]
fn first_start_creates_and_later_starts_load() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("some/where");
    let first = start(&path).unwrap();
    assert!(first.is_new);
    assert_eq!(first.bundle.roots(), [first.authority.root().clone()]);
    let second = start(&path).unwrap();
    assert!(!second.is_new);
    assert_eq!(second.authority.root(), first.authority.root());
    assert_eq!(mode(&path), 0o700);
    for name in [KEY_FILE, CERTIFICATE_FILE, BUNDLE_FILE, LOCK_FILE] {
        assert_eq!(mode(&path.join(name)), 0o600, "{name}");
    }
}

#[test]
fn parallel_first_starts_agree_on_one_authority() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("state");
    let roots: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| start(&path).unwrap()))
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap().authority.root().clone())
            .collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
}

#[test]
fn open_permissions_are_refused_with_the_command_that_helps() {
    let (temp, path) = started();
    for (name, open, wanted) in [
        (KEY_FILE, 0o640, "0600"),
        (BUNDLE_FILE, 0o644, "0600"),
        ("", 0o755, "0700"),
    ] {
        let target = if name.is_empty() {
            path.clone()
        } else {
            path.join(name)
        };
        let good = mode(&target);
        fs::set_permissions(&target, fs::Permissions::from_mode(open)).unwrap();
        let error = start(&path).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("run: chmod {wanted} {}", target.display())),
            "{error}"
        );
        fs::set_permissions(&target, fs::Permissions::from_mode(good)).unwrap();
    }
    assert!(start(&path).is_ok());
    drop(temp);
}

#[test]
fn crash_between_key_and_certificate_is_repaired() {
    let (_temp, path) = started();
    let before = start(&path).unwrap();
    fs::remove_file(path.join(CERTIFICATE_FILE)).unwrap();
    fs::remove_file(path.join(BUNDLE_FILE)).unwrap();
    fs::write(path.join("ca.pem.new"), "half a certi").unwrap();
    let after = start(&path).unwrap();
    assert!(!after.is_new);
    assert_eq!(after.authority.key_pem(), before.authority.key_pem());
    assert_eq!(
        start(&path).unwrap().authority.root(),
        after.authority.root()
    );
}

#[test]
fn own_root_is_always_in_the_bundle() {
    let (_temp, path) = started();
    let other = Forge::root(A);
    fs::write(path.join(BUNDLE_FILE), pem(other.certificate())).unwrap();
    let state = start(&path).unwrap();
    let expected = [state.authority.root().clone(), other.certificate().clone()];
    assert_eq!(state.bundle.roots(), expected);
    assert_eq!(start(&path).unwrap().bundle.roots(), expected);
}

#[test]
fn damage_is_told_with_what_to_do() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str); 7] = [
        (
            |path| fs::remove_file(path.join(KEY_FILE)).unwrap(),
            "restore the backup of this directory",
        ),
        (
            |path| rewrite(&path.join(KEY_FILE), b"-----BEGIN"),
            "no PKCS#8 private key",
        ),
        (
            |path| rewrite(&path.join(KEY_FILE), b"\xff\xfe"),
            "not text",
        ),
        (
            |path| rewrite(&path.join(CERTIFICATE_FILE), b""),
            "holds 0 certificates",
        ),
        (
            |path| rewrite(&path.join(BUNDLE_FILE), b""),
            "remove it to have it made anew",
        ),
        (
            |path| rewrite(&path.join(BUNDLE_FILE), &vec![b'x'; 9_000_000]),
            "larger than 8388608 bytes",
        ),
        (
            |path| {
                fs::rename(path.join(KEY_FILE), path.join("elsewhere")).unwrap();
                symlink("elsewhere", path.join(KEY_FILE)).unwrap();
            },
            "ca.key is not a plain file",
        ),
    ];
    for (damage, words) in cases {
        let (_temp, path) = started();
        damage(&path);
        let error = start(&path).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
        assert!(
            error.contains(path.to_str().unwrap()),
            "{error:?} does not say where"
        );
    }
}

#[test]
fn directory_of_another_trust_domain_is_refused() {
    let (_temp, path) = started();
    let error = StateDir::open(&path)
        .unwrap()
        .load_or_create(&domain(B), at(NOW))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is for spiffe://a.test, but the trust domain is b.test"),
        "{error}"
    );
}

#[test]
fn file_in_the_way_of_the_directory_is_refused() {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("file");
    fs::write(&path, "").unwrap();
    let error = StateDir::open(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("is not a plain directory; move it away"),
        "{error}"
    );
}

#[test]
fn further_files_are_replaced_all_at_once() {
    let (_temp, path) = started();
    let state = StateDir::open(&path).unwrap();
    assert_eq!(state.read("ports.json").unwrap(), None);
    state.write("ports.json", b"one").unwrap();
    state.write("ports.json", b"two").unwrap();
    assert_eq!(
        state.read("ports.json").unwrap().as_deref(),
        Some(&b"two"[..])
    );
    assert_eq!(mode(&path.join("ports.json")), 0o600);
    assert!(!path.join("ports.json.new").exists());
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a//b",
        "a/../b",
        "a/.b/c",
        "a/b/c/d/e",
        "/etc/passwd",
        "roots.json",
        "ca-next.key",
        "x/",
        ".hidden",
        "ca.key",
        "lock",
        "ca.key.new",
        "a\0b",
    ] {
        assert!(
            matches!(state.write(name, b""), Err(StateError::Name(_))),
            "{name:?}"
        );
        assert!(
            matches!(state.read(name), Err(StateError::Name(_))),
            "{name:?}"
        );
    }
}

#[test]
fn of_several_who_make_a_file_at_once_all_get_the_same() {
    let (_temp, path) = started();
    let kept: Vec<_> = std::thread::scope(|scope| {
        let made: Vec<_> = (0..8_u8)
            .map(|content| {
                let path = &path;
                scope.spawn(move || {
                    let state = StateDir::open(path).unwrap();
                    state.read_or_write("key", &[content; 32]).unwrap()
                })
            })
            .collect();
        made.into_iter().map(|made| made.join().unwrap()).collect()
    });
    assert!(kept.iter().all(|one| *one == kept[0]), "{kept:?}");
    let state = StateDir::open(&path).unwrap();
    assert_eq!(state.read("key").unwrap().as_ref(), Some(&kept[0]));
    assert!(state.read_or_write("../key", b"").is_err());
}

#[test]
fn backup_restores_into_an_empty_directory_only() {
    let (temp, path) = started();
    let state = StateDir::open(&path).unwrap();
    state.write("ports.json", b"{}").unwrap();
    let mut archive = Vec::new();
    state
        .backup(&["ports.json", "absent.json"], &mut archive)
        .unwrap();

    let elsewhere = StateDir::open(temp.path().join("elsewhere")).unwrap();
    elsewhere.restore(&domain(A), &[], &archive[..]).unwrap();
    assert_eq!(
        elsewhere.read("ports.json").unwrap().as_deref(),
        Some(&b"{}"[..])
    );
    let (before, after) = (start(&path).unwrap(), start(elsewhere.path()).unwrap());
    assert!(!after.is_new);
    assert_eq!(after.authority.root(), before.authority.root());
    assert_eq!(after.authority.key_pem(), before.authority.key_pem());

    let error = elsewhere
        .restore(&domain(A), &[], &archive[..])
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("already exists; restore into an empty state directory"),
        "{error}"
    );
    let other = StateDir::open(temp.path().join("other")).unwrap();
    assert!(
        other.restore(&domain(B), &[], &archive[..]).is_err(),
        "another cluster's backup"
    );
    assert_eq!(
        fs::read_dir(other.path()).unwrap().count(),
        0,
        "nothing is written before all is checked"
    );
}

#[test]
fn directory_without_authority_has_nothing_to_back_up() {
    let temp = TempDir::new().unwrap();
    let state = StateDir::open(temp.path().join("state")).unwrap();
    assert!(matches!(
        state.backup(&[], &mut Vec::new()),
        Err(StateError::Empty { .. })
    ));
}

#[test]
fn damaged_archive_is_refused_and_quotes_no_key() {
    let (temp, path) = started();
    let mut archive = Vec::new();
    StateDir::open(&path)
        .unwrap()
        .backup(&[], &mut archive)
        .unwrap();
    let archive = String::from_utf8(archive).unwrap();
    let key = start(&path).unwrap().authority.key_pem();
    let cases = [
        String::new(),
        "{}".to_owned(),
        archive[..archive.len() / 2].to_owned(),
        archive.replace("corinth-backup/1", "corinth-backup/2"),
        archive.replace("\"ca.key\"", "\"ca.kei\""),
        archive.replace("\"files\": {", "\"files\": {\"../../escape\": \"x\","),
        archive.replace("\"files\": {", "\"more\": {}, \"files\": {"),
        archive.replace("BEGIN PRIVATE KEY", "BEGIN PRIVATE KEi"),
        " ".repeat(ARCHIVE_MAX_BYTES as usize + 1),
    ];
    for (index, text) in cases.iter().enumerate() {
        let target = StateDir::open(temp.path().join(format!("target{index}"))).unwrap();
        let error = target
            .restore(&domain(A), &[], text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(
            !error.contains(key.lines().nth(1).unwrap()),
            "case {index} quotes the key"
        );
        assert_eq!(
            fs::read_dir(target.path()).unwrap().count(),
            0,
            "case {index}"
        );
    }
}

#[test]
fn folders_are_backed_up_whole_and_what_is_of_one_life_is_left_out() {
    let (temp, path) = started();
    let state = StateDir::open(&path).unwrap();
    let files = [
        "cluster.yaml",
        "control/instance.json",
        "control/peers/west.json",
    ];
    for name in files {
        state.write(name, name.as_bytes()).unwrap();
    }
    assert_eq!(mode(&path.join("control/peers")), 0o700);
    fs::write(path.join("control/peers/west.json.new"), "half").unwrap();
    let mut archive = Vec::new();
    let further = ["cluster.yaml", "control/", "absent/"];
    state.backup(&further, &mut archive).unwrap();

    let elsewhere = StateDir::open(temp.path().join("elsewhere")).unwrap();
    let of_one_life = ["control/instance.json"];
    elsewhere
        .restore(&domain(A), &of_one_life, &archive[..])
        .unwrap();
    for name in ["cluster.yaml", "control/peers/west.json"] {
        let restored = elsewhere.read(name).unwrap();
        assert_eq!(restored.as_deref(), Some(name.as_bytes()));
        assert_eq!(mode(&elsewhere.path().join(name)), 0o600);
    }
    assert_eq!(elsewhere.read("control/instance.json").unwrap(), None);
    assert!(
        !elsewhere
            .path()
            .join("control/peers/west.json.new")
            .exists()
    );

    // What is left out must not be there from before.
    let occupied = StateDir::open(temp.path().join("occupied")).unwrap();
    occupied.write("control/instance.json", b"old").unwrap();
    let error = occupied
        .restore(&domain(A), &of_one_life, &archive[..])
        .unwrap_err();
    assert!(matches!(error, StateError::Occupied(_)), "{error}");
}

#[test]
fn backup_that_no_restore_would_read_is_not_written() {
    let (_temp, path) = started();
    let state = StateDir::open(&path).unwrap();
    let large = vec![b'x'; 23 * 1024 * 1024];
    for name in ["control/a", "control/b", "control/c"] {
        state.write(name, &large).unwrap();
    }
    let mut archive = Vec::new();
    let error = state.backup(&["control/"], &mut archive).unwrap_err();
    assert!(
        matches!(error, StateError::BackupTooLarge { .. }),
        "{error}"
    );
    assert!(archive.is_empty());
}

fn start(path: &Path) -> Result<State, StateError> {
    StateDir::open(path)?.load_or_create(&domain(A), at(NOW))
}

/// A directory in which a node of A has run.
fn started() -> (TempDir, PathBuf) {
    let temp = TempDir::new().unwrap();
    let path = temp.path().join("state");
    start(&path).unwrap();
    (temp, path)
}

fn rewrite(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}
