//! The invariants, checked. The simulator calls this after every step.

use crate::{Consensus, Payload, Role, WriteSeq};

impl<C: Payload> Consensus<C> {
    /// Checks what must hold after every call.
    ///
    /// # Panics
    /// When something does not: our bug.
    pub fn check_invariants(&self) {
        self.log.check_invariants();
        self.history.check_invariants();
        let (base, last) = (self.log.base(), self.log.last());
        assert!(
            self.commit <= last.index,
            "commit {:?} is beyond the end {last:?}",
            self.commit
        );
        assert!(
            base.index <= self.snapshot.last.index,
            "no snapshot covers {base:?}: {:?}",
            self.snapshot.last
        );
        assert!(
            self.snapshot.last.index <= self.commit,
            "snapshot {:?} beyond the commit",
            self.snapshot.last
        );
        assert!(
            self.verified >= self.commit,
            "verified {:?} less than committed {:?}",
            self.verified,
            self.commit
        );
        assert!(
            last.term <= self.hard_state.term,
            "the log's end {last:?} is beyond {:?}",
            self.hard_state
        );
        let (term, term_durable) = (self.hard_state.term, self.hard_state_durable.term);
        assert!(
            term_durable <= term,
            "durable term {term_durable:?}, but only at {term:?}"
        );
        assert!(
            self.stopped || self.write_last == WriteSeq::default() || !self.hard_state_changed,
            "a changed hard state was not ordered to disk"
        );
        assert_eq!(
            self.leading.is_some(),
            self.role == Role::Leader,
            "role {:?}",
            self.role
        );
        match self.role {
            Role::Follower => assert!(self.leader != Some(self.config.id), "a follower of itself"),
            Role::PreCandidate => assert_eq!(self.leader, None, "a pre-candidate follows"),
            Role::Candidate => {
                assert_eq!(self.leader, None, "a candidate follows");
                assert_eq!(
                    self.hard_state.voted_for,
                    Some(self.config.id),
                    "a candidate without its own vote"
                );
            }
            Role::Leader => self.check_leading(),
        }
    }

    fn check_leading(&self) {
        let leading = self.leading.as_ref().expect("checked by the caller");
        let (base, last) = (self.log.base(), self.log.last());
        assert_eq!(self.leader, Some(self.config.id), "a leader follows");
        assert_eq!(
            self.hard_state.voted_for,
            Some(self.config.id),
            "a leader without its own vote"
        );
        assert_eq!(
            self.hard_state, self.hard_state_durable,
            "a leader of a term that is not durable"
        );
        assert!(
            last.index >= leading.own_term_index,
            "a leader's log {last:?} shrank below its own term"
        );
        if base.index < leading.own_term_index {
            assert_eq!(
                self.log.term_at(leading.own_term_index),
                Some(self.hard_state.term)
            );
        }
        leading.rounds.check_invariants();
        for progress in leading.progress.values() {
            progress.check_invariants(last.index);
        }
        assert_eq!(
            leading.progress.keys().copied().collect::<Vec<_>>(),
            self.peers(),
            "peers without progress"
        );
    }
}
