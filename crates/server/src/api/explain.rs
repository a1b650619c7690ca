//! `why`, and the contract's table, in words for people.

use quorate_coord as coord;
use quorate_types::{ClusterTime, GroupName};
use quorate_wire::api;

use super::convert;

/// Why a group is led as it is.
pub(super) fn explain(state: &coord::State, name: &GroupName) -> Option<api::Explanation> {
    let group = state.group(name)?;
    let found = state.explain(name)?;
    let mut contenders = Vec::new();
    if let Some(holder) = found.tenure.as_ref().and_then(|tenure| tenure.holder)
        && let Some(contender) = group.contenders.get(&holder)
        && let Some(node) = found.tenure.as_ref().and_then(|tenure| tenure.node.clone())
    {
        contenders.push(api::ContenderVerdict {
            session: holder,
            node,
            priority: contender.priority,
            holder: true,
            eligible: true,
            verdict: reason(group, &found),
            cooldown_left_ms: 0,
        });
    }
    let successor = found
        .tenure
        .as_ref()
        .and_then(|tenure| tenure.successor.as_ref());
    for other in &found.others {
        let cooldown = found
            .cooldowns
            .iter()
            .find(|cooldown| cooldown.node == other.node);
        let verdict = match &other.excluded {
            _ if successor.is_some_and(|successor| successor.session == other.session) => {
                "it is chosen to follow".to_owned()
            }
            Some(exclusion) => excluded(exclusion, found.now),
            None => "it is about to be elected".to_owned(),
        };
        contenders.push(api::ContenderVerdict {
            session: other.session,
            node: other.node.clone(),
            priority: other.priority,
            holder: false,
            eligible: matches!(
                other.excluded,
                None | Some(
                    coord::Exclusion::Outranked { .. } | coord::Exclusion::HolderStays { .. }
                )
            ),
            verdict,
            cooldown_left_ms: cooldown.map_or(0, |cooldown| cooldown.until.ms_since(found.now)),
        });
    }
    let history = found.history.iter().rev().map(|past| api::PastTenure {
        number: past.number,
        token: past.token,
        node: past.node.clone(),
        began_ms: past.granted_at.0,
        ended_ms: past.ended_at.0,
        cause: convert::cause(past.cause),
        revoked_for: past.revoked_for.map(convert::cause),
        fault_reports: past.reports.iter().map(convert::fault_report).collect(),
    });
    let tenure = found.tenure.as_ref();
    let reports = tenure.map_or(&[][..], |tenure| &tenure.reports);
    Some(api::Explanation {
        revision: state.revision(),
        state: convert::group_state(group),
        reason: reason(group, &found),
        contenders,
        pending: pending(group, &found),
        history: history.collect(),
        cluster_time_ms: found.now.0,
        fault_reports: reports.iter().map(convert::fault_report).collect(),
        fault_reports_needed: tenure.and_then(|tenure| tenure.reports_needed),
    })
}

fn reason(group: &coord::Group, found: &coord::Explanation) -> String {
    let Some(tenure) = &found.tenure else {
        return if group.contenders.is_empty() {
            "nobody stands in it".to_owned()
        } else {
            "no contender is eligible".to_owned()
        };
    };
    let Some(node) = &tenure.node else {
        return format!(
            "tenure {} polls its contenders for the freshest data",
            tenure.number
        );
    };
    let deposed = group.tenure.as_ref().and_then(|tenure| tenure.revoked_for);
    if deposed == Some(coord::Cause::Deposed) {
        let count = tenure.reports.len();
        return format!(
            "{node} was deposed: {count} contender(s) reported it as faulty; it must stop, and is waited out"
        );
    }
    let role = match found.phase {
        coord::Phase::Preparing => "is elected and gets ready",
        coord::Phase::Draining => "leads and hands over",
        coord::Phase::Revoking => "must stop, and is waited out",
        _ => "leads",
    };
    match tenure.won_by {
        Some(by) => format!("{node} {role}: {}", criterion(by)),
        None => format!("{node} {role}"),
    }
}

fn criterion(by: coord::Criterion) -> &'static str {
    match by {
        coord::Criterion::Only => "nobody else was eligible",
        coord::Criterion::Ordered => "an order named it",
        coord::Criterion::Succession => "it caught up as the chosen successor",
        coord::Criterion::Position => "its data were the freshest",
        coord::Criterion::Priority => "its priority was the highest",
        coord::Criterion::Locality => "its labels matched the preferred ones best",
        coord::Criterion::Load => "its node carried the least for its weight",
        coord::Criterion::Hash => "all else was equal, and the hash of group and node decided",
    }
}

