//! What is wrong with an operation whatever the key space holds. Servers refuse it before it is logged.

use std::collections::BTreeSet;

use super::request::NESTED_MAX;
use super::{Compare, KeyRange, KvError, KvOp, Put, Txn};

/// Checks an operation by etcd's rules; each list of a transaction holds at most `ops_max` entries, a nested one's fewer by what the
/// outer one holds.
///
/// # Errors
/// The refusal. Change the request.
pub fn check(op: &KvOp, ops_max: usize) -> Result<(), KvError> {
    check_op(op, ops_max)?;
    check_depth(op, 0)?;
    if let KvOp::Txn(txn) = op {
        check_writes(&txn.success)?;
        check_writes(&txn.failure)?;
    }
    Ok(())
}

/// Bytes are not read back deeper than this, so nothing deeper may be logged. etcd's clients cannot send it: their messages end before.
fn check_depth(op: &KvOp, depth: usize) -> Result<(), KvError> {
    let KvOp::Txn(txn) = op else { return Ok(()) };
    if depth == NESTED_MAX {
        return Err(KvError::TooManyOps {
            found: depth as u64 + 1,
            max: NESTED_MAX as u64,
        });
    }
    let mut nested = txn.success.iter().chain(&txn.failure);
    nested.try_for_each(|op| check_depth(op, depth + 1))
}

fn check_op(op: &KvOp, ops_max: usize) -> Result<(), KvError> {
    match op {
        KvOp::Range(range) => check_range(&range.range),
        KvOp::Put(put) => check_put(put),
        KvOp::DeleteRange(delete) => check_range(&delete.range),
        KvOp::Txn(txn) => check_txn(txn, ops_max),
    }
}

fn check_range(range: &KeyRange) -> Result<(), KvError> {
    if range.key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    Ok(())
}

fn check_put(put: &Put) -> Result<(), KvError> {
    if put.key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(KvError::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(KvError::LeaseProvided);
    }
    Ok(())
}

fn check_txn(txn: &Txn, ops_max: usize) -> Result<(), KvError> {
    let lists = [txn.compare.len(), txn.success.len(), txn.failure.len()];
    let longest = lists.into_iter().max().unwrap_or(0);
    let Some(nested_max) = ops_max.checked_sub(longest) else {
        return Err(KvError::TooManyOps {
            found: longest as u64,
            max: ops_max as u64,
        });
    };
    for Compare { range, .. } in &txn.compare {
        check_range(range)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        check_op(op, nested_max)?;
    }
    Ok(())
}

/// What one branch writes.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), KvError> {
        if !self.puts.insert(key) || self.deletes.iter().any(|range| is_hit(range, key)) {
            return Err(KvError::DuplicateKey);
        }
        Ok(())
    }
}

/// A deletion without an upper bound hits no put here: etcd lets both into one branch, and they take effect in their order.
fn is_hit(range: &KeyRange, key: &[u8]) -> bool {
    range.range_end.as_bytes() != [0] && range.contains(key)
}

