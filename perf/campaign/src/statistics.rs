//! From samples to a median, how sure it is, and how much they vary.

use fastrand::Rng;
use statrs::statistics::{Data, OrderStatistics, Statistics};

/// From so many samples on the interval is one of confidence; below, it is the smallest and the largest.
pub const CONFIDENCE_FROM: usize = 5;
/// Above this coefficient of variation a figure is marked as noisy.
pub const VARIATION_MAX: f64 = 0.10;

/// Times the samples are drawn again for the interval.
const RESAMPLES: usize = 2_000;
/// The same samples give the same interval.
const SEED: u64 = 1;

/// What is left of the samples of one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Half of the samples are below.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Standard deviation over mean; none for a single sample or a mean of zero.
    pub variation: Option<f64>,
    /// Samples it was made of.
    pub count: usize,
}

impl Summary {
    /// None without samples: no data is not zero.
    pub fn of(samples: &[f64]) -> Option<Self> {
        if samples.is_empty() {
            return None;
        }
        let (low, high) = interval(samples);
        Some(Self {
            median: median(samples),
            low,
            high,
            variation: variation(samples),
            count: samples.len(),
        })
    }

    /// Whether the samples vary too much for the median to say much.
    pub fn is_noisy(&self) -> bool {
        self.variation
            .is_some_and(|variation| variation > VARIATION_MAX)
    }
}

fn median(samples: &[f64]) -> f64 {
    Data::new(samples.to_vec()).median()
}

fn variation(samples: &[f64]) -> Option<f64> {
    let mean = samples.mean();
    (samples.len() > 1 && mean != 0.0).then(|| (samples.std_dev() / mean).abs())
}

/// 95 % interval of the median by resampling; smallest and largest where there are too few samples for that.
fn interval(samples: &[f64]) -> (f64, f64) {
    if samples.len() < CONFIDENCE_FROM {
        return (samples.min(), samples.max());
    }
    let mut chance = Rng::with_seed(SEED);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<f64> = samples
                .iter()
                .map(|_| samples[chance.usize(..samples.len())])
                .collect();
            median(&drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    (medians[tail], medians[RESAMPLES - 1 - tail])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_samples_are_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_sample_is_itself_and_has_no_variation() {
        let summary = Summary::of(&[4.0]).expect("there is one");
        assert_eq!((summary.median, summary.low, summary.high), (4.0, 4.0, 4.0));
        assert_eq!(summary.variation, None);
        assert!(!summary.is_noisy());
    }

    #[test]
    fn median_and_variation_are_those_of_the_textbook() {
        let summary = Summary::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).expect("there are");
        assert_eq!(summary.median, 4.5);
        // Sample variance 32/7, mean 5.
        let expected = (32.0_f64 / 7.0).sqrt() / 5.0;
        assert!((summary.variation.expect("there is") - expected).abs() < 1e-12);
        assert!(summary.is_noisy());
    }

    #[test]
    fn few_samples_show_their_ends() {
        let summary = Summary::of(&[3.0, 1.0, 2.0]).expect("there are");
        assert_eq!((summary.median, summary.low, summary.high), (2.0, 1.0, 3.0));
    }

    #[test]
    fn interval_holds_the_median_and_is_the_same_again() {
        let samples = [9.8, 10.0, 10.1, 10.2, 9.9, 10.0, 30.0];
        let summary = Summary::of(&samples).expect("there are");
        assert!(summary.low <= summary.median && summary.median <= summary.high);
        // One outlier among seven does not get into the interval's lower half, nor make the median.
        assert_eq!(summary.median, 10.0);
        assert!(summary.low >= 9.8 && summary.high <= 30.0);
        assert_eq!(Summary::of(&samples), Some(summary));
    }

    #[test]
    fn interval_covers_the_true_median_as_often_as_it_says() {
        let mut chance = Rng::with_seed(7);
        let covered = (0..300)
            .filter(|_| {
                // Uniform on 0..1: the true median is 0.5.
                let samples: Vec<f64> = (0..15).map(|_| chance.f64()).collect();
                Summary::of(&samples).is_some_and(|s| s.low <= 0.5 && 0.5 <= s.high)
            })
            .count();
        assert!(covered >= 270, "{covered} of 300");
    }
}
