//! What a group adds to indexes and counters, and the one function through which groups are edited.
//!
//! Everything derived is the sum of footprints, so keeping it right is one subtraction and one addition per edit,
//! and checking it is adding all up again.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use quorate_types::{ClusterTime, NodeName, SessionId};

use crate::event::Phase;
use crate::group::{Group, PendingKind};
use crate::spec::Position;
use crate::state::{Derived, GroupId, Node, State};

#[derive(Clone, PartialEq)]
struct Footprint {
    held: Option<(SessionId, NodeName)>,
    weight: u64,
    preparing: bool,
    draining: bool,
    spreading: bool,
    successor: Option<(SessionId, NodeName)>,
    successor_prepares: bool,
    asked: OrdMap<SessionId, Option<Position>>,
    wanting: bool,
    timer: Option<ClusterTime>,
    preempting: bool,
}

impl Footprint {
    fn of(group: &Group) -> Self {
        let tenure = group.tenure.as_ref();
        let timer = match group.phase {
            Phase::Vacant | Phase::Active => group.wake,
            Phase::Polling | Phase::Preparing | Phase::Draining => tenure.and_then(|t| t.deadline),
            Phase::Revoking => None,
        };
        let draining = group.phase == Phase::Draining;
        Self {
            held: tenure.and_then(|t| t.holder.zip(t.node.clone())),
            weight: u64::from(group.spec.weight),
            preparing: group.phase == Phase::Preparing,
            draining,
            spreading: draining
                && group
                    .pending
                    .as_ref()
                    .is_some_and(|p| p.kind == PendingKind::Spread),
            successor: tenure
                .and_then(|t| t.successor.as_ref())
                .map(|s| (s.session, s.node.clone())),
            successor_prepares: group.is_prepared_for(),
            asked: tenure.map(|t| t.asked.clone()).unwrap_or_default(),
            wanting: match group.phase {
                Phase::Vacant => !group.contenders.is_empty(),
                Phase::Active => group.pending.is_some() || group.is_outranked(),
                _ => false,
            },
            timer,
            preempting: group.preempting,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Sign {
    Plus,
    Minus,
}

fn bump(sign: Sign, counter: &mut u32) {
    *counter = match sign {
        Sign::Plus => *counter + 1,
        Sign::Minus => counter
            .checked_sub(1)
            .expect("a counter holds what was added to it"),
    };
}

fn bump_by(sign: Sign, counter: &mut u64, by: u64) {
    *counter = match sign {
        Sign::Plus => *counter + by,
        Sign::Minus => counter
            .checked_sub(by)
            .expect("a sum holds what was added to it"),
    };
}

/// Room for a tenure, and room to prepare one: a group without a precondition waits for the first only.
fn room(node: &Node) -> (bool, bool) {
    (node.has_tenure_room(), node.has_preparing_room())
}

impl State {
    /// Edits a group and keeps indexes and counters in step. No other code changes a stored group.
    pub(crate) fn edit<R>(&mut self, id: GroupId, change: impl FnOnce(&mut Group) -> R) -> R {
        let group = self.groups.get_mut(&id).expect("an edited group exists");
        let before = Footprint::of(group);
        let result = change(Arc::make_mut(group));
        let after = Footprint::of(group);
        if before != after {
            let full = self.full_nodes(&before);
            self.count(id, &before, Sign::Minus);
            self.count(id, &after, Sign::Plus);
            // Room where there was none: groups that wait for it are looked at again.
            if full.into_iter().flatten().any(|(name, before)| {
                self.nodes.get(&name).is_some_and(|node| {
                    let after = room(node);
                    after.0 && !before.0 || after.1 && !before.1
                })
            }) {
                self.sweep.start();
            }
        }
        result
    }

    /// Files a new group.
    pub(crate) fn file_group(&mut self, group: Group) {
        let id = group.id;
        let footprint = Footprint::of(&group);
        self.derived.names.insert(group.key.name.clone(), id);
        self.groups.insert(id, Arc::new(group));
        self.count(id, &footprint, Sign::Plus);
    }

    /// Removes a group that nobody stands in any more.
    pub(crate) fn unfile_group(&mut self, id: GroupId) {
        let group = self.groups.remove(&id).expect("a removed group exists");
        assert!(
            group.contenders.is_empty(),
            "group {:?} is removed under its contenders",
            group.key
        );
        self.count(id, &Footprint::of(&group), Sign::Minus);
        self.derived.names.remove(&group.key.name);
    }

    /// The nodes that carry this group and lack room of some kind.
    fn full_nodes(&self, footprint: &Footprint) -> [Option<(NodeName, (bool, bool))>; 2] {
        [&footprint.held, &footprint.successor].map(|part| {
            let (_, name) = part.as_ref()?;
            let before = self.nodes.get(name).map(|node| room(node))?;
            (before != (true, true)).then(|| (name.clone(), before))
        })
    }

    fn with_node(&mut self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        let node = self
            .nodes
            .get_mut(name)
            .expect("a node that carries something exists");
        change(Arc::make_mut(node));
    }

    fn seat(&mut self, session: SessionId, change: impl FnOnce(&mut crate::state::Seat)) {
        let seat = self.derived.seats.entry(session).or_default();
        change(seat);
        if seat.held.is_empty() && seat.aside.is_empty() && seat.contending.is_empty() {
            self.derived.seats.remove(&session);
        }
    }

    /// Notes that a session stands in a group, or no longer does.
    pub(crate) fn note_contending(&mut self, session: SessionId, id: GroupId, stands: bool) {
        self.seat(session, |seat| {
            if stands {
                seat.contending.insert(id);
            } else {
                seat.contending.remove(&id);
            }
        });
    }

    /// Notes that a session stands nowhere any more.
    pub(crate) fn stand_nowhere(&mut self, session: SessionId) {
        self.seat(session, |seat| seat.contending = OrdSet::new());
    }

    fn count(&mut self, id: GroupId, footprint: &Footprint, sign: Sign) {
        let plus = sign == Sign::Plus;
        if let Some((session, node)) = &footprint.held {
            self.with_node(node, |node| {
                bump(sign, &mut node.load.tenures);
                bump_by(sign, &mut node.load.weight, footprint.weight);
                if footprint.preparing {
                    bump(sign, &mut node.load.preparing);
                }
                if footprint.draining {
                    bump_by(sign, &mut node.load.outgoing_weight, footprint.weight);
                }
            });
            self.seat(*session, |seat| {
                if plus {
                    seat.held.insert(id);
                } else {
                    seat.held.remove(&id);
                }
            });
        }
        if let Some((_, node)) = &footprint.successor {
            self.with_node(node, |node| {
                bump(sign, &mut node.load.incoming);
                bump_by(sign, &mut node.load.incoming_weight, footprint.weight);
                if footprint.successor_prepares {
                    bump(sign, &mut node.load.incoming_preparing);
                }
            });
        }
        let successor = footprint.successor.iter().map(|(session, _)| session);
        for session in successor.chain(footprint.asked.keys()) {
            self.seat(*session, |seat| {
                if plus {
                    seat.aside.insert(id);
                } else {
                    seat.aside.remove(&id);
                }
            });
        }
        let derived = &mut self.derived;
        let in_sets = [
            (&mut derived.wanting, footprint.wanting),
            (&mut derived.preempting, footprint.preempting),
        ];
        for (set, _) in in_sets.into_iter().filter(|(_, is_in)| *is_in) {
            if plus {
                set.insert(id);
            } else {
                set.remove(&id);
            }
        }
        if let Some(at) = footprint.timer {
            if plus {
                derived.timers.insert((at, id));
            } else {
                derived.timers.remove(&(at, id));
            }
        }
        if footprint.spreading {
            derived.spreading = if plus {
                derived.spreading + 1
            } else {
                derived.spreading - 1
            };
        }
    }

    /// Everything derived, from the groups alone. The groups' references must have been checked.
    pub(crate) fn rebuild(&mut self) {
        self.derived = Derived::default();
        self.dedup.rebuild();
        let names: Vec<_> = self.nodes.keys().cloned().collect();
        for name in &names {
            self.with_node(name, |node| node.load = crate::state::Load::default());
        }
        for (id, group) in self.groups.clone() {
            self.derived.names.insert(group.key.name.clone(), id);
            for session in group.contenders.keys() {
                self.note_contending(*session, id, true);
            }
            self.count(id, &Footprint::of(&group), Sign::Plus);
        }
    }
}
