//! Unary calls and their answers.

use quorate_types::{ContractVersion, FencingToken, ReplicaId, Revision, SessionId, TenureNumber};

use super::{
    Decoded, all, batch_size, freshness, freshness_to, group, group_name, missing, mutation,
    mutation_to, node_name, prefix, required,
    tenure::{fault_report, fault_report_to},
};
use crate::api::{
    AbortTransfer, AdmitNode, ApiError, Cause, ContenderVerdict, Contract, CreateGroups,
    DeleteGroup, Done, ExplainGroup, Explanation, Freshness, GetGroup, GroupDetail, GroupPage,
    ListGroups, Moving, NodeAdmission, NodeList, PAGE_MAX, PastTenure, Phase, Rebalance,
    RevokeSession, TransferGroup, TransferLeader, TransferMode, Transition, UpdateGroup,
};
use crate::proto;

impl TryFrom<proto::MutationReply> for Done {
    type Error = ApiError;
    fn try_from(reply: proto::MutationReply) -> Decoded<Self> {
        Ok(Self {
            revision: Revision(reply.revision),
        })
    }
}

impl From<Done> for proto::MutationReply {
    fn from(done: Done) -> Self {
        Self {
            revision: done.revision.0,
        }
    }
}

impl TryFrom<proto::CreateGroupsRequest> for CreateGroups {
    type Error = ApiError;
    fn try_from(request: proto::CreateGroupsRequest) -> Decoded<Self> {
        batch_size("groups", request.groups.len())?;
        let groups = all(request.groups, |entry| {
            let name = group_name(&entry.name)?;
            let spec = group::spec(entry.spec)
                .map_err(|why| ApiError::invalid(format!("group {name:?}: {why}")))?;
            Ok((name, spec))
        })?;
        Ok(Self {
            mutation: mutation(request.mutation)?,
            groups,
        })
    }
}

impl From<CreateGroups> for proto::CreateGroupsRequest {
    fn from(request: CreateGroups) -> Self {
        let named = |(name, spec): (quorate_types::GroupName, _)| proto::NamedSpec {
            name: name.into(),
            spec: group::spec_to(spec),
        };
        Self {
            mutation: mutation_to(request.mutation),
            groups: request.groups.into_iter().map(named).collect(),
        }
    }
}

impl TryFrom<proto::UpdateGroupRequest> for UpdateGroup {
    type Error = ApiError;
    fn try_from(request: proto::UpdateGroupRequest) -> Decoded<Self> {
        Ok(Self {
            mutation: mutation(request.mutation)?,
            group: group_name(&request.name)?,
            spec: group::spec(request.spec)?,
            expected: request.expected_revision.map(Revision),
        })
    }
}

impl From<UpdateGroup> for proto::UpdateGroupRequest {
    fn from(request: UpdateGroup) -> Self {
        Self {
            mutation: mutation_to(request.mutation),
            name: request.group.into(),
            spec: group::spec_to(request.spec),
            expected_revision: request.expected.map(|revision| revision.0),
        }
    }
}

impl TryFrom<proto::DeleteGroupRequest> for DeleteGroup {
    type Error = ApiError;
    fn try_from(request: proto::DeleteGroupRequest) -> Decoded<Self> {
        Ok(Self {
            mutation: mutation(request.mutation)?,
            group: group_name(&request.name)?,
            expected: request.expected_revision.map(Revision),
        })
    }
}

impl From<DeleteGroup> for proto::DeleteGroupRequest {
    fn from(request: DeleteGroup) -> Self {
        Self {
            mutation: mutation_to(request.mutation),
            name: request.group.into(),
            expected_revision: request.expected.map(|revision| revision.0),
        }
    }
}

impl TryFrom<proto::GetGroupRequest> for GetGroup {
    type Error = ApiError;
    fn try_from(request: proto::GetGroupRequest) -> Decoded<Self> {
        Ok(Self {
            freshness: freshness(request.freshness),
            group: group_name(&request.name)?,
        })
    }
}

