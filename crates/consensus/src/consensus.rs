//! The core of one replica: its state, its entry points, and the two orders that everything else goes through, `persist`
//! and `send`. The rules are in the files named after them.

use std::collections::{BTreeMap, VecDeque};

use quorate_types::{LogIndex, ReplicaId, Term, Time};

use crate::history::History;
use crate::leader::Leading;
use crate::log::Log;
use crate::seen::{Past, Seen};
use crate::snapshot::Incoming;
use crate::{
    AppendOutcome, Boot, Config, Configuration, Entry, HardState, LogPosition, Message, Output,
    Payload, PeerProgress, Role, RoundId, SnapshotMeta, Timing, Write, WriteSeq,
};

/// Terms and indexes from outside beyond this are garbage: it leaves room to count on without overflow.
const COUNTER_MAX: u64 = u64::MAX / 2;

/// One replica's part of the backbone protocol.
///
/// The surroundings carry out the [`Output`]s in order, and report what was persisted. They call
/// [`on_tick`](Self::on_tick) at [`deadline`](Self::deadline). After an [`Output::Fatal`] every call does nothing.
///
/// # Invariants
/// - `commit <= log.last().index`, and nothing at or below `commit` is ever truncated.
/// - `log.base().index <= snapshot.last.index <= commit`: what memory lacks, a durable snapshot covers.
/// - `hard_state` never falls behind `hard_state_durable`; a leader's are equal.
/// - `leading.is_some()` exactly where `role` is leader, and then `leader` is this replica.
/// - No message leaves before the term it carries is durable.
#[derive(Clone, Debug)]
pub struct Consensus<C> {
    pub(crate) config: Config,
    pub(crate) rng: fastrand::Rng,

    pub(crate) hard_state: HardState,
    /// Whether `hard_state` changed since the last write.
    pub(crate) hard_state_changed: bool,
    pub(crate) hard_state_durable: HardState,
    pub(crate) hard_state_pending: VecDeque<(WriteSeq, HardState)>,
    pub(crate) write_last: WriteSeq,
    /// What the log file needs before anything else is written to it; see [`Boot::entries`].
    pub(crate) repair: Option<Repair>,

    pub(crate) log: Log<C>,
    pub(crate) history: History,
    /// The newest durable snapshot.
    pub(crate) snapshot: SnapshotMeta,
    pub(crate) incoming: Option<Incoming>,
    pub(crate) commit: LogIndex,
    /// How far this log is known to equal that of the leader of the current term, durable or not. At least `commit`.
    pub(crate) verified: LogIndex,

    pub(crate) role: Role,
    pub(crate) leader: Option<ReplicaId>,
    /// When `leader` was last heard; meaningless without one.
    pub(crate) leader_heard_at: Time,
    pub(crate) votes: BTreeMap<ReplicaId, bool>,
    /// When the election timeout was last restarted, so that new timing applies from then.
    pub(crate) election_from: Time,
    pub(crate) election_deadline: Time,
    pub(crate) leading: Option<Leading>,
    /// The newest round ever begun here: ids rise over terms too, so that a stale id is never taken for a new one.
    pub(crate) round_last: RoundId,

    pub(crate) seen: BTreeMap<ReplicaId, Seen>,
    pub(crate) past: Past,
    pub(crate) stopped: bool,
}

/// What brings a log file in line with a snapshot that was installed just before a crash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repair {
    pub(crate) truncate_from: Option<LogIndex>,
    pub(crate) purge_through: LogPosition,
}

impl<C: Payload> Consensus<C> {
    /// Starts a follower from what is durable.
    ///
    /// # Panics
    /// When `boot` contradicts itself (gaps, falling terms, entries of terms never seen), which storage must have
    /// excluded, or when the timing cannot work.
    #[must_use]
    pub fn new(config: Config, boot: Boot<C>, now: Time) -> Self {
        config.timing.check();
        let Boot {
            mut hard_state,
            snapshot,
            entries,
        } = boot;
        let hard_state_durable = hard_state;
        if snapshot.last.term > hard_state.term {
            // A snapshot can be installed a moment before the term of its sender is durable. Nothing was said in that
            // term, so nobody was voted for in it.
            hard_state = HardState {
                term: snapshot.last.term,
                voted_for: None,
            };
        }
        let (log, repair) = boot_log(&snapshot, entries);
        assert!(
            log.last().term <= hard_state.term,
            "the log ends in {:?}, beyond the durable term {:?}",
            log.last(),
            hard_state.term
        );
        let mut history = History::new(snapshot.last.index, snapshot.configuration.clone());
        history.note_appended(log.slice(snapshot.last.index.next(), log.last().index));
        let past = Past::new(hard_state, log.last().index);
        let mut consensus = Self {
            rng: fastrand::Rng::with_seed(config.seed),
            hard_state,
            hard_state_changed: hard_state != hard_state_durable,
            hard_state_durable,
            hard_state_pending: VecDeque::new(),
            write_last: WriteSeq::default(),
            repair,
            log,
            history,
            commit: snapshot.last.index,
            verified: snapshot.last.index,
            snapshot,
            incoming: None,
            role: Role::Follower,
            leader: None,
            leader_heard_at: now,
            votes: BTreeMap::new(),
            election_from: now,
            election_deadline: now,
            leading: None,
            round_last: RoundId::default(),
            seen: BTreeMap::new(),
            past,
            stopped: false,
            config,
        };
        consensus.restart_election_timeout(now);
        consensus
    }

