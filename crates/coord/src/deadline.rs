//! What happens when cluster time reaches a deadline: polls, preparations, handovers, cool-downs, minimum tenures.

use crate::event::{Cause, Phase};
use crate::handover::Retry;
use crate::lifecycle::Context;
use crate::spec::OverduePolicy;
use crate::state::{GroupId, State};

/// Most deadlines fired in one apply; the rest stay due, and the leader proposes `Advance` again.
pub(crate) const DEADLINES_FIRED_MAX: usize = 10_000;

impl State {
    /// Fires what is due. Before the command, so that the command finds the state that its cluster time says.
    pub(crate) fn fire_deadlines(&mut self, cx: &mut Context<'_>) {
        // Collected first: what fires now may arm a deadline that is due at once, and that waits for the next entry.
        let now = self.cluster_time;
        let due = self.derived.timers.iter().take_while(|(at, _)| *at <= now);
        let due: Vec<_> = due.take(DEADLINES_FIRED_MAX).map(|(_, id)| *id).collect();
        for id in due {
            self.fire(cx, id);
        }
    }

    fn fire(&mut self, cx: &mut Context<'_>, id: GroupId) {
        match self.by_id(id).phase {
            Phase::Vacant | Phase::Active => {
                self.set_wake(id, None);
                cx.dirty.insert(id);
            }
            Phase::Polling => self.settle_poll(cx, id, true),
            Phase::Preparing => self.end_tenure(cx, id, Cause::Overdue, None),
            Phase::Draining => match self.by_id(id).spec.handover_overdue {
                OverduePolicy::Abort => self.stop_drain(cx, id, Cause::Overdue, Retry::Later),
                OverduePolicy::Revoke => self.revoke_tenure(cx, id, Cause::Overdue),
            },
            Phase::Revoking => unreachable!("the leader waits a revocation out, not cluster time"),
        }
    }
}
