//! Tenures and directives.

use quorate_types::{DirectiveSeq, FencingToken, Revision, SessionId, TenureNumber};

use super::{
    Decoded, group_name, missing, node_name, node_name_or_none, required, same_variants, spec_size,
};
use crate::api::{
    Cause, Directive, DirectiveKind, FaultReport, Part, Position, Predecessor,
    ProposedConfiguration, Report, SessionKey, StandingTenure, TenureId,
};
use crate::proto::{self, directive, report};

same_variants!(
    Phase,
    "phase",
    [Vacant, Polling, Preparing, Active, Draining, Revoking]
);
same_variants!(
    Cause,
    "cause",
    [
        Elected,
        Polled,
        Ready,
        Released,
        Expired,
        Closed,
        Ordered,
        WaitedOut,
        Overdue,
        Failed,
        Aborted,
        Rebalanced,
        Withdrawn,
        Deleted,
        SessionRevoked,
        Deposed,
    ]
);
same_variants!(
    Part,
    "part",
    [
        Polled, Answered, Preparing, Active, Draining, Revoking, Successor
    ]
);

pub(super) fn session(key: Option<proto::SessionKey>) -> Decoded<SessionKey> {
    let key = required(key, "session")?;
    if key.id == 0 {
        return Err(missing("session.id"));
    }
    Ok(SessionKey {
        id: SessionId(key.id),
        created: Revision(key.created),
    })
}

pub(super) fn session_to(key: SessionKey) -> Option<proto::SessionKey> {
    Some(proto::SessionKey {
        id: key.id.0,
        created: key.created.0,
    })
}

pub(super) fn tenure(id: Option<proto::TenureId>) -> Decoded<TenureId> {
    let id = required(id, "tenure")?;
    if id.number == 0 {
        return Err(missing("tenure.number"));
    }
    let (incarnation, number) = (Revision(id.incarnation), TenureNumber(id.number));
    Ok(TenureId {
        group: group_name(&id.group)?,
        incarnation,
        number,
    })
}

pub(super) fn tenure_to(id: TenureId) -> Option<proto::TenureId> {
    Some(proto::TenureId {
        group: id.group.into(),
        incarnation: id.incarnation.0,
        number: id.number.0,
    })
}

fn predecessor(predecessor: Option<proto::Predecessor>) -> Decoded<Option<Predecessor>> {
    let Some(proto::Predecessor {
        number,
        outcome,
        position,
    }) = predecessor
    else {
        return Ok(None);
    };
    Ok(Some(Predecessor {
        number: TenureNumber(number),
        outcome: Cause::decode(outcome)?,
        position: position.map(Position),
    }))
}

fn predecessor_to(predecessor: Option<Predecessor>) -> Option<proto::Predecessor> {
    predecessor.map(|p| proto::Predecessor {
        number: p.number.0,
        outcome: p.outcome.encode(),
        position: p.position.map(|p| p.0),
    })
}

pub(super) fn directive(directive: proto::Directive) -> Decoded<Directive> {
    use directive::Kind;
    let kind = match required(directive.kind, "directive.kind")? {
        Kind::Poll(proto::Poll { token, deadline_ms }) => DirectiveKind::Poll {
            token: FencingToken(token),
            deadline_ms,
        },
        Kind::Prepare(prepare) => DirectiveKind::Prepare {
            token: FencingToken(prepare.token),
            deadline_ms: prepare.deadline_ms,
            predecessor: predecessor(prepare.predecessor)?,
        },
        Kind::Activate(activate) => DirectiveKind::Activate {
            token: FencingToken(activate.token),
            predecessor: predecessor(activate.predecessor)?,
        },
        Kind::CatchUp(proto::CatchUp {}) => DirectiveKind::CatchUp,
        Kind::StandBy(proto::StandBy {}) => DirectiveKind::StandBy,
        Kind::Drain(proto::Drain {
            deadline_ms,
            successor,
        }) => DirectiveKind::Drain {
            deadline_ms,
            successor: node_name_or_none(&successor)?,
        },
        Kind::Continue(proto::Continue {}) => DirectiveKind::Continue,
        Kind::Revoke(proto::Revoke {}) => DirectiveKind::Revoke,
        Kind::Ended(proto::Ended { cause }) => DirectiveKind::Ended {
            cause: Cause::decode(cause)?,
        },
    };
    Ok(Directive {
        seq: DirectiveSeq(directive.seq),
        tenure: tenure(directive.tenure)?,
        kind,
    })
}

