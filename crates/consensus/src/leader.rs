//! What only a leader has: its clockwork of heartbeats and check-quorum, and proposals.

use std::collections::BTreeMap;

use quorate_types::{LogIndex, ReplicaId, Time};

use crate::progress::Progress;
use crate::round::Rounds;
use crate::transfer::Transfer;
use crate::{
    Body, Consensus, Entry, Message, NotLeader, Output, Payload, ProposeError, Role, RoundId,
    Timing,
};

/// A leader's memory, gone when it steps down.
///
/// # Invariants
/// - `progress` holds every other replica of the configuration.
/// - `uncommitted_bytes` is the size of the entries after the commit index.
#[derive(Clone, Debug)]
pub(crate) struct Leading {
    pub(crate) own_term_index: LogIndex,
    pub(crate) progress: BTreeMap<ReplicaId, Progress>,
    pub(crate) rounds: Rounds,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) uncommitted_bytes: usize,
    pub(crate) heartbeat_due: Time,
    /// The check-quorum window: a commit quorum must answer within it.
    pub(crate) window_start: Time,
    pub(crate) window_end: Time,
    /// Whether this window follows one that this replica's own stall spoilt.
    pub(crate) window_is_second_chance: bool,
}

impl Leading {
    pub(crate) fn new(
        own_term_index: LogIndex,
        round_last: RoundId,
        peers: &[ReplicaId],
        timing: Timing,
        now: Time,
    ) -> Self {
        Self {
            own_term_index,
            progress: peers
                .iter()
                .map(|id| (*id, Progress::new(own_term_index, now)))
                .collect(),
            rounds: Rounds::new(round_last),
            transfer: None,
            uncommitted_bytes: 0,
            heartbeat_due: now + timing.heartbeat_interval,
            window_start: now,
            window_end: now + timing.detection_timeout,
            window_is_second_chance: false,
        }
    }

    pub(crate) fn deadline(&self) -> Time {
        let transfer = self
            .transfer
            .as_ref()
            .map_or(Time::MAX, |transfer| transfer.deadline);
        self.heartbeat_due.min(self.window_end).min(transfer)
    }

    pub(crate) fn on_timing(&mut self, now: Time, timing: Timing) {
        self.heartbeat_due = self.heartbeat_due.min(now + timing.heartbeat_interval);
        self.window_end = self.window_start + timing.detection_timeout;
    }

    fn begin_window(&mut self, now: Time, timing: Timing, is_second_chance: bool) {
        self.window_start = now;
        self.window_end = now + timing.detection_timeout;
        self.window_is_second_chance = is_second_chance;
    }
}

impl<C: Payload> Consensus<C> {
    /// Proposes commands, in order, as the leader. They are committed, or not, like the log says:
    /// [`Output::Committed`] tells, and a lost leadership leaves it open. Without commands it does nothing.
    ///
    /// Returns the index of the first.
    ///
    /// # Errors
    /// [`ProposeError`]: nothing was appended; each variant says what to do.
    pub fn propose(
        &mut self,
        now: Time,
        commands: Vec<C>,
        out: &mut Vec<Output<C>>,
    ) -> Result<LogIndex, ProposeError> {
        let (term, first) = (self.hard_state.term, self.log.last().index.next());
        let leader = self.leader;
        let leading = match &mut self.leading {
            Some(leading) if !self.stopped => leading,
            _ => return Err(ProposeError::NotLeader { leader }),
        };
        if let Some(transfer) = &leading.transfer {
            return Err(ProposeError::Transferring { to: transfer.to });
        }
        let mut index = first;
        let mut entries = Vec::with_capacity(commands.len());
        for command in commands {
            entries.push(Entry {
                index,
                term,
                body: Body::Command(command),
            });
            index = index.next();
        }
        let bytes: usize = entries.iter().map(Entry::size_bytes).sum();
        let limit_bytes = self.config.uncommitted_bytes_max;
        let uncommitted_bytes = leading.uncommitted_bytes;
        // One proposal is always let through, or one larger than the limit never would be.
        if uncommitted_bytes > 0 && uncommitted_bytes.saturating_add(bytes) > limit_bytes {
            return Err(ProposeError::Overloaded {
                uncommitted_bytes,
                limit_bytes,
            });
        }
        if !entries.is_empty() {
            self.append_as_leader(now, entries, out);
        }
        Ok(first)
    }

