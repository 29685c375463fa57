//! Processes that start again with what they saved, with less, or with nothing.

use super::*;

/// East starts again with `saved`, in another epoch, and offers these.
fn restart_east(pair: &mut Pair, saved: &[u8], epoch: u64, services: &[&str]) {
    pair.cut();
    pair.east.restart(saved, pair.now);
    let own = state(1, epoch, 0);
    pair.east.relation.set_own_state(own.instance, own.version);
    pair.east.relation.set_accepted(accepted(&["*"]), 10_000);
    pair.offer(offers(services), at(epoch, 1));
    pair.east.written.clear();
}

/// West starts again with `saved`, in epoch 2.
fn restart_west(pair: &mut Pair, saved: &[u8]) {
    pair.cut();
    pair.west.restart(saved, pair.now);
    let own = state(2, 2, 0);
    pair.west.relation.set_own_state(own.instance, own.version);
    pair.west
        .relation
        .set_offers(BTreeMap::new(), at(2, 1), TODAY_MS);
    pair.west.relation.set_accepted(accepted(&["*"]), 10_000);
}

#[test]
fn what_went_away_while_nobody_ran_is_told_as_a_tombstone() {
    let mut pair = Pair::connected(&["a.shop", "b.shop"]);
    let saved = pair.east.saved(pair.now);
    restart_east(&mut pair, &saved, 2, &["b.shop"]);
    pair.connect();
    assert_eq!(pair.west.offers(), ["b.shop"]);
    assert_eq!(counted(&pair.east), (0, 0, 1));
}

#[test]
fn a_receiver_that_starts_again_needs_only_what_has_changed() {
    let mut pair = Pair::connected(&["a.shop", "b.shop"]);
    let saved = pair.west.saved(pair.now);
    restart_west(&mut pair, &saved);
    // What it held is in use before anybody is heard.
    assert_eq!(pair.west.offers(), ["a.shop", "b.shop"]);
    pair.west.changed.clear();
    pair.west.take_events();
    assert_eq!(pair.west.changed, ["a.shop", "b.shop"].map(id).into());
    pair.east.written.clear();
    pair.offer(offers(&["a.shop"]), at(1, 3));
    pair.connect();
    assert_eq!(pair.west.offers(), ["a.shop"]);
    assert_eq!(counted(&pair.east), (0, 0, 1));
}

#[test]
fn a_sender_whose_journal_is_lost_tells_everything_and_nothing_stays_for_good() {
    let mut pair = Pair::connected(&["a.shop", "b.shop"]);
    pair.cut();
    pair.east = Side::new("east", "west", pair.now);
    let own = state(1, 2, 0);
    pair.east.relation.set_own_state(own.instance, own.version);
    pair.offer(offers(&["b.shop"]), at(2, 1));
    pair.connect();
    let (_, freshness) = pair.west.relation.offer(&id("a.shop")).unwrap();
    assert!(matches!(freshness, Freshness::Stale { .. }));
    pair.wait(STALE_FOR);
    assert_eq!(pair.west.offers(), ["b.shop"]);
}

#[test]
fn a_sender_that_lost_what_it_had_told_begins_a_new_instance() {
    let mut pair = Pair::connected(&["a.shop", "b.shop"]);
    let saved = pair.east.saved(pair.now);
    // After the save one is added and one removed, and both are told.
    pair.offer(offers(&["b.shop", "c.shop"]), at(1, 3));
    pair.wait(CONFIRM_INTERVAL);
    assert_eq!(pair.west.offers(), ["b.shop", "c.shop"]);

    restart_east(&mut pair, &saved, 2, &["b.shop"]);
    pair.connect();
    assert!(pair.east.began_new_instance);
    let own = state(99, 2, 9);
    pair.east.relation.set_own_state(own.instance, own.version);
    pair.run();
    let stale = |name: &str| pair.west.relation.offer(&id(name)).map(|(_, fresh)| fresh);
    assert_eq!(stale("a.shop"), None);
    assert_eq!(stale("b.shop"), Some(Freshness::Fresh));
    assert!(matches!(stale("c.shop"), Some(Freshness::Stale { .. })));
    pair.wait(STALE_FOR);
    assert_eq!(pair.west.offers(), ["b.shop"]);
}

