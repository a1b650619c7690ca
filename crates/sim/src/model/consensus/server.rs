//! One modelled server: the shipping core, its disk, and what it ordered and was not yet done. Knows nothing of the others.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{
    AppendOutcome, Boot, Config, Configuration, Consensus, Entry, HardState, LogPosition, Message,
    Output, Payload, Rename, RoundId, SnapshotMeta, Timing, Write, WriteSeq,
};
use quorate_types::{LogIndex, ReplicaId, Term, Time};

use crate::model::explorer::Hash128;

/// A command: one byte that tells it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Word(pub(super) u8);

impl Payload for Word {
    fn size_bytes(&self) -> usize {
        1
    }
}

/// A heartbeat costs no time that matters, and a detection timeout is so long that it passes only where an action says so.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// See [`HEARTBEAT`].
pub(super) const DETECTION: Duration = Duration::from_secs(1_000_000);

/// Without jitter the core never draws a random number, so its generator is no part of its state.
fn config(id: ReplicaId, append_bytes_max: usize) -> Config {
    Config {
        id,
        timing: Timing {
            heartbeat_interval: HEARTBEAT,
            detection_timeout: DETECTION,
            election_jitter: Duration::ZERO,
        },
        append_bytes_max,
        appends_in_flight_max: 4,
        uncommitted_bytes_max: 1_000_000,
        seed: 0,
    }
}

/// What is durable.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    /// The log's entries follow it.
    base: LogPosition,
    entries: Vec<Entry<Word>>,
    pub(super) snapshot: SnapshotMeta,
}

impl Disk {
    /// A disk without a snapshot.
    pub(super) fn new(
        configuration: &Configuration,
        hard_state: HardState,
        entries: Vec<Entry<Word>>,
    ) -> Self {
        Self {
            hard_state,
            base: LogPosition::default(),
            entries,
            snapshot: SnapshotMeta {
                last: LogPosition::default(),
                configuration: configuration.clone(),
            },
        }
    }

    /// A snapshot through `last` is durable, and the log before it gone.
    pub(super) fn compact(&mut self, last: LogPosition) {
        self.snapshot.last = last;
        self.entries.retain(|entry| entry.index > last.index);
        self.base = last;
    }

    /// Whether `entry` is durable here, in the log or covered by the snapshot.
    pub(super) fn holds(&self, entry: &Entry<Word>) -> bool {
        entry.index <= self.snapshot.last.index || self.entries.contains(entry)
    }

    /// Where the log ends, the snapshot included.
    fn last_index(&self) -> LogIndex {
        let end = self.entries.last().map_or(self.base, Entry::position);
        end.index.max(self.snapshot.last.index)
    }

    fn carry_out(&mut self, write: &Write<Word>) {
        if let Some(hard_state) = write.hard_state {
            let before = self.hard_state;
            assert!(
                hard_state.term >= before.term,
                "the durable term falls from {before:?} to {hard_state:?}"
            );
            assert!(
                hard_state.term > before.term
                    || before.voted_for.is_none()
                    || hard_state.voted_for == before.voted_for,
                "the durable vote changes within its term, from {before:?} to {hard_state:?}"
            );
            self.hard_state = hard_state;
        }
        if let Some(from) = write.truncate_from {
            self.entries.retain(|entry| entry.index < from);
        }
        if let Some(through) = write.purge_through
            && through.index > self.base.index
        {
            self.entries.retain(|entry| entry.index > through.index);
            self.base = through;
        }
        for entry in &write.entries {
            let end = self.entries.last().map_or(self.base, Entry::position);
            assert_eq!(
                entry.index,
                end.index.next(),
                "a gap in the durable log after {end:?}"
            );
            self.entries.push(entry.clone());
        }
    }
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) from: ReplicaId,
    pub(super) to: ReplicaId,
    pub(super) message: Message<Word>,
}

impl Envelope {
    pub(super) fn hash_as(&self, rename: Rename, to: &mut Hash128) {
        (rename(self.from), rename(self.to)).hash(to);
        match &self.message {
            // The only one that names a replica.
            Message::SeenOfYou {
                term,
                seen_term,
                seen_vote,
                seen_match,
            } => (term, seen_term, seen_vote.map(rename), seen_match).hash(to),
            message => message.hash(to),
        }
    }
}

/// A read that waits for its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Read {
    pub(super) round: RoundId,
    /// The index captured at arrival.
    pub(super) captured: LogIndex,
    /// What was committed anywhere at arrival.
    pub(super) due: LogIndex,
}

