//! Makes two sorted answers the same if they differ only in the order of what their sort takes as equal.

use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_wire::etcd::{authpb, mvccpb::KeyValue};

use crate::etcd_diff::ops::{Answer, Op};

/// Brings the sorted answers of both sides into one order, where that is all in which they differ.
pub(super) fn settle(op: &Op, left: &mut Answer, right: &mut Answer) {
    match (op, left, right) {
        (Op::Range(asked), Answer::Range(left), Answer::Range(right)) => range(asked, left, right),
        (Op::Txn(asked), Answer::Txn(left), Answer::Txn(right)) => txn(asked, left, right),
        (Op::RoleGet(_), Answer::RoleGet(left), Answer::RoleGet(right)) => {
            permissions(&mut left.perm, &mut right.perm);
        }
        _ => {}
    }
}

/// A role's permissions are kept sorted by their first key alone. One that had more than twelve keeps the order that it then came to.
fn permissions(left: &mut [authpb::Permission], right: &mut [authpb::Permission]) {
    if left
        .iter()
        .map(|permission| &permission.key)
        .ne(right.iter().map(|permission| &permission.key))
    {
        return;
    }
    let settled = |a: &authpb::Permission, b: &authpb::Permission| {
        (&a.key, &a.range_end, a.perm_type).cmp(&(&b.key, &b.range_end, b.perm_type))
    };
    left.sort_by(settled);
    right.sort_by(settled);
}

fn txn(asked: &pb::TxnRequest, left: &mut pb::TxnResponse, right: &mut pb::TxnResponse) {
    use pb::request_op::Request;
    use pb::response_op::Response;
    if left.succeeded != right.succeeded {
        return;
    }
    let ops = if left.succeeded {
        &asked.success
    } else {
        &asked.failure
    };
    for ((op, left), right) in ops
        .iter()
        .zip(&mut left.responses)
        .zip(&mut right.responses)
    {
        match (&op.request, &mut left.response, &mut right.response) {
            (
                Some(Request::RequestRange(asked)),
                Some(Response::ResponseRange(left)),
                Some(Response::ResponseRange(right)),
            ) => range(asked, left, right),
            (
                Some(Request::RequestTxn(asked)),
                Some(Response::ResponseTxn(left)),
                Some(Response::ResponseTxn(right)),
            ) => txn(asked, left, right),
            _ => {}
        }
    }
}

fn range(asked: &pb::RangeRequest, left: &mut pb::RangeResponse, right: &mut pb::RangeResponse) {
    let target = asked.sort_target();
    if asked.sort_order() == SortOrder::None && target == SortTarget::Key {
        return;
    }
    let equals = |kv: &KeyValue| match target {
        SortTarget::Key => (0, kv.key.clone()),
        SortTarget::Version => (kv.version, Default::default()),
        SortTarget::Create => (kv.create_revision, Default::default()),
        SortTarget::Mod => (kv.mod_revision, Default::default()),
        // Sorted by them even where they are left out of the answer.
        SortTarget::Value => (0, kv.value.clone()),
    };
    let order = |kvs: &[KeyValue]| kvs.iter().map(equals).collect::<Vec<_>>();
    if order(&left.kvs) != order(&right.kvs) {
        return;
    }
    if left.more && right.more {
        // Which of several equal ones the limit leaves out is open as well.
        left.kvs.clear();
        right.kvs.clear();
    } else {
        left.kvs.sort_by(|a, b| a.key.cmp(&b.key));
        right.kvs.sort_by(|a, b| a.key.cmp(&b.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: SortTarget, left: &[(&str, i64)], right: &[(&str, i64)], expected: bool) {
        let asked = pb::RangeRequest {
            sort_order: SortOrder::Descend.into(),
            sort_target: target.into(),
            ..Default::default()
        };
        let answer = |kvs: &[(&str, i64)]| {
            let kvs = kvs.iter().map(|(key, version)| KeyValue {
                key: key.to_string().into(),
                version: *version,
                ..Default::default()
            });
            Answer::Range(pb::RangeResponse {
                kvs: kvs.collect(),
                ..Default::default()
            })
        };
        let (mut left, mut right) = (answer(left), answer(right));
        settle(&Op::Range(asked), &mut left, &mut right);
        assert_eq!(left == right, expected);
    }

    #[test]
    fn only_the_order_of_permissions_of_one_key_is_open() {
        let check = |left: &[(&str, &str)], right: &[(&str, &str)], expected: bool| {
            let answer = |ranges: &[(&str, &str)]| {
                let permissions = ranges.iter().map(|(key, end)| authpb::Permission {
                    key: key.to_string().into(),
                    range_end: end.to_string().into(),
                    perm_type: 0,
                });
                Answer::RoleGet(pb::AuthRoleGetResponse {
                    perm: permissions.collect(),
                    header: None,
                })
            };
            let (mut left, mut right) = (answer(left), answer(right));
            let asked = Op::RoleGet(pb::AuthRoleGetRequest::default());
            settle(&asked, &mut left, &mut right);
            assert_eq!(left == right, expected);
        };
        let sorted = [("a", "b"), ("a", "c"), ("b", "c")];
        check(&sorted, &[("a", "c"), ("a", "b"), ("b", "c")], true);
        check(&sorted, &[("b", "c"), ("a", "b"), ("a", "c")], false);
        check(&sorted, &[("a", "b"), ("a", "c"), ("b", "d")], false);
    }

    #[test]
    fn only_the_order_of_equal_ones_is_open() {
        let sorted = [("a", 2), ("b", 1), ("c", 1)];
        check(
            SortTarget::Version,
            &sorted,
            &[("a", 2), ("c", 1), ("b", 1)],
            true,
        );
        check(
            SortTarget::Version,
            &sorted,
            &[("b", 1), ("a", 2), ("c", 1)],
            false,
        );
        check(
            SortTarget::Version,
            &sorted,
            &[("a", 2), ("b", 1), ("d", 1)],
            false,
        );
        check(
            SortTarget::Key,
            &sorted,
            &[("a", 2), ("c", 1), ("b", 1)],
            false,
        );
    }
}
