//! Groups and nodes.

use quorate_types::{FencingToken, Revision, SessionId, TenureNumber};

use super::tenure::{configuration, configuration_to};
use super::{Decoded, group_name, missing, node_name, required, same_variants, spec_size};
use crate::api::{
    Cause, ContenderSpec, ContenderView, DeposeQuorum, ElectionPolicy, GroupSpec, GroupState,
    GroupView, NodeAdmission, NodeSpec, NodeView, OverduePolicy, Phase, SessionKey,
};
use crate::proto::{self, depose_quorum, election_policy};

same_variants!(OverduePolicy, "handover_overdue", [Abort, Revoke]);
same_variants!(NodeAdmission, "admission", [Open, Cordoned, Draining]);

pub(super) fn spec(spec: Option<proto::GroupSpec>) -> Decoded<GroupSpec> {
    use election_policy::Kind;
    let spec = required(spec, "spec")?;
    spec_size("the group's spec", &spec)?;
    let policy = match required(spec.policy.and_then(|policy| policy.kind), "spec.policy")? {
        Kind::Priority(proto::PriorityPolicy {}) => ElectionPolicy::Priority,
        Kind::Freshest(proto::FreshestPolicy { answers_min }) => {
            ElectionPolicy::Freshest { answers_min }
        }
    };
    // Who does not know these fields gets the defaults; any other absence above is an error.
    let defaults = GroupSpec::default();
    let depose_quorum = match spec.depose_quorum {
        None => defaults.depose_quorum,
        Some(quorum) => match required(quorum.kind, "spec.depose_quorum")? {
            depose_quorum::Kind::Off(proto::DeposeOff {}) => DeposeQuorum::Off,
            depose_quorum::Kind::Majority(proto::DeposeMajority {}) => DeposeQuorum::Majority,
            depose_quorum::Kind::Reports(min) => DeposeQuorum::Reports { min },
        },
    };
    Ok(GroupSpec {
        require: spec.require.into_iter().collect(),
        prefer: spec
            .prefer
            .into_iter()
            .map(|label| (label.key, label.value))
            .collect(),
        policy,
        readiness: spec.readiness,
        prepare_deadline_ms: spec.prepare_deadline_ms,
        handover_deadline_ms: spec.handover_deadline_ms,
        handover_overdue: OverduePolicy::decode(spec.handover_overdue)?,
        minimum_tenure_ms: spec.minimum_tenure_ms,
        cooldown_ms: spec.cooldown_ms,
        cooldown_max_ms: spec.cooldown_max_ms,
        spread: spec.spread,
        weight: spec.weight,
        depose_quorum,
        depose_window_ms: spec.depose_window_ms.unwrap_or(defaults.depose_window_ms),
    })
}

pub(super) fn spec_to(spec: GroupSpec) -> Option<proto::GroupSpec> {
    use election_policy::Kind;
    let kind = match spec.policy {
        ElectionPolicy::Priority => Kind::Priority(proto::PriorityPolicy {}),
        ElectionPolicy::Freshest { answers_min } => {
            Kind::Freshest(proto::FreshestPolicy { answers_min })
        }
    };
    let depose = match spec.depose_quorum {
        DeposeQuorum::Off => depose_quorum::Kind::Off(proto::DeposeOff {}),
        DeposeQuorum::Majority => depose_quorum::Kind::Majority(proto::DeposeMajority {}),
        DeposeQuorum::Reports { min } => depose_quorum::Kind::Reports(min),
    };
    Some(proto::GroupSpec {
        require: spec.require.into_iter().collect(),
        prefer: spec
            .prefer
            .into_iter()
            .map(|(key, value)| proto::Label { key, value })
            .collect(),
        policy: Some(proto::ElectionPolicy { kind: Some(kind) }),
        readiness: spec.readiness,
        prepare_deadline_ms: spec.prepare_deadline_ms,
        handover_deadline_ms: spec.handover_deadline_ms,
        handover_overdue: spec.handover_overdue.encode(),
        minimum_tenure_ms: spec.minimum_tenure_ms,
        cooldown_ms: spec.cooldown_ms,
        cooldown_max_ms: spec.cooldown_max_ms,
        spread: spec.spread,
        weight: spec.weight,
        depose_quorum: Some(proto::DeposeQuorum { kind: Some(depose) }),
        depose_window_ms: Some(spec.depose_window_ms),
    })
}

