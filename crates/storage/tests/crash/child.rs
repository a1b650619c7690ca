//! The process that gets killed: it writes to a data directory through the shipping code, and reports each step once it is
//! acknowledged. Or it only looks at what is there.
//!
//! Owns: both roles, and the lines they report on standard input, which is a socket to the parent. Deliberately absent: judging.
//! The parent never touches the file system under test itself: it serves the block store below, and would wait for itself.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_storage::contract::ModelLog;
use quorate_storage::{
    DataDir, Disk, FileLog, Identity, LogOptions, LogStore, Recovered, SimDisk, SnapshotMeta,
    SnapshotStore, StorageError,
};
use quorate_types::{ClusterEpoch, ClusterId, ReplicaId};

use crate::disk::{FatalDisk, Fate};
use crate::workload::{Operation, State, Step, Workload, image, options};

/// Set in a child's environment: what it has to do.
pub(crate) const ENV: &str = "QUORATE_CRASH_CHILD";

/// The disk id that writers present; lookers present the next one. The one that created the directory stays.
pub(crate) const DISK: u64 = 0xd15c;

/// What a child has to do.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// The data directory.
    pub(crate) path: PathBuf,
    pub(crate) role: Role,
}

/// What a child is for.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Opens the directory twice and says what is in it.
    Look,
    /// Writes until it is killed.
    Write {
        seed: u64,
        steps_max: u64,
        /// See [`Fate::new`]; with zero and with syncs it runs on the plain disk.
        die_at: u64,
        syncs: bool,
    },
}

