//! Random operations against the simplest key space there is: the list of all events, replayed for each question.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

type Versions = BTreeMap<Vec<u8>, KeyValue>;

/// Every event ever, and the numbers.
#[derive(Clone, Default)]
struct Naive {
    events: Vec<KvChange>,
    revision: u64,
    compaction: Option<u64>,
    leases: BTreeSet<u64>,
}

/// A refusal; of one that is found in the middle of a transaction only the fact is compared.
enum Refused {
    Checked(KvError),
    Midway,
}

fn is_meant(range: &KeyRange, key: &[u8]) -> bool {
    let from: &[u8] = &range.key;
    match &*range.range_end {
        [] => key == from,
        [0] => from <= key,
        end => from <= key && key < end,
    }
}

impl Naive {
    fn at(&self, revision: u64) -> Versions {
        let mut versions = Versions::new();
        for event in &self.events {
            if event.mod_revision() > revision {
                break;
            }
            match event {
                KvChange::Put(kv) => versions.insert(kv.key.to_vec(), kv.clone()),
                KvChange::Delete { key, .. } => versions.remove(&key.to_vec()),
            };
        }
        versions
    }

    fn now(&self) -> Versions {
        self.at(u64::MAX)
    }

    fn last(&self) -> u64 {
        self.events.last().map_or(1, KvChange::mod_revision)
    }

    fn range(&self, asked: &Range) -> Result<RangeReply, KvError> {
        if asked.revision > self.revision as i64 {
            return Err(KvError::FutureRevision {
                asked: asked.revision as u64,
                now: self.revision,
            });
        }
        let compacted = self.compaction.unwrap_or(0);
        if asked.revision > 0 && (asked.revision as u64) < compacted {
            return Err(KvError::Compacted {
                asked: asked.revision as u64,
                compacted,
            });
        }
        let versions = match asked.revision {
            ..=0 => self.now(),
            revision => self.at(revision as u64),
        };
        let mut kvs: Vec<KeyValue> = versions
            .into_values()
            .filter(|kv| is_meant(&asked.range, &kv.key))
            .collect();
        let count = kvs.len() as u64;
        let limits = [
            asked.min_mod_revision,
            asked.max_mod_revision,
            asked.min_create_revision,
            asked.max_create_revision,
        ];
        if asked.limit > 0 && asked.sort_order == SortOrder::None && limits == [0; 4] {
            kvs.truncate(asked.limit as usize + 1);
        }
        kvs.retain(|kv| {
            let (modified, created) = (kv.mod_revision as i64, kv.create_revision as i64);
            (limits[0] == 0 || modified >= limits[0])
                && (limits[1] == 0 || modified <= limits[1])
                && (limits[2] == 0 || created >= limits[2])
                && (limits[3] == 0 || created <= limits[3])
        });
        if asked.count_only {
            kvs.clear();
        }
        match asked.sort_target {
            SortTarget::Key => {}
            SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
            SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
            SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
            SortTarget::Value => kvs.sort_by_key(|kv| kv.value.clone()),
        }
        if asked.sort_order == SortOrder::Descend {
            // Reversed twice where equal: ties stay in the keys' order.
            kvs.reverse();
            match asked.sort_target {
                SortTarget::Key => {}
                SortTarget::Version => retie(&mut kvs, |a, b| a.version == b.version),
                SortTarget::Create => {
                    retie(&mut kvs, |a, b| a.create_revision == b.create_revision);
                }
                SortTarget::Mod => retie(&mut kvs, |a, b| a.mod_revision == b.mod_revision),
                SortTarget::Value => retie(&mut kvs, |a, b| a.value == b.value),
            }
        }
        let more = asked.limit > 0 && kvs.len() as i64 > asked.limit;
        if more {
            kvs.truncate(asked.limit as usize);
        }
        if asked.keys_only {
            for kv in &mut kvs {
                kv.value = Blob::default();
            }
        }
        Ok(RangeReply { kvs, more, count })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let now = self.now();
        let mut meant: Vec<&KeyValue> = now
            .values()
            .filter(|kv| is_meant(&compare.range, &kv.key))
            .collect();
        let zero = KeyValue::default();
        if meant.is_empty() {
            if matches!(compare.target, CompareTarget::Value(_)) {
                return false;
            }
            meant.push(&zero);
        }
        meant.into_iter().all(|kv| {
            let order = match &compare.target {
                CompareTarget::Version(to) => (kv.version as i64).cmp(to),
                CompareTarget::Create(to) => (kv.create_revision as i64).cmp(to),
                CompareTarget::Mod(to) => (kv.mod_revision as i64).cmp(to),
                CompareTarget::Lease(to) => (kv.lease as i64).cmp(to),
                CompareTarget::Value(to) => kv.value.cmp(to),
            };
            match compare.result {
                CompareResult::Equal => order.is_eq(),
                CompareResult::NotEqual => order.is_ne(),
                CompareResult::Greater => order.is_gt(),
                CompareResult::Less => order.is_lt(),
            }
        })
    }

