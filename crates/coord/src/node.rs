//! Operators' orders: transfers, admission of nodes, rebalancing.

use std::sync::Arc;

use quorate_types::{GroupName, NodeName, Revision};

use crate::command::{NodeAdmission, TransferMode};
use crate::elect::Exclusion;
use crate::event::{Cause, Event, Phase};
use crate::group::{Group, Pending, PendingKind};
use crate::lifecycle::Context;
use crate::reply::{Outcome, Rejection, Reply};
use crate::spec::BATCH_MAX;
use crate::state::{GroupId, State};

impl State {
    /// Whether an order may name this node as the next leader.
    fn check_target(&self, group: &Group, name: &NodeName) -> Result<(), Rejection> {
        let node = self
            .node(name)
            .ok_or_else(|| Rejection::UnknownNode { node: name.clone() })?;
        let refuse = |why: String| Rejection::NotEligible {
            group: group.key.name.clone(),
            node: name.clone(),
            why,
        };
        let standing = node
            .session
            .and_then(|s| group.contenders.get(&s).map(|c| (s, c)));
        let Some((session, contender)) = standing else {
            return Err(refuse("it does not stand in the group".into()));
        };
        match self.admit(group, session, contender) {
            Ok(_) => {}
            Err(Exclusion::SessionRevoked) => return Err(refuse("its session is revoked".into())),
            Err(Exclusion::Withdrawing) => return Err(refuse("it has withdrawn".into())),
            Err(Exclusion::NotOpen { admission }) => {
                return Err(refuse(format!("it is {admission:?}")));
            }
            Err(Exclusion::Label { key, value }) => {
                return Err(refuse(format!("it lacks the label {key}={value}")));
            }
            Err(other) => return Err(refuse(format!("{other:?}"))),
        }
        let is_part = group.holder() == Some(session)
            || group.successor().is_some_and(|s| s.session == session);
        if !is_part && !node.has_tenure_room() {
            return Err(refuse(format!(
                "it holds as many tenures as it may ({})",
                node.spec.max_tenures
            )));
        }
        if !is_part && group.is_prepared_for() && !node.has_preparing_room() {
            return Err(refuse(format!(
                "it prepares as many tenures as it may ({})",
                node.spec.max_preparing
            )));
        }
        Ok(())
    }

    pub(crate) fn transfer(
        &mut self,
        cx: &mut Context<'_>,
        name: &GroupName,
        to: Option<&NodeName>,
        mode: TransferMode,
    ) -> Outcome {
        let id = self.find_group(name)?;
        let group = self.by_id(id);
        if let Some(to) = to {
            self.check_target(group, to)?;
        }
        let phase = group.phase;
        let from = group.tenure.as_ref().and_then(|t| t.node.clone());
        if to.is_some() && to == from.as_ref() && phase != Phase::Revoking {
            // The wish holds already; one to leave is called off by it.
            if group.pending.is_some() && !group.holder_withdraws() {
                self.call_off(cx, id);
            }
            return Self::done();
        }
        if phase == Phase::Vacant && to.is_none() {
            let needed = "nobody holds it; name a node to elect, or wait for an election".into();
            return Err(Rejection::WrongPhase {
                group: name.clone(),
                phase,
                needed,
            });
        }
        let now = self.cluster_time;
        // A holder that is being revoked may be named as the next: then nobody is to be left.
        let from = from.filter(|from| Some(from) != to);
        let pending = Pending {
            kind: PendingKind::Transfer,
            to: to.cloned(),
            from,
            since: now,
            not_before: now,
        };
        // A withdrawal stays one: the holder leaves in any case.
        let withdraws = group.holder_withdraws();
        let successor = group.successor().map(|s| s.node.clone());
        self.edit(id, |group| {
            let kind = if withdraws {
                PendingKind::Withdrawal
            } else {
                PendingKind::Transfer
            };
            group.pending = Some(Pending { kind, ..pending });
        });
        cx.changed = true;
        cx.dirty.insert(id);
        match (phase, mode) {
            (Phase::Polling | Phase::Preparing, _) => self.end_tenure(cx, id, Cause::Ordered, None),
            (Phase::Active | Phase::Draining, TransferMode::Force) => {
                self.revoke_tenure(cx, id, Cause::Ordered);
            }
            // Settling chooses anew, and finds the one named.
            (Phase::Draining, TransferMode::Handover)
                if to.is_some() && to != successor.as_ref() =>
            {
                self.replace_successor(cx, id, None);
            }
            _ => {}
        }
        Self::done()
    }

