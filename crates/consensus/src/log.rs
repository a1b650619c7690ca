//! The log's suffix in memory, and how much of it is durable. Knows nothing of terms won or of peers.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use quorate_types::{LogIndex, Term};

use crate::{Entry, LogPosition, Payload, WriteSeq};

/// The entries after `base`, in memory; what precedes is covered by a snapshot.
///
/// # Invariants
/// - `entries[k].index == base.index + 1 + k`, and terms never fall along the log.
/// - `last_durable <= last().index`: entries up to it are on disk exactly as they are here.
/// - `pending` is ordered by write; each holds how far *this* log is durable once that write is. A truncation lowers
///   them all: a later report for an overwritten entry says nothing about its successor at the same index.
#[derive(Clone, Debug)]
pub(crate) struct Log<C> {
    base: LogPosition,
    entries: Vec<Entry<C>>,
    last_durable: LogIndex,
    pending: VecDeque<(WriteSeq, LogIndex)>,
}

impl<C: Payload> Log<C> {
    /// A log whose entries are all durable.
    pub(crate) fn new(base: LogPosition, entries: Vec<Entry<C>>) -> Self {
        let mut at = base;
        for entry in &entries {
            assert_eq!(
                entry.index,
                at.index.next(),
                "log entries after {base:?} are not consecutive"
            );
            assert!(
                entry.term >= at.term,
                "the term falls from {at:?} to {:?} at {:?}",
                entry.term,
                entry.index
            );
            at = entry.position();
        }
        Self {
            base,
            entries,
            last_durable: at.index,
            pending: VecDeque::new(),
        }
    }

    /// The position before the first entry held.
    pub(crate) fn base(&self) -> LogPosition {
        self.base
    }

