//! Datagrams that can be counted.
//!
//! Each carries the test (16 bytes), the flow (4), its number (8) and when it was sent, in nanoseconds on the sender's
//! clock (8); numbers are big-endian. What follows is payload.

use crate::{result::Datagrams, wire::TestId};

/// Test (16), flow (4), number (8), time of sending in nanoseconds (8).
pub const HEADER_BYTES: usize = 36;

/// What fits an IPv4 datagram.
pub const MAX_BYTES: usize = 65_507;

/// The number of a datagram that carries nothing: a client says where it is.
pub const HELLO: u64 = u64::MAX;

/// Datagrams that come later than this many others are taken for new ones.
const WINDOW: u64 = 1 << 16;

const WORD_BITS: u64 = 64;

/// The front of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whose it is.
    pub test: TestId,
    /// Which of the flows of the test.
    pub flow: u32,
    /// Its place in the flow, or [`HELLO`].
    pub number: u64,
    /// When it was sent.
    pub sent_ns: u64,
}

impl Header {
    /// Writes it to the front of a datagram, if there is room.
    pub fn write(&self, datagram: &mut [u8]) {
        if let Some(front) = datagram.first_chunk_mut::<HEADER_BYTES>() {
            front[..16].copy_from_slice(&self.test.0);
            front[16..20].copy_from_slice(&self.flow.to_be_bytes());
            front[20..28].copy_from_slice(&self.number.to_be_bytes());
            front[28..36].copy_from_slice(&self.sent_ns.to_be_bytes());
        }
    }

    /// Reads it from the front of a datagram.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let front = datagram.first_chunk::<HEADER_BYTES>()?;
        let (test, rest) = front.split_first_chunk::<16>()?;
        let (flow, rest) = rest.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (sent_ns, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            test: TestId(*test),
            flow: u32::from_be_bytes(*flow),
            number: u64::from_be_bytes(*number),
            sent_ns: u64::from_be_bytes(*sent_ns),
        })
    }
}

/// What came of one flow.
#[derive(Debug, Clone)]
pub struct Tally {
    seen: Vec<u64>,
    /// The highest number, plus one.
    next: u64,
    received: u64,
    duplicated: u64,
    reordered: u64,
    transit_ns: Option<i128>,
    jitter_ns: f64,
    /// Everything until counting began.
    before: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    received: u64,
    duplicated: u64,
    reordered: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            seen: vec![0; (WINDOW / WORD_BITS) as usize],
            next: 0,
            received: 0,
            duplicated: 0,
            reordered: 0,
            transit_ns: None,
            jitter_ns: 0.0,
            before: Counts::default(),
        }
    }
}

impl Tally {
    /// A datagram came. The clocks of both sides need not agree, only run alike.
    pub fn note(&mut self, number: u64, sent_ns: u64, now_ns: u64) {
        if number == HELLO {
            return;
        }
        if number >= self.next {
            self.forget_until(number);
            self.next = number + 1;
        } else if self.next - number > WINDOW {
            self.reordered += 1;
            self.received += 1;
            return;
        } else if self.is_seen(number) {
            self.duplicated += 1;
            return;
        } else {
            self.reordered += 1;
        }
        self.mark(number);
        self.received += 1;
        let transit_ns = i128::from(now_ns) - i128::from(sent_ns);
        if let Some(before_ns) = self.transit_ns.replace(transit_ns) {
            // RFC 3550, 6.4.1.
            let change = (transit_ns - before_ns).unsigned_abs() as f64;
            self.jitter_ns += (change - self.jitter_ns) / 16.0;
        }
    }

    /// Counting begins: what came before does not count.
    pub const fn begin(&mut self) {
        self.before = Counts {
            received: self.received,
            duplicated: self.duplicated,
            reordered: self.reordered,
        };
    }

    /// How many came, each counted once, since counting began.
    pub const fn received(&self) -> u64 {
        self.received - self.before.received
    }

    /// Adds it to what other flows came to; `sent` and what is lost are not known here.
    pub const fn add_to(&self, sum: &mut Datagrams) {
        sum.received += self.received();
        sum.duplicated += self.duplicated - self.before.duplicated;
        sum.reordered += self.reordered - self.before.reordered;
        sum.jitter_us = sum.jitter_us.max(self.jitter_ns / 1e3);
    }

