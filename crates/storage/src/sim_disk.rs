//! A disk in memory that fails like real ones, from a seed.
//!
//! Owns: what is durable and what only written, and every fault: crashes that lose and tear unsynced writes,
//! misdirected and lost writes, rot, a full disk, failed syncs, power cut between any two operations, slowness
//! (a number to ask for, never a sleep). Deliberately absent: knowledge of what is written.
//!
//! The model: a crash keeps any subset of the unsynced writes, torn at sectors of 512 bytes; the sector in which
//! a write was torn may be half new and half old, or (`garbage`) lost whole, together with older synced bytes
//! in it. Names (create, rename, remove) persist in order, as in journalling file systems: any prefix survives.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::disk::{Disk, DiskFile};

const SECTOR: u64 = 512;

/// How many faults of each kind a disk has had, to show that a simulation met them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Crashes.
    pub crashes: u64,
    /// Unsynced writes that a crash lost.
    pub writes_lost: u64,
    /// Unsynced writes that a crash tore.
    pub writes_torn: u64,
    /// Writes that landed elsewhere.
    pub misdirected: u64,
    /// Writes that were confirmed but never happened.
    pub dropped: u64,
    /// Bytes changed at rest.
    pub rotten: u64,
    /// Writes refused by a full disk.
    pub full: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
}

/// The shared handle of one simulated disk: a clone is the same disk, so a restart reopens the same bytes.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Of which run of the process this handle is; handles of an earlier run are dead.
    generation: Option<u64>,
}

/// A file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    generation: u64,
    inode: u64,
}

/// # Invariants
/// - `durable` plus `pending`, applied in order, is `current`, except after a dropped write or a failed sync.
#[derive(Clone, Debug, Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write { offset: u64, bytes: Vec<u8> },
    Resize(u64),
}

#[derive(Clone, Debug)]
enum NameOp {
    Link { name: String, inode: u64 },
    Rename { from: String, to: String },
    Unlink(String),
}

#[derive(Clone, Debug)]
struct State {
    names: BTreeMap<String, u64>,
    names_durable: BTreeMap<String, u64>,
    names_pending: Vec<NameOp>,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    generation: u64,
    random: fastrand::Rng,
    capacity_bytes: Option<u64>,
    sync_failures: u32,
    misdirect_next: bool,
    drop_next: bool,
    garbage: bool,
    /// Operations until the power is cut.
    fuse: Option<u64>,
    latency: Duration,
    operations: u64,
    syncs: u64,
    counts: FaultCounts,
}

