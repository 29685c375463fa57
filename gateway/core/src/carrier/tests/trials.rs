//! Carriers held against each other by what they deliver.

use super::*;

const LOOK: Duration = Duration::from_millis(250);
const MB: u64 = 1_000_000;

impl Bench {
    /// For `duration` the one in use delivers all that it can, so many bytes in a second by either carrier.
    fn fill(&mut self, duration: Duration, quic: u64, tls: u64) {
        self.deliver(duration, quic, tls, 1.0);
    }

    fn deliver(&mut self, duration: Duration, quic: u64, tls: u64, filled: f64) {
        let until = self.now + duration;
        while self.now < until {
            self.wait(LOOK);
            let direction = self.direction;
            let delivered = |per_second: u64| {
                let bytes = per_second / 4;
                Delivered {
                    bytes,
                    filled_bytes: (bytes as f64 * filled) as u64,
                }
            };
            let [quic, mut tls] = match self.carriers.carrier() {
                Carrier::Quic => [delivered(quic), Delivered::default()],
                Carrier::Tls => [Delivered::default(), delivered(tls)],
            };
            tls.bytes += self.beside / 4;
            let [quic, tls] = [quic, tls].map(|delivered| match direction {
                Direction::Sent => Moved {
                    sent: delivered,
                    ..Moved::default()
                },
                Direction::Received => Moved {
                    received: delivered,
                    ..Moved::default()
                },
            });
            self.carriers.handle_moved(quic, tls, self.now);
        }
    }
}

#[test]
fn whoever_delivers_far_more_in_a_trial_stays() {
    for direction in Direction::ALL {
        let mut bench = Bench::settled();
        bench.direction = direction;
        bench.fill(Duration::from_secs(10), 2 * MB, 30 * MB);
        let expected = [
            change(Carrier::Tls, Cause::Trial),
            change(Carrier::Tls, Cause::Faster),
        ];
        assert_eq!(bench.changes(), expected, "{direction:?}");
        let goodput = |carrier| bench.carriers.goodput(carrier, direction, bench.now);
        assert_eq!(goodput(Carrier::Quic), Some(2e6));
        assert_eq!(goodput(Carrier::Tls), Some(30e6));
    }
}

#[test]
fn whoever_does_not_is_left_again_and_not_tried_soon() {
    let mut bench = Bench::settled();
    bench.fill(Duration::from_secs(60), 20 * MB, 25 * MB);
    let expected = [
        change(Carrier::Tls, Cause::Trial),
        change(Carrier::Quic, Cause::Tried),
    ];
    assert_eq!(bench.changes(), expected);
    bench.fill(Duration::from_secs(12 * 60), 20 * MB, 25 * MB);
    assert_eq!(bench.changes(), []);
    bench.fill(Duration::from_secs(4 * 60), 20 * MB, 25 * MB);
    assert_eq!(bench.changes(), expected);
}

#[test]
fn what_is_carried_without_filling_the_path_says_nothing() {
    let mut bench = Bench::settled();
    bench.deliver(Duration::from_secs(60), 20 * MB, 25 * MB, 0.5);
    assert_eq!(bench.changes(), []);
    let goodput = bench
        .carriers
        .goodput(Carrier::Quic, Direction::Sent, bench.now);
    assert_eq!(goodput, None);
}

#[test]
fn whoever_delivers_far_more_without_being_filled_could_even_more() {
    let mut bench = Bench::settled();
    bench.fill(Duration::from_secs(5), 2 * MB, 0);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Trial)]);
    bench.deliver(Duration::from_secs(2), 0, 4 * MB, 0.0);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Faster)]);
    assert_eq!(bench.carriers.carrier(), Carrier::Tls);
}

#[test]
fn a_trial_without_anything_to_carry_ends_and_is_repeated_after_a_while() {
    let mut bench = Bench::settled();
    bench.fill(Duration::from_secs(20), 20 * MB, 0);
    let expected = [
        change(Carrier::Tls, Cause::Trial),
        change(Carrier::Quic, Cause::Tried),
    ];
    assert_eq!(bench.changes(), expected);
    bench.fill(Duration::from_secs(70), 20 * MB, 0);
    assert_eq!(bench.changes(), expected);
}

#[test]
fn what_was_found_is_looked_at_again() {
    let mut bench = Bench::settled();
    bench.fill(Duration::from_secs(15 * 60 + 10), 2 * MB, 30 * MB);
    assert_eq!(bench.changes()[2..], [change(Carrier::Quic, Cause::Stale)]);
    bench.fill(Duration::from_secs(10), 2 * MB, 30 * MB);
    let expected = [
        change(Carrier::Tls, Cause::Trial),
        change(Carrier::Tls, Cause::Faster),
    ];
    assert_eq!(bench.changes(), expected);
}

