//! Reading a server's disk back as a restart would: its newest snapshot, and its log's tail on top.

use quorate_codec::{decode_entry, decode_snapshot};
use quorate_consensus::Body;
use quorate_coord::State;
use quorate_storage::{FileLog, LogOptions, SnapshotStore};

use crate::world::World;

/// One of so many saved snapshots is read back at once.
const REBUILD_EVERY: u32 = 12;

impl World {
    /// A server saved a snapshot: now and then its disk is read back.
    pub(crate) fn maybe_rebuild(&mut self, server: usize) {
        if self.random.u32(..REBUILD_EVERY) == 0 {
            self.rebuild(server);
        }
    }

    /// Builds a server's state from a copy of its disk, and compares it with the whole log's.
    pub(crate) fn rebuild(&mut self, server: usize) {
        let Some(running) = &self.servers[server].running else {
            return;
        };
        let commit = running.replica.commit();
        let disk = self.servers[server].disk.fork();
        disk.kill();
        let options = LogOptions {
            create_if_missing: false,
            ..LogOptions::small()
        };
        // A disk that is full, or about to fail, is not read: nothing is claimed of it here.
        let Ok((log, recovered)) = FileLog::open(disk.clone(), options) else {
            return;
        };
        drop::<FileLog<_>>(log);
        let Ok(snapshots) = SnapshotStore::open(disk) else {
            return;
        };
        let Ok(newest) = snapshots.load_newest() else {
            return;
        };
        let mut state = match newest {
            Some((_, bytes)) => {
                decode_snapshot(&bytes)
                    .expect("a verified snapshot decodes")
                    .1
            }
            None => State::new(),
        };
        let last = recovered
            .records
            .last()
            .map_or(state.applied().0, |record| record.index);
        let through = self.checkers.full.comparable(commit.min(last));
        for record in &recovered.records {
            if record.index <= state.applied().0 {
                continue;
            }
            if record.index > through {
                break;
            }
            if record.index != state.applied().0.next() {
                // The snapshot is older than the log's beginning: a newer one is on its way in.
                return;
            }
            let entry = decode_entry(&record.bytes).expect("a verified record decodes");
            match &entry.body {
                Body::Command(envelope) => {
                    let mut events = Vec::new();
                    // Its outcome was answered when it was first applied.
                    let _ = state.apply(entry.index, entry.term, envelope, &mut events);
                }
                Body::OwnTerm | Body::Configuration(_) => {
                    state.note_applied(entry.index, entry.term);
                }
            }
        }
        let verdict = self.checkers.full.on_rebuilt(server, &state);
        self.judge(verdict);
    }
}
