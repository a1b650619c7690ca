//! A server: its replica, and the shell around it that carries out orders in the order given.
//!
//! Owns: stepping, pausing, and crashing between any two orders. The log's writer is in
//! `writer.rs`, its death and restart in `restart.rs`, nodes' streams are in `stream.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_codec::{decode_peer, decode_snapshot, encode_peer};
use quorate_consensus::{FatalError, Message, Role, SnapshotMeta, WriteSeq};
use quorate_coord::State;
use quorate_replica::{CallId, Input, Output, PeerMessage, Published, Replica, Request};
use quorate_storage::{FileLog, SimDisk, SnapshotStore};
use quorate_types::ReplicaId;

use crate::checkers::Violation;
use crate::clock::{Clock, Moment};
use crate::faults::{CrashPoint, Rotten};
use crate::plant::Plant;
use crate::stream::{Origin, Stream};
use crate::trace::mix;
use crate::world::{Event, World};
use crate::writer::{Mirror, Writer};

/// How often a running replica's invariants are checked, in steps, where debug assertions are off.
const CHECK_EVERY: u64 = 64;
/// How often its state's, which cost a pass over all of it, in steps.
const CHECK_STATE_EVERY: u64 = 1_024;
/// How often a published state is digested, in entries.
const DIGEST_EVERY: u64 = 32;

/// What a server's snapshot thread does.
#[derive(Debug)]
pub(crate) enum Job {
    /// Encode and save a version.
    Save {
        meta: SnapshotMeta,
        state: Box<State>,
    },
    /// Write a piece that arrived.
    Receive {
        meta: SnapshotMeta,
        offset: u64,
        total: u64,
        data: std::sync::Arc<[u8]>,
    },
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
    /// Where it shall die.
    pub(crate) crash_at: Option<CrashAt>,
    /// Directives to nodes are late by up to this.
    pub(crate) directives_late: Duration,
    /// Its log was created: from then on an empty disk is a lost one.
    pub(crate) initialized: bool,
    /// A restart is scheduled.
    pub(crate) restarting: bool,
    /// A write of its disk was misdirected.
    pub(crate) misdirected: bool,
    /// A byte of its disk rotted while it was stopped.
    pub(crate) rotten: Option<Rotten>,
    /// When it was started from an old copy of its disk.
    pub(crate) restored: Option<Moment>,
    /// It lost what it had promised, and never comes back.
    pub(crate) gone: bool,
}

