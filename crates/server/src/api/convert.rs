//! The domain's types as the API's, and back. One to one; what differs is said where it does.

use quorate_coord as coord;
use quorate_types::{DirectiveSeq, FencingToken, TenureNumber};
use quorate_wire::api;

pub(super) fn session_key(key: coord::SessionKey) -> api::SessionKey {
    api::SessionKey {
        id: key.id,
        created: key.created,
    }
}

pub(super) fn session_key_in(key: api::SessionKey) -> coord::SessionKey {
    coord::SessionKey {
        id: key.id,
        created: key.created,
    }
}

fn tenure_id(key: coord::TenureKey) -> api::TenureId {
    api::TenureId {
        group: key.group.name,
        incarnation: key.group.created,
        number: key.number,
    }
}

pub(super) fn tenure_key_in(id: api::TenureId) -> coord::TenureKey {
    coord::TenureKey {
        group: coord::GroupKey {
            name: id.group,
            created: id.incarnation,
        },
        number: id.number,
    }
}

pub(super) fn phase(phase: coord::Phase) -> api::Phase {
    match phase {
        coord::Phase::Vacant => api::Phase::Vacant,
        coord::Phase::Polling => api::Phase::Polling,
        coord::Phase::Preparing => api::Phase::Preparing,
        coord::Phase::Active => api::Phase::Active,
        coord::Phase::Draining => api::Phase::Draining,
        coord::Phase::Revoking => api::Phase::Revoking,
    }
}

pub(super) fn cause(cause: coord::Cause) -> api::Cause {
    match cause {
        coord::Cause::Elected => api::Cause::Elected,
        coord::Cause::Polled => api::Cause::Polled,
        coord::Cause::Ready => api::Cause::Ready,
        coord::Cause::Released => api::Cause::Released,
        coord::Cause::Expired => api::Cause::Expired,
        coord::Cause::Closed => api::Cause::Closed,
        coord::Cause::Ordered => api::Cause::Ordered,
        coord::Cause::WaitedOut => api::Cause::WaitedOut,
        coord::Cause::Overdue => api::Cause::Overdue,
        coord::Cause::Failed => api::Cause::Failed,
        coord::Cause::Aborted => api::Cause::Aborted,
        coord::Cause::Rebalanced => api::Cause::Rebalanced,
        coord::Cause::Withdrawn => api::Cause::Withdrawn,
        coord::Cause::Deleted => api::Cause::Deleted,
        coord::Cause::SessionRevoked => api::Cause::SessionRevoked,
        coord::Cause::Deposed => api::Cause::Deposed,
    }
}

fn predecessor(before: coord::Predecessor) -> api::Predecessor {
    api::Predecessor {
        number: before.number,
        outcome: cause(before.outcome),
        position: before.position.map(|position| api::Position(position.0)),
    }
}

pub(super) fn directive(directive: coord::Directive) -> api::Directive {
    use coord::DirectiveKind as In;
    let kind = match directive.kind {
        In::Poll { token, deadline_ms } => api::DirectiveKind::Poll { token, deadline_ms },
        In::Prepare {
            token,
            deadline_ms,
            predecessor: before,
        } => api::DirectiveKind::Prepare {
            token,
            deadline_ms,
            predecessor: before.map(predecessor),
        },
        In::Activate {
            token,
            predecessor: before,
        } => api::DirectiveKind::Activate {
            token,
            predecessor: before.map(predecessor),
        },
        In::CatchUp => api::DirectiveKind::CatchUp,
        In::StandBy => api::DirectiveKind::StandBy,
        In::Drain {
            deadline_ms,
            successor,
        } => api::DirectiveKind::Drain {
            deadline_ms,
            successor,
        },
        In::Continue => api::DirectiveKind::Continue,
        In::Revoke => api::DirectiveKind::Revoke,
        In::Ended { cause: why } => api::DirectiveKind::Ended { cause: cause(why) },
    };
    api::Directive {
        seq: directive.seq,
        tenure: tenure_id(directive.tenure),
        kind,
    }
}

