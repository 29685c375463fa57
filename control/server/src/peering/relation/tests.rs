use std::collections::BTreeSet;

use corinth_api::peering::{Digest, Hello, PROTOCOL};

use super::*;
use crate::peering::held::{MASSIVE_STALE_FOR, STALE_FOR};
use crate::peering::testing::{
    DAY_MS, Pair, SECOND, Side, TODAY_MS, accepted, at, id, many, offer, offers, state,
};

mod dialling;
mod lies;
mod losses;

fn is_upsert(message: &Message) -> bool {
    matches!(message, Message::Upsert { .. })
}

/// The messages of one side, counted by kind: snapshots, entries, tombstones.
fn counted(side: &Side) -> (usize, usize, usize) {
    let count = |is: fn(&Message) -> bool| side.written.iter().filter(|one| is(one)).count();
    (
        count(|message| matches!(message, Message::SnapshotBegin { .. })),
        count(is_upsert),
        count(|message| matches!(message, Message::Tombstone { .. })),
    )
}

#[test]
fn who_holds_nothing_gets_everything_and_after_that_what_has_changed() {
    let mut pair = Pair::connected(&["a.shop", "b.shop"]);
    assert_eq!(pair.west.offers(), ["a.shop", "b.shop"]);
    assert_eq!(counted(&pair.east), (1, 2, 0));

    pair.west.changed.clear();
    pair.east.written.clear();
    pair.offer(offers(&["b.shop", "c.shop"]), at(1, 3));
    pair.run();
    assert_eq!(pair.west.offers(), ["b.shop", "c.shop"]);
    assert_eq!(pair.west.changed, ["a.shop", "c.shop"].map(id).into());
    assert_eq!(counted(&pair.east), (0, 1, 1));
    pair.wait(CONFIRM_INTERVAL);
    assert_eq!(pair.east.relation.summary().acknowledged, Some(at(1, 3)));
}

#[test]
fn nothing_is_said_before_it_is_known_what_is_offered() {
    let now = Instant::now();
    let mut side = Side::new("east", "west", now);
    side.relation.handle_opened(SessionId(1), OpenedBy::Us, now);
    assert_eq!(side.relation.poll_transmit(now), None);
    let own = state(1, 1, 1);
    side.relation.set_own_state(own.instance, own.version);
    assert_eq!(side.relation.poll_transmit(now), None);
    side.relation
        .set_offers(BTreeMap::new(), at(1, 2), TODAY_MS);
    let hello = side.relation.poll_transmit(now);
    assert!(
        matches!(hello, Some((SessionId(1), Message::Hello(_)))),
        "{hello:?}"
    );
}

fn digests(side: &Side) -> usize {
    let is_digest = |message: &&Message| matches!(message, Message::Digest { .. });
    side.written.iter().filter(is_digest).count()
}

#[test]
fn a_change_after_a_quiet_time_is_confirmed_at_once() {
    let mut pair = Pair::connected(&["a.shop"]);
    pair.wait(CONFIRM_INTERVAL);
    pair.offer(offers(&["b.shop"]), at(1, 3));
    pair.run();
    assert_eq!(pair.east.relation.summary().acknowledged, Some(at(1, 3)));
}

#[test]
fn a_digest_that_cannot_leave_is_not_waited_for_again_and_again() {
    let mut pair = Pair::connected(&[]);
    pair.offer(many(1), at(1, 3));
    let now = pair.now;
    let told = pair.east.relation.poll_transmit(now);
    assert!(
        matches!(told, Some((_, Message::Upsert { .. }))),
        "{told:?}"
    );
    // From now on nobody reads.
    let due = pair.east.relation.poll_timeout().unwrap();
    assert!(due <= now + CONFIRM_INTERVAL);
    pair.east.relation.handle_timeout(due);
    assert!(pair.east.relation.poll_timeout().unwrap() > due);
}

