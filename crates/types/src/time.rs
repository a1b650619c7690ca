//! Time as the cores see it: readings passed in, and the bound on clock rates.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of one machine's `CLOCK_BOOTTIME`, in nanoseconds since an origin private to that machine.
/// Readings of two machines are never compared.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(0);
    /// Later than every reading.
    pub const MAX: Self = Self(u64::MAX);

    /// The time elapsed since `earlier`, or zero where `earlier` is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{:06}s",
            self.0 / 1_000_000_000,
            self.0 / 1_000 % 1_000_000
        )
    }
}

/// Milliseconds of the cluster's own clock: replicated in every entry, never decreasing, driven by the
/// leader's elapsed time. Used for deadlines of the lifecycle, never for guarantee 3 (protocol, section 4).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterTime(pub u64);

impl ClusterTime {
    /// The cluster's origin.
    pub const ZERO: Self = Self(0);

    /// `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, zero where it is not earlier.
    #[must_use]
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for ClusterTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// A proposer's wall clock, in milliseconds since the Unix epoch. For people to read; no rule uses it.
#[derive(
    Clone, Copy, Default, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(pub u64);

/// Bound on the ratio of any two clocks' rates, in parts per million (protocol, preamble).
///
/// Holders count `shrink(ttl)`, servers `stretch(ttl)`: as long as the bound holds, a holder's
/// count ends before a server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftBound {
    /// 10,000 is one per cent.
    pub ppm: u32,
}

impl Default for DriftBound {
    /// One per cent, the default (guarantee 3).
    fn default() -> Self {
        Self { ppm: 10_000 }
    }
}

impl DriftBound {
    /// `d * (1 - rho)`, rounded down.
    #[must_use]
    pub fn shrink(self, d: Duration) -> Duration {
        let nanos = d.as_nanos() * (1_000_000 - u128::from(self.ppm.min(1_000_000))) / 1_000_000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// `d * (1 + rho)`, rounded up.
    #[must_use]
    pub fn stretch(self, d: Duration) -> Duration {
        let nanos = (d.as_nanos() * (1_000_000 + u128::from(self.ppm))).div_ceil(1_000_000);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_at_the_fast_end_of_the_bound_stops_before_a_server_at_the_slow_end() {
        // The ratio of the two rates is exactly 1 + rho: the server's clock runs that much faster.
        let rho = DriftBound::default();
        for ttl_ms in [100_u64, 101, 999, 3_000, 86_400_000] {
            let ttl = Duration::from_millis(ttl_ms);
            let holder_true = rho.shrink(ttl).as_nanos() as f64 * 1.01; // holder's clock is the slow one
            assert!(
                holder_true < rho.stretch(ttl).as_nanos() as f64,
                "ttl {ttl:?}"
            );
        }
    }

    #[test]
    fn adding_to_time_saturates() {
        assert_eq!(Time::MAX + Duration::from_secs(1), Time::MAX);
        assert_eq!(Time::ZERO.since(Time(5)), Duration::ZERO);
    }
}
