//! Waiting between attempts: exponential, with full jitter, so that many clients do not return at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Seeds from the operating system, by way of the standard library's random hasher keys.
pub(crate) fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(RandomState::new().hash_one(std::process::id()))
}

/// 16 random bytes that name a request.
pub(crate) fn request_id() -> quorate_types::RequestId {
    // Two hashers with keys of their own: 128 bits. Zero is not a valid id.
    let half = || u128::from(RandomState::new().hash_one(crate::clock::now()));
    quorate_types::RequestId((half() << 64 | half()).max(1))
}

/// How long to wait before the next attempt.
#[derive(Debug)]
pub(crate) struct Backoff {
    rng: fastrand::Rng,
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            rng: random(),
            first,
            most,
            failures: 0,
        }
    }

    /// The wait after one more failure: anything up to the bound that doubles with each.
    pub(crate) fn next(&mut self) -> Duration {
        let bound = self
            .first
            .saturating_mul(1 << self.failures.min(16))
            .min(self.most);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(self.rng.f64())
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_within_a_bound_that_doubles_to_its_maximum() {
        let (first, most) = (Duration::from_millis(10), Duration::from_millis(50));
        let mut backoff = Backoff::new(first, most);
        for bound_ms in [10, 20, 40, 50, 50] {
            assert!(backoff.next() <= Duration::from_millis(bound_ms));
        }
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
