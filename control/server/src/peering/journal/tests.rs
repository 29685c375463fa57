use super::*;
use crate::peering::testing::{DAY_MS, TODAY_MS, at, id, many, offer, offers, state};

fn journal(services: &[&str]) -> Journal {
    let mut journal = Journal::new(state(1, 1, 1));
    journal.set_offers(offers(services), at(1, 2), TODAY_MS);
    journal
}

/// What whoever holds `version` is told, as `+name@version` and `-name@version`.
fn changes(journal: &Journal, version: Version) -> Vec<String> {
    let mut cursor = (version, None);
    let mut changes = Vec::new();
    while let Some((next, change)) = journal.next_change(&cursor) {
        let sign = match change {
            Change::Upsert { .. } => '+',
            Change::Tombstone => '-',
        };
        let (version, service) = &next;
        changes.push(format!("{sign}{}@{version}", service.as_ref().unwrap()));
        cursor = next;
    }
    changes
}

#[test]
fn only_what_has_changed_since_is_told() {
    let mut journal = journal(&["a.shop", "b.shop"]);
    assert_eq!(changes(&journal, at(1, 1)), ["+a.shop@1.2", "+b.shop@1.2"]);

    let mut next = offers(&["b.shop", "c.shop"]);
    next.insert(id("b.shop"), offer("b.shop", 9));
    let changed = journal.set_offers(next, at(1, 3), TODAY_MS);
    assert_eq!(changed, ["a.shop", "b.shop", "c.shop"].map(id).into());
    assert_eq!(
        changes(&journal, at(1, 2)),
        ["-a.shop@1.3", "+b.shop@1.3", "+c.shop@1.3"]
    );
    assert_eq!(changes(&journal, at(1, 3)), [""; 0]);
    assert_eq!(journal.len(), 2);
}

#[test]
fn the_same_offers_again_are_no_change() {
    let mut journal = journal(&["a.shop"]);
    let digest = journal.digest();
    assert!(
        journal
            .set_offers(offers(&["a.shop"]), at(1, 9), TODAY_MS)
            .is_empty()
    );
    assert_eq!(journal.state(), state(1, 1, 2));
    assert_eq!(journal.digest(), digest);
}

#[test]
fn a_change_is_above_what_was_told_even_if_the_version_given_is_not() {
    let mut journal = journal(&["a.shop"]);
    journal.set_offers(offers(&["b.shop"]), at(1, 2), TODAY_MS);
    assert_eq!(changes(&journal, at(1, 2)), ["-a.shop@1.3", "+b.shop@1.3"]);
    let last = Journal::new(state(1, 7, u64::MAX));
    assert_eq!(next(last.top), at(8, 0));
}

#[test]
fn a_tombstone_goes_once_it_is_acknowledged_and_a_peer_that_lacks_it_gets_everything() {
    let mut journal = journal(&["a.shop", "b.shop"]);
    journal.set_offers(offers(&["b.shop"]), at(1, 3), TODAY_MS);
    assert!(journal.acknowledge(at(1, 2)));
    assert_eq!(changes(&journal, at(1, 2)), ["-a.shop@1.3"]);
    assert!(journal.continues(&state(1, 1, 2)));

    assert!(journal.acknowledge(at(1, 3)));
    assert!(!journal.acknowledge(at(1, 3)));
    assert_eq!(changes(&journal, at(1, 2)), [""; 0]);
    assert!(!journal.continues(&state(1, 1, 2)));
    assert!(journal.continues(&state(1, 1, 3)));
}

#[test]
fn a_tombstone_is_kept_for_seven_days() {
    let mut journal = journal(&["a.shop"]);
    journal.set_offers(BTreeMap::new(), at(1, 3), TODAY_MS);
    assert!(!journal.forget_old(TODAY_MS + 7 * DAY_MS));
    assert!(journal.continues(&state(1, 1, 2)));
    assert!(journal.forget_old(TODAY_MS + 7 * DAY_MS + 1));
    assert!(!journal.continues(&state(1, 1, 2)));
}

#[test]
fn a_clock_that_goes_back_throws_nothing_away() {
    let mut journal = journal(&["a.shop"]);
    journal.set_offers(BTreeMap::new(), at(1, 3), TODAY_MS);
    assert!(!journal.forget_old(0));
    assert_eq!(changes(&journal, at(1, 2)), ["-a.shop@1.3"]);
}