    /// The transaction with each condition replaced by how it ended: judged before anything is written.
    fn flatten(&self, txn: &Txn) -> (bool, Vec<Flat>) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let flat = branch.iter().map(|op| match op {
            KvOp::Txn(txn) => {
                let (succeeded, ops) = self.flatten(txn);
                Flat::Txn(succeeded, ops)
            }
            op => Flat::Op(op.clone()),
        });
        (succeeded, flat.collect())
    }

    fn check_puts(&self, ops: &[Flat], now: &Versions) -> Result<(), KvError> {
        for op in ops {
            match op {
                Flat::Txn(_, ops) => self.check_puts(ops, now)?,
                Flat::Op(KvOp::Put(put)) => {
                    if put.key.starts_with(b"/quorate/") {
                        return Err(read_only(&put.key));
                    }
                    if (put.ignore_value || put.ignore_lease) && !now.contains_key(&*put.key) {
                        return Err(KvError::KeyNotFound);
                    }
                    self.check_lease(put)?;
                }
                Flat::Op(KvOp::DeleteRange(delete)) => {
                    let mut keys = now.keys();
                    let ours = |key: &&Vec<u8>| {
                        key.starts_with(b"/quorate/") && is_meant(&delete.range, key)
                    };
                    if let Some(key) = keys.find(ours) {
                        return Err(read_only(key));
                    }
                }
                Flat::Op(_) => {}
            }
        }
        Ok(())
    }

    fn check_lease(&self, put: &Put) -> Result<(), KvError> {
        let lease = put.lease as u64;
        if lease != 0 && !self.leases.contains(&lease) {
            return Err(KvError::LeaseNotFound { lease });
        }
        Ok(())
    }

    fn check_reads(&self, ops: &[Flat]) -> Result<(), KvError> {
        for op in ops {
            match op {
                Flat::Txn(_, ops) => self.check_reads(ops)?,
                Flat::Op(KvOp::Range(asked)) if asked.revision != 0 => {
                    let oldest = self.compaction.map_or(-1, |at| at as i64);
                    if asked.revision < oldest {
                        return Err(KvError::Compacted {
                            asked: asked.revision.max(0) as u64,
                            compacted: oldest.max(0) as u64,
                        });
                    }
                    if asked.revision > 0 {
                        self.range(asked)?;
                    }
                }
                Flat::Op(_) => {}
            }
        }
        Ok(())
    }

    fn make(&mut self, op: &Flat) -> Result<KvOpReply, Refused> {
        let revision = self.revision + 1;
        match op {
            Flat::Txn(succeeded, ops) => {
                let responses: Result<Vec<_>, _> = ops.iter().map(|op| self.make(op)).collect();
                Ok(KvOpReply::Txn(TxnReply {
                    succeeded: *succeeded,
                    responses: responses?,
                }))
            }
            Flat::Op(KvOp::Range(asked)) => Ok(KvOpReply::Range(
                self.range(asked).map_err(Refused::Checked)?,
            )),
            Flat::Op(KvOp::Put(put)) => {
                let before = self.now().remove(&*put.key);
                if (put.ignore_value || put.ignore_lease) && before.is_none() {
                    return Err(Refused::Midway);
                }
                let kept = before.clone().unwrap_or_default();
                self.events.push(KvChange::Put(KeyValue {
                    key: put.key.clone(),
                    value: if put.ignore_value {
                        kept.value
                    } else {
                        put.value.clone()
                    },
                    create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
                    mod_revision: revision,
                    version: kept.version + 1,
                    lease: if put.ignore_lease {
                        kept.lease
                    } else {
                        put.lease as u64
                    },
                }));
                Ok(KvOpReply::Put {
                    prev_kv: before.filter(|_| put.prev_kv),
                })
            }
            Flat::Op(KvOp::DeleteRange(delete)) => {
                let hit: Vec<KeyValue> = self
                    .now()
                    .into_values()
                    .filter(|kv| is_meant(&delete.range, &kv.key))
                    .collect();
                for kv in &hit {
                    self.delete(&kv.key);
                }
                Ok(KvOpReply::DeleteRange {
                    deleted: hit.len() as u64,
                    prev_kvs: if delete.prev_kv { hit } else { vec![] },
                })
            }
            Flat::Op(KvOp::Txn(_)) => unreachable!("taken apart"),
        }
    }

    fn delete(&mut self, key: &Blob) {
        self.events.push(KvChange::Delete {
            key: key.clone(),
            mod_revision: self.revision + 1,
        });
    }

    fn execute(&mut self, op: &KvOp) -> Result<KvOpReply, Refused> {
        let flat = match op {
            KvOp::Txn(txn) => {
                let (succeeded, ops) = self.flatten(txn);
                let now = self.now();
                self.check_puts(&ops, &now).map_err(Refused::Checked)?;
                self.check_reads(&ops).map_err(Refused::Checked)?;
                Flat::Txn(succeeded, ops)
            }
            op => {
                if let KvOp::Put(put) = op {
                    self.check_lease(put).map_err(Refused::Checked)?;
                }
                let flat = Flat::Op(op.clone());
                let ops = std::slice::from_ref(&flat);
                self.check_puts(ops, &self.now())
                    .map_err(Refused::Checked)?;
                flat
            }
        };
        let before = self.events.len();
        let made = self.make(&flat);
        if made.is_err() {
            self.events.truncate(before);
        }
        self.revision = self.revision.max(self.last());
        made
    }
}

