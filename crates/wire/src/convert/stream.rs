//! The two streams.

use std::ops::RangeInclusive;

use quorate_types::{ClusterId, ContractVersion, DirectiveSeq, Revision};

use super::error::{info, info_to};
use super::tenure::{
    configuration, configuration_to, directive, directive_to, report, report_to, session,
    session_to, standing, standing_to, tenure, tenure_to,
};
use super::{Decoded, all, batch_size, contract, group, group_name, request_id, required};
use crate::api::{
    ApiError, ContenderSpec, NodeDown, NodeUp, REASON_BYTES_MAX, RequestDone, WatchGroups,
    WatchItem,
};
use crate::proto::{self, node_down, node_up, watch_item};

fn contracts(min: u32, max: u32) -> Decoded<RangeInclusive<ContractVersion>> {
    if min > max {
        return Err(ApiError::invalid(format!(
            "the contract range {min} to {max} is empty"
        )));
    }
    Ok(contract(min)?..=contract(max)?)
}

fn request_seq(seq: u64) -> Decoded<u64> {
    if seq == 0 {
        Err(ApiError::invalid("`request_seq` is 0; the first is 1"))
    } else {
        Ok(seq)
    }
}

/// Bounded here, so that nothing longer gets into the log.
fn reason(reason: String) -> Decoded<String> {
    if (1..=REASON_BYTES_MAX).contains(&reason.len()) {
        return Ok(reason);
    }
    Err(ApiError::invalid(format!(
        "the reason has {} bytes; allowed: 1 to {REASON_BYTES_MAX}",
        reason.len()
    )))
}

impl TryFrom<proto::NodeUp> for NodeUp {
    type Error = ApiError;
    fn try_from(up: proto::NodeUp) -> Decoded<Self> {
        use node_up::Message;
        Ok(match required(up.message, "message")? {
            Message::Open(open) => {
                let contracts = contracts(open.contract_min, open.contract_max)?;
                Self::Open {
                    request_id: request_id(&open.request_id)?,
                    ttl_ms: open.ttl_ms,
                    node: open.node.map(group::node_spec).transpose()?,
                    contract_min: *contracts.start(),
                    contract_max: *contracts.end(),
                }
            }
            Message::Resume(resume) => {
                let contracts = contracts(resume.contract_min, resume.contract_max)?;
                Self::Resume {
                    session: session(resume.session)?,
                    processed: DirectiveSeq(resume.processed),
                    contract_min: *contracts.start(),
                    contract_max: *contracts.end(),
                }
            }
            Message::KeepAlive(proto::KeepAlive {
                seq,
                clock_ms,
                healthy,
            }) => Self::KeepAlive {
                seq,
                clock_ms,
                healthy,
            },
            Message::Contend(contend) => {
                batch_size("groups", contend.entries.len())?;
                let entries = all(contend.entries, |entry| {
                    let configuration = configuration(entry.configuration)?;
                    Ok((
                        group_name(&entry.group)?,
                        ContenderSpec {
                            priority: entry.priority,
                            configuration,
                        },
                    ))
                })?;
                Self::Contend {
                    request_seq: request_seq(contend.request_seq)?,
                    entries,
                }
            }
            Message::Withdraw(withdraw) => {
                batch_size("groups", withdraw.groups.len())?;
                let groups = all(withdraw.groups, |name| group_name(&name))?;
                Self::Withdraw {
                    request_seq: request_seq(withdraw.request_seq)?,
                    groups,
                }
            }
            Message::Report(reports) => {
                batch_size("reports", reports.reports.len())?;
                let request_seq = request_seq(reports.request_seq)?;
                Self::Report {
                    request_seq,
                    reports: all(reports.reports, report)?,
                }
            }
            Message::ReportFaulty(report) => Self::ReportFaulty {
                request_seq: request_seq(report.request_seq)?,
                tenure: tenure(report.tenure)?,
                reason: reason(report.reason)?,
            },
            Message::WithdrawReport(withdraw) => Self::WithdrawReport {
                request_seq: request_seq(withdraw.request_seq)?,
                tenure: tenure(withdraw.tenure)?,
            },
            Message::Close(close) => Self::Close {
                request_seq: request_seq(close.request_seq)?,
            },
        })
    }
}

