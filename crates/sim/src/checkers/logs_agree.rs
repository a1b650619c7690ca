//! Committed entries are equal at equal indexes on all replicas, over restarts too (guarantees 1 and 5; Raft thesis, section 3.6.3).

use quorate_coord::Event;
use quorate_replica::AppliedEntry;
use quorate_types::{ClusterTime, LogIndex, Revision, Term, TraceId};

use super::Violation;

/// A committed entry, as the first replica that applied it saw it.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its term.
    pub term: Term,
    /// A hash of its bytes, where the first to apply it still had it in its log.
    pub bytes_hash: Option<u64>,
    /// The trace of its request.
    pub trace: TraceId,
    /// The revision after it.
    pub revision: Revision,
    /// Cluster time after it.
    pub cluster_time: ClusterTime,
    /// What it changed.
    pub events: Vec<Event>,
}

/// The one log that all replicas must have.
#[derive(Debug, Default)]
pub struct Log {
    entries: Vec<Committed>,
}

impl Log {
    /// A committed entry.
    #[must_use]
    pub fn get(&self, index: LogIndex) -> Option<&Committed> {
        let at = usize::try_from(index.0).ok()?.checked_sub(1)?;
        self.entries.get(at)
    }

    /// The last committed index that was seen.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        LogIndex(self.entries.len() as u64)
    }

    /// A server applied an entry. Says whether it was the first to do so.
    ///
    /// # Errors
    /// Another server applied something else at that index, or the server's log holds something else there.
    pub fn on_applied(
        &mut self,
        server: usize,
        entry: &AppliedEntry,
        logged: Option<(Term, u64)>,
    ) -> Result<bool, Violation> {
        if let Some((term, _)) = logged
            && term != entry.term
        {
            return Err(violation(
                server,
                entry,
                &format!("its log holds an entry of term {term} there"),
            ));
        }
        let bytes_hash = logged.map(|(_, hash)| hash);
        if let Some(known) = self.get(entry.index) {
            if known.term != entry.term || known.trace != entry.trace {
                return Err(violation(
                    server,
                    entry,
                    &format!("committed was an entry of term {}", known.term),
                ));
            }
            if let (Some(ours), Some(theirs)) = (bytes_hash, known.bytes_hash)
                && ours != theirs
            {
                return Err(violation(
                    server,
                    entry,
                    "its bytes differ from the committed ones",
                ));
            }
            if known.revision != entry.revision
                || known.cluster_time != entry.cluster_time
                || known.events != entry.events
            {
                let what = format!(
                    "it had another effect: revision {} and {:?}, elsewhere revision {} and {:?}",
                    entry.revision, entry.events, known.revision, known.events
                );
                return Err(violation(server, entry, &what));
            }
            return Ok(false);
        }
        if entry.index != self.last().next() {
            return Err(violation(
                server,
                entry,
                &format!("nobody applied what precedes it (last: {})", self.last()),
            ));
        }
        self.entries.push(Committed {
            term: entry.term,
            bytes_hash,
            trace: entry.trace,
            revision: entry.revision,
            cluster_time: entry.cluster_time,
            events: entry.events.clone(),
        });
        Ok(true)
    }
}

fn violation(server: usize, entry: &AppliedEntry, what: &str) -> Violation {
    Violation {
        checker: "logs_agree",
        guarantee: "1, 5: committed entries are never lost or reordered",
        what: format!(
            "server {} applied entry {} of term {}, but {what}",
            server + 1,
            entry.index,
            entry.term
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, trace: u128) -> AppliedEntry {
        AppliedEntry {
            index: LogIndex(index),
            term: Term(term),
            revision: Revision(index),
            cluster_time: ClusterTime(0),
            trace: TraceId(trace),
            events: Vec::new(),
        }
    }

    #[test]
    fn a_different_entry_at_a_committed_index_is_reported() {
        let mut log = Log::default();
        assert_eq!(
            log.on_applied(0, &entry(1, 1, 7), Some((Term(1), 5))),
            Ok(true)
        );
        assert_eq!(
            log.on_applied(1, &entry(1, 1, 7), Some((Term(1), 5))),
            Ok(false)
        );
        assert!(
            log.on_applied(1, &entry(1, 2, 7), None).is_err(),
            "another term"
        );
        assert!(
            log.on_applied(1, &entry(1, 1, 8), None).is_err(),
            "another request"
        );
        assert!(
            log.on_applied(1, &entry(1, 1, 7), Some((Term(1), 6)))
                .is_err(),
            "other bytes"
        );
        assert!(
            log.on_applied(1, &entry(1, 1, 7), Some((Term(3), 5)))
                .is_err(),
            "another term in the log"
        );
        assert!(log.on_applied(1, &entry(3, 1, 7), None).is_err(), "a hole");
        let other = AppliedEntry {
            revision: Revision(9),
            ..entry(1, 1, 7)
        };
        assert!(log.on_applied(1, &other, None).is_err(), "another effect");
    }
}