impl Task {
    pub(crate) fn encode(&self) -> String {
        let path = self.path.display();
        match &self.role {
            Role::Look => format!("look 0 0 0 0 {path}"),
            Role::Write {
                seed,
                steps_max,
                die_at,
                syncs,
            } => format!(
                "write {seed} {steps_max} {die_at} {} {path}",
                u8::from(*syncs)
            ),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.splitn(6, ' ').collect();
        let [role, seed, steps_max, die_at, syncs, path] = fields[..] else {
            return None;
        };
        let role = match role {
            "look" => Role::Look,
            _ => Role::Write {
                seed: seed.parse().ok()?,
                steps_max: steps_max.parse().ok()?,
                die_at: die_at.parse().ok()?,
                syncs: syncs == "1",
            },
        };
        Some(Self {
            path: PathBuf::from(path),
            role,
        })
    }
}

/// The body of a child.
pub(crate) fn run() {
    let Ok(task) = std::env::var(ENV) else {
        return;
    };
    let task = Task::decode(&task).expect("the parent has encoded it");
    let done = match task.role {
        Role::Look => look(&task.path),
        Role::Write {
            seed,
            steps_max,
            die_at,
            syncs,
        } => {
            let is_plain = die_at == 0 && syncs;
            let fate = Fate::new(die_at, syncs);
            write(&task.path, seed, steps_max, &fate, is_plain)
        }
    };
    match done {
        Ok(()) => report("done"),
        Err(error) => report(&format!("error {}", chain(&error))),
    }
}

/// One line to the parent; without a parent there is nothing left to do.
fn report(line: &str) {
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .expect("standard input is open");
    if std::fs::File::from(socket)
        .write_all(format!("{line}\n").as_bytes())
        .is_err()
    {
        std::process::exit(1);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.replace('\n', " ")
}

fn open_dir(path: &Path, disk: u64) -> Result<DataDir, StorageError> {
    let identity = Identity {
        cluster: ClusterId(7),
        member: ReplicaId(2),
        disk,
        epoch: ClusterEpoch::ZERO,
    };
    DataDir::open_or_create(path, identity)
}

fn state<D: Disk>(
    dir: &DataDir,
    found: Recovered,
    snapshots: &SnapshotStore<D>,
) -> Result<(State, Vec<SnapshotMeta>), StorageError> {
    let metas = snapshots.metas()?;
    let state = State {
        log: ModelLog {
            recovered: Recovered {
                torn_bytes: 0,
                ..found
            },
        },
        newest: metas.last().copied(),
        peers: dir.peers().clone(),
    };
    Ok((state, metas))
}

/// Opens the directory twice, as restarts would, and reports what it says.
fn look(path: &Path) -> Result<(), StorageError> {
    let mut before = None;
    for opening in 0..2 {
        let dir = open_dir(path, DISK + 1)?;
        if opening == 0 {
            let Identity { disk, .. } = dir.identity();
            report(&format!("identity {} {disk}", u8::from(dir.is_new())));
        }
        let (log, found) = dir.open_log(LogOptions::small())?;
        let torn_bytes = found.torn_bytes;
        let snapshots = dir.open_snapshots()?;
        let (state, metas) = state(&dir, found, &snapshots)?;
        for meta in metas {
            // A file under its final name was whole once; no crash damages it.
            assert!(
                snapshots.load(meta)? == image(meta),
                "snapshot {meta:?} has other bytes than were given"
            );
            report(&format!("snapshot {} {}", meta.index.0, meta.term.0));
        }
        let covering = snapshots.load_covering(state.log.recovered.purged.0)?;
        assert_eq!(
            covering.map(|(meta, _)| meta),
            state.newest,
            "the newest snapshot joins up with the log"
        );
        drop(log);
        match before.take() {
            None => {
                report(&format!(
                    "found {} {torn_bytes} {state}",
                    state.fingerprint()
                ));
                before = Some(state);
            }
            Some(before) => {
                assert_eq!(torn_bytes, 0, "the first opening has cut the torn tail");
                assert!(
                    before == state,
                    "the second opening says {state}, the first {before}"
                );
            }
        }
    }
    Ok(())
}

fn write(
    path: &Path,
    seed: u64,
    steps_max: u64,
    fate: &Arc<Fate>,
    is_plain: bool,
) -> Result<(), StorageError> {
    let mut dir = open_dir(path, DISK)?;
    let mut random = fastrand::Rng::with_seed(seed);
    let options = options(&mut random);
    if is_plain {
        let opened = dir.open_log(options)?;
        let snapshots = dir.open_snapshots()?;
        let reopen = |dir: &DataDir, options| dir.open_log(options);
        return work(&mut dir, opened, snapshots, reopen, seed, steps_max);
    }
    let below = |name: &str| {
        let disk =
            quorate_storage::OsDisk::open(&path.join(name)).map_err(|source| StorageError::Io {
                op: "open",
                file: name.to_owned(),
                source,
            })?;
        Ok(FatalDisk::new(disk, fate.clone()))
    };
    let reopen = |_: &DataDir, options| {
        FileLog::open(
            below("log")?,
            LogOptions {
                create_if_missing: false,
                ..options
            },
        )
    };
    let opened = reopen(&dir, options)?;
    let snapshots = SnapshotStore::open(below("snapshots")?)?;
    work(&mut dir, opened, snapshots, reopen, seed, steps_max)
}

fn work<D: Disk>(
    dir: &mut DataDir,
    opened: (FileLog<D>, Recovered),
    mut snapshots: SnapshotStore<D>,
    reopen: impl Fn(&DataDir, LogOptions) -> Result<(FileLog<D>, Recovered), StorageError>,
    seed: u64,
    steps_max: u64,
) -> Result<(), StorageError> {
    let (mut log, found) = opened;
    let (state, _) = state(dir, found, &snapshots)?;
    let mut workload = Workload::new(seed, state);
    report("opened");
    for number in 1..=steps_max {
        match workload.step() {
            Step::Batch(operations) => {
                for operation in operations {
                    match operation {
                        Operation::Append(records) => log.append(&records)?,
                        Operation::Truncate(from) => log.truncate_suffix(from)?,
                        Operation::Purge(through, term) => log.purge_prefix(through, term)?,
                        Operation::Vote(vote) => log.save_vote(vote)?,
                    }
                }
                log.sync()?;
            }
            Step::Save(meta) => snapshots.save(meta, &image(meta))?,
            Step::Receive(meta, chunk_bytes) => receive(&mut snapshots, meta, chunk_bytes)?,
            Step::Remember(peer, disk) => dir.remember_peer(peer, disk)?,
            Step::Forget(peer) => dir.forget_peer(peer)?,
            Step::Reopen(options) => {
                drop(log);
                let (opened, found) = reopen(dir, options)?;
                assert!(
                    workload.state.log.agrees(&found),
                    "an orderly closed log says the same when it is opened"
                );
                log = opened;
            }
        }
        report(&format!("ack {number}"));
    }
    Ok(())
}

/// Takes a snapshot's file from a peer, whose disk is in memory.
fn receive<D: Disk>(
    snapshots: &mut SnapshotStore<D>,
    meta: SnapshotMeta,
    chunk_bytes: usize,
) -> Result<(), StorageError> {
    let mut peer = SnapshotStore::open(SimDisk::new(1))?;
    peer.save(meta, &image(meta))?;
    snapshots.begin_incoming(meta)?;
    let mut offset = 0;
    loop {
        let (bytes, total) = peer.read_chunk(meta, offset, chunk_bytes)?;
        offset = snapshots.write_incoming(meta, offset, &bytes)?;
        if offset == total {
            break;
        }
    }
    let unpacked = snapshots.finish_incoming(meta)?;
    assert!(
        unpacked == image(meta),
        "what was received is what was sent"
    );
    Ok(())
}
