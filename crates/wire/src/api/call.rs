//! Unary calls and their answers.

use quorate_types::{
    ContractVersion, FencingToken, GroupName, NodeName, Principal, ReplicaId, RequestId, Revision,
    SessionId, TenureNumber, TraceId,
};
use serde::Serialize;

use super::{
    Cause, ContenderView, FaultReport, GroupSpec, GroupState, GroupView, NodeAdmission, NodeView,
    Phase, TransferMode,
};

/// Who calls, as the server's transport saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The certificate's subject, or `anonymous`.
    pub principal: Principal,
    /// Follows the call through logs; zero: not traced.
    pub trace: TraceId,
    /// How long the caller waits; none: it did not say.
    pub timeout: Option<std::time::Duration>,
}

/// Carried by every call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The same in every retry.
    pub request_id: RequestId,
    /// The contract version that the caller speaks.
    pub contract: ContractVersion,
}

/// Carried by every read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Answer only from a state at least this new.
    pub min_revision: Revision,
    /// Answer from the server's own state, without asking the leader.
    pub stale_ok: bool,
}

/// The answer of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// The revision after it.
    pub revision: Revision,
}

/// Creates groups; all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateGroups {
    /// What every change carries.
    pub mutation: Mutation,
    /// Names and specs.
    pub groups: Vec<(GroupName, GroupSpec)>,
}

/// Replaces a group's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateGroup {
    /// What every change carries.
    pub mutation: Mutation,
    /// Which.
    pub group: GroupName,
    /// The new spec.
    pub spec: GroupSpec,
    /// Refused unless the spec was last changed at this revision.
    pub expected: Option<Revision>,
}

/// Deletes a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteGroup {
    /// What every change carries.
    pub mutation: Mutation,
    /// Which.
    pub group: GroupName,
    /// Refused unless the spec was last changed at this revision.
    pub expected: Option<Revision>,
}

/// Reads one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetGroup {
    /// How fresh.
    pub freshness: Freshness,
    /// Which.
    pub group: GroupName,
}

/// One group with who stands in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupDetail {
    /// The revision it was read at.
    pub revision: Revision,
    /// The group.
    pub group: GroupView,
    /// Who stands in it.
    pub contenders: Vec<ContenderView>,
}

/// Reads groups in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListGroups {
    /// How fresh.
    pub freshness: Freshness,
    /// Only groups whose name starts so.
    pub prefix: String,
    /// Only groups after this one.
    pub after: Option<GroupName>,
    /// At most this many; 1 to [`PAGE_MAX`](super::PAGE_MAX) once decoded.
    pub limit: u32,
}

/// A page of groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupPage {
    /// The revision it was read at.
    pub revision: Revision,
    /// The groups.
    pub groups: Vec<GroupView>,
    /// There are more after the last one.
    pub more: bool,
}

/// Asks why a group is led as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainGroup {
    /// How fresh.
    pub freshness: Freshness,
    /// Which.
    pub group: GroupName,
}

/// Why a group is led as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The revision it was read at.
    pub revision: Revision,
    /// Who leads.
    pub state: GroupState,
    /// Why the holder was chosen, or why nobody is; for people.
    pub reason: String,
    /// Each contender's case.
    pub contenders: Vec<ContenderVerdict>,
    /// What is under way; for people.
    pub pending: Vec<String>,
    /// The last tenures, newest first.
    pub history: Vec<PastTenure>,
    /// The cluster's clock, to read the history's times by.
    pub cluster_time_ms: u64,
    /// Who reports the holder as faulty now; once it is deposed, who did.
    pub fault_reports: Vec<FaultReport>,
    /// How many reports depose the holder; none: nobody holds it, or the spec forbids it.
    pub fault_reports_needed: Option<u32>,
}

/// One contender's case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContenderVerdict {
    /// Its session.
    pub session: SessionId,
    /// Its node.
    pub node: NodeName,
    /// Its priority.
    pub priority: i32,
    /// It holds the group's tenure.
    pub holder: bool,
    /// It could be elected.
    pub eligible: bool,
    /// Why it leads, would follow, or is excluded; for people.
    pub verdict: String,
    /// Milliseconds until it may be elected here again after a failure.
    pub cooldown_left_ms: u64,
}

/// A tenure that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastTenure {
    /// Its number.
    pub number: TenureNumber,
    /// Its token.
    pub token: FencingToken,
    /// Who was elected.
    pub node: Option<NodeName>,
    /// When it began, on the cluster's clock.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// Why.
    pub cause: Cause,
    /// Why it was revoked, where it was.
    pub revoked_for: Option<Cause>,
    /// Who deposed its holder, where that is why; at most 16.
    pub fault_reports: Vec<FaultReport>,
}

/// Moves a group's leadership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferGroup {
    /// What every change carries.
    pub mutation: Mutation,
    /// Which.
    pub group: GroupName,
    /// To whom; the election chooses where none is named.
    pub to: Option<NodeName>,
    /// How.
    pub mode: TransferMode,
}

/// Calls off a pending handover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbortTransfer {
    /// What every change carries.
    pub mutation: Mutation,
    /// Which.
    pub group: GroupName,
}

/// Starts handovers from nodes that hold more than their share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebalance {
    /// What every change carries.
    pub mutation: Mutation,
    /// Only groups whose name starts so.
    pub prefix: String,
    /// At most this many handovers.
    pub moves_max: u32,
}

/// Handovers were started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Moving {
    /// The revision after it.
    pub revision: Revision,
    /// How many.
    pub moves: u32,
}

/// All nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeList {
    /// The revision it was read at.
    pub revision: Revision,
    /// In the order of their names.
    pub nodes: Vec<NodeView>,
}

/// Opens, cordons or drains a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmitNode {
    /// What every change carries.
    pub mutation: Mutation,
    /// Which.
    pub node: NodeName,
    /// What is wanted.
    pub admission: NodeAdmission,
}

/// Ends another's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokeSession {
    /// What every change carries.
    pub mutation: Mutation,
    /// Which.
    pub session: SessionId,
}

/// Hands the backbone's leadership to another server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferLeader {
    /// To whom; none: the most caught-up voter.
    pub to: Option<ReplicaId>,
}

/// The lifecycle's table, and the contract versions that the cluster speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contract {
    /// The lowest version.
    pub version_min: ContractVersion,
    /// The highest version.
    pub version_max: ContractVersion,
    /// The table.
    pub transitions: Vec<Transition>,
}

/// One row of the lifecycle's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// From where.
    pub from: Phase,
    /// To where.
    pub to: Phase,
    /// Why.
    pub cause: Cause,
    /// Who may initiate it; for people.
    pub initiator: String,
    /// What must hold before; for people.
    pub requires: String,
}
