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
        for op in chosen {
            match op {
                KvOp::Put(put) => {
                    self.check_put(put)?;
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
        // What etcd does not look for, and stops at: a put that keeps what the transaction itself has deleted by then.
        for (at, op) in chosen.iter().enumerate() {
            if let KvOp::Put(put) = op
                && keeps_something(put)
                && is_deleted_by(&chosen[..at], &put.key)
            {
                return Err(KvError::KeyNotFound);
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

/// Whether these operations leave the key deleted. The rules on duplicates let a deletion without an upper
/// bound precede a put.
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

#[cfg(test)]
mod tests {
    use super::super::tests::{
        delete, delete_range, empty_put, filled, found, keys, put, put_leased, range, read, run,
        txn,
    };
    use super::*;

    fn compare(key: &str, result: CompareResult, target: CompareTarget) -> Compare {
        Compare {
            result,
            target,
            range: keys(key, ""),
        }
    }

    fn holds(store: &KvStore, compare: Compare) -> bool {
        let txn = Txn {
            compare: vec![compare],
            ..Txn::default()
        };
        store.read_txn(&txn).unwrap().succeeded
    }

    #[test]
    fn missing_key_compares_as_zeros_and_its_value_as_nothing() {
        let store = filled(&[("a", "1")]);
        let all = [
            CompareResult::Equal,
            CompareResult::NotEqual,
            CompareResult::Greater,
            CompareResult::Less,
        ];
        for result in all {
            let value = CompareTarget::Value(Blob::default());
            assert!(!holds(&store, compare("missing", result, value)));
        }
        for target in [
            CompareTarget::Version(0),
            CompareTarget::Create(0),
            CompareTarget::Mod(0),
            CompareTarget::Lease(0),
        ] {
            let missing = compare("missing", CompareResult::Equal, target);
            assert!(holds(&store, missing));
        }
    }

    #[test]
    fn condition_on_a_range_holds_if_it_does_for_each_key() {
        let store = filled(&[("a", "1"), ("b", "1"), ("b", "2")]);
        let on = |end: &str, version| Compare {
            result: CompareResult::Equal,
            target: CompareTarget::Version(version),
            range: keys("a", end),
        };
        assert!(holds(&store, on("b", 1)));
        assert!(!holds(&store, on("c", 1)));
        assert!(!holds(&store, on("\0", 1)));
        assert!(holds(&store, on("a", 0)), "no key can be meant");
    }

    #[test]
    fn nested_conditions_are_judged_before_anything_is_written() {
        let mut store = filled(&[]);
        let nested = KvOp::Txn(Txn {
            compare: vec![compare(
                "n",
                CompareResult::Equal,
                CompareTarget::Version(0),
            )],
            success: vec![range("n", "")],
            failure: vec![],
        });
        let KvOpReply::Txn(reply) = run(&mut store, &txn([put("n", "1"), nested])) else {
            panic!("a transaction's answer");
        };
        let KvOpReply::Txn(nested) = &reply.responses[1] else {
            panic!("a nested transaction's answer");
        };
        assert!(nested.succeeded, "the key was not there before");
        let KvOpReply::Range(seen) = &nested.responses[0] else {
            panic!("a read's answer");
        };
        assert_eq!(seen.count, 1, "the read sees the write before it");
    }

    #[test]
    fn transaction_moves_the_revision_by_one_if_it_changed_something() {
        let mut store = filled(&[("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(store.revision(), 4);
        run(&mut store, &txn([delete("missing"), range("a", "")]));
        run(&mut store, &delete("missing"));
        assert_eq!(store.revision(), 4);
        run(&mut store, &txn([put("d", "4"), delete_range("a", "c")]));
        assert_eq!(store.revision(), 5);
        let keys: Vec<_> = store
            .changes(5)
            .map(|change| change.key().clone())
            .collect();
        assert_eq!(keys, ["d".into(), "a".into(), "b".into()]);
    }

    #[test]
    fn refused_transaction_changes_nothing() {
        let mut store = filled(&[("a", "1")]);
        let before = store.clone();
        let future = KvOp::Range(Range {
            revision: 9,
            ..read("a", "")
        });
        let keep = KvOp::Put(Put {
            ignore_value: true,
            ..empty_put("missing")
        });
        let future_refused = KvError::FutureRevision { asked: 9, now: 2 };
        for (ops, refused) in [
            (vec![put("b", "2"), future], future_refused),
            (vec![put("b", "2"), keep], KvError::KeyNotFound),
            (
                vec![put("b", "2"), put_leased("c", 7)],
                KvError::LeaseNotFound { lease: 7 },
            ),
        ] {
            assert_eq!(store.execute(&txn(ops), &|_| false), Err(refused));
            assert_eq!(store, before);
        }
    }

    #[test]
    fn lease_is_looked_at_before_the_key_except_in_a_transaction() {
        let mut store = filled(&[]);
        let put = KvOp::Put(Put {
            lease: 7,
            ignore_value: true,
            ..empty_put("missing")
        });
        let alone = store.execute(&put, &|_| false);
        assert_eq!(alone, Err(KvError::LeaseNotFound { lease: 7 }));
        let within = store.execute(&txn([put]), &|_| false);
        assert_eq!(within, Err(KvError::KeyNotFound));
    }

    #[test]
    fn put_that_keeps_what_the_transaction_deleted_is_refused() {
        let mut store = filled(&[("b", "1")]);
        let keep = KvOp::Put(Put {
            ignore_value: true,
            ..empty_put("b")
        });
        let op = txn([delete_range("a", "\0"), keep]);
        assert_eq!(super::super::check(&op, 8), Ok(()));
        assert_eq!(store.execute(&op, &|_| true), Err(KvError::KeyNotFound));
        assert_eq!(found(&store, &read("b", "")), "b");
    }

    #[test]
    fn key_put_and_deleted_in_one_transaction_leaves_two_changes_and_no_version() {
        let mut store = filled(&[("n", "1")]);
        run(&mut store, &txn([txn([put("n", "2")]), txn([delete("n")])]));
        assert_eq!(store.changes(3).count(), 2);
        assert_eq!(store.get(b"n"), None);
        assert_eq!(store.get_at(b"n", 3), None);
        assert_eq!(store.get_at(b"n", 2).unwrap().version, 1);
        run(&mut store, &put("n", "3"));
        let kv = store.get(b"n").unwrap();
        assert_eq!((kv.create_revision, kv.version), (4, 1));
    }

    #[test]
    fn keeping_the_value_or_the_lease_takes_what_is_there() {
        let mut store = filled(&[]);
        let first = Put {
            value: "v".into(),
            lease: 7,
            ..empty_put("a")
        };
        run(&mut store, &KvOp::Put(first));
        let keep_lease = Put {
            ignore_lease: true,
            value: "w".into(),
            ..empty_put("a")
        };
        run(&mut store, &KvOp::Put(keep_lease));
        let kv = store.get(b"a").unwrap();
        assert_eq!((&*kv.value, kv.lease), (b"w".as_slice(), 7));
        let keep_value = Put {
            ignore_value: true,
            lease: 8,
            ..empty_put("a")
        };
        run(&mut store, &KvOp::Put(keep_value));
        let kv = store.get(b"a").unwrap();
        assert_eq!((&*kv.value, kv.lease), (b"w".as_slice(), 8));
        run(&mut store, &put("a", "x"));
        assert_eq!(store.leases().count(), 0, "a plain put detaches");
    }

    #[test]
    fn keys_of_the_state_machine_are_written_by_it_only() {
        let mut store = filled(&[("a", "1"), ("/quorate0", "1"), ("/quorate", "1")]);
        let own = Blob::from("/quorate/groups/g");
        store.put_own(own.clone(), "{}".into());
        let refused = |key: &str| Err(KvError::ReadOnlyKey { key: key.into() });
        let hits = |op: &KvOp| store.clone().execute(op, &|_| true);
        assert_eq!(hits(&put("/quorate/x", "")), refused("/quorate/x"));
        for op in [
            delete("/quorate/groups/g"),
            delete_range("/", "z"),
            delete_range("\0", "\0"),
            delete_range("/quorate/groups/g", "/quorate/groups/h"),
            txn([put("b", ""), delete_range("/quorate/", "\0")]),
        ] {
            assert_eq!(hits(&op), refused("/quorate/groups/g"), "{op:?}");
        }
        for op in [
            delete("/quorate/groups/missing"),
            delete("/quorate"),
            delete_range("/quorate", "/quorate/"),
            delete_range("/quorate/h", "z"),
            delete_range("/quorate/groups/g", "/quorate/groups/g"),
        ] {
            assert!(hits(&op).is_ok(), "{op:?}");
        }
        store.delete_own(&own);
        assert!(store.execute(&delete_range("/", "z"), &|_| true).is_ok());
    }

    #[test]
    fn transaction_with_a_write_in_any_branch_is_not_read_only() {
        let inner = |success, failure| Txn {
            compare: vec![],
            success,
            failure,
        };
        let reads = inner(vec![range("a", "")], vec![txn([range("b", "")])]);
        assert!(reads.is_read_only());
        assert!(!inner(vec![], vec![put("a", "")]).is_read_only());
        assert!(!inner(vec![txn([delete("a")])], vec![]).is_read_only());
    }
}
