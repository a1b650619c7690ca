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
        // The compacted revision's own changes are still told; what they superseded, nobody reads. In one go: it is no more than what
        // that one request changed.
        let own = self.log.iter();
        for change in own.take_while(|change| change.mod_revision() == compacted) {
            self.index.forget_before(change);
        }
        self.swept = compacted;
        false
    }

    fn is_sweepable(&self) -> bool {
        let first = self.log.front();
        first.is_some_and(|change| change.mod_revision() < self.compacted())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{delete, filled, put, run};
    use super::*;

    fn sweep_all(store: &mut KvStore) {
        while store.sweep(1) {
            store.check_invariants();
        }
        store.check_invariants();
    }

    #[test]
    fn compaction_goes_forward_only_and_not_into_the_future() {
        let mut store = filled(&[("a", "1"), ("a", "2")]);
        let refused = |asked, compacted| Err(KvError::Compacted { asked, compacted });
        assert_eq!(store.compact(-1), refused(0, 0));
        assert_eq!(store.compact(0), Ok(()), "etcd lets it, once");
        assert_eq!(store.compact(0), refused(0, 0));
        let future = KvError::FutureRevision { asked: 4, now: 3 };
        assert_eq!(store.compact(4), Err(future));
        assert_eq!(store.compact(3), Ok(()));
        assert_eq!(store.compact(2), refused(2, 3));
        assert_eq!(store.compact(3), refused(3, 3));
        assert_eq!(store.revision(), 3, "a compaction is no revision");
    }

    #[test]
    fn newest_versions_at_the_compacted_revision_stay() {
        let mut store = filled(&[("a", "1"), ("a", "2"), ("b", "1"), ("a", "3")]);
        run(&mut store, &delete("b"));
        store.compact(4).unwrap();
        sweep_all(&mut store);
        assert_eq!(&*store.get_at(b"a", 4).unwrap().value, b"2");
        assert_eq!(store.get_at(b"b", 5).unwrap().version, 1);
        assert_eq!(store.changes(0).count(), 3, "those of 4, 5 and 6");
    }

    #[test]
    fn sweep_goes_in_pieces_and_gives_the_room_back() {
        let mut store = filled(&[("a", "1")]);
        let one = store.size_bytes();
        for value in ["2", "3", "4", "5"] {
            run(&mut store, &put("a", value));
        }
        store.compact(6).unwrap();
        assert_eq!((store.swept(), store.size_bytes()), (0, 5 * one));
        assert!(store.sweep(3));
        assert!(!store.sweep(3));
        assert_eq!(store.swept(), 6);
        assert_eq!(store.size_bytes(), one);
        run(&mut store, &delete("a"));
        run(&mut store, &put("b", "1"));
        store.compact(8).unwrap();
        sweep_all(&mut store);
        assert_eq!(store.size_bytes(), one);
    }

    #[test]
    fn deletion_at_the_compacted_revision_is_still_told() {
        let mut store = filled(&[("a", "1")]);
        run(&mut store, &delete("a"));
        store.compact(3).unwrap();
        sweep_all(&mut store);
        assert_eq!(store.changes(3).count(), 1);
        assert_eq!(store.get_at(b"a", 2), None, "what it was is compacted");
    }

    #[test]
    fn deleting_all_at_once_and_compacting_to_it_gives_the_room_back() {
        let value = "v".repeat(1_000);
        let mut store = filled(&[("a", &value), ("b", &value), ("c", "1")]);
        let before = store.size_bytes();
        run(&mut store, &delete("a"));
        run(&mut store, &delete("b"));
        let now = i64::try_from(store.revision()).unwrap();
        store.compact(now).unwrap();
        sweep_all(&mut store);
        assert!(store.size_bytes() < before - 2_000, "{before}");
    }
}
