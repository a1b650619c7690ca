//! A snapshot and the log's tail give the same state as the whole log (guarantees 2 and 5 rest on it).
//!
//! Owns: a state of the checkers' own, to which every committed entry is applied once, as the first replica applies it. What any
//! replica makes of an entry must equal what that state makes of it, whatever snapshots the replica started from; and from time to
//! time, and at the end of every run, a server's disk is read: its newest snapshot with its log's tail on top must have the
//! digest of that state.

use std::collections::BTreeMap;

use quorate_consensus::{Body, Entry};
use quorate_coord::{Envelope, Outcome, State};
use quorate_replica::AppliedEntry;
use quorate_types::LogIndex;

use super::Violation;

/// How often a digest is kept for comparison, in entries.
const DIGEST_EVERY: u64 = 16;

/// The state of the whole log.
#[derive(Debug, Default)]
pub struct FullLog {
    state: State,
    digests: BTreeMap<LogIndex, u64>,
    /// How many states read from disks were compared.
    pub checked: u64,
}

impl FullLog {
    /// An entry is committed. Says what came of its command, if it carries one.
    ///
    /// # Errors
    /// The replica that applied it got something else.
    pub fn on_committed(
        &mut self,
        entry: &AppliedEntry,
        logged: &Entry<Envelope>,
    ) -> Result<Option<Outcome>, Violation> {
        let mut events = Vec::new();
        let mut outcome = None;
        match &logged.body {
            Body::Command(envelope) => {
                outcome = Some(
                    self.state
                        .apply(logged.index, logged.term, envelope, &mut events),
                );
            }
            Body::OwnTerm | Body::Configuration(_) => {
                self.state.note_applied(logged.index, logged.term);
            }
        }
        if entry.index.0.is_multiple_of(DIGEST_EVERY) {
            self.digests.insert(entry.index, self.state.digest());
        }
        let (revision, cluster_time) = (self.state.revision(), self.state.cluster_time());
        if events != entry.events
            || (revision, cluster_time) != (entry.revision, entry.cluster_time)
        {
            return Err(violation(format!(
                "entry {} gave {:?} at revision {} on a replica; the whole log gives {events:?} at {revision}",
                entry.index, entry.events, entry.revision
            )));
        }
        Ok(outcome)
    }

    /// The state of the whole log.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The newest index, not above `most`, at which a state can be compared.
    #[must_use]
    pub fn comparable(&self, most: LogIndex) -> LogIndex {
        let newest = self.state.applied().0;
        if most >= newest {
            return newest;
        }
        let known = self.digests.range(..=most).next_back();
        known.map_or(LogIndex::ZERO, |(index, _)| *index)
    }

    /// A server's snapshot and its log's tail give this state.
    ///
    /// # Errors
    /// The whole log gives another.
    pub fn on_rebuilt(&mut self, server: usize, rebuilt: &State) -> super::Verdict {
        let (index, found) = (rebuilt.applied().0, rebuilt.digest());
        let expected = if index == self.state.applied().0 {
            Some(self.state.digest())
        } else {
            self.digests.get(&index).copied()
        };
        let Some(expected) = expected else {
            return Ok(());
        };
        self.checked += 1;
        if expected == found {
            return Ok(());
        }
        Err(violation(format!(
            "server {}: its snapshot with the log's tail gives the state {found:016x} at index {index}; the whole log gives \
             {expected:016x}",
            server + 1
        )))
    }
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "snapshots_equal_log",
        guarantee: "2, 5: a snapshot and the log's tail are as good as the whole log",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_coord::{Command, GroupSpec, RequestKey};
    use quorate_types::{
        ClusterTime, ContractVersion, GroupName, Principal, RequestId, Term, TraceId, WallTime,
    };

    fn created(index: u64, name: &str) -> Entry<Envelope> {
        let group = GroupName::new(name).unwrap();
        let envelope = Envelope {
            principal: Principal::new("t").unwrap(),
            request: RequestKey::Caller(RequestId(u128::from(index))),
            trace: TraceId(1),
            wall: WallTime(0),
            cluster_time: ClusterTime(index),
            contract: ContractVersion(1),
            command: Command::CreateGroups {
                groups: vec![(group, GroupSpec::default())],
            },
        };
        Entry {
            index: LogIndex(index),
            term: Term(1),
            body: Body::Command(envelope),
        }
    }

    fn applied(state: &mut State, entry: &Entry<Envelope>) -> AppliedEntry {
        let Body::Command(envelope) = &entry.body else {
            panic!("a command")
        };
        let mut events = Vec::new();
        let _ = state.apply(entry.index, entry.term, envelope, &mut events);
        AppliedEntry {
            index: entry.index,
            term: entry.term,
            revision: state.revision(),
            cluster_time: state.cluster_time(),
            trace: envelope.trace,
            events,
        }
    }

    #[test]
    fn a_replica_or_a_disk_that_makes_another_state_is_reported() {
        let mut full = FullLog::default();
        let mut replica = State::new();
        let entry = created(1, "a");
        let same = applied(&mut replica, &entry);
        assert!(full.on_committed(&same, &entry).is_ok());
        assert!(full.on_rebuilt(0, &replica).is_ok());
        let mut other = State::new();
        applied(&mut other, &created(1, "b"));
        assert!(full.on_rebuilt(0, &other).is_err());
        // A replica that lost its groups in a snapshot applies the next entry at another revision.
        let mut forgetful = State::new();
        forgetful.note_applied(LogIndex(1), Term(1));
        let entry = created(2, "c");
        let differs = applied(&mut forgetful, &entry);
        assert!(full.on_committed(&differs, &entry).is_err());
    }
}
