//! A request that is retried under one key has its effect once (protocol, section 7).

use std::collections::BTreeMap;

use quorate_coord::Event;
use quorate_replica::AppliedEntry;
use quorate_types::{LogIndex, TraceId};

use super::{Verdict, Violation};

/// Where each request had its effect. A request's trace is derived from its key, so retries share it.
#[derive(Debug, Default)]
pub struct Once {
    effects: BTreeMap<TraceId, LogIndex>,
}

impl Once {
    /// An entry was applied for the first time.
    ///
    /// # Errors
    /// Its request already had an effect elsewhere.
    pub fn on_committed(&mut self, entry: &AppliedEntry) -> Verdict {
        // Only commands of callers have these effects; deadlines that fire in the same apply never do.
        let has_effect = entry.events.iter().any(|event| {
            matches!(
                event,
                Event::SessionOpened { .. }
                    | Event::GroupCreated { .. }
                    | Event::GroupUpdated { .. }
                    | Event::SessionRevoked { .. }
            )
        });
        if !has_effect || entry.trace == TraceId::default() {
            return Ok(());
        }
        match self.effects.insert(entry.trace, entry.index) {
            None => Ok(()),
            Some(before) => Err(Violation {
                checker: "exactly_once",
                guarantee: "retries: deduplicated by session and sequence, or by request id (protocol, section 7)",
                what: format!(
                    "request {:?} had its effect at index {before} and again at {}",
                    entry.trace, entry.index
                ),
            }),
        }
    }

    /// How many effects were looked at.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.effects.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_coord::SessionKey;
    use quorate_types::{ClusterTime, Revision, SessionId, Term};

    #[test]
    fn a_second_effect_of_one_request_is_reported() {
        let entry = |index| AppliedEntry {
            index: LogIndex(index),
            term: Term(1),
            revision: Revision(index),
            cluster_time: ClusterTime(0),
            trace: TraceId(7),
            events: vec![Event::SessionOpened {
                session: SessionKey {
                    id: SessionId(index),
                    created: Revision(index),
                },
                ttl_ms: 100,
            }],
        };
        let mut once = Once::default();
        assert!(once.on_committed(&entry(1)).is_ok());
        let without_effect = AppliedEntry {
            events: Vec::new(),
            ..entry(2)
        };
        assert!(once.on_committed(&without_effect).is_ok());
        assert!(once.on_committed(&entry(3)).is_err());
    }
}
