//! The lifecycle of a tenure: the one function that changes a phase, the grant, the end, and settling a group.
//!
//! Every change of phase goes through [`State::transition`], which asserts that the contract's table lists it (protocol,
//! section 4). Groups that may need an election are settled once, after the command has ended all that it ends, so
//! that no group is granted twice at one revision.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use quorate_types::{ClusterTime, FencingToken, GroupName, NodeName, SessionId};

use crate::command::TenureKey;
use crate::contract;
use crate::depose::reports_to_keep;
use crate::elect::Bid;
use crate::event::{Cause, Directive, DirectiveKind, Event, Phase, Predecessor};
use crate::group::{
    COOLDOWNS_MAX, Cooldown, Criterion, Group, HISTORY_MAX, PastTenure, PendingKind, Tenure,
};
use crate::spec::Position;
use crate::state::{GroupId, State};

/// What one apply gathers.
pub(crate) struct Context<'a> {
    /// What it tells the world.
    pub(crate) events: &'a mut Vec<Event>,
    /// Whether client-visible state changed since the last revision.
    pub(crate) changed: bool,
    /// Groups to settle.
    pub(crate) dirty: BTreeSet<GroupId>,
    /// Groups whose keys are to be written.
    pub(crate) moved: Vec<GroupId>,
    /// Groups whose keys are to be deleted.
    pub(crate) gone: Vec<GroupName>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(events: &'a mut Vec<Event>) -> Self {
        Self {
            events,
            changed: false,
            dirty: BTreeSet::new(),
            moved: Vec::new(),
            gone: Vec::new(),
        }
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.changed = true;
        self.events.push(event);
    }
}

impl State {
    /// Changes a group's phase. `change` adapts what goes with it.
    ///
    /// # Panics
    /// When the contract does not list the transition: our own bug.
    pub(crate) fn transition(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        to: Phase,
        cause: Cause,
        change: impl FnOnce(&mut Group),
    ) {
        let (from, view_before) = {
            let group = self.by_id(id);
            (
                group.phase,
                if to == Phase::Vacant {
                    group.tenure_view()
                } else {
                    None
                },
            )
        };
        assert!(
            contract::is_listed(from, to, cause),
            "{from:?} -> {to:?} by {cause:?} is not in the contract"
        );
        self.edit(id, |group| {
            group.phase = to;
            group.wake = None;
            group.preempting = false;
            change(group);
        });
        cx.moved.push(id);
        let group = self.by_id(id);
        let tenure = view_before
            .or_else(|| group.tenure_view())
            .expect("a transition is about a tenure");
        cx.emit(Event::Transition {
            group: group.key.clone(),
            from,
            to,
            cause,
            tenure,
        });
    }

    /// Tells a session about a tenure, if the session still lives.
    pub(crate) fn direct(
        &mut self,
        cx: &mut Context<'_>,
        session: SessionId,
        tenure: &TenureKey,
        kind: DirectiveKind,
    ) {
        let Some(found) = self.sessions.get_mut(&session) else {
            return;
        };
        let found = Arc::make_mut(found);
        found.directive_seq = found.directive_seq.next();
        let directive = Directive {
            seq: found.directive_seq,
            tenure: tenure.clone(),
            kind,
        };
        cx.emit(Event::Directive {
            session: found.key,
            directive,
        });
    }

    /// The tenure of a group that has one.
    pub(crate) fn tenure_of(&self, id: GroupId) -> (&Tenure, TenureKey) {
        let group = self.by_id(id);
        let tenure = group
            .tenure
            .as_ref()
            .expect("the caller knows that the group has a tenure");
        (
            tenure,
            TenureKey {
                group: group.key.clone(),
                number: tenure.number,
            },
        )
    }

    /// Numbers a new tenure of a vacant group: where the policy polls, nobody holds it yet.
    pub(crate) fn grant(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        to: Phase,
        winner: Option<(&Bid, Criterion)>,
        asked: OrdMap<SessionId, Option<Position>>,
    ) {
        let token = FencingToken(self.revision_next().0);
        let now = self.cluster_time;
        let group = self.by_id(id);
        assert!(
            token > group.token_last,
            "token {token} of {:?} does not rise above {}",
            group.key,
            group.token_last
        );
        let configuration = winner
            .and_then(|(bid, _)| group.contenders.get(&bid.session))
            .map(|contender| Arc::clone(&contender.configuration))
            .unwrap_or_default();
        let tenure = Tenure {
            number: group.number_last.next(),
            token,
            holder: winner.map(|(bid, _)| bid.session),
            node: winner.map(|(bid, _)| bid.node.clone()),
            configuration,
            won_by: winner.map(|(_, criterion)| criterion),
            granted_at: now,
            activated_at: None,
            deadline: (to != Phase::Active).then(|| now.plus_ms(group.spec.prepare_deadline_ms)),
            asked,
            successor: None,
            revoked_for: None,
            reports: OrdMap::new(),
        };
        self.transition(cx, id, to, Cause::Elected, |group| {
            group.number_last = tenure.number;
            group.token_last = tenure.token;
            group.tenure = Some(tenure);
            if to == Phase::Active {
                activate(group, now);
            }
        });
        if to == Phase::Active {
            self.direct_activate(cx, id);
        } else if to == Phase::Preparing {
            self.direct_prepare(cx, id);
        }
    }

