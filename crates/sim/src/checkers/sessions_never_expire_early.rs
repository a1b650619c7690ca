//! A session does not end, other than by its owner's wish, while its owner counts it as alive (guarantee 3, from the session's side).

use std::collections::BTreeMap;

use quorate_coord::{Cause, Event, SessionKey};
use quorate_replica::AppliedEntry;

use super::{Verdict, Violation};
use crate::clock::Moment;

/// What owners count on, and what ended.
#[derive(Debug, Default)]
pub struct Sessions {
    valid: BTreeMap<SessionKey, Moment>,
    ended: BTreeMap<SessionKey, Moment>,
    /// How many ends were looked at.
    pub checked: u64,
}

impl Sessions {
    /// The owner counts on its session until then.
    ///
    /// # Errors
    /// The session is over.
    pub fn on_valid(&mut self, session: SessionKey, until: Moment) -> Verdict {
        match self.ended.get(&session) {
            Some(ended) if until > *ended => Err(violation(session, *ended, until)),
            Some(_) => Ok(()),
            None => {
                self.valid.insert(session, until);
                Ok(())
            }
        }
    }

    /// An entry was applied for the first time.
    ///
    /// # Errors
    /// It ended a session that its owner counts on.
    pub fn on_committed(&mut self, now: Moment, entry: &AppliedEntry) -> Verdict {
        for event in &entry.events {
            let Event::SessionEnded { session, cause } = event else {
                continue;
            };
            let valid = self.valid.remove(session);
            if *cause == Cause::Closed {
                continue;
            }
            self.checked += 1;
            self.ended.insert(*session, now);
            if let Some(until) = valid.filter(|until| *until > now) {
                return Err(violation(*session, now, until));
            }
        }
        Ok(())
    }

    /// The owner died or gave the session up: nobody counts on it.
    pub fn on_abandoned(&mut self, session: SessionKey) {
        self.valid.remove(&session);
    }
}

fn violation(session: SessionKey, ended: Moment, until: Moment) -> Violation {
    Violation {
        checker: "sessions_never_expire_early",
        guarantee: "3: at most one believed tenure per group at any real time (a holder's lease outlasts its session)",
        what: format!(
            "session {session:?} ended at {ended:?}, but its owner counts on it until {until:?}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{ClusterTime, LogIndex, Revision, SessionId, Term, TraceId};

    fn ended(session: SessionKey, cause: Cause) -> AppliedEntry {
        AppliedEntry {
            index: LogIndex(1),
            term: Term(1),
            revision: Revision(1),
            cluster_time: ClusterTime(0),
            trace: TraceId(0),
            events: vec![Event::SessionEnded { session, cause }],
        }
    }

    #[test]
    fn a_session_that_ends_before_its_owner_stops_counting_on_it_is_reported() {
        let session = SessionKey {
            id: SessionId(1),
            created: Revision(1),
        };
        let mut sessions = Sessions::default();
        sessions.on_valid(session, Moment(100)).unwrap();
        assert!(
            sessions
                .on_committed(Moment(99), &ended(session, Cause::Expired))
                .is_err()
        );
        let mut sessions = Sessions::default();
        sessions.on_valid(session, Moment(100)).unwrap();
        assert!(
            sessions
                .on_committed(Moment(99), &ended(session, Cause::Closed))
                .is_ok()
        );
        let mut sessions = Sessions::default();
        sessions.on_valid(session, Moment(100)).unwrap();
        assert!(
            sessions
                .on_committed(Moment(100), &ended(session, Cause::Expired))
                .is_ok()
        );
        assert!(
            sessions.on_valid(session, Moment(101)).is_err(),
            "extended after its end"
        );
    }
}
