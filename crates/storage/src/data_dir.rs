//! One member's data directory: whose it is, that nobody else has it open, and which disks its peers have.
//!
//! Owns: `identity`, `peers` and `lock`, and the subdirectories of log and snapshots. Deliberately absent: what is
//! in those; deciding whether a cluster may be bootstrapped.
//!
//! A new directory gets its log first and its identity last, so that a directory with an identity always had a log: when
//! that is gone, the member has forgotten its votes, and must not start with an empty one.
//!
//! ```text
//! identity   magic [8] | format u32 | cluster u64 | member u64 | disk u64 | (format 2: epoch u64) | crc32c u32
//! peers      magic [8] | format u32 | count u32 | (member u64, disk u64)* | crc32c u32
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quorate_types::{ClusterEpoch, ClusterId, ReplicaId};
use rustix::fs::FlockOperation;

use crate::StorageError;
use crate::bytes::Reader;
use crate::disk::{Disk, DiskFile, OsDisk};
use crate::log::{FileLog, LogOptions};
use crate::log_store::Recovered;
use crate::snapshot_store::SnapshotStore;

const FORMAT: u32 = 1;
/// The identity of a restored cluster. Releases that know nothing of epochs must not take it for the one before it.
const IDENTITY_FORMAT: u32 = 2;
const IDENTITY: &str = "identity";
const PEERS: &str = "peers";
const LOCK: &str = "lock";
const IDENTITY_MAGIC: &[u8; 8] = b"quor-id\n";
const PEERS_MAGIC: &[u8; 8] = b"quorpeer";

/// Whose data a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: ReplicaId,
    /// A random number drawn when the directory is created: a member that comes back with another has lost its disk.
    pub disk: u64,
    /// How often the cluster was restored. Opening an existing directory does not compare it: it says what it is.
    pub epoch: ClusterEpoch,
}

/// An open, locked data directory. The lock ends with it, or with the process.
#[derive(Debug)]
pub struct DataDir {
    disk: OsDisk,
    identity: Identity,
    is_new: bool,
    peers: BTreeMap<ReplicaId, u64>,
    _lock: File,
}

impl DataDir {
    /// Opens a directory that must be this cluster's and this member's, or creates it with that identity. The disk id of
    /// an existing directory stays what it is.
    ///
    /// # Errors
    /// [`StorageError`]: stop, and show its hint.
    pub fn open_or_create(path: &Path, identity: Identity) -> Result<Self, StorageError> {
        let (disk, lock) = lock_dir(path, true)?;
        let Some(found) = read_identity(&disk)? else {
            return Self::create(disk, lock, identity);
        };
        if found.cluster != identity.cluster {
            let (found, expected) = (found.cluster, identity.cluster);
            return Err(StorageError::ForeignCluster {
                path: path.to_owned(),
                found,
                expected,
            });
        }
        if found.member != identity.member {
            let (found, expected) = (found.member, identity.member);
            return Err(StorageError::WrongMember {
                path: path.to_owned(),
                found,
                expected,
            });
        }
        Self::opened(disk, lock, found)
    }

