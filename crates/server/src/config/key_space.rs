//! How much the key space may hold, and how long its history is kept: in the words of etcd's flags.

use std::time::Duration;

use super::ConfigError;

/// The default quota, as in etcd.
const QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// The default of etcd.
const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// How long a token is good for by default. etcd's end five minutes after their last use, which a token that no server remembers cannot
/// (ADR auth-tokens); clients that authenticate only once shall go on working.
const AUTH_TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The default work of hashing a password, as in etcd.
const BCRYPT_COST: u32 = 10;

/// Bounds of the key space, and of its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpaceConfig {
    /// Most bytes that it may hold with its history; `None`: no limit.
    pub quota_bytes: Option<u64>,
    /// When its history is forgotten.
    pub auto_compaction: AutoCompaction,
    /// How often a watch that was told nothing hears how far it is, if it asked for that.
    pub watch_progress_notify_interval: Duration,
    /// How long a token of a user is good for.
    pub auth_token_ttl: Duration,
    /// How much work hashing a password is: each step doubles it.
    pub bcrypt_cost: u32,
}

impl Default for KeySpaceConfig {
    fn default() -> Self {
        Self {
            quota_bytes: Some(QUOTA_BYTES),
            auto_compaction: AutoCompaction::Off,
            watch_progress_notify_interval: WATCH_PROGRESS_INTERVAL,
            auth_token_ttl: AUTH_TOKEN_TTL,
            bcrypt_cost: BCRYPT_COST,
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

pub(super) fn auth_token_ttl(seconds: Option<u64>) -> Result<Duration, ConfigError> {
    match seconds {
        None => Ok(AUTH_TOKEN_TTL),
        Some(0) => Err(ConfigError::invalid(
            "auth_token_ttl",
            0,
            "give at least one second",
        )),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

pub(super) fn bcrypt_cost(cost: Option<u32>) -> Result<u32, ConfigError> {
    match cost.unwrap_or(BCRYPT_COST) {
        cost @ 4..=31 => Ok(cost),
        cost => Err(ConfigError::invalid("bcrypt_cost", cost, "give 4 to 31")),
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
    fn costs_and_token_lives_out_of_bounds_are_refused() {
        assert_eq!(bcrypt_cost(None), Ok(10));
        assert_eq!(bcrypt_cost(Some(4)), Ok(4));
        assert!(bcrypt_cost(Some(3)).is_err() && bcrypt_cost(Some(32)).is_err());
        assert_eq!(auth_token_ttl(Some(300)), Ok(Duration::from_secs(300)));
        assert!(auth_token_ttl(Some(0)).is_err());
    }

    #[test]
    fn a_quota_of_zero_is_the_default_and_a_negative_one_none() {
        assert_eq!(quota(0), Some(QUOTA_BYTES));
        assert_eq!(quota(-1), None);
        assert_eq!(quota(5), Some(5));
    }
}
