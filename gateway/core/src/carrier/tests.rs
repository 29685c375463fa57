use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

mod trials;

/// Both carriers, and the time.
struct Bench {
    carriers: Carriers,
    now: Instant,
    /// In which carriers are filled.
    direction: Direction,
    /// What TLS carries in a second besides.
    beside: u64,
    /// The change before.
    last: Option<CarrierChange>,
}

impl Bench {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the only way to some instant")]
        let now = Instant::now();
        Self {
            carriers: Carriers::new(now),
            now,
            direction: Direction::Sent,
            beside: 0,
            last: None,
        }
    }

    /// Both are steady and the way is long.
    fn settled() -> Self {
        let mut bench = Self::new();
        bench.pulse(Carrier::Quic, Pulse::Steady);
        bench.pulse(Carrier::Tls, Pulse::Steady);
        assert_eq!(bench.changes(), []);
        assert_eq!(bench.carriers.carrier(), Carrier::Quic);
        bench
    }

    fn pulse(&mut self, carrier: Carrier, pulse: Pulse) {
        self.carriers.handle_pulse(carrier, pulse, self.now);
    }

    /// Time passes, and whatever is due is done.
    fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(due) = self.carriers.poll_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.carriers.handle_timeout(self.now);
        }
        self.now = until;
    }

    fn lose(&mut self, percent: u64) {
        let losses = Losses {
            sent_packets: 10_000,
            lost_packets: percent * 100,
        };
        self.carriers.handle_losses(losses, self.now);
    }

    fn changes(&mut self) -> Vec<CarrierChange> {
        std::iter::from_fn(|| self.carriers.poll_change()).collect()
    }
}

fn change(to: Carrier, cause: Cause) -> CarrierChange {
    CarrierChange { to, cause }
}

#[test]
fn whoever_comes_first_carries_until_the_preferred_one_comes() {
    let mut bench = Bench::new();
    bench.pulse(Carrier::Tls, Pulse::Steady);
    bench.pulse(Carrier::Quic, Pulse::Steady);
    let expected = [
        change(Carrier::Tls, Cause::First),
        change(Carrier::Quic, Cause::Arrived),
    ];
    assert_eq!(bench.changes(), expected);
}

#[test]
fn overdue_answers_move_streams_at_once_and_back_after_probation() {
    let mut bench = Bench::settled();
    bench.pulse(Carrier::Quic, Pulse::Overdue);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Overdue)]);
    bench.pulse(Carrier::Quic, Pulse::Steady);
    bench.wait(PROBATION_MIN - Duration::from_millis(1));
    assert_eq!(bench.changes(), []);
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.changes(), [change(Carrier::Quic, Cause::Returned)]);
}

#[test]
fn probation_is_for_who_is_well_all_the_while() {
    let mut bench = Bench::settled();
    bench.pulse(Carrier::Quic, Pulse::Gone);
    bench.wait(PROBATION_MIN * 2);
    bench.pulse(Carrier::Quic, Pulse::Steady);
    bench.wait(PROBATION_MIN / 2);
    bench.pulse(Carrier::Quic, Pulse::Overdue);
    bench.pulse(Carrier::Quic, Pulse::Steady);
    bench.wait(PROBATION_MIN / 2);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Gone)]);
    bench.wait(PROBATION_MIN / 2);
    assert_eq!(bench.changes(), [change(Carrier::Quic, Cause::Returned)]);
}

#[test]
fn who_fails_again_soon_waits_twice_as_long_and_who_served_long_does_not() {
    let mut bench = Bench::settled();
    for (served, waits) in [
        (Duration::ZERO, PROBATION_MIN),
        (Duration::ZERO, PROBATION_MIN * 2),
        (Duration::ZERO, PROBATION_MIN * 4),
        (FORGIVEN_AFTER, PROBATION_MIN),
    ] {
        bench.wait(served);
        bench.pulse(Carrier::Quic, Pulse::Gone);
        bench.pulse(Carrier::Quic, Pulse::Steady);
        bench.wait(waits - Duration::from_millis(1));
        assert_eq!(bench.carriers.carrier(), Carrier::Tls, "{waits:?}");
        bench.wait(Duration::from_millis(1));
        assert_eq!(bench.carriers.carrier(), Carrier::Quic, "{waits:?}");
    }
}

