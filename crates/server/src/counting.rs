//! How long things took, counted by how long: what Prometheus calls a histogram.

use std::time::Duration;

/// A pass over thousands of services, and one over nothing.
pub const PASSES: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
/// From a site's switch to a slow rollout's deadline.
pub const DEPLOYMENTS: &[f64] = &[0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bounds in seconds, rising; what is longer than the last is counted in the sum and the count alone.
    bounds: &'static [f64],
    within: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, within: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        for (bound, within) in self.bounds.iter().zip(&mut self.within) {
            *within += u64::from(seconds <= *bound);
        }
        self.count += 1;
        self.sum += seconds;
    }

    /// Each bound with how many took at most so long.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        self.bounds.iter().copied().zip(self.within.iter().copied())
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_all_that_took_at_most_as_long() {
        let mut histogram = Histogram::new(&[0.1, 1.0]);
        for millis in [50, 100, 500, 5000] {
            histogram.observe(Duration::from_millis(millis));
        }
        assert_eq!(histogram.buckets().collect::<Vec<_>>(), [(0.1, 2), (1.0, 3)]);
        assert_eq!((histogram.count(), histogram.sum()), (4, 5.65));
    }
}
