//! A whole data directory, on the real file system: it opens or refuses, and what opens stays whose it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use quorate_storage::{DataDir, Identity, LogOptions};
use quorate_types::{ClusterEpoch, ClusterId, LogIndex, ReplicaId};

use crate::input::Input;
use crate::{forge, log_files, snapshot_files};

/// Where this process makes its directories: in memory where the system has a place for that.
fn place() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let shared = Path::new("/dev/shm");
        let base = if shared.is_dir() {
            shared.to_path_buf()
        } else {
            std::env::temp_dir()
        };
        base.join(format!("quorate-fuzz-{}", std::process::id()))
    })
}

/// Makes a directory, opens it as whosever it is and as ours, and opens what is in it.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let dir = place();
    fs::create_dir_all(dir).expect("there is room for a directory");
    fill(dir, &mut input);
    open(dir, &mut input);
    fs::remove_dir_all(dir).expect("it is ours to remove");
}

fn fill(dir: &Path, input: &mut Input<'_>) {
    let write = |path: PathBuf, bytes: &[u8]| fs::write(path, bytes).expect("there is room");
    let which = input.u8();
    if which & 1 == 0 {
        write(dir.join("identity"), &small(b"quor-id\n", input));
    }
    if which & 2 != 0 {
        write(dir.join("peers"), &small(b"quorpeer", input));
    }
    if which & 4 != 0 {
        let names = ["identity.tmp", "peers.tmp", "lock", "other", "lost+found"];
        let at = usize::try_from(input.below(names.len() as u64)).expect("it is small");
        write(dir.join(names[at]), input.take(16));
    }
    for (bit, name) in [(8, "log"), (16, "snapshots")] {
        if which & bit == 0 {
            continue;
        }
        if which & 32 != 0 {
            // A file where a directory belongs.
            write(dir.join(name), input.take(8));
            continue;
        }
        fs::create_dir(dir.join(name)).expect("there is room");
        let files = if name == "log" {
            log_files::files(input)
        } else {
            snapshot_files::files(input)
        };
        for (file, bytes) in files {
            write(dir.join(name).join(file), &bytes);
        }
    }
}

/// A small file: with a right checksum, or as it comes.
fn small(magic: &[u8; 8], input: &mut Input<'_>) -> Vec<u8> {
    let odd = input.u8();
    let count = usize::from(input.u8());
    if odd == 1 {
        return input.take(count).to_vec();
    }
    let mut bytes = if odd == 2 {
        input.take(8).to_vec()
    } else {
        magic.to_vec()
    };
    let format = if odd == 3 { u32::from(input.u16()) } else { 1 };
    bytes.extend(format.to_le_bytes());
    bytes.extend(input.take(count));
    let mut bytes = forge::with_crc(bytes);
    if odd == 4 {
        forge::damage(&mut bytes, input);
    }
    bytes
}

fn open(dir: &Path, input: &mut Input<'_>) {
    let ours = Identity {
        cluster: ClusterId(input.number(1)),
        member: ReplicaId(input.number(1)),
        disk: input.number(1),
        epoch: ClusterEpoch(input.number(1)),
    };
    let found = DataDir::open(dir).map(|opened| look(opened, input));
    match DataDir::open_or_create(dir, ours) {
        Ok(opened) => {
            let identity = opened.identity();
            assert_eq!(
                (identity.cluster, identity.member),
                (ours.cluster, ours.member),
                "somebody else's directory opened"
            );
            if let Ok(found) = found {
                assert_eq!(identity, found, "the directory changed hands");
            }
            assert!(
                !opened.is_new() || opened.open_log(LogOptions::small()).is_ok(),
                "a new directory has a log"
            );
        }
        Err(why) => {
            // Whatever it says is for people.
            let _ = why.to_string();
        }
    }
}

fn look(mut opened: DataDir, input: &mut Input<'_>) -> Identity {
    if let Ok((_, recovered)) = opened.open_log(LogOptions::small()) {
        assert!(recovered.records.len() < 1_000, "records from nowhere");
    }
    let snapshots = opened.open_snapshots();
    if let Ok(snapshots) = snapshots.map(|snapshots| snapshots.with_limit(1 << 20)) {
        let _ = snapshots.load_covering(LogIndex(input.number(1)));
    }
    let (peer, disk) = (ReplicaId(input.number(2)), input.number(9));
    let known = opened.peers().get(&peer).copied();
    let remembered = opened.remember_peer(peer, disk);
    assert_eq!(
        remembered.is_ok(),
        known.is_none_or(|known| known == disk),
        "a peer's disk is believed only where it is the one first seen"
    );
    opened.identity()
}