/// Refuses a branch in which a key is put twice, or put and deleted. As in etcd, deletions of a nested transaction count for the puts of
/// later ones and of the branch itself, not for those of earlier ones; the two branches of one transaction never meet.
fn check_writes(ops: &[KvOp]) -> Result<Writes<'_>, KvError> {
    let mut writes = Writes::default();
    for op in ops {
        if let KvOp::DeleteRange(delete) = op {
            writes.deletes.push(&delete.range);
        }
    }
    for op in ops {
        let KvOp::Txn(txn) = op else { continue };
        let success = check_writes(&txn.success)?;
        let failure = check_writes(&txn.failure)?;
        for key in &success.puts {
            writes.put(key)?;
        }
        for key in failure.puts.difference(&success.puts) {
            writes.put(key)?;
        }
        writes.deletes.extend(success.deletes);
        writes.deletes.extend(failure.deletes);
    }
    for op in ops {
        if let KvOp::Put(put) = op {
            writes.put(&put.key)?;
        }
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{delete, delete_range, empty_put, put, range, txn};
    use super::*;

    fn refused(op: &KvOp) -> KvError {
        check(op, 8).unwrap_err()
    }

    #[test]
    fn empty_keys_are_refused_wherever_they_stand() {
        let compared = KvOp::Txn(Txn {
            compare: vec![Compare {
                result: Default::default(),
                target: super::super::CompareTarget::Version(0),
                range: KeyRange::default(),
            }],
            ..Txn::default()
        });
        for op in [put("", "v"), range("", ""), delete(""), compared] {
            assert_eq!(refused(&op), KvError::EmptyKey);
            assert_eq!(refused(&txn([op])), KvError::EmptyKey);
        }
    }

    #[test]
    fn what_is_to_be_kept_is_not_given() {
        let keep_value = Put {
            ignore_value: true,
            value: "v".into(),
            ..empty_put("a")
        };
        assert_eq!(refused(&KvOp::Put(keep_value)), KvError::ValueProvided);
        let keep_lease = Put {
            ignore_lease: true,
            lease: 3,
            ..empty_put("a")
        };
        assert_eq!(refused(&KvOp::Put(keep_lease)), KvError::LeaseProvided);
    }

    #[test]
    fn nested_lists_may_hold_what_the_outer_ones_leave() {
        let reads = |count| vec![range("a", ""); count];
        assert_eq!(check(&txn(reads(8)), 8), Ok(()));
        let too_many = |found, max| KvError::TooManyOps { found, max };
        assert_eq!(refused(&txn(reads(9))), too_many(9, 8));
        let outer = |nested| {
            let mut ops = reads(3);
            ops.push(txn(reads(nested)));
            txn(ops)
        };
        assert_eq!(check(&outer(4), 8), Ok(()));
        assert_eq!(refused(&outer(5)), too_many(5, 4));
    }

    #[test]
    fn nesting_ends_where_bytes_are_not_read_any_deeper() {
        let nested = |depth| (1..depth).fold(txn([]), |inner, _| txn([inner]));
        let deepest = nested(NESTED_MAX);
        assert_eq!(check(&deepest, usize::MAX), Ok(()));
        let bytes = postcard::to_allocvec(&deepest).unwrap();
        assert_eq!(postcard::from_bytes(&bytes), Ok(deepest));
        let deeper = nested(NESTED_MAX + 1);
        assert!(check(&deeper, usize::MAX).is_err());
        let bytes = postcard::to_allocvec(&deeper).unwrap();
        assert!(postcard::from_bytes::<KvOp>(&bytes).is_err());
        // A hostile peer's, much deeper: three bytes per level.
        let bytes: Vec<u8> = [3, 0, 1].repeat(1_000_000);
        assert!(postcard::from_bytes::<KvOp>(&bytes).is_err());
        assert!(postcard::from_bytes::<KvOp>(&postcard::to_allocvec(&txn([])).unwrap()).is_ok());
    }

    /// Each case was tried on etcd 3.4.23.
    #[test]
    fn keys_written_twice_are_refused_as_etcd_does() {
        let branches = |success, failure| {
            KvOp::Txn(Txn {
                compare: vec![],
                success,
                failure,
            })
        };
        let allowed = [
            txn([txn([put("n", "1")]), txn([delete("n")])]),
            txn([put("b", "1"), delete_range("a", "\0")]),
            txn([delete_range("a", "\0"), put("b", "1")]),
            txn([delete_range("a", "b"), put("b", "1")]),
            txn([branches(vec![put("n", "1")], vec![put("n", "2")])]),
            txn([delete("n"), delete_range("a", "z")]),
        ];
        for op in allowed {
            assert_eq!(check(&op, 8), Ok(()), "{op:?}");
        }
        let doubled = [
            txn([put("a", "1"), put("a", "2")]),
            txn([delete("b"), put("b", "1")]),
            txn([put("b", "1"), delete_range("a", "c")]),
            txn([txn([delete("b")]), txn([put("b", "1")])]),
            txn([txn([put("n", "1")]), delete("n")]),
            txn([txn([put("n", "1")]), put("n", "2")]),
            txn([
                branches(vec![put("n", "1")], vec![put("n", "2")]),
                put("n", "3"),
            ]),
            txn([
                branches(vec![put("n", "1")], vec![]),
                branches(vec![], vec![put("n", "3")]),
            ]),
            txn([
                branches(vec![], vec![put("n", "1")]),
                branches(vec![], vec![put("n", "3")]),
            ]),
            branches(vec![], vec![put("a", "1"), put("a", "2")]),
        ];
        for op in doubled {
            assert_eq!(refused(&op), KvError::DuplicateKey, "{op:?}");
        }
    }
}