/// What came of a call, for the world to take note of.
#[derive(Debug)]
pub(super) enum Effect {
    /// A message leaves.
    Leaves(Envelope),
    /// The commit index rose.
    Committed(LogIndex),
    /// A round was confirmed.
    Confirmed(RoundId),
}

/// One server. Always up: a crash and the start after it are one step, since what arrives in between is lost, and any message
/// may be lost anyway.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) id: ReplicaId,
    pub(super) core: Consensus<Word>,
    pub(super) disk: Disk,
    /// Its own clock. It moves only where an action lets a timeout pass.
    pub(super) now: Time,
    /// Ordered, not yet durable.
    pub(super) writes: VecDeque<Write<Word>>,
    /// What waits for a write.
    held: Vec<(WriteSeq, Envelope)>,
    /// A snapshot that has arrived, and is neither durable nor reported.
    pub(super) arrived: Option<SnapshotMeta>,
    pub(super) reads: Vec<Read>,
    /// The newest round that any message of this incarnation has carried.
    pub(super) round_sent: RoundId,
    append_bytes_max: usize,
}

impl Server {
    /// A server started from `disk`.
    pub(super) fn new(id: ReplicaId, disk: Disk, append_bytes_max: usize) -> Self {
        let now = Time::ZERO + DETECTION;
        Self {
            id,
            core: start(id, &disk, append_bytes_max, now),
            disk,
            now,
            writes: VecDeque::new(),
            held: Vec::new(),
            arrived: None,
            reads: Vec::new(),
            round_sent: RoundId::default(),
            append_bytes_max,
        }
    }

    /// Loses everything that is not durable, but for the first `survive` pending writes, which reached the disk unreported (and
    /// the snapshot that arrived, if `keeps_arrived`), and starts again.
    pub(super) fn crash(&mut self, survive: usize, keeps_arrived: bool) {
        for write in self.writes.drain(..).take(survive) {
            self.disk.carry_out(&write);
        }
        if let Some(meta) = self.arrived.take()
            && keeps_arrived
        {
            self.save(meta);
        }
        self.held.clear();
        self.reads.clear();
        self.round_sent = RoundId::default();
        self.core = start(self.id, &self.disk, self.append_bytes_max, self.now);
    }

    /// Makes a snapshot durable.
    pub(super) fn save(&mut self, meta: SnapshotMeta) {
        if meta.last.index > self.disk.snapshot.last.index {
            self.disk.snapshot = meta;
        }
    }

    /// Calls the core, and carries out what it orders as far as that happens at once.
    pub(super) fn step<R>(
        &mut self,
        effects: &mut Vec<Effect>,
        call: impl FnOnce(&mut Consensus<Word>, Time, &mut Vec<Output<Word>>) -> R,
    ) -> Result<R, String> {
        let mut out = Vec::new();
        let before = self.core.commit();
        let answer = call(&mut self.core, self.now, &mut out);
        let after = self.core.commit();
        if after < before {
            let id = self.id;
            return Err(format!(
                "what is committed never changes: the commit index of {id} falls from {before} to {after}"
            ));
        }
        for output in out {
            self.carry_out(output, effects)?;
        }
        Ok(answer)
    }

    fn carry_out(&mut self, output: Output<Word>, effects: &mut Vec<Effect>) -> Result<(), String> {
        match output {
            Output::Persist(write) => self.writes.push_back(write),
            Output::Send { to, message } => self.send(to, message, effects)?,
            Output::SendAfterPersist { write, to, message } => {
                self.note_round(&message);
                let from = self.id;
                self.held.push((write, Envelope { from, to, message }));
            }
            Output::Committed { through } => effects.push(Effect::Committed(through)),
            Output::Confirmed { round } => effects.push(Effect::Confirmed(round)),
            Output::RoleChanged { .. } => {}
            Output::SendSnapshotChunk { to, term, meta, .. } => {
                // One piece holds it all. A file that is gone is not sent; the core asks again, for a newer one.
                if meta.last == self.disk.snapshot.last {
                    let message = Message::SnapshotChunk {
                        term,
                        meta,
                        offset: 0,
                        total: 1,
                        data: Arc::from([0_u8]),
                    };
                    self.send(to, message, effects)?;
                }
            }
            Output::WriteSnapshotChunk { meta, .. } => self.arrived = Some(meta),
            Output::Fatal(error) => return Err(format!("{} stops: {error}", self.id)),
        }
        Ok(())
    }

