//! The election of a group's leader: a pure function of the state.
//!
//! First who may be elected at all, then who is best: by an order that names one, priority, locality, load, rendezvous
//! hash. Positions are a filter before all that; `poll` applies it.

use std::cmp::Ordering;

use quorate_types::{ClusterTime, GroupName, NodeName, SessionId};
use serde::{Deserialize, Serialize};

use crate::command::NodeAdmission;
use crate::group::{Contender, Criterion, Group};
use crate::state::{Node, State};

/// Why a contender is not elected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exclusion {
    /// Its session is revoked.
    SessionRevoked,
    /// It has withdrawn.
    Withdrawing,
    /// Its node is cordoned or draining.
    NotOpen {
        /// Which of the two.
        admission: NodeAdmission,
    },
    /// Its node lacks a required label.
    Label {
        /// The label.
        key: String,
        /// The value required.
        value: String,
    },
    /// It failed here and cools down.
    CoolingDown {
        /// Until when.
        until: ClusterTime,
        /// Failures in a row.
        failures: u32,
    },
    /// Its node holds as many tenures as it may.
    TenuresMax {
        /// How many.
        limit: u32,
    },
    /// Its node prepares as many tenures as it may.
    PreparingMax {
        /// How many.
        limit: u32,
    },
    /// It held the tenure before: elected only where nobody else is eligible.
    HeldLast,
    /// It is eligible; the holder is better by this.
    Outranked {
        /// By what.
        by: Criterion,
    },
    /// It is eligible and would win an election now by this; the holder stays, since leadership does not move for so little or so soon.
    HolderStays {
        /// By what it would win.
        by: Criterion,
    },
}

/// An eligible contender and what it is judged by.
#[derive(Clone, Debug)]
pub(crate) struct Bid {
    pub(crate) session: SessionId,
    pub(crate) node: NodeName,
    pub(crate) priority: i32,
    pub(crate) locality: u64,
    /// Weight carried with this group, and the node's own weight: compared as a quotient.
    load: u64,
    weight: u32,
    hash: u64,
    ordered: bool,
    /// Taken only where nobody else is eligible.
    pub(crate) last: bool,
}

impl Bid {
    /// Whether this bid is better than another (`Greater`), and by what.
    pub(crate) fn compare(&self, other: &Self) -> (Ordering, Criterion) {
        let quotients = || {
            let mine = u128::from(self.load) * u128::from(other.weight);
            let theirs = u128::from(other.load) * u128::from(self.weight);
            theirs.cmp(&mine)
        };
        let steps: [(Ordering, Criterion); 5] = [
            (self.ordered.cmp(&other.ordered), Criterion::Ordered),
            (self.priority.cmp(&other.priority), Criterion::Priority),
            (self.locality.cmp(&other.locality), Criterion::Locality),
            (quotients(), Criterion::Load),
            (
                self.hash
                    .cmp(&other.hash)
                    .then_with(|| other.node.cmp(&self.node)),
                Criterion::Hash,
            ),
        ];
        let decided = steps.into_iter().find(|(ordering, _)| ordering.is_ne());
        decided.unwrap_or((Ordering::Equal, Criterion::Hash))
    }

    /// Whether an order names this one.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Whether this one's rank (priority, then locality) is at least the other's.
    pub(crate) fn is_ranked_at_least(&self, other: &Self) -> bool {
        (self.priority, self.locality) >= (other.priority, other.locality)
    }
}

/// FNV-1a with a final mix (of splitmix64), so that it is stable across builds and platforms.
fn hash(group: &GroupName, node: &NodeName) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // The separator is a control character, which no name holds.
    for byte in group
        .as_str()
        .bytes()
        .chain([0])
        .chain(node.as_str().bytes())
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The preferred labels that a node has, the most important as the highest bit.
fn locality(group: &Group, node: &Node) -> u64 {
    group.spec.prefer.iter().fold(0, |bits, (key, value)| {
        bits << 1 | u64::from(node.spec.labels.get(key) == Some(value))
    })
}

/// The first required label that a node lacks.
pub(crate) fn missing_label<'a>(group: &'a Group, node: &Node) -> Option<(&'a String, &'a String)> {
    group
        .spec
        .require
        .iter()
        .find(|(key, value)| node.spec.labels.get(*key) != Some(*value))
}

impl State {
    /// The contender's node, if nothing but time and limits keeps it from leading the group.
    pub(crate) fn admit(
        &self,
        group: &Group,
        session: SessionId,
        contender: &Contender,
    ) -> Result<&Node, Exclusion> {
        let found = self.session(session).expect("a contender's session lives");
        if found.revoked {
            return Err(Exclusion::SessionRevoked);
        }
        if contender.withdrawing {
            return Err(Exclusion::Withdrawing);
        }
        let name = found.node.as_ref().expect("a contender is a node");
        let node = self.node(name).expect("a live session's node is filed");
        if node.admission != NodeAdmission::Open {
            return Err(Exclusion::NotOpen {
                admission: node.admission,
            });
        }
        if let Some((key, value)) = missing_label(group, node) {
            return Err(Exclusion::Label {
                key: key.clone(),
                value: value.clone(),
            });
        }
        Ok(node)
    }