#[test]
fn losses_move_streams_when_three_looks_agree() {
    let mut bench = Bench::settled();
    bench.lose(LOSS_MAX_PERCENT + 1);
    bench.lose(LOSS_MAX_PERCENT + 1);
    bench.lose(LOSS_MAX_PERCENT);
    bench.lose(LOSS_MAX_PERCENT + 1);
    bench.lose(LOSS_MAX_PERCENT + 1);
    assert_eq!(bench.changes(), []);
    bench.lose(LOSS_MAX_PERCENT + 1);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Lossy)]);
    bench.wait(PROBATION_MIN);
    assert_eq!(bench.changes(), [change(Carrier::Quic, Cause::Returned)]);
}

#[test]
fn few_packets_say_nothing_until_they_are_enough() {
    let mut bench = Bench::settled();
    let half = Losses {
        sent_packets: SAMPLE_MIN_PACKETS / 2,
        lost_packets: SAMPLE_MIN_PACKETS / 2,
    };
    for _ in 0..LOSSY_LOOKS * 2 - 1 {
        bench.carriers.handle_losses(half, bench.now);
    }
    assert_eq!(bench.changes(), []);
    bench.carriers.handle_losses(half, bench.now);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Lossy)]);
}

#[test]
fn looks_within_one_round_trip_are_one_look() {
    let mut bench = Bench::settled();
    let rtt = Duration::from_millis(300);
    bench.carriers.handle_round_trip(rtt, bench.now);
    let rtt = bench.carriers.shortest.unwrap().rtt;
    bench.wait(rtt);
    let all = Losses {
        sent_packets: SAMPLE_MIN_PACKETS,
        lost_packets: SAMPLE_MIN_PACKETS,
    };
    for _ in 0..LOSSY_LOOKS {
        bench.carriers.handle_losses(all, bench.now);
    }
    assert_eq!(bench.changes(), []);
    for _ in 0..LOSSY_LOOKS {
        bench.wait(rtt);
        bench.carriers.handle_losses(all, bench.now);
    }
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Lossy)]);
}

#[test]
fn a_short_way_is_for_tls_and_a_long_one_for_quic() {
    let mut bench = Bench::settled();
    let between = (NEAR + FAR) / 2;
    for (rtt, expected) in [
        (between, vec![]),
        (NEAR / 2, vec![change(Carrier::Tls, Cause::Distance)]),
        (between, vec![]),
        (FAR * 2, vec![change(Carrier::Quic, Cause::Distance)]),
        (between, vec![]),
    ] {
        for _ in 0..2 {
            bench.wait(SHORTEST_OF);
            bench.carriers.handle_round_trip(rtt, bench.now);
        }
        assert_eq!(bench.changes(), expected, "{rtt:?}");
    }
}

#[test]
fn a_busy_way_is_no_longer_than_before() {
    let mut bench = Bench::settled();
    bench.carriers.handle_round_trip(NEAR / 2, bench.now);
    assert_eq!(bench.changes(), [change(Carrier::Tls, Cause::Distance)]);
    for _ in 0..19 {
        bench.wait(SHORTEST_OF / 10);
        bench.carriers.handle_round_trip(FAR * 2, bench.now);
    }
    assert_eq!(bench.changes(), []);
}

#[test]
fn streams_are_given_up_only_where_the_other_carrier_lives() {
    let mut bench = Bench::settled();
    bench.pulse(Carrier::Quic, Pulse::Gone);
    let due = bench.now + GIVEN_UP_AFTER;
    assert_eq!(bench.carriers.gives_up_at(Carrier::Quic), Some(due));
    assert_eq!(bench.carriers.gives_up_at(Carrier::Tls), None);
    bench.pulse(Carrier::Tls, Pulse::Gone);
    assert_eq!(bench.carriers.gives_up_at(Carrier::Quic), None);
    bench.wait(Duration::from_secs(60));
    bench.pulse(Carrier::Tls, Pulse::Steady);
    let due = bench.now + GIVEN_UP_AFTER;
    assert_eq!(bench.carriers.gives_up_at(Carrier::Quic), Some(due));
}