impl From<GetGroup> for proto::GetGroupRequest {
    fn from(request: GetGroup) -> Self {
        Self {
            freshness: freshness_to(request.freshness),
            name: request.group.into(),
        }
    }
}

impl TryFrom<proto::GetGroupReply> for GroupDetail {
    type Error = ApiError;
    fn try_from(reply: proto::GetGroupReply) -> Decoded<Self> {
        Ok(Self {
            revision: Revision(reply.revision),
            group: group::view(required(reply.group, "group")?)?,
            contenders: all(reply.contenders, group::contender)?,
        })
    }
}

impl From<GroupDetail> for proto::GetGroupReply {
    fn from(detail: GroupDetail) -> Self {
        Self {
            revision: detail.revision.0,
            group: Some(group::view_to(detail.group)),
            contenders: detail
                .contenders
                .into_iter()
                .map(group::contender_to)
                .collect(),
        }
    }
}

impl TryFrom<proto::ListGroupsRequest> for ListGroups {
    type Error = ApiError;
    fn try_from(request: proto::ListGroupsRequest) -> Decoded<Self> {
        let after = if request.after.is_empty() {
            None
        } else {
            Some(group_name(&request.after)?)
        };
        let limit = match request.limit {
            0 => PAGE_MAX,
            limit => limit.min(PAGE_MAX),
        };
        Ok(Self {
            freshness: freshness(request.freshness),
            prefix: prefix(request.prefix)?,
            after,
            limit,
        })
    }
}

impl From<ListGroups> for proto::ListGroupsRequest {
    fn from(request: ListGroups) -> Self {
        Self {
            freshness: freshness_to(request.freshness),
            prefix: request.prefix,
            after: request.after.map(String::from).unwrap_or_default(),
            limit: request.limit,
        }
    }
}

impl TryFrom<proto::ListGroupsReply> for GroupPage {
    type Error = ApiError;
    fn try_from(reply: proto::ListGroupsReply) -> Decoded<Self> {
        Ok(Self {
            revision: Revision(reply.revision),
            groups: all(reply.groups, group::view)?,
            more: reply.more,
        })
    }
}

impl From<GroupPage> for proto::ListGroupsReply {
    fn from(page: GroupPage) -> Self {
        let groups = page.groups.into_iter().map(group::view_to).collect();
        Self {
            revision: page.revision.0,
            groups,
            more: page.more,
        }
    }
}

impl TryFrom<proto::ExplainGroupRequest> for ExplainGroup {
    type Error = ApiError;
    fn try_from(request: proto::ExplainGroupRequest) -> Decoded<Self> {
        Ok(Self {
            freshness: freshness(request.freshness),
            group: group_name(&request.name)?,
        })
    }
}

impl From<ExplainGroup> for proto::ExplainGroupRequest {
    fn from(request: ExplainGroup) -> Self {
        Self {
            freshness: freshness_to(request.freshness),
            name: request.group.into(),
        }
    }
}

impl TryFrom<proto::ExplainGroupReply> for Explanation {
    type Error = ApiError;
    fn try_from(reply: proto::ExplainGroupReply) -> Decoded<Self> {
        Ok(Self {
            revision: Revision(reply.revision),
            state: group::state(reply.state)?,
            reason: reply.reason,
            contenders: all(reply.contenders, |verdict| {
                Ok(ContenderVerdict {
                    session: SessionId(verdict.session),
                    node: node_name(&verdict.node)?,
                    priority: verdict.priority,
                    holder: verdict.holder,
                    eligible: verdict.eligible,
                    verdict: verdict.verdict,
                    cooldown_left_ms: verdict.cooldown_left_ms,
                })
            })?,
            pending: reply.pending,
            history: all(reply.history, |past| {
                Ok(PastTenure {
                    number: TenureNumber(past.number),
                    token: FencingToken(past.token),
                    node: past.node.as_deref().map(node_name).transpose()?,
                    began_ms: past.began_ms,
                    ended_ms: past.ended_ms,
                    cause: Cause::decode(past.cause)?,
                    revoked_for: past.revoked_for.map(Cause::decode).transpose()?,
                    fault_reports: all(past.fault_reports, fault_report)?,
                })
            })?,
            cluster_time_ms: reply.cluster_time_ms,
            fault_reports: all(reply.fault_reports, fault_report)?,
            fault_reports_needed: reply.fault_reports_needed,
        })
    }
}