    /// Does what is due. To be called at or after [`deadline`](Self::deadline); earlier calls do nothing.
    pub fn on_tick(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        if self.stopped {
            return;
        }
        if self.role == Role::Leader {
            self.on_leader_tick(now, out);
        } else if now >= self.deadline() {
            self.become_pre_candidate(now, out);
        }
        self.flush(out);
    }

    /// When [`on_tick`](Self::on_tick) is due; [`Time::MAX`] if nothing is.
    #[must_use]
    pub fn deadline(&self) -> Time {
        if self.stopped {
            return Time::MAX;
        }
        match &self.leading {
            Some(leading) => leading.deadline(),
            None if self.configuration().is_voter(self.config.id) => self.election_deadline,
            None => Time::MAX,
        }
    }

    /// Takes a message from another replica. Whatever it holds, it never panics: garbage is ignored.
    pub fn on_message(
        &mut self,
        now: Time,
        from: ReplicaId,
        message: Message<C>,
        out: &mut Vec<Output<C>>,
    ) {
        if self.stopped || from == self.config.id || !is_plausible(&message) {
            return;
        }
        if self.stops_for_rollback(from, &message, out) {
            return;
        }
        self.note_seen(from, &message);
        if let Some(term) = message.sender_term()
            && term > self.hard_state.term
        {
            self.become_follower(now, term, out);
        }
        match message {
            Message::PreVoteRequest { term, last } => {
                self.on_pre_vote_request(now, from, term, last, out);
            }
            Message::PreVoteResponse { term, granted, .. } => {
                self.on_pre_vote_response(now, from, term, granted, out);
            }
            Message::VoteRequest { term, last } => self.on_vote_request(now, from, term, last, out),
            Message::VoteResponse { term, granted } => {
                self.on_vote_response(now, from, term, granted, out);
            }
            Message::Append {
                term,
                previous,
                entries,
                commit,
                round,
            } => {
                self.on_append(now, from, term, previous, &entries, commit, round, out);
            }
            Message::AppendResponse {
                term,
                outcome,
                round,
            } => {
                self.on_append_response(now, from, term, outcome, round, out);
            }
            Message::Heartbeat {
                term,
                commit,
                round,
            } => self.on_heartbeat(now, from, term, commit, round, out),
            Message::HeartbeatResponse { term, round, last } => {
                self.on_heartbeat_response(now, from, term, round, last, out);
            }
            Message::TimeoutNow { term } => self.on_timeout_now(now, from, term, out),
            Message::SteppedDown { term } => self.on_stepped_down(now, from, term, out),
            Message::SnapshotChunk {
                term,
                meta,
                offset,
                total,
                data,
            } => {
                self.on_snapshot_chunk(now, from, term, meta, offset, total, data, out);
            }
            Message::SnapshotChunkResponse { term, last, next } => {
                self.on_snapshot_chunk_response(now, from, term, last, next, out);
            }
            // Its whole meaning was checked above.
            Message::SeenOfYou { .. } => {}
        }
        self.flush(out);
    }

    /// Takes the report that every write through `through` is durable.
    ///
    /// # Panics
    /// When `through` was never ordered.
    pub fn on_persisted(&mut self, now: Time, through: WriteSeq, out: &mut Vec<Output<C>>) {
        if self.stopped {
            return;
        }
        assert!(
            through <= self.write_last,
            "{through:?} reported durable, but only {:?} ordered",
            self.write_last
        );
        self.log.on_persisted(through);
        while let Some((seq, hard_state)) = self.hard_state_pending.front().copied()
            && seq <= through
        {
            self.hard_state_durable = hard_state;
            self.hard_state_pending.pop_front();
        }
        match self.role {
            Role::Candidate => self.count_own_vote(now, out),
            Role::Leader => self.advance_commit(now, out),
            Role::Follower | Role::PreCandidate => {}
        }
        self.flush(out);
    }