    /// Makes the oldest pending write durable, reports it, and lets go what waited for it.
    pub(super) fn persist(&mut self, effects: &mut Vec<Effect>) -> Result<(), String> {
        let write = self.writes.pop_front().expect("a write is pending");
        self.disk.carry_out(&write);
        let (ready, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition::<Vec<_>, _>(|(after, _)| *after <= write.seq);
        self.held = held;
        for (_, Envelope { to, message, .. }) in ready {
            self.send(to, message, effects)?;
        }
        self.step(effects, |core, now, out| {
            core.on_persisted(now, write.seq, out);
        })
    }

    fn send(
        &mut self,
        to: ReplicaId,
        message: Message<Word>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), String> {
        self.check_promise(to, &message)?;
        self.note_round(&message);
        let from = self.id;
        effects.push(Effect::Leaves(Envelope { from, to, message }));
        Ok(())
    }

    fn note_round(&mut self, message: &Message<Word>) {
        if let Message::Append { round, .. } | Message::Heartbeat { round, .. } = message {
            self.round_sent = self.round_sent.max(*round);
        }
    }

    /// What a message promises is durable when it leaves.
    fn check_promise(&self, to: ReplicaId, message: &Message<Word>) -> Result<(), String> {
        let HardState { term, voted_for } = self.disk.hard_state;
        let broken = |what: &str| {
            let (id, disk) = (self.id, &self.disk.hard_state);
            Err(format!(
                "{id} promises what is not durable ({what}), with {disk:?} on its disk: {message:?}"
            ))
        };
        if term_of(message) > term {
            return broken("its term");
        }
        match message {
            Message::VoteRequest { term: at, .. } if *at == term && voted_for != Some(self.id) => {
                broken("its own vote")
            }
            Message::VoteResponse {
                term: at,
                granted: true,
            } if *at == term && voted_for != Some(to) => broken("its vote"),
            Message::AppendResponse {
                term: at,
                outcome: AppendOutcome::Matched { through },
                ..
            } if *at == term && self.disk.last_index() < *through => broken("its log"),
            _ => Ok(()),
        }
    }

    pub(super) fn hash_as(&self, rename: Rename, with_promises: bool, to: &mut Hash128) {
        let Self {
            id: _, // The core says it.
            core,
            disk,
            now,
            writes,
            held,
            arrived,
            reads,
            round_sent,
            append_bytes_max: _, // The same everywhere.
        } = self;
        core.hash_state(*now, rename, to);
        if with_promises {
            core.hash_promises(rename, to);
        }
        let Disk {
            hard_state,
            base,
            entries,
            snapshot,
        } = disk;
        (hard_state.term, hard_state.voted_for.map(rename)).hash(to);
        (base, entries, snapshot.last).hash(to);
        // Writes count from the newest one, as in the core.
        let newest = writes.back().map_or(0, |write| write.seq.0);
        writes.len().hash(to);
        for write in writes {
            let Write {
                seq,
                hard_state,
                truncate_from,
                purge_through,
                entries,
            } = write;
            let vote = hard_state.map(|state| (state.term, state.voted_for.map(rename)));
            (newest - seq.0, vote, truncate_from, purge_through, entries).hash(to);
        }
        // In no order: they were ordered by the names of their receivers, and go into a set.
        let held = held.iter().map(|(after, envelope)| {
            let mut one = Hash128::default();
            (newest - after.0).hash(&mut one);
            envelope.hash_as(rename, &mut one);
            one.finish128()
        });
        held.fold(0_u128, u128::wrapping_add).hash(to);
        let arrived = arrived.as_ref().map(|meta| meta.last);
        (arrived, reads, round_sent).hash(to);
    }
}

fn start(id: ReplicaId, disk: &Disk, append_bytes_max: usize, now: Time) -> Consensus<Word> {
    let boot = Boot {
        hard_state: disk.hard_state,
        snapshot: disk.snapshot.clone(),
        entries: disk.entries.clone(),
    };
    Consensus::new(config(id, append_bytes_max), boot, now)
}

/// The sender's own term; zero where a pre-vote names the term that it is about.
pub(super) fn term_of(message: &Message<Word>) -> Term {
    match message {
        Message::PreVoteRequest { .. } | Message::PreVoteResponse { granted: true, .. } => {
            Term::ZERO
        }
        Message::PreVoteResponse { term, .. }
        | Message::VoteRequest { term, .. }
        | Message::VoteResponse { term, .. }
        | Message::Append { term, .. }
        | Message::AppendResponse { term, .. }
        | Message::Heartbeat { term, .. }
        | Message::HeartbeatResponse { term, .. }
        | Message::TimeoutNow { term }
        | Message::SteppedDown { term }
        | Message::SnapshotChunk { term, .. }
        | Message::SnapshotChunkResponse { term, .. }
        | Message::SeenOfYou { term, .. } => *term,
    }
}