    /// Asks for the round that will confirm that this replica leads now, for what arrived by now: one not yet sent.
    /// [`Output::Confirmed`] tells; a lost leadership loses the round.
    ///
    /// # Errors
    /// [`NotLeader`]: ask the leader.
    pub fn confirm(&mut self, now: Time, out: &mut Vec<Output<C>>) -> Result<RoundId, NotLeader> {
        let leading = match &mut self.leading {
            Some(leading) if !self.stopped => leading,
            _ => {
                return Err(NotLeader {
                    leader: self.leader,
                });
            }
        };
        let (round, is_new) = leading.rounds.want();
        if is_new {
            self.send_round(now, out);
        }
        Ok(round)
    }

    /// Does what a leader's clock demands.
    pub(crate) fn on_leader_tick(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        let timing = self.config.timing;
        let leading = self.leading.as_mut().expect("a leader leads");
        if let Some(transfer) = &leading.transfer
            && now >= transfer.deadline
        {
            // The target did not take over in time: lead on (thesis, section 3.10).
            leading.transfer = None;
        }
        if now >= leading.window_end && !self.passes_check_quorum(now) {
            self.step_down_without_quorum(now, out);
            return;
        }
        let leading = self.leading.as_mut().expect("it did not step down");
        if now >= leading.heartbeat_due {
            leading.heartbeat_due = now + timing.heartbeat_interval;
            self.broadcast_heartbeat(out);
        }
    }

    /// Ends a check-quorum window: whether a commit quorum answered within it (thesis, section 6.2).
    fn passes_check_quorum(&mut self, now: Time) -> bool {
        let (id, timing) = (self.config.id, self.config.timing);
        let configuration = self.history.newest();
        let leading = self.leading.as_mut().expect("a leader leads");
        let answered = |peer: ReplicaId| {
            peer == id
                || leading
                    .progress
                    .get(&peer)
                    .is_some_and(|peer| peer.heard_at >= leading.window_start)
        };
        if configuration.has_commit_quorum(answered) {
            leading.begin_window(now, timing, false);
            return true;
        }
        // A tick this late means that this replica was itself paused, and that answers may lie unread: look again, once.
        let stalled = now.since(leading.window_end) > timing.heartbeat_interval;
        if stalled && !leading.window_is_second_chance {
            leading.begin_window(now, timing, true);
            return true;
        }
        false
    }

    fn step_down_without_quorum(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        let term = self.hard_state.term;
        self.become_follower(now, term, out);
        // Whoever still hears it need not wait for its silence (protocol, section 1).
        for peer in self.peers() {
            self.send(peer, Message::SteppedDown { term }, out);
        }
    }

    /// Begins a term with an entry of its own, whose commit commits what earlier terms left (thesis, section 3.6.2).
    pub(crate) fn begin_term(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        let entry = Entry {
            index: self.log.last().index.next(),
            term: self.hard_state.term,
            body: Body::OwnTerm,
        };
        self.append_as_leader(now, vec![entry], out);
    }

    fn append_as_leader(&mut self, now: Time, entries: Vec<Entry<C>>, out: &mut Vec<Output<C>>) {
        assert_eq!(self.role, Role::Leader, "only a leader proposes");
        self.log.append(&entries);
        self.history.note_appended(&entries);
        let leading = self.leading.as_mut().expect("a leader leads");
        leading.uncommitted_bytes += entries.iter().map(Entry::size_bytes).sum::<usize>();
        // Its own disk works while the peers' do: the leader is not special among those that make a quorum.
        self.persist(None, None, entries, out);
        for peer in self.peers() {
            self.send_appends(now, peer, out);
        }
    }

    /// Counts what a new leader found uncommitted.
    pub(crate) fn count_inherited_bytes(&mut self) {
        let uncommitted = self.log.slice(self.commit.next(), self.log.last().index);
        let bytes = uncommitted.iter().map(Entry::size_bytes).sum();
        self.leading
            .as_mut()
            .expect("called by a new leader")
            .uncommitted_bytes = bytes;
    }

    pub(crate) fn broadcast_heartbeat(&mut self, out: &mut Vec<Output<C>>) {
        for peer in self.peers() {
            self.send_heartbeat(peer, out);
        }
    }

    pub(crate) fn send_heartbeat(&mut self, to: ReplicaId, out: &mut Vec<Output<C>>) {
        let (term, commit) = (self.hard_state.term, self.commit);
        let Some(leading) = &mut self.leading else {
            return;
        };
        let round = leading.rounds.newest();
        let Some(progress) = leading.progress.get_mut(&to) else {
            return;
        };
        // Never beyond what the receiver is known to match: a heartbeat proves nothing about its log.
        let commit = commit.min(progress.matched);
        progress.commit_told = progress.commit_told.max(commit);
        self.send(
            to,
            Message::Heartbeat {
                term,
                commit,
                round,
            },
            out,
        );
    }
}
