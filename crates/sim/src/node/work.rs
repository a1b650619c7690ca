//! A holder's work: pieces that it begins and settles at its group's resource, under its token.
//!
//! Owns: that nothing is in flight when a tenure is released, and that what an earlier holder left open is looked for where its
//! tenure did not end by a release. That is what a service must do for a handover to lose nothing (docs/guarantees.md); whether the
//! state machine tells it the truth about its predecessor is what the checker `drained_work_is_settled` finds out.

use std::collections::BTreeSet;

use quorate_wire::api::{Cause, Predecessor};

use super::*;
use crate::resource::{Action, Effect, PieceId};

/// A tenure's work, as its holder knows it.
///
/// # Invariants
/// - A piece is in `beginning` until the resource answered, then in `open` until it was told to settle, then in `settling`.
#[derive(Debug, Default)]
pub(super) struct Work {
    beginning: BTreeSet<PieceId>,
    open: BTreeSet<PieceId>,
    settling: BTreeSet<PieceId>,
    /// Whether earlier holders left nothing open: they released, or their pieces were found and settled.
    inherited_settled: bool,
    /// When it last began to look for them.
    looked_at: Option<Time>,
    /// It hands over: nothing new is begun.
    draining: bool,
}

/// How long a look for inherited work may stay unanswered.
const LOOK_AGAIN: Duration = Duration::from_millis(700);

impl World {
    /// A tenure may be led from here on: what the one before left is looked for, unless that let go in order.
    pub(super) fn work_begins(
        &mut self,
        node: usize,
        tenure: &TenureId,
        predecessor: Option<Predecessor>,
    ) {
        let settled = predecessor.is_none_or(|before| before.outcome == Cause::Released);
        let work = self.nodes[node].work.entry(tenure.clone()).or_default();
        work.inherited_settled |= settled;
    }

    /// Nothing new is begun, or it is again.
    pub(super) fn work_drains(&mut self, node: usize, tenure: &TenureId, draining: bool) {
        if let Some(work) = self.nodes[node].work.get_mut(tenure) {
            work.draining = draining;
        }
    }

    /// One step of work, under a check that was just made.
    pub(super) fn work(&mut self, node: usize, tenure: &TenureId, reading: Time) {
        let Some(work) = self.nodes[node].work.get_mut(tenure) else {
            return;
        };
        if !work.inherited_settled {
            self.look_for_inherited(node, tenure, reading);
            return;
        }
        let settles = work.draining || work.open.len() >= 3 || self.random.u8(..3) == 0;
        if settles && let Some(piece) = work.open.pop_first() {
            work.settling.insert(piece);
            self.write_to_resource(node, tenure, Action::Settle(piece));
        } else if !work.draining {
            self.piece_next += 1;
            let piece = PieceId(self.piece_next);
            work.beginning.insert(piece);
            self.write_to_resource(node, tenure, Action::Begin(piece));
        }
    }

    fn look_for_inherited(&mut self, node: usize, tenure: &TenureId, reading: Time) {
        let work = self.nodes[node].work.entry(tenure.clone()).or_default();
        if work
            .looked_at
            .is_none_or(|at| reading.since(at) > LOOK_AGAIN)
        {
            work.looked_at = Some(reading);
            self.write_to_resource(node, tenure, Action::SettleInherited);
        }
    }

    /// Whether a tenure can be released: nothing is in flight. If not, what is open is settled.
    pub(super) fn work_is_settled(&mut self, node: usize, tenure: &TenureId) -> bool {
        if self.plant == Some(Plant::ReleaseWithOpenWork) {
            return true;
        }
        let reading = self.nodes[node].clock.reading(self.now);
        let work = self.nodes[node].work.entry(tenure.clone()).or_default();
        work.draining = true;
        if !work.inherited_settled {
            // It never got to look, or never knew that it led: a release would say that nothing is in flight.
            self.look_for_inherited(node, tenure, reading);
            return false;
        }
        let settled = work.beginning.is_empty() && work.open.is_empty() && work.settling.is_empty();
        for piece in std::mem::take(&mut work.open) {
            let work = self.nodes[node].work.entry(tenure.clone()).or_default();
            work.settling.insert(piece);
            self.write_to_resource(node, tenure, Action::Settle(piece));
        }
        settled
    }

    /// A write under a check just made; some arrive long after (a process that stops between its check and its act).
    fn write_to_resource(&mut self, node: usize, tenure: &TenureId, action: Action) {
        let this = &self.nodes[node];
        let Some(token) = this.lease.token(tenure) else {
            return;
        };
        let process = this.process();
        let late = match self.random.u8(..) {
            0..4 => self.random.u64(0..6_000),
            4..12 => self.random.u64(0..600),
            _ => 0,
        };
        let at = self.now + self.network.delay() + Duration::from_millis(late);
        let group = self.group_index[&tenure.group];
        let write = ResourceWrite {
            tenure: tenure.clone(),
            token,
            process,
            action,
        };
        self.at(at, Event::Write { group, write });
    }

    /// The resource took or refused a write.
    pub(crate) fn on_written(&mut self, write: &ResourceWrite, effect: Effect) {
        let this = &mut self.nodes[write.process.node];
        if !this.up || this.life != write.process.life {
            return;
        }
        let Some(work) = this.work.get_mut(&write.tenure) else {
            return;
        };
        match write.action {
            Action::Begin(piece) => {
                if work.beginning.remove(&piece) && effect == Effect::Taken {
                    work.open.insert(piece);
                }
            }
            // Refused: a newer holder has found it.
            Action::Settle(piece) => {
                work.settling.remove(&piece);
            }
            Action::SettleInherited => work.inherited_settled |= effect == Effect::Taken,
        }
    }
}
