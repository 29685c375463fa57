//! Which stream stays, and when the next one may begin.

use super::*;

fn side(own: &str, peer: &str, now: Instant) -> Side {
    let mut side = Side::new(own, peer, now);
    let state = state(1, 1, 1);
    side.relation.set_own_state(state.instance, state.version);
    side.relation
        .set_offers(BTreeMap::new(), at(1, 2), TODAY_MS);
    side
}

fn hello(cluster: &str) -> Message {
    Message::Hello(Hello {
        cluster: cluster.parse().unwrap(),
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        own: state(2, 1, 1),
        held: None,
    })
}

/// What is written, and which streams end then.
fn written(side: &mut Side, now: Instant) -> Vec<(u64, Message)> {
    let mut written = Vec::new();
    while let Some((session, message)) = side.relation.poll_transmit(now) {
        written.push((session.0, message));
    }
    side.take_events();
    written
}

#[test]
fn of_two_streams_the_one_opened_by_the_lower_name_stays_whichever_came_first() {
    let duplicate = |session| (session, Message::Goodbye(Farewell::Duplicate));
    for (own, peer, ours_stays) in [("east", "west", true), ("west", "east", false)] {
        for ours_first in [true, false] {
            let now = Instant::now();
            let mut side = side(own, peer, now);
            let mut opened = [(SessionId(1), OpenedBy::Us), (SessionId(2), OpenedBy::Peer)];
            if !ours_first {
                opened.reverse();
            }
            for (session, by) in opened {
                side.relation.handle_opened(session, by, now);
            }
            let (stays, goes) = if ours_stays { (1, 2) } else { (2, 1) };
            let written = written(&mut side, now);
            assert!(written.contains(&duplicate(goes)), "{own}: {written:?}");
            assert!(!written.contains(&duplicate(stays)), "{own}: {written:?}");
            assert_eq!(side.ended, [SessionId(goes)]);
            let session = side.relation.summary().session.unwrap();
            assert_eq!(session.id, SessionId(stays));
        }
    }
}

#[test]
fn of_two_streams_of_one_opener_the_newer_stays() {
    let now = Instant::now();
    for by in [OpenedBy::Us, OpenedBy::Peer] {
        let mut side = side("east", "west", now);
        side.relation.handle_opened(SessionId(1), by, now);
        side.relation.handle_opened(SessionId(2), by, now);
        written(&mut side, now);
        assert_eq!(side.ended, [SessionId(1)]);
    }
}

#[test]
fn what_comes_late_on_a_stream_that_was_replaced_says_nothing() {
    let mut pair = Pair::connected(&["a.shop"]);
    let old = SessionId(1);
    pair.connect();
    pair.offer(BTreeMap::new(), at(1, 3));
    pair.run();
    assert_eq!(pair.west.offers(), [""; 0]);
    let late = Message::upsert(at(1, 2), offer("a.shop", 1));
    let now = pair.now;
    for message in [late, hello("east"), Message::Goodbye(Farewell::Unlinked)] {
        pair.west
            .relation
            .handle_message(old, message, now, TODAY_MS);
    }
    pair.run();
    assert_eq!(pair.west.offers(), [""; 0]);
    assert!(!pair.west.is_unlinked);
}

#[test]
fn a_stream_of_somebody_else_is_ended_with_the_reason() {
    let now = Instant::now();
    let mut side = side("east", "west", now);
    side.relation
        .handle_opened(SessionId(1), OpenedBy::Peer, now);
    side.relation
        .handle_message(SessionId(1), hello("north"), now, TODAY_MS);
    let goodbye = (1, Message::Goodbye(Farewell::WrongCluster));
    assert_eq!(written(&mut side, now), [goodbye]);
    assert_eq!(side.ended, [SessionId(1)]);
}