    /// Opens an existing directory, whosever it is.
    ///
    /// # Errors
    /// [`StorageError::NotInitialized`] when there is none, or any other: stop, and show its hint.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        if !path.is_dir() {
            return Err(StorageError::NotInitialized {
                path: path.to_owned(),
            });
        }
        let (disk, lock) = lock_dir(path, false)?;
        match read_identity(&disk)? {
            Some(identity) => Self::opened(disk, lock, identity),
            None => Err(StorageError::NotInitialized {
                path: path.to_owned(),
            }),
        }
    }

    fn opened(disk: OsDisk, lock: File, identity: Identity) -> Result<Self, StorageError> {
        let peers = read_peers(&disk)?;
        // A process that died right after renaming one of these files has left its name only in the cache. We go by what it
        // says from here on, so it must not go with the power.
        disk.sync_dir()
            .map_err(|e| StorageError::sync("data directory", e))?;
        Ok(Self {
            disk,
            identity,
            is_new: false,
            peers,
            _lock: lock,
        })
    }

    fn create(disk: OsDisk, lock: File, identity: Identity) -> Result<Self, StorageError> {
        let dir = Self {
            disk,
            identity,
            is_new: true,
            peers: BTreeMap::new(),
            _lock: lock,
        };
        dir.clear_unfinished()?;
        // Before the identity, which then proves that there was a log.
        FileLog::open(
            dir.log_disk()?,
            LogOptions {
                preallocate_bytes: 0,
                ..LogOptions::default()
            },
        )?;
        dir.snapshot_disk()?;
        let mut body = Vec::new();
        for field in [identity.cluster.0, identity.member.0, identity.disk] {
            body.extend(field.to_le_bytes());
        }
        let format = if identity.epoch == ClusterEpoch::ZERO {
            FORMAT
        } else {
            body.extend(identity.epoch.0.to_le_bytes());
            IDENTITY_FORMAT
        };
        write_small(&dir.disk, IDENTITY, IDENTITY_MAGIC, format, &body)?;
        Ok(dir)
    }

    /// Removes what a creation that crashed left behind: a log in which nothing was ever written. Anything else without an
    /// identity is somebody's data.
    fn clear_unfinished(&self) -> Result<(), StorageError> {
        let foreign = |found: String| StorageError::IdentityMissing {
            path: self.path().to_owned(),
            found,
        };
        let entries = fs::read_dir(self.path()).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        for entry in entries.map_err(|e| StorageError::io("list", &self.shown(), e))? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !["log", "snapshots", LOCK, "identity.tmp", "lost+found"].contains(&name.as_str()) {
                return Err(foreign(name));
            }
        }
        let snapshots = self.snapshot_disk()?;
        if let Some(found) = snapshots
            .list()
            .map_err(|e| StorageError::io("list", "snapshots", e))?
            .first()
        {
            return Err(foreign(format!("snapshots/{found}")));
        }
        let log = self.log_disk()?;
        if log
            .list()
            .map_err(|e| StorageError::io("list", "log", e))?
            .is_empty()
        {
            return Ok(());
        }
        let (log, found) = FileLog::open(
            log,
            LogOptions {
                preallocate_bytes: 0,
                ..LogOptions::default()
            },
        )?;
        if found == Recovered::default() && log.is_untouched() {
            Ok(())
        } else {
            Err(foreign("log".to_owned()))
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether this opening created it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.disk.path()
    }

    /// Opens the log in it, which must be there.
    ///
    /// # Errors
    /// [`StorageError`]: stop, and show its hint.
    pub fn open_log(
        &self,
        options: LogOptions,
    ) -> Result<(FileLog<OsDisk>, Recovered), StorageError> {
        FileLog::open(
            self.log_disk()?,
            LogOptions {
                create_if_missing: false,
                ..options
            },
        )
    }

    /// Opens the snapshots in it.
    ///
    /// # Errors
    /// [`StorageError`]: stop, and show its hint.
    pub fn open_snapshots(&self) -> Result<SnapshotStore<OsDisk>, StorageError> {
        SnapshotStore::open(self.snapshot_disk()?)
    }

    fn log_disk(&self) -> Result<OsDisk, StorageError> {
        self.subdirectory("log")
    }

    fn snapshot_disk(&self) -> Result<OsDisk, StorageError> {
        self.subdirectory("snapshots")
    }

    fn subdirectory(&self, name: &str) -> Result<OsDisk, StorageError> {
        let path = self.path().join(name);
        OsDisk::open(&path).map_err(|e| StorageError::io("open", &path.display().to_string(), e))
    }

    fn shown(&self) -> String {
        self.path().display().to_string()
    }

    /// The disks first seen of other members.
    #[must_use]
    pub fn peers(&self) -> &BTreeMap<ReplicaId, u64> {
        &self.peers
    }

    /// Remembers, durably, which disk a member has, or compares with what is remembered.
    ///
    /// # Errors
    /// [`StorageError::PeerChanged`]: do not count that member's votes and acknowledgements; it has lost its disk, and with
    /// it what it promised. Any other: stop the process.
    pub fn remember_peer(&mut self, peer: ReplicaId, disk: u64) -> Result<(), StorageError> {
        match self.peers.get(&peer) {
            Some(known) if *known == disk => Ok(()),
            Some(known) => Err(StorageError::PeerChanged {
                peer,
                known: *known,
                presented: disk,
            }),
            None => {
                let mut peers = self.peers.clone();
                peers.insert(peer, disk);
                write_peers(&self.disk, &peers)?;
                self.peers = peers;
                Ok(())
            }
        }
    }

    /// Forgets a member that was removed from the cluster.
    ///
    /// # Errors
    /// [`StorageError`]: stop the process.
    pub fn forget_peer(&mut self, peer: ReplicaId) -> Result<(), StorageError> {
        let mut peers = self.peers.clone();
        if peers.remove(&peer).is_some() {
            write_peers(&self.disk, &peers)?;
            self.peers = peers;
        }
        Ok(())
    }
}

