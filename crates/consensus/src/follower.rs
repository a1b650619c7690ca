//! The follower's side of replication: what is taken from a leader, and what is promised to it.

use quorate_types::{LogIndex, ReplicaId, Term, Time};

use crate::{
    AppendOutcome, Consensus, Entry, FatalError, LogPosition, Message, Output, Payload, Role,
    RoundId,
};

impl<C: Payload> Consensus<C> {
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn on_append(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        previous: LogPosition,
        entries: &[Entry<C>],
        commit: LogIndex,
        round: RoundId,
        out: &mut Vec<Output<C>>,
    ) {
        if term < self.hard_state.term {
            // The term in the answer is what matters: a deposed leader steps down by it.
            let outcome = AppendOutcome::Conflict {
                refused: previous.index,
                hint: self.log.last(),
            };
            self.send_append_response(from, outcome, round, out);
            return;
        }
        if !is_consistent(term, previous, entries) || !self.hear_leader(now, from, out) {
            return;
        }
        // What precedes the base is committed and covered by a snapshot, and every leader's log holds what is committed.
        let base = self.log.base().index;
        if previous.index >= base && self.log.term_at(previous.index) != Some(previous.term) {
            self.refuse_append(from, previous, round, out);
            return;
        }
        let through = LogIndex(previous.index.0 + entries.len() as u64).max(base);
        let Some(new) = self.first_new_entry(entries) else {
            self.accept_through(from, through, commit, round, out);
            return;
        };
        let first = entries[new].index;
        if first <= self.commit {
            self.stop(FatalError::CommittedConflict { term, index: first }, out);
            return;
        }
        let truncate_from = (first <= self.log.last().index).then_some(first);
        if let Some(from) = truncate_from {
            self.log.truncate_from(from);
            self.history.note_truncated(from);
        }
        let entries = entries[new..].to_vec();
        self.log.append(&entries);
        self.history.note_appended(&entries);
        self.persist(truncate_from, None, entries, out);
        self.accept_through(from, through, commit, round, out);
    }

    pub(crate) fn on_heartbeat(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        commit: LogIndex,
        round: RoundId,
        out: &mut Vec<Output<C>>,
    ) {
        if term == self.hard_state.term {
            if !self.hear_leader(now, from, out) {
                return;
            }
            self.follow_commit(commit, out);
        }
        let last = self.log.last_durable().min(self.verified);
        let term = self.hard_state.term;
        self.send(from, Message::HeartbeatResponse { term, round, last }, out);
    }

    /// Notes that the leader of the current term was heard. False if `from` cannot be that leader.
    pub(crate) fn hear_leader(
        &mut self,
        now: Time,
        from: ReplicaId,
        out: &mut Vec<Output<C>>,
    ) -> bool {
        // At most one leads a term; a second one is garbage, or a broken replica that must not be believed.
        if self.role == Role::Leader || self.leader.is_some_and(|leader| leader != from) {
            return false;
        }
        if self.role != Role::Follower || self.leader.is_none() {
            self.role = Role::Follower;
            self.votes.clear();
            self.leader = Some(from);
            self.announce(out);
        }
        self.leader_heard_at = now;
        self.restart_election_timeout(now);
        true
    }

    /// Promises the leader that this log equals its own through `through`, once that is durable.
    pub(crate) fn send_matched(
        &mut self,
        to: ReplicaId,
        through: LogIndex,
        round: RoundId,
        out: &mut Vec<Output<C>>,
    ) {
        let write = self.log.write_of(through);
        let term = self.hard_state.term;
        let outcome = AppendOutcome::Matched { through };
        self.send_after(
            write,
            to,
            Message::AppendResponse {
                term,
                outcome,
                round,
            },
            out,
        );
    }

    /// Takes over a commit index as far as this log is known to equal the leader's.
    fn follow_commit(&mut self, commit: LogIndex, out: &mut Vec<Output<C>>) {
        let through = commit.min(self.verified);
        if through > self.commit {
            self.commit = through;
            out.push(Output::Committed { through });
        }
    }

    fn accept_through(
        &mut self,
        leader: ReplicaId,
        through: LogIndex,
        commit: LogIndex,
        round: RoundId,
        out: &mut Vec<Output<C>>,
    ) {
        self.verified = self.verified.max(through);
        self.follow_commit(commit, out);
        self.send_matched(leader, through, round, out);
    }

    fn refuse_append(
        &mut self,
        leader: ReplicaId,
        previous: LogPosition,
        round: RoundId,
        out: &mut Vec<Output<C>>,
    ) {
        if previous.index <= self.commit {
            let term = self.hard_state.term;
            self.stop(
                FatalError::CommittedConflict {
                    term,
                    index: previous.index,
                },
                out,
            );
            return;
        }
        let hint = self.log.last_at_most(previous.index, previous.term);
        let outcome = AppendOutcome::Conflict {
            refused: previous.index,
            hint,
        };
        self.send_append_response(leader, outcome, round, out);
    }

    fn send_append_response(
        &mut self,
        to: ReplicaId,
        outcome: AppendOutcome,
        round: RoundId,
        out: &mut Vec<Output<C>>,
    ) {
        let term = self.hard_state.term;
        self.send(
            to,
            Message::AppendResponse {
                term,
                outcome,
                round,
            },
            out,
        );
    }

    /// The first of `entries` that this log does not hold. An entry of the same index and term is the same entry
    /// (thesis, section 3.5, log matching), so nothing is truncated by an old or repeated append.
    fn first_new_entry(&self, entries: &[Entry<C>]) -> Option<usize> {
        let base = self.log.base().index;
        entries.iter().position(|entry| {
            entry.index >= base && self.log.term_at(entry.index) != Some(entry.term)
        })
    }
}

/// Whether an append can come from a working leader: consecutive, of terms that neither fall nor exceed its own.
fn is_consistent<C>(term: Term, previous: LogPosition, entries: &[Entry<C>]) -> bool {
    let mut at = previous;
    for entry in entries {
        if entry.index != at.index.next() || entry.term < at.term || entry.term == Term::ZERO {
            return false;
        }
        at = entry.position();
    }
    at.term <= term && (previous.index == LogIndex::ZERO) == (previous.term == Term::ZERO)
}
