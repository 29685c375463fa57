use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn kept() -> (tempfile::TempDir, LastGood) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let kept = LastGood::new(directory.path());
    (directory, kept)
}

fn load(kept: &LastGood) -> (String, Generation) {
    let kept = kept.load().expect("readable").expect("something was kept");
    (kept.text, kept.generation)
}

#[test]
fn nothing_is_kept_at_first() {
    assert!(kept().1.load().expect("readable").is_none());
}

#[test]
fn the_last_one_comes_back_and_is_private() {
    let (directory, kept) = kept();
    kept.store("cluster: east\n").expect("stored");
    kept.store("cluster: west\n").expect("stored");
    assert_eq!(
        load(&kept),
        ("cluster: west\n".to_owned(), Generation::Current)
    );
    let mode = fs::metadata(directory.path().join(CURRENT))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_damaged_one_falls_back_to_the_previous() {
    let (directory, kept) = kept();
    kept.store("a").expect("stored");
    kept.store("b").expect("stored");
    let current = directory.path().join(CURRENT);
    let text = fs::read_to_string(&current).expect("there");
    for broken in [
        text.replace("\nb", "\nc"),
        text[..text.len() - 2].to_owned(),
        String::new(),
        "b".to_owned(),
    ] {
        fs::write(&current, broken).expect("written");
        let found = kept.load().expect("readable").expect("the previous one");
        assert_eq!(
            (found.text.as_str(), found.generation),
            ("a", Generation::Previous)
        );
        assert!(found.damage.is_some());
    }
    fs::remove_file(&current).expect("removed");
    assert_eq!(load(&kept), ("a".to_owned(), Generation::Previous));
}

#[test]
fn a_damaged_one_never_displaces_a_good_one() {
    let (directory, kept) = kept();
    kept.store("a").expect("stored");
    kept.store("b").expect("stored");
    fs::write(directory.path().join(CURRENT), "rubbish").expect("written");
    kept.store("c").expect("stored");
    fs::write(directory.path().join(CURRENT), "rubbish").expect("written");
    assert_eq!(load(&kept), ("a".to_owned(), Generation::Previous));
}

#[test]
fn storing_the_same_again_keeps_the_previous() {
    let (directory, kept) = kept();
    for text in ["a", "b", "b", "b"] {
        kept.store(text).expect("stored");
    }
    fs::remove_file(directory.path().join(CURRENT)).expect("removed");
    assert_eq!(load(&kept).0, "a");
}

#[test]
fn nothing_usable_is_an_error_that_says_what() {
    let (directory, kept) = kept();
    fs::write(directory.path().join(CURRENT), [0xff, 0xfe]).expect("written");
    let error = kept.load().expect_err("foreign");
    assert!(error.to_string().contains("is not one of ours"), "{error}");
    fs::write(directory.path().join(PREVIOUS), "x").expect("written");
    assert!(matches!(
        kept.load(),
        Err(LastGoodError::Damaged {
            previous: Some(Damage::Foreign),
            ..
        })
    ));
}

#[test]
fn a_missing_directory_is_an_error() {
    let kept = LastGood::new(Path::new("/nonexistent/corinth"));
    assert!(matches!(kept.store("a"), Err(LastGoodError::Write { .. })));
    assert!(kept.load().expect("nothing there").is_none());
}
