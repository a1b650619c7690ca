//! A disk for the process that gets killed: it dies in the middle of a chosen write, or leaves out every sync.
//!
//! Owns: dying between two halves of a write, and before or after any other change. Deliberately absent: losing what was
//! written, which a killed process does not do; `store.rs` does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_storage::{Disk, DiskFile, OsDisk, OsFile};
use rustix::process::{Signal, getpid, kill_process};

/// An [`OsDisk`] that kills its own process, or does not sync.
#[derive(Clone)]
pub(crate) struct FatalDisk {
    inner: OsDisk,
    fate: Arc<Fate>,
}

/// A file of it.
pub(crate) struct FatalFile {
    inner: OsFile,
    fate: Arc<Fate>,
}

/// When to die.
pub(crate) struct Fate {
    /// Twice the number of changes left until the last; odd means that the last one is done first (a write: by half).
    left: AtomicU64,
    syncs: bool,
}

impl Fate {
    /// Dies at the change with this number: at an even one before, at an odd one after it. Never at zero.
    pub(crate) fn new(die_at: u64, syncs: bool) -> Arc<Self> {
        let left = if die_at == 0 { u64::MAX } else { die_at };
        Arc::new(Self {
            left: AtomicU64::new(left),
            syncs,
        })
    }

    fn is_due(&self) -> bool {
        self.left.fetch_sub(1, Ordering::SeqCst) == 1
    }

    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.is_due() {
            die();
        }
        let done = change();
        if self.is_due() {
            die();
        }
        done
    }
}

/// SIGKILL: no destructor, no handler, no flush runs.
fn die() -> ! {
    kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
    unreachable!("nobody survives SIGKILL")
}

impl FatalDisk {
    pub(crate) fn new(inner: OsDisk, fate: Arc<Fate>) -> Self {
        Self { inner, fate }
    }

    fn file(&self, inner: OsFile) -> FatalFile {
        FatalFile {
            inner,
            fate: self.fate.clone(),
        }
    }
}

impl Disk for FatalDisk {
    type File = FatalFile;

    fn create(&self, name: &str) -> io::Result<FatalFile> {
        self.fate
            .change(|| self.inner.create(name))
            .map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<FatalFile> {
        self.inner.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fate.change(|| self.inner.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.fate.change(|| self.inner.remove(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.fate.syncs {
            self.fate.change(|| self.inner.sync_dir())
        } else {
            Ok(())
        }
    }
}

impl DiskFile for FatalFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Self { inner, fate } = self;
        if fate.is_due() {
            die();
        }
        if fate.is_due() {
            // Where it is torn follows from where and what it is, so that a seed tears alike each time.
            let torn = (offset as usize * 7 + bytes.len() * 13) % (bytes.len() + 1);
            inner.write_at(offset, &bytes[..torn])?;
            die();
        }
        inner.write_at(offset, bytes)
    }

    fn read_at(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.inner.read_at(offset, len)
    }

    fn size(&mut self) -> io::Result<u64> {
        self.inner.size()
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        let Self { inner, fate } = self;
        fate.change(|| inner.truncate(size))
    }

    fn sync(&mut self) -> io::Result<()> {
        let Self { inner, fate } = self;
        if fate.syncs {
            fate.change(|| inner.sync())
        } else {
            Ok(())
        }
    }
}
