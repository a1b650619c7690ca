//! Handovers: choosing the successor up front, draining, calling off, and granting in the apply of the release.

use imbl::OrdMap;
use quorate_types::SessionId;

use crate::elect::Bid;
use crate::event::{Cause, DirectiveKind, Phase};
use crate::group::{Criterion, Group, Pending, PendingKind, Successor};
use crate::lifecycle::Context;
use crate::state::{GroupId, State};

/// Whether a wish to change hands outlives a handover that was called off.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Retry {
    /// It does not.
    Never,
    /// A node's drain and a withdrawal do, and are tried again after a pause.
    Later,
    /// An ordered transfer does too, and all are tried again as soon as somebody can follow.
    WhenPossible,
}

/// Shortest pause before a handover that failed is tried again, in milliseconds.
const RETRY_MS_MIN: u64 = 1_000;

impl State {
    /// An active group: starts the handover that is pending, or notes who outranks the holder.
    pub(crate) fn settle_active(&mut self, cx: &mut Context<'_>, id: GroupId) {
        let now = self.cluster_time;
        let group = self.by_id(id);
        let Some(pending) = &group.pending else {
            return self.settle_outranked(id);
        };
        if pending.not_before > now {
            let wake = Some(pending.not_before);
            return self.set_wake(id, wake);
        }
        let kind = pending.kind;
        match self.choose(group, group.is_prepared_for(), group.holder()) {
            Some((bid, _)) => self.start_drain(cx, id, Some(&bid), kind),
            // Who withdrew stops serving, successor or not; others go on until there is one.
            None if group.holder_withdraws() => self.start_drain(cx, id, None, kind),
            None => {
                let wake = self.cooldown_end(group);
                self.set_wake(id, wake);
            }
        }
    }

    /// The best contender whose priority is above the holder's.
    pub(crate) fn outranking(&self, group: &Group) -> Option<Bid> {
        let holder = group.holder()?;
        let priority = group.contenders.get(&holder).map(|c| c.priority)?;
        if !group.contenders.values().any(|c| c.priority > priority) {
            return None;
        }
        let mut bids = self.bids(group, group.is_prepared_for(), Some(holder));
        bids.retain(|bid| bid.priority > priority);
        crate::elect::best(bids).map(|(bid, _)| bid)
    }

    fn settle_outranked(&mut self, id: GroupId) {
        let group = self.by_id(id);
        let Some(priority) = group
            .holder()
            .and_then(|h| group.contenders.get(&h))
            .map(|c| c.priority)
        else {
            return;
        };
        if !group.contenders.values().any(|c| c.priority > priority) {
            return self.set_wake(id, None);
        }
        let now = self.cluster_time;
        if self.outranking(group).is_none() {
            let wake = self.cooldown_end(group);
            self.set_wake(id, wake);
        } else if group.calm_until > now {
            let wake = Some(group.calm_until);
            self.set_wake(id, wake);
        } else if !group.preempting {
            self.edit(id, |group| {
                group.wake = None;
                group.preempting = true;
            });
        }
    }

    /// Asks the holder to hand over.
    pub(crate) fn start_drain(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        successor: Option<&Bid>,
        kind: PendingKind,
    ) {
        let now = self.cluster_time;
        let (tenure, key) = self.tenure_of(id);
        let holder = tenure.holder.expect("an active tenure has a holder");
        let from = tenure.node.clone();
        let chosen = successor.map(|bid| Successor {
            session: bid.session,
            node: bid.node.clone(),
            ready: None,
        });
        let deadline_ms = self.by_id(id).spec.handover_deadline_ms;
        self.transition(cx, id, Phase::Draining, kind.cause(), |group| {
            group.pending.get_or_insert(Pending {
                kind,
                to: None,
                from,
                since: now,
                not_before: now,
            });
            let tenure = group.tenure.as_mut().expect("an active group has a tenure");
            tenure.deadline = Some(now.plus_ms(deadline_ms));
            tenure.successor = chosen;
        });
        let kind = DirectiveKind::Drain {
            deadline_ms,
            successor: successor.map(|bid| bid.node.clone()),
        };
        self.direct(cx, holder, &key, kind);
        if let Some(bid) = successor {
            self.direct(cx, bid.session, &key, DirectiveKind::CatchUp);
        }
    }

