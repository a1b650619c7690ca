//! The thread that owns the log: everything that arrived during one sync goes into the next (group commit).
//!
//! Owns: the order of writes. Deliberately absent: retries. A failed write or sync stops the process (protocol, section 7).

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
    let thread = std::thread::Builder::new()
        .name("quorate-writer".to_owned())
        .spawn(move || {
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
        let mut entries = write(&mut log, &first)?;
        while entries < ENTRIES_PER_SYNC_MAX
            && let Ok(next) = writes.try_recv()
        {
            assert!(
                next.seq > through,
                "writes come in order: {:?} after {through:?}",
                next.seq
            );
            through = next.seq;
            entries += write(&mut log, &next)?;
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
fn write(log: &mut impl LogStore, write: &Write<Envelope>) -> Result<usize, StorageError> {
    if let Some(vote) = write.hard_state {
        log.save_vote(Vote {
            term: vote.term,
            voted_for: vote.voted_for,
        })?;
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
    Record {
        index: entry.index,
        term: entry.term,
        bytes: quorate_codec::encode_entry(entry).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_consensus::{Body, HardState, WriteSeq};
    use quorate_storage::{FileLog, LogOptions, SimDisk};
    use quorate_types::{LogIndex, ReplicaId, Term};

    use super::*;

    fn entries(seq: u64) -> Write<Envelope> {
        let entry = Entry {
            index: LogIndex(seq),
            term: Term(1),
            body: Body::OwnTerm,
        };
        Write {
            seq: WriteSeq(seq),
            hard_state: None,
            truncate_from: None,
            purge_through: None,
            entries: vec![entry],
        }
    }

    fn persisted(inbox: &Inbox) -> Option<WriteSeq> {
        let round = inbox.take(Duration::from_secs(10), 0);
        let waiting = round.vital.into_iter().next_back()?;
        match waiting.input {
            Input::Persisted { through } => Some(through),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn writes_that_wait_together_share_one_sync_and_are_reported_durable_together() {
        let disk = SimDisk::new(1);
        let (log, _) = FileLog::open(disk.clone(), LogOptions::small()).unwrap();
        let (inbox, metrics, stop) = (
            Arc::new(Inbox::new()),
            Arc::new(Metrics::new("test")),
            Stop::new(),
        );
        let (sender, receiver) = channel();
        sender
            .send(Write {
                hard_state: Some(HardState {
                    term: Term(1),
                    voted_for: Some(ReplicaId(1)),
                }),
                ..entries(1)
            })
            .unwrap();
        for seq in 2..=100 {
            sender.send(entries(seq)).unwrap();
        }
        drop(sender);
        run(log, &receiver, &inbox, &metrics).unwrap();
        assert_eq!(persisted(&inbox), Some(WriteSeq(100)));
        let text = metrics.render();
        assert!(text.contains("quorate_log_syncs_total 1\n"), "{text}");
        assert!(text.contains("quorate_log_entries_total 100\n"), "{text}");
        assert!(stop.reason().is_none());
        let (_, recovered) = FileLog::open(disk, LogOptions::small()).unwrap();
        assert_eq!(
            (recovered.records.len(), recovered.vote.term),
            (100, Term(1))
        );
    }

    #[tokio::test]
    async fn a_failed_sync_stops_the_server_and_reports_nothing_durable() {
        let disk = SimDisk::new(1);
        let (log, _) = FileLog::open(disk.clone(), LogOptions::small()).unwrap();
        disk.fail_syncs(1);
        let (inbox, metrics, stop) = (
            Arc::new(Inbox::new()),
            Arc::new(Metrics::new("test")),
            Stop::new(),
        );
        let (sender, thread) = spawn(log, Arc::clone(&inbox), metrics, stop.clone()).unwrap();
        sender.send(entries(1)).unwrap();
        let StopReason::Storage(error) = stop.wait().await else {
            panic!()
        };
        assert!(
            matches!(*error, StorageError::SyncFailed { .. }),
            "{error:?}"
        );
        thread.join().unwrap();
        assert!(inbox.take(Duration::ZERO, 0).vital.is_empty());
    }
}