pub(super) fn standing(standing: coord::Standing) -> (DirectiveSeq, Vec<api::StandingTenure>) {
    let part = |part| match part {
        // A poll's answer may be repeated: the SDK need not know that it was heard.
        coord::Part::Polled | coord::Part::Answered => api::Part::Polled,
        coord::Part::Preparing => api::Part::Preparing,
        coord::Part::Active => api::Part::Active,
        coord::Part::Draining => api::Part::Draining,
        coord::Part::Revoking => api::Part::Revoking,
        coord::Part::Successor => api::Part::Successor,
    };
    let tenures = standing.parts.into_iter().map(|found| api::StandingTenure {
        tenure: tenure_id(found.tenure),
        part: part(found.part),
        token: found.token,
        predecessor: found.predecessor.map(predecessor),
        deadline_ms: found.deadline_left_ms,
        successor: found.successor,
    });
    (standing.directive_seq, tenures.collect())
}

pub(super) fn report_in(report: api::Report) -> coord::Report {
    let position = |position: api::Position| coord::Position(position.0);
    match report {
        api::Report::Polled { position: at } => coord::Report::Polled {
            position: position(at),
        },
        api::Report::Ready { position: at } => coord::Report::Ready {
            position: position(at),
        },
        api::Report::Failed => coord::Report::Failed,
        api::Report::Released { position: at } => coord::Report::Released {
            position: at.map(position),
        },
        api::Report::Declined => coord::Report::Declined,
    }
}

fn configuration(published: &coord::ProposedConfiguration) -> api::ProposedConfiguration {
    api::ProposedConfiguration {
        endpoints: published.endpoints.clone(),
        metadata: published.metadata.clone(),
    }
}

pub(super) fn contender_in(spec: api::ContenderSpec) -> coord::ContenderSpec {
    coord::ContenderSpec {
        priority: spec.priority,
        configuration: coord::ProposedConfiguration {
            endpoints: spec.configuration.endpoints,
            metadata: spec.configuration.metadata,
        },
    }
}

pub(super) fn node_in(
    spec: api::NodeSpec,
    contract_min: quorate_types::ContractVersion,
    contract_max: quorate_types::ContractVersion,
) -> coord::NodeSpec {
    let api::NodeSpec {
        name,
        labels,
        weight,
        max_tenures,
        max_preparing,
    } = spec;
    coord::NodeSpec {
        name,
        labels,
        weight,
        max_tenures,
        max_preparing,
        contract_min,
        contract_max,
    }
}

pub(super) fn group_spec(spec: api::GroupSpec) -> coord::GroupSpec {
    coord::GroupSpec {
        require: spec.require,
        prefer: spec.prefer,
        policy: match spec.policy {
            api::ElectionPolicy::Priority => coord::ElectionPolicy::Priority,
            api::ElectionPolicy::Freshest { answers_min } => {
                coord::ElectionPolicy::Freshest { answers_min }
            }
        },
        readiness: spec.readiness,
        prepare_deadline_ms: spec.prepare_deadline_ms,
        handover_deadline_ms: spec.handover_deadline_ms,
        handover_overdue: match spec.handover_overdue {
            api::OverduePolicy::Abort => coord::OverduePolicy::Abort,
            api::OverduePolicy::Revoke => coord::OverduePolicy::Revoke,
        },
        minimum_tenure_ms: spec.minimum_tenure_ms,
        cooldown_ms: spec.cooldown_ms,
        cooldown_max_ms: spec.cooldown_max_ms,
        spread: spec.spread,
        weight: spec.weight,
        depose_quorum: match spec.depose_quorum {
            api::DeposeQuorum::Off => coord::DeposeQuorum::Off,
            api::DeposeQuorum::Majority => coord::DeposeQuorum::Majority,
            api::DeposeQuorum::Reports { min } => coord::DeposeQuorum::Reports { min },
        },
        depose_window_ms: spec.depose_window_ms,
    }
}

