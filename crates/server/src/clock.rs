//! The only clocks of the server: `CLOCK_BOOTTIME` for the cores, the wall clock for people.
//!
//! Deliberately absent: `Instant`, whose clock stands still while the machine is suspended (protocol, section 2).

use std::time::{SystemTime, UNIX_EPOCH};

use quorate_types::{Time, WallTime};
use rustix::time::{ClockId, clock_gettime};

/// Reads `CLOCK_BOOTTIME`.
pub(crate) fn now() -> Time {
    let reading = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(reading.tv_sec).expect("the time since boot is not negative");
    let nanos = u64::try_from(reading.tv_nsec).expect("nanoseconds are not negative");
    Time(seconds * 1_000_000_000 + nanos)
}

/// Reads the wall clock. No rule uses it.
pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A random number from the system, for disk ids and the seed of the election jitter.
pub(crate) fn random_u64() -> std::io::Result<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