fn excluded(exclusion: &coord::Exclusion, now: ClusterTime) -> String {
    match exclusion {
        coord::Exclusion::SessionRevoked => "its session is revoked".to_owned(),
        coord::Exclusion::Withdrawing => "it has withdrawn".to_owned(),
        coord::Exclusion::NotOpen {
            admission: coord::NodeAdmission::Draining,
        } => "its node is being drained".to_owned(),
        coord::Exclusion::NotOpen { .. } => "its node is cordoned".to_owned(),
        coord::Exclusion::Label { key, value } => format!("its node lacks the label {key}={value}"),
        coord::Exclusion::CoolingDown { until, failures } => {
            format!(
                "it failed here {failures} time(s) in a row and cools down for {} ms more",
                until.ms_since(now)
            )
        }
        coord::Exclusion::TenuresMax { limit } => {
            format!("its node holds as many tenures as it may: {limit}")
        }
        coord::Exclusion::PreparingMax { limit } => {
            format!("its node prepares as many tenures as it may: {limit}")
        }
        coord::Exclusion::HeldLast => {
            "it held the tenure before: it follows only where nobody else can".to_owned()
        }
        coord::Exclusion::Outranked { by } => format!("the holder came first: {}", criterion(*by)),
        coord::Exclusion::HolderStays { by } => {
            format!(
                "it would win an election now ({}), but leadership does not move for so little or so soon",
                criterion(*by)
            )
        }
    }
}

fn pending(group: &coord::Group, found: &coord::Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(pending) = &found.pending {
        let what = match pending.kind {
            coord::PendingKind::Transfer => "a transfer was ordered",
            coord::PendingKind::NodeDrain => "the holder's node is being drained",
            coord::PendingKind::Withdrawal => "the holder withdrew",
            coord::PendingKind::Spread => "a lighter or higher-ranked node takes over",
        };
        let to = pending
            .to
            .as_ref()
            .map(|to| format!(", to {to}"))
            .unwrap_or_default();
        let from = pending
            .from
            .as_ref()
            .map(|from| format!(", from {from}"))
            .unwrap_or_default();
        lines.push(format!(
            "{what}{from}{to}, {} ms ago",
            found.now.ms_since(pending.since)
        ));
    }
    if let Some(tenure) = &found.tenure {
        if let Some(deadline) = tenure.deadline {
            lines.push(format!(
                "the {:?} phase is overdue in {} ms",
                found.phase,
                deadline.ms_since(found.now)
            ));
        }
        if let Some(successor) = &tenure.successor {
            lines.push(format!("{} is chosen to follow", successor.node));
        }
    }
    if found.phase.is_believed() {
        for report in found.tenure.iter().flat_map(|tenure| &tenure.reports) {
            let needed = found
                .tenure
                .as_ref()
                .and_then(|tenure| tenure.reports_needed);
            let needed =
                needed.map_or_else(String::new, |n| format!(" ({n} reports would depose it)"));
            lines.push(format!(
                "{} reports the holder as faulty, {} ms ago: {}{needed}",
                report.node,
                found.now.ms_since(report.at),
                report.reason,
            ));
        }
    }
    if group.deleting {
        lines.push("the group is deleted once its tenure has ended".to_owned());
    }
    if found.calm_until > found.now {
        lines.push(format!(
            "no voluntary handover for {} ms more",
            found.calm_until.ms_since(found.now)
        ));
    }
    lines
}

/// The table that `coord` checks every transition against.
pub(super) fn contract() -> api::Contract {
    let initiator = |initiator: &coord::Initiator| match initiator {
        coord::Initiator::Holder => "holder",
        coord::Initiator::Contender => "contender",
        coord::Initiator::Operator => "operator",
        coord::Initiator::Leader => "leader of the backbone",
        coord::Initiator::ClusterTime => "cluster time",
        coord::Initiator::Peers => "quorum of contenders",
    };
    let row = |row: &coord::Transition| api::Transition {
        from: convert::phase(row.from),
        to: convert::phase(row.to),
        cause: convert::cause(row.cause),
        initiator: row
            .initiators
            .iter()
            .map(initiator)
            .collect::<Vec<_>>()
            .join(", "),
        requires: row.needs.to_owned(),
    };
    api::Contract {
        version_min: quorate_types::ContractVersion(*coord::CONTRACT_VERSIONS.start()),
        version_max: quorate_types::ContractVersion(*coord::CONTRACT_VERSIONS.end()),
        transitions: coord::TRANSITIONS.iter().map(row).collect(),
    }
}