    pub(crate) fn abort_transfer(&mut self, cx: &mut Context<'_>, name: &GroupName) -> Outcome {
        let id = self.find_group(name)?;
        let group = self.by_id(id);
        if group.pending.is_none() || !matches!(group.phase, Phase::Active | Phase::Draining) {
            let needed = "no handover is pending that could be called off".into();
            return Err(Rejection::WrongPhase {
                group: name.clone(),
                phase: group.phase,
                needed,
            });
        }
        if let Some(holder) = group.holder().filter(|_| group.holder_withdraws()) {
            self.edit(id, |group| {
                group
                    .contenders
                    .get_mut(&holder)
                    .expect("a holder stands")
                    .withdrawing = false;
            });
        }
        self.call_off(cx, id);
        Self::done()
    }

    pub(crate) fn admit_node(
        &mut self,
        cx: &mut Context<'_>,
        name: &NodeName,
        admission: NodeAdmission,
    ) -> Outcome {
        let Some(node) = self.nodes.get_mut(name) else {
            return Err(Rejection::UnknownNode { node: name.clone() });
        };
        let before = node.admission;
        let session = node.session;
        if before != admission {
            Arc::make_mut(node).admission = admission;
            cx.emit(Event::NodeChanged { node: name.clone() });
        }
        let Some(session) = session else {
            if admission == NodeAdmission::Open {
                // It was remembered only as not open.
                self.nodes.remove(name);
            }
            return if admission == NodeAdmission::Draining {
                Ok(moving(0))
            } else {
                Self::done()
            };
        };
        let seat = self
            .derived
            .seats
            .get(&session)
            .cloned()
            .unwrap_or_default();
        // Those it was to succeed in choose another.
        cx.dirty.extend(seat.aside.iter().copied());
        if admission == NodeAdmission::Draining {
            let moves = seat
                .held
                .iter()
                .filter(|id| self.drain_one(cx, **id, name))
                .count();
            return Ok(moving(moves as u32));
        }
        if before == NodeAdmission::Draining {
            let drains = |group: &Group| {
                group
                    .pending
                    .as_ref()
                    .is_some_and(|p| p.kind == PendingKind::NodeDrain)
            };
            for id in &seat.held {
                if drains(self.by_id(*id))
                    && matches!(self.by_id(*id).phase, Phase::Active | Phase::Draining)
                {
                    self.call_off(cx, *id);
                } else if drains(self.by_id(*id)) {
                    self.edit(*id, |group| group.pending = None);
                }
            }
        }
        if admission == NodeAdmission::Open && before != admission {
            cx.dirty.extend(
                seat.contending
                    .iter()
                    .copied()
                    .filter(|id| self.derived.wanting.contains(id)),
            );
            self.balance.trigger();
        }
        Self::done()
    }

    /// Wants a group handed over from a draining node; false where that is under way already.
    fn drain_one(&mut self, cx: &mut Context<'_>, id: GroupId, name: &NodeName) -> bool {
        let now = self.cluster_time;
        let group = self.by_id(id);
        let is_leaving = group
            .pending
            .as_ref()
            .is_some_and(|p| p.kind != PendingKind::Spread);
        if group.phase == Phase::Revoking || is_leaving {
            return false;
        }
        self.edit(id, |group| {
            let from = Some(name.clone());
            group.pending = Some(Pending {
                kind: PendingKind::NodeDrain,
                to: None,
                from,
                since: now,
                not_before: now,
            });
        });
        cx.changed = true;
        cx.dirty.insert(id);
        true
    }

    pub(crate) fn rebalance_command(
        &mut self,
        cx: &mut Context<'_>,
        prefix: &str,
        moves_max: u32,
    ) -> Outcome {
        let moves = self.rebalance(cx, prefix, moves_max.min(BATCH_MAX as u32));
        Ok(moving(moves))
    }
}

fn moving(moves: u32) -> Reply {
    Reply::Moving {
        revision: Revision::ZERO,
        moves,
    }
}
