//! A server: its replica, and the shell around it that carries out orders in the order given.
//!
//! Owns: stepping, crashing between any two orders, pausing, restarting from the bytes on its disk. The log's writer is in
//! `writer.rs`, nodes' streams are in `stream.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_codec::{decode_entry, decode_peer, decode_snapshot, encode_peer};
use quorate_consensus::{
    Boot as ConsensusBoot, Config as ConsensusConfig, Configuration, HardState, Message, Role, SnapshotMeta, VoterSet,
    WriteSeq,
};
use quorate_coord::State;
use quorate_replica::{Boot, CallId, Config, Input, Output, PeerMessage, Published, Replica, Request};
use quorate_storage::{FileLog, LogOptions, SimDisk, SnapshotStore};
use quorate_types::{ConfigEpoch, LogIndex, ReplicaId};

use crate::checkers::Violation;
use crate::clock::{Clock, Moment};
use crate::plant::Plant;
use crate::stream::{Origin, Stream};
use crate::trace::{hash_bytes, mix};
use crate::world::{Event, World};
use crate::writer::{Mirror, Writer};

/// How often a running replica's invariants are checked, in steps, where debug assertions are off.
const CHECK_EVERY: u64 = 64;
/// How often a published state is digested, in entries.
const DIGEST_EVERY: u64 = 16;

/// What a server's snapshot thread does.
#[derive(Debug)]
pub(crate) enum Job {
    /// Encode and save a version.
    Save { meta: SnapshotMeta, state: Box<State> },
    /// Write a piece that arrived.
    Receive { meta: SnapshotMeta, offset: u64, total: u64, data: std::sync::Arc<[u8]> },
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) index: usize,
    pub(crate) clock: Clock,
    pub(crate) disk: SimDisk,
    /// How often it was started.
    pub(crate) boot: u32,
    pub(crate) running: Option<Box<Running>>,
    /// What happened to it while it stands still.
    pub(crate) paused: Option<VecDeque<Event>>,
    /// Dies after so many more orders; with its machine or alone.
    pub(crate) crash_after: Option<(u32, bool)>,
    /// Directives to nodes are late by up to this.
    pub(crate) directives_late: Duration,
    /// Its log was created: from then on an empty disk is a lost one.
    initialized: bool,
    /// A restart is scheduled.
    pub(crate) restarting: bool,
}

/// What a running server's process holds in memory.
pub(crate) struct Running {
    pub(crate) replica: Replica,
    pub(crate) log: FileLog<SimDisk>,
    pub(crate) snapshots: SnapshotStore<SimDisk>,
    pub(crate) writer: Writer,
    /// What its log holds, as far as it was ordered.
    pub(crate) mirror: Mirror,
    /// Messages that promise a write, in order.
    pub(crate) held: VecDeque<(WriteSeq, usize, PeerMessage)>,
    tick_at: Moment,
    pub(crate) calls: Vec<(CallId, Request)>,
    pub(crate) origins: BTreeMap<CallId, Origin>,
    pub(crate) streams: Vec<Stream>,
    steps: u64,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("status", &self.replica.status()).finish_non_exhaustive()
    }
}

impl Server {
    pub(crate) fn new(index: usize, clock: Clock, seed: u64) -> Self {
        Self {
            index,
            clock,
            disk: SimDisk::new(seed),
            boot: 0,
            running: None,
            paused: None,
            crash_after: None,
            directives_late: Duration::ZERO,
            initialized: false,
            restarting: false,
        }
    }
}

/// The id of the server at an index.
pub(crate) fn replica_id(server: usize) -> ReplicaId {
    ReplicaId(server as u64 + 1)
}

fn server_of(id: ReplicaId) -> usize {
    usize::try_from(id.0 - 1).expect("few servers")
}

impl World {
    pub(crate) fn running(&mut self, server: usize) -> Option<&mut Running> {
        self.servers[server].running.as_deref_mut()
    }

    /// Whether a server is the one started as `boot` and not standing still. If it stands still, the event waits.
    fn is_up(&mut self, server: usize, boot: u32, event: impl FnOnce() -> Event) -> bool {
        let server = &mut self.servers[server];
        if server.boot != boot || server.running.is_none() {
            return false;
        }
        match &mut server.paused {
            Some(waiting) => {
                waiting.push_back(event());
                false
            }
            None => true,
        }
    }

