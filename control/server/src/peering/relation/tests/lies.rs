//! Peers that tell what they should not.

use super::*;

const STREAM: SessionId = SessionId(1);

/// West, with a stream from a peer that holds nothing of it and whose state is at 5.5. It accepts `shop/*`.
fn west() -> (Side, Instant) {
    let now = Instant::now();
    let mut west = Side::new("west", "east", now);
    let own = state(2, 1, 1);
    west.relation.set_own_state(own.instance, own.version);
    west.relation
        .set_offers(offers(&["own.shop"]), at(1, 2), TODAY_MS);
    west.relation.set_accepted(accepted(&["shop/*"]), 100);
    open(&mut west, now, 5);
    (west, now)
}

fn hello(revision: u64) -> Message {
    Message::Hello(Hello {
        cluster: "east".parse().unwrap(),
        protocol_min: PROTOCOL,
        protocol_max: PROTOCOL,
        own: state(1, 5, revision),
        held: None,
    })
}

fn open(west: &mut Side, now: Instant, revision: u64) {
    west.relation.handle_opened(STREAM, OpenedBy::Peer, now);
    tell(west, now, [hello(revision)]);
}

fn tell(west: &mut Side, now: Instant, messages: impl IntoIterator<Item = Message>) {
    for message in messages {
        west.relation.handle_message(STREAM, message, now, TODAY_MS);
    }
    west.take_events();
}

/// A whole snapshot at 5.`revision`.
fn snapshot(revision: u64, services: &[&str]) -> Vec<Message> {
    let state = state(1, 5, revision);
    let offers: Vec<_> = services.iter().map(|name| offer(name, 1)).collect();
    let digests: Vec<Digest> = offers.iter().map(|offer| Digest::of(offer)).collect();
    let upserts = offers.into_iter();
    let upserts = upserts.map(|offer| Message::upsert(state.version, offer));
    let mut messages = vec![Message::SnapshotBegin { state, services: 0 }];
    messages.extend(upserts);
    messages.push(Message::SnapshotEnd {
        version: state.version,
        digest: digests.iter().collect(),
    });
    messages
}

fn tombstone(version: Version, service: &str) -> Message {
    let service = id(service);
    Message::Tombstone { version, service }
}

#[test]
fn what_lies_outside_the_grant_is_not_taken_and_shows() {
    let (mut west, now) = west();
    let services = ["a.shop", "db.bank", "dns.kube-system"];
    tell(&mut west, now, snapshot(5, &services));
    assert_eq!(west.offers(), ["a.shop"]);
    assert_eq!(west.changed, [id("a.shop")].into());
    assert!(west.stands(Condition::NotAccepted, Some("db.bank")));
    assert!(west.stands(Condition::ReservedNamespace, Some("dns.kube-system")));
    // A tombstone for a name of others touches nothing either.
    west.changed.clear();
    let gone = [
        tombstone(at(5, 6), "db.bank"),
        tombstone(at(5, 7), "own.shop"),
    ];
    tell(&mut west, now, gone);
    assert_eq!(west.offers(), ["a.shop"]);
    assert_eq!(west.changed, BTreeSet::new());
    assert!(!west.stands(Condition::NotAccepted, Some("db.bank")));
}

#[test]
fn a_snapshot_whose_end_never_comes_is_asked_for_again() {
    let (mut west, now) = west();
    let mut whole = snapshot(5, &["a.shop", "b.shop"]);
    let Some(Message::SnapshotEnd { version, digest }) = whole.pop() else {
        panic!("a snapshot has an end");
    };
    whole.push(Message::Digest { version, digest });
    tell(&mut west, now, whole);
    let written = std::iter::from_fn(|| west.relation.poll_transmit(now));
    let asked = written.filter(|(_, message)| *message == Message::Resync);
    assert_eq!(asked.count(), 1);
    tell(&mut west, now, snapshot(5, &["b.shop"]));
    let (_, freshness) = west.relation.offer(&id("a.shop")).unwrap();
    assert!(matches!(freshness, Freshness::Stale { .. }));
}

