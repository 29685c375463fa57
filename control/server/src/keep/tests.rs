use super::*;

const FIRST: Instance = Instance([1; 16]);
const SECOND: Instance = Instance([2; 16]);

fn keep() -> (tempfile::TempDir, Keep) {
    let directory = tempfile::tempdir().unwrap();
    let keep = Keep::open(directory.path()).unwrap();
    (directory, keep)
}

#[test]
fn an_instance_is_kept_over_starts_and_its_epoch_grows() {
    let (_directory, keep) = keep();
    let life = |instance, epoch, is_new| Life {
        instance,
        epoch,
        is_new,
    };
    assert_eq!(keep.begin(FIRST).unwrap(), life(FIRST, 1, true));
    assert_eq!(keep.begin(SECOND).unwrap(), life(FIRST, 2, false));
}

#[test]
fn what_cannot_be_read_is_moved_aside_and_counts_as_lost() {
    let (directory, keep) = keep();
    keep.begin(FIRST).unwrap();
    let file = directory.path().join("control/instance.json");
    std::fs::write(&file, "{\"inst").unwrap();
    let life = keep.begin(SECOND).unwrap();
    assert_eq!((life.instance, life.is_new), (SECOND, true));
    assert!(file.with_extension("damaged").exists());
}

#[test]
fn what_is_kept_of_a_peer_is_for_our_eyes_and_goes_with_it() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, keep) = keep();
    let west: ClusterName = "west".parse().unwrap();
    assert_eq!(keep.peer::<Vec<u8>>(&west), None);
    keep.store_peer(&west, &vec![1_u8, 2]).unwrap();
    assert_eq!(keep.peer::<Vec<u8>>(&west), Some(vec![1, 2]));
    let file = directory.path().join("control/peers/west.json");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    keep.forget_peer(&west).unwrap();
    keep.forget_peer(&west).unwrap();
    assert!(!file.exists());
}
