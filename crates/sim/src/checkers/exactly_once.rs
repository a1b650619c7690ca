//! A request that is retried under one key has its effect once, whichever way it comes: over leader changes, restarts and snapshots,
//! by session and sequence or by request id (protocol, section 7).
//!
//! Seen from the log: a request may stand in it more than once. What comes of it the first time is what comes of it each time, and
//! of all of them only the first has an effect.

use std::collections::BTreeMap;

use quorate_coord::{Envelope, Event, Outcome, Rejection, RequestKey};
use quorate_replica::AppliedEntry;
use quorate_types::{LogIndex, TraceId};

use super::{Verdict, Violation};

/// Where each request had its effect. A request's trace is derived from its key, so retries share it.
#[derive(Debug, Default)]
pub struct Once {
    effects: BTreeMap<TraceId, LogIndex>,
    outcomes: BTreeMap<RequestKey, (LogIndex, Outcome)>,
    /// How many repetitions of sessions' requests were found in the log.
    pub session_repeats: u64,
    /// How many repetitions of other callers' requests were.
    pub caller_repeats: u64,
}

impl Once {
    /// An entry was applied for the first time, with this outcome on the whole log's state.
    ///
    /// # Errors
    /// Its request already had an effect elsewhere, or came to something else.
    pub fn on_committed(
        &mut self,
        entry: &AppliedEntry,
        envelope: &Envelope,
        outcome: &Outcome,
    ) -> Verdict {
        if let Some((before, first)) = self.outcomes.get(&envelope.request) {
            let (before, first) = (*before, first.clone());
            return self.on_repeated(entry, envelope, (before, &first), outcome);
        }
        if !is_unkeyed(&envelope.request) && !is_passing(outcome) {
            self.outcomes
                .insert(envelope.request, (entry.index, outcome.clone()));
        }
        self.on_effect(entry)
    }

    fn on_repeated(
        &mut self,
        entry: &AppliedEntry,
        envelope: &Envelope,
        (before, first): (LogIndex, &Outcome),
        outcome: &Outcome,
    ) -> Verdict {
        let stale = match envelope.request {
            RequestKey::Session { .. } => {
                self.session_repeats += 1;
                // A late repetition, after the session went on or ended: refused, so without effect.
                matches!(
                    outcome,
                    Err(Rejection::RequestOutOfOrder { .. } | Rejection::UnknownSession { .. })
                )
            }
            RequestKey::Caller(_) | RequestKey::Internal | RequestKey::Unkeyed => {
                self.caller_repeats += 1;
                false
            }
        };
        if !stale && first != outcome {
            return Err(violation(format!(
                "request {:?} came to {first:?} at index {before} and to {outcome:?} at {}",
                envelope.request, entry.index
            )));
        }
        self.on_effect(entry)
    }

    fn on_effect(&mut self, entry: &AppliedEntry) -> Verdict {
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
            Some(before) => Err(violation(format!(
                "request {:?} had its effect at index {before} and again at {}",
                entry.trace, entry.index
            ))),
        }
    }

    /// How many effects were looked at.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.effects.len() as u64
    }
}

/// Whether nothing is remembered of a request: it is never retried.
fn is_unkeyed(request: &RequestKey) -> bool {
    matches!(request, RequestKey::Internal | RequestKey::Unkeyed)
}

/// Whether an outcome may differ the next time: the request was not taken in, so nothing is remembered of it.
fn is_passing(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Err(Rejection::DedupWindowFull { .. }
            | Rejection::RequestOutOfOrder { .. }
            | Rejection::UnknownSession { .. })
    )
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "exactly_once",
        guarantee: "retries: deduplicated by session and sequence, or by request id (protocol, section 7)",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_coord::{Command, Reply, SessionKey};
    use quorate_types::{
        ClusterTime, ContractVersion, Principal, RequestId, Revision, SessionId, Term, WallTime,
    };

    fn entry(index: u64, effect: bool) -> AppliedEntry {
        let opened = Event::SessionOpened {
            session: session(index),
            ttl_ms: 100,
        };
        AppliedEntry {
            index: LogIndex(index),
            term: Term(1),
            revision: Revision(index),
            cluster_time: ClusterTime(0),
            trace: TraceId(7),
            events: effect.then_some(opened).into_iter().collect(),
        }
    }

    fn session(id: u64) -> SessionKey {
        SessionKey {
            id: SessionId(id),
            created: Revision(id),
        }
    }

    fn asked(request: RequestKey) -> Envelope {
        Envelope {
            principal: Principal::new("t").unwrap(),
            request,
            trace: TraceId(7),
            wall: WallTime(0),
            cluster_time: ClusterTime(0),
            contract: ContractVersion(1),
            command: Command::Advance,
        }
    }

    fn done(revision: u64) -> Outcome {
        Ok(Reply::Done {
            revision: Revision(revision),
        })
    }

    #[test]
    fn a_second_effect_of_one_request_is_reported() {
        let asked = asked(RequestKey::Caller(RequestId(1)));
        let mut once = Once::default();
        assert!(once.on_committed(&entry(1, true), &asked, &done(1)).is_ok());
        assert!(
            once.on_committed(&entry(2, false), &asked, &done(1))
                .is_ok()
        );
        assert_eq!(once.caller_repeats, 1);
        assert!(
            once.on_committed(&entry(3, true), &asked, &done(1))
                .is_err()
        );
    }

    #[test]
    fn a_repetition_that_comes_to_something_else_is_reported() {
        let key = RequestKey::Session {
            session: session(1),
            seq: 4,
        };
        let mut once = Once::default();
        assert!(
            once.on_committed(&entry(1, false), &asked(key), &done(1))
                .is_ok()
        );
        assert!(
            once.on_committed(&entry(2, false), &asked(key), &done(2))
                .is_err()
        );
        let late = Err(Rejection::RequestOutOfOrder {
            session: SessionId(1),
            seq: 4,
            expected: 6,
        });
        assert!(
            once.on_committed(&entry(3, false), &asked(key), &late)
                .is_ok()
        );
        assert_eq!(once.session_repeats, 2);
    }
}
