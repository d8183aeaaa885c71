//! A token bucket, as one number: the moment at which it would be full again.

use std::time::Duration;

use crate::config::Rate;

/// Nanoseconds since the edge began; they last for 584 years.
pub(crate) type Nanos = u64;

/// A bucket that is full at first and fills at a [`Rate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    full_at: Nanos,
}

/// How long one token takes to come.
fn interval(rate: Rate) -> u64 {
    (1_000_000_000 / u64::from(rate.per_second.max(1))).max(1)
}

impl Bucket {
    /// Takes up to `wanted` tokens; returns how many there were.
    pub(crate) fn take(&mut self, rate: Rate, now: Nanos, wanted: u32) -> u32 {
        let interval = interval(rate);
        let capacity = interval.saturating_mul(u64::from(rate.burst));
        let full_at = self.full_at.max(now);
        let there = capacity.saturating_sub(full_at - now) / interval;
        let taken = u32::try_from(there).unwrap_or(u32::MAX).min(wanted);
        self.full_at = full_at.saturating_add(interval.saturating_mul(u64::from(taken)));
        taken
    }

    /// Puts tokens back that were taken and not used.
    pub(crate) fn give_back(&mut self, rate: Rate, tokens: u32) {
        let worth = interval(rate).saturating_mul(u64::from(tokens));
        self.full_at = self.full_at.saturating_sub(worth);
    }

    /// How long until a token is there.
    pub(crate) fn wait(self, rate: Rate, now: Nanos) -> Duration {
        let interval = interval(rate);
        let capacity = interval.saturating_mul(u64::from(rate.burst));
        let missing = capacity.saturating_sub(self.full_at.saturating_sub(now));
        Duration::from_nanos(interval.saturating_sub(missing))
    }

    /// Whether it holds as much as it can: to forget it changes nothing.
    pub(crate) const fn is_full(self, now: Nanos) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate { per_second: 10, burst: 5 };
        let mut bucket = Bucket::default();
        let start = 77 * SECOND;
        assert_eq!(bucket.take(rate, start, 3), 3);
        assert_eq!(bucket.take(rate, start, 3), 2, "no more than there is");
        assert_eq!(bucket.take(rate, start, 1), 0);
        assert_eq!(bucket.wait(rate, start), Duration::from_millis(100));
        assert_eq!(bucket.take(rate, start + SECOND / 10, 9), 1);
        assert!(!bucket.is_full(start + SECOND / 2));
        assert!(bucket.is_full(start + SECOND), "after a rest");
        assert_eq!(bucket.take(rate, start + 100 * SECOND, 9), 5, "never more than the burst");
        bucket.give_back(rate, 2);
        assert_eq!(bucket.take(rate, start + 100 * SECOND, 9), 2);
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            per_second in 1_u32..100_000,
            burst in 1_u32..100_000,
            steps in proptest::collection::vec((0_u64..SECOND, 0_u32..1_000), 1..200),
        ) {
            let rate = Rate { per_second, burst };
            let mut bucket = Bucket::default();
            let (mut now, mut taken) = (0, 0_u64);
            for (pause, wanted) in steps {
                now += pause;
                let wait = bucket.wait(rate, now);
                let got = bucket.take(rate, now, wanted);
                prop_assert!(got <= wanted);
                prop_assert_eq!(got == 0 && wanted > 0, !wait.is_zero());
                taken += u64::from(got);
                // The interval is cut to whole nanoseconds.
                let earned = now / (SECOND / u64::from(per_second));
                prop_assert!(taken <= u64::from(burst) + earned + 1);
            }
        }
    }
}