    /// The elected contender leads from here on.
    pub(crate) fn enter_active(&mut self, cx: &mut Context<'_>, id: GroupId, cause: Cause) {
        let now = self.cluster_time;
        self.transition(cx, id, Phase::Active, cause, |group| activate(group, now));
        self.direct_activate(cx, id);
    }

    pub(crate) fn direct_activate(&mut self, cx: &mut Context<'_>, id: GroupId) {
        let predecessor = self.by_id(id).predecessor;
        let (tenure, key) = self.tenure_of(id);
        let (holder, token) = (
            tenure.holder.expect("an active tenure has a holder"),
            tenure.token,
        );
        self.direct(
            cx,
            holder,
            &key,
            DirectiveKind::Activate { token, predecessor },
        );
        // A pending drain of the new holder's node, or a contender of higher priority, is looked at in settling.
        let group = self.by_id(id);
        let priority = group.contenders.get(&holder).map(|c| c.priority);
        if group.pending.is_some()
            || group
                .contenders
                .values()
                .any(|c| Some(c.priority) > priority)
        {
            cx.dirty.insert(id);
        }
    }

    pub(crate) fn direct_prepare(&mut self, cx: &mut Context<'_>, id: GroupId) {
        let now = self.cluster_time;
        let predecessor = self.by_id(id).predecessor;
        let (tenure, key) = self.tenure_of(id);
        let holder = tenure.holder.expect("a preparing tenure has a holder");
        let deadline_ms = tenure
            .deadline
            .expect("a preparing tenure has a deadline")
            .ms_since(now);
        let kind = DirectiveKind::Prepare {
            token: tenure.token,
            deadline_ms,
            predecessor,
        };
        self.direct(cx, holder, &key, kind);
    }

    /// Ends the current tenure. The caller has made sure that the contract allows it here.
    pub(crate) fn end_tenure(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        cause: Cause,
        position: Option<Position>,
    ) {
        let now = self.cluster_time;
        let (tenure, key) = self.tenure_of(id);
        let tenure = tenure.clone();
        let withdraws = self.by_id(id).holder_withdraws();
        self.transition(cx, id, Phase::Vacant, cause, |group| {
            group.tenure = None;
            group.heir = tenure
                .successor
                .clone()
                .filter(|_| cause == Cause::Released);
            record(group, &tenure, now, cause, position);
            if tenure.activated_at.is_some() {
                if cause == Cause::Released && position.is_some() {
                    group.required = position;
                }
                let known = if cause == Cause::Released {
                    position
                } else {
                    group.required
                };
                group.predecessor = Some(Predecessor {
                    number: tenure.number,
                    outcome: cause,
                    position: known,
                });
                group.holder_last.clone_from(&tenure.node);
                // A voluntary wish was about this tenure. Kept, it would end the next one of the same node while it prepares.
                if group
                    .pending
                    .as_ref()
                    .is_some_and(|p| p.kind == PendingKind::Spread)
                {
                    group.pending = None;
                }
            }
            if let Some(node) = &tenure.node {
                judge(group, node, &tenure, now, cause);
            }
        });
        let asked = tenure.asked.keys().copied();
        let parts = tenure
            .holder
            .into_iter()
            .chain(tenure.successor.iter().map(|s| s.session))
            .chain(asked);
        for session in parts {
            self.direct(cx, session, &key, DirectiveKind::Ended { cause });
        }
        if let Some(holder) = tenure.holder.filter(|_| withdraws) {
            self.drop_contender(id, holder);
            self.edit(id, fulfil_withdrawal);
        }
        if self.by_id(id).deleting {
            self.remove_group(cx, id);
        } else {
            cx.dirty.insert(id);
        }
    }

