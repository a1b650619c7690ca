//! Confirmation rounds: proof that this replica still led after something arrived (protocol, section 1; thesis, 6.4).

use quorate_types::{ReplicaId, Time};

use crate::{Consensus, Output, Payload, RoundId};

/// A leader's rounds.
///
/// # Invariants
/// - `confirmed <= newest <= confirmed + 1`: at most one is outstanding. What arrives meanwhile waits for the next, since
///   the outstanding one may have been answered before.
/// - `is_next_wanted` only while one is outstanding.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Rounds {
    newest: RoundId,
    confirmed: RoundId,
    is_next_wanted: bool,
}

impl Rounds {
    /// No round is outstanding; the ids go on after `last`.
    pub(crate) fn new(last: RoundId) -> Self {
        Self {
            newest: last,
            confirmed: last,
            is_next_wanted: false,
        }
    }

    pub(crate) fn newest(&self) -> RoundId {
        self.newest
    }

    pub(crate) fn is_outstanding(&self) -> bool {
        self.newest > self.confirmed
    }

    /// The round that confirms what arrived by now, and whether it begins now.
    pub(crate) fn want(&mut self) -> (RoundId, bool) {
        let next = RoundId(self.newest.0 + 1);
        if self.is_outstanding() {
            self.is_next_wanted = true;
            return (next, false);
        }
        self.newest = next;
        (next, true)
    }

    /// Ends the outstanding round; whether another one begins.
    fn on_confirmed(&mut self) -> bool {
        self.confirmed = self.newest;
        let begins = std::mem::take(&mut self.is_next_wanted);
        if begins {
            self.newest = RoundId(self.newest.0 + 1);
        }
        begins
    }

    pub(crate) fn check_invariants(&self) {
        assert!(
            self.confirmed <= self.newest,
            "round {:?} confirmed before it began",
            self.confirmed
        );
        assert!(
            self.newest.0 <= self.confirmed.0 + 1,
            "more than one round is outstanding"
        );
        assert!(
            self.is_outstanding() || !self.is_next_wanted,
            "a round is wanted and none runs"
        );
    }
}

impl<C: Payload> Consensus<C> {
    /// Sends the round that just began. Lost, it goes out again with every heartbeat and append.
    pub(crate) fn send_round(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        let leading = self.leading.as_ref().expect("only a leader has rounds");
        self.round_last = leading.rounds.newest();
        self.broadcast_heartbeat(out);
        // A single voter is its own quorum.
        self.check_round(now, out);
    }

    /// Takes an answer of this term to a message that carried `round`: its sender knew of no higher term after that
    /// round began, so the round and all before it count.
    pub(crate) fn on_round_ack(
        &mut self,
        now: Time,
        from: ReplicaId,
        round: RoundId,
        out: &mut Vec<Output<C>>,
    ) {
        let Some(leading) = &mut self.leading else {
            return;
        };
        let newest = leading.rounds.newest();
        let Some(progress) = leading.progress.get_mut(&from) else {
            return;
        };
        if round <= newest && round > progress.round_acked {
            progress.round_acked = round;
            self.check_round(now, out);
        }
    }

    fn check_round(&mut self, now: Time, out: &mut Vec<Output<C>>) {
        let id = self.config.id;
        let configuration = self.history.newest();
        let Some(leading) = &mut self.leading else {
            return;
        };
        let round = leading.rounds.newest();
        let acked = |peer: ReplicaId| {
            peer == id
                || leading
                    .progress
                    .get(&peer)
                    .is_some_and(|progress| progress.round_acked >= round)
        };
        if !leading.rounds.is_outstanding() || !configuration.has_commit_quorum(acked) {
            return;
        }
        let begins = leading.rounds.on_confirmed();
        out.push(Output::Confirmed { round });
        if begins {
            self.send_round(now, out);
        }
    }
}
