use super::*;
use crate::peering::saved::{SavedHeld, SavedOffer};
use crate::peering::testing::{SECOND, accepted, at, id, offer, state};

fn held() -> Held {
    let mut held = Held::new(100);
    held.set_accepted(accepted(&["shop/*"]), 100);
    held
}

fn told(service: &str, version: Version, ready: u32) -> Told {
    let offer = offer(service, ready);
    Told {
        version,
        digest: Digest::of(&offer),
        offer: Ok(offer),
    }
}

/// Takes an entry that follows a snapshot.
fn upsert(held: &mut Held, service: &str, version: Version) -> Outcome {
    held.upsert(&id(service), told(service, version, 1), false)
}

/// Takes a whole snapshot.
fn snapshot(held: &mut Held, state: &State, services: &[&str], now: Instant) -> Left {
    held.begin_snapshot(state);
    for service in services {
        held.upsert(&id(service), told(service, state.version, 1), true);
    }
    let left = held.end_snapshot(now);
    held.complete(state.version);
    left
}

fn names(held: &Held) -> Vec<String> {
    held.offers()
        .map(|(service, _, stale)| {
            let mark = if stale.is_some() { "~" } else { "" };
            format!("{mark}{service}")
        })
        .collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("s{n:02}.shop")).collect()
}

const TAKEN: Outcome = Outcome {
    has_changed: true,
    refused: None,
};

fn refused(condition: Condition) -> Outcome {
    Outcome {
        has_changed: false,
        refused: Some(condition),
    }
}

#[test]
fn a_version_that_is_not_above_the_one_held_changes_nothing() {
    let mut held = held();
    assert_eq!(upsert(&mut held, "a.shop", at(1, 5)), TAKEN);
    let older = told("a.shop", at(1, 4), 9);
    assert_eq!(held.upsert(&id("a.shop"), older, false), NOTHING);
    let same = told("a.shop", at(1, 5), 9);
    assert_eq!(held.upsert(&id("a.shop"), same, false), NOTHING);
    assert_eq!(held.remove(&id("a.shop"), at(1, 5)), None);
    assert_eq!(held.offer(&id("a.shop")).unwrap().0.ready, 1);
}

#[test]
fn what_a_tombstone_removed_does_not_come_back_by_a_late_entry() {
    let mut held = held();
    upsert(&mut held, "a.shop", at(1, 5));
    let removed = Removed { was_used: true };
    assert_eq!(held.remove(&id("a.shop"), at(1, 6)), Some(removed));
    held.complete(at(1, 6));
    assert_eq!(upsert(&mut held, "a.shop", at(1, 5)), NOTHING);
    assert_eq!(names(&held), [""; 0]);
    assert_eq!(upsert(&mut held, "a.shop", at(1, 7)), TAKEN);
}

#[test]
fn what_is_not_accepted_is_known_by_name_only_and_told_again_once_it_is() {
    let mut held = held();
    let not_accepted = refused(Condition::NotAccepted);
    assert_eq!(upsert(&mut held, "db.bank", at(1, 1)), not_accepted);
    assert_eq!((held.taken(), held.wants_everything()), (0, false));
    held.set_accepted(accepted(&["shop/*", "db.bank"]), 100);
    assert!(held.wants_everything());
    snapshot(&mut held, &state(1, 1, 2), &["db.bank"], Instant::now());
    assert_eq!(names(&held), ["db.bank"]);
    assert!(!held.wants_everything());
}

#[test]
fn what_is_accepted_while_a_snapshot_comes_is_asked_for_after_it() {
    let mut held = held();
    let now = Instant::now();
    held.begin_snapshot(&state(1, 1, 2));
    held.upsert(&id("db.bank"), told("db.bank", at(1, 2), 1), true);
    held.set_accepted(accepted(&["*"]), 100);
    held.end_snapshot(now);
    assert!(held.wants_everything());
    snapshot(&mut held, &state(1, 1, 2), &["db.bank"], now);
    assert!(!held.wants_everything());
    assert_eq!(names(&held), ["db.bank"]);
}

#[test]
fn what_is_no_longer_accepted_goes_at_once() {
    let mut held = held();
    upsert(&mut held, "a.shop", at(1, 1));
    upsert(&mut held, "b.shop", at(1, 2));
    let left = held.set_accepted(accepted(&["b.shop"]), 100);
    assert_eq!(left.changed, [id("a.shop")].into());
    assert_eq!(names(&held), ["b.shop"]);
    assert_eq!(held.trouble(&id("a.shop")), Some(Condition::NotAccepted));
}

