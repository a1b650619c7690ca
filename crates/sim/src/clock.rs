//! True time, and each machine's reading of it.
//!
//! Owns: the mapping between the two. The cores see readings only; checkers think in true time.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use quorate_types::Time;

/// An instant of true time, in nanoseconds since the simulation began.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// Later than everything.
    pub const NEVER: Self = Self(u64::MAX);

    /// True time elapsed since `earlier`, zero where it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:06}",
            self.0 / 1_000_000_000,
            self.0 / 1_000 % 1_000_000
        )
    }
}

const MILLION: u128 = 1_000_000;

/// One machine's clock: an arbitrary origin, and a rate that is off by some parts per million.
///
/// # Invariants
/// - The reading never decreases with true time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The reading at the beginning of true time.
    pub origin: Time,
    /// How much faster than true time it runs.
    pub rate_ppm: i32,
}

impl Clock {
    fn rate(self) -> u128 {
        u128::try_from(1_000_000 + i64::from(self.rate_ppm)).expect("clocks run forward")
    }

    /// What it shows at `moment`.
    #[must_use]
    pub fn reading(self, moment: Moment) -> Time {
        let elapsed = u128::from(moment.0) * self.rate() / MILLION;
        Time(self.origin.0 + u64::try_from(elapsed).expect("simulations are short"))
    }

    /// The first moment at which it shows `reading` or more.
    #[must_use]
    pub fn moment_of(self, reading: Time) -> Moment {
        if reading == Time::MAX {
            return Moment::NEVER;
        }
        let elapsed = u128::from(reading.0.saturating_sub(self.origin.0));
        let moment = (elapsed * MILLION).div_ceil(self.rate());
        Moment(u64::try_from(moment).unwrap_or(u64::MAX))
    }

    /// How much true time passes while it counts `local`.
    #[must_use]
    pub fn true_duration(self, local: Duration) -> Duration {
        Duration::from_nanos(
            u64::try_from(local.as_nanos() * MILLION / self.rate()).unwrap_or(u64::MAX),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_of_a_reading_is_the_first_that_shows_it() {
        for rate_ppm in [-4_970, -1, 0, 1, 4_970] {
            let clock = Clock {
                origin: Time(777),
                rate_ppm,
            };
            for reading in [778_u64, 1_000, 123_456_789, 60_000_000_000] {
                let moment = clock.moment_of(Time(reading));
                assert!(clock.reading(moment) >= Time(reading));
                assert!(clock.reading(Moment(moment.0 - 1)) < Time(reading));
            }
        }
    }
}
