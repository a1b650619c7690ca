//! The narrow trait by which the shell keeps the log and the vote durable.
//!
//! Owns: the contract that every implementation passes (`contract.rs`). Deliberately absent: transactions,
//! reads of single entries (the core holds the live suffix in memory), any knowledge of what an entry means.

use std::sync::Arc;

use quorate_types::{LogIndex, ReplicaId, Term};

use crate::StorageError;

/// One log entry as storage sees it: its place, and bytes that only the codec understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position; consecutive records have consecutive indexes.
    pub index: LogIndex,
    /// The term in which it was proposed.
    pub term: Term,
    /// The encoded entry.
    pub bytes: Arc<[u8]>,
}

/// What a replica must never forget about elections (Raft thesis, section 3.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The highest term seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<ReplicaId>,
}

/// What was found durable when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last vote saved.
    pub vote: Vote,
    /// The index and term after which the log starts: what was purged, or zero.
    pub purged: (LogIndex, Term),
    /// Every record after `purged`, in order.
    pub records: Vec<Record>,
    /// Bytes of an unacknowledged, torn tail that were cut off.
    pub torn_bytes: u64,
}

/// A durable log with the vote in the same stream.
///
/// Nothing is durable before [`sync`](Self::sync) returned; everything given before it is durable after.
/// After any error the store is poisoned: the process must stop, and learns the truth by reopening (a failed
/// sync is never retried, protocol, section 7).
pub trait LogStore: Send {
    /// Adds records after the last one.
    ///
    /// # Errors
    /// [`StorageError`]: stop the process.
    ///
    /// # Panics
    /// When an index does not follow the last one: the caller's bug.
    fn append(&mut self, records: &[Record]) -> Result<(), StorageError>;

    /// Drops every record from `from` on.
    ///
    /// # Errors
    /// [`StorageError`]: stop the process.
    fn truncate_suffix(&mut self, from: LogIndex) -> Result<(), StorageError>;

    /// Drops every record up to and including `through`, which a durable snapshot covers and whose term is `term`.
    /// Beyond the last record it empties the log, which then starts after `through`.
    ///
    /// # Errors
    /// [`StorageError`]: stop the process.
    fn purge_prefix(&mut self, through: LogIndex, term: Term) -> Result<(), StorageError>;

    /// Replaces the vote.
    ///
    /// # Errors
    /// [`StorageError`]: stop the process.
    fn save_vote(&mut self, vote: Vote) -> Result<(), StorageError>;

    /// Returns once everything given so far is durable.
    ///
    /// # Errors
    /// [`StorageError`]: stop the process.
    fn sync(&mut self) -> Result<(), StorageError>;
}
