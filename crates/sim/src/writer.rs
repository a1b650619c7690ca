//! A server's log writer: group commit on the simulated disk, and what its log was ordered to hold.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_codec::encode_entry;
use quorate_consensus::{Write, WriteSeq};
use quorate_coord::Envelope;
use quorate_replica::Input;
use quorate_storage::{LogStore, Record, StorageError, Vote};
use quorate_types::{LogIndex, Term};

use crate::faults::CrashPoint;
use crate::plant::Plant;
use crate::trace::hash_bytes;
use crate::world::{Event, World};

/// One write, encoded.
#[derive(Debug)]
struct Encoded {
    seq: WriteSeq,
    vote: Option<Vote>,
    truncate_from: Option<LogIndex>,
    purge_through: Option<(LogIndex, Term)>,
    records: Vec<Record>,
}

/// The writer: what arrives during one sync goes into the next.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    waiting: VecDeque<Encoded>,
    /// The last write of the sync under way.
    syncing: Option<WriteSeq>,
    /// The last durable write.
    pub(crate) durable: WriteSeq,
}

impl Writer {
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.syncing.is_none()
    }
}

/// What a log holds, as ordered: terms and hashes of the entries' bytes.
///
/// # Invariants
/// - `entries[0]` is the entry after `base`.
#[derive(Debug)]
pub(crate) struct Mirror {
    base: LogIndex,
    entries: VecDeque<(Term, u64)>,
}

impl Mirror {
    pub(crate) fn new(base: LogIndex) -> Self {
        Self {
            base,
            entries: VecDeque::new(),
        }
    }

    pub(crate) fn get(&self, index: LogIndex) -> Option<(Term, u64)> {
        let at = usize::try_from(index.0.checked_sub(self.base.0 + 1)?).ok()?;
        self.entries.get(at).copied()
    }

    pub(crate) fn push(&mut self, index: LogIndex, term: Term, hash: u64) {
        assert_eq!(
            index.0,
            self.base.0 + self.entries.len() as u64 + 1,
            "an ordered entry leaves a hole"
        );
        self.entries.push_back((term, hash));
    }

    fn truncate(&mut self, from: LogIndex) {
        let keep = from
            .0
            .checked_sub(self.base.0 + 1)
            .expect("what was purged is never truncated");
        self.entries
            .truncate(usize::try_from(keep).expect("a short log"));
    }

    fn purge(&mut self, through: LogIndex) {
        if through <= self.base {
            return;
        }
        let count = usize::try_from(through.0 - self.base.0)
            .expect("a short log")
            .min(self.entries.len());
        self.entries.drain(..count);
        self.base = through;
    }
}

impl World {
    /// Takes a write in.
    pub(crate) fn persist(&mut self, server: usize, write: Write<Envelope>) {
        let Write {
            seq,
            hard_state,
            truncate_from,
            purge_through,
            entries,
        } = write;
        let running = self.running(server).expect("it is running");
        if let Some(from) = truncate_from {
            running.mirror.truncate(from);
        }
        if let Some(through) = purge_through {
            running.mirror.purge(through.index);
        }
        let mut records = Vec::with_capacity(entries.len());
        let leads = running.replica.role() == quorate_consensus::Role::Leader;
        let leads = leads.then(|| running.replica.term());
        for entry in &entries {
            if leads == Some(entry.term) {
                self.checkers
                    .ends
                    .on_appended(self.now, entry.index, entry.term);
            }
            let running = self.servers[server].running.as_deref_mut();
            let running = running.expect("it is running");
            let bytes = encode_entry(entry);
            running
                .mirror
                .push(entry.index, entry.term, hash_bytes(&bytes));
            records.push(Record {
                index: entry.index,
                term: entry.term,
                bytes: bytes.into(),
            });
        }
        let running = self.running(server).expect("it is running");
        running.writer.waiting.push_back(Encoded {
            seq,
            vote: hard_state.map(|hard| Vote {
                term: hard.term,
                voted_for: hard.voted_for,
            }),
            truncate_from,
            purge_through: purge_through.map(|through| (through.index, through.term)),
            records,
        });
        if running.writer.syncing.is_none() {
            self.write(server);
        }
    }

    /// Hands everything that waits to the disk, and begins a sync.
    fn write(&mut self, server: usize) {
        let slow = self.servers[server].disk.latency();
        let running = self.running(server).expect("it is running");
        let mut through = None;
        let mut outcome = Ok(());
        for write in std::mem::take(&mut running.writer.waiting) {
            through = Some(write.seq);
            outcome = outcome.and_then(|()| apply(&mut running.log, &write));
        }
        running.writer.syncing = through;
        if let Err(error) = outcome {
            self.storage_failed(server, &error);
            return;
        }
        if through.is_some() {
            let sync = self.setup.sync * self.random.u32(100..400) / 100;
            let lying = self.is_planted(Plant::PersistedBeforeSync);
            let wait = if lying {
                Duration::from_micros(1)
            } else {
                sync + slow
            };
            let (at, boot) = (self.now + wait, self.servers[server].boot);
            self.at(at, Event::Synced { server, boot });
        }
    }

    /// The disk is done.
    pub(crate) fn on_synced(&mut self, server: usize, boot: u32) {
        if self.servers[server].boot != boot || self.servers[server].running.is_none() {
            return;
        }
        if let Some(waiting) = &mut self.servers[server].paused {
            waiting.push_back(Event::Synced { server, boot });
            return;
        }
        let skip = self.is_planted(Plant::PersistedBeforeSync) && self.random.u8(..8) > 0;
        if self.dies_at(server, CrashPoint::DuringSync) {
            return;
        }
        let running = self.running(server).expect("it is up");
        if !skip && let Err(error) = running.log.sync() {
            self.storage_failed(server, &error);
            return;
        }
        if self.dies_at(server, CrashPoint::AfterSync) {
            return;
        }
        let running = self.running(server).expect("it is up");
        let through = running.writer.syncing.take().expect("a sync was under way");
        running.writer.durable = through;
        let ready = running
            .held
            .iter()
            .take_while(|(write, _, _)| *write <= through)
            .count();
        let ready: Vec<_> = running.held.drain(..ready).collect();
        for (_, to, message) in ready {
            self.send(server, to, message);
        }
        if self.dies_at(server, CrashPoint::AfterPromises) {
            return;
        }
        self.step(server, Input::Persisted { through });
        if self.servers[server].boot == boot
            && let Some(running) = self.running(server)
            && running.writer.syncing.is_none()
        {
            self.write(server);
        }
    }
}

fn apply(log: &mut impl LogStore, write: &Encoded) -> Result<(), StorageError> {
    if let Some(vote) = write.vote {
        log.save_vote(vote)?;
    }
    if let Some(from) = write.truncate_from {
        log.truncate_suffix(from)?;
    }
    if let Some((index, term)) = write.purge_through {
        log.purge_prefix(index, term)?;
    }
    if !write.records.is_empty() {
        log.append(&write.records)?;
    }
    Ok(())
}
