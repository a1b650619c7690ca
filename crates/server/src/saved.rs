//! Saved snapshots: what servers stream to who keeps one, and what a data directory is restored from.
//!
//! A restored cluster is another than the one that was saved: it has another epoch, by which servers of both refuse each other, and its
//! state goes on far above the numbers of the old one (protocol, section 7; `State::restored`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_codec::CodecError;
use quorate_consensus::{LogPosition, SnapshotMeta};
use quorate_coord::{RESTORE_RAISE, Restore, State};
use quorate_storage::{
    BackupError, DataDir, Identity, LogOptions, LogStore, StorageError, Vote, unpack_backup,
};
use quorate_types::{ClusterEpoch, ClusterId};

use crate::clock;
use crate::config::ServerConfig;

/// Why a saved snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The data directory. Its hint says what to do.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file is damaged, incomplete or none of ours.
    #[error("read `{name}`")]
    Unusable {
        /// The file.
        name: String,
        /// What is wrong.
        #[source]
        source: BackupError,
    },
    /// It passes its checksum but cannot be decoded: a newer release wrote it.
    #[error("read the state in `{name}`")]
    Undecodable {
        /// The file.
        name: String,
        /// What is wrong.
        #[source]
        source: CodecError,
    },
    /// It says that it is another than its place says.
    #[error("`{name}` says that it is of entry {said}, its state is of entry {found}")]
    Misplaced {
        /// The file.
        name: String,
        /// What it says.
        said: u64,
        /// What it is.
        found: u64,
    },
    /// There is something where the data directory should go.
    #[error("`{}` is not empty", path.display())]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// The epoch asked for is not above that of the snapshot, or absurdly far above.
    #[error("epoch {asked} is not within 1,000 above {saved}, that of the snapshot")]
    BadEpoch {
        /// The one asked for.
        asked: u64,
        /// The snapshot's.
        saved: u64,
    },
    /// Creating the data directory failed.
    #[error("{what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// What a saved snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedSummary {
    /// The epoch of the cluster that it is of.
    pub epoch: ClusterEpoch,
    /// The last log entry in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The revision of groups and sessions.
    pub revision: u64,
    /// The revision of the key space.
    pub kv_revision: u64,
    /// How many keys there are.
    pub keys: u64,
    /// How much the key space holds, its history included.
    pub kv_bytes: u64,
    /// How many sessions there are, leases included.
    pub sessions: u64,
    /// How many groups there are.
    pub groups: u64,
    /// The names of the cluster's members.
    pub members: Vec<String>,
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The cluster that its server will be of.
    pub cluster: ClusterId,
    /// Its epoch: the same on every server that is to be of it.
    pub epoch: ClusterEpoch,
    /// The revision that the key space goes on from.
    pub kv_revision: u64,
    /// How long nothing is granted after the servers have started.
    pub waits: Duration,
}

/// A saved snapshot, checked.
pub struct Saved {
    meta: SnapshotMeta,
    state: State,
}

/// How far above the snapshot's an epoch may be.
const EPOCHS_MAX: u64 = 1_000;

/// The epoch of the cluster that has this state: each restore raises the revision by more than a cluster uses in its life, so the
/// revision itself counts them.
fn epoch_of(state: &State) -> ClusterEpoch {
    ClusterEpoch(state.revision().0 / RESTORE_RAISE)
}

impl Saved {
    /// Reads a file's bytes. `name` is for messages.
    ///
    /// # Errors
    /// [`SavedError`]: it is damaged, incomplete, no snapshot at all, or from a newer release.
    pub fn read(name: &str, bytes: &[u8]) -> Result<Self, SavedError> {
        let plain = unpack_backup(bytes).map_err(|source| SavedError::Unusable {
            name: name.to_owned(),
            source,
        })?;
        let (meta, state) =
            quorate_codec::decode_snapshot(&plain).map_err(|source| SavedError::Undecodable {
                name: name.to_owned(),
                source,
            })?;
        if (meta.last.index, meta.last.term) != state.applied() {
            return Err(SavedError::Misplaced {
                name: name.to_owned(),
                said: meta.last.index.0,
                found: state.applied().0.0,
            });
        }
        Ok(Self { meta, state })
    }

