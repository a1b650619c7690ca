//! Between etcd's messages and the key space's own types.
//!
//! # Invariants
//! - Nothing a client sends makes it panic, and no field is left out silently.

use bytes::Bytes;
use quorate_coord::kv::{
    Blob, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KeyValue, KvError, KvOp,
    KvOpReply, Put, Range, RangeReply, SortOrder, SortTarget, Txn, TxnReply,
};
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::mvccpb;
use tonic::Status;

use super::errors;

/// Longer bytes are shared with the state instead of copied: a copy of a few costs less than keeping count.
const SHARED_BYTES_MIN: usize = 512;

/// Revisions and counts are signed in etcd's messages.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

struct Shared(Blob);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A key or value on its way out.
pub(crate) fn bytes(blob: &Blob) -> Bytes {
    if blob.len() < SHARED_BYTES_MIN {
        Bytes::copy_from_slice(blob)
    } else {
        Bytes::from_owner(Shared(blob.clone()))
    }
}

/// A key with its value.
pub(crate) fn key_value(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: bytes(&kv.key),
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: signed(kv.version),
        value: bytes(&kv.value),
        lease: signed(kv.lease),
    }
}

/// Roughly what a key with its value takes in an answer.
pub(super) fn size_bytes(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len() + 32
}

pub(super) fn key_range(key: &[u8], range_end: &[u8]) -> KeyRange {
    KeyRange {
        key: Blob::from(key),
        range_end: Blob::from(range_end),
    }
}

