//! What is wrong with an operation whatever the key space holds. Servers refuse it before it is logged.

use std::collections::BTreeSet;

use super::{Compare, KeyRange, KvError, KvOp, Put, Txn};

/// Checks an operation by etcd's rules; each list of a transaction holds at most `ops_max` entries, a nested one's fewer by what the
/// outer one holds.
///
/// # Errors
/// The refusal. Change the request.
pub fn check(op: &KvOp, ops_max: usize) -> Result<(), KvError> {
    check_op(op, ops_max)?;
    if let KvOp::Txn(txn) = op {
        check_writes(&txn.success)?;
        check_writes(&txn.failure)?;
    }
    Ok(())
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

fn is_hit(range: &KeyRange, key: &[u8]) -> bool {
    range.contains(key)
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
