//! A block store with a volatile write cache and a power switch, as one file of a FUSE file system.
//!
//! Owns: what a disk promises, and no more: writes since the last flush may be lost, each sector of them by itself. A loop device
//! on the file turns it into a disk for any file system of the kernel. Deliberately absent: rot, and lost writes that were
//! flushed, which no log survives; the simulator's disk has them.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::process::Event;

/// The name of the only file.
pub(crate) const IMAGE: &str = "disk.img";

const IMAGE_INODE: INodeNo = INodeNo(2);
const SECTOR: usize = 512;
const BLOCK: usize = 4096;
/// Nothing of this file system changes behind the kernel's back.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// The store; the file is served as long as it lives.
pub(crate) struct BlockStore {
    medium: Arc<Mutex<Medium>>,
    /// Unmounts when it is dropped.
    _session: BackgroundSession,
}

/// How writes since the last flush fared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lost {
    pub(crate) sectors_unsynced: u64,
    pub(crate) sectors_lost: u64,
}

struct Medium {
    /// What reads see.
    current: Vec<u8>,
    /// What is there after a power cut at the worst.
    durable: Vec<u8>,
    /// Writes since the last flush, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
    random: fastrand::Rng,
    is_powered: bool,
    /// Whether a flush does what it says.
    obeys_flushes: bool,
    /// Changes until the power cut, and who wants to hear of it.
    fuse: Option<(u64, Sender<Event>)>,
    lost: Lost,
}

impl BlockStore {
    /// Serves an image below an empty directory.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn serve(
        image: Vec<u8>,
        below: &Path,
        seed: u64,
        obeys_flushes: bool,
    ) -> std::io::Result<Self> {
        let medium = Arc::new(Mutex::new(Medium {
            current: image.clone(),
            durable: image,
            unsynced: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            is_powered: true,
            obeys_flushes,
            fuse: None,
            lost: Lost::default(),
        }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("quorate-crash".to_owned())];
        let session = fuser::spawn_mount(OneFile(medium.clone()), below, &config)?;
        Ok(Self {
            medium,
            _session: session,
        })
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        lock(&self.medium)
    }

    /// Cuts the power at the n-th change (write or flush) from now.
    pub(crate) fn cut_power_after(&self, changes: u64, tell: Sender<Event>) {
        self.medium().fuse = Some((changes, tell));
    }

    /// Cuts the power now, unless it is.
    pub(crate) fn cut_power(&self) {
        self.medium().cut_power();
    }

    /// Whether it has lost power.
    pub(crate) fn is_cut(&self) -> bool {
        !self.medium().is_powered
    }

    /// Power is back, with what has survived.
    pub(crate) fn power_on(&self) {
        let mut medium = self.medium();
        medium.fuse = None;
        medium.is_powered = true;
    }

    /// How much was lost in all cuts so far.
    pub(crate) fn lost(&self) -> Lost {
        self.medium().lost
    }
}