impl From<Explanation> for proto::ExplainGroupReply {
    fn from(explanation: Explanation) -> Self {
        let verdict = |verdict: ContenderVerdict| proto::ContenderVerdict {
            session: verdict.session.0,
            node: verdict.node.into(),
            priority: verdict.priority,
            holder: verdict.holder,
            eligible: verdict.eligible,
            verdict: verdict.verdict,
            cooldown_left_ms: verdict.cooldown_left_ms,
        };
        let past = |past: PastTenure| proto::PastTenure {
            number: past.number.0,
            token: past.token.0,
            node: past.node.map(String::from),
            began_ms: past.began_ms,
            ended_ms: past.ended_ms,
            cause: past.cause.encode(),
            revoked_for: past.revoked_for.map(Cause::encode),
            fault_reports: past
                .fault_reports
                .into_iter()
                .map(fault_report_to)
                .collect(),
        };
        Self {
            revision: explanation.revision.0,
            state: Some(group::state_to(explanation.state)),
            reason: explanation.reason,
            contenders: explanation.contenders.into_iter().map(verdict).collect(),
            pending: explanation.pending,
            history: explanation.history.into_iter().map(past).collect(),
            cluster_time_ms: explanation.cluster_time_ms,
            fault_reports: explanation
                .fault_reports
                .into_iter()
                .map(fault_report_to)
                .collect(),
            fault_reports_needed: explanation.fault_reports_needed,
        }
    }
}

impl TryFrom<proto::TransferGroupRequest> for TransferGroup {
    type Error = ApiError;
    fn try_from(request: proto::TransferGroupRequest) -> Decoded<Self> {
        Ok(Self {
            mutation: mutation(request.mutation)?,
            group: group_name(&request.name)?,
            to: request.to.as_deref().map(node_name).transpose()?,
            mode: if request.force {
                TransferMode::Force
            } else {
                TransferMode::Handover
            },
        })
    }
}

impl From<TransferGroup> for proto::TransferGroupRequest {
    fn from(request: TransferGroup) -> Self {
        Self {
            mutation: mutation_to(request.mutation),
            name: request.group.into(),
            to: request.to.map(String::from),
            force: request.mode == TransferMode::Force,
        }
    }
}

impl TryFrom<proto::AbortTransferRequest> for AbortTransfer {
    type Error = ApiError;
    fn try_from(request: proto::AbortTransferRequest) -> Decoded<Self> {
        Ok(Self {
            mutation: mutation(request.mutation)?,
            group: group_name(&request.name)?,
        })
    }
}

impl From<AbortTransfer> for proto::AbortTransferRequest {
    fn from(request: AbortTransfer) -> Self {
        Self {
            mutation: mutation_to(request.mutation),
            name: request.group.into(),
        }
    }
}

impl TryFrom<proto::RebalanceRequest> for Rebalance {
    type Error = ApiError;
    fn try_from(request: proto::RebalanceRequest) -> Decoded<Self> {
        let mutation = mutation(request.mutation)?;
        Ok(Self {
            mutation,
            prefix: prefix(request.prefix)?,
            moves_max: request.moves_max,
        })
    }
}

impl From<Rebalance> for proto::RebalanceRequest {
    fn from(request: Rebalance) -> Self {
        Self {
            mutation: mutation_to(request.mutation),
            prefix: request.prefix,
            moves_max: request.moves_max,
        }
    }
}

impl TryFrom<proto::RebalanceReply> for Moving {
    type Error = ApiError;
    fn try_from(reply: proto::RebalanceReply) -> Decoded<Self> {
        Ok(Self {
            revision: Revision(reply.revision),
            moves: reply.moves,
        })
    }
}

