use corinth_model::PortNumber;

use super::*;

#[test]
fn the_book_survives_the_disk_and_damage_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert_eq!(
        load(directory.path()).expect("none yet"),
        PortBook::default()
    );
    let twenty = PortNumber::new(20).expect("not zero");
    let allocator = PortAllocator {
        range: corinth_model::PortRange {
            first: twenty,
            last: twenty,
        },
        taken: std::collections::BTreeSet::new(),
    };
    let wanted = Wanted {
        service: "a".to_owned(),
        fixed: None,
    };
    let book = allocator.assign(&PortBook::default(), &[wanted], 5).book;
    let book = allocator.assign(&book, &[], 6).book;
    store(&book, directory.path()).expect("stored");
    assert_eq!(load(directory.path()).expect("stored"), book);
    std::fs::write(directory.path().join(FILE), "{").expect("written");
    assert!(matches!(
        load(directory.path()),
        Err(PortBookError::Damaged { .. })
    ));
}