    pub(crate) fn on_peer(&mut self, from: usize, to: usize, generation: u32, message: Box<PeerMessage>) {
        if self.network.generation(from, to) != generation {
            self.network.cut_off += 1;
            return;
        }
        let boot = self.servers[to].boot;
        // A paused server is running: a crash ends both.
        if let Some(waiting) = &mut self.servers[to].paused {
            waiting.push_back(Event::Peer { from, to, generation, message });
            return;
        }
        if self.is_up(to, boot, || unreachable!("pauses were looked at")) {
            self.step(to, Input::Peer { from: replica_id(from), message: *message });
        }
    }

    pub(crate) fn on_tick(&mut self, server: usize, boot: u32) {
        if !self.is_up(server, boot, || Event::Tick { server, boot }) {
            return;
        }
        let now = self.now;
        let clock = self.servers[server].clock;
        let running = self.running(server).expect("it is up");
        if running.tick_at > now {
            // An earlier tick moved on; there is a later one.
            return;
        }
        let due = clock.moment_of(running.replica.deadline());
        running.tick_at = Moment::NEVER;
        if due > now {
            // The deadline moved on since this tick was scheduled.
            running.tick_at = due;
            self.at(due, Event::Tick { server, boot });
            return;
        }
        self.step(server, Input::Tick);
    }

    pub(crate) fn on_calls(&mut self, server: usize, boot: u32) {
        if !self.is_up(server, boot, || Event::Calls { server, boot }) {
            return;
        }
        let calls = std::mem::take(&mut self.running(server).expect("it is up").calls);
        self.step(server, Input::Calls(calls));
    }

    /// Takes a call in; it reaches the replica together with what else comes in until then.
    pub(crate) fn call(&mut self, server: usize, origin: Origin, request: Request) {
        self.call_next += 1;
        let call = CallId(self.call_next);
        let wait = Duration::from_micros(self.random.u64(1..500));
        let boot = self.servers[server].boot;
        let Some(running) = self.running(server) else { return };
        if origin != Origin::Nobody {
            running.origins.insert(call, origin);
        }
        running.calls.push((call, request));
        if running.calls.len() == 1 {
            let at = self.now + wait;
            self.at(at, Event::Calls { server, boot });
        }
    }

    /// Gives the replica one input and carries out what it orders; the server may die at any order.
    pub(crate) fn step(&mut self, server: usize, input: Input) {
        let now = self.now;
        let boot = self.servers[server].boot;
        let reading = self.servers[server].clock.reading(now);
        let mut outputs = std::mem::take(&mut self.outputs);
        let check = {
            let Some(running) = self.running(server) else { return };
            running.replica.step(reading, input, &mut outputs);
            running.steps += 1;
            cfg!(debug_assertions) || running.steps.is_multiple_of(CHECK_EVERY)
        };
        self.stats.steps += 1;
        if check {
            let running = self.running(server).expect("it just stepped");
            running.replica.check_invariants();
            if running.steps.is_multiple_of(CHECK_EVERY) {
                running.replica.state().check_invariants();
            }
        }
        for output in outputs.drain(..) {
            if self.servers[server].boot != boot || self.servers[server].running.is_none() {
                break;
            }
            if let Some((left, power)) = &mut self.servers[server].crash_after {
                let power = *power;
                if *left == 0 {
                    let down = Duration::from_millis(self.random.u64(1..3_000));
                    self.crash(server, power, down);
                    break;
                }
                *left -= 1;
            }
            self.carry_out(server, output);
        }
        outputs.clear();
        self.outputs = outputs;
        self.schedule_tick(server);
    }

    fn schedule_tick(&mut self, server: usize) {
        let now = self.now;
        let (clock, boot) = (self.servers[server].clock, self.servers[server].boot);
        let Some(running) = self.running(server) else { return };
        let due = clock.moment_of(running.replica.deadline()).max(now);
        if due < running.tick_at {
            running.tick_at = due;
            self.at(due, Event::Tick { server, boot });
        }
    }

