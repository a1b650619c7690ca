//! How a server dies and comes back: crashes with or without power, booting from the bytes on its disk, and rot.
//!
//! Deliberately absent: what a running server does, which is in `machine.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_codec::{decode_entry, decode_snapshot};
use quorate_consensus::{
    Boot as ConsensusBoot, Config as ConsensusConfig, Configuration, HardState, SnapshotMeta,
    VoterSet,
};
use quorate_coord::State;
use quorate_replica::{Boot, Config, Replica};
use quorate_storage::{FileLog, LogOptions, LogStore, SimDisk, SnapshotStore};
use quorate_types::{ConfigEpoch, LogIndex, ReplicaId};

use crate::checkers::Violation;
use crate::clock::Moment;
use crate::machine::{Running, replica_id};
use crate::observe::{APPENDS_IN_FLIGHT_MAX, CALLS_MAX, UNCOMMITTED_BYTES_MAX};
use crate::plant::Plant;
use crate::trace::hash_bytes;
use crate::world::{Event, World};
use crate::writer::{Mirror, Writer};

impl World {
    /// A failed write or sync stops the process; it learns the truth by reopening.
    pub(crate) fn storage_failed(&mut self, server: usize, error: &quorate_storage::StorageError) {
        use quorate_storage::StorageError;
        let now = self.now;
        self.trace.note(now, 6, [server as u64, 0, 0], || {
            format!("s{} storage: {error}", server + 1)
        });
        if self.servers[server].disk.is_power_cut() {
            self.stats.fault("power cut within a write");
        }
        if let StorageError::Rotten { .. } | StorageError::LogMissing = error {
            if self.servers[server].misdirected {
                self.stop_for_good(server, "a misdirected write was found");
                return;
            }
            self.judge(Err(Violation {
                checker: "storage",
                guarantee: "5: what was acknowledged survives; no rot was injected on this disk",
                what: format!("server {}: {error}", server + 1),
            }));
        }
        // Power that was cut within the write, or a device that failed: of the rest, anything may be lost.
        let down = Duration::from_millis(self.random.u64(50..2_000));
        self.crash(server, true, down);
    }

    /// Ends a server's process, with its machine or alone.
    pub(crate) fn crash(&mut self, server: usize, power: bool, down: Duration) {
        let now = self.now;
        self.trace
            .note(now, 7, [server as u64, u64::from(power), 0], || {
                format!(
                    "s{} {}",
                    server + 1,
                    if power { "loses power" } else { "is killed" }
                )
            });
        self.servers[server].crash_at = None;
        self.servers[server].paused = None;
        let Some(running) = self.servers[server].running.take() else {
            return;
        };
        if power {
            self.servers[server].disk.crash(&mut self.random);
        } else {
            self.servers[server].disk.kill();
        }
        for other in 0..self.servers.len() {
            if other != server {
                self.network.disconnect(server, other);
            }
        }
        for stream in running.streams {
            // A machine without power says nothing; its clients notice by silence.
            if !power {
                self.hang_up(server, stream.node, stream.life, stream.id);
            }
        }
        self.schedule_restart(server, down);
    }

    pub(crate) fn schedule_restart(&mut self, server: usize, down: Duration) {
        if !self.servers[server].gone
            && !std::mem::replace(&mut self.servers[server].restarting, true)
        {
            let at = self.now + down;
            self.at(at, Event::Restart { server });
        }
    }

    /// Starts a server from the bytes on its disk.
    pub(crate) fn restart(&mut self, server: usize) {
        self.servers[server].restarting = false;
        if self.servers[server].running.is_some() || self.servers[server].gone {
            return;
        }
        self.look_at_rot(server);
        let booted = self.boot(server);
        if let Some(rotten) = self.servers[server].rotten.take() {
            if booted.is_err() {
                // The one byte is put back, as an operator would replace the member, which changes membership and is not built yet.
                self.stats.fault("rot at rest was refused");
                self.servers[server].disk = rotten.clean;
                self.servers[server].disk.kill();
                if self.is_calm() {
                    // The copy was made while it was full, say.
                    self.servers[server].disk.heal();
                }
                self.schedule_restart(server, Duration::from_millis(100));
                return;
            }
            self.stats.fault("rot at rest was harmless");
        }
        match booted {
            Ok(running) => {
                let now = self.now;
                let (index, commit) = (running.replica.last_index(), running.replica.commit());
                let this = &mut self.servers[server];
                this.boot += 1;
                this.running = Some(Box::new(running));
                let boot = this.boot;
                self.trace
                    .note(now, 8, [server as u64, u64::from(boot), index.0], || {
                        format!(
                            "s{} starts with the log to {index}, committed to {commit}",
                            server + 1
                        )
                    });
                for other in 0..self.servers.len() {
                    if other != server {
                        self.plan_connection(server, other);
                    }
                }
                self.schedule_tick(server);
            }
            Err(error) => {
                self.servers[server].disk.kill();
                match error {
                    quorate_storage::StorageError::Rotten { .. }
                    | quorate_storage::StorageError::LogMissing => {
                        self.storage_failed(server, &error);
                    }
                    _ => self.schedule_restart(server, Duration::from_millis(300)),
                }
            }
        }
    }

