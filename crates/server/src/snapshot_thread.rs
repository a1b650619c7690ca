//! The thread that encodes, saves, reads and receives snapshots, so that none of it is done on the step thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use quorate_consensus::{Message, SnapshotMeta};
use quorate_coord::State;
use quorate_replica::{Input, PeerMessage};
use quorate_storage::{OsDisk, SnapshotStore, StorageError};
use quorate_types::{ReplicaId, Term};

use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::stop::{ErrorChain, Stop, StopReason};

/// Bytes of a snapshot file in one message.
const CHUNK_BYTES: usize = 256 * 1024;

/// What the thread is asked to do.
pub(crate) enum Job {
    /// Encode and save a version.
    Save {
        meta: SnapshotMeta,
        state: Box<State>,
    },
    /// Send a piece of a saved file.
    SendChunk {
        to: ReplicaId,
        term: Term,
        meta: SnapshotMeta,
        offset: u64,
    },
    /// Write a piece of an incoming file.
    WriteChunk {
        meta: SnapshotMeta,
        offset: u64,
        total: u64,
        data: Arc<[u8]>,
    },
}

/// Hands jobs to the thread.
pub(crate) type JobSender = Sender<Job>;

/// What the thread works with.
pub(crate) struct SnapshotWorker {
    pub(crate) store: SnapshotStore<OsDisk>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Stop,
}

/// Starts the thread. It ends when the sender is dropped, or the disk fails.
pub(crate) fn spawn(
    mut worker: SnapshotWorker,
) -> std::io::Result<(JobSender, std::thread::JoinHandle<()>)> {
    let (sender, receiver) = channel();
    let thread = std::thread::Builder::new()
        .name("quorate-snapshot".to_owned())
        .spawn(move || {
            let _guard = worker.stop.guard("snapshot");
            if let Err(error) = worker.run(&receiver) {
                worker.stop.leave(StopReason::Storage(Arc::new(error)));
            }
        })?;
    Ok((sender, thread))
}

fn stored(meta: &SnapshotMeta) -> quorate_storage::SnapshotMeta {
    quorate_storage::SnapshotMeta {
        index: meta.last.index,
        term: meta.last.term,
    }
}

impl SnapshotWorker {
    fn run(&mut self, jobs: &Receiver<Job>) -> Result<(), StorageError> {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Save { meta, state } => self.save(meta, *state)?,
                Job::SendChunk {
                    to,
                    term,
                    meta,
                    offset,
                } => self.send_chunk(to, term, meta, offset)?,
                Job::WriteChunk {
                    meta,
                    offset,
                    total,
                    data,
                } => self.write_chunk(meta, offset, total, &data)?,
            }
        }
        Ok(())
    }

    fn save(&mut self, meta: SnapshotMeta, state: State) -> Result<(), StorageError> {
        let begun = Instant::now();
        let bytes = quorate_codec::encode_snapshot(&meta, &state);
        drop(state);
        self.store.save(stored(&meta), &bytes)?;
        self.metrics.snapshot_seconds.record(begun.elapsed());
        self.metrics.snapshots_saved.increment(1);
        tracing::info!(
            index = meta.last.index.0,
            bytes = bytes.len(),
            ms = begun.elapsed().as_millis(),
            "saved a snapshot"
        );
        self.inbox.push(Input::SnapshotSaved { meta });
        Ok(())
    }

    fn send_chunk(
        &self,
        to: ReplicaId,
        term: Term,
        meta: SnapshotMeta,
        offset: u64,
    ) -> Result<(), StorageError> {
        match self.store.read_chunk(stored(&meta), offset, CHUNK_BYTES) {
            Ok((bytes, total)) => {
                let message = Message::SnapshotChunk {
                    term,
                    meta,
                    offset,
                    total,
                    data: bytes.into(),
                };
                self.peers.send(to, PeerMessage::Consensus(message));
                Ok(())
            }
            // A newer one replaced it meanwhile; the follower is offered that one after a timeout.
            Err(StorageError::SnapshotUnknown { .. }) => {
                tracing::debug!(%to, index = meta.last.index.0, "the snapshot asked for is gone");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn write_chunk(
        &mut self,
        meta: SnapshotMeta,
        offset: u64,
        total: u64,
        data: &[u8],
    ) -> Result<(), StorageError> {
        match self.try_write_chunk(&meta, offset, total, data) {
            Ok(None) => {
                let next = offset + data.len() as u64;
                self.inbox.push(Input::SnapshotChunkWritten { meta, next });
                Ok(())
            }
            Ok(Some(state)) => {
                tracing::info!(
                    index = meta.last.index.0,
                    bytes = total,
                    "received a snapshot"
                );
                self.metrics.snapshots_installed.increment(1);
                self.inbox.push(Input::SnapshotArrived { meta, state });
                Ok(())
            }
            Err(ChunkError::Broken(why)) => {
                tracing::warn!(index = meta.last.index.0, %why, "an incoming snapshot is broken; asking for it again");
                self.store.discard_incoming()?;
                self.inbox.push(Input::SnapshotBroken { meta });
                Ok(())
            }
            Err(ChunkError::Disk(error)) => Err(error),
        }
    }

    fn try_write_chunk(
        &mut self,
        meta: &SnapshotMeta,
        offset: u64,
        total: u64,
        data: &[u8],
    ) -> Result<Option<Box<State>>, ChunkError> {
        if offset == 0 {
            self.store.begin_incoming(stored(meta))?;
        }
        self.store.write_incoming(stored(meta), offset, data)?;
        if offset + data.len() as u64 != total {
            return Ok(None);
        }
        let bytes = self.store.finish_incoming(stored(meta))?;
        let (found, state) = quorate_codec::decode_snapshot(&bytes)
            .map_err(|e| ChunkError::Broken(ErrorChain(&e).to_string()))?;
        if found != *meta {
            return Err(ChunkError::Broken(
                "it covers something else than its sender said".to_owned(),
            ));
        }
        Ok(Some(Box::new(state)))
    }
}

/// What went wrong with a piece: the bytes, or this disk.
enum ChunkError {
    Broken(String),
    Disk(StorageError),
}

impl From<StorageError> for ChunkError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::IncomingOutOfOrder { .. }
            | StorageError::IncomingRotten { .. }
            | StorageError::SnapshotTooLarge { .. } => Self::Broken(error.to_string()),
            error => Self::Disk(error),
        }
    }
}
