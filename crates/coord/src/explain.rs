//! `why`: who holds a group, what decided for it, and what keeps each other contender from it.

use quorate_types::{ClusterTime, FencingToken, NodeName, SessionId, TenureNumber};
use serde::{Deserialize, Serialize};

use crate::command::GroupKey;
use crate::depose::FaultReport;
use crate::elect::{Bid, Exclusion};
use crate::event::{Phase, Predecessor};
use crate::group::{Cooldown, Criterion, Group, PastTenure, Pending, Successor};
use crate::state::State;

/// The current tenure, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedTenure {
    /// Its number.
    pub number: TenureNumber,
    /// Its token.
    pub token: FencingToken,
    /// Who holds it; none while polling.
    pub holder: Option<SessionId>,
    /// The holder's node.
    pub node: Option<NodeName>,
    /// What decided for the holder, when it was elected.
    pub won_by: Option<Criterion>,
    /// When it was numbered.
    pub granted_at: ClusterTime,
    /// When it became active.
    pub activated_at: Option<ClusterTime>,
    /// When its poll, preparation or handover is overdue.
    pub deadline: Option<ClusterTime>,
    /// Who is to follow.
    pub successor: Option<Successor>,
    /// Who reports the holder as faulty; while revoking a deposed one, who did.
    pub reports: Vec<FaultReport>,
    /// How many reports would depose the holder; `None`: none would.
    pub reports_needed: Option<u32>,
}

/// A contender that does not hold the group, and the first rule that keeps it from it; `None`: it is about to be elected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedContender {
    /// Its session.
    pub session: SessionId,
    /// Its node.
    pub node: NodeName,
    /// Its priority.
    pub priority: i32,
    /// Why it does not hold the group.
    pub excluded: Option<Exclusion>,
}

/// Why a group is led as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The group.
    pub group: GroupKey,
    /// Where it stands.
    pub phase: Phase,
    /// The current tenure.
    pub tenure: Option<ExplainedTenure>,
    /// The other contenders.
    pub others: Vec<ExplainedContender>,
    /// A change of hands that is wanted.
    pub pending: Option<Pending>,
    /// No voluntary handover before.
    pub calm_until: ClusterTime,
    /// Nodes that failed here and are not elected yet.
    pub cooldowns: Vec<Cooldown>,
    /// How the last tenure that was active ended.
    pub predecessor: Option<Predecessor>,
    /// Past tenures, oldest first.
    pub history: Vec<PastTenure>,
    /// The cluster time that the others are to be compared with.
    pub now: ClusterTime,
}

impl State {
    /// Why a group is led as it is, by the same rules that elect.
    #[must_use]
    pub fn explain(&self, name: &quorate_types::GroupName) -> Option<Explanation> {
        let group = self.group(name)?;
        let holder = self.holder_bid(group);
        let others = group
            .contenders
            .iter()
            .filter(|(session, _)| Some(**session) != group.holder());
        let others = others
            .map(|(session, contender)| ExplainedContender {
                session: *session,
                node: self
                    .session(*session)
                    .and_then(|s| s.node.clone())
                    .expect("a contender is a live node"),
                priority: contender.priority,
                excluded: match self.bid(group, *session, contender, group.is_prepared_for()) {
                    Err(exclusion) => Some(exclusion),
                    Ok(bid) => judged(group, &bid, holder.as_ref()),
                },
            })
            .collect();
        Some(Explanation {
            group: group.key.clone(),
            phase: group.phase,
            tenure: group.tenure.as_ref().map(|tenure| ExplainedTenure {
                number: tenure.number,
                token: tenure.token,
                holder: tenure.holder,
                node: tenure.node.clone(),
                won_by: tenure.won_by,
                granted_at: tenure.granted_at,
                activated_at: tenure.activated_at,
                deadline: tenure.deadline,
                successor: tenure.successor.clone(),
                reports: self.fault_reports(group).cloned().collect(),
                reports_needed: self.fault_reports_needed(group),
            }),
            others,
            pending: group.pending.clone(),
            calm_until: group.calm_until,
            cooldowns: group
                .cooldowns
                .iter()
                .filter(|c| c.until > self.cluster_time)
                .cloned()
                .collect(),
            predecessor: group.predecessor,
            history: group.history.to_vec(),
            now: self.cluster_time,
        })
    }
}

fn judged(group: &Group, bid: &Bid, holder: Option<&Bid>) -> Option<Exclusion> {
    if bid.last {
        return Some(Exclusion::HeldLast);
    }
    if group.successor().is_some_and(|s| s.session == bid.session) {
        return None;
    }
    let holder = holder?;
    let won_by = group.tenure.as_ref().and_then(|t| t.won_by);
    if let Some(by @ (Criterion::Ordered | Criterion::Succession | Criterion::Position)) = won_by {
        return Some(Exclusion::Outranked { by });
    }
    let (ordering, by) = holder.compare(bid);
    Some(if ordering.is_ge() {
        Exclusion::Outranked { by }
    } else {
        Exclusion::HolderStays { by }
    })
}
