//! Spreading: moving leaderships to nodes that joined with a lighter load, and to contenders of higher priority.
//!
//! Voluntary, so within minimum tenures, with hysteresis, and at most [`SPREAD_DRAINS_MAX`] at a time. Work per apply is
//! bounded: a round over all holders goes on over as many entries as it takes.

use std::ops::Bound;

use quorate_types::{ClusterTime, SessionId};
use serde::{Deserialize, Serialize};

use crate::command::NodeAdmission;
use crate::elect::Bid;
use crate::event::Phase;
use crate::group::{Group, PendingKind};
use crate::lifecycle::Context;
use crate::state::{GroupId, Node, State};

/// Most voluntary handovers under way at a time.
pub const SPREAD_DRAINS_MAX: usize = 64;
/// Most groups looked at for spreading in one apply.
const EXAMINED_MAX: usize = 2_048;
/// Most groups looked at again in one apply because a limited node has room.
const SWEPT_MAX: usize = 512;
/// Shortest pause between two rounds that wait for minimum tenures, in milliseconds.
const ROUND_PAUSE_MS: u64 = 250;

/// The round over all holders that looks for groups to move.
///
/// # Invariants
/// - `cursor`, `young` and `again` mean something only while `active`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Balance {
    /// Whether a round is under way.
    active: bool,
    /// Whether another round is wanted after it.
    again: bool,
    /// The last holder and group looked at.
    cursor: Option<(SessionId, GroupId)>,
    /// When the first group that only minimum tenure keeps may move.
    young: Option<ClusterTime>,
    /// When the next round starts.
    due: Option<ClusterTime>,
}

impl Balance {
    /// Wants a round.
    pub(crate) fn trigger(&mut self) {
        if self.active {
            self.again = true;
        } else {
            *self = Self {
                active: true,
                ..Self::default()
            };
        }
    }

    /// `is_moving`: handovers are under way. Groups that move could not be looked at, and their receivers hold them only
    /// afterwards, so the round may have left too much with either: it is followed by another.
    fn finish(&mut self, now: ClusterTime, is_moving: bool) {
        let first = if is_moving { Some(now) } else { self.young };
        let due = first.map(|at| at.max(now.plus_ms(ROUND_PAUSE_MS)));
        *self = Self {
            active: self.again,
            due: due.filter(|_| !self.again),
            ..Self::default()
        };
    }
}

/// The walk over groups that want a leader or a successor, started when a limited node has room again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sweep {
    /// The last group looked at; `None` while no walk is under way.
    cursor: Option<GroupId>,
    /// Whether another walk is wanted after it.
    again: bool,
}

impl Sweep {
    pub(crate) fn start(&mut self) {
        if self.cursor.is_some() {
            self.again = true;
        } else {
            self.cursor = Some(GroupId(0));
        }
    }
}

/// Whether moving a weight makes the donor no lighter than the receiver becomes: so no move is ever undone by another.
fn evens_out(donor: (u64, u32), receiver: (u64, u32), moved: u64) -> bool {
    let left = u128::from(donor.0.saturating_sub(moved)) * u128::from(receiver.1);
    let right = u128::from(receiver.0 + moved) * u128::from(donor.1);
    left >= right
}

/// What a node will carry when the handovers under way are done.
fn expected(node: &Node) -> (u64, u32) {
    (
        node.load.weight + node.load.incoming_weight - node.load.outgoing_weight,
        node.spec.weight,
    )
}

enum Movable {
    To(Box<Bid>),
    /// Only minimum tenure keeps it, until then.
    Young(ClusterTime),
    No,
}

impl State {
    /// When spreading or sweeping wants the next entry.
    pub(crate) fn balance_deadline(&self) -> Option<ClusterTime> {
        let has_slot = self.derived.spreading < SPREAD_DRAINS_MAX;
        let is_waiting = self.balance.active || !self.derived.preempting.is_empty();
        if self.sweep.cursor.is_some() || has_slot && is_waiting {
            return Some(self.cluster_time);
        }
        self.balance.due
    }

    /// Looks again at groups that want a leader or successor, after a limited node got room.
    pub(crate) fn run_sweep(&mut self, cx: &mut Context<'_>) {
        let Some(cursor) = self.sweep.cursor else {
            return;
        };
        let wanting = self.derived.wanting.clone();
        let mut last = cursor;
        let mut swept = 0;
        for id in wanting
            .range((Bound::Excluded(cursor), Bound::Unbounded))
            .take(SWEPT_MAX)
        {
            self.settle(cx, *id);
            last = *id;
            swept += 1;
        }
        self.sweep.cursor = if swept == SWEPT_MAX {
            Some(last)
        } else if self.sweep.again && !wanting.is_empty() {
            self.sweep.again = false;
            Some(GroupId(0))
        } else {
            self.sweep.again = false;
            None
        };
    }