    fn boot(&mut self, server: usize) -> Result<Running, quorate_storage::StorageError> {
        let replicas = self.servers.len();
        let disk = self.servers[server].disk.clone();
        let options = LogOptions {
            create_if_missing: !self.servers[server].initialized,
            ..LogOptions::small()
        };
        let (mut log, mut recovered) = FileLog::open(disk.clone(), options)?;
        let snapshots = SnapshotStore::open(disk)?;
        self.servers[server].initialized = true;
        if recovered.torn_bytes > 0 {
            self.stats.fault("torn tail cut off");
        }
        let (meta, mut state) = match snapshots.load_covering(recovered.purged.0)? {
            Some((_, bytes)) => decode_snapshot(&bytes).expect("a verified snapshot decodes"),
            None => (
                SnapshotMeta {
                    configuration: initial(replicas),
                    ..SnapshotMeta::default()
                },
                State::new(),
            ),
        };
        self.plant_in_log(server, &mut log, &mut recovered, &meta, &mut state);
        let mut mirror = Mirror::new(recovered.purged.0);
        let mut entries = Vec::with_capacity(recovered.records.len());
        for record in &recovered.records {
            let entry = decode_entry(&record.bytes).expect("a verified record decodes");
            assert_eq!(
                (entry.index, entry.term),
                (record.index, record.term),
                "a record is filed under another place"
            );
            mirror.push(entry.index, entry.term, hash_bytes(&record.bytes));
            entries.push(entry);
        }
        let now = self.servers[server].clock.reading(self.now);
        let config = Config {
            consensus: ConsensusConfig {
                id: replica_id(server),
                timing: self.setup.timing,
                append_bytes_max: 16 << 10,
                appends_in_flight_max: APPENDS_IN_FLIGHT_MAX,
                uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
                seed: self.random.u64(..),
            },
            drift: self.setup.drift,
            incarnation: self.random.u64(..),
            snapshot_entries: self.setup.snapshot_entries,
            snapshot_retain: self.setup.snapshot_retain,
            calls_max: CALLS_MAX,
            call_timeout: Duration::from_secs(2),
            stall_min: self.setup.timing.heartbeat_interval,
        };
        let hard_state = HardState {
            term: recovered.vote.term,
            voted_for: recovered.vote.voted_for,
        };
        let key_watches = crate::key_watch::watches(state.kv().revision(), &mut self.random);
        let boot = Boot {
            consensus: ConsensusBoot {
                hard_state,
                snapshot: meta,
                entries,
            },
            state,
        };
        Ok(Running {
            replica: Replica::new(config, boot, now),
            log,
            snapshots,
            writer: Writer::default(),
            mirror,
            held: VecDeque::new(),
            tick_at: Moment::NEVER,
            calls: Vec::new(),
            origins: BTreeMap::new(),
            streams: Vec::new(),
            steps: 0,
            feed: crate::watch::ring(&mut self.random),
            key_watches,
            saving: false,
        })
    }

    /// Mistakes of a shell at restart.
    fn plant_in_log(
        &mut self,
        server: usize,
        log: &mut FileLog<SimDisk>,
        recovered: &mut quorate_storage::Recovered,
        meta: &SnapshotMeta,
        state: &mut State,
    ) {
        let keep_min = usize::try_from(meta.last.index.0.saturating_sub(recovered.purged.0.0))
            .expect("a short log");
        match self.plant {
            Some(Plant::ForgetVote) => recovered.vote.voted_for = None,
            Some(Plant::DropSyncedSuffix) => {
                let keep = recovered.records.len().saturating_sub(3).max(keep_min);
                if let Some(dropped) = recovered.records.get(keep) {
                    log.truncate_suffix(dropped.index)
                        .expect("a healthy disk truncates");
                    recovered.records.truncate(keep);
                }
            }
            Some(Plant::RewriteEntries) if server == 0 => {
                if let Some(record) = recovered
                    .records
                    .get_mut(keep_min..)
                    .and_then(<[_]>::last_mut)
                {
                    let mut entry = decode_entry(&record.bytes).expect("a verified record decodes");
                    entry.body = quorate_consensus::Body::OwnTerm;
                    record.bytes = quorate_codec::encode_entry(&entry).into();
                }
            }
            Some(Plant::SnapshotSkipsGroups) if meta.last.index > LogIndex::ZERO => {
                *state = State::new();
                state.note_applied(meta.last.index, meta.last.term);
            }
            _ => {}
        }
    }
}

/// The first configuration: every server votes.
fn initial(replicas: usize) -> Configuration {
    let voters: BTreeSet<ReplicaId> = (0..replicas).map(replica_id).collect();
    Configuration {
        epoch: ConfigEpoch(1),
        members: voters
            .iter()
            .map(|id| (*id, quorate_consensus::Member::default()))
            .collect(),
        incoming: VoterSet { voters },
        ..Configuration::default()
    }
}
