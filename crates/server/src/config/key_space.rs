//! How much the key space may hold, and how long its history is kept: in the words of etcd's flags.

use std::time::Duration;

use super::ConfigError;

/// The default quota, as in etcd.
const QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// The default of etcd.
const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// Bounds of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpaceConfig {
    /// Most bytes that it may hold with its history; `None`: no limit.
    pub quota_bytes: Option<u64>,
    /// When its history is forgotten.
    pub auto_compaction: AutoCompaction,
    /// How often a watch that was told nothing hears how far it is, if it asked for that.
    pub watch_progress_notify_interval: Duration,
}

impl Default for KeySpaceConfig {
    fn default() -> Self {
        Self {
            quota_bytes: Some(QUOTA_BYTES),
            auto_compaction: AutoCompaction::Off,
            watch_progress_notify_interval: WATCH_PROGRESS_INTERVAL,
        }
    }
}

/// When history is forgotten without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// So many revisions are kept.
    Revisions(u64),
    /// What is younger is kept.
    Period(Duration),
}

pub(super) fn quota(bytes: i64) -> Option<u64> {
    match bytes {
        0 => Some(QUOTA_BYTES),
        bytes => u64::try_from(bytes).ok(),
    }
}

pub(super) fn auto_compaction(
    mode: Option<&str>,
    retention: Option<&str>,
) -> Result<AutoCompaction, ConfigError> {
    let retention = retention.unwrap_or("0").trim();
    let bad = |allowed: &str| ConfigError::invalid("auto_compaction_retention", retention, allowed);
    match mode.unwrap_or("periodic") {
        "periodic" => {
            let period = duration(retention).ok_or_else(|| {
                bad("write a time such as `30m` or `1h30m`, a number of hours, or `0` to keep all history")
            })?;
            if period.is_zero() {
                return Ok(AutoCompaction::Off);
            }
            if period < Duration::from_secs(1) {
                return Err(bad("give at least one second"));
            }
            Ok(AutoCompaction::Period(period))
        }
        "revision" => match retention.parse() {
            Ok(0) => Ok(AutoCompaction::Off),
            Ok(revisions) => Ok(AutoCompaction::Revisions(revisions)),
            Err(_) => Err(bad(
                "write a number of revisions, or `0` to keep all history",
            )),
        },
        other => Err(ConfigError::invalid(
            "auto_compaction_mode",
            other,
            "write `periodic` or `revision`",
        )),
    }
}

pub(super) fn watch_progress_interval(text: Option<&str>) -> Result<Duration, ConfigError> {
    let Some(text) = text else {
        return Ok(WATCH_PROGRESS_INTERVAL);
    };
    duration(text)
        .filter(|interval| *interval >= Duration::from_millis(100))
        .ok_or_else(|| {
            ConfigError::invalid(
                "watch_progress_notify_interval",
                text,
                "write a time of at least `100ms`, such as `10m`",
            )
        })
}

/// A time as etcd's flags have it: numbers with units, or a bare number of hours.
fn duration(text: &str) -> Option<Duration> {
    if let Ok(hours) = text.parse::<u32>() {
        return Some(Duration::from_secs(u64::from(hours) * 3_600));
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u32 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            _ => return None,
        };
        sum = sum.checked_add(unit.checked_mul(number)?)?;
        rest = &rest[letters..];
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_read_as_etcd_reads_it() {
        let read = |mode, retention| auto_compaction(mode, Some(retention));
        let hours = |n: u64| AutoCompaction::Period(Duration::from_secs(n * 3_600));
        assert_eq!(read(None, "1"), Ok(hours(1)));
        assert_eq!(read(Some("periodic"), "1h"), Ok(hours(1)));
        assert_eq!(
            read(None, "1h30m5s"),
            Ok(AutoCompaction::Period(Duration::from_secs(5_405)))
        );
        assert_eq!(read(None, "0"), Ok(AutoCompaction::Off));
        assert_eq!(auto_compaction(None, None), Ok(AutoCompaction::Off));
        assert_eq!(
            read(Some("revision"), "1000"),
            Ok(AutoCompaction::Revisions(1_000))
        );
        for (mode, retention) in [
            (None, "1x"),
            (None, "-1h"),
            (None, "h"),
            (None, "5ms"),
            (Some("revision"), "1h"),
            (Some("sometimes"), "1"),
        ] {
            assert!(read(mode, retention).is_err(), "{mode:?} {retention}");
        }
    }

    #[test]
    fn progress_of_watches_is_told_every_ten_minutes_or_as_often_as_said() {
        let read = |text| {
            watch_progress_interval(text)
                .ok()
                .map(|read| read.as_millis())
        };
        assert_eq!(read(None), Some(600_000));
        assert_eq!(read(Some("100ms")), Some(100));
        assert_eq!(read(Some("1m5s")), Some(65_000));
        assert_eq!(read(Some("99ms")), None);
        assert_eq!(read(Some("often")), None);
    }

    #[test]
    fn a_quota_of_zero_is_the_default_and_a_negative_one_none() {
        assert_eq!(quota(0), Some(QUOTA_BYTES));
        assert_eq!(quota(-1), None);
        assert_eq!(quota(5), Some(5));
    }
}