#[test]
fn endless_entries_are_taken_up_to_the_quota_and_remembered_up_to_a_bound() {
    let (mut west, now) = west();
    let begin = Message::SnapshotBegin {
        state: state(1, 5, 5),
        services: u32::MAX,
    };
    tell(&mut west, now, [begin]);
    for n in 0..12_000 {
        let message = Message::upsert(at(5, 5), offer(&format!("s{n}.shop"), 1));
        west.relation.handle_message(STREAM, message, now, TODAY_MS);
    }
    west.take_events();
    let summary = west.relation.summary();
    assert_eq!(summary.taken, 100);
    assert_eq!(summary.not_taken[&Condition::OverQuota], 10_000);
    assert!(summary.is_overflowing);
    assert_eq!(summary.conditions.len(), 100);
}

#[test]
fn a_state_that_went_back_is_refused_and_what_is_held_stays() {
    let (mut west, now) = west();
    tell(&mut west, now, snapshot(5, &["a.shop", "b.shop"]));
    west.relation.handle_closed(STREAM, now);
    open(&mut west, now, 4);
    assert!(west.stands(Condition::VersionWentBack, None));
    let entries = [
        Message::upsert(at(5, 9), offer("c.shop", 1)),
        tombstone(at(5, 9), "a.shop"),
        Message::Digest {
            version: at(5, 9),
            digest: Digest([0; 32]),
        },
    ];
    tell(&mut west, now, entries);
    tell(&mut west, now, snapshot(4, &["b.shop"]));
    assert_eq!(west.offers(), ["a.shop", "b.shop"]);
    assert!(west.stands(Condition::VersionWentBack, None));
    // A new instance is believed.
    let mut whole = snapshot(1, &["b.shop"]);
    whole[0] = Message::SnapshotBegin {
        state: state(7, 5, 1),
        services: 1,
    };
    tell(&mut west, now, whole);
    assert!(!west.stands(Condition::VersionWentBack, None));
    assert_eq!(west.relation.summary().held, Some(state(7, 5, 1)));
    assert_eq!(west.relation.summary().stale, 1);
}

#[test]
fn an_entry_of_an_older_epoch_is_refused() {
    let (mut west, now) = west();
    tell(&mut west, now, snapshot(5, &["a.shop"]));
    tell(&mut west, now, [tombstone(at(4, 99), "a.shop")]);
    let older = Message::upsert(at(4, 99), offer("b.shop", 1));
    tell(&mut west, now, [older]);
    assert_eq!(west.offers(), ["a.shop"]);
    assert!(west.stands(Condition::VersionWentBack, None));
}

#[test]
fn a_message_that_comes_twice_changes_nothing() {
    let (mut west, now) = west();
    tell(&mut west, now, snapshot(5, &["a.shop"]));
    let messages = [
        Message::upsert(at(5, 6), offer("b.shop", 1)),
        tombstone(at(5, 7), "a.shop"),
        tombstone(at(5, 7), "a.shop"),
        Message::upsert(at(5, 6), offer("b.shop", 1)),
        Message::upsert(at(5, 5), offer("a.shop", 1)),
        // Versions never fall on one stream, also if this one was never seen.
        tombstone(at(5, 9), "c.shop"),
        Message::upsert(at(5, 8), offer("c.shop", 1)),
    ];
    tell(&mut west, now, messages);
    assert_eq!(west.offers(), ["b.shop"]);
    // Nor from one stream to the next.
    west.relation.handle_closed(STREAM, now);
    open(&mut west, now, 9);
    let old = Message::upsert(at(5, 8), offer("c.shop", 1));
    tell(&mut west, now, [old]);
    assert_eq!(west.offers(), ["b.shop"]);
}

#[test]
fn entries_before_a_snapshot_are_not_used_and_everything_is_asked_for() {
    let (mut west, now) = west();
    let early = Message::upsert(at(5, 6), offer("a.shop", 1));
    tell(&mut west, now, [early]);
    assert_eq!(west.offers(), [""; 0]);
    let written = std::iter::from_fn(|| west.relation.poll_transmit(now));
    let written: Vec<Message> = written.map(|(_, message)| message).collect();
    assert!(written.contains(&Message::Resync), "{written:?}");
}