    /// What it holds.
    #[must_use]
    pub fn summary(&self) -> SavedSummary {
        SavedSummary {
            epoch: epoch_of(&self.state),
            index: self.meta.last.index.0,
            term: self.meta.last.term.0,
            revision: self.state.revision().0,
            kv_revision: self.state.kv().revision(),
            keys: self.state.kv().key_count(),
            kv_bytes: self.state.kv().size_bytes(),
            sessions: self.state.sessions().count() as u64,
            groups: self.state.groups().count() as u64,
            members: self
                .meta
                .configuration
                .members
                .values()
                .map(|member| member.name.clone())
                .collect(),
        }
    }

    /// Makes a data directory of it, for the server of this configuration. The same file, epoch and `ttl_longest` must be used for all
    /// servers of the new cluster: they start from one state.
    ///
    /// `epoch` none: the one after the snapshot's. `ttl_longest` is the longest TTL of any node's session that was opened after the
    /// snapshot.
    ///
    /// # Errors
    /// [`SavedError`]: nothing was made.
    pub fn restore(
        self,
        config: &ServerConfig,
        epoch: Option<ClusterEpoch>,
        ttl_longest: Duration,
    ) -> Result<Restored, SavedError> {
        let saved = epoch_of(&self.state).0;
        let epoch = epoch.unwrap_or(ClusterEpoch(saved + 1));
        if epoch.0 <= saved || epoch.0 > saved + EPOCHS_MAX {
            let asked = epoch.0;
            return Err(SavedError::BadEpoch { asked, saved });
        }
        let path = &config.data_dir;
        if fs_entries(path)? > 0 {
            let path = path.clone();
            return Err(SavedError::NotEmpty { path });
        }
        let before = self.state.cluster_time();
        let restore = Restore {
            ttl_ms_longest: u64::try_from(ttl_longest.as_millis()).unwrap_or(u64::MAX),
            drift: config.drift,
        };
        let mut state = self.state;
        while epoch_of(&state) < epoch {
            state = state.restored(&restore);
        }
        let waits = Duration::from_millis(state.granting_from().ms_since(before));
        let restored = Restored {
            cluster: config.cluster_id(),
            epoch,
            kv_revision: state.kv().revision(),
            waits,
        };
        // Under another name until it is whole: a directory with an identity and no state would start empty.
        let aside = beside(path, "restoring");
        remove_all(&aside)?;
        write(&aside, config, epoch, &state)?;
        if path.exists() {
            std::fs::remove_dir(path).map_err(failed("replace", path))?;
        }
        std::fs::rename(&aside, path).map_err(failed("put in place", path))?;
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        std::fs::File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(failed("sync the directory that holds", path))?;
        Ok(restored)
    }
}

fn write(
    path: &Path,
    config: &ServerConfig,
    epoch: ClusterEpoch,
    state: &State,
) -> Result<(), SavedError> {
    let random = clock::random_u64().map_err(failed("draw an id for", path))?;
    let identity = Identity {
        cluster: config.cluster_id(),
        member: config.own_id(),
        disk: random,
        epoch,
    };
    let (index, term) = state.applied();
    let meta = SnapshotMeta {
        last: LogPosition { term, index },
        configuration: config.initial_configuration(),
    };
    let data_dir = DataDir::open_or_create(path, identity)?;
    let plain = quorate_codec::encode_snapshot(&meta, state);
    data_dir
        .open_snapshots()?
        .save(quorate_storage::SnapshotMeta { index, term }, &plain)?;
    let (mut log, _) = data_dir.open_log(LogOptions::default())?;
    log.purge_prefix(index, term)?;
    // No vote was given in the new cluster yet, and its terms go on after the snapshot's.
    log.save_vote(Vote {
        term,
        voted_for: None,
    })?;
    log.sync()?;
    Ok(())
}

fn failed<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> SavedError + 'a {
    move |source| SavedError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn remove_all(path: &Path) -> Result<(), SavedError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn fs_entries(path: &Path) -> Result<usize, SavedError> {
    match std::fs::read_dir(path) {
        Ok(entries) => Ok(entries.count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(failed("list", path)(error)),
    }
}
