//! Why storage refused or failed, and the way out.
//!
//! Owns: the one error of this crate. Deliberately absent: retrying; after a failed write or sync the process
//! stops and learns the truth by reopening (protocol, section 7).

use std::io;
use std::path::PathBuf;

use quorate_types::{ClusterId, LogIndex, ReplicaId, Term};

/// What an operator does with a member whose disk lost what it had acknowledged.
const REPLACE_MEMBER: &str = "never edit, cut or copy back these files; stop this server, move its data directory away \
                              and let a new member with a new id take its place, which copies the state from its peers";

/// Why storage refused or failed. After an error of a log the process must stop; [`hint`](Self::hint) is for
/// its operator.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The file system is full (or over its quota).
    #[error("{op} `{file}`: no space left")]
    Full {
        /// What was tried.
        op: &'static str,
        /// On which file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A sync failed: what it should have made durable may be lost, and a second sync would not tell.
    #[error("sync `{file}`: failed, so that what was written may be lost")]
    SyncFailed {
        /// The file or directory.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the system.
    #[error("{op} `{file}`: failed")]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file.
        file: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something that was acknowledged is damaged or missing. Nothing was cut or changed.
    #[error("`{file}` is rotten at byte {offset}: {what}; {REPLACE_MEMBER}")]
    Rotten {
        /// The damaged or missing file.
        file: String,
        /// Where the damage was found.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The directory holds no log although it must.
    #[error("no log in a data directory that had one; {REPLACE_MEMBER}")]
    LogMissing,
    /// A newer release wrote this file.
    #[error("`{file}` has format {found}, this release reads up to {supported}")]
    NewerFormat {
        /// The file.
        file: String,
        /// Its format.
        found: u32,
        /// The newest that is understood.
        supported: u32,
    },
    /// Another process has the data directory open.
    #[error("open data directory `{}`: in use by another process{}", path.display(), pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, where it could be read.
        pid: Option<u32>,
    },
    /// The data directory belongs to another cluster.
    #[error("open data directory `{}`: it belongs to cluster {found}, expected {expected}", path.display())]
    ForeignCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it belongs to.
        found: ClusterId,
        /// The cluster of this server's configuration.
        expected: ClusterId,
    },
    /// The data directory belongs to another member of the cluster.
    #[error("open data directory `{}`: it belongs to member {found}, expected {expected}", path.display())]
    WrongMember {
        /// The directory.
        path: PathBuf,
        /// The member it belongs to.
        found: ReplicaId,
        /// The member that this server is configured to be.
        expected: ReplicaId,
    },
    /// The directory was never initialized.
    #[error("open data directory `{}`: no identity in it, it was never initialized", path.display())]
    NotInitialized {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds data but not the file that says whose.
    #[error("open data directory `{}`: it holds data (`{found}`) but no identity", path.display())]
    IdentityMissing {
        /// The directory.
        path: PathBuf,
        /// One of the things found in it.
        found: String,
    },
    /// A member came back with another disk than the one first seen, so it may have forgotten votes.
    #[error(
        "accept member {peer}: its disk is {presented:016x}, but this member knows it with disk {known:016x}"
    )]
    PeerChanged {
        /// The member.
        peer: ReplicaId,
        /// The disk id first seen.
        known: u64,
        /// The disk id it presents now.
        presented: u64,
    },
    /// No such snapshot here (any more).
    #[error("read snapshot at index {index}, term {term}: not here")]
    SnapshotUnknown {
        /// Its last index.
        index: LogIndex,
        /// Its last term.
        term: Term,
    },
    /// A chunk of an incoming snapshot does not follow the last one. Ask the sender for `expected`, or zero.
    #[error("receive snapshot: chunk at byte {found}, expected {expected}")]
    IncomingOutOfOrder {
        /// Where the next chunk must start.
        expected: u64,
        /// Where it started.
        found: u64,
    },
    /// An incoming snapshot is not what its sender announced. It was discarded; begin again.
    #[error("receive snapshot: {what}")]
    IncomingRotten {
        /// What is wrong with it.
        what: String,
    },
    /// A snapshot is larger than allowed.
    #[error("snapshot of {bytes} bytes: larger than the limit of {bytes_max}")]
    SnapshotTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// An earlier operation failed; what is durable is known only after reopening.
    #[error("storage stopped after an earlier failure")]
    Poisoned,
}

impl StorageError {
    /// What the operator can do about it, on one line.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Full { .. } => Some(
                "free space on this file system, then start the server again; nothing acknowledged is lost",
            ),
            Self::SyncFailed { .. } => Some(
                "check the disk and the kernel log, then start the server again; if it keeps failing, replace the member",
            ),
            Self::Io { .. } => {
                Some("check permissions, the disk and the kernel log, then start the server again")
            }
            Self::Rotten { .. } | Self::LogMissing => Some(REPLACE_MEMBER),
            Self::NewerFormat { .. } => Some("start the release that wrote it, or a newer one"),
            Self::InUse { .. } => {
                Some("stop the other process, or give this server its own data directory")
            }
            Self::ForeignCluster { .. } => Some(
                "check --data-dir and --initial-cluster; to join this cluster, use an empty data directory",
            ),
            Self::WrongMember { .. } => Some(
                "check --data-dir and the member's id; every member needs its own data directory",
            ),
            Self::NotInitialized { .. } => {
                Some("check --data-dir, or initialize it by bootstrapping or joining a cluster")
            }
            Self::IdentityMissing { .. } => {
                Some("check --data-dir; use an empty directory for a new member")
            }
            Self::PeerChanged { .. } => Some(
                "a member that lost its disk comes back under a new id: remove the old one and add a new one",
            ),
            Self::SnapshotTooLarge { .. } => {
                Some("raise the limit on snapshot sizes on every member")
            }
            Self::SnapshotUnknown { .. }
            | Self::IncomingOutOfOrder { .. }
            | Self::IncomingRotten { .. } => None,
            Self::Poisoned => Some("start the server again; the first failure is in its log"),
        }
    }

    pub(crate) fn io(op: &'static str, file: &str, source: io::Error) -> Self {
        let file = file.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { op, file, source }
            }
            _ => Self::Io { op, file, source },
        }
    }

    pub(crate) fn sync(file: &str, source: io::Error) -> Self {
        Self::SyncFailed {
            file: file.to_owned(),
            source,
        }
    }

    pub(crate) fn rotten(file: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Rotten {
            file: file.to_owned(),
            offset,
            what: what.into(),
        }
    }
}