#[test]
fn a_restored_backup_brings_nothing_back_to_life_that_is_not_offered_now() {
    let mut pair = Pair::connected(&["a.shop", "b.shop"]);
    let backup = pair.east.saved(pair.now);
    pair.offer(offers(&["b.shop"]), at(1, 3));
    pair.run();
    pair.cut();
    pair.east.restart(&backup, pair.now);
    // Restoring begins a new instance.
    let own = state(77, 1, 0);
    pair.east.relation.set_own_state(own.instance, own.version);
    pair.offer(offers(&["b.shop"]), at(1, 1));
    pair.connect();
    assert_eq!(pair.west.offers(), ["b.shop"]);
    assert_eq!(pair.west.standing, BTreeSet::new());
}

#[test]
fn a_receiver_that_starts_from_an_old_copy_gets_what_it_lacks() {
    let mut pair = Pair::connected(&["a.shop", "b.shop"]);
    let old = pair.west.saved(pair.now);
    pair.offer(offers(&["b.shop", "c.shop"]), at(1, 3));
    pair.wait(CONFIRM_INTERVAL);
    // The tombstone of a.shop was acknowledged and is gone.
    restart_west(&mut pair, &old);
    pair.connect();
    assert_eq!(pair.west.offers(), ["a.shop", "b.shop", "c.shop"]);
    pair.wait(STALE_FOR);
    assert_eq!(pair.west.offers(), ["b.shop", "c.shop"]);
}

#[test]
fn a_peer_that_was_away_for_more_than_seven_days_gets_everything() {
    for days in [6, 8] {
        let mut pair = Pair::connected(&["a.shop", "b.shop"]);
        pair.cut();
        pair.offer(offers(&["b.shop"]), at(1, 3));
        let later = TODAY_MS + days * DAY_MS;
        let east = &mut pair.east.relation;
        east.set_offers(offers(&["b.shop"]), at(1, 4), later);
        pair.east.written.clear();
        pair.connect();
        assert_eq!(counted(&pair.east).0, usize::from(days == 8), "{days} days");
        pair.wait(STALE_FOR);
        assert_eq!(pair.west.offers(), ["b.shop"]);
    }
}

#[test]
fn a_relation_returns_from_what_was_saved() {
    let mut pair = Pair::connected(&["a.shop", "b.shop"]);
    pair.wait(SECOND);
    for side in [&pair.east, &pair.west] {
        let saved = side.saved(pair.now);
        let relation = Relation::restore(
            SavedRelation::parse(&saved).unwrap(),
            side.own.clone(),
            side.peer.clone(),
            Limits { quota: 10 },
            pair.now,
        );
        assert_eq!(relation.unwrap().saved(pair.now).to_bytes(), saved);
    }
}

#[test]
fn it_is_dirty_when_what_is_saved_differs_and_clean_after_it_was_asked() {
    let mut pair = Pair::connected(&["a.shop"]);
    for side in [&mut pair.east, &mut pair.west] {
        assert!(side.relation.take_dirty());
        assert!(!side.relation.take_dirty());
    }
    let saved = [pair.east.saved(pair.now), pair.west.saved(pair.now)];
    pair.wait(SECOND * 300);
    let is_dirty = [&pair.east, &pair.west].map(|side| side.relation.is_dirty());
    assert_eq!(is_dirty, [false, false]);
    let again = [pair.east.saved(pair.now), pair.west.saved(pair.now)];
    assert_eq!(saved, again);
    pair.offer(offers(&["b.shop"]), at(1, 3));
    assert!(pair.east.relation.is_dirty());
}

#[test]
fn damaged_state_is_a_typed_error() {
    let pair = Pair::connected(&["a.shop"]);
    let saved = pair.west.saved(pair.now);
    let restore = |bytes: &[u8], own: &str| {
        SavedRelation::parse(bytes).and_then(|saved| {
            let (own, peer) = (own.parse().unwrap(), "east".parse().unwrap());
            Relation::restore(saved, own, peer, Limits { quota: 9 }, pair.now).map(drop)
        })
    };
    assert!(restore(&saved, "west").is_ok());
    assert!(matches!(
        restore(&saved, "north"),
        Err(RestoreError::OtherClusters { .. })
    ));
    // Every way to cut it, and every byte changed.
    for end in 0..saved.len() {
        assert!(matches!(
            restore(&saved[..end], "west"),
            Err(RestoreError::Unreadable(_))
        ));
    }
    for index in 0..saved.len() {
        let mut changed = saved.clone();
        changed[index] ^= 1;
        let _ = restore(&changed, "west");
    }
    let text = String::from_utf8(saved).unwrap();
    let future = text.replace("\"format\":1", "\"format\":2");
    assert!(matches!(
        restore(future.as_bytes(), "west"),
        Err(RestoreError::UnknownFormat(2))
    ));
}
