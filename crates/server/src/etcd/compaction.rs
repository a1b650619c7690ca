//! Automatic compaction: the leader forgets the key space's history by age or by count.
//!
//! Every server remembers which revision was there when, so that a new leader goes on where the old one was; only the leader proposes.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_consensus::Role;
use quorate_coord::Command;
use quorate_types::Time;

use super::{Caller, Etcd};
use crate::clock;
use crate::config::AutoCompaction;

/// How often history is counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);
/// A period is divided into so many samples.
const SAMPLES: u32 = 10;
const SAMPLE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Decides through which revision to compact.
///
/// # Invariants
/// - `samples` rise in time and revision; the first is the newest that is at least a period old, once there is one.
struct Compactor {
    mode: AutoCompaction,
    samples: VecDeque<(Time, u64)>,
}

impl Compactor {
    fn new(mode: AutoCompaction) -> Self {
        Self {
            mode,
            samples: VecDeque::new(),
        }
    }

    /// How long until it is asked again.
    fn interval(&self) -> Duration {
        match self.mode {
            AutoCompaction::Period(period) => (period / SAMPLES).max(SAMPLE_INTERVAL_MIN),
            AutoCompaction::Off | AutoCompaction::Revisions(_) => COUNT_INTERVAL,
        }
    }

    /// Through which revision history may be forgotten now.
    fn due(&mut self, now: Time, revision: u64, compacted: u64) -> Option<u64> {
        let through = match self.mode {
            AutoCompaction::Off => return None,
            AutoCompaction::Revisions(kept) => revision.saturating_sub(kept),
            AutoCompaction::Period(period) => {
                self.samples.push_back((now, revision));
                let is_old = |at: &(Time, u64)| now.since(at.0) >= period;
                while self.samples.get(1).is_some_and(is_old) {
                    self.samples.pop_front();
                }
                self.samples.front().filter(|at| is_old(at))?.1
            }
        };
        (through > compacted).then_some(through)
    }
}

/// Compacts until the task is dropped.
pub(crate) async fn compact_forever(etcd: Etcd, mode: AutoCompaction) {
    if mode == AutoCompaction::Off {
        return;
    }
    let mut compactor = Compactor::new(mode);
    loop {
        tokio::time::sleep(compactor.interval()).await;
        let (revision, compacted) = {
            let version = etcd.api.publisher.version();
            let store = version.state.kv();
            (store.revision(), store.compacted())
        };
        let Some(through) = compactor.due(clock::now(), revision, compacted) else {
            continue;
        };
        if etcd.api.role.borrow().role != Role::Leader {
            continue;
        }
        let own = Caller::own();
        let command = Command::CompactKv {
            caller: own.user.clone(),
            revision: super::convert::signed(through),
        };
        match etcd.apply(&own, command).await {
            Ok(_) => tracing::info!(through, "compacted the key space"),
            // Whoever leads at the next turn tries again.
            Err(error) => tracing::debug!(%error, through, "did not compact the key space"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn by_count_all_but_the_last_revisions_are_given_up() {
        let mut compactor = Compactor::new(AutoCompaction::Revisions(100));
        assert_eq!(compactor.due(at(0), 50, 0), None);
        assert_eq!(compactor.due(at(60), 250, 0), Some(150));
        assert_eq!(compactor.due(at(120), 250, 150), None);
    }

    #[test]
    fn by_age_nothing_younger_than_the_period_is_given_up() {
        let mut compactor = Compactor::new(AutoCompaction::Period(Duration::from_secs(100)));
        assert_eq!(compactor.interval(), Duration::from_secs(10));
        let mut compacted = 0;
        for turn in 0..100 {
            let now = 10 * turn;
            // A revision a second.
            if let Some(through) = compactor.due(at(now), now, compacted) {
                assert_eq!(through, now - 100);
                compacted = through;
            }
        }
        assert_eq!(compacted, 890);
        assert!(compactor.samples.len() <= 12);
    }
}
