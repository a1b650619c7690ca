//! What the process that gets killed writes: a sequence of steps that follows from a seed and the state it starts from.
//!
//! Owns: the steps, and what a correct data directory holds after each. Parent and child draw the same sequence, so that the
//! child need only say how many steps were acknowledged. Deliberately absent: disks and processes.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use quorate_storage::contract::{ModelLog, sample_record};
use quorate_storage::{LogOptions, Record, SnapshotMeta, Vote};
use quorate_types::{LogIndex, ReplicaId, Term};

/// Something that is acknowledged as a whole.
#[derive(Debug)]
pub(crate) enum Step {
    /// Operations of the log, then one sync.
    Batch(Vec<Operation>),
    /// A snapshot of our own.
    Save(SnapshotMeta),
    /// A snapshot received from a peer, in chunks of this size.
    Receive(SnapshotMeta, usize),
    /// A peer whose disk is remembered.
    Remember(ReplicaId, u64),
    /// A peer that was removed.
    Forget(ReplicaId),
    /// Closing the log and opening it again, which starts a segment.
    Reopen(LogOptions),
}

/// One operation of a batch.
#[derive(Debug)]
pub(crate) enum Operation {
    Append(Vec<Record>),
    Truncate(LogIndex),
    Purge(LogIndex, Term),
    Vote(Vote),
}

/// What a data directory says when it is opened, as far as it is promised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) log: ModelLog,
    pub(crate) newest: Option<SnapshotMeta>,
    pub(crate) peers: BTreeMap<ReplicaId, u64>,
}

impl State {
    /// A hash of all of it: processes compare this instead of sending each other records.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut put = |number: u64| {
            hasher.update(&number.to_le_bytes());
        };
        let found = &self.log.recovered;
        put(found.vote.term.0);
        put(found.vote.voted_for.map_or(0, |replica| replica.0));
        put(found.purged.0.0);
        put(found.purged.1.0);
        put(self.newest.map_or(0, |meta| meta.index.0));
        put(self.newest.map_or(0, |meta| meta.term.0));
        put(self.peers.len() as u64);
        for (peer, disk) in &self.peers {
            put(peer.0);
            put(*disk);
        }
        for record in &found.records {
            for number in [record.index.0, record.term.0, record.bytes.len() as u64] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&record.bytes);
        }
        hasher.finalize().to_hex().to_string()
    }

    fn log_bytes(&self) -> usize {
        let records = &self.log.recovered.records;
        records.iter().map(|record| record.bytes.len() + 60).sum()
    }
}

impl Display for State {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = &self.log.recovered;
        write!(
            to,
            "vote {}/{:?}, purged {}/{}, next {}, newest snapshot {:?}, {} peers",
            found.vote.term,
            found.vote.voted_for,
            found.purged.0,
            found.purged.1,
            self.log.next_index(),
            self.newest,
            self.peers.len()
        )
    }
}

/// A snapshot's bytes follow from its place.
pub(crate) fn image(meta: SnapshotMeta) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(meta.index.0 * 31 + meta.term.0);
    let len = if random.u8(..6) == 0 { 90_000 } else { 9_000 };
    (0..random.usize(..len)).map(|_| random.u8(..40)).collect()
}

/// Beyond this the log is snapshotted and purged, for the disk is small.
const LOG_BYTES_MAX: usize = 400_000;

/// Draws the steps.
pub(crate) struct Workload {
    random: fastrand::Rng,
    pub(crate) state: State,
}