pub(super) fn directive_to(directive: Directive) -> proto::Directive {
    use directive::Kind;
    let kind = match directive.kind {
        DirectiveKind::Poll { token, deadline_ms } => Kind::Poll(proto::Poll {
            token: token.0,
            deadline_ms,
        }),
        DirectiveKind::Prepare {
            token,
            deadline_ms,
            predecessor,
        } => Kind::Prepare(proto::Prepare {
            token: token.0,
            deadline_ms,
            predecessor: predecessor_to(predecessor),
        }),
        DirectiveKind::Activate { token, predecessor } => Kind::Activate(proto::Activate {
            token: token.0,
            predecessor: predecessor_to(predecessor),
        }),
        DirectiveKind::CatchUp => Kind::CatchUp(proto::CatchUp {}),
        DirectiveKind::StandBy => Kind::StandBy(proto::StandBy {}),
        DirectiveKind::Drain {
            deadline_ms,
            successor,
        } => {
            let successor = successor.map(String::from).unwrap_or_default();
            Kind::Drain(proto::Drain {
                deadline_ms,
                successor,
            })
        }
        DirectiveKind::Continue => Kind::Continue(proto::Continue {}),
        DirectiveKind::Revoke => Kind::Revoke(proto::Revoke {}),
        DirectiveKind::Ended { cause } => Kind::Ended(proto::Ended {
            cause: cause.encode(),
        }),
    };
    proto::Directive {
        seq: directive.seq.0,
        tenure: tenure_to(directive.tenure),
        kind: Some(kind),
    }
}

pub(super) fn standing(standing: proto::StandingTenure) -> Decoded<StandingTenure> {
    Ok(StandingTenure {
        tenure: tenure(standing.tenure)?,
        part: Part::decode(standing.part)?,
        token: FencingToken(standing.token),
        predecessor: predecessor(standing.predecessor)?,
        deadline_ms: standing.deadline_ms,
        successor: node_name_or_none(&standing.successor)?,
    })
}

pub(super) fn standing_to(standing: StandingTenure) -> proto::StandingTenure {
    proto::StandingTenure {
        tenure: tenure_to(standing.tenure),
        part: standing.part.encode(),
        token: standing.token.0,
        predecessor: predecessor_to(standing.predecessor),
        deadline_ms: standing.deadline_ms,
        successor: standing.successor.map(String::from).unwrap_or_default(),
    }
}

pub(super) fn report(report: proto::Report) -> Decoded<(TenureId, Report)> {
    use report::Kind;
    let kind = match required(report.kind, "report.kind")? {
        Kind::Polled(position) => Report::Polled {
            position: Position(position),
        },
        Kind::Ready(position) => Report::Ready {
            position: Position(position),
        },
        Kind::Failed(proto::Failed {}) => Report::Failed,
        Kind::Released(proto::Released { position }) => Report::Released {
            position: position.map(Position),
        },
        Kind::Declined(proto::Declined {}) => Report::Declined,
    };
    Ok((tenure(report.tenure)?, kind))
}

pub(super) fn report_to((tenure, report): (TenureId, Report)) -> proto::Report {
    use report::Kind;
    let kind = match report {
        Report::Polled { position } => Kind::Polled(position.0),
        Report::Ready { position } => Kind::Ready(position.0),
        Report::Failed => Kind::Failed(proto::Failed {}),
        Report::Released { position } => Kind::Released(proto::Released {
            position: position.map(|p| p.0),
        }),
        Report::Declined => Kind::Declined(proto::Declined {}),
    };
    proto::Report {
        tenure: tenure_to(tenure),
        kind: Some(kind),
    }
}

pub(super) fn fault_report(report: proto::FaultReport) -> Decoded<FaultReport> {
    Ok(FaultReport {
        session: SessionId(report.session),
        node: node_name(&report.node)?,
        reason: report.reason,
        at_ms: report.at_ms,
    })
}

pub(super) fn fault_report_to(report: FaultReport) -> proto::FaultReport {
    proto::FaultReport {
        session: report.session.0,
        node: report.node.into(),
        reason: report.reason,
        at_ms: report.at_ms,
    }
}

/// Absent: nothing is published.
pub(super) fn configuration(
    configuration: Option<proto::ProposedConfiguration>,
) -> Decoded<ProposedConfiguration> {
    let configuration = configuration.unwrap_or_default();
    spec_size("the proposed configuration", &configuration)?;
    let proto::ProposedConfiguration {
        endpoints,
        metadata,
    } = configuration;
    Ok(ProposedConfiguration {
        endpoints,
        metadata: metadata.into_iter().collect(),
    })
}

pub(super) fn configuration_to(
    configuration: ProposedConfiguration,
) -> Option<proto::ProposedConfiguration> {
    let ProposedConfiguration {
        endpoints,
        metadata,
    } = configuration;
    Some(proto::ProposedConfiguration {
        endpoints,
        metadata: metadata.into_iter().collect(),
    })
}