    pub(crate) fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.base, Entry::position)
    }

    pub(crate) fn last_durable(&self) -> LogIndex {
        self.last_durable
    }

    /// The term at `index`, where this log knows it.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.offset(index)
            .and_then(|at| self.entries.get(at))
            .map(|entry| entry.term)
    }

    /// The entries from `from` through `through`, both included.
    pub(crate) fn slice(&self, from: LogIndex, through: LogIndex) -> &[Entry<C>] {
        if through < from {
            return &[];
        }
        assert!(
            from > self.base.index,
            "entry {from} was compacted; the log starts after {:?}",
            self.base
        );
        assert!(
            through <= self.last().index,
            "entry {through} is beyond the end {:?}",
            self.last()
        );
        let start = self.offset(from).expect("asserted to lie after the base");
        let end = self
            .offset(through)
            .expect("asserted to lie after the base");
        &self.entries[start..=end]
    }

    /// The entries from `from` on, up to `bytes_max` but at least one if there is one.
    pub(crate) fn batch(&self, from: LogIndex, bytes_max: usize) -> &[Entry<C>] {
        let all = self.slice(from, self.last().index);
        let mut bytes = 0_usize;
        let fitting = all.iter().take_while(|entry| {
            bytes = bytes.saturating_add(entry.size_bytes());
            bytes <= bytes_max
        });
        let count = fitting.count().max(1).min(all.len());
        &all[..count]
    }

    /// The last position at or before `index` whose term is at most `term`; the base if there is none. Where two logs
    /// disagree they can only agree at or before it, so a whole term is skipped at once (thesis, section 3.5).
    pub(crate) fn last_at_most(&self, index: LogIndex, term: Term) -> LogPosition {
        let Some(offset) = self.offset(index.min(self.last().index)) else {
            return self.base;
        };
        // Terms never fall along the log.
        let count = self.entries[..=offset].partition_point(|entry| entry.term <= term);
        count
            .checked_sub(1)
            .map_or(self.base, |at| self.entries[at].position())
    }

    pub(crate) fn append(&mut self, entries: &[Entry<C>]) {
        for entry in entries {
            let last = self.last();
            assert_eq!(
                entry.index,
                last.index.next(),
                "append does not follow {last:?}"
            );
            assert!(
                entry.term >= last.term,
                "append of {entry:?} lowers the term after {last:?}"
            );
            self.entries.push(entry.clone());
        }
    }

    /// Drops the entries from `from` on.
    pub(crate) fn truncate_from(&mut self, from: LogIndex) {
        let offset = self
            .offset(from)
            .expect("a truncation never reaches the base: that is committed");
        self.entries.truncate(offset);
        self.lower_durable(LogIndex(from.0 - 1));
    }

    /// Drops the entries up to `through` from memory, and returns the new base.
    pub(crate) fn compact_through(&mut self, through: LogIndex) -> LogPosition {
        let offset = self
            .offset(through)
            .expect("compaction moves the base forward");
        self.base = self.entries[offset].position();
        self.entries.drain(..=offset);
        self.base
    }

    /// Drops everything: the log starts after `base`, which a snapshot covers.
    pub(crate) fn restart_after(&mut self, base: LogPosition, agreed: LogIndex) {
        self.entries.clear();
        self.base = base;
        self.lower_durable(agreed);
    }

    /// Notes that once `seq` is durable, this log is durable through `through`.
    pub(crate) fn note_write(&mut self, seq: WriteSeq, through: LogIndex) {
        self.pending.push_back((seq, through));
    }

    /// Writes through `seq` are durable.
    pub(crate) fn on_persisted(&mut self, seq: WriteSeq) {
        while let Some((write, through)) = self.pending.front().copied()
            && write <= seq
        {
            self.last_durable = self.last_durable.max(through);
            self.pending.pop_front();
        }
    }

    /// The write that makes this log durable through `index`, or nothing if it already is.
    pub(crate) fn write_of(&self, index: LogIndex) -> Option<WriteSeq> {
        if index <= self.last_durable {
            return None;
        }
        let write = self.pending.iter().find(|(_, through)| *through >= index);
        Some(
            write
                .expect("every entry in memory is durable or in a pending write")
                .0,
        )
    }

    /// Hashes the log, pending writes by their age; see `fingerprint.rs`.
    pub(crate) fn hash_state(&self, age: impl Fn(WriteSeq) -> u64, to: &mut impl Hasher)
    where
        C: Hash,
    {
        let Self {
            base,
            entries,
            last_durable,
            pending,
        } = self;
        (base, entries, last_durable, pending.len()).hash(to);
        for (seq, through) in pending {
            (age(*seq), through).hash(to);
        }
    }

    pub(crate) fn check_invariants(&self) {
        let last = self.last();
        assert_eq!(
            last.index.0,
            self.base.index.0 + self.entries.len() as u64,
            "the log has a gap"
        );
        assert!(
            last.term >= self.base.term,
            "the log's end {last:?} is of a lower term than its base {:?}",
            self.base
        );
        assert!(
            self.last_durable <= last.index,
            "durable through {:?}, beyond {last:?}",
            self.last_durable
        );
        for (seq, through) in &self.pending {
            assert!(
                *through <= last.index,
                "write {seq:?} would make {through:?} durable, beyond {last:?}"
            );
        }
        assert!(
            self.pending.iter().is_sorted_by_key(|(seq, _)| *seq),
            "pending writes are out of order"
        );
        if self.pending.is_empty() {
            assert_eq!(
                self.last_durable, last.index,
                "entries neither durable nor being written"
            );
        }
    }

    fn lower_durable(&mut self, to: LogIndex) {
        self.last_durable = self.last_durable.min(to);
        for (_, through) in &mut self.pending {
            *through = (*through).min(to);
        }
    }

    fn offset(&self, index: LogIndex) -> Option<usize> {
        let offset = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        usize::try_from(offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;

    #[derive(Clone, Debug, PartialEq)]
    struct Fixed;

    impl Payload for Fixed {
        fn size_bytes(&self) -> usize {
            8
        }
    }

    fn entry(index: u64, term: u64) -> Entry<Fixed> {
        Entry {
            index: LogIndex(index),
            term: Term(term),
            body: Body::Command(Fixed),
        }
    }

    fn at(index: u64, term: u64) -> LogPosition {
        LogPosition {
            term: Term(term),
            index: LogIndex(index),
        }
    }

    #[test]
    fn a_report_for_overwritten_entries_does_not_make_their_successors_durable() {
        let mut log = Log::new(at(0, 0), vec![entry(1, 1)]);
        log.append(&[entry(2, 1), entry(3, 1)]);
        log.note_write(WriteSeq(1), LogIndex(3));
        log.truncate_from(LogIndex(2));
        log.append(&[entry(2, 2), entry(3, 2)]);
        log.note_write(WriteSeq(2), LogIndex(3));
        log.on_persisted(WriteSeq(1));
        assert_eq!(log.last_durable(), LogIndex(1));
        assert_eq!(log.write_of(LogIndex(2)), Some(WriteSeq(2)));
        log.on_persisted(WriteSeq(2));
        assert_eq!(log.last_durable(), LogIndex(3));
        assert_eq!(log.write_of(LogIndex(3)), None);
    }

    #[test]
    fn a_batch_is_bounded_by_bytes_but_never_empty() {
        let log = Log::new(at(0, 0), (1..=5).map(|index| entry(index, 1)).collect());
        let size = entry(1, 1).size_bytes();
        assert_eq!(log.batch(LogIndex(2), 2 * size).len(), 2);
        assert_eq!(log.batch(LogIndex(2), 1).len(), 1);
        assert_eq!(log.batch(LogIndex(6), 1).len(), 0);
    }

    #[test]
    fn the_conflict_hint_skips_whole_terms() {
        let log = Log::new(at(2, 1), vec![entry(3, 2), entry(4, 4), entry(5, 4)]);
        assert_eq!(log.last_at_most(LogIndex(9), Term(4)), at(5, 4));
        assert_eq!(log.last_at_most(LogIndex(9), Term(3)), at(3, 2));
        assert_eq!(log.last_at_most(LogIndex(4), Term(1)), at(2, 1));
        assert_eq!(log.last_at_most(LogIndex(1), Term(9)), at(2, 1));
    }

    #[test]
    fn compaction_keeps_the_rest_addressable() {
        let mut log = Log::new(at(0, 0), (1..=5).map(|index| entry(index, 1)).collect());
        assert_eq!(log.compact_through(LogIndex(3)), at(3, 1));
        assert_eq!(log.term_at(LogIndex(3)), Some(Term(1)));
        assert_eq!(log.term_at(LogIndex(2)), None);
        assert_eq!(log.slice(LogIndex(4), LogIndex(5)).len(), 2);
        log.check_invariants();
    }
}
