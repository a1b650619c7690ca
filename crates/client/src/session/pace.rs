//! How often to keep a session alive: often enough that one loss does no harm, by measured round trips and losses.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::Time;

/// The shortest interval, whatever is measured.
pub(crate) const INTERVAL_MIN: Duration = Duration::from_millis(20);
/// An answer that takes longer than this, whatever is measured, means a broken connection.
const SILENCE_MIN: Duration = Duration::from_millis(200);

/// # Invariants
/// - `loss` is within 0 and 1.
#[derive(Debug)]
pub(crate) struct Pace {
    ttl: Duration,
    /// Smoothed round trip and its deviation (RFC 6298).
    rtt: Option<(Duration, Duration)>,
    /// Smoothed share of keep-alives that were never answered.
    loss: f64,
    sent: BTreeMap<u64, Time>,
}

impl Pace {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            rtt: None,
            loss: 0.0,
            sent: BTreeMap::new(),
        }
    }

    pub(crate) fn sent(&mut self, seq: u64, now: Time) {
        self.sent.insert(seq, now);
        if self.sent.len() > crate::lease::SENT_MAX {
            self.sent.pop_first();
            self.count(true);
        }
    }

    pub(crate) fn answered(&mut self, seq: u64, now: Time) {
        let Some(at) = self.sent.remove(&seq) else {
            return;
        };
        let took = now.since(at);
        self.rtt = Some(match self.rtt {
            None => (took, took / 2),
            Some((mean, deviation)) => (
                (mean * 7 + took) / 8,
                (deviation * 3 + mean.abs_diff(took)) / 4,
            ),
        });
        self.count(false);
    }

    /// The stream broke: what was not answered on it never will be.
    pub(crate) fn broken(&mut self) {
        for _ in 0..std::mem::take(&mut self.sent).len() {
            self.count(true);
        }
    }

    fn count(&mut self, lost: bool) {
        self.loss = self.loss * 0.9 + if lost { 0.1 } else { 0.0 };
    }

    /// A third of the TTL, less the round trip, and shorter the more is lost.
    pub(crate) fn interval(&self) -> Duration {
        let (mean, deviation) = self.rtt.unwrap_or_default();
        let third = (self.ttl / 3).saturating_sub(mean + deviation * 2);
        third.mul_f64((1.0 - self.loss).max(0.25)).max(INTERVAL_MIN)
    }

    /// When the oldest unanswered keep-alive has waited so long that another server had better be asked.
    pub(crate) fn silent_at(&self) -> Option<Time> {
        let (mean, deviation) = self.rtt.unwrap_or_default();
        let limit = (self.ttl / 3)
            .max(mean * 2 + deviation * 4)
            .max(SILENCE_MIN);
        self.sent.values().next().map(|oldest| *oldest + limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_interval_is_a_third_of_the_ttl_less_the_round_trip_and_shrinks_with_loss() {
        let mut pace = Pace::new(Duration::from_millis(3_000));
        assert_eq!(pace.interval(), Duration::from_millis(1_000));
        for seq in 0..50 {
            pace.sent(seq, Time(seq * 1_000 * MS));
            pace.answered(seq, Time((seq * 1_000 + 100) * MS));
        }
        let calm = pace.interval();
        assert!((890..=900).contains(&calm.as_millis()), "{calm:?}");
        for seq in 50..60 {
            pace.sent(seq, Time(seq * 1_000 * MS));
        }
        assert_eq!(pace.silent_at(), Some(Time(51_000 * MS)));
        pace.broken();
        assert!(pace.interval() < calm / 2);
        assert_eq!(pace.silent_at(), None);
    }

    #[test]
    fn the_interval_has_a_floor() {
        let pace = Pace::new(Duration::from_millis(10));
        assert_eq!(pace.interval(), INTERVAL_MIN);
    }
}