#[test]
fn whoever_was_found_and_does_far_less_now_is_left() {
    let mut bench = Bench::settled();
    bench.fill(Duration::from_secs(10), 20 * MB, 40 * MB);
    assert_eq!(bench.changes().len(), 2);
    bench.fill(Duration::from_secs(60), 20 * MB, 5 * MB);
    assert_eq!(bench.changes(), [change(Carrier::Quic, Cause::Stale)]);
}

#[test]
fn what_the_other_one_carries_anyway_says_nothing() {
    let mut bench = Bench::settled();
    // Streams of before share the path.
    bench.beside = 70 * MB;
    bench.fill(Duration::from_secs(30), 30 * MB, 0);
    let expected = [
        change(Carrier::Tls, Cause::Trial),
        change(Carrier::Quic, Cause::Tried),
    ];
    assert_eq!(bench.changes(), expected);
}

#[test]
fn a_trial_that_ends_ill_is_no_success() {
    let mut bench = Bench::settled();
    bench.fill(Duration::from_secs(5), 2 * MB, 0);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Trial)]);
    bench.wait(Duration::from_secs(1));
    bench.pulse(Carrier::Tls, Pulse::Overdue);
    bench.beside = 30 * MB;
    bench.fill(Duration::from_secs(2), 0, 0);
    assert_eq!(bench.changes(), [change(Carrier::Quic, Cause::Overdue)]);
}

#[test]
fn a_look_that_comes_too_soon_for_what_is_counted_is_no_pause() {
    let mut bench = Bench::settled();
    for _ in 0..5 {
        bench.fill(LOOK, 4 * MB, 0);
        bench.fill(LOOK, 0, 0);
        bench.fill(LOOK, 4 * MB, 0);
    }
    assert_eq!(bench.changes(), []);
    bench.fill(Duration::from_secs(2), 4 * MB, 0);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Trial)]);
}

#[test]
fn a_carrier_that_is_ill_is_not_tried_and_a_trial_ends_when_it_is() {
    let mut bench = Bench::settled();
    bench.pulse(Carrier::Tls, Pulse::Overdue);
    bench.fill(Duration::from_secs(10), 2 * MB, 30 * MB);
    assert_eq!(bench.changes(), []);
    bench.pulse(Carrier::Tls, Pulse::Steady);
    bench.fill(LOOK, 2 * MB, 0);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Trial)]);
    bench.pulse(Carrier::Tls, Pulse::Gone);
    assert_eq!(bench.changes(), [change(Carrier::Quic, Cause::Gone)]);
    bench.pulse(Carrier::Tls, Pulse::Steady);
    bench.fill(Duration::from_secs(30), 2 * MB, 30 * MB);
    assert_eq!(bench.changes(), []);
}

#[test]
fn a_byte_costs_what_looks_say_in_which_one_carrier_moved_nearly_all() {
    let mut costs = Costs::default();
    let look = Duration::from_millis(100);
    costs.handle_look(look, 50 * MB, 50 * MB);
    // Too little, and what came before a pause is forgotten.
    costs.handle_look(look, 7 * MB, 0);
    costs.handle_look(look, 0, 0);
    costs.handle_look(look, 7 * MB, 0);
    costs.handle_look(look, 0, 0);
    assert_eq!(costs, Costs::default());
    costs.handle_look(look, 5 * MB, 0);
    costs.handle_look(look, 15 * MB, 0);
    costs.handle_look(look, MB, 49 * MB);
    let close = |carrier, expected: f64| {
        let cost = costs.seconds_per_byte(carrier).unwrap();
        (cost / expected - 1.0).abs() < 1e-9
    };
    assert!(
        close(Carrier::Quic, 10e-9) && close(Carrier::Tls, 2e-9),
        "{costs:?}"
    );
}

#[test]
fn directions_are_not_held_against_each_other() {
    let mut bench = Bench::settled();
    bench.fill(Duration::from_secs(10), 20 * MB, 20 * MB);
    bench.changes();
    // What the other one did in the other direction says nothing about this one.
    bench.direction = Direction::Received;
    bench.fill(Duration::from_secs(60), 2 * MB, 2 * MB);
    assert_eq!(bench.changes(), []);
    bench.fill(Duration::from_secs(15 * 60), 2 * MB, 30 * MB);
    let expected = [
        change(Carrier::Tls, Cause::Trial),
        change(Carrier::Tls, Cause::Faster),
    ];
    assert_eq!(bench.changes(), expected);
}