fn lock_dir(path: &Path, create: bool) -> Result<(OsDisk, File), StorageError> {
    let shown = path.display().to_string();
    let disk = OsDisk::open(path)
        .map_err(|e| StorageError::io(if create { "create" } else { "open" }, &shown, e))?;
    let lock_path = path.join(LOCK);
    let failed = |e| StorageError::io("lock", &lock_path.display().to_string(), e);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(path, &lock_path)),
        Err(error) => return Err(failed(error.into())),
    }
    // Only for the message above in another process; the lock itself is the kernel's. A full disk must not be in the way.
    let _ = lock
        .set_len(0)
        .and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok((disk, lock))
}

fn in_use(path: &Path, lock_path: &Path) -> StorageError {
    let pid = fs::read_to_string(lock_path)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    StorageError::InUse {
        path: PathBuf::from(path),
        pid,
    }
}

/// Writes a small file aside, syncs and renames it: it is never torn.
fn write_small(
    disk: &OsDisk,
    name: &str,
    magic: &[u8; 8],
    format: u32,
    body: &[u8],
) -> Result<(), StorageError> {
    let mut bytes = magic.to_vec();
    bytes.extend(format.to_le_bytes());
    bytes.extend_from_slice(body);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_le_bytes());
    let aside = format!("{name}.tmp");
    let mut file = disk
        .create(&aside)
        .map_err(|e| StorageError::io("create", &aside, e))?;
    file.write_at(0, &bytes)
        .map_err(|e| StorageError::io("write", &aside, e))?;
    file.sync().map_err(|e| StorageError::sync(&aside, e))?;
    disk.rename(&aside, name)
        .map_err(|e| StorageError::io("rename", &aside, e))?;
    disk.sync_dir()
        .map_err(|e| StorageError::sync("data directory", e))
}

/// Reads a small file's format and body, `None` where there is no such file.
fn read_small(
    disk: &OsDisk,
    name: &str,
    magic: &[u8; 8],
    supported: u32,
) -> Result<Option<(u32, Vec<u8>)>, StorageError> {
    let mut file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("open", name, error)),
    };
    let bytes = file
        .read_at(0, 1 << 20)
        .map_err(|e| StorageError::io("read", name, e))?;
    let damaged = || StorageError::rotten(name, 0, "the checksum does not match");
    let (fields, crc) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
    if crc32c::crc32c(fields) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    let body = fields.strip_prefix(magic).ok_or_else(damaged)?;
    let (found, body) = body.split_first_chunk::<4>().ok_or_else(damaged)?;
    let found = u32::from_le_bytes(*found);
    if found > supported {
        return Err(StorageError::NewerFormat {
            file: name.to_owned(),
            found,
            supported,
        });
    }
    Ok(Some((found, body.to_vec())))
}

fn read_identity(disk: &OsDisk) -> Result<Option<Identity>, StorageError> {
    let Some((format, body)) = read_small(disk, IDENTITY, IDENTITY_MAGIC, IDENTITY_FORMAT)? else {
        return Ok(None);
    };
    let mut reader = Reader::new(&body);
    let mut read = || {
        Some(Identity {
            cluster: ClusterId(reader.u64()?),
            member: ReplicaId(reader.u64()?),
            disk: reader.u64()?,
            epoch: match format {
                FORMAT => ClusterEpoch::ZERO,
                _ => ClusterEpoch(reader.u64()?),
            },
        })
    };
    read()
        .map(Some)
        .ok_or_else(|| StorageError::rotten(IDENTITY, 0, "the file is too short"))
}