#[test]
fn two_that_speak_no_common_version_say_so_until_they_do() {
    let now = Instant::now();
    let mut side = side("east", "west", now);
    let Message::Hello(mut greeting) = hello("west") else {
        panic!("a Hello");
    };
    (greeting.protocol_min, greeting.protocol_max) = (PROTOCOL + 1, PROTOCOL + 2);
    let message = Message::Hello(greeting.clone());
    side.relation
        .handle_opened(SessionId(1), OpenedBy::Peer, now);
    side.relation
        .handle_message(SessionId(1), message, now, TODAY_MS);
    let goodbye = (1, Message::Goodbye(Farewell::Incompatible));
    assert_eq!(written(&mut side, now), [goodbye]);
    assert!(side.stands(Condition::Incompatible, None));

    greeting.protocol_min = 0;
    let message = Message::Hello(greeting);
    side.relation
        .handle_opened(SessionId(2), OpenedBy::Peer, now);
    side.relation
        .handle_message(SessionId(2), message, now, TODAY_MS);
    written(&mut side, now);
    assert!(!side.stands(Condition::Incompatible, None));
}

#[test]
fn we_wait_longer_each_time_a_stream_ends_and_begin_anew_after_a_good_one() {
    let mut pair = Pair::new(&["a.shop"]);
    let mut waits = Vec::new();
    for _ in 0..7 {
        pair.wait(SECOND * 7);
        pair.connect();
        assert_eq!(pair.east.dial_at, None);
        pair.cut();
        waits.push((pair.east.dial_at.take().unwrap() - pair.now).as_millis());
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15000, 15000]);
    pair.wait(SECOND * 60);
    pair.connect();
    pair.wait(SECOND * 60);
    pair.cut();
    let wait = pair.east.dial_at.unwrap() - pair.now;
    assert_eq!(wait.as_millis(), 500);
}

#[test]
fn a_dial_that_fails_counts_as_a_stream_that_ended() {
    let now = Instant::now();
    let mut side = side("east", "west", now);
    for wait in [500, 1000, 2000] {
        side.relation.handle_dial_failed(now);
        side.take_events();
        let at = side.dial_at.take().unwrap();
        assert_eq!((at - now).as_millis(), wait);
    }
}

#[test]
fn a_peer_that_comes_back_too_often_is_turned_away_and_what_it_told_stays() {
    let mut pair = Pair::new(&["a.shop"]);
    let mut turned_away = 0;
    for _ in 0..300 {
        pair.connect();
        if pair.west.relation.summary().session.is_none() {
            turned_away += 1;
            assert!(pair.east.dial_at.unwrap() >= pair.now + SECOND * 10);
            assert!(pair.west.stands(Condition::Flapping, None));
        }
        pair.cut();
        pair.wait(SECOND);
    }
    assert_eq!(turned_away, 150);
    assert_eq!(pair.west.offers(), ["a.shop"]);
    pair.wait(SECOND * 10);
    pair.connect();
    assert!(pair.west.relation.summary().session.is_some());
    pair.wait(SECOND * 90);
    assert!(!pair.west.stands(Condition::Flapping, None));
}

#[test]
fn who_was_unlinked_dials_no_more_shows_it_and_keeps_what_it_holds() {
    let mut pair = Pair::connected(&["a.shop"]);
    pair.east.relation.goodbye(Farewell::Unlinked);
    pair.run();
    assert!(pair.west.is_unlinked);
    assert!(pair.west.stands(Condition::PeerUnlinked, None));
    assert_eq!((pair.west.dial_at, pair.east.dial_at), (None, None));
    assert_eq!(pair.west.offers(), ["a.shop"]);

    let saved = pair.west.saved(pair.now);
    pair.west.restart(&saved, pair.now);
    pair.west.take_events();
    assert!(pair.west.stands(Condition::PeerUnlinked, None));
    pair.west.relation.handle_dial_failed(pair.now);
    pair.west.take_events();
    assert_eq!(pair.west.dial_at, None);

    // It is linked again.
    let own = state(2, 2, 0);
    pair.west.relation.set_own_state(own.instance, own.version);
    pair.west
        .relation
        .set_offers(BTreeMap::new(), at(2, 1), TODAY_MS);
    pair.connect();
    assert!(!pair.west.stands(Condition::PeerUnlinked, None));
}

#[test]
fn who_stops_or_pauses_says_so_and_is_dialled_again() {
    for farewell in [Farewell::Stopping, Farewell::Paused] {
        let mut pair = Pair::connected(&["a.shop"]);
        pair.east.relation.goodbye(farewell);
        pair.run();
        assert_eq!(pair.west.relation.summary().last_farewell, Some(farewell));
        assert!(pair.west.dial_at.is_some());
        assert_eq!(pair.east.dial_at, None);
        assert_eq!(pair.west.offers(), ["a.shop"]);
    }
}