/// A read.
///
/// # Errors
/// An order that there is not.
pub(super) fn range(request: &pb::RangeRequest) -> Result<Range, Status> {
    use pb::range_request::{SortOrder as Order, SortTarget as Target};
    let bad_sort = |_| Status::invalid_argument("etcdserver: invalid sort option");
    Ok(Range {
        range: key_range(&request.key, &request.range_end),
        revision: request.revision,
        limit: request.limit,
        sort_order: match Order::try_from(request.sort_order).map_err(bad_sort)? {
            Order::None => SortOrder::None,
            Order::Ascend => SortOrder::Ascend,
            Order::Descend => SortOrder::Descend,
        },
        sort_target: match Target::try_from(request.sort_target).map_err(bad_sort)? {
            Target::Key => SortTarget::Key,
            Target::Version => SortTarget::Version,
            Target::Create => SortTarget::Create,
            Target::Mod => SortTarget::Mod,
            Target::Value => SortTarget::Value,
        },
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

pub(super) fn put(request: &pb::PutRequest) -> Put {
    Put {
        key: Blob::from(&request.key[..]),
        value: Blob::from(&request.value[..]),
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(super) fn delete_range(request: &pb::DeleteRangeRequest) -> DeleteRange {
    DeleteRange {
        range: key_range(&request.key, &request.range_end),
        prev_kv: request.prev_kv,
    }
}

/// A transaction. Its depth is bounded by the decoder's.
///
/// # Errors
/// What etcd refuses before it looks at the whole: empty keys of comparisons, operations that are none, orders that there are not.
pub(super) fn txn(request: &pb::TxnRequest) -> Result<Txn, Status> {
    let mut converted = Vec::with_capacity(request.compare.len());
    for asked in &request.compare {
        match compare(asked) {
            Some(compare) => converted.push(compare),
            // Nobody would look at it later.
            None if asked.key.is_empty() => return Err(errors::of_kv(&KvError::EmptyKey)),
            None => {}
        }
    }
    Ok(Txn {
        compare: converted,
        success: ops(&request.success)?,
        failure: ops(&request.failure)?,
    })
}

fn ops(requests: &[pb::RequestOp]) -> Result<Vec<KvOp>, Status> {
    requests.iter().map(op).collect()
}

fn op(request: &pb::RequestOp) -> Result<KvOp, Status> {
    use pb::request_op::Request;
    Ok(match &request.request {
        Some(Request::RequestRange(request)) => KvOp::Range(range(request)?),
        Some(Request::RequestPut(request)) => KvOp::Put(put(request)),
        Some(Request::RequestDeleteRange(request)) => KvOp::DeleteRange(delete_range(request)),
        Some(Request::RequestTxn(request)) => KvOp::Txn(txn(request)?),
        None => return Err(errors::of_kv(&KvError::KeyNotFound)),
    })
}

/// A condition. `None`: it holds whatever is there, as etcd has it for results that it does not know.
fn compare(request: &pb::Compare) -> Option<Compare> {
    use pb::compare::{CompareResult as Result, CompareTarget as Target, TargetUnion};
    let result = match Result::try_from(request.result) {
        Ok(Result::Equal) => CompareResult::Equal,
        Ok(Result::Greater) => CompareResult::Greater,
        Ok(Result::Less) => CompareResult::Less,
        Ok(Result::NotEqual) => CompareResult::NotEqual,
        Err(_) => return None,
    };
    // What is given for another target than the one named counts as not given.
    let given = &request.target_union;
    let target = match Target::try_from(request.target) {
        Ok(Target::Version) => CompareTarget::Version(match given {
            Some(TargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(Target::Create) => CompareTarget::Create(match given {
            Some(TargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(Target::Mod) => CompareTarget::Mod(match given {
            Some(TargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(Target::Value) => CompareTarget::Value(match given {
            Some(TargetUnion::Value(value)) => Blob::from(&value[..]),
            _ => Blob::default(),
        }),
        Ok(Target::Lease) => CompareTarget::Lease(match given {
            Some(TargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        // A target that is unknown is equal to anything; a version is never negative.
        Err(_) if result == CompareResult::Equal => return None,
        Err(_) => {
            return Some(Compare {
                result: CompareResult::Less,
                target: CompareTarget::Version(-1),
                range: key_range(&request.key, &[]),
            });
        }
    };
    Some(Compare {
        result,
        target,
        range: key_range(&request.key, &request.range_end),
    })
}

/// What a read found.
pub(super) fn range_response(reply: &RangeReply, header: pb::ResponseHeader) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: reply.kvs.iter().map(key_value).collect(),
        more: reply.more,
        count: signed(reply.count),
    }
}

/// What a transaction did. `revision` is the one after it.
pub(super) fn txn_response(reply: &TxnReply, header: pb::ResponseHeader) -> pb::TxnResponse {
    let revision = u64::try_from(header.revision).unwrap_or(0);
    let mut at = Progress {
        before: revision - u64::from(changes(reply)),
        changed: false,
    };
    txn_response_at(reply, header, &mut at)
}

/// Where a transaction is: each answer in it tells the revision that its operation saw or made.
struct Progress {
    before: u64,
    changed: bool,
}

impl Progress {
    fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader {
            revision: signed(self.before + u64::from(self.changed)),
            ..Default::default()
        }
    }
}

fn changes(reply: &TxnReply) -> bool {
    reply.responses.iter().any(|reply| match reply {
        KvOpReply::Range(_) => false,
        KvOpReply::Put { .. } => true,
        KvOpReply::DeleteRange { deleted, .. } => *deleted > 0,
        KvOpReply::Txn(reply) => changes(reply),
    })
}

fn txn_response_at(
    reply: &TxnReply,
    header: pb::ResponseHeader,
    at: &mut Progress,
) -> pb::TxnResponse {
    let responses = reply.responses.iter().map(|reply| pb::ResponseOp {
        response: Some(response_at(reply, at)),
    });
    pb::TxnResponse {
        header: Some(header),
        succeeded: reply.succeeded,
        responses: responses.collect(),
    }
}

fn response_at(reply: &KvOpReply, at: &mut Progress) -> pb::response_op::Response {
    use pb::response_op::Response;
    match reply {
        KvOpReply::Range(reply) => Response::ResponseRange(range_response(reply, at.header())),
        KvOpReply::Put { prev_kv } => {
            at.changed = true;
            Response::ResponsePut(put_response(prev_kv.as_ref(), at.header()))
        }
        KvOpReply::DeleteRange { deleted, prev_kvs } => {
            at.changed |= *deleted > 0;
            Response::ResponseDeleteRange(delete_response(*deleted, prev_kvs, at.header()))
        }
        // The header of a transaction in another one stays empty, as in etcd.
        KvOpReply::Txn(reply) => {
            Response::ResponseTxn(txn_response_at(reply, Default::default(), at))
        }
    }
}

pub(super) fn put_response(
    prev_kv: Option<&KeyValue>,
    header: pb::ResponseHeader,
) -> pb::PutResponse {
    pb::PutResponse {
        header: Some(header),
        prev_kv: prev_kv.map(key_value),
    }
}

pub(super) fn delete_response(
    deleted: u64,
    prev_kvs: &[KeyValue],
    header: pb::ResponseHeader,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: signed(deleted),
        prev_kvs: prev_kvs.iter().map(key_value).collect(),
    }
}

/// How many keys an operation's answer holds, and roughly how many bytes.
pub(super) fn weight(reply: &KvOpReply) -> (usize, usize) {
    let of = |kvs: &[KeyValue]| (kvs.len(), kvs.iter().map(size_bytes).sum());
    match reply {
        KvOpReply::Range(reply) => of(&reply.kvs),
        KvOpReply::Put { prev_kv } => of(prev_kv.as_slice()),
        KvOpReply::DeleteRange { prev_kvs, .. } => of(prev_kvs),
        KvOpReply::Txn(reply) => txn_weight(reply),
    }
}

pub(super) fn txn_weight(reply: &TxnReply) -> (usize, usize) {
    let weights = reply.responses.iter().map(weight);
    weights.fold((0, 0), |(keys, bytes), (more_keys, more_bytes)| {
        (keys + more_keys, bytes + more_bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(value: &str) -> KeyValue {
        KeyValue {
            key: Blob::from("k"),
            value: Blob::from(value),
            create_revision: 5,
            mod_revision: 6,
            version: 2,
            lease: 7,
        }
    }

    #[test]
    fn long_values_are_shared_and_short_ones_copied() {
        for length in [0, 3, SHARED_BYTES_MIN, 100_000] {
            let blob = Blob::from(vec![b'x'; length]);
            let out = bytes(&blob);
            assert_eq!(&out[..], blob.as_bytes());
            let shared = length > 0 && out.as_ptr() == blob.as_bytes().as_ptr();
            assert_eq!(shared, length >= SHARED_BYTES_MIN, "{length} bytes");
        }
    }

    #[test]
    fn answers_in_a_transaction_tell_the_revision_that_their_operation_saw_or_made() {
        let range = || KvOpReply::Range(RangeReply::default());
        let delete = |deleted| KvOpReply::DeleteRange {
            deleted,
            prev_kvs: Vec::new(),
        };
        let reply = TxnReply {
            succeeded: true,
            responses: vec![
                range(),
                delete(0),
                KvOpReply::Txn(TxnReply {
                    succeeded: true,
                    responses: vec![range(), KvOpReply::Put { prev_kv: None }],
                }),
                range(),
            ],
        };
        let header = pb::ResponseHeader {
            revision: 9,
            ..Default::default()
        };
        let mut seen = Vec::new();
        collect(&txn_response(&reply, header), &mut seen);
        assert_eq!(seen, [8, 8, 0, 8, 9, 9]);
    }

    fn collect(response: &pb::TxnResponse, seen: &mut Vec<i64>) {
        use pb::response_op::Response;
        for response in &response.responses {
            let header = match response.response.as_ref().unwrap() {
                Response::ResponseRange(response) => &response.header,
                Response::ResponsePut(response) => &response.header,
                Response::ResponseDeleteRange(response) => &response.header,
                Response::ResponseTxn(response) => &response.header,
            };
            seen.push(header.unwrap().revision);
            if let Some(Response::ResponseTxn(response)) = &response.response {
                collect(response, seen);
            }
        }
    }

    #[test]
    fn comparisons_that_are_unknown_end_as_in_etcd() {
        let asked = |result, target| pb::Compare {
            result,
            target,
            key: "k".into(),
            ..Default::default()
        };
        assert_eq!(compare(&asked(7, 0)), None);
        assert_eq!(compare(&asked(0, 7)), None);
        assert_eq!(
            compare(&asked(1, 7)).unwrap().target,
            CompareTarget::Version(-1)
        );
        assert_eq!(
            compare(&pb::Compare {
                target_union: Some(pb::compare::TargetUnion::Version(3)),
                ..asked(0, 2)
            })
            .unwrap()
            .target,
            CompareTarget::Mod(0)
        );
    }

    #[test]
    fn a_key_comes_out_with_all_its_numbers() {
        let out = key_value(&kv("v"));
        let numbers = (
            out.create_revision,
            out.mod_revision,
            out.version,
            out.lease,
        );
        assert_eq!((numbers, &out.value[..]), ((5, 6, 2, 7), b"v".as_slice()));
        assert_eq!(
            range(&pb::RangeRequest {
                sort_target: 9,
                ..Default::default()
            })
            .unwrap_err()
            .message(),
            "etcdserver: invalid sort option"
        );
    }
}