#[test]
fn namespaces_of_kubernetes_are_never_taken() {
    let mut held = held();
    held.set_accepted(accepted(&["*", "dns.kube-system"]), 100);
    let outcome = upsert(&mut held, "dns.kube-system", at(1, 1));
    assert_eq!(outcome, refused(Condition::ReservedNamespace));
}

#[test]
fn above_the_quota_only_what_is_there_already_changes() {
    let mut held = held();
    held.set_accepted(accepted(&["*"]), 2);
    upsert(&mut held, "b.shop", at(1, 1));
    upsert(&mut held, "c.shop", at(1, 2));
    let outcome = upsert(&mut held, "a.shop", at(1, 3));
    assert_eq!(outcome, refused(Condition::OverQuota));
    let newer = told("c.shop", at(1, 4), 5);
    assert_eq!(held.upsert(&id("c.shop"), newer, false), TAKEN);
    held.digest();
    assert!(!held.has_room());
    held.remove(&id("b.shop"), at(1, 5));
    held.digest();
    assert!(held.has_room());
}

#[test]
fn a_smaller_quota_drops_the_highest_names_and_a_larger_one_asks_for_them_again() {
    let mut held = held();
    for name in ["a.shop", "b.shop", "c.shop"] {
        upsert(&mut held, name, at(1, 1));
    }
    let left = held.set_accepted(accepted(&["*"]), 1);
    assert_eq!(left.changed, ["b.shop", "c.shop"].map(id).into());
    assert_eq!(names(&held), ["a.shop"]);
    assert!(!held.wants_everything());
    held.set_accepted(accepted(&["*"]), 3);
    assert!(held.wants_everything());
}

#[test]
fn an_entry_that_cannot_be_used_leaves_what_is_held_as_it_is() {
    let mut held = held();
    upsert(&mut held, "a.shop", at(1, 1));
    let broken = Told {
        offer: Err(Condition::EntryInvalid),
        ..told("a.shop", at(1, 2), 9)
    };
    let outcome = held.upsert(&id("a.shop"), broken, false);
    assert_eq!(outcome, refused(Condition::EntryInvalid));
    assert_eq!(held.offer(&id("a.shop")).unwrap().0.ready, 1);
    assert_eq!(upsert(&mut held, "a.shop", at(1, 3)).refused, None);
    assert_eq!(held.trouble(&id("a.shop")), None);
}

#[test]
fn names_that_are_not_taken_are_bounded() {
    let mut held = held();
    for n in 0..NAMES_MAX + 10 {
        upsert(&mut held, &format!("s{n}.bank"), at(1, 1));
    }
    assert_eq!(held.entries.len(), NAMES_MAX);
    assert!(held.is_overflowing());
    assert_eq!(held.digest(), None);
    // What was accepted may be among those that were forgotten.
    held.set_accepted(accepted(&["zzz/*"]), 100);
    assert!(held.wants_everything());
}

#[test]
fn what_a_whole_snapshot_leaves_out_is_used_for_ten_minutes_more() {
    let mut held = held();
    let now = Instant::now();
    snapshot(&mut held, &state(1, 1, 1), &["a.shop", "b.shop"], now);
    let left = snapshot(&mut held, &state(2, 1, 1), &["b.shop"], now);
    assert_eq!(left.changed, [id("a.shop")].into());
    assert_eq!(names(&held), ["~a.shop", "b.shop"]);
    assert_eq!(held.poll_timeout(), Some(now + STALE_FOR));
    assert!(held.handle_timeout(now + STALE_FOR - SECOND).is_empty());
    assert_eq!(held.handle_timeout(now + STALE_FOR), [id("a.shop")].into());
    assert_eq!(names(&held), ["b.shop"]);
    assert_eq!(held.poll_timeout(), None);
}

#[test]
fn being_left_out_again_buys_no_time_and_being_offered_again_makes_fresh() {
    let mut held = held();
    let now = Instant::now();
    snapshot(&mut held, &state(1, 1, 1), &["a.shop", "b.shop"], now);
    snapshot(&mut held, &state(2, 1, 1), &[], now);
    let later = now + 60 * SECOND;
    snapshot(&mut held, &state(3, 1, 1), &["b.shop"], later);
    assert_eq!(names(&held), ["~a.shop", "b.shop"]);
    assert_eq!(held.poll_timeout(), Some(now + STALE_FOR));
    // After the snapshot it is offered once more.
    assert_eq!(upsert(&mut held, "a.shop", at(1, 2)), TAKEN);
    assert_eq!(names(&held), ["a.shop", "b.shop"]);
    assert!(held.handle_timeout(now + STALE_FOR).is_empty());
}

