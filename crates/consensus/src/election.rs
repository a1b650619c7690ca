//! Pre-votes, votes and candidacies (thesis, sections 3.4, 9.6).

use std::collections::BTreeMap;

use quorate_types::{ReplicaId, Term, Time};

use crate::leader::Leading;
use crate::{Consensus, HardState, LogPosition, Message, Output, Payload, Role};

impl<C: Payload> Consensus<C> {
    /// Restarts the election timeout as if at `from`. The random part keeps replicas from standing together.
    pub(crate) fn restart_election_timeout(&mut self, from: Time) {
        let jitter =
            u64::try_from(self.config.timing.election_jitter.as_nanos()).unwrap_or(u64::MAX);
        let drawn = if jitter == 0 {
            0
        } else {
            self.rng.u64(0..jitter)
        };
        self.election_from = from;
        self.election_deadline =
            from + self.config.timing.detection_timeout + std::time::Duration::from_nanos(drawn);
    }

    /// Becomes a follower without a known leader, of `term` or of the current one.
    pub(crate) fn become_follower(&mut self, now: Time, term: Term, out: &mut Vec<Output<C>>) {
        assert!(
            term >= self.hard_state.term,
            "the term fell from {:?} to {term:?}",
            self.hard_state.term
        );
        if term > self.hard_state.term {
            self.hard_state = HardState {
                term,
                voted_for: None,
            };
            self.hard_state_changed = true;
            self.verified = self.commit;
        }
        if self.role == Role::Leader {
            // Rounds and the transfer vanish with `leading`: nothing that this leader began can be confirmed any more.
            self.leading = None;
            self.restart_election_timeout(now);
        }
        self.role = Role::Follower;
        self.leader = None;
        self.votes.clear();
        self.announce(out);
    }

    /// Asks whether it could win, before it disturbs anyone by a new term.
    pub(crate) fn become_pre_candidate(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        self.restart_election_timeout(now);
        self.role = Role::PreCandidate;
        self.leader = None;
        // Its own pre-vote promises nothing, so it counts at once.
        self.votes = BTreeMap::from([(self.config.id, true)]);
        self.announce(out);
        if self.has_won_votes() {
            self.campaign(now, out);
            return;
        }
        let (term, last) = (self.hard_state.term.next(), self.log.last());
        self.ask_voters(&Message::PreVoteRequest { term, last }, out);
    }

    /// Stands for election in a new term.
    pub(crate) fn campaign(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        assert!(self.role != Role::Leader, "a leader stands again");
        self.restart_election_timeout(now);
        self.hard_state = HardState {
            term: self.hard_state.term.next(),
            voted_for: Some(self.config.id),
        };
        self.hard_state_changed = true;
        self.verified = self.commit;
        self.role = Role::Candidate;
        self.leader = None;
        // Its own vote counts only once durable: `count_own_vote`.
        self.votes.clear();
        self.announce(out);
        self.flush(out);
        let (term, last) = (self.hard_state.term, self.log.last());
        // These wait for the vote to be durable, as every message does: a candidate that forgot its own vote could
        // vote for another in the same term.
        self.ask_voters(&Message::VoteRequest { term, last }, out);
    }

    /// Counts a candidate's own vote, if it is durable by now.
    pub(crate) fn count_own_vote(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        if self.hard_state_durable == self.hard_state {
            self.votes.insert(self.config.id, true);
            self.become_leader_if_elected(now, out);
        }
    }

    pub(crate) fn on_pre_vote_request(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        last: LogPosition,
        out: &mut Vec<Output<C>>,
    ) {
        // Stickiness belongs here and nowhere else (protocol, section 1): who still hears a leader helps nobody to
        // depose it, but a real vote is never refused for that, or a higher term could lock everyone out.
        let granted =
            self.could_vote(from, term) && last >= self.log.last() && !self.hears_leader(now);
        let term = if granted { term } else { self.hard_state.term };
        let last = self.log.last();
        self.send(
            from,
            Message::PreVoteResponse {
                term,
                granted,
                last,
            },
            out,
        );
    }

    pub(crate) fn on_pre_vote_response(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        granted: bool,
        out: &mut Vec<Output<C>>,
    ) {
        // A refusal with a higher term has made this a follower already.
        if self.role != Role::PreCandidate || (granted && term != self.hard_state.term.next()) {
            return;
        }
        self.votes.insert(from, granted);
        if self.has_won_votes() {
            self.campaign(now, out);
        }
    }

    pub(crate) fn on_vote_request(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        last: LogPosition,
        out: &mut Vec<Output<C>>,
    ) {
        // The configuration is not consulted: who is asked may be a voter without knowing it yet (thesis, section 4.2).
        // A candidate asks and counts only the voters of its own configuration.
        let granted =
            term == self.hard_state.term && self.could_vote(from, term) && last >= self.log.last();
        if granted && self.hard_state.voted_for.is_none() {
            self.hard_state.voted_for = Some(from);
            self.hard_state_changed = true;
        }
        if granted {
            self.restart_election_timeout(now);
        }
        // A granted vote leaves once durable, since it follows the write of the hard state.
        let term = self.hard_state.term;
        self.send(from, Message::VoteResponse { term, granted }, out);
    }

    pub(crate) fn on_vote_response(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        granted: bool,
        out: &mut Vec<Output<C>>,
    ) {
        if self.role != Role::Candidate || term != self.hard_state.term {
            return;
        }
        self.votes.insert(from, granted);
        self.become_leader_if_elected(now, out);
    }

    /// The leader says that it no longer leads: there is nothing to wait for but the jitter.
    pub(crate) fn on_stepped_down(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        out: &mut Vec<Output<C>>,
    ) {
        if term != self.hard_state.term || self.leader != Some(from) || self.role != Role::Follower
        {
            return;
        }
        self.leader = None;
        self.restart_election_timeout(now);
        self.election_deadline = self.election_deadline - self.config.timing.detection_timeout;
        self.announce(out);
    }

    fn become_leader_if_elected(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        // The own vote is not required in particular (a leader being removed votes like anyone), but a leader's term
        // must be durable: everything it sends says it.
        if !self.has_won_votes() || self.hard_state_durable != self.hard_state {
            return;
        }
        assert_eq!(self.role, Role::Candidate, "only a candidate is elected");
        self.role = Role::Leader;
        self.leader = Some(self.config.id);
        self.votes.clear();
        let own_term_index = self.log.last().index.next();
        self.leading = Some(Leading::new(
            own_term_index,
            self.round_last,
            &self.peers(),
            self.config.timing,
            now,
        ));
        self.count_inherited_bytes();
        self.announce(out);
        self.begin_term(now, out);
    }

    fn could_vote(&self, from: ReplicaId, term: Term) -> bool {
        let HardState {
            term: own,
            voted_for,
        } = self.hard_state;
        term > own || (term == own && voted_for.is_none_or(|voted| voted == from))
    }

    fn hears_leader(&self, now: Time) -> bool {
        match self.leader {
            Some(leader) if leader == self.config.id => true,
            Some(_) => now.since(self.leader_heard_at) < self.config.timing.detection_timeout,
            None => false,
        }
    }

    fn has_won_votes(&self) -> bool {
        self.configuration()
            .has_election_quorum(|id| self.votes.get(&id) == Some(&true))
    }

    fn ask_voters(&mut self, message: &Message<C>, out: &mut Vec<Output<C>>) {
        for voter in self.configuration().voters() {
            if voter != self.config.id {
                self.send(voter, message.clone(), out);
            }
        }
    }
}
