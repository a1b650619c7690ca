//! The thread that owns the log: everything that arrived during one sync goes into the next (group commit).
//!
//! Owns: the order of writes. Deliberately absent: retries. A failed write or sync stops the process (design, section 6).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use quorate_consensus::{Entry, Write};
use quorate_coord::Envelope;
use quorate_replica::Input;
use quorate_storage::{LogStore, Record, StorageError, Vote};

use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::stop::{Stop, StopReason};

/// Most entries made durable by one sync, so that a flood does not put off the answer to the first.
const ENTRIES_PER_SYNC_MAX: usize = 8_192;

/// Hands writes to the writer thread, in order.
pub(crate) type WriteSender = Sender<Write<Envelope>>;

/// Starts the thread. It ends when the sender is dropped, or the log fails.
pub(crate) fn spawn(
    log: impl LogStore + 'static,
    inbox: Arc<Inbox>,
    metrics: Arc<Metrics>,
    stop: Stop,
) -> std::io::Result<(WriteSender, std::thread::JoinHandle<()>)> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new().name("quorate-writer".to_owned()).spawn(move || {
        let _guard = stop.guard("log writer");
        if let Err(error) = run(log, &receiver, &inbox, &metrics) {
            stop.leave(StopReason::Storage(Arc::new(error)));
        }
    })?;
    Ok((sender, thread))
}

fn run(
    mut log: impl LogStore,
    writes: &Receiver<Write<Envelope>>,
    inbox: &Inbox,
    metrics: &Metrics,
) -> Result<(), StorageError> {
    while let Ok(first) = writes.recv() {
        let mut through = first.seq;
        let mut entries = write(&mut log, first)?;
        while entries < ENTRIES_PER_SYNC_MAX
            && let Ok(next) = writes.try_recv()
        {
            assert!(next.seq > through, "writes come in order: {:?} after {through:?}", next.seq);
            through = next.seq;
            entries += write(&mut log, next)?;
        }
        let begun = Instant::now();
        log.sync()?;
        metrics.sync_seconds.record(begun.elapsed());
        metrics.log_syncs.increment(1);
        metrics.log_entries.increment(entries as u64);
        inbox.push(Input::Persisted { through });
    }
    Ok(())
}

/// Carries out one write's parts in the order of its fields; returns how many entries it appended.
fn write(log: &mut impl LogStore, write: Write<Envelope>) -> Result<usize, StorageError> {
    if let Some(vote) = write.hard_state {
        log.save_vote(Vote { term: vote.term, voted_for: vote.voted_for })?;
    }
    if let Some(from) = write.truncate_from {
        log.truncate_suffix(from)?;
    }
    if let Some(through) = write.purge_through {
        log.purge_prefix(through.index, through.term)?;
    }
    if !write.entries.is_empty() {
        let records: Vec<Record> = write.entries.iter().map(record).collect();
        log.append(&records)?;
    }
    Ok(write.entries.len())
}

fn record(entry: &Entry<Envelope>) -> Record {
    Record { index: entry.index, term: entry.term, bytes: quorate_codec::encode_entry(entry).into() }
}