fn read_peers(disk: &OsDisk) -> Result<BTreeMap<ReplicaId, u64>, StorageError> {
    let Some((_, body)) = read_small(disk, PEERS, PEERS_MAGIC, FORMAT)? else {
        return Ok(BTreeMap::new());
    };
    let mut reader = Reader::new(&body);
    let mut read = || {
        let count = reader.u32()?;
        (0..count)
            .map(|_| Some((ReplicaId(reader.u64()?), reader.u64()?)))
            .collect::<Option<_>>()
    };
    read().ok_or_else(|| StorageError::rotten(PEERS, 0, "the file is too short"))
}

fn write_peers(disk: &OsDisk, peers: &BTreeMap<ReplicaId, u64>) -> Result<(), StorageError> {
    let count = u32::try_from(peers.len()).expect("a cluster has few members");
    let mut body = count.to_le_bytes().to_vec();
    for (peer, disk) in peers {
        body.extend(peer.0.to_le_bytes());
        body.extend(disk.to_le_bytes());
    }
    write_small(disk, PEERS, PEERS_MAGIC, FORMAT, &body)
}

#[cfg(test)]
mod tests {
    use quorate_types::Term;

    use super::*;
    use crate::log_store::{LogStore, Vote};

    const MINE: Identity = Identity {
        cluster: ClusterId(7),
        member: ReplicaId(2),
        disk: 99,
        epoch: ClusterEpoch::ZERO,
    };

