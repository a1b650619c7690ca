//! The one clock that belief runs on.

use quorate_types::Time;
use rustix::time::{ClockId, clock_gettime};

/// Reads `CLOCK_BOOTTIME`, which runs on while the machine sleeps (protocol, section 2).
#[must_use]
pub fn now() -> Time {
    let reading = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (
        reading.tv_sec.unsigned_abs(),
        reading.tv_nsec.unsigned_abs(),
    );
    Time(seconds * 1_000_000_000 + nanos)
}