#[test]
fn every_cause_has_a_word_of_its_own() {
    let words: std::collections::BTreeSet<_> = Cause::ALL.map(Cause::as_str).into();
    assert_eq!(words.len(), Cause::ALL.len());
}

#[derive(Debug, Clone)]
enum Step {
    Pulse(Carrier, Pulse),
    RoundTrip(u64),
    Losses(u64),
    /// So many KiB by each, all of them filled.
    Delivered(u64, u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let carrier = prop_oneof![Just(Carrier::Quic), Just(Carrier::Tls)];
    let pulse = prop_oneof![
        3 => Just(Pulse::Steady),
        1 => Just(Pulse::Overdue),
        1 => Just(Pulse::Gone),
    ];
    prop_oneof![
        4 => (carrier, pulse).prop_map(|(carrier, pulse)| Step::Pulse(carrier, pulse)),
        1 => (0..12_u64).prop_map(Step::RoundTrip),
        2 => (0..20_u64).prop_map(Step::Losses),
        8 => (0..4_000_u64, 0..4_000_u64).prop_map(|(quic, tls)| Step::Delivered(quic, tls)),
        4 => (0..20_000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_streams_go_where_they_arrive(steps in vec(step(), 1..200)) {
        let mut bench = Bench::new();
        let mut pulses = [Pulse::Gone; 2];
        // When each was left for its own fault, while it is not used again.
        let mut left_at = [None; 2];
        let mut carrier = bench.carriers.carrier();
        for step in steps {
            match step {
                Step::Pulse(carrier, pulse) => {
                    pulses[carrier as usize] = pulse;
                    bench.pulse(carrier, pulse);
                }
                Step::RoundTrip(ms) => {
                    bench.carriers.handle_round_trip(Duration::from_millis(ms), bench.now);
                }
                Step::Losses(percent) => bench.lose(percent),
                Step::Delivered(quic, tls) => {
                    let [quic, tls] = [quic, tls].map(|kib| Delivered {
                        bytes: kib << 10,
                        filled_bytes: kib << 10,
                    });
                    bench.wait(Duration::from_secs(1));
                    // In either direction.
                    let moved = |sent, received| Moved { sent, received };
                    bench.carriers.handle_moved(moved(quic, tls), moved(tls, quic), bench.now);
                }
                Step::Wait(ms) => bench.wait(Duration::from_millis(ms)),
            }
            for CarrierChange { to, cause } in bench.changes() {
                if cause == Cause::Faster {
                    prop_assert_eq!(to, carrier, "whoever is tried stays");
                    prop_assert_eq!(bench.last, Some(change(to, Cause::Trial)), "only whoever is tried can be found");
                    bench.last = None;
                    continue;
                }
                bench.last = Some(change(to, cause));
                prop_assert_ne!(to, carrier, "a change changes something");
                if matches!(cause, Cause::Overdue | Cause::Gone | Cause::Lossy) {
                    left_at[carrier as usize] = Some(bench.now);
                }
                if let (Some(left), true) = (left_at[to as usize], !matches!(cause, Cause::Overdue | Cause::Gone | Cause::First)) {
                    prop_assert!(bench.now >= left + PROBATION_MIN, "back before its probation was over");
                }
                left_at[to as usize] = None;
                carrier = to;
            }
            prop_assert_eq!(carrier, bench.carriers.carrier(), "every change is told");
            let best = pulses.iter().min().copied();
            prop_assert!(best == Some(Pulse::Gone) || Some(pulses[carrier as usize]) == best, "{:?}", pulses);
            if let Some(due) = bench.carriers.poll_timeout() {
                prop_assert!(due > bench.now, "what is due is done");
            }
        }
    }
}
