//! What one replica keeps on disk: its log and votes, its snapshots, and whose data directory this is.
//!
//! Owns: the file formats, the order of writes and syncs, and a faulty in-memory disk on which the same code
//! runs ([`SimDisk`]). Deliberately absent: what an entry or a snapshot means (bytes only), threads, retries.
//!
//! Reading order: [`LogStore`] is the contract, [`Disk`] what it stands on, [`FileLog`] keeps it.

mod backup;
mod bytes;
pub mod contract;
mod data_dir;
mod disk;
mod error;
mod log;
mod log_store;
mod sim_disk;
mod snapshot_store;

pub use backup::{BackupCheck, BackupError, pack_backup, unpack_backup};
pub use data_dir::{DataDir, Identity};
pub use disk::{Disk, DiskFile, OsDisk, OsFile};
pub use error::StorageError;
pub use log::{FileLog, LogOptions};
pub use log_store::{LogStore, Record, Recovered, Vote};
pub use sim_disk::{FaultCounts, SimDisk, SimFile};
pub use snapshot_store::{SnapshotMeta, SnapshotStore};
