//! Handing leadership over on purpose (thesis, section 3.10).

use std::cmp::Reverse;

use quorate_types::{ReplicaId, Term, Time};

use crate::{Consensus, Message, Output, Payload, Role, TransferError};

/// A hand-over under way: proposals wait while the target catches up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) to: ReplicaId,
    /// When it is given up.
    pub(crate) deadline: Time,
    /// Whether the target was told to stand.
    pub(crate) is_told: bool,
}

impl<C: Payload> Consensus<C> {
    /// Hands leadership to `to`, or to the most caught-up voter. Proposals are refused until it took over, or until a
    /// detection timeout has passed and this replica leads on; [`Output::RoleChanged`] tells the former.
    ///
    /// # Errors
    /// [`TransferError`]: nothing was begun; each variant says what to do.
    pub fn transfer(
        &mut self,
        now: Time,
        to: Option<ReplicaId>,
        out: &mut Vec<Output<C>>,
    ) -> Result<(), TransferError> {
        let (id, timing, leader) = (self.config.id, self.config.timing, self.leader);
        let configuration = self.history.newest();
        let leading = match &mut self.leading {
            Some(leading) if !self.stopped => leading,
            _ => return Err(TransferError::NotLeader { leader }),
        };
        if let Some(transfer) = &leading.transfer {
            return Err(TransferError::InProgress { to: transfer.to });
        }
        let to = match to {
            Some(to) if to == id || !configuration.is_voter(to) => {
                return Err(TransferError::NotAnotherVoter { to });
            }
            Some(to) => to,
            None => {
                let answering = leading.progress.iter().filter(|(peer, progress)| {
                    configuration.is_voter(**peer)
                        && now.since(progress.heard_at) < timing.detection_timeout
                });
                let best =
                    answering.max_by_key(|(peer, progress)| (progress.matched, Reverse(**peer)));
                *best.ok_or(TransferError::NoTarget)?.0
            }
        };
        leading.transfer = Some(Transfer {
            to,
            deadline: now + timing.detection_timeout,
            is_told: false,
        });
        self.on_target_matched(to, out);
        self.send_appends(now, to, out);
        Ok(())
    }

    /// Tells the target to stand, if `peer` is it and has the whole log.
    pub(crate) fn on_target_matched(&mut self, peer: ReplicaId, out: &mut Vec<Output<C>>) {
        let last = self.log.last().index;
        let Some(leading) = &mut self.leading else {
            return;
        };
        let Some(transfer) = &mut leading.transfer else {
            return;
        };
        let has_all = leading
            .progress
            .get(&peer)
            .is_some_and(|progress| progress.matched == last);
        if transfer.to == peer && !transfer.is_told && has_all {
            transfer.is_told = true;
            let term = self.hard_state.term;
            self.send(peer, Message::TimeoutNow { term }, out);
        }
    }

    /// Stands at once, as the leader asked: without a pre-vote, which the others' stickiness would refuse.
    pub(crate) fn on_timeout_now(
        &mut self,
        now: Time,
        from: ReplicaId,
        term: Term,
        out: &mut Vec<Output<C>>,
    ) {
        let is_asked = term == self.hard_state.term
            && self.role == Role::Follower
            && self.leader == Some(from);
        if is_asked && self.configuration().is_voter(self.config.id) {
            self.campaign(now, out);
        }
    }
}