    /// The contender's bid, or the first rule that keeps it from being elected. `prepares`: whether it would have to prepare.
    pub(crate) fn bid(
        &self,
        group: &Group,
        session: SessionId,
        contender: &Contender,
        prepares: bool,
    ) -> Result<Bid, Exclusion> {
        let node = self.admit(group, session, contender)?;
        let name = &node.spec.name;
        let pending = group.pending.as_ref();
        let ordered = pending.is_some_and(|p| p.to.as_ref() == Some(name));
        let held_last = group.holder_last.as_ref() == Some(name);
        if let Some(cooldown) = group.cooldown(name).filter(|c| c.until > self.cluster_time) {
            // An order that names the node overrides its cool-down; so does having held last, or the group might stay without
            // a leader while its only data wait.
            if !(ordered || held_last && !cooldown.strict) {
                return Err(Exclusion::CoolingDown {
                    until: cooldown.until,
                    failures: cooldown.failures,
                });
            }
        }
        if !node.has_tenure_room() {
            return Err(Exclusion::TenuresMax {
                limit: node.spec.max_tenures,
            });
        }
        if prepares && !node.has_preparing_room() {
            return Err(Exclusion::PreparingMax {
                limit: node.spec.max_preparing,
            });
        }
        let left = pending.is_some_and(|p| p.from.as_ref() == Some(name));
        Ok(self.bid_of(
            group,
            session,
            contender,
            node,
            ordered,
            !ordered && (held_last || left),
        ))
    }

    /// The bid of a contender that only its node's limits, or a cool-down after it led, may exclude; `None` where more does.
    /// Limits spread load, and never cost data: the freshest policy asks for this where nobody within limits is as fresh.
    pub(crate) fn bid_beyond_limits(
        &self,
        group: &Group,
        session: SessionId,
        contender: &Contender,
    ) -> Option<Bid> {
        let node = self.admit(group, session, contender).ok()?;
        let cooldown = group.cooldown(&node.spec.name);
        // Who failed to prepare has said that it cannot lead for now.
        if cooldown.is_some_and(|c| c.strict && c.until > self.cluster_time) {
            return None;
        }
        Some(self.bid_of(group, session, contender, node, false, false))
    }

    fn bid_of(
        &self,
        group: &Group,
        session: SessionId,
        contender: &Contender,
        node: &Node,
        ordered: bool,
        last: bool,
    ) -> Bid {
        Bid {
            session,
            node: node.spec.name.clone(),
            priority: contender.priority,
            locality: locality(group, node),
            load: node.load.weight + node.load.incoming_weight + u64::from(group.spec.weight),
            weight: node.spec.weight,
            hash: hash(&group.key.name, &node.spec.name),
            ordered,
            last,
        }
    }

    /// The holder as if it bid for what it holds: its own tenure is counted once.
    pub(crate) fn holder_bid(&self, group: &Group) -> Option<Bid> {
        let holder = group.holder()?;
        let contender = group.contenders.get(&holder).expect("a holder stands");
        let name = self
            .session(holder)
            .and_then(|s| s.node.as_ref())
            .expect("a holder is a node");
        let node = self.node(name).expect("a live session's node is filed");
        let mut bid = self.bid_of(group, holder, contender, node, false, false);
        bid.load = bid.load.saturating_sub(u64::from(group.spec.weight));
        Some(bid)
    }

    /// The bids of all who are eligible, save one.
    pub(crate) fn bids(&self, group: &Group, prepares: bool, save: Option<SessionId>) -> Vec<Bid> {
        let others = group
            .contenders
            .iter()
            .filter(|(session, _)| Some(**session) != save);
        others
            .filter_map(|(session, contender)| self.bid(group, *session, contender, prepares).ok())
            .collect()
    }

    /// The best contender, and what decided.
    pub(crate) fn choose(
        &self,
        group: &Group,
        prepares: bool,
        save: Option<SessionId>,
    ) -> Option<(Bid, Criterion)> {
        best(self.bids(group, prepares, save))
    }

    /// When the first contender that cools down here may be elected again.
    pub(crate) fn cooldown_end(&self, group: &Group) -> Option<ClusterTime> {
        let standing = |node: &NodeName| {
            let session = self.node(node).and_then(|n| n.session);
            session.is_some_and(|s| group.contenders.contains_key(&s))
        };
        let ends = group
            .cooldowns
            .iter()
            .filter(|c| c.until > self.cluster_time && standing(&c.node));
        ends.map(|c| c.until).min()
    }
}

/// The best of some bids, and what decided: last resorts only where there is nobody else.
pub(crate) fn best(mut bids: Vec<Bid>) -> Option<(Bid, Criterion)> {
    if bids.iter().any(|bid| !bid.last) {
        bids.retain(|bid| !bid.last);
    }
    let (winner, _) = bids
        .iter()
        .enumerate()
        .reduce(|a, b| if b.1.compare(a.1).0.is_gt() { b } else { a })?;
    let winner = bids.swap_remove(winner);
    // What decided is what the runner-up lost by: the last criterion that was needed against anybody.
    let decided = bids.iter().map(|other| winner.compare(other).1).max();
    let decided = if winner.ordered {
        Some(Criterion::Ordered)
    } else {
        decided
    };
    Some((winner, decided.unwrap_or(Criterion::Only)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendezvous_hash_is_stable_and_spreads() {
        let node = |n: &str| NodeName::new(n).expect("a name");
        let nodes = [node("a"), node("b"), node("c")];
        let mut wins = [0; 3];
        for shard in 0..3_000 {
            let group = GroupName::new(&format!("orders/{shard:04}")).expect("a name");
            let best = (0..3)
                .max_by_key(|n| hash(&group, &nodes[*n]))
                .expect("three nodes");
            wins[best] += 1;
        }
        assert!(
            wins.iter().all(|w| (900..1_100).contains(w)),
            "uneven: {wins:?}"
        );
        let group = GroupName::new("orders/0042").expect("a name");
        assert_eq!(hash(&group, &nodes[0]), hash(&group, &node("a")));
    }
}
