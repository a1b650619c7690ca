//! Applying operations: all or nothing, in one revision.
//!
//! As in etcd every condition, nested ones included, is judged on the version before the transaction, then everything on the chosen path
//! is checked, and only then written. So nothing has to be taken back.

use super::{
    Blob, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KeyValue, KvError, KvOp,
    KvOpReply, KvStore, OWN_PREFIX, Put, Range, Txn, TxnReply,
};

/// The first key after all those below [`OWN_PREFIX`].
const OWN_END: &[u8] = b"/quorate0";

impl Txn {
    /// Whether it only reads, whichever way its conditions end.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            KvOp::Range(_) => true,
            KvOp::Put(_) | KvOp::DeleteRange(_) => false,
            KvOp::Txn(txn) => txn.is_read_only(),
        })
    }

    fn branch(&self, succeeded: bool) -> &[KvOp] {
        if succeeded {
            &self.success
        } else {
            &self.failure
        }
    }
}

impl KvStore {
    /// Applies an operation. `lives` tells whether a lease does.
    ///
    /// # Errors
    /// The refusal; nothing was changed then.
    pub(crate) fn execute(
        &mut self,
        op: &KvOp,
        lives: &dyn Fn(u64) -> bool,
    ) -> Result<KvOpReply, KvError> {
        if let KvOp::Txn(txn) = op {
            return Ok(KvOpReply::Txn(self.execute_txn(txn, lives)?));
        }
        match op {
            KvOp::Put(put) => {
                // Alone, the lease is looked at before the key; within a transaction after it.
                check_lease(put, lives)?;
                self.check_put(put)?;
            }
            KvOp::DeleteRange(delete) => self.check_delete(delete)?,
            KvOp::Range(range) => return Ok(KvOpReply::Range(self.range(range)?)),
            KvOp::Txn(_) => {}
        }
        let reply = self.perform(op, &mut [].iter());
        self.seal();
        Ok(reply)
    }

    pub(super) fn execute_txn(
        &mut self,
        txn: &Txn,
        lives: &dyn Fn(u64) -> bool,
    ) -> Result<TxnReply, KvError> {
        let mut path = Vec::new();
        self.decide(txn, &mut path);
        let mut chosen = Vec::new();
        choose(txn, &mut path.iter(), &mut chosen);
        self.check_chosen(&chosen, lives)?;
        let reply = self.perform_txn(txn, &mut path.iter());
        self.seal();
        Ok(reply)
    }