fn group_spec_out(spec: &coord::GroupSpec) -> api::GroupSpec {
    api::GroupSpec {
        require: spec.require.clone(),
        prefer: spec.prefer.clone(),
        policy: match spec.policy {
            coord::ElectionPolicy::Priority => api::ElectionPolicy::Priority,
            coord::ElectionPolicy::Freshest { answers_min } => {
                api::ElectionPolicy::Freshest { answers_min }
            }
        },
        readiness: spec.readiness,
        prepare_deadline_ms: spec.prepare_deadline_ms,
        handover_deadline_ms: spec.handover_deadline_ms,
        handover_overdue: match spec.handover_overdue {
            coord::OverduePolicy::Abort => api::OverduePolicy::Abort,
            coord::OverduePolicy::Revoke => api::OverduePolicy::Revoke,
        },
        minimum_tenure_ms: spec.minimum_tenure_ms,
        cooldown_ms: spec.cooldown_ms,
        cooldown_max_ms: spec.cooldown_max_ms,
        spread: spec.spread,
        weight: spec.weight,
        depose_quorum: match spec.depose_quorum {
            coord::DeposeQuorum::Off => api::DeposeQuorum::Off,
            coord::DeposeQuorum::Majority => api::DeposeQuorum::Majority,
            coord::DeposeQuorum::Reports { min } => api::DeposeQuorum::Reports { min },
        },
        depose_window_ms: spec.depose_window_ms,
    }
}

pub(super) fn transfer_mode(mode: api::TransferMode) -> coord::TransferMode {
    match mode {
        api::TransferMode::Handover => coord::TransferMode::Handover,
        api::TransferMode::Force => coord::TransferMode::Force,
    }
}

pub(super) fn admission(admission: api::NodeAdmission) -> coord::NodeAdmission {
    match admission {
        api::NodeAdmission::Open => coord::NodeAdmission::Open,
        api::NodeAdmission::Cordoned => coord::NodeAdmission::Cordoned,
        api::NodeAdmission::Draining => coord::NodeAdmission::Draining,
    }
}

fn admission_out(admission: coord::NodeAdmission) -> api::NodeAdmission {
    match admission {
        coord::NodeAdmission::Open => api::NodeAdmission::Open,
        coord::NodeAdmission::Cordoned => api::NodeAdmission::Cordoned,
        coord::NodeAdmission::Draining => api::NodeAdmission::Draining,
    }
}

/// Who leads a group.
pub(crate) fn group_state(group: &coord::Group) -> api::GroupState {
    let tenure = group.tenure.as_ref();
    let ended = || group.history.last().map(|past| cause(past.cause));
    api::GroupState {
        name: group.key.name.clone(),
        incarnation: group.key.created,
        phase: phase(group.phase),
        tenure: group.number_last,
        token: group.token_last,
        node: tenure.and_then(|tenure| tenure.node.clone()),
        session: tenure.and_then(|tenure| tenure.holder),
        configuration: tenure
            .map(|tenure| configuration(&tenure.configuration))
            .unwrap_or_default(),
        vacancy: if group.phase == coord::Phase::Vacant {
            ended()
        } else {
            None
        },
    }
}

/// The same, as a transition left it.
pub(super) fn group_state_after(
    to: coord::Phase,
    why: coord::Cause,
    tenure: &coord::TenureView,
) -> api::GroupState {
    let vacant = to == coord::Phase::Vacant;
    api::GroupState {
        name: tenure.key.group.name.clone(),
        incarnation: tenure.key.group.created,
        phase: phase(to),
        tenure: tenure.key.number,
        token: tenure.token,
        node: tenure.node.clone().filter(|_| !vacant),
        session: tenure.holder.filter(|_| !vacant),
        configuration: if vacant {
            api::ProposedConfiguration::default()
        } else {
            configuration(&tenure.configuration)
        },
        vacancy: vacant.then(|| cause(why)),
    }
}

