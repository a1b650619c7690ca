//! A process that dies, is started again, and only then loses power: what the restart has answered must hold, for its replica has
//! acted on it. On the simulated disk, which loses names that were not synced; ext4 happens to sync them with anything later.

use quorate_storage::contract::ModelLog;
use quorate_storage::{
    FileLog, LogOptions, LogStore, Recovered, SimDisk, SnapshotStore, StorageError,
};

use crate::workload::{Operation, State, Step, Workload, image, options};

struct Disks {
    log: SimDisk,
    snapshots: SimDisk,
}

type Opened = (FileLog<SimDisk>, SnapshotStore<SimDisk>, State);

impl Disks {
    fn open(&self, options: LogOptions) -> Result<Opened, StorageError> {
        let (log, found) = FileLog::open(self.log.clone(), options)?;
        let snapshots = SnapshotStore::open(self.snapshots.clone())?;
        let newest = snapshots.load_newest()?;
        if let Some((meta, bytes)) = &newest {
            assert!(*bytes == image(*meta), "a snapshot is what was saved");
        }
        let state = State {
            log: ModelLog {
                recovered: Recovered {
                    torn_bytes: 0,
                    ..found
                },
            },
            newest: newest.map(|(meta, _)| meta),
            ..State::default()
        };
        Ok((log, snapshots, state))
    }

    fn work(&self, workload: &mut Workload, random: &mut fastrand::Rng) -> State {
        let mut acked = workload.state.clone();
        let Ok((mut log, mut snapshots, _)) = self.open(options(random)) else {
            return acked;
        };
        loop {
            let done = match workload.step() {
                Step::Batch(operations) => apply(&mut log, &operations),
                Step::Save(meta) | Step::Receive(meta, _) => snapshots.save(meta, &image(meta)),
                // These are in the data directory itself, which has no simulated disk; and this opens no log twice.
                Step::Remember(..) | Step::Forget(_) | Step::Reopen(_) => {
                    workload.state.peers.clear();
                    Ok(())
                }
            };
            if done.is_err() {
                return acked;
            }
            acked = workload.state.clone();
        }
    }
}

fn apply(log: &mut FileLog<SimDisk>, operations: &[Operation]) -> Result<(), StorageError> {
    for operation in operations {
        match operation {
            Operation::Append(records) => log.append(records)?,
            Operation::Truncate(from) => log.truncate_suffix(*from)?,
            Operation::Purge(through, term) => log.purge_prefix(*through, *term)?,
            Operation::Vote(vote) => log.save_vote(*vote)?,
        }
    }
    log.sync()
}

#[test]
fn what_a_restart_answers_survives_a_power_cut_right_after_it() {
    let mut in_flight_kept = 0;
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disks = Disks {
            log: SimDisk::new(seed),
            snapshots: SimDisk::new(seed),
        };
        let mut state = State::default();
        for round in 0..4 {
            let mut workload = Workload::new(random.u64(..), state);
            disks.log.cut_power_after(random.u64(1..120));
            disks.snapshots.cut_power_after(random.u64(1..20));
            let acked = disks.work(&mut workload, &mut random);
            // Only the process dies here: all that it wrote is seen by the next one.
            disks.log.kill();
            disks.snapshots.kill();
            let (.., answered) = disks.open(LogOptions::small()).unwrap();
            assert!(
                answered == acked || answered == workload.state,
                "seed {seed}, round {round}: answered {answered}, acknowledged {acked}"
            );
            in_flight_kept += u32::from(answered != acked);
            disks.log.crash(&mut random);
            disks.snapshots.crash(&mut random);
            let (.., found) = disks.open(LogOptions::small()).unwrap();
            assert!(
                found == answered,
                "seed {seed}, round {round}: a restart answered {answered}, after the power cut it is {found}"
            );
            state = found;
        }
    }
    assert!(in_flight_kept > 30, "only {in_flight_kept} in flight");
}
