//! The freshest policy's poll: contenders fence out the old token and report under the new tenure number (protocol, section 4).

use imbl::OrdMap;
use quorate_types::SessionId;

use crate::elect::{Bid, best};
use crate::event::{Cause, DirectiveKind, Phase};
use crate::group::{Criterion, Group};
use crate::lifecycle::{Context, activate};
use crate::spec::{ElectionPolicy, Position};
use crate::state::{GroupId, State};

impl State {
    /// Numbers a tenure and asks all live contenders for their positions.
    pub(crate) fn start_poll(&mut self, cx: &mut Context<'_>, id: GroupId) {
        let group = self.by_id(id);
        let can_answer = |session: SessionId| self.session(session).is_some_and(|s| !s.revoked);
        let asked: OrdMap<SessionId, Option<Position>> = group
            .contenders
            .iter()
            .filter(|(session, contender)| !contender.withdrawing && can_answer(**session))
            .map(|(session, _)| (*session, None))
            .collect();
        assert!(
            !asked.is_empty(),
            "{:?} is polled without contenders",
            group.key
        );
        self.grant(cx, id, Phase::Polling, None, asked.clone());
        for session in asked.keys() {
            self.direct_poll(cx, id, *session);
        }
    }

    fn direct_poll(&mut self, cx: &mut Context<'_>, id: GroupId, session: SessionId) {
        let now = self.cluster_time;
        let (tenure, key) = self.tenure_of(id);
        let deadline_ms = tenure
            .deadline
            .expect("a poll has a deadline")
            .ms_since(now);
        let kind = DirectiveKind::Poll {
            token: tenure.token,
            deadline_ms,
        };
        self.direct(cx, session, &key, kind);
    }

    /// Asks a contender that joined during the poll.
    pub(crate) fn join_poll(&mut self, cx: &mut Context<'_>, id: GroupId, session: SessionId) {
        let is_new = self.edit(id, |group| {
            let tenure = group.tenure.as_mut().expect("a polled group has a tenure");
            let is_new = !tenure.asked.contains_key(&session);
            if is_new {
                tenure.asked.insert(session, None);
            }
            is_new
        });
        if is_new {
            self.direct_poll(cx, id, session);
        }
    }

    /// Lets a contender out of the poll. The last one to go ends it.
    pub(crate) fn leave_poll(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        session: SessionId,
        cause: Cause,
    ) {
        let (tenure, key) = self.tenure_of(id);
        if !tenure.asked.contains_key(&session) {
            return;
        }
        if tenure.asked.len() == 1 {
            return self.end_tenure(cx, id, Cause::Failed, None);
        }
        self.edit(id, |group| {
            group
                .tenure
                .as_mut()
                .expect("a polled group has a tenure")
                .asked
                .remove(&session)
        });
        self.direct(cx, session, &key, DirectiveKind::Ended { cause });
        cx.dirty.insert(id);
    }