    fn carry_out(&mut self, server: usize, output: Output) {
        let now = self.now;
        let note = |tag: u64, a: u64, b: u64| (100 + tag, [server as u64, a, b]);
        match output {
            Output::Persist(write) => {
                let (tag, numbers) = note(0, write.seq.0, write.entries.len() as u64);
                self.trace.note(now, tag, numbers, || format!("s{} persist {write:?}", server + 1));
                self.persist(server, write);
            }
            Output::Send { to, message } => self.send(server, server_of(to), message),
            Output::SendAfterPersist { write, to, message } => {
                let at_once = self.is_planted(Plant::SendBeforePersist);
                let running = self.running(server).expect("it is running");
                if at_once || write <= running.writer.durable {
                    self.send(server, server_of(to), message);
                } else {
                    running.held.push_back((write, server_of(to), message));
                }
            }
            Output::Answer { call, response } => self.answer(server, call, response),
            Output::Publish(published) => self.publish(server, published),
            Output::SaveSnapshot { meta, state } => {
                let (tag, numbers) = note(2, meta.last.index.0, 0);
                self.trace.note(now, tag, numbers, || format!("s{} save snapshot {:?}", server + 1, meta.last));
                self.later(server, Job::Save { meta, state });
            }
            Output::SendSnapshotChunk { to, term, meta, offset } => {
                let (tag, numbers) = note(3, meta.last.index.0, offset);
                self.trace.note(now, tag, numbers, || format!("s{} send snapshot to {to} from {offset}", server + 1));
                let bytes_max = self.setup.chunk_bytes;
                let running = self.running(server).expect("it is running");
                // A newer snapshot may have replaced it: then the replica is asked for that one.
                let read = running.snapshots.read_chunk(stored(&meta), offset, bytes_max);
                if let Ok((data, total)) = read {
                    let data = data.into();
                    let message = Message::SnapshotChunk { term, meta, offset, total, data };
                    self.send(server, server_of(to), PeerMessage::Consensus(message));
                    self.stats.fault("snapshot piece sent");
                }
            }
            Output::WriteSnapshotChunk { meta, offset, total, data, .. } => {
                self.later(server, Job::Receive { meta, offset, total, data });
            }
            Output::RoleChanged { role, term, leader } => {
                let (tag, numbers) = note(5, term.0, role as u64);
                self.trace.note(now, tag, numbers, || format!("s{} {role:?} {term:?} leader {leader:?}", server + 1));
                if role == Role::Leader {
                    let boot = self.servers[server].boot;
                    let verdict = self.checkers.leaders.on_leader(term, server, boot);
                    self.judge(verdict);
                }
            }
            Output::Fatal(error) => {
                // No simulated disk is rolled back, so nobody may say that one was.
                self.judge(Err(Violation {
                    checker: "no_false_alarm",
                    guarantee: "5: a member stops only when its disk was rolled back or a log is corrupt",
                    what: format!("server {} stops: {error}", server + 1),
                }));
            }
        }
    }

    fn later(&mut self, server: usize, job: Job) {
        let wait = self.setup.sync * self.random.u32(1..8) + Duration::from_micros(self.random.u64(10..5_000));
        let (at, boot) = (self.now + wait, self.servers[server].boot);
        self.at(at, Event::Job { server, boot, job: Box::new(job) });
    }