impl From<Moving> for proto::RebalanceReply {
    fn from(moving: Moving) -> Self {
        Self {
            revision: moving.revision.0,
            moves: moving.moves,
        }
    }
}

impl TryFrom<proto::ListNodesRequest> for Freshness {
    type Error = ApiError;
    fn try_from(request: proto::ListNodesRequest) -> Decoded<Self> {
        Ok(freshness(request.freshness))
    }
}

impl From<Freshness> for proto::ListNodesRequest {
    fn from(freshness: Freshness) -> Self {
        Self {
            freshness: freshness_to(freshness),
        }
    }
}

impl TryFrom<proto::ListNodesReply> for NodeList {
    type Error = ApiError;
    fn try_from(reply: proto::ListNodesReply) -> Decoded<Self> {
        Ok(Self {
            revision: Revision(reply.revision),
            nodes: all(reply.nodes, group::node)?,
        })
    }
}

impl From<NodeList> for proto::ListNodesReply {
    fn from(list: NodeList) -> Self {
        Self {
            revision: list.revision.0,
            nodes: list.nodes.into_iter().map(group::node_to).collect(),
        }
    }
}

impl TryFrom<proto::AdmitNodeRequest> for AdmitNode {
    type Error = ApiError;
    fn try_from(request: proto::AdmitNodeRequest) -> Decoded<Self> {
        Ok(Self {
            mutation: mutation(request.mutation)?,
            node: node_name(&request.name)?,
            admission: NodeAdmission::decode(request.admission)?,
        })
    }
}

impl From<AdmitNode> for proto::AdmitNodeRequest {
    fn from(request: AdmitNode) -> Self {
        let admission = request.admission.encode();
        Self {
            mutation: mutation_to(request.mutation),
            name: request.node.into(),
            admission,
        }
    }
}

impl TryFrom<proto::RevokeSessionRequest> for RevokeSession {
    type Error = ApiError;
    fn try_from(request: proto::RevokeSessionRequest) -> Decoded<Self> {
        if request.session == 0 {
            return Err(missing("session"));
        }
        Ok(Self {
            mutation: mutation(request.mutation)?,
            session: SessionId(request.session),
        })
    }
}

impl From<RevokeSession> for proto::RevokeSessionRequest {
    fn from(request: RevokeSession) -> Self {
        Self {
            mutation: mutation_to(request.mutation),
            session: request.session.0,
        }
    }
}

impl TryFrom<proto::TransferLeaderRequest> for TransferLeader {
    type Error = ApiError;
    fn try_from(request: proto::TransferLeaderRequest) -> Decoded<Self> {
        if request.to == Some(0) {
            return Err(missing("to"));
        }
        Ok(Self {
            to: request.to.map(ReplicaId),
        })
    }
}

impl From<TransferLeader> for proto::TransferLeaderRequest {
    fn from(request: TransferLeader) -> Self {
        Self {
            to: request.to.map(|replica| replica.0),
        }
    }
}

impl TryFrom<proto::ContractReply> for Contract {
    type Error = ApiError;
    fn try_from(reply: proto::ContractReply) -> Decoded<Self> {
        Ok(Self {
            version_min: ContractVersion(reply.version_min),
            version_max: ContractVersion(reply.version_max),
            transitions: all(reply.transitions, |row| {
                Ok(Transition {
                    from: Phase::decode(row.from)?,
                    to: Phase::decode(row.to)?,
                    cause: Cause::decode(row.cause)?,
                    initiator: row.initiator,
                    requires: row.requires,
                })
            })?,
        })
    }
}

impl From<Contract> for proto::ContractReply {
    fn from(contract: Contract) -> Self {
        let row = |row: Transition| proto::Transition {
            from: row.from.encode(),
            to: row.to.encode(),
            cause: row.cause.encode(),
            initiator: row.initiator,
            requires: row.requires,
        };
        Self {
            version_min: contract.version_min.0,
            version_max: contract.version_max.0,
            transitions: contract.transitions.into_iter().map(row).collect(),
        }
    }
}
