use super::*;
use crate::impairment::Loss;

fn udp(number: u32, bytes: usize) -> Vec<u8> {
    of_protocol(17, number, bytes)
}

#[test]
fn nothing_is_done_unless_it_was_said() {
    let mut line = line("", 1);
    for number in 0..100 {
        assert_eq!(line.accept(&packet(number, 1_500), us(5)), Verdict::Silent);
    }
    assert_eq!(arrivals(&mut line, us(5)).len(), 100);
    let expected = Counters {
        arrived_packets: 100,
        arrived_bytes: 150_000,
        delivered_packets: 100,
        delivered_bytes: 150_000,
        ..Counters::default()
    };
    assert_eq!(line.counters(), expected);
}

#[test]
fn blocked_udp_vanishes_and_the_rest_passes() {
    let mut line = line("udp blocked", 1);
    line.accept(&udp(1, 100), ms(0));
    line.accept(&packet(2, 100), ms(0));
    assert_eq!(arrivals(&mut line, ms(0)), [(2, ms(0))]);
    assert_eq!(line.counters().dropped.udp_blocked, 1);
    check_balance(&line);
}

#[test]
fn named_sizes_vanish() {
    let mut line = line("drop-size 1201-1400", 1);
    for bytes in [1_200, 1_201, 1_400, 1_401] {
        line.accept(&packet(bytes, bytes as usize), ms(0));
    }
    assert_eq!(arrivals(&mut line, ms(0)), [(1_200, ms(0)), (1_401, ms(0))]);
    assert_eq!(line.counters().dropped.by_size, 2);
}

#[test]
fn too_large_packets_are_told_or_vanish() {
    let mut told = line("mtu 1280", 1);
    assert_eq!(
        told.accept(&packet(1, 1_281), ms(0)),
        Verdict::TooBig { mtu_bytes: 1_280 }
    );
    assert_eq!(told.accept(&packet(2, 1_280), ms(0)), Verdict::Silent);
    assert_eq!(arrivals(&mut told, ms(0)), [(2, ms(0))]);
    let mut hole = line("mtu 1280 oversize vanishes", 1);
    assert_eq!(hole.accept(&packet(1, 1_281), ms(0)), Verdict::Silent);
    assert_eq!(hole.counters().dropped.oversize, 1);
    check_balance(&hole);
}

#[test]
fn a_blackout_keeps_what_is_on_its_way() {
    let steps = [
        Step::parse("10ms", "blackout", 1).unwrap(),
        Step::parse("20ms", "clear", 2).unwrap(),
    ];
    let mut line = line_with("delay 15ms", &steps, 1);
    for number in 0..30 {
        line.accept(&packet(number, 100), ms(u64::from(number)));
    }
    let arrived: Vec<u32> = arrivals(&mut line, ms(99))
        .iter()
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(arrived, (0..10).chain(20..30).collect::<Vec<_>>());
    assert_eq!(line.counters().dropped.blackout, 10);
}

#[test]
fn steps_happen_in_time_even_if_nobody_asks() {
    let steps = [Step::parse("2ms", "rate 80mbit", 1).unwrap()];
    let mut line = line_with("rate 8mbit queue 1m", &steps, 1);
    for number in 0..4 {
        line.accept(&packet(number, 1_000), ms(0));
    }
    assert_eq!(
        arrivals(&mut line, ms(50)),
        [(0, ms(1)), (1, ms(2)), (2, ms(3)), (3, us(3_100))]
    );
}

#[test]
fn steps_of_the_other_direction_change_only_the_round_trip() {
    let steps = [Step::parse("1ms", "back delay 80ms loss 100%", 1).unwrap()];
    let mut line = line_with("delay 10ms rate 8mbit", &steps, 1);
    line.accept(&packet(0, 100), ms(5));
    assert_eq!(line.impairments().0.loss, Loss::Never);
    assert_eq!(line.impairments().1.delay, ms(80));
    let limit = line.impairments().0.rate.unwrap().queue_limit_bytes(ms(90));
    assert_eq!(limit, 90_000);
}

#[test]
fn link_local_packets_and_rubbish_are_not_carried_and_cost_no_chance() {
    let mut plain = line("loss 50%", 9);
    let mut noisy = line("loss 50%", 9);
    for number in 0..500 {
        plain.accept(&packet(number, 100), ms(0));
        let mut local = packet(number, 100);
        local[16..20].copy_from_slice(&[224, 0, 0, 22]);
        noisy.accept(&local, ms(0));
        noisy.accept(&[0; 9], ms(0));
        noisy.accept(&packet(number, 100), ms(0));
    }
    assert_eq!(arrivals(&mut plain, ms(0)), arrivals(&mut noisy, ms(0)));
    assert_eq!(noisy.counters().dropped.local, 1_000);
}

#[test]
fn what_is_held_has_a_bound() {
    let mut line = line("delay 60s", 9);
    let large = packet(0, 65_000);
    for _ in 0..4_200 {
        line.accept(&large, ms(0));
    }
    let counters = line.counters();
    assert!(counters.dropped.overflow > 0);
    assert!(counters.held_packets * 65_000 <= HELD_MAX_BYTES);
    check_balance(&line);
}
