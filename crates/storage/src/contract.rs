//! What every [`LogStore`] keeps, as one suite that each implementation's tests run.
//!
//! Owns: the model and the checks. Deliberately absent: faults, which are the implementation's own tests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use quorate_types::{LogIndex, ReplicaId, Term};

use crate::StorageError;
use crate::log_store::{LogStore, Record, Recovered, Vote};

/// One place where a log lives, that can be opened again and again.
pub trait Reopen {
    /// The implementation under test.
    type Store: LogStore;

    /// Opens what is there; the store opened before has been dropped.
    ///
    /// # Errors
    /// None is expected by the suite.
    fn reopen(&mut self) -> Result<(Self::Store, Recovered), StorageError>;
}

/// What a correct log answers: the trait in its simplest form, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelLog {
    /// What it must recover.
    pub recovered: Recovered,
}

impl ModelLog {
    /// The index of the next record.
    #[must_use]
    pub fn next_index(&self) -> LogIndex {
        self.recovered
            .records
            .last()
            .map_or(self.recovered.purged.0, |record| record.index)
            .next()
    }

    /// See [`LogStore::append`].
    pub fn append(&mut self, records: &[Record]) {
        self.recovered.records.extend_from_slice(records);
    }

    /// See [`LogStore::truncate_suffix`].
    pub fn truncate_suffix(&mut self, from: LogIndex) {
        self.recovered.records.retain(|record| record.index < from);
    }

    /// See [`LogStore::purge_prefix`].
    pub fn purge_prefix(&mut self, through: LogIndex, term: Term) {
        if through > self.recovered.purged.0 {
            self.recovered.purged = (through, term);
            self.recovered
                .records
                .retain(|record| record.index > through);
        }
    }

    /// See [`LogStore::save_vote`].
    pub fn save_vote(&mut self, vote: Vote) {
        self.recovered.vote = vote;
    }

    /// Compares, but for the torn bytes.
    #[must_use]
    pub fn agrees(&self, found: &Recovered) -> bool {
        let wanted = &self.recovered;
        (wanted.vote, wanted.purged, &wanted.records) == (found.vote, found.purged, &found.records)
    }
}

/// A record of some size whose bytes follow from its index and term.
#[must_use]
pub fn sample_record(index: LogIndex, term: Term, size: usize) -> Record {
    let bytes: Vec<u8> = (0..size as u64)
        .map(|at| (index.0 * 31 + term.0 * 7 + at) as u8)
        .collect();
    Record {
        index,
        term,
        bytes: Arc::from(bytes),
    }
}

/// Applies one random operation to a store and to its model.
///
/// # Errors
/// The store's.
pub fn random_operation(
    store: &mut impl LogStore,
    model: &mut ModelLog,
    random: &mut fastrand::Rng,
    size_max: usize,
) -> Result<(), StorageError> {
    let (next, purged) = (model.next_index(), model.recovered.purged.0);
    let term = Term(model.recovered.vote.term.0.max(1));
    match random.u8(..10) {
        0 => {
            let voted_for = random.bool().then(|| ReplicaId(random.u64(1..=3)));
            let vote = Vote {
                term: Term(model.recovered.vote.term.0 + 1),
                voted_for,
            };
            model.save_vote(vote);
            store.save_vote(vote)
        }
        1 if next > purged.next() => {
            let from = LogIndex(random.u64(purged.next().0..=next.0));
            model.truncate_suffix(from);
            store.truncate_suffix(from)
        }
        2 => {
            // At times beyond the end: what a snapshot from the leader does.
            let beyond = if random.u8(..8) == 0 { 5 } else { 0 };
            let through = LogIndex(random.u64(purged.0..next.0 + beyond));
            model.purge_prefix(through, term);
            store.purge_prefix(through, term)
        }
        _ => {
            let size = if random.u8(..10) == 0 {
                size_max
            } else {
                size_max / 20
            };
            let records: Vec<Record> = (0..random.u64(1..4))
                .map(|at| sample_record(LogIndex(next.0 + at), term, random.usize(..=size)))
                .collect();
            model.append(&records);
            store.append(&records)
        }
    }
}

/// Runs the whole suite; `make` gives a new, empty place each time.
///
/// # Panics
/// When the implementation breaks the contract.
pub fn check_contract<R: Reopen>(mut make: impl FnMut() -> R) {
    a_new_log_is_empty(make());
    everything_synced_is_found_again(make());
    a_truncated_suffix_can_be_written_anew(make());
    a_purge_beyond_the_end_empties_the_log(make());
    a_sync_of_nothing_changes_nothing(make());
    records_of_any_size_are_kept(make());
    a_gap_is_the_callers_bug(make());
    for seed in 0..8 {
        any_sequence_agrees_with_the_model(make(), seed);
    }
}