enum Flat {
    Op(KvOp),
    Txn(bool, Vec<Flat>),
}

fn read_only(key: &[u8]) -> KvError {
    KvError::ReadOnlyKey {
        key: String::from_utf8(key.to_vec()).unwrap(),
    }
}

fn retie(kvs: &mut [KeyValue], is_tie: impl Fn(&KeyValue, &KeyValue) -> bool) {
    for run in kvs.chunk_by_mut(|a, b| is_tie(a, b)) {
        run.sort_by(|a, b| a.key.cmp(&b.key));
    }
}

const KEYS: [&str; 9] = [
    "a",
    "ab",
    "b",
    "c",
    "\0",
    "/quorate/",
    "/quorate/x",
    "/quorate0",
    "/q",
];
const ENDS: [&str; 7] = ["", "\0", "b", "c", "d", "a", "/quorate/y"];
const LEASES: [i64; 5] = [0, 0, 1, 2, -3];

impl Lcg {
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn keys(&mut self) -> KeyRange {
        let end = if self.chance(40) { "" } else { self.of(&ENDS) };
        keys(self.of(&KEYS), end)
    }

    /// A revision around those there are; mostly none.
    fn revision(&mut self, naive: &Naive, percent: u64) -> i64 {
        if self.chance(percent) {
            self.below(naive.revision + 4) as i64 - 2
        } else {
            0
        }
    }

