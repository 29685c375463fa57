use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn ten_begins_in_a_minute_are_let_in_and_the_eleventh_waits_ten_seconds() {
    let start = Instant::now();
    let mut damping = Damping::new();
    for second in 0..10 {
        assert!(damping.handle_begun(start + second * SECOND), "{second}");
    }
    assert!(!damping.is_flapping());
    assert!(!damping.handle_begun(start + 10 * SECOND));
    assert!(damping.is_flapping());
    assert!(!damping.handle_begun(start + 19 * SECOND));
    assert!(damping.handle_begun(start + 20 * SECOND));
}

#[test]
fn begins_older_than_a_minute_do_not_count() {
    let start = Instant::now();
    let mut damping = Damping::new();
    for begin in 0..100 {
        assert!(damping.handle_begun(start + begin * 6 * SECOND), "{begin}");
    }
}

#[test]
fn a_peer_that_restarts_every_second_for_five_minutes_is_let_in_ten_seconds_after_it_stops() {
    let start = Instant::now();
    let mut damping = Damping::new();
    let let_in = (0..300).filter(|second| damping.handle_begun(start + *second * SECOND));
    // Ten seconds in, ten seconds out.
    assert_eq!(let_in.count(), 150);
    assert!(damping.handle_begun(start + 310 * SECOND));
}

#[test]
fn flapping_is_over_a_minute_after_the_wait() {
    let start = Instant::now();
    let mut damping = Damping::new();
    let let_in = (0..11).filter(|_| damping.handle_begun(start));
    assert_eq!(let_in.count(), 10);
    let over = start + TURNED_AWAY + WINDOW;
    assert_eq!(damping.poll_timeout(), Some(over));
    assert!(!damping.handle_timeout(over - SECOND));
    assert!(damping.handle_timeout(over));
    assert!(!damping.is_flapping());
}

#[test]
fn the_wait_before_dialling_doubles_up_to_fifteen_seconds_and_shrinks_after_a_good_stream() {
    let now = Instant::now();
    let mut damping = Damping::new();
    let mut wait = |lasted| (damping.handle_ended(lasted, now) - now).as_millis();
    let waits: Vec<_> = (0..8).map(|_| wait(SECOND)).collect();
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
    assert_eq!([wait(GOOD_AFTER), wait(SECOND)], [500, 1000]);
}
