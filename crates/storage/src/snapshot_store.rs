//! Snapshots as checksummed, compressed files, and the one that is being received.
//!
//! Owns: the file format, the newest two files, receiving in chunks. Deliberately absent: what a snapshot means,
//! and when to take one.
//!
//! A snapshot is written aside, synced, renamed and its name synced: a file under its final name was whole once, so
//! one that fails its checksum is rotten, never torn. Peers transfer the file as it is, checksum included.
//!
//! ```text
//! magic [8] | format u32 | reserved u32 | index u64 | term u64 | plain_bytes u64 | packed_bytes u64 | blake3 [32] | zstd
//! ```
//! Little endian. The hash covers all that precedes it, and the compressed bytes.

use std::io::Read;

use quorate_types::{LogIndex, Term};

use crate::StorageError;
use crate::bytes::Reader;
use crate::disk::{Disk, DiskFile};

const MAGIC: &[u8; 8] = b"quorsnap";
const FORMAT: u32 = 1;
const HASH_AT: usize = 48;
const HEADER: usize = HASH_AT + 32;
/// Kept, so that a transfer of the last but one can end, and that rot in the newest is not the end.
const KEPT: usize = 2;
/// zstd's fastest level that still halves typical state; a snapshot must not hold up the replica.
const LEVEL: i32 = 1;
/// Bounds what one snapshot may unpack to, unless told otherwise.
const PLAIN_BYTES_MAX: u64 = 8 << 30;

/// Which snapshot: the last entry it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotMeta {
    /// The index of the last entry it covers.
    pub index: LogIndex,
    /// That entry's term.
    pub term: Term,
}

/// The snapshots of one replica on a [`Disk`].
///
/// # Invariants
/// - At most one snapshot is being received; its file is named `incoming-*` until it proved whole.
pub struct SnapshotStore<D: Disk> {
    disk: D,
    plain_bytes_max: u64,
    incoming: Option<Incoming<D::File>>,
    is_poisoned: bool,
}

struct Incoming<F> {
    meta: SnapshotMeta,
    file: F,
    received: u64,
}

impl<D: Disk> SnapshotStore<D> {
    /// Opens the snapshots in a directory, makes all that it shows durable, and removes what an interrupted save or transfer left.
    ///
    /// # Errors
    /// [`StorageError`]: stop, and show its hint.
    pub fn open(disk: D) -> Result<Self, StorageError> {
        for name in list(&disk)? {
            if (name.starts_with("snap-") && name.ends_with(".tmp"))
                || name.starts_with("incoming-")
            {
                disk.remove(&name)
                    .map_err(|e| StorageError::io("remove", &name, e))?;
            }
        }
        // A process that died right after a rename has left a name that is only in the cache. Whoever sees that snapshot may
        // purge the log before it, so it must not go with the power.
        disk.sync_dir()
            .map_err(|e| StorageError::sync("snapshot directory", e))?;
        Ok(Self {
            disk,
            plain_bytes_max: PLAIN_BYTES_MAX,
            incoming: None,
            is_poisoned: false,
        })
    }

    /// Bounds what a snapshot may unpack to.
    #[must_use]
    pub fn with_limit(mut self, plain_bytes_max: u64) -> Self {
        self.plain_bytes_max = plain_bytes_max;
        self
    }

    /// Keeps a snapshot durably, then removes all but the newest two.
    ///
    /// # Errors
    /// [`StorageError::Full`] and [`StorageError::SnapshotTooLarge`]: the older snapshots are untouched; go on with
    /// them and try again later. Any other: stop the process.
    pub fn save(&mut self, meta: SnapshotMeta, bytes: &[u8]) -> Result<(), StorageError> {
        self.check_usable()?;
        let plain_bytes = bytes.len() as u64;
        if plain_bytes > self.plain_bytes_max {
            return Err(StorageError::SnapshotTooLarge {
                bytes: plain_bytes,
                bytes_max: self.plain_bytes_max,
            });
        }
        let result = self.save_aside(meta, bytes);
        self.settle(result)
    }