    fn temporary() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        (dir, path)
    }

    #[test]
    fn a_directory_remembers_whose_it_is() {
        let (_keep, path) = temporary();
        assert!(matches!(
            DataDir::open(&path),
            Err(StorageError::NotInitialized { .. })
        ));
        let dir = DataDir::open_or_create(&path, MINE).unwrap();
        assert!(dir.is_new());
        drop(dir);
        let dir = DataDir::open_or_create(&path, Identity { disk: 1, ..MINE }).unwrap();
        assert_eq!(
            (dir.is_new(), dir.identity()),
            (false, MINE),
            "the disk id stays"
        );
        drop(dir);
        assert_eq!(DataDir::open(&path).unwrap().identity(), MINE);
    }

    #[test]
    fn the_epoch_of_a_restored_cluster_is_remembered_and_only_then_needs_the_newer_format() {
        for epoch in [ClusterEpoch::ZERO, ClusterEpoch(3)] {
            let (_keep, path) = temporary();
            let restored = Identity { epoch, ..MINE };
            drop(DataDir::open_or_create(&path, restored).unwrap());
            let format = fs::read(path.join(IDENTITY)).unwrap()[8];
            assert_eq!(format == 2, epoch != ClusterEpoch::ZERO);
            // Who opens it does not know the epoch, and learns it.
            let dir = DataDir::open_or_create(&path, MINE).unwrap();
            assert_eq!(dir.identity(), restored);
        }
    }

    #[test]
    fn a_foreign_cluster_another_member_and_a_second_process_are_refused() {
        let (_keep, path) = temporary();
        let dir = DataDir::open_or_create(&path, MINE).unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert!(
            matches!(&error, StorageError::InUse { pid: Some(pid), .. } if *pid == std::process::id()),
            "{error}"
        );
        drop(dir);
        let error = DataDir::open_or_create(
            &path,
            Identity {
                cluster: ClusterId(8),
                ..MINE
            },
        )
        .unwrap_err();
        assert!(matches!(error, StorageError::ForeignCluster { .. }));
        let shown = format!(
            "open data directory `{}`: it belongs to cluster 0000000000000007, expected 0000000000000008",
            path.display()
        );
        assert_eq!(error.to_string(), shown);
        assert!(error.hint().is_some());
        let error = DataDir::open_or_create(
            &path,
            Identity {
                member: ReplicaId(3),
                ..MINE
            },
        )
        .unwrap_err();
        assert!(matches!(error, StorageError::WrongMember { .. }), "{error}");
    }

    #[test]
    fn any_byte_of_identity_or_peers_corrupted_is_refused() {
        let (_keep, path) = temporary();
        let mut dir = DataDir::open_or_create(&path, MINE).unwrap();
        dir.remember_peer(ReplicaId(1), 11).unwrap();
        drop(dir);
        for name in [IDENTITY, PEERS] {
            let good = fs::read(path.join(name)).unwrap();
            for byte in 0..good.len() {
                let mut bad = good.clone();
                bad[byte] ^= 0x20;
                fs::write(path.join(name), bad).unwrap();
                let error = DataDir::open_or_create(&path, MINE).unwrap_err();
                assert!(
                    matches!(error, StorageError::Rotten { .. }),
                    "{name} byte {byte}: {error}"
                );
            }
            fs::write(path.join(name), good).unwrap();
        }
        assert_eq!(
            DataDir::open(&path).unwrap().peers().get(&ReplicaId(1)),
            Some(&11)
        );
    }

    #[test]
    fn a_newer_format_says_so() {
        let (_keep, path) = temporary();
        drop(DataDir::open_or_create(&path, MINE).unwrap());
        let mut bytes = fs::read(path.join(IDENTITY)).unwrap();
        bytes[8] = 9;
        let end = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&crc);
        fs::write(path.join(IDENTITY), bytes).unwrap();
        assert!(matches!(
            DataDir::open(&path),
            Err(StorageError::NewerFormat {
                found: 9,
                supported: IDENTITY_FORMAT,
                ..
            })
        ));
    }

    #[test]
    fn a_member_that_lost_its_log_does_not_start_with_an_empty_one() {
        let (_keep, path) = temporary();
        let dir = DataDir::open_or_create(&path, MINE).unwrap();
        let (mut log, _) = dir.open_log(LogOptions::default()).unwrap();
        log.save_vote(Vote {
            term: Term(4),
            voted_for: Some(MINE.member),
        })
        .unwrap();
        log.sync().unwrap();
        drop(log);
        let (log, found) = dir.open_log(LogOptions::default()).unwrap();
        assert_eq!(found.vote.term, Term(4));
        drop(log);
        fs::remove_dir_all(path.join("log")).unwrap();
        assert!(matches!(
            dir.open_log(LogOptions::default()),
            Err(StorageError::LogMissing)
        ));
    }

    #[test]
    fn data_without_an_identity_is_refused_but_an_unfinished_creation_is_finished() {
        let (_keep, path) = temporary();
        drop(DataDir::open_or_create(&path, MINE).unwrap());
        fs::remove_file(path.join(IDENTITY)).unwrap();
        let dir = DataDir::open_or_create(&path, MINE).expect("nothing was ever written");
        assert!(dir.is_new());
        let (mut log, _) = dir.open_log(LogOptions::default()).unwrap();
        // Also when the log has come to be as empty as a new one.
        log.save_vote(Vote {
            term: Term(4),
            voted_for: None,
        })
        .unwrap();
        log.sync().unwrap();
        log.save_vote(Vote::default()).unwrap();
        log.sync().unwrap();
        drop((log, dir));
        fs::remove_file(path.join(IDENTITY)).unwrap();
        let error = DataDir::open_or_create(&path, MINE).unwrap_err();
        assert!(
            matches!(error, StorageError::IdentityMissing { .. }),
            "{error}"
        );
        let (_keep, path) = temporary();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("holiday.jpg"), "x").unwrap();
        let error = DataDir::open_or_create(&path, MINE).unwrap_err();
        assert!(
            matches!(&error, StorageError::IdentityMissing { found, .. } if found == "holiday.jpg"),
            "{error}"
        );
    }

    #[test]
    fn a_peer_with_another_disk_than_the_first_is_refused() {
        let (_keep, path) = temporary();
        let mut dir = DataDir::open_or_create(&path, MINE).unwrap();
        dir.remember_peer(ReplicaId(1), 11).unwrap();
        dir.remember_peer(ReplicaId(3), 33).unwrap();
        drop(dir);
        let mut dir = DataDir::open(&path).unwrap();
        dir.remember_peer(ReplicaId(1), 11).unwrap();
        let error = dir.remember_peer(ReplicaId(1), 12).unwrap_err();
        assert!(
            matches!(
                error,
                StorageError::PeerChanged {
                    known: 11,
                    presented: 12,
                    ..
                }
            ),
            "{error}"
        );
        dir.forget_peer(ReplicaId(1)).unwrap();
        drop(dir);
        let mut dir = DataDir::open(&path).unwrap();
        dir.remember_peer(ReplicaId(1), 12).unwrap();
    }
}