#[test]
fn a_snapshot_that_was_cut_marks_nothing() {
    let mut held = held();
    let now = Instant::now();
    snapshot(&mut held, &state(1, 1, 1), &["a.shop", "b.shop"], now);
    held.begin_snapshot(&state(2, 1, 1));
    held.upsert(&id("b.shop"), told("b.shop", at(1, 1), 1), true);
    assert_eq!(names(&held), ["a.shop", "b.shop"]);
    assert_eq!(held.state(), Some(state(2, 0, 0)));
}

#[test]
fn more_than_half_of_ten_or_more_stay_for_an_hour() {
    let now = Instant::now();
    for (count, kept, hold) in [
        (10, 4, MASSIVE_STALE_FOR),
        (10, 5, STALE_FOR),
        (9, 0, STALE_FOR),
    ] {
        let mut held = held();
        let all = numbered(count);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        snapshot(&mut held, &state(1, 1, 1), &all, now);
        snapshot(&mut held, &state(2, 1, 1), &all[..kept], now);
        let case = format!("{kept} of {count}");
        assert_eq!(held.poll_timeout(), Some(now + hold), "{case}");
        assert_eq!(
            held.is_massively_stale(),
            hold == MASSIVE_STALE_FOR,
            "{case}"
        );
    }
}

#[test]
fn newcomers_do_not_make_what_is_left_out_a_smaller_part() {
    let mut held = held();
    let now = Instant::now();
    let all = numbered(40);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    snapshot(&mut held, &state(1, 1, 1), &all[..10], now);
    // One that was cut brings newcomers too.
    held.begin_snapshot(&state(2, 1, 1));
    held.upsert(&id("s39.shop"), told("s39.shop", at(1, 1), 1), true);
    snapshot(&mut held, &state(2, 1, 1), &all[10..], now);
    assert_eq!(held.poll_timeout(), Some(now + MASSIVE_STALE_FOR));
}

#[test]
fn the_operator_can_let_go_at_once() {
    let mut held = held();
    let now = Instant::now();
    let all = numbered(12);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    snapshot(&mut held, &state(1, 1, 1), &all, now);
    snapshot(&mut held, &state(2, 1, 1), &all[..1], now);
    assert_eq!(held.confirm_stale().len(), 11);
    assert_eq!(names(&held), ["s00.shop"]);
    assert!(!held.is_massively_stale());
}

#[test]
fn the_digest_is_over_what_the_peer_has_whether_it_is_taken_or_not() {
    let mut held = held();
    upsert(&mut held, "b.shop", at(1, 1));
    upsert(&mut held, "a.bank", at(1, 2));
    let expected = [offer("a.bank", 1), offer("b.shop", 1)].map(|offer| Digest::of(&offer));
    assert_eq!(held.digest(), Some(expected.iter().collect()));
    held.pass_over();
    assert_eq!(held.digest(), None);
}

#[test]
fn what_is_held_returns_from_what_was_saved() {
    let mut held = held();
    let now = Instant::now();
    snapshot(
        &mut held,
        &state(1, 1, 1),
        &["a.shop", "b.shop", "c.bank"],
        now,
    );
    snapshot(&mut held, &state(2, 1, 1), &["b.shop", "c.bank"], now);
    let saved = held.saved(now + 60 * SECOND);
    let later = now + 500 * SECOND;
    let mut again = Held::restore(saved.clone(), 100, later).ok().unwrap();
    assert_eq!(again.saved(later), saved);
    assert_eq!(again.poll_timeout(), Some(later + STALE_FOR - 60 * SECOND));
    assert_eq!(again.digest(), held.digest());
    // What is accepted is said anew, and until then nothing is taken away.
    assert_eq!(names(&again), ["~a.shop", "b.shop"]);
    again.set_accepted(accepted(&[]), 100);
    assert_eq!(names(&again), [""; 0]);
}

#[test]
fn saved_offers_are_checked_like_those_of_a_stranger() {
    let mut held = held();
    upsert(&mut held, "a.shop", at(1, 1));
    let now = Instant::now();
    let saved = held.saved(now);
    let broken: [fn(&mut SavedHeld); 4] = [
        |saved| saved.entries[0].offer = Some(SavedOffer(b"\xff".to_vec())),
        |saved| saved.entries[0].service = id("b.shop"),
        |saved| saved.entries[0].trouble = Some("CRN999".to_owned()),
        |saved| saved.entries.push(saved.entries[0].clone()),
    ];
    for (index, change) in broken.into_iter().enumerate() {
        let mut saved = saved.clone();
        change(&mut saved);
        assert!(Held::restore(saved, 100, now).is_err(), "{index}");
    }
}
