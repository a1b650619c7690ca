//! The leader's side of replication: what is sent to each peer, what its answers mean, and what is thereby committed
//! (thesis, sections 3.5, 3.6.2, 10.2).

use quorate_types::{LogIndex, ReplicaId, Term, Time};

use crate::progress::Sending;
use crate::{AppendOutcome, Consensus, Entry, LogPosition, Message, Output, Payload, RoundId};

impl<C: Payload> Consensus<C> {
    /// Sends `peer` what it lacks, as far as its window allows.
    pub(crate) fn send_appends(&mut self, now: Time, peer: ReplicaId, out: &mut Vec<Output<C>>) {
        while let Some(message) = self.next_append(now, peer, out) {
            self.send(peer, message, out);
        }
    }

    /// The next append for `peer`; nothing if it must wait or has everything.
    fn next_append(
        &mut self,
        now: Time,
        peer: ReplicaId,
        out: &mut Vec<Output<C>>,
    ) -> Option<Message<C>> {
        let (bytes_max, appends_max) = (
            self.config.append_bytes_max,
            self.config.appends_in_flight_max,
        );
        let last = self.log.last().index;
        let leading = self.leading.as_mut()?;
        let progress = leading.progress.get_mut(&peer)?;
        let was_awaiting = progress.is_awaiting();
        match &progress.sending {
            Sending::Probe { awaiting: true } | Sending::Snapshot { .. } => return None,
            Sending::Probe { awaiting: false } => {}
            Sending::Replicate(in_flight) => {
                if progress.next > last
                    || !in_flight.has_room(appends_max, bytes_max.saturating_mul(appends_max))
                {
                    return None;
                }
            }
        }
        let previous = LogIndex(progress.next.0 - 1);
        let Some(term) = self.log.term_at(previous) else {
            self.begin_snapshot(now, peer, out);
            return None;
        };
        let entries = self.log.batch(progress.next, bytes_max).to_vec();
        let through = LogIndex(previous.0 + entries.len() as u64);
        match &mut progress.sending {
            Sending::Probe { awaiting } => *awaiting = true,
            Sending::Replicate(in_flight) => {
                in_flight.push(through, entries.iter().map(Entry::size_bytes).sum());
                progress.next = through.next();
            }
            Sending::Snapshot { .. } => unreachable!("returned above"),
        }
        if !was_awaiting {
            progress.waiting_since = now;
        }
        progress.commit_told = progress.commit_told.max(self.commit.min(through));
        Some(Message::Append {
            term: self.hard_state.term,
            previous: LogPosition {
                term,
                index: previous,
            },
            entries,
            commit: self.commit,
            round: leading.rounds.newest(),
        })
    }

    pub(crate) fn on_append_response(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        outcome: AppendOutcome,
        round: RoundId,
        out: &mut Vec<Output<C>>,
    ) {
        if !self.note_answer(now, from, term) {
            return;
        }
        self.on_round_ack(now, from, round, out);
        match outcome {
            AppendOutcome::Matched { through } => self.on_matched(now, from, through, out),
            AppendOutcome::Conflict { refused, hint } => {
                self.on_conflict(now, from, refused, hint, out);
            }
        }
    }

    fn on_matched(
        &mut self,
        now: Time,
        from: ReplicaId,
        through: LogIndex,
        out: &mut Vec<Output<C>>,
    ) {
        let (base, last) = (self.log.base().index, self.log.last().index);
        let Some(leading) = &mut self.leading else {
            return;
        };
        let Some(progress) = leading.progress.get_mut(&from) else {
            return;
        };
        if through > last {
            return; // Nobody can match what was never sent: garbage.
        }
        let rose = progress.on_matched(through, now);
        let can_replicate = match progress.sending {
            Sending::Probe { .. } => true,
            Sending::Snapshot { .. } => progress.matched >= base,
            Sending::Replicate(_) => false,
        };
        if can_replicate {
            progress.become_replicate();
        }
        if rose {
            self.advance_commit(now, out);
            self.on_target_matched(from, out);
        }
        self.send_appends(now, from, out);
        self.tell_commit(from, out);
    }

    fn on_conflict(
        &mut self,
        now: Time,
        from: ReplicaId,
        refused: LogIndex,
        hint: LogPosition,
        out: &mut Vec<Output<C>>,
    ) {
        let Some(leading) = &mut self.leading else {
            return;
        };
        let Some(progress) = leading.progress.get_mut(&from) else {
            return;
        };
        let is_stale = match progress.sending {
            // Refused before it matched, or an answer to an append given up since.
            Sending::Replicate(_) => refused <= progress.matched || refused >= progress.next,
            Sending::Probe { .. } => refused <= progress.matched || refused.next() != progress.next,
            Sending::Snapshot { .. } => true,
        };
        if is_stale {
            return;
        }
        // The logs can agree only where this log's term is not above the hint's; at least one step back is certain.
        let agreed = self.log.last_at_most(hint.index, hint.term).index;
        let next = agreed.next().min(refused).max(progress.matched.next());
        progress.become_probe(next);
        progress.waiting_since = now;
        self.send_appends(now, from, out);
    }