#[test]
fn changes_that_follow_each_other_are_told_at_once_and_confirmed_together() {
    let mut pair = Pair::connected(&[]);
    pair.east.written.clear();
    for tenth in 1..=20_u64 {
        pair.offer(many(tenth as usize), at(1, 2 + tenth));
        pair.run();
        assert_eq!(pair.west.offers().len(), tenth as usize);
        pair.wait(SECOND / 10);
    }
    assert_eq!(digests(&pair.east), 2);
    pair.wait(CONFIRM_INTERVAL);
    assert_eq!(pair.east.relation.summary().acknowledged, Some(at(1, 22)));
}

#[test]
fn a_reconnect_with_nothing_new_is_a_few_hundred_bytes() {
    let mut pair = Pair::new(&[]);
    pair.offer(many(10_000), at(1, 2));
    pair.connect();
    assert_eq!(pair.west.relation.summary().taken, 10_000);
    assert_eq!(counted(&pair.east).1, 10_000);
    pair.cut();
    let before = pair.east.written_bytes + pair.west.written_bytes;
    pair.connect();
    let cost = pair.east.written_bytes + pair.west.written_bytes - before;
    assert!(cost < 1_000, "{cost} bytes");
}

#[test]
fn silence_and_the_end_of_a_stream_remove_nothing() {
    let mut pair = Pair::connected(&["a.shop"]);
    pair.cut();
    pair.wait(SECOND * 60 * 60 * 24 * 30);
    assert_eq!(pair.west.offers(), ["a.shop"]);
    let offer = pair.west.relation.offer(&id("a.shop")).unwrap();
    assert_eq!(offer.1, Freshness::Fresh);
    assert!(pair.west.stands(Condition::PeerSilent, None));
    pair.connect();
    assert!(!pair.west.stands(Condition::PeerSilent, None));
}

#[test]
fn a_stream_on_which_nothing_comes_is_ended_and_one_with_digests_is_not() {
    let mut pair = Pair::connected(&["a.shop"]);
    pair.wait(SECOND * 600);
    assert_eq!(pair.east.ended, []);
    // From now on nothing reaches west.
    let start = pair.now;
    while pair.west.ended.is_empty() {
        let due = pair.west.relation.poll_timeout().unwrap();
        pair.west.relation.handle_timeout(due);
        while pair.west.relation.poll_transmit(due).is_some() {}
        pair.west.take_events();
        pair.now = due;
    }
    assert!(pair.now <= start + SILENCE_MAX, "{:?}", pair.now - start);
}

#[test]
fn what_a_cut_stream_left_untold_is_told_on_the_next() {
    // The stream is cut after each message in turn; both changes have one version.
    for after in 0..12 {
        let mut pair = Pair::connected(&["a.shop", "b.shop"]);
        let mut next = offers(&["c.shop", "d.shop"]);
        next.insert(id("b.shop"), offer("b.shop", 5));
        pair.offer(next, at(1, 3));
        for _ in 0..after {
            pair.step();
        }
        pair.cut();
        pair.east.written.clear();
        pair.connect();
        assert_eq!(
            pair.west.offers(),
            ["b.shop", "c.shop", "d.shop"],
            "{after}"
        );
        assert_eq!(pair.west.relation.offer(&id("b.shop")).unwrap().0.ready, 5);
        assert_eq!(counted(&pair.east).0, 0, "no snapshot after {after}");
    }
}

#[test]
fn a_snapshot_that_is_cut_marks_nothing_and_is_told_anew() {
    for after in 0..8 {
        let mut pair = Pair::connected(&["a.shop", "b.shop", "c.shop"]);
        let new = state(9, 1, 3);
        pair.east.relation.set_own_state(new.instance, new.version);
        pair.offer(offers(&["b.shop", "c.shop"]), at(1, 4));
        for _ in 0..after {
            pair.step();
        }
        let is_end = |message: &Message| matches!(message, Message::SnapshotEnd { version, .. } if *version >= at(1, 3));
        let was_whole = pair.east.written.iter().any(is_end);
        pair.cut();
        let (_, freshness) = pair.west.relation.offer(&id("a.shop")).unwrap();
        assert!(was_whole || freshness == Freshness::Fresh, "{after}");
        pair.connect();
        let (_, freshness) = pair.west.relation.offer(&id("a.shop")).unwrap();
        assert!(matches!(freshness, Freshness::Stale { .. }), "{after}");
        pair.wait(STALE_FOR + SECOND);
        assert_eq!(pair.west.offers(), ["b.shop", "c.shop"]);
    }
}

