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
            let [quic, tls] = match self.carriers.carrier() {
                Carrier::Quic => [delivered(quic), Delivered::default()],
                Carrier::Tls => [Delivered::default(), delivered(tls)],
            };
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
fn what_was_found_is_looked_at_again_and_then_known_at_once() {
    let mut bench = Bench::settled();
    bench.fill(Duration::from_secs(15 * 60 + 10), 2 * MB, 30 * MB);
    assert_eq!(bench.changes()[2..], [change(Carrier::Quic, Cause::Stale)]);
    bench.fill(Duration::from_secs(10), 2 * MB, 30 * MB);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Faster)]);
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
fn on_a_short_way_the_cheaper_one_is_preferred() {
    let mut bench = Bench::settled();
    bench.carriers.handle_round_trip(NEAR / 2, bench.now);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Distance)]);
    bench.carriers.handle_cheaper(Carrier::Quic);
    bench.carriers.handle_round_trip(NEAR / 2, bench.now);
    assert_eq!(bench.changes(), [change(Carrier::Quic, Cause::Distance)]);
}

#[test]
fn a_byte_costs_what_looks_say_in_which_one_carrier_moved_nearly_all() {
    let mut costs = Costs::default();
    let look = Duration::from_millis(100);
    costs.handle_look(look, 50 * MB, 50 * MB);
    costs.handle_look(look, MB, 0);
    assert_eq!(costs, Costs::default());
    costs.handle_look(look, 20 * MB, 0);
    costs.handle_look(look, MB, 49 * MB);
    let close = |carrier, expected: f64| {
        let cost = costs.seconds_per_byte(carrier).unwrap();
        (cost / expected - 1.0).abs() < 1e-9
    };
    assert!(
        close(Carrier::Quic, 5e-9) && close(Carrier::Tls, 2e-9),
        "{costs:?}"
    );
    assert_eq!(costs.cheaper(), Some(Carrier::Tls));
    for _ in 0..100 {
        costs.handle_look(look, 45 * MB, 0);
    }
    assert_eq!(costs.cheaper(), None);
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
