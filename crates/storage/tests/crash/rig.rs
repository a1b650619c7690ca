//! A disk that can lose power, with a journaling file system on it: block store, loop device, mount.
//!
//! Owns: making and removing them. All of it happens in a mount namespace of its own, where nobody else sees the mounts and which
//! takes them along when it ends, however it ends; the loop devices go with their mounts.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::is_long;
use crate::store::{BlockStore, IMAGE};

/// Set within the mount namespace.
const INSIDE: &str = "QUORATE_CRASH_INSIDE";
const DISK_BYTES: u64 = 40 << 20;

/// Runs a test again in a mount namespace of its own. Says so where this machine has not what it takes.
pub(crate) fn in_own_mounts(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if let Err(missing) = requirements() {
        eprintln!("SKIPPED: {test}: {missing}");
        return;
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().expect("a test has a path"))
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1");
    let status = if is_long() {
        command.status().expect("it was there a moment ago")
    } else {
        let output = command.output().expect("it was there a moment ago");
        // Through the macros, so that it is captured like any test's.
        print!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        output.status
    };
    assert!(
        status.success(),
        "{test} failed in its own mount namespace ({status}), see above"
    );
}

/// What this machine lacks.
fn requirements() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root may mount".to_owned());
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(device)
            .map_err(|error| format!("{device}: {error}"))?;
    }
    for tool in ["mount", "umount", "mkfs.ext4", "e2fsck"] {
        command(tool)
            .arg("-V")
            .output()
            .map_err(|error| format!("`{tool}`: {error}"))?;
    }
    let unshare = Command::new("unshare").args(["--mount", "true"]).output();
    match unshare {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("`unshare --mount` does not work here".to_owned()),
    }
}

/// Some systems keep these where only root's shells look.
fn command(tool: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(tool);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// The whole tower. Dropping it takes it down.
pub(crate) struct Rig {
    pub(crate) store: BlockStore,
    folder: TempDir,
    mount_options: &'static str,
    is_mounted: bool,
    /// File systems that had to be repaired before they could be mounted.
    pub(crate) repaired: u64,
}

impl Rig {
    /// Makes an empty file system on a new store.
    pub(crate) fn new(seed: u64, obeys_flushes: bool) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("quorate-crash-")
            .tempdir()
            .expect("there is room for an image");
        let image = folder.path().join("empty.img");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(DISK_BYTES))
            .expect("there is room for an image");
        let made = run(command("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-J", "size=4"])
            .arg(&image));
        made.expect("an image can be formatted");
        let bytes = std::fs::read(&image).expect("it was just made");
        std::fs::remove_file(&image).expect("it was just made");
        let below = folder.path().join("store");
        std::fs::create_dir(&below).expect("the folder is ours");
        std::fs::create_dir(folder.path().join("disk")).expect("the folder is ours");
        let store = BlockStore::serve(bytes, &below, seed, obeys_flushes)
            .expect("root may mount in a namespace of its own");
        // Each promises less about data than the one before.
        let modes = ["data=journal", "data=ordered", "data=writeback"];
        Self {
            store,
            folder,
            mount_options: modes[(seed % 3) as usize],
            is_mounted: false,
            repaired: 0,
        }
    }

    /// Which file system, for the summary.
    pub(crate) fn shown(&self) -> String {
        format!("ext4 {}", self.mount_options)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("store").join(IMAGE)
    }

    /// Where the file system is mounted. Only children go there.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Mounts it, which replays the journal.
    ///
    /// # Errors
    /// The power went meanwhile, or the file system is beyond repair.
    pub(crate) fn mount(&mut self) -> Result<(), String> {
        let Err(first) = self.try_mount() else {
            return Ok(());
        };
        if self.store.is_cut() {
            return Err(first);
        }
        // A file system may want its checker after a crash; a booting machine would run it.
        let repaired = run(command("e2fsck").arg("-fy").arg(self.image()));
        if self.store.is_cut() {
            return Err(first);
        }
        self.repaired += 1;
        self.try_mount()
            .map_err(|again| format!("mount: {first}; e2fsck: {repaired:?}; mount: {again}"))
    }

    fn try_mount(&mut self) -> Result<(), String> {
        let options = format!("loop,errors=remount-ro,{}", self.mount_options);
        run(command("mount")
            .args(["-t", "ext4", "-o", &options])
            .arg(self.image())
            .arg(self.path()))?;
        self.is_mounted = true;
        Ok(())
    }

    /// Takes the file system off; without power nothing of it reaches the store any more.
    pub(crate) fn unmount(&mut self) {
        if !self.is_mounted {
            return;
        }
        run(command("umount").arg(self.path())).expect("no process is left in it");
        self.is_mounted = false;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.store.cut_power();
        if self.is_mounted {
            // Lazily: after a panic some process may still be in it. The namespace's end does the rest.
            let path: &Path = &self.path();
            run(command("umount").arg("--lazy").arg(path)).ok();
        }
    }
}

/// Runs a command to its end; what it said is the error.
fn run(command: &mut Command) -> Result<(), String> {
    let Output { status, stderr, .. } = command.output().map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!(
            "{status}: {}",
            String::from_utf8_lossy(&stderr).trim()
        ))
    }
}