    /// Starts voluntary handovers while there are slots.
    pub(crate) fn run_balance(&mut self, cx: &mut Context<'_>) {
        if self.balance.due.is_some_and(|due| due <= self.cluster_time) {
            self.balance.due = None;
            self.balance.trigger();
        }
        self.run_preempting(cx);
        if !self.balance.active || self.derived.spreading >= SPREAD_DRAINS_MAX {
            return;
        }
        let mut budget = EXAMINED_MAX;
        let total = self.total();
        let sessions = self.sessions.clone();
        let start = self
            .balance
            .cursor
            .map_or(SessionId::ZERO, |(session, _)| session);
        for (session, _) in sessions.range(start..) {
            let Some(seat) = self.derived.seats.get(session) else {
                continue;
            };
            let held = seat.held.clone();
            let after = self
                .balance
                .cursor
                .filter(|(at, _)| at == session)
                .map_or(GroupId(0), |(_, id)| id);
            for id in held.range((Bound::Excluded(after), Bound::Unbounded)) {
                if !self.is_donor(*session, total) {
                    break;
                }
                if budget == 0 || self.derived.spreading >= SPREAD_DRAINS_MAX {
                    return;
                }
                budget -= 1;
                self.balance.cursor = Some((*session, *id));
                let group = self.by_id(*id);
                if !group.spec.spread {
                    continue;
                }
                match self.movable(group) {
                    Movable::To(bid) => self.start_drain(cx, *id, Some(&bid), PendingKind::Spread),
                    Movable::Young(at) => {
                        let young = self.balance.young.map_or(at, |young| young.min(at));
                        self.balance.young = Some(young);
                    }
                    Movable::No => {}
                }
            }
        }
        let is_moving = self.derived.spreading > 0;
        self.balance.finish(self.cluster_time, is_moving);
    }

    fn run_preempting(&mut self, cx: &mut Context<'_>) {
        for _ in 0..EXAMINED_MAX {
            if self.derived.spreading >= SPREAD_DRAINS_MAX {
                return;
            }
            let Some(id) = self.derived.preempting.get_min().copied() else {
                return;
            };
            self.edit(id, |group| group.preempting = false);
            let group = self.by_id(id);
            if group.phase != Phase::Active
                || group.pending.is_some()
                || group.calm_until > self.cluster_time
            {
                continue;
            }
            if let Some(bid) = self.outranking(group) {
                self.start_drain(cx, id, Some(&bid), PendingKind::Spread);
            }
        }
    }

    /// The weight carried by, and of, all nodes that may be elected.
    fn total(&self) -> (u64, u64) {
        self.nodes()
            .filter(|node| node.admission == NodeAdmission::Open && node.session.is_some())
            .fold((0, 0), |(load, weight), node| {
                (
                    load + expected(node).0,
                    weight + u64::from(node.spec.weight),
                )
            })
    }

    /// Whether a session's node carries more than its share.
    fn is_donor(&self, session: SessionId, (load, weight): (u64, u64)) -> bool {
        let node = self
            .session(session)
            .and_then(|s| s.node.as_ref())
            .and_then(|name| self.node(name));
        node.is_some_and(|node| {
            let (own, own_weight) = expected(node);
            node.admission == NodeAdmission::Open
                && u128::from(own) * u128::from(weight) > u128::from(load) * u128::from(own_weight)
        })
    }

    /// To whom a group should move for balance, if to anybody.
    fn movable(&self, group: &Group) -> Movable {
        if group.phase != Phase::Active || group.pending.is_some() {
            return Movable::No;
        }
        let moved = u64::from(group.spec.weight);
        let Some(holder) = self.holder_bid(group) else {
            return Movable::No;
        };
        let donor = expected(self.node(&holder.node).expect("a holder's node is filed"));
        let mut bids = self.bids(group, group.is_prepared_for(), Some(holder.session));
        bids.retain(|bid| {
            let receiver = expected(self.node(&bid.node).expect("a bidder's node is filed"));
            bid.is_ranked_at_least(&holder) && evens_out(donor, receiver, moved)
        });
        match crate::elect::best(bids) {
            None => Movable::No,
            Some(_) if group.calm_until > self.cluster_time => Movable::Young(group.calm_until),
            Some((bid, _)) => Movable::To(Box::new(bid)),
        }
    }

    /// The same on demand: over the groups of a prefix, whatever their spread policy, up to so many handovers.
    pub(crate) fn rebalance(&mut self, cx: &mut Context<'_>, prefix: &str, moves_max: u32) -> u32 {
        let total = self.total();
        let mut moves = 0;
        let sessions = self.sessions.clone();
        for session in sessions.keys() {
            let Some(seat) = self.derived.seats.get(session) else {
                continue;
            };
            let held = seat.held.clone();
            for id in &held {
                if moves == moves_max {
                    return moves;
                }
                if !self.is_donor(*session, total) {
                    break;
                }
                let group = self.by_id(*id);
                if !group.key.name.as_str().starts_with(prefix) {
                    continue;
                }
                if let Movable::To(bid) = self.movable(group) {
                    self.start_drain(cx, *id, Some(&bid), PendingKind::Spread);
                    moves += 1;
                }
            }
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_would_be_undone_is_not_made() {
        assert!(
            !evens_out((1, 1), (0, 1), 1),
            "one group back and forth for ever"
        );
        assert!(evens_out((2, 1), (0, 1), 1));
        assert!(!evens_out((3, 1), (2, 1), 1));
        assert!(
            evens_out((3, 1), (3, 3), 1),
            "the receiver carries less for its weight"
        );
        assert!(
            !evens_out((5, 1), (0, 1), 5),
            "a group heavier than the difference stays"
        );
    }
}