    /// Changes the timeouts, effective at once and counted from when the running ones began.
    ///
    /// # Panics
    /// When the heartbeat interval is zero or not below the detection timeout.
    pub fn set_timing(&mut self, now: Time, timing: Timing, _out: &mut Vec<Output<C>>) {
        timing.check();
        self.config.timing = timing;
        let from = self.election_from;
        self.restart_election_timeout(from);
        if let Some(leading) = &mut self.leading {
            leading.on_timing(now, timing);
        }
    }

    /// Takes the news that a connection to `peer` was made: tells it what was seen of it (protocol, section 7), and as the
    /// leader probes it, since what was in flight is lost and it may have restarted.
    pub fn on_peer_connected(&mut self, now: Time, peer: ReplicaId, out: &mut Vec<Output<C>>) {
        if self.stopped {
            return;
        }
        self.send_seen(peer, out);
        self.probe_again(now, peer, out);
        self.flush(out);
    }

    /// This replica.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.config.id
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its term, durable or not.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The leader of the current term, where known.
    #[must_use]
    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// The index through which entries are committed, as far as this replica knows.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The end of its log, durable or not.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.log.last()
    }

    /// How far its log is durable.
    #[must_use]
    pub fn last_durable(&self) -> LogIndex {
        self.log.last_durable()
    }

    /// The first entry it still holds in memory; equal to the end plus one if it holds none.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.log.base().index.next()
    }

    /// The entries from `from` through `through`, both included; none if `through` precedes `from`.
    ///
    /// # Panics
    /// When they reach outside `first_index()..=last().index`.
    #[must_use]
    pub fn entries(&self, from: LogIndex, through: LogIndex) -> &[Entry<C>] {
        self.log.slice(from, through)
    }

    /// The newest configuration in the log, which is in force, committed or not.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        self.history.newest()
    }

    /// The configuration that was in force at `index`, for the meta of a snapshot of the state at `index`. At the newest
    /// snapshot or later.
    #[must_use]
    pub fn configuration_at(&self, index: LogIndex) -> Configuration {
        self.history.at(index).clone()
    }

    /// The newest durable snapshot: index 0 if there is none.
    #[must_use]
    pub fn snapshot(&self) -> &SnapshotMeta {
        &self.snapshot
    }

    /// The term at `index`, where the log still knows it: for the meta of a snapshot of the state at `index`.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The index of the entry that this leader began its term with. It answers reads and keep-alives only once that
    /// is applied (protocol, section 1).
    #[must_use]
    pub fn own_term_index(&self) -> Option<LogIndex> {
        self.leading.as_ref().map(|leading| leading.own_term_index)
    }

    /// Term and vote, durable or not.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The term that is durable here; messages wait until it equals [`term`](Self::term).
    #[must_use]
    pub fn term_durable(&self) -> Term {
        self.hard_state_durable.term
    }

    /// Whether this leader is handing over and refuses proposals.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        self.leading
            .as_ref()
            .is_some_and(|leading| leading.transfer.is_some())
    }

    /// How far a leader has brought each peer; empty elsewhere.
    #[must_use]
    pub fn progress(&self) -> Vec<PeerProgress> {
        let Some(leading) = &self.leading else {
            return Vec::new();
        };
        leading
            .progress
            .iter()
            .map(|(id, progress)| progress.report(*id))
            .collect()
    }

    /// Orders a durable write. A changed hard state joins it.
    pub(crate) fn persist(
        &mut self,
        truncate_from: Option<LogIndex>,
        purge_through: Option<LogPosition>,
        entries: Vec<Entry<C>>,
        out: &mut Vec<Output<C>>,
    ) -> WriteSeq {
        let writes_log = truncate_from.is_some() || purge_through.is_some() || !entries.is_empty();
        if writes_log && let Some(repair) = self.repair.take() {
            self.persist(
                repair.truncate_from,
                Some(repair.purge_through),
                Vec::new(),
                out,
            );
        }
        let seq = WriteSeq(self.write_last.0 + 1);
        self.write_last = seq;
        let hard_state = std::mem::take(&mut self.hard_state_changed).then_some(self.hard_state);
        if let Some(hard_state) = hard_state {
            self.hard_state_pending.push_back((seq, hard_state));
        }
        // What this write makes durable, given that writes are carried out in order.
        let through = entries
            .last()
            .map(|entry| entry.index)
            .or(purge_through.map(|purged| purged.index));
        if let Some(through) = through {
            self.log.note_write(seq, through);
        }
        out.push(Output::Persist(Write {
            seq,
            hard_state,
            truncate_from,
            purge_through,
            entries,
        }));
        seq
    }

    /// Orders a changed hard state to be durable, if no write has taken it along.
    pub(crate) fn flush(&mut self, out: &mut Vec<Output<C>>) {
        if self.hard_state_changed && !self.stopped {
            self.persist(None, None, Vec::new(), out);
        }
    }

    /// Sends `message` as soon as the current term and vote are durable.
    pub(crate) fn send(&mut self, to: ReplicaId, message: Message<C>, out: &mut Vec<Output<C>>) {
        self.send_after(None, to, message, out);
    }

    /// Sends `message` as soon as `write`, and the current term and vote, are durable.
    pub(crate) fn send_after(
        &mut self,
        write: Option<WriteSeq>,
        to: ReplicaId,
        message: Message<C>,
        out: &mut Vec<Output<C>>,
    ) {
        self.note_told(to, &message);
        self.flush(out);
        let newest_hard_state = self.hard_state_pending.back().map(|(seq, _)| *seq);
        out.push(match write.max(newest_hard_state) {
            Some(write) => Output::SendAfterPersist { write, to, message },
            None => Output::Send { to, message },
        });
    }

    /// Every replica but this one that receives the log.
    pub(crate) fn peers(&self) -> Vec<ReplicaId> {
        self.configuration()
            .replicas()
            .into_iter()
            .filter(|id| *id != self.config.id)
            .collect()
    }

    /// Says that role, term or leader changed.
    pub(crate) fn announce(&self, out: &mut Vec<Output<C>>) {
        out.push(Output::RoleChanged {
            role: self.role,
            term: self.hard_state.term,
            leader: self.leader,
        });
    }
}