/// Where a server shall die.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CrashAt {
    pub(crate) point: CrashPoint,
    /// After passing there so many times.
    pub(crate) passes: u32,
    /// With its machine.
    pub(crate) power: bool,
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
    pub(crate) tick_at: Moment,
    pub(crate) calls: Vec<(CallId, Request)>,
    pub(crate) origins: BTreeMap<CallId, Origin>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) steps: u64,
    /// What watchers read.
    pub(crate) feed: crate::watch::Ring,
    /// Watches of keys.
    pub(crate) key_watches: crate::key_watch::Watches,
    /// A snapshot is being saved.
    pub(crate) saving: bool,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("status", &self.replica.status())
            .finish_non_exhaustive()
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
            crash_at: None,
            directives_late: Duration::ZERO,
            initialized: false,
            restarting: false,
            misdirected: false,
            rotten: None,
            restored: None,
            gone: false,
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

    pub(crate) fn on_peer(
        &mut self,
        from: usize,
        to: usize,
        generation: u32,
        message: Box<PeerMessage>,
    ) {
        if self.network.generation(from, to) != generation {
            self.network.cut_off += 1;
            return;
        }
        let boot = self.servers[to].boot;
        // A paused server is running: a crash ends both.
        if let Some(waiting) = &mut self.servers[to].paused {
            waiting.push_back(Event::Peer {
                from,
                to,
                generation,
                message,
            });
            return;
        }
        if self.is_up(to, boot, || unreachable!("pauses were looked at")) {
            self.step(
                to,
                Input::Peer {
                    from: replica_id(from),
                    message: *message,
                },
            );
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
        let Some(running) = self.running(server) else {
            return;
        };
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
        self.observe_input(server, &input);
        let check = {
            let Some(running) = self.running(server) else {
                return;
            };
            running.replica.step(reading, input, &mut outputs);
            running.steps += 1;
            cfg!(debug_assertions) || running.steps.is_multiple_of(CHECK_EVERY)
        };
        self.stats.steps += 1;
        if check {
            let running = self.running(server).expect("it just stepped");
            running.replica.check_invariants();
            if running.steps.is_multiple_of(CHECK_STATE_EVERY) {
                running.replica.state().check_invariants();
            }
        }
        for output in outputs.drain(..) {
            if self.servers[server].boot != boot || self.servers[server].running.is_none() {
                break;
            }
            if self.dies_at(server, CrashPoint::Order) {
                break;
            }
            self.carry_out(server, output);
        }
        outputs.clear();
        self.outputs = outputs;
        self.observe_step(server);
        self.schedule_tick(server);
    }

    /// A server passes a point at which it may be meant to die; says whether it did.
    pub(crate) fn dies_at(&mut self, server: usize, point: CrashPoint) -> bool {
        if self.is_quiet_now().is_some() {
            // It was drawn before a disk was put back, and waits like the faults that were drawn since.
            return false;
        }
        let Some(crash) = &mut self.servers[server].crash_at else {
            return false;
        };
        if crash.point != point {
            return false;
        }
        if let Some(left) = crash.passes.checked_sub(1) {
            crash.passes = left;
            return false;
        }
        let power = crash.power;
        self.stats.fault(point.kind());
        let down = Duration::from_millis(self.random.u64(1..3_000));
        self.crash(server, power, down);
        true
    }

    pub(crate) fn schedule_tick(&mut self, server: usize) {
        let now = self.now;
        let (clock, boot) = (self.servers[server].clock, self.servers[server].boot);
        let Some(running) = self.running(server) else {
            return;
        };
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
                self.trace.note(now, tag, numbers, || {
                    format!("s{} persist {write:?}", server + 1)
                });
                if !self.dies_at(server, CrashPoint::BeforeWrite) {
                    self.persist(server, write);
                }
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
                self.trace.note(now, tag, numbers, || {
                    format!("s{} save snapshot {:?}", server + 1, meta.last)
                });
                self.running(server).expect("it is running").saving = true;
                self.later(server, Job::Save { meta, state });
            }
            Output::SendSnapshotChunk {
                to,
                term,
                meta,
                offset,
            } => {
                let (tag, numbers) = note(3, meta.last.index.0, offset);
                self.trace.note(now, tag, numbers, || {
                    format!("s{} send snapshot to {to} from {offset}", server + 1)
                });
                let bytes_max = self.setup.chunk_bytes;
                let running = self.running(server).expect("it is running");
                // A newer snapshot may have replaced it: then the replica is asked for that one.
                let read = running
                    .snapshots
                    .read_chunk(stored(&meta), offset, bytes_max);
                if let Ok((data, total)) = read {
                    let midway = offset + (data.len() as u64) < total;
                    let data = data.into();
                    let message = Message::SnapshotChunk {
                        term,
                        meta,
                        offset,
                        total,
                        data,
                    };
                    self.send(server, server_of(to), PeerMessage::Consensus(message));
                    self.stats.fault("snapshot piece sent");
                    if midway {
                        self.snapshot_is_midway(server, server_of(to));
                    }
                }
            }
            Output::WriteSnapshotChunk {
                meta,
                offset,
                total,
                data,
                ..
            } => {
                self.later(
                    server,
                    Job::Receive {
                        meta,
                        offset,
                        total,
                        data,
                    },
                );
            }
            Output::RoleChanged { role, term, leader } => {
                let (tag, numbers) = note(5, term.0, role as u64);
                self.trace.note(now, tag, numbers, || {
                    format!("s{} {role:?} {term:?} leader {leader:?}", server + 1)
                });
                if role == Role::Leader {
                    self.checkers.ends.on_elected(now, term);
                    let boot = self.servers[server].boot;
                    let verdict = self.checkers.leaders.on_leader(term, server, boot);
                    self.judge(verdict);
                }
            }
            Output::Fatal(FatalError::RolledBack { .. })
                if self.servers[server].restored.is_some() || self.servers[server].misdirected =>
            {
                self.stop_for_good(server, "an old disk was told by its peers");
            }
            Output::Fatal(error) => {
                // This disk is as it was left, so nobody may say that it was rolled back.
                self.judge(Err(Violation {
                    checker: "no_false_alarm",
                    guarantee: "5: a member stops only when its disk was rolled back or a log is corrupt",
                    what: format!("server {} stops: {error}", server + 1),
                }));
            }
        }
    }

    fn later(&mut self, server: usize, job: Job) {
        // Pieces of a snapshot are only written; the last one's sync makes all of them durable. With a sync for each, a transfer
        // could take longer than the log that it replaces is kept for, and the member would be sent one snapshot after another.
        let syncs = match &job {
            Job::Save { .. } => true,
            Job::Receive {
                offset,
                total,
                data,
                ..
            } => offset + data.len() as u64 >= *total,
        };
        let sync = self.setup.sync * self.random.u32(1..8);
        let wait = Duration::from_micros(self.random.u64(10..5_000))
            + if syncs { sync } else { Duration::ZERO };
        let (at, boot) = (self.now + wait, self.servers[server].boot);
        self.at(
            at,
            Event::Job {
                server,
                boot,
                job: Box::new(job),
            },
        );
    }

    /// Sends a message to a peer; now and then through the codec, as all go in reality.
    pub(crate) fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        if self.plant.is_some_and(Plant::hides_seen)
            && matches!(message, PeerMessage::Consensus(Message::SeenOfYou { .. }))
        {
            return;
        }
        let now = self.now;
        let seen = matches!(message, PeerMessage::Consensus(Message::SeenOfYou { .. }));
        let [first, again] = if seen {
            // Reality resends it over the connection; without it an old disk could not be told (`old_disk.rs`).
            [self.network.send_surely(now, from, to), None]
        } else {
            self.network.send(now, from, to, message.lane())
        };
        let numbers = [(from * 16 + to) as u64, first.map_or(0, |at| at.0), 0];
        self.trace.note(now, 3, numbers, || {
            format!("s{} -> s{} at {first:?}: {message:?}", from + 1, to + 1)
        });
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
            self.at(
                again,
                Event::Peer {
                    from,
                    to,
                    generation,
                    message,
                },
            );
        }
        self.at(
            first,
            Event::Peer {
                from,
                to,
                generation,
                message: Box::new(message),
            },
        );
    }

    /// A new version: checkers look at it, and directives go to the nodes that listen here.
    fn publish(&mut self, server: usize, published: Published) {
        let now = self.now;
        let Published {
            state,
            applied,
            reset,
        } = published;
        for entry in &applied {
            let verdict = self.observe_applied(server, entry);
            let numbers = [
                server as u64,
                entry.index.0,
                mix(entry.revision.0 ^ entry.events.len() as u64),
            ];
            self.trace.note(now, 4, numbers, || {
                format!(
                    "s{} applied {} {:?} {:?}",
                    server + 1,
                    entry.index,
                    entry.term,
                    entry.events
                )
            });
            self.judge(verdict);
        }
        if state.applied().0.0.is_multiple_of(DIGEST_EVERY) || reset {
            let verdict = self.checkers.digests.on_state(server, &state);
            self.judge(verdict);
        }
        self.tell_nodes(server, &applied, reset);
        let Some(running) = self.running(server) else {
            return;
        };
        if reset {
            running.feed.reset();
        } else {
            let events = applied.iter().map(|entry| entry.events.len()).sum();
            running.feed.push(applied.into(), events);
        }
        self.dispatch_keys(server, false);
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
                let bytes = if self.is_planted(Plant::SnapshotIsEmpty) {
                    let mut empty = State::new();
                    empty.note_applied(meta.last.index, meta.last.term);
                    quorate_codec::encode_snapshot(&meta, &empty)
                } else {
                    quorate_codec::encode_snapshot(&meta, &state)
                };
                let running = self.running(server).expect("it is up");
                running.saving = false;
                match running.snapshots.save(stored(&meta), &bytes) {
                    Ok(()) => {
                        self.stats.fault("snapshot saved");
                        self.step(server, Input::SnapshotSaved { meta });
                        self.observe_saved(server);
                        self.maybe_rebuild(server);
                    }
                    Err(error) => self.storage_failed(server, &error),
                }
            }
            Job::Receive {
                meta,
                offset,
                total,
                data,
            } => self.receive(server, meta, offset, total, &data),
        }
    }

    fn receive(&mut self, server: usize, meta: SnapshotMeta, offset: u64, total: u64, data: &[u8]) {
        use quorate_storage::StorageError;
        let running = self.running(server).expect("it is up");
        let next = offset + data.len() as u64;
        let begun = if offset == 0 {
            running.snapshots.begin_incoming(stored(&meta))
        } else {
            Ok(())
        };
        let written = begun.and_then(|()| {
            running
                .snapshots
                .write_incoming(stored(&meta), offset, data)
        });
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
                self.step(
                    server,
                    Input::SnapshotArrived {
                        meta,
                        state: Box::new(state),
                    },
                );
            }
            Err(
                StorageError::IncomingOutOfOrder { .. }
                | StorageError::IncomingRotten { .. }
                | StorageError::SnapshotUnknown { .. },
            ) => self.step(server, Input::SnapshotBroken { meta }),
            Err(error) => self.storage_failed(server, &error),
        }
    }

    /// Lets a server stand still; says whether it does so only now.
    pub(crate) fn pause_server(&mut self, server: usize, lasts: Duration) -> bool {
        let pauses =
            self.servers[server].running.is_some() && self.servers[server].paused.is_none();
        if pauses {
            self.servers[server].paused = Some(VecDeque::new());
            let at = self.now + lasts;
            self.at(at, Event::ResumeServer { server });
        }
        pauses
    }

    pub(crate) fn resume_server(&mut self, server: usize) {
        let Some(waiting) = self.servers[server].paused.take() else {
            return;
        };
        let now = self.now;
        self.trace
            .note(now, 9, [server as u64, waiting.len() as u64, 0], || {
                format!("s{} goes on", server + 1)
            });
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

    pub(crate) fn plan_connection(&mut self, a: usize, b: usize) {
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
        if !self.network.is_reachable(a, b)
            || self.servers[a].paused.is_some()
            || self.servers[b].paused.is_some()
        {
            let at = self.now + Duration::from_millis(self.random.u64(50..300));
            self.at(at, Event::Connect { a, b, generation });
            return;
        }
        self.network.connect(a, b);
        self.step(
            a,
            Input::PeerConnected {
                peer: replica_id(b),
            },
        );
        self.step(
            b,
            Input::PeerConnected {
                peer: replica_id(a),
            },
        );
    }

    /// The server that leads in the highest term, if one does.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |server: &Server| {
            let replica = &server.running.as_ref()?.replica;
            (server.paused.is_none() && replica.role() == Role::Leader)
                .then(|| (replica.term(), server.index))
        };
        let newest = self.servers.iter().filter_map(leads).max();
        newest.map(|(_, server)| server)
    }

    /// The leader is told to hand over; says whether there is one.
    pub(crate) fn hand_over(&mut self) -> bool {
        let leader = self.leader();
        if let Some(server) = leader {
            self.step(server, Input::HandOver);
        }
        leader.is_some()
    }

    /// Many reads at once, answered to nobody.
    pub(crate) fn burst(&mut self, server: usize, calls: usize) {
        for _ in 0..calls {
            self.call(server, Origin::Nobody, Request::Read);
        }
    }
}

/// How storage names a snapshot.
pub(crate) fn stored(meta: &SnapshotMeta) -> quorate_storage::SnapshotMeta {
    quorate_storage::SnapshotMeta {
        index: meta.last.index,
        term: meta.last.term,
    }
}
