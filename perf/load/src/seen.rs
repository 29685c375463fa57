//! Remembers which numbers came, to tell those that came again.

/// Numbers above this are not remembered; a probe of a day at a millisecond has fewer.
const NUMBERS_MAX: u64 = 1 << 27;

const WORD_BITS: u64 = 64;

/// A set of numbers that grows with the highest.
#[derive(Debug, Default)]
pub struct Seen {
    words: Vec<u64>,
    duplicated: u64,
}

impl Seen {
    /// This number came.
    pub fn note(&mut self, number: u64) {
        if number >= NUMBERS_MAX {
            return;
        }
        let (word, bit) = ((number / WORD_BITS) as usize, 1 << (number % WORD_BITS));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        if self.words[word] & bit != 0 {
            self.duplicated += 1;
        }
        self.words[word] |= bit;
    }

    /// How often a number came that had come before.
    pub const fn duplicated(&self) -> u64 {
        self.duplicated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_that_come_again_are_duplicates() {
        let mut seen = Seen::default();
        for number in [0, 1, 64, 63, 65, 1, 64, 64] {
            seen.note(number);
        }
        assert_eq!(seen.duplicated(), 3);
    }

    #[test]
    fn a_hostile_number_costs_nothing() {
        let mut seen = Seen::default();
        seen.note(u64::MAX);
        assert!(seen.words.is_empty());
    }
}