    fn read(&mut self, naive: &Naive) -> Range {
        Range {
            range: self.keys(),
            revision: self.revision(naive, 50),
            limit: if self.chance(50) {
                self.below(5) as i64 - 1
            } else {
                0
            },
            sort_order: self.of(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend]),
            sort_target: self.of(&[
                SortTarget::Key,
                SortTarget::Version,
                SortTarget::Create,
                SortTarget::Mod,
                SortTarget::Value,
            ]),
            keys_only: self.chance(10),
            count_only: self.chance(10),
            min_mod_revision: self.revision(naive, 10),
            max_mod_revision: self.revision(naive, 10),
            min_create_revision: self.revision(naive, 10),
            max_create_revision: self.revision(naive, 10),
        }
    }

    fn compare(&mut self, naive: &Naive) -> Compare {
        let number = self.below(4) as i64 - 1;
        let revision = self.revision(naive, 70);
        Compare {
            result: self.of(&[
                CompareResult::Equal,
                CompareResult::NotEqual,
                CompareResult::Greater,
                CompareResult::Less,
            ]),
            target: match self.below(5) {
                0 => CompareTarget::Version(number),
                1 => CompareTarget::Create(revision),
                2 => CompareTarget::Mod(revision),
                3 => CompareTarget::Lease(number),
                _ => CompareTarget::Value(self.of(&["", "x", "y"]).into()),
            },
            range: self.keys(),
        }
    }

    fn op(&mut self, naive: &Naive, depth: u64) -> KvOp {
        match self.below(if depth == 0 { 8 } else { 11 }) {
            0..4 => KvOp::Put(Put {
                key: self.of(&KEYS).into(),
                value: self.of(&["", "x", "y", "z"]).into(),
                lease: self.of(&LEASES),
                prev_kv: self.chance(50),
                ignore_value: self.chance(15),
                ignore_lease: self.chance(15),
            }),
            4..6 => KvOp::DeleteRange(DeleteRange {
                range: self.keys(),
                prev_kv: self.chance(50),
            }),
            6..8 => KvOp::Range(self.read(naive)),
            _ => {
                let ops = |lcg: &mut Self| {
                    let count = lcg.below(5);
                    (0..count).map(|_| lcg.op(naive, depth - 1)).collect()
                };
                KvOp::Txn(Txn {
                    compare: (0..self.below(3)).map(|_| self.compare(naive)).collect(),
                    success: ops(self),
                    failure: ops(self),
                })
            }
        }
    }
}

