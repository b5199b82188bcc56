//! What is made of many measurements.

use std::time::Duration;

/// What was measured again and again: how long each operation took, in microseconds, or whatever else in its own unit; and how
/// many operations there were in a second of each round, where rounds are measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples {
    values: Vec<f64>,
    rates: Vec<f64>,
}

impl Samples {
    /// Adds a round of operations of which the first began and the last ended `wall` apart.
    pub(super) fn add_round(&mut self, times: &[Duration], wall: Duration) {
        self.values.extend(times.iter().map(|time| time.as_secs_f64() * 1e6));
        #[expect(clippy::cast_precision_loss, reason = "a round has thousands of operations at most")]
        self.rates.push(times.len() as f64 / wall.as_secs_f64());
    }

    /// One value of each round, in whatever unit.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        Self { values: values.into_iter().collect(), rates: Vec::new() }
    }

    /// The lowest.
    pub(super) fn min(&self) -> Option<f64> {
        quantile(&self.values, 0.0)
    }

    /// The median of the rounds' ratios to `other`, which was measured in the same rounds.
    pub(super) fn median_of_ratios(&self, other: &Self) -> Option<f64> {
        self.beside(other, |this, other| this / other).median()
    }

    /// What is made of the values of each round, this one's and the other's.
    pub(super) fn beside(&self, other: &Self, make: impl Fn(f64, f64) -> f64) -> Self {
        Self::of(self.values.iter().zip(&other.values).map(|(this, other)| make(*this, *other)))
    }

    /// Adds one value.
    pub(super) fn add(&mut self, value: f64) {
        self.values.push(value);
    }

    /// The highest.
    pub(super) fn max(&self) -> Option<f64> {
        quantile(&self.values, 1.0)
    }

    /// What half of them do not exceed, over all rounds.
    pub(super) fn median(&self) -> Option<f64> {
        quantile(&self.values, 0.5)
    }

    /// What 99 of 100 do not exceed, over all rounds.
    pub(super) fn p99(&self) -> Option<f64> {
        quantile(&self.values, 0.99)
    }

    /// Operations in a second, by the median of the rounds.
    pub(super) fn rate(&self) -> Option<f64> {
        quantile(&self.rates, 0.5)
    }

    /// How many times as fast this is as `other`, by the median of the rounds' ratios.
    pub(super) fn speed_beside(&self, other: &Self) -> Option<f64> {
        let ratios: Vec<_> = self.rates.iter().zip(&other.rates).map(|(this, other)| this / other).collect();
        quantile(&ratios, 0.5)
    }

    /// How many operations were measured.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}

/// The smallest of the values that at least the part `share` of them does not exceed (nearest rank).
fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank lies between 0 and the number of values"
    )]
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rounds: &[(&[u64], u64)]) -> Samples {
        let mut samples = Samples::default();
        for (millis, wall) in rounds {
            let times: Vec<_> = millis.iter().copied().map(Duration::from_millis).collect();
            samples.add_round(&times, Duration::from_millis(*wall));
        }
        samples
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let hundred: Vec<_> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile(&hundred, share)), [1.0, 50.0, 99.0, 100.0].map(Some));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn times_are_of_all_rounds_and_rates_of_each() {
        let samples = samples(&[(&[1, 2, 3], 10), (&[4, 50], 100), (&[5], 2)]);
        assert_eq!((samples.median(), samples.p99(), samples.len()), (Some(3000.0), Some(50_000.0), 6));
        assert_eq!(samples.rate(), Some(300.0), "of 300, 20 and 500");
    }

    #[test]
    fn a_slow_round_of_the_machine_does_not_change_a_ratio() {
        let this = samples(&[(&[1, 1], 2), (&[9, 9], 18), (&[1, 1], 2)]);
        let other = samples(&[(&[2, 2], 4), (&[18, 18], 36), (&[2, 2], 4)]);
        assert_eq!(this.speed_beside(&other), Some(2.0));
        assert_eq!(this.speed_beside(&Samples::default()), None);
    }
}
