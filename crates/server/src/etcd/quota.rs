//! The key space's quota: what would go over it is refused, and the alarm raised that makes every server refuse.

use std::sync::atomic::{AtomicBool, Ordering};

use quorate_coord::kv::KvError;
use quorate_coord::{AlarmAction, AlarmKind, Command};
use quorate_wire::etcd::etcdserverpb as pb;
use tonic::Status;

use super::{Caller, Etcd, errors};

/// What a key takes beside its bytes, at most.
const KEY_OVERHEAD: usize = 256;
/// What a lease takes.
pub(super) const OF_LEASE: usize = 64;

/// What a put may add.
pub(super) fn of_put(request: &pb::PutRequest) -> usize {
    KEY_OVERHEAD + request.key.len() + request.value.len()
}

/// What a transaction may add: its dearer branch.
pub(super) fn of_txn(request: &pb::TxnRequest) -> usize {
    use pb::request_op::Request;
    let of = |ops: &[pb::RequestOp]| -> usize {
        let costs = ops.iter().map(|op| match &op.request {
            Some(Request::RequestPut(put)) => of_put(put),
            Some(Request::RequestTxn(txn)) => of_txn(txn),
            _ => 0,
        });
        costs.sum()
    };
    of(&request.success).max(of(&request.failure))
}

/// The quota, and whether the alarm is on its way.
#[derive(Debug)]
pub(super) struct Quota {
    /// `None`: no limit.
    bytes_max: Option<u64>,
    raising: AtomicBool,
}

impl Quota {
    pub(super) fn new(bytes_max: Option<u64>) -> Self {
        Self {
            bytes_max,
            raising: AtomicBool::new(false),
        }
    }
}

impl Etcd {
    /// Refuses what would go over the quota. It is checked here and not when applied, as the servers' quotas may differ.
    pub(super) fn check_quota(&self, caller: &Caller, cost: usize) -> Result<(), Status> {
        let Some(max) = self.quota.bytes_max else {
            return Ok(());
        };
        let version = self.api.publisher.version();
        let found = version.state.kv().size_bytes();
        if cost == 0 || found + cost as u64 <= max {
            return Ok(());
        }
        let is_raised = version.state.is_alarmed(AlarmKind::NoSpace);
        if !is_raised && !self.quota.raising.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                found,
                max,
                "the key space's quota is used up; raising the alarm"
            );
            let (etcd, caller) = (self.clone(), caller.clone());
            tokio::spawn(async move {
                let command = Command::Alarm {
                    action: AlarmAction::Raise,
                    member: etcd.api.own,
                    kind: AlarmKind::NoSpace,
                };
                if let Err(error) = etcd.apply(&caller, command).await {
                    tracing::warn!(%error, "the alarm could not be raised; the next refusal tries again");
                }
                etcd.quota.raising.store(false, Ordering::Release);
            });
        }
        Err(errors::of_kv(&KvError::NoSpace { found }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dearer_branch_of_a_transaction_counts() {
        use pb::request_op::Request;
        let put = |bytes: usize| pb::RequestOp {
            request: Some(Request::RequestPut(pb::PutRequest {
                key: "k".into(),
                value: vec![0; bytes].into(),
                ..Default::default()
            })),
        };
        let txn = pb::TxnRequest {
            compare: Vec::new(),
            success: vec![put(10), put(20)],
            failure: vec![put(1_000)],
        };
        assert_eq!(of_txn(&txn), KEY_OVERHEAD + 1 + 1_000);
    }
}