    fn save_aside(&self, meta: SnapshotMeta, bytes: &[u8]) -> Result<(), StorageError> {
        let name = file_name(meta);
        let aside = format!("{name}.tmp");
        let packed = zstd::bulk::compress(bytes, LEVEL)
            .map_err(|e| StorageError::io("compress", &name, e))?;
        let header = encode_header(meta, bytes.len() as u64, &packed);
        let mut file = self
            .disk
            .create(&aside)
            .map_err(|e| StorageError::io("create", &aside, e))?;
        let written = file
            .write_at(0, &header)
            .and_then(|()| file.write_at(HEADER as u64, &packed));
        if let Err(error) = written {
            // Gives the room back; should that fail too, the next start does it.
            self.disk.remove(&aside).ok();
            return Err(StorageError::io("write", &aside, error));
        }
        self.publish(&mut file, &aside, &name)
    }

    fn publish(&self, file: &mut D::File, aside: &str, name: &str) -> Result<(), StorageError> {
        file.sync().map_err(|e| StorageError::sync(aside, e))?;
        self.disk
            .rename(aside, name)
            .map_err(|e| StorageError::io("rename", aside, e))?;
        self.disk
            .sync_dir()
            .map_err(|e| StorageError::sync("snapshot directory", e))?;
        let kept = self.metas()?;
        for meta in kept.iter().rev().skip(KEPT) {
            let old = file_name(*meta);
            self.disk
                .remove(&old)
                .map_err(|e| StorageError::io("remove", &old, e))?;
        }
        Ok(())
    }

    /// The snapshots here, oldest first.
    ///
    /// # Errors
    /// [`StorageError`]: stop the process.
    pub fn metas(&self) -> Result<Vec<SnapshotMeta>, StorageError> {
        let mut metas: Vec<_> = list(&self.disk)?
            .iter()
            .filter_map(|name| parse_name(name))
            .collect();
        metas.sort_unstable();
        Ok(metas)
    }

