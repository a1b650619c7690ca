//! From a data directory to what a replica starts with.
//!
//! Owns: who this member is, and that a second bootstrap or a foreign directory is refused. Deliberately absent: repairing anything.

use std::sync::{Arc, Mutex};

use quorate_codec::CodecError;
use quorate_consensus::{HardState, LogPosition, SnapshotMeta};
use quorate_coord::{Envelope, State};
use quorate_storage::{
    DataDir, FileLog, Identity, LogOptions, OsDisk, Recovered, SnapshotStore, StorageError,
};
use quorate_types::{ClusterEpoch, LogIndex, ReplicaId};

use crate::clock;
use crate::config::ServerConfig;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Storage refused. Its hint says what to do.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is stored passes its checksums but cannot be decoded: a newer release wrote it, or it is damaged.
    #[error("read {what} from the data directory")]
    Undecodable {
        /// What was read.
        what: String,
        /// What is wrong.
        #[source]
        source: CodecError,
    },
    /// A record or snapshot says that it is another than its place says.
    #[error("read {what} from the data directory: it says that it is {found}; replace this member")]
    Misplaced {
        /// What was read.
        what: String,
        /// What it says it is.
        found: String,
    },
    /// The system gave no random number.
    #[error("read random bytes")]
    Random(#[source] std::io::Error),
}

/// Keeps the lock on the data directory, and writes down the peers' disks. Closed when the server stops, whoever still holds a handle.
#[derive(Clone)]
pub(crate) struct SharedDataDir(Arc<Mutex<Option<DataDir>>>);

impl SharedDataDir {
    fn new(data_dir: DataDir) -> Self {
        Self(Arc::new(Mutex::new(Some(data_dir))))
    }

    pub(crate) fn remember_peer(&self, peer: ReplicaId, disk: u64) -> Result<(), StorageError> {
        let mut data_dir = self.0.lock().expect("no holder of this lock panics");
        data_dir
            .as_mut()
            .map_or(Err(StorageError::Poisoned), |open| {
                open.remember_peer(peer, disk)
            })
    }

    /// Lets go of the directory: another process, or the next start in this one, may lock it.
    pub(crate) fn close(&self) {
        self.0.lock().expect("no holder of this lock panics").take();
    }
}

/// What was found, opened and decoded.
pub(crate) struct Booted {
    pub(crate) data_dir: SharedDataDir,
    pub(crate) disk_id: u64,
    pub(crate) epoch: ClusterEpoch,
    pub(crate) log: FileLog<OsDisk>,
    pub(crate) snapshots: SnapshotStore<OsDisk>,
    pub(crate) consensus: quorate_consensus::Boot<Envelope>,
    pub(crate) state: State,
}

/// Opens the data directory of this member, or creates it for a fresh cluster.
pub(crate) fn boot(config: &ServerConfig) -> Result<Booted, BootError> {
    let identity = Identity {
        cluster: config.cluster_id(),
        member: config.own_id(),
        disk: clock::random_u64().map_err(BootError::Random)?,
        epoch: ClusterEpoch::ZERO,
    };
    let data_dir = DataDir::open_or_create(&config.data_dir, identity)?;
    let identity = data_dir.identity();
    let (log, recovered) = data_dir.open_log(LogOptions::default())?;
    let snapshots = data_dir.open_snapshots()?;
    let (meta, state) = load_snapshot(config, &snapshots, &recovered)?;
    let entries = recovered
        .records
        .iter()
        .map(decode_record)
        .collect::<Result<Vec<_>, _>>()?;
    tracing::info!(
        cluster = %identity.cluster,
        epoch = identity.epoch.0,
        member = identity.member.0,
        disk = format!("{:016x}", identity.disk),
        new = data_dir.is_new(),
        term = recovered.vote.term.0,
        snapshot = meta.last.index.0,
        entries = entries.len(),
        torn_bytes = recovered.torn_bytes,
        "opened the data directory"
    );
    let hard_state = HardState {
        term: recovered.vote.term,
        voted_for: recovered.vote.voted_for,
    };
    Ok(Booted {
        data_dir: SharedDataDir::new(data_dir),
        disk_id: identity.disk,
        epoch: identity.epoch,
        log,
        snapshots,
        consensus: quorate_consensus::Boot {
            hard_state,
            snapshot: meta,
            entries,
        },
        state,
    })
}

fn load_snapshot(
    config: &ServerConfig,
    snapshots: &SnapshotStore<OsDisk>,
    recovered: &Recovered,
) -> Result<(SnapshotMeta, State), BootError> {
    let Some((stored, bytes)) = snapshots.load_covering(recovered.purged.0)? else {
        // Nothing was ever purged: the log starts with the cluster, and the cluster id vouches for the configuration.
        assert_eq!(
            recovered.purged.0,
            LogIndex::ZERO,
            "storage finds a snapshot wherever the log was purged"
        );
        let meta = SnapshotMeta {
            last: LogPosition::default(),
            configuration: config.initial_configuration(),
        };
        return Ok((meta, State::new()));
    };
    let what = || format!("the snapshot at entry {}", stored.index);
    let (meta, state) =
        quorate_codec::decode_snapshot(&bytes).map_err(|source| BootError::Undecodable {
            what: what(),
            source,
        })?;
    if meta.last
        != (LogPosition {
            term: stored.term,
            index: stored.index,
        })
        || state.applied().0 != stored.index
    {
        let found = format!(
            "of entry {}, its state of entry {}",
            meta.last.index,
            state.applied().0
        );
        return Err(BootError::Misplaced {
            what: what(),
            found,
        });
    }
    Ok((meta, state))
}

fn decode_record(
    record: &quorate_storage::Record,
) -> Result<quorate_consensus::Entry<Envelope>, BootError> {
    let what = || format!("log entry {}", record.index);
    let entry =
        quorate_codec::decode_entry(&record.bytes).map_err(|source| BootError::Undecodable {
            what: what(),
            source,
        })?;
    if entry.index != record.index || entry.term != record.term {
        let found = format!("entry {} of term {}", entry.index, entry.term);
        return Err(BootError::Misplaced {
            what: what(),
            found,
        });
    }
    Ok(entry)
}
