mod loss;
mod order;
mod queue;
mod stages;

use std::time::Duration;

use super::*;

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

/// A line with the impairment of these words, and nothing the other way.
pub(super) fn line(words: &str, seed: u64) -> Line {
    line_with(words, &[], seed)
}

pub(super) fn line_with(words: &str, steps: &[Step], seed: u64) -> Line {
    let none = Impairment::default();
    let own = match words {
        "" => none.clone(),
        words => words.parse::<Change>().unwrap().applied(&none, &none),
    };
    own.check_with(&none).unwrap();
    Line::new(Direction::Forward, own, none, steps, seed)
}

/// An IPv4 packet of so many bytes that carries a number.
pub(super) fn packet(number: u32, bytes: usize) -> Vec<u8> {
    of_protocol(6, number, bytes)
}

pub(super) fn of_protocol(protocol: u8, number: u32, bytes: usize) -> Vec<u8> {
    let mut packet = vec![0; bytes.max(24)];
    packet[0] = 0x45;
    packet[9] = protocol;
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[20..24].copy_from_slice(&number.to_be_bytes());
    packet
}

/// The number a packet carries.
pub(super) fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[20..24].try_into().unwrap())
}

/// Everything that arrives by `now`: which number, and when it was due.
pub(super) fn arrivals(line: &mut Line, now: Duration) -> Vec<(u32, Duration)> {
    let mut all = Vec::new();
    while let Some((bytes, due)) = line.take(now) {
        all.push((number(&bytes), due));
        line.delivered(bytes.len(), Duration::ZERO);
    }
    all
}

/// Sends `packets` of `bytes`, one every `gap`, and gives what arrives in the end.
pub(super) fn send(
    line: &mut Line,
    packets: u32,
    bytes: usize,
    gap: Duration,
) -> Vec<(u32, Duration)> {
    let mut all = Vec::new();
    for number in 0..packets {
        let now = gap * number;
        all.extend(arrivals(line, now));
        line.accept(&packet(number, bytes), now);
    }
    all.extend(arrivals(line, gap * packets + Duration::from_secs(3_600)));
    all
}

/// Nothing is lost sight of.
pub(super) fn check_balance(line: &Line) {
    let counters = line.counters();
    assert_eq!(
        counters.arrived_packets + counters.duplicated,
        counters.delivered_packets + counters.held_packets + counters.dropped.sum(),
        "{counters:?}"
    );
}