impl SimDisk {
    /// An empty, healthy disk; `seed` decides its misdirected writes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            names_pending: Vec::new(),
            inodes: BTreeMap::new(),
            inode_next: 0,
            generation: 0,
            random: fastrand::Rng::with_seed(seed),
            capacity_bytes: None,
            sync_failures: 0,
            misdirect_next: false,
            drop_next: false,
            garbage: true,
            fuse: None,
            latency: Duration::ZERO,
            operations: 0,
            syncs: 0,
            counts: FaultCounts::default(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            generation: None,
        }
    }

    /// Cuts the power and restores it: what was synced stays, of the rest anything may. Open files are dead.
    pub fn crash(&self, random: &mut fastrand::Rng) {
        self.lock().crash(random);
    }

    /// Ends the process but not the power: nothing is lost, open files are dead.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.generation += 1;
        state.fuse = None;
    }

    /// A copy that shares nothing with this disk.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            state: Arc::new(Mutex::new(self.lock().clone())),
            generation: None,
        }
    }

    /// Changes one byte at rest by `xor`, durable and in the cache.
    ///
    /// # Panics
    /// When the file or the byte does not exist, or `xor` is zero.
    pub fn rot(&self, name: &str, byte: u64, xor: u8) {
        assert_ne!(xor, 0, "rot changes something");
        let mut state = self.lock();
        let inode = *state.names.get(name).expect("rot names an existing file");
        let file = state.inodes.get_mut(&inode).expect("a name has its inode");
        let at = usize::try_from(byte).expect("in memory");
        *file
            .current
            .get_mut(at)
            .expect("rot hits a byte of the file") ^= xor;
        if let Some(byte) = file.durable.get_mut(at) {
            *byte ^= xor;
        }
        state.counts.rotten += 1;
    }

    /// Bounds the sum of all files' sizes; `None` lifts the bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Lets the next `count` syncs fail; what they should have made durable never becomes so.
    pub fn fail_syncs(&self, count: u32) {
        self.lock().sync_failures = count;
    }

    /// Lets the next write land somewhere else.
    pub fn misdirect_next_write(&self) {
        self.lock().misdirect_next = true;
    }

    /// Lets the next write be confirmed, and never happen.
    pub fn drop_next_write(&self) {
        self.lock().drop_next = true;
    }

    /// Whether a torn sector may also lose older, synced bytes in it (the default), or sectors are atomic
    /// against what they held before.
    pub fn set_garbage(&self, garbage: bool) {
        self.lock().garbage = garbage;
    }

    /// Cuts the power after that many further operations: all later ones fail, until [`crash`](Self::crash).
    pub fn cut_power_after(&self, operations: u64) {
        self.lock().fuse = Some(operations);
    }

    /// Whether the power was cut by [`cut_power_after`](Self::cut_power_after), and not restored yet.
    #[must_use]
    pub fn is_power_cut(&self) -> bool {
        self.lock().fuse == Some(0)
    }

    /// Takes back every fault that was ordered and has not struck; what struck stays.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.capacity_bytes = None;
        state.sync_failures = 0;
        state.misdirect_next = false;
        state.drop_next = false;
        state.fuse = None;
        state.latency = Duration::ZERO;
    }

    /// Whether a fault was ordered that has not struck yet; slowness is none.
    #[must_use]
    pub fn is_fault_pending(&self) -> bool {
        let state = self.lock();
        state.capacity_bytes.is_some()
            || state.sync_failures > 0
            || state.misdirect_next
            || state.drop_next
            || state.fuse.is_some()
    }

    /// Says how long each sync takes from now on. The disk itself never waits.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// How long a sync takes.
    #[must_use]
    pub fn latency(&self) -> Duration {
        self.lock().latency
    }

    /// The faults so far.
    #[must_use]
    pub fn fault_counts(&self) -> FaultCounts {
        self.lock().counts
    }

    /// Operations that changed something, so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Syncs of files so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Every file's name and size.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.lock();
        state
            .names
            .iter()
            .map(|(name, inode)| (name.clone(), state.inodes[inode].current.len() as u64))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match self.generation {
            Some(generation) if generation != state.generation => Err(power_is_off()),
            _ => Ok(state),
        }
    }

    fn file(&self, state: &State, inode: u64) -> SimFile {
        SimFile {
            state: Arc::clone(&self.state),
            generation: state.generation,
            inode,
        }
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("simulated: the power is off")
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("simulated: no file `{name}`"),
    )
}

fn place(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).expect("in memory");
    let end = start + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(bytes);
}

fn apply(file: &mut Vec<u8>, pending: &Pending) {
    match pending {
        Pending::Write { offset, bytes } => place(file, *offset, bytes),
        Pending::Resize(size) => file.resize(usize::try_from(*size).expect("in memory"), 0),
    }
}

impl NameOp {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link { name, inode } => {
                names.insert(name, inode);
            }
            Self::Rename { from, to } => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            Self::Unlink(name) => {
                names.remove(&name);
            }
        }
    }
}