    /// Orders the holder to stop; the tenure ends when it did, or when it was waited out (protocol, section 3).
    pub(crate) fn revoke_tenure(&mut self, cx: &mut Context<'_>, id: GroupId, cause: Cause) {
        let (tenure, key) = self.tenure_of(id);
        let holder = tenure.holder.expect("a believed tenure has a holder");
        let successor = tenure.successor.as_ref().map(|s| s.session);
        self.transition(cx, id, Phase::Revoking, cause, |group| {
            let tenure = group.tenure.as_mut().expect("the group has a tenure");
            tenure.deadline = None;
            tenure.successor = None;
            tenure.revoked_for = Some(cause);
            if cause != Cause::Deposed {
                tenure.reports = OrdMap::new();
            }
        });
        self.direct(cx, holder, &key, DirectiveKind::Revoke);
        if let Some(successor) = successor {
            self.direct(cx, successor, &key, DirectiveKind::StandBy);
        }
    }

    /// Brings a group to rest: elects, polls, hands over or waits, as its state allows. Grants at most once per revision.
    pub(crate) fn settle(&mut self, cx: &mut Context<'_>, id: GroupId) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        match group.phase {
            Phase::Vacant => self.settle_vacant(cx, id),
            Phase::Polling => self.settle_poll(cx, id, false),
            Phase::Preparing => self.settle_preparing(cx, id),
            Phase::Active => self.settle_active(cx, id),
            Phase::Draining => self.settle_draining(cx, id),
            Phase::Revoking => {}
        }
    }

    fn settle_vacant(&mut self, cx: &mut Context<'_>, id: GroupId) {
        let heir = if self.by_id(id).heir.is_some() {
            self.edit(id, |group| group.heir.take())
        } else {
            None
        };
        let group = self.by_id(id);
        if self.cluster_time < self.granting_from {
            // A holder of the history that a restore lost may still lead (protocol, section 7).
            let wake = (!group.contenders.is_empty()).then_some(self.granting_from);
            self.set_wake(id, wake);
            return;
        }
        if group.token_last.0 >= self.revision_next().0 {
            // Granted and ended within one revision: the next grant needs a higher token, so it waits for the next entry.
            let now = self.cluster_time;
            self.set_wake(id, Some(now));
            return;
        }
        if let Some(heir) = heir
            && self.grant_heir(cx, id, &heir)
        {
            return;
        }
        let group = self.by_id(id);
        let elected = self.choose(group, group.spec.readiness, None);
        match elected {
            None => {
                let wake = self.cooldown_end(group);
                self.set_wake(id, wake);
            }
            Some(_) if group.is_freshest() => self.start_poll(cx, id),
            Some((bid, criterion)) => {
                let to = if group.spec.readiness {
                    Phase::Preparing
                } else {
                    Phase::Active
                };
                self.grant(cx, id, to, Some((&bid, criterion)), OrdMap::new());
            }
        }
    }

    /// A preparing contender is not believed: an order to move on takes effect where there is somebody to move on to.
    fn settle_preparing(&mut self, cx: &mut Context<'_>, id: GroupId) {
        let group = self.by_id(id);
        let is_left = group.pending.as_ref().is_some_and(|p| {
            p.from.is_some() && p.from == group.tenure.as_ref().and_then(|t| t.node.clone())
        });
        // What was granted in this very apply stays: no group is granted twice at one revision.
        if is_left
            && group.token_last.0 < self.revision_next().0
            && self
                .choose(group, group.is_prepared_for(), group.holder())
                .is_some_and(|(bid, _)| !bid.last)
        {
            self.end_tenure(cx, id, Cause::Ordered, None);
        }
    }

    pub(crate) fn set_wake(&mut self, id: GroupId, wake: Option<ClusterTime>) {
        if self.by_id(id).wake != wake {
            self.edit(id, |group| group.wake = wake);
        }
    }

    /// Removes a contender that takes no part in the tenure any more.
    pub(crate) fn drop_contender(&mut self, id: GroupId, session: SessionId) {
        self.edit(id, |group| group.remove_contender(session));
        self.note_contending(session, id, false);
    }

    /// Removes a group without a tenure.
    pub(crate) fn remove_group(&mut self, cx: &mut Context<'_>, id: GroupId) {
        let group = self.by_id(id);
        let key = group.key.clone();
        let contenders: Vec<_> = group.contenders.keys().copied().collect();
        for session in contenders {
            self.drop_contender(id, session);
        }
        self.unfile_group(id);
        cx.dirty.remove(&id);
        cx.gone.push(key.name.clone());
        cx.emit(Event::GroupDeleted { group: key });
    }
}

