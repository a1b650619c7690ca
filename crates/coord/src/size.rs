//! Roughly how large commands are once encoded, for flow control and for the limit on specs.

use quorate_types::Payload;

use crate::command::{Command, Envelope};
use crate::kv::{Compare, CompareTarget, KeyRange, KeyValue, KvCaller, KvOp, KvOpReply};
use crate::reply::Reply;
use crate::spec::{ContenderSpec, GroupSpec, NodeSpec, ProposedConfiguration};

/// Encoded size of a record's fixed parts: an upper bound of its numbers and tags.
const FIXED_BYTES: usize = 64;

fn pairs_bytes<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> usize {
    pairs.map(|(key, value)| key.len() + value.len() + 4).sum()
}

impl ProposedConfiguration {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.len() + 2)
            .sum::<usize>()
            + pairs_bytes(self.metadata.iter())
    }
}

impl GroupSpec {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        FIXED_BYTES
            + pairs_bytes(self.require.iter())
            + pairs_bytes(self.prefer.iter().map(|(key, value)| (key, value)))
    }
}

impl ContenderSpec {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        FIXED_BYTES + self.configuration.size_bytes()
    }
}

impl NodeSpec {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        FIXED_BYTES + self.name.as_str().len() + pairs_bytes(self.labels.iter())
    }
}

impl KvOp {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let range_bytes = |range: &KeyRange| range.key.len() + range.range_end.len() + 16;
        match self {
            KvOp::Range(range) => range_bytes(&range.range) + FIXED_BYTES,
            KvOp::Put(put) => put.key.len() + put.value.len() + 32,
            KvOp::DeleteRange(delete) => range_bytes(&delete.range),
            KvOp::Txn(txn) => {
                let compared = |compare: &Compare| {
                    let value = match &compare.target {
                        CompareTarget::Value(value) => value.len(),
                        _ => 0,
                    };
                    range_bytes(&compare.range) + value + 16
                };
                let ops = txn.success.iter().chain(&txn.failure);
                16 + txn.compare.iter().map(compared).sum::<usize>()
                    + ops.map(KvOp::size_bytes).sum::<usize>()
            }
        }
    }
}

impl KeyValue {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.len() + 32
    }
}

impl KvOpReply {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let all = |kvs: &[KeyValue]| kvs.iter().map(KeyValue::size_bytes).sum::<usize>();
        16 + match self {
            KvOpReply::Range(range) => all(&range.kvs),
            KvOpReply::Put { prev_kv } => prev_kv.as_ref().map_or(0, KeyValue::size_bytes),
            KvOpReply::DeleteRange { prev_kvs, .. } => all(prev_kvs),
            KvOpReply::Txn(txn) => txn.responses.iter().map(KvOpReply::size_bytes).sum(),
        }
    }
}

impl Reply {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Reply::Kv { reply, .. } => FIXED_BYTES + reply.size_bytes(),
            // A refusal names a group, and what it says of it is short.
            Reply::Partly { refused, .. } => FIXED_BYTES + refused.len() * 256,
            _ => FIXED_BYTES,
        }
    }
}

fn caller_bytes(caller: Option<&KvCaller>) -> usize {
    caller.map_or(0, |caller| caller.user.len() + 16)
}

impl Command {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Command::OpenSession { node, .. } => node.as_ref().map_or(0, NodeSpec::size_bytes),
            Command::CreateGroups { groups } => groups
                .iter()
                .map(|(name, spec)| name.as_str().len() + spec.size_bytes())
                .sum(),
            Command::UpdateGroup { group, spec, .. } => group.as_str().len() + spec.size_bytes(),
            Command::Contend { groups, .. } => groups
                .iter()
                .map(|(name, spec)| name.as_str().len() + spec.size_bytes())
                .sum(),
            Command::Withdraw { groups, .. } => {
                groups.iter().map(|name| name.as_str().len() + 2).sum()
            }
            Command::Report { reports, .. } => reports
                .iter()
                .map(|(tenure, _)| tenure.group.name.as_str().len() + FIXED_BYTES)
                .sum(),
            Command::VacateTenures { tenures, .. } => tenures
                .iter()
                .map(|tenure| tenure.group.name.as_str().len() + FIXED_BYTES)
                .sum(),
            Command::ExpireSessions { sessions, .. } => sessions.len() * 20,
            Command::DeleteGroup { group, .. } | Command::AbortTransfer { group } => {
                group.as_str().len()
            }
            Command::Transfer { group, to, .. } => {
                group.as_str().len() + to.as_ref().map_or(0, |node| node.as_str().len())
            }
            Command::AdmitNode { node, .. } => node.as_str().len(),
            Command::Rebalance { prefix, .. } => prefix.len(),
            Command::ReportFaulty { tenure, reason, .. } => {
                tenure.group.name.as_str().len() + reason.len() + FIXED_BYTES
            }
            Command::WithdrawReport { tenure, .. } => {
                tenure.group.name.as_str().len() + FIXED_BYTES
            }
            Command::Kv { caller, op } => caller_bytes(caller.as_ref()) + op.size_bytes(),
            Command::CompactKv { caller, .. }
            | Command::GrantLease { caller, .. }
            | Command::RevokeLease { caller, .. } => caller_bytes(caller.as_ref()),
            Command::Alarm { .. } => 0,
            Command::Auth { caller, change } => caller_bytes(caller.as_ref()) + change.size_bytes(),
            Command::CloseSession { .. } | Command::RevokeSession { .. } | Command::Advance => 0,
        }
    }
}

impl Payload for Envelope {
    fn size_bytes(&self) -> usize {
        2 * FIXED_BYTES + self.principal.as_str().len() + self.command.size_bytes()
    }
}
