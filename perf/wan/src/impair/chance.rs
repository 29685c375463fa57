//! Randomness: one generator for each question, all from one seed.

use fastrand::Rng;

use super::{Fate, Pace};
use crate::{
    impairment::{Impairment, Loss},
    timeline::Direction,
};

#[derive(Debug)]
pub(super) struct Chance {
    loss: Rng,
    chain: Chain,
    duplication: Rng,
    corruption: Rng,
    jitter: Rng,
    reordering: Rng,
}

/// The state of a Gilbert–Elliott chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chain {
    Good,
    Bad,
}

impl Chance {
    pub(super) fn new(seed: u64, direction: Direction) -> Self {
        let label = match direction {
            Direction::Forward => 1,
            Direction::Back => 2,
        };
        let mut root = Rng::with_seed(seed);
        let mut root = Rng::with_seed(root.u64(..) ^ label);
        let mut next = || Rng::with_seed(root.u64(..));
        Self {
            loss: next(),
            chain: Chain::Good,
            duplication: next(),
            corruption: next(),
            jitter: next(),
            reordering: next(),
        }
    }

    pub(super) fn is_lost(&mut self, loss: &Loss) -> bool {
        match *loss {
            Loss::Never => false,
            Loss::Bernoulli(probability) => hits(&mut self.loss, probability),
            Loss::GilbertElliott(odds) => {
                let (turn, other) = match self.chain {
                    Chain::Good => (odds.to_bad, Chain::Bad),
                    Chain::Bad => (odds.to_good, Chain::Good),
                };
                if hits(&mut self.loss, turn) {
                    self.chain = other;
                }
                let probability = match self.chain {
                    Chain::Good => odds.good_loss,
                    Chain::Bad => odds.bad_loss,
                };
                hits(&mut self.loss, probability)
            }
        }
    }

    pub(super) fn is_duplicated(&mut self, impairment: &Impairment) -> bool {
        hits(&mut self.duplication, impairment.duplication)
    }

    /// Flips one bit, if chance says so and there is one.
    pub(super) fn corrupt(&mut self, impairment: &Impairment, payload: &mut [u8]) -> bool {
        if !hits(&mut self.corruption, impairment.corruption) || payload.is_empty() {
            return false;
        }
        let bit = self.corruption.usize(..payload.len() * 8);
        payload[bit / 8] ^= 1 << (bit % 8);
        true
    }

    pub(super) fn fate(&mut self, impairment: &Impairment) -> Fate {
        let is_late = hits(&mut self.reordering, impairment.reordering.probability);
        Fate {
            jitter: self.jitter.f64() * 2.0 - 1.0,
            pace: if is_late { Pace::Late } else { Pace::Usual },
        }
    }
}

/// Draws even if the answer is sure, so that the next draw does not depend on it.
fn hits(rng: &mut Rng, probability: f64) -> bool {
    rng.f64() < probability
}