/// Who withdrew has left: should it stand again, nothing is held against it. Whom an order named next is still named.
fn fulfil_withdrawal(group: &mut Group) {
    if let Some(pending) = &mut group.pending
        && pending.kind == PendingKind::Withdrawal
    {
        if pending.to.is_some() {
            pending.kind = PendingKind::Transfer;
            pending.from = None;
        } else {
            group.pending = None;
        }
    }
}

pub(crate) fn activate(group: &mut Group, now: ClusterTime) {
    let calm = now.plus_ms(group.spec.minimum_tenure_ms);
    group.calm_until = group.calm_until.max(calm);
    group.holder_last = None;
    let tenure = group
        .tenure
        .as_mut()
        .expect("an activated group has a tenure");
    tenure.activated_at = Some(now);
    tenure.deadline = None;
    tenure.asked = OrdMap::new();
    // An order to leave this very node lives on; any other wish is fulfilled. A voluntary one was about the tenure that
    // ended: kept, it would move the new one before its minimum tenure (guarantee 9).
    let node = tenure.node.clone();
    if group
        .pending
        .as_ref()
        .is_some_and(|p| p.from != node || p.from.is_none() || p.kind == PendingKind::Spread)
    {
        group.pending = None;
    }
}

fn record(
    group: &mut Group,
    tenure: &Tenure,
    now: ClusterTime,
    cause: Cause,
    position: Option<Position>,
) {
    let history = Arc::make_mut(&mut group.history);
    if history.len() == HISTORY_MAX {
        history.remove(0);
    }
    history.push(PastTenure {
        number: tenure.number,
        token: tenure.token,
        holder: tenure.holder,
        node: tenure.node.clone(),
        granted_at: tenure.granted_at,
        activated_at: tenure.activated_at,
        ended_at: now,
        cause,
        revoked_for: tenure.revoked_for,
        position,
        reports: reports_to_keep(tenure),
    });
}

/// Counts a tenure's end for or against its node: a failure starts a cool-down that doubles with each in a row.
fn judge(group: &mut Group, node: &NodeName, tenure: &Tenure, now: ClusterTime, cause: Cause) {
    let is_prepared = tenure.activated_at.is_some();
    let is_deposed = tenure.revoked_for == Some(Cause::Deposed);
    // A deposed tenure did not last well, however long: or a faulty node of high priority would be back again and again.
    let lasted = !is_deposed
        && tenure
            .activated_at
            .is_some_and(|at| now.ms_since(at) >= group.spec.minimum_tenure_ms);
    if lasted && group.cooldown(node).is_some() {
        Arc::make_mut(&mut group.cooldowns).retain(|c| c.node != *node);
    }
    let failed = match cause {
        Cause::Expired
        | Cause::WaitedOut
        | Cause::Failed
        | Cause::Overdue
        | Cause::SessionRevoked => true,
        // An elected contender that lets go before it was ready could not prepare.
        Cause::Released => !is_prepared,
        _ => false,
    };
    // Whom its peers called faulty waits even where nobody else is eligible, however its tenure ended then. Only where it may
    // hold acknowledged data that nobody else has, and those count first, it is asked with the others.
    let is_complete = group
        .predecessor
        .is_some_and(|p| p.outcome == Cause::Released && p.position.is_some());
    let strict = !is_prepared || is_deposed && (is_complete || !group.is_freshest());
    if failed || is_deposed {
        strike(group, node, now, strict);
    }
}

/// Notes a node's failure in a group.
pub(crate) fn strike(group: &mut Group, node: &NodeName, now: ClusterTime, strict: bool) {
    let (base, bound) = (group.spec.cooldown_ms, group.spec.cooldown_max_ms);
    let cooldowns = Arc::make_mut(&mut group.cooldowns);
    let at = cooldowns
        .iter()
        .position(|c| c.node == *node)
        .unwrap_or_else(|| {
            if cooldowns.len() == COOLDOWNS_MAX {
                let oldest = (0..cooldowns.len())
                    .min_by_key(|at| cooldowns[*at].until)
                    .expect("the list is full");
                cooldowns.remove(oldest);
            }
            cooldowns.push(Cooldown {
                node: node.clone(),
                failures: 0,
                until: now,
                strict,
            });
            cooldowns.len() - 1
        });
    let cooldown = &mut cooldowns[at];
    let doubled = base.saturating_mul(1_u64 << cooldown.failures.min(40));
    cooldown.failures = cooldown.failures.saturating_add(1);
    cooldown.until = now.plus_ms(doubled.min(bound));
    cooldown.strict = strict;
}
