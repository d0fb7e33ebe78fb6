//! The rate limit of one function, and of the whole plane.
//!
//! **Invariant:** asking never waits; a refusal says when the next call fits. Time is the one that waits are
//! measured in, so that a test which moves it moves the buckets too.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::model::FunctionSettings;

/// The time since a limiter was made.
#[derive(Debug, Clone)]
struct Since(Instant);

impl Clock for Since {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Since, NoOpMiddleware<Duration>>;

/// A token bucket of `ratePerSecond` and `burst`, or no limit.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: u32,
    burst: u32,
    bucket: Option<Bucket>,
}

/// More calls than the rate allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) per_second: u32,
    pub(super) retry_after_s: u64,
}

impl Limiter {
    /// The limiter of these settings.
    pub(super) fn new(settings: &FunctionSettings) -> Self {
        Self::of(numbers(settings))
    }

    /// A limiter of so many calls a second, and as many at once.
    pub(super) fn per_second(rate: u32) -> Self {
        Self::of((rate, rate))
    }

    fn of((per_second, burst): (u32, u32)) -> Self {
        let bucket = NonZeroU32::new(per_second).map(|rate| {
            let quota = Quota::per_second(rate);
            let quota = NonZeroU32::new(burst).map_or(quota, |burst| quota.allow_burst(burst));
            RateLimiter::direct_with_clock(quota, Since(Instant::now()))
        });
        Self {
            per_second,
            burst,
            bucket,
        }
    }

    /// Takes new settings; the bucket starts full again only if they differ.
    pub(super) fn update(&mut self, settings: &FunctionSettings) {
        if numbers(settings) != (self.per_second, self.burst) {
            *self = Self::new(settings);
        }
    }

    /// Takes another rate, as [`Limiter::update`] does.
    pub(super) fn update_rate(&mut self, rate: u32) {
        if (rate, rate) != (self.per_second, self.burst) {
            *self = Self::per_second(rate);
        }
    }

    /// Takes one call from the bucket.
    pub(super) fn check(&self) -> Result<(), Limited> {
        let Some(bucket) = &self.bucket else {
            return Ok(());
        };
        bucket.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(bucket.clock().now());
            Limited {
                per_second: self.per_second,
                retry_after_s: wait.as_secs() + u64::from(wait.subsec_nanos() > 0),
            }
        })
    }
}

/// Rate and burst; 0 stands for no limit.
fn numbers(settings: &FunctionSettings) -> (u32, u32) {
    let rate = settings.rate_per_second.unwrap_or(0);
    (rate, settings.burst.unwrap_or(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rate_per_second: Option<u32>, burst: Option<u32>) -> FunctionSettings {
        FunctionSettings {
            rate_per_second,
            burst,
            ..FunctionSettings::default()
        }
    }

    #[test]
    fn the_bucket_holds_the_burst_and_then_refuses() {
        let limiter = Limiter::new(&settings(Some(1), Some(3)));
        for _ in 0..3 {
            assert_eq!(limiter.check(), Ok(()));
        }
        let refused = limiter.check().unwrap_err();
        assert_eq!(
            refused,
            Limited {
                per_second: 1,
                retry_after_s: 1
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_bucket_fills_as_time_passes() {
        let limiter = Limiter::new(&settings(Some(2), Some(1)));
        assert_eq!(limiter.check(), Ok(()));
        assert!(limiter.check().is_err());
        tokio::time::advance(Duration::from_millis(499)).await;
        assert!(limiter.check().is_err());
        tokio::time::advance(Duration::from_millis(2)).await;
        assert_eq!(limiter.check(), Ok(()));
        assert!(limiter.check().is_err());
    }

    #[test]
    fn a_changed_rate_acts_at_once_and_the_same_one_refills_nothing() {
        let mut limiter = Limiter::per_second(2);
        assert_eq!((limiter.check(), limiter.check()), (Ok(()), Ok(())));
        limiter.update_rate(2);
        assert!(limiter.check().is_err());
        limiter.update_rate(1);
        assert_eq!(limiter.check(), Ok(()));
        assert!(limiter.check().is_err());
    }

    #[test]
    fn without_a_rate_nothing_is_refused() {
        let mut limiter = Limiter::new(&settings(None, None));
        assert!((0..10_000).all(|_| limiter.check().is_ok()));
        limiter.update(&settings(Some(1), None));
        assert_eq!(limiter.check(), Ok(()));
        assert!(limiter.check().is_err());
    }
}