impl Workload {
    pub(crate) fn new(seed: u64, state: State) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            state,
        }
    }

    /// Draws the next step and applies it to the state.
    pub(crate) fn step(&mut self) -> Step {
        let newest = self
            .state
            .newest
            .map_or(LogIndex::ZERO, |newest| newest.index);
        let purged = self.state.log.recovered.purged.0;
        let last = LogIndex(self.state.log.next_index().0 - 1);
        let kind = self.random.u8(..40);
        if self.state.log_bytes() > LOG_BYTES_MAX {
            return if newest > purged {
                self.purge_all()
            } else {
                self.save(last)
            };
        }
        match kind {
            0..=2 if last > newest && last > purged => {
                let from = newest.max(purged).0 + 1;
                let index = LogIndex(self.random.u64(from..=last.0));
                self.save(index)
            }
            3 => self.receive(newest.max(last)),
            4..=6 if newest > purged => self.purge_all(),
            7 => self.remember(),
            8 => self.forget(),
            9 => Step::Reopen(options(&mut self.random)),
            _ => self.batch(newest.max(purged)),
        }
    }

    fn save(&mut self, index: LogIndex) -> Step {
        let records = &self.state.log.recovered.records;
        let term = records
            .iter()
            .find(|record| record.index == index)
            .map(|record| record.term)
            .expect("a snapshot of our own ends with an entry of our log");
        let meta = SnapshotMeta { index, term };
        self.state.newest = Some(meta);
        Step::Save(meta)
    }

    fn receive(&mut self, after: LogIndex) -> Step {
        let index = LogIndex(after.0 + self.random.u64(1..30));
        let meta = SnapshotMeta {
            index,
            term: self.term(),
        };
        self.state.newest = Some(meta);
        Step::Receive(meta, self.random.usize(100..9_000))
    }

    /// Purges up to the newest snapshot, or to an entry before it.
    fn purge_all(&mut self) -> Step {
        let newest = self.state.newest.expect("the caller has seen it");
        let earlier = self
            .state
            .log
            .recovered
            .records
            .iter()
            .find(|record| record.index < newest.index)
            .map(|record| (record.index, record.term));
        let (through, term) = match earlier {
            Some(earlier) if self.random.u8(..4) == 0 => earlier,
            _ => (newest.index, newest.term),
        };
        self.state.log.purge_prefix(through, term);
        Step::Batch(vec![Operation::Purge(through, term)])
    }

    fn remember(&mut self) -> Step {
        let peer = ReplicaId(self.random.u64(1..=9));
        let disk = *self
            .state
            .peers
            .entry(peer)
            .or_insert_with(|| self.random.u64(1..));
        Step::Remember(peer, disk)
    }

    fn forget(&mut self) -> Step {
        let peer = ReplicaId(self.random.u64(1..=9));
        self.state.peers.remove(&peer);
        Step::Forget(peer)
    }

    fn batch(&mut self, keep: LogIndex) -> Step {
        let operations = (0..self.random.u8(1..=4))
            .map(|_| self.operation(keep))
            .collect();
        Step::Batch(operations)
    }

    fn operation(&mut self, keep: LogIndex) -> Operation {
        let log = &mut self.state.log;
        let next = log.next_index();
        match self.random.u8(..10) {
            0 | 1 => {
                let vote = Vote {
                    term: Term(log.recovered.vote.term.0 + 1),
                    voted_for: self
                        .random
                        .bool()
                        .then(|| ReplicaId(self.random.u64(1..=3))),
                };
                log.save_vote(vote);
                Operation::Vote(vote)
            }
            2 if next > keep.next() => {
                let from = LogIndex(self.random.u64(keep.next().0..next.0));
                log.truncate_suffix(from);
                Operation::Truncate(from)
            }
            _ => {
                let term = self.term();
                // Most batches fit their mirror slot; some need a marker.
                let size_max = match self.random.u8(..20) {
                    0 => 40_000,
                    1..=6 => 6_000,
                    _ => 600,
                };
                let records: Vec<Record> = (0..self.random.u64(1..4))
                    .map(|at| {
                        sample_record(LogIndex(next.0 + at), term, self.random.usize(..=size_max))
                    })
                    .collect();
                self.state.log.append(&records);
                Operation::Append(records)
            }
        }
    }

    fn term(&self) -> Term {
        Term(self.state.log.recovered.vote.term.0.max(1))
    }
}

/// How a log lays out its files in one run: all small enough for a disk of some megabytes.
pub(crate) fn options(random: &mut fastrand::Rng) -> LogOptions {
    let small = LogOptions::small();
    match random.u8(..4) {
        0 => small,
        1 => LogOptions {
            preallocate_bytes: 0,
            ..small
        },
        2 => LogOptions {
            segment_bytes: 100_000,
            mirror_bytes: 8_192,
            preallocate_bytes: 30_000,
            ..small
        },
        // The proportions of the default.
        _ => LogOptions {
            segment_bytes: 1 << 20,
            mirror_bytes: 128 << 10,
            preallocate_bytes: 128 << 10,
            ..small
        },
    }
}
