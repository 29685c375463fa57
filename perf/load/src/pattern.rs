//! A payload that can be checked: bytes that follow from a seed, a connection and their place in the stream.
//!
//! Each group of eight bytes is the output of SplitMix64 for its index, so any place can be made without those before
//! it, a byte lost or moved is seen at once, and making it costs less than sending it.

/// Golden ratio; the step of SplitMix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const WORD_BYTES: usize = 8;

/// The bytes of one stream in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern {
    key: u64,
}

impl Pattern {
    /// The pattern of a stream that `seed` and `stream` name.
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self {
            key: mix(seed.wrapping_add(mix(stream.wrapping_add(STEP)))),
        }
    }

    const fn word(self, index: u64) -> [u8; WORD_BYTES] {
        mix(self.key.wrapping_add(index.wrapping_mul(STEP))).to_le_bytes()
    }

    /// Writes what belongs at `offset_bytes` of the stream and after it.
    pub fn fill(self, buffer: &mut [u8], offset_bytes: u64) {
        let (head, index) = self.head(offset_bytes, buffer.len());
        let (first, rest) = buffer.split_at_mut(head.len());
        first.copy_from_slice(head.as_slice());
        for (index, part) in (index..).zip(rest.chunks_mut(WORD_BYTES)) {
            part.copy_from_slice(&self.word(index)[..part.len()]);
        }
    }

    /// Where in `bytes`, which came at `offset_bytes` of the stream, the first wrong one is.
    pub fn first_difference(self, bytes: &[u8], offset_bytes: u64) -> Option<usize> {
        let (head, index) = self.head(offset_bytes, bytes.len());
        let (first, rest) = bytes.split_at(head.len());
        if let Some(at) = differs(first, head.as_slice()) {
            return Some(at);
        }
        let mut before = head.len();
        for (index, part) in (index..).zip(rest.chunks(WORD_BYTES)) {
            let word = self.word(index);
            if *part != word[..part.len()] {
                return differs(part, &word).map(|at| before + at);
            }
            before += WORD_BYTES;
        }
        None
    }

    /// The end of a word that began before `offset_bytes`, and the index of the word after it.
    fn head(self, offset_bytes: u64, at_most_bytes: usize) -> (Head, u64) {
        let index = offset_bytes / WORD_BYTES as u64;
        let inside = (offset_bytes % WORD_BYTES as u64) as usize;
        if inside == 0 {
            return (
                Head {
                    word: [0; WORD_BYTES],
                    from: 0,
                    to: 0,
                },
                index,
            );
        }
        let to = WORD_BYTES.min(inside.saturating_add(at_most_bytes));
        (
            Head {
                word: self.word(index),
                from: inside,
                to,
            },
            index + 1,
        )
    }
}

struct Head {
    word: [u8; WORD_BYTES],
    from: usize,
    to: usize,
}

impl Head {
    const fn len(&self) -> usize {
        self.to - self.from
    }

    fn as_slice(&self) -> &[u8] {
        &self.word[self.from..self.to]
    }
}

fn differs(bytes: &[u8], expected: &[u8]) -> Option<usize> {
    bytes
        .iter()
        .zip(expected)
        .position(|(byte, expected)| byte != expected)
}

const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 100;

    fn whole() -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        Pattern::new(1, 2).fill(&mut bytes, 0);
        bytes
    }

    #[test]
    fn any_part_is_the_same_as_in_the_whole() {
        let whole = whole();
        for from in 0..LENGTH {
            for to in from..LENGTH {
                let mut part = vec![0; to - from];
                Pattern::new(1, 2).fill(&mut part, from as u64);
                assert_eq!(part, whole[from..to], "{from}..{to}");
                assert_eq!(
                    Pattern::new(1, 2).first_difference(&part, from as u64),
                    None
                );
            }
        }
    }

    #[test]
    fn every_changed_byte_is_found_where_it_is() {
        for from in 0..9 {
            for at in from..LENGTH {
                let mut bytes = whole();
                bytes[at] ^= 1;
                let found = Pattern::new(1, 2).first_difference(&bytes[from..], from as u64);
                assert_eq!(found, Some(at - from));
            }
        }
    }

    #[test]
    fn a_lost_byte_is_found() {
        let mut bytes = whole();
        bytes.remove(50);
        assert!(Pattern::new(1, 2).first_difference(&bytes, 0).is_some());
    }

    #[test]
    fn seeds_and_streams_have_patterns_of_their_own() {
        let whole = whole();
        assert!(Pattern::new(1, 3).first_difference(&whole, 0).is_some());
        assert!(Pattern::new(2, 2).first_difference(&whole, 0).is_some());
    }
}