#[test]
fn tombstones_are_bounded() {
    let mut journal = Journal::new(state(1, 1, 1));
    journal.set_offers(many(TOMBSTONES_MAX + 5), at(1, 2), TODAY_MS);
    journal.set_offers(offers(&["a.shop"]), at(1, 3), TODAY_MS);
    assert_eq!(journal.tombstones.len(), TOMBSTONES_MAX);
    assert_eq!(journal.told.len(), TOMBSTONES_MAX + 1);
    assert!(!journal.continues(&state(1, 1, 2)));
}

#[test]
fn whoever_holds_nothing_or_another_instance_gets_everything() {
    let journal = journal(&["a.shop"]);
    assert!(!journal.continues(&state(2, 1, 2)));
    assert!(!journal.continues(&state(1, 0, 0)));
    assert!(!journal.has_lost(&state(2, 9, 9)));
}

#[test]
fn who_holds_a_higher_version_has_seen_what_we_lost() {
    let journal = journal(&["a.shop"]);
    assert!(!journal.has_lost(&state(1, 1, 2)));
    assert!(journal.has_lost(&state(1, 1, 3)));
}

#[test]
fn who_holds_a_version_that_was_told_before_a_start_but_not_written_down_has_seen_what_we_lost() {
    let mut journal = Journal::restore(journal(&["a.shop"]).saved()).ok().unwrap();
    assert!(journal.set_state(state(1, 2, 0)));
    assert!(!journal.has_lost(&state(1, 1, 2)));
    assert!(journal.has_lost(&state(1, 1, 3)));
    assert!(!journal.has_lost(&state(1, 2, 0)));
    // However often it starts after that.
    for epoch in 3..100 {
        journal.set_state(state(1, epoch, 0));
    }
    assert!(journal.lost.len() <= LOST_MAX);
    assert!(journal.has_lost(&state(1, 1, 3)));
    assert!(!journal.has_lost(&state(1, 1, 2)));
}

#[test]
fn what_went_away_between_two_processes_becomes_a_tombstone() {
    let saved = journal(&["a.shop", "b.shop"]).saved();
    let mut journal = Journal::restore(saved).ok().unwrap();
    journal.set_state(state(1, 2, 0));
    let changed = journal.set_offers(offers(&["b.shop"]), at(2, 1), TODAY_MS);
    assert_eq!(changed, [id("a.shop")].into());
    assert_eq!(changes(&journal, at(1, 2)), ["-a.shop@2.1"]);
}

#[test]
fn a_new_instance_knows_of_no_end_and_holds_everything_anew() {
    let mut journal = journal(&["a.shop", "b.shop"]);
    journal.set_offers(offers(&["b.shop"]), at(1, 3), TODAY_MS);
    assert!(journal.set_state(state(9, 4, 1)));
    assert_eq!(journal.state(), state(9, 4, 1));
    assert_eq!(changes(&journal, at(0, 0)), ["+b.shop@4.1"]);
    assert!(!journal.continues(&state(1, 1, 3)));
}

#[test]
fn a_journal_returns_from_what_was_saved() {
    let mut journal = journal(&["a.shop", "b.shop"]);
    journal.set_offers(offers(&["b.shop"]), at(1, 3), TODAY_MS);
    journal.acknowledge(at(1, 2));
    let mut again = Journal::restore(journal.saved()).ok().unwrap();
    assert_eq!(again.saved(), journal.saved());
    assert_eq!(again.digest(), journal.digest());
    // Nobody is told what an earlier process said before it is said again.
    assert_eq!(again.next_offer(None), None);
    again.set_offers(offers(&["b.shop"]), at(2, 1), TODAY_MS);
    assert_eq!(changes(&again, at(1, 1)), changes(&journal, at(1, 1)));
}

#[test]
fn a_journal_that_contradicts_itself_is_refused() {
    let saved = journal(&["a.shop"]).saved();
    let broken: [fn(&mut SavedJournal); 4] = [
        |saved| saved.told[0].version = at(9, 9),
        |saved| saved.complete_from = at(9, 9),
        |saved| saved.acknowledged = at(9, 9),
        |saved| saved.lost = vec![(at(0, 0), at(0, 1)); LOST_MAX + 1],
    ];
    for (index, change) in broken.into_iter().enumerate() {
        let mut saved = saved.clone();
        change(&mut saved);
        assert!(Journal::restore(saved).is_err(), "{index}");
    }
}
