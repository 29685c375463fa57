use proptest::prelude::*;

use super::*;

const PACKETS: u32 = 40_000;

/// Numbers of the packets that arrive out of [`PACKETS`].
fn survivors(words: &str, seed: u64) -> Vec<u32> {
    let mut line = line(words, seed);
    let arrived = send(&mut line, PACKETS, 60, us(10));
    check_balance(&line);
    arrived.into_iter().map(|(number, _)| number).collect()
}

/// Whether a count is as far from its mean as chance allows: `sigmas` standard deviations.
fn is_within(count: f64, mean: f64, variance: f64, sigmas: f64) -> bool {
    (count - mean).abs() <= sigmas * variance.sqrt()
}

#[test]
fn bernoulli_loses_its_share_within_three_sigma() {
    for (words, share) in [("loss 0.1%", 0.001), ("loss 1%", 0.01), ("loss 30%", 0.3)] {
        let lost = f64::from(PACKETS) - survivors(words, 7).len() as f64;
        let mean = f64::from(PACKETS) * share;
        let variance = mean * (1.0 - share);
        assert!(is_within(lost, mean, variance, 3.0), "{words}: {lost} lost");
    }
}

#[test]
fn certain_loss_is_certain() {
    assert!(survivors("loss 100%", 1).is_empty());
    assert_eq!(survivors("loss 0%", 1).len(), PACKETS as usize);
}

/// Lengths of runs of lost packets.
fn bursts(arrived: &[u32]) -> Vec<u32> {
    let gaps = arrived.windows(2).map(|pair| pair[1] - pair[0] - 1);
    gaps.filter(|gap| *gap > 0).collect()
}

#[test]
fn gilbert_elliott_loses_in_bursts_of_the_expected_length() {
    // Bad in 1 % / (1 % + 25 %) = 3.85 % of the time, for four packets at a time.
    let arrived = survivors("loss ge:1%,25%", 11);
    let lost = f64::from(PACKETS) - arrived.len() as f64;
    let bursts = bursts(&arrived);
    let mean_burst = lost / bursts.len() as f64;

    // Bursts are geometric with mean 4 and variance (1 - 0.25) / 0.25² = 12; cycles take 100 + 4 packets.
    let cycles = f64::from(PACKETS) / 104.0;
    assert!(
        is_within(mean_burst, 4.0, 12.0 / cycles, 3.0),
        "bursts of {mean_burst}"
    );
    let expected = f64::from(PACKETS) * 0.01 / 0.26;
    // Of the lost in a cycle: 12 from the burst, and 16 times the variance of the number of cycles.
    assert!(
        is_within(lost, expected, cycles * (12.0 + 16.0), 3.0),
        "{lost} lost, not {expected}"
    );
    let long = bursts.iter().filter(|burst| **burst >= 8).count() as f64;
    let share = long / bursts.len() as f64;
    // 0.75⁷ = 13 % of the bursts have eight or more.
    assert!(
        (0.09..0.18).contains(&share),
        "{share} of the bursts are long"
    );
}

#[test]
fn bernoulli_loses_without_memory() {
    let arrived = survivors("loss 4%", 11);
    let bursts = bursts(&arrived);
    let mean = bursts.iter().sum::<u32>() as f64 / bursts.len() as f64;
    // Geometric: 1 / 0.96.
    assert!((1.02..1.07).contains(&mean), "bursts of {mean}");
}

#[test]
fn the_good_state_can_lose_and_the_bad_one_pass() {
    let arrived = survivors("loss ge:50%,50%,20%,10%", 3);
    let lost = 1.0 - arrived.len() as f64 / f64::from(PACKETS);
    assert!((0.14..0.16).contains(&lost), "{lost}");
}

#[test]
fn duplicates_and_corruption_keep_their_shares() {
    let mut line = line("duplicate 5% corrupt 10%", 5);
    let arrived = send(&mut line, PACKETS, 60, us(10));
    check_balance(&line);
    let counters = line.counters();
    let mean = f64::from(PACKETS) * 0.05;
    assert!(is_within(
        counters.duplicated as f64,
        mean,
        mean * 0.95,
        3.0
    ));
    assert_eq!(
        arrived.len() as u64,
        u64::from(PACKETS) + counters.duplicated
    );
    let mean = arrived.len() as f64 * 0.1;
    assert!(is_within(counters.corrupted as f64, mean, mean * 0.9, 3.0));
}

#[test]
fn corruption_flips_one_bit_behind_the_header() {
    let mut line = line("corrupt 100%", 5);
    let sent = packet(9, 60);
    line.accept(&sent, ms(0));
    let (got, _) = line.take(ms(0)).unwrap();
    assert_eq!(got[..20], sent[..20]);
    let flipped: u32 = got
        .iter()
        .zip(&sent)
        .map(|(a, b)| (a ^ b).count_ones())
        .sum();
    assert_eq!(flipped, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn same_seed_same_losses_whatever_else_is_on(seed: u64, others in 0_usize..4) {
        let others = ["jitter 3ms delay 9ms", "duplicate 20%", "corrupt 50%", "reorder 10%,2ms"][others];
        let run = |words: &str| {
            let mut line = line(words, seed);
            let mut numbers: Vec<u32> =
                send(&mut line, 2_000, 60, us(100)).into_iter().map(|(_, due)| u32::from(due > ms(0))).collect();
            numbers.push(u32::try_from(line.counters().dropped.lost).unwrap());
            (line.counters().dropped.lost, numbers)
        };
        prop_assert_eq!(run("loss 10%"), run("loss 10%"));
        prop_assert_eq!(run("loss 10%").0, run(&format!("loss 10% {others}")).0);
    }

    #[test]
    fn directions_and_seeds_differ(seed: u64) {
        let none = Impairment::default();
        let own = "loss 50%".parse::<Change>().unwrap().applied(&none, &none);
        let run = |direction, seed| {
            let mut line = Line::new(direction, own.clone(), none.clone(), &[], seed);
            send(&mut line, 200, 60, us(100))
        };
        prop_assert_ne!(run(Direction::Forward, seed), run(Direction::Back, seed));
        prop_assert_ne!(run(Direction::Forward, seed), run(Direction::Forward, seed.wrapping_add(1)));
    }
}
