//! `CLOCK_BOOTTIME`, as the SDK reads it: the clock of every lease, which goes on while the machine sleeps.

pub(crate) use quorate_client::boot_time as now;