impl State {
    /// Counts one operation; fails when the power is (now) cut.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.fuse {
            Some(0) => Err(power_is_off()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn name_op(&mut self, op: NameOp) {
        op.clone().apply(&mut self.names);
        self.names_pending.push(op);
    }

    fn crash(&mut self, random: &mut fastrand::Rng) {
        self.counts.crashes += 1;
        self.generation += 1;
        self.fuse = None;
        let kept = random.usize(..=self.names_pending.len());
        for op in self.names_pending.drain(..).take(kept) {
            op.apply(&mut self.names_durable);
        }
        self.names = self.names_durable.clone();
        let garbage = self.garbage;
        let counts = &mut self.counts;
        for inode in self.inodes.values_mut() {
            // All, none, or a coin for each: so that whole batches survive and vanish often enough too.
            let odds = [0.0, 1.0, 0.5, 0.8][random.usize(..4)];
            for pending in std::mem::take(&mut inode.pending) {
                let keep = random.f64() < odds;
                match &pending {
                    Pending::Write { offset, bytes } if random.f64() < 0.4 && !bytes.is_empty() => {
                        counts.writes_torn += 1;
                        tear(&mut inode.durable, *offset, bytes, garbage, random);
                    }
                    _ if keep => apply(&mut inode.durable, &pending),
                    _ => counts.writes_lost += 1,
                }
            }
            inode.current = inode.durable.clone();
        }
        let linked: Vec<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| linked.contains(inode));
    }
}