    /// Judges the conditions of a transaction and of those nested in the branches taken, in the order they are met.
    fn decide(&self, txn: &Txn, path: &mut Vec<bool>) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        path.push(succeeded);
        for op in txn.branch(succeeded) {
            if let KvOp::Txn(nested) = op {
                self.decide(nested, path);
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let Some(bounds) = compare.range.bounds() else {
            return holds_for_none(compare);
        };
        let mut found = self.index.live.range::<_, [u8]>(bounds).peekable();
        if found.peek().is_none() {
            return holds_for_none(compare);
        }
        found.all(|(_, change)| holds_for(compare, change.version()))
    }

    /// As etcd: first all puts, then all reads.
    fn check_chosen(&self, chosen: &[&KvOp], lives: &dyn Fn(u64) -> bool) -> Result<(), KvError> {
        for (at, op) in chosen.iter().enumerate() {
            match op {
                KvOp::Put(put) => {
                    self.check_put(put)?;
                    if keeps_something(put) && is_deleted_by(&chosen[..at], &put.key) {
                        return Err(KvError::KeyNotFound);
                    }
                    check_lease(put, lives)?;
                }
                KvOp::DeleteRange(delete) => self.check_delete(delete)?,
                KvOp::Range(_) | KvOp::Txn(_) => {}
            }
        }
        for op in chosen {
            if let KvOp::Range(range) = op {
                self.check_read(range)?;
            }
        }
        Ok(())
    }

    fn check_put(&self, put: &Put) -> Result<(), KvError> {
        if put.key.starts_with(OWN_PREFIX) {
            return Err(read_only(&put.key));
        }
        if keeps_something(put) && self.get(&put.key).is_none() {
            return Err(KvError::KeyNotFound);
        }
        Ok(())
    }

    /// Refuses a deletion that would hit a key of the state machine's own.
    fn check_delete(&self, delete: &DeleteRange) -> Result<(), KvError> {
        let own = KeyRange {
            key: Blob::from(delete.range.key.as_bytes().max(OWN_PREFIX)),
            range_end: match delete.range.range_end.as_bytes() {
                [] | [0] => Blob::from(OWN_END),
                end => Blob::from(end.min(OWN_END)),
            },
        };
        // A single key is in its own range only.
        if delete.range.range_end.is_empty() && own.key != delete.range.key {
            return Ok(());
        }
        let Some(bounds) = own.bounds() else {
            return Ok(());
        };
        let hit = self.index.live.range::<_, [u8]>(bounds).next();
        match hit.filter(|(key, _)| delete.range.contains(key)) {
            Some((key, _)) => Err(read_only(key)),
            None => Ok(()),
        }
    }

    /// Within a transaction a negative revision is one of the past, not the newest: etcd's rule.
    fn check_read(&self, range: &Range) -> Result<(), KvError> {
        let oldest = self
            .compaction
            .map_or(-1, |through| i64::try_from(through).unwrap_or(i64::MAX));
        let now = i64::try_from(self.revision).unwrap_or(i64::MAX);
        if range.revision > now {
            return Err(KvError::FutureRevision {
                asked: range.revision.unsigned_abs(),
                now: self.revision,
            });
        }
        if range.revision != 0 && range.revision < oldest {
            return Err(KvError::Compacted {
                asked: u64::try_from(range.revision).unwrap_or(0),
                compacted: self.compacted(),
            });
        }
        Ok(())
    }

    fn perform_txn(&mut self, txn: &Txn, path: &mut std::slice::Iter<'_, bool>) -> TxnReply {
        let succeeded = *path.next().expect("every transaction met was decided");
        let branch = txn.branch(succeeded).iter();
        let responses = branch.map(|op| self.perform(op, path)).collect();
        TxnReply {
            succeeded,
            responses,
        }
    }

    fn perform(&mut self, op: &KvOp, path: &mut std::slice::Iter<'_, bool>) -> KvOpReply {
        match op {
            KvOp::Range(range) => {
                KvOpReply::Range(self.range(range).expect("its revision was checked"))
            }
            KvOp::Put(put) => self.perform_put(put),
            KvOp::DeleteRange(delete) => self.perform_delete(delete),
            KvOp::Txn(txn) => KvOpReply::Txn(self.perform_txn(txn, path)),
        }
    }

    fn perform_put(&mut self, put: &Put) -> KvOpReply {
        let before = self.get(&put.key);
        let prev_kv = before.filter(|_| put.prev_kv).cloned();
        let kept = || before.expect("what is to be kept was seen to be there");
        let value = if put.ignore_value {
            kept().value.clone()
        } else {
            put.value.clone()
        };
        let lease = if put.ignore_lease {
            kept().lease
        } else {
            put.lease.cast_unsigned()
        };
        self.write_put(&put.key, value, lease);
        KvOpReply::Put { prev_kv }
    }

    fn perform_delete(&mut self, delete: &DeleteRange) -> KvOpReply {
        let hit: Vec<KeyValue> = delete.range.bounds().map_or_else(Vec::new, |bounds| {
            let hit = self.index.live.range::<_, [u8]>(bounds);
            hit.map(|(_, change)| change.version().clone()).collect()
        });
        for kv in &hit {
            self.write_delete(&kv.key);
        }
        KvOpReply::DeleteRange {
            deleted: hit.len() as u64,
            prev_kvs: if delete.prev_kv { hit } else { Vec::new() },
        }
    }
}

/// The operations on the chosen path, in their order, transactions taken apart.
fn choose<'a>(txn: &'a Txn, path: &mut std::slice::Iter<'_, bool>, chosen: &mut Vec<&'a KvOp>) {
    let succeeded = *path.next().expect("every transaction met was decided");
    for op in txn.branch(succeeded) {
        match op {
            KvOp::Txn(nested) => choose(nested, path, chosen),
            op => chosen.push(op),
        }
    }
}

fn keeps_something(put: &Put) -> bool {
    put.ignore_value || put.ignore_lease
}

/// Whether these operations leave the key deleted. The rules on duplicates let a deletion by a nested transaction precede a put.
fn is_deleted_by(ops: &[&KvOp], key: &[u8]) -> bool {
    let last = ops.iter().rev().find(|op| match op {
        KvOp::Put(put) => *put.key == *key,
        KvOp::DeleteRange(delete) => delete.range.contains(key),
        KvOp::Range(_) | KvOp::Txn(_) => false,
    });
    matches!(last, Some(KvOp::DeleteRange(_)))
}

fn check_lease(put: &Put, lives: &dyn Fn(u64) -> bool) -> Result<(), KvError> {
    let lease = put.lease.cast_unsigned();
    if lease != 0 && !lives(lease) {
        return Err(KvError::LeaseNotFound { lease });
    }
    Ok(())
}

fn read_only(key: &[u8]) -> KvError {
    KvError::ReadOnlyKey {
        key: String::from_utf8_lossy(key).into_owned(),
    }
}

/// A value that is not there equals nothing, is less or greater than nothing, and differs from nothing.
fn holds_for_none(compare: &Compare) -> bool {
    !matches!(compare.target, CompareTarget::Value(_)) && holds_for(compare, &KeyValue::default())
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let number = |found: u64, given: i64| found.cast_signed().cmp(&given);
    let ordering = match &compare.target {
        CompareTarget::Version(given) => number(kv.version, *given),
        CompareTarget::Create(given) => number(kv.create_revision, *given),
        CompareTarget::Mod(given) => number(kv.mod_revision, *given),
        CompareTarget::Lease(given) => number(kv.lease, *given),
        CompareTarget::Value(given) => kv.value.cmp(given),
    };
    match compare.result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}
