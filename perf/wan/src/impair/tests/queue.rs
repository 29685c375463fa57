use proptest::prelude::*;

use super::*;
use crate::impairment::{QUEUE_DEFAULT_MIN_BYTES, QueueLimit, Rate};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn packets_leave_at_the_rate() {
    let mut line = line("rate 8mbit queue 1m", 1);
    for number in 0..10 {
        line.accept(&packet(number, 1_000), ms(0));
    }
    // A thousand bytes take a millisecond.
    let expected: Vec<_> = (0..10)
        .map(|number| (number, ms(u64::from(number) + 1)))
        .collect();
    assert_eq!(arrivals(&mut line, ms(20)), expected);
}

#[test]
fn a_full_queue_drops_what_comes() {
    let mut line = line("rate 8mbit queue 3000", 1);
    for number in 0..10 {
        line.accept(&packet(number, 1_000), ms(0));
    }
    let arrived: Vec<u32> = arrivals(&mut line, ms(20))
        .iter()
        .map(|(number, _)| *number)
        .collect();
    // One on the line, three in the queue.
    assert_eq!(arrived, [0, 1, 2, 3]);
    assert_eq!(line.counters().dropped.queue_full, 6);
    assert_eq!(line.counters().queue_max_bytes, 3_000);
    check_balance(&line);
}

#[test]
fn an_idle_line_takes_a_packet_larger_than_its_queue() {
    let mut line = line("rate 8mbit queue 10", 1);
    line.accept(&packet(0, 1_000), ms(0));
    assert_eq!(arrivals(&mut line, ms(1)), [(0, ms(1))]);
}

#[test]
fn a_queue_in_bdp_counts_both_delays() {
    let rate = Rate {
        limit: QueueLimit::Bdp(2.0),
        ..Rate::new(100_000_000)
    };
    assert_eq!(rate.queue_limit_bytes(ms(60)), 1_500_000);
    assert_eq!(Rate::new(100_000_000).queue_limit_bytes(ms(60)), 750_000);
    assert_eq!(
        Rate::new(1_000_000).queue_limit_bytes(ms(1)),
        QUEUE_DEFAULT_MIN_BYTES
    );
}

#[test]
fn a_new_rate_counts_for_what_waits() {
    let mut line = line("rate 8mbit queue 1m", 1);
    for number in 0..4 {
        line.accept(&packet(number, 1_000), ms(0));
    }
    let mut faster = line.impairments().0.clone();
    faster.rate = Some(Rate::new(80_000_000));
    line.set(faster, us(1_500));
    // The second is on the line already.
    assert_eq!(
        arrivals(&mut line, ms(9)),
        [(0, ms(1)), (1, ms(2)), (2, us(2_100)), (3, us(2_200))]
    );
}

#[test]
fn a_queue_without_a_rate_runs_dry_behind_the_packet_on_the_line() {
    let mut line = line("rate 8mbit queue 1m delay 5ms", 1);
    for number in 0..4 {
        line.accept(&packet(number, 1_000), ms(0));
    }
    let unlimited = Impairment {
        rate: None,
        ..line.impairments().0.clone()
    };
    line.set(unlimited, us(1_500));
    assert_eq!(
        arrivals(&mut line, ms(15)),
        [(0, ms(6)), (1, ms(7)), (2, ms(7)), (3, ms(7))]
    );
}

/// Offers `share` of the rate of 10 Mb/s in packets of 1250 bytes for ten seconds, through CoDel or not.
fn overloaded(aqm: &str, share: f64) -> (Line, Vec<Duration>) {
    let mut line = line(&format!("rate 10mbit queue 10m aqm {aqm}"), 1);
    let gap = ms(1).div_f64(share);
    let packets = (10.0 * SECOND.as_secs_f64() / gap.as_secs_f64()) as u32;
    let arrived = send(&mut line, packets, 1_250, gap);
    let waits = arrived
        .iter()
        .map(|(number, due)| *due - gap * *number)
        .collect();
    check_balance(&line);
    (line, waits)
}

#[test]
fn codel_leaves_a_line_with_room_alone() {
    let (line, waits) = overloaded("codel", 0.95);
    assert_eq!(line.counters().dropped.codel, 0);
    assert!(waits.iter().all(|wait| *wait <= ms(2)));
}

