use std::task::Waker;

use proptest::prelude::*;

use super::*;

const RTT: Duration = Duration::from_millis(100);

/// The window of a stream after `seconds`, which is read at once, and of which the path carries `rate` bytes a second.
fn window_after(rate: u64, rtt: Duration, most: u64, seconds: u64) -> u64 {
    let begin = Instant::now();
    let step = Duration::from_millis(1);
    let (mut grants, mut sent) = (Grants::new(), 0);
    let mut arriving = std::collections::VecDeque::new();
    let mut limits = std::collections::VecDeque::from([(begin, FIRST_BYTES)]);
    let mut limit = 0;
    let mut now = begin;
    while now < begin + Duration::from_secs(seconds) {
        while limits.front().is_some_and(|(at, _)| *at <= now) {
            limit = limits.pop_front().unwrap().1;
        }
        let bytes = (rate / 1_000).min(limit - sent);
        sent += bytes;
        arriving.push_back((now + rtt / 2, bytes));
        while arriving.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = arriving.pop_front().unwrap();
            if let Some(more) = grants.handle_read(bytes, rtt, most, now) {
                limits.push_back((now + rtt / 2, more));
            }
        }
        now += step;
    }
    grants.window
}

#[test]
fn a_window_grows_to_a_few_times_what_is_on_its_way_and_no_further() {
    for (megabits, milliseconds) in [(100, 100), (500, 100), (500, 200), (50, 20), (2_000, 20)] {
        let (rate, rtt) = (megabits * 125_000, Duration::from_millis(milliseconds));
        let on_its_way = rate * milliseconds / 1_000;
        let window = window_after(rate, rtt, u64::MAX, 6);
        let expected = (on_its_way * 5 / 2).clamp(FIRST_BYTES, MAX_BYTES);
        assert!(
            window >= expected && window <= (on_its_way * 8).max(FIRST_BYTES),
            "{megabits} Mb/s, {milliseconds} ms: {window} for {on_its_way} on their way"
        );
    }
}

#[test]
fn a_window_grows_no_further_than_its_connection_can_bear() {
    assert_eq!(window_after(62_500_000, RTT, 3 << 20, 4), 3 << 20);
    assert_eq!(window_after(62_500_000, RTT, 1, 4), FIRST_BYTES);
}

#[test]
fn a_reader_that_becomes_slow_gets_less() {
    let mut now = Instant::now();
    let mut grants = Grants::new();
    while grants.window < MAX_BYTES {
        grants.handle_read(1 << 20, RTT, u64::MAX, now);
        now += Duration::from_millis(1);
    }
    for _ in 0..400 {
        now += Duration::from_secs(1);
        grants.handle_read(1 << 20, RTT, u64::MAX, now);
    }
    assert!(grants.window <= 4 << 20, "{}", grants.window);
}

#[test]
fn who_waits_for_credit_is_woken_by_it_and_what_came_late_takes_nothing_back() {
    let credits = Credits::default();
    let credit = credits.watch(4);
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(credit.poll_limit(0, &mut context), Poll::Ready(FIRST_BYTES));
    assert!(credit.poll_limit(FIRST_BYTES, &mut context).is_pending());
    for limit in [2 * FIRST_BYTES, FIRST_BYTES + 1, 0] {
        assert_eq!(credits.handle(&message(CREDIT, 4, limit)), None);
        assert_eq!(
            credit.poll_limit(FIRST_BYTES, &mut context),
            Poll::Ready(2 * FIRST_BYTES)
        );
    }
}

#[test]
fn who_asks_for_credit_is_told_again_only_what_it_may_not_know() {
    let credits = Credits::default();
    let credit = credits.watch(4);
    credit.granted.store(9_000_000, Relaxed);
    let told = credits.handle(&message(WANTED, 4, FIRST_BYTES));
    assert_eq!(told, Some(message(CREDIT, 4, 9_000_000)));
    assert_eq!(credits.handle(&message(WANTED, 4, 9_000_000)), None);
    assert_eq!(credits.handle(&message(WANTED, 8, 0)), None);
    credits.forget(4);
    assert_eq!(credits.handle(&message(WANTED, 4, 0)), None);
}

proptest! {
    #[test]
    fn what_is_granted_never_goes_back_and_never_beyond_the_largest_window(
        steps in prop::collection::vec((0_u64..4 << 20, 0_u64..5_000), 1..200),
        most in 0_u64..64 << 20,
    ) {
        let mut grants = Grants::new();
        let (mut now, mut last, mut read) = (Instant::now(), FIRST_BYTES, 0);
        for (bytes, milliseconds) in steps {
            now += Duration::from_millis(milliseconds);
            read += bytes;
            if let Some(granted) = grants.handle_read(bytes, RTT, most, now) {
                prop_assert!(granted >= last);
                prop_assert!(granted <= last.max(read + MAX_BYTES));
                last = granted;
            }
        }
    }

    #[test]
    fn whatever_comes_about_credit_is_taken_or_left_alone(datagram: Vec<u8>) {
        let credits = Credits::default();
        let credit = credits.watch(0);
        credits.handle(&datagram);
        prop_assert!(credit.limit.load(Relaxed) >= FIRST_BYTES);
    }
}