#[test]
fn what_changes_while_a_snapshot_is_on_its_way_is_told_after_it() {
    for after in 0..10 {
        let mut pair = Pair::new(&["a.shop", "b.shop", "c.shop"]);
        pair.open();
        for _ in 0..after {
            pair.step();
        }
        let mut next = offers(&["b.shop", "d.shop"]);
        next.insert(id("b.shop"), offer("b.shop", 5));
        pair.offer(next, at(1, 3));
        pair.run();
        assert_eq!(pair.west.offers(), ["b.shop", "d.shop"], "{after}");
        assert_eq!(pair.west.relation.offer(&id("b.shop")).unwrap().0.ready, 5);
        assert_eq!(counted(&pair.east).0, 1, "{after}");
    }
}

#[test]
fn a_digest_that_differs_makes_us_ask_for_everything_once_in_ten_seconds() {
    let mut pair = Pair::connected(&["a.shop"]);
    let session = SessionId(1);
    pair.west.written.clear();
    let asks = |pair: &Pair| {
        let written = pair.west.written.iter();
        written
            .filter(|message| **message == Message::Resync)
            .count()
    };
    for _ in 0..50 {
        let wrong = Message::Digest {
            version: at(1, 2),
            digest: Digest([7; 32]),
        };
        let now = pair.now;
        pair.west
            .relation
            .handle_message(session, wrong, now, TODAY_MS);
        pair.run();
    }
    assert_eq!(asks(&pair), 1);
    pair.wait(RESYNC_INTERVAL);
    assert_eq!(asks(&pair), 2);
    pair.wait(SECOND * 60);
    assert_eq!(asks(&pair), 2);
}

#[test]
fn what_is_accepted_later_is_asked_for_and_what_is_not_shows_on_both_sides() {
    let mut pair = Pair::new(&["a.shop", "db.bank"]);
    pair.west.relation.set_accepted(accepted(&["shop/*"]), 100);
    pair.connect();
    assert_eq!(pair.west.offers(), ["a.shop"]);
    assert!(pair.west.stands(Condition::NotAccepted, Some("db.bank")));
    let rejected: Vec<_> = pair.east.relation.rejected().collect();
    assert_eq!(rejected, [(&id("db.bank"), Some(Condition::NotAccepted))]);

    pair.west.relation.set_accepted(accepted(&["*"]), 100);
    pair.wait(SECOND);
    assert_eq!(pair.west.offers(), ["a.shop", "db.bank"]);
    assert_eq!(pair.west.standing, BTreeSet::new());
    assert_eq!(pair.east.relation.rejected().count(), 0);
}

#[test]
fn what_is_accepted_while_there_is_no_stream_is_asked_for_on_the_next() {
    let mut pair = Pair::new(&["a.shop", "db.bank"]);
    pair.west.relation.set_accepted(accepted(&["shop/*"]), 100);
    pair.connect();
    pair.cut();
    pair.west.relation.set_accepted(accepted(&["*"]), 100);
    let saved = pair.west.saved(pair.now);
    pair.west.restart(&saved, pair.now);
    let own = state(2, 2, 0);
    pair.west.relation.set_own_state(own.instance, own.version);
    pair.west
        .relation
        .set_offers(BTreeMap::new(), at(2, 1), TODAY_MS);
    pair.west.relation.set_accepted(accepted(&["*"]), 100);
    pair.connect();
    assert_eq!(pair.west.offers(), ["a.shop", "db.bank"]);
}