pub(super) fn node_spec(spec: proto::NodeSpec) -> Decoded<NodeSpec> {
    spec_size("the node's spec", &spec)?;
    Ok(NodeSpec {
        name: node_name(&spec.name)?,
        labels: spec.labels.into_iter().collect(),
        weight: spec.weight,
        max_tenures: spec.max_tenures,
        max_preparing: spec.max_preparing,
    })
}

pub(super) fn node_spec_to(spec: NodeSpec) -> proto::NodeSpec {
    proto::NodeSpec {
        name: spec.name.into(),
        labels: spec.labels.into_iter().collect(),
        weight: spec.weight,
        max_tenures: spec.max_tenures,
        max_preparing: spec.max_preparing,
    }
}

pub(super) fn state(state: Option<proto::GroupState>) -> Decoded<GroupState> {
    let state = required(state, "state")?;
    Ok(GroupState {
        name: group_name(&state.name)?,
        incarnation: Revision(state.incarnation),
        phase: Phase::decode(state.phase)?,
        tenure: TenureNumber(state.tenure),
        token: FencingToken(state.token),
        node: state.node.as_deref().map(node_name).transpose()?,
        session: state.session.map(SessionId),
        configuration: configuration(state.configuration)?,
        vacancy: state.vacancy.map(Cause::decode).transpose()?,
    })
}

pub(super) fn state_to(state: GroupState) -> proto::GroupState {
    proto::GroupState {
        name: state.name.into(),
        incarnation: state.incarnation.0,
        phase: state.phase.encode(),
        tenure: state.tenure.0,
        token: state.token.0,
        node: state.node.map(String::from),
        session: state.session.map(|session| session.0),
        configuration: configuration_to(state.configuration),
        vacancy: state.vacancy.map(Cause::encode),
    }
}

pub(super) fn view(view: proto::GroupView) -> Decoded<GroupView> {
    Ok(GroupView {
        state: state(view.state)?,
        spec: spec(view.spec)?,
        spec_revision: Revision(view.spec_revision),
        contenders: view.contenders,
        successor: view.successor.as_deref().map(node_name).transpose()?,
        transfer_pending: view.transfer_pending,
        deleting: view.deleting,
        fault_reports: view.fault_reports,
    })
}

pub(super) fn view_to(view: GroupView) -> proto::GroupView {
    proto::GroupView {
        state: Some(state_to(view.state)),
        spec: spec_to(view.spec),
        spec_revision: view.spec_revision.0,
        contenders: view.contenders,
        successor: view.successor.map(String::from),
        transfer_pending: view.transfer_pending,
        deleting: view.deleting,
        fault_reports: view.fault_reports,
    }
}

pub(super) fn contender(view: proto::ContenderView) -> Decoded<ContenderView> {
    let spec = ContenderSpec {
        priority: view.priority,
        configuration: configuration(view.configuration)?,
    };
    Ok(ContenderView {
        session: SessionId(view.session),
        node: node_name(&view.node)?,
        spec,
    })
}

pub(super) fn contender_to(view: ContenderView) -> proto::ContenderView {
    proto::ContenderView {
        session: view.session.0,
        node: view.node.into(),
        priority: view.spec.priority,
        configuration: configuration_to(view.spec.configuration),
    }
}

pub(super) fn node(view: proto::NodeView) -> Decoded<NodeView> {
    let created = Revision(view.session_created);
    if view.session == Some(0) {
        return Err(missing("session"));
    }
    Ok(NodeView {
        spec: node_spec(required(view.spec, "spec")?)?,
        session: view.session.map(|id| SessionKey {
            id: SessionId(id),
            created,
        }),
        ttl_ms: view.ttl_ms,
        admission: NodeAdmission::decode(view.admission)?,
        tenures: view.tenures,
        preparing: view.preparing,
        load: view.load,
        revoked: view.revoked,
    })
}

pub(super) fn node_to(view: NodeView) -> proto::NodeView {
    proto::NodeView {
        spec: Some(node_spec_to(view.spec)),
        session: view.session.map(|key| key.id.0),
        session_created: view.session.map_or(0, |key| key.created.0),
        ttl_ms: view.ttl_ms,
        admission: view.admission.encode(),
        tenures: view.tenures,
        preparing: view.preparing,
        load: view.load,
        revoked: view.revoked,
    }
}