#[test]
fn codel_leaves_a_burst_shorter_than_its_interval_alone() {
    let mut line = line("rate 10mbit queue 10m aqm codel", 1);
    for number in 0..90 {
        line.accept(&packet(number, 1_250), ms(0));
    }
    // It takes 90 ms to drain, which is less than 100.
    assert_eq!(arrivals(&mut line, SECOND).len(), 90);
    assert_eq!(line.counters().dropped.codel, 0);
}

#[test]
fn codel_drops_faster_and_faster_while_the_queue_stands() {
    let mut line = line("rate 10mbit queue 10m aqm codel", 1);
    let mut drops = Vec::new();
    let gap = us(500);
    for number in 0..6_000 {
        let before = line.counters().dropped.codel;
        line.accept(&packet(number, 1_250), gap * number);
        if line.counters().dropped.codel > before {
            drops.push(gap * number);
        }
    }
    // The sojourn exceeds 5 ms after about 10 ms; the first drop comes an interval later, the next ones after
    // interval / √count.
    assert!((ms(105)..ms(125)).contains(&drops[0]), "{:?}", drops[0]);
    let gaps: Vec<_> = drops.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, count) in gaps.iter().zip(1..).take(12) {
        let expected = ms(100).div_f64(f64::from(count).sqrt());
        assert!(
            gap.abs_diff(expected) <= ms(2),
            "gap {count} is {gap:?}, not {expected:?}"
        );
    }
}

#[test]
fn codel_shortens_a_standing_queue() {
    // A sender that does not react, 5 % too fast: without CoDel the wait grows to half a second.
    let (_, tail) = overloaded("drop-tail", 1.05);
    let (line, codel) = overloaded("codel", 1.05);
    let longest = |waits: &[Duration]| *waits[waits.len() / 2..].iter().max().unwrap();
    assert!(longest(&tail) > ms(400), "{:?}", longest(&tail));
    assert!(longest(&codel) < ms(100), "{:?}", longest(&codel));
    assert!(line.counters().dropped.codel > 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_window_carries_more_than_the_rate(mbit in 1_u64..200, bytes in 100_usize..1_500, gap in 1_u64..500) {
        let mut line = line(&format!("rate {mbit}mbit queue 100k"), 1);
        let arrived = send(&mut line, 1_000, bytes, us(gap));
        let each = Duration::from_nanos(bytes as u64 * 8_000 / mbit);
        for pair in arrived.windows(2) {
            prop_assert!(pair[1].1 - pair[0].1 >= each);
        }
        // And no less, while there is something to carry.
        if us(gap) < each {
            let busy = arrived.last().unwrap().1 - arrived[0].1;
            let expected = each * u32::try_from(arrived.len() - 1).unwrap();
            prop_assert!(busy.abs_diff(expected) <= us(1) + each / 1_000, "{busy:?} {expected:?}");
        }
    }

    #[test]
    fn policed_udp_keeps_to_rate_and_burst(mbit in 1_u64..100, bytes in 100_usize..1_500, gap in 1_u64..300) {
        let mut line = line(&format!("udp {mbit}mbit"), 1);
        let Udp::Policed { burst_bytes, .. } = line.impairments().0.udp else { unreachable!() };
        let (mut passed, mut arrived_bytes) = (0, 0);
        for number in 0..3_000 {
            line.accept(&of_protocol(17, number, bytes), us(gap) * number);
            passed += arrivals(&mut line, us(gap) * number).len() as u64 * bytes as u64;
            arrived_bytes += bytes as u64;
        }
        let allowed = burst_bytes as f64 + mbit as f64 * 1e6 / 8.0 * (us(gap) * 3_000).as_secs_f64();
        prop_assert!(passed as f64 <= allowed + 1.0, "{passed} of {allowed}");
        // And it carries what it may.
        let expected = (arrived_bytes as f64).min(allowed - burst_bytes as f64);
        prop_assert!(passed as f64 >= expected - 2.0 * bytes as f64 - 1.0, "{passed} of {expected}");
        check_balance(&line);
    }
}