    /// Elects if enough have answered; at the deadline, starts another round if not.
    pub(crate) fn settle_poll(&mut self, cx: &mut Context<'_>, id: GroupId, at_deadline: bool) {
        let group = self.by_id(id);
        let (tenure, key) = self.tenure_of(id);
        let answers = tenure.asked.values().flatten().count();
        let enough = match group.spec.policy {
            ElectionPolicy::Freshest {
                answers_min: Some(answers_min),
            } => answers >= answers_min as usize,
            // The spec may have been changed to another policy meanwhile: all is the safe reading.
            ElectionPolicy::Freshest { answers_min: None } | ElectionPolicy::Priority => {
                answers == tenure.asked.len()
            }
        };
        // Whoever answers nothing holds nothing that was acknowledged, if that was released at a known position: such a one is not
        // waited for beyond the deadline (ADR silent-contenders). A number of answers that the policy names is always waited for.
        let is_skipping = at_deadline
            && group.has_complete_release()
            && matches!(
                group.spec.policy,
                ElectionPolicy::Freshest { answers_min: None } | ElectionPolicy::Priority
            );
        let elected = if enough || is_skipping {
            self.freshest(group)
        } else {
            None
        };
        let Some((bid, criterion)) = elected else {
            if at_deadline {
                self.end_tenure(cx, id, Cause::Overdue, None);
            }
            return;
        };
        let others: Vec<_> = tenure
            .asked
            .keys()
            .copied()
            .filter(|session| *session != bid.session)
            .collect();
        let deadline = self.cluster_time.plus_ms(group.spec.prepare_deadline_ms);
        let prepares = group.spec.readiness;
        let configuration = group
            .contenders
            .get(&bid.session)
            .expect("a bidder stands")
            .configuration
            .clone();
        self.edit(id, |group| {
            let tenure = group.tenure.as_mut().expect("a polled group has a tenure");
            tenure.configuration = configuration;
            tenure.won_by = Some(criterion);
        });
        let elect = |group: &mut Group| {
            let tenure = group.tenure.as_mut().expect("a polled group has a tenure");
            tenure.holder = Some(bid.session);
            tenure.node = Some(bid.node.clone());
            tenure.asked = OrdMap::new();
            tenure.deadline = Some(deadline);
        };
        if prepares {
            self.transition(cx, id, Phase::Preparing, Cause::Polled, elect);
            self.direct_prepare(cx, id);
        } else {
            let now = self.cluster_time;
            self.transition(cx, id, Phase::Active, Cause::Polled, |group| {
                elect(group);
                activate(group, now);
            });
            self.direct_activate(cx, id);
        }
        for session in others {
            self.direct(
                cx,
                session,
                &key,
                DirectiveKind::Ended {
                    cause: Cause::Polled,
                },
            );
        }
    }

    /// The freshest contender that is not behind the released position.
    fn freshest(&self, group: &Group) -> Option<(Bid, Criterion)> {
        let asked = &group.tenure.as_ref()?.asked;
        let position = |bid: &Bid| asked.get(&bid.session).copied().flatten();
        let reaches = |bid: &Bid| {
            position(bid).is_some_and(|at| group.required.is_none_or(|required| at >= required))
        };
        let mut bids = self.bids(group, group.spec.readiness, None);
        bids.retain(reaches);
        // The old holder stays a last resort only after a release at a known position: what others reach there is all there is.
        // After any other end it may hold acknowledged data that nobody else has.
        let is_complete = group.has_complete_release();
        let pool: Vec<_> = if is_complete && bids.iter().any(|bid| !bid.last) {
            bids.into_iter().filter(|bid| !bid.last).collect()
        } else {
            bids.iter_mut().for_each(|bid| bid.last = false);
            bids
        };
        // An order to transfer chooses among all that reach the released position, if that position is all there is.
        let named = pool
            .iter()
            .find(|bid| is_complete && bid.is_ordered())
            .cloned();
        if let Some(named) = named {
            return Some((named, Criterion::Ordered));
        }
        // Positions filter before limits and cool-downs (protocol, section 4): a contender that is only full, and holds what
        // nobody else does, leads all the same. After a release at a known position nobody holds more than all that reach it.
        let beyond: Vec<_> = if is_complete {
            Vec::new()
        } else {
            let answered = asked.keys().filter_map(|session| {
                let contender = group.contenders.get(session)?;
                self.bid_beyond_limits(group, *session, contender)
            });
            answered.filter(reaches).collect()
        };
        let highest = pool.iter().chain(&beyond).filter_map(&position).max()?;
        let count = pool.len().max(beyond.len());
        let is_fresh = |bid: &Bid| position(bid) == Some(highest);
        let source = if pool.iter().any(is_fresh) {
            pool
        } else {
            beyond
        };
        let fresh: Vec<_> = source.into_iter().filter(is_fresh).collect();
        let is_alone = fresh.len() == 1 && count > 1;
        best(fresh).map(|(bid, criterion)| {
            (
                bid,
                if is_alone {
                    Criterion::Position
                } else {
                    criterion
                },
            )
        })
    }
}
