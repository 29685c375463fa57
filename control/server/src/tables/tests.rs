use corinth_model::{Denied, TrustDomain};
use proptest::prelude::*;

use super::*;

const INSTANCE: Instance = Instance([7; 16]);

fn entry(number: u16) -> Entry {
    let domain = TrustDomain::parse(&format!("d{number}.example")).unwrap();
    Entry::Denial(Denied::TrustDomain(domain))
}

fn tables(numbers: &[u16]) -> Tables {
    let mut tables = Tables::new(INSTANCE);
    for number in numbers {
        assert!(tables.update([entry(*number)], []));
    }
    tables
}

#[test]
fn a_consumer_that_holds_nothing_is_told_everything() {
    let change = tables(&[1, 2]).since(None).unwrap();
    assert!(change.is_whole);
    assert_eq!(change.revision, 2);
    assert_eq!(change.put.len(), 2);
}

#[test]
fn a_consumer_is_told_only_what_it_missed() {
    let mut tables = tables(&[1, 2]);
    tables.update([], [entry(1).key()]);
    let change = tables.since(Some((INSTANCE, 2))).unwrap();
    assert!(!change.is_whole);
    assert_eq!(change.put, []);
    assert_eq!(change.removed, [entry(1).key()]);
    assert_eq!(tables.since(Some((INSTANCE, 3))), None);
}

#[test]
fn a_consumer_of_another_instance_or_of_the_future_is_told_everything() {
    let tables = tables(&[1, 2]);
    for held in [(Instance([8; 16]), 2), (INSTANCE, 9)] {
        assert!(tables.since(Some(held)).unwrap().is_whole);
    }
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let mut tables = tables(&[1]);
    assert!(!tables.update([entry(1)], [entry(2).key()]));
    assert_eq!(tables.revision(), 1);
}

#[test]
fn a_consumer_that_missed_more_than_is_remembered_is_told_everything() {
    let mut tables = tables(&[0]);
    for number in 0..=u16::MAX {
        tables.update([entry(number)], []);
    }
    tables.update([], (0..=u16::MAX).map(|number| entry(number).key()));
    let denied = |number: u32| {
        let domain = TrustDomain::parse(&format!("e{number}.example")).unwrap();
        Entry::Denial(Denied::TrustDomain(domain))
    };
    tables.update((0..50_000).map(denied), []);
    let before = tables.revision();
    tables.update([], (0..50_000).map(|number| denied(number).key()));
    assert!(tables.since(Some((INSTANCE, 1))).unwrap().is_whole);
    assert!(!tables.since(Some((INSTANCE, before))).unwrap().is_whole);
}

#[test]
fn what_changes_again_and_again_takes_no_more_room() {
    let mut tables = tables(&[1, 2, 3]);
    for _ in 0..5_000 {
        tables.update([], [entry(1).key()]);
        tables.update([entry(1)], []);
    }
    let noted = tables.changed.values().map(Vec::len).sum::<usize>();
    assert_eq!(noted, tables.noted);
    assert!(noted <= 6 + NOTED_AGAIN, "{noted} keys");
    for (held, missed) in [(1, [2, 3, 1].as_slice()), (3, &[1])] {
        let change = tables.since(Some((INSTANCE, held))).unwrap();
        let put: Vec<_> = change.put.iter().map(|entry| entry.key()).collect();
        let missed: Vec<_> = missed.iter().map(|number| entry(*number).key()).collect();
        assert_eq!((change.is_whole, put), (false, missed));
    }
}

proptest! {
    #[test]
    fn whoever_takes_every_difference_holds_what_there_is(
        steps in prop::collection::vec((any::<bool>(), 0_u16..6, any::<bool>()), 0..60)
    ) {
        let mut tables = Tables::new(INSTANCE);
        let mut held: Option<(Instance, u64)> = None;
        let mut copy = BTreeMap::new();
        for (is_put, number, is_looking) in steps {
            if is_put {
                tables.update([entry(number)], []);
            } else {
                tables.update([], [entry(number).key()]);
            }
            if !is_looking {
                continue;
            }
            if let Some(change) = tables.since(held) {
                if change.is_whole {
                    copy.clear();
                }
                for key in &change.removed {
                    copy.remove(key);
                }
                for entry in change.put {
                    copy.insert(entry.key(), entry);
                }
                held = Some((change.instance, change.revision));
            }
            let expected: Vec<_> = tables.iter().cloned().collect();
            prop_assert_eq!(copy.values().cloned().collect::<Vec<_>>(), expected);
        }
    }
}