#[test]
fn a_snapshot_with_a_wrong_digest_is_not_whole() {
    let (mut west, now) = west();
    tell(&mut west, now, snapshot(5, &["a.shop", "b.shop"]));
    let mut part = snapshot(6, &["b.shop", "c.shop"]);
    // One entry is missing.
    part.remove(2);
    tell(&mut west, now, part);
    assert_eq!(west.offers(), ["a.shop", "b.shop"]);
    assert_eq!(west.relation.summary().stale, 0);
    assert!(west.relation.held.wants_everything());
}

#[test]
fn an_entry_that_is_not_understood_is_answered_and_the_others_are_taken() {
    let (mut west, now) = west();
    let broken = |service: Option<&str>| Message::NotTaken {
        version: at(5, 6),
        digest: Some(Digest([3; 32])),
        service: service.map(id),
        condition: Condition::EntryInvalid,
    };
    tell(&mut west, now, snapshot(5, &["a.shop"]));
    while west.relation.poll_transmit(now).is_some() {}
    tell(&mut west, now, [broken(Some("x.shop")), broken(None)]);
    let fine = Message::upsert(at(5, 7), offer("b.shop", 1));
    tell(&mut west, now, [fine]);
    assert_eq!(west.offers(), ["a.shop", "b.shop"]);
    assert!(west.stands(Condition::EntryInvalid, Some("x.shop")));
    assert!(west.stands(Condition::EntryInvalid, None));
    let answer = Message::Rejected {
        service: id("x.shop"),
        condition: Some(Condition::EntryInvalid),
    };
    assert_eq!(west.relation.poll_transmit(now), Some((STREAM, answer)));
}

#[test]
fn what_has_no_meaning_ends_the_stream_and_removes_nothing() {
    let end = Message::SnapshotEnd {
        version: at(5, 5),
        digest: Digest([0; 32]),
    };
    for message in [end, hello(5)] {
        let (mut west, now) = west();
        tell(&mut west, now, snapshot(5, &["a.shop"]));
        tell(&mut west, now, [message]);
        assert_eq!(west.ended, [STREAM]);
        assert_eq!(west.offers(), ["a.shop"]);
    }
    let (mut west, now) = west();
    let mut whole = snapshot(5, &["a.shop"]);
    whole.insert(2, tombstone(at(5, 6), "a.shop"));
    tell(&mut west, now, whole);
    assert_eq!(west.ended, [STREAM]);
    assert_eq!(west.offers(), ["a.shop"]);

    let mut ungreeted = Side::new("west", "east", now);
    let relation = &mut ungreeted.relation;
    relation.handle_opened(STREAM, OpenedBy::Peer, now);
    tell(&mut ungreeted, now, [Message::Resync]);
    assert_eq!(ungreeted.ended, [STREAM]);

    let (mut west, now) = self::west();
    west.relation.handle_malformed(STREAM, now);
    west.take_events();
    assert_eq!(west.ended, [STREAM]);
}

#[test]
fn who_asks_for_everything_all_the_time_gets_it_every_five_seconds() {
    let (mut west, now) = west();
    while west.relation.poll_transmit(now).is_some() {}
    let mut snapshots = 0;
    for tenth in 0..200 {
        let now = now + SECOND / 10 * tenth;
        west.relation
            .handle_message(STREAM, Message::Resync, now, TODAY_MS);
        west.relation.handle_timeout(now);
        while let Some((_, message)) = west.relation.poll_transmit(now) {
            snapshots += usize::from(matches!(message, Message::SnapshotBegin { .. }));
        }
    }
    assert_eq!(snapshots, 4);
}

#[test]
fn who_acknowledges_what_it_was_not_told_is_not_believed() {
    let (mut west, now) = west();
    tell(&mut west, now, [Message::Ack(at(9, 9))]);
    assert_eq!(west.relation.summary().acknowledged, Some(at(0, 0)));
    while west.relation.poll_transmit(now).is_some() {}
    tell(&mut west, now, [Message::Ack(at(1, 2))]);
    assert_eq!(west.relation.summary().acknowledged, Some(at(1, 2)));
}

#[test]
fn who_rejects_what_it_was_not_offered_is_not_counted() {
    let (mut west, now) = west();
    for service in ["own.shop", "x.shop"] {
        let message = Message::Rejected {
            service: id(service),
            condition: None,
        };
        tell(&mut west, now, [message]);
    }
    assert_eq!(west.relation.summary().rejected, 1);
}