/// Keeps a random part of a write: a prefix of it, or any of its sectors.
fn tear(file: &mut Vec<u8>, offset: u64, bytes: &[u8], garbage: bool, random: &mut fastrand::Rng) {
    let end = offset + bytes.len() as u64;
    let part = |from: u64, to: u64| {
        let at = |n: u64| usize::try_from(n - offset).expect("within the write");
        &bytes[at(from)..at(to)]
    };
    let torn_at = random.u64(offset..end);
    if random.bool() {
        place(file, offset, part(offset, torn_at));
    } else {
        let mut from = offset;
        while from < end {
            let to = ((from / SECTOR + 1) * SECTOR).min(end);
            if random.bool() {
                place(file, from, part(from, to));
            }
            from = to;
        }
        let sector_end = ((torn_at / SECTOR + 1) * SECTOR).min(end);
        place(file, torn_at, part(torn_at, sector_end));
    }
    if garbage && random.u8(..4) == 0 {
        let start = torn_at / SECTOR * SECTOR;
        let junk: Vec<u8> = (0..SECTOR).map(|_| random.u8(..)).collect();
        place(file, start, &junk);
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.live()?;
        state.operate()?;
        let inode = state.inode_next;
        state.inode_next += 1;
        state.inodes.insert(inode, Inode::default());
        state.name_op(NameOp::Link {
            name: name.to_owned(),
            inode,
        });
        Ok(self.file(&state, inode))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let state = self.live()?;
        let inode = *state.names.get(name).ok_or_else(|| not_found(name))?;
        Ok(self.file(&state, inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.live()?;
        state.operate()?;
        if !state.names.contains_key(from) {
            return Err(not_found(from));
        }
        state.name_op(NameOp::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.live()?;
        state.operate()?;
        if !state.names.contains_key(name) {
            return Err(not_found(name));
        }
        state.name_op(NameOp::Unlink(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.live()?.names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut guard = self.live()?;
        let state = &mut *guard;
        state.operate()?;
        if state.sync_failures > 0 {
            state.sync_failures -= 1;
            state.counts.failed_syncs += 1;
            return Err(io::Error::other("simulated: sync failed"));
        }
        for op in state.names_pending.drain(..) {
            op.apply(&mut state.names_durable);
        }
        Ok(())
    }
}

impl SimFile {
    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().expect("no holder of the lock panics");
        if state.generation == self.generation {
            Ok(state)
        } else {
            Err(power_is_off())
        }
    }
}

impl State {
    fn inode(&mut self, inode: u64) -> &mut Inode {
        // A file that was removed or replaced while open lives on until the crash.
        self.inodes
            .get_mut(&inode)
            .expect("an open file keeps its inode until the crash")
    }

    fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) {
        let file = self.inode(inode);
        place(&mut file.current, offset, bytes);
        file.pending.push(Pending::Write {
            offset,
            bytes: bytes.to_vec(),
        });
    }
}

impl DiskFile for SimFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut guard = self.live()?;
        let state = &mut *guard;
        state.operate()?;
        if std::mem::take(&mut state.drop_next) {
            state.counts.dropped += 1;
            return Ok(());
        }
        let size = state.inode(self.inode).current.len() as u64;
        if let Some(capacity) = state.capacity_bytes {
            let used: u64 = state
                .names
                .values()
                .map(|inode| state.inodes[inode].current.len() as u64)
                .sum();
            let room_end = size + capacity.saturating_sub(used);
            if offset + bytes.len() as u64 > room_end.max(size) {
                state.counts.full += 1;
                let fits = usize::try_from(room_end.saturating_sub(offset))
                    .expect("in memory")
                    .min(bytes.len());
                state.write(self.inode, offset, &bytes[..fits]);
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    "simulated: the disk is full",
                ));
            }
        }
        if std::mem::take(&mut state.misdirect_next) && size > 0 {
            let mut at = offset;
            while at == offset {
                at = state.random.u64(0..=size / SECTOR) * SECTOR + offset % SECTOR;
                if size < SECTOR {
                    at = offset + SECTOR;
                }
            }
            state.counts.misdirected += 1;
            state.write(self.inode, at, bytes);
            return Ok(());
        }
        state.write(self.inode, offset, bytes);
        Ok(())
    }

    fn read_at(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut state = self.live()?;
        let file = &state.inode(self.inode).current;
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(file.len());
        let end = start.saturating_add(len).min(file.len());
        Ok(file[start..end].to_vec())
    }

    fn size(&mut self) -> io::Result<u64> {
        let mut state = self.live()?;
        Ok(state.inode(self.inode).current.len() as u64)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let mut state = self.live()?;
        state.operate()?;
        let file = state.inode(self.inode);
        file.current
            .resize(usize::try_from(size).expect("in memory"), 0);
        file.pending.push(Pending::Resize(size));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut guard = self.live()?;
        let state = &mut *guard;
        state.operate()?;
        state.syncs += 1;
        if state.sync_failures > 0 {
            state.sync_failures -= 1;
            state.counts.failed_syncs += 1;
            // As Linux does: the pages count as clean from now on, and a later sync succeeds without them.
            state.inode(self.inode).pending.clear();
            return Err(io::Error::other("simulated: sync failed"));
        }
        let file = state.inode(self.inode);
        for pending in std::mem::take(&mut file.pending) {
            apply(&mut file.durable, &pending);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_synced_and_loses_some_of_the_rest() {
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let disk = SimDisk::new(seed);
            disk.set_garbage(false);
            let mut file = disk.create("a").unwrap();
            file.write_at(0, &[1; 1000]).unwrap();
            file.sync().unwrap();
            disk.sync_dir().unwrap();
            file.write_at(1000, &[2; 1000]).unwrap();
            disk.crash(&mut random);
            assert!(
                file.read_at(0, 1).is_err(),
                "an open file dies with its process"
            );
            let bytes = disk.open("a").unwrap().read_at(0, 4000).unwrap();
            assert_eq!(bytes[..1000], [1; 1000]);
            match bytes.iter().filter(|b| **b == 2).count() {
                0 => lost += 1,
                1000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(
            lost > 10 && kept > 10 && torn > 10,
            "lost {lost}, kept {kept}, torn {torn}"
        );
    }

    #[test]
    fn a_name_that_was_not_synced_may_vanish() {
        let seen: std::collections::BTreeSet<bool> = (0..20)
            .map(|seed| {
                let disk = SimDisk::new(seed);
                disk.create("a").unwrap().sync().unwrap();
                disk.crash(&mut fastrand::Rng::with_seed(seed));
                disk.open("a").is_ok()
            })
            .collect();
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_full_disk_writes_what_fits_and_says_so() {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(100));
        let mut file = disk.create("a").unwrap();
        file.write_at(0, &[1; 60]).unwrap();
        let error = file.write_at(60, &[1; 60]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(file.size().unwrap(), 100);
        file.write_at(0, &[2; 100])
            .expect("overwriting needs no room");
    }

    #[test]
    fn what_a_failed_sync_should_have_kept_is_not_kept_by_the_next_one() {
        let disk = SimDisk::new(1);
        let mut file = disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        file.write_at(0, &[1; 60]).unwrap();
        disk.fail_syncs(1);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        disk.crash(&mut fastrand::Rng::with_seed(1));
        assert_eq!(disk.open("a").unwrap().size().unwrap(), 0);
    }
}
