//! Giving up history: logically at once, physically in bounded pieces.
//!
//! At the compacted revision itself everything can still be read, and its changes are still told: a watch may start there.

use super::{KvError, KvStore};

impl KvStore {
    /// Gives up the history before a revision.
    ///
    /// # Errors
    /// [`KvError::Compacted`]: that was done. [`KvError::FutureRevision`]: it is not there yet.
    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), KvError> {
        let refused = KvError::Compacted {
            asked: u64::try_from(revision).unwrap_or(0),
            compacted: self.compacted(),
        };
        let Ok(asked) = u64::try_from(revision) else {
            return Err(refused);
        };
        if self.compaction.is_some_and(|through| asked <= through) {
            return Err(refused);
        }
        if asked > self.revision {
            let now = self.revision;
            return Err(KvError::FutureRevision { asked, now });
        }
        self.compaction = Some(asked);
        Ok(())
    }

    /// Frees what no revision that can be read sees, at most `budget` changes of it. `true`: more is left.
    pub(crate) fn sweep(&mut self, budget: usize) -> bool {
        let compacted = self.compacted();
        if self.swept == compacted {
            return false;
        }
        for _ in 0..budget {
            if !self.is_sweepable() {
                break;
            }
            let change = self.log.pop_front().expect("a first change was seen");
            self.index.forget(&change);
        }
        if self.is_sweepable() {
            return true;
        }
        self.swept = compacted;
        false
    }

    fn is_sweepable(&self) -> bool {
        let first = self.log.front();
        first.is_some_and(|change| change.mod_revision() < self.compacted())
    }
}