    pub(crate) fn on_heartbeat_response(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        round: RoundId,
        last: LogIndex,
        out: &mut Vec<Output<C>>,
    ) {
        if !self.note_answer(now, from, term) {
            return;
        }
        self.on_round_ack(now, from, round, out);
        let resend_after = self.config.timing.resend_after();
        let Some(leading) = &mut self.leading else {
            return;
        };
        let Some(progress) = leading.progress.get_mut(&from) else {
            return;
        };
        // It answers, yet an append or its answer is missing for longer than either takes. Or it restarted: it verified
        // less than it once acknowledged, and can learn the commit index only from an append.
        let is_behind = last < progress.matched;
        if (progress.is_awaiting() || is_behind)
            && now.since(progress.waiting_since) >= resend_after
        {
            progress.waiting_since = now;
            if matches!(progress.sending, Sending::Snapshot { .. }) {
                self.resend_snapshot(now, from, out);
                return;
            }
            let next = progress.matched.next();
            if matches!(progress.sending, Sending::Replicate(_)) {
                progress.become_probe(next);
            } else {
                let next = progress.next;
                progress.become_probe(next);
            }
        }
        self.send_appends(now, from, out);
    }

    /// Probes `peer` afresh: what was in flight to it is lost.
    pub(crate) fn probe_again(&mut self, now: Time, peer: ReplicaId, out: &mut Vec<Output<C>>) {
        let Some(leading) = &mut self.leading else {
            return;
        };
        let Some(progress) = leading.progress.get_mut(&peer) else {
            return;
        };
        match &progress.sending {
            Sending::Snapshot { .. } => self.resend_snapshot(now, peer, out),
            Sending::Probe { .. } => {
                let next = progress.next;
                progress.become_probe(next);
            }
            Sending::Replicate(_) => {
                let next = progress.matched.next();
                progress.become_probe(next);
            }
        }
        self.send_appends(now, peer, out);
    }

    /// Commits what a commit quorum holds durably. This replica counts like any other: by its disk.
    pub(crate) fn advance_commit(&mut self, _now: Time, out: &mut Vec<Output<C>>) {
        let (id, own) = (self.config.id, self.log.last_durable());
        let configuration = self.history.newest();
        let Some(leading) = &mut self.leading else {
            return;
        };
        let reached = configuration.commit_quorum_reached(|peer| {
            if peer == id {
                own
            } else {
                leading
                    .progress
                    .get(&peer)
                    .map_or(LogIndex::ZERO, |peer| peer.matched)
            }
        });
        // Counting commits only entries of the own term, and by them all before: an older entry on a quorum can still
        // be overwritten (thesis, section 3.6.2, figure 3.7).
        if reached <= self.commit || self.log.term_at(reached) != Some(self.hard_state.term) {
            return;
        }
        let bytes: usize = self
            .log
            .slice(self.commit.next(), reached)
            .iter()
            .map(Entry::size_bytes)
            .sum();
        leading.uncommitted_bytes -= bytes;
        self.commit = reached;
        self.verified = self.verified.max(reached);
        out.push(Output::Committed { through: reached });
        for peer in self.peers() {
            self.tell_commit(peer, out);
        }
    }

    /// Tells a peer that has nothing else to receive of a risen commit index, so that it applies without waiting for
    /// the next heartbeat.
    fn tell_commit(&mut self, peer: ReplicaId, out: &mut Vec<Output<C>>) {
        let (commit, last) = (self.commit, self.log.last().index);
        let Some(progress) = self
            .leading
            .as_ref()
            .and_then(|leading| leading.progress.get(&peer))
        else {
            return;
        };
        let has_everything =
            matches!(progress.sending, Sending::Replicate(_)) && progress.next > last;
        if has_everything && commit.min(progress.matched) > progress.commit_told {
            self.send_heartbeat(peer, out);
        }
    }

    /// Notes that `from` answered, if it answered this leader in this term.
    pub(crate) fn note_answer(&mut self, now: Time, from: ReplicaId, term: Term) -> bool {
        if term != self.hard_state.term {
            return false;
        }
        let Some(leading) = &mut self.leading else {
            return false;
        };
        let Some(progress) = leading.progress.get_mut(&from) else {
            return false;
        };
        progress.heard_at = now;
        true
    }
}