/// A panic elsewhere must not keep the kernel waiting for us.
fn lock(medium: &Mutex<Medium>) -> MutexGuard<'_, Medium> {
    medium.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Medium {
    fn read(&self, offset: u64, len: u32) -> Result<&[u8], Errno> {
        if !self.is_powered {
            return Err(Errno::EIO);
        }
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.current.len());
        let end = start.saturating_add(len as usize).min(self.current.len());
        Ok(&self.current[start..end])
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        if !self.is_powered {
            return Err(Errno::EIO);
        }
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let end = start + bytes.len();
        // A disk neither grows nor tears what it has not been given as sectors.
        let is_whole = start.is_multiple_of(SECTOR) && bytes.len().is_multiple_of(SECTOR);
        if end > self.current.len() || !is_whole {
            return Err(Errno::EINVAL);
        }
        self.current[start..end].copy_from_slice(bytes);
        self.unsynced.push((start, bytes.to_vec()));
        if self.is_due() {
            // Cut in the middle of this write.
            self.cut_power();
            return Err(Errno::EIO);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        if !self.is_powered {
            return Err(Errno::EIO);
        }
        let is_due = self.is_due();
        if is_due && self.random.bool() {
            self.cut_power();
            return Err(Errno::EIO);
        }
        if self.obeys_flushes {
            for (start, bytes) in self.unsynced.drain(..) {
                self.durable[start..start + bytes.len()].copy_from_slice(&bytes);
            }
        }
        if is_due {
            // Done, but nobody will hear of it.
            self.cut_power();
            return Err(Errno::EIO);
        }
        Ok(())
    }

    fn is_due(&mut self) -> bool {
        match &mut self.fuse {
            Some((left, _)) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            None => false,
        }
    }

    /// Decides what of the unsynced writes survives, and answers nothing more.
    fn cut_power(&mut self) {
        if !self.is_powered {
            return;
        }
        self.is_powered = false;
        let survival = Survival::draw(&mut self.random, &self.unsynced);
        let unsynced = std::mem::take(&mut self.unsynced);
        let mut at = 0;
        for (start, bytes) in &unsynced {
            // Units are aligned, as a disk's sectors are.
            let mut from = 0;
            while from < bytes.len() {
                // The file system takes the two sectors of its superblock, in the first block, for one.
                let is_first = start + from < BLOCK;
                let unit = if is_first { BLOCK } else { survival.unit_bytes };
                let to = ((start + from) / unit * unit + unit - start).min(bytes.len());
                let sectors = ((to - from) / SECTOR) as u64;
                self.lost.sectors_unsynced += sectors;
                if survival.keeps(at, &mut self.random) {
                    self.durable[start + from..start + to].copy_from_slice(&bytes[from..to]);
                } else {
                    self.lost.sectors_lost += sectors;
                }
                at += 1;
                from = to;
            }
        }
        for (start, bytes) in &unsynced {
            let range = *start..start + bytes.len();
            self.current[range.clone()].copy_from_slice(&self.durable[range]);
        }
        if let Some((_, tell)) = self.fuse.take() {
            // Nobody listens any more where the child ended first.
            tell.send(Event::PowerCut).ok();
        }
    }
}

/// Which of the unsynced units survive one power cut.
struct Survival {
    unit_bytes: usize,
    /// These first ones in any case...
    prefix: usize,
    /// ... and others with this chance in 100.
    percent: u8,
}

impl Survival {
    fn draw(random: &mut fastrand::Rng, unsynced: &[(usize, Vec<u8>)]) -> Self {
        let unit_bytes = if random.bool() { SECTOR } else { BLOCK };
        let units: usize = unsynced
            .iter()
            .map(|(_, bytes)| bytes.len().div_ceil(unit_bytes))
            .sum();
        let (prefix, percent) = match random.u8(..5) {
            0 => (0, 0),
            1 => (usize::MAX, 0),
            // Written in order, until the power went.
            2 => (random.usize(..=units), 0),
            // In any order.
            3 => (0, random.u8(1..100)),
            _ => (0, 95),
        };
        Self {
            unit_bytes,
            prefix,
            percent,
        }
    }

    fn keeps(&self, at: usize, random: &mut fastrand::Rng) -> bool {
        at < self.prefix || random.u8(..100) < self.percent
    }
}

/// The file system: a directory and a file.
struct OneFile(Arc<Mutex<Medium>>);

impl OneFile {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, size, perm) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0, 0o700),
            IMAGE_INODE => {
                let size = lock(&self.0).current.len() as u64;
                (FileType::RegularFile, size, 0o600)
            }
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / SECTOR as u64,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(IMAGE_INODE) {
            Some(found) if parent == INodeNo::ROOT && name == IMAGE => {
                reply.entry(&FOREVER, &found, Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(found) => reply.attr(&FOREVER, &found),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No page cache between the loop device and us: what survives is our decision alone.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match lock(&self.0).read(offset, size) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match lock(&self.0).write(offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("a request is small")),
            Err(error) => reply.error(error),
        }
    }

    /// Closing a descriptor, which promises nothing.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match lock(&self.0).flush() {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}
