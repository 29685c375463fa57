//! Orders candidates: who is tried first, and who only if nobody better is left.
//!
//! Every contender gets a place: its rank (whether it may be used, priority, proximity), and within the
//! rank a draw. The draw is exponential with the weight as its rate, so that the smallest draw belongs to
//! a contender with a probability proportional to its weight, the second smallest likewise among the
//! rest, and so on: one pass orders a whole tier by weight without summing or shuffling it
//! (Efraimidis and Spirakis, 2006). Only the best few are kept, on the stack.

use corinth_model::Proximity;
use fastrand::Rng;

use crate::settings::{ATTEMPTS_MAX, AttemptLimit};

/// Whether a candidate takes its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// In its tier.
    Regular,
    /// After all of those: ejected, or its link is not up. Better to try it than to refuse.
    LastResort,
    /// After those too: given weight 0, so nothing is sent there while anything else may work.
    Withheld,
}

/// The tier of a candidate; lower is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) turn: Turn,
    pub(crate) priority: u8,
    pub(crate) proximity: Proximity,
}

/// One candidate for the shortlist.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contender<T> {
    pub(crate) what: T,
    pub(crate) rank: Rank,
    pub(crate) weight: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: Rank,
    /// A non-negative `f64` as its bits, which sort as it does.
    draw: u64,
}

/// The best of the contenders, in order, each once.
#[derive(Debug)]
pub(crate) struct Shortlist<T> {
    entries: [Option<(Place, T)>; ATTEMPTS_MAX],
    len: usize,
    limit: usize,
}

impl<T: Copy + PartialEq> Shortlist<T> {
    /// Takes time proportional to the number of contenders.
    pub(crate) fn draw(
        contenders: impl Iterator<Item = Contender<T>>,
        limit: AttemptLimit,
        rng: &mut Rng,
    ) -> Self {
        let mut list = Self {
            entries: [const { None }; ATTEMPTS_MAX],
            len: 0,
            limit: limit.get(),
        };
        for contender in contenders {
            let place = Place {
                rank: contender.rank,
                draw: draw(contender.weight, rng),
            };
            list.offer(place, contender.what);
        }
        list
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        self.entries[..self.len]
            .iter()
            .flatten()
            .map(|(_, what)| *what)
    }

    fn offer(&mut self, place: Place, what: T) {
        let better = |entry: &Option<(Place, T)>| entry.is_some_and(|(at, _)| at <= place);
        let at = self.entries[..self.len].partition_point(better);
        if at == self.limit
            || self.entries[..at]
                .iter()
                .flatten()
                .any(|(_, other)| *other == what)
        {
            return;
        }
        let rest = &self.entries[at..self.len];
        // The slot that is overwritten: the same candidate at a worse place, else the end.
        let end = match rest.iter().flatten().position(|(_, other)| *other == what) {
            Some(worse) => at + worse,
            None => self.len.min(self.limit - 1),
        };
        self.entries.copy_within(at..end, at + 1);
        self.entries[at] = Some((place, what));
        self.len = self.len.max(end + 1);
    }
}

/// A sample of the exponential distribution with rate `weight`.
fn draw(weight: u32, rng: &mut Rng) -> u64 {
    if weight == 0 {
        return rng.u64(..) >> 1;
    }
    // In (0, 1]: the logarithm is finite. `abs` turns the negative zero of ln 1 into zero.
    let uniform = 1.0 - rng.f64();
    (uniform.ln() / f64::from(weight)).abs().to_bits()
}

#[cfg(test)]
mod tests;