fn execute(store: &mut KvStore, naive: &mut Naive, op: &KvOp) {
    let leases = naive.leases.clone();
    let before = store.clone();
    let got = store.execute(op, &|lease| leases.contains(&lease));
    match (got, naive.execute(op)) {
        (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{op:?}"),
        (Err(got), Err(Refused::Checked(expected))) if check(op, 99).is_ok() => {
            assert_eq!(got, expected, "{op:?}");
        }
        (Err(_), Err(_)) => {}
        (got, expected) => panic!(
            "{op:?}: {got:?}, refused by the model: {}",
            expected.is_err()
        ),
    }
    if naive.revision == before.revision() {
        assert_eq!(*store, before, "{op:?} changed something");
    }
}

fn compare_all(store: &KvStore, naive: &Naive) {
    store.check_invariants();
    assert_eq!(store.revision(), naive.revision);
    assert_eq!(store.compacted(), naive.compaction.unwrap_or(0));
    let now = naive.now();
    assert_eq!(store.key_count(), now.len() as u64);
    for lease in 1..3 {
        let attached = now.values().filter(|kv| kv.lease == lease);
        let keys: Vec<_> = attached.map(|kv| &kv.key).collect();
        assert_eq!(store.lease_keys(lease).collect::<Vec<_>>(), keys);
    }
    for from in 0..naive.revision + 2 {
        let first = from.max(store.compacted());
        let events = naive.events.iter();
        let expected: Vec<_> = events.filter(|e| e.mod_revision() >= first).collect();
        assert_eq!(store.changes(from).collect::<Vec<_>>(), expected);
    }
    for revision in 0..naive.revision + 2 {
        let is_readable = revision >= store.compacted() && revision <= naive.revision;
        let versions = naive.at(revision);
        for key in KEYS {
            let expected = versions.get(key.as_bytes()).filter(|_| is_readable);
            assert_eq!(store.get_at(key.as_bytes(), revision).as_ref(), expected);
        }
    }
}

fn play(seed: u64, steps: usize) {
    let mut lcg = Lcg(seed);
    let mut store = KvStore::new();
    let mut naive = Naive {
        revision: 1,
        leases: [1, 2].into(),
        ..Naive::default()
    };
    let mut kept: Vec<(KvStore, Naive)> = Vec::new();
    for step in 0..steps {
        match lcg.below(100) {
            0..70 => {
                let op = lcg.op(&naive, 2);
                execute(&mut store, &mut naive, &op);
            }
            70..78 => {
                let asked = lcg.read(&naive);
                assert_eq!(store.range(&asked), naive.range(&asked), "{asked:?}");
            }
            78..81 => {
                let asked = naive.revision as i64 - lcg.below(12) as i64 + 1;
                let done = store.compact(asked);
                let is_past = naive.compaction.map_or(-1, |at| at as i64) >= asked;
                assert_eq!(done.is_ok(), !is_past && asked <= naive.revision as i64);
                if done.is_ok() {
                    naive.compaction = Some(asked as u64);
                }
            }
            81..88 => {
                let (hash, size) = (store.hash(0), store.size_bytes());
                let more = store.sweep(1 + lcg.below(4) as usize);
                assert_eq!(more, store.swept() < store.compacted());
                assert_eq!(store.hash(0), hash);
                assert!(store.size_bytes() <= size);
            }
            88..92 => {
                let lease = 1 + lcg.below(2);
                let now = naive.now();
                for kv in now.values().filter(|kv| kv.lease == lease) {
                    naive.delete(&kv.key);
                }
                let changed = naive.last() > naive.revision;
                naive.revision += u64::from(changed);
                assert_eq!(store.end_lease(lease), changed);
            }
            92..96 => {
                let key = Blob::from("/quorate/x");
                let has_it = naive.now().contains_key(&*key);
                if lcg.chance(40) {
                    store.delete_own(&key);
                    if has_it {
                        naive.delete(&key);
                    }
                } else {
                    // What the model does by a put of its own: the last of several counts.
                    store.begin_own();
                    store.delete_own(&key);
                    store.put_own(key.clone(), "1".into());
                    store.put_own(key.clone(), "2".into());
                    assert!(store.end_own());
                    let put = KvOp::Put(Put {
                        value: "2".into(),
                        ..empty_put("/quorate/x")
                    });
                    assert!(naive.make(&Flat::Op(put)).is_ok());
                }
                naive.revision = naive.revision.max(naive.last());
            }
            96..98 => {
                let bytes = postcard::to_allocvec(&store).unwrap();
                let loaded: KvStore = postcard::from_bytes(&bytes).unwrap();
                assert_eq!(loaded, store);
                store = loaded;
            }
            _ => kept.push((store.clone(), naive.clone())),
        }
        if step % 8 == 0 {
            compare_all(&store, &naive);
        }
    }
    while store.sweep(100) {}
    compare_all(&store, &naive);
    for (store, naive) in kept {
        compare_all(&store, &naive);
    }
}

#[test]
fn random_operations_end_as_in_a_replayed_list_of_events() {
    for seed in 0..60 {
        play(seed, 160);
    }
}

/// For hunting: `QUORATE_SEEDS=5000 cargo test -p quorate-coord more_random -- --ignored`.
#[test]
#[ignore = "minutes"]
fn more_random_operations_end_as_in_a_replayed_list_of_events() {
    let seeds = std::env::var("QUORATE_SEEDS").map_or(2_000, |text| text.parse().unwrap());
    for seed in 1_000..1_000 + seeds {
        play(seed, 160);
    }
}