/// A group that was never led.
pub(super) fn group_state_new(group: &coord::GroupKey) -> api::GroupState {
    api::GroupState {
        name: group.name.clone(),
        incarnation: group.created,
        phase: api::Phase::Vacant,
        tenure: TenureNumber::ZERO,
        token: FencingToken::ZERO,
        node: None,
        session: None,
        configuration: api::ProposedConfiguration::default(),
        vacancy: None,
    }
}

pub(super) fn fault_report(report: &coord::FaultReport) -> api::FaultReport {
    api::FaultReport {
        session: report.session,
        node: report.node.clone(),
        reason: report.reason.clone(),
        at_ms: report.at.0,
    }
}

pub(super) fn group_view(state: &coord::State, group: &coord::Group) -> api::GroupView {
    api::GroupView {
        state: group_state(group),
        spec: group_spec_out(&group.spec),
        spec_revision: group.spec_revision,
        contenders: u32::try_from(group.contenders.len()).unwrap_or(u32::MAX),
        successor: group.successor().map(|successor| successor.node.clone()),
        transfer_pending: group.pending.is_some(),
        deleting: group.deleting,
        fault_reports: u32::try_from(state.fault_reports(group).count()).unwrap_or(u32::MAX),
    }
}

pub(super) fn contenders(state: &coord::State, group: &coord::Group) -> Vec<api::ContenderView> {
    let view = |(id, contender): (&quorate_types::SessionId, &coord::Contender)| {
        let node = state
            .session(*id)
            .and_then(|session| session.node.clone())?;
        let spec = api::ContenderSpec {
            priority: contender.priority,
            configuration: configuration(&contender.configuration),
        };
        Some(api::ContenderView {
            session: *id,
            node,
            spec,
        })
    };
    group.contenders.iter().filter_map(view).collect()
}

pub(super) fn node_view(state: &coord::State, node: &coord::Node) -> api::NodeView {
    let session = node.session.and_then(|id| state.session(id));
    let spec = &node.spec;
    api::NodeView {
        spec: api::NodeSpec {
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            weight: spec.weight,
            max_tenures: spec.max_tenures,
            max_preparing: spec.max_preparing,
        },
        session: session.map(|session| session_key(session.key)),
        ttl_ms: session.map_or(0, |session| session.ttl_ms),
        admission: admission_out(node.admission),
        tenures: node.load.tenures,
        preparing: node.load.preparing,
        load: node.load.weight,
        revoked: session.is_some_and(|session| session.revoked),
    }
}

/// What an applied request of a session came to.
pub(super) fn request_done(
    outcome: quorate_coord::Outcome,
) -> Result<api::RequestDone, api::ApiError> {
    match outcome {
        Ok(coord::Reply::Done { revision } | coord::Reply::Moving { revision, .. }) => {
            Ok(api::RequestDone {
                revision,
                refused: Vec::new(),
            })
        }
        Ok(coord::Reply::Partly { revision, refused }) => {
            let refused = refused
                .iter()
                .map(|(at, why)| (*at, super::refusal::of_rejection(why)))
                .collect();
            Ok(api::RequestDone { revision, refused })
        }
        // No request of a session opens one; this one was opened at that revision.
        Ok(coord::Reply::SessionOpened { session, .. }) => Ok(api::RequestDone {
            revision: session.created,
            refused: Vec::new(),
        }),
        Ok(
            reply @ (coord::Reply::Kv { .. }
            | coord::Reply::Compacted { .. }
            | coord::Reply::LeaseGranted { .. }
            | coord::Reply::LeaseRevoked { .. }
            | coord::Reply::Alarmed { .. }
            | coord::Reply::AuthChanged { .. }),
        ) => Err(unexpected(&reply)),
        Err(rejection) => Err(super::refusal::of_rejection(&rejection)),
    }
}

/// A command was applied, and its reply is of another command.
pub(super) fn unexpected(reply: &coord::Reply) -> api::ApiError {
    api::ApiError::new(
        api::ApiErrorKind::Internal,
        format!("the command was applied with an unexpected reply: {reply:?}"),
    )
}