/// Cuts what was found in the log to what follows from the snapshot.
fn boot_log<C: Payload>(
    snapshot: &SnapshotMeta,
    mut entries: Vec<Entry<C>>,
) -> (Log<C>, Option<Repair>) {
    let covered = snapshot.last;
    let starts_over = |truncate_from| {
        // A fresh log has nothing to repair.
        let repair = Repair {
            truncate_from,
            purge_through: covered,
        };
        (
            Log::new(covered, Vec::new()),
            (covered.index > LogIndex::ZERO).then_some(repair),
        )
    };
    let Some(first) = entries.first().map(Entry::position) else {
        return starts_over(None);
    };
    assert!(
        first.index.0 <= covered.index.0 + 1,
        "the log begins at {first:?}, but the newest snapshot ends at {covered:?}: entries are missing"
    );
    if first.index == covered.index.next() {
        if first.term < covered.term {
            return starts_over(Some(first.index)); // Another history, as below.
        }
        return (Log::new(covered, entries), None);
    }
    match entries
        .iter()
        .find(|entry| entry.index == covered.index)
        .map(|entry| entry.term)
    {
        // The file ends before the snapshot that was installed.
        None => starts_over(None),
        // The file holds another history: what a deposed leader had sent, where the snapshot holds what was committed.
        Some(term) if term != covered.term => starts_over(Some(covered.index)),
        Some(_) => {
            let base = entries.remove(0).position();
            (Log::new(base, entries), None)
        }
    }
}

/// Whether the numbers in a message leave room to count on. Its consistency is checked where it is used.
fn is_plausible<C>(message: &Message<C>) -> bool {
    let (term, index) = match message {
        Message::PreVoteRequest { term, last }
        | Message::VoteRequest { term, last }
        | Message::PreVoteResponse { term, last, .. } => (*term, last.index),
        Message::Append { term, previous, .. } => (*term, previous.index),
        Message::HeartbeatResponse { term, last, .. } => (*term, *last),
        Message::SnapshotChunk { term, meta, .. } => (*term.max(&meta.last.term), meta.last.index),
        Message::SnapshotChunkResponse { term, last, .. } => (*term, last.index),
        Message::SeenOfYou {
            term, seen_match, ..
        } => (*term, seen_match.index),
        Message::Heartbeat { term, commit, .. } => (*term, *commit),
        Message::AppendResponse {
            term,
            outcome: AppendOutcome::Matched { through },
            ..
        } => (*term, *through),
        Message::AppendResponse {
            term,
            outcome: AppendOutcome::Conflict { refused, .. },
            ..
        } => (*term, *refused),
        Message::VoteResponse { term, .. }
        | Message::TimeoutNow { term }
        | Message::SteppedDown { term } => (*term, LogIndex::ZERO),
    };
    term.0 <= COUNTER_MAX && index.0 <= COUNTER_MAX
}
