use proptest::prelude::*;

use super::*;

fn numbers(arrived: &[(u32, Duration)]) -> Vec<u32> {
    arrived.iter().map(|(number, _)| *number).collect()
}

#[test]
fn delay_is_exact() {
    let mut line = line("delay 30ms", 1);
    line.accept(&packet(1, 100), us(17));
    assert_eq!(line.due(), Some(ms(30) + us(17)));
    assert_eq!(line.take(ms(30)), None);
    let (_, due) = line.take(ms(40)).unwrap();
    assert_eq!(due, ms(30) + us(17));
    assert_eq!(line.due(), None);
}

#[test]
fn jitter_keeps_order_and_its_range() {
    let mut line = line("delay 10ms jitter 4ms", 2);
    let arrived = send(&mut line, 5_000, 100, us(500));
    assert_eq!(numbers(&arrived), (0..5_000).collect::<Vec<_>>());
    for (number, due) in &arrived {
        let delay = *due - us(500) * *number;
        assert!((ms(6)..=ms(14)).contains(&delay), "{delay:?}");
    }
    assert_eq!(line.counters().reordered, 0);
}

#[test]
fn sparse_jitter_is_even() {
    let mut line = line("delay 10ms jitter 4ms", 2);
    let arrived = send(&mut line, 4_000, 100, ms(20));
    let delays = arrived
        .iter()
        .map(|(number, due)| (*due - ms(20) * *number).as_secs_f64() * 1e3);
    let delays: Vec<f64> = delays.collect();
    let mean = delays.iter().sum::<f64>() / 4_000.0;
    // Even over 8 ms: a standard deviation of 2.31 ms, of the mean 0.037 ms.
    assert!((mean - 10.0).abs() < 0.11, "{mean}");
    let low = delays.iter().filter(|delay| **delay < 8.0).count();
    assert!(
        (900..1_100).contains(&low),
        "{low} of 4000 in the lowest quarter"
    );
}

#[test]
fn free_jitter_lets_packets_pass_each_other() {
    let mut line = line("delay 10ms jitter 4ms jitter-order free", 2);
    let arrived = numbers(&send(&mut line, 1_000, 100, us(500)));
    assert!(!arrived.is_sorted());
}

#[test]
fn jitter_beyond_the_delay_ends_at_nothing() {
    let mut line = line("delay 1ms jitter 10ms jitter-order free", 2);
    for (number, due) in send(&mut line, 1_000, 100, ms(50)) {
        assert!(due >= ms(50) * number);
    }
}

#[test]
fn reordered_packets_come_late_and_are_counted() {
    let mut line = line("delay 5ms reorder 10%,3ms", 4);
    let arrived = send(&mut line, 2_000, 100, ms(1));
    let late = arrived
        .iter()
        .filter(|(number, due)| *due == ms(8) + ms(1) * *number)
        .count();
    assert_eq!(late as u64, line.counters().reordered);
    assert!((150..250).contains(&late), "{late}");
    assert!(!numbers(&arrived).is_sorted());
    let others: Vec<_> = arrived
        .iter()
        .filter(|(number, due)| *due == ms(5) + ms(1) * *number)
        .collect();
    assert_eq!(others.len() + late, 2_000);
}

#[test]
fn a_shorter_delay_does_not_let_packets_pass() {
    let mut line = line("delay 50ms", 4);
    line.accept(&packet(1, 100), ms(0));
    let shorter = Impairment {
        delay: ms(1),
        ..line.impairments().0.clone()
    };
    line.set(shorter, ms(10));
    line.accept(&packet(2, 100), ms(10));
    assert_eq!(arrivals(&mut line, ms(90)), [(1, ms(50)), (2, ms(50))]);
}

/// Words that are drawn together.
fn any_words() -> impl Strategy<Value = String> {
    (
        0_u64..40,
        0_u64..20,
        0_u32..30,
        prop::option::of(1_u64..50),
        any::<bool>(),
    )
        .prop_map(|(delay, jitter, loss, rate, codel)| {
            let mut words = format!("delay {delay}ms jitter {jitter}ms loss {loss}%");
            if let Some(mbit) = rate {
                words.push_str(&format!(" rate {mbit}mbit queue 20k"));
            }
            if codel && rate.is_some() {
                words.push_str(" aqm codel");
            }
            words
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn order_is_kept_and_nothing_is_lost_sight_of(words in any_words(), seed: u64, gap in 20_u64..2_000) {
        let mut line = line(&words, seed);
        let arrived = send(&mut line, 500, 1_200, us(gap));
        prop_assert!(numbers(&arrived).is_sorted(), "{words}");
        prop_assert!(arrived.iter().all(|(number, due)| *due >= us(gap) * *number));
        check_balance(&line);
        prop_assert_eq!(line.counters().held_packets, 0);
    }

    #[test]
    fn who_asks_late_gets_the_same_answer(words in any_words(), seed: u64, gap in 20_u64..2_000) {
        let mut prompt = line(&words, seed);
        let mut late = line(&words, seed);
        let arrived = send(&mut prompt, 300, 1_200, us(gap));
        for number in 0..300 {
            late.accept(&packet(number, 1_200), us(gap) * number);
        }
        prop_assert_eq!(arrived, arrivals(&mut late, ms(3_600_000)));
        prop_assert_eq!(prompt.counters().dropped, late.counters().dropped);
    }

    #[test]
    fn nothing_arrives_before_it_was_announced(words in any_words(), seed: u64, gap in 20_u64..2_000) {
        let mut line = line(&words, seed);
        for number in 0..200 {
            line.accept(&packet(number, 1_200), us(gap) * number);
        }
        let mut now = us(gap) * 200;
        while let Some(due) = line.due() {
            now = now.max(due);
            if let Some((bytes, due)) = line.take(now) {
                line.delivered(bytes.len(), now - due);
                prop_assert!(due == now || due <= us(gap) * 200, "{due:?} at {now:?}");
            }
        }
        check_balance(&line);
        prop_assert_eq!(line.counters().held_packets, 0);
    }
}
