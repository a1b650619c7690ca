//! What was acknowledged survives (guarantee 5): the entry that an answer names is in the committed log for good, and its
//! effect is in the final state.

use std::collections::BTreeMap;

use quorate_coord::State;
use quorate_types::{GroupName, LogIndex, Revision, TraceId};

use super::logs_agree::Log;
use super::{Verdict, Violation};

/// What a group's only writer knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was created or updated, at this revision.
    Exists {
        /// The revision.
        revision: Revision,
    },
    /// It was deleted.
    Gone,
    /// The outcome of the last write is not known.
    Unknown,
}

/// What callers were told.
#[derive(Debug, Default)]
pub struct Acknowledged {
    waiting: BTreeMap<LogIndex, TraceId>,
    all: Vec<(LogIndex, TraceId)>,
    fates: BTreeMap<GroupName, Fate>,
    newest: LogIndex,
}

impl Acknowledged {
    /// A caller was told that its request is applied at `index`.
    ///
    /// # Errors
    /// Another request is committed there.
    pub fn on_acknowledged(&mut self, index: LogIndex, trace: TraceId, log: &Log) -> Verdict {
        self.newest = self.newest.max(index);
        self.all.push((index, trace));
        match log.get(index) {
            Some(committed) => check(index, trace, committed.trace),
            None => {
                self.waiting.insert(index, trace);
                Ok(())
            }
        }
    }

    /// An entry was applied for the first time.
    ///
    /// # Errors
    /// A caller was told that another request is applied there.
    pub fn on_committed(&mut self, index: LogIndex, trace: TraceId) -> Verdict {
        match self.waiting.remove(&index) {
            Some(acknowledged) => check(index, acknowledged, trace),
            None => Ok(()),
        }
    }

    /// The only writer of a group learned what became of it.
    pub fn on_fate(&mut self, group: &GroupName, fate: Fate) {
        self.fates.insert(group.clone(), fate);
    }

    /// The newest index that any caller was told.
    #[must_use]
    pub fn newest(&self) -> LogIndex {
        self.newest
    }

    /// How many acknowledgements were given.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.all.len() as u64
    }

    /// At the end, with all replicas at this state.
    ///
    /// # Errors
    /// Something acknowledged is missing.
    pub fn on_end(&self, state: &State, log: &Log) -> Verdict {
        if let Some((index, _)) = self.waiting.first_key_value() {
            return Err(violation(format!(
                "entry {index} was acknowledged, but the log ends at {}",
                log.last()
            )));
        }
        for (index, trace) in &self.all {
            let committed = log.get(*index).map(|entry| entry.trace);
            check(*index, *trace, committed.unwrap_or_default())?;
        }
        for (group, fate) in &self.fates {
            let found = state.group(group);
            match (fate, found) {
                (Fate::Exists { revision }, Some(found)) if found.spec_revision == *revision => {}
                (Fate::Gone, None) | (Fate::Unknown, _) => {}
                (fate, found) => {
                    let found = found.map(|group| group.spec_revision);
                    let what = format!(
                        "group {group:?} should be {fate:?}, but its spec's revision is {found:?}"
                    );
                    return Err(violation(what));
                }
            }
        }
        Ok(())
    }
}

fn check(index: LogIndex, acknowledged: TraceId, committed: TraceId) -> Verdict {
    if acknowledged == committed {
        return Ok(());
    }
    Err(violation(format!(
        "entry {index} was acknowledged to request {acknowledged:?}, but is that of {committed:?}"
    )))
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "acknowledged_writes_survive",
        guarantee: "5: what was acknowledged survives the crash and restart of every server at once",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_request_that_is_not_committed_is_reported() {
        let log = Log::default();
        let mut acknowledged = Acknowledged::default();
        assert!(
            acknowledged
                .on_acknowledged(LogIndex(1), TraceId(7), &log)
                .is_ok()
        );
        assert!(
            acknowledged.on_end(&State::new(), &log).is_err(),
            "it never was committed"
        );
        assert!(
            acknowledged.on_committed(LogIndex(1), TraceId(8)).is_err(),
            "another took its place"
        );
    }

    #[test]
    fn a_created_group_that_is_missing_is_reported() {
        let mut acknowledged = Acknowledged::default();
        let group = GroupName::new("g").unwrap();
        acknowledged.on_fate(
            &group,
            Fate::Exists {
                revision: Revision(4),
            },
        );
        assert!(acknowledged.on_end(&State::new(), &Log::default()).is_err());
        acknowledged.on_fate(&group, Fate::Gone);
        assert!(acknowledged.on_end(&State::new(), &Log::default()).is_ok());
    }
}