    /// A draining group: another successor where the chosen one no longer can.
    pub(crate) fn settle_draining(&mut self, cx: &mut Context<'_>, id: GroupId) {
        let group = self.by_id(id);
        let (tenure, key) = self.tenure_of(id);
        let before = tenure.successor.as_ref().map(|s| s.session);
        let can = |session: SessionId| {
            group
                .contenders
                .get(&session)
                .is_some_and(|contender| self.admit(group, session, contender).is_ok())
        };
        if before.is_some_and(can) {
            return;
        }
        let next = self.choose(group, group.is_prepared_for(), group.holder());
        match next {
            Some((bid, _)) => {
                self.replace_successor(
                    cx,
                    id,
                    Some(Successor {
                        session: bid.session,
                        node: bid.node,
                        ready: None,
                    }),
                );
                self.direct(cx, bid.session, &key, DirectiveKind::CatchUp);
            }
            None if group.holder_withdraws() => self.replace_successor(cx, id, None),
            None => self.stop_drain(cx, id, Cause::Aborted, Retry::WhenPossible),
        }
    }

    /// Puts another in the successor's place and tells the old one.
    pub(crate) fn replace_successor(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        next: Option<Successor>,
    ) {
        let (_, key) = self.tenure_of(id);
        let before = self.edit(id, |group| {
            let tenure = group
                .tenure
                .as_mut()
                .expect("a draining group has a tenure");
            std::mem::replace(&mut tenure.successor, next)
        });
        if let Some(before) = before {
            self.direct(cx, before.session, &key, DirectiveKind::StandBy);
        }
    }

    /// Calls a handover off: the holder goes on under the same tenure.
    pub(crate) fn stop_drain(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        cause: Cause,
        retry: Retry,
    ) {
        let now = self.cluster_time;
        let (tenure, key) = self.tenure_of(id);
        let holder = tenure.holder.expect("a draining tenure has a holder");
        let successor = tenure.successor.as_ref().map(|s| s.session);
        let was_spread = self
            .by_id(id)
            .pending
            .as_ref()
            .is_some_and(|p| p.kind == PendingKind::Spread);
        self.transition(cx, id, Phase::Active, cause, |group| {
            let pause = group.spec.handover_deadline_ms.max(RETRY_MS_MIN);
            // Nothing voluntary right after a failed attempt, or it would oscillate.
            let calm = now.plus_ms(group.spec.minimum_tenure_ms.max(pause));
            group.calm_until = group.calm_until.max(calm);
            let tenure = group
                .tenure
                .as_mut()
                .expect("a draining group has a tenure");
            tenure.deadline = None;
            tenure.successor = None;
            let is_kept = |kind| match kind {
                PendingKind::NodeDrain | PendingKind::Withdrawal => retry != Retry::Never,
                PendingKind::Transfer => retry == Retry::WhenPossible,
                PendingKind::Spread => false,
            };
            let pause = if retry == Retry::WhenPossible {
                0
            } else {
                pause
            };
            match &mut group.pending {
                Some(pending) if is_kept(pending.kind) => pending.not_before = now.plus_ms(pause),
                pending => *pending = None,
            }
        });
        self.direct(cx, holder, &key, DirectiveKind::Continue);
        if let Some(successor) = successor {
            self.direct(cx, successor, &key, DirectiveKind::StandBy);
        }
        if was_spread {
            self.balance.trigger();
        }
        cx.dirty.insert(id);
    }

    /// Grants to the successor of the handover that just ended with a release; false where it no longer can or must be polled.
    pub(crate) fn grant_heir(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        heir: &Successor,
    ) -> bool {
        let group = self.by_id(id);
        let Some(contender) = group.contenders.get(&heir.session) else {
            return false;
        };
        let is_ready = heir
            .ready
            .is_some_and(|at| group.required.is_none_or(|required| at >= required));
        if group.is_freshest() && group.required.is_none() && !is_ready {
            return false; // How far it must have got is not known: the poll finds out.
        }
        let prepares = !is_ready && group.is_prepared_for();
        let Ok(bid) = self.bid(group, heir.session, contender, prepares) else {
            return false;
        };
        let to = if prepares {
            Phase::Preparing
        } else {
            Phase::Active
        };
        self.grant(
            cx,
            id,
            to,
            Some((&bid, Criterion::Succession)),
            OrdMap::new(),
        );
        true
    }
}
