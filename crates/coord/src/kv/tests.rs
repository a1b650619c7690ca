//! Short forms of requests, and the tests that are of no single file.

mod model;
mod timing;

use super::*;

/// A linear congruential generator (Knuth's MMIX constants): tests need no better one.
pub(super) struct Lcg(pub(super) u64);

impl Lcg {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

pub(super) fn keys(key: &str, range_end: &str) -> KeyRange {
    KeyRange {
        key: key.into(),
        range_end: range_end.into(),
    }
}

pub(super) fn empty_put(key: &str) -> Put {
    Put {
        key: key.into(),
        ..Put::default()
    }
}

pub(super) fn put(key: &str, value: &str) -> KvOp {
    KvOp::Put(Put {
        value: value.into(),
        ..empty_put(key)
    })
}

pub(super) fn put_leased(key: &str, lease: i64) -> KvOp {
    KvOp::Put(Put {
        lease,
        ..empty_put(key)
    })
}

pub(super) fn read(key: &str, range_end: &str) -> Range {
    Range {
        range: keys(key, range_end),
        ..Range::default()
    }
}

pub(super) fn range(key: &str, range_end: &str) -> KvOp {
    KvOp::Range(read(key, range_end))
}

pub(super) fn delete(key: &str) -> KvOp {
    delete_range(key, "")
}

pub(super) fn delete_range(key: &str, range_end: &str) -> KvOp {
    KvOp::DeleteRange(DeleteRange {
        range: keys(key, range_end),
        prev_kv: true,
    })
}

pub(super) fn txn(success: impl IntoIterator<Item = KvOp>) -> KvOp {
    KvOp::Txn(Txn {
        success: success.into_iter().collect(),
        ..Txn::default()
    })
}

/// Executes with every lease alive.
pub(super) fn run(store: &mut KvStore, op: &KvOp) -> KvOpReply {
    let reply = store.execute(op, &|_| true).unwrap();
    store.check_invariants();
    reply
}

/// A store in which each of these was put, one revision each.
pub(super) fn filled(puts: &[(&str, &str)]) -> KvStore {
    let mut store = KvStore::new();
    for (key, value) in puts {
        run(&mut store, &put(key, value));
    }
    store
}

/// The keys and values found, as text.
pub(super) fn pairs(reply: &RangeReply) -> Vec<(String, String)> {
    let text = |blob: &Blob| String::from_utf8(blob.to_vec()).unwrap();
    let kvs = reply.kvs.iter();
    kvs.map(|kv| (text(&kv.key), text(&kv.value))).collect()
}

/// The keys found, in one word.
pub(super) fn found(store: &KvStore, asked: &Range) -> String {
    let reply = store.range(asked).unwrap();
    pairs(&reply).into_iter().map(|(key, _)| key).collect()
}