#[test]
fn what_is_above_the_quota_comes_when_there_is_room() {
    let mut pair = Pair::new(&["a.shop", "b.shop", "c.shop"]);
    pair.west.relation.set_accepted(accepted(&["*"]), 2);
    pair.connect();
    assert_eq!(pair.west.offers(), ["a.shop", "b.shop"]);
    assert!(pair.west.stands(Condition::OverQuota, Some("c.shop")));
    pair.offer(offers(&["b.shop", "c.shop"]), at(1, 3));
    pair.wait(SECOND * 30);
    assert_eq!(pair.west.offers(), ["b.shop", "c.shop"]);
    assert_eq!(pair.west.standing, BTreeSet::new());
}

#[test]
fn roots_and_gateways_are_told_on_every_stream_and_when_they_change() {
    let mut pair = Pair::new(&[]);
    let trust = |pair: &mut Pair, sequence| {
        let roots: Arc<[Vec<u8>]> = [vec![1]].into();
        pair.east.relation.set_trust(sequence, roots);
        pair.run();
        pair.west.trust
    };
    trust(&mut pair, 1);
    pair.connect();
    assert_eq!(pair.west.trust, Some(1));
    assert_eq!(trust(&mut pair, 2), Some(2));
    pair.west.trust = None;
    assert_eq!(trust(&mut pair, 2), None);
    pair.cut();
    pair.connect();
    assert_eq!(pair.west.trust, Some(2));
}

#[test]
fn the_operator_confirms_what_went_at_once() {
    let mut pair = Pair::new(&[]);
    pair.offer(many(20), at(1, 2));
    pair.connect();
    let new = state(9, 1, 3);
    pair.east.relation.set_own_state(new.instance, new.version);
    pair.offer(offers(&["s00000.shop"]), at(1, 4));
    pair.run();
    assert!(pair.west.stands(Condition::Stale, None));
    assert_eq!(pair.west.relation.summary().stale, 19);
    pair.wait(STALE_FOR * 2);
    assert_eq!(pair.west.relation.summary().stale, 19);
    pair.west.relation.confirm_stale();
    pair.run();
    assert_eq!(pair.west.offers(), ["s00000.shop"]);
    assert!(!pair.west.stands(Condition::Stale, None));
}

#[test]
fn without_the_operator_it_goes_after_an_hour() {
    let mut pair = Pair::new(&[]);
    pair.offer(many(20), at(1, 2));
    pair.connect();
    let new = state(9, 1, 3);
    pair.east.relation.set_own_state(new.instance, new.version);
    pair.offer(offers(&["s00000.shop"]), at(1, 4));
    pair.run();
    pair.wait(MASSIVE_STALE_FOR - SECOND);
    assert_eq!(pair.west.relation.summary().taken, 20);
    pair.wait(SECOND);
    assert_eq!(pair.west.relation.summary().taken, 1);
    assert!(!pair.west.stands(Condition::Stale, None));
}

#[test]
fn what_is_queued_is_bounded_however_much_there_is_to_tell() {
    let mut pair = Pair::new(&[]);
    pair.offer(many(10_000), at(1, 2));
    pair.west.relation.set_accepted(accepted(&[]), 100);
    pair.open();
    // West reads everything and is asked for nothing it wants to write.
    let session = SessionId(1);
    let now = pair.now;
    let hello = pair.west.relation.poll_transmit(now).unwrap().1;
    pair.east
        .relation
        .handle_message(session, hello, now, TODAY_MS);
    while let Some((_, message)) = pair.east.relation.poll_transmit(now) {
        pair.west
            .relation
            .handle_message(session, message, now, TODAY_MS);
    }
    let west = &pair.west.relation;
    assert_eq!(west.summary().not_taken[&Condition::NotAccepted], 10_000);
    assert_eq!(
        west.session.as_ref().unwrap().due.rejections.len(),
        REJECTIONS_MAX
    );
    assert_eq!(west.summary().conditions.len(), 100);
}
