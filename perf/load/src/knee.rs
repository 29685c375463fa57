//! Searches the highest rate that a path holds.
//!
//! From a rate that is thought possible it doubles until one is not held, then halves the difference, in ratios, a
//! few times. Each answer comes from a short test; this part only decides which rate to try next.

/// Doublings, or halvings if even the first rate is too high.
const STRIDES_MAX: u32 = 14;

/// The first of them is to have a bound on either side; then the knee is known to a few percent.
const REFINEMENTS: u32 = 5;

/// A search on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    next: f64,
    held: Option<f64>,
    not_held: Option<f64>,
    strides: u32,
    refinements: u32,
}

impl Search {
    /// Begins at this rate.
    pub const fn new(per_second: f64) -> Self {
        Self {
            next: per_second,
            held: None,
            not_held: None,
            strides: 0,
            refinements: 0,
        }
    }

    /// The rate to try, or `None` when the search is over.
    pub fn next(&self) -> Option<f64> {
        (self.strides < STRIDES_MAX && self.refinements < REFINEMENTS).then_some(self.next)
    }

    /// What came of trying it.
    pub fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Held => self.held = Some(self.next),
            Outcome::NotHeld => self.not_held = Some(self.next),
        }
        match (self.held, self.not_held) {
            (Some(held), Some(not_held)) => {
                self.next = (held * not_held).sqrt();
                self.refinements += 1;
            }
            (Some(held), None) => {
                self.next = held * 2.0;
                self.strides += 1;
            }
            (None, Some(not_held)) => {
                self.next = not_held / 2.0;
                self.strides += 1;
            }
            (None, None) => {}
        }
    }

    /// The highest rate that was held.
    pub const fn knee(&self) -> Option<f64> {
        self.held
    }
}

/// What came of trying a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// At least 99 % of the schedule was met, and answers came soon.
    Held,
    /// Not so.
    NotHeld,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(start: f64, capacity: f64) -> (Option<f64>, u32) {
        let mut search = Search::new(start);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            tries += 1;
            search.note(if rate <= capacity {
                Outcome::Held
            } else {
                Outcome::NotHeld
            });
        }
        (search.knee(), tries)
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for (start, capacity) in [
            (100.0, 7_300.0),
            (100_000.0, 7_300.0),
            (7_000.0, 7_300.0),
            (7_300.0, 7_300.0),
        ] {
            let (knee, tries) = search(start, capacity);
            let knee = knee.unwrap();
            assert!(knee <= capacity && knee > capacity * 0.9, "{start}: {knee}");
            assert!(tries <= STRIDES_MAX + REFINEMENTS, "{tries}");
        }
    }

    #[test]
    fn a_path_that_holds_nothing_has_no_knee() {
        assert_eq!(search(1_000.0, 0.0).0, None);
    }

    #[test]
    fn a_path_without_a_limit_ends_the_search_too() {
        let (knee, tries) = search(1_000.0, f64::INFINITY);
        assert!(knee.is_some());
        assert_eq!(tries, STRIDES_MAX);
    }
}
