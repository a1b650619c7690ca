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

/// One machine's clock: an arbitrary origin, and a rate that is off by some parts per million. Faults may change the rate, let it
/// jump ahead and stop it for a while.
///
/// # Invariants
/// - The reading never decreases with true time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The reading at `since`.
    shown: Time,
    /// From when on `rate_ppm` holds.
    since: Moment,
    /// How much faster than true time it runs.
    rate_ppm: i32,
    /// It stands still.
    frozen: bool,
}

impl Clock {
    /// A clock that shows `origin` at the beginning of true time.
    #[must_use]
    pub fn new(origin: Time, rate_ppm: i32) -> Self {
        Self {
            shown: origin,
            since: Moment::default(),
            rate_ppm,
            frozen: false,
        }
    }

    fn rate(self) -> u128 {
        u128::try_from(1_000_000 + i64::from(self.rate_ppm)).expect("clocks run forward")
    }

    /// What it shows at `moment`, which is not before its last change.
    #[must_use]
    pub fn reading(self, moment: Moment) -> Time {
        if self.frozen {
            return self.shown;
        }
        let elapsed = u128::from(moment.0.saturating_sub(self.since.0)) * self.rate() / MILLION;
        Time(self.shown.0 + u64::try_from(elapsed).expect("simulations are short"))
    }

    /// The first moment since its last change at which it shows `reading` or more.
    #[must_use]
    pub fn moment_of(self, reading: Time) -> Moment {
        let missing = u128::from(reading.0.saturating_sub(self.shown.0));
        if reading == Time::MAX || (self.frozen && missing > 0) {
            return Moment::NEVER;
        }
        let moment = u128::from(self.since.0) + (missing * MILLION).div_ceil(self.rate());
        Moment(u64::try_from(moment).unwrap_or(u64::MAX))
    }

    /// How much true time passes while it counts `local`.
    #[must_use]
    pub fn true_duration(self, local: Duration) -> Duration {
        Duration::from_nanos(
            u64::try_from(local.as_nanos() * MILLION / self.rate()).unwrap_or(u64::MAX),
        )
    }

    /// It runs at another rate from now on.
    pub fn set_rate(&mut self, now: Moment, rate_ppm: i32) {
        self.settle(now);
        self.rate_ppm = rate_ppm;
    }

    /// It jumps ahead.
    pub fn jump(&mut self, now: Moment, by: Duration) {
        self.settle(now);
        self.shown = self.shown + by;
    }

    /// It stands still from now on.
    pub fn freeze(&mut self, now: Moment) {
        self.settle(now);
        self.frozen = true;
    }

    /// It runs again.
    pub fn thaw(&mut self, now: Moment) {
        self.settle(now);
        self.frozen = false;
    }

    fn settle(&mut self, now: Moment) {
        self.shown = self.reading(now);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_of_a_reading_is_the_first_that_shows_it() {
        for rate_ppm in [-4_970, -1, 0, 1, 4_970] {
            let clock = Clock::new(Time(777), rate_ppm);
            for reading in [778_u64, 1_000, 123_456_789, 60_000_000_000] {
                let moment = clock.moment_of(Time(reading));
                assert!(clock.reading(moment) >= Time(reading));
                assert!(clock.reading(Moment(moment.0 - 1)) < Time(reading));
            }
        }
    }

    #[test]
    fn a_clock_goes_on_from_where_it_was_changed() {
        let second = |count: u64| Moment(count * 1_000_000_000);
        let mut clock = Clock::new(Time(0), 0);
        clock.freeze(second(1));
        assert_eq!(clock.reading(second(5)), Time(1_000_000_000));
        assert_eq!(clock.moment_of(Time(1_000_000_001)), Moment::NEVER);
        clock.thaw(second(5));
        assert_eq!(clock.moment_of(Time(2_000_000_000)), second(6));
        clock.set_rate(second(6), 1_000_000);
        assert_eq!(clock.reading(second(7)), Time(4_000_000_000));
        clock.jump(second(7), Duration::from_secs(3));
        assert_eq!(clock.moment_of(Time(9_000_000_000)), second(8));
    }
}