    /// The newest snapshot, checked.
    ///
    /// # Errors
    /// [`StorageError::Rotten`] when it is damaged: [`load_covering`](Self::load_covering) may find an older one.
    pub fn load_newest(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StorageError> {
        match self.metas()?.last() {
            Some(meta) => Ok(Some((*meta, self.load(*meta)?))),
            None => Ok(None),
        }
    }

    /// The newest undamaged snapshot from which a log that starts after `purged` goes on; `None` when the log
    /// reaches back to the beginning and there is no snapshot.
    ///
    /// # Errors
    /// [`StorageError::Rotten`] when a snapshot is damaged or missing and no older one joins up with the log: the
    /// member must be replaced.
    pub fn load_covering(
        &self,
        purged: LogIndex,
    ) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StorageError> {
        let mut first_error = None;
        for meta in self
            .metas()?
            .into_iter()
            .rev()
            .take_while(|meta| meta.index >= purged)
        {
            match self.load(meta) {
                Ok(bytes) => return Ok(Some((meta, bytes))),
                Err(error @ StorageError::Rotten { .. }) => {
                    first_error = first_error.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        if purged == LogIndex::ZERO {
            return Ok(None);
        }
        let missing = || {
            let what = format!(
                "the log starts after entry {purged}, and no snapshot covers what precedes it"
            );
            StorageError::rotten("snapshot directory", 0, what)
        };
        Err(first_error.unwrap_or_else(missing))
    }

    /// One snapshot, checked.
    ///
    /// # Errors
    /// [`StorageError::SnapshotUnknown`] when it is not here; [`StorageError::Rotten`] when it is damaged.
    pub fn load(&self, meta: SnapshotMeta) -> Result<Vec<u8>, StorageError> {
        let name = file_name(meta);
        let (mut file, size) = self.open_file(meta)?;
        let len = usize::try_from(size).expect("a snapshot fits the address space");
        let bytes = file
            .read_at(0, len)
            .map_err(|e| StorageError::io("read", &name, e))?;
        unpack(meta, &bytes, self.plain_bytes_max).map_err(|bad| match bad {
            Bad::Format(found) => StorageError::NewerFormat {
                file: name.clone(),
                found,
                supported: FORMAT,
            },
            Bad::TooLarge(bytes) => StorageError::SnapshotTooLarge {
                bytes,
                bytes_max: self.plain_bytes_max,
            },
            Bad::Damaged(offset, what) => StorageError::rotten(&name, offset, what),
        })
    }

    /// Some of a snapshot's *file*, as peers transfer it, and the file's size.
    ///
    /// # Errors
    /// [`StorageError::SnapshotUnknown`]: it was replaced by newer ones; send the newest from the start.
    pub fn read_chunk(
        &self,
        meta: SnapshotMeta,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(Vec<u8>, u64), StorageError> {
        let (mut file, size) = self.open_file(meta)?;
        let bytes = file
            .read_at(offset, bytes_max)
            .map_err(|e| StorageError::io("read", &file_name(meta), e))?;
        Ok((bytes, size))
    }

    fn open_file(&self, meta: SnapshotMeta) -> Result<(D::File, u64), StorageError> {
        let name = file_name(meta);
        let mut file = self.disk.open(&name).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => StorageError::SnapshotUnknown {
                index: meta.index,
                term: meta.term,
            },
            _ => StorageError::io("open", &name, error),
        })?;
        let size = file
            .size()
            .map_err(|e| StorageError::io("read", &name, e))?;
        Ok((file, size))
    }

    /// Begins to receive a snapshot, and forgets any other that was being received.
    ///
    /// # Errors
    /// [`StorageError::Full`]: refuse the transfer. Any other: stop the process.
    pub fn begin_incoming(&mut self, meta: SnapshotMeta) -> Result<(), StorageError> {
        self.check_usable()?;
        self.discard_incoming()?;
        let name = incoming_name(meta);
        let file = self
            .disk
            .create(&name)
            .map_err(|e| StorageError::io("create", &name, e))?;
        self.incoming = Some(Incoming {
            meta,
            file,
            received: 0,
        });
        Ok(())
    }

    /// Takes the next chunk; one at offset zero begins the transfer anew. Answers where the next one starts.
    ///
    /// # Errors
    /// [`StorageError::SnapshotUnknown`]: not begun. [`StorageError::IncomingOutOfOrder`]: ask for the right one.
    /// [`StorageError::Full`], [`StorageError::SnapshotTooLarge`]: the transfer was discarded. Any other: stop.
    pub fn write_incoming(
        &mut self,
        meta: SnapshotMeta,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, StorageError> {
        self.check_usable()?;
        if offset == 0
            && self
                .incoming
                .as_ref()
                .is_some_and(|incoming| incoming.meta == meta && incoming.received > 0)
        {
            self.begin_incoming(meta)?;
        }
        let incoming = self
            .incoming
            .as_mut()
            .filter(|incoming| incoming.meta == meta)
            .ok_or(StorageError::SnapshotUnknown {
                index: meta.index,
                term: meta.term,
            })?;
        if offset != incoming.received {
            return Err(StorageError::IncomingOutOfOrder {
                expected: incoming.received,
                found: offset,
            });
        }
        let end = offset + bytes.len() as u64;
        // zstd never makes anything larger by more than a few per mille; what is larger than that is not one of ours.
        let bytes_max = self
            .plain_bytes_max
            .saturating_add(self.plain_bytes_max / 64 + (HEADER as u64) + 1024);
        let result = if end > bytes_max {
            Err(StorageError::SnapshotTooLarge {
                bytes: end,
                bytes_max,
            })
        } else {
            incoming
                .file
                .write_at(offset, bytes)
                .map_err(|e| StorageError::io("write", &incoming_name(meta), e))
        };
        if let Err(error) = result {
            self.discard_incoming()?;
            return Err(error);
        }
        incoming.received = end;
        Ok(end)
    }

    /// Checks the received snapshot, keeps it durably as if saved, and answers what it unpacks to.
    ///
    /// # Errors
    /// [`StorageError::SnapshotUnknown`]: not begun. [`StorageError::IncomingRotten`],
    /// [`StorageError::SnapshotTooLarge`], [`StorageError::NewerFormat`]: it was discarded; begin again, or another
    /// sender. Any other: stop the process.
    pub fn finish_incoming(&mut self, meta: SnapshotMeta) -> Result<Vec<u8>, StorageError> {
        self.check_usable()?;
        let Some(mut incoming) = self.incoming.take_if(|incoming| incoming.meta == meta) else {
            return Err(StorageError::SnapshotUnknown {
                index: meta.index,
                term: meta.term,
            });
        };
        let aside = incoming_name(meta);
        let result = self.check_incoming(&mut incoming);
        if result.is_err() {
            self.disk
                .remove(&aside)
                .map_err(|e| StorageError::io("remove", &aside, e))?;
            return result;
        }
        let published = self.publish(&mut incoming.file, &aside, &file_name(meta));
        self.settle(published)?;
        result
    }

    fn check_incoming(&self, incoming: &mut Incoming<D::File>) -> Result<Vec<u8>, StorageError> {
        let name = incoming_name(incoming.meta);
        let len = usize::try_from(incoming.received).expect("a snapshot fits the address space");
        // Read back from the disk, so that what was checked is what was written.
        let bytes = incoming
            .file
            .read_at(0, len)
            .map_err(|e| StorageError::io("read", &name, e))?;
        unpack(incoming.meta, &bytes, self.plain_bytes_max).map_err(|bad| match bad {
            Bad::Format(found) => StorageError::NewerFormat {
                file: name.clone(),
                found,
                supported: FORMAT,
            },
            Bad::TooLarge(bytes) => StorageError::SnapshotTooLarge {
                bytes,
                bytes_max: self.plain_bytes_max,
            },
            Bad::Damaged(_, what) => StorageError::IncomingRotten {
                what: what.to_owned(),
            },
        })
    }

    /// Forgets the snapshot that is being received, if any.
    ///
    /// # Errors
    /// [`StorageError`]: stop the process.
    pub fn discard_incoming(&mut self) -> Result<(), StorageError> {
        let Some(incoming) = self.incoming.take() else {
            return Ok(());
        };
        let name = incoming_name(incoming.meta);
        self.disk
            .remove(&name)
            .map_err(|e| StorageError::io("remove", &name, e))
    }

    fn check_usable(&self) -> Result<(), StorageError> {
        if self.is_poisoned {
            Err(StorageError::Poisoned)
        } else {
            Ok(())
        }
    }

    /// A full disk leaves the older snapshots as they were; any other failure leaves us not knowing.
    fn settle(&mut self, result: Result<(), StorageError>) -> Result<(), StorageError> {
        self.is_poisoned =
            matches!(&result, Err(error) if !matches!(error, StorageError::Full { .. }));
        result
    }
}

fn list<D: Disk>(disk: &D) -> Result<Vec<String>, StorageError> {
    disk.list()
        .map_err(|e| StorageError::io("list", "snapshot directory", e))
}

fn file_name(meta: SnapshotMeta) -> String {
    format!("snap-{:016x}-{:016x}.zst", meta.index.0, meta.term.0)
}

fn incoming_name(meta: SnapshotMeta) -> String {
    format!("incoming-{:016x}-{:016x}.tmp", meta.index.0, meta.term.0)
}

fn parse_name(name: &str) -> Option<SnapshotMeta> {
    let (index, term) = name
        .strip_prefix("snap-")?
        .strip_suffix(".zst")?
        .split_once('-')?;
    let index = LogIndex(u64::from_str_radix(index, 16).ok()?);
    let meta = SnapshotMeta {
        index,
        term: Term(u64::from_str_radix(term, 16).ok()?),
    };
    (file_name(meta) == name).then_some(meta)
}

fn encode_header(meta: SnapshotMeta, plain_bytes: u64, packed: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(FORMAT.to_le_bytes());
    header.extend(0_u32.to_le_bytes());
    for field in [meta.index.0, meta.term.0, plain_bytes, packed.len() as u64] {
        header.extend(field.to_le_bytes());
    }
    assert_eq!(
        header.len(),
        HASH_AT,
        "the header's fields have fixed sizes"
    );
    let hash = hash(&header, packed);
    header.extend(hash);
    header
}

fn hash(fields: &[u8], packed: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new()
        .update(fields)
        .update(packed)
        .finalize()
        .as_bytes()
}

enum Bad {
    Format(u32),
    TooLarge(u64),
    Damaged(u64, &'static str),
}

/// Checks a snapshot's file and unpacks it, never to more than it declares, nor to more than allowed.
fn unpack(meta: SnapshotMeta, bytes: &[u8], plain_bytes_max: u64) -> Result<Vec<u8>, Bad> {
    let (header, packed) = bytes
        .split_at_checked(HEADER)
        .ok_or(Bad::Damaged(0, "the file is too short"))?;
    if !header.starts_with(MAGIC) {
        return Err(Bad::Damaged(0, "this is not a snapshot"));
    }
    if hash(&header[..HASH_AT], packed) != header[HASH_AT..] {
        return Err(Bad::Damaged(0, "the checksum does not match"));
    }
    let mut reader = Reader::new(&header[MAGIC.len()..]);
    let mut read = || {
        Some((
            reader.u32()?,
            reader.u32()?,
            reader.u64()?,
            reader.u64()?,
            reader.u64()?,
            reader.u64()?,
        ))
    };
    let (format, _, index, term, plain_bytes, packed_bytes) =
        read().ok_or(Bad::Damaged(0, "the file is too short"))?;
    if format > FORMAT {
        return Err(Bad::Format(format));
    }
    if (index, term) != (meta.index.0, meta.term.0) {
        return Err(Bad::Damaged(
            16,
            "it is the snapshot of another index or term",
        ));
    }
    if plain_bytes > plain_bytes_max {
        return Err(Bad::TooLarge(plain_bytes));
    }
    if packed_bytes != packed.len() as u64 {
        return Err(Bad::Damaged(40, "its size is not the declared one"));
    }
    let undecodable = Bad::Damaged(HEADER as u64, "it does not unpack");
    let mut plain = Vec::new();
    let Ok(decoder) = zstd::stream::read::Decoder::with_buffer(packed) else {
        return Err(undecodable);
    };
    // One more than declared, to see that there is more.
    match decoder.take(plain_bytes + 1).read_to_end(&mut plain) {
        Ok(_) if plain.len() as u64 == plain_bytes => Ok(plain),
        Ok(_) => Err(Bad::Damaged(32, "it does not unpack to its declared size")),
        Err(_) => Err(undecodable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;
    use crate::sim_disk::SimDisk;

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta {
            index: LogIndex(index),
            term: Term(2),
        }
    }

    fn image(index: u64, size: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(index);
        (0..size).map(|_| random.u8(..20)).collect()
    }

    fn transfer<D: Disk, E: Disk>(
        from: &SnapshotStore<D>,
        to: &mut SnapshotStore<E>,
        meta: SnapshotMeta,
        alter: impl Fn(u64, &mut Vec<u8>),
    ) -> Result<Vec<u8>, StorageError> {
        to.begin_incoming(meta)?;
        let mut offset = 0;
        loop {
            let (mut bytes, total) = from.read_chunk(meta, offset, 700)?;
            alter(offset, &mut bytes);
            offset = to.write_incoming(meta, offset, &bytes)?;
            if offset >= total {
                return to.finish_incoming(meta);
            }
        }
    }

    fn check_store<D: Disk>(make: impl Fn() -> D) {
        let disk = make();
        let mut store = SnapshotStore::open(disk.clone()).unwrap();
        assert!(store.load_newest().unwrap().is_none());
        for index in [10, 20, 30] {
            store.save(meta(index), &image(index, 5_000)).unwrap();
        }
        let store = SnapshotStore::open(disk).unwrap();
        assert_eq!(store.metas().unwrap(), [meta(20), meta(30)]);
        assert_eq!(
            store.load_newest().unwrap(),
            Some((meta(30), image(30, 5_000)))
        );
        assert_eq!(store.load(meta(20)).unwrap(), image(20, 5_000));
        assert!(matches!(
            store.load(meta(10)),
            Err(StorageError::SnapshotUnknown { .. })
        ));

        let disk = make();
        let mut other = SnapshotStore::open(disk.clone()).unwrap();
        assert_eq!(
            transfer(&store, &mut other, meta(30), |_, _| {}).unwrap(),
            image(30, 5_000)
        );
        let other = SnapshotStore::open(disk).unwrap();
        assert_eq!(
            other.load_newest().unwrap(),
            Some((meta(30), image(30, 5_000)))
        );
    }

    #[test]
    fn snapshots_are_kept_and_transferred_on_simulated_and_real_disks() {
        check_store(|| SimDisk::new(1));
        let dir = tempfile::tempdir().unwrap();
        let count = std::cell::Cell::new(0);
        check_store(|| {
            count.set(count.get() + 1);
            OsDisk::open(&dir.path().join(count.get().to_string())).unwrap()
        });
    }

    #[test]
    fn any_single_byte_corrupted_is_refused_or_an_older_snapshot_is_used() {
        let disk = SimDisk::new(1);
        let mut store = SnapshotStore::open(disk.clone()).unwrap();
        store.save(meta(10), &image(10, 300)).unwrap();
        store.save(meta(20), &image(20, 300)).unwrap();
        let (name, size) = disk.files().pop().unwrap();
        for byte in 0..size {
            let copy = disk.fork();
            copy.rot(&name, byte, 0x10);
            let store = SnapshotStore::open(copy).unwrap();
            let error = store.load_newest().unwrap_err();
            assert!(
                matches!(&error, StorageError::Rotten { file, .. } if *file == name),
                "byte {byte}: {error}"
            );
            assert!(
                matches!(
                    store.load_covering(LogIndex(11)),
                    Err(StorageError::Rotten { .. })
                ),
                "byte {byte}"
            );
            let (older, bytes) = store.load_covering(LogIndex(10)).unwrap().unwrap();
            assert_eq!((older, bytes), (meta(10), image(10, 300)));
        }
    }

    #[test]
    fn a_missing_snapshot_that_the_log_needs_is_an_error() {
        let mut store = SnapshotStore::open(SimDisk::new(1)).unwrap();
        assert!(store.load_covering(LogIndex::ZERO).unwrap().is_none());
        assert!(matches!(
            store.load_covering(LogIndex(5)),
            Err(StorageError::Rotten { .. })
        ));
        store.save(meta(4), b"old").unwrap();
        assert!(matches!(
            store.load_covering(LogIndex(5)),
            Err(StorageError::Rotten { .. })
        ));
    }

    #[test]
    fn a_crash_during_a_save_leaves_the_snapshots_before_it() {
        let mut saved = 0;
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let disk = SimDisk::new(seed);
            let mut store = SnapshotStore::open(disk.clone()).unwrap();
            store.save(meta(10), &image(10, 3_000)).unwrap();
            store.save(meta(20), &image(20, 3_000)).unwrap();
            disk.cut_power_after(random.u64(..8));
            let result = store.save(meta(30), &image(30, 3_000));
            disk.crash(&mut random);
            let store = SnapshotStore::open(disk.clone()).unwrap();
            let (newest, bytes) = store.load_newest().unwrap().unwrap();
            assert_eq!(bytes, image(newest.index.0, 3_000), "seed {seed}");
            assert!(
                newest == meta(30) || result.is_err() && newest == meta(20),
                "seed {seed}: {newest:?}"
            );
            saved += u32::from(newest == meta(30));
            assert!(
                disk.files().iter().all(|(name, _)| name.ends_with(".zst")),
                "seed {seed}"
            );
        }
        assert!((100..450).contains(&saved), "{saved}");
    }

    #[test]
    fn a_transfer_may_begin_anew_and_what_is_damaged_or_out_of_order_is_refused() {
        let mut from = SnapshotStore::open(SimDisk::new(1)).unwrap();
        from.save(meta(10), &image(10, 5_000)).unwrap();
        let disk = SimDisk::new(2);
        let mut to = SnapshotStore::open(disk.clone()).unwrap();
        let damaged = transfer(&from, &mut to, meta(10), |offset, bytes| {
            if offset == 700 {
                bytes[3] ^= 1;
            }
        });
        assert!(
            matches!(damaged, Err(StorageError::IncomingRotten { .. })),
            "{damaged:?}"
        );
        assert!(disk.files().is_empty(), "it was discarded");
        assert!(matches!(
            to.finish_incoming(meta(10)),
            Err(StorageError::SnapshotUnknown { .. })
        ));

        to.begin_incoming(meta(10)).unwrap();
        let (chunk, _) = from.read_chunk(meta(10), 0, 700).unwrap();
        assert_eq!(to.write_incoming(meta(10), 0, &chunk).unwrap(), 700);
        let error = to.write_incoming(meta(10), 900, &chunk).unwrap_err();
        assert!(matches!(
            error,
            StorageError::IncomingOutOfOrder {
                expected: 700,
                found: 900
            }
        ));
        assert!(matches!(
            to.write_incoming(meta(11), 700, &chunk),
            Err(StorageError::SnapshotUnknown { .. })
        ));
        assert_eq!(to.write_incoming(meta(10), 0, &chunk).unwrap(), 700, "anew");
        assert!(
            matches!(
                to.finish_incoming(meta(10)),
                Err(StorageError::IncomingRotten { .. })
            ),
            "cut short"
        );

        to.begin_incoming(meta(9)).unwrap();
        let whole = from.read_chunk(meta(10), 0, 1 << 20).unwrap().0;
        to.write_incoming(meta(9), 0, &whole).unwrap();
        assert!(
            matches!(
                to.finish_incoming(meta(9)),
                Err(StorageError::IncomingRotten { .. })
            ),
            "another index"
        );
        assert_eq!(
            transfer(&from, &mut to, meta(10), |_, _| {}).unwrap(),
            image(10, 5_000)
        );
    }

    #[test]
    fn a_bomb_does_not_unpack() {
        // Says that it unpacks to 100 bytes, unpacks to ten million.
        let packed = zstd::bulk::compress(&vec![0; 10_000_000], 1).unwrap();
        let mut bomb = encode_header(meta(1), 100, &packed);
        bomb.extend(&packed);
        let mut store = SnapshotStore::open(SimDisk::new(1))
            .unwrap()
            .with_limit(1_000);
        store.begin_incoming(meta(1)).unwrap();
        store.write_incoming(meta(1), 0, &bomb).unwrap();
        assert!(matches!(
            store.finish_incoming(meta(1)),
            Err(StorageError::IncomingRotten { .. })
        ));

        let mut honest = encode_header(meta(1), 10_000_000, &packed);
        honest.extend(&packed);
        store.begin_incoming(meta(1)).unwrap();
        store.write_incoming(meta(1), 0, &honest).unwrap();
        let error = store.finish_incoming(meta(1)).unwrap_err();
        assert!(
            matches!(
                error,
                StorageError::SnapshotTooLarge {
                    bytes: 10_000_000,
                    bytes_max: 1_000
                }
            ),
            "{error}"
        );
        assert!(matches!(
            store.save(meta(1), &[0; 1_001]),
            Err(StorageError::SnapshotTooLarge { .. })
        ));
        store.begin_incoming(meta(1)).unwrap();
        assert!(matches!(
            store.write_incoming(meta(1), 0, &[0; 9_000]),
            Err(StorageError::SnapshotTooLarge { .. })
        ));
    }

    #[test]
    fn a_full_disk_keeps_the_older_snapshots_and_a_failed_sync_stops() {
        let disk = SimDisk::new(1);
        let mut store = SnapshotStore::open(disk.clone()).unwrap();
        store.save(meta(10), &image(10, 3_000)).unwrap();
        disk.set_capacity(Some(3_000));
        assert!(matches!(
            store.save(meta(20), &image(20, 3_000)),
            Err(StorageError::Full { .. })
        ));
        assert_eq!(disk.files().len(), 1, "the room is given back");
        disk.set_capacity(None);
        store.save(meta(20), &image(20, 3_000)).unwrap();
        disk.fail_syncs(1);
        assert!(matches!(
            store.save(meta(30), b"x"),
            Err(StorageError::SyncFailed { .. })
        ));
        assert!(matches!(
            store.save(meta(30), b"x"),
            Err(StorageError::Poisoned)
        ));
    }
}