fn open<R: Reopen>(place: &mut R) -> (R::Store, Recovered) {
    place.reopen().expect("nothing is broken")
}

fn ok(result: Result<(), StorageError>) {
    result.expect("nothing is broken");
}

fn record(index: u64, term: u64) -> Record {
    sample_record(LogIndex(index), Term(term), 20)
}

fn a_new_log_is_empty<R: Reopen>(mut place: R) {
    assert_eq!(open(&mut place).1, Recovered::default());
    assert_eq!(
        open(&mut place).1,
        Recovered::default(),
        "also when it was opened before"
    );
}

fn everything_synced_is_found_again<R: Reopen>(mut place: R) {
    let vote = Vote {
        term: Term(3),
        voted_for: Some(ReplicaId(2)),
    };
    let (mut log, _) = open(&mut place);
    ok(log.append(&[record(1, 1), record(2, 1)]));
    ok(log.save_vote(vote));
    ok(log.append(&[record(3, 3)]));
    ok(log.sync());
    drop(log);
    let (mut log, found) = open(&mut place);
    assert_eq!((found.vote, found.torn_bytes), (vote, 0));
    assert_eq!(found.records, [record(1, 1), record(2, 1), record(3, 3)]);
    ok(log.append(&[record(4, 3)]));
    ok(log.purge_prefix(LogIndex(2), Term(1)));
    ok(log.save_vote(Vote {
        term: Term(4),
        voted_for: None,
    }));
    ok(log.sync());
    drop(log);
    let found = open(&mut place).1;
    assert_eq!(found.purged, (LogIndex(2), Term(1)));
    assert_eq!(
        found.vote,
        Vote {
            term: Term(4),
            voted_for: None
        }
    );
    assert_eq!(
        found.records,
        [record(3, 3), record(4, 3)],
        "the log goes on where it ended"
    );
}

fn a_truncated_suffix_can_be_written_anew<R: Reopen>(mut place: R) {
    let (mut log, _) = open(&mut place);
    ok(log.append(&[record(1, 1), record(2, 1), record(3, 1)]));
    ok(log.sync());
    ok(log.truncate_suffix(LogIndex(9)));
    ok(log.truncate_suffix(LogIndex(2)));
    ok(log.append(&[record(2, 2)]));
    ok(log.sync());
    drop(log);
    assert_eq!(open(&mut place).1.records, [record(1, 1), record(2, 2)]);
}

fn a_purge_beyond_the_end_empties_the_log<R: Reopen>(mut place: R) {
    let (mut log, _) = open(&mut place);
    ok(log.append(&[record(1, 1), record(2, 1)]));
    ok(log.purge_prefix(LogIndex(10), Term(4)));
    ok(log.append(&[record(11, 4)]));
    ok(log.purge_prefix(LogIndex(3), Term(1)));
    ok(log.sync());
    drop(log);
    let found = open(&mut place).1;
    assert_eq!(
        found.purged,
        (LogIndex(10), Term(4)),
        "a purge never goes back"
    );
    assert_eq!(found.records, [record(11, 4)]);
}

fn a_sync_of_nothing_changes_nothing<R: Reopen>(mut place: R) {
    let (mut log, _) = open(&mut place);
    ok(log.sync());
    ok(log.append(&[]));
    ok(log.sync());
    drop(log);
    assert_eq!(open(&mut place).1, Recovered::default());
}

fn records_of_any_size_are_kept<R: Reopen>(mut place: R) {
    let sizes = [0, 1, 4_000, 4_096, 100_000, 0, 3_000_000, 5];
    let records: Vec<Record> = (1..)
        .zip(sizes)
        .map(|(index, size)| sample_record(LogIndex(index), Term(1), size))
        .collect();
    let (mut log, _) = open(&mut place);
    for record in &records {
        ok(log.append(std::slice::from_ref(record)));
        ok(log.sync());
    }
    drop(log);
    assert_eq!(open(&mut place).1.records, records);
}

fn a_gap_is_the_callers_bug<R: Reopen>(mut place: R) {
    let (mut log, _) = open(&mut place);
    let gap = catch_unwind(AssertUnwindSafe(|| log.append(&[record(2, 1)])));
    assert!(gap.is_err(), "the first record has index 1");
}

fn any_sequence_agrees_with_the_model<R: Reopen>(mut place: R, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model = ModelLog::default();
    for _ in 0..12 {
        let (mut log, found) = open(&mut place);
        assert!(
            model.agrees(&found),
            "seed {seed}: found {found:?}, expected {model:?}"
        );
        for _ in 0..random.usize(..20) {
            for _ in 0..random.usize(..4) {
                ok(random_operation(&mut log, &mut model, &mut random, 6_000));
            }
            ok(log.sync());
        }
        ok(log.sync());
    }
}