impl From<NodeUp> for proto::NodeUp {
    fn from(up: NodeUp) -> Self {
        use node_up::Message;
        let message = match up {
            NodeUp::Open {
                request_id,
                ttl_ms,
                node,
                contract_min,
                contract_max,
            } => Message::Open(proto::Open {
                request_id: request_id.0.to_be_bytes().to_vec(),
                ttl_ms,
                node: node.map(group::node_spec_to),
                contract_min: contract_min.0,
                contract_max: contract_max.0,
            }),
            NodeUp::Resume {
                session,
                processed,
                contract_min,
                contract_max,
            } => Message::Resume(proto::Resume {
                session: session_to(session),
                processed: processed.0,
                contract_min: contract_min.0,
                contract_max: contract_max.0,
            }),
            NodeUp::KeepAlive {
                seq,
                clock_ms,
                healthy,
            } => Message::KeepAlive(proto::KeepAlive {
                seq,
                clock_ms,
                healthy,
            }),
            NodeUp::Contend {
                request_seq,
                entries,
            } => {
                let entries = entries
                    .into_iter()
                    .map(|(group, spec)| proto::ContendEntry {
                        group: group.into(),
                        priority: spec.priority,
                        configuration: configuration_to(spec.configuration),
                    });
                Message::Contend(proto::Contend {
                    request_seq,
                    entries: entries.collect(),
                })
            }
            NodeUp::Withdraw {
                request_seq,
                groups,
            } => {
                let groups = groups.into_iter().map(String::from).collect();
                Message::Withdraw(proto::Withdraw {
                    request_seq,
                    groups,
                })
            }
            NodeUp::Report {
                request_seq,
                reports,
            } => {
                let reports = reports.into_iter().map(report_to).collect();
                Message::Report(proto::Reports {
                    request_seq,
                    reports,
                })
            }
            NodeUp::ReportFaulty {
                request_seq,
                tenure,
                reason,
            } => Message::ReportFaulty(proto::ReportFaulty {
                request_seq,
                tenure: tenure_to(tenure),
                reason,
            }),
            NodeUp::WithdrawReport {
                request_seq,
                tenure,
            } => Message::WithdrawReport(proto::WithdrawReport {
                request_seq,
                tenure: tenure_to(tenure),
            }),
            NodeUp::Close { request_seq } => Message::Close(proto::Close { request_seq }),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<proto::NodeDown> for NodeDown {
    type Error = ApiError;
    fn try_from(down: proto::NodeDown) -> Decoded<Self> {
        use node_down::Message;
        Ok(match required(down.message, "message")? {
            Message::Opened(opened) => Self::Opened {
                session: session(opened.session)?,
                ttl_ms: opened.ttl_ms,
                ttl_ms_min_safe: opened.ttl_ms_min_safe,
                contract: contract(opened.contract)?,
                cluster: ClusterId(opened.cluster_id),
            },
            Message::KeptAlive(proto::KeptAlive {
                seq,
                ttl_ms,
                directive_seq,
            }) => Self::KeptAlive {
                seq,
                ttl_ms,
                directive_seq: DirectiveSeq(directive_seq),
            },
            Message::SessionGone(proto::SessionGone {}) => Self::SessionGone,
            Message::Directive(message) => Self::Directive(directive(message)?),
            Message::Standing(message) => Self::Standing {
                directive_seq: DirectiveSeq(message.directive_seq),
                tenures: all(message.tenures, standing)?,
            },
            Message::RequestDone(done) => {
                let outcome = match done.error {
                    Some(error) => Err(info(Some(error))?),
                    None => Ok(RequestDone {
                        revision: Revision(done.revision),
                        refused: all(done.refused, |item| Ok((item.position, info(item.error)?)))?,
                    }),
                };
                Self::RequestDone {
                    request_seq: done.request_seq,
                    outcome,
                }
            }
            Message::RequestUnknown(unknown) => Self::RequestUnknown {
                request_seq: unknown.request_seq,
            },
            Message::Refused(proto::Refused { request_seq, error }) => Self::Refused {
                request_seq,
                error: info(error)?,
            },
        })
    }
}

impl From<NodeDown> for proto::NodeDown {
    fn from(down: NodeDown) -> Self {
        use node_down::Message;
        let message = match down {
            NodeDown::Opened {
                session,
                ttl_ms,
                ttl_ms_min_safe,
                contract,
                cluster,
            } => Message::Opened(proto::Opened {
                session: session_to(session),
                ttl_ms,
                ttl_ms_min_safe,
                contract: contract.0,
                cluster_id: cluster.0,
            }),
            NodeDown::KeptAlive {
                seq,
                ttl_ms,
                directive_seq,
            } => Message::KeptAlive(proto::KeptAlive {
                seq,
                ttl_ms,
                directive_seq: directive_seq.0,
            }),
            NodeDown::SessionGone => Message::SessionGone(proto::SessionGone {}),
            NodeDown::Directive(message) => Message::Directive(directive_to(message)),
            NodeDown::Standing {
                directive_seq,
                tenures,
            } => Message::Standing(proto::Standing {
                directive_seq: directive_seq.0,
                tenures: tenures.into_iter().map(standing_to).collect(),
            }),
            NodeDown::RequestDone {
                request_seq,
                outcome,
            } => Message::RequestDone(match outcome {
                Ok(RequestDone { revision, refused }) => {
                    let refused = refused
                        .into_iter()
                        .map(|(position, error)| proto::ItemRefusal {
                            position,
                            error: Some(info_to(error)),
                        });
                    let refused = refused.collect();
                    proto::RequestDone {
                        request_seq,
                        revision: revision.0,
                        refused,
                        error: None,
                    }
                }
                Err(error) => proto::RequestDone {
                    request_seq,
                    revision: 0,
                    refused: Vec::new(),
                    error: Some(info_to(error)),
                },
            }),
            NodeDown::RequestUnknown { request_seq } => {
                Message::RequestUnknown(proto::RequestUnknown { request_seq })
            }
            NodeDown::Refused { request_seq, error } => Message::Refused(proto::Refused {
                request_seq,
                error: Some(info_to(error)),
            }),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<proto::WatchGroupsRequest> for WatchGroups {
    type Error = ApiError;
    fn try_from(request: proto::WatchGroupsRequest) -> Decoded<Self> {
        Ok(Self {
            prefix: super::prefix(request.prefix)?,
            min_revision: Revision(request.min_revision),
        })
    }
}

impl From<WatchGroups> for proto::WatchGroupsRequest {
    fn from(request: WatchGroups) -> Self {
        Self {
            prefix: request.prefix,
            min_revision: request.min_revision.0,
        }
    }
}

impl TryFrom<proto::WatchItem> for WatchItem {
    type Error = ApiError;
    fn try_from(item: proto::WatchItem) -> Decoded<Self> {
        use watch_item::Item;
        Ok(match required(item.item, "item")? {
            Item::SnapshotChunk(chunk) => {
                Self::SnapshotChunk(all(chunk.groups, |group| group::state(Some(group)))?)
            }
            Item::SnapshotEnd(proto::SnapshotEnd { revision }) => Self::SnapshotEnd {
                revision: Revision(revision),
            },
            Item::Delta(proto::Delta {
                revision,
                group,
                deleted,
            }) => Self::Delta {
                revision: Revision(revision),
                group: group::state(group)?,
                deleted,
            },
            Item::Progress(proto::Progress { revision }) => Self::Progress {
                revision: Revision(revision),
            },
            Item::Resync(proto::Resync { reason }) => Self::Resync { reason },
        })
    }
}

impl From<WatchItem> for proto::WatchItem {
    fn from(item: WatchItem) -> Self {
        use watch_item::Item;
        let item = match item {
            WatchItem::SnapshotChunk(groups) => Item::SnapshotChunk(proto::SnapshotChunk {
                groups: groups.into_iter().map(group::state_to).collect(),
            }),
            WatchItem::SnapshotEnd { revision } => Item::SnapshotEnd(proto::SnapshotEnd {
                revision: revision.0,
            }),
            WatchItem::Delta {
                revision,
                group,
                deleted,
            } => Item::Delta(proto::Delta {
                revision: revision.0,
                group: Some(group::state_to(group)),
                deleted,
            }),
            WatchItem::Progress { revision } => Item::Progress(proto::Progress {
                revision: revision.0,
            }),
            WatchItem::Resync { reason } => Item::Resync(proto::Resync { reason }),
        };
        Self { item: Some(item) }
    }
}
