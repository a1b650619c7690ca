//! One directory of files: the little of a file system that this crate uses.
//!
//! Owns: the trait, and the real one. Deliberately absent: formats, buffering, retries, subdirectories.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

/// An open file.
///
/// Writes are seen by reads at once and durable only after [`sync`](Self::sync).
pub trait DiskFile: Send {
    /// Writes all bytes at an offset; a gap before it reads as zeros.
    ///
    /// # Errors
    /// What the system says; any part of the bytes may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads up to `len` bytes from an offset, fewer only where the file ends.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// The file's size in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&mut self) -> io::Result<u64>;

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, size: u64) -> io::Result<()>;

    /// Makes the file's bytes and size durable.
    ///
    /// # Errors
    /// What the system says. Never retry: the system may have dropped the dirty pages and forgotten it.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of files. Clones name the same directory.
///
/// Names (created, renamed, removed) are durable only after [`sync_dir`](Self::sync_dir).
pub trait Disk: Clone + Send {
    /// An open file of this disk.
    type File: DiskFile;

    /// Creates an empty file, replacing one of that name.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file.
    ///
    /// # Errors
    /// `NotFound`, or what the system says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file, atomically replacing the target.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files, in order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes the names durable.
    ///
    /// # Errors
    /// What the system says. Never retry.
    fn sync_dir(&self) -> io::Result<()>;
}

/// A real directory.
#[derive(Clone, Debug)]
pub struct OsDisk {
    dir: Arc<Dir>,
}

#[derive(Debug)]
struct Dir {
    path: PathBuf,
    fd: OwnedFd,
}

impl OsDisk {
    /// Opens a directory, creating it (durably) where it does not exist.
    ///
    /// # Errors
    /// What the system says: a parent is missing, a file is in the way, permissions.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::create_dir(path) {
            Ok(()) => sync_parent(path)?,
            // Perhaps made by a process of ours that died before it could sync the name. If it was made by somebody else, its
            // parent may be none of our business, and refuse.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                sync_parent(path).ok();
            }
            Err(error) => return Err(error),
        }
        Ok(Self {
            dir: Arc::new(Dir {
                path: path.to_owned(),
                fd: open_dir(path)?,
            }),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir.path
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok(rustix::fs::fsync(open_dir(parent)?)?)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

impl Disk for OsDisk {
    type File = OsFile;

    fn create(&self, name: &str) -> io::Result<OsFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Ok(OsFile(options.open(self.dir.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<OsFile> {
        Ok(OsFile(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.dir.path.join(name))?,
        ))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.path.join(from), self.dir.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir.path)? {
            let entry = entry?;
            // Ours are ASCII; a name that is not UTF-8 is somebody else's file.
            if let (true, Ok(name)) = (
                entry.file_type()?.is_file(),
                entry.file_name().into_string(),
            ) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.dir.fd)?)
    }
}

/// A file of an [`OsDisk`].
#[derive(Debug)]
pub struct OsFile(File);

impl DiskFile for OsFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let left = self.size()?.saturating_sub(offset);
        let mut bytes = vec![0; len.min(usize::try_from(left).unwrap_or(usize::MAX))];
        self.0.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn size(&mut self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        // fdatasync also makes a changed size durable, which is all the metadata that we rely on.
        Ok(rustix::fs::fdatasync(&self.0)?)
    }
}