    fn forget_until(&mut self, number: u64) {
        if number - self.next >= WINDOW {
            self.seen.fill(0);
            return;
        }
        for forgotten in self.next..=number {
            let (word, bit) = place(forgotten);
            self.seen[word] &= !bit;
        }
    }

    fn is_seen(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.seen[word] & bit != 0
    }

    fn mark(&mut self, number: u64) {
        let (word, bit) = place(number);
        self.seen[word] |= bit;
    }
}

const fn place(number: u64) -> (usize, u64) {
    let at = number % WINDOW;
    ((at / WORD_BITS) as usize, 1 << (at % WORD_BITS))
}

impl Datagrams {
    /// Both together; the jitter is the worse one.
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            received: self.received + other.received,
            lost: self.lost + other.lost,
            lost_percent: 0.0,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            jitter_us: self.jitter_us.max(other.jitter_us),
        }
        .with_loss(self.sent + other.sent)
    }

    /// The same, when it is known how many were sent.
    #[must_use]
    pub const fn with_loss(mut self, sent: u64) -> Self {
        self.sent = sent;
        self.lost = sent.saturating_sub(self.received);
        self.lost_percent = if sent == 0 {
            0.0
        } else {
            100.0 * self.lost as f64 / sent as f64
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(numbers: &[u64]) -> Datagrams {
        let mut tally = Tally::default();
        for number in numbers {
            tally.note(*number, 1_000 * number, 1_000 * number + 77);
        }
        let mut sum = Datagrams::default();
        tally.add_to(&mut sum);
        sum
    }

    #[test]
    fn a_header_comes_out_as_it_went_in() {
        let header = Header {
            test: TestId([9; 16]),
            flow: 3,
            number: 1 << 40,
            sent_ns: 5,
        };
        let mut datagram = [0; HEADER_BYTES + 2];
        header.write(&mut datagram);
        assert_eq!(Header::read(&datagram), Some(header));
        assert_eq!(Header::read(&datagram[..HEADER_BYTES - 1]), None);
    }

    #[test]
    fn loss_is_what_was_sent_and_never_came() {
        let found = tally(&[0, 1, 4]).with_loss(5);
        assert_eq!(
            (found.received, found.lost, found.lost_percent),
            (3, 2, 40.0)
        );
    }

    #[test]
    fn what_comes_again_is_a_duplicate_and_what_comes_late_is_out_of_order() {
        let found = tally(&[0, 2, 1, 2, 2, 3]);
        assert_eq!(
            (found.received, found.duplicated, found.reordered),
            (4, 2, 1)
        );
    }

    #[test]
    fn a_number_is_not_mistaken_for_one_a_window_before() {
        let found = tally(&[5, 5 + WINDOW, 6, 6 + WINDOW, 5 + 3 * WINDOW]);
        assert_eq!((found.received, found.duplicated), (5, 0));
    }

    #[test]
    fn the_highest_numbers_are_numbers_like_others() {
        let mut tally = Tally::default();
        for number in [HELLO - 1, HELLO - 2, HELLO - 1] {
            tally.note(number, 0, 0);
        }
        assert_eq!((tally.received(), tally.duplicated), (2, 1));
    }

    #[test]
    fn an_even_path_has_no_jitter_and_an_uneven_one_has() {
        assert_eq!(tally(&[0, 1, 2, 3]).jitter_us, 0.0);
        let mut uneven = Tally::default();
        for number in 0..1_000_u64 {
            uneven.note(
                number,
                number * 1_000_000,
                number * 1_000_000 + (number % 2) * 160_000,
            );
        }
        let mut sum = Datagrams::default();
        uneven.add_to(&mut sum);
        assert!((sum.jitter_us - 160.0).abs() < 1.0, "{}", sum.jitter_us);
    }

    #[test]
    fn what_came_before_counting_does_not_count() {
        let mut tally = Tally::default();
        tally.note(0, 0, 0);
        tally.begin();
        tally.note(1, 0, 0);
        assert_eq!(tally.received(), 1);
    }
}