    /// Sends a message to a peer; now and then through the codec, as all go in reality.
    pub(crate) fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        if self.plant.is_some_and(Plant::hides_seen)
            && matches!(message, PeerMessage::Consensus(Message::SeenOfYou { .. }))
        {
            return;
        }
        let now = self.now;
        let [first, again] = self.network.send(now, from, to, message.lane());
        let numbers = [(from * 16 + to) as u64, first.map_or(0, |at| at.0), 0];
        self.trace.note(now, 3, numbers, || format!("s{} -> s{} at {first:?}: {message:?}", from + 1, to + 1));
        let Some(first) = first else { return };
        let message = if self.stats.events.is_multiple_of(self.setup.codec_every) {
            let bytes = encode_peer(&message);
            let decoded = decode_peer(&bytes).expect("what was encoded decodes");
            debug_assert_eq!(decoded, message, "the codec changes a message");
            decoded
        } else {
            message
        };
        let generation = self.network.generation(from, to);
        if let Some(again) = again {
            let message = Box::new(message.clone());
            self.at(again, Event::Peer { from, to, generation, message });
        }
        self.at(first, Event::Peer { from, to, generation, message: Box::new(message) });
    }

    /// A new version: checkers look at it, and directives go to the nodes that listen here.
    fn publish(&mut self, server: usize, published: Published) {
        let now = self.now;
        let Published { state, applied, reset } = published;
        for entry in &applied {
            let running = self.running(server).expect("it is running");
            let logged = running.mirror.get(entry.index);
            let verdict = self.checkers.on_applied(now, server, entry, logged, &state);
            let numbers = [server as u64, entry.index.0, mix(entry.revision.0 ^ entry.events.len() as u64)];
            self.trace.note(now, 4, numbers, || {
                format!("s{} applied {} {:?} {:?}", server + 1, entry.index, entry.term, entry.events)
            });
            self.judge(verdict);
        }
        if state.applied().0.0.is_multiple_of(DIGEST_EVERY) || reset {
            let verdict = self.checkers.digests.on_state(server, &state);
            self.judge(verdict);
        }
        self.tell_nodes(server, &applied, reset);
    }

    pub(crate) fn on_job(&mut self, server: usize, boot: u32, job: Box<Job>) {
        // A job cannot be kept while paused without moving it: look first.
        if let Some(waiting) = &mut self.servers[server].paused {
            waiting.push_back(Event::Job { server, boot, job });
            return;
        }
        if !self.is_up(server, boot, || unreachable!("pauses were looked at")) {
            return;
        }
        match *job {
            Job::Save { meta, state } => {
                let bytes = quorate_codec::encode_snapshot(&meta, &state);
                let running = self.running(server).expect("it is up");
                match running.snapshots.save(stored(&meta), &bytes) {
                    Ok(()) => {
                        self.stats.fault("snapshot saved");
                        self.step(server, Input::SnapshotSaved { meta });
                    }
                    Err(error) => self.storage_failed(server, &error),
                }
            }
            Job::Receive { meta, offset, total, data } => self.receive(server, meta, offset, total, &data),
        }
    }

    fn receive(&mut self, server: usize, meta: SnapshotMeta, offset: u64, total: u64, data: &[u8]) {
        use quorate_storage::StorageError;
        let running = self.running(server).expect("it is up");
        let next = offset + data.len() as u64;
        let begun = if offset == 0 { running.snapshots.begin_incoming(stored(&meta)) } else { Ok(()) };
        let written = begun.and_then(|()| running.snapshots.write_incoming(stored(&meta), offset, data));
        let finished = match written {
            Ok(_) if next < total => {
                self.step(server, Input::SnapshotChunkWritten { meta, next });
                return;
            }
            Ok(_) => running.snapshots.finish_incoming(stored(&meta)),
            Err(error) => Err(error),
        };
        match finished {
            Ok(bytes) => {
                let decoded = decode_snapshot(&bytes);
                let (found, state) = decoded.expect("a verified snapshot decodes");
                assert_eq!(found, meta, "the snapshot is another than announced");
                self.stats.fault("snapshot installed");
                self.step(server, Input::SnapshotArrived { meta, state: Box::new(state) });
            }
            Err(
                StorageError::IncomingOutOfOrder { .. }
                | StorageError::IncomingRotten { .. }
                | StorageError::SnapshotUnknown { .. },
            ) => self.step(server, Input::SnapshotBroken { meta }),
            Err(error) => self.storage_failed(server, &error),
        }
    }

    /// A failed write or sync stops the process; it learns the truth by reopening.
    pub(crate) fn storage_failed(&mut self, server: usize, error: &quorate_storage::StorageError) {
        use quorate_storage::StorageError;
        let now = self.now;
        self.trace.note(now, 6, [server as u64, 0, 0], || format!("s{} storage: {error}", server + 1));
        if let StorageError::Rotten { .. } | StorageError::LogMissing = error {
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
        self.trace.note(now, 7, [server as u64, u64::from(power), 0], || {
            format!("s{} {}", server + 1, if power { "loses power" } else { "is killed" })
        });
        self.servers[server].crash_after = None;
        self.servers[server].paused = None;
        let Some(running) = self.servers[server].running.take() else { return };
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
        if !std::mem::replace(&mut self.servers[server].restarting, true) {
            let at = self.now + down;
            self.at(at, Event::Restart { server });
        }
    }

    /// Starts a server from the bytes on its disk.
    pub(crate) fn restart(&mut self, server: usize) {
        self.servers[server].restarting = false;
        if self.servers[server].running.is_some() {
            return;
        }
        match self.boot(server) {
            Ok(running) => {
                let now = self.now;
                let (index, commit) = (running.replica.last_index(), running.replica.commit());
                let this = &mut self.servers[server];
                this.boot += 1;
                this.running = Some(Box::new(running));
                let boot = this.boot;
                self.trace.note(now, 8, [server as u64, u64::from(boot), index.0], || {
                    format!("s{} starts with the log to {index}, committed to {commit}", server + 1)
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
                    quorate_storage::StorageError::Rotten { .. } | quorate_storage::StorageError::LogMissing => {
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
        let options = LogOptions { create_if_missing: !self.servers[server].initialized, ..LogOptions::small() };
        let (log, mut recovered) = FileLog::open(disk.clone(), options)?;
        let snapshots = SnapshotStore::open(disk)?;
        self.servers[server].initialized = true;
        if recovered.torn_bytes > 0 {
            self.stats.fault("torn tail cut off");
        }
        let (meta, mut state) = match snapshots.load_covering(recovered.purged.0)? {
            Some((_, bytes)) => decode_snapshot(&bytes).expect("a verified snapshot decodes"),
            None => (SnapshotMeta { configuration: initial(replicas), ..SnapshotMeta::default() }, State::new()),
        };
        self.plant_in_log(server, &mut recovered, &meta, &mut state);
        let mut mirror = Mirror::new(recovered.purged.0);
        let mut entries = Vec::with_capacity(recovered.records.len());
        for record in &recovered.records {
            let entry = decode_entry(&record.bytes).expect("a verified record decodes");
            assert_eq!((entry.index, entry.term), (record.index, record.term), "a record is filed under another place");
            mirror.push(entry.index, entry.term, hash_bytes(&record.bytes));
            entries.push(entry);
        }
        let now = self.servers[server].clock.reading(self.now);
        let config = Config {
            consensus: ConsensusConfig {
                id: replica_id(server),
                timing: self.setup.timing,
                append_bytes_max: 16 << 10,
                appends_in_flight_max: 16,
                uncommitted_bytes_max: 1 << 20,
                seed: self.random.u64(..),
            },
            drift: self.setup.drift,
            incarnation: self.random.u64(..),
            snapshot_entries: self.setup.snapshot_entries,
            snapshot_retain: self.setup.snapshot_retain,
            calls_max: 1_000,
            call_timeout: Duration::from_secs(2),
            stall_min: self.setup.timing.heartbeat_interval,
        };
        let hard_state = HardState { term: recovered.vote.term, voted_for: recovered.vote.voted_for };
        let boot = Boot { consensus: ConsensusBoot { hard_state, snapshot: meta, entries }, state };
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
        })
    }

    /// Mistakes of a shell at restart.
    fn plant_in_log(
        &mut self,
        server: usize,
        recovered: &mut quorate_storage::Recovered,
        meta: &SnapshotMeta,
        state: &mut State,
    ) {
        let keep_min = usize::try_from(meta.last.index.0.saturating_sub(recovered.purged.0.0)).expect("a short log");
        match self.plant {
            Some(Plant::ForgetVote) => recovered.vote.voted_for = None,
            Some(Plant::DropSyncedSuffix) => {
                let keep = recovered.records.len().saturating_sub(3).max(keep_min);
                recovered.records.truncate(keep);
            }
            Some(Plant::RewriteEntries) if server == 0 => {
                if let Some(record) = recovered.records.get_mut(keep_min..).and_then(<[_]>::last_mut) {
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

    /// A byte rots on a copy of a server's disk: opening the copy refuses, or finds everything.
    pub(crate) fn try_rot(&mut self, server: usize) {
        let idle = self.running(server).is_some_and(|running| running.writer.is_idle());
        if !idle {
            return;
        }
        let (clean, rotten) = (self.servers[server].disk.fork(), self.servers[server].disk.fork());
        clean.kill();
        rotten.kill();
        // Opening may begin a new segment: what rots was there before.
        let names = quorate_storage::Disk::list(&clean).expect("a healthy disk lists its files");
        let options = LogOptions { create_if_missing: false, ..LogOptions::small() };
        let Ok((_, whole)) = FileLog::open(clean.clone(), options.clone()) else { return };
        let logs: Vec<&String> = names.iter().filter(|name| name.starts_with("log")).collect();
        if logs.is_empty() {
            return;
        }
        let name = logs[self.random.usize(..logs.len())].as_str();
        let mut file = quorate_storage::Disk::open(&rotten, name).expect("the file was listed");
        let size = quorate_storage::DiskFile::size(&mut file).expect("a healthy disk knows its files");
        if size == 0 {
            return;
        }
        let byte = self.random.u64(..size);
        rotten.rot(name, byte, self.random.u8(1..));
        match FileLog::open(rotten, options) {
            Ok((_, found)) if found.vote == whole.vote && found.records == whole.records => {
                self.stats.fault("rot was harmless");
            }
            Err(_) => self.stats.fault("rot was refused"),
            Ok((_, found)) => {
                let what = format!(
                    "server {}: byte {byte} of `{name}` rotted, and opening it found {} of {} records, vote {:?} of {:?}",
                    server + 1,
                    found.records.len(),
                    whole.records.len(),
                    found.vote,
                    whole.vote,
                );
                let guarantee = "5: corrupting any byte of what was acknowledged is detected and never truncated";
                self.judge(Err(Violation { checker: "storage", guarantee, what }));
            }
        }
    }

    pub(crate) fn pause_server(&mut self, server: usize, lasts: Duration) {
        if self.servers[server].running.is_some() && self.servers[server].paused.is_none() {
            self.servers[server].paused = Some(VecDeque::new());
            let at = self.now + lasts;
            self.at(at, Event::ResumeServer { server });
        }
    }

    pub(crate) fn resume_server(&mut self, server: usize) {
        let Some(waiting) = self.servers[server].paused.take() else { return };
        let now = self.now;
        self.trace.note(now, 9, [server as u64, waiting.len() as u64, 0], || format!("s{} goes on", server + 1));
        // What waited is read at once, in the order in which it came.
        for event in waiting {
            self.at(now, event);
        }
    }

    /// Breaks a connection between servers, and plans the next.
    pub(crate) fn break_connection(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        if self.network.is_connected(a, b) {
            self.network.disconnect(a, b);
            self.plan_connection(a, b);
        }
    }

    fn plan_connection(&mut self, a: usize, b: usize) {
        let wait = Duration::from_millis(self.random.u64(1..60));
        let (at, generation) = (self.now + wait, self.network.generation(a, b));
        self.at(at, Event::Connect { a, b, generation });
    }

    pub(crate) fn on_connect(&mut self, a: usize, b: usize, generation: u32) {
        if self.network.generation(a, b) != generation || self.network.is_connected(a, b) {
            return;
        }
        let up = |server: &Server| server.running.is_some();
        if !up(&self.servers[a]) || !up(&self.servers[b]) {
            // Whoever starts plans it anew.
            return;
        }
        if !self.network.is_reachable(a, b) || self.servers[a].paused.is_some() || self.servers[b].paused.is_some() {
            let at = self.now + Duration::from_millis(self.random.u64(50..300));
            self.at(at, Event::Connect { a, b, generation });
            return;
        }
        self.network.connect(a, b);
        self.step(a, Input::PeerConnected { peer: replica_id(b) });
        self.step(b, Input::PeerConnected { peer: replica_id(a) });
    }

    /// The leader is told to hand over.
    pub(crate) fn hand_over(&mut self) {
        let leads = |server: &Server| {
            server.paused.is_none() && server.running.as_ref().is_some_and(|r| r.replica.role() == Role::Leader)
        };
        if let Some(server) = (0..self.servers.len()).find(|server| leads(&self.servers[*server])) {
            self.step(server, Input::HandOver);
        }
    }

    /// Many reads at once, answered to nobody.
    pub(crate) fn burst(&mut self, server: usize, calls: usize) {
        for _ in 0..calls {
            self.call(server, Origin::Nobody, Request::Read);
        }
    }
}

/// The first configuration: every server votes.
fn initial(replicas: usize) -> Configuration {
    let voters: BTreeSet<ReplicaId> = (0..replicas).map(replica_id).collect();
    Configuration {
        epoch: ConfigEpoch(1),
        members: voters.iter().map(|id| (*id, quorate_consensus::Member::default())).collect(),
        incoming: VoterSet { voters },
        ..Configuration::default()
    }
}

/// How storage names a snapshot.
pub(crate) fn stored(meta: &SnapshotMeta) -> quorate_storage::SnapshotMeta {
    quorate_storage::SnapshotMeta { index: meta.last.index, term: meta.last.term }
}
